"""Targets: the accounts of a system, what sshd prints, and firstkey's own configuration."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

from fuzz_oracle import SEPARATOR, Scratch, Target, or_refused, parts, shown

from firstkey import config
from firstkey.boot import host_keys
from firstkey.cli.config import Effective, describe
from firstkey.config import Source
from firstkey.image import shadow as image_shadow
from firstkey.model import Account
from firstkey.settings import SECTIONS
from firstkey.ssh import access, restrictions, sshd_config
from firstkey.system import shadow, sshd_tree
from firstkey.system.accounts import Accounts

DAY = 86400.0


# --- accounts -------------------------------------------------------------------------------------


def check_accounts(data: bytes) -> None:
    """Whom firstkey finds, libc finds too, with the same numbers and home; shadow(5) answers for anybody."""
    passwd, group, secret = parts(data, 3)
    tree: Any = Scratch({"/etc/passwd": passwd, "/etc/group": group, "/etc/shadow": secret})
    accounts = Accounts(tree)
    theirs = [account._replace(shell="") for account in _libc_accounts(passwd)]
    for account in accounts.all():
        assert account._replace(shell="") in theirs, account
        found = accounts.find(account.name)
        assert found
        assert accounts.group_ids(found)[0] == found.gid
        assert all(0 <= number < 2**32 - 1 for number in accounts.group_ids(found))
        accounts.group_names(found)
        accounts.has_group_alone(found, found.gid)
    names = {line.split(b":")[0].decode("utf-8", "surrogateescape") for line in secret.split(b"\n")}
    for name in sorted(names)[:8]:
        _check_shadow(tree, name, secret)


def _check_shadow(tree: Any, name: str, secret: bytes) -> None:
    line = or_refused(lambda: shadow.of(tree, name))
    if line:
        line.has_expired(20000 * DAY)
        line.wants_new_password(20000 * DAY)
    if any(entry.name == name for entry in shadow.entries(secret)):
        locked = or_refused(lambda: image_shadow.locked(secret, name, "!"))
        assert locked
        assert len(locked) == len(secret) + 1
    list(image_shadow.broken(image_shadow.SHADOW, secret))
    image_shadow.masked(secret)


class _Entry(ctypes.Structure):
    """struct passwd (pwd.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


def _libc_accounts(content: bytes) -> Iterator[Account]:
    """What fgetpwent(3) reads out of the file."""
    if not content:
        return
    libc = ctypes.CDLL(None)
    libc.fmemopen.restype = ctypes.c_void_p
    libc.fmemopen.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.fgetpwent.restype = ctypes.POINTER(_Entry)
    libc.fgetpwent.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
    stream = libc.fmemopen(content, len(content), b"r")
    while entry := libc.fgetpwent(stream):
        each = entry.contents
        name, home, shell = (os.fsdecode(text or b"") for text in (each.name, each.home, each.shell))
        yield Account(name, each.uid, each.gid, home, shell)
    libc.fclose(stream)


# --- sshd -----------------------------------------------------------------------------------------

LOGIN = Account("deploy", 1000, 1000, "/home/deploy", "/bin/sh")


def check_sshd(data: bytes) -> None:
    """What sshd prints is kept as it is, each pattern becomes one path, and any configuration is read."""
    printed, content = parts(data, 2)
    effective = sshd_config.parse(printed.decode("utf-8", "surrogateescape"))
    rendered = "\n".join(f"{name} {value}" for name, each in effective.settings.items() for value in each)
    assert sshd_config.parse(rendered) == effective
    patterns = effective.authorized_keys_files
    for pattern in patterns:
        path = or_refused(lambda pattern=pattern: sshd_config.expand(pattern, LOGIN))  # type: ignore[misc]
        assert path is None or path.startswith("/")
        sshd_config.is_shared(pattern)
    for file in effective.host_keys:
        host_keys.kind_of(file)
    _ = (
        restrictions.strict_modes(effective),
        restrictions.permit_root_login(effective),
        restrictions.use_pam(effective),
    )
    _check_configuration_of_sshd(content)


def _check_configuration_of_sshd(content: bytes) -> None:
    for client in sshd_tree.connections([content]):
        assert client.count("=") >= 4
    lines = [sshd_tree.without_groups(raw, lambda patterns: ["a", "b"]) for raw in content.split(b"\n")]
    without = b"\n".join(lines)
    assert without.count(b"\n") == content.count(b"\n")
    assert sshd_config.has_blocks([without]) == sshd_config.has_blocks([content])
    for _, line in sshd_config.lines(content):
        for value in line.words:
            access.any_matches(["root", "deploy"], value)


# --- configuration --------------------------------------------------------------------------------


def check_configuration(data: bytes) -> None:
    """There is a configuration, whatever is in the files; written down again it is the same."""
    sources = [Source(f"/{number}", text) for number, text in enumerate(data.split(SEPARATOR)[:4])]
    read = config.read(sources)
    assert read.keys.users
    for warning in read.warnings:
        shown(str(warning))
    rows = describe(read)
    again = config.read([Source("/again", _written(rows))])
    assert [row[:3] for row in describe(again)] == [row[:3] for row in rows]


def _written(rows: list[Effective]) -> bytes:
    """The settings as a file. Root cannot be created, so that line would be a warning and nothing else."""
    lines = []
    for row in rows:
        kind = row.section.partition(" ")[0]
        assert row.key in SECTIONS[kind]
        lines += [f"[{row.section}]", f"{row.key}={row.value}"]
    return "\n".join(lines).encode()


ACCOUNT_WORDS = (
    b":x:0:0:root:/root:/bin/sh\n", b":*:19000:0:99999:7:::\n", b":x:100:deploy\n", b"deploy", SEPARATOR,
    b"4294967295", b"+", b"-", b"#", b"/home/deploy", b"\0", b"::", b"!", b"9" * 40,
)  # fmt: skip
SSHD_WORDS = (
    b"authorizedkeysfile ", b"hostkey ", b"strictmodes no\n", b"%h/", b"%u", b"%U", b"%%", b"none", SEPARATOR,
    b"Match ", b"User ", b"Group ", b"Address 10.0.0.0/8", b"LocalPort ", b"Include ", b'"', b"'", b"\\'",
    b'\\"', b"\\\\", b"#", b"!", b"*", b"?", b"fe80::/10", b"AuthorizedKeysFile=",
    b"/etc/ssh/ssh_host_rsa_key",
)  # fmt: skip
CONFIGURATION_WORDS = (
    b"[IMDS]\n", b"[Keys]\n", b"[HostKeys]\n", b"[User deploy]\n", b"[User root]\n",
    b"[Image]\n",
    b"Users=", b"Endpoints=http://[fd00:ec2::254]:80\n", b"BootTimeoutSec=1h 30min\n", b"TokenTTLSec=1e9\n",
    b"Types=auto\n", b"Create=yes\n", b"Sudo=ALL=(ALL) NOPASSWD: ALL\n", b"AuthorizedKeysFile=~/x\n", b"\\\n",
    b"# ", b"; ", SEPARATOR, b"\xef\xbb\xbf", b"=", b"Description=", b"\xc2\x85", b"\xe2\x80\xae",
)  # fmt: skip

TARGETS = {
    "accounts": Target(check_accounts, ACCOUNT_WORDS),
    "sshd": Target(check_sshd, SSHD_WORDS),
    "configuration": Target(check_configuration, CONFIGURATION_WORDS),
}
