"""A plan as values: it crosses a pipe unchanged, and none of its steps undoes another's."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from typing import Any

import pytest
import slow_texts
from image_builder import Builder

from firstkey import image_reasons, reasons
from firstkey.image import pipe, rules, seal
from firstkey.image.audit import Audit, Result
from firstkey.image.changes import Change, Empty, Link, Remove, Write
from firstkey.image.door import Seen
from firstkey.image.rule import Rule
from firstkey.image.seal import Step
from firstkey.image.verdict import Finding, Verdict
from firstkey.reasons import FirstkeyError

NEED_SSHD = ("root-password-login", "use-dns", "first-login")
SEEN = Seen(1, 2, stat.S_IFREG, 0, single=True)
ODD = "/tmp/\udcff\n'a"


def crossed(value: object) -> Any:
    """What comes out of a pipe that it was written to as JSON."""
    return json.loads(json.dumps(value).encode("ascii"))


def read(plain: object) -> Change:
    """The change, out of a plan of which it is the only step."""
    change: Change = pipe.read(pipe.PLAN, [[["logs", plain, False]], [], [], [], []]).steps[0].change
    return change


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=rule.id, marks=[pytest.mark.sshd] if rule.id in NEED_SSHD else [])
        for rule in rules.ALL
    ],
)
def test_what_is_planned_comes_back_as_it_was(rule: Rule, builder: Builder) -> None:
    """Every rule's remedy, as pure data: nothing of it is lost, and no code goes along."""
    builder.grow(rule.failing)
    planned = seal.plan(builder.image(), [rule], [rule.option or ""])
    back = pipe.read(pipe.PLAN, crossed(pipe.write(planned)))
    assert back == planned
    assert [type(step.change) for step in back.steps] == [type(step.change) for step in planned.steps]
    for one, other in zip(back.steps, planned.steps):
        assert one.change.describe() == other.change.describe()


@pytest.mark.parametrize("stays", [(True, False), (False, True), (False, False)])
def test_of_two_findings_in_one_place_one_that_stays_counts(stays: tuple[bool, bool]) -> None:
    """The place is found again then, and that is as it was predicted."""
    rule = rules.by_id("mail")
    found = tuple(seal.Match(rule, "/var/mail/root", "x", each) for each in stays)
    after = Audit("/", (Result(rule, Verdict((Finding("/var/mail/root", "x"),))),))
    done = seal.Sealing(seal.Plan((), (), found, (), ()), (), after)
    assert bool(done.unpredicted) != any(stays)


@pytest.mark.parametrize(
    "change",
    [
        Remove(ODD, "x", wiping=True, links=("/a/\udc80",), seen=SEEN),
        Write("/a", "x", None, bytes(range(256)), 0o600, (b"\xff", b""), SEEN),
        Remove("/a/key", "x", wiping=True, seen=SEEN, blob=b"\0\xff"),
        Link("/a", "../b", "x", "/b"),
        Empty("/a", "x"),
    ],
)
def test_odd_names_and_bytes_survive(change: Change) -> None:
    """Names that are no UTF-8, and content that is no text."""
    assert read(crossed(pipe.write(change))) == change


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain.update(kind="shell"),
        lambda plain: plain.update(path="etc/shadow"),
        lambda plain: plain.update(path="/tmp/../etc/shadow"),
        lambda plain: plain.update(path="/tmp//x"),
        lambda plain: plain.update(path="/"),
        lambda plain: plain.update(path="/a\0b"),
        lambda plain: plain.update(path=None),
        lambda plain: plain.update(links=["x"]),
        lambda plain: plain.update(links="/x"),
        lambda plain: plain.update(wiping=1),
        lambda plain: plain.update(seen=[1, 2, 3, 0]),
        lambda plain: plain.update(seen=[1, "2", 3, 0, True]),
        lambda plain: plain.update(seen=[1, 2, 3, True, True]),
        lambda plain: plain.update(more=1),
        lambda plain: plain.pop("what"),
        lambda plain: plain.clear(),
    ],
)
def test_what_is_no_change_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    """Another kind, a field too many or too few, another type, a path that is not absolute and plain."""
    plain = crossed(pipe.write(Remove("/tmp/x", "x", seen=SEEN)))
    read(plain)
    spoil(plain)
    with pytest.raises(FirstkeyError) as caught:
        read(plain)
    assert caught.value.reason is reasons.INTERNAL_ERROR


def test_no_program_is_named_by_a_plan() -> None:
    """The package manager's command is one of two, and so are the packages that it updates."""
    plain = {"kind": "update", "manager": "apt", "package": "ec2-ami-tools"}
    assert read(plain).describe().startswith("run apt-get install")
    for field, value in (("manager", "/bin/sh"), ("package", "evil"), ("package", "--root=/")):
        with pytest.raises(FirstkeyError):
            read({**plain, field: value})


