"""One inquiry at one endpoint: a token, the instance-id, the launch keys, and nothing else.

Source of the rules: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata"
(IMDSv2, "HTTP response codes").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.metadata import answers
from firstkey.metadata.answers import Listed
from firstkey.metadata.endpoint import Deadline
from firstkey.metadata.transport import Conversation, Reply
from firstkey.metadata.values import (
    FAIR_TRIAL,
    Answer,
    Identity,
    NoAnswer,
    Notice,
    OfferedKey,
    Retriable,
    Settings,
    Tell,
)
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Reason, Refusal

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path, not a secret
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a name, not a secret
METADATA = "/latest/meta-data/"
INSTANCE_ID = "instance-id"
PUBLIC_KEYS = "public-keys/"

_Value = TypeVar("_Value")


class Token:
    """A session token, which no repr shows, and the deadline after which a new one is asked for."""

    def __init__(self, text: str, renewal: Deadline) -> None:
        self.text = text
        self.renewal = renewal

    def __repr__(self) -> str:
        return "<a token>"


class _Pass(NamedTuple):
    """What requests go with: a token, or the reason why they have none (None: none was asked for)."""

    token: Token | None
    fallback: Reason | None = None


class Inquiry:
    """Asks one endpoint, in one conversation, for everything.

    `tokens` is where tokens are kept from one inquiry to the next, by endpoint. `identity` is known before
    the keys are, and stays where those cannot be had.
    """

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        *,
        tokens: dict[str, Token],
        tell: Tell,
        deadline: Deadline,
    ) -> None:
        self._conversation = conversation
        self._url = conversation.endpoint.url
        self._settings = settings
        self._tokens = tokens
        self._tell = tell
        self._deadline = deadline
        self.identity: Identity | None = None
        self._pass = _Pass(tokens.get(self._url))
        self._missed: list[Retriable] = []

    def answer(self) -> Answer:
        """Everything.

        Raises Retriable for what is worth another attempt, and FirstkeyError for what is final. A key that
        cannot be had is refused; where none can be had, the question is worth another attempt.
        """
        if not self._pass.token:
            self._pass = self._new_pass()
        instance_id = self._parsed(answers.instance_id, INSTANCE_ID, self._read(INSTANCE_ID))
        self.identity = self._identity(instance_id)
        keys = tuple(self._key(listed) for listed in self._index())
        if self._missed and all(key.refusal for key in keys):
            raise self._missed[0]
        return Answer(*self._identity(instance_id), keys)

    def _identity(self, instance_id: str) -> Identity:
        token, fallback = self._pass
        return Identity(instance_id, self._url, 2 if token else 1, fallback)

    def _index(self) -> tuple[Listed, ...]:
        reply = self._get(PUBLIC_KEYS)
        if reply.status == 404:  # launched without a key pair
            return ()
        return self._parsed(answers.index, PUBLIC_KEYS, self._content(reply, PUBLIC_KEYS))

    def _key(self, listed: Listed) -> OfferedKey:
        """One key. What is wrong with it alone is its own refusal: the others still come."""
        number, name, flaw = listed
        if flaw:
            text = f"GET {self._url}{METADATA}{PUBLIC_KEYS}: {flaw}"
            return OfferedKey(number, name, b"", Refusal(reasons.BAD_ANSWER, text))
        try:
            return OfferedKey(number, name, self._read(f"{PUBLIC_KEYS}{number}/openssh-key"))
        except Retriable as error:
            self._missed.append(error)
            return OfferedKey(number, name, b"", error.refusal)
        except FirstkeyError as error:
            if error.reason not in _OF_ONE_KEY:
                raise
            return OfferedKey(number, name, b"", error.refusal)

    # --- requests -----------------------------------------------------------------------------

    def _read(self, path: str) -> bytes:
        return self._content(self._get(path), path)

    def _get(self, path: str) -> Reply:
        """One answer, whatever its status; with a new token if the one we have is not taken (any more)."""
        if self._pass.token and self._pass.token.renewal.left <= 0:
            self._pass = self._new_pass()
        reply = self._send(path)
        # 403 too: a service that was switched off since it gave us the token answers so. The request for
        # a new one then shows whether it was.
        if self._pass.token and reply.status in (401, 403):
            self._pass = self._new_pass()
            reply = self._send(path)
        return reply

    def _send(self, path: str) -> Reply:
        token = self._pass.token
        headers = {TOKEN_HEADER: token.text} if token else {}
        deadline = self._deadline.within(self._settings.request_timeout)
        return self._ask("GET", METADATA + path, headers=headers, deadline=deadline)

    def _ask(self, method: str, path: str, *, headers: dict[str, str], deadline: Deadline) -> Reply:
        """One request, which is told with the status of its answer; what a token is, nobody is told."""
        allowed = deadline.left
        reply = self._conversation.ask(method, path, headers=headers, deadline=deadline)
        what = f"{method} {self._url}{path}" + (", with a token," if TOKEN_HEADER in headers else "")
        seconds = allowed - deadline.left
        self._tell(Notice("request", None, what, self._url, status=reply.status, seconds=seconds))
        return reply

    def _content(self, reply: Reply, path: str) -> bytes:
        what = f"GET {self._url}{METADATA}{path}"
        if reply.status == 200:
            return self._without_token(reply.body, what)
        if reply.status == 401:
            raise self._unauthorized(what)
        if reply.status == 403 and path == INSTANCE_ID and self._is_refused_a_token():
            # The first of all reads, with no token to be had: this service answers 403 to everything.
            raise FirstkeyError(f"{what}: answered with 403", reason=reasons.IMDS_DISABLED)
        raise _failure(what, reply.status)

    def _without_token(self, body: bytes, what: str) -> bytes:
        """The body; what of it is told or written somewhere must not have the token in it."""
        if self._pass.token and self._pass.token.text.encode() in body:
            text = f"{what}: the answer repeats the token that the request went with"
            raise FirstkeyError(text, reason=reasons.BAD_ANSWER)
        return body

    def _is_refused_a_token(self) -> bool:
        """Whether there is none because the service said so, or because we did not ask."""
        return not self._pass.token and self._pass.fallback != reasons.TOKEN_TIMEOUT

    def _unauthorized(self, what: str) -> FirstkeyError:
        if self._pass.token:
            # Genuine services do that for a while, early in an instance's life (NixOS/amis issue 137).
            return Retriable(f"{what}: a fresh token was rejected (401)", reason=reasons.TOKEN_REJECTED)
        if self._pass.fallback == reasons.TOKEN_TIMEOUT:
            # A token is needed, and was given perhaps, but did not get through: next time it may.
            text = f"{what}: it takes a token (401), and the token request was not answered"
            return Retriable(text, reason=reasons.TOKEN_TIMEOUT)
        why = "the service has none to give" if self._pass.fallback else "Version=1 asks for none"
        return FirstkeyError(f"{what}: it takes a token (401), and {why}", reason=reasons.V1_DISABLED)

    def _parsed(self, parse: Callable[[bytes], _Value], path: str, body: bytes) -> _Value:
        try:
            return parse(body)
        except ValueError as error:
            text = f"GET {self._url}{METADATA}{path}: {error}"
            raise FirstkeyError(text, reason=reasons.BAD_ANSWER) from None

    # --- the token ----------------------------------------------------------------------------

    def _new_pass(self) -> _Pass:
        """A new token, or the reason to go on without one."""
        self._tokens.pop(self._url, None)
        if self._settings.version == "1":
            return _Pass(None)
        was_fair = self._deadline.left / 2 >= FAIR_TRIAL
        try:
            token = self._new_token()
        except NoAnswer as error:
            text = f"{error.message}, though the connection was accepted"
            if self._settings.version == "2":
                raise Retriable(text, reason=reasons.TOKEN_TIMEOUT) from None
            if not was_fair:
                raise  # Our own time was over: that says nothing of the service.
            return self._fall_back(reasons.TOKEN_TIMEOUT, text)
        if isinstance(token, Token):
            self._tokens[self._url] = token
            return _Pass(token)
        return self._fall_back(reasons.TOKEN_REFUSED, f"the token request was answered with {token}")

    def _new_token(self) -> Token | int:
        """A token, or the status (403, 404, 405) of a service that gives none."""
        ttl = self._settings.token_ttl
        # What matters is when the service began to count, which cannot be before we asked.
        renewal = self._deadline.from_now(ttl - min(max(10.0, ttl / 20), ttl / 2))
        headers = {TTL_HEADER: str(ttl)}
        reply = self._ask("PUT", TOKEN_PATH, headers=headers, deadline=self._token_deadline())
        what = f"PUT {self._url}{TOKEN_PATH}"
        if reply.status in (403, 404, 405):
            return self._no_token(what, reply.status)
        if reply.status != 200:
            raise _failure(what, reply.status)
        try:
            return Token(answers.token(reply.body), renewal)
        except ValueError as error:
            raise FirstkeyError(f"{what}: {error}", reason=reasons.BAD_ANSWER) from None

    def _token_deadline(self) -> Deadline:
        """Leaves time for a request without a token, where that may follow."""
        limit = self._settings.request_timeout
        may_fall_back = self._settings.version == "auto"
        return self._deadline.within(min(limit, self._deadline.left / 2) if may_fall_back else limit)

    def _no_token(self, what: str, status: int) -> int:
        """The status again, where a request without a token may follow.

        With Version=2 none may. Then 403 counts as switched off, which is what the guide says it means;
        a service without IMDSv2 knows no such path (404) or method (405).
        """
        if self._settings.version == "auto":
            return status
        reason = reasons.IMDS_DISABLED if status == 403 else reasons.TOKEN_REFUSED
        text = f"{what}: answered with {status}, and Version=2 sends nothing without a token"
        raise FirstkeyError(text, reason=reason)

    def _fall_back(self, reason: Reason, detail: str) -> _Pass:
        self._tell(Notice("fallback", reason, detail, self._url))
        return _Pass(None, reason)


_OF_ONE_KEY = frozenset({
    reasons.ANSWER_TOO_LARGE, reasons.BAD_ANSWER, reasons.BAD_REQUEST, reasons.REDIRECT_REFUSED,
})  # fmt: skip
"""Reasons that say nothing of the service as a whole when a key's request has them."""


def _failure(what: str, status: int) -> FirstkeyError:
    """What a status means that is neither 200 nor a matter of tokens."""
    if status == 400:
        return FirstkeyError(
            f"{what}: answered with 400, so the request is wrong", reason=reasons.BAD_REQUEST
        )
    if 300 <= status < 400:
        text = f"{what}: answered with a redirect ({status})"
        return FirstkeyError(text, reason=reasons.REDIRECT_REFUSED)
    if status >= 400:
        # Not only 429 and 5xx: where everything that is asked for exists, 404 or 403 in the middle come
        # from a service that is not ready yet, and to believe it would lock somebody out.
        return Retriable(f"{what}: answered with {status}", reason=reasons.IMDS_ERROR)
    text = f"{what}: answered with {status}, which the metadata service does not do"
    return FirstkeyError(text, reason=reasons.BAD_ANSWER)
