"""Asking OpenSSH: what an image's configuration means, with nothing of the host touched for it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import places
import processes
import pytest

from firstkey import reasons
from firstkey.model import Account
from firstkey.ssh import restrictions, sshd_config
from firstkey.ssh.sshd_config import Effective
from firstkey.system import command, inspector, sshd
from firstkey.system.sshd import Meaning, Sshd
from firstkey.system.sshd_tree import TreeSshd, key_files, where
from firstkey.system.tree import Tree

pytestmark = pytest.mark.sshd
CONFIG = "/etc/ssh/sshd_config"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a configuration of sshd."""
    (tmp_path / "root" / "etc" / "ssh").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    """The same image, open."""
    with Tree(str(root)) as opened:
        yield opened


def write(root: Path, text: str | bytes, path: str = CONFIG) -> None:
    """Put a file of the configuration into the image."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def meaning(tree: Tree, user: str = "user") -> Effective:
    """What the image's configuration means, which must be known."""
    found = TreeSshd(tree).meaning(user)
    assert found.refusal is None, found.refusal
    return found.effective


def refused(tree: Tree) -> Meaning:
    """OpenSSH's defaults, with the reason why they are taken."""
    found = TreeSshd(tree).meaning("user")
    assert found.effective is sshd_config.DEFAULTS
    assert found.refusal
    return found


def test_an_empty_configuration_means_the_defaults(root: Path, tree: Tree) -> None:
    """Among them the host keys, which the scratch key that sshd needs to speak at all would hide."""
    write(root, "# nothing\n\n")
    found = meaning(tree)
    assert found.authorized_keys_files == (".ssh/authorized_keys", ".ssh/authorized_keys2")
    known = len(sshd_config.DEFAULTS.host_keys)
    assert found.host_keys[:known] == sshd_config.DEFAULTS.host_keys  # OpenSSH 10.4 has one more


@pytest.mark.parametrize(
    "text, asked",
    [
        ("", 1),
        ("#Match User anoncvs\nBanner /etc/match\n", 1),
        ("Match User ann\nAuthorizedKeysFile /a\n", 2),
        (" \tMATCH all\nAuthorizedKeysFile /a\n", 1),
        ("match=user ann\nAuthorizedKeysFile /a\n", 2),
        ("Match Group wheel,!x\nAuthorizedKeysFile /a\n", 2),
        ("Match User b*,!x\nAuthorizedKeysFile /a\nMatch User root\nBanner /b\n", 3),
        ("Include conf.d/*.conf\n", 2),
    ],
)
@pytest.mark.sample(3)
def test_sshd_is_asked_no_more_than_its_answers_can_differ(
    root: Path, tree: Tree, text: str, asked: int
) -> None:
    """Who is told the same by each Match block gets the same answer: a tree may have thousands of users."""
    write(root, text)
    write(root, "Match User ben\nAuthorizedKeysFile /b\n", "/etc/ssh/conf.d/1.conf")
    write(root, "wheel:x:4001:ann\n", "/etc/group")
    write(root, "ann:x:1:1::/:/bin/sh\nben:x:2:2::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n", "/etc/passwd")
    asking = TreeSshd(tree)
    meanings = [asking.meaning(user) for user in ("ann", "ben", "root", "ann")]
    assert all(found.refusal is None for found in meanings)
    assert len(set(map(id, meanings))) == asked


@pytest.mark.parametrize("address", ["some.name", "some.name:22", "localhost", "[::1]:22", "192.0.2.7"])
def test_no_name_in_a_configuration_is_looked_up(root: Path, tree: Tree, address: str) -> None:
    """An image may listen on a name that only its own network knows; nobody's DNS is asked for it here."""
    write(root, f"ListenAddress {address}\nPermitRootLogin no\n")
    assert restrictions.permit_root_login(meaning(tree)) == "no"


@pytest.mark.parametrize("lines", [f"/etc/{'*/../' * 12}*.conf\n", "/etc/*/../*/../no*\n" * 40])
def test_patterns_that_multiply_come_to_an_end(root: Path, tree: Tree, lines: str) -> None:
    """Each `*/..` would match every directory once more, whether anything matches in the end or not."""
    for number in range(20):
        (root / "etc" / f"d{number}").mkdir(parents=True)
    write(root, "".join(f"Include {line}\n" for line in lines.split()))
    refusal = refused(tree).refusal
    assert refusal is not None
    assert "match too much" in refusal.detail


