"""`firstkey audit` as people and programs use it: reports, exit status, and an image that stays untouched."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import stat
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import jsonschema
import pytest
from audits import POWERLESS, Run, audit, grow_clean, grow_dirty
from hypothesis import given
from hypothesis import strategies as st
from image_builder import Builder

from firstkey.image import formats, rules
from firstkey.image.rules import private_keys, residue

TOP = Path(__file__).parents[2]


@pytest.fixture
def clean(builder: Builder) -> Builder:
    """An image that is fit to share."""
    grow_clean(builder)
    return builder


@pytest.fixture
def dirty(builder: Builder) -> Builder:
    """An image that has everything wrong."""
    grow_dirty(builder)
    return builder


def test_a_clean_image_is_fit_to_share(clean: Builder) -> None:
    """A green answer is exit status 0, and says what it was based on."""
    done = audit(clean)
    assert done.status == 0, done.out.decode()
    assert b"\nFit to share: 0 errors, 0 warnings, 1 note, 0 unknown." in done.out
    assert b"8 files were checked" in done.out


def test_some_rules_are_no_verdict_on_the_image(clean: Builder) -> None:
    """Who asks only some of them is not told that the image is fit to share."""
    for choice in (("--rule", "mail"), ("--skip", "histories")):
        done = audit(clean, *choice)
        assert done.status == 0
        assert b"\nThese rules pass: 0 errors" in done.out
        assert b"Fit to share" not in done.out


def test_audit_changes_nothing(clean: Builder) -> None:
    """Byte for byte, and down to the times of access."""
    clean.age()
    before = clean.snapshot()
    assert audit(clean).status == 0
    assert clean.snapshot() == before


def test_audit_leaves_the_times_of_access_of_directories(clean: Builder) -> None:
    """The page says so of files and directories, but not of links, which cannot be read without."""
    clean.age()
    paths = [path for path in clean.paths() if not os.path.islink(path)]
    clean.age()
    assert audit(clean).status == 0
    assert {os.lstat(path).st_atime for path in paths} == {1_000_000_000}


@pytest.mark.sshd
def test_findings_are_told_with_path_reason_and_remedy(dirty: Builder) -> None:
    """The report is grouped by guideline, and the exit status is 1."""
    done = audit(dirty, "-v")
    text = done.out.decode()
    assert done.status == 1
    headings = [text.index(f"\n{heading}") for heading in ("G2  ", "G3  ", "G9  ", "Beyond the guide")]
    assert headings == sorted(headings)
    assert "/root/.bash_history: This is a history of typed commands" in text
    assert f"What to do: firstkey seal --root {dirty.root} --rule histories\n" in text
    assert "\nNOT fit to share: " in text
    assert done.err == ""


def test_a_command_stands_once_behind_all_that_it_repairs(clean: Builder) -> None:
    """Words for a person too; what the baseline accepts has its own."""
    for name in (".bash_history", ".zsh_history", ".python_history"):
        clean.file(f"/root/{name}", "ls\n")
    text = audit(clean, "--rule", "histories").out.decode()
    command = f"            What to do: firstkey seal --root {clean.root} --rule histories\n"
    assert text.count("What to do: ") == 1
    found, behind = text.split(command)
    assert found.count("/root/.") == 3
    assert "/root/." not in behind


@pytest.mark.sshd
def test_no_secret_is_shown(dirty: Builder) -> None:
    """What was found is told by where and what it is, never by its content."""
    for form in ("--json", "--sarif", "-v"):
        out = audit(dirty, form).out
        for secret in (b"$6$salt", b"Z7QK3WJT5NP2XR6M", b"MC4CAQAwBQYDK2VwBCIE", b"YAnz5TF", b"dXNlcjpwYXNz"):
            assert secret not in out


@pytest.mark.sshd
@pytest.mark.parametrize("grow", [grow_clean, grow_dirty], ids=["clean", "dirty"])
@pytest.mark.sample(2)
def test_json_is_as_published(builder: Builder, grow: Any) -> None:
    """What --json prints is what docs/audit.schema.json says."""
    grow(builder)
    builder.file(os.fsdecode(b"/root/.\xff_history"), "ls\n")
    schema = json.loads((TOP / "docs" / "audit.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    done = audit(builder, "--json")
    jsonschema.validate(done.report, schema, cls=jsonschema.Draft202012Validator)
    assert [rule["id"] for rule in done.report["rules"]] == [rule.id for rule in rules.ALL]
    assert done.report["fit"] is (done.status == 0)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**done.report, "fit": "yes"}, schema)
    named = [found for found in done.rule("histories")["findings"] if "path_base64" in found]
    assert named[0]["path"] == "/root/.\\xff_history"


@pytest.mark.sshd
def test_sarif_is_well_formed(dirty: Builder) -> None:
    """Structure, references and addresses are those of SARIF 2.1.0."""
    dirty.file(os.fsdecode(b"/root/.a b\xff_history"), "ls\n")
    log = audit(dirty, "--sarif").report
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert log["$schema"].startswith("https://")
    described = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in described}) == len(described) == len(rules.ALL)
    for rule in described:
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
    base = run["originalUriBaseIds"]["ROOT"]["uri"]
    assert base.startswith("file:///")
    assert base.endswith("/")
    found = []
    for result in run["results"]:
        assert described[result["ruleIndex"]]["id"] == result["ruleId"]
        # 3.27.9: a level says something of failures only.
        assert (result["kind"] == "fail") == (result["level"] != "none")
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uriBaseId"] == "ROOT"
        assert not place["artifactLocation"]["uri"].startswith("/")
        assert place.get("region", {"startLine": 1})["startLine"] >= 1
        found.append(unquote_to_bytes(place["artifactLocation"]["uri"]))
    assert b"root/.a b\xff_history" in found
    assert b"etc/shadow" in found


def test_a_home_whose_name_is_a_pattern_is_searched(clean: Builder) -> None:
    """A user may be called anything: what is left in that home is found, and the name stands for no other."""
    clean.file("/home/br[ae]cket/.bash_history", "ls\n")
    clean.file("/home/x*/y", "x\n")
    found = audit(clean, "--json", "--rule", "histories").rule("histories")["findings"]
    assert [finding["path"] for finding in found] == ["/home/br[ae]cket/.bash_history"]


def packed(root: Path, patterns: bytes, locale: str) -> set[bytes]:
    """The names that a real tar packs where it leaves out what the patterns fit."""
    excluded = root.parent / "excluded"
    excluded.write_bytes(b"".join(b"." + line + b"\n" for line in patterns.split(b"\n") if line))
    argv = ["tar", "-C", str(root), "-c", "--exclude-from", str(excluded), "."]
    done = subprocess.run(argv, capture_output=True, check=True, env={**os.environ, "LC_ALL": locale})
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {os.fsencode(name).removeprefix(b".") for name in archive.getnames()}


@pytest.mark.sshd
def test_exclude_list_is_for_bundling_tools(dirty: Builder) -> None:
    """A pattern a line; tar leaves out what they fit, and nothing that a system needs is named."""
    dirty.file("/root/.ssh/id_ed25519", "x\n", mode=0o600)
    dirty.file(os.fsdecode(b"/root/.\xff_history"), "ls\n")
    done = audit(dirty, "--exclude-list")
    lines = done.out.split(b"\n")
    assert done.status == 0
    assert b"/root/.ssh" in lines
    assert b"/root/.\xff_history" in lines
    assert b"/etc/ssh/ssh_host_rsa_key.pub" in lines
    for kept in (b"/etc/shadow", b"/etc/passwd", b"/etc/machine-id", b"/etc/ssh/sshd_config", b"/"):
        assert kept not in lines
    names = packed(dirty.root, done.out, "C")
    assert not [name for name in names if name.endswith(b"_history")]
    assert b"/etc/shadow" in names


DUMP = residue.CORE_STARTS[0] + b"a password"
ODD = {
    b"two\nlines": b"two-lines",
    b"st*r": b"star",
    b"q?mark": b"qomark",
    b"br[ae]cket": b"bracket",
    b"back\\slash": b"backslash",
    b"a\\*b": b"a\\xb",
    b"com,ma": b"com.ma",
    b"{a,b}": b"a",
    b"quo'te\"s `x` $y": b"quote",
    b"end ": b"end",
    b"ta\tb\r": b"ta b",
    b"\xff\xfe, \n*": b"\xff\xfe. x*",
    "ä\u202e\u2028\x9b,".encode(): "ä\u202e\u2028\x9b.".encode(),
    b"esc\x1b[2J": b"esc",
    b"]x": b"x",
    b"-- #!x": b"!x",
}
"""Names of what is left out, each with one that a careless pattern would leave out too."""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_exclude_list_says_every_name(clean: Builder, locale: str) -> None:
    """Whatever the names: a real tar leaves out every file that is listed, and nothing else."""
    for name, other in ODD.items():
        clean.file(f"/home/{os.fsdecode(name)}/core", DUMP)
        clean.file(f"/home/{os.fsdecode(other)}/core", "no dump\n")
    everything = packed(clean.root, b"", locale)
    done = audit(clean, "--exclude-list", "--rule", "crash-dumps")
    assert (done.status, done.err) == (0, "")
    listed = {b"/home/%s/core" % name for name in ODD} | {b"/home/admin/.ssh"}
    assert done.out.count(b"\n") == len(listed)
    assert packed(clean.root, done.out, locale) == everything - listed


def test_exclude_list_says_what_was_not_looked_at(clean: Builder) -> None:
    """A file that could not be read to its end may be one that has to be left out; exit 1."""
    clean.file("/srv/backup.gz", b"\x1f\x8b\x08")
    clean.file("/var/log/old.gz", b"\x1f\x8b\x08")  # it is left out in any case
    why = "/srv/backup.gz is packed, and cut off (not-intact)"
    for options in ((), ("--rule", "private-keys"), ("--rule", "everything-seen")):
        done = audit(clean, "--exclude-list", *options)
        assert done.status == 1
        assert f"firstkey: files may be missing in the list: {why}\n" in done.err
    assert audit(clean, "--exclude-list", "--rule", "logs")[:3:2] == (0, "")
    assert "old.gz" not in audit(clean, "--exclude-list").err


def test_exclude_list_stays_whole_for_lists_with_commas(clean: Builder) -> None:
    """ec2-bundle-vol splits at each comma: that of a name may not make a pattern of what follows."""
    clean.file("/home/x,y/core", DUMP)
    done = audit(clean, "--exclude-list", "--rule", "crash-dumps")
    assert b"," not in done.out
    assert b"/core\n" in done.out


def test_exclude_list_tells_what_it_cannot_say(clean: Builder) -> None:
    """Names that differ in a control character or a comma only: both are left out, which is said; exit 1."""
    clean.file("/home/a\nb/core", DUMP)
    clean.file("/home/a\tb/needed", "x\n")
    clean.file("/home/c,d/core", DUMP)
    clean.file("/home/c\udcffd/needed", "x\n")
    done = audit(clean, "--exclude-list", "--rule", "crash-dumps")
    assert done.status == 1
    assert done.err == (
        "firstkey: /home/a\tb is left out too: no list can tell it from /home/a\\nb/core\n"
        "firstkey: /home/c\\xffd is left out too: no list can tell it from /home/c,d/core\n"
    )
    assert b"/home/a\nb/core" not in packed(clean.root, done.out, "C")


NAMES = st.text(st.sampled_from("ab *?[]\\,\n\t\r\x7f'!-^{}ä\u2028\udcff\udcfe"), min_size=1, max_size=5)


@given(left_out=NAMES, other=NAMES, locale=st.sampled_from(["C", "C.UTF-8"]))
def test_a_pattern_fits_one_name(left_out: str, other: str, locale: str) -> None:
    """To a real tar, any name's pattern is that name and those that are told to be alike."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        root.mkdir()
        for name in {left_out, other} - {".", ".."}:
            (root / name).touch()
        pattern = formats._pattern(f"/{left_out}")
        names = {os.fsencode(f"/{name}"): name for name in (left_out, other)}
        kept = {path for path, name in names.items() if not formats._is_alike(left_out, name)}
        left = packed(root, pattern, locale)
        assert left - names.keys() == {b""}
        assert kept <= left
        assert os.fsencode(f"/{left_out}") not in left
        if "," not in left_out:
            assert left == {b""} | kept


