"""Looking at an image in boxes: what costs too much is unknown, and everything else is answered."""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
from sapling import Sapling, audited

from firstkey.cli.looking import Looker
from firstkey.image import pipe, rules, watches
from firstkey.image.scan import joined
from firstkey.image.survey import PROGRESS, Survey
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.image_reasons import OVER_BUDGET
from firstkey.reasons import INTERNAL_ERROR, NOT_A_DIRECTORY, Refusal
from firstkey.system import boxed

AGENT = Path(__file__).resolve().parents[2] / "agent"


def survey(sapling: Sapling, looks: list[set[str]] | None = None) -> Survey:
    """Of the tree, as the command makes it; `looks` gets what was told each time that boxes looked at it."""

    def look(works: Any, heard: Any) -> list[Any]:
        told: set[str] = set()
        if looks is not None:
            looks.append(told)

        def listen(kind: str, value: Any) -> None:
            told.add(kind)
            heard(kind, value)

        return looker.look(works, listen)

    args = argparse.Namespace(root=str(sapling.root), config=None, imds=None)
    looker = Looker(args, lambda _: None)
    return Survey(looker.root, look, progress=lambda _files, _path: None)


def test_a_verdict_crosses_as_it_is() -> None:
    """With names that are no text; what is none is refused."""
    verdict = Verdict(
        (Finding("/a\udcff", "r", "m", 3, "note"), Finding("/b", "r", "m")),
        (Doubt("/c", Refusal(OVER_BUDGET, "d")),),
        None,
        "remark",
    )
    assert pipe.read(pipe.VERDICT, pipe.VERDICT.write(verdict)) == verdict
    with pytest.raises(Exception, match="that is none"):
        pipe.read(pipe.VERDICT, [[["/a"]], [], None, ""])


def test_a_boxed_audit_says_what_an_audit_says(sapling: Sapling) -> None:
    """Rule by rule, on a tree that fails all of them."""
    for rule in rules.ALL:
        sapling.grow(rule.failing)
    plain = audited(sapling.image(), rules.ALL)
    boxed_one = survey(sapling).audit(rules.ALL)
    for mine, its in zip(plain.results, boxed_one.results):
        assert (mine.rule.id, pipe.read(pipe.VERDICT, pipe.VERDICT.write(mine.verdict))) == (
            its.rule.id,
            its.verdict,
        )
    assert plain.files == boxed_one.files


def test_parts_of_a_scan_are_the_whole(sapling: Sapling) -> None:
    """Each file is looked into by one of them, and all that they saw crosses."""
    for rule in rules.ALL:
        sapling.grow(rule.failing)
    sapling.file(os.fsdecode(b"/srv/\xff.gz"), b"\x1f\x8b\x08")
    image = sapling.image()
    parts = [image.part_of_scan(number, 3) for number in range(3)]
    assert all(part.files for part in parts)
    assert joined(parts) == image.scan
    assert image.scan.doubts
    assert pipe.read(pipe.SCAN, json.loads(json.dumps(pipe.SCAN.write(image.scan)))) == image.scan


def test_a_scan_that_fails_is_unknown_to_the_rules_that_ask_for_it(sapling: Sapling) -> None:
    """Here, the records of packages are no directory; rules that ask for no scan say what they say."""
    sapling.file("/var/lib/dpkg/info")
    by_id = {result.rule.id: result for result in survey(sapling).audit(rules.ALL).results}
    assert by_id["private-keys"].verdict.doubts[0].refusal.reason is NOT_A_DIRECTORY
    assert by_id["mail"].outcome == "pass"


def with_check(rule: Any, check: Any) -> Any:
    """The rule, checking otherwise."""
    return rule._replace(check=check)


