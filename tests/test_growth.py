"""No text makes a reader slow: the work grows with the text, and not with its square.

Whoever can put a file into an image, a line into a home or an answer on the network would otherwise keep
root busy for hours with a few kilobytes. Only growth is measured here, never speed.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import slow_texts

import firstkey
from firstkey import config, display, settings
from firstkey.boot import ledger
from firstkey.image import key_formats, packages, rpm, shadow
from firstkey.image.rules import ami_tools, boot, credentials, private_keys
from firstkey.image.scan import Headed, Needle
from firstkey.login import pam
from firstkey.metadata import inquiry
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.ssh import (
    access,
    authorized_keys,
    console_text,
    key_options,
    known_hosts,
    public_key,
    sshd_config,
)
from firstkey.system import mounts, sshd, sshd_tree
from firstkey.system import shadow as system_shadow
from firstkey.system.tree import Tree

TOP = Path(firstkey.__file__).parent
ONE_MATCH = frozenset({"match", "fullmatch", "search"})
ALL_MATCHES = frozenset({"findall", "finditer", "split", "sub", "subn"})
"""Those that go on behind the first place that fits."""

ANN = Account("ann", 1000, 1000, "/home/ann", "/bin/sh")
ROOT: Any = SimpleNamespace(name="ann", account=SimpleNamespace(uid=0))
# What is put together where it is used, by module and function: one that it becomes. None: modules keep what
# is made there, and it is found where they keep it.
MADE: dict[str, re.Pattern | None] = {
    "firstkey.image.key_formats._shaped": None,
    "firstkey.image.rules.credentials.holding": None,
    "firstkey.image.packages.field": re.compile("^Version:(.*)", re.MULTILINE),
    "firstkey.image.formats._is_alike": re.compile(rb"[,\x80-\xff]+"),
    "firstkey.image.rules.boot.word_of": boot.word_of(boot.ASKS_NOTHING),
    "firstkey.system.inspector._fits": re.compile("user=.*", re.DOTALL),  # the widest of its own forms
    "firstkey.metadata.transport.parse": re.compile(settings.ENDPOINT),
    "firstkey.metadata.inquiry.parse_token": re.compile(rb"[\x21-\x7e]{1,%d}" % inquiry.TOKEN_LIMIT),
}
# Those that only ever see one line: nothing that has a line feed in it comes to them.
LINES = frozenset({"firstkey.ssh.sshd_config._LINE"})


class Used(NamedTuple):
    """An expression and how it is used: a search starts anew at each place, a match does not."""

    where: str
    pattern: re.Pattern
    method: str


# --- finding the expressions ----------------------------------------------------------------------


@cache
def modules() -> dict[str, ModuleType]:
    """Every module of firstkey."""
    names = [found.name for found in pkgutil.walk_packages([str(TOP)], "firstkey.")]
    return {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}


def tree_of(module: ModuleType) -> ast.Module:
    """Its source."""
    return ast.parse(Path(str(module.__file__)).read_text())


def compiled(value: Any, seen: dict[int, Any]) -> Iterator[re.Pattern]:
    """The expressions in a value: in containers, and in what functions keep."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept, lest another value get its number
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from compiled((*value.keys(), *value.values()), seen)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            yield from compiled(item, seen)
    elif isinstance(value, FunctionType):
        yield from compiled([cell.cell_contents for cell in value.__closure__ or ()], seen)


