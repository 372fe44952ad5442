"""What holds for every test: which can run here, a clean environment, and no network."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import pwd
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from rootfs import MissingReleaseError
from suites import SUITES, without

from firstkey import reasons

# An example that takes long on a busy machine is no failure. CI tries the same examples each time, so
# that a red build is the change's own doing; elsewhere each run looks further.
settings.register_profile("firstkey", deadline=None, database=None, derandomize="CI" in os.environ)
settings.register_profile("quick", settings.get_profile("firstkey"), max_examples=25)  # ./dev test
settings.load_profile("firstkey")

LEFT_SECONDS = 3600
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# A developer's own settings must not decide what a test sees.
REMOVED = ("FIRSTKEY_", "NOTIFY_SOCKET", "JOURNAL_STREAM", "SSH_", "XDG_", "LC_", "LANG")


# Each thread of a test's server would get 64 MiB of addresses of its own (mallopt(3): M_ARENA_MAX). A box is
# bounded in addresses: one that is forked afterwards would start with most of them gone.
ctypes.CDLL(None).mallopt(-8, 1)


# --- which tests can run here ---------------------------------------------------------------------


def missing_for_root() -> str | None:
    """Why a test marked root cannot run, or None."""
    return None if os.geteuid() == 0 else "needs root: run it with sudo ./dev test"


def missing_for_sshd() -> str | None:
    """Why a test marked sshd cannot run, or None."""
    for program in ("sshd", "ssh", "ssh-keygen"):
        if not shutil.which(program):
            return f"needs {program}, which is not installed"
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        return f"needs an account that sshd can look up: uid {os.geteuid()} has none"
    if os.path.basename(shell) in ("nologin", "false"):
        return f"needs an account that may log in: this one's shell is {shell}"
    return None


def missing_for_landlock() -> str | None:
    """Why a test marked landlock cannot run, or None: landlock_create_ruleset(2) for its version."""
    has_it = ctypes.CDLL(None).syscall(ctypes.c_long(444), None, 0, 1) > 0
    return None if has_it else "needs Landlock, which this kernel does not have, or this container not allow"


def missing_for_systemd() -> str | None:
    """Why a test marked systemd cannot run, or None."""
    return None if shutil.which("systemd-analyze") else "needs systemd-analyze, which is not installed"


def missing_for_boot() -> str | None:
    """Why a test marked boot cannot run, or None."""
    programs = "mmdebstrap dpkg-buildpackage systemd-nspawn journalctl ip nsenter setpriv ssh"
    missing = [program for program in programs.split() if not shutil.which(program)]
    if missing:
        return f"needs {', '.join(missing)}, not installed here: ./dev test --all does it"
    return None if "\toverlay\n" in Path("/proc/filesystems").read_text() else "needs overlayfs in the kernel"


NEEDS = {
    "root": missing_for_root,
    "sshd": missing_for_sshd,
    "landlock": missing_for_landlock,
    "systemd": missing_for_systemd,
    "boot": missing_for_boot,
}


BOOT_SECONDS = 900
"""What a test that boots may take: the first of a week makes its system before."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--suite NAME`, for what boots or looks into Debian's releases, and how much of it all is tried."""
    parser.addoption("--suite", choices=list(SUITES), help="the one of Debian's releases to try things on")
    parser.addoption("--whole-tables", action="store_true", help="also the cases that sample(N) leaves out")
    parser.addoption("--each", type=int, default=1, metavar="N", help="of what is chosen only each Nth test")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # before -m chooses, and after it
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Of a table that is marked sample(N), all but each Nth case are slow. Then `--each`."""
    if not config.getoption("whole_tables"):
        _mark_samples(items)
    for item in items:
        if item.get_closest_marker("boot") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(BOOT_SECONDS))
    yield
    items[:] = items[:: config.getoption("each")]


def _mark_samples(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if sample := item.get_closest_marker("sample"):
            table = item.nodeid.partition("[")[0]
            if seen[table] % sample.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[table] += 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine or account cannot do."""
    for marker, missing in NEEDS.items():
        reason = missing() if item.get_closest_marker(marker) else None
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A mirror that does not serve a release is no fault of firstkey's, whichever test asked for it."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, MissingReleaseError):
        call.excinfo = pytest.CallInfo.from_call(partial(without, error.suite, error), call.when).excinfo


def pytest_sessionstart() -> None:
    """Remove what tests that kill firstkey left behind (docs/security.md, Limits): none needs it so long."""
    for left in (path for place in ("/run", "/tmp") for path in Path(place).glob(".firstkey-scratch.*")):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(left)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which nothing ran is a failure, however many tests were skipped."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return  # one of several workers: who started them counts
    ran = any(reporter.stats.get(outcome) for outcome in ("passed", "failed", "error", "xfailed"))
    if exitstatus == pytest.ExitCode.OK and not ran and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


# --- a clean environment --------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty home, the C locale, no proxy, the usual umask, and the administrator's programs in reach."""
    umask = os.umask(0o022)
    # A shell lets what it runs in the background ignore Ctrl-C, nohup(1) the end of a session; so would every
    # program that is started from there.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(REMOVED) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.setenv("PATH", f"{os.environ['PATH']}:{SBIN}")
        # Programs that tests start find firstkey, wherever they are started.
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent / "agent"))
        if os.geteuid() == 0:
            # Root's sshd wants it (Debian: its unit makes it): it is empty, and goes with the boot.
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        yield
    for number, handler in before.items():
        signal.signal(number, handler)
    os.umask(umask)


@pytest.fixture(autouse=True)
def published_remedies() -> Iterator[None]:
    """They are a tree's in a process that was called with --root, as a test's own is here and there."""
    before = {code: reason.remedy for code, reason in reasons.ALL.items()}
    yield
    for code, remedy in before.items():
        reasons.ALL[code].remedy = remedy


# --- no network -----------------------------------------------------------------------------------

# Who is asked for a connection or a name, by the audit event (docs.python.org/3/library/audit_events.html).
ADDRESS_OF = {
    "socket.connect": lambda arguments: arguments[1],
    "socket.sendto": lambda arguments: arguments[1],
    "socket.sendmsg": lambda arguments: arguments[1],
    "socket.getaddrinfo": lambda arguments: arguments[0],
    "socket.gethostbyname": lambda arguments: arguments[0],
    "socket.gethostbyaddr": lambda arguments: arguments[0],
}
strayed: list[str] = []


def stays_here(address: Any) -> bool:
    """Whether an address is of this machine: loopback, a socket in the file system, or none at all."""
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(address, tuple) and isinstance(host, int):
        return True  # netlink: (port, groups)
    if host in (None, (), "", "localhost", b"localhost"):
        return True
    try:
        name = host.decode() if isinstance(host, bytes) else host
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return not isinstance(address, tuple) and name.startswith(("/", "\0"))


def refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Stop whatever would leave this machine, and remember it for the test that did it."""
    address_of = ADDRESS_OF.get(event)
    if address_of and not stays_here(address_of(arguments)):
        strayed.append(f"{event} {address_of(arguments)!r}")
        raise PermissionError(f"no test may leave this machine: {strayed[-1]}")


# An audit hook sees every socket of this process, whoever opens it, and nothing has to be replaced for it.
sys.addaudithook(refuse_the_network)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail the test that tried to leave this machine, even where its code took the refusal for an outage."""
    strayed.clear()
    yield
    assert not strayed, f"tried to leave this machine: {strayed}"
