"""A plan as values: it crosses a pipe unchanged, and none of its steps undoes another's."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from typing import Any

import pytest
from sapling import Sapling

from firstkey import image_reasons, reasons
from firstkey.image import pipe, plan, rules, seal
from firstkey.image.changes import Change, Empty, Link, Remove, Write
from firstkey.image.door import Seen
from firstkey.image.plan import Step
from firstkey.image.rule import Rule
from firstkey.reasons import FirstkeyError

NEED_SSHD = ("root-password-login", "use-dns", "first-login")
SEEN = Seen(1, 2, stat.S_IFREG, 0, single=True)
ODD = "/tmp/\udcff\n'a"


def crossed(value: object) -> Any:
    """What comes out of a pipe that it was written to as JSON."""
    return json.loads(json.dumps(value).encode("ascii"))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=rule.id, marks=[pytest.mark.sshd] if rule.id in NEED_SSHD else [])
        for rule in rules.ALL
    ],
)
def test_what_is_planned_comes_back_as_it_was(rule: Rule, sapling: Sapling) -> None:
    """Every rule's remedy, as pure data: nothing of it is lost, and no code goes along."""
    sapling.grow(rule.failing)
    planned = seal.plan(sapling.image(), [rule], [rule.option or ""])
    back = pipe.read(pipe.PLAN, crossed(pipe.PLAN.write(planned)))
    assert back == planned
    assert [type(step.change) for step in back.steps] == [type(step.change) for step in planned.steps]
    for one, other in zip(back.steps, planned.steps):
        assert one.change.describe() == other.change.describe()


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
    assert pipe.read(pipe.CHANGE, crossed(pipe.CHANGE.write(change))) == change


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
    plain = crossed(pipe.CHANGE.write(Remove("/tmp/x", "x", seen=SEEN)))
    pipe.read(pipe.CHANGE, plain)
    spoil(plain)
    with pytest.raises(FirstkeyError) as caught:
        pipe.read(pipe.CHANGE, plain)
    assert caught.value.reason is reasons.INTERNAL_ERROR
    with pytest.raises(FirstkeyError):
        pipe.read(pipe.PLAN, [[["logs", plain, False]], [], [], []])


def test_no_program_is_named_by_a_plan() -> None:
    """The package manager's command is one of two, and so are the packages that it updates."""
    plain = {"kind": "update", "manager": "apt", "package": "ec2-ami-tools"}
    assert pipe.read(pipe.CHANGE, plain).describe().startswith("run apt-get install")
    for field, value in (("manager", "/bin/sh"), ("package", "evil"), ("package", "--root=/")):
        with pytest.raises(FirstkeyError):
            pipe.read(pipe.CHANGE, {**plain, field: value})


def judged(*changes: Change) -> tuple[list[Change], list[str]]:
    """The changes that a plan of these comes to, and why the others are left."""
    rule = rules.ALL[0]
    steps, left = plan.judged([Step(rule, change) for change in changes])
    assert {entry.refusal.reason for entry in left} <= {image_reasons.CONTRADICTION}
    return [step.change for step in steps], [entry.refusal.detail for entry in left]


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