@pytest.mark.sshd
def test_quiet_leaves_what_is_wrong(dirty: Builder) -> None:
    """-q prints findings and what is unknown, and not that the rest is well."""
    done = audit(dirty, "-q")
    lines = done.out.decode().split("\n")
    assert done.status == 1
    assert not [line for line in lines if line.startswith(("  ok  ", "  --  ", "  note"))]
    assert any(line.startswith("  FAIL") for line in lines)
    assert any(line.startswith("NOT fit to share") for line in lines)


def test_quiet_is_silent_where_all_is_well(clean: Builder) -> None:
    """A note is no reason to speak."""
    assert audit(clean, "-q") == Run(0, b"", "")


FORMS = ("--json", "--sarif", "--html=-", "--junit", "--exclude-list", "--list")


@pytest.mark.parametrize("pair", [*itertools.combinations(FORMS, 2)], ids=" ".join)
@pytest.mark.sample(5)
def test_one_form_of_output(clean: Builder, pair: tuple[str, str]) -> None:
    """Two are a mistake in the command, which says so."""
    done = audit(clean, *pair)
    assert (done.status, done.out) == (2, b"")
    first, second = (option.partition("=")[0] for option in pair)
    assert f"argument {second}: not allowed with argument {first}" in done.err


def test_one_rule_at_a_time(clean: Builder) -> None:
    """--rule asks that rule alone, --skip all others; an unknown one is a mistake in the command."""
    clean.file("/root/.bash_history", "ls\n")
    assert audit(clean, "--rule", "mail").status == 0
    assert audit(clean, "--rule", "histories").status == 1
    assert audit(clean, "--skip", "histories").status == 0
    wrong = audit(clean, "--rule", "no-such-rule")
    assert wrong.status == 2
    assert "no-such-rule" in wrong.err
    assert "firstkey audit --list" in wrong.err


