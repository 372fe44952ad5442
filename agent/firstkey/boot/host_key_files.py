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
from contextlib import ExitStack, suppress
from functools import cached_property

from firstkey import TYPE_CHECKING, reasons
from firstkey.boot import host_keys
from firstkey.boot.host_keys import Attempt, HostKey, KeyPair, Now
from firstkey.boot.ledger import SEALED_ORIGIN, Ledger, MadeHostKey, load_sealed
from firstkey.model import CHANGED, UNCHANGED
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key
from firstkey.system import command
from firstkey.system.files import Looks
from firstkey.system.sshd import ask_keygen, keygen, knows_key, public_half

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.site import Site
    from firstkey.model import HostKeyResult
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Outcome
    from firstkey.system.files import Directory, File
    from firstkey.system.sshd import Sshd
    from firstkey.system.tree import Tree

LIMIT = 64 * 1024  # bytes a file; an RSA key of 16384 bits takes a fifth of that
PUBLIC_MODE = 0o644
RUN_DIRECTORY = "/run/firstkey"
BACKGROUND_SECONDS = 300.0
"""How long a key may take that is made when nothing else wants the processor."""

KINDS = ("rsa", "ecdsa", "ed25519")
"""The types of host keys that every OpenSSH of today has; a newer one may have more."""
DEFAULT_RSA_BITS = 3072

_UNSAVED = re.compile(rb"^(Saving key|Unable to save) ", re.MULTILINE)
"""How ssh-keygen says that a key was made, but found no room or a broken disk."""


# --- look -----------------------------------------------------------------------------------------


def survey(
    site: Site, sshd: Sshd, files: Sequence[str], ledger: Ledger, instance: str | None
) -> tuple[list[HostKey], Ledger]:
    """Look at every wanted host key and decide; the ledger then knows those that stay.

    `files` are sshd's HostKey files.
    """
    is_known = ledger.instance is not None and instance in (None, ledger.instance)
    now = Now(instance, site.boot_id(), is_known, site.cloud_init_began())
    removed = load_sealed(site.tree)
    keys: dict[str, HostKey] = {}
    for file, is_asked_for in host_keys.wanted(site.config.host_keys, files).items():
        try:
            key = inspect(site, sshd, file, ledger)
            if key.public and removed.knows(key.public.blob, instance):
                # `firstkey seal` took it out of an image, and it is there again: not this instance's own.
                mark = (file, key.public.fingerprint, key.digest, SEALED_ORIGIN, None)
                key = key._replace(remembered=MadeHostKey(*mark, made=True))
            key = host_keys.decide(key, site.config.host_keys, now)
        except FirstkeyError as error:
            is_denied = error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0
            reason = reasons.NEEDS_ROOT if is_denied else error.reason
            key = HostKey(file, "unknown", action=host_keys.FAIL, reason=reason, detail=error.message)
        if is_asked_for or key.is_anothers:
            # Two HostKey lines may lead to one file, through a link.
            keys.setdefault(key.place or file, key)
    return list(keys.values()), host_keys.remembered(ledger, list(keys.values()), now)


def inspect(site: Site, sshd: Sshd, file: str, ledger: Ledger | None = None) -> HostKey:
    """Look at one host key; its files are only read. Raises FirstkeyError where that is impossible.

    `ledger` knows which keys were good already, under sshd's configuration as it is.
    """
    if file.endswith(".pub"):
        return HostKey(file, host_keys.IN_AGENT)
    place, private = _half(site.tree, file)
    if private is None:
        has_agent = sshd.meaning("root").effective.has_host_key_agent
        return HostKey(file, host_keys.IN_AGENT if has_agent else host_keys.MISSING, place)
    public = _half(site.tree, f"{file}.pub")[1]
    content = public.content if public else b""
    key = _judged(site, sshd, file, private, content, ledger or Ledger())
    return key._replace(place=place, modified_ns=private.modified_ns)


def _half(tree: Tree, path: str) -> tuple[str, File | None]:
    """Where `path` leads, and what is there. Each half has its own way: either may be a link."""
    found = tree.locate(path)
    if found is None:
        return path, None
    directory, name = found
    with directory:
        return directory.join(name), directory.read(name, limit=LIMIT)


