"""`./dev release` and `./dev repository`: what is published, of a tag alone, and how it is installed."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
import rootfs
from debian_image import WANTED
from installed import TOP

import firstkey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TAG = f"v{firstkey.__version__}"
KEY = "releases@firstkey.example"
NEEDED = ("git", "gpg", "dpkg-buildpackage", "dh", "rpmbuild", "apt-ftparchive", "createrepo_c")
MISSING = [program for program in NEEDED if not shutil.which(program)]
needs = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}, which is not installed")
WHO = {f"GIT_{who}_{what}": "x@y.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Checkout:
    """A repository of its own with the files of this one, as they are now, in one commit."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def git(self, *argv: str) -> str:
        """Run git in it."""
        environ = {**os.environ, **WHO, "GIT_COMMITTER_DATE": "2026-11-30T00:00:00Z"}
        return subprocess.run(
            ["git", "-C", str(self.top), *argv], check=True, capture_output=True, text=True, env=environ
        ).stdout

    def release(self, out: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Build the release."""
        return run(str(self.top / "packaging/release"), str(out), *options, **environ)


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program, whatever its status."""
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=600, env={**os.environ, **environ}
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Tagged as the version that it is."""
    made = Checkout(tmp_path_factory.mktemp("checkout") / "firstkey")
    listed = ["git", "-c", f"safe.directory={TOP}", "-C", str(TOP), "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run([*listed, "--exclude-standard"], check=True, capture_output=True)
    for name in filter(None, os.fsdecode(done.stdout).split("\0")):
        if (TOP / name).exists():
            (made.top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, made.top / name, follow_symlinks=False)
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All of it")
    made.git("tag", TAG)
    return made


@pytest.fixture(scope="module")
def keyring() -> Iterator[Path]:
    """A key for releases, of a home of gpg's own (whose sockets want a short path)."""
    home = Path(tempfile.mkdtemp(prefix="fk-gpg-", dir="/tmp"))
    parameters = ["--batch", "--passphrase", "", "--quick-generate-key", KEY, "ed25519", "sign", "never"]
    assert run("gpg", *parameters, GNUPGHOME=str(home)).returncode == 0
    yield home
    run("gpgconf", "--kill", "all", GNUPGHOME=str(home))
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def published(checkout: Checkout, keyring: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release."""
    out = tmp_path_factory.mktemp("published") / "release"
    done = checkout.release(out, "--reserved-address", "--sign", KEY, GNUPGHOME=str(keyring))
    assert done.returncode == 0, done.stderr
    return out


@needs
def test_a_release_has_all_that_is_published(published: Path, keyring: Path) -> None:
    """With sums of all files, and a signature of these that gpg finds good."""
    version = firstkey.__version__
    files = {path.name for path in published.iterdir()}
    assert files == {
        f"firstkey-{version}.tar.gz", f"firstkey_{version}_all.deb", f"firstkey_{version}.dsc",
        f"firstkey_{version}.tar.xz", f"firstkey-{version}-1.noarch.rpm", f"firstkey-{version}.spdx.json",
        "SHA256SUMS", "SHA256SUMS.asc",
    }  # fmt: skip
    assert run("sh", "-c", f"cd '{published}' && sha256sum --check --strict SHA256SUMS").returncode == 0
    listed = {line.split()[1] for line in (published / "SHA256SUMS").read_text().splitlines()}
    assert listed == files - {"SHA256SUMS", "SHA256SUMS.asc"}
    signed = [str(published / name) for name in ("SHA256SUMS.asc", "SHA256SUMS")]
    assert run("gpg", "--verify", *signed, GNUPGHOME=str(keyring)).returncode == 0


@needs
def test_the_source_archive_has_what_git_has(published: Path, checkout: Checkout) -> None:
    """Every file of the tag, and no other."""
    top = f"firstkey-{firstkey.__version__}"
    with tarfile.open(published / f"{top}.tar.gz") as archive:
        found = {member.name[len(top) + 1 :] for member in archive if not member.isdir()}
    assert found == set(checkout.git("ls-tree", "-r", "--name-only", TAG).splitlines())


@needs
def test_a_second_release_has_the_same_bytes(published: Path, checkout: Checkout, tmp_path: Path) -> None:
    """But for the signature: anybody can see that the packages are of these sources."""
    assert checkout.release(tmp_path / "again", "--reserved-address").returncode == 0
    assert (tmp_path / "again/SHA256SUMS").read_text() == (published / "SHA256SUMS").read_text()


@needs
@pytest.mark.parametrize("flaw", ["dirty", "untagged", "undated", "reserved", "not empty"])
def test_what_is_no_release_is_refused(checkout: Checkout, tmp_path: Path, flaw: str) -> None:
    """With one sentence that says what to do, and nothing is built."""
    own = Checkout(tmp_path / "own")
    shutil.copytree(checkout.top, own.top, symlinks=True)
    options: tuple[str, ...] = ("--reserved-address",)
    (tmp_path / "out").mkdir()
    if flaw == "dirty":
        (own.top / "new").touch()
        said = "changes that are not in"
    elif flaw == "untagged":
        own.git("tag", "--delete", TAG)
        said = f"there is no tag {TAG}"
    elif flaw == "undated":
        changes = own.top / "CHANGELOG.md"
        changes.write_text(re.sub(r"(?m)^## \[.*", "## [Unreleased]", changes.read_text()))
        own.git("commit", "--quiet", "--all", "--message", "No date")
        own.git("tag", "--force", TAG)
        said = "no dated entry"
    elif flaw == "reserved":
        options, said = (), "at firstkey.example: a reserved name"
    else:
        (tmp_path / "out/file").touch()
        said = "is not empty"
    done = own.release(tmp_path / "out", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == (flaw == "not empty")


# --- repositories ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(published: Path, keyring: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed one, of the release."""
    made = tmp_path_factory.mktemp("repository") / "repo"
    shutil.copytree(published, made)
    done = run(str(TOP / "packaging/repository"), str(made), "--sign", KEY, GNUPGHOME=str(keyring))
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.root
@needs
@pytest.mark.parametrize("is_changed", [False, True], ids=["genuine", "changed"])
def test_apt_installs_from_it(repository: Path, tmp_path: Path, is_changed: bool) -> None:
    """In a Debian that knows no other source; a list that somebody changed is refused."""
    if reason := rootfs.missing_for_debian_root():
        pytest.skip(reason)
    base = tmp_path / "base"
    rootfs.unpack(bootlab.archive("bookworm"), base)
    shutil.copytree(repository, base / "repo")
    shutil.rmtree(base / "etc/apt/sources.list.d", ignore_errors=True)
    (base / "etc/apt/sources.list").write_text("deb [signed-by=/repo/firstkey.asc] file:/repo ./\n")
    if is_changed:
        with (base / "repo/Packages").open("a") as packages:
            packages.write("\n")
        (base / "repo/Packages.gz").unlink()
    for path in (base / "repo").iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)
    (base / "repo").chmod(0o755)
    update = rootfs.inside(base, "apt-get", "update", "--error-on=any")
    assert (update.returncode == 0) is not is_changed, update.stderr
    install = rootfs.inside(base, "apt-get", "install", "--yes", "--no-install-recommends", "firstkey")
    assert (install.returncode == 0) is not is_changed, install.stderr
    assert (base / WANTED.lstrip("/")).is_symlink() is not is_changed
    shutil.rmtree(base)


REPOSITORY = """\
[firstkey]
name=firstkey
baseurl=file://{place}
repo_gpgcheck=1
gpgcheck=0
gpgkey=file://{place}/firstkey.asc
"""
HOST = """\
Name: host
Version: 1
Release: 1
Summary: Tells rpm what a Debian has, under the names that Fedora has for it
License: none
BuildArch: noarch
{provides}
%description
%files
"""


def tell_rpm_of_the_host(base: Path, wanting: Path, directory: Path) -> None:
    """Rpm's database of that Debian knows no package: give it what another one requires, which is there."""
    required = run("rpm", "--query", "--requires", "--package", str(wanting)).stdout.splitlines()
    names = {line.split()[0] for line in required if not line.startswith(("rpmlib(", "/"))}
    files = {line for line in required if line.startswith("/")}
    for path in files:
        assert (base / path.lstrip("/")).exists()
    provides = "\n".join(
        f"Provides: {name} {'= 3.11' if name == 'python3' else ''}" for name in names | files
    )
    (directory / "host.spec").write_text(HOST.format(provides=provides))
    done = run("rpmbuild", "-bb", "--define", f"_topdir {directory}", str(directory / "host.spec"))
    assert done.returncode == 0, done.stderr
    host = str(directory / "RPMS/noarch/host-1-1.noarch.rpm")
    assert run("rpm", "--root", str(base), "--install", host).returncode == 0


@pytest.mark.root
@needs
@pytest.mark.skipif(not shutil.which("dnf"), reason="needs dnf, which is not installed")
@pytest.mark.parametrize("is_changed", [False, True], ids=["genuine", "changed"])
def test_dnf_installs_from_it(repository: Path, tmp_path: Path, is_changed: bool) -> None:
    """Into a system that knows no other source; a list that somebody changed is refused."""
    if reason := rootfs.missing_for_debian_root():
        pytest.skip(reason)
    base, place = tmp_path / "base", tmp_path / "repo"
    rootfs.unpack(bootlab.archive("bookworm"), base)
    shutil.copytree(repository, place)
    (rpm,) = place.glob("*.rpm")
    tell_rpm_of_the_host(base, rpm, tmp_path)
    if is_changed:
        with (place / "repodata/repomd.xml").open("a") as metadata:
            metadata.write("\n")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/firstkey.repo").write_text(REPOSITORY.format(place=place))
    install = run(
        "dnf", "--assumeyes", f"--installroot={base}", "--releasever=9", "--setopt=varsdir=/",
        f"--setopt=reposdir={tmp_path}/sources", f"--setopt=cachedir={tmp_path}/cache", "install", "firstkey",
    )  # fmt: skip
    assert (install.returncode == 0) is not is_changed, install.stdout + install.stderr
    assert (base / WANTED.lstrip("/")).is_symlink() is not is_changed
    if not is_changed:
        version = rootfs.inside(base, "firstkey", "version")
        assert version.stdout == f"firstkey {firstkey.__version__}\n", version.stderr
    shutil.rmtree(base)


@needs
def test_dnf_finds_the_rpm_by_its_sum(repository: Path) -> None:
    """The list names the file and its SHA-256, and is signed."""
    (primary,) = (repository / "repodata").glob("*primary.xml*")
    listed = gzip.decompress(primary.read_bytes()).decode()
    (rpm,) = repository.glob("*.rpm")
    assert f'<location href="{rpm.name}"/>' in listed
    assert hashlib.sha256(rpm.read_bytes()).hexdigest() in listed
    assert (repository / "repodata/repomd.xml.asc").exists()


@needs
def test_apt_takes_the_line_of_a_repository_without_a_signature(deb: Path, tmp_path: Path) -> None:
    """As it is printed: apt must be told that nothing vouches for it."""
    repo, state = tmp_path / "repo", tmp_path / "state"
    repo.mkdir()
    (state / "lists/partial").mkdir(parents=True)
    shutil.copy(deb, repo)
    said = run(str(TOP / "packaging/repository"), str(repo)).stdout
    (state / "sources").write_text(said.removeprefix("apt: "))
    own = {
        "Dir::Etc::SourceList": state / "sources", "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": state / "lists", "Dir::Cache": state, "APT::Sandbox::User": "root",
    }  # fmt: skip
    options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
    update = run("apt-get", *options, "update", "--error-on=any")
    assert update.returncode == 0, update.stderr
    assert "firstkey" in run("apt-cache", *options, "search", "firstkey").stdout


def test_a_directory_without_packages_is_refused(tmp_path: Path) -> None:
    """In a sentence."""
    done = run(str(TOP / "packaging/repository"), str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "neither a deb nor an rpm" in done.stderr


# --- one source --------------------------------------------------------------------------------------


def test_the_address_and_the_home_page_have_one_source() -> None:
    """pyproject.toml; whoever else names them says the same."""
    project = (TOP / "pyproject.toml").read_text()
    name, address = re.findall(r'maintainers = \[\{ name = "(.*)", email = "(.*)" \}\]', project)[0]
    home = re.findall(r'Homepage = "(.*)"', project)[0]
    for file in ("packaging/debian/control", "packaging/debian/changelog", "packaging/rpm/firstkey.spec"):
        said = re.findall(r"The [\w ]+ <[^>\n]*>", (TOP / file).read_text())
        assert set(said) == {f"{name} <{address}>"}, file
    for file in ("SECURITY.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"[\w.]+@[\w.-]+\w", (TOP / file).read_text())) <= {address}
    assert address in (TOP / "SECURITY.md").read_text()
    code = "".join(path.read_text() for path in (TOP / "agent").rglob("*.py"))
    assert set(re.findall(r"https://[\w.]*firstkey[\w.]*", code)) == {home}
