"""One inquiry at one endpoint: a token, the instance-id, the launch keys, and nothing else.

Nothing in an answer is trusted. Source of the rules: AWS EC2 User Guide, "Use the Instance Metadata Service
to access instance metadata" (IMDSv2, "HTTP response codes") and "Instance metadata categories".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from firstkey import NamedTuple, events, reasons
from firstkey.metadata.transport import Conversation, Deadline, Reply
from firstkey.model import Answer, OfferedKey
from firstkey.reasons import FirstkeyError, NoAnswer, Reason, Refusal, Retriable

if TYPE_CHECKING:
    from firstkey.config import Imds
    from firstkey.events import Entry

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path, not a secret
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a name, not a secret
METADATA = "/latest/meta-data/"
INSTANCE_ID = "instance-id"
PUBLIC_KEYS = "public-keys/"

TOKEN_LIMIT = 1024
"""Bytes of a token. AWS gives no limit; genuine ones have 56."""

MOST_KEYS = 64
"""Lines of the list of keys. EC2 itself lists one; more come from services that imitate it."""

NAME_LIMIT = 255
"""Characters of a key pair's name (AWS EC2 API, CreateKeyPair)."""

_INDEX_LINE = re.compile(r"([0-9]{1,9})(?:=([^\x00-\x1f\x7f-\x9f\u2028\u2029]*)|/)")
_KEY_LINE = re.compile(r"[a-z][a-z0-9@.-]{1,63} AAAA[A-Za-z0-9+/]{16,}={0,2}(?: .*)?")

FAIR_TRIAL = 0.1
"""Seconds that a token request must have had before silence is taken for a hop limit."""

_Value = TypeVar("_Value")


class Token(NamedTuple):
    """A session token, which no repr shows, and the deadline after which a new one is asked for."""

    text: str
    renewal: Deadline

    def __repr__(self) -> str:
        return "<a token>"


