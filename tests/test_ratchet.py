"""The ratchet: how much must be read to trust a boot. Its figures may only fall.

Whoever makes one of them smaller lowers it here, and says why; whoever needs one to rise makes room first.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, Union

import processes
import pytest
from machine import AGENT, Machine, new_key

from firstkey.metadata.emulator import Emulator, Settings


class Figure(NamedTuple):
    """What is held, where it is to go, and why it changed last."""

    now: int
    goal: Union[int, None]  # noqa: UP007 - evaluated on Python 3.9
    reason: str


FIGURES = {
    "modules that a boot can reach": Figure(47, 48, "the lists of users are judged by a module of their own"),
    "lines that a boot can reach": Figure(
        8_753,
        9_000,
        "guesses at a length, at a server by its name and at a path, which nothing depended on, are gone",
    ),
    "lines of the agent": Figure(
        25_317, 20_000, "the options of a command are data, and one place reads them"
    ),
    "modules of the trust core": Figure(13, 15, "a module for each role; two more are read first"),
    "lines of the trust core": Figure(
        3_795, 3_800, "the real path of a directory comes from the walk that opened it"
    ),
    "lines that are read before it": Figure(
        276, None, "they were counted with the core until it had its roles alone"
    ),
    "modules in circles of imports": Figure(0, 0, "units and sshd know nothing of the image"),
    "files that one key visits": Figure(30, 30, "what may be answered stands where it is asked"),
    "functions that one key visits": Figure(336, None, "one report, and one way where a path leads"),
}
SLACK = 0.02
"""How far lines and functions may fall before they must be lowered here: a comment less is no reason to touch
this file. Functions may rise as far: what is called differs by a few from one Python or system to another.
"""

# What the unit starts, and what an operator may run in its place. cli.main finds the other commands by name.
STARTS = ("__main__", "cli.main", "cli.run", "cli.daemon", "cli.host_keys")
# Imports that stand in a function which no boot calls. Each of them must be there, or goes from this list.
NOT_AT_BOOT = {
    ("boot.job", "system.sshd_tree"): "a tree's sshd_config is asked about by copies, the system's is not",
    ("boot.accounts", "system.inspector"): "a tree's rule is looked at in a box, the system's is not",
    ("boot.accounts", "boot.account_entries"): "entries of our own in a tree; the system has useradd",
    ("cli.run", "cli.looking"): "a dry run on a tree looks from within a box",
    ("cli.run", "cli.render"): "a result for people; the unit's daemon prints none",
    ("cli.daemon", "cli.detached"): "the unit never detaches",
    ("cli.common", "cli.overrides"): "as below",
    ("cli.common", "cli.usage"): "the unit gives no option",
    ("cli.main", "cli.usage"): "the unit names a command that a boot runs",
    ("boot.accounts", "display"): "a dry run shows differences",
    ("boot.key_file", "display"): "as above",
    ("cli.streams", "display"): "no boot has a terminal",
    ("system.journal", "display"): "as above",
    ("cli.common", "metadata.crossing"): "how a boxed process asks the metadata service",
}
PAGE = AGENT.parent / "docs" / "architecture.md"
# What can let somebody in or lock somebody out: the modules of the page's table, in reading order.
TRUST_CORE = [
    name.removesuffix(".py").replace("/", ".")
    for row in re.findall(r"(?m)^\| [^|]+ \| (`[^|]+`) \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"))
    for name in re.findall(r"`([^`]+)`", row)
]
READ_FIRST = ("boot.target", "ssh.sshd_config")
"""What all of them use: the page names it before the table."""
# The rest of boot/: a module that is new there plays a role above, or stands here with a reason.
OUTSIDE_THE_CORE = {
    "boot": "the package itself",
    "boot.account_entries": "accounts of a tree",
    "boot.accounts": "accounts",
    "boot.platform": "whether a boot waits for an answer",
    "boot.sshd_reload": "a running sshd, once the keys are in place",
    "boot.supervisor": "when the job is run, not what it does",
    "boot.target": "read first",
}

MODULES = {
    ".".join(path.relative_to(AGENT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((AGENT / "firstkey").rglob("*.py"))
}


def hold(**measured: int) -> None:
    """Compare with FIGURES: no figure has risen, and none has fallen without being lowered there."""
    wrong = []
    for name, now in ((name.replace("_", " "), now) for name, now in measured.items()):
        figure = FIGURES[name]
        slack = int(figure.now * SLACK) if name.startswith(("lines", "functions")) else 0
        logged = f"{name}: {now}, held at {figure.now} (goal: {figure.goal})"
        if now > figure.now + (slack if name.startswith("functions") else 0):
            wrong.append(f"{logged}. Make room first, or leave it out")
        elif now < figure.now - slack:
            wrong.append(f"{logged}. Lower the figure in FIGURES, with the reason")
    assert not wrong


# --- what imports what ----------------------------------------------------------------------------


@cache
def imports(module: str, *, types: bool) -> frozenset[str]:
    """The modules of firstkey that the module imports, in functions too, and those for types if asked for."""
    return frozenset(
        name
        for node in nodes(ast.parse(MODULES[module].read_text(encoding="utf-8")), types=types)
        for name in imported(node)
        if name in MODULES and name != module
    )


def nodes(top: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """All below `top`, but for what stands under TYPE_CHECKING where types are not asked for."""
    for node in ast.iter_child_nodes(top):
        if types or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from nodes(node, types=types)


def imported(node: ast.AST) -> Iterator[str]:
    """The names of modules that one statement or call imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in MODULES else str(node.module)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from (str(name.value) for name in node.args if isinstance(name, ast.Constant))


