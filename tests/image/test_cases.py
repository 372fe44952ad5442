"""What each rule must find, and what it must not: one line a case, in trees that have little else in them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest
from image_builder import Builder

from firstkey import image_reasons, login_reasons
from firstkey.image import rules, seal
from firstkey.image.audit import Result, verdict_of
from firstkey.image.examples import access_key
from firstkey.image.verdict import FINDING, NOTE, UNKNOWN

PASSWD = (
    "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\nsvc:x:990:990::/var/lib/svc:/bin/sh\n"
    "shut:x:991:991::/srv:/usr/sbin/nologin\n"
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g me\n"
UNIT = "/usr/lib/systemd/system/{}.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/{}.service"
SSHD = "/etc/ssh/sshd_config"
CORE = "\x7fELF\2\1\1" + "\0" * 9 + "\4\0" + "memory"
AKIA = access_key("AKIA", "Z7QK3WJT5NP2XR6M")
MAIN = "/usr/lib/firstkey/firstkey/cli/main.py"
FIRSTKEY = {UNIT.format("firstkey"): "x", WANTED.format("firstkey"): "->x",
            "/usr/bin/firstkey": "", MAIN: ""}  # fmt: skip
CLOUD = {UNIT.format("cloud-init"): "x", WANTED.format("cloud-init"): "->x"}
STARTED, OPTS = UNIT.format("ssh"), "/etc/default/ssh"
STARTS = "[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n"
RESTARTS = "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd {}\n"
CONF = "/etc/firstkey/firstkey.conf"
GRUB, DEFAULT, ENTRY = "/boot/grub/grub.cfg", "/etc/default/grub", "/boot/loader/entries/a.conf"
MASK = "/etc/systemd/system/systemd-firstboot.service"
WIZARD = UNIT.format("systemd-firstboot")
HOMES = UNIT.format("systemd-homed-firstboot")
ASKS = "[Service]\n# ExecStart=x\nExecStart=systemd-firstboot --prompt --welcome=no\n"
ZONES = {"/usr/share/zoneinfo/tzdata.zi": "x"}
LOCALES = {"/usr/lib/locale/C.utf8/LC_CTYPE": "x", "/usr/lib/locale/de_DE.utf8/LC_CTYPE": "x"}

WIREGUARD = "YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"

INITCFG = "/etc/cloud/cloud.cfg.d/99-installer.cfg"
HASHED = "ann:$6$salt$" + "a1B2" * 21 + "ab"

# rule, files (a content that starts with "->" is a link), the paths that are found
ITSELF: frozenset[str] = frozenset()
"""The one file that there is."""
FOUND: list[tuple[str, dict[str, str], AbstractSet[str]]] = [
    # sshd's configuration where others than Debian have it, and patterns of OpenSSH 10
    ("root-password-login", {"/usr/etc/ssh/sshd_config": "PermitRootLogin yes\n"}, ITSELF),
    ("root-password-login", {"/etc/openssh/sshd_config": "PermitRootLogin yes\n"}, ITSELF),
    (
        "root-password-login",
        {SSHD: "", "/etc/alt": "PermitRootLogin yes\n", STARTED: RESTARTS.format("-D -f /etc/alt")},
        {"/etc/alt"},
    ),
    (
        "authorized-keys",
        {
            SSHD: "AuthorizedKeysFile /etc/ssh/keys.d/%u/*.pub\n",
            "/usr/sbin/sshd": "OpenSSH_10.0p2",
            "/etc/ssh/keys.d/root/ops.pub": KEY,
        },
        {"/etc/ssh/keys.d/root/ops.pub"},
    ),
    (
        "authorized-keys",
        {"/usr/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/ssh/keys/%u\n", "/etc/ssh/keys/root": KEY},
        {"/etc/ssh/keys/root"},
    ),
    ("root-password", {"/etc/tcb/root/shadow": "root:$y$j9T$salt$hash:19000::::::\n"}, ITSELF),
    (
        "trusted-logins",
        {SSHD: "AuthorizedKeysCommand /tmp/xeic_run_authorized_keys %u %f\nAuthorizedKeysCommandUser root\n"},
        {SSHD},
    ),
    # keys that give access
    ("authorized-keys", {"/root/.ssh/authorized_keys": KEY}, ITSELF),
    ("authorized-keys", {"/home/ann/.ssh/authorized_keys2": KEY}, ITSELF),
    ("authorized-keys", {"/var/lib/svc/.ssh/authorized_keys": f'from="*" {KEY}'}, ITSELF),
    ("authorized-keys", {"/home/gone/.ssh/authorized_keys": KEY}, ITSELF),
    ("authorized-keys", {"/mnt/old/root/.ssh/authorized_keys": KEY}, ITSELF),
    ("authorized-keys", {"/etc/skel/.ssh/authorized_keys": KEY}, ITSELF),
    ("authorized-keys", {"/home/ann/.ssh/authorized_keys.d/afterburn": KEY}, ITSELF),
    ("authorized-keys", {"/root/.ssh/authorized_keys.bak": KEY}, ITSELF),
    ("authorized-keys",
     {SSHD: "AuthorizedKeysFile none /etc/keys/%u\n", "/etc/keys/ann": KEY}, {"/etc/keys/ann"}),
    ("authorized-keys", {SSHD: "AuthorizedKeysFile /k/a /k/b\n", "/k/b": KEY}, {"/k/b"}),
    ("authorized-keys", {SSHD: "AuthorizedKeysFile /k/%u\n", "/k/gone": KEY}, {"/k/gone"}),
    ("authorized-keys",
     {SSHD: "Match User ann\nAuthorizedKeysFile %h/k\n", "/home/ann/k": KEY}, {"/home/ann/k"}),
    ("authorized-keys",
     {SSHD: "Match Address 10.0.0.0/8\nAuthorizedKeysFile .x /k/a\n", "/k/a": KEY}, {"/k/a"}),
    ("authorized-keys",
     {SSHD: "Include sshd_config.d/*\n", "/etc/ssh/sshd_config.d/a": "AuthorizedKeysFile /k/x\n",
                         "/k/x": KEY}, {"/k/x"}),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->/etc/keys/root", "/etc/keys/root": KEY},
     {"/etc/keys/root"}),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->../../etc/k/a", "/etc/k/a": "->b", "/etc/k/b": KEY},
     {"/etc/k/b"}),
    ("authorized-keys", {SSHD: "AuthorizedKeysFile /k/%u\n", "/k/ann": "->/srv/a", "/srv/a": KEY},
     {"/srv/a"}),
    ("authorized-keys", {"/opt/old/.ssh/authorized_keys": "->/srv/a", "/srv/a": KEY}, {"/srv/a"}),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->/no/where"}, ITSELF),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->/srv/a", "/srv/a": "# none"},
     {"/root/.ssh/authorized_keys"}),
    ("trusted-logins", {"/home/ann/.shosts": "builder\n"}, ITSELF),
    ("trusted-logins", {"/root/.k5login": "ann@EXAMPLE.COM\n"}, ITSELF),
    ("trusted-logins", {"/etc/userdb/bob.user": '{"privileged": {"hashedPassword": ["$6$x"]}}'}, ITSELF),
    ("trusted-logins", {"/etc/userdb/bob.user-privileged": f'{{"sshAuthorizedKeys": ["{KEY}"]}}'}, ITSELF),
    ("trusted-logins", {SSHD: "TrustedUserCAKeys /etc/ssh/ca.pub\n"}, {SSHD}),
    ("trusted-logins", {SSHD: "HostbasedAuthentication yes\nIgnoreRhosts no\n"}, {SSHD}),
    ("trusted-logins", {SSHD: "IgnoreRhosts no\nMatch User svc\nHostbasedAuthentication yes\n"}, {SSHD}),
    (
        "trusted-logins",
        {SSHD: "PermitUserEnvironment LD_*\nMatch User ann\nForceCommand internal-sftp\n"},
        {SSHD},
    ),
    # host keys
    ("host-keys", {"/etc/ssh/ssh_host_key": "x"}, ITSELF),
    ("host-keys", {"/etc/ssh/ssh_host_rsa_key.broken.20240101T000000Z": "x"}, ITSELF),
    ("host-keys", {"/etc/dropbear/dropbear_rsa_host_key": "x"}, ITSELF),
    ("host-keys", {SSHD: "Hostkey=/k/h\n", "/k/h": "x", "/k/h-cert.pub": "x"}, {"/k/h", "/k/h-cert.pub"}),
    ("host-keys", {SSHD: "NoSuchKeyword\nHostKey /k/h\n", "/k/h.pub": "x"}, {"/k/h.pub"}),
    ("host-keys", {SSHD: "HostKey /k/h\n", "/k/h": "->/srv/h", "/srv/h": "x", "/srv/h.pub": "x"},
     {"/k/h", "/srv/h", "/srv/h.pub"}),
    ("host-keys", {"/etc/ssh/ssh_host_rsa_key": "->/no/where"}, ITSELF),
    # what a firstkey left that was killed
    ("firstkey-state", {"/home/ann/.ssh/.firstkey-authorized_keys.0a1b2c3d": KEY}, ITSELF),
    ("firstkey-state", {"/etc/ssh/.firstkey-ssh_host_rsa_key.0a1b2c3d": ""}, ITSELF),
    ("firstkey-state", {"/etc/.firstkey-shadow.0a1b2c3d": "root:x"}, ITSELF),
    ("firstkey-state", {"/var/lib/firstkey/.firstkey-ledger.json.0a1b2c3d": "{}"}, ITSELF),
    # histories
    ("histories", {"/home/ann/.zsh_history": "x"}, ITSELF),
    ("histories", {"/var/lib/svc/.psql_history": "x"}, ITSELF),
    ("histories", {"/opt/old/.bash_history": "x"}, ITSELF),
    ("histories", {"/.bash_history": "x"}, ITSELF),
    ("histories", {"/home/ann/.brand_new_history": "x"}, ITSELF),
    ("histories", {"/home/ann/.bash_history~": "x"}, ITSELF),
    ("histories", {"/home/ann/.bash_history.1": "x"}, ITSELF),
    ("histories", {"/home/ann/.bash_history-04711.tmp": "x"}, ITSELF),
    ("histories", {"/home/ann/.viminfo.tmp": "x"}, ITSELF),
    ("histories", {"/home/ann/.vim/viminfo": "x"}, ITSELF),
    ("histories", {"/home/ann/.ipython/profile_default/history.sqlite": "x"}, ITSELF),
    ("histories", {"/home/ann/.config/pgcli/history": "x"}, ITSELF),
    *(("histories", {f"/home/ann/{path}": "x"}, ITSELF) for path in (
        ".beeline/history", ".cassandra/cqlsh_history", ".ghc/ghci_history", ".aws/shell/history",
        ".emacs.d/eshell/history", ".local/state/lesshst", ".julia/logs/repl_history.jl", ".joe_state",
        ".local/share/xonsh/history_json/xonsh-1b5a.json", ".local/state/elvish/db.bolt", ".elvish/db",
        ".cache/erlang-history/erlang-shell-log.1", ".lldb/lldb-widehistory",
    )),
    ("histories", {"/home/ann/.local/share/atuin/history.db": "x"}, ITSELF),
    ("histories", {"/etc/profile": "HISTFILE=/h/${USER}.log; export X\n", "/h/ann.log": "x"}, {"/h/ann.log"}),
    ("histories",
     {"/root/.bashrc": "HISTFILE=~/.cache/typed\n", "/root/.cache/typed": "x"}, {"/root/.cache/typed"}),
    ("histories", {"/root/.bash_history": "->/data/h", "/data/h": "x"}, {"/data/h"}),
    ("histories", {"/opt/old/.bash_history": "->/data/h", "/data/h": "x"}, {"/data/h"}),
    # secrets
    ("cloud-credentials", {"/root/.aws/credentials": "->/srv/k", "/srv/k": "aws_session_token=hunter22"},
     {"/srv/k"}),
    ("tool-credentials", {"/home/ann/.npmrc": "->/srv/n", "/srv/n": "//r/:_authToken=npm_x\n"}, {"/srv/n"}),
    ("cloud-credentials", {"/opt/ci/.aws/credentials": "aws_session_token=hunter22"}, ITSELF),
    ("cloud-credentials", {"/root/.config/gcloud/legacy_credentials/a@b/adc.json": "{}"}, ITSELF),
    ("cloud-credentials", {"/root/.aws/cli/cache/x.json": "{}"}, ITSELF),
    ("tool-credentials", {"/root/.vault-token": "s.x"}, ITSELF),
    ("tool-credentials", {"/home/ann/.npmrc": "//r/:_authToken=npm_x\n"}, ITSELF),
    ("tool-credentials", {"/root/.pypirc": "[pypi]\npassword = pypi-x\n"}, ITSELF),
    ("tool-credentials", {"/root/src/.git/config": "url = https://ann:secret@example.com/x\n"}, ITSELF),
    ("tool-credentials", {"/home/ann/.gnupg/private-keys-v1.d/A.key": "x"}, ITSELF),
    ("tool-credentials", {"/srv/.git/modules/lib/config": "url = https://a:secret@b.example/x\n"}, ITSELF),
    ("tool-credentials", {"/root/src/.git/config": "extraheader = AUTHORIZATION: basic eC1\n"}, ITSELF),
    ("tool-credentials", {"/etc/gitconfig": '[url "https://ann:secret@git/"]\n'}, ITSELF),
    ("tool-credentials", {"/home/ann/.gitconfig": f'[url "https://{"0a1b" * 10}@github.com/"]\n'}, ITSELF),
    ("tool-credentials", {"/srv/app/.env": "DEBUG=1\nexport DB_PASSWORD='secret'\n"}, ITSELF),
    ("tool-credentials", {"/var/www/x/.env.production": "APP_TOKEN=abc\n"}, ITSELF),
    ("system-credentials", {"/etc/mysql/debian.cnf": "[client]\npassword = secret\n"}, ITSELF),
    ("system-credentials", {"/etc/fstab": "//fs/share /mnt cifs username=ann,password=secret 0 0\n"}, ITSELF),
    ("system-credentials", {"/var/spool/cron/atjobs/a0000101c0ffee": "#!/bin/sh\nX=1; export X\n"}, ITSELF),
    ("system-credentials", {"/etc/nslcd.conf": "binddn cn=x\nbindpw secret\n"}, ITSELF),
    ("system-credentials", {"/etc/openldap/ldap.conf": "BINDPW secret\n"}, ITSELF),
    ("system-credentials", {"/etc/swanctl/conf.d/a.conf": "ike {\n secret = abc\n}\n"}, ITSELF),
    ("system-credentials", {"/var/lib/samba/private/passdb.tdb": "TDB file\n\0USER_ann\0"}, ITSELF),
    ("system-credentials", {"/etc/samba/smbpasswd": f"ann:1000:{'X' * 32}:{'0A' * 16}:[U ]:\n"}, ITSELF),
    ("system-credentials", {"/var/lib/sss/db/cache_corp.ldb": "x"}, ITSELF),
    ("system-credentials", {"/etc/zypp/credentials.d/SCCcredentials": "username=a\npassword=b\n"}, ITSELF),
    ("system-credentials", {"/etc/apache2/http.keytab": "x"}, ITSELF),
    ("system-credentials",
     {"/etc/systemd/system/app.service.d/env.conf": 'Environment=A=1 "DB_PASSWORD=abc"\n'}, ITSELF),
    ("system-credentials", {"/etc/crypttab": "data /dev/sdb /k luks\n", "/k": "x"}, {"/k"}),
    ("tool-credentials", {"/root/.snap/auth.json": "{}"}, ITSELF),
    ("system-credentials",
     {"/etc/apt/sources.list.d/p.list": f"deb https://{'0a1b' * 12}:@packagecloud.io/x/ y main\n"}, ITSELF),
    ("system-credentials",
     {"/etc/NetworkManager/system-connections/w": "[wifi-security]\npsk=secret\n"}, ITSELF),
    ("system-credentials", {"/etc/wireguard/privatekey": WIREGUARD}, ITSELF),
    ("system-credentials", {"/home/ann/wg/privatekey-b": WIREGUARD}, ITSELF),
    ("system-credentials",
     {"/etc/apt/apt.conf.d/99proxy": 'Acquire::http::Proxy "http://a:b@proxy:3128";\n'}, ITSELF),
    ("access-keys", {"/etc/cron.d/backup": f"KEY={AKIA}\n"}, ITSELF),
    ("access-keys", {"/var/spool/cron/crontabs/root": f"KEY={AKIA}\n"}, ITSELF),
    ("access-keys", {"/usr/local/bin/up": f"#!/bin/sh\nexport K={AKIA}\n"}, ITSELF),
    ("access-keys", {"/usr/share/u": f"k={AKIA}\n", "/var/lib/dpkg/info/a.list": "/usr\n"}, {"/usr/share/u"}),
    # what else gives an image away
    (
        "machine-id",
        {
            "/etc/machine-id": "",
            "/usr/sbin/sshd": "",
            STARTED: STARTS,
            WANTED.format("ssh"): f"->{STARTED}",
            WANTED.format("sshd-keygen"): "->" + UNIT.format("sshd-keygen"),
            UNIT.format("sshd-keygen"): "[Unit]\nConditionFirstBoot=yes\n[Service]\nExecStart=x\n",
        },
        {"/etc/machine-id"},
    ),
    ("random-seeds", {"/var/lib/systemd/credential.secret": "x"}, ITSELF),
    ("cloud-init-data", {"/var/lib/cloud/sem/x": ""}, ITSELF),
    ("cloud-init-data", {"/var/lib/cloud/seed/nocloud/user-data": "x"}, ITSELF),
    ("cloud-init-data", {INITCFG: f'ssh_authorized_keys: ["{KEY.strip()}"]\n'}, ITSELF),
    ("cloud-init-data", {INITCFG: f"ssh_authorized_keys:\n  # mine\n  - {KEY}"}, ITSELF),
    ("cloud-init-data", {INITCFG: 'chpasswd: {expire: false, list: "root:hunter2"}\n'}, ITSELF),
    ("cloud-init-data", {INITCFG: "chpasswd:\n  expire: false\n  users:\n  - name: ann\n"}, ITSELF),
    ("cloud-init-data", {INITCFG: "users:\n- name: ann\n  hashed_passwd: $6$salt$hash\n"}, ITSELF),
    ("cloud-init-data", {INITCFG: "users:\n- {name: ann, passwd: $6$salt$hash}\n"}, ITSELF),
    ("network-names", {"/etc/systemd/network/a.link": "[Match]\nMACAddress=0a:00:00:00:00:01\n"}, ITSELF),
    ("logs", {"/var/log/a/b/c.log": "x"}, ITSELF),
    ("logs", {"/var/log": "->/data/log", "/data/log/auth.log": "x", "/data/log/wtmp": "x"},
     {"/data/log/auth.log"}),
    ("logs", {"/var/log/a.log": "->/data/a", "/data/a": "x"}, {"/data/a"}),
    ("login-records", {"/var/log": "->/data/log", "/data/log/wtmp": "x"}, {"/data/log/wtmp"}),
    ("mail", {"/var/spool/postfix/active": "->../../q", "/var/q/A": "x"}, {"/var/q/A"}),
    ("mail", {"/var/spool/mail": "->../mail", "/var/mail/ann": "x"}, {"/var/mail/ann"}),
    ("mail", {"/var/spool/postfix/deferred/A/A1": "x"}, ITSELF),
    ("temporary-files", {"/home/ann/.notes.swp": "x"}, ITSELF),
    ("temporary-files", {"/opt/app/conf/.settings.py.swo": "b0VIM 9.0"}, ITSELF),
    ("account-backups", {"/var/backups/shadow.bak": "x"}, ITSELF),
    ("account-backups", {"/etc/shadow+": "x"}, ITSELF),
    ("account-backups", {"/root/shadow.bak": f"daemon:*:1::::::\n{HASHED}:19000:0:99999:7:::\n"}, ITSELF),
    ("account-backups", {"/srv/accounts": f"{HASHED.replace(':', ':!')}:19000::::::\n"}, ITSELF),
    ("account-backups", {"/srv/accounts": f"{HASHED}:1000:1000::/home/ann:/bin/sh\n"}, ITSELF),
    ("account-backups", {"/srv/accounts": "ann:$y$j9T$" + "a1B." * 16 + ":19000::::::\n"}, ITSELF),
    ("account-backups", {"/etc/.git/objects/00/11": "x"}, {"/etc/.git"}),
    ("account-backups", {"/etc/shadow.orig": "x"}, ITSELF),
    *(("account-backups", {"/srv/copy": f"ann:{crypt}{'a1B2' * 8}:19000:0:99999:7:::\n"}, ITSELF)
      for crypt in ("$sm3$salt$", "$md5,rounds=5000$salt$$", "$3$$", "$gy$j9T$salt$")),
    ("other-passwords", {"/etc/group": "root:x:0:\nstaff:hunter22:50:ann\n"}, ITSELF),
    *(("host-keys", {path: "x"}, ITSELF) for path in (
        "/etc/dropbear/initramfs/dropbear_rsa_host_key", "/etc/dropbear-initramfs/dropbear_rsa_host_key",
        "/etc/tinyssh/sshkeydir/.ed25519.sk", "/etc/tinyssh/sshkeydir/ed25519.pk",
    )),
    # credentials in the spellings that their programs have beside the usual ones
    *(("tool-credentials", {"/opt/app/.env": f"A=1\n{line}\n"}, ITSELF) for line in (
        "DATABASE_URL=postgres://ann:hunter22@db/x", "REDIS_URL=redis://:hunter22@db:6379",
        "DB_PASS=hunter22", "MYSQL_PWD=hunter22", "PASS=hunter22", "DB_PASSWORD=Password@123",
    )),
    ("tool-credentials", {"/etc/samba/credentials": "USERNAME=ann\nPASSWORD=hunter22\n"}, ITSELF),
    *(("system-credentials", files, ITSELF) for files in (
        {"/etc/yum.repos.d/x.repo": "[x]\nusername=ann\npassword=hunter22\n"},
        {"/etc/dnf/dnf.conf": "[main]\nproxy_password=hunter22\n"},
        {"/etc/ssmtp/ssmtp.conf": "AuthUser=ann\nAuthPass=hunter22\n"},
        {"/etc/nullmailer/remotes": "mail.example.com smtp --user=ann --pass=hunter22\n"},
        {"/etc/cryptsetup-keys.d/data.key": "\r\f\vkey"},
        {"/etc/hostapd/hostapd.conf": "wpa_passphrase=hunter22\n"},
        {"/var/lib/iwd/x.psk": "[Security]\nPassphrase=hunter22\n"},
        {"/etc/NetworkManager/system-connections/x": f"[wireguard]\nprivate-key={WIREGUARD}"},
        {"/etc/systemd/system/x.service": "[Service]\nEnvironment=U=postgres://ann:hunter22@db/x\n"},
    )),
    ("account-backups", {"/var/backups/gshadow.bak.2.gz": "x"}, ITSELF),
    ("account-backups", {"/etc/subuid-": "x"}, ITSELF),
    ("account-backups", {"/etc/shadow-": "->/srv/old", "/srv/old": "x"}, {"/srv/old"}),
    ("crash-dumps", {"/home/ann/core": CORE}, ITSELF),
    ("crash-dumps", {"/core.12": CORE}, ITSELF),
    ("crash-dumps", {"/root/core": "->/srv/c", "/srv/c": CORE}, {"/srv/c"}),
    ("crash-dumps", {"/var/lib/systemd/coredump/core.a.0.zst": "x"}, ITSELF),
    ("crash-dumps", {"/var/crash/202401010000/vmcore": "x"}, {"/var/crash/202401010000"}),
    ("root-password", {"/etc/passwd": "root:hash:0:0::/root:/bin/sh\n"}, ITSELF),
    ("other-passwords", {"/etc/shadow": "root:*::::::: \nann::1::::::\n"}, ITSELF),
    # how sshd is started
    ("root-password-login",
     {SSHD: "", STARTED: STARTS, OPTS: 'SSHD_OPTS="-4 -o PermitRootLogin=yes"\n'}, {OPTS}),
    ("root-password-login",
     {SSHD: "PermitRootLogin no\n", STARTED: STARTS, OPTS: "SSHD_OPTS=-oPermitRootLogin=yes\n"}, {OPTS}),
    ("root-password-login",
     {SSHD: "", STARTED: STARTS, f"{STARTED}.d/x.conf": RESTARTS.format("-o 'PermitRootLogin yes'")},
     {STARTED}),
    ("use-dns", {SSHD: "UseDNS no\n", STARTED: STARTS, OPTS: "SSHD_OPTS=-oUseDNS=yes\n"}, {OPTS}),
    ("first-login", {SSHD: "", STARTED: STARTS, OPTS: "SSHD_OPTS=-oAllowUsers=ann\n", **FIRSTKEY}, {OPTS}),
    ("host-keys", {SSHD: "", STARTED: STARTS, OPTS: "SSHD_OPTS='-h /k/h'\n", "/k/h": "x"}, {"/k/h"}),
    # who could log in with the launch key
    ("first-login", {**FIRSTKEY, SSHD: "PermitRootLogin no\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "PermitRootLogin forced-commands-only\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "PubkeyAuthentication no\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "AuthorizedKeysFile none\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "AuthenticationMethods publickey,password\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "AllowUsers builder\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "DenyUsers r*\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "AllowGroups wheel\n", "/etc/group": "root:x:0:\nwheel:x:10:ann\n"},
     {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "DenyGroups root\n", "/etc/group": "root:x:0:\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "Match User root\nPubkeyAuthentication no\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "Include sshd_config.d/*\n", f"{SSHD}.d/a": "AllowUsers x\n"},
     {f"{SSHD}.d/a"}),
    ("first-login", {**FIRSTKEY, SSHD: "", CONF: "[Keys]\nUsers=ghost\n"}, {"/etc/passwd"}),
    ("first-login", {**FIRSTKEY, SSHD: "", CONF: "[Keys]\nUsers=shut\n"}, {"/etc/passwd"}),
    ("first-login", {**FIRSTKEY, SSHD: "", CONF: "[Keys]\nUsers=ann\n", "/etc/nologin": ""},
     {"/etc/nologin"}),
    ("first-login", {**FIRSTKEY, SSHD: "AllowUsers root\n",
                     CONF: "[Keys]\nUsers=new\n[User new]\nCreate=yes\n"}, {SSHD}),
    ("first-login", {**FIRSTKEY, SSHD: "", UNIT.format("ssh"): "x", WANTED.format("ssh"): "->x",
                     "/etc/systemd/system/ssh.service": "->/dev/null"}, {"/etc/systemd/system/ssh.service"}),
    # what the first boot would ask for
    ("first-boot-questions", {WIZARD: ASKS, **ZONES}, {MASK}),
    ("first-boot-questions", {WIZARD: ASKS, **LOCALES, "/etc/hostname": "x"}, {MASK}),
    ("first-boot-questions", {WIZARD: ASKS.replace("--prompt ", "--prompt-keymap-auto "),
                              "/usr/share/keymaps/i386/de.map.gz": "x"}, {MASK}),
    ("first-boot-questions", {MASK: ASKS, "/usr/lib/locale/locale-archive": "x"}, {MASK}),
    ("first-boot-questions", {MASK: "[Service]\n", f"{MASK}.d/ask.conf": ASKS, **ZONES}, {MASK}),
    # who installs keys
    ("key-installer", {**FIRSTKEY, "/etc/firstkey/disabled": ""}, {WANTED.format("firstkey")}),
    ("key-installer", {**FIRSTKEY, "/etc/systemd/system/firstkey.service": "->/dev/null"},
     {WANTED.format("firstkey")}),
    ("key-installer", {UNIT.format("cloud-init"): "x", WANTED.format("cloud-init"): "->x",
                       "/etc/cloud/cloud-init.disabled": ""}, {WANTED.format("firstkey")}),
    ("key-installer", {WANTED.format("firstkey"): "->" + UNIT.format("firstkey"), "/usr/bin/firstkey": "",
                       MAIN: ""}, {WANTED.format("firstkey")}),
    ("key-installer", {**FIRSTKEY, MAIN: "->gone"}, {MAIN}),
    ("key-installer", {**FIRSTKEY, "/usr/bin/firstkey": "->/opt/gone"}, {"/usr/bin/firstkey"}),
    ("key-installer", {**FIRSTKEY, GRUB: "menuentry x {\n\tlinux /vmlinuz root=x ro quiet firstkey=off\n}\n"},
     {GRUB}),
    ("key-installer", {**FIRSTKEY, ENTRY: "options root=x firstkey=off quiet\n"}, {ENTRY}),
    ("key-installer", {**FIRSTKEY, "/etc/kernel/cmdline": "firstkey=off"}, {"/etc/kernel/cmdline"}),
    ("key-installer", {**FIRSTKEY, DEFAULT: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet firstkey=off"\n'}, {DEFAULT}),
    ("host-key-maker", {SSHD: "", **FIRSTKEY, DEFAULT: "GRUB_CMDLINE_LINUX=firstkey=off\n"}, {DEFAULT}),
    ("host-key-maker", {SSHD: "", **FIRSTKEY, MAIN: "->gone"}, {MAIN}),
    ("key-installer", {**CLOUD, "/etc/cloud/cloud.cfg": "datasource_list: [ None ]\n"},
     {WANTED.format("firstkey")}),
    ("key-installer", {**CLOUD, "/etc/cloud/cloud.cfg": "datasource_list: [ Ec2 ]\n",
                       "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": "# x\ndatasource_list:\n  - None\nusers: []\n"},
     {WANTED.format("firstkey")}),
]  # fmt: skip

PASSED: list[tuple[str, dict[str, str]]] = [
    (
        "trusted-logins",
        {
            SSHD: "AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f\n"
            "AuthorizedKeysCommandUser ec2-instance-connect\n"
        },
    ),
    (
        "root-password-login",
        {
            SSHD: "PermitRootLogin no\n",
            STARTED: STARTS,
            UNIT.format("sshd@"): RESTARTS.format("-i -o PermitTTY=no"),
            "/usr/lib/systemd/system/ssh.socket": "[Socket]\nListenStream=22\nAccept=no\n",
        },
    ),
    ("trusted-logins", {SSHD: "HostbasedAuthentication yes\nPermitUserEnvironment yes\n"}),
    ("trusted-logins", {SSHD: "HostbasedAuthentication no\nHostbasedAuthentication yes\nIgnoreRhosts no\n"}),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "\n# none\n"}),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->/dev/null"}),
    ("host-keys", {"/etc/ssh/ssh_config": "x", "/etc/ssh/moduli": "x"}),
    ("histories", {"/root/.bash_history": "->/dev/null"}),
    # files of a known name, and no secret in them
    *(("tool-credentials", {"/opt/app/.env": f"{line}\n"}) for line in (
        "DB_PASSWORD=changeme", "API_KEY=your_api_key", "DB_URL=postgres://ann:${PW}@db/x", "BYPASS=yes",
        "DB_URL=postgres://user:password@localhost/x", "COMPASS=north", "PWD=/srv/app",
    )),
    *((f"{rule}-credentials", {path: text}) for rule, path, text in (
        ("tool", "/root/.pgpass", "# host:port:database:user:password\n"),
        ("tool", "/root/.config/pip/pip.conf", "index-url = https://__token__:${TOKEN}@example.com/simple\n"),
        ("tool", "/srv/www/wp-config.php", "define('DB_PASSWORD', 'password_here');\n"),
        ("tool", "/root/.smbcredentials", "username=ann\n"),
        ("system", "/etc/postfix/sasl_passwd", "# host user:password\n"),
        ("system", "/etc/yum.repos.d/x.repo", "[x]\nbaseurl=https://example.com/\n#password=x\n"),
        ("cloud", "/etc/kubernetes/admin.conf", "users: []\n"),
        ("cloud", "/root/.aws/credentials", "[ops]\ncredential_process = /usr/bin/ask\n"),
    )),
    ("other-passwords", {"/etc/group": "root:x:0:\nstaff:*:50:ann\nusers::100:\nwheel:!:10:\n",
                         "/etc/shadow": "ann:*:1::::::\nsvc:*:1::::::\nshut:*:1::::::\n"}),
    ("histories", {"/root/.zsh_history": "->/no/where", "/root/.viminfo": "->/home"}),
    ("histories", {"/root/.bash_history": "->/usr/share/h", "/usr/share/h": "x"}),
    ("histories", {"/root/.history_of_rome": "x", "/root/.config/app/settings": "x"}),
    ("histories", {"/etc/profile": "#HISTFILE=/h/x\nunset HISTFILE\n", "/h/x": "x"}),
    ("cloud-credentials", {"/root/.kube/config": "clusters: []\n"}),
    ("tool-credentials", {"/root/.netrc": "machine example.com login ann\n"}),
    ("tool-credentials", {"/root/.gitconfig": '[user]\nemail = a@b\n[url "https://x/"]\n'}),
    ("system-credentials",
     {"/etc/ppp/chap-secrets": "# Secrets for authentication using CHAP\n# client server\n"}),
    ("system-credentials", {"/etc/wireguard/publickey": WIREGUARD, "/root/privatekey.txt": "see below\n"}),
    ("tool-credentials", {"/srv/app/.env": "#A_TOKEN=abc\nA_TOKEN=\nB_SECRET=${S}\nTOKEN_AGE=60m\n"}),
    ("tool-credentials", {"/srv/app/.env.example": "A_TOKEN=abc\n"}),
    ("tool-credentials", {"/root/src/.git/config": "url = https://ann@example.com/x\nurl = git@a.b:x\n"}),
    ("system-credentials", {"/etc/mysql/debian.cnf": "[client]\npassword =\nuser = root\n"}),
    ("system-credentials", {"/etc/fstab": "#//a /m cifs password=x 0 0\n//a /m cifs credentials=/x 0 0\n"}),
    ("system-credentials", {"/etc/swanctl/swanctl.conf": "secrets {\n # secret = abc\n}\n"}),
    ("system-credentials", {"/etc/ldap/ldap.conf": "#BINDPW x\n", "/etc/samba/passdb.tdb": "TDB"}),
    ("system-credentials", {"/etc/systemd/system/a.service": "Environment=TOKEN_FILE=/x B_TOKEN=%d/x\n"}),
    ("system-credentials", {"/etc/crypttab": "#a b /k\na b /dev/urandom\na b none\n", "/k": "x"}),
    ("access-keys", {"/root/x": "AKIAIOSFODNN7EXAMPLE", "/root/y": f"x{AKIA}", "/root/z": f"{AKIA}7"}),
    ("logs", {"/var/log/README": "->../../usr/share/doc/r", "/usr/share/doc/r": "x"}),
    ("logs", {"/var/log/journal": "->/run/log/journal", "/run/log/journal/x": "x"}),
    ("machine-id", {"/etc/hostname": "x"}),
    ("cloud-init-data", {"/var/lib/cloud/scripts/per-boot/x": "x"}),
    ("cloud-init-data", {INITCFG: "system_info:\n  default_user:\n    lock_passwd: yes\n    name: debian\n"}),
    ("cloud-init-data", {INITCFG: "ssh_authorized_keys:\ndisable_root: true\nchpasswd:\n  expire: false\n"
                                "users:\n- default\n# password: hunter2\nssh_pwauth: true\npasswd: '*'\n"}),
    ("network-names", {"/etc/systemd/network/a.network": "[Match]\nName=en*\n"}),
    ("trusted-logins", {"/etc/userdb/bob.user": '{"userName": "bob", "hashedPassword": ["!*"]}'}),
    ("temporary-files", {"/root/.profile": "x"}),
    ("account-backups", {"/var/backups/groupware.tar": "x", "/var/backups/group.d/x": "x"}),
    ("account-backups", {"/etc/group.d/x": "x", "/etc/passwdqc.conf": "x", "/var/backups/passwd.tar": "x"}),
    ("crash-dumps", {"/var/lib/svc/core/lib/a.py": "x", "/core/x": CORE, "/root/core": "a text"}),
    ("crash-dumps", {"/root/core": CORE.replace("\4", "\2"), "/root/core.d": CORE}),
    ("account-backups", {"/etc/shadow": f"{HASHED}:1::::::\n", "/srv/env": "PATH=$A:$1$2:$PATH:1:\n"}),
    ("account-backups", {"/root/page": "ann:$6$salt$hash:19000:0:99999:7:::\n", "/root/.htp": f"{HASHED}\n"}),
    ("root-password", {"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/shadow": "root:!*:1::::::\n"}),
    ("key-installer", CLOUD),
    ("key-installer", {**CLOUD, "/etc/cloud/cloud.cfg": "datasource_list: [ None ]\n",
                       "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ Ec2, None ]\n"}),
    ("host-key-maker", {SSHD: "", **CLOUD, "/etc/cloud/cloud.cfg": "datasource_list: [ None ]\n"}),
    ("key-installer", {**FIRSTKEY, GRUB: "linux /vmlinuz firstkey=offline xfirstkey=off\n",
                       DEFAULT: '# GRUB_CMDLINE_LINUX="firstkey=off"\nGRUB_CMDLINE_LINUX="quiet"\n'}),
    ("key-installer", {UNIT.format("afterburn-sshkeys@"): "x",
                       WANTED.format("afterburn-sshkeys@core"): "->x"}),
    ("host-key-maker", {"/usr/sbin/sshd": "", UNIT.format("sshd-keygen"): "x", UNIT.format("ssh"): "x",
                        WANTED.format("ssh"): "->x", WANTED.format("sshd-keygen"): "->x"}),
    ("root-password-login", {SSHD: "PermitRootLogin yes\n", STARTED: STARTS,
                             OPTS: "# SSHD_OPTS=-f x\nSSHD_OPTS=-oPermitRootLogin=no\n"}),
    ("root-password-login", {SSHD: "", STARTED: STARTS, UNIT.format("sshd@"): STARTS.replace("-D", "-i"),
                             OPTS: "SSHD_OPTS=\n"}),
    ("root-password-login", {SSHD: "", STARTED: RESTARTS.format("-D -f /etc/ssh/sshd_config $NONE")}),
    ("first-login", {SSHD: "PubkeyAuthentication no\n", **CLOUD}),
    ("first-login", {**FIRSTKEY, SSHD: "AuthenticationMethods publickey,password publickey\n"}),
    ("first-login", {**FIRSTKEY, SSHD: "AllowUsers root\nAllowGroups ro?t\n", "/etc/nologin": "",
                     "/etc/group": "root:x:0:\n"}),
    ("first-login", {**FIRSTKEY, SSHD: "PermitRootLogin no\nAllowUsers ann root\nDenyUsers r*\n",
                     CONF: "[Keys]\nUsers=root ann\nRedirectRoot=yes\n"}),
    ("first-login", {**FIRSTKEY, SSHD: "AllowGroups new\n",
                     CONF: "[Keys]\nUsers=new\n[User new]\nCreate=yes\n"}),
    ("first-login", {**FIRSTKEY, SSHD: "AuthorizedKeysFile none\nAuthorizedKeysCommand /usr/bin/firstkey "
                     "authorized-keys %u\nAuthorizedKeysCommandUser nobody\n"}),
    ("first-login", {**FIRSTKEY, SSHD: "", UNIT.format("ssh"): "x", WANTED.format("ssh"): "->x",
                     "/etc/systemd/system/sshd.service": "->/dev/null"}),
    ("first-boot-questions", {WIZARD: ASKS, "/etc/hostname": "x", "/etc/vconsole.conf": "",
                              "/etc/localtime": "->/usr/share/zoneinfo/gone", "/etc/locale.conf": "",
                              **ZONES, **LOCALES, "/etc/shadow": ""}),
    ("first-boot-questions", {WIZARD: ASKS.replace("\n", " --locale=C.UTF-8\n"), **LOCALES, "/etc/shadow": "",
                              "/etc/hostname": "x"}),
    ("first-boot-questions", {WIZARD: ASKS, MASK: "->/dev/null", **ZONES}),
    ("first-boot-questions", {WIZARD: ASKS, f"{MASK}.d/off.conf": "[Service]\nExecStart=\n", **ZONES}),
    ("first-boot-questions", {WIZARD: ASKS, "/etc/kernel/cmdline": "quiet systemd.firstboot=off\n", **ZONES}),
    ("first-boot-questions", {HOMES: "[Service]\nExecStart=homectl firstboot --prompt-new-user\n"}),
]  # fmt: skip


def grow(builder: Builder, files: dict[str, str]) -> None:
    """Write the files of a case, the accounts first."""
    builder.file("/etc/passwd", PASSWD)
    for path, content in files.items():
        if content.startswith("->"):
            builder.link(path, content[2:])
        else:
            builder.file(path, content)


def case_name(rule: str, files: dict[str, str], *_: object) -> str:
    """The rule and the path that says most."""
    return f"{rule}-{max(files, key=len)}"


def ask(builder: Builder, name: str) -> set[str]:
    """The paths that the rule finds."""
    rule = next(rule for rule in rules.ALL if rule.id == name)
    return {finding.path for finding in verdict_of(rule, builder.image()).findings}


@pytest.mark.sshd
@pytest.mark.parametrize("rule,files,paths", FOUND, ids=[case_name(*case) for case in FOUND])
@pytest.mark.sample(4)
def test_it_is_found(builder: Builder, rule: str, files: dict[str, str], paths: AbstractSet[str]) -> None:
    """The rule finds exactly these paths."""
    grow(builder, files)
    assert ask(builder, rule) == (paths or set(files))


@pytest.mark.sshd
@pytest.mark.parametrize("rule,files", PASSED, ids=[case_name(*case) for case in PASSED])
@pytest.mark.sample(4)
def test_it_is_left_in_peace(builder: Builder, rule: str, files: dict[str, str]) -> None:
    """The rule finds nothing, and is sure of it."""
    grow(builder, files)
    assert ask(builder, rule) == set()
    outcome = verdict_of(next(entry for entry in rules.ALL if entry.id == rule), builder.image())
    assert outcome.unknowns == ()


def test_two_of_a_kind_near_and_far_in_a_file(builder: Builder) -> None:
    """What stands far behind has no line; it is told beside what has one."""
    near, far = (access_key(prefix, "Z7QK3WJT5NP2XR6M") for prefix in ("AKIA", "ASIA"))
    builder.file("/srv/notes", f"{near}\n" + ("y" * 79 + "\n") * 8000 + f"{far}\n")
    assert ask(builder, "access-keys") == {"/srv/notes"}


def test_the_guides_own_script_installs_keys(builder: Builder) -> None:
    """An executable rc.local that fetches public-keys is what the guide shows; one that cannot run is not."""
    script = "#!/bin/sh\ncurl http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key\n"
    builder.file("/etc/rc.local", script, mode=0o644)
    assert ask(builder, "key-installer") != set()
    builder.file("/etc/rc.local", script, mode=0o755)
    assert ask(builder, "key-installer") == set()


def test_what_is_unknown_has_one_order(builder: Builder) -> None:
    """That of the paths, so that two audits of an image can be compared."""
    for number in range(8):
        builder.link(f"/home/{number}/.ssh/authorized_keys", "authorized_keys")
    unknowns = verdict_of(rules.by_id("authorized-keys"), builder.image()).unknowns
    paths = [unknown.path for unknown in unknowns]
    assert (len(paths), paths) == (8, sorted(paths))


@pytest.mark.parametrize("target", ["/srv/app", "/"])
def test_a_link_to_just_any_directory_is_unknown(builder: Builder, target: str) -> None:
    """What is in it may be anything, and seal would take all of it."""
    grow(builder, {"/srv/app/program": "x"})
    builder.link("/var/log/app" if target != "/" else "/var/log", target)
    rule = next(rule for rule in rules.ALL if rule.id == "logs")
    verdict = verdict_of(rule, builder.image())
    assert (verdict.findings, len(verdict.unknowns)) == ((), 1)
    assert verdict.changes == ()


@pytest.mark.sshd
@pytest.mark.parametrize("name", ["root-password-login", "password-login", "root-login"])
@pytest.mark.parametrize("files", [{}, {SSHD: "PermitRootLogin no\nPasswordAuthentication no\nUsePAM no\n"}])
def test_another_server_is_no_pass(builder: Builder, name: str, files: dict[str, str]) -> None:
    """What sshd says is not what dropbear does, with sshd beside it or alone."""
    grow(builder, {"/usr/sbin/dropbear": "x", **files})
    verdict = verdict_of(rules.by_id(name), builder.image())
    assert (verdict.outcome, [each.path for each in verdict.unknowns]) == (UNKNOWN, ["/usr/sbin/dropbear"])


@pytest.mark.sshd
def test_one_user_who_can_log_in_is_enough(builder: Builder) -> None:
    """What keeps the others out is a note then; whom sshd lets in from some places only is unknown.

    Where none can, nothing is a note.
    """
    grow(builder, {**FIRSTKEY, SSHD: "PermitRootLogin no\n", CONF: "[Keys]\nUsers=root ann\n"})
    verdict = verdict_of(rules.by_id("first-login"), builder.image())
    assert [finding.severity for finding in verdict.findings] == [NOTE]
    builder.file(SSHD, "AllowUsers ann@192.0.2.*\n")
    verdict = verdict_of(rules.by_id("first-login"), builder.image())
    assert [unknown.refusal.reason for unknown in verdict.unknowns] == [login_reasons.CLIENT_DEPENDENT]
    assert not Result(rules.by_id("first-login"), verdict).is_fit
    builder.file(SSHD, "DenyUsers *\n")
    verdict = verdict_of(rules.by_id("first-login"), builder.image())
    assert [finding.severity for finding in verdict.findings] == [None, None]
    assert not Result(rules.by_id("first-login"), verdict).is_fit


@pytest.mark.sshd
@pytest.mark.parametrize(
    "files,said",
    [
        ({STARTED: RESTARTS.format("-D -f /etc/ssh/sshd_alt")}, "-f /etc/ssh/sshd_alt"),
        ({STARTED: STARTS, OPTS: "SSHD_OPTS=-f/etc/alt\n"}, "-f /etc/alt"),
        ({STARTED: STARTS, OPTS: "SSHD_OPTS='-o \"x\n"}, "cannot be read"),
        ({STARTED: STARTS, OPTS: "SSHD_OPTS=--strange\n"}, "cannot be read"),
        ({STARTED: STARTS.replace("/usr/sbin/sshd", "/bin/sh /etc/start")}, "/bin/sh is started"),
        ({STARTED: STARTS, UNIT.format("ssh@"): RESTARTS.format(""), OPTS: "SSHD_OPTS=-p23"}, "differ"),
        ({SSHD: "".join(f"Match Address 10.0.{n}.0/24\nX11Forwarding no\n" for n in range(64))}, "1 more"),
    ],
)  # fmt: skip
@pytest.mark.sample(4)
def test_what_sshd_was_not_asked_is_unknown(builder: Builder, files: dict[str, str], said: str) -> None:
    """Another file, options that cannot be read, another program, too many clients: no green answer."""
    grow(builder, {SSHD: "PermitRootLogin no\n", **files})
    verdict = verdict_of(rules.by_id("root-password-login"), builder.image())
    assert verdict.outcome == UNKNOWN
    (unknown,) = verdict.unknowns
    assert said in unknown.refusal.detail
    assert not Result(rules.by_id("root-password-login"), verdict).is_fit


@pytest.mark.sshd
@pytest.mark.slow
def test_a_finding_outweighs_the_clients_that_were_not_asked(builder: Builder) -> None:
    """One client whom root's password lets in is enough."""
    blocks = "".join(f"Match Address 10.0.{number}.0/24\n  PermitRootLogin yes\n" for number in range(70))
    grow(builder, {SSHD: f"PermitRootLogin no\n{blocks}"})
    assert verdict_of(rules.by_id("root-password-login"), builder.image()).outcome == FINDING


