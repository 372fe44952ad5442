"""G4 and G5: what an instance of the image does when it boots: host keys, the launch key, and who gets in."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from firstkey import image_reasons, login_reasons
from firstkey.image import units, whose
from firstkey.image.changes import Link, Remove
from firstkey.image.rule import Rule
from firstkey.image.rules.host_keys import host_key_files
from firstkey.image.verdict import ERROR, NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import restrictions
from firstkey.system.sshd import BY_SOCKET

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image
    from firstkey.ssh.sshd_config import Effective

MACHINE_ID = "/etc/machine-id"

# --- the kernel's command line --------------------------------------------------------------------

KERNEL_WORDS = (
    # What the loaders read: GRUB, the boot loader specification's entries, extlinux.
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/extlinux/extlinux.conf",
    # What those are written from at the next update of a kernel: kernel-install(8), update-grub(8).
    "/etc/kernel/cmdline",
    "/usr/lib/kernel/cmdline",
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
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
ENABLED = f"{units.ADMINISTRATOR}/multi-user.target.wants/{UNIT}"
"""What `systemctl enable` makes; the unit's [Install] says WantedBy=multi-user.target."""
DISABLED = "/etc/firstkey/disabled"
PARTS = ("/usr/bin/firstkey", "/usr/lib/firstkey/firstkey/cli/main.py")
"""The command that the unit starts, and the code that is its work."""
OFF = "firstkey=off"
"""A word of the kernel command line (the unit's ConditionKernelCommandLine=)."""

CLOUD_INIT_UNITS = ("cloud-init.service", "cloud-init-network.service", "cloud-init-main.service")
CLOUD_INIT_DISABLED = "/etc/cloud/cloud-init.disabled"
# It decides at boot, and starts cloud-init.target by itself (cloud-init: cloud-init-generator).
CLOUD_INIT_GENERATORS = (
    "/usr/lib/systemd/system-generators/cloud-init-generator",
    "/lib/systemd/system-generators/cloud-init-generator",
)
CLOUD_CONFIG = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg")
_DATASOURCES = re.compile(rb"^datasource_list:[ \t]*(\[[^\]]*\]|(?:\n[ \t]*-[^\n]*)+)", re.MULTILINE)
AFTERBURN = "afterburn-sshkeys@*.service"
SCRIPTS = ("/etc/rc.local", "/etc/rc.d/rc.local")
# Debian 13 and later; Fedora, Amazon Linux and RHEL; SUSE; Arch.
HOST_KEY_UNITS = ("sshd-keygen.service", "sshd-keygen.target", "sshdgenkeys.service", "ssh-keygen.service")
SERVICES = ("ssh.service", "sshd.service")
RUNLEVELS = "/etc/runlevels"
"""What `rc-update add` of OpenRC makes is below; the script for firstkey is in docs/platforms.md."""
SERVERS = (*SERVICES, "ssh.socket", "sshd.socket")
STARTERS = (*SERVICES, *BY_SOCKET)
"""The units of sshd, whose lines may want one of HOST_KEY_UNITS."""
YES = ("1", "yes", "y", "true", "t", "on")
MADE_AT_BOOT = ("/dev/", "/proc/", "/run/", "/sys/", "/tmp/", "/var/run/")  # noqa: S108
"""What is there at boot is not in the image."""
OWN_DIRECTORY = "/run/firstkey/"
OF_FILES = {
    **dict.fromkeys(("PathExists", "PathExistsGlob", "PathIsReadWrite"), 0),
    "PathIsDirectory": stat.S_IFDIR,
    "PathIsSymbolicLink": stat.S_IFLNK,
    "FileNotEmpty": stat.S_IFREG,
}
"""The conditions that the files of an image decide, and of which kind a file has to be (0: of any)."""
OF_LINKS = ("PathIsSymbolicLink", "PathExistsGlob")
"""Those for which a link counts, and not what it leads to."""