def test_groups_are_the_trees_own(root: Path, tree: Tree) -> None:
    """An image's accounts are in its groups; the host, whose sshd is asked, has others or none."""
    write(
        root,
        "ann:x:4001:4001::/:/bin/sh\nben:x:4002:4002::/:/bin/sh\nroot:x:0:0::/root:/bin/sh\n",
        "/etc/passwd",
    )
    write(root, "ann:x:4001:\nben:x:4002:\nadm:x:4:ben\nroot:x:4003:\n", "/etc/group")
    write(root, "Include groups.conf\nMatch Group adm\nAuthorizedKeysFile /adm\n")
    write(root, "Match Group ann,root\nAuthorizedKeysFile /ann\n", "/etc/ssh/groups.conf")
    files = [meaning(tree, user).authorized_keys_files for user in ("ann", "ben", "root")]
    assert files == [("/ann",), ("/adm",), sshd_config.DEFAULTS.authorized_keys_files]


def test_sshd_decides_what_a_line_means(root: Path, tree: Tree) -> None:
    """The first value counts, a Match block only for its user, an Include where it stands, sorted by name."""
    write(root, "Include conf.d/*.conf\nPermitRootLogin yes\nMatch User user\nAuthorizedKeysFile /keys/%u\n")
    write(root, "PermitRootLogin no\n", "/etc/ssh/conf.d/10-first.conf")
    write(root, "PermitRootLogin forced-commands-only\n", "/etc/ssh/conf.d/20-second.conf")
    write(root, "PermitRootLogin yes\n", "/etc/ssh/conf.d/.hidden.conf")
    write(root, "PermitRootLogin yes\n", "/etc/ssh/conf.d/00-other.txt")
    assert meaning(tree).authorized_keys_files == ("/keys/%u",)
    assert meaning(tree, "other").authorized_keys_files != ("/keys/%u",)
    assert restrictions.permit_root_login(meaning(tree)) == "no"


def test_the_images_host_keys_are_told_and_not_opened(root: Path, tree: Tree) -> None:
    """The paths as the image writes them, whatever stands at these paths on the host."""
    trap = root.parent / "trap"
    os.mkfifo(trap)
    write(root, f'HostKey /etc/ssh/mine\nHostKey "/etc/ssh/my key"\nhostkey={trap}\nHostDSAKey /old # x\n')
    assert meaning(tree).host_keys == ("/etc/ssh/mine", "/etc/ssh/my key", str(trap), "/old")


def test_include_stays_inside_the_image(root: Path, tree: Tree) -> None:
    """Absolute paths and links are the image's, however they are written."""
    outside = root.parent / "outside"
    outside.write_text("PermitRootLogin yes\n")
    write(root, f"Include {outside}\nInclude ../../../..{outside}\nInclude /etc/link\nPermitRootLogin no\n")
    (root / "etc" / "link").symlink_to(outside)
    assert restrictions.permit_root_login(meaning(tree)) == "no"
    write(root, "PermitRootLogin forced-commands-only\n", str(outside))
    assert restrictions.permit_root_login(meaning(tree)) == "forced-commands-only"


SHADOW = "root:$6$secret:1::::::\n"


@pytest.mark.parametrize(
    "line",
    [
        '"Include" {0}', 'Incl"ude" {0}', "=Include {0}", "\x0cInclude {0}", "\x0bInclude {0}",
        '"Include {0}', "Include\0{0}", "InclUde{0}",
        'HostKey "{0}', "HostKey a b", "HostKey",
    ],
)  # fmt: skip
def test_a_line_that_may_mean_what_cannot_be_seen_is_not_put_to_sshd(
    root: Path, tree: Tree, line: str
) -> None:
    """A keyword may stand behind quotes and more; nothing of the host's is read for it, or told."""
    secret = root.parent / "shadow"
    secret.write_text(SHADOW)
    write(root, "PermitRootLogin no\n" + line.format(secret) + "\n")
    found = refused(tree)
    assert found.refusal
    assert found.refusal.reason is reasons.SSHD_CONFIG_INVALID
    assert "sshd_config:2" in found.refusal.detail
    assert "secret" not in found.refusal.detail


