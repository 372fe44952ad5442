"""What the image's sudo would let a user do: this host's cvtsudoers reads its files, as one text.

A rule may depend on what no file of an image decides: the host's name, a netgroup, the date. So each list has
a set of possible answers, and where these lead to different ends, the end is unknown.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from firstkey import image_reasons, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command, inspector

_ANY = ({"username": "all"}, {"hostname": "all"}, {"command": "all"})
_ROOT = (*_ANY, {"username": "root"}, {"userid": 0}, {"usergroup": "root"}, {"usergid": 0})
_OPEN = ("netgroup", "nonunixgroup", "nonunixgid", "hostname", "networkaddr")
"""Kinds of members of which no file of the image says who or what they are."""
_NOT_JUDGED = {"SELinux_Spec", "apparmor_profile", "exempt_group", "noexec", "runas_default", "runchroot"}
"""With these the user is not asked, or becomes another than root, or root with fewer rights than root's."""


def makes_root(
    sudoers: str, name: str, groups: Iterable[str], numbers: tuple[int, Iterable[int]] | None
) -> bool:
    """Whether that text lets the user run every program as root, without a password.

    `numbers`: the user's and those of the groups; None for an account that is yet to be made. Of several
    rules the last one counts (sudoers(5)). Raises FirstkeyError where the text is wrong, the end is unknown,
    or cvtsudoers is not there.
    """
    who: list[dict[str, Any]] = [
        *_ANY,
        {"username": name.lower()},
        *({"usergroup": group.lower()} for group in groups),
    ]
    who += [{"userid": numbers[0]}, *({"usergid": gid} for gid in numbers[1])] if numbers else []
    user = who, _OPEN if numbers else (*_OPEN, "userid", "usergid")
    root = _ROOT, (*_OPEN, "usergroup", "usergid")
    policy = _policy(sudoers)
    # A setting for users to become looks like one for users who ask; so these are asked for by themselves.
    of_runas = _policy(sudoers, "-d", "runas", "-s", "privileges").get("Defaults", ())
    asks, is_odd = {True}, False
    defaults = [(each.get("Binding", ()), each) for each in policy.get("Defaults", ())]
    # Those of commands come after all others.
    for binding, default in sorted(defaults, key=lambda pair: any("command" in member for member in pair[0])):
        applies = _answers(binding or _ANY, *(root if default in of_runas else user))
        options = _options(default)
        if True in applies and "authenticate" in options:
            asks = {options["authenticate"]} | (asks if len(applies) > 1 else set())
        is_odd |= True in applies and not _NOT_JUDGED.isdisjoint(options)
    ends = {False}
    for spec in policy.get("User_Specs", ()):
        about = [_answers(spec["User_List"], *user), _answers(spec["Host_List"], *user)]
        for rule in spec["Cmnd_Specs"]:
            options = _options(rule)
            # With a group alone, the user stays the same.
            runas = rule.get("runasusers", () if "runasgroups" in rule else _ROOT)
            lists = [*about, _answers(runas, *root), _answers_now(options)]
            (allows,) = _answers(rule["Commands"], *user)
            if allows is None or not all(True in answers for answers in lists):
                continue
            free = {not options.get("authenticate", word) for word in asks}
            free |= {True, False} if is_odd or not _NOT_JUDGED.isdisjoint({*rule, *options}) else set()
            before = ends if any(len(answers) > 1 for answers in lists) else set()
            ends = before | (free if allows else {False})
    if len(ends) > 1:
        message = f"whether sudo makes {name} root depends on the instance, or on a setting not judged here"
        raise FirstkeyError(message, reason=image_reasons.NOT_LOOKED_AT)
    return True in ends


def _policy(sudoers: str, *options: str) -> Any:  # noqa: ANN401 - JSON
    program = command.find("cvtsudoers")
    if program is None:
        message = "the image's sudo rules were not read: this host needs cvtsudoers, of the package sudo"
        raise FirstkeyError(message, reason=image_reasons.NOT_LOOKED_AT)
    stdin = sudoers.encode("utf-8", "surrogateescape")
    try:
        outcome = inspector.run([program, "-e", "-f", "json", *options], stdin=stdin)
        policy = json.loads(outcome.stdout or b"{}") if outcome.status == 0 else None
    except FirstkeyError as error:  # a text that is too long, as a rule
        raise FirstkeyError(error.message, reason=image_reasons.NOT_LOOKED_AT) from error
    except ValueError as error:  # sudo 1.9.13, where a rule has ROLE=, CWD= or CHROOT=
        message = f"this host's cvtsudoers cannot write a rule of the image's as JSON: {error}"
        raise FirstkeyError(message, reason=image_reasons.NOT_LOOKED_AT) from error
    if policy is None:
        # The place is one in the text that the files were put together to; the line follows.
        said = re.sub("^stdin:[0-9:]* *", "", outcome.stderr.decode("utf-8", "replace")).split("\n")
        message = f"sudo's files are wrong: {': '.join(said[:2])}"
        raise FirstkeyError(message, reason=reasons.SUDOERS_INVALID)
    return policy


def _answers(members: Sequence[Any], wanted: Collection[Any], unknown: Collection[str]) -> set[bool | None]:
    """What a list may say: yes, no (by a member with a `!`) or nothing. Of wanted members, the last counts.

    sudo takes small and capital letters in names for the same.
    """
    answers: set[bool | None] = set()
    for member in reversed(members):
        plain = {
            key: value.lower() if isinstance(value, str) else value
            for key, value in member.items()
            if key != "negated"
        }
        is_wanted = plain in wanted
        if is_wanted or not plain.keys().isdisjoint(unknown):
            answers.add(not member.get("negated"))
        if is_wanted:
            return answers
    return {*answers, None}


def _answers_now(options: dict[str, Any]) -> set[bool | None]:
    """Whether a rule counts by its dates: one that ends later may be at its end on an instance."""
    now = time.strftime("%Y%m%d%H%M%SZ", time.gmtime())
    begins, ends = options.get("notbefore", ""), options.get("notafter", "")
    if ends and ends < now:
        return {None}
    return {True, None} if ends or begins > now else {True}


def _options(entry: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The settings of a line or a rule that are not switched off; of several, the last one."""
    return {
        key: value
        for each in entry.get("Options", ())
        for key, value in each.items()
        if value is not False or key == "authenticate"
    }
