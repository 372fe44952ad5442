"""The shape of the house: who may import whom, and which door each effect goes through."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

AGENT = Path(__file__).resolve().parent.parent / "agent"
MODULES = {
    ".".join(path.relative_to(AGENT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((AGENT / "firstkey").rglob("*.py"))
}

# From the ground up. A room may use itself and those on lower floors; rooms on one floor know nothing of
# each other. A module at the top of the package is a room of its own unless it stands here with others.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("firstkey",),
    ("colours", "text"),
    ("reasons",),
    ("model",),
    ("events",),
    ("ssh",),
    ("config",),
    ("metadata",),
    ("system",),
    ("boot",),
    ("image", "login"),
    ("cli",),
)
# What was split off a room and stands beside it.
ROOM_OF = {"settings": "config", "display": "text", "__main__": "cli"}
ROOM_OF |= {"image_reasons": "reasons", "login_reasons": "reasons"}

# Packages with one door each: nobody else imports them.
DOORS = {
    "subprocess": {"firstkey.system.command"},
    "requests": {"firstkey.metadata.client", "firstkey.metadata.transport"},
    "urllib3": {"firstkey.metadata.client", "firstkey.metadata.transport"},
    "systemd": {"firstkey.system.journal"},
    "daemon": {"firstkey.system.detach"},
}

# One makes the others; the emulator shares nothing with the rest, and runs at no boot.
TYPING_NAMED_TUPLES = ("firstkey.metadata.emulator",)

# `child` ends a child process of its own; `__main__` is the command line's front step.
MAY_EXIT = ("firstkey.cli", "firstkey.__main__", "firstkey.system.child")

# Each of these costs milliseconds at every boot: whoever needs one imports it where it is used.
SLOW = {"dataclasses", "inspect", "logging", "tempfile", "ipaddress", "pathlib", "subprocess", "hashlib"}
SLOW |= {"requests", "urllib3", "systemd", "daemon"}
# These pay knowingly: HTTP is what the client is for, and the others are for people, not for a boot.
MAY_BE_SLOW = (
    "firstkey.metadata",
    "firstkey.cli.imds",
    "firstkey.cli.demo",
    "firstkey.__main__",
)

MOST_LINES = 600
# A published list is as long as what it lists.
LISTS = ("firstkey.reasons", "firstkey.events")


@cache
def tree_of(module: str) -> ast.Module:
    """The module as Python reads it."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports, in functions and for types too."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide which room is meant"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(name.value) for name in node.args if isinstance(name, ast.Constant))


def within(module: str, packages: tuple[str, ...]) -> bool:
    """Whether `module` is one of the packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def room(module: str) -> str:
    """The package right below firstkey, or what a module there belongs to."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "firstkey"
    return ROOM_OF.get(name, name)


def floor(module: str) -> int:
    """How high the module's room is."""
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def names_imported_from(module: str) -> set[str]:
    """What the module takes out of others, as `other.name`."""
    return {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


# One test a rule, which lists all that break it.


def test_every_module_is_in_a_room_with_a_floor() -> None:
    """A new room is given its place in the order above before anybody moves in."""
    rooms = {name for rooms in FLOORS for name in rooms}
    assert sorted({room(module) for module in MODULES} - rooms) == [], "give them a place in FLOORS"


def test_imports_run_one_way() -> None:
    """From cli down: no module imports from a higher floor, nor from another room on its own."""
    assert [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports(module)
        if within(imported, ("firstkey",))
        and floor(imported) >= floor(module)
        and room(imported) != room(module)
    ] == []


def test_each_package_comes_in_through_its_door() -> None:
    """What a third party's package does wrong is translated in one place."""
    assert [
        f"{module} imports {imported}; the door is {door}"
        for module in MODULES
        for imported in imports(module)
        for door in [DOORS.get(imported.split(".")[0])]
        if door is not None and module not in door
    ] == []


def test_named_tuples_are_the_cheap_ones() -> None:
    """Those of typing would cost each command some milliseconds before it begins."""
    assert [
        module
        for module in MODULES
        if module != "firstkey" and not within(module, TYPING_NAMED_TUPLES)
        if "typing.NamedTuple" in names_imported_from(module)
    ] == []


def test_the_emulator_shares_nothing_with_the_client() -> None:
    """The two cannot share a mistake: the emulator imports nothing of firstkey but itself."""
    emulator = [module for module in MODULES if within(module, ("firstkey.metadata.emulator",))]
    assert emulator
    assert [
        f"{module} imports {imported}"
        for module in emulator
        for imported in imports(module)
        if imported.split(".")[0] in DOORS
        or (within(imported, ("firstkey",)) and not within(imported, ("firstkey.metadata.emulator",)))
    ] == []


def test_only_the_command_line_prints_or_exits() -> None:
    """Everything else returns values and raises errors."""
    assert {
        module: ends for module in MODULES if not within(module, MAY_EXIT) and (ends := exits(module))
    } == {}


def exits(module: str) -> list[str]:
    """How the module prints or ends the program by itself."""
    nodes = list(ast.walk(tree_of(module)))
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    raised = {ast.unparse(node.exc) for node in nodes if isinstance(node, ast.Raise) and node.exc}
    return sorted({"print", "exit", "quit", "sys.exit", "SystemExit"} & (calls | raised))


def test_modules_stay_small() -> None:
    """A module past this length is two rooms in one."""
    lines = {name: len(MODULES[name].read_text(encoding="utf-8").splitlines()) for name in MODULES}
    assert {name: n for name, n in lines.items() if n > MOST_LINES and name not in LISTS} == {}


def test_a_boot_does_not_pay_for_slow_modules() -> None:
    """Importing all of firstkey that a boot uses loads none of the modules that cost milliseconds."""
    quick = [module for module in MODULES if not within(module, MAY_BE_SLOW)]
    program = (
        "import importlib, json, sys\n"
        f"sys.path.insert(0, {str(AGENT)!r})\n"
        f"before, slow, guilty = set(sys.modules), set({sorted(SLOW)!r}), {{}}\n"
        f"for name in {quick!r}:\n"
        "    importlib.import_module(name)\n"
        "    new = (set(sys.modules) - before) & slow\n"
        "    before |= new\n"
        "    guilty.update({module: name for module in new})\n"
        "print(json.dumps(guilty))\n"
    )
    # -S: what a virtual environment's start-up files import is not firstkey's doing.
    argv = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {}, "slow module: which of ours brought it in"
