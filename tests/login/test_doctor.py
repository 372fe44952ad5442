"""What the doctor says where the answer is not in the files: sockets, the running sshd, clients, logs."""

from __future__ import annotations

import json
import pwd
import re
import shutil
import sys
from pathlib import Path

import pytest
from lab import ALICE, Lab

pytestmark = [pytest.mark.root, pytest.mark.sshd, pytest.mark.slow]

STRANGER = pwd.getpwnam("nobody").pw_uid
SERVICE = """
import time
from firstkey.metadata.emulator import Emulator, Fault, Settings
with Emulator({}, port=8169):
    print("ready", flush=True)
    time.sleep(600)
"""
KEYS = "/srv/home/alice/.ssh/authorized_keys"


def listening(lab: Lab, says: str) -> tuple[str, ...]:
    """A program that has port 22 and greets with that, and with nothing where that is empty."""
    program = (
        "import socket, sys\n"
        "server = socket.create_server(('0.0.0.0', 22))\n"
        "print('ready', flush=True)\n"
        "kept = []\n"
        "while True:\n"
        "    kept.append(server.accept()[0])\n"
        "    kept[-1].sendall(sys.argv[1].encode())\n"
    )
    return (sys.executable, "-c", program, says)


# --- whether sshd can be reached ------------------------------------------------------------------


def test_sshd_on_loopback_alone(lab: Lab) -> None:
    """From anywhere else the connection is refused; here it works, which is no comfort."""
    lab.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo", check=True)
    lab.prepend_config("ListenAddress 127.0.0.1")
    assert lab.start_sshd()
    assert not lab.login(host="192.0.2.1")
    said = lab.doctor()
    assert (said.obstacles, said.first["path"]) == (["sshd-on-loopback"], "/etc/ssh/sshd_config:1")


def test_another_port_is_told(lab: Lab) -> None:
    """The port is sshd's own, and the verdict says how to reach it."""
    lab.prepend_config("Port 2222\nListenAddress 0.0.0.0")
    assert lab.start_sshd()
    said = lab.doctor()
    assert (said.obstacles, said.user["port"]) == ([], 2222)
    text = lab.firstkey("doctor", "--key", f"{lab.directory}/keys/launch.pub").out
    assert text.startswith("ssh -p 2222 alice@HERE works")


@pytest.mark.parametrize("says", ["220 mail ESMTP\r\n", ""], ids=["mail", "silence"])
def test_somebody_else_has_the_port(lab: Lab, says: str) -> None:
    """An open port is not enough: it must be an SSH server that speaks there."""
    with lab.background(*listening(lab, says)):
        said = lab.doctor()
    assert said.obstacles[0] == "sshd-silent"


def test_too_many_connections(lab: Lab) -> None:
    """Sshd turns the next one away, and the doctor gives sshd's own words."""
    lab.prepend_config("MaxStartups 1:100:1")
    assert lab.start_sshd()
    idle = (
        "import socket, time\n"
        "s = socket.create_connection(('127.0.0.1', 22))\n"
        "print(s.recv(99))\n"
        "time.sleep(60)"
    )
    with lab.background(sys.executable, "-u", "-c", idle):
        assert not lab.login()
        said = lab.doctor("--no-probe")
    assert said.obstacles == ["sshd-busy"]
    assert "MaxStartups" in said.first["detail"]


def test_tcp_wrappers(lab: Lab) -> None:
    """Where sshd asks them, a rule in hosts.deny is the first obstacle; where it does not, it is none."""
    lab.write("/etc/hosts.deny", "# closed\nsshd: 127.0.0.0/255.0.0.0\n")
    assert lab.start_sshd()
    works = lab.login()
    said = lab.doctor("--no-probe")
    if works:
        assert said.obstacles == []
        return
    assert (said.obstacles, said.first["path"]) == (["tcp-wrappers"], "/etc/hosts.deny:2")
    lab.run("sh", "-ec", said.first["remedy"], check=True)
    assert lab.login()


# --- what depends on the client -------------------------------------------------------------------


