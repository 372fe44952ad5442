"""The published list of reason codes: why something was skipped, refused or failed.

The same word stands in the journal, the report and the documentation, each with its remedy.
A code is never renamed or reused: programs match on it.
"""

from __future__ import annotations

from firstkey import NamedTuple


class Reason:
    """One published reason: a code for programs, a meaning and a remedy (--root changes it) for people."""

    def __init__(self, code: str, meaning: str, remedy: str) -> None:
        self.code, self.meaning, self.remedy = code, meaning, remedy


class Refusal(NamedTuple):
    """Why one thing was not done: the reason, and a sentence that names the thing."""

    reason: Reason
    detail: str

    @property
    def fields(self) -> dict[str, str]:
        """Both, as an event has them."""
        return {"reason": self.reason.code, "detail": self.detail}


ALL: dict[str, Reason] = {}
"""By their codes. Those of image_reasons and login_reasons, which no boot needs, come with these modules."""


def define(code: str, meaning: str, remedy: str) -> Reason:
    """Put one more on the list; raises ValueError where its code is taken."""
    if code in ALL:
        raise ValueError(f"reason code {code} is defined twice")
    ALL[code] = Reason(code, meaning, remedy)
    return ALL[code]


# One reason reads best as one short paragraph, as an event does.
# fmt: off

# --- the metadata service ---------------------------------------------------------------------

NO_KEY_PAIR = define("no-key-pair",
    "The instance was launched without a key pair; there is no launch key to install.",
    "Nothing to do. To have one, launch the instance with a key pair (--key-name).")
IMDS_DISABLED = define("imds-disabled",
    "The metadata service is switched off for this instance.",
    "Switch it on: aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled")
IMDS_LOCKED = define("imds-locked",
    "systemd's own metadata service (systemd-imdsd) keeps this address for itself.",
    "Kernel command line: systemd.imds.network=unlocked; or leave launch keys to systemd-imds.")
CATEGORY_MISSING = define("category-missing",
    "The metadata service has no category of launch keys, so firstkey cannot know whether there is one.",
    "Use a service that has /latest/meta-data/public-keys/, or put a key into the image.")
IMDS_UNREACHABLE = define("imds-unreachable",
    "The metadata service gave no answer in time.",
    "Show each request with its error: firstkey keys -v. The route: ip route get ADDRESS. Another address in "
    "Endpoints= has to be let through: systemctl edit firstkey.service, IPAddressAllow=ADDRESS in [Service].")
IMDS_ERROR = define("imds-error",
    "The metadata service answered with an error of its own.",
    "firstkey.service asks again by itself; by hand, run it again. If the error stays, see: firstkey keys -v")
BAD_REQUEST = define("bad-request",
    "The metadata service called the request malformed (400).",
    "Check TokenTTLSec= (1 to 21600) and Endpoints= with: firstkey config")
BAD_ANSWER = define("bad-answer",
    "The answer is not one of the metadata service's formats.",
    "Check that Endpoints= names the metadata service, and that no proxy stands in between: firstkey keys -v")
ANSWER_TOO_LARGE = define("answer-too-large",
    "The answer is larger than any genuine one; it was not used.",
    BAD_ANSWER.remedy)
REDIRECT_REFUSED = define("redirect-refused",
    "The service answered with a redirect, which the metadata service never does; it was not followed.",
    "Check that no proxy intercepts HTTP on the way: firstkey keys -v")
TOKEN_TIMEOUT = define("token-timeout",
    "The token request got no answer although the service accepts connections.",
    "Raise the hop limit: aws ec2 modify-instance-metadata-options --instance-id ID"
    " --http-put-response-hop-limit 2")
TOKEN_REFUSED = define("token-refused",
    "The service refused to give a token.",
    "If the service is genuine, check IMDSv2 on the instance. With Version=1, none is needed.")
TOKEN_REJECTED = define("token-rejected",
    "The service rejected a fresh token twice (401).",
    "Check the clock and that all answers come from the same service: firstkey keys -v")
FIRMWARE_DISAGREES = define("firmware-disagrees",
    "The metadata service and the firmware name different instances; the service was believed.",
    "Check that Endpoints= names the genuine service. In a container, the firmware is the host's.")
OTHER_PLATFORM = define("other-platform",
    "The firmware names another platform than EC2.",
    "If it has a service like EC2's, name it: Endpoints= under [IMDS]. Then sshd waits for the answer.")
V1_DISABLED = define("v1-disabled",
    "The service answers only requests with a token, and firstkey got no token.",
    "If Version= is 1, set Version=auto; otherwise see why the token failed: firstkey keys -v")

