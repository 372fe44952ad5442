"""sshd's settings are changed so that the real sshd acts on it, whatever stands in the way; or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from image_builder import Builder
from machine import new_key

from firstkey import image_reasons, reasons
from firstkey.image import rules, sshd
from firstkey.image.verdict import Verdict
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


def lay_out(builder: Builder, layout: str) -> None:
    """Grow the configuration of that name."""
    main, others = LAYOUTS[layout]
    builder.file("/etc/ssh/sshd_config", main, mode=0o600)
    builder.directory("/etc/ssh/sshd_config.d")
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    builder.file("/etc/group", "root:x:0:\nwheel:x:10:root\n")
    for name, content in others.items():
        builder.file(f"/etc/ssh/sshd_config.d/{name}", content)


def really(builder: Builder, where: Path, client: str, *options: str) -> dict[str, str]:
    """What the host's sshd makes of the tree's configuration: asked here by other means than firstkey's."""
    copy = where / "asked"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(builder.path("/etc/ssh"), copy)
    for file in copy.rglob("*"):
        if file.is_file():
            text = file.read_text().replace("/etc/ssh/", f"{copy}/")
            # This host's root is in no group wheel.
            text = text.replace("Match Group wheel", "Match User root")
            file.write_text(text.replace("Include conf.d", f"Include {copy}/conf.d"))
    new_key(copy, "key")
    argv = ["/usr/sbin/sshd", "-T", "-f", str(copy / "sshd_config"), "-h", str(copy / "key"), *options]
    done = subprocess.run([*argv, "-C", f"user=root,{client}"], capture_output=True, text=True, check=True)
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return {keyword.lower(): value for keyword, _, value in lines}  # 10.6 has them in mixed case


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.sample(15)
def test_setting_is_effective_for_everybody(builder: Builder, tmp_path: Path, layout: str) -> None:
    """Wherever yes was said, no client gets it any more; nothing else that sshd does has changed."""
    lay_out(builder, layout)
    before = {client: really(builder, tmp_path, client) for client in CLIENTS}
    for change in builder.settled("root-password-login"):
        assert change.apply(builder.context())
    for client in CLIENTS:
        after = really(builder, tmp_path, client)
        assert after.pop("permitrootlogin") in ("without-password", "prohibit-password", "no")
        changed = {key for key in after if after[key] != before[client][key]}
        assert changed <= {"hostkey"}, client
    assert root_login(builder).outcome == "pass"


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("nothing said", "match group")])
@pytest.mark.sample(5)
def test_it_was_found_before(builder: Builder, layout: str) -> None:
    """Each of these layouts lets root in with a password, and audit says so."""
    lay_out(builder, layout)
    assert root_login(builder).outcome == "finding"


def test_groups_are_the_trees_own(builder: Builder) -> None:
    """Match Group means the groups of the image, not those of the host."""
    lay_out(builder, "match group")
    assert root_login(builder).outcome == "finding"
    builder.file("/etc/group", "root:x:0:\nwheel:x:10:ann\n")
    assert root_login(builder).outcome == "pass"


def test_a_drop_in_is_preferred(builder: Builder) -> None:
    """Where drop-ins are read first, the distribution's own file stays as it is."""
    lay_out(builder, "included")
    before = builder.path("/etc/ssh/sshd_config").read_bytes()
    for change in builder.settled("root-password-login"):
        change.apply(builder.context())
    assert builder.path("/etc/ssh/sshd_config").read_bytes() == before
    assert "PermitRootLogin prohibit-password\n" in builder.path(sshd.DROP_IN).read_text()
    assert builder.path(sshd.DROP_IN).stat().st_mode & 0o777 == 0o600


def test_a_block_outranks_an_option_of_the_unit(builder: Builder, tmp_path: Path) -> None:
    """An option counts before any line of a file, and a Match block before the option."""
    lay_out(builder, "included")
    unit = "[Service]\nExecStart=/usr/sbin/sshd -D -o PermitRootLogin=yes\n"
    builder.file("/usr/lib/systemd/system/ssh.service", unit)
    assert root_login(builder).outcome == "finding"
    for change in builder.settled("root-password-login"):
        change.apply(builder.context())
    assert "\nMatch all\n" in builder.path(sshd.DROP_IN).read_text()
    assert root_login(builder).outcome == "pass"
    options = ("-o", "PermitRootLogin=yes")
    assert really(builder, tmp_path, CLIENTS[0], *options)["permitrootlogin"] != "yes"


