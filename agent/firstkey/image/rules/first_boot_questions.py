"""Beyond the guide: nobody is asked anything at the console before the first boot goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import kernel_words, units
from firstkey.image.changes import Link
from firstkey.image.rule import Rule
from firstkey.image.rules import machine_id
from firstkey.image.verdict import ERROR, NOTE, Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

WIZARDS = ("systemd-firstboot.service", "systemd-homed-firstboot.service")
OFF = r"systemd\.firstboot=(?:0|no|n|false|f|off)"
LOCALES = "/usr/lib/locale"
ARCHIVE = f"{LOCALES}/locale-archive"
# Where there are neither, systemd knows no time zones (time-util.c: get_timezones).
ZONES = ("/usr/share/zoneinfo/zone1970.tab", "/usr/share/zoneinfo/tzdata.zi")
# kbd-util.c: the directories that keyboard layouts are looked for in.
KEYMAPS = ("/usr/share/keymaps", "/usr/share/kbd/keymaps", "/usr/lib/kbd/keymaps")
FIRST_USER, LAST_USER = 1000, 60000  # systemd's own bounds for users that are people (login.defs(5))


def check(image: Image) -> Verdict:
    """Look what each wizard would ask for, were this the first boot."""
    if kernel_words.where(image, OFF):
        return Verdict(remark="The kernel command line switches the wizard off (systemd.firstboot=).")
    asking = {unit: _questions(image, unit) for unit in WIZARDS}
    return Verdict(tuple(_finding(image, unit, asked) for unit, asked in asking.items() if asked))


def _finding(image: Image, unit: str, asked: list[str]) -> Finding:
    what = " and the ".join(name.replace("-", " ") for name in asked)
    reason = f"The first boot waits for somebody at the console to tell the {what} ({unit})."
    # Such a machine-id is filled without a first boot; what seal writes brings one.
    severity = NOTE if image.read(machine_id.FILE) == b"" else None
    return Finding(f"{units.ADMINISTRATOR}/{unit}", reason, f"systemctl mask {unit}", severity=severity)


def remedy(image: Image) -> list[Change]:
    """Mask the wizards, as systemctl does."""
    what = "nobody is asked anything at the first boot"
    return [Link(finding.path, "/dev/null", what) for finding in check(image).findings]


def _questions(image: Image, unit: str) -> list[str]:
    """What its options have it ask for (systemd-firstboot(1)), and the image does not tell."""
    lines = units.values(image.tree, "Service", "ExecStart", unit)
    words = [word for line in lines for word in line.split()]
    told = {word.removeprefix("--").partition("=")[0] for word in words if "=" in word}
    asked = {word.removeprefix("--prompt-").removesuffix("-auto") for word in words if "--prompt-" in word}
    names = QUESTIONS if "--prompt" in words else asked
    return [
        name for name, is_open in QUESTIONS.items() if name in names and name not in told and is_open(image)
    ]


def _has_no_locale(image: Image) -> bool:
    # Debian's systemd takes the second file as well; of one locale alone it does not let anybody choose.
    if image.status("/etc/locale.conf") or image.status("/etc/default/locale"):
        return False
    return image.tree.exists(ARCHIVE) or len(image.glob(f"{LOCALES}/*/LC_CTYPE")) > 1


def _has_no_keymap(image: Image) -> bool:
    return image.status("/etc/vconsole.conf") is None and any(map(image.tree.exists, KEYMAPS))


def _has_no_time_zone(image: Image) -> bool:
    return image.status("/etc/localtime") is None and any(map(image.tree.exists, ZONES))


def _has_no_user(image: Image) -> bool:
    return not any(FIRST_USER <= account.uid <= LAST_USER for account in image.accounts.all())


def _lacks(path: str) -> Callable[[Image], bool]:
    return lambda image: image.status(path) is None


QUESTIONS: dict[str, Callable[[Image], bool]] = {
    "locale": _has_no_locale,
    "keymap": _has_no_keymap,
    "timezone": _has_no_time_zone,
    "hostname": _lacks("/etc/hostname"),
    "root-password": _lacks("/etc/shadow"),
    "root-shell": _lacks("/etc/passwd"),
    "new-user": _has_no_user,
}


def _example(tree: Builder) -> None:
    unit = "[Service]\nExecStart=systemd-firstboot --prompt-locale --prompt-timezone\n"
    tree.file("/usr/lib/systemd/system/systemd-firstboot.service", unit)
    tree.file("/usr/share/zoneinfo/tzdata.zi", "# version 2024a\n")


def _failing(tree: Builder) -> None:
    _example(tree)
    tree.file("/usr/lib/locale/C.utf8/LC_CTYPE")
    tree.file("/usr/lib/locale/de_DE.utf8/LC_CTYPE")


def _passing(tree: Builder) -> None:
    _example(tree)
    tree.file("/usr/lib/locale/C.utf8/LC_CTYPE")
    tree.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC")


RULE = Rule(
    id="first-boot-questions",
    title="The first boot asks nobody anything",
    guideline="beyond",
    severity=ERROR,
    prose=(
        "Where the machine-id says uninitialized, systemd-firstboot asks at the console for what the image "
        "does not tell: the locale if several are installed (/etc/locale.conf), the time zone "
        "(/etc/localtime), and what else its unit's options name. The boot waits for the answer, before "
        "sshd, and on an instance nobody gives one. An empty machine-id, with which nothing is asked, makes "
        "it a note. seal masks the service, as images for clouds have it; to have it ask nothing, tell what "
        "it would ask for."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
