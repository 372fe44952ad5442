"""Machines that are broken for real, each refused by a real sshd: the doctor names what is in the way.

Where the remedy that it prints is a command, that very command is run, and then the login works.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
from lab import ALICE, Diagnosis, Lab
from processes import wait_for

pytestmark = [pytest.mark.root, pytest.mark.sshd]

OTHER = 4244
"""A uid and gid that is neither alice's nor root's."""


class Broken(NamedTuple):
    """What is broken and how, and what is to be said about it."""

    name: str
    breaks: Callable[[Lab], object]
    reasons: list[str]
    """The reason codes, in the order in which sshd meets them."""
    path: str | None = None
    """Where the first one is."""
    words: str = ""
    """What the real sshd says when it refuses, or when it does not start."""
    person: bool = False
    """Whether there is no command that removes it, since a person has to decide; else, all are pasted."""
    sshd: tuple[str, ...] = ()
    """With which options sshd is started."""
    later: Callable[[Lab], object] = lambda lab: None
    """What happens once sshd runs."""
    verdict: str = "blocked"
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
        person=True,
    ),
    Broken(
        "a global keyword after a Match block",
        lambda lab: lab.append("/etc/ssh/sshd_config", "Match User bob\nUseDNS no\n"),
        ["sshd-config-invalid", "sshd-not-running"],
        "/etc/ssh/sshd_config:6",
        "not allowed within a Match block",
        person=True,
    ),
    Broken(
        "an empty host key",
        script(": > /etc/ssh/ssh_host_ed25519_key"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "no hostkeys available",
    ),
    Broken(
        "a host key that everybody can read",
        script("chmod 0644 /etc/ssh/ssh_host_ed25519_key"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "UNPROTECTED PRIVATE KEY FILE",
    ),
    Broken(
        "no host key",
        script("rm /etc/ssh/ssh_host_*"),
        ["no-host-key", "sshd-not-running"],
        "/etc/ssh/ssh_host_ed25519_key",
        "no hostkeys available",
    ),
    Broken(
        "no directory to drop rights in",
        script("rmdir /run/sshd"),
        ["privsep-missing", "sshd-not-running"],
        None,
        "Missing privilege separation directory",
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
    Broken(
        "no such user",
        without_account("alice"),
        ["no-such-user"],
        "/etc/passwd",
        "Invalid user alice",
        person=True,
    ),
    Broken(
        "a shell that does not exist",
        script("usermod -s /bin/nosuch alice"),
        ["shell-missing"],
        "/bin/nosuch",
        "shell /bin/nosuch does not exist",
    ),
    Broken(
        "a shell that nobody can run",
        script("cp /bin/sh /srv/sh", "chmod 0644 /srv/sh", "usermod -s /srv/sh alice"),
        ["shell-missing"],
        "/srv/sh",
        "shell /srv/sh is not executable",
    ),
    Broken(
        "locked, without PAM",
        both(config("UsePAM no"), shadow("!*:19000:0:99999:7:::")),
        ["account-locked"],
        "/etc/shadow",
        "account is locked",
    ),
    Broken(
        "expired, without PAM",
        both(config("UsePAM no"), shadow("*:19000:0:99999:7::19001:")),
        ["account-expired"],
        "/etc/shadow",
        "has expired",
    ),
    Broken(
        "DenyUsers with a wildcard",
        config("DenyUsers bob al?c*"),
        ["user-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
        person=True,
    ),
    Broken(
        "DenyUsers by network",
        config("DenyUsers alice@127.0.0.0/8"),
        ["user-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
        person=True,
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
        person=True,
    ),
    Broken(
        "AllowUsers but not from here",
        config("AllowUsers alice@!127.0.0.1,*"),
        ["user-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "not listed in AllowUsers",
        person=True,
    ),
    Broken(
        "DenyGroups",
        config("DenyGroups staff?"),
        ["group-denied"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyGroups",
        person=True,
    ),
    Broken(
        "AllowGroups",
        both(script("groupadd -g 4249 ssh-users"), config("AllowGroups ssh-users")),
        ["group-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "groups are listed in AllowGroups",
    ),
    Broken(
        "four lists at once",
        config("DenyUsers alice\nAllowUsers bob\nDenyGroups alice\nAllowGroups bin"),
        ["user-denied", "user-not-allowed", "group-denied", "group-not-allowed"],
        "/etc/ssh/sshd_config:1",
        "listed in DenyUsers",
        person=True,
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
        person=True,
    ),
    Broken(
        "an algorithm that is not taken",
        config("PubkeyAcceptedAlgorithms rsa-sha2-512,ecdsa-*"),
        ["algorithm-refused"],
        "/etc/ssh/sshd_config:1",
        "not in PubkeyAcceptedAlgorithms",
        person=True,
    ),
    Broken(
        "an RSA key that is too small",
        both(rsa, config("RequiredRSASize 3072")),
        ["key-too-small"],
        "/etc/ssh/sshd_config:1",
        "Invalid key length",
        key="rsa",
        person=True,
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
        person=True,
    ),
    Broken(
        "a revoked key in a KRL",
        revocation_list,
        ["key-revoked"],
        "/etc/ssh/krl",
        "revoked by file",
        person=True,
    ),
    Broken(
        "no list of revoked keys",
        config("RevokedKeys /etc/ssh/nosuch"),
        ["revoked-keys-unreadable"],
        "/etc/ssh/nosuch",
        "in revoked keys file",
        person=True,
    ),
    Broken(
        "a list of revoked keys with rubbish in it",
        both(lambda lab: lab.write("/etc/ssh/revoked", "rubbish\n"), config("RevokedKeys /etc/ssh/revoked")),
        ["revoked-keys-unreadable"],
        "/etc/ssh/revoked",
        "in revoked keys file",
        person=True,
    ),
    # --- the files of keys
    Broken(
        "no file of keys at all",
        config("AuthorizedKeysFile none"),
        ["authorized-keys-disabled"],
        "/etc/ssh/sshd_config:1",
    ),
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
    ),
    Broken(
        "a group of several can write the home",
        script("chgrp staff2 /srv/home/alice", "chmod 0775 /srv/home/alice", "usermod -aG staff2 nobody"),
        ["bad-modes"],
        "/srv/home/alice",
        "bad ownership or modes for directory /srv/home/alice",
    ),
    Broken(
        "somebody else's file",
        script(f"chown {OTHER} {KEYS}", f"chmod 0644 {KEYS}"),
        ["bad-modes"],
        KEYS,
        f"bad ownership or modes for file {KEYS}",
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
    ),
    Broken(
        "a link to a file in a bad place",
        script("mkdir -m 0777 /srv/bad", f"mv {KEYS} /srv/bad/keys", f"ln -s /srv/bad/keys {KEYS}"),
        ["bad-modes"],
        "/srv/bad",
        "bad ownership or modes for directory /srv/bad",
    ),
    Broken(
        "a file that only root can read",
        script(f"chown root {KEYS}"),
        ["permission-denied"],
        KEYS,
        "Permission denied",
    ),
    Broken(
        "a directory that only root can pass",
        script("chown root /srv/home/alice/.ssh"),
        ["permission-denied"],
        "/srv/home/alice/.ssh",
        "Permission denied",
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
    Broken("another key only", unrelated_key, ["key-not-installed"], KEYS),
    Broken("the key as a comment", options("#"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken("two words before the key", options("my key:"), ["key-options-invalid"], f"{KEYS}:1"),
    Broken("a broken line", folded, ["key-options-invalid"], f"{KEYS}:1"),
    Broken(
        "an option that there is not", options("no-sftp"), ["key-options-invalid"], f"{KEYS}:1", person=True
    ),
    Broken(
        "a certificate authority",
        options("cert-authority"),
        ["key-options-invalid"],
        f"{KEYS}:1",
        person=True,
    ),
    Broken(
        "from elsewhere only",
        options('from="10.0.0.0/8,*.example.com"'),
        ["key-not-from-here"],
        f"{KEYS}:1",
        "not from a permitted host",
        person=True,
    ),
    Broken("expired", options('expiry-time="20200101"'), ["key-expired"], f"{KEYS}:1", person=True),
    Broken(
        "a command in place of the shell",
        options('command="echo other"'),
        ["forced-command"],
        f"{KEYS}:1",
        "Accepted publickey",
        person=True,
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
        person=True,
    ),
    Broken(
        "root for forced commands only",
        both(root_has_the_key, config("PermitRootLogin forced-commands-only")),
        ["root-login-refused"],
        "/etc/ssh/sshd_config:1",
        "ROOT LOGIN REFUSED",
        user="root",
        person=True,
    ),
    Broken(
        "nologin, with PAM",
        script("echo closed > /etc/nologin"),
        ["logins-closed"],
        "/etc/nologin",
        "Access denied for user alice",
    ),
    Broken(
        "nologin, without PAM",
        both(config("UsePAM no"), script("echo closed > /etc/nologin")),
        ["logins-closed"],
        "/etc/nologin",
        "Accepted publickey",
    ),
    Broken(
        "expired, with PAM",
        shadow("*:19000:0:99999:7::19001:"),
        ["account-expired"],
        "/etc/shadow",
        "Access denied for user alice",
    ),
    Broken(
        "a password to be changed",
        shadow("*:0:0:99999:7:::"),
        ["password-expired"],
        "/etc/shadow",
        "Accepted publickey",
    ),
    Broken(
        "a password that is too old",
        shadow("*:10000:0:90:7:::"),
        ["password-expired"],
        "/etc/shadow",
        "Accepted publickey",
    ),
    Broken(
        "pam_access",
        both(pam("account required pam_access.so"), script("echo '-:alice:ALL' > /etc/security/access.conf")),
        ["pam-refuses"],
        "/etc/pam.d/sshd:6",
        "Access denied for user alice",
        person=True,
    ),
    Broken(
        "pam_listfile",
        both(
            pam("account required pam_listfile.so item=user sense=deny file=/etc/denied onerr=fail"),
            script("echo alice > /etc/denied"),
        ),
        ["pam-refuses"],
        "/etc/pam.d/sshd:6",
        "Access denied for user alice",
        person=True,
    ),
    Broken(
        "pam_shells",
        both(pam("account required pam_shells.so"), script("echo /bin/other > /etc/shells")),
        ["pam-refuses"],
        "/etc/shells",
        "Access denied for user alice",
    ),
    Broken(
        "a shell that only says no",
        script("usermod -s $(command -v nologin) alice"),
        ["no-login-shell"],
        "/etc/passwd",
        "Accepted publickey",
    ),
    Broken(
        "ForceCommand",
        config("ForceCommand echo other"),
        ["forced-command"],
        "/etc/ssh/sshd_config:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a command before the same key without one",
        lambda lab: lab.authorize(f'command="exit 1" {lab.key}\n{lab.key}\n'),
        ["forced-command"],
        f"{KEYS}:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a command in the first of two files",
        both(script(f"cp -p {KEYS} {KEYS}2"), lambda lab: lab.authorize(f'command="exit 1" {lab.key}\n')),
        ["forced-command"],
        f"{KEYS}:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a directory in place of the revoked keys",
        both(script("mkdir /etc/ssh/revoked"), config("RevokedKeys /etc/ssh/revoked")),
        ["not-a-regular-file"],
        "/etc/ssh/revoked",
        "revoked",
        person=True,
    ),
    Broken(
        "a password instead of the key",
        config("AuthenticationMethods password"),
        ["key-not-enough"],
        "/etc/ssh/sshd_config:1",
        person=True,
    ),
    Broken(
        "a chroot that is the user's",
        config("ChrootDirectory %h"),
        ["chroot-unsafe"],
        "/srv/home/alice",
        "bad ownership or modes for chroot directory",
        person=True,
    ),
]


def profile(text: str, name: str = ".profile") -> Callable[[Lab], object]:
    """One of alice's start-up files."""
    return lambda lab: lab.write(f"{lab.home}/{name}", text, owner=ALICE)