def off(image: Image) -> Finding | None:
    """What keeps firstkey from its work, or None: what only a person can repair comes first."""
    reason = "firstkey does nothing when an instance boots."
    has_openrc = image.tree.exists(RUNLEVELS)
    if has_openrc and not _is_in_runlevel(image, "firstkey"):
        return Finding(RUNLEVELS, reason, "Have OpenRC start firstkey, by the script of docs/platforms.md")
    if not has_openrc and not units.is_installed(image.tree, UNIT):
        return Finding(ENABLED, reason, "Install the package firstkey; its unit is enabled with it.")
    missing = next((path for path in PARTS if image.read(path) is None), None)
    if missing:
        return Finding(missing, reason, "Install the package firstkey again: a part of it is missing.")
    told = kernel_word(image, OFF)
    if told:
        remedy = f"Take {OFF} out of this file, and have the boot loader's files written again"
        return Finding(told, reason, remedy)
    if not image.tree.exists(DISABLED) and (has_openrc or units.is_enabled(image.tree, UNIT)):
        return None
    return Finding(ENABLED, reason, changes=tuple(_enabling(image)))


def _enabling(image: Image) -> Iterator[Change]:
    """As `systemctl enable` would."""
    if image.tree.exists(DISABLED):
        yield Remove(DISABLED, "it switches firstkey off")
    if units.is_masked(image.tree, UNIT):
        yield Remove(f"{units.ADMINISTRATOR}/{UNIT}", "it masks firstkey")
    place = next((path for path in units.PLACES[1:] if image.tree.exists(f"{path}/{UNIT}")), None)
    if place:  # where OpenRC starts it, there is no unit
        yield Link(ENABLED, f"{place}/{UNIT}", "firstkey is started at boot")


def key_installers(image: Image) -> list[str]:
    """All that install launch keys at boot."""
    found = []
    if not off(image):
        found.append("firstkey")
    if _is_cloud_init_on(image) and _has_datasource(image):
        found.append("cloud-init")
    if units.is_enabled(image.tree, AFTERBURN):
        found.append("afterburn")
    found += [path for path in SCRIPTS if _is_guides_script(image, path)]
    return found


def host_key_maker(image: Image, *, is_first: bool | None = None) -> str | None:
    """Something that makes host keys at boot, or None.

    `is_first` is whether it is a first boot to systemd; None: as the machine-id has it.
    """
    if not off(image):
        return "firstkey"
    if _is_cloud_init_on(image):
        return "cloud-init"
    started = next((unit for unit in HOST_KEY_UNITS if _may_run(image, unit, is_first=is_first)), None)
    if started:
        return started
    # The units of openSUSE and ALT Linux; the script of OpenRC's sshd.
    before = " ".join(units.values(image.tree, "Service", "ExecStartPre", *SERVICES))
    by_unit = re.search("ssh-keygen|sshd-gen-keys", before) and server_is_on(image)
    if by_unit or _is_in_runlevel(image, "sshd"):
        return "what starts sshd"
    return None


def _is_in_runlevel(image: Image, name: str) -> bool:
    return bool(image.glob(f"{RUNLEVELS}/*/{name}"))


def needs_first_boot(image: Image) -> bool:
    """Whether host keys are made if the boot is a first one to systemd, and not otherwise."""
    return host_key_maker(image) is None and host_key_maker(image, is_first=True) is not None


def _may_run(image: Image, unit: str, *, is_first: bool | None = None) -> bool | None:
    """Whether sshd's start brings the unit along, and its conditions let it run; None: no image shows it."""
    if not server_is_on(image):
        return False
    if is_first is None:
        # An empty machine-id is no first boot, but a missing one is, and "uninitialized" (machine-id(5)).
        content = image.read(MACHINE_ID)
        is_first = content is None or content.strip() == b"uninitialized"
    is_on = units.is_enabled(image.tree, unit, *STARTERS)
    if not is_on and not (is_first and unit in units.newly_enabled(image)):
        return False
    return units.may_run(image.tree, unit, partial(_holds, image, is_first))


