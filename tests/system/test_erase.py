"""Taking things out of a tree: what stays when it must, and what is never followed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import erase
from firstkey.system.files import Directory
from firstkey.system.tree import Tree


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Directory]:
    """An open directory."""
    with Tree(str(tmp_path)) as tree, tree.opened("/") as directory:
        yield directory


def test_a_directory_goes_with_all_that_is_in_it(here: Directory, tmp_path: Path) -> None:
    """Files, links, pipes and directories; what links lead to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    place = tmp_path / "x" / "y" / "z"
    place.mkdir(parents=True)
    (place / "file").write_text("x")
    (place / "link").symlink_to(outside)
    os.mkfifo(place / "pipe")
    erase.remove(here, "x")
    assert not (tmp_path / "x").exists()
    assert (outside / "file").read_text() == "mine"
    erase.remove(here, "x")


def test_wiping_says_whether_it_overwrote(here: Directory, tmp_path: Path) -> None:
    """A plain file is overwritten; a link, a file with other names and a huge one are only removed."""
    (tmp_path / "plain").write_bytes(b"secret" * 1000)
    (tmp_path / "twice").write_bytes(b"secret")
    os.link(tmp_path / "twice", tmp_path / "other")
    (tmp_path / "link").symlink_to("other")
    with open(tmp_path / "huge", "wb") as huge:
        huge.truncate(1 << 40)
    names = ("plain", "twice", "link", "huge", "gone")
    assert {name: erase.remove(here, name, wiping=True) for name in names} == {
        "plain": True, "twice": False, "link": False, "huge": False, "gone": None,
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"other"}
    assert (tmp_path / "other").read_bytes() == b"secret"


def test_overwriting_reaches_the_old_blocks(here: Directory, tmp_path: Path) -> None:
    """The bytes that were there are other ones before the name is gone: a second name would show them."""
    file = tmp_path / "file"
    file.write_bytes(b"secret" * 1000)
    with open(file, "r+b") as held:
        assert erase.remove(here, "file", wiping=True)
        assert os.fstat(held.fileno()).st_size == 0
    traced = ["strace", "-f", "-e", "trace=write,ftruncate,fsync", "-o", str(tmp_path / "trace")]
    if subprocess.run(["which", "strace"], capture_output=True, check=False).returncode:
        pytest.skip("needs strace to see the writes")
    file.write_bytes(b"secret" * 1000)
    program = (
        "from firstkey.system import erase\nfrom firstkey.system.tree import Tree\n"
        f"erase.remove(Tree({str(tmp_path)!r}).opened('/'), 'file', wiping=True)\n"
    )
    subprocess.run([*traced, "python3", "-c", program], check=True, timeout=60)
    calls = [line.split(" ", 1)[1].strip() for line in (tmp_path / "trace").read_text().splitlines()]
    written = next(number for number, call in enumerate(calls) if call.endswith("= 8192"))
    assert [call.split("(")[0] for call in calls[written : written + 3]] == ["write", "fsync", "ftruncate"]


