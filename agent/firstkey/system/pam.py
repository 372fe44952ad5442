"""PAM's own answers: whether an account may be used now, and which limits its sessions have.

The modules run in a child process, which is given up where one of them hangs. No password is asked for. Of a
session only pam_limits is opened, in a process about to become the user's: no other process gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from firstkey import NamedTuple, reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.system import child, command
from firstkey.system.files import Looks

LIBRARY = "libpam.so.0"
SECONDS = 10.0

# security/_pam_types.h
SUCCESS = 0
NEW_PASSWORD_WANTED = 12
ACCOUNT_EXPIRED = 13
_RHOST, _TTY = 4, 3
_SILENT = 0x8000


class Answer(NamedTuple):
    """What pam_acct_mgmt(3) returned, in PAM's own words, and what modules wanted the user to read."""

    code: int
    words: str
    messages: tuple[str, ...]


def account(service: str, user: Account, *, host: str) -> Answer:
    """Ask the account rules of `service`. Raises FirstkeyError where PAM is not there or does not answer."""
    said = child.ask(user.name, lambda _: _ask(service, user.name, host), seconds=SECONDS)
    return Answer(said[0], said[1], tuple(said[2]))


class SessionRefused(Exception):  # noqa: N818 - the answer of a module
    """pam_limits lets no more sessions begin."""


@contextmanager
def limits(name: str, rule: str, lines: str | None = None) -> Iterator[Callable[[], None]]:
    """Yield the step that gives the calling process, root's, the limits that pam_limits gives the user.

    `rule` is its line in pam.d(5); `lines` of limits.conf(5) are read in place of its files. The step raises
    SessionRefused. Raises FirstkeyError where PAM cannot be asked (before Linux-PAM 1.4).
    """
    import ctypes

    library = _library()
    converse, handle = _conversation([]), ctypes.c_void_p()
    with command.scratch_directory() as directory:
        place = directory.on_host
        if lines is not None:
            directory.replace("limits", lines.encode(), Looks(0o600, durable=False))
            rule += f" conf={place}/limits"
        # Rules behind it, which a rule may skip, and without which an optional one would count as required.
        rules = "\n".join((rule, *["session required pam_permit.so"] * 9, ""))
        for service in ("sshd", "other"):  # which PAM wants to read too
            directory.replace(service, rules.encode(), Looks(0o600, durable=False))
        started = getattr(library, "pam_start_confdir", lambda *_: None)(
            b"sshd", name.encode(), ctypes.byref(converse), place.encode(), ctypes.byref(handle)
        )
        if started != SUCCESS:
            raise FirstkeyError(
                "PAM cannot be asked for limits (Linux-PAM 1.4 can)", reason=reasons.DEPENDENCY_MISSING
            )

        def step() -> None:
            if library.pam_open_session(handle, _SILENT) != SUCCESS:
                raise SessionRefused("pam_limits lets no session begin")

        yield step
        library.pam_end(handle, SUCCESS)


def _library() -> Any:  # noqa: ANN401 - ctypes has no type for it
    # Few need it, and it costs more than most of what is imported.
    import ctypes

    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise FirstkeyError(f"PAM cannot be asked: {error}", reason=reasons.DEPENDENCY_MISSING) from error


def _ask(service: str, name: str, host: str) -> list[Any]:
    import ctypes

    library = _library()
    received: list[str] = []
    converse = _conversation(received)
    handle = ctypes.c_void_p()
    started = library.pam_start(service.encode(), name.encode(), ctypes.byref(converse), ctypes.byref(handle))
    library.pam_strerror.restype = ctypes.c_char_p
    if started != SUCCESS:  # it cannot read its rules, and sshd can do no better
        return [started, (library.pam_strerror(None, started) or b"").decode("utf-8", "replace"), []]
    # What sshd sets before it asks: some rules are about the client and the terminal.
    library.pam_set_item(handle, _RHOST, host.encode())
    library.pam_set_item(handle, _TTY, b"ssh")
    code = library.pam_acct_mgmt(handle, _SILENT)
    words = (library.pam_strerror(handle, code) or b"").decode("utf-8", "replace")
    library.pam_end(handle, code)
    return [code, words, received]


def _conversation(received: list[str]) -> Any:  # noqa: ANN401 - a structure made on the spot
    """The application's part (pam_conv(3)): it keeps the messages, and answers no question."""
    import ctypes

    class Message(ctypes.Structure):
        _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))

    listening = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(Message)), ctypes.c_void_p, ctypes.c_void_p
    )

    class Conversation(ctypes.Structure):
        _fields_ = (("function", listening), ("data", ctypes.c_void_p))

    def listen(count: int, messages: Any, _answers: Any, _data: Any) -> int:  # noqa: ANN401
        received.extend((messages[i].contents.text or b"").decode("utf-8", "replace") for i in range(count))
        return 19  # PAM_CONV_ERR: no person is there to answer

    return Conversation(listening(listen), None)
