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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import processes
import pytest
from image_builder import Builder, audited

from firstkey.cli.looking import Looker
from firstkey.image import formats, pipe, rules, scan, seal
from firstkey.image.audit import RULE
from firstkey.image.changes import Remove
from firstkey.image.rule import Rule
from firstkey.image.scan import Looking, joined
from firstkey.image.survey import PROGRESS, Survey
from firstkey.image.verdict import Finding, Unknown, Verdict
from firstkey.image_reasons import OVER_BUDGET
from firstkey.reasons import INTERNAL_ERROR, NOT_A_DIRECTORY, Refusal
from firstkey.system import boxed

AGENT = Path(__file__).resolve().parents[2] / "agent"


def survey(
    builder: Builder, looks: list[set[str]] | None = None, *, overruns: Sequence[boxed.Overrun] = ()
) -> Survey:
    """Of the tree, as the command makes it; `looks` gets what was told each time that boxes looked at it.

    The first boxes end in these overruns.
    """
    left = list(overruns)

    def look(works: Any, received: Any) -> list[Any]:
        if left:
            raise left.pop(0)
        logged: set[str] = set()
        if looks is not None:
            looks.append(logged)

        def listen(kind: str, value: Any) -> None:
            logged.add(kind)
            received(kind, value)

        return looker.look(works, listen)

    args = argparse.Namespace(root=str(builder.root), config=None, imds=None)
    looker = Looker(args, lambda _: None)
    return Survey(looker.root, look, progress=lambda _files, _path: None)


def test_a_verdict_crosses_as_it_is() -> None:
    """With names that are no text; what is none is refused."""
    verdict = Verdict(
        (Finding("/a\udcff", "r", "m", 3, "note"), Finding("/b", "r", "m")),
        (Unknown("/c", Refusal(OVER_BUDGET, "d")),),
        None,
        "remark",
    )
    assert pipe.read(pipe.VERDICT, pipe.write(verdict)) == verdict
    with pytest.raises(Exception, match="that is none"):
        pipe.read(pipe.VERDICT, [[["/a"]], [], None, ""])


def test_a_boxed_audit_says_what_an_audit_says(builder: Builder) -> None:
    """Rule by rule, on a tree that fails all of them."""
    for rule in rules.ALL:
        builder.grow(rule.failing)
    plain = audited(builder.image(), rules.ALL)
    boxed_one = survey(builder).audit(rules.ALL)
    for mine, its in zip(plain.results, boxed_one.results):
        assert (mine.rule.id, pipe.read(pipe.VERDICT, pipe.write(mine.verdict))) == (
            its.rule.id,
            its.verdict,
        )
    assert plain.files == boxed_one.files


def test_parts_of_a_scan_are_the_whole(builder: Builder) -> None:
    """Each file is looked into by one of them, and all that they saw crosses."""
    for rule in rules.ALL:
        builder.grow(rule.failing)
    builder.file(os.fsdecode(b"/srv/\xff.gz"), b"\x1f\x8b\x08")
    image = builder.image()
    parts = [image.part_of_scan(number, 3) for number in range(3)]
    assert all(part.files for part in parts)
    assert joined(parts) == image.scan
    assert image.scan.unknowns
    assert pipe.read(pipe.SCAN, json.loads(json.dumps(pipe.write(image.scan)))) == image.scan


def test_a_scan_that_fails_is_unknown_to_the_rules_that_ask_for_it(builder: Builder) -> None:
    """Here, the records of packages are no directory; rules that ask for no scan say what they say."""
    builder.file("/var/lib/dpkg/info")
    by_id = {result.rule.id: result for result in survey(builder).audit(rules.ALL).results}
    assert by_id["private-keys"].verdict.unknowns[0].refusal.reason is NOT_A_DIRECTORY
    assert by_id["mail"].outcome == "pass"