@cache
def methods(module: ModuleType) -> dict[str, set[str]]:
    """With which methods something of that name is used in the module."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and node.attr in ONE_MATCH | ALL_MATCHES:
            name = node.value
            if isinstance(name, (ast.Name, ast.Attribute)):
                found.setdefault(name.id if isinstance(name, ast.Name) else name.attr, set()).add(node.attr)
    return found


def of_modules() -> Iterator[Used]:
    """Those that modules keep, in whatever."""
    everywhere: dict[str, set[str]] = {}
    for module in modules().values():
        for variable, used in methods(module).items():
            everywhere.setdefault(variable, set()).update(used)
    for name, module in modules().items():
        here = methods(module)
        for variable, value in vars(module).items():
            known = here if variable.startswith("_") else everywhere
            for pattern in compiled(value, {}):
                for method in known.get(variable, {"search"}) if value is pattern else {"search"}:
                    yield Used(f"{name}.{variable}", pattern, method)


class Calls(ast.NodeVisitor):
    """The calls of `re` inside of functions: expressions that stand there, and those that nobody can read."""

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name = name
        self.module = module
        self.function = ""
        self.used: list[Used] = []
        self.unknown: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.function = self.function, self.function or node.name
        self.generic_visit(node)
        self.function = outer

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)):
            return
        method = called.attr
        if called.value.id != "re" or method not in {*ONE_MATCH, *ALL_MATCHES, "compile"}:
            return
        if method == "compile" and not self.function:
            return  # the module keeps it
        text = self.text(node.args[0])
        if text is None and self.function:
            self.unknown.add(f"{self.name}.{self.function}")
        elif text is not None:
            method = "search" if method == "compile" else method
            self.used.append(Used(f"{self.name}:{node.lineno}", re.compile(text, self.flags(node)), method))

    def text(self, argument: ast.expr) -> Any:
        """The expression, where it stands there or is the module's own."""
        if isinstance(argument, ast.Constant):
            return argument.value
        return getattr(self.module, argument.id, None) if isinstance(argument, ast.Name) else None

    def flags(self, node: ast.Call) -> int:
        """All flags that are named in the call."""
        names = {inside.attr for inside in ast.walk(node) if isinstance(inside, ast.Attribute)}
        flags = re.RegexFlag(0)
        for name in ("IGNORECASE", "MULTILINE", "DOTALL"):
            flags |= getattr(re, name) if name in names else 0
        return flags


@cache
def calls() -> list[Calls]:
    """Of every module."""
    found = []
    for name, module in modules().items():
        visitor = Calls(name, module)
        visitor.visit(tree_of(module))
        found.append(visitor)
    return found


@cache
def expressions() -> list[Used]:
    """Each once for each way in which it is used."""
    made = [Used(where, pattern, "search") for where, pattern in MADE.items() if pattern]
    inline = chain.from_iterable(visitor.used for visitor in calls())
    found: dict[tuple[Any, int, str], Used] = {}
    for used in (*of_modules(), *inline, *made):
        method = "findall" if used.method in ALL_MATCHES else used.method
        found.setdefault((used.pattern.pattern, used.pattern.flags, method), used._replace(method=method))
    return sorted(found.values(), key=lambda used: (used.where, used.method, str(used.pattern.pattern)))


SHARES = 16
"""To find the expressions takes long, so no table of them is made while tests are collected."""


def slow(used: Used) -> str | None:
    """The first text that makes it slow, or None."""
    for start, unit, tail in slow_texts.texts(used.pattern):
        if used.where in LINES and "\n" in start + unit + tail:
            continue
        make = partial(slow_texts.text, used.pattern, start=start, unit=unit, tail=tail)
        said = slow_texts.growth(getattr(used.pattern, used.method), make)
        if said:
            return f"{used.pattern.pattern!r}.{used.method} of {start!r} + {unit!r} * n + {tail!r} {said}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_expressions(share: int) -> None:
    """Every expression, held against texts that are made of its own parts."""
    for used in expressions()[share::SHARES]:
        assert slow(used) is None, used.where


