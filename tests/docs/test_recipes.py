"""The recipes on docs/recipes.md, as they stand there, given to the programs that they are for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bootlab
import jsonschema
import netlab
import pytest
import rootfs
import yaml
from installed import TOP, image_at
from packages import build
from pages import blocks
from scenario import scenario_on

PAGE = TOP / "docs/recipes.md"
PLAY = TOP / "packaging/examples/ansible/image.yml"


def block(language: str, mark: str) -> str:
    """The one block of the page in which that stands."""
    (found,) = [block.text for block in blocks(PAGE) if block.language == language and mark in block.text]
    return found


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    """The package of the checkout."""
    return build("deb", tmp_path / "deb")


# --- Packer ---------------------------------------------------------------------------------------

EBS = """\
source "amazon-ebs" "debian" {
  ami_name      = "debian-firstkey"
  source_ami    = "ami-0123456789abcdef0"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  access_key    = "none"
  secret_key    = "none"
  region        = "eu-central-1"
}

"""
CHROOT = """\
source "amazon-chroot" "debian" {
  ami_name   = "debian-firstkey"
  source_ami = "ami-0123456789abcdef0"
  access_key = "none"
  secret_key = "none"
  region     = "eu-central-1"
}

"""
NULL = """\
source "null" "debian" {
  communicator = "none"
}

"""
FIRSTKEY = """\
#!/bin/sh
PYTHONPATH="{agent}" exec "{python}" -m firstkey "$@"
"""

needs_packer = pytest.mark.skipif(not shutil.which("packer"), reason="needs packer, which is not installed")


def packer(
    directory: Path, template: str, *argv: str, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Packer on a template, which it gets as its last argument; it asks nobody for a newer Packer."""
    (directory / "image.pkr.hcl").write_text(template)
    return subprocess.run(
        [*prefix, "packer", *argv, "image.pkr.hcl"],
        check=False, capture_output=True, text=True, timeout=300, cwd=directory, stdin=subprocess.DEVNULL,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(directory),
            "CHECKPOINT_DISABLE": "1",
            "PACKER_NO_COLOR": "1",
        },
    )  # fmt: skip


def accepts(directory: Path, template: str) -> bool:
    """Whether Packer finds the template valid; without the builders for EC2 the test is skipped."""
    done = packer(directory, template, "validate")
    if "nknown" in done.stdout + done.stderr and "amazon-" in done.stdout + done.stderr:
        pytest.skip("needs a Packer that has the builders for EC2 (Debian's does), or their plugin installed")
    return done.returncode == 0


@needs_packer
@pytest.mark.slow
@pytest.mark.parametrize(
    "source, mark, broken",
    [
        (EBS, "amazon-ebs", ("skip_clean", "skip_cleaning")),
        (CHROOT, "amazon-chroot", ("build.MountPath", "build.MountPoint")),
    ],
    ids=["ebs", "chroot"],
)
def test_packer_accepts(tmp_path: Path, source: str, mark: str, broken: tuple[str, str]) -> None:
    """With the builder that the recipe is for, in the canonical format; a mistake in it is noticed."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/firstkey_VERSION_all.deb").touch()
    recipe = block("hcl", mark)
    assert accepts(tmp_path, source + recipe)
    assert packer(tmp_path, source + recipe, "fmt", "-check", "-diff").stdout == ""
    assert broken[0] in recipe
    assert not accepts(tmp_path, source + recipe.replace(*broken))


@needs_packer
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.sshd
@pytest.mark.skipif(not shutil.which("sudo"), reason="needs sudo, which is not installed")
def test_packer_seals_a_mounted_image(tmp_path: Path) -> None:
    """The null builder mounts nothing, so the test says where the image is; Packer fails where seal does."""
    image = tmp_path / "image"
    image_at(image)
    program = tmp_path / "bin/firstkey"
    program.parent.mkdir()
    program.write_text(FIRSTKEY.format(agent=TOP / "agent", python=sys.executable))
    program.chmod(0o755)
    # sudo has a PATH of its own.
    recipe = block("hcl", "amazon-chroot").replace("sudo firstkey", f"sudo {program}")
    recipe = NULL + recipe.replace("amazon-chroot", "null").replace("${build.MountPath}", str(image))
    done = packer(tmp_path, recipe, "build")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "Fit to share: 0 errors" in done.stdout
    assert not (image / "root/.bash_history").exists()
    (image / "root/.aws").mkdir()
    (image / "root/.aws/credentials").write_text("[default]\naws_secret_access_key = " + "k" * 40 + "\n")
    done = packer(tmp_path, recipe, "build")
    assert done.returncode == 1
    assert "NOT fit to share" in done.stdout


OVER_SSH = """\
source "null" "debian" {{
  ssh_host             = "{host}"
  ssh_username         = "admin"
  ssh_private_key_file = "{key}"
}}

"""
ADMIN = """\
[Keys]
Users=admin

