"""Host keys that sshd does not wait for: a daemon whose RSA key is made at the pace of the test."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import processes
import pytest
from daemons import Daemon, Lab
from hostkeys import KINDS, SMALL_RSA, asides, fake_keygen, generate, matches, private, public
from machine import Run

from firstkey.metadata.emulator import Fault

FIRST, SECOND = "i-0000000000000001", "i-0000000000000002"
BEGIN = "-----BEGIN SSH HOST KEY FINGERPRINTS-----"
QUICK = {"ecdsa", "ed25519"}
SLOW = 'case "$*" in *"-t rsa"*) touch "$0.began"; while ! [ -e "$0.go" ]; do sleep 0.02; done;; esac\n'
"""An RSA key is begun at once, and done when the test says so."""
REAL = SMALL_RSA + 'exec "$real" "$@"'


class Bench:
    """A machine with a daemon whose ssh-keygen is slow for RSA keys."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.machine = lab.machine
        self.machine.ask_for_all_host_keys()
        self.machine.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
        self._programs = directory / "bin"
        self.set_keygen(SLOW + REAL)

    def set_keygen(self, script: str) -> None:
        """Another ssh-keygen."""
        self._path = fake_keygen(self._programs, script)

    def configure(self, text: str) -> None:
        """Settings of [HostKeys] and what follows them."""
        self.machine.configure(f"[Keys]\nUsers={self.machine.user}\n[HostKeys]\n{text}\n")

    def daemon(self) -> Daemon:
        """Start it."""
        return self.lab.daemon(PATH=self._path)

    def by_hand(self, command: str) -> Run:
        """Run another command, to its end."""
        return self.machine.firstkey(command, service=self.lab.service, PATH=self._path)

    def let_go(self) -> None:
        """The RSA key may be done."""
        (self._programs / "ssh-keygen.go").touch()

    def has_begun(self) -> bool:
        """Whether an RSA key is being made."""
        return (self._programs / "ssh-keygen.began").exists()

    @property
    def kinds(self) -> set[str]:
        """The types of the host keys that are in place."""
        names = (re.fullmatch(r"ssh_host_(.+)_key.pub", name) for name in self.machine.host_keys())
        return {name[1] for name in names if name}

    @property
    def report(self) -> dict[str, Any]:
        """The report as it stands."""
        found: dict[str, Any] = json.loads(self.machine.path("/run/firstkey/report.json").read_text())
        return found

    @property
    def phases(self) -> list[str]:
        """What has been done by then, in order."""
        return [phase["phase"] for phase in self.report["timeline"]]

    def has_reported(self) -> bool:
        """Whether there is a report."""
        return self.machine.path("/run/firstkey/report.json").exists()

    def result(self, kind: str) -> dict[str, Any]:
        """What it says of one host key."""
        return next(key for key in self.report["host_keys"] if key["type"] == kind)


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Bench:
    """All three default types, RSA as slow as the test wants."""
    return Bench(lab, tmp_path)


@pytest.mark.parametrize("firmware", [False, True])
@pytest.mark.sample(2)
def test_a_slow_service_is_given_the_time_that_it_takes(bench: Bench, firmware: bool) -> None:
    """Each answer comes in time, all together after the first look at the RSA key; IMDSv2 all the same."""
    if firmware:
        bench.machine.write("/sys/class/dmi/id/board_asset_tag", f"{FIRST}\n")
    bench.lab.service.inject(Fault("delay", 1.2))
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    assert bench.report["outcome"] == "ok"
    assert bench.report["imds"]["version"] == 2
    assert bench.machine.keys == [bench.lab.key]


