"""Each answer in the tables of docs/comparison.md: firstkey, three cloud-inits and the guide's script."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

import bootlab
import netlab
import peers
import pytest
from bootlab import Disk
from cloud_init import CONFIG_FILE, ON_A_PLAYED_INSTANCE
from installed import TOP
from machine import new_key
from netlab import Cloud
from packages import build

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = TOP / "docs/comparison.md"
KEYS = "/root/.ssh/authorized_keys"
HOST_KEYS = "/etc/ssh/ssh_host_{}_key"
BUILDER, BUYER = "i-00000000000000001", "i-00000000000000002"

CLOUD_CONFIG = f"""\
{ON_A_PLAYED_INSTANCE}# Of its first stage what is for users and SSH, which may be tried on any machine.
cloud_init_modules: [users-groups, ssh]
disable_root: false
"""
SCRIPT = """\
#!/bin/sh
# The steps of the EC2 guide's script, which takes whatever curl prints, and host keys before it.
ssh-keygen -A
mkdir -p -m 700 /root/.ssh
service=http://169.254.169.254/latest
token=$(curl --silent -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' $service/api/token)
curl --silent -H "X-aws-ec2-metadata-token: $token" $service/meta-data/public-keys/0/openssh-key \\
    >/tmp/my-key && cat /tmp/my-key >>/root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
rm /tmp/my-key
"""


class Way(NamedTuple):
    """A way to the launch key: the heading of its column, what it runs at a boot, and on which suite."""

    title: str
    command: tuple[str, ...]
    suite: str = "bookworm"


CLOUD_INITS = (
    Way("cloud-init 22.4", ("cloud-init", "init")),
    Way("cloud-init 25.1", ("cloud-init", "init"), "trixie"),
    Way("cloud-init 26.2", ("cloud-init", "init"), "sid"),
)
WAYS = (
    Way("firstkey", ("firstkey", "run", "--quiet")),
    *CLOUD_INITS,
    Way("the guide's script", ("sh", "/usr/local/sbin/launch-key")),
)


class Box:
    """A disk in the cloud on which one way does its work; nothing boots, so that it takes no time."""

    def __init__(self, disk: Disk, cloud: Cloud, directory: Path, way: Way) -> None:
        self.disk = disk
        self.cloud = cloud
        self.way = way
        self._directory = directory

    def key(self, name: str) -> str:
        """A new key pair's public line."""
        return new_key(self._directory, name)

    def boot(self, *keys: str, instance: str = BUILDER) -> None:
        """What happens at a boot of this instance, with these launch keys."""
        self.cloud.offer(*keys, instance=instance, families=[4])
        self.forget_the_boot()
        self.inside(*self.way.command)

    def forget_the_boot(self) -> None:
        """What lies in memory is gone, as is what cloud-init takes away in its stage before the network."""
        shutil.rmtree(self.disk.path("/run"))
        self.disk.path("/run").mkdir()
        self.disk.path("/var/lib/cloud/instance").unlink(missing_ok=True)

    def looks_up_names(self) -> bool:
        """Whether a boot asks a name server for anything; there is none, so nothing answers."""
        self.cloud.offer(self.key("traced"), families=[4])
        self.forget_the_boot()
        self.inside(
            "strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmmsg", "-o", "/trace", *self.way.command
        )
        trace = self.disk.path("/trace").read_text()
        assert "htons(80)" in trace, "the metadata service was not asked either"
        return "htons(53)" in trace

    @property
    def programs(self) -> int:
        """How many programs in Python the way's units start at a boot."""
        units = self.disk.path("/usr/lib/systemd/system").glob("*.service")
        program = f"/usr/bin/{self.way.command[0]}"
        return len(re.findall(rf"(?m)^ExecStart={program} ", "".join(unit.read_text() for unit in units)))

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the disk's tree and the machine's network."""
        alone = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
        return subprocess.run(
            ["nsenter", f"--net={self.cloud.machine_namespace}", *alone, f"--root={self.disk.root}", *argv],
            check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """What root's file of keys has, without empty lines."""
        file = self.disk.path(KEYS)
        return [line for line in file.read_text().splitlines() if line.strip()] if file.exists() else []

    def write_lines(self, lines: list[str]) -> None:
        """As a person does with an editor."""
        self.disk.write(KEYS, "".join(f"{line}\n" for line in lines), mode=0o600)

    def has(self, key: str) -> list[str]:
        """The lines with the key."""
        return [line for line in self.lines if key.split()[1] in line]

    def host_key(self, kind: str) -> bytes:
        """The private half."""
        return self.disk.path(HOST_KEYS.format(kind)).read_bytes()


def prepare(root: Path, deb: Path) -> None:
    """All three ways, on one system."""
    bootlab.install_deb(root, deb)
    (root / CONFIG_FILE[1:]).write_text(CLOUD_CONFIG)
    (root / "usr/local/sbin/launch-key").write_text(SCRIPT)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Way], Box]]:
    """Makes a fresh system for a way."""
    netlab.sweep()
    with bootlab.workshop(tmp_path_factory.mktemp("comparison")) as shelf:
        deb = build("deb", shelf / "deb")
        yield from _boxes(deb, shelf)


