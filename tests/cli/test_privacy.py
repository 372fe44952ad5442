"""Files and core files: for nobody else, whatever umask and limits the caller has."""

from __future__ import annotations

import stat
from pathlib import Path

from machine import Machine, new_key
from processes import run

from firstkey.metadata.emulator import Emulator, Settings

CARELESS = ("sh", "-c", 'umask 0; ulimit -c unlimited 2>/dev/null; exec "$@"', "sh")
"""The shell of a caller who takes no care; a hard limit may stand in the way of the second."""


def test_umask_and_core_limit_of_what_is_started() -> None:
    """A program that is started has them too."""
    said = run("""
        import os, resource, subprocess
        from firstkey.cli import main
        os.umask(0)
        main.keep_private()
        subprocess.run(["sh", "-c", "umask; ulimit -c; ulimit -H -c"], check=True)
    """)
    assert said.split() == ["0077", "0", "0"]


def test_what_a_run_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    """But for what everybody may know: public halves, and the report for programs."""
    machine = Machine(tmp_path / "root")
    machine.configure(f"[Keys]\nUsers={machine.user}\n[HostKeys]\nTypes=ed25519\n")
    with Emulator(Settings(keys=(("launch", new_key(tmp_path, "launch")),))) as service:
        done = machine.firstkey("run", service=service, prefix=CARELESS)
    assert done.status == 0, done.err
    made = {
        str(path.relative_to(machine.root)): stat.S_IMODE(path.lstat().st_mode)
        for top in ("etc/ssh", "run", "var", f"home/{machine.user}/.ssh")
        for path in [machine.root / top, *(machine.root / top).rglob("*")]
    }
    assert {path for path, mode in made.items() if mode & 0o022} == set()
    files = {path: mode for path, mode in made.items() if (machine.root / path).is_file()}
    readable = {path for path, mode in files.items() if mode & 0o004}
    assert readable == {"etc/ssh/sshd_config", "etc/ssh/ssh_host_ed25519_key.pub", "run/firstkey/report.json"}
    assert made["var/lib/firstkey"] == 0o700