def test_sshd_does_not_wait_for_rsa(bench: Bench) -> None:
    """READY with the launch key and two host keys; what is missing is told, and again when it is there."""
    console = bench.machine.write("/dev/console", "")
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    assert bench.kinds == QUICK
    assert bench.machine.keys == [bench.lab.key]
    assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("skipped", "host-key-pending")
    assert bench.report["outcome"] == "ok"
    assert bench.lab.manager.was_told("STATUS=Done: ok; making the host key rsa in the background")
    status = bench.machine.firstkey("status").out
    assert "ssh_host_rsa_key  being generated in the background" in status
    assert console.read_text() == ""

    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert bench.kinds == set(KINDS)
    assert matches(private(bench.machine, "rsa"))
    assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("changed", None)
    assert console.read_text().count(BEGIN) == 1
    assert bench.result("rsa")["fingerprint"] in console.read_text()
    assert bench.lab.manager.said[-1] == "STATUS=Done: ok"
    assert bench.lab.manager.count("READY=1") == 1
    assert ended.said.count("is being generated in the background") == 1
    assert ended.said.count("Host key") == len(KINDS)
    assert ended.said.count("Finished with outcome ok") == 1
    assert bench.lab.left_over == []


def test_a_key_that_the_distributions_own_unit_made_meanwhile_stays(bench: Bench) -> None:
    """It is a good host key that sshd may show already."""
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    file = generate(private(bench.machine, "rsa"), "rsa", "-b", "1024")
    made = file.read_bytes()
    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert (file.read_bytes(), asides(file)) == (made, [])
    assert matches(file)
    assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("unchanged", None)


@pytest.mark.parametrize("settings", ["Background=", "Background=\nBackground=ed25519", "Background=ecdsa"])
@pytest.mark.sample(3)
def test_what_background_names_decides(bench: Bench, settings: str) -> None:
    """Where it does not name RSA, sshd waits for the RSA key."""
    bench.configure(settings)
    daemon = bench.daemon()
    processes.wait_for(bench.has_begun)
    assert not bench.lab.manager.was_told("READY=1")
    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert bench.kinds == set(KINDS)


REFUSING = """case "$*" in *"-t ed25519"*|*"-t ecdsa"*hostkeys*) echo "not in this mode" >&2; exit 1;; esac
"""


@pytest.mark.parametrize("why", ["configured", "types", "policy", "refused", "mismatched"])
@pytest.mark.sample(5)
def test_where_there_is_no_other_key_sshd_waits(bench: Bench, why: str) -> None:
    """Only RSA is configured, or sshd would show nobody the others, or ssh-keygen makes none of them.

    Or sshd would show the private half that is there, whosever it is: the public one is another key's.
    """
    if why == "configured":
        bench.machine.write("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_rsa_key\n")
    elif why == "types":
        bench.configure("Types=rsa")
    elif why == "policy":
        bench.machine.write("/etc/ssh/sshd_config", "HostKeyAlgorithms rsa-sha2-512,rsa-sha2-256\n")
    elif why == "refused":
        bench.set_keygen(REFUSING + SLOW + REAL)
    else:
        file, other = private(bench.machine, "rsa"), generate(bench.machine.path("/other"))
        public(generate(file, "rsa", "-b", "2048")).write_bytes(public(other).read_bytes())
    daemon = bench.daemon()
    processes.wait_for(bench.has_begun)
    assert not bench.lab.manager.was_told("READY=1")
    bench.let_go()
    ready = time.time() - (time.monotonic() - daemon.manager.wait("READY=1"))
    assert private(bench.machine, "rsa").stat().st_ctime < ready + 0.1
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert "rsa" in bench.kinds
    assert bench.result("rsa")["result"] == "changed"
    assert "in the background" not in ended.said


def test_an_old_key_counts_as_another_one(bench: Bench) -> None:
    """A good ed25519 key is there already, and no other is to be made but RSA."""
    bench.machine.write(
        "/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\nHostKey /etc/ssh/ssh_host_rsa_key\n"
    )
    generate(private(bench.machine))
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    assert bench.kinds == {"ed25519"}
    bench.let_go()
    assert daemon.end().status == 0


