"""What is measured side by side: five images of one distribution, each with another way to the launch key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bootlab import Image, install_deb
from netlab import run
from rootfs import inside

PACKAGES = ("curl", "strace", "time", "cloud-init")
"""What the images have beside a minimal system with SSH and Python; cloud-init only in its own."""

SCRIPT = """\
#!/bin/sh
# The launch key as the EC2 guide has it ("Recommendations for creating shared Linux AMIs"), with IMDSv2,
# and new host keys before it.
set -u
service=http://169.254.169.254/latest
ssh-keygen -A
mkdir -p -m 700 /root/.ssh
token=$(curl --silent --fail -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 21600" $service/api/token)
if curl --silent --fail -H "X-aws-ec2-metadata-token: $token" \\
    $service/meta-data/public-keys/0/openssh-key >/run/launch-key; then
    cat /run/launch-key >>/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
fi
rm -f /run/launch-key
"""
SCRIPT_UNIT = """\
[Unit]
Description=Launch key and host keys
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/launch-key

[Install]
WantedBy=multi-user.target
"""

RSA_UNIT = """\
[Unit]
Description=The RSA host key, as early as there are units
DefaultDependencies=no
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_rsa_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t rsa -N "" -f /etc/ssh/ssh_host_rsa_key

[Install]
WantedBy=multi-user.target
"""

CLOUD_CONFIG = """\
# The Ec2 data source at its best: it alone, by IP literal, so that no name is looked up, and no other
# platform is looked for; the network is there already. Root may log in, as in the other images.
datasource_list: [Ec2]
datasource:
  Ec2:
    metadata_urls: ["http://169.254.169.254"]
    strict_id: false
    apply_full_imds_network_config: false
network: {config: disabled}
apt: {preserve_sources_list: true}
locale: false
disable_root: false
"""


class Peer(NamedTuple):
    """One way to the launch key. `units` are what it runs at boot."""

    name: str
    title: str
    units: tuple[str, ...]
    install: Callable[[Path, str], None]
    """Changes the tree; gets the public line of the launch key, for whoever wants to bake it in."""


def _bake(root: Path, line: str) -> None:
    """Nothing is left to be done at boot: no way can be faster than this."""
    run("ssh-keygen", "-A", "-f", root)
    directory = root / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "authorized_keys").write_text(f"{line}\n")
    (directory / "authorized_keys").chmod(0o600)


def _bake_all_but_rsa(root: Path, line: str) -> None:
    """Whoever makes host keys at boot has this to do, whatever else."""
    _bake(root, line)
    for half in ("", ".pub"):
        (root / f"etc/ssh/ssh_host_rsa_key{half}").unlink()
    (root / "etc/systemd/system/rsa-key.service").write_text(RSA_UNIT)
    _enable(root, "rsa-key.service")


def _write_script(root: Path, _line: str) -> None:
    (root / "usr/local/sbin/launch-key").write_text(SCRIPT)
    (root / "usr/local/sbin/launch-key").chmod(0o755)
    (root / "etc/systemd/system/launch-key.service").write_text(SCRIPT_UNIT)
    _enable(root, "launch-key.service")


def _configure_cloud_init(root: Path, _line: str) -> None:
    (root / "etc/cloud/cloud.cfg.d/90-bench.cfg").write_text(CLOUD_CONFIG)


def _enable(root: Path, unit: str) -> None:
    """By preset, which a first boot applies again."""
    run("systemctl", f"--root={root}", "--quiet", "preset", unit)


def peers(deb: Path) -> tuple[Peer, ...]:
    """All of them, with this package of firstkey."""
    own = ("firstkey.service",)
    cloud = ("cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service")
    return (
        Peer("baked", "keys baked in (the floor)", (), _bake),
        Peer("rsa", "the RSA key made, all else baked in", (), _bake_all_but_rsa),
        Peer("script", "the guide's script, ssh-keygen -A", ("launch-key.service",), _write_script),
        Peer("firstkey", "firstkey", own, lambda root, _line: install_deb(root, deb)),
        Peer("cloud-init", "cloud-init", cloud, _configure_cloud_init),
    )


def image_of(peer: Peer, distribution: Image, directory: Path, line: str) -> Image:
    """The peer's image: the same distribution for all, with cloud-init removed from all but its own."""

    def change(root: Path) -> None:
        if peer.name != "cloud-init":
            done = inside(root, "dpkg", "--purge", "cloud-init")
            assert done.returncode == 0, done.stderr
        peer.install(root, line)

    return distribution.changed(directory / peer.name, change)