@pytest.mark.sshd
def test_an_option_of_sshd_is_for_a_person_to_change(builder: Builder) -> None:
    """No file that seal could write comes before it, so nothing is written."""
    grow(builder, {SSHD: "", STARTED: STARTS, OPTS: "SSHD_OPTS=-oPermitRootLogin=yes\n"})
    planned = seal.plan(builder.image(), [rules.by_id("root-password-login")], [])
    assert [entry.refusal.reason for entry in planned.left] == [image_reasons.NO_PROOF]
    assert not planned.steps


@pytest.mark.sshd
def test_no_usual_configuration_is_not_the_same_as_the_defaults(builder: Builder) -> None:
    """There is an sshd; nobody knows where its configuration is."""
    grow(builder, {"/usr/sbin/sshd": "OpenSSH_9.9"})
    verdict = verdict_of(rules.by_id("root-password-login"), builder.image())
    assert (verdict.outcome, verdict.unknowns[0].refusal.reason.code) == (UNKNOWN, "sshd-missing")


def test_a_password_that_no_file_has_is_unknown(builder: Builder) -> None:
    """Passwd says that it is elsewhere: that is no lock."""
    grow(builder, {"/etc/shadow": "ann:*:19000::::::\nsvc:*:::::::\nshut:*:::::::\n"})
    rule = next(rule for rule in rules.ALL if rule.id == "root-password")
    verdict = verdict_of(rule, builder.image())
    assert [unknown.refusal.reason.code for unknown in verdict.unknowns] == ["password-elsewhere"]


