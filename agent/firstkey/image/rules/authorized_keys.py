"""G6: nobody's keys stay in the image."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from firstkey.image import changes, key_files, whose
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Doubt, Finding, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

LIMIT = 64 * 1024 * 1024


def check(image: Image) -> Verdict:
    """A finding for each file with a line that is no comment, and for each link in such a place."""
    files = key_files.key_files(image)
    doubts = list(files.doubts)
    findings = []
    for path in files.paths:
        try:
            content = image.read(path, limit=LIMIT) or b""
            lines = keys_in(content) if _is_of_keys(path, content) or not image.links_to(path) else []
        except FirstkeyError as error:
            doubts.append(Doubt(path, error.refusal))
            continue
        if lines:
            findings.append(_finding(path, lines))
    gone = {link for finding in findings for link in image.links_to(finding.path)}
    reason = "This is a link: the launch key is not installed through it, so nobody could get in."
    links = (path for path in files.links if path not in gone)
    findings += [Finding(path, reason, f"rm -- {changes.quoted(path)}") for path in links]
    return Verdict(tuple(findings), tuple(doubts))


def keys_in(content: bytes) -> list[int]:
    """The numbers of the lines that are neither empty nor comments: whatever else sshd may make of them."""
    return [
        number
        for number, line in enumerate(BytesIO(content), 1)
        if line.strip() and not line.lstrip().startswith(b"#")
    ]


def _finding(path: str, lines: list[int]) -> Finding:
    keys = "a key" if len(lines) == 1 else f"{len(lines)} keys"
    reason = f"Whoever has {keys} that this file names can log in to every instance of the image."
    return Finding(path, reason, f"truncate -s 0 {changes.quoted(path)}", lines[0])


def remedy(image: Image) -> list[Change]:
    """Empty each of them; owner and mode stay, so that sshd takes what is installed there later.

    Links to them go: nothing is installed through a link. What is no file of keys by its name or its content
    is left, whatever sshd is told: a setting may name any file of the system.
    """
    return [change for finding in check(image).findings for change in _changes(image, finding)]


def _changes(image: Image, finding: Finding) -> Iterator[Change]:
    if finding.line is None:
        found = walk.follow(image.tree, finding.path) if whose.is_systems(finding.path) else None
        if found is None or _is_of_keys(found.path, image.read(found.path, limit=LIMIT) or b""):
            yield changes.Remove(finding.path, "a link in place of a file of keys")
    elif _is_of_keys(finding.path, image.read(finding.path, limit=LIMIT) or b""):
        yield changes.Empty(finding.path, "keys that let somebody in", image.links_to(finding.path))


def _is_of_keys(path: str, content: bytes) -> bool:
    """Whether it is a file of keys by its name or its content, whoever may say so."""
    return path.rpartition("/")[2].startswith("authorized_keys") or key_files.has_key(content)


def _failing(tree: Builder) -> None:
    tree.file("/etc/passwd", "svc:x:990:990::/srv/svc:/bin/sh\n")
    tree.file("/etc/ssh/sshd_config", "AuthorizedKeysFile /etc/keys/%u .ssh/authorized_keys\n")
    tree.file("/etc/keys/gone", "ssh-ed25519 AAAA gone@builder\n")
    tree.file("/srv/svc/.ssh/authorized_keys", "# mine\nssh-ed25519 AAAA svc@builder\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/passwd", "svc:x:990:990::/srv/svc:/bin/sh\n")
    tree.file("/srv/svc/.ssh/authorized_keys", "# none\n", mode=0o600)


RULE = Rule(
    id="authorized-keys",
    title="No account has authorized keys",
    guideline="G6",
    severity=ERROR,
    prose=(
        "An instance that is bundled takes its launch key along, and whoever has that key can log in to "
        "every instance of the image. Checked are the files that sshd looks at for every account "
        "(AuthorizedKeysFile, under Match too), wherever its home is, those in homes that nobody has any "
        "more and in /etc/skel, and every other file of that name. seal empties them, the keys of the "
        "person who seals included: that is the point. What only a setting names, and has no key in it, is "
        "left and reported. The instance's own launch key is installed at "
        "boot, but never through a link: one in the place of such a file is a finding too, and goes."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=(key_files.WATCH,),
)
