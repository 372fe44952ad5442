"""`firstkey status`: how things stand, for root and for everybody, before a run and after, on any tree."""

from __future__ import annotations

import json
import re
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import processes
import pytest
from hostkeys import QUICK, be_quick, private, public
from machine import Machine, Run, fingerprint, new_key

from firstkey import reasons
from firstkey.boot import ledger
from firstkey.metadata.emulator import Emulator, Fault, Settings
from firstkey.system.tree import Tree

INSTANCE = "i-0000000000000001"


@pytest.fixture
def served(machine: Machine, tmp_path: Path) -> Machine:
    """A machine after its first run."""
    return run_once(machine, tmp_path)


def run_once(machine: Machine, keys: Path, *, expected: int = 0) -> Machine:
    """One launch key, whose pair is left in the directory, and the quick host keys."""
    be_quick(machine)
    key = new_key(keys, "launch")
    with Emulator(Settings(instance_id=INSTANCE, keys=(("launch", key),))) as service:
        assert machine.run(service).status == expected
    return machine


def status(machine: Machine, *options: str) -> Run:
    """The command."""
    done = machine.firstkey("status", *options)
    assert (done.status, done.err) == (0, "")
    return done


def as_json(machine: Machine) -> dict[str, Any]:
    """For programs."""
    found: dict[str, Any] = json.loads(status(machine, "--json").out)
    return found


def test_before_any_run_it_says_so_and_makes_nothing(machine: Machine) -> None:
    """Nothing is known, nothing is there, and looking changes nothing."""
    machine.ask_for_all_host_keys()
    before = machine.snapshot()
    done = status(machine)

    assert "Instance:  unknown" in done.out
    assert "Last run:  none in this boot" in done.out
    assert "admin: no launch key known" in done.out
    assert done.out.count("missing") == 3
    assert machine.snapshot() == before


def test_after_a_run_it_shows_instance_version_keys_and_host_keys(served: Machine) -> None:
    """What DESIGN promises, with the fingerprints that ssh-keygen prints."""
    done = status(served)
    launch = fingerprint(served.keys[0])

    assert f"Instance:  {INSTANCE}" in done.out
    assert "Last run:  ok; IMDSv2" in done.out
    began = re.search(r"^Began:     (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", done.out, re.MULTILINE)
    assert began
    age = datetime.now(timezone.utc) - datetime.fromisoformat(f"{began[1]}+00:00")
    assert timedelta() <= age < timedelta(hours=1)
    assert f"admin: {launch} in place, /home/admin/.ssh/authorized_keys (instance {INSTANCE})" in done.out
    for kind in QUICK:
        line = public(private(served, kind)).read_text()
        assert f"/etc/ssh/ssh_host_{kind}_key  good  {fingerprint(line)}" in done.out


def test_what_changed_since_is_seen(served: Machine) -> None:
    """A launch key that was taken out, a host key that broke, one that others can read."""
    served.write_keys("")
    private(served, "ecdsa").write_bytes(b"broken")
    private(served).chmod(0o644)
    done = status(served)

    assert "removed since" in done.out
    states = {key["type"]: key["state"] for key in as_json(served)["host_keys"]}
    assert states == {"ecdsa": "broken", "ed25519": "readable by others"}


def test_a_directory_is_no_host_key(served: Machine) -> None:
    """Whatever its public half says."""
    private(served).unlink()
    private(served).mkdir()
    states = {key["type"]: key["state"] for key in as_json(served)["host_keys"]}
    assert states["ed25519"] == "/etc/ssh/ssh_host_ed25519_key is not a regular file"


def test_a_type_that_is_not_asked_for_is_not_missing(machine: Machine) -> None:
    """No boot makes what Types= leaves out. One that is there all the same is shown, since sshd has it."""
    machine.ask_for_all_host_keys()
    machine.configure("[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n")
    assert [key["type"] for key in as_json(machine)["host_keys"]] == ["ed25519"]
    machine.write("/etc/ssh/ssh_host_rsa_key", "broken", mode=0o600)
    states = {key["type"]: key["state"] for key in as_json(machine)["host_keys"]}
    assert states == {"ed25519": "missing", "rsa": "broken"}


def test_a_key_in_two_files_is_shown_in_each(served: Machine, tmp_path: Path) -> None:
    """After AuthorizedKeysFile was changed, what is in the old file is not hidden: each is told."""
    line, other = served.keys[0], "/home/admin/keys"
    settings = served.path("/etc/ssh/sshd_config")
    settings.write_text(f"{settings.read_text()}AuthorizedKeysFile keys\n")
    with Emulator(Settings(instance_id=INSTANCE, keys=(("launch", line),))) as service:
        served.run(service, "--force")
    served.write_keys("")
    shown = status(served).out
    assert f"removed since, /home/admin/.ssh/authorized_keys (instance {INSTANCE})" in shown
    assert f"in place, {other} (instance {INSTANCE})" in shown