def _boxes(deb: Path, shelf: Path) -> Iterator[Callable[[Way], Box]]:
    with ExitStack() as undo:

        @cache
        def image(suite: str) -> bootlab.Image:
            system = bootlab.distribution(shelf / suite, *peers.PACKAGES, suite=suite)
            return system.changed(shelf / f"{suite}-image", lambda root: prepare(root, deb))

        def make(way: Way) -> Box:
            directory = shelf / f"box-{len(list(shelf.glob('box-*')))}"
            disk = undo.enter_context(Disk(image(way.suite), directory / "disk"))
            cloud = undo.enter_context(Cloud(directory))
            cloud.plug_in(4)
            return Box(disk, cloud, directory, way)

        yield make


def table(*, first: str) -> dict[str, list[str]]:
    """The page's table that has this question first: the answers to each."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ")
    ]
    start = next(number for number, row in enumerate(rows) if row[0].startswith(first))
    width = len(rows[start])
    return {row[0]: row[1:] for row in rows[start:] if len(row) == width and row[0].endswith("?")}


QUESTIONS = table(first="Of two launch keys")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_each_answer_is_what_happens(boxes: Callable[[Way], Box], way: Way) -> None:
    """Boots of one instance, then of another one that is made of it, with what people do in between."""
    box = boxes(way)
    kept, removed, next_one = (box.key(name) for name in ("kept", "removed", "next"))
    answers: list[object] = []

    box.boot(kept, removed)
    answers.append(sum(bool(box.has(key)) for key in (kept, removed)))
    box.boot(kept, removed)
    answers.append(len(box.has(kept)) > 1)

    mine = box.key("mine")
    box.write_lines([mine])
    empty, torn = "ecdsa", "ed25519"
    before = box.host_key(torn)
    box.disk.write(HOST_KEYS.format(empty), b"", mode=0o600)
    box.disk.write(HOST_KEYS.format(torn), bytes(len(before)), mode=0o600)
    box.boot(kept, removed)
    answers.append(bool(box.has(kept)))
    healed = [bool(box.host_key(kind).strip(b"\0")) for kind in (empty, torn)]

    other = boxes(way)
    other.boot(kept, next_one)
    (line, *_) = other.has(kept)
    rest = [entry for entry in other.lines if entry != line]
    other.write_lines([f'from="192.0.2.1" {line}', *rest])
    known = other.host_key(torn)
    other.boot(kept, instance=BUYER)
    answers.append(line in other.lines)

    third = boxes(way)
    third.boot(kept)
    third.boot(next_one, instance=BUYER)
    assert third.has(next_one)
    answers.append(bool(third.has(kept)))

    fourth = boxes(way)
    fourth.boot()
    answers += [bool(fourth.lines), *healed, other.host_key(torn) != known]

    fifth = boxes(way)
    fifth.disk.write(CONFIG_FILE, CLOUD_CONFIG.replace("metadata_urls", "unused"))
    answers += [fifth.looks_up_names(), fifth.programs]

    said = [str(answer) if type(answer) is int else "yes" if answer else "no" for answer in answers]
    column = WAYS.index(way)
    assert dict(zip(QUESTIONS, said)) == {question: row[column] for question, row in QUESTIONS.items()}


@pytest.mark.parametrize("way", CLOUD_INITS, ids=lambda way: way.title)
def test_the_headings_say_which_cloud_init_it_was(boxes: Callable[[Way], Box], way: Way) -> None:
    """That of a release stays; sid's may be newer by now, and the answers are looked at with that one."""
    found = re.findall(r"\d+", boxes(way).inside("cloud-init", "--version").stdout)[:2]
    said = re.findall(r"\d+", way.title)
    assert found == said or (way.suite == "sid" and list(map(int, found)) > list(map(int, said)))
    headings = next(line for line in PAGE.read_text().splitlines() if line.startswith("| | firstkey |"))
    assert headings == f"| | {' | '.join(each.title for each in WAYS)} |"


CLEANING = table(first="Does it remove launch keys")


@pytest.mark.parametrize(
    "column, way",
    [(0, CLOUD_INITS[0]), *((1, way) for way in CLOUD_INITS)],
    ids=["seal", *(f"{way.title} clean" for way in CLOUD_INITS)],
)
def test_what_cleans_an_image(boxes: Callable[[Way], Box], column: int, way: Way) -> None:
    """The same used system, cleaned by each."""
    box = boxes(way)
    box.boot(box.key("kept"))
    box.disk.write("/root/.bash_history", "secret\n", mode=0o600)
    box.disk.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    commands = (["firstkey", "seal", "--yes"], ["cloud-init", "clean", "--logs"])
    status = box.inside(*commands[column]).returncode
    gone = {
        "launch keys": not box.lines,
        "host keys": not list(box.disk.path("/etc/ssh").glob("ssh_host_*_key")),
        "shell histories": not box.disk.path("/root/.bash_history").exists(),
        "cloud-init's data": not list(box.disk.path("/var/lib/cloud/instances").glob("*")),
        "machine-id": box.disk.path("/etc/machine-id").read_text() in ("", "uninitialized\n"),
    }
    assert gone["cloud-init's data"]
    box.disk.write("/root/.vault-token", "hvs.CAESIJ" + "x" * 80, mode=0o600)
    status = box.inside(*commands[column]).returncode
    answers = {**gone, "check again": status != 0}
    for word, answer in answers.items():
        (row,) = [row for question, row in CLEANING.items() if word in question]
        assert re.match("yes" if answer else "no|only with", row[column]), word
    if column == 1:
        assert "--machine-id" in box.inside("cloud-init", "clean", "--help").stdout
