"""An sshd that needs no port: each connection starts one on a pipe, for the account that runs the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path


class Sshd:
    """An sshd on a pipe, for the account that runs the tests; each connection has an sshd of its own."""

    def __init__(self, directory: Path, host_key: Path) -> None:
        self.program = shutil.which("sshd") or ""
        self.directory = directory
        self.host_key = host_key
        self.account = pwd.getpwuid(os.geteuid())

    def effective(self, config: str, *, user: str | None = None) -> str:
        """What `sshd -T` prints for a configuration."""
        file = self.directory / "sshd_config"
        file.write_text(config)
        command = [self.program, "-T", "-f", str(file), "-h", str(self.host_key)]
        if user:
            command += ["-C", f"user={user},host=localhost,addr=127.0.0.1"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def login(self, key: Path, *, patterns: str, more: str = "") -> tuple[bool, str]:
        """Whether sshd lets the key in, and its log; `patterns` are for AuthorizedKeysFile."""
        config, log = self.directory / "sshd_config", self.directory / "log"
        settings = {
            "HostKey": self.host_key,
            "AuthorizedKeysFile": patterns,
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "UsePAM": "no",
            "LogLevel": "DEBUG1",
            "PidFile": "none",
        }
        config.write_text("".join(f"{keyword} {value}\n" for keyword, value in settings.items()) + more)
        log.write_text("")
        # fmt: off
        command = [
            "ssh", "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", f"ProxyCommand={self.program} -i -f {config} -E {log}",
            f"{self.account.pw_name}@localhost", "echo", "let in",
        ]
        # fmt: on
        outcome = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
        )
        return b"let in" in outcome.stdout or b"Accepted publickey" in log.read_bytes(), log.read_text()
