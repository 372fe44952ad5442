"""G4 and G5: what an instance of the image does when it boots: host keys, the launch key, and who gets in."""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterator
from functools import partial
from itertools import chain

from firstkey import image_reasons, login_reasons
from firstkey.image import units
from firstkey.image.changes import Change, Link, Remove
from firstkey.image.places import unbraced
from firstkey.image.rule import Rule, advisory
from firstkey.image.rules.host_keys import host_key_files
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NO_SERVER, NOTE, Finding, Part, Unknown, Verdict, not_applicable
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.settings import ADMINISTRATOR, PLACES
from firstkey.ssh import access, restrictions
from firstkey.system import walk
from firstkey.system.sshd import BY_SOCKET

MACHINE_ID = "/etc/machine-id"

# --- the kernel's command line --------------------------------------------------------------------

KERNEL_WORDS = unbraced(
    # What the loaders read: GRUB, the boot loader specification's entries, extlinux.
    "/boot/{grub/grub.cfg,grub2/grub.cfg,grub2/grubenv,efi/EFI/*/grub.cfg,extlinux/extlinux.conf}",
    "/{boot,boot/efi,efi}/loader/entries/*.conf",
    # What those are written from at the next update of a kernel: kernel-install(8), update-grub(8).
    "/{etc,usr/lib}/kernel/cmdline",
    "/etc/default/{grub,grub.d/*.cfg}",
)


def word_of(pattern: str) -> re.Pattern[bytes]:
    """What finds a whole word that fits the pattern, in a line that is no comment."""
    return re.compile(rf"""^[^#\n]*?(?<![^\s"'=])(?:{pattern})(?![^\s"'])""".encode(), re.MULTILINE)


def kernel_word(image: Image, pattern: str) -> str | None:
    """The first file with a line, no comment, in which a whole word fits the regular expression, or None."""
    word = word_of(pattern)
    paths = (path for file in KERNEL_WORDS for path in image.glob(file))
    return next((path for path in paths if word.search(image.read(path) or b"")), None)


# --- who installs keys ----------------------------------------------------------------------------

UNIT = "firstkey.service"
ENABLED = f"{ADMINISTRATOR}/multi-user.target.wants/{UNIT}"
"""What `systemctl enable` makes; the unit's [Install] says WantedBy=multi-user.target."""
DISABLED = "/etc/firstkey/disabled"
PARTS = ("/usr/bin/firstkey", "/usr/lib/firstkey/firstkey/cli/main.py")
"""The command that the unit starts, and the code that is its work."""
OFF = "firstkey=off"
"""A word of the kernel command line (the unit's ConditionKernelCommandLine=)."""
RUNLEVELS = "/etc/runlevels"
"""What `rc-update add` of OpenRC makes is below; the script for firstkey is in docs/platforms.md."""

CLOUD_INIT_UNITS = ("cloud-init.service", "cloud-init-network.service", "cloud-init-main.service")
CLOUD_CONFIG = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg")
_DATASOURCES = re.compile(rb"^datasource_list:[ \t]*(\[[^\]]*\]|(?:\n[ \t]*-[^\n]*)+)", re.MULTILINE)

# Debian 13 and later; Fedora, Amazon Linux and RHEL; SUSE; Arch.
HOST_KEY_UNITS = ("sshd-keygen.service", "sshd-keygen.target", "sshdgenkeys.service", "ssh-keygen.service")
SERVICES = ("ssh.service", "sshd.service")
MADE_AT_BOOT = ("/dev/", "/proc/", "/run/", "/sys/", "/tmp/", "/var/run/")  # noqa: S108
"""What is there at boot is not in the image."""
OF_FILES = {
    **dict.fromkeys(("PathExists", "PathExistsGlob", "PathIsReadWrite"), 0),
    "PathIsDirectory": stat.S_IFDIR,
    "PathIsSymbolicLink": stat.S_IFLNK,  # Debian 13's own unit asks that of /etc/ssh
    "FileNotEmpty": stat.S_IFREG,
}
"""The conditions that the files of an image decide, and of which kind a file has to be (0: of any)."""


