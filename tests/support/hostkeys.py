"""Host keys on a machine, judged with OpenSSH's own programs, and ssh-keygen in every mood."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from listeners import wait_for_listener
from machine import Machine, Run

KINDS = ("rsa", "ecdsa", "ed25519")
QUICK = ("ecdsa", "ed25519")  # an RSA key takes its time
SMALL_RSA = 'case "$*" in *"-t rsa"*) set -- -b 1024 "$@";; esac\n'
"""For fake_keygen: one of the usual size takes a second of a processor, and few tests are about its size."""


def private(machine: Machine, kind: str = "ed25519") -> Path:
    """The private half's file."""
    return machine.path(f"/etc/ssh/ssh_host_{kind}_key")


def public(file: Path) -> Path:
    """The public half beside it."""
    return file.with_name(f"{file.name}.pub")


def ask_for(machine: Machine, *files: str, more: str = "") -> None:
    """Let sshd_config name these host keys."""
    machine.write("/etc/ssh/sshd_config", "".join(f"HostKey {file}\n" for file in files) + more)


def be_quick(machine: Machine) -> None:
    """Leave the RSA key out, where the type is not what the test is about."""
    ask_for(machine, *(f"/etc/ssh/ssh_host_{kind}_key" for kind in QUICK))


def generate(file: Path, kind: str = "ed25519", *more: str, passphrase: str = "") -> Path:
    """A key pair of somebody else's."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, *more, "-f", str(file)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return file


def matches(file: Path) -> bool:
    """Whether the two halves belong together, by ssh-keygen's own judgement."""
    derived = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True)
    return derived.stdout.split()[:2] == public(file).read_text().split()[:2]


def host_keys(machine: Machine, *, path: str = "", prefix: tuple[str, ...] = ()) -> Run:
    """`firstkey host-keys --json`, with programs out of `path`."""
    return machine.firstkey("host-keys", "--json", prefix=prefix, PATH=path or os.environ["PATH"])


def result(done: Run, kind: str = "ed25519") -> dict[str, Any]:
    """The report's word on the key of that type."""
    found: dict[str, Any] = next(key for key in done.report["host_keys"] if key["type"] == kind)
    return found


def results(done: Run) -> dict[str, str]:
    """What became of each type."""
    return {key["type"]: key["result"] for key in done.report["host_keys"]}


def asides(file: Path) -> list[bytes]:
    """What was set aside of a file."""
    return [path.read_bytes() for path in sorted(file.parent.glob(f"{file.name}.broken.*"))]


def fake_keygen(directory: Path, script: str) -> str:
    """A PATH in which ssh-keygen is this shell script; `$real` is the real one."""
    directory.mkdir(exist_ok=True)
    program = directory / "ssh-keygen"
    program.write_text(f"#!/bin/sh\nreal=/usr/bin/ssh-keygen\n{script}\n")
    program.chmod(0o755)
    return f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"


def refused_by_sshd(machine: Machine, files: Sequence[str]) -> str:
    """What `sshd -t` has to say against a configuration with these host keys; nothing if it would start."""
    config = machine.path("/etc/ssh/for-sshd-t")
    config.write_text("".join(f"HostKey {machine.root}{file}\n" for file in files))
    done = subprocess.run(
        ["sshd", "-t", "-f", config], capture_output=True, text=True, check=False, timeout=60
    )
    config.unlink()
    return done.stderr if done.returncode == 0 else f"{done.stderr} (exit status {done.returncode})"


