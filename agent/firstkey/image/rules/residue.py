"""Rules that are a table: what a machine keeps for itself, by where it is kept.

One entry is one rule, with its examples. docs/rules.md says how to add one.
"""

from __future__ import annotations

import posixpath
import re

from firstkey.boot import ledger
from firstkey.image.places import EMPTY, Place, places
from firstkey.image.rule import LOGS, Rule
from firstkey.image.verdict import NOTE
from firstkey.image.watches import Headed

CORE_DUMP = "core-dump"
# elf(5): the class, the byte order, the version and the operating system, then the type: ET_CORE is 4.
CORE_STARTS = tuple(
    b"\x7fELF" + bytes((bits, order, 1, system)) + bytes(8) + kind
    for bits in (1, 2)
    for order, kind in ((1, b"\4\0"), (2, b"\0\4"))
    for system in (0, 3)  # ELFOSABI_NONE, ELFOSABI_LINUX
)
_CLOUD_INIT_SSHD = "/etc/ssh/sshd_config.d/50-cloud-init.conf"
_HEX_ID = "[0-9a-f]" * 32

RULES = (
    Rule(
        id="known-hosts",
        title="There are no lists of known hosts",
        guideline="G9",
        prose=(
            "The list of hosts to which a user logged in shows the inside of a network. Host keys "
            "that all instances need to know belong in /etc/ssh/ssh_known_hosts. Sockets and logs of "
            "SSH's agent and connections are checked as well. seal removes the lists."
        ),
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
        prose=(
            "A random seed that is saved for the next boot is the same on every instance of the "
            "image, and so are numbers drawn from it before the kernel has gathered more. systemd's "
            "credential secret, which encrypts credentials for one machine, is such a secret as well. "
            "seal removes them; each instance generates its own. On the running system, systemd saves "
            "a new seed when the system stops, which it does not count as random by itself."
        ),
        places=(
            *places(
                "a random seed that all instances would start with",
                "/var/lib/{,systemd/,urandom/,misc/}random-seed",
                "/var/lib/seedrng/*",
                "/{boot,boot/efi,efi}/loader/random-seed",
            ),
            Place(
                "/var/lib/systemd/credential.secret", "the secret that encrypts credentials of one machine"
            ),
        ),
        failing={"/var/lib/systemd/random-seed": b"\0\1\2\3" * 128},
        passing={"/var/lib/systemd": None},
    ),
    Rule(
        id="machine-info",
        title="There is no description of one machine",
        severity=NOTE,
        by_hand=True,
        advice="Remove it, unless the image is to have it",
        prose=(
            "hostnamed keeps the description of a machine in /etc/machine-info: its pretty name, its "
            "place, its purpose. systemd's page on images removes it, as it does the host name. seal "
            "leaves it, since it may be intended."
        ),
        places=(Place("/etc/machine-info", "a description of one machine"),),
        failing={"/etc/machine-info": 'PRETTY_HOSTNAME="Ann\'s builder"\n'},
        passing={"/etc/hostname": "web\n"},
    ),
    Rule(
        id="boot-entries",
        title="No boot entry is named after the builder",
        severity=NOTE,
        by_hand=True,
        advice=(
            "Write a name of the image's own into /etc/kernel/entry-token, and install the kernels again"
        ),
        prose=(
            "kernel-install names boot entries, and the directories of kernels, after the machine-id "
            "unless /etc/kernel/entry-token gives a name. On an instance, which has another "
            "machine-id, those of the builder stay, beside those of a new kernel. seal leaves them: "
            "without them the image does not boot."
        ),
        places=(
            *places(
                "a boot entry with the builder's machine-id in its name",
                f"/{{boot,boot/efi,efi}}/loader/entries/{_HEX_ID}-*.conf",
            ),
            *places(
                "a directory of kernels with the builder's machine-id as name",
                f"/{{boot,boot/efi,efi}}/{_HEX_ID}",
                whole=True,
            ),
            Place(
                "/etc/kernel/entry-token",
                "the builder's machine-id as the name of boot entries",
                holds=re.compile(rb"\A[0-9a-f]{32}\s*\Z"),
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
        prose=(
            "The ledger names the instances on which the image was made, their launch keys by "
            "fingerprint, and their users. By it a boot repairs an image that was made without "
            "sealing; a sealed one has no keys that would need it. seal removes it, after the keys in "
            "it, and leaves the salted hashes of removed host keys, by which a boot recognises one "
            "that comes back."
        ),
        places=(
            Place(
                f"{ledger.DIRECTORY}/*",
                "what firstkey keeps of one instance",
                empty_counts=True,
                named=re.compile(rf"(?!{re.escape(posixpath.basename(ledger.SEALED))}$).*", re.DOTALL),
            ),
            *places(
                "a temporary file of a firstkey that was interrupted",
                f"{{{ledger.DIRECTORY},/etc,/etc/ssh,/etc/sudoers.d,~/.ssh}}/.firstkey-*",
                empty_counts=True,
            ),
        ),
        failing={ledger.PATH: "{}\n", ledger.SEALED: "{}\n"},
        passing={ledger.SEALED: "{}\n"},
        stage=LOGS,
        after="authorized-keys",
    ),
    Rule(
        id="cloud-init-sshd",
        title="cloud-init has left no setting of sshd's for the builder",
        severity=NOTE,
        by_hand=True,
        advice="Set its settings in another file, then remove it",
        prose=(
            "cloud-init writes the builder's choice about passwords (ssh_pwauth in user-data) into "
            "/etc/ssh/sshd_config.d/50-cloud-init.conf, where it overrides later settings of the "
            "image. cloud-init clean --configs ssh_config removes it. seal leaves it: where no other "
            "line forbids passwords, they would be allowed again."
        ),
        places=(Place(_CLOUD_INIT_SSHD, "a setting out of the builder's user-data"),),
        failing={_CLOUD_INIT_SSHD: "PasswordAuthentication no\n"},
        passing={"/etc/ssh/sshd_config.d/60-cloudimg-settings.conf": "PasswordAuthentication no\n"},
    ),
    Rule(
        id="dhcp-leases",
        title="There are no DHCP leases",
        prose=(
            "A lease shows the network of the builder, and a client that finds one asks for the "
            "builder's address first; a saved DUID or secret makes instances look like one machine to "
            "the network. The rule checks the files of dhclient, dhcpcd, NetworkManager, "
            "systemd-networkd and wicked, and the leases that servers gave (ISC's, Kea, dnsmasq). "
            "seal removes them."
        ),
        places=(
            *places(
                "a DHCP lease",
                "/var/lib/{dhcp,dhcp3}/*.lease*",
                "/var/lib/{dhclient,dhcpcd,dhcpcd5,wicked}/*",
                "/var/lib/NetworkManager/*.lease",
            ),
            *places(
                "a list of DHCP leases that a server gave",
                "/var/lib/{dhcpd,kea}/*",
                "/var/lib/{misc/dnsmasq*,dnsmasq/*}.leases",
            ),
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
        prose=(
            "With a list of devices, LVM reads no disk that is not on it, and it names the builder's "
            "disks by their serial numbers: an instance, which has others, does not find its volumes. "
            "seal removes the list and its backups; LVM then reads every disk."
        ),
        places=places(
            "a list of one machine's disks", "/etc/lvm/devices/system.devices", "/etc/lvm/devices/backup/*"
        ),
        failing={
            "/etc/lvm/devices/system.devices": "IDTYPE=sys_serial IDNAME=vol0123 DEVNAME=/dev/nvme0n1p3\n"
        },
        passing={"/etc/lvm/devices": None},
    ),
    Rule(
        id="login-records",
        title="There are no records of logins",
        prose=(
            "The records name the users who logged in to the builder, with time and address, and "
            "failed logins. seal empties the files, since programs expect them to exist, and removes "
            "the databases that newer systems keep, and faillock's counters."
        ),
        places=(
            Place("/var/log/wtmp*", "a record of logins", EMPTY),
            *places("a record of failed logins", "/var/log/{btmp*,faillog,tallylog}", how=EMPTY),
            Place("/var/log/lastlog", "a record of last logins", EMPTY),
            *places("a record of failed logins", "/var/{log,lib}/faillock/*"),
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
        prose=(
            "With process accounting on, the kernel records every program that ends, with its user "
            "and its time. seal empties the current file, and removes the older ones."
        ),
        places=(
            *places("a record of programs that were run", "/var/{,log/}account/pacct", how=EMPTY),
            *places("a record of programs that were run", "/var/{,log/}account/{pacct[.-]*,*acct}"),
        ),
        failing={"/var/account/pacct": b"\0\3", "/var/log/account/pacct.0": b"\0\3"},
        passing={"/var/account/pacct": ""},
    ),
    Rule(
        id="crash-dumps",
        title="There are no crash dumps",
        prose=(
            "A dump holds the memory of a program, with its keys and passwords. The rule checks the "
            "places of apport, abrt, kdump and systemd-coredump, and files named core in homes and at "
            "the root which are the kernel's. seal removes them."
        ),
        places=(
            *places("a crash dump", "/var/{crash,spool/abrt,tmp/abrt}/*", whole=True),
            *places("a crash dump", "/var/lib/{systemd,apport}/coredump/*"),
            *places("a crash dump", "/var/{lib/kdump/*.dmp,log/dump/*}"),
            Place("/var/lib/systemd/pstore/*", "what the kernel said when it crashed"),
            *places("a crash dump", "~/core{,.[0-9]*}", seen=CORE_DUMP),
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
        prose=(
            "Cron and other services send mail to root, which stays on the disk. The rule checks the "
            "boxes of all accounts, the queues of mail programs, and mail in homes. seal removes it."
        ),
        places=(
            *places("mail", "/var/{,spool/}mail/*", "~/{mbox,Maildir/*/*,Mail/*}"),
            Place("~/dead.letter", "mail that was not sent"),
            *places(
                "mail in a queue",
                "/var/spool/{exim4/*,mqueue,clientmqueue,nullmailer/queue}/*",
                "/var/spool/postfix/{active,bounce,corrupt,defer,deferred,hold,incoming,maildrop}",
            ),
        ),
        failing={"/var/mail/root": "From cron\n\n"},
        passing={"/var/mail/root": ""},
    ),
    Rule(
        id="cron-spools",
        title="No user of the builder has a crontab",
        severity=NOTE,
        by_hand=True,
        advice="Remove it, unless the image is to run it",
        prose=(
            "A crontab that a person made by hand runs on every instance of the image, for an account "
            "that may mean nothing there. Jobs of packages and the system are in /etc/cron.d and are "
            "not checked; jobs of at are credentials, with the whole environment of their authors. "
            "seal leaves crontabs, since an image may need one."
        ),
        places=(
            *places("a user's crontab", "/var/spool/cron/{crontabs,tabs}/*"),
            Place("/var/spool/cron/*", "a user's crontab", named=re.compile(r"[^.].*")),
        ),
        failing={"/var/spool/cron/crontabs/admin": "@hourly /home/admin/upload\n"},
        passing={"/var/spool/cron/crontabs": None, "/etc/cron.d/logrotate": "@daily root logrotate\n"},
    ),
    Rule(
        id="sudo-timestamps",
        title="There are no timestamps of sudo",
        prose=(
            "sudo records the time of each user's last password, and the users whom it has lectured, "
            "in files that are named after accounts. On a copy they are useless. seal removes it all."
        ),
        places=(
            *places(
                "the time of a password for sudo",
                "/var/{lib/sudo/ts/*,lib/sudo/[!lt]*,db/sudo/*}",
                empty_counts=True,
            ),
            Place("/var/lib/sudo/lectured/*", "a record of sudo's lecture", empty_counts=True),
            Place("~/.sudo_as_admin_successful", "a record of the use of sudo", empty_counts=True),
        ),
        failing={"/var/lib/sudo/lectured/1000": ""},
        passing={"/var/lib/sudo/lectured": None},
    ),
    Rule(
        id="installer-files",
        title="There is no residue of an installer",
        prose=(
            "Installers keep the answers that they were given, hashed or clear passwords included: "
            "kickstart and preseed files, autoinstall and AutoYaST data, debconf's old passwords, and "
            "the logs of the installation. seal removes them."
        ),
        places=(
            *places(
                "a kickstart file, passwords perhaps included",
                "/root/{anaconda,original,initial-setup}-ks.cfg",
            ),
            *places("the log of an installation", "/root/{ks-*.log,install.log*}"),
            *places("a preseed file, passwords perhaps included", "{/root,}/preseed.cfg"),
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
        prose=(
            "Package managers keep the packages that they installed: they make every copy of the "
            "image larger, and show their source. seal removes the packages, and leaves the lists of "
            "available ones."
        ),
        places=(
            *places(
                "a package that was installed from here",
                "/var/cache/{dnf/*,libdnf5/*,yum/*/*/*}/packages/*.rpm",
                "/var/cache/{apt/archives/*.deb,zypp/packages/*,pacman/pkg/*.pkg.tar*,apk/*.apk}",
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
