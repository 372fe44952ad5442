"""The catalogue of events: everything that firstkey says, each with an identity that never changes.

An event's MESSAGE_ID and name are a published format: programs match on them, and the journal's
catalogue (`systemd/firstkey.catalog`, shown by `journalctl -x`) explains each with its cause and
remedy. New identities come from `systemd-id128 new`.
"""

from __future__ import annotations

from functools import partial

from firstkey import NamedTuple, reasons
from firstkey.text import visible

# The levels of syslog(3), which the journal and sd-daemon(3) share.
ERR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7

FIELD_LIMIT = 512
"""Characters of a field that are kept: an error page in an answer must not become the log."""


class Entry(NamedTuple):
    """One thing that happened: the event, and the fields that tell it from others of its kind.

    Made by calling an event, so that no field is missing and none can forge a line or move a cursor.
    """

    event: Event
    fields: dict[str, str]

    @property
    def sentence(self) -> str:
        """What happened, on one line."""
        return self.event.template.format_map(self.fields).rstrip()

    @property
    def remedy(self) -> str | None:
        """What to do next, where something went wrong."""
        return self.fields.get("remedy") if self.event.priority <= WARNING else None

    @property
    def message(self) -> str:
        """The sentence, with what to do next where something went wrong."""
        return f"{self.sentence} What to do: {self.remedy}" if self.remedy else self.sentence


class Event(NamedTuple):
    """One kind of thing that happens."""

    name: str
    """For programs and documentation, like `key-added`."""
    message_id: str
    """32 hexadecimal digits (systemd.journal-fields(7), MESSAGE_ID=)."""
    priority: int
    """0 to 7, as in syslog(3)."""
    template: str
    """A sentence whose {fields} become journal fields as well: FIRSTKEY_ and the name in capitals."""

    def __call__(self, **fields: object) -> Entry:
        """The entry for one happening; raises TypeError where a field of the sentence is missing.

        More fields than the sentence has are welcome: the journal gets them. The remedy comes with
        a reason code that is on the published list (`firstkey.reasons`), unless another is given.
        """
        shown = {name: _field(value) for name, value in fields.items()}
        reason = reasons.ALL.get(shown.get("reason", ""))
        if reason:
            shown.setdefault("remedy", reason.remedy)
        try:
            self.template.format_map(shown)
        except KeyError as missing:
            raise TypeError(f"the event {self.name} needs the field {missing}") from None
        return Entry(self, shown)


def _field(value: object) -> str:
    """The value as one short line; it says where it was cut."""
    text = str(value)
    return visible(text if len(text) <= FIELD_LIMIT else f"{text[: FIELD_LIMIT - 1]}…")


ALL: dict[str, Event] = {}


def _event(priority: int, name: str, message_id: str, template: str) -> Event:
    ALL[name] = Event(name, message_id, priority, template)
    return ALL[name]


_error = partial(_event, ERR)
_warning = partial(_event, WARNING)
_notice = partial(_event, NOTICE)  # what changes who is trusted
_info = partial(_event, INFO)
_debug = partial(_event, DEBUG)

# One event reads best as one short paragraph, which the formatter would tear into six lines.
# fmt: off

# --- the run ------------------------------------------------------------------------------------
STARTED = _info("started", "9aee9c799c484c2aada8a1c723a3f239",
    "firstkey {version} started: {command}.")
FINISHED = _info("finished", "e2d1f2a2b440425f8c8928164bf44b78",
    "Finished with outcome {outcome}: {summary}.")
DRY_RUN = _info("dry-run", "40852709001f45f79cb00a6c9b583658",
    "This is a dry run: the following changes are shown, and none is made.")
DISABLED = _notice("disabled", "5c8fd22e42d445e19e21808c4b8c6807",
    "firstkey is switched off ({detail}); it checked neither launch keys nor host keys.")
BOX_INCOMPLETE = _notice("box-incomplete", "66b28d8d25094c4681365c40ea2300be",
    "The process that reads the tree has a weaker sandbox than usual: it goes without {detail}.")
