"""Rules that are a table: what a machine keeps for itself, by where it is kept.

One entry is one rule, with its examples. docs/rules.md says how to add one.
"""

from __future__ import annotations

import posixpath
import re

from firstkey.boot import ledger
from firstkey.image.places import EMPTY, Place
from firstkey.image.rule import LOGS, Rule, advisory
from firstkey.image.scan import Headed
from firstkey.image.verdict import NOTE

CORE_DUMP = "core-dump"
# elf(5): the class, the byte order, the version and the operating system, then the type: ET_CORE is 4.
CORE_STARTS = tuple(
    b"\x7fELF" + bytes((bits, order, 1, system)) + bytes(8) + kind
    for bits in (1, 2)
    for order, kind in ((1, b"\4\0"), (2, b"\0\4"))
    for system in (0, 3)  # ELFOSABI_NONE, ELFOSABI_LINUX
)
_CLOUD_INIT_SSHD = "/etc/ssh/sshd_config.d/50-cloud-init.conf"
_ID = "[0-9a-f]" * 32
_BOOT = "/{boot,boot/efi,efi}"
_LOADER = f"{_BOOT}/loader"
_TOKEN = re.compile(rb"\A[0-9a-f]{32}\s*\Z")
_SEED = "a random seed that all instances would start with"