def test_no_rule_is_no_audit(builder: Builder) -> None:
    """A choice that leaves none to be asked is a mistake, and never "fit to share"."""
    done = audit(builder, "--rule", "logs", "--skip", "logs")
    assert (done.status, done.out) == (2, b"")
    assert "no rule is left" in done.err


def test_list_shows_every_rule(clean: Builder) -> None:
    """--list is where the ids come from."""
    lines = audit(clean, "--list").out.decode().splitlines()
    assert [line.split()[2] for line in lines] == [rule.id for rule in rules.ALL]


@pytest.mark.parametrize("no_color,coloured", [("", True), ("1", False)])
@pytest.mark.sample(2)
def test_colours_respect_no_color(clean: Builder, no_color: str, coloured: bool) -> None:
    """Colours and progress are for a terminal, and not for one whose owner says no (no-color.org)."""
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    argv = [sys.executable, "-m", "firstkey", "audit", "--root", str(clean.root)]
    with subprocess.Popen(argv, stdout=slave, stderr=subprocess.PIPE, env=environ) as child:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                break
            shown += part
        child.communicate(timeout=60)
    os.close(master)
    assert b"Fit to share" in shown
    assert (b"\x1b[32m" in shown) is coloured


def test_a_rule_that_cannot_be_checked_is_not_green(clean: Builder) -> None:
    """An sshd configuration that sshd rejects makes the verdict unknown, and the exit status 1."""
    clean.file("/usr/sbin/sshd", "", mode=0o755)
    clean.file("/etc/ssh/sshd_config", "PermitRootLogin perhaps\n")
    done = audit(clean, "--json")
    assert done.status == 1
    rule = done.rule("root-password-login")
    assert rule["outcome"] == "unknown"
    assert rule["unknown"][0]["reason"] in ("sshd-config-invalid", "sshd-missing")


