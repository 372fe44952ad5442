"""Scanners for secrets, run in their box: their answers, and what one can do that tries to get out.

A real one is run in image/test_recall.py, where there is one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import treestate

from firstkey.reasons import FirstkeyError
from firstkey.system import box, command, mounts, scanners

pytestmark = pytest.mark.root

SAYS = {
    "kingfisher": json.dumps(
        {"findings": [{"rule": {"name": "a-pat"}, "finding": {"path": f"{box.SHOWN}/srv/a", "line": 3}}]}
    )
    + '\n{"findings": 1}',
    "gitleaks": json.dumps([{"RuleID": "a-pat", "File": f"{box.SHOWN}/srv/a", "StartLine": 3, "Secret": 1}]),
    "trufflehog": json.dumps(
        {
            "SourceMetadata": {"Data": {"Filesystem": {"file": f"{box.SHOWN}/srv/a", "line": 3}}},
            "DetectorName": "a-pat",
            "Raw": "x",
        }
    )
    + "\n",
}
"""What each of them prints, by its documentation."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree, with a link to the host and something in it."""
    tree = tmp_path / "tree"
    (tree / "srv").mkdir(parents=True)
    (tree / "srv/a").write_text("1\n2\nsecret\n")
    (tree / "srv/out").symlink_to("/etc/hostname")
    (tree / "srv/inside").symlink_to("a")
    return tree


@contextmanager
def room_for_programs() -> Iterator[Path]:
    """A directory of one's own, since two tests may run at once. It lies where a box lets programs be."""
    with tempfile.TemporaryDirectory(prefix="firstkey-test-", dir="/usr/local/lib") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory at the start of PATH."""
    with room_for_programs() as directory:
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        yield directory


def put(programs: Path, name: str, script: str, version: str = "1.2.3") -> scanners.Scanner:
    """A program of that name, which says its version, or else does what the script does."""
    program = programs / name
    program.write_text(f"#!/bin/sh\ncase $1 in *version) echo {version}; exit;; esac\n{script}\n")
    program.chmod(0o755)
    return scanners.find(name)


def scan(scanner: scanners.Scanner, tree: Path) -> tuple[str, list[scanners.Match]]:
    """What it says of the tree."""
    left_out = [mount.path for mount in mounts.foreign(str(tree))]
    return scanners.scan(scanner, str(tree), left_out)


@pytest.mark.parametrize("name", SAYS)
def test_what_each_prints_is_read(programs: Path, tree: Path, name: str) -> None:
    """The place and the rule, and nothing else; the version is told."""
    scanner = put(programs, name, f"cat <<'END'\n{SAYS[name]}\nEND")
    assert scan(scanner, tree) == ("1.2.3", [scanners.Match("/srv/a", 3, "a-pat")])


ONE = SAYS["kingfisher"].partition("[")[2].partition("]")[0]
TOO_MANY = f"""print('{{"findings": [' + ",".join(10001 * ['{ONE}']) + "]}}")"""
BAD = {
    "nothing": ("exit 0", "cannot be read"),
    "nonsense": ("echo Hello", "cannot be read"),
    "another form": ("""echo '{"findings": [{"path": 1}]}'""", "cannot be read"),
    "deep": (f"printf '%0{100_000}d' 0 | tr 0 '['", "cannot be read"),
    "another place": (f"cat <<'END'\n{SAYS['kingfisher'].replace(box.SHOWN, '')}\nEND", "cannot be read"),
    "a failure": ("echo 'no rules' >&2; exit 3", "failed with status 3: no rules"),
    "a crash": ("kill -SEGV $$ 2>/dev/null; ulimit -t 1; while :; do :; done", "failed with status -"),
    "too many": (f"exec /usr/bin/python3 <<'END'\n{TOO_MANY}\nEND", "found more than"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.sample(4)
def test_what_is_no_answer_is_told(programs: Path, tree: Path, kind: str) -> None:
    """Never taken for "there is nothing"."""
    script, why = BAD[kind]
    with pytest.raises(FirstkeyError, match=why) as caught:
        scan(put(programs, "kingfisher", script), tree)
    assert not isinstance(caught.value, scanners.Missing)


def test_one_that_a_python_package_brings(
    programs: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself is run: the script that starts it may want a Python that the box has not."""
    scanner = put(programs, "kingfisher", "exit 1")
    (programs / "bin").mkdir()
    (programs / "bin/kingfisher").write_text("#!/nowhere/python3\n")
    (programs / "bin/kingfisher").chmod(0o755)
    brought = programs / "lib/python3.11/site-packages/kingfisher/bin"
    brought.mkdir(parents=True)
    put(brought, "kingfisher", f"cat <<'END'\n{SAYS['kingfisher']}\nEND", version="2.0")
    monkeypatch.setenv("PATH", f"{programs}/bin:{os.environ['PATH']}")
    assert scan(scanner, tree)[0] == "2.0"


