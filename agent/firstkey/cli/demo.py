"""`firstkey demo`: the main job on real files in a scratch root, shown step by step, without root.

The machine is a scratch root that the caller owns, and a real sshd over it, which needs no port.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import shutil  # noqa: TID251 - it removes what this module made
import signal
import stat
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from firstkey import events, reasons
from firstkey.cli import run, screen, streams, usage
from firstkey.colours import GREEN, RED, Coloured
from firstkey.metadata.emulator import Emulator, Settings
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.system import command
from firstkey.system.sshd import ask_keygen
from firstkey.system.tree import Tree

USER, HOME = "demo", "/home/demo"
AUTHORIZED_KEYS = f"{HOME}/.ssh/authorized_keys"
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
LOGIN_SECONDS = 15.0
RUN_SSHD = "/run/sshd"
FIRST = "i-0aaaaaaaaaaaaaaa1"
SECOND = "i-0bbbbbbbbbbbbbbb2"
WIDTH = 100
SSHD_CONFIG = """\
AuthorizedKeysFile "{file}"
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM {pam}
"""
"""StrictModes: other users can write above the scratch directory."""
USAGE = usage.Usage(
    (usage.flag("--keep", words="keep the scratch directory"),),
    """\
The metadata service is this command itself, on a loopback port. Nothing outside
the directory is changed, and the directory is removed at the end.

examples:
  firstkey demo             takes some seconds
  firstkey demo --keep      keep the files

exit status: 0 every check passed, 1 one did not, 2 usage error
""",
    is_common=False,
)


def main(args: argparse.Namespace) -> int:
    """Show the job; returns 0 where every step did what it says, else 1."""
    with _scratch(keep=args.keep) as machine, Emulator(Settings(instance_id=FIRST)) as service:
        return _Show(machine, service).run()


class _Show:
    """The steps. Each says what it is about to show, does it, and checks that it came out so."""

    def __init__(self, machine: _Machine, service: Emulator) -> None:
        self._machine = machine
        self._service = service
        self._step = 0
        self._failures: list[str] = []
        self._remedies: set[str] = set()

    def run(self) -> int:
        self._first_boot()
        self._second_boot()
        self._key_removed_by_hand()
        self._rebundled_image()
        if self._machine.without_login:
            streams.show("")
            _explain(f"Not shown: a real SSH login, because {self._machine.without_login}.")
        failures = ["These checks failed:", *(f"  {failure}" for failure in self._failures)]
        streams.show("", *(failures if self._failures else ["Every check passed."]))
        return 1 if self._failures else 0

    def _first_boot(self) -> None:
        machine = self._machine
        self._title("A fresh machine boots for the first time")
        _explain(
            f"The machine is a directory, {machine.root}. It has an sshd configuration and one user, "
            f"{USER}. It has no host keys, and no key lets anyone log in yet. A metadata service of "
            f"the demo's own, at {self._service.url}, offers the launch key `first-key`. The boot:"
        )
        self._service.change(keys=(("first-key", machine.new_key("first-key")),))
        self._firstkey()
        streams.show("", "The files, with their modes and owners:")
        for path, found in machine.files("/etc/ssh", HOME, "/var", "/run").items():
            streams.show(f"  {stat.filemode(found.st_mode)} {pwd.getpwuid(found.st_uid).pw_name:10} {path}")
        self._keys()
        if not machine.without_login:
            _explain(
                "A real sshd reads these files. It runs with StrictModes no, since others may write above "
                "this directory. On a real machine StrictModes stays on."
            )
        self._login("first-key", expected=True)

    def _second_boot(self) -> None:
        self._title("It boots again: nothing changes")
        before = self._machine.snapshot()
        self._firstkey()
        self._check("No file was written.", self._machine.snapshot() == before)

    def _key_removed_by_hand(self) -> None:
        machine = self._machine
        self._title("A person removes the launch key, and adds a key of their own")
        _explain("Launch keys are installed once for each instance. A later change by a person stays:")
        machine.write_authorized_keys(machine.new_key("own-key"))
        self._firstkey()
        self._check("The launch key stays removed.", not machine.has_key("first-key"))
        self._check("The person's key stays.", machine.has_key("own-key"))
        self._login("first-key", expected=False)
        self._login("own-key", expected=True)
        _explain("`--force` adds it again:")
        self._firstkey("--force")
        self._check("The launch key is back.", machine.has_key("first-key"))

    def _rebundled_image(self) -> None:
        machine = self._machine
        self._title("The disk becomes an AMI, and a new instance is launched from it with another key pair")
        _explain(
            "A new instance trusts only its own launch key, and shows only its own host keys. "
            "Lines that firstkey did not write stay:"
        )
        before = machine.host_keys()
        self._service.change(instance_id=SECOND, keys=(("second-key", machine.new_key("second-key")),))
        self._firstkey()
        self._keys()
        self._check("The new launch key is installed.", machine.has_key("second-key"))
        self._check("The launch key of the other instance is revoked.", not machine.has_key("first-key"))
        self._check("The person's own key is still there.", machine.has_key("own-key"))
        self._check("No host key is the image's.", not before & machine.host_keys())
        self._login("second-key", expected=True)
        self._login("first-key", expected=False)

    # --- how it is shown ----------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self._step += 1
        streams.show("", f"=== {self._step}. {text} ===", "")

    def _firstkey(self, *options: str) -> None:
        argv = ["--root", self._machine.root, "--imds", self._service.url, "--user", USER, *options]
        streams.show(f"$ firstkey run {shlex.join(argv)}")
        self._check("Exit status 0.", run.main([*argv, "--quiet"], log=self._show) == 0)

    def _show(self, entry: events.Entry) -> None:
        """What the journal would get; the same remedy once."""
        if entry.event.priority > events.INFO:
            return
        _explain(entry.sentence, indent=2)
        if entry.remedy and entry.remedy not in self._remedies:
            self._remedies.add(entry.remedy)
            _explain(f"What to do: {entry.remedy}", indent=4)

    def _keys(self) -> None:
        streams.show("", f"The lines of {AUTHORIZED_KEYS}:")
        for line in self._machine.authorized_keys():
            kind, blob, *comment = line.split(" ")
            streams.show(f"  {kind} {blob[:12]}...{blob[-8:]} {' '.join(comment)}")
        streams.show("")

    def _login(self, key: str, *, expected: bool) -> None:
        if not self._machine.without_login:
            worked = self._machine.login(key)
            self._check(f"ssh with {key}: {'logged in' if worked else 'refused'}.", worked is expected)

    def _check(self, words: str, good: bool) -> None:  # noqa: FBT001 - the condition is the point of the call
        mark, colour = ("[ ok ]", GREEN) if good else ("[FAIL]", RED)
        screen.show(Coloured(colour, mark, after=f" {words}"))
        if not good:
            self._failures.append(words)


def _explain(text: str, *, indent: int = 0) -> None:
    """Print a sentence in lines that a terminal shows whole, without breaking a path or a fingerprint."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2 if indent else 0),
        break_long_words=False,
        break_on_hyphens=False,
    )
    streams.show(*lines)