def test_a_rule_that_never_ends_is_unknown_and_the_others_go_on(
    sapling: Sapling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop in C, one that dies, and one that wants all the memory."""
    sapling.file("/etc/passwd", "root:*:0:0::/root:/bin/sh\n")
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.5)
    first, second, third, *others = rules.ALL
    wanted = [
        with_check(first, lambda _: sum(range(10**12))),
        with_check(second, lambda _: os._exit(3)),
        with_check(third, lambda _: bytearray(1 << 40)),
        *others,
    ]
    looks: list[set[str]] = []
    done = survey(sapling, looks).audit(wanted)
    assert [PROGRESS in told for told in looks] == [True, False, False, False]  # one scan is enough
    reasons_given = [result.verdict.doubts[0].refusal.reason for result in done.results[:3]]
    assert reasons_given == [OVER_BUDGET] * 3
    assert all(result.outcome in ("pass", "finding", "not-applicable") for result in done.results[3:])
    assert not done.is_fit


@pytest.mark.slow
def test_a_file_that_takes_too_long_is_unknown_and_the_others_are_looked_at(
    sapling: Sapling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge of one needle never ends over one file; the scan finds what is in the others."""
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.5)
    sapling.file("/srv/slow", "-----BEGIN PRIVATE KEY-----\nslow\n")
    sapling.file("/root/.bash_history", "ls\n")
    rule = next(rule for rule in rules.ALL if rule.id == "private-keys")
    slow = watches.Needle("slow", b"slow", lambda *_: str(sum(range(10**12))), everywhere=True)
    changed = tuple(
        each._replace(watches=(*each.watches, slow)) if each is rule else each for each in rules.ALL
    )
    monkeypatch.setattr(rules, "ALL", changed)
    done = survey(sapling).audit(changed)
    by_id = {result.rule.id: result for result in done.results}
    seen = by_id["everything-seen"].verdict.doubts
    assert [(doubt.path, doubt.refusal.reason) for doubt in seen] == [("/srv/slow", OVER_BUDGET)]
    assert by_id["histories"].verdict.findings
    assert not done.is_fit


@pytest.mark.slow
def test_too_many_overruns_end_it(sapling: Sapling, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is made to be slow does not hold anybody up for ever; nothing in it is called fit."""
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.1)
    wanted = [with_check(rule, lambda _: sum(range(10**12))) for rule in rules.ALL]
    done = survey(sapling).audit(wanted)
    assert {result.outcome for result in done.results} == {"unknown"}


def test_an_answer_that_nobody_gave_is_unknown() -> None:
    """A box that says that all is done, and nothing of a rule, has answered nothing."""
    silent = Survey("/x", lambda works, _heard: [None for _ in works], progress=lambda _files, _path: None)
    done = silent.audit(rules.ALL[:2])
    assert [result.verdict.doubts[0].refusal.reason for result in done.results] == [INTERNAL_ERROR] * 2


@pytest.mark.parametrize(
    "order, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)], ids=str
)
@pytest.mark.sample(3)
def test_an_order_to_end_is_kept_at_once(sapling: Sapling, order: signal.Signals, status: int) -> None:
    """Whatever the boxes are at: here, archives of zeros, for many seconds."""
    zeros = gzip.compress(bytes(100_000_000))
    for number in range(80):
        sapling.file(f"/srv/{number}.gz", zeros)
    argv = [sys.executable, "-m", "firstkey", "audit", "--root", str(sapling.root)]
    child = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    processes.wait_for(lambda: processes.children(child.pid), "the box")
    child.send_signal(order)
    assert child.wait(timeout=processes.PATIENCE) == status
    left = ["pgrep", "-s", str(child.pid)]  # what has ended is there until init collects it
    processes.wait_for(lambda: subprocess.run(left, check=False, capture_output=True).returncode == 1)


def late_imports() -> set[str]:
    """Every module that a function of what a box may run imports."""
    found: set[str] = set()
    for room in ("boot", "config*", "image", "login", "ssh", "system"):
        for path in [*AGENT.glob(f"firstkey/{room}/**/*.py"), *AGENT.glob(f"firstkey/{room}.py")]:
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    for node in ast.walk(function):
                        if isinstance(node, ast.Import):
                            found.update(name.name for name in node.names)
                        elif isinstance(node, ast.ImportFrom) and node.module:
                            found.add(node.module)
                            found.update(
                                f"{node.module}.{name.name}"
                                for name in node.names
                                if (AGENT / node.module.replace(".", "/") / f"{name.name}.py").exists()
                            )
    return found


NOT_IN_A_BOX = {
    "requests": "a box has no network",
    "requests.adapters": "as above",
    "urllib3": "as above",
    "daemon": "a box is no daemon",
    "systemd": "the parent writes to the journal",
    "pwd": "name services are asked outside",
    "grp": "as above",
    "mmap": "the parent makes the memory that both have",
    "subprocess": "programs are started outside",
    "xml": "the parent writes what CI systems read",
}


def test_what_is_imported_late_is_there_in_a_box() -> None:
    """In the box, no file of the host's can be opened any more."""
    program = "import sys; from firstkey.system import boxed; boxed._load(); print([*sys.modules])"
    argv = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(AGENT)!r}); {program}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    missing = {name for name in late_imports() if f"'{name}'" not in done.stdout}
    unexplained = {
        name for name in missing if name.split(".")[0] not in {known.split(".")[0] for known in NOT_IN_A_BOX}
    }
    assert unexplained == set()
