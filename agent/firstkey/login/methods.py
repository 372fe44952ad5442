"""Whether sshd takes a key like this one from this user: methods, algorithms, sizes, revocation."""

from __future__ import annotations

from collections.abc import Iterator

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login.context import DISABLED, Context
from firstkey.login.finding import Finding, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import access
from firstkey.ssh.public_key import PublicKey, read_key
from firstkey.system import command, inspector

SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The signatures that go with a type of key, where they are not called like it (RFC 8332)."""
KRL_MAGIC = b"SSHKRL\n\0"
REVOKED_LIMIT = 64 * 1024 * 1024


def findings(context: Context) -> Iterator[Finding]:
    """In sshd's order: the methods (auth2.c), then what is asked of the key (auth2-pubkey.c)."""
    if context.says("maxauthtries") == "0":
        detail = "MaxAuthTries is 0: a client that only asks what it may try is turned away"
        yield context.in_config("maxauthtries", why.SESSION_LIMIT, detail, edit=DISABLED)
    if context.says("pubkeyauthentication") == "no":
        detail = f"PubkeyAuthentication is no for {context.name}"
        yield context.in_config("pubkeyauthentication", why.PUBKEY_DISABLED, detail, edit=DISABLED)
    else:
        yield passed("pubkeyauthentication", "sshd takes public keys")
    # A list of methods must be gone through from left to right; a key alone does for `publickey`.
    lists = context.words("authenticationmethods") or ["any"]
    if any(methods in ("any", "publickey") for methods in lists):
        yield passed("authenticationmethods", "a key alone is enough")
    else:
        detail = f"AuthenticationMethods {' '.join(lists)} is not content with a key alone"
        yield context.in_config("authenticationmethods", why.KEY_NOT_ENOUGH, detail)
    accepted = context.says("pubkeyacceptedalgorithms") or context.says("pubkeyacceptedkeytypes")
    if context.key.type and accepted:
        yield _algorithm(context, context.key.type, accepted)
        yield from _size(context)
    yield from _revoked(context)


def _algorithm(context: Context, kind: str, accepted: str) -> Finding:
    check = "pubkeyacceptedalgorithms"
    signatures = SIGNATURES.get(kind, (kind,))
    if any(access.matches_list(signature, accepted) for signature in signatures):
        return passed(check, f"sshd takes keys of type {kind}")
    if access.matches_list(kind, accepted):
        detail = f"for {kind} keys sshd takes only SHA-1 signatures, which no client since OpenSSH 8.8 makes"
    else:
        detail = f"PubkeyAcceptedAlgorithms has nothing for a key of type {kind}"
    return context.in_config(check, why.ALGORITHM_REFUSED, detail)


def _size(context: Context) -> Iterator[Finding]:
    least = context.says("requiredrsasize") or context.says("rsaminsize") or "0"
    key = context.key.key
    if key is None or key.type != "ssh-rsa" or not least.isdigit():
        return
    if key.bits < int(least):
        detail = f"the RSA key has {key.bits} bits; RequiredRSASize is {least}"
        yield context.in_config("requiredrsasize", why.KEY_TOO_SMALL, detail)
    else:
        yield passed("requiredrsasize", f"{key.bits} bits are enough for sshd")


def _revoked(context: Context) -> Iterator[Finding]:
    path = context.says("revokedkeys")
    if not path:
        return
    try:
        yield _revocation(context, path)
    except FirstkeyError as error:
        yield unanswered("revokedkeys", error, path=path)


def _revocation(context: Context, path: str) -> Finding:
    content = context.target.tree.read(path, limit=REVOKED_LIMIT)
    key, is_krl = context.key.key, (content or b"").startswith(KRL_MAGIC)
    lines = [line.strip(b" \t\r") for line in (content or b"").split(b"\n")] if not is_krl else []
    listed = [read_key(line) for line in lines if line and not line.startswith(b"#")]
    # A list with one line that is no key makes sshd refuse every key (authfile.c: sshkey_in_file).
    if content is None or None in listed:
        wrong = "does not exist" if content is None else "has a line that is no key"
        found = context.in_config("revokedkeys", why.REVOKED_KEYS_UNREADABLE, f"RevokedKeys {path} {wrong}")
        return found._replace(path=path)
    if key is None:
        return unknown("revokedkeys", why.KEY_UNKNOWN, "only the key's fingerprint is known", path=path)
    if _krl_has(content, key) if is_krl else key.blob in [each.blob for each in listed if each]:
        return obstacle("revokedkeys", why.KEY_REVOKED, f"{path} revokes {key.fingerprint}", path=path)
    return passed("revokedkeys", f"{path} does not name the key", path=path)


def _krl_has(content: bytes, key: PublicKey) -> bool:
    """Ssh-keygen reads a binary revocation list, which only it knows."""
    program = command.find("ssh-keygen")
    if program is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    argv = [program, "-Q", "-f", f"{inspector.HERE}/revoked", "/dev/stdin"]
    outcome = inspector.run(argv, files={"revoked": content}, stdin=f"{key.line}\n".encode())
    return b"REVOKED" in outcome.stdout