def _judged(site: Site, sshd: Sshd, file: str, private: File, public: bytes, ledger: Ledger) -> HostKey:
    said = _parsed(public)
    # Its mode and owner, and the group where that has a say.
    looks = (private.mode, private.uid, private.gid if private.mode & 0o070 else 0)
    digest = digest_of(private.content, public, looks)
    last = ledger.host_key_at(file)
    if said and last and last.digest == digest:
        return HostKey(file, host_keys.GOOD, "", said, digest, last)
    line, is_encrypted = public_half(private.content)
    derived = _parsed(line)
    if derived is None:
        is_known = not said or knows_key(public)
        others = host_keys.BROKEN if is_known else host_keys.UNKNOWN_TYPE
        return HostKey(file, host_keys.ENCRYPTED if is_encrypted else others)
    if derived.type == "ssh-rsa" and derived.bits < sshd.meaning("root").effective.least_rsa_bits:
        condition = host_keys.TOO_SMALL
    elif said is None:
        condition, public = host_keys.NO_PUBLIC_HALF, _public_line(derived)
    else:
        condition = host_keys.GOOD if said.blob == derived.blob else host_keys.MISMATCHED
    is_loose = _is_loose(site, private)
    if is_loose:
        looks = (host_keys.PRIVATE_MODE, os.geteuid(), 0)
    digest = digest_of(private.content, public, looks)
    return HostKey(file, condition, "", derived, digest, ledger.host_key(derived.fingerprint), is_loose)


def _is_loose(site: Site, private: File) -> bool:
    """OpenSSH reads no key of its own that others can read, but Fedora's OpenSSH lets the group ssh_keys."""
    if os.geteuid() == 0 and private.uid != 0:
        return True
    lent = _lent(site, private.content) if private.mode & 0o077 == 0o040 else None
    return bool(private.mode & 0o077) and not (lent and lent.owner == (private.uid, private.gid))


def _lent(site: Site, private: bytes) -> Looks | None:
    """0640 for the group ssh_keys, where there is one and OpenSSH takes such a key: it is given a copy.

    What it takes beside 0600 changed several times with OpenSSH's versions.
    """
    group = site.accounts.group_id(host_keys.KEY_GROUP)
    if group is None:
        return None
    looks = Looks(host_keys.GROUP_MODE, (os.geteuid(), group))
    if not command.ask_watcher:  # a boxed process can give no copy to the group
        with command.scratch_directory() as workshop:
            workshop.replace("judged", private, looks._replace(durable=False))
            if ask_keygen("-y", "-P", "", "-f", f"{workshop.on_host}/judged").status:
                return None
    return looks


def digest_of(private: bytes, public: bytes, looks: tuple[int, int, int]) -> str:
    """What tells this pair from any other, from a damaged one, and from one that others can get at.

    It gives nothing of the key away. `looks` are the private half's mode, owner and group.
    """
    whole = b"%d %o %d %d\n%b%b" % (len(private), *looks, private, public)
    return str(public_key.sha256(whole).hexdigest())