@pytest.mark.parametrize("how", ["itself", "two", "pattern"])
def test_include_that_goes_round_is_rejected_as_sshd_rejects_it(root: Path, tree: Tree, how: str) -> None:
    """A loop ends, and the reason says that sshd will not start like this."""
    if how == "itself":
        write(root, "Include sshd_config\n")
    elif how == "two":
        write(root, "Include /etc/ssh/other\n")
        write(root, "Include sshd_config\n", "/etc/ssh/other")
    else:
        write(root, "Include *\n")
    found = refused(tree)
    assert found.refusal
    assert found.refusal.reason is reasons.SSHD_CONFIG_INVALID
    assert "firstkey-scratch" not in found.refusal.detail


@pytest.mark.parametrize(
    "text, said",
    [
        ("Prot0col 2\nPermitRootLogin no\nUseDMS no\n", "line 3: Bad configuration option: Prot0col"),
        ("UsePrivilegeSeparation no\nPermitRootLogin maybe\n", 'line 4: unsupported option "maybe".'),
        ("Ciphers rot13\n", "line 3: Bad SSH2 cipher spec 'rot13'."),
    ],
)
def test_the_line_that_sshd_rejects_is_named(root: Path, tree: Tree, text: str, said: str) -> None:
    """By its place in the image, not in the copy that sshd reads; what only warns is passed over."""
    write(root, "Include sshd_config.d/*.conf\n")
    write(root, "PrintMotd no\n", "/etc/ssh/sshd_config.d/1.conf")
    write(root, f"# ours\n\n{text}", "/etc/ssh/sshd_config.d/2.conf")
    found = refused(tree)
    assert found.refusal
    assert found.refusal.reason is reasons.SSHD_CONFIG_INVALID
    detail = found.refusal.detail.replace("conf: line", "conf line")
    assert detail == f"sshd rejects its configuration: /etc/ssh/sshd_config.d/2.conf {said}"


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "large", "binary"])
def test_odd_files_of_the_configuration_hold_nobody_up(root: Path, tree: Tree, kind: str) -> None:
    """A pipe is not waited for; the defaults stand in, with a reason."""
    file = root / "etc" / "ssh" / "sshd_config"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    elif kind == "link":
        file.symlink_to("sshd_config")
    elif kind == "large":
        file.write_bytes(b"#\n" * sshd.LIMIT)
    else:
        file.write_bytes(os.urandom(1000) + b"\n\xff\n")
    assert refused(tree).refusal


def test_no_configuration_and_no_sshd(root: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told, and are something else than a configuration that is wrong."""
    found = refused(tree).refusal
    assert found
    assert (found.reason, "does not exist" in found.detail) == (reasons.SSHD_MISSING, True)
    monkeypatch.setattr(command, "SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    write(root, "")
    found = refused(tree).refusal
    assert found
    assert (found.reason, found.detail) == (reasons.SSHD_MISSING, "sshd is not installed")


def test_nothing_in_a_configuration_is_run(root: Path, tree: Tree) -> None:
    """Commands are not run, agents not connected to, and sshd's Match knows no exec (sshd_config(5))."""
    ran = root.parent / "ran"
    agent = root.parent / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(agent))
        listening.listen()
        listening.setblocking(False)
        write(
            root,
            f"HostKeyAgent {agent}\nHostCertificate /etc/shadow\nAuthorizedKeysCommand /bin/touch {ran}\n"
            f"AuthorizedKeysCommandUser root\nForceCommand /bin/touch {ran}\nBanner /etc/shadow\n"
            f"SecurityKeyProvider /nonexistent.so\nUseDNS yes\n",
        )
        meaning(tree)
        with pytest.raises(BlockingIOError):
            listening.accept()
    write(root, f'Match exec "touch {ran}"\nPermitRootLogin no\n')
    assert refused(tree).refusal
    assert not ran.exists()


