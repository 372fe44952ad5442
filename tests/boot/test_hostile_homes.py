"""Homes of hostile users on a running system, and storage that refuses, against the real `firstkey run`.

Nothing outside the user's reach is read, written, made, chowned or chmodded (promise 4), what was there stays
(promise 3), and the others are served.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import hostile_homes
import pytest
from hostile_homes import MALLORY, OUTSIDE, VICTIM, untouched
from machine import Run
from places import missing_for_strace
from private_system import PrivateSystem
from probe import looks

from firstkey.metadata.emulator import Emulator

pytestmark = [pytest.mark.root, pytest.mark.sshd]

MEMORY_LIMIT = 128 * 1024
"""KiB; a file of keys may have 4 MiB, which stand in memory some times over while it is merged."""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PrivateSystem]:
    """A system with a good user, and with files outside that are to be left alone."""
    scratch = tmp_path / "system"
    scratch.mkdir()
    with PrivateSystem(scratch) as running:
        running.add_user("good")
        running.set_sshd_config("")
        running.configure("[Keys]\nUsers=good\n")
        hostile_homes.furnish_outside(running)
        yield running


def options(names: list[str]) -> list[str]:
    """What makes `firstkey run` serve these users, and the good one after them."""
    return ["--json", *(word for name in (*names, "good") for word in ("--user", name))]


def run(system: PrivateSystem, service: Emulator, *names: str) -> Run:
    """`firstkey run` for these users, after which the good one has the key."""
    done = system.firstkey("run", *options([*names]), service=service)
    assert done.user("good")["result"] == "changed", done.err
    return done


# --- what stands there ------------------------------------------------------------------------------

REFUSED = {"symlink-refused", "not-a-regular-file", "not-a-directory", "permission-denied", "home-missing"}


def test_whatever_stands_in_place_of_a_component(system: PrivateSystem, service: Emulator) -> None:
    """Pipes, sockets, devices, links to others' files and more, for each: refused, with the path."""
    homes = hostile_homes.standing_in_place(system)
    with untouched(system):
        done = run(system, service, *(home.name for home in homes))
    for home in homes:
        found = done.user(home.name)
        assert found["result"] in ("refused", "failed"), found
        assert found["reason"] in REFUSED, found
        assert home.top in found["detail"], found
    assert len(homes) == 4 * 9


@pytest.mark.slow
def test_other_names_of_others_files(system: PrivateSystem, service: Emulator) -> None:
    """A hard link that a kernel without fs.protected_hardlinks lets a user make: cut, or refused."""
    names = {}
    for whose in hostile_homes.OWNERS:
        home = hostile_homes.account(system, f"hard-{whose}")
        hostile_homes.build(system, home, until="file")
        target = system.path(f"{OUTSIDE}/{whose}/authorized_keys")
        os.link(target, system.path(home.places["file"]))
        names[whose] = (home.name, target, target.stat(), target.read_text())
    done = run(system, service, *(name for name, *_ in names.values()))
    for whose, (name, target, before, content) in names.items():
        after = target.stat()
        assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
            before.st_mode,
            before.st_uid,
            before.st_mtime_ns,
        )
        assert target.read_text() == content
        assert done.user(name)["result"] == ("failed" if whose == "root" else "changed"), whose


@pytest.mark.slow
def test_homes_that_belong_to_others(system: PrivateSystem, service: Emulator) -> None:
    """Refused, unless everybody may write there; and then the report says that sshd will not heed it."""
    system.add_account("closed", f"{OUTSIDE}/victim/home", MALLORY)
    before = looks(system.path(OUTSIDE))
    done = run(system, service, "closed")
    assert looks(system.path(OUTSIDE)) == before
    assert done.user("closed")["reason"] == "permission-denied"
    place = system.path(f"{system.homes}/common")
    place.mkdir()
    place.chmod(0o777)
    os.chown(place, VICTIM, VICTIM)
    system.add_account("careless", f"{system.homes}/common", MALLORY)
    done = system.firstkey("run", *options(["careless"]), service=service)
    assert done.user("careless")["reason"] == "bad-modes"
    assert (place / ".ssh").stat().st_uid == MALLORY
    assert place.stat().st_mode & 0o777 == 0o777


