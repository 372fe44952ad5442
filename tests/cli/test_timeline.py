"""`firstkey status --timeline`: the phases of the last run as bars."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
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


def test_the_picture_is_well_formed_and_within_its_frame() -> None:
    """XML that stands for itself; each phase is a bar in its place, with its words."""
    picture = "".join(timeline.svg(timeline.bars({"timeline": PHASES}), title='a <b> & "c"'))
    tree = ET.fromstring(picture)
    assert tree.findtext(f"{SVG}title") == 'a <b> & "c"'
    width, height = map(float, tree.attrib["viewBox"].split()[2:])
    rows = tree.findall(f"{SVG}g")
    assert [row.findtext(f"{SVG}text") for row in rows] == [
        "host keys: look", "metadata", "host keys: make", "launch keys",
    ]  # fmt: skip
    spans = []
    for row in rows:
        rectangle = row.find(f"{SVG}rect")
        assert rectangle is not None
        x, y, w, h = (float(rectangle.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        spans.append((x, w))
    assert spans[1][0] == spans[2][0]
    assert 2.0 < spans[2][1] / spans[1][1] < 2.4
    assert "href" not in picture


def test_a_real_run_is_drawn(tmp_path: Path, machine: Machine) -> None:
    """After a run, its phases are there; the picture goes to a file or to standard output."""
    key = new_key(tmp_path, "launch")
    with Emulator(Settings(keys=(("launch", key),))) as service:
        world = World(machine, service, key, tmp_path)
        assert machine.run(world.service).status == 0
    drawn = machine.firstkey("status", "--timeline")
    assert (drawn.status, drawn.err) == (0, "")
    assert "metadata" in drawn.out
    assert "host keys: make" in drawn.out
    file = tmp_path / "boot.svg"
    assert machine.firstkey("status", "--svg", str(file)).out == ""
    assert machine.firstkey("status", "--svg", "-").out == file.read_text()
    assert ET.fromstring(file.read_text()).tag == f"{SVG}svg"


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
    """Nothing in the file moves a cursor or becomes markup."""
    report_of(
        machine, {"phase": "\x1b[2J<script>", "start_ms": 0, "end_ms": 1}, instance_id="<b>", outcome="x"
    )
    assert "\x1b" not in machine.firstkey("status", "--timeline").out
    assert "<script>" not in machine.firstkey("status", "--svg", "-").out


@pytest.mark.parametrize("content", [None, "", "rubbish", "{}", '{"timeline": []}'])
def test_without_a_run_it_says_so(machine: Machine, content: str | None) -> None:
    """With the reason and what to do, and no empty picture."""
    if content is not None:
        machine.write("/run/firstkey/report.json", content)
    done = machine.firstkey("status", "--timeline")
    assert (done.status, done.out) == (1, "")
    assert "no-report" in done.err


def test_a_file_that_cannot_be_written(machine: Machine) -> None:
    """It is the caller's mistake, and told so."""
    report_of(machine, *PHASES)
    done = machine.firstkey("status", "--svg", "/nowhere/boot.svg")
    assert done.status == 2
    assert "/nowhere/boot.svg" in done.err