# --- keys -------------------------------------------------------------------------------------

NOT_A_PUBLIC_KEY = define("not-a-public-key",
    "The line is not a public key that OpenSSH accepts on its own (one line, no options).",
    "Show it with: firstkey keys. Then import a valid public key as the key pair of the instance.")

# --- users and their files --------------------------------------------------------------------

NO_SUCH_USER = define("no-such-user",
    "The user does not exist on this system.",
    "Create the account, or set Create=yes in its [User NAME] section.")
INVALID_USER_NAME = define("invalid-user-name",
    "The name is not one that an account can have.",
    "Correct it in Users= or on the command line.")
HOME_MISSING = define("home-missing",
    "The user's home is not mounted or does not exist; firstkey creates it only with Create=yes.",
    "Mount its file system, or create it with: mkhomedir_helper NAME")
SYMLINK_REFUSED = define("symlink-refused",
    "A part of the path is a symbolic link that a user other than root could have placed.",
    "Replace the link by the real directory or file.")
SHARED_FILE = define("shared-file",
    "AuthorizedKeysFile names one file for several users; a key in it would let its owner in as any of them.",
    "Use %u or %h in AuthorizedKeysFile, or set AuthorizedKeysFile= in the [User NAME] section.")
NOT_A_REGULAR_FILE = define("not-a-regular-file",
    "A directory, device or other special file has the name of the file.",
    "Move it away.")
NOT_A_DIRECTORY = define("not-a-directory",
    "A file that is not a directory has the name of the directory.",
    "Move it away.")
UNSAFE_DIRECTORY = define("unsafe-directory",
    "A user other than root and the owner of the keys can write a directory on the path.",
    "chmod go-w DIRECTORY")
BAD_MODES = define("bad-modes",
    "The owner or mode of a part of the path makes sshd ignore the file (StrictModes).",
    "chmod go-w PATH, or chown NAME PATH")
FILE_TOO_LARGE = define("file-too-large",
    "The file is larger than firstkey's limit for a file that it rewrites.",
    "Look at its content; a file of keys is rarely larger than a few KiB.")
PERMISSION_DENIED = define("permission-denied",
    "The user has no right to the file, so sshd has none either.",
    "Without root, run it again with sudo. As root, check each directory of the path: namei -l FILE")
READ_ONLY = define("read-only",
    "The file system is read-only, or the file is immutable.",
    "Remount it read-write, or clear the flag with: chattr -i PATH")
NO_SPACE = define("no-space",
    "No space or no quota is left on the file system.",
    "Free some space; see: df -h PATH; df -i PATH")
IO_ERROR = define("io-error",
    "The kernel reported an error while the file was read or written.",
    "Check the disk: dmesg")
CONCURRENT_CHANGE = define("concurrent-change",
    "Another program kept changing the file, or kept its lock, when firstkey tried to write it.",
    "Run it again: firstkey run")
TIMED_OUT = define("timed-out",
    "The step took too long and was given up.",
    "Check the file system or the program that is named: dmesg")
AUTHORIZED_KEYS_DISABLED = define("authorized-keys-disabled",
    "sshd reads no authorized_keys file for this user (AuthorizedKeysFile none).",
    "Set AuthorizedKeysFile in sshd_config for this user.")
NOT_READ_BY_SSHD = define("not-read-by-sshd",
    "The keys are in the file of AuthorizedKeysFile= in the [User NAME] section, but sshd does not read it.",
    "Name the file in sshd_config too (AuthorizedKeysFile), or remove the setting from [User NAME].")
LOGIN_REFUSED = define("login-refused",
    "sshd refuses this user, whatever the key, so the installed launch keys have no effect.",
    "Change the setting in sshd_config, or set Users= to another user. To see the line: firstkey doctor")
KEY_LINE_IGNORED = define("key-line-ignored",
    "The key is in a line whose options sshd rejects, so sshd ignores the line; firstkey did not change it.",
    "Correct the options; or remove the line, and add the key without options: firstkey run --force")
NO_SUCH_GROUP = define("no-such-group",
    "The group does not exist on this system, so the user was not added to it.",
    "Create it with groupadd, or correct Groups= in the [User NAME] section.")
USER_CREATE_FAILED = define("user-create-failed",
    "The account could not be set up as configured.",
    "Correct the cause in the detail (the [User NAME] section, or a stale lock); then: firstkey run")
SUDOERS_INVALID = define("sudoers-invalid",
    "sudo's own checker rejected a rule or a file of rules; no new rule was put in place.",
    "Correct Sudo= in the [User NAME] section, or the line of sudo's files that is named.")
