"""Machines that are broken for real, each refused by a real sshd: the doctor names what is in the way.

Where the remedy that it prints is a command, that very command is run, and then the login works.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest
from lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.sshd]

OTHER = 4244
"""A uid and gid that is neither alice's nor root's."""


class Broken(NamedTuple):
    """What is broken and how, and what is to be said about it."""

    name: str
    breaks: Callable[[Lab], object]
    obstacles: list[str]
    """The reason codes, in the order in which sshd meets them."""
    path: str | None = None
    """Where the first one is."""
    words: str = ""
    """What the real sshd says when it refuses, or when it does not start."""
    heals: bool = False
    """Whether the first remedy is a command after which the login works."""
    user: str = "alice"
    key: str = "launch"


def config(text: str) -> Callable[[Lab], object]:
    """Before everything else in sshd_config."""
    return lambda lab: lab.prepend_config(text)


def options(text: str) -> Callable[[Lab], object]:
    """Before the key in alice's file."""
    return lambda lab: lab.authorize(f"{text} {lab.key}\n")


def script(*lines: str) -> Callable[[Lab], object]:
    """What somebody typed."""
    return lambda lab: lab.run("sh", "-ec", "\n".join(lines), check=True)


def both(*steps: Callable[[Lab], object]) -> Callable[[Lab], object]:
    """One after the other."""
    return lambda lab: [step(lab) for step in steps]


def without_account(name: str) -> Callable[[Lab], object]:
    """No line of passwd(5) and shadow(5) is that account's."""
    return script(f"sed -i '/^{name}:/d' /etc/passwd /etc/shadow")


def shadow(fields: str) -> Callable[[Lab], object]:
    """Alice has another line in the file of that name."""
    return lambda lab: lab.edit("/etc/shadow", "alice:*:19000:0:99999:7:::", f"alice:{fields}")


def pam(line: str) -> Callable[[Lab], object]:
    """One more rule for sshd."""
    return lambda lab: lab.append("/etc/pam.d/sshd", f"{line}\n")


def rsa(lab: Lab) -> None:
    """An RSA key of the usual size, installed as it should be."""
    argv = [
        "ssh-keygen",
        "-q",
        "-t",
        "rsa",
        "-b",
        "2048",
        "-N",
        "",
        "-f",
        str(lab.directory / "keys" / "rsa"),
    ]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    lab.authorize((lab.directory / "keys" / "rsa.pub").read_text())


def revocation_list(lab: Lab) -> None:
    """A KRL with the key in it."""
    lab.run(
        "ssh-keygen", "-q", "-k", "-f", "/etc/ssh/krl", str(lab.directory / "keys" / "launch.pub"), check=True
    )
    lab.prepend_config("RevokedKeys /etc/ssh/krl")


def root_has_the_key(lab: Lab) -> None:
    """The key is root's too, as it should be."""
    lab.authorize(f"{lab.key}\n", user="root")


def folded(lab: Lab) -> None:
    """What an editor leaves that breaks long lines."""
    lab.authorize(f"{lab.key[:50]}\n{lab.key[50:]}\n")


def unrelated_key(lab: Lab) -> None:
    """Somebody else's key, and not this one."""
    lab.authorize(f"{lab.new_key('other')}\n")


def keys_command(content: str, mode: int) -> Callable[[Lab], object]:
    """A command for keys, and none in files."""

    def breaks(lab: Lab) -> None:
        lab.write("/srv/keys-command", content, mode=mode)
        lab.authorize("")
        lab.prepend_config("AuthorizedKeysCommand /srv/keys-command %u\nAuthorizedKeysCommandUser nobody")

    return breaks


KEYS = "/srv/home/alice/.ssh/authorized_keys"

