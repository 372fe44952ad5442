"""`firstkey audit` in pipelines: JUnit XML, known findings."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audits import Run, audit, grow_clean, grow_dirty
from sapling import Sapling

from firstkey.image import rules

DOCS = Path(__file__).parents[2] / "docs"
HOSTILE = "/srv/]]>&<\"'\x1b[2J\n\udcff\ufffe\u202e/.zsh_history"
SHOWN = "/srv/]]>&<\"'\\x1b[2J\\n\\xff\\ufffe\\u202e/.zsh_history"


@pytest.fixture
def clean(sapling: Sapling) -> Sapling:
    """An image that is fit to share."""
    grow_clean(sapling)
    return sapling


# --- JUnit ----------------------------------------------------------------------------------------


def suite(done: Run) -> ET.Element:
    """The one test suite, as an XML parser reads it."""
    found = ET.fromstring(done.out)
    assert found.tag == "testsuites"
    (inside,) = found
    return inside


def cases(done: Run) -> dict[str, ET.Element]:
    """The test cases by their rules."""
    return {case.attrib["name"]: case for case in suite(done).iter("testcase")}


def kinds(done: Run) -> dict[str, list[str]]:
    """What each case has in it."""
    return {name: [inside.tag for inside in case] for name, case in cases(done).items()}


@pytest.mark.sshd
@pytest.mark.parametrize("grow", [grow_clean, grow_dirty], ids=["clean", "dirty"])
def test_junit_has_a_case_for_each_rule(sapling: Sapling, grow: Any) -> None:
    """Its counts are right, and it fails where the exit status says so."""
    grow(sapling)
    done = audit(sapling, "--junit")
    found = suite(done)
    assert list(cases(done)) == [rule.id for rule in rules.ALL]
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(found.attrib[count]) == len(list(found.iter(tag)))
    assert int(found.attrib["tests"]) == len(rules.ALL)
    failed = int(found.attrib["failures"]) + int(found.attrib["errors"])
    assert (failed > 0) is (done.status == 1)


def test_junit_tells_what_and_what_to_do(clean: Sapling) -> None:
    """A finding is a failure with its remedy, a note is none, and what does not apply is skipped."""
    clean.file("/root/.bash_history", "ls\n")
    done = audit(clean, "--junit")
    (failure,) = cases(done)["histories"]
    assert failure.tag == "failure"
    assert failure.attrib["type"] == "error"
    assert failure.attrib["message"].startswith("/root/.bash_history: This is a history")
    assert "What to do: shred -u -- /root/.bash_history" in str(failure.text)
    (note,) = cases(done)["publisher"]
    assert note.tag == "system-out"
    assert "Set Publisher=" in str(note.text)
    (skipped,) = cases(done)["ami-tools"]
    assert skipped.tag == "skipped"
    assert "no AMI tools are installed" in skipped.attrib["message"]
    assert kinds(done)["mail"] == []


def test_junit_has_what_is_unknown_as_an_error(clean: Sapling) -> None:
    """Where it makes the image unfit; of a rule that matters less it is told, and skipped."""
    clean.file("/usr/sbin/sshd", "", mode=0o755)
    clean.file("/etc/ssh/sshd_config", "PermitRootLogin perhaps\n")
    clean.link("/var/mail", "loop")
    clean.link("/var/loop", "mail")
    done = audit(clean, "--junit")
    (error,) = cases(done)["root-password-login"]
    assert error.tag == "error"
    assert error.attrib["type"] in ("sshd-config-invalid", "sshd-missing")
    (skipped,) = cases(done)["mail"]
    assert skipped.tag == "skipped"
    assert skipped.attrib["message"].startswith("unknown: ")


def test_junit_is_xml_whatever_the_names_are(clean: Sapling) -> None:
    """XML 1.0 has no form for control characters, and CI systems refuse the whole file for one."""
    clean.file(HOSTILE, "ls\n")
    done = audit(clean, "--junit")
    assert done.out.isascii()
    (failure,) = cases(done)["histories"]
    assert failure.attrib["message"].startswith(f"{SHOWN}: ")
    assert str(failure.text).startswith(f"error: {SHOWN}: ")


# --- known findings -------------------------------------------------------------------------------


def entries(done: Run, **more: str) -> list[dict[str, str]]:
    """What is found and worse than a note, as entries of a baseline."""
    return [
        {
            "fingerprint": found["fingerprint"],
            "rule": rule["id"],
            "path": found["path"],
            "reason": "a test needs it",
            "owner": "team@example.com",
            **more,
        }
        for rule in done.report["rules"]
        for found in rule["findings"]
        if found["severity"] != "note"
    ]


def baseline(tmp_path: Path, known: list[dict[str, str]]) -> str:
    """The file, as its schema has it."""
    file = tmp_path / "known.json"
    file.write_text(json.dumps({"version": 1, "known": known}, indent=1))
    schema = json.loads((DOCS / "baseline.schema.json").read_text())
    jsonschema.validate(json.loads(file.read_text()), schema, cls=jsonschema.Draft202012Validator)
    return str(file)


def test_known_findings_are_told_and_do_no_harm(clean: Sapling, tmp_path: Path) -> None:
    """With their reason, in each form."""
    clean.file("/root/.bash_history", "ls\n")
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    done = audit(clean, "--baseline", known)
    text = done.out.decode()
    assert done.status == 0, text
    assert "  known There are no shell or program histories [histories]" in text
    assert "Known: a test needs it (team@example.com)" in text
    assert "\nFit to share: 0 errors, 0 warnings, 1 note, 0 unknown, 1 known." in text
    assert audit(clean, "--baseline", known, "-q") == Run(0, b"", "")
    report = audit(clean, "--baseline", known, "--json")
    rule = report.rule("histories")
    assert (rule["fit"], rule["outcome"]) == (True, "finding")
    assert rule["findings"][0]["known"] == {"reason": "a test needs it", "owner": "team@example.com"}
    junit = audit(clean, "--baseline", known, "--junit")
    assert (junit.status, kinds(junit)["histories"]) == (0, ["system-out"])
    results = audit(clean, "--baseline", known, "--sarif").report["runs"][0]["results"]
    (result,) = [result for result in results if result["ruleId"] == "histories"]
    assert result["suppressions"][0]["justification"] == "a test needs it (team@example.com)"


def test_a_new_finding_makes_the_image_unfit(clean: Sapling, tmp_path: Path) -> None:
    """One that is known beside it excuses nothing."""
    clean.file("/root/.bash_history", "ls\n")
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    clean.file("/home/admin/.bash_history", "ls\n")
    done = audit(clean, "--baseline", known)
    assert done.status == 1
    assert "NOT fit to share: 1 error, " in done.out.decode()
    assert kinds(audit(clean, "--baseline", known, "--junit"))["histories"] == ["failure"]
    quiet = audit(clean, "--baseline", known, "-q").out
    assert b"/home/admin/.bash_history" in quiet
    assert b"/root/.bash_history" not in quiet


def test_a_known_finding_survives_that_its_line_moves(clean: Sapling, tmp_path: Path) -> None:
    """Above it, lines come and go; a second one of its kind in the same file is new."""
    broken = "broken:line\n"
    accounts = clean.path("/etc/passwd").read_text()
    clean.file("/etc/passwd", accounts + broken)
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    assert audit(clean, "--baseline", known).status == 0
    clean.file("/etc/passwd", "daemon:x:2:2::/:/usr/sbin/nologin\n" + accounts + broken)
    done = audit(clean, "--baseline", known)
    assert (done.status, b"not found any more" in done.out) == (0, False)
    clean.file("/etc/passwd", accounts + broken + "another:line\n")
    assert audit(clean, "--baseline", known).status == 1


def test_what_is_not_found_any_more_is_told(clean: Sapling, tmp_path: Path) -> None:
    """But not of a rule that was not asked."""
    clean.file("/root/.bash_history", "ls\n")
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    clean.path("/root/.bash_history").unlink()
    done = audit(clean, "--baseline", known)
    assert done.status == 0
    assert b"\n  line 4: /root/.bash_history [histories], a test needs it (team@example.com)\n" in done.out
    (unmatched,) = audit(clean, "--baseline", known, "--json").report["unmatched"]
    assert (unmatched["rule"], unmatched["line"]) == ("histories", 4)
    assert b"line 4: /root" in audit(clean, "--baseline", known, "-q").out
    assert "known.json, line 4" in audit(clean, "--baseline", known, "--sarif").err
    assert b"line 4: " not in audit(clean, "--baseline", known, "--rule", "mail").out


def test_an_entry_is_for_the_path_that_it_names(clean: Sapling, tmp_path: Path) -> None:
    """Whoever reads the file must not be told of another finding than the one that is accepted."""
    clean.file("/root/.bash_history", "ls\n")
    known = baseline(tmp_path, entries(audit(clean, "--json"), path="/root/harmless"))
    done = audit(clean, "--baseline", known)
    assert done.status == 1
    assert b"/root/harmless [histories]" in done.out


def test_what_is_unknown_cannot_be_accepted(clean: Sapling, tmp_path: Path) -> None:
    """A baseline is for what somebody has looked at."""
    clean.file("/usr/sbin/sshd", "", mode=0o755)
    clean.file("/etc/ssh/sshd_config", "PermitRootLogin perhaps\n")
    done = audit(clean, "--json")
    assert done.rule("root-password-login")["outcome"] == "unknown"
    assert audit(clean, "--baseline", baseline(tmp_path, entries(done))).status == 1


MARK = "0" * 32
ENTRY = (
    f'{{"fingerprint": "{MARK}", "rule": "mail", "path": "/var/mail/root", "reason": "old", "owner": "me"}}'
)


def listed(entries: str) -> str:
    """A baseline of these, from its second line."""
    return f'{{"version": 1, "known": [\n{entries}]}}'


MALFORMED = (
    ("", 1, "Expecting value"),
    ('{"version": 1,\n "known": [\n', 3, "Expecting value"),
    ('{"version": 2, "known": []}', 1, '"version": 1'),
    ('{"version": 1, "known": [], "allow": "*"}', 1, '"version": 1'),
    ('{"version": 1, "known": {}}', 1, "no list"),
    ('{"version": 1, "known": [], "known": []}', 1, "twice"),
    (listed(f"{ENTRY},\n{ENTRY}"), 3, "the finding of line 2"),
    (listed("\n" + ENTRY.replace("old", " ")), 3, '"reason"'),
    (listed(ENTRY.replace("owner", "own")), 2, '"owner"'),
    (listed(ENTRY.replace(MARK, "*")), 2, "no patterns"),
    (listed(ENTRY.replace("mail", "post", 1)), 2, "no rule 'post'"),
    (listed(ENTRY.replace("{", '{"until": "", ')), 2, "'until'"),
    ('{"version": 1, "known": [\n"*"]}', 2, "an entry is an object"),
    ("[" * 100_000, 1, "recursion"),
    ("\udcff", 1, "utf-8"),
)


@pytest.mark.parametrize("text, line, why", MALFORMED, ids=[why for *_, why in MALFORMED])
def test_a_malformed_baseline_is_a_mistake_in_the_command(
    clean: Sapling, tmp_path: Path, text: str, line: int, why: str
) -> None:
    """It says where, and nothing is audited."""
    file = tmp_path / "known.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = audit(clean, "--baseline", str(file))
    assert (done.status, done.out) == (2, b"")
    assert f"{file}, line {line}: " in done.err
    assert why in done.err
    assert "Traceback" not in done.err


def test_a_missing_baseline_is_a_mistake_in_the_command(clean: Sapling, tmp_path: Path) -> None:
    """It must not be taken for an empty one."""
    done = audit(clean, "--baseline", str(tmp_path / "none.json"))
    assert (done.status, done.out) == (2, b"")
    assert "No such file" in done.err


def test_a_baseline_is_made_as_the_page_says(clean: Sapling, tmp_path: Path) -> None:
    """By the command there; what it makes is refused until it has reasons and owners."""
    clean.file("/root/.bash_history", "ls\n")
    page = (DOCS / "guidelines.md").read_text()
    recipe = page.split("firstkey audit --root /mnt/image --json |", 1)[1].split("```")[0]
    (tmp_path / "audit.json").write_bytes(audit(clean, "--json").out)
    subprocess.run(["sh", "-euc", f"cat audit.json | {recipe.strip()}"], cwd=tmp_path, check=True)
    made = tmp_path / "known.json"
    refused = audit(clean, "--baseline", str(made))
    assert refused.status == 2
    assert '"reason"' in refused.err
    filled = made.read_text().replace('"reason": ""', '"reason": "x"').replace('"owner": ""', '"owner": "x"')
    made.write_text(filled)
    assert audit(clean, "--baseline", str(made)).status == 0
