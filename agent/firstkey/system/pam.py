"""PAM's own answer to whether an account may be used now: what sshd asks once a key has been accepted.

The modules run in a child process, which is given up where one of them hangs. Nothing of a session is
opened, and no password is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import child

if TYPE_CHECKING:
    from firstkey.model import Account

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


def _ask(service: str, name: str, host: str) -> list[Any]:
    # Few need it, and it costs more than most of what is imported.
    import ctypes

    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise FirstkeyError(f"PAM cannot be asked: {error}", reason=reasons.DEPENDENCY_MISSING) from error
    heard: list[str] = []
    converse = _conversation(heard)
    handle = ctypes.c_void_p()
    started = library.pam_start(service.encode(), name.encode(), ctypes.byref(converse), ctypes.byref(handle))
    if started != SUCCESS:
        raise FirstkeyError(f"PAM has no service {service}", reason=reasons.DEPENDENCY_MISSING)
    # What sshd sets before it asks: some rules are about the client and the terminal.
    library.pam_set_item(handle, _RHOST, host.encode())
    library.pam_set_item(handle, _TTY, b"ssh")
    code = library.pam_acct_mgmt(handle, _SILENT)
    library.pam_strerror.restype = ctypes.c_char_p
    words = (library.pam_strerror(handle, code) or b"").decode("utf-8", "replace")
    library.pam_end(handle, code)
    return [code, words, heard]


def _conversation(heard: list[str]) -> Any:  # noqa: ANN401 - a structure made on the spot
    """The application's part (pam_conv(3)): it reads what it is told, and answers no question."""
    import ctypes

    class Message(ctypes.Structure):
        _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))

    listening = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(Message)), ctypes.c_void_p, ctypes.c_void_p
    )

    class Conversation(ctypes.Structure):
        _fields_ = (("function", listening), ("data", ctypes.c_void_p))

    def listen(count: int, messages: Any, _answers: Any, _data: Any) -> int:  # noqa: ANN401
        heard.extend((messages[i].contents.text or b"").decode("utf-8", "replace") for i in range(count))
        return 19  # PAM_CONV_ERR: there is nobody to answer

    return Conversation(listening(listen), None)