# --- storage that refuses ---------------------------------------------------------------------------

STORAGE = {
    "full": ("size=64k", "dd if=/dev/zero of={home}/filler bs=4k count=100 2>/dev/null || true", "no-space"),
    "no-inodes": ("nr_inodes=6", "touch {home}/1 {home}/2 {home}/3 {home}/4 2>/dev/null || true", "no-space"),
    "read-only": ("size=1m", "mount -o remount,ro {home}", "read-only"),
    "immutable": ("size=1m", "chattr +i {home}/.ssh/authorized_keys", "read-only"),
    "frozen": ("size=1m", "chattr +i {home}/.ssh", "read-only"),
    "over-quota": (
        "size=1m,usrquota,usrquota_block_hardlimit=8k,usrquota_inode_hardlimit=4",
        "setpriv --reuid={uid} --clear-groups touch {home}/1 {home}/2 {home}/3 2>/dev/null || true",
        "no-space",
    ),
}


@pytest.mark.parametrize("kind", STORAGE)
@pytest.mark.sample(3)
def test_storage_that_refuses_keeps_what_was_there(
    system: PrivateSystem, service: Emulator, kind: str
) -> None:
    """The old file, its reason, and nothing lying about; whoever has room is served."""
    mount, spoil, reason = STORAGE[kind]
    home = hostile_homes.account(system, kind)
    hostile_homes.build(system, home, until="ssh")
    place = home.places["home"]
    made = system.run(
        "mount", "-t", "tmpfs", "-o", f"{mount},mode=0755,uid={MALLORY},gid={MALLORY}", "none", place
    )
    if made.returncode:
        pytest.skip(f"this kernel has no such tmpfs: {made.stderr.strip()}")
    ssh = system.path(home.places["ssh"])
    ssh.mkdir(0o700)
    file = ssh / "authorized_keys"
    file.write_text("# mallory's\n" * 200)
    for path in (ssh, file):
        os.chown(path, MALLORY, MALLORY)
    spoiled = system.run("sh", "-c", spoil.format(home=place, uid=MALLORY))
    if spoiled.returncode:
        pytest.skip(f"cannot be had on this tmpfs: {spoiled.stderr.strip()}")
    before = looks(ssh)

    done = run(system, service, kind)

    assert done.user(kind)["reason"] == reason, done.user(kind)
    after = looks(ssh)
    # A full directory is written to and emptied again, which its own times show.
    assert after.pop(str(ssh)).mode == before.pop(str(ssh)).mode
    assert after == before
    system.run("chattr", "-R", "-i", place)


SQUASHING = "-dac_override,-dac_read_search"
"""Without the right to pass by modes, root is nobody there, as on a file system that squashes root."""


def run_squashed(system: PrivateSystem, service: Emulator) -> Run:
    """A run to which the home of the user `squashed` is closed, but for that user's own rights."""
    done = system.run(
        "setpriv", f"--bounding-set={SQUASHING}", f"--inh-caps={SQUASHING}", sys.executable,
        "-m", "firstkey", "run", "--imds", service.url, *options(["squashed"]),
    )  # fmt: skip
    return Run(done.returncode, done.stdout, done.stderr)


def test_homes_that_root_cannot_enter_are_served(
    system: PrivateSystem, service: Emulator, launch: str
) -> None:
    """With the user's own rights."""
    home = hostile_homes.account(system, "squashed")
    hostile_homes.build(system, home)
    for component in ("parent", "home"):
        system.path(home.places[component]).chmod(0o755 if component == "parent" else 0o700)
    done = run_squashed(system, service)
    assert done.user("squashed")["result"] == "changed", done.err
    assert system.path(home.places["file"]).read_text() == f"# mallory's\n{launch}\n"