@pytest.mark.parametrize("machine_id, counts", [("", False), ("a" * 32, True), ("uninitialized", True)])
def test_presets_that_have_the_boot_wait_are_found(builder: Builder, machine_id: str, counts: bool) -> None:
    """Those of a network and of a clock, unless they are on already or masked; with Also= too."""
    wait = "[Unit]\nBefore={}\n[Service]\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n"
    grow(builder, {UNIT.format(name): wait.format(target) for name, target in {
        "net": "x.target network-online.target", "clock": "time-sync.target", "quick": "network.target",
        "on": "network-online.target", "off": "network-online.target",
    }.items()})  # fmt: skip
    grow(builder, {WANTED.format("on"): "->x", "/etc/systemd/system/off.service": "->/dev/null"})
    grow(builder, {UNIT.format("daemon"): wait.format("network-online.target").replace("oneshot", "notify")})
    grow(builder, {UNIT.format("main"): "[Install]\nWantedBy=multi-user.target\nAlso=clock.service\n"})
    builder.file("/usr/lib/systemd/system-preset/1.preset", "disable clock.service\n")
    builder.file("/etc/machine-id", machine_id)
    found = {f"/etc/systemd/system/{name}.service" for name in ("net", "clock")}
    assert ask(builder, "first-boot-waits") == (found if counts else set())