CLOUD_INIT_BESIDE = _info("cloud-init-beside", "24623fc3316b42328a14481813c16e1e",
    "cloud-init is enabled here too ({detail}): it goes first, and firstkey adds missing keys after it.")
ALREADY_RUNNING = _warning("already-running", "c9c324d06f824ac9b533193e3b8e5ed0",
    "Another firstkey is at work on this system; this one waits for it.")
CONFIG_WARNING = _warning("config-warning", "6abbe5aabed14f95b470d503b0596379",
    "{place}: {detail} ({reason}).")
STOPPING = _info("stopping", "60f7cf3d6c6c4c8bbf14cbcab4ca8d89",
    "Stopping: {detail}.")
STATE_NOT_SAVED = _warning("state-not-saved", "da102b92d29f404eae5a9c7308b51710",
    "{file} could not be written: {detail} ({reason}).")
LEDGER_DAMAGED = _warning("ledger-damaged", "3ea8432e6ff04c60bf2ac6d9f248f993",
    "The ledger {file} cannot be trusted and was moved away, so no key is revoked by it: {detail}.")
RUN_FAILED = _error("run-failed", "4c32c684950247efa1bc65a66fff2f22",
    "The run could not be done: {detail} ({reason}).")
INTERNAL_ERROR = _error("internal-error", "579e30cddeeb4066ae80fcb47bf9f521",
    "firstkey failed by a fault of its own: {detail}.")

# --- which instance this is, and its metadata service -------------------------------------------
FIRMWARE = _info("firmware", "1a39f29e7eff4ad1a0c528133d32c064",
    "The name of the platform, by its firmware: {claim}.")
FIRMWARE_SKIP = _info("firmware-skip", "832c5d208c3849f6ac1f761093c8ee07",
    "The firmware says that this is still {instance_id}, whose keys are up to date: no request was sent.")
FIRMWARE_DISAGREES = _warning("firmware-disagrees", "c124472151894611b01436ecc554868b",
    "The metadata service says that this is {service}, the firmware says {firmware} ({reason}).")
OTHER_PLATFORM = _notice("other-platform", "10314b66e3da41d88423cd050fe1d72f",
    "The firmware says that this is {claim}, not EC2: sshd waits for no metadata service, unless "
    "Endpoints= names one ({reason}).")
IMDS_ANSWER = _info("imds-answer", "771b734448964eb98ce570c86d8e9eaa",
    "{endpoint} answered with IMDSv{version}: this is {instance_id}.")
IMDS_REQUEST = _debug("imds-request", "e115de09f7554a4eb401ced9118f2804",
    "{request} was answered with {status} in {seconds} s.")
IMDS_RETRY = _debug("imds-retry", "a447cd73e21a44ba9296861b705bfd95",
    "{endpoint} gave no usable answer ({detail}); firstkey tries again in {pause} s.")
IMDS_FALLBACK = _warning("imds-fallback", "08d93dc33619481c8ef4a1a1f93f7f17",
    "{endpoint} gave no token, so firstkey sends requests without one (IMDSv1): {detail} ({reason}).")
IMDS_FAILED = _error("imds-failed", "710cb71656a04592ab9bc1cb77ab9734",
    "The metadata service gave no usable answer: {detail} ({reason}).")
IMDS_UNREACHABLE_AT_DEADLINE = _warning("imds-unreachable-at-deadline", "bf44f17ec81d4fb5a24a2996604ec270",
    "The metadata service gave no usable answer in {seconds} s: the boot goes on, and firstkey asks again."
    " {detail}")
IMDS_LATE_ANSWER = _notice("imds-late-answer", "ea1b17993aef4649901a6536ae758067",
    "The metadata service answered after {seconds} s, later than the boot deadline.")
NEW_INSTANCE = _notice("new-instance", "9a40aee870e2485d9d7a57492df565d6",
    "This is a new instance: {new} now, {old} before. Keys of the earlier one are revoked, as configured.")

