"""`firstkey audit` in pipelines: JUnit XML, known findings, profiles, code scanning, a page."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import textwrap
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audits import Run, audit, grow_clean, grow_dirty
from image_builder import Builder
from pages import anchors

from firstkey.image import rules

DOCS = Path(__file__).parents[2] / "docs"
HOSTILE = "/srv/]]>&<\"'\x1b[2J\n\udcff\ufffe\u202e/.zsh_history"
SHOWN = "/srv/]]>&<\"'\\x1b[2J\\n\\xff\\ufffe\\u202e/.zsh_history"


@pytest.fixture
def clean(builder: Builder) -> Builder:
    """An image that is fit to share."""
    grow_clean(builder)
    return builder


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
@pytest.mark.sample(2)
def test_junit_has_a_case_for_each_rule(builder: Builder, grow: Any) -> None:
    """Its counts are right, and it fails where the exit status says so."""
    grow(builder)
    done = audit(builder, "--junit")
    found = suite(done)
    assert list(cases(done)) == [rule.id for rule in rules.ALL]
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(found.attrib[count]) == len(list(found.iter(tag)))
    assert int(found.attrib["tests"]) == len(rules.ALL)
    failed = int(found.attrib["failures"]) + int(found.attrib["errors"])
    assert (failed > 0) is (done.status == 1)


def test_junit_tells_what_and_what_to_do(clean: Builder) -> None:
    """A finding is a failure with its remedy, a note is none, and what does not apply is skipped."""
    clean.file("/root/.bash_history", "ls\n")
    done = audit(clean, "--junit")
    (failure,) = cases(done)["histories"]
    assert failure.tag == "failure"
    assert failure.attrib["type"] == "error"
    assert failure.attrib["message"].startswith("/root/.bash_history: This is a history")
    assert f"What to do: firstkey seal --root {clean.root} --rule histories" in str(failure.text)
    (note,) = cases(done)["publisher"]
    assert note.tag == "system-out"
    assert "Set Publisher=" in str(note.text)
    (skipped,) = cases(done)["ami-tools"]
    assert skipped.tag == "skipped"
    assert "no AMI tools are installed" in skipped.attrib["message"]
    assert kinds(done)["mail"] == []


def test_junit_has_what_is_unknown_as_an_error(clean: Builder) -> None:
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


def test_junit_is_xml_whatever_the_names_are(clean: Builder) -> None:
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


def test_known_findings_are_told_and_do_no_harm(clean: Builder, tmp_path: Path) -> None:
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


def test_a_new_finding_makes_the_image_unfit(clean: Builder, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_a_known_finding_survives_that_its_line_moves(clean: Builder, tmp_path: Path) -> None:
    """Above it, lines come and go; a second one of its kind in the same file is new."""
    broken = "broken:line\n"
    accounts = clean.path("/etc/passwd").read_text()
    clean.file("/etc/passwd", accounts + broken)
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    assert audit(clean, "--baseline", known).status == 0
    clean.file("/etc/passwd", "daemon:*:2:2::/:/usr/sbin/nologin\n" + accounts + broken)
    done = audit(clean, "--baseline", known)
    assert (done.status, b"not found any more" in done.out) == (0, False)
    clean.file("/etc/passwd", accounts + broken + "another:line\n")
    assert audit(clean, "--baseline", known).status == 1


def test_what_is_not_found_any_more_is_told(clean: Builder, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_what_could_not_be_looked_at_is_not_gone(clean: Builder, tmp_path: Path) -> None:
    """Who takes the entry out then would have a new finding as soon as the rule can look again."""
    clean.file("/var/mail/root", "x\n")
    known = baseline(tmp_path, entries(audit(clean, "--json")))
    clean.path("/var/mail/root").unlink()
    assert b"/var/mail/root" in audit(clean, "--baseline", known).out
    clean.path("/var/mail").rmdir()
    clean.link("/var/mail", "loop")
    clean.link("/var/loop", "mail")
    done = audit(clean, "--baseline", known, "--json")
    assert done.rule("mail")["outcome"] == "unknown"
    assert done.report["unmatched"] == []


def test_an_entry_is_for_the_path_that_it_names(clean: Builder, tmp_path: Path) -> None:
    """Whoever reads the file must not be told of another finding than the one that is accepted."""
    clean.file("/root/.bash_history", "ls\n")
    known = baseline(tmp_path, entries(audit(clean, "--json"), path="/root/harmless"))
    done = audit(clean, "--baseline", known)
    assert done.status == 1
    assert b"/root/harmless [histories]" in done.out


def test_what_is_unknown_cannot_be_accepted(clean: Builder, tmp_path: Path) -> None:
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
    (listed(f"{ENTRY},\n{ENTRY}").replace("known", "kno\\u0077n"), 1, "no list"),
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
@pytest.mark.sample(4)
def test_a_malformed_baseline_is_a_mistake_in_the_command(
    clean: Builder, tmp_path: Path, text: str, line: int, why: str
) -> None:
    """It says where, and nothing is audited."""
    file = tmp_path / "known.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = audit(clean, "--baseline", str(file))
    assert (done.status, done.out) == (2, b"")
    assert f"{file}, line {line}: " in done.err
    assert why in done.err
    assert "Traceback" not in done.err


def test_a_missing_baseline_is_a_mistake_in_the_command(clean: Builder, tmp_path: Path) -> None:
    """It must not be taken for an empty one."""
    done = audit(clean, "--baseline", str(tmp_path / "none.json"))
    assert (done.status, done.out) == (2, b"")
    assert "No such file" in done.err


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq, which is not installed")
def test_a_baseline_is_made_as_the_page_says(clean: Builder, tmp_path: Path) -> None:
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


# --- profiles -------------------------------------------------------------------------------------


@pytest.mark.sshd
@pytest.mark.skipif(not shutil.which("cvtsudoers"), reason="needs sudo")
@pytest.mark.slow
def test_marketplace_takes_no_password_and_no_root(clean: Builder) -> None:
    """What is a note in an image for everybody is an error there; a Match block is no way around it."""
    clean.file("/usr/sbin/sshd", "", mode=0o755)
    clean.file("/etc/ssh/sshd_config", "PermitRootLogin prohibit-password\nPasswordAuthentication yes\n")
    assert audit(clean).status == 0
    done = audit(clean, "--profile", "marketplace", "--json")
    assert (done.status, done.report["profile"]) == (1, "marketplace")
    for name in ("password-login", "root-login"):
        assert (done.rule(name)["severity"], done.rule(name)["fit"]) == ("error", False)
    text = audit(clean, "--profile", "marketplace").out.decode()
    assert text.startswith(f"Audit of {clean.root}: {len(rules.ALL)} rules, profile marketplace")
    strict = "PermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    clean.file("/etc/ssh/sshd_config", strict)
    assert audit(clean, "--profile", "marketplace").status == 1  # root alone has the launch key
    firstkey = "[Keys]\nUsers=admin\n"
    clean.file("/etc/firstkey/firstkey.conf", firstkey)
    clean.file("/usr/bin/sudo", "")
    done = audit(clean, "--profile", "marketplace", "--json")
    assert (done.status, done.rule("launch-user-sudo")["outcome"]) == (1, "finding")
    clean.file("/etc/firstkey/firstkey.conf", f"{firstkey}[User admin]\nSudo=ALL=(ALL) NOPASSWD: ALL\n")
    assert audit(clean, "--profile", "marketplace").status == 0
    clean.file("/etc/ssh/sshd_config", f"{strict}Match User admin\n    PasswordAuthentication yes\n")
    (found,) = audit(clean, "--profile", "marketplace", "--json").rule("password-login")["findings"]
    assert "PasswordAuthentication yes is effective for admin" in found["reason"]


@pytest.mark.parametrize(
    "release, outcome",
    [
        ('ID=debian\nVERSION_ID="10"\n', "finding"),
        ('ID=debian\nVERSION_ID="10"\nSUPPORT_END=9999-12-31\n', "pass"),
        ("ID=fedora\nVERSION_ID=30\nSUPPORT_END=2020-05-26\n", "finding"),
        ("ID=rhel\nVERSION_ID='7.9'\n", "finding"),
        ("ID=debian\n", "unknown"),
        ("ID=unheard-of\nVERSION_ID=1\n", "unknown"),
        ("ID=debian\nVERSION_ID=10\nSUPPORT_END=tomorrow\n", "unknown"),
    ],
)
@pytest.mark.sample(7)
def test_a_system_without_updates_is_not_for_the_marketplace(
    clean: Builder, release: str, outcome: str
) -> None:
    """os-release's own date counts first; what nobody knows is unknown, and fits only where it is a note."""
    clean.file("/etc/os-release", release)
    assert audit(clean).status == 0
    done = audit(clean, "--profile", "marketplace", "--json")
    assert done.rule("supported-system")["outcome"] == outcome
    assert done.status == (0 if outcome == "pass" else 1)


