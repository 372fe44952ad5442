"""`firstkey known-hosts`: out of saved consoles and out of the machine, and believed by a real ssh."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path

import fork_server
import processes
import pytest
from lab import Lab
from machine import AGENT, Machine, Run, new_key

from firstkey.ssh.public_key import parse_launch_key
from firstkey.system import console


def console_of(*lines: str) -> str:
    """What firstkey writes to the console for these public key lines."""
    keys = [parse_launch_key(line.encode()) for line in lines]
    pairs = [(f"{key.bits} {key.fingerprint} {key.comment} (X)", key.line) for key in keys]
    return console.fingerprint_block(pairs, prefix="<14>Nov 24 08:00:00 firstkey: ").decode()


def run(text: str | None, *options: str) -> Run:
    """Run the command with the text piped in, or with no input at all."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)}
    done = fork_server.firstkey(
        "known-hosts", *options, environ=environ, given=None if text is None else text.encode()
    )
    return Run(done.status, done.out.decode(), done.err.decode())


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The public line of a host key."""
    return new_key(tmp_path, "host")


def words(line: str) -> str:
    """Type and data."""
    return " ".join(line.split()[:2])


def test_the_text_comes_by_pipe_or_file(tmp_path: Path, key: str) -> None:
    """Piped in, named as -, or as a file: the same line."""
    saved = tmp_path / "console.txt"
    saved.write_text(console_of(key))
    expected = Run(0, f"a,[b]:1 {words(key)}\n".replace("a,[b]:1", "[a]:2222,[b]:2222"), "")
    for text, options in ((console_of(key), ()), (console_of(key), ("-",)), (None, (str(saved),))):
        assert run(text, "--host", "a", "--host", "b", "--port", "2222", *options) == expected


@pytest.mark.parametrize("wrapped", ["json", "json string", "base64", "base64 in json", "aws text"])
def test_what_the_aws_tools_print_around_it(key: str, wrapped: str) -> None:
    """JSON as `aws ec2 get-console-output` prints it, its text form, and the API's own base64."""
    text = console_of(key)
    packed = base64.encodebytes(text.encode()).decode()
    given = {
        "json": json.dumps(
            {"InstanceId": "i-0", "Output": text, "Timestamp": "2026-11-24T08:00:00.000Z"}, indent=4
        ),
        "json string": json.dumps(text.replace("\n", "\r\n")),
        "base64": packed,
        "base64 in json": json.dumps({"Output": packed}),
        "aws text": f"i-0\t{text}\t2026-11-24T08:00:00.000Z\n",
    }[wrapped]
    assert run(given, "--host", "a").out == f"a {words(key)}\n"


@pytest.mark.parametrize(
    "text,code",
    [
        ("boot\n", "console-without-keys"),
        ('{"InstanceId": "i-0"}', "console-without-keys"),
        ("", "console-without-keys"),
    ],
)
def test_no_keys_in_it(text: str, code: str) -> None:
    """It is said, with what to do, and nothing is printed that could be taken for a line."""
    done = run(text, "--host", "a")
    assert (done.status, done.out) == (1, "")
    assert code in done.err
    assert "get-console-output --latest" in done.err
    assert ("give --live for the keys of this machine" in done.err) is (not text)


def test_a_key_that_does_not_agree_is_left_out(tmp_path: Path, key: str) -> None:
    """The good one is printed, the other is named, and the exit status tells."""
    good, other = new_key(tmp_path, "good", "ecdsa"), new_key(tmp_path, "other")
    text = console_of(key, good).replace(words(key), words(other))
    done = run(text, "--host", "a")
    assert (done.status, done.out) == (1, f"a {words(good)}\n")
    assert "console-disagrees" in done.err
    alone = run(console_of(key).replace(words(key), words(other)), "--host", "a")
    assert (alone.status, alone.out) == (1, "")


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_blocks_that_disagree_are_a_finding(tmp_path: Path, key: str, options: tuple[str, ...]) -> None:
    """Both are shown with where they stand, nothing that could be believed is printed, and exit 1."""
    other = new_key(tmp_path, "other")
    text = console_of(key) + console_of(other)
    done = run(text, "--host", "a", *options)
    assert (done.status, done.out) == (1, "")
    lines = text.split("\n")
    for each in (key, other):
        number = next(number for number, line in enumerate(lines, start=1) if words(each) in line)
        said = f"lines {number} to {number} of the text show {parse_launch_key(each.encode()).fingerprint} "
        assert said in done.err
    assert "(console-disagrees)" in done.err
    again = run(console_of(key) * 2, "--host", "a", *options)
    assert again == Run(0, f"a {words(key)}\n", "")


