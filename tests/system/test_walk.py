"""The quick door to many files, and what is mounted where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firstkey.system import mounts, walk


def seen(path: Path) -> tuple[list[bytes], bool]:
    """All windows of a file, and whether a part was passed over."""
    window = walk.Window()
    directory = walk.open_directory(str(path.parent))
    try:
        windows = window.through(path.name, directory)
        found = [bytes(window.content[: window.length]) for _ in windows]
    finally:
        os.close(directory)
    return found, window.is_partial


@pytest.mark.parametrize("size", [0, 1, walk.BLOCK - 1, walk.BLOCK, walk.BLOCK + 1, 3 * walk.BLOCK, 10**6])
def test_windows_are_the_whole_file(tmp_path: Path, size: int) -> None:
    """Put together without their overlaps, they are the file; nothing between two of them is missed."""
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    found, is_partial = seen(tmp_path / "file")
    whole = b"".join(window[walk.OVERLAP if number else 0 :] for number, window in enumerate(found))
    assert whole == content
    assert not is_partial


def test_holes_cost_nothing(tmp_path: Path) -> None:
    """Of a sparse terabyte, what it holds is seen, wherever it is."""
    places = (0, 10**6, 1 << 39, (1 << 40) - 6)
    with open(tmp_path / "file", "wb") as file:
        file.truncate(1 << 40)
        for place in places:
            file.seek(place)
            file.write(b"secret")
    found, is_partial = seen(tmp_path / "file")
    assert sum(b"secret" in window for window in found) >= len(places)
    assert len(found) < 20
    assert not is_partial


@pytest.mark.slow
def test_of_a_huge_file_the_ends_are_seen(tmp_path: Path) -> None:
    """Past the limit only the tail is looked at, and that is told."""
    size = walk.PLENTY + walk.TAIL + 50 * walk.BLOCK
    with open(tmp_path / "file", "wb") as file:
        file.write(b"start" + os.urandom(size - 8) + b"end")
    found, is_partial = seen(tmp_path / "file")
    assert is_partial
    assert found[0].startswith(b"start")
    assert found[-1].endswith(b"end")
    assert sum(map(len, found)) < size


def test_a_growing_file_comes_to_an_end(tmp_path: Path) -> None:
    """A log that is written to while it is read is read as far as it went when it was opened."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * walk.BLOCK))
    window = walk.Window()
    directory = walk.open_directory(str(tmp_path))
    with open(path, "ab") as writer:
        for rounds, _ in enumerate(window.through("file", directory)):
            writer.write(bytes(walk.BLOCK))
            writer.flush()
            assert rounds < 10
    os.close(directory)


def test_links_and_pipes_are_no_files(tmp_path: Path) -> None:
    """Links are told apart, pipes are passed over, and nothing opens them."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    directory = walk.open_directory(str(tmp_path))
    found = walk.names(directory)
    assert (found.directories, found.files, found.links) == (["directory"], ["file"], ["link"])
    with pytest.raises(OSError, match="symbolic links"):
        next(walk.Window().through("link", directory))
    os.close(directory)


def test_mountinfo() -> None:
    """As proc(5) has it: octal escapes, optional fields, the last of several on one another."""
    lines = [
        "36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - ext4 /dev/root rw",
        "37 35 0:5 / /proc rw - proc proc rw",
        "38 35 0:6 / /home rw shared:2 propagate_from:1 - nfs4 server:/home rw",
        "39 35 0:7 / /home rw - autofs x rw",
        "broken",
    ]
    found = {mount.path: mount for mount in mounts.parse(lines)}
    assert {path: mount.kind for path, mount in found.items()} == {
        "/mnt/a b": "ext4", "/proc": "proc", "/home": "autofs",
    }  # fmt: skip
    assert [mount.is_disk for mount in found.values()] == [True, False, False]