@pytest.mark.parametrize(
    "config,line",
    [
        ("AllowUsers alice@127.0.0.1", ""),
        ("DenyUsers alice@10.0.0.0/8", ""),
        ("", 'from="127.0.0.1" '),
        ("", ""),
    ],
    ids=["AllowUsers", "DenyUsers", "from", "Match"],
)
def test_without_a_client_what_depends_on_it_is_unknown(lab: Lab, config: str, line: str) -> None:
    """Neither yes nor no is right: it depends, and the remedy is to say from where."""
    lab.prepend_config(config)
    lab.authorize(f"{line}{lab.key}\n")
    if not config and not line:
        lab.append("/etc/ssh/sshd_config", "Match Address 10.0.0.0/8\nPubkeyAuthentication no\n")
    assert lab.start_sshd()
    done = lab.firstkey("doctor", "--json", "--key", f"{lab.directory}/keys/launch.pub")
    user = json.loads(done.out)["users"][0]
    unknown = [finding for finding in user["findings"] if finding["status"] == "unknown"]
    assert (done.status, user["verdict"]) == (1, "unsure")
    assert [finding["reason"] for finding in unknown] == ["client-dependent"]
    assert "--from" in unknown[0]["remedy"]
    assert lab.doctor().user["verdict"] == "open"


@pytest.mark.parametrize(
    "rule,lists,works",
    [
        ("pam_succeed_if.so quiet rhost != 127.0.0.1", "", False),
        ("pam_access.so", "-:alice:127.0.0.0/8", False),
        ("pam_access.so", "+:alice:127.0.0.0/8\n-:ALL:ALL", True),
        ("pam_access.so fieldsep=|", "-|alice|127.0.0.1", False),
        ("pam_access.so", "-:root:ALL EXCEPT LOCAL\n+:alice:ALL", True),
    ],
)
def test_what_pam_says_of_one_client_is_no_answer_for_another(
    lab: Lab, rule: str, lists: str, works: bool
) -> None:
    """Where a rule is about clients and none was named, PAM's word about one elsewhere is not enough."""
    lab.append("/etc/pam.d/sshd", f"account required {rule}\n")
    lab.write("/etc/security/access.conf", f"{lists}\n")
    assert lab.start_sshd()
    assert lab.works() == works
    assert lab.doctor("--from", "127.0.0.1").user["verdict"] == ("open" if works else "blocked")
    user = json.loads(lab.firstkey("doctor", "--json", "--key", f"{lab.directory}/keys/launch.pub").out)[
        "users"
    ][0]
    unknown = [finding["reason"] for finding in user["findings"] if finding["status"] == "unknown"]
    assert (user["verdict"], unknown) == (
        ("unsure", ["client-dependent"]) if "root" not in lists else ("open", [])
    )


def test_another_client_gets_another_answer(lab: Lab) -> None:
    """Match blocks are resolved by sshd for the client that is named."""
    lab.append("/etc/ssh/sshd_config", "Match Address 10.0.0.0/8\nPubkeyAuthentication no\n")
    assert lab.start_sshd()
    assert lab.doctor("--from", "10.1.2.3").obstacles == ["pubkey-disabled"]
    assert lab.doctor("--from", "192.0.2.3").obstacles == []


# --- the running sshd -----------------------------------------------------------------------------


def test_a_configuration_that_was_never_read(lab: Lab) -> None:
    """The files are good now, but the running sshd has the old ones: a real login still fails."""
    lab.prepend_config("DenyUsers alice")
    assert lab.start_sshd()
    lab.edit("/etc/ssh/sshd_config", "DenyUsers alice", "")
    assert not lab.login()
    said = lab.doctor()
    assert said.obstacles == ["sshd-disagrees"]
    lab.reload_sshd()
    assert lab.login()
    assert lab.doctor().obstacles == []


CUTS = """
import socket, subprocess, sys
server = socket.create_server(("0.0.0.0", 22))
print("ready", flush=True)
for number in range(1, 1000):
    connection, _ = server.accept()
    if number not in (1, 3):
        with connection:
            subprocess.run([sys.argv[1], "-i", "-E", "/run/sshd.log"], stdin=connection, stdout=connection)
    connection.close()
"""