class Inquiry:
    """Asks one endpoint, in one conversation, for everything.

    `tokens` is where tokens are kept from one inquiry to the next, by endpoint. `identity` is known before
    the keys are, and stays where those cannot be had.
    """

    def __init__(
        self,
        conversation: Conversation,
        settings: Imds,
        *,
        tokens: dict[str, Token],
        log: Callable[[Entry], None],
        deadline: Deadline,
    ) -> None:
        self._conversation = conversation
        self._url = conversation.endpoint.url
        self._settings = settings
        self._tokens = tokens
        self._log = log
        self._deadline = deadline
        self.identity: Answer | None = None
        # What requests go with: a token, or none and the reason for that (None: none was asked for).
        self._token = tokens.get(self._url)
        self._fallback: Reason | None = None
        self._missed: Retriable | None = None  # why a key could not be had that another attempt may bring

    def answer(self) -> Answer:
        """Everything.

        Raises Retriable for what is worth another attempt, and FirstkeyError for what is final. A key that
        cannot be had is refused; where none can be had, the question is worth another attempt.
        """
        if not self._token:
            self._renew()
        what = f"GET {self._url}{METADATA}{INSTANCE_ID}"
        self.identity = self._answer(_parsed(parse_instance_id, what, self._read(INSTANCE_ID)))
        keys = tuple(map(self._key, self._index()))
        if self._missed and all(key.refusal for key in keys):
            raise self._missed
        return self._answer(self.identity.instance_id)._replace(keys=keys)

    def _answer(self, instance_id: str) -> Answer:
        return Answer(instance_id, self._url, 2 if self._token else 1, self._fallback)

    def _index(self) -> tuple[OfferedKey, ...]:
        """The list of keys. 404 to it: launched without a key pair.

        CloudStack lists keys without the last slash. A service that lists its categories, and not even
        instance-id among them, has left some out: LocalStack.
        """
        for path in (PUBLIC_KEYS, PUBLIC_KEYS.rstrip("/")):
            reply = self._get(path)
            if reply.status != 404:
                return _parsed(parse_index, f"GET {self._url}{METADATA}{path}", self._content(reply, path))
        reply = self._get("")
        if reply.status != 404 and INSTANCE_ID.encode() not in self._content(reply, "").split():
            text = f"GET {self._url}{METADATA}{PUBLIC_KEYS}: answered with 404, and {METADATA} lacks it"
            raise FirstkeyError(text, reason=reasons.CATEGORY_MISSING)
        return ()

    def _key(self, listed: OfferedKey) -> OfferedKey:
        """One key. What is wrong with it alone is its own refusal: the others still come."""
        if listed.text or listed.refusal:
            return listed
        try:
            return listed._replace(text=self._read(f"{PUBLIC_KEYS}{listed.number}/openssh-key"))
        except FirstkeyError as error:
            self._missed = error if isinstance(error, Retriable) else self._missed
            return listed._replace(refusal=error.refusal)

    def _read(self, path: str) -> bytes:
        return self._content(self._get(path), path)

    def _get(self, path: str) -> Reply:
        """One answer, whatever its status; with a new token if the one we have is not taken (any more)."""
        if self._token and self._token.renewal.left <= 0:
            self._renew()
        reply = self._send(path)
        # 403 too: a service that was switched off since it gave us the token answers so. The request for
        # a new one then shows whether it was.
        if self._token and reply.status in (401, 403):
            self._renew()
            reply = self._send(path)
        return reply

    def _send(self, path: str) -> Reply:
        headers = {TOKEN_HEADER: self._token.text} if self._token else {}
        return self._ask("GET", METADATA + path, headers, self._settings.request_timeout)

    def _ask(self, method: str, path: str, headers: dict[str, str], seconds: float) -> Reply:
        """One request; the journal gets its path and the status of its answer, and never a token."""
        deadline = self._deadline.within(seconds)
        allowed = deadline.left
        reply = self._conversation.ask(method, path, headers=headers, deadline=deadline)
        what = f"{method} {self._url}{path}" + (", with a token," if TOKEN_HEADER in headers else "")
        took = f"{allowed - deadline.left:.3f}"
        self._log(events.IMDS_REQUEST(request=what, status=reply.status, seconds=took))
        return reply

    def _content(self, reply: Reply, path: str) -> bytes:
        what = f"GET {self._url}{METADATA}{path}"
        if reply.status == 200:
            if self._token and self._token.text.encode() in reply.body:
                # Parts of the body are logged or written to files, which must not have the token in it.
                text = f"{what}: the answer repeats the token that the request went with"
                raise FirstkeyError(text, reason=reasons.BAD_ANSWER)
            return reply.body
        if reply.status == 401 and self._token:
            # Genuine services do that for a while, early in an instance's life (NixOS/amis issue 137).
            raise Retriable(f"{what}: a fresh token was rejected (401)", reason=reasons.TOKEN_REJECTED)
        if reply.status == 401 and self._fallback == reasons.TOKEN_TIMEOUT:
            # A token is needed, and was given perhaps, but did not get through: next time it may.
            text = f"{what}: it takes a token (401), and the token request was not answered"
            raise Retriable(text, reason=reasons.TOKEN_TIMEOUT)
        if reply.status == 401:
            why = "the service has none to give" if self._fallback else "Version=1 asks for none"
            raise FirstkeyError(f"{what}: it takes a token (401), and {why}", reason=reasons.V1_DISABLED)
        is_refused_a_token = not self._token and self._fallback != reasons.TOKEN_TIMEOUT
        if reply.status == 403 and path == INSTANCE_ID and is_refused_a_token:
            # The first of all reads, with no token to be had: this service answers 403 to everything.
            raise FirstkeyError(f"{what}: answered with 403", reason=reasons.IMDS_DISABLED)
        raise _failure(what, reply.status)

    def _renew(self) -> None:
        """Get a new token, or the reason to go on without one."""
        self._tokens.pop(self._url, None)
        self._token = self._fallback = None
        if self._settings.version == "1":
            return
        may_fall_back = self._settings.version == "auto"
        self._conversation.connect(self._deadline.within(self._settings.request_timeout))
        # A request without a token may have to follow, and takes time as well.
        seconds = min(self._settings.request_timeout, self._deadline.left / (2 if may_fall_back else 1))
        ttl = self._settings.token_ttl
        # What matters is when the service began to count, which cannot be before we asked.
        renewal = self._deadline.from_now(ttl - min(max(10.0, ttl / 20), ttl / 2))
        what = f"PUT {self._url}{TOKEN_PATH}"
        try:
            reply = self._ask("PUT", TOKEN_PATH, {TTL_HEADER: str(ttl)}, seconds)
        except NoAnswer as error:
            if may_fall_back and self._deadline.left < FAIR_TRIAL:
                raise  # Our own time was over: that says nothing of the service.
            text = f"{error.message}, though the connection was accepted"
            if not may_fall_back:
                raise Retriable(text, reason=reasons.TOKEN_TIMEOUT) from None
            self._fall_back(reasons.TOKEN_TIMEOUT, text)
            return
        if reply.status == 200:
            text = _parsed(parse_token, what, reply.body)
            self._token = self._tokens[self._url] = Token(text, renewal)
        elif reply.status not in (403, 404, 405):
            raise _failure(what, reply.status)
        elif may_fall_back:
            self._fall_back(reasons.TOKEN_REFUSED, f"the token request was answered with {reply.status}")
        else:
            # 403 counts as switched off, which is what the guide says it means; a service without IMDSv2
            # knows no such path (404) or method (405).
            text = f"{what}: answered with {reply.status}, and Version=2 sends nothing without a token"
            why = reasons.IMDS_DISABLED if reply.status == 403 else reasons.TOKEN_REFUSED
            raise FirstkeyError(text, reason=why)

    def _fall_back(self, reason: Reason, detail: str) -> None:
        self._fallback = reason
        self._log(events.IMDS_FALLBACK(endpoint=self._url, detail=detail, reason=reason.code))


