"""Real logins on a running system of the test's own: what its sshd lets in (promises 1, 4, 5 and 6)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import fingerprint, new_key
from private_system import PrivateSystem

from firstkey.metadata.emulator import Emulator

pytestmark = [pytest.mark.root, pytest.mark.sshd]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PrivateSystem]:
    """The system, with two users who may log in."""
    scratch = tmp_path / "system"
    scratch.mkdir()
    with PrivateSystem(scratch) as running:
        running.add_user("deploy")
        running.add_user("backup")
        running.set_sshd_config("")
        running.configure("[Keys]\nUsers=deploy\n")
        yield running


def become(service: Emulator, instance: str, *keys: str) -> None:
    """The disk wakes up as another instance."""
    service.change(instance_id=instance, keys=tuple((f"key-{i}", key) for i, key in enumerate(keys)))


def test_the_launch_key_lets_each_configured_user_in_and_nobody_else(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Root and a user, by one key; another user and another key stay out."""
    new_key(keys, "stranger")
    done = system.firstkey("run", "--json", "--user", "root", "--user", "deploy", service=service)
    assert (done.status, done.report["outcome"]) == (0, "ok"), done.err
    system.start_sshd()
    assert system.lets_in("deploy", keys / "launch")
    assert system.lets_in("root", keys / "launch")
    assert not system.lets_in("backup", keys / "launch")
    assert not system.lets_in("deploy", keys / "stranger")