UNSTARTED = [
    Broken(
        "a keyword that there is not",
        lambda lab: lab.append("/etc/ssh/sshd_config", "PermitRotLogin yes\n"),
        ["sshd-config-invalid", "sshd-not-running"],
        "/etc/ssh/sshd_config:5",
        "Bad configuration option",
    ),
    Broken(
        "a global keyword after a Match block",
        lambda lab: lab.append("/etc/ssh/sshd_config", "Match User bob\nUseDNS no\n"),
        ["sshd-config-invalid", "sshd-not-running"],
        "/etc/ssh/sshd_config:6",
        "not allowed within a Match block",
    ),
    Broken(
        "an empty host key",
        script(": > /etc/ssh/ssh_host_ed25519_key"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "no hostkeys available",
        heals=True,
    ),
    Broken(
        "a host key that everybody can read",
        script("chmod 0644 /etc/ssh/ssh_host_ed25519_key"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "UNPROTECTED PRIVATE KEY FILE",
        heals=True,
    ),
    Broken(
        "no host key",
        script("rm /etc/ssh/ssh_host_*"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "no hostkeys available",
        heals=True,
    ),
    Broken(
        "no directory to drop rights in",
        script("rmdir /run/sshd"),
        ["sshd-not-running"],
        None,
        "Missing privilege separation directory",
        heals=True,
    ),
    Broken(
        "nothing to start with, and not allowed",
        both(script("rmdir /run/sshd", "rm /etc/ssh/ssh_host_*"), config("AllowUsers bob")),
        ["no-host-key", "sshd-not-running", "user-not-allowed"],
        "/etc/ssh/ssh_host_ed25519_key",
        "no hostkeys available",
    ),
    Broken(
        "no account to drop rights to",
        without_account("sshd"),
        ["privsep-missing", "sshd-not-running"],
        None,
        "Privilege separation user sshd does not exist",
    ),
]

REFUSED = [
    # --- who may log in at all
    Broken("no such user", without_account("alice"), ["no-such-user"], "/etc/passwd", "Invalid user alice"),
    Broken(
        "a shell that does not exist",
        script("usermod -s /bin/nosuch alice"),
        ["shell-missing"],
        "/bin/nosuch",
        "shell /bin/nosuch does not exist",
        heals=True,
    ),
    Broken(
        "a shell that nobody can run",
        script("cp /bin/sh /srv/sh", "chmod 0644 /srv/sh", "usermod -s /srv/sh alice"),
        ["shell-missing"],
        "/srv/sh",
        "shell /srv/sh is not executable",
        heals=True,
    ),
    Broken(
        "locked, without PAM",
        both(config("UsePAM no"), shadow("!*:19000:0:99999:7:::")),
        ["account-locked"],
        "/etc/shadow",
        "account is locked",
        heals=True,
    ),
    Broken(
        "expired, without PAM",
        both(config("UsePAM no"), shadow("*:19000:0:99999:7::19001:")),
        ["account-expired"],
        "/etc/shadow",
        "has expired",
        heals=True,
    ),
    Broken(
        "DenyUsers with a wildcard",
        config("DenyUsers bob al?c*"),
        ["user-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
    ),
    Broken(
        "DenyUsers by network",
        config("DenyUsers alice@127.0.0.0/8"),
        ["user-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
    ),
    Broken(
        "AllowUsers without the user",
        config("AllowUsers bob carol"),
        ["user-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "not listed in AllowUsers",
    ),
    Broken(
        "AllowUsers from another network",
        config("AllowUsers alice@10.0.0.0/8"),
        ["user-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "not listed in AllowUsers",
    ),
    Broken(
        "AllowUsers but not from here",
        config("AllowUsers alice@!127.0.0.1,*"),
        ["user-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "not listed in AllowUsers",
    ),
    Broken(
        "DenyGroups",
        config("DenyGroups staff?"),
        ["group-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyGroups",
    ),
    Broken(
        "AllowGroups",
        both(script("groupadd -g 4249 ssh-users"), config("AllowGroups ssh-users")),
        ["group-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "groups are listed in AllowGroups",
        heals=True,
    ),
    Broken(
        "four lists at once",
        config("DenyUsers alice\nAllowUsers bob\nDenyGroups alice\nAllowGroups bin"),
        ["user-denied", "user-not-allowed", "group-denied", "group-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
    ),
    # --- what sshd takes
    Broken(
        "no keys for this user",
        lambda lab: lab.append("/etc/ssh/sshd_config", "Match User alice\nPubkeyAuthentication no\n"),
        ["pubkey-disabled"],
        "/etc/ssh/sshd_config:6",
    ),
    Broken(
        "a key and a password",
        config("AuthenticationMethods publickey,password"),
        ["key-not-enough"],
        "/etc/ssh/sshd_config:1",
        "Partial publickey",
    ),
    Broken(
        "an algorithm that is not taken",
        config("PubkeyAcceptedAlgorithms rsa-sha2-512,ecdsa-*"),
        ["algorithm-refused"],
        "/etc/ssh/sshd_config:1",
        "not in PubkeyAcceptedAlgorithms",
    ),
    Broken(
        "an RSA key that is too small",
        both(rsa, config("RequiredRSASize 3072")),
        ["key-too-small"],
        "/etc/ssh/sshd_config:1",
        "Invalid key length",
        key="rsa",
    ),
    Broken(
        "a revoked key in a list",
        both(
            lambda lab: lab.write("/etc/ssh/revoked", f"# gone\n{lab.key}\n"),
            config("RevokedKeys /etc/ssh/revoked"),
        ),
        ["key-revoked"],
        "/etc/ssh/revoked",
        "revoked by file",
    ),
    Broken("a revoked key in a KRL", revocation_list, ["key-revoked"], "/etc/ssh/krl", "revoked by file"),
    Broken(
        "no list of revoked keys",
        config("RevokedKeys /etc/ssh/nosuch"),
        ["revoked-keys-unreadable"],
        "/etc/ssh/nosuch",
        "in revoked keys file",
    ),
    Broken(
        "a list of revoked keys with rubbish in it",
        both(lambda lab: lab.write("/etc/ssh/revoked", "rubbish\n"), config("RevokedKeys /etc/ssh/revoked")),
        ["revoked-keys-unreadable"],
        "/etc/ssh/revoked",
        "in revoked keys file",
    ),
    # --- the files of keys
    Broken("no file of keys at all", config("AuthorizedKeysFile none"), ["authorized-keys-disabled"]),
    Broken(
        "keys elsewhere, and none there",
        config("AuthorizedKeysFile /srv/keys/%u"),
        ["key-not-installed"],
        "/srv/keys/alice",
    ),
    Broken(
        "everybody can write ~/.ssh",
        script("chmod 0777 /srv/home/alice/.ssh"),
        ["bad-modes"],
        "/srv/home/alice/.ssh",
        "bad ownership or modes for directory /srv/home/alice/.ssh",
        heals=True,
    ),
    Broken(
        "a group of several can write the home",
        script("chgrp staff2 /srv/home/alice", "chmod 0775 /srv/home/alice", "usermod -aG staff2 nobody"),
        ["bad-modes"],
        "/srv/home/alice",
        "bad ownership or modes for directory /srv/home/alice",
        heals=True,
    ),
    Broken(
        "somebody else's file",
        script(f"chown {OTHER} {KEYS}", f"chmod 0644 {KEYS}"),
        ["bad-modes"],
        KEYS,
        f"bad ownership or modes for file {KEYS}",
        heals=True,
    ),
    Broken(
        "three things at once",
        script(
            f"chmod 0666 {KEYS}",
            "chmod 0770 /srv/home/alice/.ssh",
            "chgrp staff2 /srv/home/alice/.ssh",
            f"chown {OTHER} /srv/home/alice",
            "usermod -aG staff2 nobody",
        ),
        ["bad-modes", "bad-modes", "bad-modes"],
        KEYS,
        f"bad ownership or modes for file {KEYS}",
    ),
    Broken(
        "a directory above keys elsewhere",
        both(
            script(
                "mkdir /srv/keys",
                f"cp {KEYS} /srv/keys/alice",
                "chown alice /srv/keys/alice",
                "chmod 1777 /srv/keys",
            ),
            config("AuthorizedKeysFile /srv/keys/%u"),
        ),
        ["bad-modes"],
        "/srv/keys",
        "bad ownership or modes for directory /srv/keys",
        heals=True,
    ),
    Broken(
        "a link to a file in a bad place",
        script("mkdir -m 0777 /srv/bad", f"mv {KEYS} /srv/bad/keys", f"ln -s /srv/bad/keys {KEYS}"),
        ["bad-modes"],
        "/srv/bad",
        "bad ownership or modes for directory /srv/bad",
        heals=True,
    ),
    Broken(
        "a file that only root can read",
        script(f"chown root {KEYS}"),
        ["permission-denied"],
        KEYS,
        "Permission denied",
        heals=True,
    ),
    Broken(
        "a directory that only root can pass",
        script("chown root /srv/home/alice/.ssh"),
        ["permission-denied"],
        "/srv/home/alice/.ssh",
        "Permission denied",
        heals=True,
    ),
    Broken(
        "a directory in place of the file",
        script(f"rm {KEYS}", f"mkdir {KEYS}"),
        ["not-a-regular-file"],
        KEYS,
        "is not a regular file",
    ),
    Broken("a link to nowhere", script(f"ln -sf /srv/nowhere {KEYS}"), ["key-not-installed"], KEYS),
    Broken("no home", script("rm -r /srv/home/alice"), ["home-missing"], "/srv/home/alice"),
    # --- the line
    Broken("another key only", unrelated_key, ["key-not-installed"], KEYS, heals=True),
    Broken("the key as a comment", options("#"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken("two words before the key", options("my key:"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken("a broken line", folded, ["key-options-invalid"], f"{KEYS}:1"),
    Broken("an option that there is not", options("no-sftp"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken("a certificate authority", options("cert-authority"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken(
        "from elsewhere only",
        options('from="10.0.0.0/8,*.example.com"'),
        ["key-not-from-here"],
        f"{KEYS}:1",
        "not from a permitted host",
    ),
    Broken("expired", options('expiry-time="20200101"'), ["key-expired"], f"{KEYS}:1"),
    Broken(
        "a command in place of the shell",
        options('command="echo other"'),
        ["forced-command"],
        f"{KEYS}:1",
        "Accepted publickey",
    ),
    # --- AuthorizedKeysCommand
    Broken(
        "a command for keys that others can write",
        keys_command("#!/bin/sh\n", 0o777),
        ["key-not-installed", "keys-command-failed"],
        KEYS,
        "Unsafe AuthorizedKeysCommand",
    ),
    Broken(
        "a command for keys that fails",
        keys_command("#!/bin/sh\necho broken >&2; exit 3\n", 0o755),
        ["key-not-installed", "keys-command-failed"],
        KEYS,
        "failed, status 3",
    ),
    # --- after the key
    Broken(
        "no root login",
        both(root_has_the_key, config("PermitRootLogin no")),
        ["root-login-refused"],
        "/etc/ssh/sshd_config:1",
        "ROOT LOGIN REFUSED",
        user="root",
    ),
    Broken(
        "root for forced commands only",
        both(root_has_the_key, config("PermitRootLogin forced-commands-only")),
        ["root-login-refused"],
        "/etc/ssh/sshd_config:1",
        "ROOT LOGIN REFUSED",
        user="root",
    ),
    Broken(
        "nologin, with PAM",
        script("echo closed > /etc/nologin"),
        ["logins-closed"],
        "/etc/nologin",
        "Access denied for user alice",
        heals=True,
    ),
    Broken(
        "nologin, without PAM",
        both(config("UsePAM no"), script("echo closed > /etc/nologin")),
        ["logins-closed"],
        "/etc/nologin",
        "Accepted publickey",
        heals=True,
    ),
    Broken(
        "expired, with PAM",
        shadow("*:19000:0:99999:7::19001:"),
        ["account-expired"],
        "/etc/shadow",
        "Access denied for user alice",
        heals=True,
    ),
    Broken(
        "a password to be changed",
        shadow("*:0:0:99999:7:::"),
        ["password-expired"],
        "/etc/shadow",
        "Accepted publickey",
        heals=True,
    ),
    Broken(
        "a password that is too old",
        shadow("*:10000:0:90:7:::"),
        ["password-expired"],
        "/etc/shadow",
        "Accepted publickey",
        heals=True,
    ),
    Broken(
        "pam_access",
        both(pam("account required pam_access.so"), script("echo '-:alice:ALL' > /etc/security/access.conf")),
        ["pam-refuses"],
        "/etc/pam.d/sshd",
        "Access denied for user alice",
    ),
    Broken(
        "pam_listfile",
        both(
            pam("account required pam_listfile.so item=user sense=deny file=/etc/denied onerr=fail"),
            script("echo alice > /etc/denied"),
        ),
        ["pam-refuses"],
        "/etc/pam.d/sshd",
        "Access denied for user alice",
    ),
    Broken(
        "pam_shells",
        both(pam("account required pam_shells.so"), script("echo /bin/other > /etc/shells")),
        ["pam-refuses"],
        "/etc/shells",
        "Access denied for user alice",
        heals=True,
    ),
    Broken(
        "a shell that only says no",
        script("usermod -s $(command -v nologin) alice"),
        ["no-login-shell"],
        "/etc/passwd",
        "Accepted publickey",
        heals=True,
    ),
    Broken(
        "ForceCommand",
        config("ForceCommand echo other"),
        ["forced-command"],
        "/etc/ssh/sshd_config:1",
        "Accepted publickey",
    ),
    Broken(
        "a chroot that is the user's",
        config("ChrootDirectory %h"),
        ["chroot-unsafe"],
        "/srv/home/alice",
        "bad ownership or modes for chroot directory",
    ),
]


def named(cases: list[Broken]) -> list[object]:
    """The cases, each with its name."""
    return [pytest.param(case, id=case.name.replace(" ", "-")) for case in cases]


def diagnose(lab: Lab, case: Broken) -> None:
    """The doctor says what it should, and leaves every byte, mode and time as it was."""
    before = lab.snapshot()
    said = lab.doctor("--user", case.user, key=case.key)
    assert lab.snapshot() == before
    assert (said.obstacles, said.first["path"]) == (case.obstacles, case.path)
    assert (said.status, said.user["verdict"]) == (1, "blocked")
    assert all(finding["remedy"] for finding in said.with_status("obstacle"))
    if case.heals:
        lab.run("sh", "-ec", said.first["remedy"], check=True)


@pytest.mark.parametrize("case", named(UNSTARTED))
@pytest.mark.sample(8)
def test_what_keeps_sshd_from_starting_comes_first(lab: Lab, case: Broken) -> None:
    """Sshd does not start; the doctor says why, and that therefore nothing listens."""
    case.breaks(lab)
    started = lab.run("sh", "-c", "$(command -v sshd) -E /run/sshd.log")
    assert started.status != 0
    assert case.words in lab.sshd_log + started.err
    diagnose(lab, case)
    if case.heals:
        lab.ensure_sshd()
        assert lab.login(user=case.user, key=case.key)


@pytest.mark.parametrize("case", named(REFUSED))
@pytest.mark.sample(15)
def test_what_sshd_refuses_is_named(lab: Lab, case: Broken) -> None:
    """A real login fails with sshd's own words for it; the doctor names the same, first obstacle first."""
    case.breaks(lab)
    is_started = lab.start_sshd()
    if "Bad configuration option" in lab.sshd_log:
        pytest.skip(f"this sshd is too old: {lab.sshd_log}")
    assert is_started
    assert not lab.login(user=case.user, key=case.key)
    assert case.words in lab.sshd_log
    diagnose(lab, case)
    if case.heals:
        assert lab.login(user=case.user, key=case.key)


def test_the_matrix_is_large_enough() -> None:
    """At least 25 broken machines, no two of the same name."""
    names = [case.name for case in (*UNSTARTED, *REFUSED)]
    assert len(set(names)) == len(names) >= 25
