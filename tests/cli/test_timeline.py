"""`firstkey status --timeline`: the phases of the last run as bars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, World, new_key

from firstkey.cli import timeline
from firstkey.metadata.emulator import Emulator, Settings

SVG = "{http://www.w3.org/2000/svg}"
PHASES = [
    {"phase": "metadata", "start_ms": 10, "end_ms": 910},
    {"phase": "host keys: look", "start_ms": 0, "end_ms": 10},
    {"phase": "host keys: make", "start_ms": 10, "end_ms": 2000},
    {"phase": "launch keys", "start_ms": 2000, "end_ms": 2001},
]


def report_of(machine: Machine, *phases: Any, **fields: object) -> None:
    """A report of a run with these phases."""
    machine.write("/run/firstkey/report.json", json.dumps({"outcome": "ok", "timeline": phases, **fields}))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An image."""
    return Machine(tmp_path / "root")


def test_bars_are_on_one_scale_in_the_order_of_their_start() -> None:
    """What takes half as long is half as wide; what ran at once stands below each other."""
    found = timeline.bars({"timeline": PHASES})
    assert [bar.name for bar in found] == ["host keys: look", "metadata", "host keys: make", "launch keys"]
    lines = list(timeline.text(found, width=80))
    assert max(map(len, lines)) <= 80
    metadata, make = (
        next(line for line in lines if line.startswith(f"  {name}")) for name in ("meta", "host keys: m")
    )
    assert 2.0 < make.count("#") / metadata.count("~") < 2.4
    assert "900 ms" in metadata
    assert "1990 ms" in make
    assert metadata.index("~") == make.index("#")
    assert lines[4].split() == ["in", "all", "2001", "ms"]
    assert "waiting for the metadata service" in "\n".join(lines)


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_every_width_is_drawn(width: int) -> None:
    """A phase is never without a mark, and a narrow terminal is no error."""
    for line in list(timeline.text(timeline.bars({"timeline": PHASES}), width=width))[:4]:
        assert set("~#=") & set(line)


@pytest.mark.parametrize(
    "rubbish",
    [None, 7, "x", {}, {"phase": "x"}, {"phase": "x", "start_ms": 5, "end_ms": 1}, {"start_ms": "a"}],
)
def test_what_is_no_phase_is_passed_over(rubbish: object) -> None:
    """The file is for programs to read, and may be of another version."""
    assert timeline.bars({"timeline": [rubbish, *PHASES]}) == timeline.bars({"timeline": PHASES})
    assert timeline.bars({"timeline": rubbish}) == []


def test_a_real_run_is_drawn(tmp_path: Path, machine: Machine) -> None:
    """After a run, its phases are there."""
    key = new_key(tmp_path, "launch")
    with Emulator(Settings(keys=(("launch", key),))) as service:
        world = World(machine, service, key, tmp_path)
        assert machine.run(world.service).status == 0
    drawn = machine.firstkey("status", "--timeline")
    assert (drawn.status, drawn.err) == (0, "")
    assert "metadata" in drawn.out
    assert "host keys: make" in drawn.out


def test_making_keys_is_drawn_from_where_it_begins(tmp_path: Path, machine: Machine) -> None:
    """Host keys are made while the service is asked: the picture must not show one after the other."""
    with Emulator(Settings(keys=(("launch", new_key(tmp_path, "launch")),))) as service:
        first = machine.run(service).report["timeline"]
        again = machine.run(service, "--force").report["timeline"]
    starts = {phase["phase"]: phase["start_ms"] for phase in reversed(first)}
    assert starts["host keys: make"] <= starts["metadata"]
    ends = {phase["phase"]: phase["end_ms"] for phase in again}
    starts = {phase["phase"]: phase["start_ms"] for phase in again}
    assert starts["host keys: make"] >= ends["metadata"], "nothing is made, so nothing took that long"


def test_hostile_names_do_no_harm(machine: Machine) -> None:
    """Nothing in the file moves a cursor."""
    report_of(machine, {"phase": "\x1b[2J", "start_ms": 0, "end_ms": 1}, outcome="x")
    assert "\x1b" not in machine.firstkey("status", "--timeline").out


@pytest.mark.parametrize("content", [None, "", "rubbish", "{}", '{"timeline": []}'])
def test_without_a_run_it_says_so(machine: Machine, content: str | None) -> None:
    """With the reason and what to do, and no empty picture."""
    if content is not None:
        machine.write("/run/firstkey/report.json", content)
    done = machine.firstkey("status", "--timeline")
    assert (done.status, done.out) == (1, "")
    assert "no-report" in done.err