@pytest.mark.slow
def test_a_private_image_may_tell_its_builders_about_themselves(clean: Builder) -> None:
    """But what is a secret, or makes copies disturb each other, stays what it was."""
    clean.file("/var/log/auth.log", "sshd: Accepted publickey for root\n")
    clean.file("/etc/hostname", "ip-10-0-3-17\n")
    assert audit(clean).status == 1
    assert audit(clean, "--profile", "private").status == 0
    for path in ("/root/.bash_history", "/var/lib/systemd/random-seed"):
        clean.file(path, "x\n")
        assert audit(clean, "--profile", "private").status == 1
        clean.path(path).unlink()


def test_no_profile_names_a_rule_that_is_gone() -> None:
    """And none asks for what the rule has anyway."""
    own = {rule.id: rule.severity for rule in rules.ALL}
    for severities in rules.PROFILES.values():
        assert [name for name, severity in severities.items() if own[name] == severity] == []


# --- SARIF ----------------------------------------------------------------------------------------


@pytest.mark.sshd
@pytest.mark.parametrize("profile", rules.PROFILES)
@pytest.mark.sample(3)
def test_sarif_has_what_code_scanning_asks_for(builder: Builder, profile: str) -> None:
    """GitHub's page on SARIF: texts, a page and a score for each rule; a line and a fingerprint a result."""
    grow_dirty(builder)
    (run,) = audit(builder, "--sarif", "--profile", profile).report["runs"]
    driver = run["tool"]["driver"]
    assert driver["informationUri"].startswith("https://")
    assert run["automationDetails"]["id"] == f"firstkey-audit/{profile}/"
    severities = {rule.id: rule.severity for rule in rules.of(profile)}
    scores = {"error": "high", "warning": "medium", "note": "low"}
    for rule in driver["rules"]:
        assert rule["help"]["text"]
        assert len(rule["shortDescription"]["text"]) <= 1024
        assert len(rule["fullDescription"]["text"]) <= 1024
        assert len(rule["properties"]["tags"]) <= 20
        page, anchor = rule["helpUri"].split("#")
        assert page == f"{driver['informationUri']}/docs/guidelines.md"
        assert anchor in anchors(DOCS / "guidelines.md")
        score = float(rule["properties"]["security-severity"])
        level = "high" if 7 <= score < 9 else "medium" if 4 <= score < 7 else "low"
        assert level == scores[severities[rule["id"]]]
        assert rule["defaultConfiguration"]["level"] == severities[rule["id"]]
    marks = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(marks)) == len(marks) > 20
    for result in run["results"]:
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1