@pytest.mark.root
@pytest.mark.skipif(bool(places.missing_for_strace()), reason=str(places.missing_for_strace()))
def test_sshd_opens_nothing_of_the_hosts_for_an_image(root: Path, tmp_path: Path) -> None:
    """Every path in a hostile configuration leads to a trap on the host, and none is opened."""
    trap = tmp_path / "trap"
    trap.mkdir()
    keywords = [
        "HostKey", "HostCertificate", "HostKeyAgent", "TrustedUserCAKeys", "RevokedKeys", "Banner",
        "ModuliFile", "PidFile", "Include", "ChrootDirectory", "XAuthLocation", "SecurityKeyProvider",
        "AuthorizedPrincipalsFile", "AuthorizedKeysFile",
    ]  # fmt: skip
    write(root, "".join(f"{keyword} {trap}/{keyword}\n" for keyword in keywords))
    for keyword in keywords:
        (trap / keyword).write_text("x")
    code = """
        import sys
        from firstkey.system.sshd_tree import TreeSshd
        from firstkey.system.tree import Tree
        with Tree(sys.argv[1]) as tree:
            print(TreeSshd(tree).meaning("root").effective.host_keys)
    """
    log = tmp_path / "log"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=%file,connect", "-o", log, *processes.program(code, root)],
        capture_output=True,
        text=True,
        check=True,
        env=processes.environment(),
    )
    assert done.stdout == f"('{trap}/HostKey',)\n"
    text = log.read_text()
    assert "sshd" in text
    assert [line for line in text.splitlines() if f'"{trap}/' in line] == []


def test_words_of_a_configuration_make_no_directory(root: Path, tree: Tree) -> None:
    """It is repeated by sshd where that does not understand it, and is no order to make what it names."""
    made = root.parent / "made"
    write(root, f'"Missing privilege separation directory: {made}" yes\n')
    refused(tree)
    write(root, f"Missing privilege separation directory: {made}\n")
    refused(tree)
    before = os.listdir(root.parent)
    write(root, f'PermitRootLogin "Missing privilege separation directory: {made}"\n')
    found = refused(tree).refusal
    assert found
    assert "Missing privilege separation directory" in found.detail, "sshd repeats it"
    assert os.listdir(root.parent) == before


SEPARATION = """
    import os, sys
    from firstkey.system.sshd_tree import TreeSshd
    from firstkey.system.tree import Tree
    with Tree(sys.argv[2]) as tree:
        print(TreeSshd(tree).meaning("root").refusal, os.listdir(sys.argv[1]))
"""


@pytest.mark.root
def test_debians_missing_directory_is_made(root: Path) -> None:
    """On a fresh boot /run/sshd is not there yet; sshd wants it to exist even to be asked."""
    write(root, "PermitRootLogin no\n")
    said = places.run_on_tmpfs(SEPARATION, Path("/run"), root)
    assert said.startswith("None ")
    assert said in ("None ['sshd']\n", "None []\n")