def _public_line(key: PublicKey) -> bytes:
    return f"{key.line}\n".encode("utf-8", "surrogateescape")


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

    def __init__(self, site: Site, sshd: Sshd, *, in_background: bool) -> None:
        self._site = site
        self._sshd = sshd
        self._in_background = in_background and not site.dry_run
        self._attempts: dict[str, Attempt] = {}
        self._undo = ExitStack()
        self._looks: Looks | None = None
        self.began: float | None = None
        """When (time.monotonic) keys began to be made, beside everything else; None where none is."""
        self.changed: dict[str, float] = {}
        """Since when (time.monotonic) sshd could load another key than before, by file."""

    def __enter__(self) -> Generation:  # noqa: PYI034 - Self came with Python 3.11
        run = None if self._site.dry_run else self._site.tree.open(RUN_DIRECTORY)
        if run:
            with run:
                # The workshop of a run that was killed: there are private keys in it.
                run.remove_stale(directories=True)
        return self

    def __exit__(self, *_: object) -> None:
        for attempt in self._attempts.values():
            if attempt.process:
                attempt.process.kill()
        # What stays is removed by the next run, and no reason to go without launch keys.
        with suppress(FirstkeyError):
            self._undo.close()

    @property
    def has_ended(self) -> bool:
        """Whether no key is being made any more: all can be put in place at once."""
        return all(attempt.process.has_ended for attempt in self._attempts.values() if attempt.process)

    @property
    def is_pending(self) -> bool:
        """Whether keys are still being made that sshd does not wait for."""
        return any(attempt.is_later for attempt in self._attempts.values())

    def begin(self, keys: Sequence[HostKey]) -> None:
        """Begin to make all keys that are to be made. Of a second look, only whose a key is counts."""
        begun = []
        for key in keys:
            before = self._attempts.get(key.file)
            is_news = key.is_anothers or (key.action == host_keys.KEEP and key.reason)
            if not before or (is_news and not before.process):
                self._attempts[key.file] = Attempt(key)
                begun.append(self._attempts[key.file])
        if self._in_background:
            all_of_them = [attempt.key for attempt in self._attempts.values()]
            later = host_keys.for_later(all_of_them, self._site.config.host_keys)
            for attempt in begun:
                attempt.is_later = attempt.key.file in later
        for attempt in begun:
            if attempt.key.action == host_keys.MAKE and not self._site.dry_run:
                self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        """Start making it, of ssh-keygen's default size, or a larger one if sshd asks for that."""
        self.began = self.began or time.monotonic()
        try:
            attempt.name = self._workshop.temporary_name("key")
            kind = str(attempt.key.type)
            bits = self._sshd.meaning("root").effective.least_rsa_bits if kind == "rsa" else 0
            size = ["-b", str(bits)] if bits > DEFAULT_RSA_BITS else []
            # OpenSSH's own names have hyphens where those of its files have underscores.
            argv = [keygen(), "-q", "-t", kind.replace("_", "-"), *size, "-N", "", "-C", "root"]
            argv += ["-f", f"{self._workshop.on_host}/{attempt.name}"]
            attempt.process = command.start(argv, before=_step_back if attempt.is_later else None)
        except FirstkeyError as error:
            attempt.failure, attempt.is_later = error.refusal, False

    @cached_property
    def _workshop(self) -> Directory:
        """The private directory in which keys are made."""
        run = self._undo.enter_context(self._site.tree.ensure(RUN_DIRECTORY, mode=0o755))
        name = run.temporary_name("hostkeys")
        self._undo.callback(run.remove_all, name)
        return self._undo.enter_context(run.make(name, Looks(0o700)))

    def finish(self, *, is_last: bool = False) -> list[Attempt]:
        """Wait for the keys that sshd has to wait for, at last for all. Returns those of which there is news.

        Where none of the others is one that sshd would show to any client, it has to wait for all.
        """
        attempts = list(self._attempts.values())
        if not is_last:
            waited_for = [attempt for attempt in attempts if not attempt.is_later]
            self._collect(waited_for, command.SECONDS)
            ready = [each.pair.public if each.pair else each.shown for each in waited_for]
            shows = self._sshd.meaning("root").effective.shows if self.is_pending else None
            is_last = not (shows and any(each and shows(each.type) for each in ready))
        if is_last:
            # Begun with what the rest of the boot leaves, it may take longer. The boot has its own deadline.
            self._collect(attempts, BACKGROUND_SECONDS)
        return [attempt for attempt in attempts if attempt.is_news]

    def _collect(self, attempts: Sequence[Attempt], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for attempt in attempts:
            if attempt.process is None:
                continue
            try:
                # One that has ended is collected, though no time may be left when its turn comes.
                outcome = attempt.process.finish(seconds=max(0.0, deadline - time.monotonic()))
                attempt.pair = self._pair(attempt, outcome)
            except FirstkeyError as error:
                attempt.failure = error.refusal
            attempt.process, attempt.is_later, attempt.is_news = None, False, True

    def _pair(self, attempt: Attempt, outcome: Outcome) -> KeyPair:
        """The new pair. Raises FirstkeyError where there is none, or none that can be believed."""
        key, kind = attempt.key, str(attempt.key.type)
        halves = None
        if outcome.status > 0 and kind not in KINDS:
            halves = self._default_of_openssh(kind, f"{attempt.name}.all")
        if halves is None:
            if outcome.status:
                message = f"ssh-keygen makes no {kind} key: {outcome.words}"
                is_unable = outcome.status < 0 or _UNSAVED.search(outcome.stderr)
                reason = reasons.KEYGEN_FAILED if is_unable else reasons.KEYGEN_REFUSED
                raise FirstkeyError(message, reason=reason)
            halves = _read(self._workshop, attempt.name)
        public = _parsed(halves[1]) if halves else None
        if halves is None or public is None:
            message = f"ssh-keygen left no {kind} key behind"
            raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        private, line = halves
        if key.condition == host_keys.BROKEN:
            # Whoever called the old key broken must be able to tell a good one; else the old one stays.
            derived = _parsed(public_half(private)[0])
            if derived is None or derived.blob != public.blob:
                message = f"ssh-keygen cannot load the key that it has made, so {key.file} was left alone"
                raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        if self._looks is None:
            lent = _lent(self._site, private) if os.geteuid() == 0 else None
            self._looks = lent or Looks(host_keys.PRIVATE_MODE)
        digest = digest_of(private, line, (self._looks.mode, *(self._looks.owner or (os.geteuid(), 0))))
        known = MadeHostKey(key.file, public.fingerprint, digest, None, None, made=True)
        return KeyPair(private, line, public, self._looks, known)

    def _default_of_openssh(self, kind: str, name: str) -> tuple[bytes, bytes] | None:
        """The key of a type that is known by its file alone, where it is one of `ssh-keygen -A`."""
        looks = Looks(0o700, durable=False)
        top = self._workshop.make(name, looks)
        with top, top.make("etc", looks) as etc, etc.make("ssh", looks) as directory:
            for known in KINDS:  # what is there is not made again
                directory.replace(f"ssh_host_{known}_key", b"-", Looks(0o600, durable=False))
            ask_keygen("-A", "-f", top.on_host)
            return _read(directory, f"ssh_host_{kind}_key")

    # --- put in place -------------------------------------------------------------------------------

    def publish(self, attempts: Sequence[Attempt]) -> None:
        """Put the new pairs in place, and repair what only needs that."""
        for attempt in attempts:
            attempt.is_news = False
            try:
                if not self._site.dry_run:
                    self._carry_out(attempt)
            except FirstkeyError as error:
                attempt.failure = error.refusal  # one key that fails does not stop the others

    def _carry_out(self, attempt: Attempt) -> None:
        key, pair, tree = attempt.key, attempt.pair, self._site.tree
        attempt.pair = None
        if pair and tree.exists(key.file):
            found = inspect(self._site, self._sshd, key.file)
            was_there = found.public and key.public and found.public.blob == key.public.blob
            if found.condition == host_keys.GOOD and not was_there:
                # The distribution's own maker, which runs once sshd may start, was faster.
                attempt.key = key = found._replace(action=host_keys.KEEP)
                attempt.shown, pair = key.public, None
        if pair:
            # The old public half goes first, the new one comes last: to sshd, a private half is a host key.
            is_kept = bool(key.reason) and not key.is_anothers
            attempt.backup = _clear(tree, key.file, keeps=True) if is_kept else None
            _clear(tree, f"{key.file}.pub", keeps=is_kept)
            _write(self._site, key.file, pair.private, pair.looks)
            _write(self._site, f"{key.file}.pub", pair.public_line, Looks(PUBLIC_MODE))
            attempt.shown, attempt.failure = pair.public, None
        elif key.action == host_keys.KEEP and key.changes:
            if key.is_loose:
                directory, name = tree.place(key.file)
                with directory:
                    owner = (0, 0) if os.geteuid() == 0 else None
                    directory.set_mode(name, host_keys.PRIVATE_MODE, owner)
            if "public-half" in key.changes and key.public:
                _write(self._site, f"{key.file}.pub", _public_line(key.public), Looks(PUBLIC_MODE))
        elif attempt.is_later and key.is_anothers:
            # The private half last: while it is there, the next run sees it.
            _clear(tree, f"{key.file}.pub", keeps=False)
            _clear(tree, key.file, keeps=False)
        else:
            return
        self.changed[key.file] = time.monotonic()

    def results(self) -> list[HostKeyResult]:
        """What became of each wanted host key so far; for a dry run, what would."""
        results = [attempt.result() for attempt in self._attempts.values()]
        if any(result.result in (CHANGED, UNCHANGED) for result in results):
            return results
        # Where there is no host key at all, sshd does not start: then a refused type is a failure.
        return [attempt.result(may_be_refused=False) for attempt in self._attempts.values()]


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


def _read(directory: Directory, name: str) -> tuple[bytes, bytes] | None:
    private, public = (directory.read(f"{name}{suffix}", limit=LIMIT) for suffix in ("", ".pub"))
    return (private.content, public.content) if private and public else None


def _clear(tree: Tree, path: str, *, keeps: bool) -> str | None:
    """Out of the way with one half, for good or under another name, which is returned."""
    place = tree.locate(path)
    if place is None:
        return None
    directory, name = place
    with directory:
        if not (keeps and directory.status(name)):
            directory.remove(name, durable=True)
            return None
        kept = directory.set_aside(name, "broken")
        # For whoever wants to look at it; root alone: half a private key is still a secret.
        directory.set_mode(kept, host_keys.PRIVATE_MODE)
        return directory.join(kept)


def _write(site: Site, path: str, content: bytes, looks: Looks) -> None:
    directory, name = site.tree.place(path)
    with directory:
        directory.remove_stale()
        label = command.selinux_label(site.tree, path, "file")
        directory.replace(name, content, looks._replace(label=label))