def test_hostile_trees_are_told_not_feared(clean: Builder) -> None:
    """Pipes, loops of links, names that are no text, a sparse terabyte: no hang, and nothing is missed."""
    os.mkfifo(clean.path("/home/admin/.bash_history"))
    os.mkfifo(clean.path("/etc/issue"))
    clean.link("/root/loop", "loop")
    clean.link("/root/outside", "/../../../../../../etc")
    clean.link("/etc/loop", "../etc")
    clean.file(os.fsdecode(b"/srv/\xff\xfe\n\x1b[2J/.zsh_history"), "secret\n")
    with open(clean.path("/srv/huge"), "wb") as sparse:
        sparse.truncate(1 << 40)
        sparse.seek((1 << 39) + 12345)
        sparse.write(private_keys.EXAMPLE.encode())
    broken = "broken:line\n:x:1:1::/:/bin/sh\n\udcff:x\n"
    clean.file("/etc/passwd", clean.path("/etc/passwd").read_text() + broken)
    clean.age()
    before = clean.snapshot()
    done = audit(clean, "--json")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert done.rule("private-keys")["findings"][0]["path"] == "/srv/huge"
    assert done.rule("histories")["findings"][0]["path"] == "/srv/\\xff\\xfe\\n\\x1b[2J/.zsh_history"
    assert len(done.rule("account-files")["findings"]) == 3
    assert clean.snapshot() == before
    assert "\x1b[2J" not in audit(clean).out.decode()