def test_a_reload_while_it_asks_is_no_obstacle(lab: Lab) -> None:
    """Of a reload, the banner's question and the login's each see a connection that is cut."""
    with lab.background(sys.executable, "-c", CUTS, shutil.which("sshd") or ""):
        said = lab.doctor()
    assert (said.obstacles, said.unknowns, said.user["verdict"]) == ([], [], "open")
    assert lab.sshd_log.count("Connection from") == 2


def test_a_host_key_that_is_being_generated_is_no_lack(lab: Lab) -> None:
    """It is on its way, as the last run said; one that nothing is known of has its remedy."""
    lab.prepend_config("HostKey /etc/ssh/ssh_host_rsa_key")
    assert lab.start_sshd()
    assert lab.doctor().notes == ["no-host-key"]
    pending = {"file": "/etc/ssh/ssh_host_rsa_key", "reason": "host-key-pending"}
    lab.write("/run/firstkey/report.json", json.dumps({"outcome": "ok", "host_keys": [pending]}))
    said = lab.doctor()
    assert (said.notes, said.user["verdict"]) == (["host-key-pending"], "open")


# --- where the doctor is not root, or not on the machine ------------------------------------------


def test_without_root_it_says_what_only_root_can_see(lab: Lab) -> None:
    """Somebody who is only a user learns what a user can, and is not told that all is well."""
    lab.directory.parent.chmod(0o755)
    for path in lab.directory.parents:
        if path != Path("/tmp") and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    assert lab.start_sshd()
    key = lab.write("/srv/key.pub", f"{lab.key}\n")
    assert key.exists()
    before = lab.snapshot()
    done = lab.firstkey("doctor", "--json", "--key", "/srv/key.pub", "--from", "127.0.0.1", user=ALICE)
    assert lab.snapshot() == before
    user = json.loads(done.out)["users"][0]
    assert (done.status, user["verdict"]) == (1, "unsure"), done.err
    unknown = {
        finding["check"]: finding["reason"] for finding in user["findings"] if finding["status"] == "unknown"
    }
    assert unknown["pam"] == "needs-root"
    assert unknown["host-keys"] == "needs-root"
    lines = {finding["check"]: finding["status"] for finding in user["findings"]}
    assert lines["key-line"] == "ok"
    assert lines["running-sshd"] == "ok"
    text = lab.firstkey("doctor", "--key", "/srv/key.pub", "--from", "127.0.0.1", user=ALICE).out
    assert text.count("(needs-root)") > text.count("Run it again with sudo") == 1


def test_a_stranger_is_not_told_that_the_user_is_barred(lab: Lab) -> None:
    """What only the user and root can see is unknown to anybody else, and no obstacle."""
    lab.directory.parent.chmod(0o755)
    for path in lab.directory.parents:
        if path != Path("/tmp") and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    lab.write("/srv/key.pub", f"{lab.key}\n")
    done = lab.firstkey("doctor", "--json", "--key", "/srv/key.pub", "--no-probe", user=STRANGER)
    user = json.loads(done.out)["users"][0]
    found = {finding["check"]: finding for finding in user["findings"]}
    assert (found["authorized-keys"]["status"], found["authorized-keys"]["reason"]) == (
        "unknown",
        "needs-root",
    )
    assert [finding for finding in user["findings"] if finding["reason"] == "permission-denied"] == []


def test_an_image_is_judged_by_its_files(lab: Lab) -> None:
    """With --root nothing of the host's is taken for the image's; what only runs is left out, and said."""
    root = str(lab.directory)
    before = lab.snapshot()
    done = lab.firstkey(
        "doctor", "--json", "--root", root, "--key", f"{root}/keys/launch.pub", "--from", "192.0.2.1"
    )
    user = json.loads(done.out)["users"][0]
    assert "sshd-missing" in [finding["reason"] for finding in user["findings"]], done.out
    (lab.directory / "usr/sbin").mkdir(parents=True)
    (lab.directory / "usr/sbin/sshd").write_text("")
    (lab.directory / "bin/sh").write_text("")
    (lab.directory / "bin/sh").chmod(0o755)
    done = lab.firstkey(
        "doctor", "--json", "--root", root, "--key", f"{root}/keys/launch.pub", "--from", "192.0.2.1"
    )
    user = json.loads(done.out)["users"][0]
    assert user["verdict"] == "open", done.out
    notes = [finding["reason"] for finding in user["findings"] if finding["reason"]]
    assert set(notes) == {"not-running-system"}
    assert lab.snapshot() == before
    lab.path("/srv/home/alice/.ssh").chmod(0o777)
    done = lab.firstkey("doctor", "--json", "--root", root, "--key", f"{root}/keys/launch.pub")
    assert json.loads(done.out)["users"][0]["verdict"] == "blocked"