# --- images -------------------------------------------------------------------------------------
SEALED = _notice("sealed", "59d28d97996b49179f63ee1e2f3122b9",
    "{root} was sealed: {summary}.")

# --- launch keys --------------------------------------------------------------------------------
KEY_ADDED = _notice("key-added", "d54c009d3b114cc9abb982ee3528482e",
    "Launch key {fingerprint} ({key_name}) was added to {file} of {user}.")
KEY_REDIRECTS = _notice("key-redirects", "36a6d4643eb04f6abfeb5b36043250a4",
    "Launch key {fingerprint} ({key_name}) was added to {file}: it gives {user} no shell, and names the user "
    "to log in as.")
KEY_PRESENT = _info("key-present", "ef05096089a648d9bee6ddd2afa70d77",
    "Launch key {fingerprint} ({key_name}) is in {file} of {user} already.")
KEY_RESTRICTED = _notice("key-restricted", "cf83f60cfefb48f89ef0ed35c3d3320b",
    "Launch key {fingerprint} ({key_name}) is in {file} of {user} already, restricted: {options}.")
KEY_LINE_IGNORED = _warning("key-line-ignored", "5f7ce85adaa5416fb636a1cac0314153",
    "sshd ignores the line of launch key {fingerprint} ({key_name}) in {file} of {user}, for its options"
    " {options} ({reason}).")
KEY_REVOKED = _notice("key-revoked", "03ba5e0f693b49dfac9236d11cd0d1e4",
    "Launch key {fingerprint} of the earlier instance {instance} was revoked: removed from {file} of {user}.")
KEY_LEFT_IN_PLACE = _warning("key-left-in-place", "e3fb47a1f8de4ad3bd95114c7423f353",
    "Launch key {fingerprint} of the earlier instance {instance} stays in {file} of {user}, in a line that"
    " firstkey did not write, or that was changed since ({reason}).")
KEY_REFUSED = _warning("key-refused", "472f3878ad534aada48dbee16ef57814",
    "Launch key {index} was refused: {detail} ({reason}).")
NO_KEY_PAIR = _notice("no-key-pair", "3c03f066ea4e48a284a2aa2542a56e91",
    "The instance was launched without a key pair: there is no launch key to install.")
REDIRECT_IMPOSSIBLE = _warning("redirect-impossible", "200a25d904874df49ac2be3c70df5f6d",
    "RedirectRoot=yes is not applied, since no other user has the launch keys ({reason}).")
SSHD_DEFAULTS_ASSUMED = _warning("sshd-defaults-assumed", "6c2d59c87a1e47c7b8b619f1c61ba260",
    "sshd could not be asked for its files of keys, so OpenSSH's defaults are used: {detail} ({reason}).")

# --- users and their files ----------------------------------------------------------------------
USER_FAILED = _error("user-failed", "64a51c7d18654416a521adb7677da21f",
    "{user} did not get the launch keys: {detail} ({reason}).")
FILE_COVERED = _warning("file-covered", "907469bed9d4471eb4ba0c719e807e0e",
    "{file} of {user} is in use until a mount covers it; firstkey then writes it again: {detail} ({reason}).")
FILE_NOT_READ = _warning("file-not-read", "034fc53b0c864e83afbffad5b7fe4666",
    "The launch keys of {user} are in {file}, which sshd does not read: {detail} ({reason}).")
LOGIN_REFUSED = _warning("login-refused", "4b6bd90b37fb4a6b975d6293e5c7f152",
    "The launch keys of {user} are in {file}, but sshd refuses this user: {detail} ({reason}).")
ACCOUNT_FAILED = _error("account-failed", "7812c612e81a4a2da227427836fbf8ec",
    "The account {user} could not be set up as its section says: {detail} ({reason}).")
GROUP_MISSING = _warning("group-missing", "c6d0119b385d474180eaa05ce800f691",
    "{user} was not added to a group of its section: {detail} ({reason}).")