@pytest.mark.slow
def test_all_expressions_are_found() -> None:
    """What is put together inside of a function is on the list above, and nothing else is."""
    assert set(MADE) == set().union(*(visitor.unknown for visitor in calls()))
    assert len(expressions()) > 150
    assert any(used.where == "firstkey.image.key_formats._GAP" for used in expressions())
    texts = " ".join(repr(used.pattern.pattern) for used in expressions())
    for kept in ("A[KS]IA", "DB_PASSWORD", "ssh_host_"):  # in a module, in a table, in a function
        assert kept in texts


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern,method",
    [
        (r"(a+)+$", "match"),
        (r"(?:a|a)*b", "match"),
        (r"a+b", "search"),
        (r"\s*x", "search"),
        (r"x.*y", "search"),
        (r"^[ \t]+[ \t]*#", "match"),
        (r":(?![^\[]*\])", "findall"),
        (r"(?s)<name>.*?<version", "findall"),
        # As it was once in key_formats.
        (r"BEGIN-----\s(?P<h>(?:[A-Za-z-]{1,30}: [^\r\n]{0,200}[\r\n]+\s*)*)[A-Za-z0-9+/=]{24,}", "match"),
    ],
)
def test_what_is_slow_is_found(pattern: str, method: str) -> None:
    """The test above can fail: each of these takes the square of the text, or more."""
    assert slow(Used("here", re.compile(pattern), method)) is not None


# --- functions that read in loops -----------------------------------------------------------------

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPt8DcjFhqbxHrFw+zyJXwPtJGtzp0qTXvgVVdcDBcO"
UNITS = (
    *slow_texts.UNITS, *slow_texts.ALPHABET, "a\n", "a b\n", "a:x:0:0::/:/bin/sh\n", "[a]\n", "a=b\n",
    "a=\\\n", "\\\n", "[[", '{"a":', 'command="', "no-pty,", 'from="a,",', "Match user a\n",
    "AllowUsers a\n", "a: b\n c\n", " c\n", "* * * *", "**?", "a,", "!a,", "1/8,", KEY + "\n",
    "no-pty " + KEY + "\n", "%h", "'", "\\'", "-----BEGIN PRIVATE KEY-----\n", "<name>a</name>",
    "Proc-Type: 4,ENCRYPTED\n", "1 - 2 3\n", "\x1b[0m", "-----BEGIN SSH HOST KEY KEYS-----\n", "1.", "a~",
    "1=a\n", "0\x82\xff\xff", "0\0", "EXCEPT ", "a : b\n",
)  # fmt: skip