@pytest.mark.slow
def test_without_an_answer_it_is_made_at_the_deadline_all_the_same(bench: Bench) -> None:
    """The answer may never come, and sshd runs by then; both come at last."""
    bench.configure("[IMDS]\nBootTimeoutSec=1\nRequestTimeoutSec=0.5")
    console = bench.machine.write("/dev/console", "")
    bench.lab.service.inject(Fault("status", 503))
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    processes.wait_for(bench.has_reported)
    assert (bench.report["outcome"], bench.result("rsa")["reason"]) == ("unreachable", "host-key-pending")
    bench.let_go()
    # What is there by now is told without the answer.
    processes.wait_for(lambda: bench.result("rsa")["result"] == "changed")
    processes.wait_for(lambda: bench.result("rsa")["fingerprint"] in console.read_text())
    assert bench.kinds == set(KINDS)
    assert bench.machine.keys == []
    bench.lab.service.inject()
    ended = daemon.end()
    assert console.read_text().count(BEGIN) == 1
    assert ended.said.count("Finished with outcome") == 1
    assert ended.status == 0, ended.said
    assert bench.machine.keys == [bench.lab.key]
    assert bench.result("rsa")["result"] == "changed"


@pytest.mark.parametrize("firmware", [False, True])
@pytest.mark.sample(2)
def test_another_instances_rsa_key_is_gone_before_sshd_starts(bench: Bench, firmware: bool) -> None:
    """Its replacement may come after, and neither half of the old one is left."""
    if firmware:
        bench.machine.set_firmware(FIRST)
    bench.let_go()
    assert bench.daemon().end().status == 0
    old = bench.machine.host_keys()
    (bench.machine.root.parent / "bin" / "ssh-keygen.go").unlink()
    bench.lab.service.change(instance_id=SECOND)
    if firmware:
        bench.machine.set_firmware(SECOND)
    bench.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    daemon = bench.daemon()
    processes.wait_for(lambda: bench.lab.manager.count("READY=1") == 2)
    assert bench.kinds == QUICK
    assert not private(bench.machine, "rsa").exists()
    assert not set(old.values()) & set(bench.machine.host_keys().values())
    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert bench.kinds == set(KINDS)
    assert ended.said.count("HOST KEY REPLACED") == len(KINDS)
    assert bench.result("rsa")["reason"] == "host-key-cloned"


def test_a_key_that_was_made_meanwhile_in_place_of_another_instances_stays(bench: Bench) -> None:
    """What starts sshd makes what is missing (ssh-keygen -A, on openSUSE): sshd shows that key already."""
    bench.let_go()
    assert bench.daemon().end().status == 0
    (bench.machine.root.parent / "bin" / "ssh-keygen.go").unlink()
    bench.lab.service.change(instance_id=SECOND)
    bench.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    daemon = bench.daemon()
    processes.wait_for(lambda: bench.lab.manager.count("READY=1") == 2)
    made = generate(private(bench.machine, "rsa"), "rsa", "-b", "1024").read_bytes()
    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert private(bench.machine, "rsa").read_bytes() == made
    assert matches(private(bench.machine, "rsa"))
    assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("unchanged", None)