def off(image: Image, reason: str = "") -> Finding | None:
    """What keeps firstkey from its work, or None: what only a person can repair comes first."""
    has_openrc = image.tree.exists(RUNLEVELS)
    if has_openrc and not image.glob(f"{RUNLEVELS}/*/firstkey"):
        return Finding(RUNLEVELS, reason, "Have OpenRC start firstkey, by the script of docs/platforms.md")
    if not has_openrc and not units.is_installed(image, UNIT):
        return Finding(ENABLED, reason, "Install the package firstkey; its unit is enabled with it.")
    missing = next((path for path in PARTS if image.read(path) is None), None)
    if missing:
        return Finding(missing, reason, "Install the package firstkey again: a part of it is missing.")
    boot_loaders = kernel_word(image, OFF)
    if boot_loaders:
        remedy = f"Take {OFF} out of this file, and have the boot loader's files written again"
        return Finding(boot_loaders, reason, remedy)
    # As `systemctl enable` would.
    made: list[Change] = []
    if image.tree.exists(DISABLED):
        made.append(Remove(DISABLED, "it switches firstkey off"))
    elif has_openrc or units.is_enabled(image, UNIT):
        return None
    if units.is_masked(image, UNIT):
        made.append(Remove(f"{ADMINISTRATOR}/{UNIT}", "it masks firstkey"))
    place = next((path for path in PLACES[1:] if image.tree.exists(f"{path}/{UNIT}")), None)
    if place:  # where OpenRC starts it, there is no unit
        made.append(Link(ENABLED, f"{place}/{UNIT}", "firstkey is started at boot"))
    return Finding(ENABLED, reason, changes=tuple(made))


def _makers(image: Image, *, is_first: bool | None = None) -> Iterator[tuple[str, bool | None]]:
    """What may make host keys at boot, and whether it will; None: no image shows it.

    `is_first` is whether it is a first boot to systemd; None: as the machine-id has it.
    """
    yield "firstkey", not off(image)
    yield "cloud-init", _is_cloud_init_on(image)
    yield from ((unit, _may_run(image, unit, is_first=is_first)) for unit in HOST_KEY_UNITS)
    # The units of openSUSE and ALT Linux; the script of OpenRC's sshd.
    before = " ".join(units.values(image, "Service", "ExecStartPre", *SERVICES))
    by_unit = re.search("ssh-keygen|sshd-gen-keys", before) and server_is_on(image)
    yield "what starts sshd", bool(by_unit or image.glob(f"{RUNLEVELS}/*/sshd"))


def needs_first_boot(image: Image) -> bool:
    """Whether host keys are made if the boot is a first one to systemd, and not otherwise."""
    by_any, by_first = _makers(image), _makers(image, is_first=True)
    return not any(will for _, will in by_any) and any(will for _, will in by_first)


def _may_run(image: Image, unit: str, *, is_first: bool | None = None) -> bool | None:
    """Whether sshd's start brings the unit along, and its conditions let it run; None: no image shows it."""
    if not server_is_on(image):
        return False
    if is_first is None:
        # An empty machine-id is no first boot, but a missing one is, and "uninitialized" (machine-id(5)).
        content = image.read(MACHINE_ID)
        is_first = content is None or content.strip() == b"uninitialized"
    # A line of one of sshd's units may want it as well.
    is_on = units.is_enabled(image, unit, *SERVICES, *BY_SOCKET)
    if not is_on and not (is_first and unit in units.newly_enabled(image)):
        return False
    return units.may_run(image, unit, partial(_holds, image, is_first))


def _holds(image: Image, is_first: bool, kind: str, value: str) -> bool | None:  # noqa: FBT001
    """Whether a condition will hold at boot, firstkey being off and the host keys sealed away."""
    if kind == "FirstBoot":
        return (value.lower() in ("1", "yes", "y", "true", "t", "on")) is is_first
    if value.startswith("/run/firstkey/"):
        return False
    if kind not in OF_FILES or "%" in value or value.startswith(MADE_AT_BOOT):
        return None
    is_of_links = kind in ("PathIsSymbolicLink", "PathExistsGlob")  # not of what a link leads to
    pattern = value if kind == "PathExistsGlob" else glob.escape(value)
    kinds = set()
    for path in set(image.glob(pattern)).difference(host_key_files(image)):
        end = walk.end_of(image.tree, path)
        look = image.status(path) if is_of_links else end and end.status
        if look is None:
            return None  # it may lead to what a boot makes
        if look.st_size or kind != "FileNotEmpty":
            kinds.add(stat.S_IFMT(look.st_mode))
    return OF_FILES[kind] in kinds or bool(kinds and not OF_FILES[kind])