def _parsed(parse: Callable[[bytes], _Value], what: str, body: bytes) -> _Value:
    try:
        return parse(body)
    except ValueError as error:
        raise FirstkeyError(f"{what}: {error}", reason=reasons.BAD_ANSWER) from None


def _failure(what: str, status: int) -> FirstkeyError:
    """What a status means that is neither 200 nor a matter of tokens."""
    text = f"{what}: answered with {status}"
    if status > 400:
        # Not only 429 and 5xx: where everything that is asked for exists, 404 or 403 in the middle come
        # from a service that is not ready yet, and to believe it would lock the owner out.
        return Retriable(text, reason=reasons.IMDS_ERROR)
    known = {3: reasons.REDIRECT_REFUSED, 4: reasons.BAD_REQUEST}
    return FirstkeyError(text, reason=known.get(status // 100, reasons.BAD_ANSWER))


# --- what may come back: nothing in an answer is trusted --------------------------------------------


def parse_token(body: bytes) -> str:
    """A session token. Raises ValueError, without the text: a token is never logged."""
    text = body.rstrip(b"\r\n")
    if not re.fullmatch(rb"[\x21-\x7e]{1,%d}" % TOKEN_LIMIT, text):
        raise ValueError("what came in place of a token is none")
    return text.decode("ascii")


def parse_instance_id(body: bytes) -> str:
    """The instance's id. Raises ValueError."""
    text = body.rstrip(b"\r\n")
    if not re.fullmatch(rb"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError(f"{quoted(body)} is no instance-id")
    return text.decode("ascii")


def parse_index(body: bytes) -> tuple[OfferedKey, ...]:
    """The keys of the lines `INDEX=NAME` of public-keys/ in the order of their numbers; then lines that are
    none, refused. The text of the keys is still to be asked for.

    amazon-ec2-metadata-mock has `INDEX/`, as for any folder. CloudStack and Exoscale answer with the keys
    themselves, which are numbered here. Raises ValueError where no line is any of these, or there are too
    many: then this is no list at all.
    """
    lines = [line.rstrip("\r") for line in body.decode("utf-8", errors="replace").split("\n")]
    lines = [line for line in lines if line]
    if len(lines) > MOST_KEYS:
        raise ValueError(f"the list of keys has more than {MOST_KEYS} lines")
    matched = {line: _INDEX_LINE.fullmatch(line) for line in lines}
    listed = {
        parts[1]: OfferedKey(parts[1], (parts[2] or "")[:NAME_LIMIT], b"")
        for parts in matched.values()
        if parts
    }
    if not listed and any(map(_KEY_LINE.fullmatch, lines)):
        return tuple(OfferedKey(str(number), "", f"{line}\n".encode()) for number, line in enumerate(lines))
    bad = [
        f"{quoted(line.encode())} is no line INDEX=NAME of a list of keys"
        for line, parts in matched.items()
        if not parts
    ]
    if bad and not listed:
        raise ValueError(bad[0])
    ordered = sorted(listed.values(), key=lambda key: int(key.number))
    return (*ordered, *(OfferedKey("?", "", b"", Refusal(reasons.BAD_ANSWER, why)) for why in bad))


def quoted(body: bytes) -> str:
    """The beginning of something untrusted, safe to print."""
    return ascii(body[:60].decode("utf-8", errors="replace")) + ("..." if len(body) > 60 else "")