def shown_by_sshd(machine: Machine, files: Sequence[str]) -> set[str]:
    """The fingerprints that a real sshd shows to ssh-keyscan, a client that trusts nobody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = machine.write(
        "/etc/ssh/for-sshd",
        f"ListenAddress 127.0.0.1\nPort {port}\nPidFile none\n"
        + "".join(f"HostKey {machine.root}{file}\n" for file in files),
    )
    argv = [str(shutil.which("sshd")), "-D", "-f", str(config)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            # A scan asks for one type after the other: sshd may not come up in between.
            wait_for_listener(server, port)
            return _scanned(port)
        finally:
            server.terminate()
            config.unlink()


def _scanned(port: int) -> set[str]:
    argv = ["ssh-keyscan", "-T", "10", "-p", str(port), "127.0.0.1"]
    keys = subprocess.run(argv, capture_output=True, check=False, timeout=60).stdout
    listed = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=keys, capture_output=True, check=True)
    return {line.split()[1] for line in listed.stdout.decode().splitlines()}


# --- tomorrow: a type of host key that is not known here ------------------------------------------

KIND, TYPE = "quux_ed25519", "quux-ed25519@example.com"
LISTED = "443 SHA256:as-only-ssh-keygen-knows made-up (QUUX)"
"""What `ssh-keygen -l` says of each of them."""
QUUX = r"""
umask 077
TYPE=quux-ed25519@example.com
public() {
    read -r _ _ id
    printf '%s %s made-up\n' $TYPE "$({ printf '\0\0\0\030%s' $TYPE; printf %s "$id"; } | base64 -w0)"
}
make() {
    echo "QUUX PRIVATE $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" >"$1"
    public <"$1" >"$1.pub"
}
for last; do :; done
case "$*" in
*"-t quux-ed25519 "*) @T@ ;;
*"-t quux_ed25519 "*) echo "unknown key type" >&2; exit 1 ;;
"-A -f "*) @A@ ;;
*"-f /dev/stdin")
    given=$(cat)
    case $given in "QUUX PRIVATE "*) echo "$given" | public; exit ;; "$TYPE"*) @L@; esac
    echo "$given" | "$real" "$@" ;;
*) exec "$real" "$@" ;;
esac
"""
REFUSED = 'echo "unknown key type" >&2; exit 1'
MADE = 'make "$last"; exit 0'
ALL_MADE = 'make "$last/etc/ssh/ssh_host_quux_ed25519_key"; exit 0'
"""A ssh-keygen that knows one type more: its file has the name of another one in it."""


def quux(directory: Path, *, by_type: bool = True, by_default: bool = True, listed: bool = True) -> str:
    """A PATH with it. What it does not do by type or among its defaults, it refuses."""
    script = QUUX.replace("@T@", MADE if by_type else REFUSED)
    script = script.replace("@A@", ALL_MADE if by_default else "exit 0")
    return fake_keygen(directory, script.replace("@L@", f"echo {LISTED!r}; exit 0" if listed else "exit 255"))


SSHD = r"""#!/bin/bash
key=/etc/ssh/ssh_host_quux_ed25519_key
case " $* " in
*" -G "*)
    if ! said=$("$0.real" "$@" 2>/dev/null); then
        said=$("$0.real" "${@/#-G/-h/dev/stdin}" <<<"@STAND-IN@") || exit
        said=$(grep -vx "hostkey /dev/stdin" <<<"$said")
    fi
    echo "$said"
    [[ $said == *"hostkey "* ]] || printf 'hostkey /etc/ssh/ssh_host_%s_key\n' rsa ecdsa ed25519
    echo "hostkey $key"
    exit ;;
*" -t "* | *" -T "* | *" -R "*) ;;
*) if grep -qs '^QUUX PRIVATE .' $key; then cat $key.pub >>@LOADED@; fi ;;
esac
exec -a "$0" "$0.real" "$@"
"""
"""An sshd with a default host key more; the real one is `sshd.real`. By -G, as from OpenSSH 9.3 on, it says
with which host keys it would start; whenever it does start, it puts down the key of that type that it finds.
A real one that is older does not know -G, and gets a stand-in, for without a host key it says nothing.
"""
LOADED = "/run/quux-loaded"


def of_tomorrow(root: Path) -> None:
    """Give the system at `root` an OpenSSH that has host keys of that type."""
    quux(root / "usr/local/bin")
    sshd = root / "usr/sbin/sshd"
    sshd.rename(sshd.with_name("sshd.real"))
    stand_in = generate(root / "tmp/stand-in").read_text()
    sshd.write_text(SSHD.replace("@STAND-IN@", stand_in).replace("@LOADED@", LOADED))
    sshd.chmod(0o755)
