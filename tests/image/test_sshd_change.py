"""sshd's settings are changed so that the real sshd acts on it, whatever stands in the way; or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from machine import new_key
from sapling import Sapling

from firstkey import image_reasons, reasons
from firstkey.image import sshd_change
from firstkey.image.rules import sshd_settings
from firstkey.reasons import FirstkeyError

pytestmark = pytest.mark.sshd

INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
CLIENTS = ("host=h,addr=192.0.2.1", "host=h,addr=10.9.8.7", "host=build.example.com,addr=192.0.2.1")

# What a main file and drop-ins may look like, and where the setting must land.
LAYOUTS = {
    "nothing said": ("", {}),
    "plain": ("PermitRootLogin yes\n", {}),
    "included": (INCLUDE + "PermitRootLogin yes\n", {}),
    "included late": ("PermitRootLogin yes\n" + INCLUDE, {}),
    "earlier drop-in": (INCLUDE, {"00-cloud.conf": "PermitRootLogin yes\n"}),
    "later drop-in": (INCLUDE, {"50-cloud-init.conf": "PermitRootLogin yes\n"}),
    "match at the end": (INCLUDE + "Match Address 10.0.0.0/8\n    PermitRootLogin yes\n", {}),
    "match, no include": ("Match Address 10.0.0.0/8\nPermitRootLogin yes\nMatch all\nX11Forwarding no\n", {}),
    "match in a drop-in": (INCLUDE, {"00-a.conf": "Match Host *.example.com\nPermitRootLogin yes\n"}),
    "match group": ("PermitRootLogin no\nMatch Group wheel\n  PermitRootLogin yes\n", {}),
    "quoted": ('PermitRootLogin "yes"\n', {}),
    "equals": ("permitrootlogin=yes\n", {}),
    "commented": ("#PermitRootLogin no\nPermitRootLogin yes # really\n", {}),
    "no last newline": ("UseDNS yes\nPermitRootLogin yes", {}),
    "deep include": ("Include conf.d/*.conf\n", {"../conf.d/x.conf": "PermitRootLogin yes\n"}),
}


def lay_out(sapling: Sapling, layout: str) -> None:
    """Grow the configuration of that name."""
    main, others = LAYOUTS[layout]
    sapling.file("/etc/ssh/sshd_config", main, mode=0o600)
    sapling.directory("/etc/ssh/sshd_config.d")
    sapling.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    sapling.file("/etc/group", "root:x:0:\nwheel:x:10:root\n")
    for name, content in others.items():
        sapling.file(f"/etc/ssh/sshd_config.d/{name}", content)


def really(sapling: Sapling, where: Path, client: str) -> dict[str, str]:
    """What the host's sshd makes of the tree's configuration: asked here by other means than firstkey's."""
    copy = where / "asked"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sapling.path("/etc/ssh"), copy)
    for file in copy.rglob("*"):
        if file.is_file():
            text = file.read_text().replace("/etc/ssh/", f"{copy}/")
            # This host's root is in no group wheel.
            text = text.replace("Match Group wheel", "Match User root")
            file.write_text(text.replace("Include conf.d", f"Include {copy}/conf.d"))
    new_key(copy, "key")
    argv = ["/usr/sbin/sshd", "-T", "-f", str(copy / "sshd_config"), "-h", str(copy / "key")]
    done = subprocess.run([*argv, "-C", f"user=root,{client}"], capture_output=True, text=True, check=True)
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return {keyword.lower(): value for keyword, _, value in lines}  # 10.6 has them in mixed case


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.sample(5)
def test_setting_is_effective_for_everybody(sapling: Sapling, tmp_path: Path, layout: str) -> None:
    """Wherever yes was said, no client gets it any more; nothing else that sshd does has changed."""
    lay_out(sapling, layout)
    before = {client: really(sapling, tmp_path, client) for client in CLIENTS}
    for change in sapling.settled("root-password-login"):
        assert change.apply(sapling.context())
    for client in CLIENTS:
        after = really(sapling, tmp_path, client)
        assert after.pop("permitrootlogin") in ("without-password", "prohibit-password", "no")
        changed = {key for key in after if after[key] != before[client][key]}
        assert changed <= {"hostkey"}, client
    assert sshd_settings.check_root(sapling.image()).outcome == "pass"


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("nothing said", "match group")])
def test_it_was_found_before(sapling: Sapling, layout: str) -> None:
    """Each of these layouts lets root in with a password, and audit says so."""
    lay_out(sapling, layout)
    assert sshd_settings.check_root(sapling.image()).outcome == "finding"


def test_groups_are_the_trees_own(sapling: Sapling) -> None:
    """Match Group means the groups of the image, not those of the host."""
    lay_out(sapling, "match group")
    assert sshd_settings.check_root(sapling.image()).outcome == "finding"
    sapling.file("/etc/group", "root:x:0:\nwheel:x:10:ann\n")
    assert sshd_settings.check_root(sapling.image()).outcome == "pass"


def test_a_drop_in_is_preferred(sapling: Sapling) -> None:
    """Where drop-ins are read first, the distribution's own file stays as it is."""
    lay_out(sapling, "included")
    before = sapling.path("/etc/ssh/sshd_config").read_bytes()
    for change in sapling.settled("root-password-login"):
        change.apply(sapling.context())
    assert sapling.path("/etc/ssh/sshd_config").read_bytes() == before
    assert "PermitRootLogin prohibit-password\n" in sapling.path(sshd_change.DROP_IN).read_text()
    assert sapling.path(sshd_change.DROP_IN).stat().st_mode & 0o777 == 0o600


def test_two_settings_share_a_drop_in(sapling: Sapling, tmp_path: Path) -> None:
    """The second setting joins the first, though both were planned before either was written."""
    block = "Match User ann\n    X11Forwarding no\n"
    sapling.file("/etc/ssh/sshd_config", f"{INCLUDE}PermitRootLogin yes\nUseDNS yes\n{block}")
    sapling.directory("/etc/ssh/sshd_config.d")
    for change in sapling.settled("root-password-login", "use-dns"):
        change.apply(sapling.context())
    found = really(sapling, tmp_path, CLIENTS[0])
    assert (found["permitrootlogin"], found["usedns"]) in (
        ("without-password", "no"),
        ("prohibit-password", "no"),
    )


def test_what_sshd_rejects_is_left_alone(sapling: Sapling) -> None:
    """A configuration that sshd does not take proves nothing: unknown, and not touched."""
    sapling.file("/etc/ssh/sshd_config", "PermitRootLogin yes\nNoSuchKeyword yes\n")
    before = sapling.snapshot()
    with pytest.raises(FirstkeyError) as caught:
        sshd_settings.check_root(sapling.image())
    assert caught.value.reason is reasons.SSHD_CONFIG_INVALID
    with pytest.raises(FirstkeyError):
        sshd_change.change(sapling.image(), sshd_change.PERMIT_ROOT_LOGIN)
    assert sapling.snapshot() == before


def test_a_setting_without_effect_is_rolled_back(sapling: Sapling) -> None:
    """If sshd says something else once the file is in place, everything is as it was before."""
    lay_out(sapling, "included")
    before = {path.name: path.read_bytes() for path in sapling.path("/etc/ssh").rglob("*") if path.is_file()}
    (change,) = sapling.settled("root-password-login")
    with pytest.raises(FirstkeyError) as caught:
        change.apply(sapling.context()._replace(holds=lambda *_: False))
    assert caught.value.reason is image_reasons.NO_PROOF
    after = {path.name: path.read_bytes() for path in sapling.path("/etc/ssh").rglob("*") if path.is_file()}
    assert after == before
