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


@pytest.mark.parametrize(
    "mode, is_safe", [(0o755, True), (0o1777, True), (0o777, False), (0o775, False), (0o1775, True)]
)
def test_a_place_where_others_can_exchange_names_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_safe: bool
) -> None:
    """A /tmp without its sticky bit is none; where no place is safe, nothing is made."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    monkeypatch.setattr(command, "SCRATCH_PLACES", (str(tmp_path / "none"), str(place)))
    if is_safe:
        with command.scratch_directory() as made:
            assert made.on_host.startswith(f"{place}/")
    else:
        with pytest.raises(FirstkeyError) as caught, command.scratch_directory():
            pass
        assert caught.value.reason is reasons.UNSAFE_DIRECTORY
    assert os.listdir(place) == []


@pytest.mark.root
def test_a_strangers_place_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could exchange what is made there, sticky bit or not."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o1777)
    os.chown(place, 64101, 64101)
    monkeypatch.setattr(command, "SCRATCH_PLACES", (str(place),))
    with pytest.raises(FirstkeyError), command.scratch_directory():
        pass