# --- the machine ------------------------------------------------------------------------------


class _Machine:
    """A scratch root with one user, who has the caller's number, so that a real sshd can let that user in."""

    def __init__(self, tree: Tree, caller: pwd.struct_passwd) -> None:
        self.root = tree.root
        self._tree = tree
        self._caller = caller
        files = {
            "/etc/passwd": f"{USER}:x:{caller.pw_uid}:{os.getegid()}::{HOME}:{caller.pw_shell}\n",
            "/etc/group": f"{USER}:x:{os.getegid()}:\n",
            "/etc/hostname": "demo\n",
            "/etc/ssh/sshd_config": "# OpenSSH's defaults\n",
        }
        for path, content in files.items():
            tree.write(path, content.encode(), mode=0o644)
        for path in (HOME, "/keys"):
            tree.ensure(path, mode=0o700).__exit__()

    @property
    def without_login(self) -> str:
        """Why no login can be shown here, or nothing."""
        if not (command.find("sshd") and command.find("ssh")):
            return "sshd is not installed (openssh-server)"
        shell = self._caller.pw_shell
        return "" if shell and not restrictions.is_no_shell(shell) else "your account has no login shell"

    def new_key(self, name: str) -> str:
        """Generate the key pair of that name, as a person would; returns the public line."""
        outcome = ask_keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", f"{self.root}/keys/{name}")
        if outcome.status:
            raise FirstkeyError(f"ssh-keygen generates no key: {outcome.words}", reason=reasons.KEYGEN_FAILED)
        return self._read(f"/keys/{name}.pub").strip()

    def has_key(self, name: str) -> bool:
        """Whether the key of that name is in the user's authorized_keys."""
        return self._read(f"/keys/{name}.pub").split()[1] in self._read(AUTHORIZED_KEYS)

    def authorized_keys(self) -> list[str]:
        """The lines of the user's file of keys."""
        return self._read(AUTHORIZED_KEYS).splitlines()

    def write_authorized_keys(self, line: str) -> None:
        """What an editor would leave: only this line."""
        self._tree.write(AUTHORIZED_KEYS, f"{line}\n".encode(), mode=0o600)

    def host_keys(self) -> set[str]:
        """The data of the host keys that there are."""
        return {words[1] for path in HOST_KEYS if (words := self._read(f"{path}.pub").split())}

    def files(self, *tops: str) -> dict[str, os.stat_result]:
        """Everything below these directories, by path."""
        walked = (each for top in tops for each in os.walk(self.root + top))
        found = [f"{where}/{name}" for where, directories, files in walked for name in (*directories, *files)]
        return {path[len(self.root) :]: os.lstat(path) for path in sorted(found)}

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """What shows whether any file was written; /run is of the run, not of the machine."""
        files = self.files("/etc", HOME, "/var").items()
        return {path: (at.st_ino, at.st_mtime_ns) for path, at in files if stat.S_ISREG(at.st_mode)}

    def login(self, key: str) -> bool:
        """Log in with that key, to an sshd on the machine's files that ssh itself starts."""
        is_root = os.geteuid() == 0
        with Tree("/") as host:
            if is_root:
                host.ensure(RUN_SSHD, mode=0o755).__exit__()  # Debian's sshd wants it
            shadow = (is_root and host.read("/etc/shadow", limit=1 << 20)) or b""
        root = self.root.replace("%", "%%")  # where OpenSSH has tokens
        # A locked root (`!` in shadow(5)) gets in by key only where PAM judges (sshd_config(5): UsePAM).
        pam = "yes" if shadow.startswith(b"root:!") else "no"
        lines = "".join(f'HostKey "{self.root}{path}"\n' for path in HOST_KEYS)
        lines += SSHD_CONFIG.format(file=root + AUTHORIZED_KEYS, pam=pam)
        self._tree.write("/keys/sshd_config", lines.encode(), mode=0o600)
        known = "".join(f"demo {self._read(f'{path}.pub')}" for path in HOST_KEYS)
        self._tree.write("/keys/known_hosts", known.encode(), mode=0o600)
        server = [str(command.find("sshd")), "-i", "-e", "-f", f"{root}/keys/sshd_config"]
        options = {
            "ProxyCommand": shlex.join(server), "HostKeyAlias": "demo",
            "IdentityFile": f'"{root}/keys/{key}"',
            "BatchMode": "yes", "IdentitiesOnly": "yes", "IdentityAgent": "none", "ConnectTimeout": "10",
            "StrictHostKeyChecking": "yes", "UserKnownHostsFile": f'"{root}/keys/known_hosts"',
            "GlobalKnownHostsFile": "/dev/null",
        }  # fmt: skip
        argv = [str(command.find("ssh")), "-F", "none"]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        argv += ["-l", self._caller.pw_name, "demo", "echo", "hello"]
        outcome = command.run(argv, seconds=LOGIN_SECONDS)
        return outcome.status == 0 and b"hello" in outcome.stdout

    def _read(self, path: str) -> str:
        return (self._tree.read(path, limit=1 << 20) or b"").decode()


