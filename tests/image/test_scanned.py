"""What becomes of what a scanner for secrets saw: it is told beside what firstkey found itself, and once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from image_builder import Builder
from machine import AGENT

from firstkey import image_reasons
from firstkey.image import rules
from firstkey.image.audit import verdict_of
from firstkey.image.examples import access_key
from firstkey.image.rules import private_keys
from firstkey.image.scan import Looking, Scanned, Sighting
from firstkey.image.survey import AUTO, BUILTIN, scanned
from firstkey.image.verdict import Verdict
from firstkey.reasons import Refusal

AKIA = access_key("AKIA", "Z7QK3WJT5NP2XR6M")


def seen(path: str, line: int | None = 1) -> Sighting:
    """As a scanner has it."""
    return Sighting(path, "a secret (kingfisher: a-pat)", line)


def verdict(builder: Builder, *sightings: Sighting, refusal: Refusal | None = None) -> Verdict:
    """What the rule makes of it."""
    looking = Looking(scanned=Scanned(sightings, refusal, "Looked for with kingfisher 1.2."))
    return verdict_of(rules.by_id("access-keys"), builder.image(looking))


def test_each_place_is_told_once(builder: Builder) -> None:
    """What was found here on the same line is not told again, whatever it is."""
    builder.file("/srv/a", f"{AKIA}\nx\ntoken\n")
    builder.file("/srv/key", private_keys.EXAMPLE)
    found = verdict(builder, seen("/srv/a", 1), seen("/srv/a", 3), seen("/srv/a", 3), seen("/srv/key", 1))
    assert [(each.path, each.line, each.reason) for each in found.findings] == [
        ("/srv/a", 1, "There is an AWS access key in it."),
        ("/srv/a", 3, "There is a secret (kingfisher: a-pat) in it."),
    ]
    assert found.remark == "Looked for with kingfisher 1.2."


def test_what_a_package_brought_is_left_out(builder: Builder) -> None:
    """As it is of what is found here."""
    builder.file("/usr/share/doc/a", "token\n")
    digest = hashlib.md5(b"token\n", usedforsecurity=False).hexdigest()
    builder.file("/var/lib/dpkg/info/a.md5sums", f"{digest}  usr/share/doc/a\n")
    found = verdict(builder, seen("/usr/share/doc/a"))
    assert (found.outcome, found.remark) == (
        "pass",
        "1 file is left out: as the package brought it (a). Looked for with kingfisher 1.2.",
    )


def test_what_is_in_an_archive_is_told_of_the_archive(builder: Builder) -> None:
    """A path that there is, and that a remedy can name; a name with a mark in it is only a name."""
    builder.directory("/srv")
    with zipfile.ZipFile(builder.path("/srv/a.zip"), "w") as archive:
        archive.writestr("b", "token\n")
    builder.file("/srv/a!b", "token\n")
    found = verdict(builder, seen("/srv/a.zip!b"), seen("/srv/a.zip!c!d"), seen("/srv/a!b"))
    assert [(each.path, each.line) for each in found.findings] == [("/srv/a!b", 1), ("/srv/a.zip", None)]


def test_a_scanner_without_an_answer_makes_it_unknown(builder: Builder) -> None:
    """An image that nobody looked through as was asked for is not called fit."""
    refusal = Refusal(image_reasons.NO_SCANNER, "kingfisher failed")
    found = verdict(builder, refusal=refusal)
    assert (found.outcome, found.unknowns[0].refusal) == ("unknown", refusal)


def test_seal_leaves_what_a_scanner_saw(builder: Builder) -> None:
    """Its rules may be wrong, and a file is gone for good: a person is to judge."""
    builder.file("/srv/a", "token\n")
    image = builder.image(Looking(scanned=Scanned((seen("/srv/a"),))))
    rule = rules.by_id("access-keys")
    assert rule.verdict(image).changes == ()


def test_what_was_not_looked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line: because nobody wanted it, or because there is nothing to do it with."""
    monkeypatch.setattr("firstkey.system.command.SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not looked for; audit has a scanner look" in scanned(BUILTIN, str(tmp_path)).remark
    assert "pip install kingfisher-bin" in scanned(AUTO, str(tmp_path)).remark
    missing = scanned("gitleaks", str(tmp_path)).refusal
    assert missing == Refusal(image_reasons.NO_SCANNER, "gitleaks is not installed")


TELLS = """#!/bin/sh
case $1 in --version) echo kingfisher 1.2.3; exit;; esac
cat <<END
{"findings": [{"rule": {"name": "a-pat"}, "finding": {"path": "$2/srv/a", "line": 2, "snippet": "hunter22"}}]}
END
exit 200
"""


@pytest.mark.root
@pytest.mark.parametrize("form", ["--json", "--sarif", "-v"])
def test_the_command_says_who_looked(builder: Builder, form: str) -> None:
    """With a scanner of the host's: its name and version, and where it saw what. Never the secret."""
    builder.file("/srv/a", "x\nhunter22\n")
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    with tempfile.TemporaryDirectory(dir="/usr/local/lib") as programs:
        program = Path(programs, "kingfisher")
        program.write_text(TELLS)
        program.chmod(0o755)
        argv = [sys.executable, "-m", "firstkey", "audit", "--root", str(builder.root), form]
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": str(AGENT)}
        done = subprocess.run(
            [*argv, "--rule", "access-keys"], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "There is a secret (kingfisher: a-pat) in it." in done.stdout
    assert form == "--sarif" or "looked for with kingfisher 1.2.3." in done.stdout
    assert "hunter22" not in done.stdout + done.stderr