# --- what sshd logged -----------------------------------------------------------------------------


def journal(lab: Lab, *messages: str) -> None:
    """A journalctl that knows these messages of sshd's, if it is asked for them alone, since a moment."""
    lab.write("/srv/journal", "\n".join(messages) + "\n")
    script = "#!/bin/sh\ncase $* in *'-o cat'*--since=@*) cat /srv/journal ;; esac\n"
    lab.write("/bin/journalctl", script, mode=0o755)


def test_the_journal_says_why_the_running_sshd_refuses(lab: Lab) -> None:
    """What sshd logs while it is asked is its own word for it; what it logged before is of no matter."""
    lab.prepend_config("DenyUsers alice")
    assert lab.start_sshd()
    lab.edit("/etc/ssh/sshd_config", "DenyUsers alice", "")
    words = "User alice from 127.0.0.1 not allowed because listed in DenyUsers"
    journal(lab, "Connection from 127.0.0.1 port 1", words)
    said = lab.doctor()
    assert said.obstacles == ["sshd-disagrees"]
    assert f"(sshd logged: {words})" in said.first["detail"]


def test_earlier_troubles_are_of_no_matter(lab: Lab) -> None:
    """A refusal that was logged before is neither an obstacle nor an unknown."""
    assert lab.start_sshd()
    journal(lab, "User alice from 10.0.0.1 not allowed because listed in DenyUsers")
    assert lab.doctor().user["verdict"] == "open"
    said = lab.doctor("--no-probe")
    assert (said.obstacles, said.unknowns, said.notes) == ([], [], [])


# --- the shell, tried -----------------------------------------------------------------------------

GREEDY = """\
touch ~/touched /srv/touched
mkfifo /tmp/firstkey-was-here
echo something > /srv/pipe &
(kill -9 $(cat /srv/pid))
sleep 47114711 &
true > /dev/null || exit 1
"""


@pytest.mark.parametrize("user", ["alice", "root"])
def test_the_shell_that_is_tried_changes_nothing(lab: Lab, user: str) -> None:
    """Whatever stands in a start-up file: no file, no pipe, no signal, and nothing of it stays."""
    home, uid = ("/srv/home/alice", ALICE) if user == "alice" else ("/srv/root", 0)
    lab.authorize(f"{lab.key}\n", user=user)
    assert lab.start_sshd()
    lab.write(f"{home}/.profile", GREEDY, owner=uid)
    neighbour = f"mkfifo -m 0666 /srv/pipe; setpriv --reuid={uid} sleep 1000 & echo $! > /srv/pid"
    lab.run("sh", "-ec", f"({neighbour}) > /dev/null 2>&1", check=True)
    before = lab.snapshot()
    said = lab.doctor("--user", user)
    assert lab.snapshot() == before
    assert (said.obstacles, said.unknowns, said.user["verdict"]) == ([], [], "open")
    assert lab.run("sh", "-c", "kill -0 $(cat /srv/pid)").status == 0
    assert lab.run("pgrep", "-f", "sleep 4711471[1]").out == ""
    assert not Path("/tmp/firstkey-was-here").exists()


# --- SELinux --------------------------------------------------------------------------------------