def server_is_on(image: Image) -> bool:
    """Whether something starts sshd at boot, or when a client connects."""
    return any(units.is_enabled(image, unit) for unit in (*SERVICES, "ssh.socket", "sshd.socket"))


def _is_cloud_init_on(image: Image) -> bool:
    there = [unit for unit in CLOUD_INIT_UNITS if units.is_installed(image, unit)]
    is_masked = any(units.is_masked(image, unit) for unit in there)
    if not there or is_masked or image.tree.exists("/etc/cloud/cloud-init.disabled"):
        return False
    # It decides at boot, and starts cloud-init.target by itself (cloud-init: cloud-init-generator).
    generators = unbraced("/{usr/,}lib/systemd/system-generators/cloud-init-generator")
    by_generator = any(map(image.tree.exists, generators))
    return by_generator or any(units.is_enabled(image, unit) for unit in there)


def _check_host_key_maker(image: Image) -> Iterator[Part]:
    if not image.sshd.is_there:
        yield NO_SERVER
        return
    maker = next((name for name, will in _makers(image) if will), None)
    uncertain = None if maker else next((name for name, will in _makers(image) if will is None), None)
    if uncertain:
        detail = f"{uncertain} makes host keys under a condition that no image shows"
        places = (f"{place}/{uncertain}" for place in PLACES)
        yield Unknown(
            next(filter(image.tree.exists, places)), Refusal(image_reasons.CONDITION_UNKNOWN, detail)
        )
    else:
        reason = "Nothing makes host keys at boot, and without any sshd does not start."
        yield _done_by(image, maker, "makes them", reason)


def _check_key_installer(image: Image) -> Iterator[Part]:
    found = [] if off(image) else ["firstkey"]
    texts = [image.read(path) or b"" for pattern in CLOUD_CONFIG for path in image.glob(pattern)]
    # Without a source it asks no service for keys; the last file that lists its sources wins.
    sources = [words for text in texts for words in _DATASOURCES.findall(text)] or [b"any"]
    if _is_cloud_init_on(image) and not set(re.findall(rb"\w+", sources[-1])) <= {b"None"}:
        found.append("cloud-init")
    if units.is_enabled(image, "afterburn-sshkeys@*.service"):
        found.append("afterburn")
    for path in ("/etc/rc.local", "/etc/rc.d/rc.local"):
        status = image.status(path)
        if status and status.st_mode & 0o111 and b"public-keys" in (image.read(path) or b""):
            found.append(path)
    reason = "No program installs the launch key at boot, so no login will work."
    yield _done_by(image, " and ".join(found), "installs it", reason)


def _done_by(image: Image, program: str | None, what: str, reason: str) -> Part:
    """Which program does it; where none does, what to do so that firstkey does."""
    found = off(image, reason)
    return found if found and not program else Verdict(remark=f"{program} {what}.")


# --- whom sshd lets in ----------------------------------------------------------------------------

OF_ANOTHER = "another program than firstkey installs the launch key"


def launch_users(image: Image) -> list[str]:
    """Who gets the launch key from firstkey, and may log in with it; none where that is another's work."""
    keys = image.target.config.keys
    names = [] if off(image) else keys.users
    return [name for name in names if not (keys.redirect_root and name == "root")]


def _check_first_login(image: Image) -> Iterator[Part]:
    """The first login works if one of those who get the launch key can log in; the others are notes."""
    names = launch_users(image)
    if not names or not image.sshd.is_there:
        yield NO_SERVER if names else not_applicable(OF_ANOTHER)
        return
    masked = next((unit for unit in SERVICES if units.is_masked(image, unit)), None)
    if masked and not server_is_on(image):
        reason = f"{masked} is masked, and no other unit starts sshd."
        yield Finding(f"{ADMINISTRATOR}/{masked}", reason, "Take the mask away, or enable ssh.socket")
        return
    against = [(*_account(image, name), *_settings(image, name)) for name in names]
    is_open = not all(any(isinstance(one, Finding) for one in said) for said in against)
    for one in chain.from_iterable(against):
        if isinstance(one, Finding):
            yield one._replace(severity=NOTE if is_open else None)
        elif is_open and all(against):  # each user who is not refused may be, so nothing is sure
            yield one


