"""The rules as a whole: one shape, told apart, with examples that prove the check and the remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from image_builder import Builder

from firstkey.image import rules, seal
from firstkey.image.audit import verdict_of
from firstkey.image.rule import AMI_TOOLS, CREDENTIALS, FIRST, HISTORIES, LOGS, Rule
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, FINDING, NOTE, PASS, UNKNOWN, WARNING, Finding, Part
from firstkey.reasons import IO_ERROR, FirstkeyError

NEED_SSHD = ("root-password-login", "use-dns", "first-login", "password-login", "root-login")
# Nothing that is in an image is run, and the package manager's own update is one of its programs.
NOT_IN_AN_IMAGE = ("ami-tools",)


def params(*, mending: bool = False) -> list[object]:
    """Every rule (that mends in an image); those that ask sshd or cvtsudoers only where there is one."""
    needs = {
        **{name: [pytest.mark.sshd] for name in NEED_SSHD},
        "launch-user-sudo": [pytest.mark.skipif(not shutil.which("cvtsudoers"), reason="needs sudo")],
    }
    return [
        pytest.param(rule, id=rule.id, marks=needs.get(rule.id, []))
        for rule in rules.ALL
        if not mending or not (rule.by_hand or rule.id in NOT_IN_AN_IMAGE)
    ]


def test_rules_are_told_apart() -> None:
    """Ids are unique words that never change their form; each guideline has a rule."""
    ids = [rule.id for rule in rules.ALL]
    assert len(set(ids)) == len(ids) == 56
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids)
    assert {rule.guideline for rule in rules.ALL} == set(rules.GUIDELINES)
    order = list(rules.GUIDELINES)
    assert [rule.guideline for rule in rules.ALL] == sorted(
        (rule.guideline for rule in rules.ALL), key=order.index
    )


@pytest.mark.parametrize("rule", rules.ALL, ids=lambda rule: rule.id)
def test_rule_speaks(rule: Rule) -> None:
    """Title, severity, stage and prose are there, and say what seal does."""
    assert rule.severity in (ERROR, WARNING, NOTE)
    assert rule.stage in (FIRST, LOGS, HISTORIES)
    assert rule.option in (None, CREDENTIALS, AMI_TOOLS)
    assert rule.title[0].isalpha()
    assert not rule.title.endswith(".")
    assert rule.prose.endswith(".")
    assert len(rule.prose) > 120
    assert "seal" in rule.prose or rule.by_hand


@pytest.mark.parametrize("rule", params())
@pytest.mark.sample(2)
def test_failing_example_fails(rule: Rule, builder: Builder) -> None:
    """The failing example has a finding (or is unknown, where that is what the rule finds)."""
    builder.grow(rule.failing)
    verdict = verdict_of(rule, builder.image())
    assert verdict.outcome == (UNKNOWN if rule.id == "everything-seen" else FINDING), verdict
    for finding in verdict.findings:
        assert not (rule.by_hand and finding.changes)
        assert finding.path.startswith("/") or rule.id == "ami-tools"
        assert finding.reason.endswith(".")
        assert finding.remedy or finding.changes


@pytest.mark.parametrize("rule", params())
@pytest.mark.sample(4)
def test_passing_example_passes(rule: Rule, builder: Builder) -> None:
    """The passing example passes, and there is nothing to repair in it."""
    builder.grow(rule.passing)
    verdict = verdict_of(rule, builder.image())
    assert verdict.outcome == PASS, verdict
    assert seal.plan(builder.image(), [rule], [rule.option or ""]).steps == ()


def test_what_is_found_stays_where_the_check_fails(builder: Builder) -> None:
    """One part of a rule must not keep the other from speaking."""

    def check(_image: Image) -> Iterator[Part]:
        yield Finding("/etc/found", "It was found before.")
        raise FirstkeyError("no", reason=IO_ERROR)

    rule = rules.by_id("host-identities")._replace(check=check)
    builder.file("/etc/nvme/hostid", "x\n")
    verdict = verdict_of(rule, builder.image())
    assert [finding.path for finding in verdict.findings] == ["/etc/nvme/hostid", "/etc/found"]
    assert [unknown.refusal.reason for unknown in verdict.unknowns] == [IO_ERROR]


@pytest.mark.parametrize("rule", params(mending=True))
@pytest.mark.sample(3)
def test_remedy_mends(rule: Rule, builder: Builder) -> None:
    """The remedy describes itself, makes the failing example pass, and has nothing to do a second time."""
    builder.grow(rule.failing)
    changes = builder.settled(rule.id)
    assert changes
    for change in changes:
        assert change.describe().splitlines()[0]
        assert change.path
    for change in changes:
        assert change.apply(builder.context())
    assert verdict_of(rule, builder.image()).outcome == PASS
    assert seal.plan(builder.image(), [rule], [rule.option or ""]).steps == ()


@pytest.mark.parametrize("rule", params(mending=True))
@pytest.mark.sample(6)
def test_planned_twice_is_harmless(rule: Rule, builder: Builder) -> None:
    """Changes that were planned and are applied a second time do no harm: a crash may have come between."""
    builder.grow(rule.failing)
    changes = builder.settled(rule.id)
    for _ in range(2):
        for change in changes:
            change.apply(builder.context())
    assert verdict_of(rule, builder.image()).outcome == PASS
