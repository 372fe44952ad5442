"""What is measured side by side: images of Debian, each with another way to the launch key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bootlab import ALL_MORE, Image, install_deb
from netlab import CLOUD, MACHINE, run
from rootfs import inside

PACKAGES = ALL_MORE
"""What the images have beside a minimal system with SSH and Python; cloud-init only in its own."""
OLD, NEW = "bookworm", "sid"
"""The suite of all, and the one that has the newest cloud-init."""
DEFAULT_TYPES = ("rsa", "ecdsa", "ed25519")
NO_RSA = ("ecdsa", "ed25519")
"""As Amazon Linux 2023 has it."""

BAKED, SCRIPT, FIRSTKEY, CLOUD_INIT = "baked", "script", "firstkey", "cloud-init"

SCRIPT_TEXT = """\
#!/bin/sh
# The launch key as the EC2 guide has it ("Recommendations for creating shared Linux AMIs"), with IMDSv2,
# and new host keys before it.
set -u
service=http://169.254.169.254/latest
{make_host_keys}
mkdir -p -m 700 /root/.ssh
token=$(curl --silent --fail -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 21600" $service/api/token)
if curl --silent --fail -H "X-aws-ec2-metadata-token: $token" \\
    $service/meta-data/public-keys/0/openssh-key >/run/launch-key; then
    cat /run/launch-key >>/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
fi
rm -f /run/launch-key
"""
ALL_DEFAULTS = "ssh-keygen -A"
TWO_TYPES = """\
for type in ecdsa ed25519; do
    file=/etc/ssh/ssh_host_${type}_key
    [ -e $file ] || ssh-keygen -q -t $type -N "" -f $file
done"""
SCRIPT_UNIT = """\
[Unit]
Description=Launch key and host keys
Wants=network-online.target
After=network-online.target
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/launch-key

[Install]
WantedBy=multi-user.target
"""

LATE_NETWORK_SECONDS = 0.7
"""What DHCP takes on EC2."""
LATE_NETWORK_UNIT = f"""\
[Unit]
Description=A network that comes up as late as by DHCP
DefaultDependencies=no
Before=network-online.target

[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'sleep {LATE_NETWORK_SECONDS}; ip link set eth0 up; \\
  ip addr add {MACHINE[4]}/24 dev eth0; ip addr add {MACHINE[6]}/64 dev eth0 nodad; \\
  ip -4 route add default via {CLOUD[4]}; ip -6 route add default via {CLOUD[6]}'

[Install]
WantedBy=sysinit.target
"""

CLOUD_CONFIG = """\
# The Ec2 data source at its best: it alone, by IP literal, so that no name is looked up, and no other
# platform is looked for; the network is left as it is. Root may log in, as in the other images.
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
UNITS = {
    BAKED: (),
    SCRIPT: ("launch-key.service",),
    FIRSTKEY: ("firstkey.service",),
    CLOUD_INIT: (
        "cloud-init-local.service",
        "cloud-init.service",
        "cloud-config.service",
        "cloud-final.service",
    ),
}
"""What each runs at boot."""


class Peer(NamedTuple):
    """One way to the launch key, in one setting.

    `types` are the host keys that sshd is to have, `is_late` tells of a network that is not there at once,
    `knows_instance` of a firmware that tells the instance-id.
    """

    way: str
    suite: str = OLD
    types: tuple[str, ...] = DEFAULT_TYPES
    is_late: bool = False
    knows_instance: bool = False

    @property
    def setting(self) -> tuple[tuple[str, ...], bool]:
        """What it has in common with those that it is compared with."""
        return self.types, self.is_late

    @property
    def has_later_boots(self) -> bool:
        """Whether a second boot is measured: what it is in the other settings it is here."""
        return self.setting == (DEFAULT_TYPES, False)


def peers() -> tuple[Peer, ...]:
    """All of them: in each setting, in each suite a floor of its own."""
    settings = ((DEFAULT_TYPES, False), (NO_RSA, False), (NO_RSA, True))
    everybody = [
        Peer(way, suite, types, is_late)
        for types, is_late in settings
        for suite, ways in ((OLD, (BAKED, SCRIPT, FIRSTKEY, CLOUD_INIT)), (NEW, (BAKED, CLOUD_INIT)))
        for way in ways
    ]
    return (*everybody, Peer(FIRSTKEY, knows_instance=True))


def image_of(peer: Peer, distribution: Image, directory: Path, *, line: str, deb: Path) -> Image:
    """The peer's image: the same distribution for all, with cloud-init removed from all but its own."""

    def change(root: Path) -> None:
        if peer.way != CLOUD_INIT:
            done = inside(root, "dpkg", "--purge", "cloud-init")
            assert done.returncode == 0, done.stderr
        lines = (f"HostKey /etc/ssh/ssh_host_{name}_key\n" for name in peer.types)
        (root / "etc/ssh/sshd_config.d/host-keys.conf").write_text("".join(lines))
        if peer.is_late:
            _add_unit(root, "late-network.service", LATE_NETWORK_UNIT)
        if peer.way == BAKED:
            _bake(root, line, peer.types)
        elif peer.way == SCRIPT:
            make = ALL_DEFAULTS if peer.types == DEFAULT_TYPES else TWO_TYPES
            (root / "usr/local/sbin/launch-key").write_text(SCRIPT_TEXT.format(make_host_keys=make))
            (root / "usr/local/sbin/launch-key").chmod(0o755)
            _add_unit(root, "launch-key.service", SCRIPT_UNIT)
        elif peer.way == FIRSTKEY:
            install_deb(root, deb)
        else:
            types = f"ssh_genkeytypes: [{', '.join(peer.types)}]\n"
            (root / "etc/cloud/cloud.cfg.d/90-bench.cfg").write_text(CLOUD_CONFIG + types)

    return distribution.changed(directory, change)


def _bake(root: Path, line: str, types: Sequence[str]) -> None:
    """Nothing is left to be done at boot: no way can be faster than this."""
    for name in types:
        run("ssh-keygen", "-q", "-t", name, "-N", "", "-f", root / f"etc/ssh/ssh_host_{name}_key")
    directory = root / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "authorized_keys").write_text(f"{line}\n")
    (directory / "authorized_keys").chmod(0o600)


def _add_unit(root: Path, name: str, text: str) -> None:
    """Enabled by preset, which a first boot applies again."""
    (root / f"etc/systemd/system/{name}").write_text(text)
    run("systemctl", f"--root={root}", "--quiet", "preset", name)
