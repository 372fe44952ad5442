"""The bill of materials (SPDX 2.3, JSON): what is in the package, and what it needs of the system.

Nothing of anybody else's is in the package, so there is nothing for a tool to find by looking into it: what
firstkey needs, the distribution brings. The existing tools (cyclonedx-py and its kin) describe a Python
environment, which is neither there where debhelper and rpmbuild work, nor what the package is installed
into; and no distribution has them to build with. So this is written from the list below, which a test holds
against pyproject.toml, debian/control and the spec; SPDX's own tools judge the result.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any, NamedTuple

import firstkey
from firstkey.image.formats import HOME

SUPPLIER = "Organization: The firstkey maintainers"
NEEDED, OPTIONAL = "DEPENDS_ON", "OPTIONAL_DEPENDENCY_OF"


class Component(NamedTuple):
    """One thing that firstkey uses, and that the distribution brings."""

    name: str
    versions: str
    """Which it works with (PEP 440); the distribution decides which of them it is."""
    license: str
    """The identifier of SPDX's list."""
    purl: str
    """Under which name vulnerabilities are filed (package-url)."""
    use: str
    deb: str
    rpm: str
    is_needed: bool = True


COMPONENTS = (
    Component(
        "Python", ">=3.9", "Python-2.0", "pkg:generic/python", "runs firstkey", deb="python3", rpm="python3"
    ),
    Component(
        "requests", ">=2.25,<3", "Apache-2.0", "pkg:pypi/requests", "speaks HTTP with the metadata service",
        deb="python3-requests", rpm="python3-requests",
    ),
    Component(
        "OpenSSH", "", "SSH-OpenSSH", "pkg:generic/openssh", "ssh-keygen makes and checks keys",
        deb="openssh-client", rpm="openssh",
    ),
    Component(
        "shadow", "", "BSD-3-Clause", "pkg:generic/shadow", "useradd and usermod set up accounts",
        deb="passwd", rpm="shadow-utils",
    ),
    Component(
        "OpenSSH server", "", "SSH-OpenSSH", "pkg:generic/openssh", "sshd tells what its configuration means",
        deb="openssh-server", rpm="openssh-server", is_needed=False,
    ),
    Component(
        "systemd-python", ">=234,<236", "LGPL-2.1-or-later", "pkg:pypi/systemd-python",
        "writes to the journal, with fields", deb="python3-systemd", rpm="python3-systemd", is_needed=False,
    ),
    Component(
        "python-daemon", ">=2.3,<4", "Apache-2.0", "pkg:pypi/python-daemon",
        "detaches where there is no systemd", deb="python3-daemon", rpm="python3-daemon", is_needed=False,
    ),
    Component(
        "sudo", "", "ISC", "pkg:generic/sudo", "visudo checks what Sudo= says", deb="sudo", rpm="sudo",
        is_needed=False,
    ),
)  # fmt: skip


def of_materials() -> str:
    """The document. Two builds of the same sources for the same SOURCE_DATE_EPOCH give the same bytes."""
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"firstkey-{firstkey.__version__}",
        "creationInfo": {"created": _moment(), "creators": [SUPPLIER, "Tool: packaging/generate.py"]},
        "packages": [_itself(), *map(_package, COMPONENTS)],
        "relationships": [_related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-firstkey"), *_relationships()],
    }
    # Every document has a name of its own, and the same document the same name.
    known = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    document["documentNamespace"] = f"{HOME}/spdx/{document['name']}-{known}"
    return json.dumps(document, indent=1) + "\n"


def _moment() -> str:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _itself() -> dict[str, Any]:
    return {
        **_named("firstkey", f"pkg:generic/firstkey@{firstkey.__version__}", "Apache-2.0"),
        "versionInfo": firstkey.__version__,
        "supplier": SUPPLIER,
        "primaryPackagePurpose": "APPLICATION",
    }


def _package(component: Component) -> dict[str, Any]:
    versions = f"Versions: {component.versions}. " if component.versions else ""
    brought = f"Brought by the distribution: {component.deb} (deb), {component.rpm} (rpm)."
    return {
        **_named(component.name, component.purl, component.license),
        "supplier": "NOASSERTION",
        "summary": component.use,
        "comment": f"{versions}{brought}",
    }


def _named(name: str, purl: str, licence: str) -> dict[str, Any]:
    locator = {
        "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl,
    }  # fmt: skip
    return {
        "SPDXID": _identifier(name),
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": licence,
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [locator],
    }


def _identifier(name: str) -> str:
    return f"SPDXRef-{name.replace(' ', '-')}"


def _relationships() -> list[dict[str, str]]:
    found = []
    for component in COMPONENTS:
        other, itself = _identifier(component.name), _identifier("firstkey")
        if component.is_needed:
            found.append(_related(itself, NEEDED, other))
        else:
            found.append(_related(other, OPTIONAL, itself))
    return found


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}
