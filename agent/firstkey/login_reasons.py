"""More of the published list of reasons: what stands between a key and a shell (firstkey doctor).

They stand apart so that a boot, which meets none of them, need not read them.
"""

from __future__ import annotations

from firstkey.reasons import define

SSHD_NOT_RUNNING = define(
    "sshd-not-running",
    "Nothing listens on the port that sshd should have.",
    "Start it: systemctl enable --now ssh (or sshd); then see: journalctl -b -u ssh -u sshd",
)
SSHD_ON_LOOPBACK = define(
    "sshd-on-loopback",
    "sshd listens on the loopback address alone, where nobody else can reach it.",
    "Set ListenAddress 0.0.0.0 in sshd_config, or take it out; then restart sshd.",
)
SSHD_SILENT = define(
    "sshd-silent",
    "The port is open, but no SSH server speaks there.",
    "See who has the port: ss -ltnp; then: journalctl -b -u ssh -u sshd",
)
SSHD_BUSY = define(
    "sshd-busy",
    "sshd turns connections away: too many at once, or a penalty for earlier failures.",
    "Wait a minute, or raise MaxStartups in sshd_config.",
)
PRIVSEP_MISSING = define(
    "privsep-missing",
    "The directory or account that sshd needs to drop its rights is missing or unsafe, so it will not start.",
    "Start it through systemd, which makes the directory, or reinstall openssh-server.",
)
NO_HOST_KEY = define(
    "no-host-key",
    "sshd can load no host key, so it will not start.",
    "Make them: firstkey host-keys",
)
TCP_WRAPPERS = define(
    "tcp-wrappers",
    "/etc/hosts.deny turns the client away before sshd speaks.",
    "Add a line to /etc/hosts.allow: sshd: ADDRESS",
)
ACCOUNT_LOCKED = define(
    "account-locked",
    "The account is locked (! in /etc/shadow), which sshd heeds with UsePAM no.",
    "Unlock it without giving it a password: usermod -p '*' NAME",
)
ACCOUNT_EXPIRED = define(
    "account-expired",
    "The account has expired.",
    "Let it never expire: chage -E -1 NAME",
)
PASSWORD_EXPIRED = define(
    "password-expired",
    "The password has expired, and a new one is demanded before there is a shell.",
    "Say that it was changed today: chage -d $(date +%F) NAME",
)
SHELL_MISSING = define(
    "shell-missing",
    "The account's shell does not exist or cannot be run, so sshd lets nobody in as this user.",
    "Give it one that there is: usermod -s /bin/sh NAME",
)
NO_LOGIN_SHELL = define(
    "no-login-shell",
    "The account's shell is a program that only ends the session.",
    "Give it a real one: usermod -s /bin/sh NAME",
)
USER_DENIED = define(
    "user-denied",
    "DenyUsers of sshd names the user.",
    "Take the user out of DenyUsers in sshd_config; then reload sshd.",
)
USER_NOT_ALLOWED = define(
    "user-not-allowed",
    "sshd has AllowUsers, and it does not name the user.",
    "Add the user to AllowUsers in sshd_config; then reload sshd.",
)
GROUP_DENIED = define(
    "group-denied",
    "DenyGroups of sshd names a group of the user's.",
    "Take the user out of the group, or the group out of DenyGroups; then reload sshd.",
)
GROUP_NOT_ALLOWED = define(
    "group-not-allowed",
    "sshd has AllowGroups, and it names no group of the user's.",
    "Add the user to one of the groups: usermod -aG GROUP NAME",
)
CONNECTION_REFUSED = define(
    "refuse-connection",
    "sshd ends every connection of this user's (RefuseConnection yes).",
    "Take RefuseConnection out of the Match block in sshd_config; then reload sshd.",
)
PUBKEY_DISABLED = define(
    "pubkey-disabled",
    "sshd takes no public keys for this user (PubkeyAuthentication no).",
    "Set PubkeyAuthentication yes in sshd_config; then reload sshd.",
)
KEY_NOT_ENOUGH = define(
    "key-not-enough",
    "AuthenticationMethods wants more than a key.",
    "Set AuthenticationMethods publickey for this user in sshd_config; then reload sshd.",
)
ALGORITHM_REFUSED = define(
    "algorithm-refused",
    "PubkeyAcceptedAlgorithms of sshd does not have the key's type.",
    "Add the type to PubkeyAcceptedAlgorithms in sshd_config, or use a key of another type.",
)
KEY_TOO_SMALL = define(
    "key-too-small",
    "The RSA key has fewer bits than sshd asks for (RequiredRSASize).",
    "Use a larger key, or one of type ed25519.",
)
KEY_REVOKED = define(
    "key-revoked",
    "The file of RevokedKeys has the key.",
    "Use another key; or take this one out of the file, if you know why it is there.",
)
REVOKED_KEYS_UNREADABLE = define(
    "revoked-keys-unreadable",
    "sshd cannot read the file of RevokedKeys, and so takes no key at all.",
    "Put a readable file there, or take RevokedKeys out of sshd_config.",
)
KEY_NOT_INSTALLED = define(
    "key-not-installed",
    "No file that sshd reads for this user has the key.",
    "Install it: firstkey run --force --user NAME",
)
KEY_OPTIONS_INVALID = define(
    "key-options-invalid",
    "sshd passes over the key's line for the options before the key.",
    "Correct the options as sshd(8) has them under AUTHORIZED_KEYS FILE FORMAT.",
)
KEY_EXPIRED = define(
    "key-expired",
    "The key's line has an expiry-time that is over.",
    "Take expiry-time= out of the line, or set it later; compare the clock: date",
)
KEY_NOT_FROM_HERE = define(
    "key-not-from-here",
    "The key's line has from=, and that does not allow the client.",
    "Add the client's address to from= in the line.",
)
FORCED_COMMAND = define(
    "forced-command",
    "A command is run in place of the shell (command= before the key, or ForceCommand of sshd).",
    "Take it out, if a shell is wanted.",
)
NO_TERMINAL = define(
    "no-terminal",
    "The login gets no terminal (no-pty or restrict before the key, or PermitTTY no).",
    "Nothing, if commands are enough; a shell without a terminal: ssh NAME@HOST sh -i",
)
ROOT_LOGIN_REFUSED = define(
    "root-login-refused",
    "sshd lets root in by no key (PermitRootLogin).",
    "Set PermitRootLogin prohibit-password in sshd_config, or log in as another user.",
)
KEYS_COMMAND_FAILED = define(
    "keys-command-failed",
    "AuthorizedKeysCommand is unsafe, cannot be run, fails, or does not vouch for the key.",
    "Run it by hand as its user, and see what it says; it and each directory above must be root's alone.",
)
SELINUX_LABEL = define(
    "selinux-label",
    "SELinux keeps sshd from the file: its label is not the one that the policy has for it.",
    "Set the label right: restorecon -Rv PATH",
)
LOGINS_CLOSED = define(
    "logins-closed",
    "A nologin file keeps everybody but root out.",
    "Remove the file, once the work that it stands for is over.",
)
PAM_REFUSES = define(
    "pam-refuses",
    "PAM's account rules refuse the user after the key was accepted.",
    "See which module it was: journalctl -b -t sshd; its rules are in /etc/pam.d/sshd.",
)
PAM_UNKNOWN = define(
    "pam-unknown",
    "PAM has rules that cannot be known without a login.",
    "Look at the modules that are named; sshd logs a refusal: journalctl -b -t sshd",
)
SESSION_LIMIT = define(
    "session-limit",
    "A limit lets no session begin, or no more than there are (MaxSessions, MaxAuthTries, limits.conf).",
    "Decide what the limit is to be, and change the line.",
)
SESSION_ENDS = define(
    "session-ends",
    "The session ends before the shell comes to a command, over a start-up file or a rule of PAM.",
    "Decide what the line is there for; without it, the session would go on.",
)
SESSION_UNKNOWN = define(
    "session-unknown",
    "The shell was tried and ended before it came to a command, or could not be tried.",
    "Look at the start-up files of the shell; try it by hand: su - NAME",
)
ALGORITHMS_DIFFER = define(
    "algorithms-differ",
    "The client and sshd have no algorithm in common for one of the things that both must agree on.",
    "Decide which more sshd is to take (ssh -Q shows what a client has), or use a client that has one.",
)
SSHD_UNREAD = define(
    "sshd-unread",
    "sshd's configuration was changed after sshd read it: the running sshd may do something else.",
    "Have sshd read it: sshd -t && systemctl reload ssh (or sshd)",
)
CHROOT_UNSAFE = define(
    "chroot-unsafe",
    "ChrootDirectory is missing or has no shell, or others than root can write it: the session ends.",
    "Make each directory of the path root's own: chown root PATH; chmod go-w PATH",
)
CLIENT_DEPENDENT = define(
    "client-dependent",
    "The answer depends on where the client comes from.",
    "Say from where: firstkey doctor --from ADDRESS",
)
KEY_UNKNOWN = define(
    "key-unknown",
    "It is not known which key is the launch key.",
    "Name it: firstkey doctor --key FILE; or ask again as root.",
)
SSHD_DISAGREES = define(
    "sshd-disagrees",
    "The running sshd answers differently from what its files say now.",
    "Reload it, so that both are the same: systemctl reload ssh (or sshd)",
)
SSHD_LOGGED = define(
    "sshd-logged",
    "sshd logged a refusal that concerns this user.",
    "See when and why: journalctl -b -t sshd",
)
CLOCK_BEHIND = define(
    "clock-behind",
    "The clock is behind the machine's own files, so what has expired, and what not, cannot be trusted.",
    "Set it, or wait until it is set: timedatectl; chronyc tracking",
)
CONSOLE_WITHOUT_KEYS = define(
    "console-without-keys",
    "The console output shows no host keys.",
    "Get the newest: aws ec2 get-console-output --latest --instance-id ID; the keys are shown at each boot.",
)
CONSOLE_DISAGREES = define(
    "console-disagrees",
    "The console output has keys without their fingerprints, or blocks of keys that do not agree: it is"
    " damaged, something is mixed in, or the machine made new keys between two boots.",
    "Get it again, or ask the machine itself: firstkey known-hosts",
)
NO_REPORT = define(
    "no-report",
    "No run in this boot left a report that can be read.",
    "See what the boot did: journalctl -b -u firstkey; or run it by hand: firstkey run",
)
NOT_RUNNING_SYSTEM = define(
    "not-running-system",
    "This is a tree of files, not a running system; this can only be seen where it runs.",
    "Ask again on the instance: firstkey doctor",
)
PASSWORD_ELSEWHERE = define(
    "password-elsewhere",
    "The account's password is in no file that is known, so nobody can tell whether it has one.",
    "Look at it where this system keeps it: getent shadow NAME, or nsswitch.conf(5).",
)
