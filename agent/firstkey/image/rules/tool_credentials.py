"""G9: no credentials of tools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import credential_files
from firstkey.image.credential_files import URL, VARIABLE, Credential, holding
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

KIND = "tool-credentials"
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
TABLE = (
    # containers
    Credential(".docker/config.json", "Docker's registry credentials", AUTH),
    Credential(".dockercfg", "Docker's registry credentials", AUTH),
    Credential("containers/auth.json", "registry credentials of Podman and its kin", AUTH),
    Credential("var/lib/kubelet/config.json", "registry credentials", AUTH),
    Credential(".config/helm/registry/config.json", "registry credentials of Helm", AUTH),
    Credential(".config/helm/repositories.yaml", "passwords of Helm's archives", PASSWORD),
    # hosts and version control
    Credential(".netrc", "passwords for hosts", NETRC),
    Credential("_netrc", "passwords for hosts", NETRC),
    Credential("etc/netrc", "passwords for hosts", NETRC),
    Credential(".authinfo", "passwords for hosts", NETRC),
    Credential(".git-credentials", "passwords that git stores"),
    Credential(".config/git/credentials", "passwords that git stores"),
    Credential(".gitconfig", "a password for git", GIT),
    Credential(".config/git/config", "a password for git", GIT),
    Credential("etc/gitconfig", "a password for git", GIT),
    Credential(".git/config", "a password for git", GIT),
    Credential(".git/modules/*/config", "a password for git", GIT),
    Credential(".config/gh/hosts.yml", "GitHub's token", TOKEN),
    Credential(".config/hub", "GitHub's token", TOKEN),
    Credential(".config/glab-cli/config.yml", "GitLab's token", TOKEN),
    Credential("etc/gitlab-runner/config.toml", "GitLab's token", TOKEN),
    Credential(".hgrc", "passwords for repositories", PASSWORD),
    # packages
    Credential(".npmrc", "npm's token or password", NPM),
    Credential("etc/npmrc", "npm's token or password", NPM),
    Credential(".yarnrc.yml", "Yarn's token", holding("npmAuthToken", "npmAuthIdent")),
    Credential(".pypirc", "PyPI's password or token", PASSWORD),
    Credential("pip.conf", "a password in an address", URL),
    Credential(".pip/pip.conf", "a password in an address", URL),
    Credential(".config/pypoetry/auth.toml", "Poetry's passwords", holding("password", "pypi-token")),
    Credential(".condarc", "a password in an address", URL),
    Credential(".gem/credentials", "RubyGems' key"),
    Credential(".local/share/gem/credentials", "RubyGems' key"),
    Credential(".bundle/config", "a password for gems", BUNDLE),
    Credential(".cargo/credentials", "crates.io's token", TOKEN),
    Credential(".cargo/credentials.toml", "crates.io's token", TOKEN),
    Credential(".composer/auth.json", "Composer's passwords", COMPOSER),
    Credential(".config/composer/auth.json", "Composer's passwords", COMPOSER),
    Credential(".m2/settings.xml", "Maven's passwords", MAVEN),
    Credential(".m2/settings-security.xml", "Maven's master password"),
    Credential(".nuget/NuGet/NuGet.Config", "NuGet's passwords", NUGET),
    Credential(".config/NuGet/NuGet.Config", "NuGet's passwords", NUGET),
    Credential(".gradle/gradle.properties", "Gradle's passwords", GRADLE),
    Credential("etc/apt/auth.conf", "passwords for package archives", NETRC),
    Credential("etc/apt/sources.list", "a password for a package archive", URL),
    # infrastructure
    Credential(".vault-token", "Vault's token"),
    Credential(".terraformrc", "Terraform's token", TOKEN),
    Credential(".terraform.d/credentials.tfrc.json", "Terraform's token", TOKEN),
    Credential("terraform.tfvars", "values for Terraform, secrets included", VARIABLES),
    Credential("terraform.tfstate", "Terraform's state, secrets included"),
    Credential("terraform.tfstate.backup", "Terraform's state, secrets included"),
    Credential(".pulumi/credentials.json", "Pulumi's token", TOKEN),
    Credential(".vault_pass", "Ansible's vault password"),
    Credential(".vault_pass.txt", "Ansible's vault password"),
    Credential(".vault_password", "Ansible's vault password"),
    Credential(".vault-password", "Ansible's vault password"),
    Credential(".ansible_vault_pass", "Ansible's vault password"),
    Credential("vault_pass.txt", "Ansible's vault password"),
    Credential("etc/chef/encrypted_data_bag_secret", "the key of Chef's data bags"),
    Credential(".circleci/cli.yml", "CircleCI's token", TOKEN),
    Credential(".config/ngrok/ngrok.yml", "ngrok's token", holding("authtoken")),
    Credential(".ngrok2/ngrok.yml", "ngrok's token", holding("authtoken")),
    Credential(".credentials_rsaparams", "a GitHub runner's key"),
    Credential(".credentials", "a runner's or program's credentials", TOKEN),
    # databases and others
    Credential(".pgpass", "PostgreSQL's passwords"),
    Credential(".my.cnf", "MySQL's password", PASSWORD),
    Credential(".mylogin.cnf", "MySQL's password"),
    Credential(".erlang.cookie", "the secret of an Erlang cluster"),
    Credential(".config/rclone/rclone.conf", "rclone's passwords", RCLONE),
    Credential(".smbcredentials", "a password for a share"),
    Credential(".davfs2/secrets", "passwords for shares"),
    Credential(".fetchmailrc", "passwords for mail", NETRC),
    Credential(".msmtprc", "a password for mail", NETRC),
    Credential(".config/op/config", "1Password's account"),
    Credential(".config/sops/age/keys.txt", "an age key"),
    Credential(".htpasswd", "hashed passwords"),
    Credential("secring.gpg", "GnuPG's private keys"),
    Credential(".snap/auth.json", "the login to the store of snaps"),
    Credential(".env", "a program's password or token", ENVIRONMENT),
    Credential(".env.local", "a program's password or token", ENVIRONMENT),
    Credential(".env.prod", "a program's password or token", ENVIRONMENT),
    Credential(".env.production", "a program's password or token", ENVIRONMENT),
    Credential("wp-config.php", "a database's password", WORDPRESS),
)  # fmt: skip
PLACES = (
    ("~/.gnupg/private-keys-v1.d/*", "a private key (GnuPG)"),
    ("~/.password-store/*.gpg", "a password store"),
    ("~/.local/share/keyrings/*", "a keyring"),
    ("~/.config/Bitwarden CLI/data.json", "Bitwarden's vault"),
    ("/etc/apt/auth.conf.d/*", "passwords for package archives"),
)


def _failing(tree: Builder) -> None:
    tree.file("/root/.docker/config.json", '{"auths": {"registry": {"auth": "dXNlcjpwYXNz"}}}', mode=0o600)
    tree.file("/home/ann/.netrc", "machine example.com login ann password secret\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/root/.docker/config.json", '{"credsStore": "ecr-login"}')
    tree.file("/home/ann/.npmrc", "//registry/:_authToken=${NPM_TOKEN}\n")


RULE = Rule(
    id="tool-credentials",
    title="There are no credentials of tools",
    guideline="G9",
    severity=ERROR,
    prose=(
        "The files in which Docker, git, netrc's users, npm, PyPI and other package managers, Vault, "
        "Terraform, databases, mail programs and many more keep passwords and tokens, and programs' .env "
        "files, in every home and in every other place where such a file lies. A file of that name without "
        "a secret in it passes. seal overwrites and removes them only with --remove-credentials."
    ),
    check=credential_files.checker(KIND, TABLE, PLACES),
    remedy=credential_files.remover(KIND, TABLE, PLACES),
    failing=_failing,
    passing=_passing,
    watches=(credential_files.named(KIND, TABLE),),
    option=CREDENTIALS,
)
