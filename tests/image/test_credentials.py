"""What is found of the secrets that the guide names: each pattern has its own true and false example here.

All go through the whole rule, as files of a tree. An example of a secret is put together, so that no scanner
takes this file for a leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from image_builder import Builder

from firstkey.image import rules
from firstkey.image.audit import verdict_of
from firstkey.image.examples import access_key
from firstkey.image.places import unbraced
from firstkey.image.rules import credentials

SECRET = access_key("q7Rz/W2xT9", "+bN4mK8vY3hL6pD1sG5jF0cAeUiOuX")
AKIA, ASIA = (access_key(word, "Z7QK3WJT5NP2XR6M") for word in ("AKIA", "ASIA"))


def found(builder: Builder, rule: str, files: dict[str, str]) -> set[str]:
    """The paths that the rule finds something in."""
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/bash\n")
    for path, content in files.items():
        builder.file(path, content)
    asked = next(entry for entry in rules.ALL if entry.id == rule)
    return {finding.path for finding in verdict_of(asked, builder.image()).findings}


# --- AWS's access keys ----------------------------------------------------------------------------

AWS = {
    "ini": f"[default]\naws_secret_access_key = {SECRET}\n",
    "ini, tight": f"aws_secret_access_key={SECRET}",
    "legacy": f"secret_key = {SECRET}\n",
    "environment": f"AWS_SECRET_ACCESS_KEY={SECRET}\n",
    "shell": f"export AWS_SECRET_ACCESS_KEY='{SECRET}'\n",
    "shell, continued": f"env AWS_SECRET_ACCESS_KEY=\\\n  {SECRET} aws s3 ls\n",
    "PowerShell": f'$Env:AWS_SECRET_ACCESS_KEY = "{SECRET}"\n',
    "Dockerfile": f"ENV AWS_SECRET_ACCESS_KEY {SECRET}\n",
    "JSON": f'{{"SecretAccessKey": "{SECRET}"}}',
    "JSON, camel": f'{{"secretAccessKey":"{SECRET}"}}',
    "JSON in JSON": f'"{{\\"SecretAccessKey\\": \\"{SECRET}\\"}}"',
    "YAML": f"aws:\n  secret-access-key: {SECRET}\n",
    "YAML, folded": f"secret_access_key: >-\n    {SECRET}\n",
    "Ansible": f"aws_secret: {SECRET}\n",
    "Terraform": f'  secret_key = "{SECRET}"\n',
    "Terraform, a variable": f'variable "aws_secret_key" {{\n  default = "{SECRET}"\n}}\n',
    "XML": f"<SecretAccessKey>{SECRET}</SecretAccessKey>",
    "XML, attributes": f'<add key="AWSSecretKey" value="{SECRET}" />',
    "property list": f"<key>SecretAccessKey</key>\n\t<string>{SECRET}</string>",
    "Java": f"-Daws.secretKey={SECRET}",
    "Python": f"client('s3', aws_secret_access_key='{SECRET}')",
    "words": f"Secret Access Key: {SECRET}\n",
    "command line": f"tool --secret-key {SECRET}\n",
    "identifier": f"key {AKIA}\n",
    "session": f"key {ASIA}\n",
    "console": f"Access key ID,Secret access key\n{AKIA},{SECRET}\n",
}  # fmt: skip
NO_AWS = {
    "AWS's own": "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS's own, set": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "x's": access_key("AKIA", "X" * 16) + f" secret_key = {'x' * 40}",
    "alphabet": access_key("AKIA", "ABCDEFGHIJKLMNOP"),
    "alphabet, secret": "secret_key: abcdefghijklmnopqrstuvwxyz0123456789ABCD",
    "reference": "AWS_SECRET_ACCESS_KEY=$(pass show aws) ${AWS_SECRET_ACCESS_KEY}",
    "name": "aws_secret_access_key = your_secret_access_key_of_forty_letters_",
    "digest": "secret_key: da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "longer": f"secret_key = {SECRET}A",
    "within": f"x{AKIA} {AKIA}7",
    "elsewhere": f"the key {SECRET} without a name",
    "signed": f"https://b.s3.amazonaws.com/x?X-Amz-Credential={AKIA}%2F20190814%2Fus-west-2%2Fs3%2Faws4_request",
}


@pytest.mark.parametrize("content", AWS.values(), ids=AWS)
@pytest.mark.sample(4)
def test_an_access_key(builder: Builder, content: str) -> None:
    """In every spelling and clothing that programs read."""
    assert found(builder, "access-keys", {"/srv/app/file": content}) == {"/srv/app/file"}


@pytest.mark.parametrize("content", NO_AWS.values(), ids=NO_AWS)
def test_no_access_key(builder: Builder, content: str) -> None:
    """Examples of documentation, references and digests."""
    assert found(builder, "access-keys", {"/srv/app/file": content}) == set()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_an_access_key_in_utf_16(builder: Builder, encoding: str) -> None:
    """As PowerShell writes text, with the mark that it starts with and without one."""
    text = AWS["PowerShell"] if encoding == "utf-16" else "\ufeff" + AWS["PowerShell"]
    builder.file("/srv/app/file", text.encode(encoding))
    builder.file("/srv/app/unmarked", text.lstrip("\ufeff").encode(encoding))
    assert found(builder, "access-keys", {}) == {"/srv/app/file", "/srv/app/unmarked"}


def test_every_watch_for_access_keys_has_an_example(builder: Builder) -> None:
    """A needle that no example has in it could be one that never fits."""
    for watch in credentials.ACCESS_KEYS:
        assert any(watch.judge(text.encode(), text.find(watch.needle.decode()))
                   for text in AWS.values() if watch.needle.decode() in text)  # fmt: skip


# --- files that hold credentials ------------------------------------------------------------------

URL = "https://ann:hunter22@example.com/", "https://ann:${PASSWORD}@example.com/"
VARIABLE = "DB_PASSWORD=hunter22\n", "DB_PASSWORD=${DB_PASSWORD}\n"
WIREGUARD = "YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
KEY_FILE = "private-key=/etc/ssl/private/me.pem\n"
NETRC = "machine example.com login ann password hunter22\n", "machine example.com login ann\n"
# A value for one of its words, in the forms that most of these files have.
HOLDING = (
    ("{} = hunter22\n", "# {} = hunter22\n"),
    ('{}="hunter22"\n', "{}=${{FROM_ELSEWHERE}}\n"),
    ("- a:\n    {}: hunter22\n", "- {}: <yours>\n"),
    ('{{"a": 1, "{}": "hunter22"}}\n', '{{"a": 1, "{}": "{{{{ yours }}}}"}}\n'),
)
# By the start of the pattern: a true example, and a false one.
EXAMPLES = {
    r'"(?:auth|identitytoken': ('{"auths": {"r": {"auth": "dXNlcjpwYXNz"}}}', '{"credsStore": "ecr-login"}'),
    r"\bpass(?:word|wd)?\s+": NETRC,
    r"://[^/\s:@]*:": URL,
    r"(?:_authToken|_auth|_pass": ("//r/:_authToken=npm-1234\n", "//r/:_authToken=${NPM_TOKEN}\n"),
    r"^BUNDLE_": ('BUNDLE_GEMS__EXAMPLE: "ann:hunter22"\n', 'BUNDLE_PATH: "vendor"\n'),
    r"<(?:password|passphrase)>": ("<password>hunter22</password>", "<password>${env.PW}</password>"),
    r"Password\"\s+value=": ('<add key="TextPassword" value="hunter22" />', '"Password" value="%P%"'),
    r"^[ \t]*(?:export[ \t]+)?\w*(?:PASSWORD": VARIABLE,
    r"DB_PASSWORD['\"]": ("define('DB_PASSWORD', 'hunter22');", "define('DB_PASSWORD', '');"),
    r"^[ \t]*[^#\s]+\s+\S+\s+\S+": ("client server hunter22 *\n", "# client server hunter22\n"),
    r"^[^#\n]*:\s*(?:PSK": ('1.2.3.4 : PSK "hunter22"\n', '# 1.2.3.4 : PSK "hunter22"\n'),
    r"USER_\w|:[0-9A-F]{32}:": ("ann:1000:" + "0123456789ABCDEF" * 2 + ":\n", "INFO_version"),
    r"^[^#\s][^:\n]*:[^:\n]*:": ("mail.example.com:ann:hunter22\n", "# target:login:password\n"),
    r"^[ \t]*password\s+\S": ("password hunter22\n", "# password hunter22\n"),
    r"^[ \t]*node\.": ("node.session.auth.password = hunter22\n", "#node.session.auth.password = x\n"),
    r"^[ \t]*pass(?:word|wd)?[ \t]*=": ("[client]\npassword = hunter22\n", "[client]\npassword =\n"),
    r"^[^#\n]*(?:\||": ("ann|mail.example.com:hunter22\n", "# ann|mail.example.com:hunter22\n"),
    r"^[ \t]*(?:wpa-psk|": ("wpa-psk hunter22\n", "#wpa-psk hunter22\n"),
    r"(?im)^[ \t]*(?:private|": (f"PrivateKey = {WIREGUARD}", KEY_FILE),
    r"(?m)^ECS_": ('ECS_ENGINE_AUTH_DATA={"r":{"auth":"dXNlcjpwYXNz"}}\n', "ECS_ENGINE_AUTH_DATA={}\n"),
    r"\A[A-Za-z0-9+/]{43}=\s*\Z": (WIREGUARD, f"public {WIREGUARD}"),
    r"^[ \t]*(?:bindpw|": ("bindpw hunter22\n", "# bindpw hunter22\n"),
    r"^[^#\n]*\bsecret\w*": ("secret = hunter22\n", "# secret = hunter22\n"),
    r"^[^#\n]*[\s,]pass(?:": ("//s/d /d cifs password=hunter22 0 0\n", "//s/d /d cifs credentials=/c\n"),
    r"^[ \t]*Environment=": ("Environment=DB_PASSWORD=hunter22\n", "Environment=HOME=/srv\n"),
    r"^[^\S\n]*(?:[^#\s]|#[^#\s])": ("x", "# none\n \n"),
    r".": ("x", ""),
}  # fmt: skip


def every_kind() -> Iterator[tuple[str, str, re.Pattern[bytes] | None]]:
    """The rule, the place and the pattern of each kind of file."""
    for name in ("cloud-credentials", "tool-credentials", "system-credentials"):
        for place in rules.by_id(name).places:
            yield from ((name, pattern, place.holds) for pattern in unbraced(place.pattern))


def examples_of(secret: re.Pattern[bytes] | None) -> list[tuple[str, str]]:
    """True and false examples: of one that has words, for each word."""
    text = secret.pattern.decode() if secret else r"."
    words = re.match(r"\^\[\^#;\\n\]\*\(\?:([^()]*)\)\[\"'\]\?", text)
    if words:
        plain = [re.sub(r"\\w\{0,40\}|\?", "", word) for word in words[1].split("|")]
        return [(true.format(word), false.format(word)) for word in plain for true, false in HOLDING]
    fitting = [start for start in EXAMPLES if text.startswith(start)]
    return [EXAMPLES[max(fitting, key=len)]] if fitting else []


def place_of(pattern: str) -> str:
    """A path that has that tail or fits that pattern."""
    path = pattern.removeprefix("*/").replace("~", "/root").replace("/*/", "/x/").replace("*", "x")
    return (
        path if path.startswith("/") else f"/{path}" if path.startswith(("etc/", "var/")) else f"/root/{path}"
    )


KINDS = list(every_kind())


def test_every_pattern_has_an_example() -> None:
    """A kind of file that nobody shows one of is no kind; and an example without a pattern goes."""
    assert [place for _, place, secret in KINDS if not examples_of(secret)] == []
    used = {example for _, _, secret in KINDS for example in examples_of(secret)}
    assert [start for start, example in EXAMPLES.items() if example not in used] == []


@pytest.mark.parametrize("rule,place,secret", KINDS, ids=[f"{rule}-{place}" for rule, place, _ in KINDS])
@pytest.mark.sample(7)
def test_a_file_with_credentials(
    builder: Builder, rule: str, place: str, secret: re.Pattern[bytes] | None
) -> None:
    """With a secret in it, it is found; without one, it is left in peace."""
    path = place_of(place)
    for true, false in examples_of(secret):
        assert found(builder, rule, {path: true}) == {path}
        assert found(builder, rule, {path: false if secret else ""}) == set()


def test_names_in_crypttab_are_no_patterns(builder: Builder) -> None:
    """A line of braces would else be as many paths as there are choices: two to the fortieth here."""
    lines = f"many UUID=1 /keys/{'{a,b}' * 40}\nodd UUID=2 /keys/{{x}}[y]*\n"
    files = {"/etc/crypttab": lines, "/keys/{x}[y]*": "secret", "/keys/x": "secret", "/keys/{x}y": "secret"}
    assert found(builder, "system-credentials", files) == {"/keys/{x}[y]*"}


def test_braces_of_a_place_mean_what_they_do_in_a_shell() -> None:
    """Also within one another."""
    assert unbraced("/{a,b{1,2}}/{,c}", "/a/") == ("/a/", "/a/c", "/b1/", "/b1/c", "/b2/", "/b2/c")