def test_a_key_that_was_about_to_be_written_was_not_removed(served: Machine) -> None:
    """A power cut or a full disk left the intention in the ledger; nobody took the line out."""
    tree = Tree(str(served.root))
    known, _ = ledger.load(tree)
    ledger.save(tree, known._replace(keys=tuple(key._replace(state=ledger.PENDING) for key in known.keys)))
    assert "in place, /home/admin/.ssh/authorized_keys" in status(served).out
    served.write_keys("")
    assert "not written yet, /home/admin/.ssh/authorized_keys" in status(served).out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"imds": null}',
        b'{"imds": [], "users": 5}',
        b'{"users": [1, {}]}',
        b"\xff",
    ],
)
@pytest.mark.sample(8)
def test_a_damaged_report_is_no_riddle(served: Machine, content: bytes) -> None:
    """Whatever stands in it; that it is there and cannot be read is said, with what to do."""
    served.write("/run/firstkey/report.json", content)
    out = status(served).out
    assert f"Instance:  {INSTANCE}" in out
    assert "Last run:  unknown\n    /run/firstkey/report.json does not hold" in out
    assert "(no-report)\n    What to do: " in out
    assert "not there" not in out
    assert as_json(served)["report"]["reason"] == "no-report"
    drawn = served.firstkey("status", "--timeline")
    assert (drawn.status, drawn.out) == (1, "")
    assert "(no-report)" in drawn.err


def test_no_user_without_a_file_is_a_riddle(machine: Machine) -> None:
    """Launched without a key pair: nothing was changed, and there is no file to name."""
    be_quick(machine)
    with Emulator(Settings(instance_id=INSTANCE)) as service:
        assert machine.run(service).status == 0
    out = status(machine).out
    assert "  admin: unchanged at the last run\n" in out
    assert "Last run:  no-key; IMDSv2" in out
    assert "(no-key-pair)" in out
    assert "None" not in out


def test_a_refused_user_has_the_reason_and_its_remedy(machine: Machine, tmp_path: Path) -> None:
    """As the run itself told it."""
    be_quick(machine)
    machine.configure("[Keys]\nUsers=admin zorro\n")
    run_once(machine, tmp_path, expected=1)
    out = status(machine).out
    refused = out.split("  zorro: refused at the last run\n")[1].splitlines()
    assert refused[0].endswith("(no-such-user)")
    assert refused[1] == f"    What to do: {reasons.NO_SUCH_USER.remedy}"


def test_a_key_that_sshd_ignores_is_not_just_in_place(machine: Machine, tmp_path: Path) -> None:
    """The key is there, and what the run found to be in its way is told beside it."""
    machine.path("/home/admin").chmod(0o777)
    run_once(machine, tmp_path, expected=1)
    out = status(machine).out
    assert " in place, /home/admin/.ssh/authorized_keys" in out
    assert "    at the last run: " in out
    assert (
        f"(bad-modes)\n    What to do: In {machine.root}, not on this host: {reasons.BAD_MODES.remedy}\n"
        in out
    )


@pytest.mark.slow
def test_a_service_that_fails_was_asked(machine: Machine) -> None:
    """What it answered is told, and nothing else is claimed; where nobody asked it, that is said."""
    be_quick(machine)
    with Emulator(Settings(instance_id=INSTANCE), faults=[Fault.parse("status=500")]) as service:
        assert machine.run(service, "--wait", "10").status == 75
    out = status(machine).out
    assert "Last run:  unreachable (/run/firstkey/report.json)\n" in out
    assert "answered with 500 (imds-error)\n    What to do: " in out
    assert "not asked" not in out
    machine.write("/run/firstkey/report.json", '{"outcome": "ok", "imds": {"version": null}, "reason": null}')
    assert "Last run:  ok; the metadata service was not asked" in status(machine).out


def test_what_a_report_says_cannot_move_the_cursor(machine: Machine) -> None:
    """Escapes in it are shown, not obeyed."""
    machine.write("/run/firstkey/report.json", json.dumps({"outcome": "\x1b[2J", "instance_id": "i\x1b[2J"}))
    assert "\x1b" not in status(machine).out


def test_links_in_a_tree_do_not_lead_out_of_it(served: Machine, tmp_path: Path) -> None:
    """Every file that is read stays inside, absolute links or not."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "report.json").write_text('{"outcome": "from outside"}')
    (outside / "firstkey.conf").write_text("[Keys]\nUsers=outsider\n")
    for path in ("/run/firstkey", "/etc/firstkey"):
        served.path(path).rename(served.path(path).with_name("moved"))
        served.path(path).symlink_to(outside)
    done = status(served)

    assert "from outside" not in done.out
    assert "outsider" not in done.out
    assert "none in this boot" in done.out


@pytest.mark.root
@pytest.mark.slow
def test_somebody_else_sees_what_everybody_may(tmp_path: Path) -> None:
    """The report and the public halves; no failure, though only root can read the rest."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if missing := processes.missing_for_others():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are root's alone
        Path(directory).chmod(0o755)
        served = run_once(Machine(Path(directory) / "root"), tmp_path)
        done = served.firstkey("status", prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
        lines = [public(private(served, kind)).read_text() for kind in QUICK]

    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    assert f"Instance:  {INSTANCE}" in done.out
    assert "admin: changed at the last run, /home/admin/.ssh/authorized_keys" in done.out
    assert all(f"there  {fingerprint(line)}" in done.out for line in lines)