RULES = (
    Rule(
        id="known-hosts",
        title="There are no lists of known hosts",
        guideline="G9",
        prose="""The list of hosts to which a user logged in shows the inside of a network. Host keys that all
        instances need to know belong in /etc/ssh/ssh_known_hosts. seal removes the lists, and the sockets and
        logs of SSH's agent and connections.""",
        places=(
            Place("~/.ssh/known_hosts*", "a list of hosts to which a user logged in"),
            Place("~/.ssh/agent/*", "residue of an agent"),
            Place("~/.ssh/environment", "an environment for logins"),
            Place("~/.local/share/mosh/*", "residue of connections"),
            Place("~/.config/filezilla/*.xml", "a list of hosts, passwords perhaps included"),
        ),
        failing={"/root/.ssh/known_hosts": "host ssh-ed25519 AAAA\n"},
        passing={"/etc/ssh/ssh_known_hosts": "host ssh-ed25519 AAAA\n"},
    ),
    Rule(
        id="random-seeds",
        title="There are no saved random seeds",
        prose="""A random seed that is saved for the next boot is the same on every instance of the image, and
        so are numbers drawn from it before the kernel has gathered more. systemd's credential secret is such
        a secret as well. seal removes them; each instance generates its own. On the running system, systemd
        saves a new seed when the system stops, which it does not count as random by itself.""",
        places=(
            Place("/var/lib/{{,systemd/,urandom/,misc/}random-seed,seedrng/*}", _SEED),
            Place(f"{_LOADER}/random-seed", _SEED),
            Place(
                "/var/lib/systemd/credential.secret", "the secret that encrypts credentials of one machine"
            ),
        ),
        failing={"/var/lib/systemd/random-seed": b"\0\1\2\3" * 128},
        passing={"/var/lib/systemd": None},
    ),
    advisory(
        id="machine-info",
        title="There is no description of one machine",
        advice="Remove it, unless the image is to have it",
        prose="""hostnamed keeps the pretty name, the place and the purpose of a machine in /etc/machine-info.
        systemd's page on images removes it, as it does the host name. It may be intended.""",
        places=(Place("/etc/machine-info", "a description of one machine"),),
        failing={"/etc/machine-info": 'PRETTY_HOSTNAME="Ann\'s builder"\n'},
        passing={"/etc/hostname": "web\n"},
    ),
    advisory(
        id="boot-entries",
        title="No boot entry is named after the builder",
        advice="Write a name of the image's own into /etc/kernel/entry-token, and install the kernels again",
        prose="""kernel-install names boot entries, and the directories of kernels, after the machine-id
        unless /etc/kernel/entry-token gives a name. On an instance, which has another machine-id, those of
        the builder stay beside those of a new kernel. Without them the image does not boot.""",
        places=(
            Place(
                f"{_LOADER}/entries/{_ID}-*.conf", "a boot entry with the builder's machine-id in its name"
            ),
            Place(
                f"{_BOOT}/{_ID}", "a directory of kernels with the builder's machine-id as name", whole=True
            ),
            Place(
                "/etc/kernel/entry-token",
                "the builder's machine-id as the name of boot entries",
                holds=_TOKEN,
            ),
        ),
        failing={
            "/boot/loader/entries/0123456789abcdef0123456789abcdef-6.1.0.conf": "title Linux\n",
            "/etc/kernel/entry-token": "0123456789abcdef0123456789abcdef\n",
        },
        passing={
            "/boot/loader/entries/debian-6.1.0.conf": "title Linux\n",
            "/etc/kernel/entry-token": "debian\n",
        },
    ),
    Rule(
        id="firstkey-state",
        title="firstkey has no data of an instance",
        prose="""The ledger names the instances on which the image was made, their launch keys by fingerprint,
        and their users. By it a boot repairs an image that was not sealed; a sealed one has no keys that
        would need it. seal removes it, after the keys in it, and leaves the salted hashes of removed host
        keys.""",
        places=(
            Place(
                f"{ledger.DIRECTORY}/*",
                "what firstkey keeps of one instance",
                empty_counts=True,
                named=re.compile(rf"(?!{re.escape(posixpath.basename(ledger.SEALED))}$).*", re.DOTALL),
            ),
            Place(
                f"{{{ledger.DIRECTORY},/etc,/etc/ssh,/etc/sudoers.d,~/.ssh}}/.firstkey-*",
                "a temporary file of a firstkey that was interrupted",
                empty_counts=True,
            ),
        ),
        failing={ledger.PATH: "{}\n", ledger.SEALED: "{}\n"},
        passing={ledger.SEALED: "{}\n"},
        stage=LOGS,
        after="authorized-keys",
    ),
    advisory(
        id="cloud-init-sshd",
        title="cloud-init has left no setting of sshd's for the builder",
        advice="Set its settings in another file, then remove it",
        prose="""cloud-init writes the builder's choice about passwords (ssh_pwauth in user-data) into
        /etc/ssh/sshd_config.d/50-cloud-init.conf, where it overrides later settings of the image. cloud-init
        clean --configs ssh_config removes it. Where no other line forbids passwords, they would be allowed
        again.""",
        places=(Place(_CLOUD_INIT_SSHD, "a setting out of the builder's user-data"),),
        failing={_CLOUD_INIT_SSHD: "PasswordAuthentication no\n"},
        passing={"/etc/ssh/sshd_config.d/60-cloudimg-settings.conf": "PasswordAuthentication no\n"},
    ),
    Rule(
        id="dhcp-leases",
        title="There are no DHCP leases",
        prose="""A lease shows the network of the builder, and a client that finds one asks for the builder's
        address first; a saved DUID or secret makes instances look like one machine to the network. seal
        removes those of dhclient, dhcpcd, NetworkManager, systemd-networkd, wicked and connman, and the
        leases that servers gave (ISC's, Kea, dnsmasq).""",
        places=(
            Place("/var/lib/{dhcp{,3}/*.lease*,{dhclient,dhcpcd,dhcpcd5,wicked}/*}", "a DHCP lease"),
            Place("/var/lib/NetworkManager/*.lease", "a DHCP lease"),
            Place("/var/lib/{dhcpd,kea}/*", "a list of DHCP leases that a server gave"),
            Place("/var/lib/{misc/dnsmasq*,dnsmasq/*}.leases", "a list of DHCP leases that a server gave"),
            Place("/etc/dhcpcd.duid", "the identity of a DHCP client"),
            Place("/etc/dhcpcd.secret", "the secret of a DHCP client"),
            Place("/var/lib/NetworkManager/dhclient*.conf", "what a DHCP lease was asked with"),
            Place("/var/lib/NetworkManager/secret_key", "the secret of one machine's network addresses"),
            Place("/var/lib/NetworkManager/seen-bssids", "networks that the builder saw"),
            Place("/var/lib/NetworkManager/timestamps", "when the builder was in which network"),
            Place("/var/lib/systemd/network/*", "the state of a network"),
            Place("/var/lib/connman/*", "the state of a network", whole=True),
        ),
        failing={
            "/var/lib/dhcp/dhclient.eth0.leases": "lease {\n}\n",
            "/var/lib/dhcpd/dhcpd.leases": "lease\n",
        },
        passing={"/var/lib/dhcp/dhclient.leases": ""},
    ),
    Rule(
        id="lvm-devices",
        title="LVM knows no disk of one machine",
        prose="""With a list of devices, LVM reads no disk that is not on it, and it names the builder's disks
        by their serial numbers: an instance does not find its volumes. seal removes the list and its backups;
        LVM then reads every disk.""",
        places=(Place("/etc/lvm/devices/{system.devices,backup/*}", "a list of one machine's disks"),),
        failing={"/etc/lvm/devices/system.devices": "IDTYPE=sys_serial IDNAME=vol0123 DEVNAME=/dev/sda3\n"},
        passing={"/etc/lvm/devices": None},
    ),
    Rule(
        id="login-records",
        title="There are no records of logins",
        prose="""The records name the users who logged in to the builder, with time and address, and failed
        logins. seal empties the files that programs expect to exist, and removes faillock's counters and the
        databases of newer systems.""",
        places=(
            Place("/var/log/wtmp*", "a record of logins", EMPTY),
            Place("/var/log/{btmp*,faillog,tallylog}", "a record of failed logins", EMPTY),
            Place("/var/log/lastlog", "a record of last logins", EMPTY),
            Place("/var/{log,lib}/faillock/*", "a record of failed logins"),
            Place("/var/lib/wtmpdb/*", "a record of logins"),
            Place("/var/lib/lastlog/*", "a record of last logins"),
            Place("/var/log/sudo-io", "a record of what was typed under sudo", whole=True),
            Place("/var/log/session-recording", "a record of sessions", whole=True),
        ),
        failing={"/var/log/wtmp": b"\7" * 384, "/var/lib/faillock/admin": b"\7" * 64},
        passing={"/var/log/wtmp": ""},
    ),
    Rule(
        id="process-accounting",
        title="There are no records of programs that were run",
        prose="""With process accounting on, the kernel records every program that ends, with its user and its
        time. seal empties the current file, and removes the older ones.""",
        places=(
            Place("/var/{,log/}account/pacct", "a record of programs that were run", EMPTY),
            Place("/var/{,log/}account/{pacct[.-]*,*acct}", "a record of programs that were run"),
        ),
        failing={"/var/account/pacct": b"\0\3", "/var/log/account/pacct.0": b"\0\3"},
        passing={"/var/account/pacct": ""},
    ),
    Rule(
        id="crash-dumps",
        title="There are no crash dumps",
        prose="""A dump holds the memory of a program, with its keys and passwords. seal removes those of
        apport, abrt, kdump, systemd-coredump and pstore, and the kernel's own in homes and at the root, which
        are named core.""",
        places=(
            Place("/var/{crash,spool/abrt,tmp/abrt}/*", "a crash dump", whole=True),
            Place("/var/{lib/{systemd,apport}/coredump/*,lib/kdump/*.dmp,log/dump/*}", "a crash dump"),
            Place("/var/lib/systemd/pstore/*", "what the kernel said when it crashed"),
            Place("~/core{,.[0-9]*}", "a crash dump", seen=CORE_DUMP),
        ),
        failing={
            "/var/crash/_usr_bin_app.0.crash": "ProblemType: Crash\n",
            "/root/core.4711": CORE_STARTS[0] + b"a password",
        },
        passing={"/var/crash": None, "/root/core": "a text\n"},
        watches=(Headed(CORE_DUMP, CORE_STARTS, lambda _: "the memory of a program"),),
    ),
    Rule(
        id="mail",
        title="There is no mail",
        prose="""Cron and other services send mail to root, which stays on the disk. seal removes mail from
        the boxes of all accounts, the queues of mail programs, and homes.""",
        places=(
            Place("{/var/{,spool/}mail/*,~/{mbox,Maildir/*/*,Mail/*}}", "mail"),
            Place("~/dead.letter", "mail that was not sent"),
            Place("/var/spool/{exim4/*,mqueue,clientmqueue,nullmailer/queue}/*", "mail in a queue"),
            Place("/var/spool/postfix/{active,bounce,corrupt,defer,deferred}", "mail in a queue"),
            Place("/var/spool/postfix/{hold,incoming,maildrop}", "mail in a queue"),
        ),
        failing={"/var/mail/root": "From cron\n\n"},
        passing={"/var/mail/root": ""},
    ),
    advisory(
        id="cron-spools",
        title="No user of the builder has a crontab",
        advice="Remove it, unless the image is to run it",
        prose="""A crontab that a person made by hand runs on every instance of the image, for an account that
        may mean nothing there. Jobs of packages and the system, in /etc/cron.d, are not checked; at's jobs
        belong to system-credentials. An image may need a crontab.""",
        places=(
            Place("/var/spool/cron/{crontabs,tabs}/*", "a user's crontab"),
            Place("/var/spool/cron/*", "a user's crontab", named=re.compile(r"[^.].*")),
        ),
        failing={"/var/spool/cron/crontabs/admin": "@hourly /home/admin/upload\n"},
        passing={"/var/spool/cron/crontabs": None, "/etc/cron.d/logrotate": "@daily root logrotate\n"},
    ),
    Rule(
        id="sudo-timestamps",
        title="There are no timestamps of sudo",
        prose="""sudo records the time of each user's last password, and the users whom it has lectured, in
        files that are named after accounts. On a copy they are useless. seal removes them.""",
        places=(
            Place("/var/lib/sudo/{ts/*,[!lt]*}", "the time of a password for sudo", empty_counts=True),
            Place("/var/db/sudo/*", "the time of a password for sudo", empty_counts=True),
            Place("/var/lib/sudo/lectured/*", "a record of sudo's lecture", empty_counts=True),
            Place("~/.sudo_as_admin_successful", "a record of the use of sudo", empty_counts=True),
        ),
        failing={"/var/lib/sudo/lectured/1000": ""},
        passing={"/var/lib/sudo/lectured": None},
    ),
    Rule(
        id="installer-files",
        title="There is no residue of an installer",
        prose="""Installers keep the answers that they were given, hashed or clear passwords included, and
        logs: kickstart, preseed, autoinstall, AutoYaST and debconf. seal removes them.""",
        places=(
            Place("/root/{anaconda,original}-ks.cfg", "a kickstart file, passwords perhaps included"),
            Place("/root/initial-setup-ks.cfg", "a kickstart file, passwords perhaps included"),
            Place("/root/{ks-*.log,install.log*}", "the log of an installation"),
            Place("{/root,}/preseed.cfg", "a preseed file, passwords perhaps included"),
            Place("/root/autoinst.xml", "an AutoYaST file, passwords perhaps included"),
            Place("/var/adm/autoinstall", "data of AutoYaST", whole=True),
            Place("/var/log/anaconda", "the log of an installation", whole=True),
            Place("/var/log/installer", "the log of an installation, passwords perhaps included", whole=True),
            Place("/autoinstall.yaml", "an autoinstall file, passwords perhaps included"),
            Place("/var/lib/vagrant", "residue of Vagrant", whole=True),
            Place("/var/cache/debconf/passwords.dat-old", "passwords that debconf asked for"),
        ),
        failing={"/root/anaconda-ks.cfg": "rootpw --iscrypted $6$salt$hash\n"},
        passing={"/root/README": "Welcome.\n"},
    ),
    Rule(
        id="package-caches",
        title="There are no packages in caches",
        severity=NOTE,
        prose="""Package managers keep the packages that they installed: they make every copy of the image
        larger, and show their source. seal removes them, and leaves the lists of available ones.""",
        places=(
            Place(
                "/var/cache/{{dnf/*,libdnf5/*,yum/*/*/*}/packages/*.rpm,apt/archives/*.deb,zypp/packages/*,"
                "pacman/pkg/*.pkg.tar*,apk/*.apk}",
                "a package that was installed from here",
            ),
            Place("~/.cache/pip", "a cache of Python packages", whole=True),
        ),
        failing={"/var/cache/apt/archives/tool_1.0_all.deb": "!<arch>\n"},
        passing={
            "/var/cache/apt/archives/lock": "",
            "/var/cache/dnf/main/repodata/repomd.xml": "<repomd/>\n",
        },
    ),
)
