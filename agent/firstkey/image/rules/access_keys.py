"""G9: no access keys in what people write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import examples, secrets
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR, Verdict
from firstkey.image.watches import Needle

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

KIND = "access-key"

# Those of RFC 7519, of PyJWT and of jwt.io: the issuer joe, some payload, and John Doe.
_NO_EXAMPLE = rb"(?!pc3MiOiJqb2Ui|zb21lIjoicGF5bG9hZCJ9|[\w-]{0,60}IkpvaG4gRG9l)"
# The word by which it is known, what follows, and whose it is; each as its maker documents it.
PATTERNS = (
    ("AKIA", rb"[A-Z2-7]{16}(?<!EXAMPLE)(?![A-Za-z0-9/+=])", "an AWS access key"),
    ("ASIA", rb"[A-Z2-7]{16}(?<!EXAMPLE)(?![A-Za-z0-9/+=])", "an AWS session key"),
    ("ecret_access_key", rb"\W{1,8}[A-Za-z0-9/+]{40}(?<!EXAMPLEKEY)(?![A-Za-z0-9/+=])", "an AWS secret key"),
    ("ECRET_ACCESS_KEY", rb"\W{1,8}[A-Za-z0-9/+]{40}(?<!EXAMPLEKEY)(?![A-Za-z0-9/+=])", "an AWS secret key"),
    ("ecretAccessKey", rb"\W{1,8}[A-Za-z0-9/+]{40}(?<!EXAMPLEKEY)(?![A-Za-z0-9/+=])", "an AWS secret key"),
    ("AIza", rb"[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])", "a Google API key"),
    ("AccountKey=", rb"[A-Za-z0-9/+]{86}==", "an Azure storage key"),
    ("Q~", rb"(?<=[\w.~-]{3}\dQ~)[\w.~-]{31,34}(?![\w.~-])", "an Azure client secret"),
    ("sv=20", rb"\d\d-\d\d-\d\d&[^\s\"'<>]{0,500}\bsig=[\w%/+]{40}", "an Azure shared access signature"),
    ("ghp_", rb"[A-Za-z0-9]{36}", "a GitHub token"),
    ("gho_", rb"[A-Za-z0-9]{36}", "a GitHub token"),
    ("ghs_", rb"[A-Za-z0-9]{36}", "a GitHub token"),
    ("ghu_", rb"[A-Za-z0-9]{36}", "a GitHub token"),
    ("ghr_", rb"[A-Za-z0-9]{36}", "a GitHub token"),
    ("github_pat_", rb"[A-Za-z0-9_]{40}", "a GitHub token"),
    ("glpat-", rb"[A-Za-z0-9_-]{20}", "a GitLab token"),
    ("glrt-", rb"[A-Za-z0-9_-]{20}", "a GitLab token"),
    ("xoxb-", rb"[0-9]+-[A-Za-z0-9-]{20}", "a Slack token"),
    ("xoxp-", rb"[0-9]+-[A-Za-z0-9-]{20}", "a Slack token"),
    ("hooks.slack.com/services/", rb"T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20}", "a Slack address"),
    ("npm_", rb"[A-Za-z0-9]{36}(?![A-Za-z0-9_])", "an npm token"),
    ("pypi-AgEI", rb"[A-Za-z0-9_-]{40}", "a PyPI token"),
    ("hvs.", rb"[A-Za-z0-9_-]{24}", "a Vault token"),
    ("dckr_pat_", rb"[A-Za-z0-9_-]{27}", "a Docker token"),
    ("hf_", rb"[A-Za-z0-9]{34}(?![A-Za-z0-9_])", "a Hugging Face token"),
    ("dop_v1_", rb"[0-9a-f]{64}", "a DigitalOcean token"),
    ("sk_live_", rb"[0-9A-Za-z]{24}", "a Stripe key"),
    ("sk-ant-", rb"[A-Za-z0-9_-]{24}", "an API key"),
    ("eyJ", rb"[\w-]{10,1000}\.eyJ" + _NO_EXAMPLE + rb"[\w-]{10,4000}\.[\w-]{43}", "a JSON Web Token"),
    ("sk-proj-", rb"[A-Za-z0-9_-]{24}", "an API key"),
)


def _judge(word: str, rest: bytes, what: str) -> Callable[[bytes, int], str | None]:
    pattern = re.compile(rb"(?<![A-Za-z0-9])" * (word[0] in "Adeghxns") + re.escape(word).encode() + rest)

    def judge(content: bytes, place: int) -> str | None:
        return what if pattern.match(content, place) else None

    return judge


WATCHES = tuple(Needle(KIND, word.encode(), _judge(word, rest, what)) for word, rest, what in PATTERNS)


def check(image: Image) -> Verdict:
    """A finding for each file."""
    return secrets.verdict(secrets.sorted_out(image, image.sightings(KIND)))


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove each file."""
    found = secrets.sorted_out(image, image.sightings(KIND)).secrets
    return secrets.removals(image, (seen.path for seen in found), "access key")


def _failing(tree: Builder) -> None:
    key = examples.access_key("AKIA", "Z7QK3WJT5NP2XR6M")
    tree.file("/srv/app/.env", f"AWS_ACCESS_KEY_ID={key}\n")
    tree.file("/root/.profile", "export GITHUB_TOKEN=" + examples.access_key("ghp_", "a1B2" * 9) + "\n")


def _passing(tree: Builder) -> None:
    tree.file(
        "/srv/app/README", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE (the one of AWS's own documentation)\n"
    )
    tree.file("/root/.profile", "export GITHUB_TOKEN=$(cat token)\n")


RULE = Rule(
    id="access-keys",
    title="There are no access keys in files",
    guideline="G9",
    severity=ERROR,
    prose=(
        "Access keys and tokens that can be told by how they look (AWS, Google, Azure, GitHub, GitLab, "
        "Docker, Slack, npm, PyPI, Vault, JSON Web Tokens and others) are looked for in every text file "
        "that no package brought: histories, dot files, scripts, configuration, logs. The example keys of "
        "AWS's documentation and of jwt.io are known. seal overwrites and removes the files only with "
        "--remove-credentials; to keep one, take the key out of it first. Whatever is found should be "
        "revoked as well: it may have been copied."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=WATCHES,
    option=CREDENTIALS,
)
