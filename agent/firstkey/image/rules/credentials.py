"""G9: no credentials in the files where clouds, tools and services keep them, and no access keys anywhere.

A line of a table is a place, what is there and, where not every such file has a secret, what makes it one.
`*/` stands before what may lie anywhere.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from firstkey.image import examples, key_formats, secrets
from firstkey.image.places import WIPE, Place, look
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.scan import Needle, Sighting
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, Part, Unknown, Verdict

_REAL = rb"(?!\$[{(]|%\(|<|\{\{|(?i:change_?me|your[_-]|password_here))"
"""No reference to something that is yet to be filled in, and no word that stands for it."""
_VALUE = rb"""["']?\s*[:=]\s*["']?""" + _REAL + rb"""[^\s"'#]{3,}"""


def holding(*words: str) -> re.Pattern[bytes]:
    """A pattern for any of the words with a value behind it: INI, YAML, JSON or shell, comments aside."""
    either = b"|".join(word.encode() for word in words)
    return re.compile(rb"^[^#;\n]*(?:" + either + rb")" + _VALUE, re.IGNORECASE | re.MULTILINE)


URL = re.compile(rb"://[^/\s:@]*:(?!(?i:password@))" + _REAL + rb"[^/\s@]+@|https?://[A-Za-z0-9_-]{20,}:?@")
"""A user with a password in an address, or a token alone."""
VARIABLE = (
    rb"\w*(?:PASSWORD|PASSWD|(?<![A-Z])PASS|(?<=_)PWD|PASSPHRASE|SECRET|TOKEN"
    rb"|(?:APP|API|SECRET|PRIVATE|ACCESS|ENCRYPTION)_?KEY(?:_BASE)?)"
    rb"[ \t]*=[ \t]*[\"']?" + _REAL + rb"[^\s\"'#$%<{]{3}"
)
"""A secret in a program's environment."""
ANYTHING = re.compile(rb"^[^\S\n]*(?:[^#\s]|#[^#\s])", re.MULTILINE)  # but for comments


def _secrets(*rows: tuple[Any, ...], kept: bool = False) -> tuple[Place, ...]:
    return tuple(
        Place(pattern, what, WIPE, holds[0] if holds else ANYTHING, kept) for pattern, what, *holds in rows
    )


# --- clouds ---------------------------------------------------------------------------------------

AWS_KEYS = holding("aws_secret_access_key", "aws_session_token", "secret_key")
KUBERNETES = holding("client-key-data", "token", "password", "client-secret")
CLOUDS = _secrets(
    ("*/.aws/credentials", "the AWS command line's access keys",
     holding("aws_access_key_id", "aws_secret_access_key", "aws_session_token")),
    ("*/{.aws/config,etc/boto.cfg}", "AWS access keys", AWS_KEYS),
    ("*/.boto", "AWS or Google access keys", holding("aws_secret_access_key", "gs_\\w{0,40}")),
    ("*/.s3cfg", "s3cmd's access keys", AWS_KEYS),
    ("*/.mc/config.json", "access keys of S3 or MinIO", holding("secretKey")),
    ("*/{.,etc/}passwd-s3fs", "s3fs's access keys"),
    ("*/{.,etc/}ecs/ecs.config", "Docker credentials of ECS", re.compile(rb"(?m)^ECS_\w+_DATA=\S{4}")),
    ("*/.config/gcloud/{credentials.db,application_default_credentials.json}", "Google Cloud's credentials"),
    ("*/.config/gcloud/access_tokens.db", "Google Cloud's access tokens"),
    ("{*/.config/gcloud/legacy_credentials/*/{adc.json,.boto},~/.config/gcloud/legacy_credentials/*/*}",
     "Google Cloud's credentials"),
    ("*/.azure/{accessTokens.json,msal_token_cache.json,msal_token_cache.bin}", "Azure's access tokens"),
    ("*/.azure/service_principal_entries.{json,bin}", "Azure's service principals"),
    ("*/.azure/credentials", "Azure's credentials"),
    ("*/{.kube/config,var/lib/kubelet/kubeconfig}", "Kubernetes credentials", KUBERNETES),
    ("*/etc/kubernetes/{{,super-}admin,{,bootstrap-}kubelet,scheduler,controller-manager}.conf",
     "Kubernetes credentials", KUBERNETES),
    ("{*/{etc/rancher/{k3s/k3s.yaml,node/password},var/lib/rancher/k3s/server/{,node-}token},/var/lib/kubelet/pki/*.pem}",
     "Kubernetes credentials"),
    ("*/{.config,etc}/openstack/clouds.yaml", "OpenStack credentials", holding("password", "secret")),
    ("*/.config/doctl/config.yaml", "DigitalOcean's access token", holding("access-token")),
    ("*/.config/hcloud/cli.toml", "Hetzner's access token", holding("token")),
    ("*/.config/linode-cli", "Linode's access token", holding("token")),
    ("*/.config/scw/config.yaml", "Scaleway's credentials", holding("secret_key")),
    ("*/.oci/config", "Oracle Cloud's credentials", holding("fingerprint", "pass_phrase")),
    ("*/.aliyun/config.json", "Alibaba Cloud's credentials", holding("access_key_secret")),
    ("*/.bluemix/config.json", "IBM Cloud's tokens", holding("IAMToken", "IAMRefreshToken")),
    ("{*/RegistrationKey,/var/lib/amazon/ssm/Vault/Store/*}",
     "the registration of this machine with Systems Manager"),
    ("~/.aws/{cli,sso,login}/cache/*", "AWS session credentials"),
    ("/var/lib/amazon/ssm/runtimeconfig/*", "the identity of this machine with Systems Manager"),
)  # fmt: skip

# --- tools ----------------------------------------------------------------------------------------

GIT = re.compile(
    URL.pattern + rb"|^[^#;\n]*extraheader[ \t]*=[ \t\"]*authorization:", re.IGNORECASE | re.MULTILINE
)
ENVIRONMENT = re.compile(rb"^[ \t]*(?:export[ \t]+)?" + VARIABLE, re.IGNORECASE | re.MULTILINE)
AUTH = re.compile(rb'"(?:auth|identitytoken|registrytoken)"\s*:\s*"[^"]{3,}"')
NETRC = re.compile(rb"\bpass(?:word|wd)?\s+\S+", re.IGNORECASE)
PASSWORD = holding("password", "passwd")
TOKEN = holding("token", "secret")
NPM = re.compile(rb"(?:_authToken|_auth|_password)\s*=\s*[^$\s]", re.IGNORECASE)
BUNDLE = re.compile(rb"^BUNDLE_\S+:\s*\"?[^\s:\"/]+:[^\s:\"/]+\"?\s*$", re.MULTILINE)
MAVEN = re.compile(rb"<(?:password|passphrase)>\s*[^<${\s]")
NUGET = re.compile(rb"Password\"\s+value=\"[^\"%]", re.IGNORECASE)
VARIABLES = holding("password", "secret", "token", "secret_?key")
WORDPRESS = re.compile(rb"DB_PASSWORD['\"]\s*,\s*['\"]" + _REAL + rb"[^'\"]+")
SETTING = re.compile(rb"^[ \t]*pass(?:word|wd)?[ \t]*=[ \t]*[^\s#]", re.IGNORECASE | re.MULTILINE)
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
    ("*/{{.,etc/}gitconfig,{.config/git,.git,.git/modules/*}/config}", "a password for git", GIT),
    ("*/.config/{gh/hosts.yml,hub}", "GitHub's token", TOKEN),
    ("*/{.config/glab-cli/config.yml,etc/gitlab-runner/config.toml}", "GitLab's token", TOKEN),
    ("*/.hgrc", "passwords for repositories", PASSWORD),
    # packages
    ("*/{.,etc/}npmrc", "npm's token or password", NPM),
    ("*/.yarnrc.yml", "Yarn's token", holding("npmAuthToken", "npmAuthIdent")),
    ("*/.pypirc", "PyPI's password or token", PASSWORD),
    ("*/{pip.conf,.condarc}", "a password in an address", URL),
    ("*/.config/pypoetry/auth.toml", "Poetry's passwords", holding("password", "pypi-token")),
    ("*/{.,.local/share/}gem/credentials", "RubyGems' key"),
    ("*/.bundle/config", "a password for gems", BUNDLE),
    ("*/.cargo/credentials{,.toml}", "crates.io's token", TOKEN),
    ("*/{.,.config/}composer/auth.json", "Composer's passwords", holding("password", "github.com", "token")),
    ("*/.m2/settings.xml", "Maven's passwords", MAVEN),
    ("*/.m2/settings-security.xml", "Maven's master password"),
    ("*/{.nuget,.config}/NuGet/NuGet.Config", "NuGet's passwords", NUGET),
    ("*/.gradle/gradle.properties", "Gradle's passwords", holding("password", "token", "secret")),
    ("*/etc/apt/auth.conf", "passwords for package archives", NETRC),
    ("*/etc/apt/sources.list", "a password for a package archive", URL),
    # infrastructure
    ("*/.vault-token", "Vault's token"),
    ("*/{.terraformrc,.terraform.d/credentials.tfrc.json}", "Terraform's token", TOKEN),
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
    ("*/.{config/rclone/,}rclone.conf", "rclone's passwords", holding("pass", "token", r"secret\w{0,40}")),
    ("{*/.smbcredentials,/etc/{,samba/}*cred*}", "a password for a share", SETTING),
    ("*/{.,etc/}davfs2/secrets", "passwords for shares"),
    ("*/{.,etc/}fetchmailrc", "passwords for mail", NETRC),
    ("*/.msmtprc", "a password for mail", NETRC),
    ("*/.config/op/config", "1Password's account"),
    ("*/.config/sops/age/keys.txt", "an age key"),
    ("*/.htpasswd", "hashed passwords"),
    ("*/secring.gpg", "GnuPG's private keys"),
    ("*/.snap/auth.json", "the login to the store of snaps"),
    ("*/.env{,.local,.prod,.production}", "a program's password or token", ENVIRONMENT),
    ("*/.env{,.local,.prod,.production}", "a password in an address", URL),
    ("*/wp-config.php", "a database's password", WORDPRESS),
    ("~/.gnupg/private-keys-v1.d/*", "a private key (GnuPG)"),
    ("~/.password-store/*.gpg", "a password store"),
    ("~/.local/share/{keyrings,kwalletd}/*", "a keyring"),
    ("~/.config/Bitwarden CLI/data.json", "Bitwarden's vault"),
    ("/etc/apt/auth.conf.d/*", "passwords for package archives"),
)  # fmt: skip

