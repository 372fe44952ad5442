"""The files of host keys: look at them, make new ones, put these in place, repair what only needs that.

Every key is looked at on every boot: a power cut after key generation leaves empty or torn files. A pair
whose digest the ledger knows was found good before; only others are put to OpenSSH's own programs.

The order is: make the keys where no other user can see them, write the ledger, put them in place. So a key
that sshd could ever show is one that the ledger knows as firstkey's own, whenever the power goes. Each half
gets its place in one instant, and at no instant do halves of different keys stand side by side.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, nullcontext, suppress
from functools import cached_property

from firstkey import TYPE_CHECKING, reasons
from firstkey.boot import host_keys
from firstkey.boot.host_keys import HostKey, Now
from firstkey.boot.ledger import SEALED_ORIGIN, Ledger, MadeHostKey, load_sealed
from firstkey.model import CHANGED, UNCHANGED
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key
from firstkey.system import command
from firstkey.system.files import Looks
from firstkey.system.sshd import ask_keygen, keygen, knows_key, public_half
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.target import Target
    from firstkey.model import HostKeyResult
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Outcome
    from firstkey.system.files import Directory, File
    from firstkey.system.sshd import Sshd

LIMIT = 64 * 1024  # bytes a file; an RSA key of 16384 bits takes a fifth of that
PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o644
KEY_GROUP, GROUP_MODE = "ssh_keys", 0o640
RUN_DIRECTORY = "/run/firstkey"
BACKGROUND_SECONDS = 300.0
"""How long a key may take that is made when nothing else wants the processor."""

KINDS = ("rsa", "ecdsa", "ed25519")
"""The types of host keys that every OpenSSH of today has; a newer one may have more."""
DEFAULT_RSA_BITS = 3072

_UNSAVED = b"(?m)^(Saving key|Unable to save) "
"""How ssh-keygen says that a key was made, but found no room or a broken disk."""


# --- look -----------------------------------------------------------------------------------------


def survey(
    target: Target, sshd: Sshd, files: Sequence[str], ledger: Ledger, instance: str | None
) -> tuple[list[HostKey], Ledger]:
    """Look at every wanted host key and decide; the ledger then knows those that stay.

    `files` are sshd's HostKey files.
    """
    is_known = ledger.instance is not None and instance in (None, ledger.instance)
    now = Now(instance, target.boot_id(), is_known, target.firmware_instance(), target.cloud_init_began())
    removed = load_sealed(target.tree)
    keys: dict[str, HostKey] = {}
    for file, is_asked_for in host_keys.wanted(target.config.host_keys, files).items():
        try:
            key = inspect(target, sshd, file, ledger)
            if key.public and removed.knows(key.public.blob, instance):
                # `firstkey seal` took it out of an image, and it is there again: not this instance's own.
                mark = (file, key.public.fingerprint, key.digest, SEALED_ORIGIN, None)
                key.remembered = MadeHostKey(*mark, made=True)
            host_keys.decide(key, target.config.host_keys, now)
        except FirstkeyError as error:
            is_denied = error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0
            key = HostKey(file)
            key.failure = Refusal(reasons.NEEDS_ROOT if is_denied else error.reason, error.message)
        if is_asked_for or key.is_anothers:
            # Two HostKey lines may lead to one file, through a link.
            keys.setdefault(key.place or file, key)
    return list(keys.values()), host_keys.remembered(ledger, list(keys.values()), now)


def inspect(target: Target, sshd: Sshd, file: str, ledger: Ledger | None = None) -> HostKey:
    """Look at one host key; its files are only read. Raises FirstkeyError where that is impossible.

    `ledger` knows which keys were good already, under sshd's configuration as it is.
    """
    key, ledger = HostKey(file), ledger or Ledger()
    key.place, private = ("", None) if file.endswith(".pub") else _half(target.tree, file)
    if private is None:
        has_agent = file.endswith(".pub") or sshd.meaning("root").effective.has_host_key_agent
        key.condition = host_keys.IN_AGENT if has_agent else host_keys.MISSING
        return key
    _, half = _half(target.tree, f"{file}.pub")
    public = half.content if half else b""
    said = _parsed(public)
    # Its mode and owner, and the group where the mode lets it in.
    looks = (private.mode, private.uid, private.gid if private.mode & 0o070 else 0)
    key.digest, key.modified_ns = digest_of(private.content, public, looks), private.modified_ns
    key.remembered = ledger.host_key_at(file)
    if said and key.remembered and key.remembered.digest == key.digest:
        key.condition, key.public = host_keys.GOOD, said
        return key
    line, is_encrypted = public_half(private.content)
    key.public = derived = _parsed(line)
    if derived is None:
        others = host_keys.BROKEN if not said or knows_key(public) else host_keys.UNKNOWN_TYPE
        key.condition = host_keys.ENCRYPTED if is_encrypted else others
        return key
    if derived.type == "ssh-rsa" and derived.bits < sshd.meaning("root").effective.least_rsa_bits:
        key.condition = host_keys.TOO_SMALL
    elif said is None:
        key.condition = host_keys.NO_PUBLIC_HALF
        public = f"{derived.line}\n".encode("utf-8", "surrogateescape")
    else:
        key.condition = host_keys.GOOD if said.blob == derived.blob else host_keys.MISMATCHED
    # OpenSSH reads no key of its own that others can read, but Fedora's OpenSSH lets the group ssh_keys.
    lent = _lent(target, private.content) if private.mode & 0o077 == 0o040 else None
    is_lent = lent is not None and lent.owner == (private.uid, private.gid)
    key.is_loose = (os.geteuid() == 0 and private.uid != 0) or bool(private.mode & 0o077 and not is_lent)
    if key.is_loose:
        looks = (PRIVATE_MODE, os.geteuid(), 0)
    key.digest = digest_of(private.content, public, looks)
    key.remembered = ledger.host_key(derived.fingerprint)
    return key


def _half(tree: Tree, path: str) -> tuple[str, File | None]:
    """Where `path` leads, and what is there. Each half has its own way: either may be a link."""
    place, above = tree.locate(path)
    with above or nullcontext() as directory:
        return place, directory.read(os.path.basename(place), limit=LIMIT) if directory else None


def _lent(target: Target, private: bytes) -> Looks | None:
    """0640 for the group ssh_keys, where there is one and OpenSSH takes such a key: it is given a copy.

    What it takes beside 0600 changed several times with OpenSSH's versions.
    """
    if (group := target.accounts.group_id(KEY_GROUP)) is None:
        return None
    looks = Looks(GROUP_MODE, (os.geteuid(), group))
    if not command.ask_watcher:  # a boxed process can give no copy to the group
        with command.scratch_directory() as workshop:
            workshop.replace("judged", private, looks._replace(durable=False))
            if ask_keygen("-y", "-P", "", "-f", f"{workshop.on_host}/judged").status:
                return None
    return looks


def digest_of(private: bytes, public: bytes, looks: tuple[int, int, int]) -> str:
    """A hash that no other pair has, nor this one once it is damaged or others can get at it.

    It gives away nothing of the key. `looks` are the private half's mode, owner and group.
    """
    whole = b"%d %o %d %d\n%b%b" % (len(private), *looks, private, public)
    return str(public_key.sha256(whole).hexdigest())


def _parsed(content: bytes) -> PublicKey | None:
    """The first public key in the file, as sshd reads one (authfile.c: sshkey_load_public)."""
    keys = (public_key.read_host_key(line.strip(b" \t\r")) for line in content.split(b"\n"))
    return next((key for key in keys if key), None)


# --- make -----------------------------------------------------------------------------------------


class Generation:
    """The host keys of one run, while it lasts. Leaving the `with` block ends and removes what is unfinished.

    They are made in a directory of /run, for root alone: it is in memory, is gone with the boot, and no
    owner of a directory that HostKey names can lead ssh-keygen, which takes paths, anywhere else.
    `in_background`: sshd need not wait for the types that Background= names.
    """

    def __init__(self, target: Target, sshd: Sshd, *, in_background: bool) -> None:
        self._target = target
        self._sshd = sshd
        self._background = target.config.host_keys.background if in_background and not target.dry_run else ()
        self._keys: dict[str, HostKey] = {}
        self._undo = ExitStack()
        self._looks: Looks | None = None
        self.began: float | None = None
        """When (time.monotonic) keys began to be made, beside everything else; None where none is."""
        self.changed: dict[str, float] = {}
        """Since when (time.monotonic) sshd could load another key than before, by file."""

    def __enter__(self) -> Generation:  # noqa: PYI034 - Self came with Python 3.11
        if not self._target.dry_run and (run := self._target.tree.open(RUN_DIRECTORY)):
            with run:
                # The workshop of a run that was killed: there are private keys in it.
                run.remove_stale(directories=True)
        return self

    def __exit__(self, *_: object) -> None:
        for key in self._keys.values():
            if key.process:
                key.process.kill()
        # What stays is removed by the next run, and no reason to go without launch keys.
        with suppress(FirstkeyError):
            self._undo.close()

    @property
    def has_ended(self) -> bool:
        """Whether no key is being made any more: all can be put in place at once."""
        return all(key.process.end for key in self._keys.values() if key.process)

    @property
    def is_pending(self) -> bool:
        """Whether keys are still being made that sshd does not wait for."""
        return any(key.is_later for key in self._keys.values())

    def begin(self, keys: Sequence[HostKey]) -> None:
        """Begin to make all keys that are to be made. A second look counts only for whose a key is."""
        begun = []
        for key in keys:
            before = self._keys.get(key.file)
            is_news = key.is_anothers or (key.action == host_keys.KEEP and key.why)
            if not before or (is_news and not before.process):
                self._keys[key.file] = key
                begun.append(key)
        later = host_keys.for_later(self._keys.values(), self._background)
        for key in begun:
            if key.file in later:
                detail = f"{key.file} is being generated in the background"
                key.is_later, key.failure = True, Refusal(reasons.HOST_KEY_PENDING, detail)
            if key.action == host_keys.MAKE and not self._target.dry_run:
                self._start(key)

    def _start(self, key: HostKey) -> None:
        """Start making it, of ssh-keygen's default size, or a larger one if sshd asks for that."""
        self.began = self.began or time.monotonic()
        try:
            key.name, kind = f".firstkey-key.{os.urandom(4).hex()}", str(key.type)
            bits = self._sshd.meaning("root").effective.least_rsa_bits if kind == "rsa" else 0
            size = ["-b", str(bits)] if bits > DEFAULT_RSA_BITS else []
            # OpenSSH's own names have hyphens where those of its files have underscores.
            argv = [keygen(), "-q", "-t", kind.replace("_", "-"), *size, "-N", "", "-C", "root"]
            argv += ["-f", f"{self._workshop.on_host}/{key.name}"]
            key.process = command.start(argv, before=_step_back if key.is_later else None)
        except FirstkeyError as error:
            key.failure, key.is_later = error.refusal, False

    @cached_property
    def _workshop(self) -> Directory:
        """The private directory in which keys are made."""
        run = self._undo.enter_context(self._target.tree.ensure(RUN_DIRECTORY, mode=0o755))
        name = self._undo.enter_context(run.temporary("hostkeys", directory=True))
        return self._undo.enter_context(run.make(name, Looks(0o700)))

    def finish(self, *, is_last: bool = False) -> list[HostKey]:
        """Wait for the keys that sshd has to wait for, at last for all. Returns those of which there is news.

        Where none of the others is one that sshd would show to any client, it has to wait for all.
        """
        keys = list(self._keys.values())
        if not is_last:
            waited_for = [key for key in keys if not key.is_later]
            self._collect(waited_for, command.SECONDS)
            shows = self._sshd.meaning("root").effective.shows if self.is_pending else None
            is_last = not (shows and any(key.shown and shows(key.shown.type) for key in waited_for))
        if is_last:
            # Begun with what the rest of the boot leaves, it may take longer. The boot has its own deadline.
            self._collect(keys, BACKGROUND_SECONDS)
        return [key for key in keys if key.is_news]

    def _collect(self, keys: Sequence[HostKey], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for key in keys:
            if key.process is None:
                continue
            key.failure = None
            try:
                # One that has ended is collected, though no time may be left when its turn comes.
                self._take(key, key.process.finish(seconds=max(0.0, deadline - time.monotonic())))
            except FirstkeyError as error:
                key.failure = error.refusal
            key.process, key.is_later, key.is_news = None, False, True

    def _take(self, key: HostKey, outcome: Outcome) -> None:
        """Take the new pair. Raises FirstkeyError where there is none, or none that can be believed."""
        kind = str(key.type)
        private, line = (b"", b"") if outcome.status else _read(self._workshop, key.name)
        if outcome.status > 0 and kind not in KINDS:
            private, line = self._default_of_openssh(kind, f"{key.name}.all")
        public = _parsed(line)
        if not private or public is None:
            is_refused = outcome.status > 0 and not re.search(_UNSAVED, outcome.stderr)
            reason = reasons.KEYGEN_REFUSED if is_refused else reasons.KEYGEN_FAILED
            raise FirstkeyError(f"ssh-keygen makes no {kind} key: {outcome.words}", reason=reason)
        if key.condition == host_keys.BROKEN:
            # An ssh-keygen that cannot load its own key is no judge of the old one, which then stays.
            derived = _parsed(public_half(private)[0])
            if derived is None or derived.blob != public.blob:
                message = f"ssh-keygen cannot load the key that it has made, so {key.file} was left alone"
                raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        lent = self._looks or (_lent(self._target, private) if os.geteuid() == 0 else None)
        self._looks = lent or Looks(PRIVATE_MODE)
        digest = digest_of(private, line, (self._looks.mode, *(self._looks.owner or (os.geteuid(), 0))))
        key.remembered = MadeHostKey(key.file, public.fingerprint, digest, None, None, made=True)
        key.made, key.pair = public, (private, line, self._looks)

    def _default_of_openssh(self, kind: str, name: str) -> tuple[bytes, bytes]:
        """The key of a type that is known by its file alone, where it is one of `ssh-keygen -A`."""
        top = f"{self._workshop.on_host}/{name}"
        with Tree("/") as host, host.ensure(f"{top}/etc/ssh", mode=0o700) as directory:
            for known in KINDS:  # what is there is not made again
                directory.replace(f"ssh_host_{known}_key", b"-", Looks(0o600, durable=False))
            ask_keygen("-A", "-f", top)
            return _read(directory, f"ssh_host_{kind}_key")

    # --- put in place -------------------------------------------------------------------------------

    def publish(self, keys: Sequence[HostKey]) -> None:
        """Put the new pairs in place, and repair what only needs that."""
        for key in keys:
            key.is_news = False
            try:
                if not self._target.dry_run and self._carry_out(key):
                    self.changed[key.file] = time.monotonic()
            except FirstkeyError as error:
                key.failure, key.made = error.refusal, None  # one that fails does not stop the others

    def _carry_out(self, key: HostKey) -> bool:
        """Do what is to be done now, if anything. Returns whether sshd could load another key than before."""
        (pair, key.pair), tree = (key.pair, None), self._target.tree
        if pair and tree.exists(key.file):
            found = inspect(self._target, self._sshd, key.file)
            was_there = found.public and key.public and found.public.blob == key.public.blob
            if found.condition == host_keys.GOOD and not was_there:
                # The distribution's own maker, which runs once sshd may start, was faster.
                key.condition, key.public, key.is_loose = found.condition, found.public, found.is_loose
                key.action, key.why, pair = host_keys.KEEP, None, None
        if pair:
            # The old public half goes first, the new one comes last: to sshd, a private half is a host key.
            is_kept = bool(key.why) and not key.is_anothers
            private, line, looks = pair
            key.backup = _clear(tree, key.file, keeps=True) if is_kept else None
            _clear(tree, f"{key.file}.pub", keeps=is_kept)
            _write(self._target, key.file, private, looks)
            _write(self._target, f"{key.file}.pub", line, Looks(PUBLIC_MODE))
            return True
        if "mode" in key.changes:
            directory, name = tree.place(key.file)
            with directory:
                directory.set_mode(name, PRIVATE_MODE, (0, 0) if os.geteuid() == 0 else None)
        if "public-half" in key.changes and key.public:
            line = f"{key.public.line}\n".encode("utf-8", "surrogateescape")
            _write(self._target, f"{key.file}.pub", line, Looks(PUBLIC_MODE))
        if key.is_later and key.is_anothers:
            # The private half last: while it is there, the next run sees it.
            _clear(tree, f"{key.file}.pub", keeps=False)
            _clear(tree, key.file, keeps=False)
            return True
        return key.action == host_keys.KEEP and bool(key.changes)

    def results(self) -> list[HostKeyResult]:
        """What became of each wanted host key so far; for a dry run, what would."""
        may_lack = (reasons.HOST_KEY_PENDING, reasons.KEYGEN_REFUSED)
        results = [key.result(*may_lack) for key in self._keys.values()]
        if any(result.result in (CHANGED, UNCHANGED) for result in results):
            return results
        # Where there is no host key at all, sshd does not start: then a refused type is a failure.
        return [key.result(reasons.HOST_KEY_PENDING) for key in self._keys.values()]


def _step_back() -> None:
    """In the new process: the rest of the boot goes first.

    sched(7): SCHED_IDLE takes what others leave. But where the kernel groups processes by session ("The
    autogroup feature"), as distributions' kernels do, that counts within the session alone. Beside other
    sessions the group's nice value does: 5 is a third of what another gets, and the key comes in seconds.
    """
    with suppress(OSError):  # a sandbox may forbid it: then the key is made all the same
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write("5")


def _read(directory: Directory, name: str) -> tuple[bytes, bytes]:
    private, public = (directory.read(f"{name}{suffix}", limit=LIMIT) for suffix in ("", ".pub"))
    return private.content if private else b"", public.content if public else b""


def _clear(tree: Tree, path: str, *, keeps: bool) -> str | None:
    """Out of the way with one half, for good or under another name, which is returned."""
    place, directory = tree.locate(path)
    if directory is None:
        return None
    with directory:
        name = os.path.basename(place)
        if not (keeps and directory.status(name)):
            directory.remove(name, durable=True)
            return None
        kept = directory.back_up(name, "broken")
        # Kept for a person to look at, as root alone: half a private key is still a secret.
        directory.set_mode(kept, PRIVATE_MODE)
        return directory.join(kept)


def _write(target: Target, path: str, content: bytes, looks: Looks) -> None:
    directory, name = target.tree.place(path)
    with directory:
        directory.remove_stale()
        label = command.selinux_label(target.tree, path, "file")
        directory.replace(name, content, looks._replace(label=label))