def test_where_root_cannot_enter_the_users_own_refusal_counts(
    system: PrivateSystem, service: Emulator
) -> None:
    """A file system that is read-only for now is tried again; what root may not do says nothing of that."""
    home = hostile_homes.account(system, "squashed")
    hostile_homes.build(system, home)
    place = home.places["home"]
    system.path(home.places["parent"]).chmod(0o755)
    system.path(place).chmod(0o700)
    assert not system.run("mount", "--bind", place, place).returncode
    assert not system.run("mount", "-o", "remount,bind,ro", place).returncode
    assert run_squashed(system, service).user("squashed")["reason"] == "read-only"


MEASURING = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.stdout.flush()
sys.stdout.buffer.write(done.stdout)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, last", [("#\n", ""), ("\0\r\n", "x"), (f"{'pty,' * 1000000}pty ", "KEY"), ("restrict KEY\n", "")]
)
def test_a_file_as_large_as_may_be(
    system: PrivateSystem, service: Emulator, launch: str, line: str, last: str
) -> None:
    """Over a million lines, or one with a million options before the launch key: it costs time and memory
    in proportion, all stays byte for byte, and the other users are served.
    """
    key = " ".join(launch.split()[:2])
    line, last = line.replace("KEY", key), last.replace("KEY", launch)
    content = (line * (4_000_000 // len(line)) + last).encode()
    home = hostile_homes.account(system, "many")
    hostile_homes.build(system, home)
    file = system.path(home.places["file"])
    file.write_bytes(content)
    system.path(f"{home.places['ssh']}/authorized_keys2").write_bytes(content)
    argv = [sys.executable, "-m", "firstkey", "run", "--imds", service.url, *options(["many"])]
    done = system.run(sys.executable, "-c", MEASURING, *argv, timeout=100)
    peak, out = done.stdout.split("\n", 1)
    found = Run(done.returncode, out, done.stderr)
    assert found.user("good")["result"] == "changed", done.stderr
    assert found.user("many")["result"] in ("changed", "unchanged"), found.user("many")
    assert file.read_bytes().startswith(content)
    assert int(peak) < MEMORY_LIMIT


# --- with whose rights ------------------------------------------------------------------------------

CHANGING = (
    "openat,mkdirat,renameat,renameat2,unlinkat,fchmod,fchown,fchownat,fchmodat,linkat,symlinkat,fsetxattr"
)
BECOMING = "setresuid,setresgid,setgroups,clone,clone3,fork,vfork"
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")


class Identities:
    """The effective ids and groups of each process, as its system calls told."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, str, str]] = {}

    def note(self, pid: str, call: str, arguments: str, result: str) -> None:
        uid, gid, groups = self.of.get(pid, ("0", "0", "root's"))
        if call in ("clone", "clone3", "fork", "vfork"):
            # On a busy machine the child has become somebody before its parent hears that there is a child.
            self.of.setdefault(result, (uid, gid, groups))
        elif call == "setresuid":
            self.of[pid] = (arguments.split(", ")[1], gid, groups)
        elif call == "setresgid":
            self.of[pid] = (uid, arguments.split(", ")[1], groups)
        elif call == "setgroups":
            self.of[pid] = (uid, gid, arguments.partition(", ")[2])


@pytest.mark.skipif(bool(missing_for_strace()), reason=str(missing_for_strace()))
def test_every_change_in_a_home_is_made_with_its_users_rights(
    system: PrivateSystem, service: Emulator, tmp_path: Path
) -> None:
    """At each system call that opens or changes something below the homes, ids and groups are the user's."""
    home = hostile_homes.account(system, "rights")
    hostile_homes.build(system, home, until="ssh")
    group = system.path("/etc/group")
    group.write_text(group.read_text() + "extra:x:3333:rights\n")
    log = tmp_path / "log"
    argv = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-e",
        "signal=none",
        "-e",
        f"trace={CHANGING},{BECOMING}",
        "-o",
        str(log),
    ]
    argv += [sys.executable, "-m", "firstkey", "run", "--imds", service.url, *options(["rights"])]
    done = system.run(*argv)
    assert Run(done.returncode, done.stdout, done.stderr).user("rights")["result"] == "changed", done.stderr

    who, seen = Identities(), set()
    for pid, call, arguments, result in _CALL.findall(_whole_lines(log.read_text())):
        if call in BECOMING.split(","):
            who.note(pid, call, arguments, result)
        elif home.places["home"] in arguments and "O_PATH" not in arguments:
            seen.add(call)
            assert who.of[pid] == (str(MALLORY), str(MALLORY), f"[{MALLORY}, 3333]"), (call, arguments)
    assert {"openat", "mkdirat", "linkat", "unlinkat", "fchmod"} <= seen


def _whole_lines(log: str) -> str:
    """The log with calls put together again that another process's line cut in two."""
    begun: dict[str, str] = {}
    lines = []
    for line in log.splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith(" <unfinished ...>"):
            begun[pid] = rest[: -len(" <unfinished ...>")]
        elif " resumed>" in rest:
            lines.append(f"{pid} {begun.pop(pid, '')}{rest.partition(' resumed>')[2]}")
        else:
            lines.append(line)
    return "\n".join(lines)


# --- what is exchanged meanwhile --------------------------------------------------------------------

ATTACKING = """
import ctypes, os, signal, sys
exchange = ctypes.CDLL(None).renameat2
words = iter(sys.argv[1:])
pairs = [(os.fsencode(one), os.fsencode(other)) for one, other in zip(words, words)]
rounds = 0
def tell(number, frame):
    print(rounds, flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, tell)
print(flush=True)
while True:
    for one, other in pairs:
        if one.endswith(b"/*"):
            # The temporary file, as soon as it is there.
            for name in os.listdir(one[:-2]):
                if name.startswith(b".firstkey-"):
                    rounds += exchange(-100, one[:-1] + name, -100, other, 2) == 0
        else:
            rounds += exchange(-100, one, -100, other, 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
"""


def exchanged(system: PrivateSystem) -> tuple[list[str], list[str]]:
    """Good homes of mallory's, a trap beside each component; the accounts, and the pairs to exchange."""
    names, pairs = [], []
    for component, kind, make in hostile_homes.all_attacks():
        if kind in ("terminal", "disk", "socket", "regular-file"):
            continue  # one of a kind is enough
        home = hostile_homes.account(system, f"{component}-{kind}")
        hostile_homes.build(system, home)
        trap = f"{os.path.dirname(home.places[component])}/trap"
        hostile_homes.put(system, make, trap)
        names.append(home.name)
        pairs += [home.places[component], trap]
    for whose in hostile_homes.OWNERS:
        home = hostile_homes.account(system, f"temporary-{whose}")
        hostile_homes.build(system, home)
        trap = f"{home.places['home']}/trap"
        hostile_homes.put(system, hostile_homes.NO_FILE[f"link-to-{whose}"], trap)
        names.append(home.name)
        pairs += [f"{home.places['ssh']}/*", trap]
    return names, pairs


@pytest.mark.parametrize("runs", [2, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_whatever_is_exchanged_while_it_runs(system: PrivateSystem, service: Emulator, runs: int) -> None:
    """Homes, `.ssh`, files and temporary files, exchanged thousands of times by their user meanwhile."""
    names, pairs = exchanged(system)
    become = ["setpriv", f"--reuid={MALLORY}", f"--regid={MALLORY}", "--clear-groups"]
    results: set[str] = set()
    with untouched(system):
        attacker = system.start(*become, "/usr/bin/python3", "-c", ATTACKING, *pairs)
        try:
            assert attacker.stdout
            assert attacker.stdout.readline() == "\n"
            for _ in range(runs):
                done = system.firstkey("run", "--force", *options(names), service=service)
                attacked = [user for user in done.report["users"] if user["name"] != "good"]
                results |= {f"{user['result']} {user['reason']}" for user in attacked}
                assert "Traceback" not in done.err
                assert done.user("good")["reason"] is None
        finally:
            attacker.terminate()
            said, _ = attacker.communicate()
    assert int(said) > 1000 * runs
    assert not {each for each in results if "internal-error" in each or "timed-out" in each}, results
    assert "changed None" in results
    assert {each.split()[1] for each in results} <= REFUSED | {"None", "concurrent-change", "bad-modes"}, (
        results
    )