def full(names: Iterable[str]) -> set[str]:
    """The names as Python knows them."""
    return {f"firstkey.{name}" for name in names}


def boot_reach() -> set[str]:
    """Every module that a boot can load, packages on the way included."""
    left_out = {(f"firstkey.{importer}", f"firstkey.{name}") for importer, name in NOT_AT_BOOT}
    found: set[str] = set()
    todo = full(STARTS)
    while todo:
        module = todo.pop()
        found.add(module)
        wanted = {name for name in imports(module, types=False) if (module, name) not in left_out}
        wanted |= {module.rpartition(".")[0]} - {""}
        todo |= wanted - found
    return found


def reachable(start: str) -> set[str]:
    """Every module that `start` leads to, itself only where it stands in a circle."""
    found: set[str] = set()
    todo = set(imports(start, types=True))
    while todo:
        module = todo.pop()
        found.add(module)
        todo |= imports(module, types=True) - found
    return found


def lines(modules: Iterable[str]) -> int:
    """How many lines they have, comments and empty ones included."""
    return sum(len(MODULES[module].read_text(encoding="utf-8").splitlines()) for module in modules)


def test_what_a_boot_can_reach_only_shrinks() -> None:
    """Whoever judges what runs as root at a boot has this much to read."""
    for importer, name in NOT_AT_BOOT:
        assert f"firstkey.{name}" in imports(f"firstkey.{importer}", types=False), "not imported any more"
    reach = boot_reach()
    hold(modules_that_a_boot_can_reach=len(reach), lines_that_a_boot_can_reach=lines(reach))


def test_typing_is_for_type_checkers() -> None:
    """It takes a run with nothing to do a twelfth of its time. Requests loads it, where it is asked."""
    loaders = [
        module
        for module in boot_reach()
        if not module.startswith("firstkey.metadata")
        for node in nodes(ast.parse(MODULES[module].read_text(encoding="utf-8")), types=False)
        if any(name.partition(".")[0] == "typing" for name in imported(node))
    ]
    assert loaders == []


def test_the_trust_core_only_shrinks() -> None:
    """What can let somebody in or lock somebody out is to be read in one evening."""
    core = full(TRUST_CORE)
    boot = {name for name in MODULES if name.startswith("firstkey.boot")}
    assert boot - core == full(OUTSIDE_THE_CORE), "give it a role on the page, or a reason"
    assert core <= boot_reach()
    hold(modules_of_the_trust_core=len(core), lines_of_the_trust_core=lines(core))
    assert all(f"`{name.replace('.', '/')}.py`" in PAGE.read_text(encoding="utf-8") for name in READ_FIRST)
    hold(lines_that_are_read_before_it=lines(full(READ_FIRST)))


def test_the_agent_only_shrinks() -> None:
    """All of it is installed, and somebody has to look after all of it."""
    hold(lines_of_the_agent=lines(MODULES))


def test_circles_of_imports_only_open() -> None:
    """Imports in functions and for types count: a reader follows them all."""
    circle = [module for module in MODULES if module in reachable(module)]
    print(*circle)  # shown where this fails
    hold(modules_in_circles_of_imports=len(circle))


# --- what one key visits --------------------------------------------------------------------------

# Told at once and over a pipe: a child that the job forks may end at any moment, and may write no file.
TRACER = """
import os, sys, threading

top, seen, out = sys.argv.pop(1), set(), os.dup(2)  # a child that may get stuck has no stderr

def note(frame, event, argument):
    code = frame.f_code
    if event != "call" or code in seen:
        return
    seen.add(code)
    of_ours = code.co_filename.startswith(top) and code.co_flags & 1  # CO_OPTIMIZED: a function
    if of_ours and (code.co_name[0] != "<" or code.co_name == "<lambda>"):
        os.write(out, f"called {code.co_filename} {code.co_firstlineno}\\n".encode())

threading.setprofile(note)
sys.setprofile(note)
from firstkey.cli.main import main
main()
"""


@pytest.mark.slow  # newer Pythons call other functions behind the same code: the distribution's counts
def test_one_key_visits_ever_fewer_places(tmp_path: Path) -> None:
    """A first run that installs one launch key and makes one host key, with all that it calls of firstkey."""
    machine = Machine(tmp_path / "root")
    machine.configure(f"[Keys]\nUsers={machine.user}\n[HostKeys]\nTypes=ed25519\n")
    line = new_key(tmp_path, "launch")
    with Emulator(Settings(instance_id="i-0000000000000001", keys=(("launch", line),))) as service:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                TRACER,
                f"{AGENT}/",
                "run",
                "-q",
                "--root",
                machine.root,
                "--imds",
                service.url,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=processes.PATIENCE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)},
        )
    assert (done.returncode, machine.keys, len(machine.host_keys())) == (0, [line], 1), done.stderr

    reach = {str(MODULES[module]) for module in boot_reach()}
    called = {tuple(said.split()[1:]) for said in done.stderr.splitlines() if said.startswith("called ")}
    functions = [(file, number) for file, number in called if file in reach]
    files = {file for file, _ in functions}
    hold(files_that_one_key_visits=len(files), functions_that_one_key_visits=len(functions))