def test_a_directory_over_which_a_box_ended_is_unknown_and_the_others_are_looked_at(builder: Builder) -> None:
    """Rules that look elsewhere say what they say; so do those of the scan about all other directories."""
    key = rules.by_id("private-keys").failing["/srv/deploy/notes.txt"]
    builder.grow({"/srv/large/key": key, "/srv/other/key": key})
    overruns = [boxed.Overrun("directory", "/srv/large", "came to a sudden end")]
    done = {each.rule.id: each for each in survey(builder, overruns=overruns).audit(rules.ALL).results}
    seen = done["everything-seen"].verdict.unknowns
    assert [(unknown.path, unknown.refusal.reason) for unknown in seen] == [("/srv/large", OVER_BUDGET)]
    assert [finding.path for finding in done["private-keys"].verdict.findings] == ["/srv/other/key"]
    assert done["mail"].outcome == "pass"


def test_each_rule_has_a_budget_wherever_it_is_asked(builder: Builder) -> None:
    """In a plan and for a list of files, as in an audit: the box says which rule it is about."""
    builder.grow({"/root/.bash_history": "x", "/tmp/x": "x"})
    wanted = [rules.by_id(name) for name in ("histories", "temporary-files", "mail")]
    said: list[str] = []
    looking = Looking(at=lambda kind, name: said.append(name) if kind == RULE else None)
    for work in (
        lambda image: seal.plan(image, wanted, ()),
        lambda image: formats.exclude_list(image, wanted),
    ):
        said.clear()
        work(builder.image(looking))
        assert {rule.id for rule in wanted} <= set(said)


def test_a_rule_over_which_a_box_ended_keeps_no_other_out_of_a_plan(builder: Builder) -> None:
    """It is open what that one would find; the others' steps are planned."""
    builder.grow({"/root/.bash_history": "x", "/tmp/x": "x"})
    wanted = [rules.by_id(name) for name in ("histories", "temporary-files")]
    overruns = [boxed.Overrun(RULE, "histories", "took more work than it may")]
    planned = survey(builder, overruns=overruns).plan(wanted, ())
    assert [step.change.path for step in planned.steps] == ["/tmp/x"]
    assert [rule.id for rule in planned.open] == ["histories"]


@pytest.mark.parametrize("rule", rules.ALL, ids=lambda rule: rule.id)
def test_a_rule_over_which_a_box_ended_is_reported_with_a_list_of_files(builder: Builder, rule: Rule) -> None:
    """Each that has something left out, whether its files are at known places or its check finds them."""
    builder.grow(rule.failing)
    image = builder.image()
    removed = [each for each in rule.verdict(image).changes if isinstance(each, Remove)]
    overrun = Looking(unfinished={(RULE, rule.id): Refusal(OVER_BUDGET, "it took more work than it may")})
    _, unknowns = formats.exclude_list(builder.image(overrun), [rule])
    assert unknowns or not removed


def test_presets_that_cost_too_much_keep_no_plan_from_being_made(builder: Builder) -> None:
    """The units that they turn on cannot be listed, which is said in their place."""
    builder.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    builder.grow(rules.by_id("host-key-maker").passing)
    wanted = [rules.by_id("machine-id")]
    assert survey(builder).plan(wanted, ()).starts == ()
    overruns = [boxed.Overrun(RULE, "first-boot-waits", "took more work than it may")]
    planned = survey(builder, overruns=overruns).plan(wanted, ())
    assert planned.steps
    assert planned.starts == (
        "units that cannot be listed: looking at first-boot-waits took more work than it may",
    )


def test_what_was_not_seen_is_no_pass_of_a_rule_that_is_asked_alone(builder: Builder) -> None:
    """`audit --rule private-keys`: the rule that reports it is not asked."""
    builder.grow({"/srv/large/key": rules.by_id("private-keys").failing["/srv/deploy/notes.txt"]})
    overruns = [boxed.Overrun("directory", "/srv/large", "came to a sudden end")]
    wanted = [rules.by_id("private-keys"), rules.by_id("mail")]
    done = survey(builder, overruns=overruns).audit(wanted)
    assert [(result.outcome, result.is_fit) for result in done.results] == [
        ("unknown", False),
        ("pass", True),
    ]
    assert done.results[0].verdict.unknowns[0].path == "/srv/large"