def _account(image: Image, name: str) -> Iterator[Finding]:
    account = image.accounts.find(name)
    user = image.target.config.user(name)
    if account is None and not user.create:
        remedy = f"Set Create=yes in [User {name}] of firstkey.conf, or Users= in [Keys] to an account"
        yield Finding("/etc/passwd", f"The launch key is for {name}, an account that there is not.", remedy)
    shell = account.shell if account else user.shell
    if restrictions.is_no_shell(shell):
        remedy = "Give the account a shell, such as /bin/sh"
        yield Finding("/etc/passwd", f"The shell of {name} is {shell}.", remedy)
    if not is_root(image, name) and image.tree.exists("/etc/nologin"):
        yield Finding("/etc/nologin", f"Only root can log in, and {name} is not root.", "Remove the file")


def _settings(image: Image, name: str) -> Iterator[Finding | Unknown]:
    """What sshd's effective configuration has against the user, as allowed_user of its auth.c asks."""
    try:
        effective = image.sshd.effective(name)
    except FirstkeyError as error:
        yield Unknown(image.sshd.main_file, error.refusal)
        return
    root = restrictions.permit_root_login(effective)
    if is_root(image, name) and root in ("no", "forced-commands-only"):
        yield _refusal(image, "PermitRootLogin", f"{root}, and {name} is root")
    if effective.first("pubkeyauthentication", "yes") == "no":
        yield _refusal(image, "PubkeyAuthentication", "no")
    words = partial(restrictions.words, effective)
    methods = words("authenticationmethods") or ["any"]
    if {"any", "publickey"}.isdisjoint(methods):
        yield _refusal(image, "AuthenticationMethods", " ".join(methods))
    commands = effective.first("authorizedkeyscommand", "none")
    if not effective.authorized_keys_files and commands == "none":
        yield _refusal(image, "AuthorizedKeysFile", "none")
    for listing in access.listings(words, name, groups(image, name), None):
        keyword = listing.keyword
        if listing.refuses is None:
            detail = f"{keyword} is about {name} from some places only"
            yield Unknown(image.sshd.main_file, Refusal(login_reasons.CLIENT_DEPENDENT, detail))
        elif listing.refuses:
            has = "has" if listing.fits else "does not have"
            yield _refusal(image, keyword, f"{' '.join(listing.words)}, which {has} {name}")


REMEDIES = {
    "PermitRootLogin": (
        "Set PermitRootLogin prohibit-password, or Users= in [Keys] of firstkey.conf to another account"
    ),
    "PubkeyAuthentication": "Set PubkeyAuthentication yes",
    "AuthenticationMethods": "Add publickey alone to the methods, or remove the line",
    "AuthorizedKeysFile": "Set it to a file, or remove it",
    "DenyUsers": "Remove the user from DenyUsers",
    "AllowUsers": "Add the user to AllowUsers",
    "DenyGroups": "Remove the user from the group, or the group from DenyGroups",
    "AllowGroups": "Add the user to one of the groups of AllowGroups",
}


def _refusal(image: Image, keyword: str, value: str) -> Finding:
    reason = f"sshd has {keyword} {value}, so the launch key gives no access there."
    return image.sshd.finding(keyword, reason, REMEDIES[keyword])


def groups(image: Image, name: str) -> list[str]:
    """The user's groups, those that firstkey adds included."""
    account = image.accounts.find(name)
    wanted = image.target.config.user(name).groups
    return [*(image.accounts.group_names(account) if account else [name]), *wanted]


def is_root(image: Image, name: str) -> bool:
    """Whether the user is root, by the number or yet to be made."""
    account = image.accounts.find(name)
    return account.uid == 0 if account else name == "root"


# --- what the first boot asks ---------------------------------------------------------------------