def test_a_wrong_label_is_an_obstacle_where_it_is_enforced(lab: Lab) -> None:
    """The system's own program is asked whether it would label the file anew, and is the remedy."""
    lab.write("/srv/wrong", "")
    relabel = "case $1 in -n) [ ! -e /srv/wrong ] || echo Would relabel $3 ;; *) rm /srv/wrong ;; esac"
    lab.write("/bin/restorecon", f"#!/bin/sh\n{relabel}\n", mode=0o755)
    lab.run("sh", "-ec", "mount -t tmpfs tmpfs /sys/fs; mkdir /sys/fs/selinux", check=True)
    assert lab.start_sshd()
    assert lab.doctor().obstacles == []
    lab.run("sh", "-ec", "echo 1 > /sys/fs/selinux/enforce", check=True)
    said = lab.doctor("--no-probe")
    assert (said.obstacles, said.first["path"]) == (["selinux-label"], KEYS)
    assert said.first["remedy"] == "restorecon -Rv /srv/home/alice/.ssh"
    lab.run("sh", "-ec", said.first["remedy"], check=True)
    assert lab.doctor("--no-probe").user["verdict"] == "open"


# --- the metadata service -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault,reason,words",
    [
        ("Settings(enabled=False)", "imds-disabled", "--http-endpoint enabled"),
        (
            "Settings(tokens='required'), faults=[Fault('token-silence')]",
            "token-timeout",
            "--http-put-response-hop-limit 2",
        ),
    ],
    ids=["disabled", "hops"],
)
def test_without_the_service_the_key_is_unknown(lab: Lab, fault: str, reason: str, words: str) -> None:
    """Which key it was is unknown, and why; neither "works" nor "does not", whatever key is installed."""
    assert lab.start_sshd()
    assert lab.works()
    with lab.background(sys.executable, "-c", SERVICE.format(fault)):
        said = lab.doctor("--imds", "http://127.0.0.1:8169", "--wait", "4", key=None)
    assert (said.user["verdict"], said.unknowns) == ("unsure", [reason])
    unknown = said.with_status("unknown")[0]
    assert words in unknown["remedy"]
    assert "--key FILE" in unknown["remedy"]


def test_for_a_tree_this_machines_service_is_not_asked(lab: Lab) -> None:
    """An image's launch key is not the builder's, even where the image itself names the address."""
    lab.write("/etc/firstkey/firstkey.conf", "[Keys]\nUsers=alice\n[IMDS]\nEndpoints=http://127.0.0.1:8169\n")
    with lab.background(sys.executable, "-c", SERVICE.format(f"Settings(keys=(('builder', '{lab.key}'),))")):
        on_machine = lab.doctor(key=None)
        done = lab.firstkey("doctor", "--json", "--root", str(lab.directory))
    assert on_machine.user["key"]["fingerprint"] == lab.fingerprint
    user = json.loads(done.out)["users"][0]
    assert (user["key"], user["verdict"]) == (None, "blocked")  # it has no sshd
    assert "key-unknown" in [finding["reason"] for finding in user["findings"]]


# --- its own question -----------------------------------------------------------------------------


def test_it_asks_from_an_address_of_its_own(lab: Lab) -> None:
    """What sshd holds against a client that does not log in meets no other one of this machine."""
    assert lab.start_sshd()
    for _ in range(2):
        assert lab.doctor().user["verdict"] == "open"
    sources = re.findall(r"Connection from (\S+) port", lab.sshd_log)
    assert len(set(sources)) >= 2
    assert all(source.startswith("127.") for source in sources)
    assert "127.0.0.1" not in sources


@pytest.mark.parametrize("place", ["from", "Match", "AllowUsers"])
def test_where_the_address_counts_it_asks_from_the_client(lab: Lab, place: str) -> None:
    """The client's address, if it is one of this machine; else it does not ask."""
    if place == "from":
        lab.authorize(f'from="127.0.0.1" {lab.key}\n')
    else:
        lab.prepend_config("AllowUsers alice@127.0.0.1" if place == "AllowUsers" else "")
    if place == "Match":
        lab.append("/etc/ssh/sshd_config", "Match Address *,!127.0.0.1\nPubkeyAuthentication no\n")
    assert lab.start_sshd()
    said = lab.doctor()
    assert said.user["verdict"] == "open"
    assert [each["check"] for each in said.user["findings"]][-1] == "running-sshd"