def test_sarif_knows_a_finding_again_whose_line_moves(clean: Builder) -> None:
    """An alert that somebody closed stays closed."""

    def mark() -> str:
        (result,) = audit(clean, "--sarif", "--rule", "account-files").report["runs"][0]["results"]
        return str(result["partialFingerprints"]["primaryLocationLineHash"])

    accounts = clean.path("/etc/passwd").read_text()
    clean.file("/etc/passwd", f"{accounts}broken:line\n")
    before = mark()
    clean.file("/etc/passwd", f"daemon:x:2:2::/:/bin/false\n{accounts}broken:line\n")
    assert mark() == before


# --- the page -------------------------------------------------------------------------------------

VOID = {"meta", "input", "br"}
TRAP = "/srv/<script>document.body.innerHTML='gone'<\\script>\"><img src=x onerror=alert(1)>/.zsh_history"


class Page(HTMLParser):
    """The page as a parser reads it; every element that is opened is closed, in the order of nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag] = self.texts.get(tag, "") + data


def page(builder: Builder, tmp_path: Path, *options: str) -> str:
    """The page that is written, for its owner alone."""
    file = tmp_path / "audit.html"
    assert audit(builder, "--html", str(file), *options).status in (0, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text(encoding="ascii")
    assert audit(builder, "--html", "-", *options).out.decode("ascii") == text
    return text


@pytest.mark.sshd
def test_the_page_says_all_and_loads_nothing(builder: Builder, tmp_path: Path) -> None:
    """Rules, prose, findings and remedies; no element and no style that would fetch anything."""
    grow_dirty(builder)
    builder.file(TRAP, "ls\n")
    found = Page(page(builder, tmp_path))
    assert [attributes["id"] for tag, attributes in found.elements if tag == "article"] == [
        rule.id for rule in rules.ALL
    ]
    for rule in rules.ALL:
        assert rule.title in found.texts["h3"]
        assert rule.prose in found.texts["details"]
    assert f"firstkey seal --root {builder.root} --rule histories" in found.texts["pre"]
    assert {tag for tag, _ in found.elements} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "h3",
            "p",
            "code",
            "span",
            "fieldset",
        ),
        *("legend", "label", "input", "article", "ul", "li", "br", "pre", "details", "summary"),
    }
    for _, attributes in found.elements:
        assert not attributes.keys() & {"src", "href", "style", "srcset", "action"}
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in found.texts["style"]
    assert "@import" not in found.texts["style"]
    # What looks like markup is text, where the finding is.
    assert "<img src=x onerror=alert(1)>/.zsh_history" in found.texts["li"]


def test_the_page_lets_no_script_in(clean: Builder, tmp_path: Path) -> None:
    """The policy names its style by its digest, and nothing else may be loaded or run."""
    found = Page(page(clean, tmp_path))
    (policy,) = [
        attributes["content"]
        for _, attributes in found.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    digest = base64.b64encode(hashlib.sha256(found.texts["style"].encode()).digest()).decode()
    assert directives.pop("style-src") == f"'sha256-{digest}'"
    assert set(directives.values()) == {"'none'"}


@pytest.mark.slow
def test_the_page_has_what_is_known_and_what_is_gone(clean: Builder, tmp_path: Path) -> None:
    """With the reason and the owner, which are others' words."""
    clean.file("/root/.bash_history", "ls\n")
    clean.file("/var/mail/root", "x\n")
    known = baseline(tmp_path, entries(audit(clean, "--json"), reason="<b>old</b>"))
    clean.path("/var/mail/root").unlink()
    found = Page(page(clean, tmp_path, "--baseline", known, "--quiet"))
    assert "Known: <b>old</b> (team@example.com)" in found.texts["li"]
    assert "/var/mail/root, mail: <b>old</b> (team@example.com)" in found.texts["li"]