def shell(text: str, mode: int = 0o755) -> Callable[[Lab], object]:
    """Alice has a shell of her own."""
    return both(lambda lab: lab.write("/srv/shell", text, mode=mode), script("usermod -s /srv/shell alice"))


def limits(lines: str) -> Callable[[Lab], object]:
    """PAM sets limits, and these are the first."""
    return both(
        pam("session required pam_limits.so"),
        lambda lab: lab.write("/etc/security/limits.conf", f"{lines}\n"),
        script("rm -rf /etc/security/limits.d"),
    )


def sessions_of_others(lab: Lab) -> None:
    """Alice has as many sessions as she may (utmp(5)), and one more than that."""
    modules = Path("/usr/lib").glob("**/security/pam_limits.so")
    if not any(b"getutent" in module.read_bytes() for module in modules):
        pytest.skip("this pam_limits counts the sessions of logind")
    limits("alice hard maxlogins 1")(lab)
    record = struct.Struct("hi32s4s32s308x")
    lab.write("/run/utmp", b"".join(record.pack(7, 1, b"tty", b"%d" % n, b"alice") for n in range(2)))


def mounted(*options: str, unlisted: bool = True) -> Callable[[Lab], object]:
    """Alice's home is a file system of its own, without the key; then it becomes what the lines say."""
    return script(
        "cp -a /srv/home/alice /srv/alice",
        "mount -t tmpfs -o size=64k,mode=0755 tmpfs /srv/home/alice",
        "cp -a /srv/alice/. /srv/home/alice",
        "chown alice: /srv/home/alice",
        *([f"rm {KEYS}"] if unlisted else []),
        *options,
    )


