"""How much a scanner finds of planted tokens, and how much is found in real packages, where there is none.

What the guide names is held one by one, in test_credentials.py and test_key_formats.py: all of it is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokens
from image_builder import Builder, audited
from rootfs import CACHE

from firstkey.image import rules
from firstkey.image.audit import chosen
from firstkey.image.scan import Looking
from firstkey.image.survey import AUTO, BUILTIN, scanned
from firstkey.image.verdict import ERROR
from firstkey.system import scanners

pytestmark = pytest.mark.slow

SECRETS = ("private-keys", "certificates", "cloud-credentials", "tool-credentials", "system-credentials",
           "vendor-credentials", "access-keys")  # fmt: skip
PACKAGES = ("awscli", "ansible", "botocore", "tornado")
RECALL = 0.8
"""How many of the tokens a scanner finds at least: some have no form of their own, but for a maker's name."""

needs_scanner = pytest.mark.skipif(
    os.geteuid() != 0 or not any(shutil.which(name) for name in scanners.NAMES),
    reason=f"NOT MEASURED: needs root and one of {', '.join(scanners.NAMES)} (pip install kingfisher-bin)",
)


def found(builder: Builder, secrets: str) -> dict[str, list[str]]:
    """The reasons by path of every finding that is an error of a rule about secrets."""
    looking = Looking(scanned=scanned(secrets, str(builder.root)))
    image = builder.image(looking)
    seen: dict[str, list[str]] = {}
    for result in audited(image, chosen(SECRETS)).results:
        assert result.verdict.unknowns == ()
        for finding in result.verdict.findings:
            if (finding.severity or result.rule.severity) == ERROR:
                seen.setdefault(finding.path, []).append(finding.reason)
    return seen


@needs_scanner
@pytest.mark.root
def test_tokens_of_all_makers(builder: Builder) -> None:
    """With the scanner that is here; none of its findings tells the secret."""
    planted = tokens.planted()
    for path, text in planted.items():
        builder.file(path, text)
    seen = found(builder, AUTO)
    missing = sorted(planted.keys() - seen.keys())
    print(f"{len(planted) - len(missing)} of {len(planted)} were found; not: {missing}")
    assert len(planted) > 100
    assert len(planted) - len(missing) >= RECALL * len(planted), missing
    for path, reasons in seen.items():
        words = [word for word in planted[path].split() if len(word) > 15]
        assert not any(word in reason for reason in reasons for word in words)


@pytest.fixture(scope="module")
def packages() -> Path:
    """Real packages, as pip installs them; kept, since they are large."""
    place = Path(CACHE) / "python-packages"
    if not (place / "complete").exists():
        argv = [sys.executable, "-m", "pip", "install", "-q", "--target", place / "site-packages", *PACKAGES]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT MEASURED: no packages from an index: {done.stderr[-300:]}")
        (place / "complete").touch()
    return place / "site-packages"


@pytest.mark.root
@pytest.mark.parametrize("secrets", [BUILTIN, pytest.param(AUTO, marks=needs_scanner)])
def test_no_example_in_real_packages_is_an_error(builder: Builder, packages: Path, secrets: str) -> None:
    """They are full of keys for tests, and of examples in their documentation."""
    builder.directory("/usr/local/lib/python3/site-packages")
    for entry in packages.iterdir():
        copy = shutil.copytree if entry.is_dir() else shutil.copy
        copy(entry, builder.path(f"/usr/local/lib/python3/site-packages/{entry.name}"))
    assert found(builder, secrets) == {}


def test_the_rules_about_secrets_are_these() -> None:
    """One that is new is measured too."""
    watching = {rule.id for rule in rules.ALL if rule.option == "remove-credentials"}
    assert watching == set(SECRETS)