def _holds(image: Image, is_first: bool, kind: str, value: str) -> bool | None:  # noqa: FBT001
    """Whether a condition will hold at boot, firstkey being off and the host keys sealed away."""
    if kind == "FirstBoot":
        return (value.lower() in YES) is is_first
    if value.startswith(OWN_DIRECTORY):
        return False
    if kind not in OF_FILES or "%" in value or value.startswith(MADE_AT_BOOT):
        return None
    wanted = OF_FILES[kind]
    looks = set()
    for path in set(image.glob(value)).difference(host_key_files(image)):
        end = None if kind in OF_LINKS else whose.end_of(image, path)
        look = end.status if end else image.status(path)
        if end is None and kind not in OF_LINKS:
            return None  # it may lead to what a boot makes
        if look and (look.st_size or kind != "FileNotEmpty"):
            looks.add(stat.S_IFMT(look.st_mode))
    return wanted in looks or (not wanted and bool(looks))


def server_is_on(image: Image) -> bool:
    """Whether something starts sshd at boot, or when somebody comes."""
    return any(units.is_enabled(image.tree, unit) for unit in SERVERS)


def _is_cloud_init_on(image: Image) -> bool:
    if image.tree.exists(CLOUD_INIT_DISABLED):
        return False
    there = [unit for unit in CLOUD_INIT_UNITS if units.is_installed(image.tree, unit)]
    if not there or any(units.is_masked(image.tree, unit) for unit in there):
        return False
    by_generator = any(image.tree.exists(path) for path in CLOUD_INIT_GENERATORS)
    return by_generator or any(units.is_enabled(image.tree, unit) for unit in there)


def _has_datasource(image: Image) -> bool:
    """Whether it asks anybody for keys; the last file that lists its sources wins."""
    texts = [image.read(path) or b"" for pattern in CLOUD_CONFIG for path in image.glob(pattern)]
    lists = [found for text in texts for found in _DATASOURCES.findall(text)]
    return not lists or not set(re.findall(rb"\w+", lists[-1])) <= {b"None"}


def _is_guides_script(image: Image, path: str) -> bool:
    status = image.status(path)
    return bool(status and status.st_mode & 0o111 and b"public-keys" in (image.read(path) or b""))


def check_host_key_maker(image: Image) -> Verdict:
    """Look for a service that makes them."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    who = host_key_maker(image)
    doubtful = [unit for unit in HOST_KEY_UNITS if who is None and _may_run(image, unit) is None]
    if doubtful:
        detail = f"{doubtful[0]} makes host keys under a condition that no image shows"
        path = next(
            f"{place}/{doubtful[0]}" for place in units.PLACES if image.tree.exists(f"{place}/{doubtful[0]}")
        )
        return Verdict(doubts=(Doubt(path, Refusal(image_reasons.CONDITION_UNKNOWN, detail)),))
    reason = "Nothing makes host keys at boot, and without any sshd does not start."
    return _done_by(image, who, "makes them", reason)


def check_key_installer(image: Image) -> Verdict:
    """Look for a service that installs the launch key."""
    reason = "No program installs the launch key at boot, so no login will work."
    return _done_by(image, " and ".join(key_installers(image)), "installs it", reason)


def _done_by(image: Image, who: str | None, what: str, reason: str) -> Verdict:
    """The verdict; where nobody does it, what to do so that firstkey does."""
    found = off(image)
    if who or found is None:
        return Verdict(remark=f"{who} {what}.")
    return Verdict((found._replace(reason=reason),))


# --- whom sshd lets in ----------------------------------------------------------------------------

NOLOGIN = "/etc/nologin"
NO_ROOT = ("no", "forced-commands-only")
OF_ANOTHER = "another program than firstkey installs the launch key"


def launch_users(image: Image) -> list[str]:
    """Who gets the launch key from firstkey, and may log in with it; none where that is another's work."""
    keys = image.site.config.keys
    names = [] if off(image) else keys.users
    return [name for name in names if not (keys.redirect_root and name == "root")]