def test_two_settings_share_a_drop_in(builder: Builder, tmp_path: Path) -> None:
    """The second setting joins the first, though both were planned before either was written."""
    block = "Match User ann\n    X11Forwarding no\n"
    builder.file("/etc/ssh/sshd_config", f"{INCLUDE}PermitRootLogin yes\nUseDNS yes\n{block}")
    builder.directory("/etc/ssh/sshd_config.d")
    for change in builder.settled("root-password-login", "use-dns"):
        change.apply(builder.context())
    found = really(builder, tmp_path, CLIENTS[0])
    assert (found["permitrootlogin"], found["usedns"]) in (
        ("without-password", "no"),
        ("prohibit-password", "no"),
    )


def test_what_sshd_rejects_is_left_alone(builder: Builder) -> None:
    """A configuration that sshd does not take proves nothing: unknown, and not touched."""
    builder.file("/etc/ssh/sshd_config", "PermitRootLogin yes\nNoSuchKeyword yes\n")
    before = builder.snapshot()
    verdict = root_login(builder)
    assert verdict.outcome == "unknown"
    assert [unknown.refusal.reason for unknown in verdict.unknowns] == [reasons.SSHD_CONFIG_INVALID]
    with pytest.raises(FirstkeyError):
        sshd.change(builder.image().tree, sshd.PERMIT_ROOT_LOGIN, {})
    assert builder.snapshot() == before


def test_a_setting_without_effect_is_not_written(builder: Builder) -> None:
    """If sshd says something else of it by then, nothing is put in place."""
    lay_out(builder, "included")
    before = {path.name: path.read_bytes() for path in builder.path("/etc/ssh").rglob("*") if path.is_file()}
    (change,) = builder.settled("root-password-login")
    with pytest.raises(FirstkeyError) as caught:
        change.apply(builder.context()._replace(holds=lambda *_: False))
    assert caught.value.reason is image_reasons.NO_PROOF
    after = {path.name: path.read_bytes() for path in builder.path("/etc/ssh").rglob("*") if path.is_file()}
    assert after == before


def root_login(builder: Builder) -> Verdict:
    """What the rule says."""
    return rules.by_id("root-password-login").verdict(builder.image())


def test_all_files_are_written_or_none(builder: Builder) -> None:
    """A file that was changed meanwhile stays, and so do the others: half of them mean something else."""
    drop_in = "/etc/ssh/sshd_config.d/10.conf"
    builder.file(
        "/etc/ssh/sshd_config", f"Match Address 10.0.0.0/8\nPermitRootLogin yes\nMatch all\n{INCLUDE}"
    )
    builder.file(drop_in, "PermitRootLogin no\nMatch User root\nPermitRootLogin yes\n")
    (change,) = builder.settled("root-password-login")
    builder.file(drop_in, "PermitRootLogin no\nMatch User root\nPermitRootLogin yes\n# changed\n")
    before = builder.path("/etc/ssh/sshd_config").read_bytes()
    with pytest.raises(FirstkeyError) as caught:
        change.apply(builder.context())
    assert caught.value.reason is reasons.CONCURRENT_CHANGE
    assert builder.path("/etc/ssh/sshd_config").read_bytes() == before


@pytest.mark.parametrize("include", ["Include sshd_config.d/*.conf\n", ""])
def test_files_behind_links_are_those_that_sshd_reads(builder: Builder, include: str) -> None:
    """What is written has another name than what sshd is asked about."""
    builder.file("/etc/ssh/main/config", f"{include}PermitRootLogin yes\n")
    builder.directory("/etc/ssh/main/d")
    builder.link("/etc/ssh/sshd_config", "main/config")
    builder.link("/etc/ssh/sshd_config.d", "main/d")
    (change,) = builder.settled("root-password-login")
    assert change.path.startswith("/etc/ssh/main/")
    assert "effective" in change.apply(builder.context())
    assert root_login(builder).outcome == "pass"
