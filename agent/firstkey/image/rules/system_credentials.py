"""G9: no credentials of the system's own services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import credential_files
from firstkey.image.credential_files import ANYTHING, URL, VARIABLE, Credential, holding
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image
    from firstkey.image.verdict import Verdict

KIND = "system-credentials"
CHAP = re.compile(rb"^[ \t]*[^#\s]+\s+\S+\s+\S+", re.MULTILINE)
IPSEC = re.compile(rb"^[^#\n]*:\s*(?:PSK|EAP|XAUTH)\b", re.MULTILINE)
EXIM = re.compile(rb"^[^#\s][^:\n]*:[^:\n]*:", re.MULTILINE)
ISCSI = re.compile(rb"^[ \t]*node\.\S{0,80}password\s*=", re.MULTILINE)
# One line, as wg genkey and genpsk write it; a public key looks the same, so the name has to tell.
WIREGUARD = re.compile(rb"\A[A-Za-z0-9+/]{43}=\s*\Z")
MYSQL = re.compile(rb"^[ \t]*password[ \t]*=[ \t]*[^\s#]", re.MULTILINE)
SHARE = re.compile(rb"^[^#\n]*[\s,]pass(?:word|wd)?=[^,\s]", re.MULTILINE)  # mount.cifs(8), mount.davfs(8)
LDAP = re.compile(rb"^[ \t]*(?:bindpw|rootpwmodpw)[ \t]+\S", re.IGNORECASE | re.MULTILINE)
SWANCTL = re.compile(rb"^[^#\n]*\bsecret\w*[ \t]*=[ \t]*[^\s#]", re.MULTILINE)
SAMBA = re.compile(rb"USER_\w|:[0-9A-F]{32}:")  # of passdb.tdb and smbpasswd(5)
UNIT = re.compile(rb"^[ \t]*Environment=[^\n]*(?<!\w)" + VARIABLE, re.IGNORECASE | re.MULTILINE)
# crypttab(5): a name, a device, and the file with its key.
DISK_KEY = re.compile(rb"^[ \t]*[^#\s]\S*[ \t]+\S+[ \t]+(/(?!dev/)[^\s:]+)(?!\S)", re.MULTILINE)
TABLE = (
    Credential("etc/krb5.keytab", "Kerberos keys"),
    Credential("etc/ppp/chap-secrets", "passwords for PPP", CHAP),
    Credential("etc/ppp/pap-secrets", "passwords for PPP", CHAP),
    Credential("etc/ipsec.secrets", "keys for IPsec", IPSEC),
    Credential("wpa_supplicant.conf", "a password for a network", holding("psk", "password", "wep_key0")),
    Credential("etc/samba/secrets.tdb", "Samba's machine password"),
    Credential("var/lib/samba/private/secrets.tdb", "Samba's machine password"),
    Credential("etc/samba/passdb.tdb", "Samba's hashed passwords", SAMBA),
    Credential("var/lib/samba/private/passdb.tdb", "Samba's hashed passwords", SAMBA),
    Credential("etc/samba/smbpasswd", "Samba's hashed passwords", SAMBA),
    Credential("var/lib/samba/private/smbpasswd", "Samba's hashed passwords", SAMBA),
    Credential("etc/postfix/sasl_passwd", "a password for mail"),
    Credential("etc/exim4/passwd.client", "a password for mail", EXIM),
    Credential("etc/msmtprc", "a password for mail", re.compile(rb"^[ \t]*password\s+\S", re.MULTILINE)),
    Credential("etc/iscsi/iscsid.conf", "a password for storage", ISCSI),
    Credential("etc/ldap.secret", "a password for LDAP"),
    Credential("etc/pam_ldap.secret", "a password for LDAP"),
    Credential("etc/rndc.key", "the key of a name server"),
    Credential("etc/bind/rndc.key", "the key of a name server"),
    Credential("etc/munge/munge.key", "the key of a cluster"),
    Credential("etc/corosync/authkey", "the key of a cluster"),
    Credential("var/lib/tailscale/tailscaled.state", "the node's key for Tailscale"),
    Credential("var/lib/zerotier-one/identity.secret", "the node's key for ZeroTier"),
    Credential("etc/datadog-agent/datadog.yaml", "Datadog's key", holding("api_key")),
    Credential("etc/newrelic-infra.yml", "New Relic's key", holding("license_key")),
    Credential("var/lib/jenkins/secrets/master.key", "Jenkins's key"),
    Credential("etc/my.cnf", "a database's password", MYSQL),
    Credential("etc/mysql/debian.cnf", "a database's password", MYSQL),
    Credential("etc/openvpn/auth.txt", "a password for a VPN"),
)  # fmt: skip
PLACES = (
    ("/tmp/krb5cc_*", "a Kerberos ticket"),  # noqa: S108 - looked at, never written
    ("/etc/*.keytab", "Kerberos keys"),
    ("/etc/*/*.keytab", "Kerberos keys"),
    ("/etc/zypp/credentials.d/*", "a password for a package archive"),
    ("/var/lib/sss/secrets/*", "secrets of SSSD"),
    ("/var/lib/sss/db/cache_*", "accounts and hashed passwords of a directory"),
    ("/var/lib/sss/db/ccache_*", "a Kerberos ticket"),
    ("/var/spool/cron/atjobs/*", "a job of at, with all that was in its maker's environment,"),
    ("/var/spool/at/*", "a job of at, with all that was in its maker's environment,"),
)
CONTENT = (
    ("/etc/wireguard/*.conf", "a WireGuard key", holding("PrivateKey", "PresharedKey")),
    ("/etc/wireguard/*priv*", "a WireGuard key", WIREGUARD),
    ("/etc/wireguard/*psk*", "a WireGuard key", WIREGUARD),
    ("/etc/wireguard/*.key", "a WireGuard key", WIREGUARD),
    ("/etc/wireguard/*/*priv*", "a WireGuard key", WIREGUARD),
    ("~/*privatekey*", "a WireGuard key", WIREGUARD),
    ("~/w*g*/*priv*", "a WireGuard key", WIREGUARD),
    ("/etc/systemd/network/*.netdev", "a WireGuard key", holding("PrivateKey", "PresharedKey")),
    (
        "/etc/NetworkManager/system-connections/*",
        "a password for a network",
        holding("psk", "password", "wep-key0"),
    ),
    ("/etc/netplan/*.yaml", "a password for a network", holding("password", "key")),
    ("/etc/wpa_supplicant/*.conf", "a password for a network", holding("psk", "password")),
    ("/etc/sssd/sssd.conf", "a password for a directory", holding("ldap_default_authtok")),
    ("/etc/nslcd.conf", "a password for a directory", LDAP),
    ("/etc/*ldap.conf", "a password for a directory", LDAP),
    ("/etc/*ldap/ldap.conf", "a password for a directory", LDAP),
    ("/etc/swanctl/*.conf", "keys for IPsec", SWANCTL),
    ("/etc/swanctl/conf.d/*.conf", "keys for IPsec", SWANCTL),
    ("/etc/strongswan/swanctl/*.conf", "keys for IPsec", SWANCTL),
    ("/etc/strongswan/swanctl/conf.d/*.conf", "keys for IPsec", SWANCTL),
    ("/etc/yum.repos.d/*.repo", "a password for a package archive", URL),
    ("/etc/apt/sources.list.d/*", "a password for a package archive", URL),
    ("/etc/apt/apt.conf", "a password for a proxy", URL),
    ("/etc/apt/apt.conf.d/*", "a password for a proxy", URL),
    ("/etc/dnf/dnf.conf", "a password for a proxy", URL),
    ("/etc/yum.conf", "a password for a proxy", URL),
    ("/etc/environment", "a password for a proxy", URL),
    ("/etc/profile.d/*", "a password for a proxy", URL),
    ("/etc/wgetrc", "a password for a proxy", URL),
    ("~/.wgetrc", "a password for a proxy", URL),
    ("~/.curlrc", "a password for a proxy", URL),
    ("/etc/credstore/*", "a credential for a service", re.compile(rb".", re.DOTALL)),
    ("/etc/cups/*.conf", "a password for a printer", URL),
)
# What the system may not do without: only reported.
KEPT = (
    ("/etc/fstab", "a password for a share", SHARE),
    ("/etc/cryptsetup-keys.d/*.key", "the key of an encrypted disk", ANYTHING),
    ("/etc/systemd/system/*.service", "a service's password or token", UNIT),
    ("/etc/systemd/system/*.d/*.conf", "a service's password or token", UNIT),
)


def check(image: Image) -> Verdict:
    """All of these, and the keys that crypttab names."""
    kept = (*KEPT, *((path, "the key of an encrypted disk", ANYTHING) for path in _disk_keys(image)))
    return credential_files.checker(KIND, TABLE, PLACES, (*CONTENT, *kept))(image)


def _disk_keys(image: Image) -> list[str]:
    named = DISK_KEY.findall(image.read("/etc/crypttab") or b"")
    return [path.decode("utf-8", "surrogateescape") for path in named]


def _failing(tree: Builder) -> None:
    tree.file(
        "/etc/wireguard/wg0.conf", "[Interface]\nPrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
    )
    tree.file("/etc/ppp/chap-secrets", "client server secret *\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/wireguard/wg0.conf", "[Interface]\nAddress = 10.0.0.1/24\n")
    tree.file("/etc/ppp/chap-secrets", "# client server secret addresses\n", mode=0o600)


RULE = Rule(
    id="system-credentials",
    title="There are no credentials of services",
    guideline="G9",
    severity=ERROR,
    prose=(
        "What services of the system log in with: keys of WireGuard and other private networks, passwords "
        "for wireless networks, PPP, mail, directories, databases, storage and package archives, Samba's "
        "hashed passwords, Kerberos keys and tickets, the keys of monitoring agents, and at's jobs with the "
        "whole environment of who made them. seal overwrites and removes such files only with "
        "--remove-credentials; what the system may not do without (/etc/fstab, units, the keys of encrypted "
        "disks) is only reported."
    ),
    check=check,
    remedy=credential_files.remover(KIND, TABLE, PLACES, CONTENT),
    failing=_failing,
    passing=_passing,
    watches=(credential_files.named(KIND, TABLE),),
    option=CREDENTIALS,
)