def test_a_program_that_hangs_is_given_up(
    root: Path, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An sshd that does not end costs its time limit, and the defaults stand in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sshd").write_text("#!/bin/sh\nsleep 60\n")
    (programs / "sshd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(inspector, "SECONDS", 0.3)
    write(root, "")
    found = refused(tree).refusal
    assert found
    assert found.reason is reasons.TIMED_OUT


def test_nothing_is_left_of_a_question(
    root: Path, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither scratch directories nor descriptors, whether it ends well or badly."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(command, "SCRATCH_PLACES", (str(place),))
    before = os.listdir("/proc/self/fd")
    write(root, "PermitRootLogin no\n")
    meaning(tree)
    write(root, "Nonsense\n")
    refused(tree)
    assert os.listdir(place) == []
    assert os.listdir("/proc/self/fd") == before


ANN = Account("ann", 1000, 1000, "/home/ann", "/bin/sh")


@pytest.mark.parametrize(
    "version, files",
    [
        ("OpenSSH_10.2p1", ["/k/1.pub", "/k/2.pub"]),
        ("OpenSSH_9.9", ["/k/*.pub"]),
        ("dropbear", ["/k/*.pub", "/k/1.pub", "/k/2.pub"]),
    ],
)
def test_patterns_are_looked_into_by_an_sshd_that_does_so(
    root: Path, tree: Tree, version: str, files: list[str]
) -> None:
    """From OpenSSH 10 on; where nobody knows the version, both may be meant."""
    for path in ("/k/1.pub", "/k/2.pub", "/k/.3.pub", "/k/x", "/home/ann/k"):
        write(root, "", path)
    write(root, f"\0{version} Debian\0", "/usr/sbin/sshd")
    found = key_files(TreeSshd(tree), ANN, ["/k/*.pub", "k", "none-there"])
    assert found == [*files, "/home/ann/k", "/home/ann/none-there"]


@pytest.mark.parametrize("place", ["/usr/etc/ssh/sshd_config", "/etc/openssh/sshd_config", "/etc/alt"])
def test_the_main_file_may_be_elsewhere(root: Path, tree: Tree, place: str) -> None:
    """As openSUSE and ALT Linux have it, or as the unit's -f says; what it includes is beside."""
    write(root, "Include x.conf\nPermitRootLogin no\n", place)
    directory = "/etc/openssh" if "openssh" in place else "/etc/ssh"
    write(root, "AuthorizedKeysFile /x/%u\n", f"{directory}/x.conf")
    if place == "/etc/alt":
        write(root, "PermitRootLogin yes\n")
        write(root, "[Service]\nExecStart=/usr/sbin/sshd -D -f /etc/alt\n", "/etc/systemd/system/ssh.service")
    found = meaning(tree)
    assert (restrictions.permit_root_login(found), found.authorized_keys_files) == ("no", ("/x/%u",))
    assert str(where(TreeSshd(tree), "PermitRootLogin")) == f"{place}:2"


def test_options_of_the_unit_count_first(root: Path, tree: Tree) -> None:
    """They mean the same as lines before the first one."""
    write(root, "PermitRootLogin yes\n")
    unit = "[Service]\nEnvironment=X=-oPermitRootLogin=no\nExecStart=/usr/sbin/sshd -D $X -h /etc/k -p 23\n"
    write(root, unit, "/usr/lib/systemd/system/sshd.service")
    found = meaning(tree)
    assert (restrictions.permit_root_login(found), found.host_keys, found.first("port")) == (
        "no",
        ("/etc/k",),
        "23",
    )
    assert TreeSshd(tree).start.options == ("-o", "PermitRootLogin=no", "-h", "/etc/k", "-p", "23")


def test_an_sshd_that_knows_more_is_asked_without_a_key(
    root: Path, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own default host keys are told then, types that firstkey has never heard of included."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sshd").write_text('#!/bin/sh\n[ "$1" = -G ] && echo hostkey /etc/ssh/ssh_host_mldsa44_key\n')
    (programs / "sshd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    write(root, "")
    assert meaning(tree).host_keys == ("/etc/ssh/ssh_host_mldsa44_key",)


def test_an_older_sshd_is_asked_once_for_what_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer says that there is no -G; from then on each question is one program."""
    (tmp_path / "sshd").write_text("#!/bin/sh\n")
    (tmp_path / "sshd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked: list[str] = []

    def run(argv: Sequence[str], _stdin: bytes) -> command.Outcome:
        asked.append(argv[1])
        is_known = argv[1] != "-G"
        return command.Outcome(int(not is_known), b"", b"" if is_known else b"unknown option -- G")

    for _ in range(2):
        sshd.asked([], run)
    assert asked == ["-G", "-T", "-T"]


def test_a_boot_goes_by_the_unit_that_listens(root: Path, tree: Tree) -> None:
    """Else by the one for a connection. Of an image whose units differ, nothing is known."""
    place = "/usr/lib/systemd/system"
    write(root, "[Service]\nExecStart=-/usr/sbin/sshd -i -p24\n", f"{place}/sshd@.service")
    assert Sshd(tree).start.options == TreeSshd(tree).start.options == ("-p", "24")
    write(root, "[Service]\nExecStart=/usr/sbin/sshd -D -p 23\n", f"{place}/ssh.service")
    assert Sshd(tree).start.options == ("-p", "23")
    assert "differ" in str(TreeSshd(tree).start.unknown)


def test_a_configuration_is_known_again(root: Path, tree: Tree) -> None:
    """Where there is none, it may be in a place that nobody knows."""
    assert Sshd(tree).digest() is TreeSshd(tree).digest() is None
    unit = "[Service]\nExecStart=/usr/sbin/sshd -D {}\n"
    seen = []
    for path, text in (
        (CONFIG, "Include x.conf\n"),
        ("/etc/ssh/x.conf", "UsePAM yes\n"),
        ("/etc/ssh/x.conf", "UsePAM no\n"),
        ("/etc/systemd/system/ssh.service", unit.format("-p 23")),
    ):
        write(root, text, path)
        seen.append(TreeSshd(tree).digest())
        assert seen[-1] == Sshd(tree).digest()
    assert len(set(seen)) == 4
    assert None not in seen
    write(root, unit.format("--strange"), "/etc/systemd/system/ssh.service")
    assert Sshd(tree).digest() is None
    assert TreeSshd(tree).digest() is None