SUDO_UNCHECKED = define("sudo-unchecked",
    "visudo could not validate the rule, so the rule was not put in place.",
    "Check visudo on the existing rules: visudo -c")
SUDO_MISSING = define("sudo-missing",
    "sudo is not installed, so its rule could not be validated, and has no effect.",
    "Install sudo in the image, or remove Sudo= from the [User NAME] section.")
SUDO_NOT_EFFECTIVE = define("sudo-not-effective",
    "The rule is in place, but sudo does not apply it to the user.",
    "List the effective rules: sudo -l -U NAME. If sudo does not read /etc/sudoers.d, add this line at the "
    "end of /etc/sudoers: @includedir /etc/sudoers.d")
REDIRECT_WITHOUT_USER = define("redirect-without-user",
    "RedirectRoot=yes has no user to redirect to: no other user of Users= has the launch keys.",
    "Name another user in Users=, or see above why that user did not get them.")
KEY_LEFT_IN_PLACE = define("key-left-in-place",
    "The key is still in a line that firstkey did not write, or that was changed since.",
    "If the key is not needed any more, remove the line by hand.")

# --- host keys --------------------------------------------------------------------------------

SSHD_MISSING = define("sshd-missing",
    "sshd is not installed; OpenSSH's defaults are assumed.",
    "Install it: apt-get install openssh-server, or dnf install openssh-server")
SSHD_CONFIG_INVALID = define("sshd-config-invalid",
    "sshd rejects its configuration; OpenSSH's defaults are assumed. sshd does not start like this.",
    "Show the mistake: sshd -t")
KEYGEN_MISSING = define("keygen-missing",
    "ssh-keygen is not installed.",
    "Install it: apt-get install openssh-client, or dnf install openssh")
KEYGEN_REFUSED = define("keygen-refused",
    "The system's ssh-keygen does not generate keys of this type (FIPS mode refuses ed25519).",
    "Nothing, if another type was generated; otherwise name the types in [HostKeys] Types=.")
KEYGEN_FAILED = define("keygen-failed",
    "ssh-keygen failed.",
    "See its message in the detail; run it by hand: ssh-keygen -A")
HOST_KEY_BROKEN = define("host-key-broken",
    "The host key cannot be loaded (a power cut leaves such files); it was backed up and regenerated.",
    "Nothing; clients that knew the old key will warn. The backup is beside the new key.")
HOST_KEY_TOO_SMALL = define("host-key-too-small",
    "sshd loads no RSA key of that size (RequiredRSASize); a larger one was generated.",
    "Nothing; clients that knew the old key will warn. A backup of it is beside the new key.")
HOST_KEY_PENDING = define("host-key-pending",
    "The host key is being generated in the background; sshd runs without it (Background= in [HostKeys]).",
    "Nothing; it follows in seconds. See: firstkey status")
HOST_KEY_NOT_LOADED = define("host-key-not-loaded",
    "A running sshd has not loaded a new host key, and was not asked to.",
    "Reload sshd: systemctl reload ssh, or systemctl reload sshd")
HOST_KEY_ENCRYPTED = define("host-key-encrypted",
    "The host key is protected by a passphrase, so sshd cannot load it by itself.",
    "Remove the passphrase with: ssh-keygen -p -f FILE, or remove the HostKey line.")
HOST_KEY_CLONED = define("host-key-cloned",
    "The host key belongs to another instance: it came with the image.",
    "Nothing; it was replaced. Seal images before you share them: firstkey seal")
HOST_KEY_FOREIGN = define("host-key-foreign",
    "The host key may be older than this instance; then other instances may have it too.",
    "On this instance: remove the file, run firstkey host-keys, and reload sshd. For new instances, set "
    "Regenerate=new-instance in [HostKeys] of the image.")
HOST_KEY_TYPE_UNKNOWN = define("host-key-type-unknown",
    "The file's name does not show the type of the host key, or this system's OpenSSH does not know it.",
    "Name the file like ssh_host_ed25519_key, or generate the key by hand: ssh-keygen -t TYPE -f FILE")
HOST_KEY_TYPE_OBSOLETE = define("host-key-type-obsolete",
    "The HostKey line names a DSA key, which OpenSSH has not offered since its release 7.0.",
    "Remove the HostKey line from sshd_config.")
HOST_KEY_IN_AGENT = define("host-key-in-agent",
    "sshd gets the private half from an agent (HostKeyAgent), or HostKey names a public key.",
    "Nothing, if this is intended; otherwise name the private half's file in sshd_config.")