def check_first_login(image: Image) -> Verdict:
    """Ask for everybody who gets the launch key; the first login works if one of them can log in."""
    names = launch_users(image)
    if not names:
        return not_applicable(OF_ANOTHER)
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    masked = next((unit for unit in SERVICES if units.is_masked(image.tree, unit)), None)
    if masked and not server_is_on(image):
        reason = f"{masked} is masked, and no other unit starts sshd."
        remedy = "Take the mask away, or enable ssh.socket"
        return Verdict((Finding(f"{units.ADMINISTRATOR}/{masked}", reason, remedy),))
    verdicts = [_verdict(image, name) for name in names]
    findings = tuple(finding for verdict in verdicts for finding in verdict.findings)
    if all(verdict.findings for verdict in verdicts):
        return Verdict(findings)
    doubts = tuple(doubt for verdict in verdicts for doubt in verdict.doubts)
    is_sure = any(not verdict.findings and not verdict.doubts for verdict in verdicts)
    notes = tuple(finding._replace(severity=NOTE) for finding in findings)
    return Verdict(notes, () if is_sure else doubts)


def _verdict(image: Image, name: str) -> Verdict:
    said: list[Finding | Doubt] = list(_account(image, name))
    try:
        said += _settings(image, name, image.sshd.effective(name))
    except FirstkeyError as error:
        said.append(Doubt(image.sshd.config, error.refusal))
    findings = tuple(one for one in said if isinstance(one, Finding))
    return Verdict(findings, tuple(one for one in said if isinstance(one, Doubt)))


def _account(image: Image, name: str) -> Iterator[Finding]:
    account = image.accounts.find(name)
    user = image.site.config.user(name)
    if account is None and not user.create:
        remedy = f"Set Create=yes in [User {name}] of firstkey.conf, or Users= in [Keys] to an account"
        yield Finding("/etc/passwd", f"The launch key is for {name}, an account that there is not.", remedy)
    shell = account.shell if account else user.shell
    if restrictions.is_no_shell(shell):
        yield Finding(
            "/etc/passwd", f"The shell of {name} is {shell}.", "Give the account a shell, such as /bin/sh"
        )
    if not is_root(image, name) and image.tree.exists(NOLOGIN):
        yield Finding(NOLOGIN, f"Only root can log in, and {name} is not root.", "Remove the file")


def _settings(image: Image, name: str, effective: Effective) -> Iterator[Finding | Doubt]:
    """What sshd's effective configuration has against the user, as allowed_user of its auth.c asks."""
    root = restrictions.permit_root_login(effective)
    if is_root(image, name) and root in NO_ROOT:
        yield _finding(image, "PermitRootLogin", _ROOT, f"{root}, and {name} is root")
    if effective.first("pubkeyauthentication", "yes") == "no":
        yield _finding(image, "PubkeyAuthentication", _PUBKEY, "no")
    commands = effective.first("authorizedkeyscommand", "none")
    if not effective.authorized_keys_files and commands == "none":
        yield _finding(image, "AuthorizedKeysFile", "Set it to a file, or remove it", "none")
    for listing in restrictions.listings(
        partial(restrictions.words, effective), name, groups(image, name), None
    ):
        keyword = listing.keyword
        if listing.refuses is None:
            detail = f"{keyword} is about {name} from some places only"
            yield Doubt(image.sshd.config, Refusal(login_reasons.CLIENT_DEPENDENT, detail))
        elif listing.refuses:
            has = "has" if listing.fits else "does not have"
            yield _finding(image, keyword, LISTS[keyword], f"{' '.join(listing.words)}, which {has} {name}")


_ROOT = "Set PermitRootLogin prohibit-password, or Users= in [Keys] of firstkey.conf to another account"
_PUBKEY = "Set PubkeyAuthentication yes"
LISTS = {
    "DenyUsers": "Remove the user from DenyUsers",
    "AllowUsers": "Add the user to AllowUsers",
    "DenyGroups": "Remove the user from the group, or the group from DenyGroups",
    "AllowGroups": "Add the user to one of the groups of AllowGroups",
}


def groups(image: Image, name: str) -> list[str]:
    """The user's groups, those that firstkey adds included."""
    account = image.accounts.find(name)
    wanted = image.site.config.user(name).groups
    return [*(image.accounts.group_names(account) if account else [name]), *wanted]


def is_root(image: Image, name: str) -> bool:
    """Whether the user is root, by the number or yet to be made."""
    account = image.accounts.find(name)
    return account.uid == 0 if account else name == "root"