def old_rsa(lab: Lab) -> None:
    """An RSA key where only the old kind of signature is taken."""
    rsa(lab)
    lab.prepend_config("PubkeyAcceptedAlgorithms ssh-rsa")


def rsa_host_key(lab: Lab) -> None:
    """Only an RSA host key, and only the old kind of signature for it."""
    if re.search("(?m)^hostkeyalgorithms .*,ssh-rsa(,|$)", lab.run("ssh", "-F", "none", "-G", "x").out):
        pytest.skip("this ssh still takes it: OpenSSH 8.8 is the first that does not")
    lab.run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "/etc/ssh/rsa", check=True)
    lab.edit("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key", "HostKey /etc/ssh/rsa")
    lab.prepend_config("HostKeyAlgorithms ssh-rsa")


SESSIONS = [
    # --- PAM's account rules
    Broken(
        "not at this time",
        both(
            pam("account required pam_time.so"),
            script("echo '*;*;alice;!Al0000-2400' > /etc/security/time.conf"),
        ),
        ["pam-refuses"],
        "/etc/pam.d/sshd:6",
        "Access denied for user alice",
        person=True,
    ),
    Broken(
        "only system users",
        pam("account required pam_succeed_if.so quiet uid < 100"),
        ["pam-refuses"],
        "/etc/pam.d/sshd:6",
        "Access denied for user alice",
        person=True,
    ),
    Broken(
        "closed while it boots",
        script("echo booting > /run/nologin"),
        ["logins-closed"],
        "/run/nologin",
        "Access denied for user alice",
    ),
    Broken(
        "a module that this release has no more",
        pam("account required pam_tally2.so"),
        ["pam-refuses"],
        "/etc/pam.d/sshd:6",
        "Access denied for user alice",
        person=True,
    ),
    Broken(
        "rules in a file that is not there",
        pam("@include nosuch"),
        ["pam-refuses", "session-ends"],
        "/etc/pam.d/sshd:6",
        "initialisation failed",
        person=True,
    ),
    # --- PAM's session rules
    Broken(
        "a rule in capitals",
        pam("Session Required pam_deny.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "an action that PAM does not know",
        pam("session [success=okay default=ignore] pam_permit.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "a module by half of its name",
        pam("session required pam_permit"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "a control that PAM does not know",
        pam("session requird pam_permit.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "a module that is not installed, of which nothing is to be logged",
        pam("-session required pam_oddjob_mkhomedir.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "no sessions at all",
        pam("session required pam_deny.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "no sessions, by an included file",
        both(
            pam("@include of-mine"),
            lambda lab: lab.write("/etc/pam.d/of-mine", "# mine\nsession requisite pam_deny.so\n"),
        ),
        ["session-ends"],
        "/etc/pam.d/of-mine:2",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "a program that lets no session begin",
        pam("session required pam_exec.so /bin/false"),
        ["pam-unknown"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
        verdict="unsure",
    ),
    Broken(
        "a module that is not installed",
        pam("session required pam_oddjob_mkhomedir.so"),
        ["session-ends"],
        "/etc/pam.d/sshd:6",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "no logins by limits.conf",
        limits("alice - maxlogins 0"),
        ["session-limit"],
        "/etc/security/limits.conf:1",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "as many logins as there may be",
        sessions_of_others,
        ["session-limit"],
        "/etc/security/limits.conf:1",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "no logins for a group",
        limits("@staff2 hard maxlogins 0"),
        ["session-limit"],
        "/etc/security/limits.conf:1",
        "pam_open_session",
        person=True,
    ),
    Broken(
        "no processes",
        limits("alice - nofile 1024\nalice hard nproc 0"),
        ["session-limit"],
        "/etc/security/limits.conf:2",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "too little memory for a shell",
        limits("* - as 300"),
        ["session-limit"],
        "/etc/security/limits.conf:1",
        "Accepted publickey",
        person=True,
    ),
    # --- sshd's own limits
    Broken(
        "no session for a connection",
        config("MaxSessions 0"),
        ["session-limit"],
        "/etc/ssh/sshd_config:1",
        "Accepted publickey",
    ),
    Broken(
        "no attempt for a connection",
        config("MaxAuthTries 0"),
        ["session-limit"],
        "/etc/ssh/sshd_config:1",
        "maximum authentication attempts exceeded",
    ),
    # --- shells and their start-up files
    Broken(
        "a start-up file that exits",
        profile("umask 022\nexit 1\n"),
        ["session-ends"],
        "/srv/home/alice/.profile:2",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a start-up file for all that exits",
        lambda lab: lab.write("/etc/profile", "exit 0\n"),
        ["session-ends"],
        "/etc/profile:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a start-up file that becomes another program",
        both(profile("exec /bin/true\n", ".bash_profile"), script("usermod -s /bin/bash alice")),
        ["session-ends"],
        "/srv/home/alice/.bash_profile:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a start-up file that kills its shell",
        profile("kill -9 $$\n"),
        ["session-ends"],
        "/srv/home/alice/.profile:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a start-up file that sends commands away",
        both(
            profile("case $- in *i*) ;; *) exit 3 ;; esac\n", ".bashrc"), script("usermod -s /bin/bash alice")
        ),
        ["session-unknown"],
        "/srv/home/alice/.bashrc:1",
        "Accepted publickey",
        person=True,
        verdict="unsure",
    ),
    Broken(
        "a start-up file that exits by a program's word",
        profile("if ! false; then\n    exit 1\nfi\n"),
        ["session-unknown"],
        "/srv/home/alice/.profile:2",
        "Accepted publickey",
        person=True,
        verdict="unsure",
    ),
    Broken(
        "a shell without its interpreter",
        shell("#!/usr/bin/nosuch\n"),
        ["shell-missing"],
        "/srv/shell",
        "Accepted publickey",
    ),
    Broken(
        "a shell for root alone",
        shell('#!/bin/sh\nexec /bin/sh "$@"\n', 0o700),
        ["shell-missing"],
        "/srv/shell",
        "Accepted publickey",
    ),
    Broken(
        "a shell where no program may be",
        script(
            "mkdir /srv/shells",
            "mount -t tmpfs -o noexec tmpfs /srv/shells",
            "cp /bin/sh /srv/shells/sh",
            "usermod -s /srv/shells/sh alice",
        ),
        ["shell-missing"],
        "/srv/shells/sh",
        "Accepted publickey",
    ),
    Broken(
        "a shell that has a menu",
        shell("#!/bin/sh\necho 'choose: '\nread answer\n"),
        ["session-unknown"],
        None,
        "Accepted publickey",
        person=True,
        verdict="unsure",
    ),
    Broken(
        "a chroot without a shell",
        both(script("mkdir -p /srv/jail/dev"), config("ChrootDirectory /srv/jail")),
        ["chroot-unsafe"],
        "/etc/ssh/sshd_config:1",
        "Accepted publickey",
        person=True,
    ),
    Broken(
        "a chroot with a shell and no library",
        both(
            script("mkdir -p /srv/jail/bin", "cp -L /bin/sh /srv/jail/bin"),
            config("ChrootDirectory /srv/jail"),
        ),
        ["chroot-unsafe"],
        "/etc/ssh/sshd_config:1",
        "Accepted publickey",
        person=True,
    ),
    # --- a running sshd that goes by something else than its files
    Broken(
        "a line that was taken out and is still in force",
        config("DenyUsers alice"),
        ["sshd-disagrees"],
        None,
        "listed in DenyUsers",
        later=lambda lab: lab.edit("/etc/ssh/sshd_config", "DenyUsers alice", ""),
    ),
    Broken(
        "an option on the command line",
        lambda lab: None,
        ["sshd-disagrees"],
        None,
        "listed in DenyUsers",
        sshd=("-o", "DenyUsers=alice"),
        person=True,
    ),
    Broken(
        "another file on the command line",
        both(
            script("cp /etc/ssh/sshd_config /etc/ssh/other"),
            lambda lab: lab.append("/etc/ssh/other", "AllowUsers bob\n"),
        ),
        ["sshd-disagrees"],
        None,
        "not listed in AllowUsers",
        sshd=("-f", "/etc/ssh/other"),
        person=True,
    ),
    Broken(
        "another port on the command line",
        lambda lab: None,
        ["sshd-not-running"],
        None,
        "listening on 127.0.0.1 port 2222",
        sshd=("-o", "ListenAddress=127.0.0.1:2222"),
    ),
    Broken(
        "a command that was taken out and is still in force",
        config("ForceCommand echo other"),
        ["sshd-unread"],
        "/etc/ssh/sshd_config",
        "Accepted publickey",
        later=lambda lab: lab.edit("/etc/ssh/sshd_config", "ForceCommand echo other", ""),
        verdict="unsure",
    ),
    Broken(
        "the directory to drop rights in is gone",
        lambda lab: None,
        ["privsep-missing", "sshd-silent"],
        None,
        later=script("rmdir /run/sshd"),
    ),
    # --- algorithms
    Broken(
        "signatures that no client makes any more",
        old_rsa,
        ["algorithm-refused"],
        "/etc/ssh/sshd_config:1",
        key="rsa",
        person=True,
    ),
    Broken(
        "no key exchange in common",
        config("KexAlgorithms diffie-hellman-group1-sha1"),
        ["algorithms-differ"],
        "/etc/ssh/sshd_config:1",
        person=True,
    ),
    Broken(
        "no cipher in common",
        config("Ciphers aes128-cbc"),
        ["algorithms-differ"],
        "/etc/ssh/sshd_config:1",
        person=True,
    ),
    Broken(
        "no kind of host key in common",
        rsa_host_key,
        ["algorithms-differ"],
        "/etc/ssh/sshd_config:1",
        person=True,
    ),
    # --- files that cannot be written
    Broken(
        "a home that is read-only",
        mounted("mount -o remount,ro /srv/home/alice"),
        ["key-not-installed"],
        KEYS,
    ),
    Broken(
        "a home that is bound read-only",
        both(
            script(f"rm {KEYS}"),
            script(
                "mount --bind /srv/home/alice /srv/home/alice",
                "mount -o remount,bind,ro /srv/home/alice",
            ),
        ),
        ["key-not-installed"],
        KEYS,
    ),
    Broken(
        "a home that is full",
        mounted("cat /dev/zero > /srv/home/alice/zeros || true"),
        ["key-not-installed"],
        KEYS,
        person=True,
    ),
    Broken(
        "a file that is immutable",
        mounted(f": > {KEYS}", f"chown alice: {KEYS}", f"chattr +i {KEYS}"),
        ["key-not-installed"],
        KEYS,
    ),
    Broken(
        "a directory that is immutable",
        mounted("chattr +i /srv/home/alice/.ssh"),
        ["key-not-installed"],
        KEYS,
    ),
    Broken(
        "wrong modes on what is read-only",
        mounted("chmod 0777 /srv/home/alice/.ssh", "mount -o remount,ro /srv/home/alice", unlisted=False),
        ["bad-modes"],
        "/srv/home/alice/.ssh",
        "bad ownership or modes for directory",
    ),
    Broken(
        "wrong modes on what is immutable",
        mounted(f"chmod 0666 {KEYS}", f"chattr +i {KEYS}", unlisted=False),
        ["bad-modes"],
        KEYS,
        "bad ownership or modes for file",
    ),
    Broken(
        "a file that is mounted, without the key",
        script(": > /srv/keys", "chown alice: /srv/keys", f"mount --bind /srv/keys {KEYS}"),
        ["key-not-installed"],
        KEYS,
    ),
]


def named(cases: list[Broken]) -> list[object]:
    """The cases, each with its name."""
    return [pytest.param(case, id=case.name.replace(" ", "-")) for case in cases]


ROUNDS = 6
"""How often the doctor is asked again; three obstacles are the most that a machine here has."""


def ask(lab: Lab, case: Broken) -> Diagnosis:
    """The doctor leaves every byte, mode and time as it was."""
    before = lab.snapshot()
    said = lab.doctor("--user", case.user, key=case.key)
    assert lab.snapshot() == before
    return said


def diagnose(lab: Lab, case: Broken) -> None:
    """The doctor says what it should; then what it prints is pasted, one remedy after the other."""
    # OpenSSH 10.0 speaks before it drops its rights, 9.2 and 10.6 do not.
    reasons = [reason for reason in case.reasons if reason != "sshd-silent" or not lab.speaks()]
    said = ask(lab, case)
    status = "obstacle" if case.verdict == "blocked" else "unknown"
    first = said.with_status(status)[0]
    assert (said.obstacles or said.unknowns, first["path"]) == (reasons, case.path), said.report
    assert (said.status, said.user["verdict"]) == (1, case.verdict)
    for _ in range(ROUNDS):
        if said.user["verdict"] == "open" or not first["is_command"]:
            break
        with lab.reloaded() if "kill -HUP" in first["remedy"] else nullcontext():
            lab.run("sh", "-ec", first["remedy"], check=True)
        said = ask(lab, case)
        first = next(iter([*said.with_status("obstacle"), *said.with_status("unknown")]), first)
    if case.person:
        assert said.user["verdict"] == case.verdict
        assert not first["is_command"]
        assert first["remedy"]
        assert first["line"] or not re.search(r":[0-9]+$", first["path"] or "")
    else:
        assert (said.status, said.user["verdict"]) == (0, "open"), said.report


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", named(UNSTARTED))
def test_what_keeps_sshd_from_starting_comes_first(lab: Lab, case: Broken) -> None:
    """Sshd does not start; the doctor says why, and that therefore nothing listens."""
    case.breaks(lab)
    started = lab.run("sh", "-c", "$(command -v sshd) -E /run/sshd.log")
    assert started.status != 0
    assert case.words in lab.sshd_log + started.err
    diagnose(lab, case)
    if not case.person:
        assert lab.works(user=case.user, key=case.key)


@pytest.mark.parametrize("case", named([*REFUSED, *SESSIONS]))
@pytest.mark.sample(51)
def test_what_keeps_a_login_out_is_named(lab: Lab, case: Broken) -> None:
    """A real login fails with sshd's own words for it; the doctor names the same, first obstacle first.

    What it prints as a command is pasted, and then the login works.
    """
    case.breaks(lab)
    is_started = lab.start_sshd(*case.sshd)
    if "Bad configuration option" in lab.sshd_log:
        pytest.skip(f"this sshd is too old: {lab.sshd_log}")
    assert is_started
    case.later(lab)
    assert not lab.works(user=case.user, key=case.key)
    # The client may be gone before sshd has written why.
    wait_for(lambda: case.words in lab.sshd_log, "sshd's own words")
    diagnose(lab, case)
    if not case.person:
        assert lab.works(user=case.user, key=case.key)


def test_the_matrix_is_large_enough() -> None:
    """At least 60 broken machines, no two of the same name."""
    names = [case.name for case in (*UNSTARTED, *REFUSED, *SESSIONS)]
    assert len(set(names)) == len(names) >= 60
