"""More of the published list of reasons: what stands between a key and a shell (firstkey doctor).

They stand apart so that a boot, which meets none of them, need not read them.
"""

from __future__ import annotations

from firstkey.reasons import define

# One reason is one short paragraph, as in reasons.py.
# fmt: off

SSHD_NOT_RUNNING = define("sshd-not-running",
    "No program listens on sshd's port.",
    "Start it: systemctl enable --now ssh (or sshd); then see: journalctl -b -u ssh -u sshd")
SSHD_ON_LOOPBACK = define("sshd-on-loopback",
    "sshd listens on the loopback address alone, which no other host can reach.",
    "Set ListenAddress 0.0.0.0 in sshd_config, or remove it; then restart sshd.")
SSHD_SILENT = define("sshd-silent",
    "The port is open, but no SSH server answers there.",
    "See which program has the port: ss -ltnp; then: journalctl -b -u ssh -u sshd")
SSHD_BUSY = define("sshd-busy",
    "sshd refuses connections: too many at once, or a penalty for earlier failures.",
    "Wait a minute, or raise MaxStartups in sshd_config.")
PRIVSEP_MISSING = define("privsep-missing",
    "The directory or account that sshd needs to drop its rights is missing or unsafe: sshd does not start.",
    "Start sshd through systemd, which creates the directory, or reinstall openssh-server.")
NO_HOST_KEY = define("no-host-key",
    "sshd can load no host key, so it does not start.",
    "Generate them: firstkey host-keys")
TCP_WRAPPERS = define("tcp-wrappers",
    "/etc/hosts.deny refuses the client before sshd answers.",
    "Add a line to /etc/hosts.allow: sshd: ADDRESS")
ACCOUNT_LOCKED = define("account-locked",
    "The account is locked (! in /etc/shadow), and with UsePAM no, sshd refuses such an account.",
    "Unlock it without a password: usermod -p '*' NAME")
ACCOUNT_EXPIRED = define("account-expired",
    "The account has expired.",
    "Remove the expiry date: chage -E -1 NAME")
PASSWORD_EXPIRED = define("password-expired",
    "The password has expired, and must be changed before the shell starts.",
    "Set the day of its last change to today: chage -d $(date +%F) NAME")
SHELL_MISSING = define("shell-missing",
    "The account's shell does not exist or cannot be run, so sshd refuses this user.",
    "Set a shell that exists: usermod -s /bin/sh NAME")
NO_LOGIN_SHELL = define("no-login-shell",
    "The account's shell is a program that only ends the session.",
    "Set a login shell: usermod -s /bin/sh NAME")
USER_DENIED = define("user-denied",
    "DenyUsers of sshd names the user.",
    "Remove the user from DenyUsers in sshd_config; then reload sshd.")
USER_NOT_ALLOWED = define("user-not-allowed",
    "sshd has AllowUsers, which does not name the user.",
    "Add the user to AllowUsers in sshd_config; then reload sshd.")
GROUP_DENIED = define("group-denied",
    "DenyGroups of sshd names a group of the user's.",
    "Remove the user from the group, or the group from DenyGroups; then reload sshd.")
GROUP_NOT_ALLOWED = define("group-not-allowed",
    "sshd has AllowGroups, which names no group of the user's.",
    "Add the user to one of the groups: usermod -aG GROUP NAME")
CONNECTION_REFUSED = define("refuse-connection",
    "sshd ends every connection of this user's (RefuseConnection yes).",
    "Remove RefuseConnection from the Match block in sshd_config; then reload sshd.")
PUBKEY_DISABLED = define("pubkey-disabled",
    "sshd accepts no public keys for this user (PubkeyAuthentication no).",
    "Set PubkeyAuthentication yes in sshd_config; then reload sshd.")
KEY_NOT_ENOUGH = define("key-not-enough",
    "AuthenticationMethods requires more than a key.",
    "Set AuthenticationMethods publickey for this user in sshd_config; then reload sshd.")
ALGORITHM_REFUSED = define("algorithm-refused",
    "PubkeyAcceptedAlgorithms of sshd does not have the key's type.",
    "Add the type to PubkeyAcceptedAlgorithms in sshd_config, or use a key of another type.")
KEY_TOO_SMALL = define("key-too-small",
    "The RSA key has fewer bits than sshd requires (RequiredRSASize).",
    "Use a larger key, or one of type ed25519.")
KEY_REVOKED = define("key-revoked",
    "The file of RevokedKeys has the key.",
    "Use another key; or remove this one from the file, if you know why it was revoked.")
REVOKED_KEYS_UNREADABLE = define("revoked-keys-unreadable",
    "sshd cannot read the file of RevokedKeys, so it accepts no key.",
    "Replace it by a readable file, or remove RevokedKeys from sshd_config.")
KEY_NOT_INSTALLED = define("key-not-installed",
    "No file that sshd reads for this user has the key.",
    "Install it: firstkey run --force --user NAME")
