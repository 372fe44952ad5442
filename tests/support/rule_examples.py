"""For each rule two small trees: one with a finding, and a similar one without.

Secrets are put together here: no audit shall take firstkey's code for a leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Union

from firstkey.boot import ledger
from firstkey.image import shadow
from firstkey.image.rules import (
    ami_tools,
    boot,
    credentials,
    identities,
    marketplace,
    passwords,
    private_keys,
    publisher,
    residue,
    sshd_settings,
    traces,
)
from firstkey.system import accounts
from firstkey.system import shadow as system_shadow

Example = Mapping[str, Union[str, bytes, None]]
"""Files with their content, directories (None), and links ("->" and where they lead)."""


class Trees(NamedTuple):
    """The two trees."""

    failing: Example
    passing: Example


def pem(kind: str, *lines: str) -> str:
    """A PEM block of that kind."""
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def access_key(prefix: str, rest: str) -> str:
    """A credential that starts with a word by which it is known."""
    return prefix + rest


def _example(version: str) -> dict[str, str]:
    return {
        "/var/lib/dpkg/status": f"Package: ec2-ami-tools\nStatus: install ok installed\nVersion: {version}\n",
        "/var/lib/dpkg/info/ec2-ami-tools.list": "/usr/bin/ec2-bundle-vol\n",
        "/var/lib/apt/lists/example_Packages": "Package: ec2-ami-tools\nVersion: 1.5.19-1\n",
    }


# RFC 8032, 7.1, TEST 1, as a PKCS#8 file: a private key that is public anyway.
EXAMPLE = pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g")
EXAMPLE_MD5 = "58d03e064e669c2e8df3929ea22567b0"
# A pair that was made for this example, and is used nowhere.
_KEY = pem(
    "EC PRIVATE KEY",
    "MHcCAQEEIL4vYcz5AzNPL46aNF5LZK9nKzOKXuoT5Dd9MjG5KZG9oAoGCCqGSM49",
    "AwEHoUQDQgAEqgv6xs6Tf2DBrgCi57s8ktFdLlfSLeHZwmpqMdnqvEwhnQ0qQTIy",
    "H4EMLz//ECYmQbBrXv51CTju9a3C/05tNA==",
)
_CERTIFICATE = pem(
    "CERTIFICATE",
    "MIIBETCBuQIUNqBfX665b/SHwxnUhehoiPo/KSEwCgYIKoZIzj0EAwIwDDEKMAgG",
    "A1UEAwwBYTAeFw0yNjExMzAwNzUwMThaFw0zNjExMjcwNzUwMThaMAwxCjAIBgNV",
    "BAMMAWEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASqC/rGzpN/YMGuAKLnuzyS",
    "0V0uV9It4dnCamox2eq8TCGdDSpBMjIfgQwvP/8QJiZBsGte/nUJOO71rcL/Tm00",
    "MAoGCCqGSM49BAMCA0cAMEQCIC/XsxqvzpkJjaeZrGwScEQopafeqIPdeRxKNadj",
    "UItBAiBkXnGKuqzEB4D9gutVkbrRb9j9yndQ+KNwsbV21axijQ==",
)
_SUMS = "  usr/share/doc/tls/test.pem\n"

SYSTEM_UNIT = f"/usr/lib/systemd/system/{boot.UNIT}"
INSTALLED: dict[str, str] = {
    SYSTEM_UNIT: "[Service]\nExecStart=/usr/bin/firstkey daemon\n",
    **dict.fromkeys(boot.PARTS, ""),
}
"""Firstkey, installed and not enabled."""
WORKING = {**INSTALLED, boot.ENABLED: f"->{SYSTEM_UNIT}"}
_WIZARD = {
    "/usr/lib/systemd/system/systemd-firstboot.service": (
        "[Service]\nExecStart=systemd-firstboot --prompt-locale --prompt-timezone\n"
    ),
    "/usr/share/zoneinfo/tzdata.zi": "# version 2024a\n",
    f"{boot.LOCALES}/C.utf8/LC_CTYPE": "",
}
_WAITING = "/usr/lib/systemd/system/systemd-networkd-wait-online.service"
_ONLINE = (
    "[Unit]\nBefore=network-online.target\n[Service]\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n"
)

EXAMPLES: dict[str, Trees] = {
    "ami-tools": Trees(
        failing=_example("1.5.7-1"),
        passing=_example("1.5.19-1"),
    ),
    "ami-tools-path": Trees(
        failing={f"{ami_tools.DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n"},
        passing={
            f"{ami_tools.DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n",
            "/etc/profile.d/aws.sh": "PATH=$PATH:/opt/aws/bin\n",
        },
    ),
    "host-keys": Trees(
        failing={
            "/etc/ssh/sshd_config": "HostKey /etc/keys/host\n",
            "/etc/keys/host": "-----BEGIN OPENSSH PRIVATE KEY-----\nbroken\n",
            "/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA root@builder\n",
        },
        passing={"/etc/ssh/sshd_config": "HostKey /etc/keys/host\n", "/etc/ssh/moduli": "# none\n"},
    ),
    "authorized-keys": Trees(
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/keys/%u .ssh/authorized_keys\n",
            "/etc/keys/gone": "ssh-ed25519 AAAA gone@builder\n",
            "/srv/svc/.ssh/authorized_keys": "# mine\nssh-ed25519 AAAA svc@builder\n",
        },
        passing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/srv/svc/.ssh/authorized_keys": "# none\n",
        },
    ),
    "trusted-logins": Trees(
        failing={"/etc/hosts.equiv": "builder\n"},
        passing={"/etc/hosts.equiv": ""},
    ),
    "publisher": Trees(
        failing={
            "/etc/firstkey/firstkey.conf": "[Image]\nPublisher=Example Ltd.\nContact=a@example.com\n",
            "/usr/lib/os-release": "ID=debian\n",
            publisher.OS_RELEASE: "->../usr/lib/os-release",
        },
        passing={publisher.FILE: 'PUBLISHER="Example Ltd."\n'},
    ),
    "private-keys": Trees(
        failing={
            "/srv/deploy/notes.txt": f"the key is\n{EXAMPLE}",
            "/srv/deploy/notes.txt.pub": "ssh-ed25519 AAAA\n",
            "/usr/share/doc/tls/test.pem": EXAMPLE,
            "/var/lib/dpkg/info/tls.md5sums": f"{'0' * 32}{_SUMS}",
        },
        passing={
            "/srv/deploy/notes.txt": pem("PRIVATE KEY", "(your key here)"),
            "/usr/share/doc/tls/test.pem": EXAMPLE,
            "/var/lib/dpkg/info/tls.md5sums": f"{EXAMPLE_MD5}{_SUMS}",
        },
    ),
    "certificates": Trees(
        failing={"/root/ec2/cert-EXAMPLE.pem": _CERTIFICATE},
        passing={"/etc/ssl/certs/example.pem": _CERTIFICATE},
    ),
    "self-signed-keys": Trees(
        failing={private_keys.PAIRS[0][0]: _KEY, private_keys.PAIRS[0][1]: _CERTIFICATE},
        passing={private_keys.PAIRS[0][1]: _CERTIFICATE},
    ),
    "cloud-credentials": Trees(
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/srv/svc/.aws/credentials": "[default]\naws_secret_access_key = hunter22\n",
            "/opt/deploy/.kube/config": "users:\n- user:\n    token: abc.def\n",
        },
        passing={
            "/root/.aws/config": "[default]\nregion = eu-central-1\n",
            "/root/.kube/config": "users: []\n",
        },
    ),
    "tool-credentials": Trees(
        failing={
            "/root/.docker/config.json": '{"auths": {"registry": {"auth": "dXNlcjpwYXNz"}}}',
            "/home/ann/.netrc": "machine example.com login ann password secret\n",
        },
        passing={
            "/root/.docker/config.json": '{"credsStore": "ecr-login"}',
            "/home/ann/.npmrc": "//registry/:_authToken=${NPM_TOKEN}\n",
        },
    ),
    "system-credentials": Trees(
        failing={
            "/etc/wireguard/wg0.conf": "PrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
            "/etc/ppp/chap-secrets": "client server secret *\n",
        },
        passing={
            "/etc/wireguard/wg0.conf": "[Interface]\nAddress = 10.0.0.1/24\n",
            "/etc/ppp/chap-secrets": "# client server secret addresses\n",
        },
    ),
    "vendor-credentials": Trees(
        failing={"/usr/lib/credstore/database.password": "secret"},
        passing={"/usr/lib/credstore": None},
    ),
    "access-keys": Trees(
        failing={
            "/srv/app/.env": f"AWS_ACCESS_KEY_ID={access_key('AKIA', 'Z7QK3WJT5NP2XR6M')}\n",
            "/root/.profile": (
                f"export AWS_SECRET_ACCESS_KEY={access_key('q7Rz/W2xT9', '+bN4mK8vY3hL6pD1sG5jF0cAeUiOuX')}\n"
            ),
        },
        passing={
            "/srv/app/README": "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE (of AWS's own documentation)\n",
            "/root/.profile": "export AWS_SECRET_ACCESS_KEY=$(cat key)\n",
        },
    ),
    "machine-id": Trees(
        failing=dict.fromkeys((boot.MACHINE_ID, identities.DBUS), "0123456789abcdef0123456789abcdef\n"),
        passing={boot.MACHINE_ID: "uninitialized\n", identities.DBUS: f"->{boot.MACHINE_ID}"},
    ),
    "cloud-init-data": Trees(
        failing={
            f"{identities.DATA}/instances/i-0123456789/user-data.txt": "#!/bin/sh\nTOKEN=...\n",
            identities.LINK: f"->{identities.DATA}/instances/i-0123456789",
            "/var/log/cloud-init.log": "ran\n",
        },
        passing={
            f"{identities.DATA}/instances": None,
            f"{identities.DATA}/scripts/per-boot/mine.sh": "#!/bin/sh\n",
        },
    ),
    "host-identities": Trees(
        failing={identities.INITIATOR: "InitiatorName=iqn.1993-08.org.debian:01:abc\n"},
        passing={identities.INITIATOR: "GenerateName=yes\n"},
    ),
    "network-names": Trees(
        failing={"/etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net"\n'},
        passing={"/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n#HWADDR=0a:00:00:00:00:01\n"},
    ),
    "builder-names": Trees(
        failing={
            identities.HOSTNAME: "ip-10-0-3-17.eu-central-1.compute.internal\n",
            identities.HOSTS: "127.0.0.1 localhost\n10.0.3.17 ip-10-0-3-17\n",
        },
        passing={
            identities.HOSTNAME: "web\n",
            identities.RESOLVERS: "->../run/systemd/resolve/stub-resolv.conf",
        },
    ),
    "host-key-maker": Trees(
        failing={"/usr/sbin/sshd": "", **INSTALLED},
        passing={"/usr/sbin/sshd": "", **WORKING},
    ),
    "key-installer": Trees(
        failing=INSTALLED,
        passing=WORKING,
    ),
    "first-login": Trees(
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
    "first-boot-questions": Trees(
        failing={**_WIZARD, f"{boot.LOCALES}/de_DE.utf8/LC_CTYPE": ""},
        passing={**_WIZARD, "/etc/localtime": "->/usr/share/zoneinfo/Etc/UTC"},
    ),
    "first-boot-waits": Trees(
        failing={_WAITING: _ONLINE},
        passing={
            _WAITING: _ONLINE,
            "/usr/lib/systemd/system-preset/90-off.preset": "disable *-wait-online.service\n",
        },
    ),
    "known-hosts": Trees(
        failing={"/root/.ssh/known_hosts": "host ssh-ed25519 AAAA\n"},
        passing={"/etc/ssh/ssh_known_hosts": "host ssh-ed25519 AAAA\n"},
    ),
    "random-seeds": Trees(
        failing={"/var/lib/systemd/random-seed": b"\0\1\2\3" * 128},
        passing={"/var/lib/systemd": None},
    ),
    "machine-info": Trees(
        failing={"/etc/machine-info": 'PRETTY_HOSTNAME="Ann\'s builder"\n'},
        passing={"/etc/hostname": "web\n"},
    ),
    "boot-entries": Trees(
        failing={
            "/boot/loader/entries/0123456789abcdef0123456789abcdef-6.1.0.conf": "title Linux\n",
            "/etc/kernel/entry-token": "0123456789abcdef0123456789abcdef\n",
        },
        passing={
            "/boot/loader/entries/debian-6.1.0.conf": "title Linux\n",
            "/etc/kernel/entry-token": "debian\n",
        },
    ),
    "firstkey-state": Trees(
        failing={ledger.PATH: "{}\n", ledger.SEALED: "{}\n"},
        passing={ledger.SEALED: "{}\n"},
    ),
    "cloud-init-sshd": Trees(
        failing={residue._CLOUD_INIT_SSHD: "PasswordAuthentication no\n"},
        passing={"/etc/ssh/sshd_config.d/60-cloudimg-settings.conf": "PasswordAuthentication no\n"},
    ),
    "dhcp-leases": Trees(
        failing={
            "/var/lib/dhcp/dhclient.eth0.leases": "lease {\n}\n",
            "/var/lib/dhcpd/dhcpd.leases": "lease\n",
        },
        passing={"/var/lib/dhcp/dhclient.leases": ""},
    ),
    "lvm-devices": Trees(
        failing={"/etc/lvm/devices/system.devices": "IDTYPE=sys_serial IDNAME=vol0123 DEVNAME=/dev/sda3\n"},
        passing={"/etc/lvm/devices": None},
    ),
    "login-records": Trees(
        failing={"/var/log/wtmp": b"\7" * 384, "/var/lib/faillock/admin": b"\7" * 64},
        passing={"/var/log/wtmp": ""},
    ),
    "process-accounting": Trees(
        failing={"/var/account/pacct": b"\0\3", "/var/log/account/pacct.0": b"\0\3"},
        passing={"/var/account/pacct": ""},
    ),
    "crash-dumps": Trees(
        failing={
            "/var/crash/_usr_bin_app.0.crash": "ProblemType: Crash\n",
            "/root/core.4711": residue.CORE_STARTS[0] + b"a password",
        },
        passing={"/var/crash": None, "/root/core": "a text\n"},
    ),
    "mail": Trees(
        failing={"/var/mail/root": "From cron\n\n"},
        passing={"/var/mail/root": ""},
    ),
    "cron-spools": Trees(
        failing={"/var/spool/cron/crontabs/admin": "@hourly /home/admin/upload\n"},
        passing={"/var/spool/cron/crontabs": None, "/etc/cron.d/logrotate": "@daily root logrotate\n"},
    ),
    "sudo-timestamps": Trees(
        failing={"/var/lib/sudo/lectured/1000": ""},
        passing={"/var/lib/sudo/lectured": None},
    ),
    "installer-files": Trees(
        failing={"/root/anaconda-ks.cfg": "rootpw --iscrypted $6$salt$hash\n"},
        passing={"/root/README": "Welcome.\n"},
    ),
    "package-caches": Trees(
        failing={"/var/cache/apt/archives/tool_1.0_all.deb": "!<arch>\n"},
        passing={
            "/var/cache/apt/archives/lock": "",
            "/var/cache/dnf/main/repodata/repomd.xml": "<repomd/>\n",
        },
    ),
    "histories": Trees(
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
            "/root/.bash_history": "export AWS_SECRET_ACCESS_KEY=...\n",
            "/srv/svc/.local/share/fish/fish_history": "- cmd: ls\n",
            "/home/gone/.some_new_shell_history": "ls\n",
            "/etc/profile.d/history.sh": 'export HISTFILE="/var/lib/history/$USER"\n',
            "/var/lib/history/ann": "ls\n",
        },
        passing={
            "/etc/passwd": "root:x:0:0::/root:/bin/bash\n",
            "/root/.bash_history": "",
            "/root/.python_history": "->/dev/null",
        },
    ),
    "logs": Trees(
        failing={
            "/var/log/auth.log": "sshd: Accepted publickey for root from 203.0.113.7\n",
            "/var/log/syslog.2.gz": b"\x1f\x8b\x08",
            f"{traces.DIRECTORY}/journal/0123456789abcdef0123456789abcdef/system.journal": b"LPKSHHRH",
        },
        passing={"/var/log/auth.log": ""},
    ),
    "temporary-files": Trees(
        failing={
            f"{traces.TOPS[0]}build-1234/setup.sh": "export TOKEN=...\n",
            f"{traces.TOPS[1]}.hidden": "x",
        },
        passing={f"{traces.TOPS[0]}.X11-unix": None, traces.TOPS[1]: None},
    ),
    "everything-seen": Trees(
        failing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": "->ann"},
        passing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": None},
    ),
    "root-password": Trees(
        failing={shadow.SHADOW: "root:$6$salt$hash:19000:0:99999:7:::\n"},
        passing={shadow.SHADOW: "root:!$6$salt$hash:19000:0:99999:7:::\n"},
    ),
    "other-passwords": Trees(
        failing={
            shadow.GSHADOW: "wheel:$6$salt$hash::ann\nusers:::ann\n",
            shadow.GROUP: "staff:$6$salt$hash:50:ann\nusers:x:100:ann\n",
            shadow.SHADOW: "admin::19000:0:99999:7:::\nann:$6$salt$hash:19000::::::\n",
        },
        passing={
            shadow.GSHADOW: "wheel:!::ann\nusers:::ann\n",
            shadow.SHADOW: "admin:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
        },
    ),
    "account-files": Trees(
        failing={system_shadow.PASSWD: "root:x:0:0::/root:/bin/sh\nbroken:x:1\ntoor:x:0:0::/root:/bin/sh\n"},
        passing={system_shadow.PASSWD: "root:x:0:0::/root:/bin/sh\n"},
    ),
    "account-backups": Trees(
        failing={f"{shadow.SHADOW}-": "root:$6$salt$hash:19000:0:99999:7:::\n"},
        passing={
            shadow.SHADOW: "root:*:19000:0:99999:7:::\n",
            "/var/backups/groupware.tar": "mine",
        },
    ),
    "debconf-passwords": Trees(
        failing={
            passwords.DEBCONF: "Name: db/password\nTemplate: db/password\nValue: secret\nOwners: db\n\n"
        },
        passing={passwords.DEBCONF: "Name: db/password\nTemplate: db/password\nValue:\nOwners: db\n\n"},
    ),
    "root-password-login": Trees(
        failing={sshd_settings.CONFIG: "PasswordAuthentication yes\nPermitRootLogin yes\n"},
        passing={sshd_settings.CONFIG: "PermitRootLogin prohibit-password\nPermitRootLogin yes\n"},
    ),
    "use-dns": Trees(
        failing={sshd_settings.CONFIG: "UseDNS yes\nMatch User ann\n    X11Forwarding no\n"},
        passing={sshd_settings.CONFIG: "UseDNS no\nUseDNS yes\n"},
    ),
    "password-login": Trees(
        failing={sshd_settings.CONFIG: "KbdInteractiveAuthentication no\nPasswordAuthentication yes\n"},
        passing={sshd_settings.CONFIG: "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"},
    ),
    "root-login": Trees(
        failing={sshd_settings.CONFIG: "PermitRootLogin prohibit-password\n"},
        passing={sshd_settings.CONFIG: "PermitRootLogin no\n"},
    ),
    "launch-user-sudo": Trees(
        failing={
            **WORKING,
            "/etc/firstkey/firstkey.conf": "[Keys]\nUsers=ann\n",
            "/etc/passwd": "ann:x:1000:27::/home/ann:/bin/sh\n",
            "/etc/group": "sudo:x:27:\n",
            "/etc/sudoers": "ann ALL=(ALL) NOPASSWD: ALL\n%sudo ALL=(ALL:ALL) ALL\n",
            marketplace.SUDO: "",
        },
        passing={
            **WORKING,
            "/etc/firstkey/firstkey.conf": "[Keys]\nUsers=ann\n[User ann]\nSudo=ALL=(ALL) NOPASSWD: ALL\n",
            "/etc/sudoers": "%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
            marketplace.SUDO: "",
        },
    ),
    "supported-system": Trees(
        failing={accounts.OS_RELEASE[0]: 'ID=debian\nVERSION_ID="10"\n'},
        passing={accounts.OS_RELEASE[0]: 'ID="amzn"\nVERSION_ID="2023"\nSUPPORT_END="9999-12-31"\n'},
    ),
    "encrypted-disks": Trees(
        failing={credentials.CRYPTTAB: "data UUID=01234567-89ab-cdef-0123-456789abcdef none luks\n"},
        passing={credentials.CRYPTTAB: "# name device key options\nswap /dev/nvme1n1p2 /dev/urandom swap\n"},
    ),
}