def _finding(image: Image, keyword: str, remedy: str, value: str) -> Finding:
    reason = f"sshd has {keyword} {value}, so the launch key gives no access there."
    return image.sshd.finding(keyword, reason, remedy)


# --- what the first boot asks ---------------------------------------------------------------------

WIZARDS = ("systemd-firstboot.service", "systemd-homed-firstboot.service")
ASKS_NOTHING = r"systemd\.firstboot=(?:0|no|n|false|f|off)"
LOCALES = "/usr/lib/locale"
ARCHIVE = f"{LOCALES}/locale-archive"
CHOICES = {
    # kbd-util.c: the directories that keyboard layouts are looked for in.
    "keymap": ("/usr/share/keymaps", "/usr/share/kbd/keymaps", "/usr/lib/kbd/keymaps"),
    # Where there are neither, systemd knows no time zones (time-util.c: get_timezones).
    "timezone": ("/usr/share/zoneinfo/zone1970.tab", "/usr/share/zoneinfo/tzdata.zi"),
}
"""What there must be, any of each, for somebody to choose from."""
QUESTIONS = {
    "locale": ("/etc/locale.conf", "/etc/default/locale"),  # the second is Debian's
    "keymap": ("/etc/vconsole.conf",),
    "timezone": ("/etc/localtime",),
    "hostname": ("/etc/hostname",),
    "root-password": ("/etc/shadow",),
    "root-shell": ("/etc/passwd",),
    "new-user": (),
}
"""What may be asked, and the files any of which tells it."""
FIRST_USER, LAST_USER = 1000, 60000  # systemd's own bounds for users that are people (login.defs(5))


def check_questions(image: Image) -> Verdict:
    """Look what each wizard would ask for, were this the first boot."""
    if kernel_word(image, ASKS_NOTHING):
        return Verdict(remark="The kernel command line switches the wizard off (systemd.firstboot=).")
    asking = {unit: _questions(image, unit) for unit in WIZARDS}
    return Verdict(tuple(_asking(image, unit, asked) for unit, asked in asking.items() if asked))


def _asking(image: Image, unit: str, asked: list[str]) -> Finding:
    what = " and the ".join(name.replace("-", " ") for name in asked)
    reason = f"The first boot waits at the console for the {what} ({unit})."
    # Such a machine-id is filled without a first boot; what seal writes brings one.
    severity = NOTE if image.read(MACHINE_ID) == b"" else None
    mask = Link(f"{units.ADMINISTRATOR}/{unit}", "/dev/null", "the first boot asks no questions")
    return Finding(mask.path, reason, severity=severity, changes=(mask,))


def _questions(image: Image, unit: str) -> list[str]:
    """What its options have it ask for (systemd-firstboot(1)), and the image does not tell."""
    lines = units.values(image.tree, "Service", "ExecStart", unit)
    words = [word for line in lines for word in line.split()]
    told = {word.removeprefix("--").partition("=")[0] for word in words if "=" in word}
    asked = {word.removeprefix("--prompt-").removesuffix("-auto") for word in words if "--prompt-" in word}
    names = set(QUESTIONS) if "--prompt" in words else asked
    return [name for name in QUESTIONS if name in names and name not in told and _is_open(image, name)]


def _is_open(image: Image, question: str) -> bool:
    """Whether nothing tells the answer, and there is something to choose."""
    if any(image.status(path) for path in QUESTIONS[question]):
        return False
    if question == "locale":  # of one alone it does not let anybody choose
        return image.tree.exists(ARCHIVE) or len(image.glob(f"{LOCALES}/*/LC_CTYPE")) > 1
    if question == "new-user":
        return not any(FIRST_USER <= account.uid <= LAST_USER for account in image.accounts.all())
    return question not in CHOICES or any(map(image.tree.exists, CHOICES[question]))


# --- what the first boot turns on -----------------------------------------------------------------