KEY_OPTIONS_INVALID = define("key-options-invalid",
    "sshd ignores the key's line for the options before the key.",
    "Correct the options: sshd(8), AUTHORIZED_KEYS FILE FORMAT.")
KEY_EXPIRED = define("key-expired",
    "The key's line has an expiry-time in the past.",
    "Remove expiry-time= from the line, or set it later; compare the clock: date")
KEY_NOT_FROM_HERE = define("key-not-from-here",
    "The key's line has from=, which does not allow the client.",
    "Add the client's address to from= in the line.")
FORCED_COMMAND = define("forced-command",
    "A command is run in place of the shell (command= before the key, or ForceCommand of sshd).",
    "Remove it, if a shell is needed.")
NO_TERMINAL = define("no-terminal",
    "The login gets no terminal (no-pty or restrict before the key, or PermitTTY no).",
    "Nothing, if commands are enough. A shell without a terminal: ssh NAME@HOST sh -i")
ROOT_LOGIN_REFUSED = define("root-login-refused",
    "sshd accepts no key for root (PermitRootLogin).",
    "Set PermitRootLogin prohibit-password in sshd_config, or log in as another user.")
KEYS_COMMAND_FAILED = define("keys-command-failed",
    "AuthorizedKeysCommand is unsafe, cannot be run, fails, or does not print the key.",
    "Run it by hand as its user, and read its output. Only root may write it and each directory above.")
SELINUX_LABEL = define("selinux-label",
    "SELinux keeps sshd from the file: its label is not the policy's.",
    "Restore the label: restorecon -Rv PATH")
LOGINS_CLOSED = define("logins-closed",
    "A nologin file stops every login but root's.",
    "Remove the file, when its maintenance work is over.")
PAM_REFUSES = define("pam-refuses",
    "PAM's account rules refuse the user after the key was accepted.",
    "Find the module: journalctl -b -t sshd; its rules are in /etc/pam.d/sshd.")
PAM_UNKNOWN = define("pam-unknown",
    "PAM has rules whose answer is known only after a login.",
    "Check the modules that are named; sshd logs a refusal: journalctl -b -t sshd")
SESSION_LIMIT = define("session-limit",
    "A limit allows no session, or no more sessions (MaxSessions, MaxAuthTries, limits.conf).",
    "Decide on the limit, and change the line.")
SESSION_ENDS = define("session-ends",
    "A start-up file or a rule of PAM ends the session before the shell runs a command.",
    "Decide whether the line is needed; without it, the session goes on.")
SESSION_UNKNOWN = define("session-unknown",
    "The shell was tried and ended before it ran a command, or could not be tried.",
    "Check the start-up files of the shell; try it by hand: su - NAME")
ALGORITHMS_DIFFER = define("algorithms-differ",
    "The client and sshd share no algorithm for a part of the connection.",
    "Decide which algorithm to add in sshd (ssh -Q lists those of a client), or use another client.")
SSHD_UNREAD = define("sshd-unread",
    "sshd's configuration was changed after sshd read it: the running sshd may behave differently.",
    "Reload sshd: sshd -t && systemctl reload ssh (or sshd)")
CHROOT_UNSAFE = define("chroot-unsafe",
    "ChrootDirectory is missing or has no shell, or users other than root can write it: the session ends.",
    "Give each directory of the path to root: chown root PATH; chmod go-w PATH")
CLIENT_DEPENDENT = define("client-dependent",
    "The answer depends on the client's address.",
    "Name the address: firstkey doctor --from ADDRESS")
KEY_UNKNOWN = define("key-unknown",
    "The launch key is not known.",
    "Name it: firstkey doctor --key FILE; or run doctor again as root.")
SSHD_DISAGREES = define("sshd-disagrees",
    "The running sshd answers differently from its present files.",
    "Reload it: systemctl reload ssh (or sshd)")
CLOCK_BEHIND = define("clock-behind",
    "The clock is behind the machine's own files, so no expiry date can be judged.",
    "Set the clock, or wait until it is set: timedatectl; chronyc tracking")
CONSOLE_WITHOUT_KEYS = define("console-without-keys",
    "The console output shows no host keys.",
    "Get the newest: aws ec2 get-console-output --latest --instance-id ID; each boot shows the keys.")
CONSOLE_DISAGREES = define("console-disagrees",
    "The console output has keys without their fingerprints, or blocks of keys that do not agree: it is"
    " damaged, another program wrote in between, or the machine generated new keys between two boots.",
    "Get it again, or ask the machine itself: firstkey known-hosts")
NO_REPORT = define("no-report",
    "No run in this boot left a readable report.",
    "Read the boot's messages: journalctl -b -u firstkey; or run it by hand: firstkey run")
NOT_RUNNING_SYSTEM = define("not-running-system",
    "This is a tree of files, not a running system; the check needs a running one.",
    "Run it on the instance: firstkey doctor")
PASSWORD_ELSEWHERE = define("password-elsewhere",
    "The account's password is in no known file, so firstkey does not know whether it has one.",
    "Look it up where this system keeps it: getent shadow NAME, or nsswitch.conf(5).")