@pytest.mark.root
def test_devices_are_not_opened(clean: Builder) -> None:
    """A device node in a tree is passed by: opening one can be an act."""
    os.mknod(clean.path("/root/.bash_history"), 0o600 | stat.S_IFCHR, os.makedev(4, 63))
    os.mknod(clean.path("/etc/issue"), 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    done = audit(clean, "--json")
    assert done.status == 0, done.out


def test_unreadable_files_are_unknown(clean: Builder) -> None:
    """What this process may not read is no proof that nothing is there."""
    clean.file("/srv/closed", "x", mode=0)
    done = audit(clean, "--json", before=POWERLESS if os.geteuid() == 0 else ())
    assert done.status == 1
    (unknown,) = done.rule("everything-seen")["unknown"]
    assert (unknown["path"], unknown["reason"]) == ("/srv/closed", "permission-denied")


def test_a_chain_of_directories_is_unknown(clean: Builder) -> None:
    """A chain of directories that is deeper than descriptors last ends in an unknown, not in a crash."""
    fd = os.open(clean.path("/srv") if clean.path("/srv").exists() else clean.root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    done = audit(clean, "--json")
    subprocess.run(["rm", "-rf", "--", str(clean.root)], check=True)
    clean.root.mkdir()
    assert done.status == 1
    (unknown,) = done.rule("everything-seen")["unknown"]
    assert unknown["reason"] == "not-looked-at"


def test_links_lead_nowhere_outside(clean: Builder, tmp_path: Path) -> None:
    """An absolute link in an image means the image's own file, and never the host's."""
    outside = tmp_path / "outside"
    outside.write_text("root:$6$host$hash:19000:0:99999:7:::\n")
    clean.path("/etc/shadow").unlink()
    clean.link("/etc/shadow", str(outside))
    done = audit(clean, "--json", "--rule", "root-password")
    assert done.rule("root-password")["findings"] == []


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="needs loop devices")
def test_what_is_mounted_from_elsewhere_is_left_out_and_named(clean: Builder, tmp_path: Path) -> None:
    """Memory, the kernel's own and the host's are no part of an image; another disk of it is."""
    clean.directory("/mnt/memory")
    clean.directory("/proc")
    clean.directory("/home/admin/disk")
    clean.directory("/root/src")
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / ".bash_history").write_text("ls\n")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", disk], check=True)
    root = clean.root
    mounting = (
        f"mount -t tmpfs none {root}/mnt/memory && echo ls > {root}/mnt/memory/.bash_history"
        f" && mount -t proc none {root}/proc && mount --bind {tmp_path}/host {root}/root/src"
        f" && mount -o loop {disk} {root}/home/admin/disk && echo ls > {root}/home/admin/disk/.bash_history"
    )
    done = audit(clean, "--json", before=("unshare", "--mount", "sh", "-c", f'{mounting} && exec "$@"', "sh"))
    assert [found["path"] for found in done.rule("histories")["findings"]] == [
        "/home/admin/disk/.bash_history"
    ]
    remark = done.rule("everything-seen")["remark"]
    assert "/mnt/memory (tmpfs)" in remark
    assert "/root/src (" in remark
    assert "/proc (proc)" in remark


@pytest.mark.root
@pytest.mark.slow
def test_logs_below_a_mount_are_not_listed(clean: Builder) -> None:
    """A network's file system below /var/log is another machine's business."""
    clean.directory("/var/log/remote/host")
    mounting = (
        f"mount -t tmpfs none {clean.root}/var/log/remote && mkdir {clean.root}/var/log/remote/host"
        f" && echo x > {clean.root}/var/log/remote/host/log"
    )
    before = ("unshare", "--mount", "sh", "-c", f'{mounting} && exec "$@"', "sh")
    assert audit(clean, "--json", "--rule", "logs", before=before).rule("logs")["findings"] == []