def test_emptying_keeps_the_file(here: Directory, tmp_path: Path) -> None:
    """A program that has it open goes on writing to it; its mode stays."""
    file = tmp_path / "log"
    file.write_text("old")
    file.chmod(0o640)
    with open(file, "a") as service:
        erase.empty(here, "log")
        service.write("new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640


def test_emptying_spares_other_names(here: Directory, tmp_path: Path) -> None:
    """A file that has another name may be somebody's: it is replaced under this one alone."""
    (tmp_path / "mine").write_text("mine")
    os.link(tmp_path / "mine", tmp_path / "log")
    erase.empty(here, "log")
    assert ((tmp_path / "log").read_text(), (tmp_path / "mine").read_text()) == ("", "mine")


@pytest.mark.parametrize(
    "change", [partial(erase.remove, wiping=True), erase.empty], ids=["wiped", "emptied"]
)
def test_what_is_exchanged_after_the_first_look_is_looked_at_again(
    here: Directory, tmp_path: Path, change: Callable[..., object]
) -> None:
    """Nothing is written into a file that was not asked about."""
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("x")
    other.write_text("theirs")
    meant = file.stat().st_ino

    def check(found: os.stat_result) -> None:
        if found.st_ino != meant:
            raise FirstkeyError("exchanged", reason=reasons.CONCURRENT_CHANGE)
        other.replace(file)

    with pytest.raises(FirstkeyError, match="exchanged"):
        change(here, "file", check=check)
    assert file.read_text() == "theirs"


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_files_are_emptied(here: Directory, tmp_path: Path, kind: str) -> None:
    """Anything else is refused, and a link is not followed."""
    (tmp_path / "target").write_text("mine")
    place = tmp_path / "log"
    if kind == "link":
        place.symlink_to("target")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(FirstkeyError) as caught:
        erase.empty(here, "log")
    assert caught.value.reason is reasons.NOT_A_REGULAR_FILE
    assert (tmp_path / "target").read_text() == "mine"


def with_mounts_of_its_own(program: str) -> list[str]:
    """Run the Python program where what it mounts is seen by nobody else; the lines that it printed."""
    argv = ["unshare", "--mount", "python3", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.root
def test_what_is_mounted_is_left_alone(tmp_path: Path) -> None:
    """A file system that is mounted inside of what goes is no part of it; the rest goes, and that is told."""
    program = f"""
import subprocess
from firstkey.reasons import FirstkeyError
from firstkey.system import erase
from firstkey.system.tree import Tree
root = {str(tmp_path)!r}
subprocess.run(["mkdir", "-p", root + "/x/mnt", root + "/x/z"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", root + "/x/mnt"], check=True)
open(root + "/x/mnt/file", "w").close()
try:
    erase.remove(Tree(root).opened("/"), "x")
except FirstkeyError as error:
    print(error.message)
found = subprocess.run(["find", root + "/x"], capture_output=True, text=True)
print(sorted(found.stdout.split()))
"""
    said = with_mounts_of_its_own(program)
    assert "/x/mnt is a mount point" in said[0]
    assert said[1] == str([f"{tmp_path}/x", f"{tmp_path}/x/mnt", f"{tmp_path}/x/mnt/file"])


@pytest.mark.root
def test_what_is_bound_from_the_same_disk_is_left_alone(tmp_path: Path) -> None:
    """It has the same device number; a file that is bound onto another is neither overwritten nor emptied."""
    program = f"""
import subprocess
from firstkey.reasons import FirstkeyError
from firstkey.system import erase
from firstkey.system.tree import Tree
root = {str(tmp_path)!r}
subprocess.run(["mkdir", "-p", root + "/host", root + "/x/mnt"], check=True)
for name in ("host/file", "host/key", "key"):
    with open(root + "/" + name, "w") as file:
        file.write("mine")
subprocess.run(["mount", "--bind", root + "/host", root + "/x/mnt"], check=True)
subprocess.run(["mount", "--bind", root + "/host/key", root + "/key"], check=True)
top = Tree(root).opened("/")
acts = (
    lambda: erase.remove(top, "x"),
    lambda: erase.remove(top, "key", wiping=True),
    lambda: erase.empty(top, "key"),
)
for act in acts:
    try:
        act()
    except FirstkeyError as error:
        print(error.message)
"""
    said = with_mounts_of_its_own(program)
    assert [line.split(" ")[0] for line in said] == ["/x/mnt", "/key", "/key"]
    assert [(tmp_path / "host" / name).read_text() for name in ("file", "key")] == ["mine", "mine"]


def test_a_link_takes_the_place_of_a_file(here: Directory, tmp_path: Path) -> None:
    """In one instant, and nothing else is left."""
    (tmp_path / "id").write_text("old")
    here.link("id", "/etc/machine-id")
    assert os.readlink(tmp_path / "id") == "/etc/machine-id"
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "directory").mkdir()
    with pytest.raises(FirstkeyError, match="cannot link /directory to /x: Is a directory"):
        here.link("directory", "/x")
    assert sorted(os.listdir(tmp_path)) == ["directory", "id"]
