"""What holds for the checkout as a whole."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import firstkey

TOP = Path(__file__).resolve().parent.parent
SCRIPTS = [TOP / name for name in ("dev", ".ci/run", "packaging/install", "packaging/build")]
PYTHON_FILES = sorted(path for room in ("agent", "tests") for path in (TOP / room).rglob("*.py"))
# What a Linux distribution, and nobody else, puts its Python packages into.
DISTRIBUTION = ("/usr/lib/python3", "/usr/lib64/python3")


def test_the_version_has_one_source() -> None:
    """pyproject.toml takes the version from firstkey.__version__ and states none of its own."""
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = \{ attr = "firstkey.__version__" \}$', text, re.MULTILINE)
    assert not re.search(r'^version = "', text, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", firstkey.__version__)


def test_the_oldest_python_can_read_all_of_it() -> None:
    """Every file is Python 3.9, whichever Python the developer has."""
    assert PYTHON_FILES
    assert [f"{path.relative_to(TOP)}: {fault}" for path in PYTHON_FILES if (fault := too_new(path))] == []


def too_new(path: Path) -> str | None:
    """What Python 3.9 does not understand in the file, or None."""
    try:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    except SyntaxError as fault:
        return f"line {fault.lineno}: {fault.msg}"
    return None


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_run(path: Path) -> None:
    """A shell script is executable, and its own shell can read it."""
    shell = path.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]
    assert path.stat().st_mode & 0o111 == 0o111
    subprocess.run([shell, "-n", str(path)], check=True)


def test_an_unknown_command_of_dev_is_a_usage_error() -> None:
    """As one of firstkey itself is."""
    done = subprocess.run([str(TOP / "dev"), "nosuch"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no command nosuch. See: ./dev help" in done.stderr


def test_help_names_every_command_of_dev() -> None:
    """./dev help leaves nothing out that ./dev takes."""
    text = (TOP / "dev").read_text(encoding="utf-8")
    commands = re.findall(r"^    ([a-z]+)\) ", text, re.MULTILINE)
    shown = subprocess.run([str(TOP / "dev"), "help"], check=True, capture_output=True, text=True).stdout
    assert len(commands) >= 7
    assert re.findall(r"^  \./dev ([a-z]+)", shown, re.MULTILINE) == commands


def distribution_packages() -> bool:
    """Whether this Python was set up to test with the distribution's own packages."""
    settings = Path(sys.prefix) / "pyvenv.cfg"
    return settings.exists() and "include-system-site-packages = true" in settings.read_text(encoding="utf-8")


@pytest.mark.skipif(not distribution_packages(), reason="this Python is tested with PyPI's packages")
@pytest.mark.parametrize("package", ["requests", "urllib3", "systemd", "daemon"])
def test_the_distributions_packages_are_the_tested_ones(package: str) -> None:
    """No newer copy from elsewhere stands before what an image will really have."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"the distribution's {package} is not installed")
    assert str(found.origin).startswith(DISTRIBUTION)