def check_waiting(image: Image) -> Verdict:
    """Look at each unit that presets turn on at a first boot."""
    if image.read(MACHINE_ID) == b"" and not needs_first_boot(image):
        return not_applicable("with an empty machine-id, systemd applies no presets")
    waiting = [unit for unit in units.newly_enabled(image) if units.waits(image.tree, unit)]
    reason = "The first boot turns on {} by preset, which holds up what waits for the network."
    path = f"{units.ADMINISTRATOR}/{{}}"
    return Verdict(tuple(Finding(path.format(unit), reason.format(unit)) for unit in waiting))


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
        prose=(
            "An image without host keys is only good if each instance generates its own: sshd does "
            "not start without any. firstkey does it, and so do cloud-init, sshd-keygen.service of "
            "Debian 13 and sshd-keygen.target of Fedora and its kin, where a boot starts the unit and "
            "its conditions let it run; the scripts of Debian 12 do not. The machine-id decides "
            "whether it is a first boot; a condition that only a boot decides makes the rule unknown. "
            "seal enables firstkey.service where it is installed."
        ),
        check=check_host_key_maker,
        failing={"/usr/sbin/sshd": "", **INSTALLED},
        passing={"/usr/sbin/sshd": "", **WORKING},
    ),
    Rule(
        id="key-installer",
        title="The launch key is installed at boot",
        guideline="G5",
        severity=ERROR,
        prose=(
            "Without passwords and other keys, the launch key is the only way to log in, so a program "
            "has to fetch it: firstkey.service, cloud-init, afterburn, or a script in rc.local as in "
            "the guide. It must be enabled and complete, and not masked or switched off, not on the "
            "kernel's command line either (firstkey=off); a cloud-init whose datasource_list is None "
            "fetches no keys. seal enables firstkey.service where it is installed."
        ),
        check=check_key_installer,
        failing=INSTALLED,
        passing=WORKING,
    ),
    Rule(
        id="first-login",
        title="sshd accepts the launch key's user",
        guideline="G5",
        severity=ERROR,
        prose=(
            "A launch key is useless where sshd refuses its user. For each user in Users= of "
            "firstkey.conf, the rule checks that there is such an account or Create=yes, with a "
            "shell, that /etc/nologin does not stop it, and that sshd's effective settings accept it "
            "with a key: PermitRootLogin, PubkeyAuthentication, AuthorizedKeysFile, the lists of "
            "users and groups that are allowed and denied; and that sshd's unit is not masked. If one "
            "of the users can log in, the others are notes. firstkey doctor checks more, on an "
            "instance. seal leaves this: the settings may be intended for other users."
        ),
        check=check_first_login,
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
        prose=(
            "Where the machine-id says uninitialized, systemd-firstboot asks at the console for "
            "settings that the image lacks: the locale if several are installed (/etc/locale.conf), "
            "the time zone (/etc/localtime), and the others that its unit's options name. The boot "
            "waits for the answer, before sshd, and an instance has no user at its console. With an "
            "empty machine-id systemd asks no question, so this is a note. seal masks the service, as "
            "images for clouds have it; to keep it, add the settings that it would ask for."
        ),
        check=check_questions,
        failing={**_WIZARD, f"{LOCALES}/de_DE.utf8/LC_CTYPE": ""},
        passing={**_WIZARD, "/etc/localtime": "->/usr/share/zoneinfo/Etc/UTC"},
    ),
    Rule(
        id="first-boot-waits",
        title="The first boot turns on nothing that waits for the network",
        severity=NOTE,
        by_hand=True,
        advice="Mask the unit (a link to /dev/null in this place), or enable it if the image is to have it",
        prose=(
            "Where the machine-id says uninitialized, systemd applies its presets at the first boot, "
            "which turn on every unit that no preset names. One that is off in the image, and waits "
            "for a network or for the time of day, then holds up whatever needs network-online.target "
            "or time-sync.target: systemd-networkd-wait-online for two minutes, where another program "
            "manages the network. The rule checks units of Type=oneshot before these targets. seal "
            "leaves them: an image may be built to have its units turned on by presets."
        ),
        check=check_waiting,
        failing={_WAITING: _ONLINE},
        passing={
            _WAITING: _ONLINE,
            "/usr/lib/systemd/system-preset/90-off.preset": "disable *-wait-online.service\n",
        },
    ),
)