def judged(*changes: Change) -> tuple[list[Change], list[str]]:
    """The changes that a plan of these comes to, and why the others are left."""
    rule = rules.ALL[0]
    steps, left = seal.judged([Step(rule, change) for change in changes])
    assert {entry.refusal.reason for entry in left} <= {image_reasons.CONTRADICTION}
    return [step.change for step in steps], [entry.refusal.detail for entry in left]


def test_a_plan_of_many_steps(builder: Builder) -> None:
    """Twice as many steps take twice as long, not four times."""
    rule = rules.ALL[0]

    def make(size: int) -> list[Step]:
        places = [f"/tmp/{number}" for number in range(size // 100)]
        inside = [Remove(f"{place}/key", "x", wiping=True) for place in places]
        return [Step(rule, change) for change in (*(Remove(place, "x") for place in places), *inside)]

    assert slow_texts.growth(seal.judged, make) is None
    paths = [step.change.path for step in seal.judged(make(300))[0]]
    assert paths == ["/tmp/0/key", "/tmp/0", "/tmp/1/key", "/tmp/1", "/tmp/2/key", "/tmp/2"]


@pytest.mark.parametrize("place, stays", [("/tmp/deep/key", False), ("/srv/key", True)])
def test_what_another_rule_takes_away_is_predicted_gone(builder: Builder, place: str, stays: bool) -> None:
    """Without its own option a rule leaves a key; the rule of temporary files removes what it lies in."""
    builder.file(place, rules.by_id("private-keys").failing["/srv/deploy/notes.txt"] or "")
    wanted = [rules.by_id("temporary-files"), rules.by_id("private-keys")]
    planned = seal.plan(builder.image(), wanted, [])
    assert [match.stays for match in planned.found if match.rule is wanted[1]] == [stays]


A, B = Remove("/d/a", "x"), Remove("/d/b", "x")


WRITE, HARD = Write("/d/a", "x", b"1", b"2"), Remove("/d/a", "host key", wiping=True)
OVER = Write("/m", "x", b"1", b"2", link=SEEN)
NEXT = WRITE._replace(before=b"2", after=b"3")
BACK = Link("/l", "/m", "x", leads="/l")


@pytest.mark.parametrize(
    "changes,kept,left",
    [
        ((A, B), (A, B), 0),
        ((A, A), (A,), 0),
        ((Empty("/d/a", "x"), A), (A,), 0),
        ((A, Empty("/d/a", "x")), (A,), 0),
        ((A, A._replace(wiping=True, links=("/l",))), (A._replace(wiping=True, links=("/l",)),), 0),
        ((A, HARD), (HARD,), 0),
        # What is in a directory goes before it: it may have to be overwritten or remembered.
        ((Remove("/d", "x"), A, B), (A, B, Remove("/d", "x")), 0),
        # What destroys what another step makes is left, wherever it stands.
        ((A, WRITE), (WRITE,), 1),
        ((WRITE, A), (WRITE,), 1),
        ((WRITE, HARD), (WRITE,), 1),
        ((Remove("/d", "x"), WRITE), (WRITE,), 1),
        ((Remove("/e", "x", links=("/d/a",)), Link("/d/a", "/b", "x")), (Link("/d/a", "/b", "x"),), 1),
        # Two that write one file: one after the other, or only the first.
        (
            (WRITE, WRITE._replace(before=b"2", after=b"3")),
            (WRITE, WRITE._replace(before=b"2", after=b"3")),
            0,
        ),
        ((WRITE, WRITE._replace(after=b"3")), (WRITE,), 1),
        ((Link("/l", "/a", "x"), Link("/l", "/b", "x")), (Link("/l", "/a", "x"),), 1),
        # Links that lead to what goes, to themselves, or round.
        ((Link("/l", "d/a", "x"), A), (A,), 1),
        ((Link("/l", "l", "x"),), (), 1),
        ((BACK,), (), 1),
        ((OVER, BACK), (OVER, BACK), 0),
    ],
)
def test_no_step_undoes_another(changes: tuple[Change, ...], kept: tuple[Change, ...], left: int) -> None:
    """What is implied is done once, what contradicts is left with its reason, and the rest has an order."""
    done, why = judged(*changes)
    assert (tuple(done), len(why)) == (kept, left)


@pytest.mark.parametrize("number", [2, 3])
def test_what_a_failed_step_leaves_needed_stays_and_shells_end_before_histories(
    builder: Builder, number: int
) -> None:
    """The ledger goes only after the keys; shells would write histories back, with or without a step."""
    steps = (
        Step(rules.by_id("authorized-keys"), Remove("/etc/passwd", "x", seen=SEEN)),
        Step(rules.by_id("firstkey-state"), Remove("/var/lib/firstkey/ledger.json", "x", seen=SEEN)),
        Step(rules.by_id("histories"), Remove("/root/.bash_history", "x", seen=SEEN)),
    )
    calls: list[str] = []
    planned = seal.Plan(steps[:number], (), (), (), ())
    done = seal.carry_out(planned, builder.context(), before_histories=lambda: calls.append("shells"))
    calls.extend(outcome.result for outcome in done)
    assert calls == ["failed", "left", "shells", "done"][: number + 1]