def repeated(unit: str, size: int) -> str:
    """A text of that size."""
    return unit * (size // len(unit))


def as_bytes(read: Callable[[bytes], object]) -> Callable[[str], object]:
    """The reader, for a text."""
    return lambda text: read(text.encode("latin-1", "replace"))


def judged(watch: Needle) -> Callable[[bytes], object]:
    """Behind the needle, before it, and on both sides."""

    def judge(content: bytes) -> None:
        for before, behind in ((b"", content), (content, b""), (content, content)):
            watch.judge(before + watch.needle + behind, len(before))

    return judge


def in_options(text: str) -> bytes:
    """A key with these options."""
    return f'command="{text}" {KEY}\n'.encode("latin-1", "replace")


def lines_of(text: str) -> object:
    """A file of authorized keys that is merged with another key, and from which one is taken."""
    content = text.encode("latin-1", "replace")
    key = public_key.parse_launch_key(KEY.encode())
    line = authorized_keys.Line(key)
    return authorized_keys.merge(content, add=[line], revoke=[line.written])


def ignored(read: Callable[[Any], object]) -> Callable[[Any], object]:
    """The reader, whatever it refuses."""

    def reader(text: Any) -> None:
        try:
            read(text)
        except (FirstkeyError, ValueError):  # a refusal is an answer
            return

    return reader


HEADS = {repr(watch.starts[0]): watch for watch in key_formats.KEYS if isinstance(watch, Headed)}
NEEDLES = [
    watch
    for watch in (*key_formats.KEYS, *key_formats.CERTIFICATES, *credentials.ACCESS_KEYS)
    if isinstance(watch, Needle)
]
A_KEY = public_key.parse_launch_key(KEY.encode())
READERS: dict[str, Callable[[str], object]] = {
    "authorized_keys.keyed": as_bytes(lambda content: list(authorized_keys.keyed(content))),
    "authorized_keys.merge": lines_of,
    "authorized_keys.options": lambda text: list(authorized_keys.keyed(in_options(text))),
    "key_options.parse_options": key_options.parse_options,
    "authorized_keys.is_authority": lambda text: (
        authorized_keys.Line(A_KEY, f"cert-authority,{text}").is_authority
    ),
    "public_key.parse_launch_key": as_bytes(public_key.parse_launch_key),
    "public_key.read_key": as_bytes(public_key.read_key),
    "known_hosts.is_host": known_hosts.is_host,
    "console_text.read": console_text.read,
    "sshd_config.parse": sshd_config.parse,
    "sshd_config.arguments": sshd_config.arguments,
    "sshd_config.lines": as_bytes(lambda content: [line.words for _, line in sshd_config.lines(content)]),
    "sshd_config.expand": lambda text: sshd_config.expand(text, ANN),
    "sshd_config.fits": lambda text: sshd_config.fits("/home/ann/.ssh/authorized_keys", text),
    "sshd_tree.connections": as_bytes(lambda content: sshd_tree.connections([content])),
    "sshd_tree.without_groups": as_bytes(lambda text: sshd_tree.without_groups(text, lambda _: ["ann"])),
    "access.matches": lambda text: access.matches("client.invalid", text),
    "access.host_matches": lambda text: access.host_matches(access.Client("192.0.2.1", "a.b"), text),
    "shadow.entries": as_bytes(lambda content: list(system_shadow.entries(content))),
    "shadow.broken": as_bytes(lambda content: list(shadow.broken(system_shadow.PASSWD, content))),
    "shadow.masked": as_bytes(shadow.masked),
    "shadow.locked": as_bytes(lambda content: shadow.locked(content, "nobody", "!")),
    "config.sections": as_bytes(
        lambda content: config.sections(config.Source("a", b"[Keys]\n" + content), lambda *_: None)
    ),
    "settings.seconds": settings.seconds,
    "display.folded": lambda line: display.folded(line, 80),
    "packages.field": lambda text: packages.field(text, "Version"),
    "ami_tools.ordered": ami_tools.ordered,
    "rpm.header": as_bytes(rpm.header),
    "private_keys.is_self_signed_pair": as_bytes(
        lambda content: private_keys.is_self_signed_pair(content, content)
    ),
    "key_formats.pem_bodies": as_bytes(key_formats.pem_bodies),
    "mounts.parse": lambda text: mounts.parse(text.split("\n")),
    "inquiry.parse_index": as_bytes(inquiry.parse_index),
    "inquiry.parse_token": as_bytes(inquiry.parse_token),
    "ledger.parsed": as_bytes(ledger.parsed),
    **{f"key_formats.{name}": as_bytes(watch.judge) for name, watch in HEADS.items()},
    **{f"needle {watch.needle.decode()}": as_bytes(judged(watch)) for watch in NEEDLES},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_readers(name: str) -> None:
    """Every reader, held against lines and words that are repeated as often as a file can hold them."""
    for unit in dict.fromkeys(UNITS):
        said = slow_texts.growth(ignored(READERS[name]), partial(repeated, unit))
        assert said is None, f"{unit!r} * n {said}"


FILES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "units": (
        "/etc/systemd/system/a.service",
        lambda tree: settings.unit_settings(tree, "a.service"),
    ),
    "ssh.service": ("/etc/systemd/system/ssh.service", lambda tree: sshd.started_by(tree, sshd.LISTENING)),
    "pam.d": ("/etc/pam.d/sshd", lambda tree: pam.rules(tree, "sshd", "account")),
}
FILE_UNITS = (
    *UNITS, "ExecStart=a\n", "ExecStart=a\\\n", "Environment=a=b\n", "account include sshd\n",
    "@include sshd\n",
    "account required pam_unix.so\n",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    """The same, of readers that open files by themselves."""
    path, read = FILES[name]
    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True)
    with Tree(str(tmp_path)) as tree:
        for unit in dict.fromkeys(FILE_UNITS):

            def make(size: int, unit: str = unit) -> Tree:
                file.write_bytes(("[Service]\n" + unit * (size // len(unit))).encode("latin-1", "replace"))
                return tree

            said = slow_texts.growth(ignored(read), make)
            assert said is None, f"{unit!r} * n {said}"
