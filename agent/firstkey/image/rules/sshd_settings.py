"""G2 and G7, and AWS Marketplace's wishes: what sshd's settings must say, as sshd itself resolves them."""

from __future__ import annotations

from collections.abc import Iterator

from firstkey.image.changes import SetSshd
from firstkey.image.rule import Rule, advisory
from firstkey.image.sshd import PERMIT_ROOT_LOGIN, USE_DNS, Setting
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NO_SERVER, NOTE, Finding, Part, not_looked_at
from firstkey.ssh import restrictions
from firstkey.ssh.sshd_config import Effective

CONFIG = "/etc/ssh/sshd_config"
DROPBEAR = ("/usr/sbin/dropbear", "/usr/bin/dropbear")
"""The other server that takes passwords; tinysshd takes none."""


def _finding(image: Image, setting: Setting, reason: str) -> Finding:
    """That it is not as it should be; an option that sshd is started with is for a person to change."""
    place = image.sshd.place_of(setting.keyword)
    remedy = ""
    if place != image.sshd.main_file:
        remedy = f"Take {setting.keyword} out of the options that sshd is started with there"
    return Finding(place, reason, remedy, changes=(SetSshd(setting.keyword, setting.value),))


def _check_root(image: Image) -> Iterator[Part]:
    yield from _servers(image)
    answers = _answers(image)
    bad = [client for client, effective in answers.items() if not PERMIT_ROOT_LOGIN.holds(effective)]
    if bad:
        whom = "every client" if len(bad) == len(answers) else f"a client with {bad[0]}"
        reason = f"sshd lets root log in with a password (PermitRootLogin yes is effective for {whom})."
        yield _finding(image, PERMIT_ROOT_LOGIN, reason)


def _servers(image: Image) -> Iterator[Part]:
    """Who is not asked: another server, clients beyond a number of them; or that there is nothing to ask."""
    other = next((path for path in DROPBEAR if image.tree.exists(path)), None)
    if other:
        why = "dropbear is installed, and whom it lets in is not read here (see its options -s, -g, -w)"
        yield not_looked_at(other, why)
    elif not image.sshd.is_there:
        yield NO_SERVER
    yield from image.sshd.unknowns


def _answers(image: Image) -> dict[str, Effective]:
    """What sshd does when root comes, for every client that a Match block speaks of."""
    return image.sshd.answers("root") if image.sshd.is_there else {}


def _check_passwords(image: Image) -> Iterator[Part]:
    """Ask sshd, for every account and every client that a Match block speaks of."""
    yield from _servers(image)
    names = [account.name for account in image.accounts.all()]
    open_to: dict[str, str] = {}
    for whom, effective in image.sshd.logins(names) if image.sshd.is_there else ():
        # The settings by which sshd accepts a password (sshd_config(5)).
        if effective.first("passwordauthentication", "yes") == "yes":
            open_to.setdefault("PasswordAuthentication", whom)
        if (
            restrictions.use_pam(effective)
            and effective.first("kbdinteractiveauthentication", "yes") == "yes"
        ):
            open_to.setdefault("KbdInteractiveAuthentication", whom)
    for keyword, whom in open_to.items():
        reason = f"sshd takes a password ({keyword} yes is effective for {whom})."
        yield image.sshd.finding(keyword, reason, f"Set {keyword} no before any other line that sets it")


def _check_root_login(image: Image) -> Iterator[Part]:
    yield from _servers(image)
    ways = map(restrictions.permit_root_login, _answers(image).values())
    way = next((way for way in ways if way != "no"), None)
    if way:
        reason = f"Root can log in over SSH (PermitRootLogin {way} is effective)."
        remedy = "Give the launch key to a user who may use sudo (Users=), then set PermitRootLogin no"
        yield image.sshd.finding("PermitRootLogin", reason, remedy)


def _check_dns(image: Image) -> Iterator[Part]:
    if not image.sshd.is_there:
        yield NO_SERVER
    elif not USE_DNS.holds(image.sshd.effective("root")):
        reason = "sshd looks up the name of each client; where DNS is broken, no login works."
        yield _finding(image, USE_DNS, reason)


RULES = (
    Rule(
        id="root-password-login",
        title="Root cannot log in over SSH with a password",
        guideline="G2",
        severity=ERROR,
        prose="""A root password in a shared image is soon known, and a request to change it leaves a window.
        PermitRootLogin must not be yes, as the host's sshd reports it with Include, Match, the order of lines
        and the options of its unit (-o), for every client that a Match block names. Without an sshd on the
        host or a main file, with more than 64 clients, or beside dropbear, the verdict is unknown. seal sets
        prohibit-password in an early drop-in, or at the top of the main file, if sshd then accepts it and
        reports it as effective.""",
        check=_check_root,
        failing={CONFIG: "PasswordAuthentication yes\nPermitRootLogin yes\n"},
        passing={CONFIG: "PermitRootLogin prohibit-password\nPermitRootLogin yes\n"},
    ),
    Rule(
        id="use-dns",
        title="sshd does not depend on DNS",
        guideline="G7",
        severity=NOTE,
        prose="""With UseDNS yes, sshd looks up the name of each client and holds the login while DNS gives no
        answer. The guide switches it off, as an option: the check is worth little, and a broken DNS locks out
        every user. OpenSSH's default has been no since 6.8. seal sets it, as it sets PermitRootLogin; --skip
        use-dns leaves it.""",
        check=_check_dns,
        failing={CONFIG: "UseDNS yes\nMatch User ann\n    X11Forwarding no\n"},
        passing={CONFIG: "UseDNS no\nUseDNS yes\n"},
    ),
    advisory(
        id="password-login",
        title="No account can log in over SSH with a password",
        prose="""Where sshd accepts passwords, one that is set later, by the user of an instance or by a
        program, can be guessed from everywhere. AWS Marketplace takes no product with it. The rule checks
        PasswordAuthentication, and KbdInteractiveAuthentication where sshd uses PAM, as root-password-login
        does, for every account. A private image may need passwords.""",
        check=_check_passwords,
        failing={CONFIG: "KbdInteractiveAuthentication no\nPasswordAuthentication yes\n"},
        passing={CONFIG: "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"},
    ),
    advisory(
        id="root-login",
        title="Root cannot log in over SSH",
        prose="""A person who logs in as another user and uses sudo leaves a record of each action. AWS
        Marketplace requires that: no login as root, with a key either. The effective PermitRootLogin must be
        no. Where the launch key is root's, no login would then work.""",
        check=_check_root_login,
        failing={CONFIG: "PermitRootLogin prohibit-password\n"},
        passing={CONFIG: "PermitRootLogin no\n"},
    ),
)
