"""With --root, no remedy acts on the machine that looks: it builds images, and has keys of its own."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
from machine import Machine

from firstkey import image_reasons, login_reasons, reasons
from firstkey.cli import overrides, usage
from firstkey.display import DECIDE, quoted
from firstkey.metadata.emulator import Emulator, Settings
from firstkey.text import REMEDY

ODD = "it's an image; $(touch x) \x1b[2J firstkey run"
OWN = re.compile(rf"(?<!on the instance: )\bfirstkey (?:{'|'.join(usage.COMMANDS)})(?![a-z-])")
PLACE = re.compile(r"(?:^|: |; |, or |\bwith |\brun |&& )([a-z][\w-]*(?: -)?)(?![\w.=-])")
"""Where a command stands in a remedy."""
HARMLESS = {"aws", "date", "dmesg", "firstkey", "ip", "pip", "ssh"}
"""They tell of this machine's kernel, clock and network, or of the cloud. firstkey is looked at above."""
WORDS = {
    "a", "another", "ask", "by", "check", "clear", "clients", "compare", "correct", "create", "doctor",
    "each", "generate", "give", "it", "its", "log", "look", "on", "one", "or", "otherwise", "put", "raise",
    "reinstall", "remove", "run", "see", "set", "sshd", "sudo", "the", "then", "try", "use", "wait",
    "without",
}  # fmt: skip
"""What stands in such a place and is no command."""


def on_host(remedy: str, root: str) -> list[str]:
    """The commands that would act on this machine, once what is for the tree is taken away."""
    prefixes = (f"In {quoted(root)}, ", f"chroot {quoted(root)} sh -c ")
    left = remedy.replace(f" --root {quoted(root)}", "=")
    place = next(filter(left.startswith, prefixes), "")
    left = left[len(place) :]
    own = [found[0] for found in OWN.finditer(left) if not left.startswith("=", found.end())]
    return own if place else own + [word for word in PLACE.findall(left) if word not in HARMLESS | WORDS]


@pytest.mark.parametrize("reason", reasons.ALL.values(), ids=lambda reason: reason.code)
def test_no_published_remedy_acts_on_the_host(reason: reasons.Reason) -> None:
    """Each command names the tree, once, or stands behind words that do. The system's own remedies stay."""
    for word in re.findall(r"\bfirstkey ([a-z-]+)", reason.remedy):
        assert usage.parser(word).parse_args(["--root", "/x"]).root == "/x", "it is taken for a command"
    assert {image_reasons.MOUNTED.code, login_reasons.NO_REPORT.code} < reasons.ALL.keys()
    args = Namespace(root=f"/{ODD}", config=None, imds="http://127.0.0.1:1")
    said = overrides.on_tree(reason.remedy, args)
    assert on_host(said, args.root) == []
    is_for_both = said.startswith("In ") and " --root " in said
    assert (", except firstkey: " in said) == is_for_both, "firstkey itself is typed on this host"
    assert overrides.on_tree(said, args) == said
    assert overrides.on_tree(reason.remedy, Namespace(root="/", config=None, imds=None)) == reason.remedy


def test_whatever_prints_a_remedy_prints_the_tree_s(tmp_path: Path) -> None:
    """Results, errors, events and the report, from within a box and without one."""
    machine = Machine(tmp_path / ODD)
    machine.configure(f"[Keys]\nUsers={machine.user} other\nX=\n[User {machine.user}]\nGroups=none\n")
    calls = "run,run --dry-run,host-keys,keys,status,config --check,doctor"
    with Emulator(Settings(keys=(("launch", "no key"),))) as service:
        done = {call: machine.firstkey(*call.split(), service=service) for call in calls.split(",")}
        report = machine.firstkey("run", "--json", service=service).report
    found = {
        call: re.findall(f"(?:{REMEDY}|{DECIDE})(.*)", ended.out + ended.err) for call, ended in done.items()
    }
    found["report"] = [warning["remedy"] for warning in report["warnings"]]
    assert [call for call, remedies in found.items() if not remedies] == []
    root = str(machine.root)
    assert [said for remedies in found.values() for said in remedies if on_host(said, root)] == []