def make_immutable(file: Path, order: str) -> None:
    """Let nobody remove it, or again everybody (chattr(1)); skips the test where that cannot be had."""
    done = subprocess.run(["chattr", order, file], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs chattr, which says: {done.stderr.strip()}")


@pytest.mark.root
@pytest.mark.slow
def test_a_failure_is_over_once_the_key_is_in_place(bench: Bench) -> None:
    """Another instance's key could not be removed at first: that is told, and later the replacement is."""
    bench.let_go()
    assert bench.daemon().end().status == 0
    (bench.machine.root.parent / "bin" / "ssh-keygen.go").unlink()
    bench.lab.service.change(instance_id=SECOND)
    bench.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    make_immutable(private(bench.machine, "rsa"), "+i")
    try:
        daemon = bench.daemon()
        processes.wait_for(lambda: bench.lab.manager.count("READY=1") == 2)
        assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("failed", "read-only")
    finally:
        make_immutable(private(bench.machine, "rsa"), "-i")
    bench.let_go()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert (bench.result("rsa")["result"], bench.result("rsa")["reason"]) == ("changed", "host-key-cloned")
    assert bench.kinds == set(KINDS)


def on_another_instance(bench: Bench) -> None:
    """The disk of FIRST, its RSA key included, starts as SECOND; no launch key can be had."""
    bench.configure("[IMDS]\nBootTimeoutSec=2")
    bench.let_go()
    assert bench.daemon().end().status == 0
    assert bench.machine.keys == [bench.lab.key]
    (bench.machine.root.parent / "bin" / "ssh-keygen.go").unlink()
    bench.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    bench.lab.service.change(instance_id=SECOND)
    bench.lab.service.inject(Fault("status", 503, path="/latest/meta-data/public-keys"))


@pytest.mark.parametrize("firmware, answers", [(False, True), (True, True), (True, False)])
@pytest.mark.slow
def test_another_instances_launch_key_is_gone_before_sshd_starts(
    bench: Bench, firmware: bool, answers: bool
) -> None:
    """Also where the firmware alone has told the instance, and where RSA is made meanwhile; and RSA comes."""
    if firmware:
        bench.machine.set_firmware(FIRST)
    on_another_instance(bench)
    if firmware:
        bench.machine.set_firmware(SECOND)
    if not answers:
        bench.lab.service.inject(Fault("status", 503))
    bench.daemon()
    processes.wait_for(lambda: bench.lab.manager.count("READY=1") == 2)
    assert bench.machine.keys == []
    bench.let_go()
    processes.wait_for(lambda: bench.kinds == set(KINDS))
    if firmware:  # the service was asked first, in case the key is this instance's as well
        assert bench.phases.index("metadata") < bench.phases.index("launch keys")


def test_it_goes_while_the_service_is_still_asked(bench: Bench) -> None:
    """Not at the last moment: sshd starts at the deadline, whatever is still being done then."""
    on_another_instance(bench)
    bench.configure("[IMDS]\nBootTimeoutSec=600")
    bench.daemon()
    processes.wait_for(lambda: bench.machine.keys == [])
    assert bench.lab.manager.count("READY=1") == 1


@pytest.mark.slow
def test_it_goes_after_the_deadline_too_once_the_instance_is_known(bench: Bench) -> None:
    """The service comes late, and says no more than which instance this is; meanwhile an RSA key is made."""
    on_another_instance(bench)
    private(bench.machine, "rsa").unlink()
    public(private(bench.machine, "rsa")).unlink()
    bench.lab.service.inject(Fault("status", 503))
    bench.daemon()
    processes.wait_for(lambda: bench.lab.manager.count("READY=1") == 2)
    assert bench.machine.keys == [bench.lab.key]
    bench.lab.service.inject(Fault("status", 503, path="/latest/meta-data/public-keys"))
    processes.wait_for(lambda: bench.machine.keys == [])


def test_the_answer_is_asked_for_while_rsa_is_made(bench: Bench) -> None:
    """Past the deadline too: the launch key comes as soon as the service has it."""
    bench.configure("[IMDS]\nBootTimeoutSec=1")
    bench.lab.service.inject(Fault("status", 503))
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    bench.lab.service.inject()
    processes.wait_for(lambda: bench.machine.keys == [bench.lab.key])
    assert bench.kinds == QUICK
    bench.let_go()
    assert daemon.end().status == 0
    assert bench.kinds == set(KINDS)


def test_a_useless_answer_does_not_make_sshd_wait_for_rsa(bench: Bench) -> None:
    """A captive portal's page or two: the service is asked again long before the key is made."""
    bench.lab.service.inject(Fault("html", first=2))
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    assert bench.machine.keys == [bench.lab.key]
    assert bench.kinds == QUICK
    bench.let_go()
    assert daemon.end().status == 0
    assert bench.kinds == set(KINDS)


@pytest.mark.slow
def test_another_instances_key_is_not_shown_where_no_other_could_be_made(bench: Bench) -> None:
    """It is gone, so neither the report nor the console has it; and the journal tells of the failure."""
    bench.let_go()
    assert bench.daemon().end().status == 0
    old = public(private(bench.machine, "rsa")).read_text().split()[1]
    bench.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    bench.machine.path("/run/firstkey/console-shown").unlink(missing_ok=True)
    console = bench.machine.write("/dev/console", "")
    bench.lab.service.change(instance_id=SECOND)
    bench.set_keygen('case "$*" in *"-t rsa"*) echo no entropy >&2; exit 1;; esac\n' + REAL)
    ended = bench.daemon().end()
    assert bench.kinds == QUICK
    assert old not in console.read_text()
    assert bench.result("rsa")["fingerprint"] is None
    assert "No rsa host key was generated" in ended.said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.sample(2)
def test_what_is_cut_off_is_made_on_the_next_boot(bench: Bench, how: signal.Signals) -> None:
    """Between READY and the RSA key: nothing is torn, nothing is left over, and the next run completes it."""
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    before = bench.machine.snapshot()
    below = processes.descendants(daemon.process.pid)
    ended = daemon.end(how)
    assert ended.status == (0 if how == signal.SIGTERM else -how)
    for pid in below:
        processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]
    assert bench.machine.snapshot() == before
    assert bench.kinds == QUICK
    # Of a worker that was killed itself, as deep as `ssh-keygen -A` goes.
    workshop = "/run/firstkey/.firstkey-hostkeys.0123abcd"
    bench.machine.write(f"{workshop}/.firstkey-key.0123abcd.all/etc/ssh/key", "a private half")

    bench.let_go()
    daemon = bench.daemon()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert bench.kinds == set(KINDS)
    assert [bench.result(kind)["result"] for kind in sorted(KINDS)] == ["unchanged", "unchanged", "changed"]
    assert bench.lab.left_over == []