@contextmanager
def _scratch(*, keep: bool) -> Iterator[_Machine]:
    """A machine in a new directory, removed at the end unless it is to be kept."""
    had_run_sshd = os.path.isdir(RUN_SSHD)
    try:
        caller = pwd.getpwuid(os.geteuid())
        root = os.path.realpath(tempfile.mkdtemp(prefix="firstkey-demo-"))
    except KeyError as error:  # as for a container's user; OpenSSH's programs do nothing without an account
        message = f"user id {os.geteuid()} has no account on this machine, and ssh-keygen works for accounts"
        hint = "Run it as root, or as another user that /etc/passwd has."
        raise FirstkeyError(message, reason=reasons.NO_SUCH_USER, hint=hint) from error
    except OSError as error:
        message = f"cannot make a scratch directory: {error.strerror}"
        hint = "Set TMPDIR to a directory that you can write."
        raise FirstkeyError(message, reason=reasons.PERMISSION_DENIED, hint=hint) from error
    try:
        with Tree(root) as tree:
            yield _Machine(tree, caller)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C may not keep the first from tidying up
        if keep:
            streams.show(f"Kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
        # Even `sshd -T` wants it, on Debian. An sshd that was started meanwhile needs it.
        if not (had_run_sshd or os.path.exists("/run/sshd.pid")):
            with suppress(OSError):
                os.rmdir(RUN_SSHD)  # noqa: TID251 - only an empty one goes