def test_a_page_that_cannot_be_written_is_a_mistake_in_the_command(clean: Builder, tmp_path: Path) -> None:
    """It says why, before anything is looked at."""
    done = audit(clean, "--html", str(tmp_path / "none" / "audit.html"))
    assert (done.status, done.out) == (2, b"")
    assert "No such file or directory" in done.err


HARNESS = """<!DOCTYPE html><title>waiting</title><iframe></iframe><script>
const frame = document.querySelector("iframe");
frame.srcdoc = %s;
frame.onload = () => {
  const page = frame.contentDocument;
  const shown = () => [...page.querySelectorAll("article")].filter(rule => rule.offsetHeight > 0).length;
  const before = shown();
  for (const box of page.querySelectorAll("input:not(.error)")) box.click();
  document.title = ["shown", page.querySelector("fieldset").offsetHeight > 0, before, shown()].join(" ");
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium, which is not installed")
def test_a_browser_shows_the_page(clean: Builder, tmp_path: Path) -> None:
    """Its filters work under its own policy, and what a name says is not done."""
    clean.file(TRAP, "ls\n")
    text = page(clean, tmp_path)
    # In a frame of a page of ours, whose script clicks as a person would.
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS % json.dumps(text).replace("<", "\\u003c"))
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [*argv, "--virtual-time-budget=60000", "--dump-dom", harness.as_uri()],
        capture_output=True,
        check=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert title[1] == f"shown true {len(rules.ALL)} 1"


# --- the action -----------------------------------------------------------------------------------

ACTION = DOCS.parent / "packaging" / "examples" / "github-action" / "action.yml"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq, which is not installed")
def test_the_action_audits_and_ends_as_the_audit_does(clean: Builder, tmp_path: Path) -> None:
    """Its script with its inputs as GitHub gives them: SARIF in a file, and what is wrong in the log."""
    script = textwrap.dedent(ACTION.read_text().split("      run: |\n")[1])
    environ = {"GITHUB_ACTION_PATH": str(ACTION.parent), "PATH": os.environ["PATH"], "BASELINE": ""}
    environ |= {"ROOT": str(clean.root), "PROFILE": "private", "SARIF": "out.sarif"}

    def run() -> subprocess.CompletedProcess[str]:
        argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(
            argv, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True, timeout=100
        )

    done = run()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    clean.file("/root/.bash_history", "ls\n")
    done = run()
    assert done.returncode == 1
    assert done.stdout.startswith("error: root/.bash_history: This is a history")
    results = json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"]
    assert "histories" in {result["ruleId"] for result in results}
    environ["BASELINE"] = baseline(tmp_path, entries(audit(clean, "--json")))
    assert run().returncode == 0
    environ["BASELINE"] = "none.json"
    assert run().returncode == 2