REGENERATION_OFF = define("regeneration-off",
    "Regenerate= in [HostKeys] does not allow this key to be generated or replaced.",
    "Set Regenerate=clones, or generate the key by hand: ssh-keygen -A")

# --- firstkey itself --------------------------------------------------------------------------

NEEDS_ROOT = define("needs-root",
    "The command needs root.",
    "Run it again with sudo, or on a tree of your own with --root DIR.")
BAD_USAGE = define("bad-usage",
    "The command line has a mistake.",
    "See: firstkey COMMAND --help")
CONFIG_INVALID = define("config-invalid",
    "The configuration has a mistake; the default is used in its place.",
    "Correct the line that is named; check with: firstkey config --check")
LEDGER_DAMAGED = define("ledger-damaged",
    "The ledger cannot be trusted (damaged, or not root's own); it was moved away, and revokes no key.",
    "Look through the authorized_keys files for launch keys of earlier instances by hand.")
ALREADY_RUNNING = define("already-running",
    "Another firstkey is at work on the same system.",
    "Wait for it to end; see: systemctl status firstkey")
DISABLED = define("disabled",
    "firstkey is switched off, by firstkey=off on the kernel command line or by /etc/firstkey/disabled.",
    "Remove the switch that is named.")
DEPENDENCY_MISSING = define("dependency-missing",
    "A Python package that the command needs is not installed.",
    "Install the package that is named.")
CONSOLE_FAILED = define("console-failed",
    "firstkey could not write to the console; all other work is done.",
    "Nothing, if the instance has no console; otherwise look at /dev/console.")
INTERNAL_ERROR = define("internal-error",
    "firstkey failed by a fault of its own.",
    "Please report it, with the output of: firstkey run -v")

# fmt: on

# --- as exceptions: raised anywhere, printed in `cli` alone; third parties' are translated at their door


class FirstkeyError(Exception):
    """Something could not be done.

    `message` says what was being done to what, and why it failed; `reason` is the published
    code; `hint` is what to do next (by default the reason's own remedy).
    """

    exit_status = 1

    def __init__(self, message: str, *, reason: Reason, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint or reason.remedy

    @property
    def refusal(self) -> Refusal:
        """The same as a value, for results that stand beside others that went well."""
        return Refusal(self.reason, self.message)


class UsageError(FirstkeyError):
    """The command line asks for something that cannot be."""

    exit_status = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, reason=BAD_USAGE, hint=hint)


class Unreachable(FirstkeyError):  # noqa: N818 - an answer to "when": not now
    """The metadata service gave no answer in time (sysexits.h: EX_TEMPFAIL)."""

    exit_status = 75


class Retriable(Unreachable):
    """No answer this time; one may come if the same is asked again."""


class NoAnswer(Retriable):
    """The connection was accepted, and the request stayed unanswered until its time was over."""


class NeedsRoot(FirstkeyError):  # noqa: N818 - what is missing, as the reason code has it
    """Only root may do this (sysexits.h: EX_NOPERM)."""

    exit_status = 77

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=NEEDS_ROOT)


class ConfigError(FirstkeyError):
    """The configuration is wrong and was asked to be right (sysexits.h: EX_CONFIG)."""

    exit_status = 78

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, reason=CONFIG_INVALID, hint=hint)


def as_plain(error: Exception) -> dict[str, str]:
    """The error as it goes from one process to another; one that was not foreseen becomes an internal one."""
    if not isinstance(error, FirstkeyError):
        from traceback import walk_tb  # rarely needed

        *_, (frame, line) = walk_tb(error.__traceback__)
        error = FirstkeyError(f"{error!r} in {frame.f_code.co_filename}:{line}", reason=INTERNAL_ERROR)
    kind = next(base for base in type(error).__mro__ if base.__module__ == __name__)
    return {"kind": kind.__name__, "code": error.reason.code, "message": error.message, "hint": error.hint}


def from_plain(said: object) -> FirstkeyError:
    """The error again, as far as what was said is one: the other process may have been taken over."""
    items = said.items() if isinstance(said, dict) else ()
    words = {name: word for name, word in items if isinstance(word, str)}
    kind = globals().get(words.get("kind", ""))
    is_one = isinstance(kind, type) and issubclass(kind, FirstkeyError)
    error: FirstkeyError = BaseException.__new__(kind if is_one else FirstkeyError)  # type: ignore[arg-type]
    message = words.get("message", "the other process did not say why it failed")
    reason = ALL.get(words.get("code", ""), INTERNAL_ERROR)
    FirstkeyError.__init__(error, message, reason=reason, hint=words.get("hint"))
    return error