def test_what_runs_for_too_long_is_ended(programs: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started."""
    monkeypatch.setattr(scanners, "SECONDS", 0.5)
    with pytest.raises(FirstkeyError, match="did not end within"):
        scan(put(programs, "kingfisher", "sleep 1000 & wait"), tree)


def test_the_first_that_is_there(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order that is documented; one that is named is no other."""
    monkeypatch.setattr(command, "SYSTEM_PATH", ())  # this machine may have one of its own
    monkeypatch.setenv("PATH", str(programs))
    for name in reversed(scanners.NAMES):
        put(programs, name, "")
        assert scanners.find(None).name == name
        assert scanners.find("trufflehog").name == "trufflehog"


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to get one is said."""
    monkeypatch.setattr(command, "SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, words in ((None, "pip install kingfisher-bin"), ("gitleaks", "gitleaks is not installed")):
        with pytest.raises(scanners.Missing, match=words):
            scanners.find(name)


PROBE = """
import json, mmap, os, socket, subprocess, sys
top, home = sys.argv[1], os.environ["HOME"]
port, unix = int(sys.argv[2]), sys.argv[3]
def tcp(): socket.create_connection(("127.0.0.1", port), 2)
def unix_socket(): socket.socket(socket.AF_UNIX).connect(unix)
def write(path): open(path, "w").write("x")
def big(): [open(home + "/" + name, "wb").write(bytes(150 << 20)) for name in "bc"]
def memory(): mmap.mmap(-1, 5 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
deeds = {
  "read the tree": lambda: open(top + "/srv/a").read(),
  "write at home": lambda: write(home + "/a"),
  "start a program": lambda: subprocess.check_call(["/bin/true"]),
  "write in the tree": lambda: write(top + "/srv/a"),
  "make in the tree": lambda: write(top + "/srv/b"),
  "chmod": lambda: os.chmod(top + "/srv/a", 0o600),
  "remove": lambda: os.unlink(top + "/srv/a"),
  "follow a link inside": lambda: open(top + "/srv/inside").read(),
  "follow a link": lambda: open(top + "/srv/out").read(),
  "read shadow": lambda: open("/etc/shadow").read(),
  "read the host": lambda: open(sys.argv[4]).read(),
  "write the host": lambda: write(os.path.dirname(sys.argv[0]) + "/x"),
  "write /tmp": lambda: write("/tmp/firstkey-test-scanners"),
  "see the foreign": lambda: open(top + "/foreign/file").read(),
  "tcp": tcp, "unix": unix_socket, "fill the memory": big, "more memory": memory,
  "run from home": lambda: (write(home + "/p"), os.chmod(home + "/p", 0o755), os.execv(home + "/p", ["p"])),
  "another user": lambda: os.setuid(1),
}
found = []
for name, deed in deeds.items():
    try: deed(); became = "DONE"
    except BaseException: became = "no"
    found.append({"RuleID": name + " " + became, "File": top + "/srv/a"})
print(json.dumps(found))
"""
MAY = {"read the tree", "write at home", "start a program"}


@pytest.mark.landlock
@pytest.mark.parametrize("propagation", ["private", "shared"])
@pytest.mark.sample(2)
def test_nothing_works_but_to_scan(tree: Path, propagation: str) -> None:
    """Whatever the scanner's makers, or the tree's author by it, try; the host's own mounts stay."""
    (tree / "foreign").mkdir()
    script = f"""
set -e
mount --make-r{propagation} /
mount -t tmpfs none {tree}/foreign
echo x > {tree}/foreign/file
exec {sys.executable} {__file__} {tree}
"""
    before = treestate.take(tree)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["done"]) == MAY
    assert found["foreign"] == "x\n"
    assert treestate.take(tree) == before


def probe(tree: str) -> None:
    """In a mount namespace of its own: run the probe as a scanner, and print what it could do."""
    unix = socket.socket(socket.AF_UNIX)
    with room_for_programs() as programs, socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        unix.bind(f"{tree}.socket")
        unix.listen()
        port = tcp.getsockname()[1]
        words = f'"$4" {port} {tree}.socket {__file__}'
        (programs / "probe.py").write_text(PROBE)
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        scanner = put(programs, "gitleaks", f"exec /usr/bin/python3 {programs}/probe.py {words}")
        _, found = scan(scanner, Path(tree))
    Path(f"{tree}.socket").unlink()
    done = [match.rule[:-5] for match in found if match.rule.endswith(" DONE")]
    assert len(found) > 10
    print(json.dumps({"done": done, "foreign": Path(tree, "foreign/file").read_text()}))


def test_without_mounts_it_is_not_run(programs: Path, tree: Path) -> None:
    """Somebody who is not root has no box that is good enough, and is told so."""
    put(programs, "kingfisher", "exit 0")
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from firstkey.system import scanners\n"
        "try: scanners.scan(scanners.find(None), sys.argv[2], [])\n"
        "except Exception as error: print(type(error).__name__, error.message)\n"
    )
    agent = Path(box.__file__).parents[2]
    argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", "/usr/bin/python3", "-c", script]
    done = subprocess.run([*argv, str(agent), str(tree)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Missing kingfisher is not run without a mount namespace"), done


if __name__ == "__main__":
    probe(sys.argv[1])
