"""What the image's sudo would let a user do: this host's cvtsudoers reads its files, as one text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from firstkey import image_reasons, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command, inspector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_ALL, _ROOT, _ZERO = {"username": "ALL"}, {"username": "root"}, {"userid": 0}


def makes_root(sudoers: str, user: str, groups: Iterable[str]) -> bool:
    """Whether that text lets the user run every program as root, without a password.

    Of several rules the last one counts (sudoers(5)). Raises FirstkeyError where the text is wrong, or
    cvtsudoers not there.
    """
    who = (_ALL, {"username": user}, *({"usergroup": group} for group in groups))
    policy = _policy(sudoers)
    asks = True
    for default in policy.get("Defaults", ()):
        if _takes(default.get("Binding", who), *who):
            asks = _asks(default, asks)
    is_root = False
    for spec in policy.get("User_Specs", ()):
        is_about = _takes(spec["User_List"], *who) and _takes(spec["Host_List"], {"hostname": "ALL"})
        for rule in spec["Cmnd_Specs"] if is_about else ():
            is_everything = _takes(rule["Commands"], {"command": "ALL"})
            # With a group alone, the user stays who he is.
            whose = rule.get("runasusers", () if "runasgroups" in rule else (_ROOT,))
            if is_everything is not None and _takes(whose, _ALL, _ROOT, _ZERO):
                is_root = is_everything and not _asks(rule, asks)
    return is_root


def _policy(sudoers: str) -> Any:  # noqa: ANN401 - JSON
    program = command.find("cvtsudoers")
    if program is None:
        message = "cvtsudoers (of sudo) is not on this host, so the image's sudo rules were not read"
        raise FirstkeyError(message, reason=image_reasons.NOT_LOOKED_AT)
    stdin = sudoers.encode("utf-8", "surrogateescape")
    outcome = inspector.run([program, "-e", "-f", "json"], stdin=stdin)
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").partition("\n")[0]
        raise FirstkeyError(f"sudo's files are wrong: {said}", reason=reasons.SUDOERS_INVALID)
    try:
        return json.loads(outcome.stdout or b"{}")
    except ValueError as error:  # sudo 1.9.13, where a rule has CWD= or CHROOT=
        raise FirstkeyError(f"bad JSON of cvtsudoers: {error}", reason=image_reasons.NOT_LOOKED_AT) from error


def _takes(members: Sequence[Any], *wanted: Any) -> bool | None:  # noqa: ANN401 - JSON
    """Whether the last member that is one of the wanted stands without a `!`; None: none is."""
    for member in reversed(members):
        if {key: value for key, value in member.items() if key != "negated"} in wanted:
            return not member.get("negated")
    return None


def _asks(rule: Any, otherwise: bool) -> bool:  # noqa: ANN401, FBT001 - JSON; what is so without a word
    """Whether sudo asks for a password."""
    options = [option["authenticate"] for option in rule.get("Options", ()) if "authenticate" in option]
    return bool(options[-1]) if options else otherwise