def test_a_broken_rsa_key_stays_until_there_is_another(bench: Bench) -> None:
    """It is no key to sshd, which does not wait for its replacement."""
    private(bench.machine, "rsa").write_bytes(b"torn")
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    assert private(bench.machine, "rsa").read_bytes() == b"torn"
    bench.let_go()
    assert daemon.end().status == 0
    assert asides(private(bench.machine, "rsa")) == [b"torn"]
    assert matches(private(bench.machine, "rsa"))


def test_an_rsa_key_that_cannot_be_made_fails_the_run_and_not_the_boot(bench: Bench) -> None:
    """READY is told, and the status of the daemon tells of the failure."""
    bench.set_keygen(SLOW + 'case "$*" in *"-t rsa"*) kill -9 $$;; esac\n' + REAL)
    daemon = bench.daemon()
    daemon.manager.wait("READY=1")
    bench.let_go()
    ended = daemon.end()
    assert (ended.status, bench.report["outcome"]) == (1, "partial")
    assert bench.result("rsa")["reason"] == "keygen-failed"
    assert bench.kinds == QUICK


def test_by_hand_all_is_made_before_the_end(bench: Bench) -> None:
    """`host-keys` and `run` have nobody who waits for them."""
    bench.let_go()
    assert bench.by_hand("host-keys").status == 0
    assert bench.kinds == set(KINDS)
    for file in bench.machine.path("/etc/ssh").glob("ssh_host_*"):
        file.unlink()
    assert bench.by_hand("run").status == 0
    assert bench.kinds == set(KINDS)
    assert public(private(bench.machine, "rsa")).exists()
