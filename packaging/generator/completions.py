"""Completions for bash, zsh and fish."""

from __future__ import annotations

from collections.abc import Iterator

from generator import commands
from generator.commands import Command, Option

GENERAL = (
    Option(("-h", "--help"), None, (), "show the commands"),
    Option(("-V", "--version"), None, (), "show the version"),
)
"""What `firstkey` itself takes, in place of a command."""


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- bash -----------------------------------------------------------------------------------------

_BASH = """\
# bash completion for firstkey(8)

_firstkey() {{
    local current=$2 before=$3 options=''

    # --option=value comes as three words.
    if [[ $current == = ]]; then
        current='' before=${{COMP_WORDS[COMP_CWORD - 1]}}
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi

    case $before in
{values}
    esac
    case ${{COMP_WORDS[1]}} in
{options}
    esac
    ((COMP_CWORD > 1)) || options="{general}"
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}}

complete -F _firstkey firstkey
"""
_BASH_ACTIONS = {"FILE": "-f", "DIR": "-d", "NAME": "-u"}


def bash() -> str:
    """The script that bash-completion loads."""
    known = commands.every()
    general = " ".join([*(command.name for command in known), *_names(GENERAL)])
    values = "\n".join(_bash_value(option) for option in _with_values(known))
    options = "\n".join(
        f'        {command.name}) options="{" ".join(_names(command.options))}" ;;' for command in known
    )
    return _BASH.format(values=values, options=options, general=general)


def _names(options: tuple[Option, ...]) -> list[str]:
    return [name for option in options for name in option.names]


def _with_values(known: list[Command]) -> list[Option]:
    """Each option with a value once: an option means the same in all commands (a test holds it)."""
    found = {option.names: option for command in known for option in command.options if option.value}
    return list(found.values())


def _bash_value(option: Option) -> str:
    pattern = "|".join(option.names)
    if option.choices:
        action = f'-W "{" ".join(option.choices)}"'
    elif option.value in _BASH_ACTIONS:
        action = _BASH_ACTIONS[option.value]
    else:
        return f"        {pattern}) return ;;"
    files = "compopt -o filenames\n            " if action in ("-f", "-d") else ""
    return (
        f"        {pattern})\n            {files}"
        f'mapfile -t COMPREPLY < <(compgen {action} -- "$current")\n            return\n            ;;'
    )


# --- zsh ------------------------------------------------------------------------------------------

_ZSH = """\
#compdef firstkey

local curcontext=$curcontext state line
typeset -A opt_args
local -a known=(
{commands}
)

_arguments -C \\
{general} \\
    '1:command:->command' \\
    '*::option:->option'

case $state in
    command) _describe command known ;;
    option)
        case $words[1] in
{options}
        esac
        ;;
esac
"""
_ZSH_ACTIONS = {"FILE": "_files", "DIR": "_directories", "NAME": "_users"}


def zsh() -> str:
    """The function that zsh's completion system loads."""
    known = commands.every()
    names = "\n".join(f"    {_single(command.name + ':' + _one_line(command.summary))}" for command in known)
    general = " \\\n".join(f"    {_zsh_option(option, alone=True)}" for option in GENERAL)
    return _ZSH.format(commands=names, general=general, options="\n".join(map(_zsh_command, known)))


def _zsh_command(command: Command) -> str:
    lines = [f"                {_zsh_option(option)}" for option in command.options]
    return "\n".join([
        f"            {command.name})",
        "                _arguments \\",
        *(f"    {line} \\" for line in lines[:-1]),
        f"    {lines[-1]}",
        "                ;;",
    ])  # fmt: skip


def _zsh_option(option: Option, *, alone: bool = False) -> str:
    # A name with = behind it takes its value both ways: --option value and --option=value.
    named = [f"{name}=" if option.value and name.startswith("--") else name for name in option.names]
    names = named[0] if len(named) == 1 else "{" + ",".join(named) + "}"
    before = _zsh_excludes(option, alone=alone or "--help" in option.names)
    text = _one_line(option.help)
    for special in ("\\", "[", "]", ":"):
        text = text.replace(special, f"\\{special}")
    return f"{before}{names}{_single(f'[{text}]{_zsh_value(option)}')}"


def _zsh_excludes(option: Option, *, alone: bool) -> str:
    """What is not offered any more once the option is there."""
    if alone:
        return "'(- *)'"
    if option.repeatable:
        return "\\*"
    return f"'({' '.join(option.names)})'" if len(option.names) > 1 else ""


def _zsh_value(option: Option) -> str:
    if option.value is None:
        return ""
    what = f"({' '.join(option.choices)})" if option.choices else _ZSH_ACTIONS.get(option.value, "")
    return f":{option.value}:{what or ' '}"


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish -----------------------------------------------------------------------------------------

_FISH_ACTIONS = {
    "FILE": "-r -F",
    "DIR": "-x -a '(__fish_complete_directories)'",
    "NAME": "-x -a '(__fish_complete_users)'",
}


def fish() -> str:
    """The lines that fish loads."""
    known = commands.every()
    no_command = "__fish_use_subcommand"
    return "\n".join([
        "# fish completion for firstkey(8)",
        "complete -c firstkey -f",
        *(_fish_line(no_command, _fish_option(option), option.help) for option in GENERAL),
        *(_fish_line(no_command, f"-a {command.name}", command.summary) for command in known),
        *(line for command in known for line in _fish_command(command)),
        "",
    ])  # fmt: skip


def _fish_command(command: Command) -> Iterator[str]:
    seen = f"__fish_seen_subcommand_from {command.name}"
    return (_fish_line(seen, _fish_option(option), option.help) for option in command.options)


def _fish_line(condition: str, what: str, description: str) -> str:
    text = _one_line(description).replace("\\", "\\\\").replace("'", "\\'")
    return f"complete -c firstkey -n '{condition}' {what} -d '{text}'"


def _fish_option(option: Option) -> str:
    words = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.choices:
        words.append(f"-x -a '{' '.join(option.choices)}'")
    elif option.value:
        words.append(_FISH_ACTIONS.get(option.value, "-x"))
    return " ".join(words)
