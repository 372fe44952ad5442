"""G9: no credentials of clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import credential_files
from firstkey.image.credential_files import Credential, holding
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

KIND = "cloud-credentials"
AWS_KEYS = holding("aws_secret_access_key", "aws_session_token", "secret_key")
TABLE = (
    Credential(".aws/credentials", "the AWS command line's access keys"),
    Credential(".aws/config", "AWS access keys", AWS_KEYS),
    Credential(".boto", "AWS or Google access keys", holding("aws_secret_access_key", "gs_secret\\w{0,40}")),
    Credential("etc/boto.cfg", "AWS access keys", AWS_KEYS),
    Credential(".s3cfg", "s3cmd's access keys", AWS_KEYS),
    Credential(".mc/config.json", "access keys of S3 or MinIO", holding("secretKey")),
    Credential(".passwd-s3fs", "s3fs's access keys"),
    Credential("etc/passwd-s3fs", "s3fs's access keys"),
    Credential(".ecs/ecs.config", "Docker credentials of ECS", holding("ECS_ENGINE_AUTH_DATA")),
    Credential("etc/ecs/ecs.config", "Docker credentials of ECS", holding("ECS_ENGINE_AUTH_DATA")),
    Credential(".config/gcloud/credentials.db", "Google Cloud's credentials"),
    Credential(".config/gcloud/access_tokens.db", "Google Cloud's access tokens"),
    Credential(".config/gcloud/application_default_credentials.json", "Google Cloud's credentials"),
    Credential(".config/gcloud/legacy_credentials/*/adc.json", "Google Cloud's credentials"),
    Credential(".config/gcloud/legacy_credentials/*/.boto", "Google Cloud's credentials"),
    Credential(".azure/accessTokens.json", "Azure's access tokens"),
    Credential(".azure/msal_token_cache.json", "Azure's access tokens"),
    Credential(".azure/msal_token_cache.bin", "Azure's access tokens"),
    Credential(".azure/service_principal_entries.json", "Azure's service principals"),
    Credential(".azure/service_principal_entries.bin", "Azure's service principals"),
    Credential(".azure/credentials", "Azure's credentials"),
    Credential(".kube/config", "Kubernetes credentials", holding(
        "client-key-data", "token", "password", "id-token", "refresh-token", "client-secret",
    )),
    Credential("etc/kubernetes/admin.conf", "Kubernetes credentials"),
    Credential("etc/kubernetes/super-admin.conf", "Kubernetes credentials"),
    Credential("etc/kubernetes/kubelet.conf", "Kubernetes credentials"),
    Credential("etc/kubernetes/bootstrap-kubelet.conf", "Kubernetes credentials"),
    Credential("etc/kubernetes/scheduler.conf", "Kubernetes credentials"),
    Credential("etc/kubernetes/controller-manager.conf", "Kubernetes credentials"),
    Credential("etc/rancher/k3s/k3s.yaml", "Kubernetes credentials"),
    Credential("var/lib/rancher/k3s/server/token", "Kubernetes credentials"),
    Credential("var/lib/rancher/k3s/server/node-token", "Kubernetes credentials"),
    Credential(".config/openstack/clouds.yaml", "OpenStack credentials", holding("password", "secret")),
    Credential("etc/openstack/clouds.yaml", "OpenStack credentials", holding("password", "secret")),
    Credential(".config/doctl/config.yaml", "DigitalOcean's access token", holding("access-token")),
    Credential(".config/hcloud/cli.toml", "Hetzner's access token", holding("token")),
    Credential(".config/linode-cli", "Linode's access token", holding("token")),
    Credential(".config/scw/config.yaml", "Scaleway's credentials", holding("secret_key")),
    Credential(".oci/config", "Oracle Cloud's credentials", holding("fingerprint", "pass_phrase")),
    Credential(".aliyun/config.json", "Alibaba Cloud's credentials", holding("access_key_secret")),
    Credential(".bluemix/config.json", "IBM Cloud's tokens", holding("IAMToken", "IAMRefreshToken")),
    Credential("RegistrationKey", "the registration of this machine with Systems Manager"),
)  # fmt: skip
PLACES = (
    ("~/.aws/cli/cache/*", "AWS session credentials"),
    ("~/.aws/sso/cache/*", "AWS session credentials"),
    ("~/.aws/login/cache/*", "AWS session credentials"),
    ("~/.config/gcloud/legacy_credentials/*/*", "Google Cloud's credentials"),
    ("/var/lib/amazon/ssm/Vault/Store/*", "the registration of this machine with Systems Manager"),
    ("/var/lib/amazon/ssm/runtimeconfig/*", "the identity of this machine with Systems Manager"),
    ("/var/lib/kubelet/pki/*.pem", "Kubernetes credentials"),
)


def _failing(tree: Builder) -> None:
    tree.file("/etc/passwd", "svc:x:990:990::/srv/svc:/bin/sh\n")
    tree.file("/srv/svc/.aws/credentials", "[default]\naws_access_key_id = A\n", mode=0o600)
    tree.file("/opt/deploy/.kube/config", "users:\n- user:\n    token: abc.def\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/root/.aws/config", "[default]\nregion = eu-central-1\n")
    tree.file("/root/.kube/config", "users: []\n")


RULE = Rule(
    id="cloud-credentials",
    title="There are no credentials of clouds",
    guideline="G9",
    severity=ERROR,
    prose=(
        "The files in which command lines of AWS (Systems Manager and ECS included), Google Cloud, Azure, "
        "Kubernetes and other clouds keep what they log in with, in every home and in every other place "
        "where such a file lies. A configuration without a secret in it passes. seal overwrites and "
        "removes them only with --remove-credentials."
    ),
    check=credential_files.checker(KIND, TABLE, PLACES),
    remedy=credential_files.remover(KIND, TABLE, PLACES),
    failing=_failing,
    passing=_passing,
    watches=(credential_files.named(KIND, TABLE),),
    option=CREDENTIALS,
)