@pytest.mark.parametrize("options", [(), ("-q",)])
@pytest.mark.parametrize("fingerprints", ["none", "garbled"])
def test_a_key_that_nothing_bears_out_is_not_printed(
    key: str, fingerprints: str, options: tuple[str, ...]
) -> None:
    """As --help says: without its fingerprint a key does not count, and -q does not hide that."""
    text = console_of(key)
    if fingerprints == "garbled":
        text = text.replace(parse_launch_key(key.encode()).fingerprint, "SHA256:garbled")
    else:
        text = text[text.index("-----BEGIN SSH HOST KEY KEYS") :]
    done = run(text, "--host", "a", *options, "-")
    assert (done.status, done.out) == (1, "")
    assert "(console-disagrees)" in done.err
    assert "What to do: Get it again" in done.err


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_fingerprints_without_a_key(key: str, options: tuple[str, ...]) -> None:
    """The remedy is a better console, not new host keys for the machine that it is read on."""
    done = run(console_of(key).replace(words(key), "ssh-ed25519 AAAA[   1.0] usb"), "--host", "a", *options)
    assert (done.status, done.out) == (1, "")
    assert "(console-without-keys)" in done.err
    assert "firstkey host-keys" not in done.err


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_a_console_that_is_still_being_written(tmp_path: Path, key: str, options: tuple[str, ...]) -> None:
    """The keys that are there are printed; the exit status tells a script to ask again, whatever -q hides."""
    late = new_key(tmp_path, "late", "ecdsa")
    done = run(console_of(key, late).partition(words(late))[0], "--host", "a", *options)
    assert (done.status, done.out) == (1, f"a {words(key)}\n")
    assert f"no readable key for {parse_launch_key(late.encode()).fingerprint} (" in done.err


def test_a_console_that_begins_with_a_quotation_mark(key: str) -> None:
    """It is no JSON, and read as it is."""
    assert run('"' + console_of(key), "--host", "a").out == f"a {words(key)}\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "a b"),
        ("--host", "*"),
        ("--host", "a", "--port", "0"),
        ("--host", "a", "--live", "-"),
        (),
    ],
)
def test_usage(key: str, options: tuple[str, ...]) -> None:
    """No name of a host, no port, two forms at once, or nobody's console: exit status 2."""
    done = run(console_of(key), *options)
    assert (done.status, done.out) == (2, "")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "²", "ssh", ""])
def test_what_is_no_port_is_said_in_words(key: str, port: str) -> None:
    """And not with the name of a function."""
    done = run(console_of(key), "--host", "a", f"--port={port}")
    assert (done.status, done.out) == (2, "")
    assert "ports are numbers from 1 to 65535" in done.err


@pytest.mark.sshd
def test_a_machines_own_keys(tmp_path: Path) -> None:
    """Those that its sshd would load, under its own name; a lying public half is not believed."""
    machine = Machine(tmp_path / "root")
    (tmp_path / "root/etc/ssh").mkdir(exist_ok=True)
    key = new_key(tmp_path / "root/etc/ssh", "ssh_host_ed25519_key")
    done = machine.firstkey("known-hosts", "--live")
    assert (done.status, done.out) == (0, f"scratch {words(key)}\n")
    machine.write("/etc/ssh/ssh_host_ed25519_key.pub", new_key(tmp_path, "other"))
    assert machine.firstkey("known-hosts", "--live").out == f"scratch {words(key)}\n"
    records = machine.firstkey("known-hosts", "--live", "--host", "h.example.", "--sshfp").out
    argv = ["ssh-keygen", "-r", "h.example.", "-f", str(tmp_path / "root/etc/ssh/ssh_host_ed25519_key")]
    machine.path("/etc/ssh/ssh_host_ed25519_key.pub").unlink()
    (tmp_path / "root/etc/ssh/ssh_host_ed25519_key.pub").write_text(key)
    assert records == subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_no_host_key_at_all(tmp_path: Path) -> None:
    """An image before its first boot has none to show."""
    done = Machine(tmp_path / "root").firstkey("known-hosts", "--live")
    assert (done.status, done.out) == (1, "")
    assert "no-host-key" in done.err