REVOKE_FAILED = _error("revoke-failed", "0addc550860a485c99e0605bccaa6972",
    "An earlier instance's launch keys could not be removed from {file} of {user}: {detail} ({reason}).")
USER_CREATED = _notice("user-created", "260b2146ff0b47f1ba5827aeb81ef123",
    "The user {user} was created.")
USER_COMPLETED = _notice("user-completed", "1f74dc24ae1147d28f82b7d86ddfa067",
    "Missing parts of the account {user} were created, as by: {programs}")
USER_CHANGED = _notice("user-changed", "b1ef203c1268436080c75f4f435ecf2b",
    "The user {user} was added to the groups {groups}.")
SUDOERS_WRITTEN = _notice("sudoers-written", "8450c8a9f3894816ad67511a6d957d5e",
    "{file} now lets {user} use sudo.")
MODES_REPAIRED = _notice("modes-repaired", "6d7d2420b2c04833bd33761612ea98e3",
    "{path} had a mode or owner for which sshd ignores the keys; it was repaired: {old} became {new}.")
MODES_REPORTED = _warning("modes-reported", "891c15f1e233467da61090bc610567a1",
    "sshd ignores the keys of {user} for the mode or owner of {detail} ({reason}).")

# --- host keys ----------------------------------------------------------------------------------
HOST_KEY_MADE = _notice("host-key-made", "13625825d5064ed6845b66b21090a99c",
    "Host key {fingerprint} ({type}) was generated: {file}.")
HOST_KEY_REPLACED = _warning("host-key-replaced", "0545f279aae140449c766850c821402e",
    "HOST KEY REPLACED: {file} ({type}) was {old} and is now {new} ({reason}).")
HOST_KEY_SET_ASIDE = _warning("host-key-set-aside", "58ec136b541e498aaf49325da9c3c546",
    "{file} is no usable host key and was moved to {backup} ({reason}).")
HOST_KEY_PUBLIC_DERIVED = _notice("host-key-public-derived", "5d8537f533e049adb1f61974bd402554",
    "The public half of {file} was missing and was derived again: {fingerprint}.")
HOST_KEY_MODE_REPAIRED = _notice("host-key-mode-repaired", "21761d3488134d29b5d901d2da07da37",
    "{file} had a mode or an owner that no private host key may have; it was repaired, for root alone.")
HOST_KEY_SKIPPED = _info("host-key-skipped", "a0d7387305d14e0c9766dc3d8472e92e",
    "No {type} host key was generated: {detail} ({reason}).")
HOST_KEY_PENDING = _info("host-key-pending", "97ad33d83d1e4cc29356d2661bdf97c1",
    "The {type} host key is being generated in the background; sshd does not wait for it: {file} ({reason}).")
SSHD_RELOADED = _notice("sshd-reloaded", "d3a9066a06c243b1bd2513fb9987e25c",
    "{unit} was asked to reload, to load new host keys: {files}.")
HOST_KEY_NOT_LOADED = _warning("host-key-not-loaded", "8be4139e881b4beca6a0e86b1ceff12e",
    "{sshd} runs without new host keys: {files}. {detail} ({reason}).")
HOST_KEY_FAILED = _error("host-key-failed", "56af7a58435f4304877928ceb297ccb2",
    "The {type} host key {file} could not be generated: {detail} ({reason}).")
HOST_KEY_FOREIGN = _warning("host-key-foreign", "cc9f38d62e3a4f9a931b56ef9071dcd4",
    "{file} ({type}, {fingerprint}) may have come with the image: other instances have it then ({reason}).")
CONSOLE_WRITTEN = _debug("console-written", "6326740e8b4a4ebba1ddc4250bf531fd",
    "The host keys' fingerprints were written to {path}.")
CONSOLE_FAILED = _warning("console-failed", "192b7446900e49ee996c035dc81d929c",
    "The host keys' fingerprints could not be written to the console: {detail} ({reason}).")