def test_files_in_a_home_are_the_users(system: PrivateSystem, service: Emulator) -> None:
    """Made with the user's own rights: 0700 and 0600, owned by the user."""
    system.firstkey("run", service=service)
    file = system.path(f"{system.homes}/deploy/.ssh/authorized_keys")
    for path, mode in ((file, 0o600), (file.parent, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert (path.stat().st_uid, path.stat().st_gid) == system.ids("deploy")


def test_a_revoked_key_does_not_let_in(
    system: PrivateSystem, service: Emulator, keys: Path, launch: str
) -> None:
    """Another instance: its own launch key and a person's key let in, the earlier launch key does not."""
    system.firstkey("run", service=service)
    mine = new_key(keys, "mine")
    with system.path(f"{system.homes}/deploy/.ssh/authorized_keys").open("a") as file:
        file.write(f"{mine}\n")
    become(service, "i-0000000000000002", new_key(keys, "second"))

    done = system.firstkey("run", "--json", service=service)

    assert done.user("deploy")["revoked"] == [fingerprint(launch)]
    system.start_sshd()
    assert system.lets_in("deploy", keys / "second")
    assert system.lets_in("deploy", keys / "mine")
    assert not system.lets_in("deploy", keys / "launch")


def test_root_is_told_whom_to_log_in_as(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """RedirectRoot: the message, and no shell; the user that it names is let in."""
    system.configure("[Keys]\nUsers=root deploy\nRedirectRoot=yes\n")
    assert system.firstkey("run", service=service).status == 0
    system.start_sshd()
    login = system.ssh("root", keys / "launch", "id", seconds=3)
    assert login.out.strip() == 'Please login as the user "deploy" rather than the user "root".'
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_root_is_not_sent_to_a_user_without_keys(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Where the other user gets no key, root's redirection would lock everybody out."""
    system.path(f"{system.homes}/deploy/.ssh").symlink_to("/root")
    system.configure("[Keys]\nUsers=root deploy\nRedirectRoot=yes\n")
    done = system.firstkey("run", "--json", service=service)
    assert done.user("deploy")["reason"] == "symlink-refused"
    assert "redirect-without-user" in done.err
    system.start_sshd()
    assert system.lets_in("root", keys / "launch")


@pytest.mark.slow
def test_a_user_cannot_undo_the_redirection_of_root(
    system: PrivateSystem, service: Emulator, keys: Path, launch: str
) -> None:
    """Once root is redirected, nothing that a user does to the own home makes root's key plain."""
    system.configure("[Keys]\nUsers=root deploy\nRedirectRoot=yes\n")
    system.firstkey("run", service=service)
    system.run("chmod", "0777", f"{system.homes}/deploy", user="deploy")
    new = new_key(keys, "second")
    become(service, "i-0000000000000001", launch, new)

    assert system.firstkey("run", "--json", service=service).user("deploy")["reason"] == "bad-modes"

    assert all(line.startswith("no-port-forwarding,") for line in system.keys_of("root"))
    assert len(system.keys_of("root")) == 2
    system.firstkey("run", "--user", "root", "--force", service=service)
    assert all('user \\"deploy\\"' in line for line in system.keys_of("root"))


@pytest.mark.slow
def test_redirection_holds_for_an_instance(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """A launch key is installed once an instance: what RedirectRoot= says counts then, and for the next."""
    system.configure("[Keys]\nUsers=root deploy\n")
    system.firstkey("run", service=service)
    plain = system.keys_of("root")
    system.configure("[Keys]\nUsers=root deploy\nRedirectRoot=yes\n")
    assert system.firstkey("run", service=service).status == 0
    assert system.keys_of("root") == plain
    become(service, "i-0000000000000002", (keys / "launch.pub").read_text().strip())
    system.firstkey("run", service=service)
    (line,) = system.keys_of("root")
    assert line.startswith("no-port-forwarding,")


@pytest.mark.slow
def test_keys_in_a_directory_of_all_users_are_roots(
    system: PrivateSystem, service: Emulator, keys: Path, launch: str
) -> None:
    """Sshd takes the file, and the user cannot change what only root is to decide."""
    file = "/etc/ssh/authorized_keys/deploy"
    system.set_sshd_config("AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n")
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["file"]) == (0, file)
    found = system.path(file).stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o644)
    assert system.run("sh", "-c", f"echo x >> {file}", user="deploy").returncode != 0
    system.start_sshd("AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n")
    assert system.lets_in("deploy", keys / "launch")
    assert not system.keys_of("deploy")
    assert launch in system.path(file).read_text()


@pytest.mark.slow
def test_a_directory_of_all_users_that_is_made_for_root_lets_the_others_in(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Root comes first, and could do with a directory that nobody else may read."""
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    done = system.firstkey("run", "--json", "--user", "root", "--user", "deploy", service=service)
    assert (done.status, done.report["outcome"]) == (0, "ok"), done.out
    system.start_sshd(config)
    assert system.lets_in("root", keys / "launch")
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_a_file_outside_the_home_stays_whose_it_is(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """An administrator's file is not given to the user, nor its mode changed; nor a user's file to root."""
    system.set_sshd_config("AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n")
    mine = new_key(keys, "mine")
    system.write("/etc/ssh/authorized_keys/deploy", f"{mine}\n", mode=0o640, owner="root")
    os.chown(system.path("/etc/ssh/authorized_keys/deploy"), 0, system.ids("deploy")[1])
    system.write("/etc/ssh/authorized_keys/backup", f"{mine}\n", mode=0o600, owner="backup")
    done = system.firstkey("run", "--json", "--user", "deploy", "--user", "backup", service=service)
    assert done.status == 0, done.out
    looks = [system.path(f"/etc/ssh/authorized_keys/{name}").stat() for name in ("deploy", "backup")]
    assert [(found.st_uid, found.st_gid) for found in looks] == [
        (0, system.ids("deploy")[1]),
        system.ids("backup"),
    ]
    assert [stat.S_IMODE(found.st_mode) for found in looks] == [0o640, 0o600]
    system.start_sshd("AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n")
    for key in ("launch", "mine"):
        assert system.lets_in("deploy", keys / key)
        assert system.lets_in("backup", keys / key)


@pytest.mark.parametrize("file, directory", [(0o600, 0o755), (0o644, 0o700)])
@pytest.mark.sample(2)
def test_a_file_that_its_user_may_not_read_is_told(
    system: PrivateSystem, service: Emulator, keys: Path, file: int, directory: int
) -> None:
    """Sshd reads it as the user: the key is in, and lets nobody in, until somebody repairs the mode."""
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    there = system.write("/etc/ssh/authorized_keys/deploy", "# mine\n", mode=file, owner="root")
    there.parent.chmod(directory)
    for _ in range(2):
        done = system.firstkey("run", "--json", service=service)
        assert (done.status, done.user("deploy")["reason"]) == (1, "bad-modes")
    system.start_sshd(config)
    assert not system.lets_in("deploy", keys / "launch")
    there.chmod(0o644)
    there.parent.chmod(0o755)
    assert system.firstkey("run", service=service).status == 0
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_a_directory_of_the_users_outside_of_homes_is_served_with_the_users_rights(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Root follows no link that the user could put there; the user's own rights suffice."""
    config = "AuthorizedKeysFile /srv/keys/%u/authorized_keys\n"
    system.set_sshd_config(config)
    place = "/etc/keys-of-users/deploy"
    system.path(place).mkdir(parents=True)
    os.chown(system.path(place), *system.ids("deploy"))
    config = "AuthorizedKeysFile /etc/keys-of-users/%u/authorized_keys\n"
    system.set_sshd_config(config)
    done = system.firstkey("run", "--json", service=service)
    assert done.status == 0, done.out
    assert system.path(f"{place}/authorized_keys").stat().st_uid == system.ids("deploy")[0]
    system.start_sshd(config)
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.parametrize("mode, owner", [(0o1777, "root"), (0o775, "root"), (0o755, "backup")])
@pytest.mark.sample(3)
def test_a_directory_that_strangers_can_change_is_refused(
    system: PrivateSystem, service: Emulator, mode: int, owner: str
) -> None:
    """Whoever can put a file there decides who gets in."""
    system.path("/etc/open").mkdir()
    system.path("/etc/open").chmod(mode)
    os.chown(system.path("/etc/open"), system.ids(owner)[0], 0)
    system.set_sshd_config("AuthorizedKeysFile /etc/open/%u\n")
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["reason"]) == (1, "unsafe-directory")
    assert not list(system.path("/etc/open").iterdir())


@pytest.mark.slow
def test_match_blocks_and_quotes_decide_where_keys_go(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """A file of one user's alone, one by group, and a pattern in quotes."""
    config = (
        'AuthorizedKeysFile "/etc/ssh/keys_of_users/%u" none .ssh/authorized_keys\n'
        "Match User backup\n  AuthorizedKeysFile /etc/ssh/backup_keys\n"
        "Match Group ssh_users\n  AuthorizedKeysFile %h/.ssh/by-group-%U\n"
    )
    system.add_user("grouped")
    group = system.path("/etc/group")
    group.write_text(group.read_text().replace("ssh_users:x:101:", "ssh_users:x:101:grouped"))
    system.set_sshd_config(config)
    names = ("deploy", "backup", "grouped")
    options = [word for name in names for word in ("--user", name)]
    done = system.firstkey("run", "--json", *options, service=service)
    assert done.status == 0, done.out
    uid = system.ids("grouped")[0]
    assert [done.user(name)["file"] for name in names] == [
        "/etc/ssh/keys_of_users/deploy",
        "/etc/ssh/backup_keys",
        f"{system.homes}/grouped/.ssh/by-group-{uid}",
    ]
    system.start_sshd(config)
    for name in names:
        assert system.lets_in(name, keys / "launch")


def test_a_file_that_several_users_share_is_refused(system: PrivateSystem, service: Emulator) -> None:
    """A key in it would let its owner in as any of them."""
    system.set_sshd_config("AuthorizedKeysFile /etc/ssh/all_keys\n")
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["reason"]) == (1, "shared-file")
    assert done.user("deploy")["detail"].endswith("sshd reads the same file for any other user too")
    assert not system.path("/etc/ssh/all_keys").exists()


@pytest.mark.slow
def test_the_first_file_that_is_not_shared_is_taken(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Where sshd reads a shared file and one of the user's, it is clear which."""
    config = "AuthorizedKeysFile /etc/ssh/all_keys .ssh/authorized_keys\n"
    system.set_sshd_config(config)
    assert system.firstkey("run", service=service).status == 0
    system.start_sshd(config)
    assert system.lets_in("deploy", keys / "launch")
    assert not system.lets_in("backup", keys / "launch")


@pytest.mark.slow
def test_a_home_that_only_root_can_write_is_served(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """As for sftp in a chroot: the home and all above belong to root, so root can work there safely."""
    home = system.path(f"{system.homes}/deploy")
    os.chown(home, 0, 0)
    done = system.firstkey("run", "--json", service=service)
    assert done.status == 0, done.out
    file = home / ".ssh/authorized_keys"
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o644)
    system.start_sshd()
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_homes_behind_roots_links_are_served(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """Root may have moved all homes, or one; a trailing slash is no other home."""
    system.path(f"{system.homes}/link").symlink_to(system.homes)
    system.path(f"{system.homes}/one").symlink_to("moved")
    system.path(f"{system.homes}/moved").mkdir()
    system.add_user("all", home=f"{system.homes}/link/all/")
    system.add_user("one", home=f"{system.homes}/one")
    os.chown(system.path(f"{system.homes}/moved"), *system.ids("one"))
    done = system.firstkey("run", "--json", "--user", "all", "--user", "one", service=service)
    assert done.status == 0, done.out
    assert {user["reason"] for user in done.report["users"]} == {None}
    system.start_sshd()
    assert system.lets_in("all", keys / "launch")
    assert system.lets_in("one", keys / "launch")


@pytest.mark.slow
def test_two_names_of_one_user_are_both_served(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """They are one and the same to the kernel; the key is there once."""
    uid = system.ids("deploy")[0]
    system.add_user("twin", home=f"{system.homes}/deploy", uid=uid)
    done = system.firstkey("run", "--json", "--user", "deploy", "--user", "twin", service=service)
    assert (done.status, len(system.keys_of("deploy"))) == (0, 1), done.out
    system.start_sshd()
    assert system.lets_in("twin", keys / "launch")


def test_two_users_with_one_home_are_not(system: PrivateSystem, service: Emulator) -> None:
    """One user's key would let its owner in as the other; the first one gets it."""
    system.add_user("guest", home=f"{system.homes}/deploy")
    done = system.firstkey("run", "--json", "--user", "deploy", "--user", "guest", service=service)
    assert (done.user("deploy")["result"], done.user("guest")["reason"]) == ("changed", "shared-file")


@pytest.mark.slow
def test_a_restricted_line_stays_the_only_one(
    system: PrivateSystem, service: Emulator, keys: Path, launch: str
) -> None:
    """Also where it stands in another file that sshd reads: a second line would undo the restriction."""
    place = f"{system.homes}/deploy/.ssh"
    system.path(place).mkdir(mode=0o700)
    os.chown(system.path(place), *system.ids("deploy"))
    line = f'restrict,command="echo restricted" {launch}\n'
    system.write(f"{place}/authorized_keys2", line, mode=0o600, owner="deploy")
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["added"]) == (0, [])
    assert not system.keys_of("deploy")
    system.start_sshd()
    assert system.ssh("deploy", keys / "launch", "echo", "let in").out == "restricted\n"


@pytest.mark.parametrize(
    "there, expected",
    [
        ((0o600, ""), ("unchanged", None, "authorized_keys2")),
        ((0o666, ""), ("changed", None, "authorized_keys")),
        ((0o666, "no-pty "), ("changed", None, "authorized_keys")),
        ((0o600, "frob "), ("unchanged", "key-line-ignored", "authorized_keys2")),
        ((0o600, 'tunnel="x" '), ("unchanged", "key-line-ignored", "authorized_keys2")),
        ((0o600, "frob OTHER\n"), ("changed", None, "authorized_keys")),
    ],
)
@pytest.mark.sample(6)
def test_what_another_file_is_worth_to_sshd(
    system: PrivateSystem,
    service: Emulator,
    keys: Path,
    there: tuple[int, str],
    expected: tuple[str, str | None, str],
) -> None:
    """A key counts as installed there if sshd lets it in by it; the report names the file, and why not."""
    mode, options = there
    launch = (keys / "launch.pub").read_text().strip()
    place = f"{system.homes}/deploy/.ssh"
    system.path(place).mkdir(mode=0o700)
    os.chown(system.path(place), *system.ids("deploy"))
    line = options.replace("OTHER", new_key(keys, "other")) if "OTHER" in options else f"{options}{launch}\n"
    system.write(f"{place}/authorized_keys2", line, owner="deploy")
    system.path(f"{place}/authorized_keys2").chmod(mode)
    done = system.firstkey("run", "--json", service=service)
    user = done.user("deploy")
    assert (user["result"], user["reason"], user["file"].rsplit("/", 1)[1]) == expected
    assert done.status == (1 if user["reason"] else 0)
    system.start_sshd()
    assert system.lets_in("deploy", keys / "launch") == (user["reason"] is None)
    again = system.firstkey("run", "--json", service=service).user("deploy")
    assert (again["file"], again["added"]) == (user["file"], [])


@pytest.mark.slow
def test_a_key_that_only_signs_certificates_is_added(
    system: PrivateSystem, service: Emulator, keys: Path, launch: str
) -> None:
    """`cert-authority` lets the key itself in nowhere, so its owner would stand before the door."""
    place = f"{system.homes}/deploy/.ssh"
    system.path(place).mkdir(mode=0o700)
    os.chown(system.path(place), *system.ids("deploy"))
    system.write(f"{place}/authorized_keys", f"cert-authority {launch}\n", mode=0o600, owner="deploy")
    system.firstkey("host-keys")
    system.start_sshd()
    assert not system.lets_in("deploy", keys / "launch")
    system.firstkey("run", service=service)
    assert system.keys_of("deploy") == [f"cert-authority {launch}", launch]
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_modes_of_what_firstkey_made_are_mended(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """On a run with nothing else to do, too: sshd would ignore the keys."""
    system.firstkey("run", service=service)
    file = system.path(f"{system.homes}/deploy/.ssh/authorized_keys")
    file.chmod(0o666)
    file.parent.chmod(0o777)
    system.start_sshd()
    assert not system.lets_in("deploy", keys / "launch")
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed")
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_modes_outside_of_a_home_are_mended_by_root(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """The file is root's there, so its user cannot."""
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    system.firstkey("run", service=service)
    file = system.path("/etc/ssh/authorized_keys/deploy")
    file.chmod(0o666)
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    system.start_sshd(config)
    assert system.lets_in("deploy", keys / "launch")


def test_a_home_that_its_user_may_not_enter_matters_to_no_file_outside_of_it(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Only for a file in the home does sshd go into it."""
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    system.path(f"{system.homes}/deploy").chmod(0)
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["reason"]) == (0, None)
    system.start_sshd(config)
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_modes_of_what_a_person_made_are_reported(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """The key is put in all the same; the report says why it does not work, until somebody mends it."""
    home = system.path(f"{system.homes}/deploy")
    home.chmod(0o777)
    for _ in range(2):
        done = system.firstkey("run", "--json", service=service)
        assert (done.status, done.report["outcome"]) == (1, "partial")
        assert done.user("deploy")["reason"] == "bad-modes"
        assert f"{system.homes}/deploy (mode 0777" in done.user("deploy")["detail"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o777
    home.chmod(0o755)
    assert system.firstkey("run", service=service).status == 0
    system.start_sshd()
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_a_home_that_its_own_group_can_write(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """Debian's sshd lets a group write in which there is only the user; others do not. The report knows."""
    system.path(f"{system.homes}/deploy").chmod(0o775)
    done = system.firstkey("run", "--json", service=service)
    system.start_sshd()
    lets_in = system.lets_in("deploy", keys / "launch")
    assert done.user("deploy")["reason"] == (None if lets_in else "bad-modes")
    assert done.status == (0 if lets_in else 1)


@pytest.mark.slow
def test_a_key_moves_with_the_configuration(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """Sshd reads another file by now: port 22 open means that the key works."""
    system.firstkey("run", service=service)
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    assert system.firstkey("run", service=service).status == 0
    system.start_sshd(config)
    assert system.lets_in("deploy", keys / "launch")


@pytest.mark.slow
def test_a_key_that_was_taken_out_does_not_move(system: PrivateSystem, service: Emulator, keys: Path) -> None:
    """Promise 5: what a person took out stays out, also where sshd reads another file by now."""
    system.firstkey("run", service=service)
    system.path(f"{system.homes}/deploy/.ssh/authorized_keys").write_text("# nobody\n")
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"
    system.set_sshd_config(config)
    for _ in range(2):
        assert system.firstkey("run", service=service).status == 0
    system.start_sshd(config)
    assert not system.lets_in("deploy", keys / "launch")
    system.firstkey("run", "--force", service=service)
    assert system.lets_in("deploy", keys / "launch")


HOSTILE = {
    "a link to root's files": "ln -s {root}/.ssh .ssh",
    "a link at the end": "mkdir -m 700 .ssh && ln -s {root}/.ssh/authorized_keys .ssh/authorized_keys",
    "a link to a device": "mkdir -m 700 .ssh && ln -s /dev/zero .ssh/authorized_keys",
    "a pipe": "mkdir -m 700 .ssh && mkfifo .ssh/authorized_keys",
    "a directory": "mkdir -m 700 .ssh && mkdir .ssh/authorized_keys",
    "a file for a directory": "touch .ssh",
    "a directory that cannot be written": "mkdir -m 500 .ssh",
    "a huge file": "mkdir -m 700 .ssh && truncate -s 1G .ssh/authorized_keys",
}


def looks(file: Path) -> tuple[object, ...]:
    """All that a change would show in; that it was read does not."""
    was = file.stat()
    return file.read_text(), was.st_ino, was.st_mode, was.st_uid, was.st_gid, was.st_mtime_ns, was.st_ctime_ns


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.sample(8)
def test_a_hostile_home_gains_nothing(
    system: PrivateSystem, service: Emulator, keys: Path, attack: str
) -> None:
    """Root's files are as they were, the user is refused with a reason, and the others are served."""
    mine = new_key(keys, "mine")
    root = f"{system.homes}/root"
    system.path(f"{root}/.ssh").mkdir(mode=0o700)
    file = system.write(f"{root}/.ssh/authorized_keys", f"{mine}\n", mode=0o600)
    before = looks(file)
    made = system.run("sh", "-c", f"cd {system.homes}/deploy && {attack.format(root=root)}", user="deploy")
    assert made.returncode == 0, made.stderr

    done = system.firstkey("run", "--json", "--user", "deploy", "--user", "backup", service=service)

    assert (done.status, done.report["outcome"]) == (1, "partial")
    assert done.user("deploy")["result"] in ("refused", "failed")
    assert f"{system.homes}/deploy" in done.user("deploy")["detail"]
    assert done.user("backup")["result"] == "changed"
    assert looks(file) == before


# --- accounts ---------------------------------------------------------------------------------------


def test_a_created_user_gets_in_with_groups_and_sudo(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Create=, Groups=, Shell= and Sudo= on a running system; once more changes nothing."""
    system.write("/etc/default/useradd", f"HOME={system.homes}\n")
    system.configure(
        "[Keys]\nUsers=new\n[User new]\nCreate=yes\nGroups=wheel nosuchgroup\nShell=/bin/sh\n"
        "Sudo=ALL=(ALL) NOPASSWD: ALL\n"
    )
    done = system.firstkey("run", "--json", service=service)
    assert done.status == 0, done.out
    assert [(each["result"], each["reason"]) for each in done.report["accounts"]] == [
        ("skipped", "no-such-group"),
        ("changed", None),
        ("changed", None),
    ]
    system.start_sshd()
    assert system.lets_in("new", keys / "launch")
    assert system.ssh("new", keys / "launch", "id", "-nG").out.split() == ["new", "wheel"]
    assert system.ssh("new", keys / "launch", "sudo", "-n", "id", "-u").out == "0\n"
    rule = system.path("/etc/sudoers.d/firstkey-new")
    assert (rule.stat().st_uid, stat.S_IMODE(rule.stat().st_mode)) == (0, 0o440)
    before = (rule.stat(), system.path("/etc/passwd").stat())
    again = system.firstkey("run", "--json", service=service)
    assert [each["result"] for each in again.report["accounts"]] == ["skipped"]
    assert (rule.stat(), system.path("/etc/passwd").stat()) == before


@pytest.mark.slow
def test_a_user_with_the_name_of_a_group_is_created(
    system: PrivateSystem, service: Emulator, keys: Path
) -> None:
    """Useradd by itself would refuse: that group becomes the primary one."""
    system.write("/etc/default/useradd", f"HOME={system.homes}\n")
    system.configure("[Keys]\nUsers=wheel\n[User wheel]\nCreate=yes\nShell=/bin/sh\n")
    assert system.firstkey("run", service=service).status == 0
    system.start_sshd()
    assert system.ssh("wheel", keys / "launch", "id", "-nG").out.split() == ["wheel"]