@pytest.mark.sshd
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The other keys are printed, and the exit status tells; without any, the reason is the file's."""
    machine = Machine(tmp_path / "root")
    machine.ask_for_all_host_keys()
    machine.path("/etc/ssh/ssh_host_rsa_key").mkdir()
    machine.write("/etc/ssh/ssh_host_rsa_key.pub", new_key(tmp_path, "rsa", "rsa"))
    alone = machine.firstkey("known-hosts", "--live")
    assert (alone.status, alone.out) == (1, "")
    assert "ssh_host_rsa_key is not a regular file (not-a-regular-file)" in alone.err
    key = new_key(machine.path("/etc/ssh"), "ssh_host_ed25519_key")
    done = machine.firstkey("known-hosts", "--live")
    assert (done.status, done.out, done.err) == (
        1,
        f"scratch {words(key)}\n",
        alone.err.split("\n")[0] + "\n",
    )


@pytest.mark.root
@pytest.mark.sshd
def test_a_tree_of_root_s(tmp_path: Path) -> None:
    """Others get the public half's word; where that is missing, they are told that it takes root."""
    if missing := processes.missing_for_others():
        pytest.skip(missing)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are root's alone
        Path(directory).chmod(0o755)
        machine = Machine(Path(directory) / "root")
        machine.ask_for_all_host_keys()
        key = new_key(machine.path("/etc/ssh"), "ssh_host_ed25519_key")
        done = machine.firstkey("known-hosts", "--live", prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
        assert (done.status, done.out, done.err) == (0, f"scratch {words(key)}\n", "")
        machine.path("/etc/ssh/ssh_host_ed25519_key.pub").unlink()
        done = machine.firstkey("known-hosts", "--live", prefix=nobody, PYTHONDONTWRITEBYTECODE="1")
    assert (done.status, done.out) == (77, "")
    assert "/etc/ssh/ssh_host_ed25519_key: Permission denied (needs-root)" in done.err


@pytest.mark.root
@pytest.mark.sshd
@pytest.mark.slow
def test_ssh_believes_the_line(tmp_path: Path) -> None:
    """With StrictHostKeyChecking=yes a real ssh connects by it, and to an impostor it does not."""
    with Lab(tmp_path / "lab") as lab:
        assert lab.start_sshd()
        saved = lab.path("/srv/console")
        saved.write_text(console_of(lab.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()))
        lines = lab.firstkey("known-hosts", "--host", "127.0.0.1", "/srv/console").out
        assert (
            lab.firstkey("known-hosts", "--live", "--host", "127.0.0.1").out.split()[1:] == lines.split()[1:]
        )
        lab.write("/srv/known_hosts", lines)
        key = str(lab.directory / "keys" / "launch")
        argv = ["ssh", "-F", "none", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        argv += ["-o", "UserKnownHostsFile=/srv/known_hosts", "-o", "GlobalKnownHostsFile=/dev/null"]
        argv += ["alice@127.0.0.1", "echo hello"]
        assert lab.run(*argv).out == "hello\n"
        lab.stop_sshd()
        lab.run(
            "sh",
            "-ec",
            "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key",
        )
        assert lab.start_sshd()
        refused = lab.run(*argv)
        assert (refused.out, refused.status) == ("", 255)
        assert "HOST IDENTIFICATION HAS CHANGED" in refused.err