ASKS_NOTHING = r"systemd\.firstboot=(?:0|no|n|false|f|off)"
LOCALES = "/usr/lib/locale"
QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "locale": (unbraced("/etc/{locale.conf,default/locale}"), ()),  # the second is Debian's
    # kbd-util.c: the directories that keyboard layouts are looked for in.
    "keymap": (("/etc/vconsole.conf",), unbraced("/usr/{share,share/kbd,lib/kbd}/keymaps")),
    # Where there are neither, systemd knows no time zones (time-util.c: get_timezones).
    "timezone": (("/etc/localtime",), unbraced("/usr/share/zoneinfo/{zone1970.tab,tzdata.zi}")),
    "hostname": (("/etc/hostname",), ()),
    "root-password": (("/etc/shadow",), ()),
    "root-shell": (("/etc/passwd",), ()),
    "new-user": ((), ()),
}
"""What may be asked: the files any of which answers it, and those any of which gives a choice."""


def _check_questions(image: Image) -> Iterator[Part]:
    if kernel_word(image, ASKS_NOTHING):
        yield Verdict(remark="The kernel command line switches the wizard off (systemd.firstboot=).")
        return
    # Such a machine-id is filled without a first boot; what seal writes brings one.
    severity = NOTE if image.read(MACHINE_ID) == b"" else None
    for unit in ("systemd-firstboot.service", "systemd-homed-firstboot.service"):
        what = " and the ".join(name.replace("-", " ") for name in _questions(image, unit))
        if what:
            reason = f"The first boot waits at the console for the {what} ({unit})."
            mask = Link(f"{ADMINISTRATOR}/{unit}", "/dev/null", "the first boot asks no questions")
            yield Finding(mask.path, reason, severity=severity, changes=(mask,))


def _questions(image: Image, unit: str) -> list[str]:
    """What its options have it ask for (systemd-firstboot(1)), and the image does not answer."""
    words = " ".join(units.values(image, "Service", "ExecStart", unit)).split()
    answered = {word.removeprefix("--").partition("=")[0] for word in words if "=" in word}
    asked = {word.removeprefix("--prompt-").removesuffix("-auto") for word in words if "--prompt-" in word}
    names = set(QUESTIONS if "--prompt" in words else asked) - answered
    return [name for name in QUESTIONS if name in names and _is_open(image, name)]


def _is_open(image: Image, question: str) -> bool:
    """Whether no file has the answer, and there is something to choose."""
    answers, choices = QUESTIONS[question]
    if any(map(image.status, answers)):
        return False
    if question == "locale":  # one alone is no choice
        return image.tree.exists(f"{LOCALES}/locale-archive") or len(image.glob(f"{LOCALES}/*/LC_CTYPE")) > 1
    if question == "new-user":
        # systemd's own bounds for users that are people (login.defs(5))
        return not any(1000 <= account.uid <= 60000 for account in image.accounts.all())
    return not choices or any(map(image.tree.exists, choices))


# --- what the first boot turns on -----------------------------------------------------------------

HELD = {"network-online.target", "time-sync.target"}
"""What is not there before the network is (systemd.special(7)). A unit holds one up until it has ended."""


def _check_waiting(image: Image) -> Iterator[Part]:
    if image.read(MACHINE_ID) == b"" and not needs_first_boot(image):
        yield not_applicable("with an empty machine-id, systemd applies no presets")
        return
    for unit in units.newly_enabled(image):
        before = " ".join(units.values(image, "Unit", "Before", unit)).split()
        if units.values(image, "Service", "Type", unit)[-1:] == ["oneshot"] and HELD.intersection(before):
            reason = f"The first boot turns on {unit} by preset, which holds up what waits for the network."
            yield Finding(f"{ADMINISTRATOR}/{unit}", reason)


SYSTEM_UNIT = f"/usr/lib/systemd/system/{UNIT}"
INSTALLED: dict[str, str] = {
    SYSTEM_UNIT: "[Service]\nExecStart=/usr/bin/firstkey daemon\n",
    **dict.fromkeys(PARTS, ""),
}
"""Firstkey as an example has it, installed and not enabled."""
WORKING = {**INSTALLED, ENABLED: f"->{SYSTEM_UNIT}"}
_WIZARD = {
    "/usr/lib/systemd/system/systemd-firstboot.service": (
        "[Service]\nExecStart=systemd-firstboot --prompt-locale --prompt-timezone\n"
    ),
    "/usr/share/zoneinfo/tzdata.zi": "# version 2024a\n",
    f"{LOCALES}/C.utf8/LC_CTYPE": "",
}
_WAITING = "/usr/lib/systemd/system/systemd-networkd-wait-online.service"
_ONLINE = (
    "[Unit]\nBefore=network-online.target\n[Service]\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n"
)

