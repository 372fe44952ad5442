"""G9: no credentials in the files where clouds, tools and services keep them.

A line of a table is a place, what is there and, where not every such file has a secret, what makes it one.
`*/` stands before what may lie anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from firstkey.image.places import WIPE, Place, look, places
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.subject import Image
    from firstkey.image.verdict import Verdict

_VALUE = rb"""["']?\s*[:=]\s*["']?(?!\$[{(]|%\(|<|\{\{)[^\s"'#]{3,}"""
"""A value, and no reference to something that is yet to be filled in."""


def holding(*words: str) -> re.Pattern[bytes]:
    """A pattern for any of the words with a value behind it: INI, YAML, JSON or shell, comments aside."""
    either = b"|".join(word.encode() for word in words)
    return re.compile(rb"^[^#;\n]*(?:" + either + rb")" + _VALUE, re.IGNORECASE | re.MULTILINE)


URL = re.compile(rb"://[^/\s:@]+:[^/\s@]+@|https?://[A-Za-z0-9_-]{20,}:?@")
"""A user with a password in an address, or a token alone."""
VARIABLE = (
    rb"\w*(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|(?:APP|API|SECRET|PRIVATE|ACCESS|ENCRYPTION)_?KEY(?:_BASE)?)"
    rb"[ \t]*=[ \t]*[\"']?[^\s\"'#$%<{]{3}"
)
"""A secret in a program's environment, and no reference to something that is yet to be filled in."""
ANYTHING = re.compile(rb"\S")


def _secrets(*rows: tuple[Any, ...], kept: bool = False) -> tuple[Place, ...]:
    return tuple(
        place
        for pattern, what, *holds in rows
        for place in places(what, pattern, how=WIPE, holds=holds[0] if holds else ANYTHING, kept=kept)
    )


# --- clouds ---------------------------------------------------------------------------------------

AWS_KEYS = holding("aws_secret_access_key", "aws_session_token", "secret_key")
CLOUDS = _secrets(
    ("*/.aws/credentials", "the AWS command line's access keys"),
    ("*/.aws/config", "AWS access keys", AWS_KEYS),
    ("*/.boto", "AWS or Google access keys", holding("aws_secret_access_key", "gs_secret\\w{0,40}")),
    ("*/etc/boto.cfg", "AWS access keys", AWS_KEYS),
    ("*/.s3cfg", "s3cmd's access keys", AWS_KEYS),
    ("*/.mc/config.json", "access keys of S3 or MinIO", holding("secretKey")),
    ("*/{.,etc/}passwd-s3fs", "s3fs's access keys"),
    ("*/{.,etc/}ecs/ecs.config", "Docker credentials of ECS", holding("ECS_ENGINE_AUTH_DATA")),
    ("*/.config/gcloud/{credentials.db,application_default_credentials.json}", "Google Cloud's credentials"),
    ("*/.config/gcloud/access_tokens.db", "Google Cloud's access tokens"),
    ("*/.config/gcloud/legacy_credentials/*/{adc.json,.boto}", "Google Cloud's credentials"),
    ("*/.azure/{accessTokens.json,msal_token_cache.json,msal_token_cache.bin}", "Azure's access tokens"),
    ("*/.azure/service_principal_entries.{json,bin}", "Azure's service principals"),
    ("*/.azure/credentials", "Azure's credentials"),
    ("*/.kube/config", "Kubernetes credentials", holding(
        "client-key-data", "token", "password", "id-token", "refresh-token", "client-secret",
    )),
    ("*/etc/kubernetes/{,super-}admin.conf", "Kubernetes credentials"),
    ("*/etc/kubernetes/{,bootstrap-}kubelet.conf", "Kubernetes credentials"),
    ("*/etc/kubernetes/{scheduler,controller-manager}.conf", "Kubernetes credentials"),
    ("*/etc/rancher/k3s/k3s.yaml", "Kubernetes credentials"),
    ("*/var/lib/rancher/k3s/server/{,node-}token", "Kubernetes credentials"),
    ("*/{.config,etc}/openstack/clouds.yaml", "OpenStack credentials", holding("password", "secret")),
    ("*/.config/doctl/config.yaml", "DigitalOcean's access token", holding("access-token")),
    ("*/.config/hcloud/cli.toml", "Hetzner's access token", holding("token")),
    ("*/.config/linode-cli", "Linode's access token", holding("token")),
    ("*/.config/scw/config.yaml", "Scaleway's credentials", holding("secret_key")),
    ("*/.oci/config", "Oracle Cloud's credentials", holding("fingerprint", "pass_phrase")),
    ("*/.aliyun/config.json", "Alibaba Cloud's credentials", holding("access_key_secret")),
    ("*/.bluemix/config.json", "IBM Cloud's tokens", holding("IAMToken", "IAMRefreshToken")),
    ("*/RegistrationKey", "the registration of this machine with Systems Manager"),
    ("~/.aws/{cli,sso,login}/cache/*", "AWS session credentials"),
    ("~/.config/gcloud/legacy_credentials/*/*", "Google Cloud's credentials"),
    ("/var/lib/amazon/ssm/Vault/Store/*", "the registration of this machine with Systems Manager"),
    ("/var/lib/amazon/ssm/runtimeconfig/*", "the identity of this machine with Systems Manager"),
    ("/var/lib/kubelet/pki/*.pem", "Kubernetes credentials"),
)  # fmt: skip

# --- tools ----------------------------------------------------------------------------------------

GIT = re.compile(
    URL.pattern + rb"|^[^#;\n]*extraheader[ \t]*=[ \t\"]*authorization:", re.IGNORECASE | re.MULTILINE
)
ENVIRONMENT = re.compile(rb"^[ \t]*(?:export[ \t]+)?" + VARIABLE, re.IGNORECASE | re.MULTILINE)
AUTH = re.compile(rb'"(?:auth|identitytoken|registrytoken)"\s*:\s*"[^"]{3,}"')
NETRC = re.compile(rb"\b(?:password|passwd)\s+\S+", re.IGNORECASE)
PASSWORD = holding("password", "passwd")
TOKEN = holding("token", "oauth_token", "auth_token", "access_token", "secret")
NPM = re.compile(rb"(?:_authToken|_auth|_password)\s*=\s*[^$\s]", re.IGNORECASE)
BUNDLE = re.compile(rb"^BUNDLE_\S+:\s*\"?[^\s:\"/]+:[^\s:\"/]+\"?\s*$", re.MULTILINE)
COMPOSER = holding("password", "github.com", "token")
GRADLE = holding("password", "token", "secret")
RCLONE = holding("pass", "token", r"secret\w{0,40}")
MAVEN = re.compile(rb"<(?:password|passphrase)>\s*[^<${\s]")
NUGET = re.compile(rb"Password\"\s+value=\"[^\"%]", re.IGNORECASE)
VARIABLES = holding("password", "secret", "token", "secret_?key")
WORDPRESS = re.compile(rb"DB_PASSWORD['\"]\s*,\s*['\"][^'\"]+")
TOOLS = _secrets(
    # containers
    ("*/.docker{/config.json,cfg}", "Docker's registry credentials", AUTH),
    ("*/containers/auth.json", "registry credentials of Podman and its kin", AUTH),
    ("*/var/lib/kubelet/config.json", "registry credentials", AUTH),
    ("*/.config/helm/registry/config.json", "registry credentials of Helm", AUTH),
    ("*/.config/helm/repositories.yaml", "passwords of Helm's archives", PASSWORD),
    # hosts and version control
    ("*/{.netrc,_netrc,etc/netrc,.authinfo}", "passwords for hosts", NETRC),
    ("*/{.git-,.config/git/}credentials", "passwords that git stores"),
    ("*/{.,etc/}gitconfig", "a password for git", GIT),
    ("*/{.config/git,.git,.git/modules/*}/config", "a password for git", GIT),
    ("*/.config/gh/hosts.yml", "GitHub's token", TOKEN),
    ("*/.config/hub", "GitHub's token", TOKEN),
    ("*/.config/glab-cli/config.yml", "GitLab's token", TOKEN),
    ("*/etc/gitlab-runner/config.toml", "GitLab's token", TOKEN),
    ("*/.hgrc", "passwords for repositories", PASSWORD),
    # packages
    ("*/{.,etc/}npmrc", "npm's token or password", NPM),
    ("*/.yarnrc.yml", "Yarn's token", holding("npmAuthToken", "npmAuthIdent")),
    ("*/.pypirc", "PyPI's password or token", PASSWORD),
    ("*/pip.conf", "a password in an address", URL),
    ("*/.config/pypoetry/auth.toml", "Poetry's passwords", holding("password", "pypi-token")),
    ("*/.condarc", "a password in an address", URL),
    ("*/{.,.local/share/}gem/credentials", "RubyGems' key"),
    ("*/.bundle/config", "a password for gems", BUNDLE),
    ("*/.cargo/credentials{,.toml}", "crates.io's token", TOKEN),
    ("*/{.,.config/}composer/auth.json", "Composer's passwords", COMPOSER),
    ("*/.m2/settings.xml", "Maven's passwords", MAVEN),
    ("*/.m2/settings-security.xml", "Maven's master password"),
    ("*/{.nuget,.config}/NuGet/NuGet.Config", "NuGet's passwords", NUGET),
    ("*/.gradle/gradle.properties", "Gradle's passwords", GRADLE),
    ("*/etc/apt/auth.conf", "passwords for package archives", NETRC),
    ("*/etc/apt/sources.list", "a password for a package archive", URL),
    # infrastructure
    ("*/.vault-token", "Vault's token"),
    ("*/.terraformrc", "Terraform's token", TOKEN),
    ("*/.terraform.d/credentials.tfrc.json", "Terraform's token", TOKEN),
    ("*/terraform.tfvars", "values for Terraform, secrets included", VARIABLES),
    ("*/terraform.tfstate{,.backup}", "Terraform's state, secrets included"),
    ("*/.pulumi/credentials.json", "Pulumi's token", TOKEN),
    ("*/.vault{_pass,_pass.txt,_password,-password}", "Ansible's vault password"),
    ("*/{.ansible_vault_pass,vault_pass.txt}", "Ansible's vault password"),
    ("*/etc/chef/encrypted_data_bag_secret", "the key of Chef's data bags"),
    ("*/.circleci/cli.yml", "CircleCI's token", TOKEN),
    ("*/{.config/ngrok,.ngrok2}/ngrok.yml", "ngrok's token", holding("authtoken")),
    ("*/.credentials_rsaparams", "a GitHub runner's key"),
    ("*/.credentials", "a runner's or program's credentials", TOKEN),
    # databases and others
    ("*/.pgpass", "PostgreSQL's passwords"),
    ("*/.my.cnf", "MySQL's password", PASSWORD),
    ("*/.mylogin.cnf", "MySQL's password"),
    ("*/.erlang.cookie", "the secret of an Erlang cluster"),
    ("*/.config/rclone/rclone.conf", "rclone's passwords", RCLONE),
    ("*/.smbcredentials", "a password for a share"),
    ("*/.davfs2/secrets", "passwords for shares"),
    ("*/.fetchmailrc", "passwords for mail", NETRC),
    ("*/.msmtprc", "a password for mail", NETRC),
    ("*/.config/op/config", "1Password's account"),
    ("*/.config/sops/age/keys.txt", "an age key"),
    ("*/.htpasswd", "hashed passwords"),
    ("*/secring.gpg", "GnuPG's private keys"),
    ("*/.snap/auth.json", "the login to the store of snaps"),
    ("*/.env{,.local,.prod,.production}", "a program's password or token", ENVIRONMENT),
    ("*/wp-config.php", "a database's password", WORDPRESS),
    ("~/.gnupg/private-keys-v1.d/*", "a private key (GnuPG)"),
    ("~/.password-store/*.gpg", "a password store"),
    ("~/.local/share/keyrings/*", "a keyring"),
    ("~/.config/Bitwarden CLI/data.json", "Bitwarden's vault"),
    ("/etc/apt/auth.conf.d/*", "passwords for package archives"),
)  # fmt: skip

# --- services -------------------------------------------------------------------------------------

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
SERVICES = _secrets(
    ("*/etc/krb5.keytab", "Kerberos keys"),
    ("*/etc/ppp/{chap,pap}-secrets", "passwords for PPP", CHAP),
    ("*/etc/ipsec.secrets", "keys for IPsec", IPSEC),
    ("*/wpa_supplicant.conf", "a password for a network", holding("psk", "password", "wep_key0")),
    ("*/{etc/samba,var/lib/samba/private}/secrets.tdb", "Samba's machine password"),
    ("*/{etc/samba,var/lib/samba/private}/{passdb.tdb,smbpasswd}", "Samba's hashed passwords", SAMBA),
    ("*/etc/postfix/sasl_passwd", "a password for mail"),
    ("*/etc/exim4/passwd.client", "a password for mail", EXIM),
    ("*/etc/msmtprc", "a password for mail", re.compile(rb"^[ \t]*password\s+\S", re.MULTILINE)),
    ("*/etc/iscsi/iscsid.conf", "a password for storage", ISCSI),
    ("*/etc/{,pam_}ldap.secret", "a password for LDAP"),
    ("*/etc/{,bind/}rndc.key", "the key of a name server"),
    ("*/etc/{munge/munge.key,corosync/authkey}", "the key of a cluster"),
    ("*/var/lib/tailscale/tailscaled.state", "the node's key for Tailscale"),
    ("*/var/lib/zerotier-one/identity.secret", "the node's key for ZeroTier"),
    ("*/etc/datadog-agent/datadog.yaml", "Datadog's key", holding("api_key")),
    ("*/etc/newrelic-infra.yml", "New Relic's key", holding("license_key")),
    ("*/var/lib/jenkins/secrets/master.key", "Jenkins's key"),
    ("*/etc/{my.cnf,mysql/debian.cnf}", "a database's password", MYSQL),
    ("*/etc/openvpn/auth.txt", "a password for a VPN"),
    ("/tmp/krb5cc_*", "a Kerberos ticket"),  # noqa: S108 - looked at, never written
    ("/etc/{,*/}*.keytab", "Kerberos keys"),
    ("/etc/zypp/credentials.d/*", "a password for a package archive"),
    ("/var/lib/sss/secrets/*", "secrets of SSSD"),
    ("/var/lib/sss/db/cache_*", "accounts and hashed passwords of a directory"),
    ("/var/lib/sss/db/ccache_*", "a Kerberos ticket"),
    ("/var/spool/{cron/atjobs,at}/*", "a job of at, with all that was in its maker's environment,"),
    ("/etc/wireguard/*.conf", "a WireGuard key", holding("PrivateKey", "PresharedKey")),
    ("/etc/wireguard/{*priv*,*psk*,*.key,*/*priv*}", "a WireGuard key", WIREGUARD),
    ("~/{*privatekey*,w*g*/*priv*}", "a WireGuard key", WIREGUARD),
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
    ("/etc/{*ldap.conf,*ldap/ldap.conf}", "a password for a directory", LDAP),
    ("/etc/{,strongswan/}swanctl/{,conf.d/}*.conf", "keys for IPsec", SWANCTL),
    ("/etc/{yum.repos.d/*.repo,apt/sources.list.d/*}", "a password for a package archive", URL),
    ("/etc/{apt/apt.conf,apt/apt.conf.d/*,dnf/dnf.conf,yum.conf}", "a password for a proxy", URL),
    ("/etc/{environment,profile.d/*,wgetrc}", "a password for a proxy", URL),
    ("~/.{wget,curl}rc", "a password for a proxy", URL),
    ("/etc/credstore/*", "a credential for a service", re.compile(rb".", re.DOTALL)),
    ("/etc/cups/*.conf", "a password for a printer", URL),
)  # fmt: skip
# What the system may not do without: only reported.
KEPT = _secrets(
    ("/etc/fstab", "a password for a share", SHARE),
    ("/etc/cryptsetup-keys.d/*.key", "the key of an encrypted disk", ANYTHING),
    ("/etc/systemd/system/{*.service,*.d/*.conf}", "a service's password or token", UNIT),
    kept=True,
)


CRYPTTAB = "/etc/crypttab"


def crypttab(image: Image) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line: a disk's name, its device, and perhaps its key's file (crypttab(5))."""
    content = (image.read(CRYPTTAB) or b"").decode("utf-8", "surrogateescape")
    for number, line in enumerate(content.split("\n"), 1):
        words = line.split()
        if len(words) > 1 and not words[0].startswith("#"):
            yield number, words


def disk_keys(image: Image) -> Verdict:
    """The keys that crypttab names, but for devices and what is on another disk: reported as well."""
    named = (word for _, words in crypttab(image) for word in words[2:3])
    files = (
        path for path in named if path.startswith("/") and not path.startswith("/dev/") and ":" not in path
    )
    return look(image, _secrets(*((path, "the key of an encrypted disk") for path in files), kept=True))


RULES = (
    Rule(
        id="cloud-credentials",
        title="There are no credentials of clouds",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "The rule checks the credential files of the command lines of AWS (Systems Manager and "
            "ECS included), Google Cloud, Azure, Kubernetes and other clouds, in every home and in "
            "every other place with such a file. A configuration without a secret in it passes. seal "
            "overwrites and removes them."
        ),
        places=CLOUDS,
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/srv/svc/.aws/credentials": "[default]\naws_access_key_id = A\n",
            "/opt/deploy/.kube/config": "users:\n- user:\n    token: abc.def\n",
        },
        passing={
            "/root/.aws/config": "[default]\nregion = eu-central-1\n",
            "/root/.kube/config": "users: []\n",
        },
    ),
    Rule(
        id="tool-credentials",
        title="There are no credentials of tools",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "The rule checks the files in which Docker, git, netrc's users, npm, PyPI and other "
            "package managers, Vault, Terraform, databases, mail programs and many more keep "
            "passwords and tokens, and programs' .env files, in every home and in every other place "
            "with such a file. A file of that name without a secret in it passes. seal overwrites and "
            "removes them."
        ),
        places=TOOLS,
        failing={
            "/root/.docker/config.json": '{"auths": {"registry": {"auth": "dXNlcjpwYXNz"}}}',
            "/home/ann/.netrc": "machine example.com login ann password secret\n",
        },
        passing={
            "/root/.docker/config.json": '{"credsStore": "ecr-login"}',
            "/home/ann/.npmrc": "//registry/:_authToken=${NPM_TOKEN}\n",
        },
    ),
    Rule(
        id="system-credentials",
        title="There are no credentials of services",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "The rule checks the credentials of the system's services: keys of WireGuard and other "
            "private networks, passwords for wireless networks, PPP, mail, directories, databases, "
            "storage and package archives, Samba's hashed passwords, Kerberos keys and tickets, the "
            "keys of monitoring agents, and at's jobs, which hold the whole environment of their "
            "authors. seal overwrites and removes such files; those that the system needs "
            "(/etc/fstab, units, the keys of encrypted disks) are only reported."
        ),
        places=(*SERVICES, *KEPT),
        check=disk_keys,
        failing={
            "/etc/wireguard/wg0.conf": "PrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
            "/etc/ppp/chap-secrets": "client server secret *\n",
        },
        passing={
            "/etc/wireguard/wg0.conf": "[Interface]\nAddress = 10.0.0.1/24\n",
            "/etc/ppp/chap-secrets": "# client server secret addresses\n",
        },
    ),
    Rule(
        id="vendor-credentials",
        title="There are no credentials for systemd's services",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "systemd gives the content of its credential stores to the services that ask for it by "
            "name. The rule checks the vendor's stores and the encrypted ones; /etc/credstore is one "
            "of the places of system-credentials. A credential that is encrypted with a null key is "
            "open to every reader, and one that is encrypted with one machine's secret is useless to "
            "another. seal removes them."
        ),
        places=places(
            "a credential for a service",
            "/usr/{,local/}lib/credstore{,.encrypted}/*",
            "/etc/credstore.encrypted/*",
        ),
        failing={"/usr/lib/credstore/database.password": "secret"},
        passing={"/usr/lib/credstore": None},
    ),
)
