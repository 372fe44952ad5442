"""How the metadata service answers: from a request and the instance's settings to a reply.

Source of the rules: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance
metadata" and "Instance metadata categories"; the headers are those that the service sends.
"""

from __future__ import annotations

import base64
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path, not a secret
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a name, not a secret
LONGEST_TTL = 21600  # seconds; AWS EC2 User Guide: a token lives six hours at most

TOKEN_MODES = ("both", "required", "absent")
SERVER = "EC2ws"
IMITATIONS = {
    "ec2": "the genuine service",
    "cloudstack": "CloudStack and Exoscale: public-keys is the key lines themselves",
    "localstack": "LocalStack: no public-keys, and an empty list of what there is",
    "metadata-mock": "amazon-ec2-metadata-mock: public-keys is listed as any folder is",
}
VERSION = re.compile(r"latest|1\.0|\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Settings:
    """The instance that the service speaks of, and how its metadata options are set.

    `keys` are pairs of a name and a public key line; the first is index 0. `tokens` is "both"
    (with and without), "required" (IMDSv2 only) or "absent" (IMDSv1 only: a token request is
    answered with the status `token_refusal`). `enabled=False` answers 403 to everything.
    `token_uses` limits how often a token is good. `keep_alive=True` keeps connections open, as
    the real service does not. `like` is one of IMITATIONS. Raises ValueError for what cannot be.
    """

    instance_id: str = "i-0123456789abcdef0"
    keys: tuple[tuple[str, str], ...] = ()
    tokens: str = "both"
    token_refusal: int = 404
    token_uses: int | None = None
    enabled: bool = True
    keep_alive: bool = False
    ami_id: str = "ami-0123456789abcdef0"
    hostname: str = "ip-192-0-2-10.ec2.internal"
    local_ipv4: str = "192.0.2.10"
    like: str = "ec2"

    def __post_init__(self) -> None:
        if self.tokens not in TOKEN_MODES:
            raise ValueError(f"tokens is {self.tokens!r}; it can be {', '.join(TOKEN_MODES)}")
        if self.like not in IMITATIONS:
            raise ValueError(f"like is {self.like!r}; it can be {', '.join(IMITATIONS)}")
        if not 400 <= self.token_refusal <= 599:
            raise ValueError(f"token_refusal is {self.token_refusal}; a refusal is 400 to 599")


class Request(NamedTuple):
    """What a client asked."""

    method: str
    path: str  # without the query
    headers: Mapping[str, str]  # names in lower case

    @property
    def token(self) -> str | None:
        """The token that came along, good or not."""
        return self.headers.get(TOKEN_HEADER.lower())

    @property
    def asks_for_token(self) -> bool:
        """Whether this is IMDSv2's first step."""
        return self.method == "PUT" and self.path.rstrip("/") == TOKEN_PATH


class Reply(NamedTuple):
    """An answer as the real service would give it."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    server: str = SERVER


class Token(NamedTuple):
    """What the service remembers of a token: when it ends, and how often it was shown."""

    ends: float  # on the clock of its `Tokens`
    uses: int = 0


class Tokens:
    """The tokens that were handed out. Not thread-safe: the server asks under its lock."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[str, Token] = {}

    def issue(self, ttl: int) -> str:
        """A new token, good for `ttl` seconds."""
        now = self._clock()
        self._tokens = {text: token for text, token in self._tokens.items() if token.ends > now}
        text = base64.urlsafe_b64encode(os.urandom(40)).decode("ascii")
        self._tokens[text] = Token(now + ttl)
        return text

    def use(self, text: str, *, limit: int | None) -> int:
        """Show a token; the whole seconds that it still lives, or 0 if it is good no more."""
        token = self._tokens.pop(text, Token(0.0))
        left = math.ceil(token.ends - self._clock())
        if left <= 0 or (limit is not None and token.uses >= limit):
            return 0
        self._tokens[text] = token._replace(uses=token.uses + 1)
        return left


def reply(request: Request, *, settings: Settings, tokens: Tokens) -> Reply:
    """The answer to one request, by the rules of the real service, or of one that is like it."""
    answered = _reply(request, settings=settings, tokens=tokens)
    return answered if settings.like == "ec2" else answered._replace(server=settings.like)


def _reply(request: Request, *, settings: Settings, tokens: Tokens) -> Reply:
    if not settings.enabled:
        return error(403)
    if request.method == "PUT":
        return _issue_token(request, settings, tokens)
    if request.path.rstrip("/") == TOKEN_PATH:
        return Reply(405, headers=(("Allow", "OPTIONS, PUT"),))
    if request.method not in ("GET", "HEAD"):
        return Reply(405, headers=(("Allow", "GET, HEAD, OPTIONS"),))
    if settings.tokens == "absent":
        return _read(request.path, settings)
    return _read_with_token(request, settings, tokens)


def error(status: int) -> Reply:
    """An error as the service words it: a small XHTML page with the status as its title."""
    page = (
        '<?xml version="1.0" encoding="iso-8859-1"?>\n'
        '<html xmlns="http://www.w3.org/1999/xhtml">\n'
        f"<head><title>{status} - {phrase(status)}</title></head>\n"
        f"<body><h1>{status} - {phrase(status)}</h1></body>\n"
        "</html>\n"
    )
    return Reply(status, page.encode("ascii"), "text/html")


def phrase(status: int) -> str:
    """The status in words (RFC 9110), or a stand-in for an unregistered number."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _issue_token(request: Request, settings: Settings, tokens: Tokens) -> Reply:
    if settings.tokens == "absent":
        return error(settings.token_refusal)
    # Both 403s are from the guide: a token must not be had through a proxy that forwards for
    # others, and not under any path but the one with "latest".
    if not request.asks_for_token or "x-forwarded-for" in request.headers:
        return error(403)
    ttl = request.headers.get(TTL_HEADER.lower(), "").strip()
    if not re.fullmatch(r"[0-9]{1,5}", ttl) or not 1 <= int(ttl) <= LONGEST_TTL:
        return error(400)
    body = tokens.issue(int(ttl)).encode("ascii")
    return Reply(200, body, headers=((TTL_HEADER, str(int(ttl))),))


def _read_with_token(request: Request, settings: Settings, tokens: Tokens) -> Reply:
    if request.token is None:
        return error(401) if settings.tokens == "required" else _read(request.path, settings)
    left = tokens.use(request.token, limit=settings.token_uses)
    if not left:
        return error(401)
    answer = _read(request.path, settings)
    return answer._replace(headers=(*answer.headers, (TTL_HEADER, str(left))))


def _read(path: str, settings: Settings) -> Reply:
    if path == "/":
        return _text("latest")
    version, _, rest = path.removeprefix("/").partition("/")
    if not VERSION.fullmatch(version):
        return error(404)
    if not rest:
        return _text("meta-data")
    folder, _, name = rest.partition("/")
    text = _document(name, settings) if folder == "meta-data" else None
    return error(404) if text is None else _text(text)


def _text(text: str) -> Reply:
    return Reply(200, text.encode("utf-8", "surrogateescape"))


def _document(name: str, settings: Settings) -> str | None:
    """What stands under `name`, relative to meta-data/: a value, a listing, or nothing."""
    if settings.like == "cloudstack" and name.startswith("public-keys"):
        return "\n".join(line for _, line in settings.keys) or None if name == "public-keys" else None
    if settings.like == "localstack" and (not name or name.startswith("public-keys")):
        return None if name else ""
    documents = {
        "ami-id": settings.ami_id,
        "hostname": settings.hostname,
        "instance-id": settings.instance_id,
        "local-ipv4": settings.local_ipv4,
    }
    for index, (_, line) in enumerate(settings.keys):
        documents[f"public-keys/{index}/openssh-key"] = line.rstrip("\n") + "\n"
    if name in documents:
        return documents[name]
    # A folder is listed with and without its last slash.
    folder = name.rstrip("/") + "/" if name else ""
    if folder == "public-keys/" and settings.keys and settings.like != "metadata-mock":
        return "\n".join(f"{index}={name}" for index, (name, _) in enumerate(settings.keys))
    return _listing(documents, folder)


def _listing(documents: Mapping[str, str], folder: str) -> str | None:
    below = [name[len(folder) :] for name in documents if name.startswith(folder)]
    children = {child + slash for child, slash, _ in (name.partition("/") for name in below)}
    return "\n".join(sorted(children)) or None