RULES = (
    Rule(
        id="host-key-maker",
        title="New host keys are generated at boot",
        guideline="G4",
        severity=ERROR,
        prose="""Without host keys sshd does not start, so each instance must generate its own. firstkey does
        it, and so do cloud-init, sshd-keygen.service of Debian 13 and sshd-keygen.target of Fedora and its
        kin, where a boot starts the unit and its conditions let it run; the scripts of Debian 12 do not. The
        machine-id decides whether it is a first boot. A condition that only a boot decides makes the rule
        unknown. seal enables firstkey.service where it is installed.""",
        check=_check_host_key_maker,
        failing={"/usr/sbin/sshd": "", **INSTALLED},
        passing={"/usr/sbin/sshd": "", **WORKING},
    ),
    Rule(
        id="key-installer",
        title="The launch key is installed at boot",
        guideline="G5",
        severity=ERROR,
        prose="""Without passwords and other keys, the launch key is the only way to log in, so a program has
        to fetch it: firstkey.service, cloud-init (unless its datasource_list is None), afterburn, or a script
        in rc.local as in the guide. It must be enabled and complete, not masked, and not switched off
        (firstkey=off on the kernel's command line included). seal enables firstkey.service where it is
        installed.""",
        check=_check_key_installer,
        failing=INSTALLED,
        passing=WORKING,
    ),
    Rule(
        id="first-login",
        title="sshd accepts the launch key's user",
        guideline="G5",
        severity=ERROR,
        prose="""A launch key is useless where sshd refuses its user. For each user in Users= of
        firstkey.conf, the rule checks the account (or Create=yes), its shell, /etc/nologin, and sshd's unit
        and effective settings: PermitRootLogin, PubkeyAuthentication, AuthenticationMethods,
        AuthorizedKeysFile, and the users and groups that are allowed and denied. If one of the users can log
        in, the others are notes. firstkey doctor checks more, on an instance. seal leaves this: the settings
        may be intended for other users.""",
        check=_check_first_login,
        by_hand=True,
        failing={
            **WORKING,
            "/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "/etc/ssh/sshd_config": "PermitRootLogin no\n",
        },
        passing={
            **WORKING,
            "/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "/etc/ssh/sshd_config": "PermitRootLogin prohibit-password\nAllowUsers root\n",
        },
    ),
    Rule(
        id="first-boot-questions",
        title="The first boot asks no questions",
        severity=ERROR,
        prose="""Where the machine-id says uninitialized, systemd-firstboot asks at the console for what the
        image lacks: the locale if several are installed (/etc/locale.conf), the time zone (/etc/localtime),
        and what else its unit's options name. The boot waits for the answer, before sshd, and an instance has
        no user at its console. With an empty machine-id there is no question, so this is a note. seal masks
        the service, as images for clouds have it; to keep it, add those settings.""",
        check=_check_questions,
        failing={**_WIZARD, f"{LOCALES}/de_DE.utf8/LC_CTYPE": ""},
        passing={**_WIZARD, "/etc/localtime": "->/usr/share/zoneinfo/Etc/UTC"},
    ),
    advisory(
        id="first-boot-waits",
        title="The first boot turns on nothing that waits for the network",
        advice="Mask the unit (a link to /dev/null in this place), or enable it if the image is to have it",
        prose="""Where the machine-id says uninitialized, systemd applies its presets at the first boot, which
        turn on every unit that no preset names. If such a unit waits for a network or for the time of day, it
        holds up whatever needs network-online.target or time-sync.target: systemd-networkd-wait-online for
        two minutes, where another program manages the network. The rule checks units of Type=oneshot before
        these targets. Such a unit may be intended.""",
        check=_check_waiting,
        failing={_WAITING: _ONLINE},
        passing={
            _WAITING: _ONLINE,
            "/usr/lib/systemd/system-preset/90-off.preset": "disable *-wait-online.service\n",
        },
    ),
)
