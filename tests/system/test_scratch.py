"""A private directory for one question: where nobody else can reach, and gone afterwards."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command
from firstkey.system.files import Looks


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    """Its owner's alone, with all that was put there; also where the question ends badly."""
    with command.scratch_directory() as made:
        path = Path(made.on_host)
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, os.geteuid())
        made.replace("file", b"x", Looks(0o600))
    assert not path.exists()
    with suppress(ZeroDivisionError), command.scratch_directory() as made:
        path = Path(made.on_host)
        made.replace("file", b"x", Looks(0o600))
        _ = 1 // 0
    assert not path.exists()


def test_root_keeps_out_of_reach_of_others() -> None:
    """The places are tried in order, and root's first is in memory and in nobody else's reach."""
    assert command.SCRATCH_PLACES[0] == "/run"
    if os.geteuid() == 0:
        with command.scratch_directory() as made:
            assert made.on_host.startswith("/run/")


def test_where_one_place_cannot_be_written_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only /run of a container, say; where none can, it is told."""
    place = tmp_path / "place"
    monkeypatch.setattr(command, "SCRATCH_PLACES", (str(tmp_path / "none"), str(place)))
    with pytest.raises(FirstkeyError) as caught, command.scratch_directory():
        pass
    assert caught.value.reason is reasons.NOT_A_DIRECTORY
    place.mkdir()
    with command.scratch_directory() as made:
        assert made.on_host.startswith(f"{place}/")
    assert os.listdir(place) == []
