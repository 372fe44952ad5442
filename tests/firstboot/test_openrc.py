"""Without systemd: OpenRC starts firstkey by the script of docs/platforms.md, with busybox for a shell."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from installed import TOP, install
from machine import new_key
from netlab import Cloud, end, wait_until
from pages import blocks
from rootfs import debian_root, inside, unpack
from scenario import BACKGROUND
from suites import USUAL

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(900)]

PACKAGES = (
    "openrc", "busybox", "openssh-server", "python3", "python3-requests", "python3-daemon", "iproute2",
)  # fmt: skip
ACCOUNTS = ("useradd", "usermod", "groupadd", "userdel", "passwd")
"""Of Debian's package passwd, as of Alpine's package shadow: neither is there."""
SERVICES = {
    "network": "depend() {\n    provide net\n}\nstart() {\n    :\n}\n",
    "localmount": "start() {\n    :\n}\n",
    "sshd": "command=/usr/sbin/sshd\npidfile=/run/sshd.pid\ndepend() {\n    need net\n}\n",
}
"""Scripts for what a container has already, and one for sshd that is ordered as Alpine's and Gentoo's are."""
STARTED = (
    "mkdir -p /run/openrc /run/sshd; touch /run/openrc/softlevel; openrc default; echo all is started; cat"
)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A network, plugged in; nobody answers in it yet."""
    with Cloud(tmp_path) as made:
        made.plug_in()
        yield made


@pytest.fixture
def root(shelf: Path, pytestconfig: pytest.Config) -> Path:
    """A system that OpenRC starts, with firstkey and sshd in its runlevel."""
    made = Path(tempfile.mkdtemp(dir=shelf))
    unpack(debian_root(pytestconfig.getoption("suite") or USUAL, PACKAGES), made)
    install(made)
    for key in (made / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in ACCOUNTS:
        for place in ("usr/sbin", "usr/bin"):
            (made / place / name).unlink(missing_ok=True)
    (made / "bin/sh").unlink()
    (made / "bin/sh").symlink_to("busybox")
    (made / "etc/rc.conf").write_text('rc_sys="lxc"\n')
    for script in (*(made / "etc/init.d").iterdir(), *(made / "etc/runlevels/default").iterdir()):
        script.unlink()  # Debian's own, written for another init
    (own,) = (block.text for block in blocks(TOP / "docs/platforms.md") if "openrc-run" in block.text)
    of_others = {name: f"#!/sbin/openrc-run\n{text}" for name, text in SERVICES.items()}
    for name, text in {**of_others, "firstkey": own}.items():
        (made / "etc/init.d" / name).write_text(text)
        (made / "etc/init.d" / name).chmod(0o755)
        done = inside(made, "rc-update", "add", name, "default")
        assert done.returncode == 0, done.stderr
    return made


@contextmanager
def runlevel(root: Path, cloud: Cloud, log: Path) -> Iterator[None]:
    """The runlevel, entered; when the block ends, so does all that was started. What is said is logged."""
    shutil.rmtree(root / "run")  # in memory on a real system
    (root / "run").mkdir()
    alone = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    enter = ["nsenter", f"--net={cloud.machine_namespace}", *alone, f"--root={root}"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*enter, "sh", "-c", STARTED], stdin=subprocess.PIPE, stdout=said, stderr=said,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        )  # fmt: skip
        try:
            yield
        finally:
            if process.stdin:
                process.stdin.close()
            end(process)


def entered(log: Path) -> str:
    """What was said until the whole runlevel was started."""
    wait_until(lambda: "all is started\n" in log.read_text(), seconds=120, what="the runlevel")
    return log.read_text()


def test_the_key_is_in_place_before_sshd_starts(root: Path, cloud: Cloud, tmp_path: Path) -> None:
    """An account that is to be made cannot be without useradd, and says so; root has the key all the same."""
    settings = root / "etc/firstkey/firstkey.conf.d/50-test.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Keys]\nUsers=root admin\n[User admin]\nCreate=yes\n")
    key = new_key(tmp_path, "launch")
    cloud.offer(key)
    with runlevel(root, cloud, tmp_path / "first.log"):
        said = entered(tmp_path / "first.log")
        assert 0 < said.index("Installing launch keys") < said.index("Starting sshd")
        assert "useradd is not installed" in said
        assert cloud.ssh(tmp_path / "launch", "true").status == 0
    settings.unlink()
    before = host_keys(root)
    with runlevel(root, cloud, tmp_path / "second.log"):
        assert "firstkey:" not in entered(tmp_path / "second.log")
        assert cloud.ssh(tmp_path / "launch", "true").status == 0
    assert (root / "root/.ssh/authorized_keys").read_text() == f"{key}\n"
    assert before == host_keys(root) != {}


def host_keys(root: Path) -> dict[str, bytes]:
    """Each file of a host key, with its content."""
    return {file.name: file.read_bytes() for file in (root / "etc/ssh").glob("ssh_host_*")}


def test_a_key_that_comes_late_comes_by_the_daemon(root: Path, cloud: Cloud, tmp_path: Path) -> None:
    """Sshd starts at the deadline, and the daemon goes on asking, detached and with its PID file."""
    settings = root / "etc/firstkey/firstkey.conf.d/50-test.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[IMDS]\nBootTimeoutSec=2\n[HostKeys]\nTypes=ed25519\n")
    key = new_key(tmp_path, "launch")
    with runlevel(root, cloud, tmp_path / "log"):
        assert "imds-unreachable" in entered(tmp_path / "log")
        assert cloud.has_ssh()
        assert (root / "run/firstkey/firstkey.pid").read_text().strip().isdigit()
        cloud.offer(key)
        wait_until(
            lambda: cloud.ssh(tmp_path / "launch", "true").status == 0, seconds=BACKGROUND, what="the login"
        )