def test_boxes_that_end_over_the_scan_leave_the_other_rules_their_answers(builder: Builder) -> None:
    """Wherever in the scan it was."""
    overruns = [boxed.Overrun("", "", "came to a sudden end")]
    done = {each.rule.id: each for each in survey(builder, overruns=overruns).audit(rules.ALL).results}
    assert [unknown.refusal.reason for unknown in done["private-keys"].verdict.unknowns] == [OVER_BUDGET]
    assert done["mail"].outcome == "pass"


def with_check(rule: Any, check: Any) -> Any:
    """The rule, checking otherwise."""
    return rule._replace(check=check)


@pytest.mark.slow
def test_a_rule_that_never_ends_is_unknown_and_the_others_go_on(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop in C, one that dies, and one that wants all the memory."""
    builder.file("/etc/passwd", "root:*:0:0::/root:/bin/sh\n")
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.5)
    first, second, third, *others = rules.ALL
    wanted = [
        with_check(first, lambda _: sum(range(10**12))),
        with_check(second, lambda _: os._exit(3)),
        with_check(third, lambda _: bytearray(1 << 40)),
        *others,
    ]
    looks: list[set[str]] = []
    done = survey(builder, looks).audit(wanted)
    assert [PROGRESS in logged for logged in looks] == [True, False, False, False]  # one scan is enough
    reasons_given = [result.verdict.unknowns[0].refusal.reason for result in done.results[:3]]
    assert reasons_given == [OVER_BUDGET] * 3
    assert all(result.outcome in ("pass", "finding", "not-applicable") for result in done.results[3:])
    assert not done.is_fit


@pytest.mark.slow
def test_a_file_that_takes_too_long_is_unknown_and_the_others_are_looked_at(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge of one needle never ends over one file; the scan finds what is in the others."""
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.5)
    builder.file("/srv/slow", "-----BEGIN PRIVATE KEY-----\nslow\n")
    builder.file("/root/.bash_history", "ls\n")
    rule = next(rule for rule in rules.ALL if rule.id == "private-keys")
    slow = scan.Needle("slow", b"slow", lambda *_: str(sum(range(10**12))), everywhere=True)
    changed = tuple(
        each._replace(watches=(*each.watches, slow)) if each is rule else each for each in rules.ALL
    )
    monkeypatch.setattr(rules, "ALL", changed)
    done = survey(builder).audit(changed)
    by_id = {result.rule.id: result for result in done.results}
    seen = by_id["everything-seen"].verdict.unknowns
    assert [(unknown.path, unknown.refusal.reason) for unknown in seen] == [("/srv/slow", OVER_BUDGET)]
    assert by_id["histories"].verdict.findings
    assert not done.is_fit


@pytest.mark.slow
def test_too_many_overruns_end_it(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is made to be slow does not hold anybody up for ever; nothing in it is called fit."""
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.1)
    wanted = [with_check(rule, lambda _: sum(range(10**12))) for rule in rules.ALL]
    done = survey(builder).audit(wanted)
    assert {result.outcome for result in done.results} == {"unknown"}


def test_an_answer_that_nobody_gave_is_unknown() -> None:
    """A box that says that all is done, and nothing of a rule, has answered nothing."""
    silent = Survey("/x", lambda works, _received: [None for _ in works], progress=lambda _files, _path: None)
    done = silent.audit(rules.ALL[:2])
    assert [result.verdict.unknowns[0].refusal.reason for result in done.results] == [INTERNAL_ERROR] * 2


@pytest.mark.parametrize(
    "order, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)], ids=str
)
@pytest.mark.sample(3)
def test_an_order_to_end_is_kept_at_once(builder: Builder, order: signal.Signals, status: int) -> None:
    """Whatever the boxes are at: here, archives of zeros, for many seconds."""
    zeros = gzip.compress(bytes(100_000_000))
    for number in range(80):
        builder.file(f"/srv/{number}.gz", zeros)
    argv = [sys.executable, "-m", "firstkey", "audit", "--root", str(builder.root)]
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


@pytest.mark.slow
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
