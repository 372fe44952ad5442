"""The life of one disk on each of Debian's releases: booted five times, looked at from within, sealed."""

from __future__ import annotations

import re

import pytest
from lifetime import DOCTORS, OWN_UNIT, Life
from suites import MOVING, SUITES

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(1500)]

SAID = {"openssh": r"OpenSSH_(\d+\.\d+)", "systemd": r"systemd (\d+)", "python": r"Python (\d+\.\d+)"}
"""How the programs say their versions."""
UNKNOWN = {MOVING: {"supported-system"}}
"""What audit cannot know: sid does not say until when it is supported."""


def test_it_is_that_release(suite: str, life: Life) -> None:
    """The versions are what the table of platforms says; sid's are at least that."""
    said = life.at("first boot")["versions"]
    for program, expression in SAID.items():
        found = re.search(expression, said[program])
        assert found, said
        version, wanted = (
            tuple(map(int, text.split("."))) for text in (found[1], SUITES[suite]._asdict()[program])
        )
        assert version >= wanted if suite == MOVING else version == wanted


def test_the_first_boot(life: Life) -> None:
    """The launch key lets in, on a host that the console vouches for; another key does not."""
    seen = life.at("first boot")
    assert (seen["login"], seen["stranger is refused"]) == (0, True)
    assert (seen["system"], seen["failed units"], seen["cycles"]) == ("running", "", [])
    assert 0 < seen["ready"] <= seen["sshd started"]
    assert seen["verified"] == ""
    assert seen["report"]["outcome"] == "ok"
    assert {key["result"] for key in seen["report"]["host_keys"]} == {"changed"}
    assert seen["complaints"] == []


def test_sshds_own_list_of_host_keys_is_made(life: Life) -> None:
    """Whatever types this sshd has by default, and no other."""
    seen = life.at("first boot")
    assert len(seen["made"]) >= 3
    assert seen["made"] == seen["asked for"]


def test_a_created_user_has_sudo(life: Life) -> None:
    """By the release's own useradd and sudo, which says so itself."""
    seen = life.at("first boot")
    assert seen["sudo"] == "root\n"
    assert "adm" in seen["groups"]


def test_the_second_boot_changes_nothing(life: Life) -> None:
    """No file is written again."""
    seen = life.at("second boot")
    assert (seen["login"], seen["system"], seen["cycles"]) == (0, "running", [])
    assert (seen["changed"], seen["same host keys"]) == ([], True)


def test_damaged_host_keys_are_made_again(life: Life) -> None:
    """And the good ones stay."""
    seen = life.at("damaged host keys")
    assert (seen["login"], seen["set aside"]) == (0, 2)
    assert set(seen["made"]) - set(seen["stayed"]) == {"ssh_host_rsa_key.pub", "ssh_host_ed25519_key.pub"}


def test_a_rebundled_image_trusts_only_its_new_owner(life: Life) -> None:
    """And whom its builder let in by hand; on new host keys."""
    seen = life.at("re-bundled")
    assert (seen["login"], seen["own"], seen["launch is refused"]) == (0, 0, True)
    assert (seen["new host keys"], seen["revoked"]) == (True, 2)


@pytest.mark.parametrize("stage", ["damaged host keys", "re-bundled"], ids=["ssh.service", "ssh@.service"])
def test_a_connection_to_the_socket_waits_for_the_keys(life: Life, stage: str) -> None:
    """Port 22 is open from the start, and the first answer comes when the key works."""
    seen = life.at(stage)
    assert (seen["held"], seen["served"]) == (True, True)
    assert (seen["login"], seen["system"], seen["cycles"]) == (0, "running", [])


@pytest.mark.parametrize("stage", ["first boot", "damaged host keys", "re-bundled"])
def test_the_doctor_says_that_it_works(life: Life, stage: str) -> None:
    """However sshd is started, and however often it is asked: neither is it banned, nor anybody else here."""
    seen = life.at(stage)["doctor"]
    assert len(seen["verdicts"]) == (2 * DOCTORS if stage == "first boot" else 2)
    assert set(seen["verdicts"]) == {"open"}, seen["reasons"]
    assert seen["neighbour is served"]


def test_the_doctor_names_what_ends_a_connection(life: Life) -> None:
    """RefuseConnection, where sshd has it; and another client's ban does not fool it."""
    refused = life.at("first boot")["refused"]
    if refused is not None:
        assert refused["verdicts"] == ["blocked"]
        assert [found["reason"] for found in refused["reasons"] if found["status"] == "obstacle"] == [
            "refuse-connection"
        ]
    banned = life.at("first boot")["banned"]
    assert set(banned["verdicts"]) == {"open"}, banned["reasons"]


def test_the_doctor_tells_of_no_trouble_that_is_over(life: Life) -> None:
    """Though sshd logged it, by whichever of its programs: sshd itself, sshd-session or sshd-auth."""
    logged = life.at("first boot")["logged"]
    assert logged["refused"]
    assert logged["verdicts"] == ["open"]


def test_audit_looks_at_everything_from_a_box(suite: str, life: Life) -> None:
    """On the running system, which a builder has used: what is wrong is found, and nothing stays unknown."""
    audit = life.at("first boot")["audit"]
    unfit = {rule["id"] for rule in audit["rules"] if not rule["fit"]}
    assert unfit >= {"host-keys", "authorized-keys", "machine-id", "firstkey-state"}
    assert {rule["id"] for rule in audit["rules"] if rule["outcome"] == "unknown"} == UNKNOWN.get(
        suite, set()
    )


def test_a_sealed_image_is_fit_and_boots_as_somebody_elses(life: Life) -> None:
    """It seals itself; what stopping it wrote goes from outside; and nothing of the old is left."""
    seen = life.at("sealed")
    assert set(seen["unfit by itself"]) <= {"logs", "login-records"}
    assert (seen["not done"], seen["unfit"], seen["host keys were gone"]) == ([], [], True)
    assert (seen["login"], seen["system"], seen["failed units"]) == (0, "running", "")
    assert seen["others are refused"] == [True, True, True]
    assert seen["left"] == ""


def test_audit_knows_whether_the_releases_own_unit_makes_host_keys(suite: str, life: Life) -> None:
    """sshd-keygen.service does at what systemd calls a first boot, or without that condition at each."""
    seen = life.at(OWN_UNIT)
    for made in seen.values():
        assert made["promised"] == made["made"], seen
        assert (made["sshd"] == "active") == made["made"], seen
    has_unit = suite not in ("bullseye", "bookworm")
    assert [made["made"] for made in seen.values()] == ([False, True, True] if has_unit else [False, False])
