"""Completions: the shells themselves offer what the commands take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import Installed
from terminal import typed

from firstkey.cli.usage import COMMANDS

BASH = "/usr/share/bash-completion/completions/firstkey"
ZSH = "/usr/share/zsh/site-functions/_firstkey"
FISH = "/usr/share/fish/vendor_completions.d/firstkey.fish"

GENERAL = {"-h", "--help", "-V", "--version"}


def needs(shell: str) -> pytest.MarkDecorator:
    """Skip where the shell is not installed."""
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}, which is not installed")


def output(*argv: str, cwd: str = "/") -> str:
    """What a program prints."""
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.stderr == ""
    return done.stdout


def options_of(installed: Installed, command: str) -> set[str]:
    """The options that the command's own help tells."""
    text = installed.firstkey(command, "--help").stdout.split("\noptions:\n")[1].split("\n\n")[0]
    return {
        name
        for line in re.findall(r"^  (-.*?)(?:  |$)", text, re.MULTILINE)
        for name in re.findall(r"(?<!\S)--?[a-z][a-z-]*|-[A-Za-z]\b", line)
    }


def in_bash(installed: Installed, *words: str, cwd: str = "/") -> set[str]:
    """What bash would offer for the last of the words."""
    program = (
        'source "$1"; shift; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        '_firstkey firstkey "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}";'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    argv = ["bash", "--norc", "-uec", program, "bash", str(installed.path(BASH)), "firstkey", *words]
    return set(output(*argv, cwd=cwd).split())


def in_zsh(installed: Installed, *words: str) -> set[str]:
    """What zsh's function gives to the completion system: commands, or options of one."""
    program = (
        "_arguments() { [[ $1 == -C ]] || print -rl -- $@; state=$wanted; }\n"
        "_describe() { print -rl -- ${(P)2}; }\n"
        "complete() { local wanted=$2; local -a words=(${@:3}); source $1; }\n"
        "complete $@"
    )
    state = "option" if len(words) > 1 else "command"
    lines = output("zsh", "-fec", program, "zsh", str(installed.path(ZSH)), state, *words).splitlines()
    if state == "command":
        return {line.split(":")[0] for line in lines}
    return {match for line in lines for match in re.findall(r"^(?:\([^)]*\)|\*)?(--?[A-Za-z-]+)", line)}


def in_fish(installed: Installed, *words: str, cwd: str = "/") -> set[str]:
    """What fish offers for the last of the words."""
    program = "source $argv[1]; complete -C $argv[2]"
    line = " ".join(["firstkey", *words])
    offered = output("fish", "--no-config", "-c", program, str(installed.path(FISH)), line, cwd=cwd)
    return {found.split("\t")[0] for found in offered.splitlines()}


Offer = Callable[..., "set[str]"]
SHELLS = [
    pytest.param(in_bash, marks=needs("bash"), id="bash"),
    pytest.param(in_zsh, marks=[needs("zsh"), pytest.mark.slow], id="zsh"),
    pytest.param(in_fish, marks=[needs("fish"), pytest.mark.slow], id="fish"),
]


@pytest.mark.parametrize("offered", SHELLS)
def test_the_commands_are_offered(installed: Installed, offered: Offer) -> None:
    """All of them, and nothing else that is a word."""
    found = offered(installed, "")
    assert {word for word in found if not word.startswith("-")} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("offered", SHELLS)
@pytest.mark.sample(23)
def test_the_options_of_each_command_are_offered(installed: Installed, offered: Offer, command: str) -> None:
    """Exactly those that the command's own help tells."""
    expected = options_of(installed, command)
    assert "--help" in expected
    found = {*offered(installed, command, "-"), *offered(installed, command, "--")}
    assert found == expected


VALUES = [
    pytest.param(in_bash, marks=needs("bash"), id="bash"),
    pytest.param(in_fish, marks=[needs("fish"), pytest.mark.slow], id="fish"),
]


@pytest.mark.parametrize("offered", VALUES)
def test_values_are_offered_where_they_are_known(
    installed: Installed, offered: Offer, tmp_path: Path
) -> None:
    """Words that can be counted, files, directories and users; nothing where only the person knows."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    assert offered(installed, "imds", "--tokens", "") == {"both", "v1", "v2"}
    assert offered(installed, "run", "--config", "f", cwd=str(tmp_path)) == {"file"}
    roots = {path.rstrip("/") for path in offered(installed, "run", "--root", "", cwd=str(tmp_path))}
    assert roots == {"directory"}
    assert "root" in offered(installed, "run", "--user", "roo")
    assert offered(installed, "run", "--wait", "", cwd=str(tmp_path)) == set()


@needs("bash")
def test_bash_takes_an_equals_sign(installed: Installed) -> None:
    """An option and its value in one word are three to bash."""
    assert in_bash(installed, "imds", "--tokens", "=") == {"both", "v1", "v2"}
    assert in_bash(installed, "imds", "--tokens", "=", "b") == {"both"}


@needs("bash")
def test_bash_completes_what_is_typed(installed: Installed) -> None:
    """On a terminal, with the real key."""
    lines = [f". {installed.path(BASH)}\n", "firstkey run --dry\t"]
    assert "--dry-run " in typed(["bash", "--norc", "--noprofile", "-i"], lines, until="--dry-run ")


@needs("zsh")
@pytest.mark.slow
def test_zsh_completes_what_is_typed(installed: Installed) -> None:
    """On a terminal, with the real key: commands, options, and values behind an equals sign."""
    directory = installed.path(ZSH).parent
    lines = [
        f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -D\n",
        "firstkey imd\t--tok\tb\t",
    ]
    shown = typed(["zsh", "-f", "-i"], lines, until="=both ")
    assert "imds --tokens=both " in re.sub(".\b", "", shown)  # it overwrites what it showed before