# --- services -------------------------------------------------------------------------------------

CHAP = re.compile(rb"^[ \t]*[^#\s]+\s+\S+\s+\S+", re.MULTILINE)
IPSEC = re.compile(rb"^[^#\n]*:\s*(?:PSK|EAP|XAUTH)\b", re.MULTILINE)
EXIM = re.compile(rb"^[^#\s][^:\n]*:[^:\n]*:", re.MULTILINE)
ISCSI = re.compile(rb"^[ \t]*node\.\S{0,80}password\s*=", re.MULTILINE)
# One line, as wg genkey and genpsk write it; a public key looks the same, so the name decides.
WIREGUARD = re.compile(rb"\A[A-Za-z0-9+/]{43}=\s*\Z")
MAIL = re.compile(rb"^[^#\n]*(?:\||\"P:|--pass=|\bAuthPass[ \t]*=[ \t]*)\S", re.IGNORECASE | re.MULTILINE)
AIR = re.compile(rb"^[ \t]*(?:wpa-psk|Passphrase|PreSharedKey)[ \t=]+\S", re.MULTILINE)  # interfaces(5), iwd
ARCHIVE = re.compile(URL.pattern + rb"|^[ \t]*(?:\w+_)?password[ \t]*=[ \t]*[^\s#$]", re.MULTILINE)
SHARE = re.compile(rb"^[^#\n]*[\s,]pass(?:word|wd)?=[^,\s]", re.MULTILINE)  # mount.cifs(8), mount.davfs(8)
LDAP = re.compile(rb"^[ \t]*(?:bindpw|rootpwmodpw)[ \t]+\S", re.IGNORECASE | re.MULTILINE)
SWANCTL = re.compile(rb"^[^#\n]*\bsecret\w*[ \t]*=[ \t]*[^\s#]", re.MULTILINE)
SAMBA = re.compile(rb"USER_\w|:[0-9A-F]{32}:")  # of passdb.tdb and smbpasswd(5)
UNIT = re.compile(rb"^[ \t]*Environment=[^\n]*(?<!\w)" + VARIABLE, re.IGNORECASE | re.MULTILINE)
SERVICES = _secrets(
    ("{*/etc/krb5.keytab,/etc/{,*/}*.keytab}", "Kerberos keys"),
    ("*/etc/ppp/{chap,pap}-secrets", "passwords for PPP", CHAP),
    ("{*/etc/{,strongswan/}ipsec.secrets,/etc/ipsec.d/*.secrets}", "keys for IPsec", IPSEC),
    ("*/wpa_supplicant.conf", "a password for a network", holding("psk", "password", "wep_key0")),
    ("*/{etc/samba,var/lib/samba/private}/secrets.tdb", "Samba's machine password"),
    ("*/{etc/samba,var/lib/samba/private}/{passdb.tdb,smbpasswd}", "Samba's hashed passwords", SAMBA),
    ("*/etc/postfix/{,sasl/}sasl_passwd{,.db,.lmdb}", "a password for mail"),
    ("*/etc/{dma/auth.conf,mail/authinfo,nullmailer/remotes,ssmtp/ssmtp.conf}", "a password for mail", MAIL),
    ("*/etc/exim4/passwd.client", "a password for mail", EXIM),
    ("*/etc/msmtprc", "a password for mail", re.compile(rb"^[ \t]*password\s+\S", re.MULTILINE)),
    ("{*/etc/iscsi/iscsid.conf,/{etc,var/lib}/iscsi/nodes/*/*{,/*}}", "a password for storage", ISCSI),
    ("*/etc/{,pam_}ldap.secret", "a password for LDAP"),
    ("*/etc/{,bind/}rndc.key", "the key of a name server"),
    ("*/etc/{munge/munge.key,corosync/authkey}", "the key of a cluster"),
    ("/etc/ceph/*{keyring,.secret}", "a key for storage"),
    ("*/var/lib/tailscale/tailscaled.state", "the node's key for Tailscale"),
    ("*/var/lib/zerotier-one/identity.secret", "the node's key for ZeroTier"),
    ("*/etc/datadog-agent/datadog.yaml", "Datadog's key", holding("api_key")),
    ("*/etc/newrelic-infra.yml", "New Relic's key", holding("license_key")),
    ("{*/etc/auth/splunk.secret,/opt/Elastic/Agent/fleet.enc,/var/ossec/etc/client.keys}", "an agent's key"),
    ("*/var/lib/jenkins/secrets/master.key", "Jenkins's key"),
    ("*/etc/{my.cnf,mysql/debian.cnf}", "a database's password", SETTING),
    ("*/etc/openvpn/auth.txt", "a password for a VPN"),
    ("{/tmp/krb5cc_*,/var/lib/sss/db/ccache_*}", "a Kerberos ticket"),
    ("/etc/zypp/credentials.d/*", "a password for a package archive"),
    ("/var/lib/sss/secrets/*", "secrets of SSSD"),
    ("/var/lib/sss/db/cache_*", "accounts and hashed passwords of a directory"),
    ("/var/spool/{cron/atjobs,at}/*", "a job of at, with all that was in its maker's environment,"),
    ("/etc/{wireguard/*.conf,systemd/network/*.netdev,NetworkManager/system-connections/*}",
     "a WireGuard key", re.compile(rb"(?im)^[ \t]*(?:private|preshared)-?key\s*=\s*[A-Za-z0-9+/]{43}=")),
    ("/etc/wireguard/{*priv*,*psk*,*.key,*/*priv*}", "a WireGuard key", WIREGUARD),
    ("~/{*privatekey*,w*g*/*priv*}", "a WireGuard key", WIREGUARD),
    ("/etc/NetworkManager/system-connections/*", "a password for a network",
     holding("psk", "password", "wep-key0")),
    ("/etc/netplan/*.yaml", "a password for a network", holding("password", "key")),
    ("/etc/{wpa_supplicant,hostapd}/*.conf", "a password for a network", holding("psk", "pass\\w{0,40}")),
    ("/etc/sssd/sssd.conf", "a password for a directory", holding("ldap_default_authtok")),
    ("/etc/{nslcd.conf,*ldap.conf,*ldap/ldap.conf}", "a password for a directory", LDAP),
    ("/etc/{,strongswan/}swanctl/{,conf.d/}*.conf", "keys for IPsec", SWANCTL),
    ("/etc/{{yum.,zypp/}repos.d/*.repo,apt/sources.list.d/*}", "a password for a package archive", ARCHIVE),
    ("{/etc/{{apt/apt,dnf/dnf,yum}.conf,{apt/apt.conf,profile}.d/*,environment,wgetrc,apk/repositories},~/.{wget,curl}rc}",
     "a password for a proxy", ARCHIVE),
    ("/etc/credstore/*", "a credential for a service", re.compile(rb".", re.DOTALL)),
    ("/etc/cups/*.conf", "a password for a printer", URL),
)  # fmt: skip
# What the system may not do without: only reported.
KEPT = _secrets(
    ("/etc/{fstab,systemd/system/*.mount}", "a password for a share", SHARE),
    ("{/etc/network/interfaces{,.d/*},/var/lib/iwd/*.psk}", "a password for a network", AIR),
    ("/etc/cryptsetup-keys.d/*.key", "the key of an encrypted disk", ANYTHING),
    ("/etc/systemd/system/{*.service,*.d/*.conf}", "a service's password or token", UNIT),
    ("/etc/systemd/system/{*.service,*.d/*.conf}", "a password in an address", URL),
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


def _check_disk_keys(image: Image) -> Iterator[Verdict]:
    """The keys that crypttab names, but for devices and what is on another disk: reported as well."""
    named = (word for _, words in crypttab(image) for word in words[2:3])
    files = (
        path for path in named if path.startswith("/") and not path.startswith("/dev/") and ":" not in path
    )
    # A name is no pattern: braces would multiply it.
    literal = (re.sub("[{}]", "?", glob.escape(path)) for path in files)
    yield look(image, _secrets(*((path, "the key of an encrypted disk") for path in literal), kept=True))


# --- AWS's access keys, in what people write --------------------------------------------------------

ACCESS_KEY = "access-key"

# What stands between a name and its value in INI, shell, JSON, YAML, XML, Terraform and programs.
_BETWEEN = rb"\W{1,24}(?:(?i:default|key|name|string|value)\W{1,24}){0,3}"
_SECRET_NAME = rb"(?i:ecret(?:[ _.-]?(?:access)?[ _.-]?key|(?<=aws.secret)))"
# AWS documents neither alphabet; all keys ever seen are made of these. Behind a signed URL's stands the date.
IDENTIFIER = re.compile(rb"(?<![A-Za-z0-9])A[KS]IA([A-Z2-7]{16})(?![A-Za-z0-9/+=]|%2F\d{8})")
SECRET = re.compile(_SECRET_NAME + _BETWEEN + rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")


def is_random(text: bytes) -> bool:
    """Whether it was drawn by lot: examples say so, repeat themselves, or go through the alphabet."""
    steps = sum(after - before == 1 for before, after in zip(text, text[1:]))
    return b"EXAMPLE" not in text.upper() and len(set(text)) >= 8 and steps * 4 < len(text)


def identifier(content: bytes, place: int) -> str | None:
    """Judge `AKIA` and `ASIA`."""
    found = IDENTIFIER.match(content, place)
    what = "an AWS access key" if content.startswith(b"AKIA", place) else "an AWS session key"
    return what if found and is_random(found[1]) else None


def secret(content: bytes, place: int) -> str | None:
    """Judge the middle of `secret`: forty letters of all kinds behind a name that ends in `secret key`."""
    found = SECRET.match(content, place)
    if not found or found[1].islower() or found[1].isupper() or not re.search(rb"[0-9]", found[1]):
        return None
    return "an AWS secret key" if is_random(found[1]) else None


ACCESS_KEYS = (
    Needle(ACCESS_KEY, b"AKIA", identifier),
    Needle(ACCESS_KEY, b"ASIA", identifier),
    Needle(ACCESS_KEY, b"ecret", secret),
    Needle(ACCESS_KEY, b"ECRET", secret),
)


def check_access_keys(image: Image) -> Iterator[Part]:
    """A finding for each file, and for each place where a scanner saw what no rule here did."""
    other, own = image.scanned, image.sightings(ACCESS_KEY)
    known = {(seen.path, seen.line) for kind in key_formats.KINDS for seen in image.sightings(kind)}
    known.update((seen.path, seen.line) for seen in own)
    more = {_outermost(image, seen) for seen in other.sightings if (seen.path, seen.line) not in known}
    every = sorted((*own, *more), key=lambda seen: (seen.path, seen.line or 0, seen.detail))
    verdict = secrets.verdict(image, every, "access key")
    yield verdict._replace(findings=())
    ours = {seen.path for seen in own}
    for found in verdict.findings:  # what a scanner saw is for a person to judge
        yield found if found.path in ours else found._replace(changes=())
    if other.refusal:
        yield Unknown("/", other.refusal)
    yield Verdict(remark=other.remark)


def _outermost(image: Image, seen: Sighting) -> Sighting:
    """Scanners name what is in an archive as ARCHIVE!MEMBER: the file that there is, and no line."""
    archive = seen.path.partition("!")[0]
    if archive == seen.path or image.is_file(seen.path) or not image.is_file(archive):
        return seen
    return seen._replace(path=archive, line=None)


_rule = partial(Rule, guideline="G9", severity=ERROR, option=CREDENTIALS)

RULES = (
    _rule(
        id="cloud-credentials",
        title="There are no credentials of clouds",
        prose="""The rule checks the credential files of the command lines of AWS (Systems Manager and ECS
        included), Google Cloud, Azure, Kubernetes and other clouds, in every place. A configuration without a
        secret passes. seal overwrites and removes them.""",
        places=CLOUDS,
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
    _rule(
        id="tool-credentials",
        title="There are no credentials of tools",
        prose="""The rule checks the files in which Docker, git, netrc's users, npm, PyPI and other package
        managers, Vault, Terraform, databases, mail programs, programs with an .env file and many more keep
        passwords and tokens, in every place. One without a secret passes. seal overwrites and removes
        them.""",
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
    _rule(
        id="system-credentials",
        title="There are no credentials of services",
        prose="""The rule checks the credentials of services: keys of WireGuard and other private networks,
        passwords for wireless networks, PPP, mail, directories, databases, storage and package archives,
        Samba's hashed passwords, Kerberos keys and tickets, the keys of monitoring agents, and at's jobs,
        with the whole environment of their authors. seal overwrites and removes the files; those that the
        system needs (/etc/fstab, units, the keys of encrypted disks) are only reported.""",
        places=(*SERVICES, *KEPT),
        check=_check_disk_keys,
        failing={
            "/etc/wireguard/wg0.conf": "PrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
            "/etc/ppp/chap-secrets": "client server secret *\n",
        },
        passing={
            "/etc/wireguard/wg0.conf": "[Interface]\nAddress = 10.0.0.1/24\n",
            "/etc/ppp/chap-secrets": "# client server secret addresses\n",
        },
    ),
    _rule(
        id="vendor-credentials",
        title="There are no credentials for systemd's services",
        prose="""systemd gives the content of its credential stores to the services that ask for it by name.
        The rule checks the vendor's stores and the encrypted ones; /etc/credstore belongs to
        system-credentials. A credential that is encrypted with a null key is open to every reader, and one
        that is encrypted with one machine's secret is useless to another. seal removes them.""",
        places=(
            Place("/usr/{,local/}lib/credstore{,.encrypted}/*", "a credential for a service"),
            Place("/etc/credstore.encrypted/*", "a credential for a service"),
        ),
        failing={"/usr/lib/credstore/database.password": "secret"},
        passing={"/usr/lib/credstore": None},
    ),
    _rule(
        id="access-keys",
        title="There are no access keys in files",
        prose="""AWS's access keys are searched for in every text file that no package brought, in each
        spelling that programs read. Examples (those of AWS's documentation, and keys that are not random) and
        a signed URL's identifier are left out. For the tokens of other services, audit runs kingfisher,
        gitleaks or trufflehog, the first that is installed (--secrets), in a box without a network, and names
        it. seal overwrites and removes the files with AWS keys; to keep a file, remove the key from it first.
        Revoke every key that is found as well: it may have been copied.""",
        check=check_access_keys,
        failing={
            "/srv/app/.env": f"AWS_ACCESS_KEY_ID={examples.access_key('AKIA', 'Z7QK3WJT5NP2XR6M')}\n",
            "/root/.profile": (
                "export AWS_SECRET_ACCESS_KEY="
                f"{examples.access_key('q7Rz/W2xT9', '+bN4mK8vY3hL6pD1sG5jF0cAeUiOuX')}\n"
            ),
        },
        passing={
            "/srv/app/README": "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE (of AWS's own documentation)\n",
            "/root/.profile": "export AWS_SECRET_ACCESS_KEY=$(cat key)\n",
        },
        watches=ACCESS_KEYS,
    ),
)