[User admin]
Create=yes
Sudo=ALL=(ALL) NOPASSWD: ALL
"""


@needs_packer
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.boot
@pytest.mark.timeout(900)
def test_packer_seals_the_system_that_it_is_logged_in_to(deb: Path, tmp_path: Path) -> None:
    """The null builder logs in to a system that runs, and is not stopped by what sealing takes away."""
    netlab.sweep()
    with bootlab.workshop(tmp_path / "shelf") as shelf:
        system = bootlab.distribution(shelf)
        image = system.changed(shelf / "installed", lambda root: bootlab.install_deb(root, deb))
        for scenario in scenario_on(image, shelf):
            scenario.configure(ADMIN)
            scenario.cloud.offer(scenario.line)
            with scenario.boot() as machine:
                machine.wait_for_ssh()
                machine.wait_until_booted()
                assert scenario.login(user="admin", on=machine).status == 0
                source = OVER_SSH.format(host=scenario.cloud.machine_address, key=scenario.key)
                recipe = block("hcl", "amazon-ebs").replace("amazon-ebs", "null")
                recipe = recipe.replace("dist/firstkey_VERSION_all.deb", str(deb))
                recipe = recipe.replace("firstkey_VERSION_all.deb", deb.name)
                there = ("nsenter", f"--net=/run/netns/{scenario.cloud.name}")
                done = packer(scenario.directory, source + recipe, "build", prefix=there)
                assert done.returncode == 0, done.stdout[-6000:] + done.stderr
                assert "Fit to share: 0 errors" in done.stdout
                assert scenario.login(user="admin").status == 255  # without a host key sshd hangs up
                machine.shut_down()
            assert scenario.disk.path("/home/admin/.ssh/authorized_keys").read_text() == ""
            assert scenario.host_keys() == {}


# --- EC2 Image Builder ----------------------------------------------------------------------------


def problems(document: object) -> list[str]:
    """Why Image Builder would not take the document."""
    schema = json.loads(Path(__file__).with_name("component.schema.json").read_text())
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("name, phase", [("firstkey-seal", "build"), ("firstkey-test", "test")])
def test_image_builder_has_a_whole_component(name: str, phase: str) -> None:
    """A document of its own for each, which can be given to it as it stands."""
    document = yaml.safe_load(block("yaml", f"name: {name}\n"))
    assert problems(document) == []
    assert [part["name"] for part in document["phases"]] == [phase]
    assert problems(document["phases"]) != []  # a part of a document is none
    document["phases"][0]["steps"][0]["inputs"] = {"command": "firstkey status"}
    assert problems(document) != []


# --- mkosi and Ansible ----------------------------------------------------------------------------

TOOLS = (
    "ansible-core",
    "apt-utils",
    "mkosi",
    "openssh-server",
    "python3-apt",
    "python3-requests",
    "reprepro",
)
"""In a root file system of their own: Debian 12's mkosi is from before `mkosi.packages/`."""
SUITE = "trixie"
SOURCES = f"""\
Types: deb
URIs: MIRROR
Suites: {SUITE} {SUITE}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
"""mkosi would add an archive with debugging symbols, which mirrors do not have."""


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Path]:
    """A root file system with the programs, to be changed at will."""
    base = tmp_path / "base"
    rootfs.unpack(rootfs.debian_root(SUITE, TOOLS), base)
    with rootfs.copy_of(base, tmp_path / "tools") as root:
        yield root
    shutil.rmtree(base)


def in_tools(root: Path, directory: Path, *argv: str) -> str:
    """Run a program of the root file system in a directory of this one, which is /work there."""
    container = ["systemd-nspawn", "--quiet", f"--directory={root}", "--as-pid2", "--pipe"]
    container += ["--register=no", "--keep-unit", f"--bind={directory}:/work", "--chdir=/work"]
    done = subprocess.run(
        [*container, *argv],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        timeout=1200, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.mark.root
@pytest.mark.boot
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mkosi_builds_an_image_that_is_fit_to_share(tools: Path, deb: Path, tmp_path: Path) -> None:
    """With the package, sealed by the finalize script; what mkosi does after it leaves it so."""
    image = tmp_path / "image"
    (image / "mkosi.packages").mkdir(parents=True)
    shutil.copy(deb, image / "mkosi.packages")
    (image / "mkosi.conf").write_text(block("ini", "Ssh=never"))
    script = image / "mkosi.finalize"
    script.write_text(block("sh", "mkosi.finalize"))
    script.chmod(0o755)
    sources = image / "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
    sources.parent.mkdir(parents=True)
    mirror = (tools / "etc/apt/sources.list").read_text().split()[1]  # from which mmdebstrap had the tools
    sources.write_text(SOURCES.replace("MIRROR", mirror))
    in_tools(tools, image, "sh", "-c", "dpkg --install mkosi.packages/*.deb")
    said = in_tools(tools, image, "mkosi", "--format=directory", "build")
    assert "\nFit to share: 0 errors" in said, said[-6000:]
    assert (image / "image/etc/systemd/system/multi-user.target.wants/firstkey.service").is_symlink()
    assert (image / "image/etc/machine-id").read_text() == "uninitialized\n"
    assert not list((image / "image/etc/ssh").glob("ssh_host_*"))
    assert "\nFit to share: 0 errors" in in_tools(tools, image, "firstkey", "audit", "--root", "image")


@pytest.mark.root
@pytest.mark.boot
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_ansible_play_leaves_a_system_that_is_fit_to_share(
    tools: Path, deb: Path, tmp_path: Path
) -> None:
    """On the system that it is run on: from no firstkey to one that is sealed."""
    directory = tmp_path / "play"
    directory.mkdir()
    shutil.copy(deb, directory)
    shutil.copy(PLAY, directory)
    assert list((tools / "etc/ssh").glob("ssh_host_*"))
    play = ["ansible-playbook", "--connection=local", "--inventory=localhost,"]
    said = in_tools(tools, directory, *play, f"--extra-vars=deb=/work/{deb.name}", PLAY.name)
    assert "TASK [Seal, as the last task of all]" in said
    assert not list((tools / "etc/ssh").glob("ssh_host_*"))
    assert "Users=admin" in (tools / "etc/firstkey/firstkey.conf.d/50-image.conf").read_text()
    in_tools(tools, directory, "firstkey", "audit", "--quiet")
