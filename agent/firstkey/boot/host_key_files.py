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

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.boot import host_keys
from firstkey.boot.host_keys import Action, Found, Now
from firstkey.boot.ledger import SEALED_ORIGIN, Ledger, MadeHostKey, load_sealed
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key
from firstkey.system import command
from firstkey.system.files import Looks
from firstkey.system.sshd import ask_keygen, is_encrypted, keygen, knows_key, public_half

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_keys import Wanted
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Outcome, Process
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
) -> list[Action]:
    """Look at every wanted host key and decide. `files` are sshd's HostKey files."""
    is_known = ledger.instance is not None and instance in (None, ledger.instance)
    now = Now(instance, site.boot_id(), is_known, site.cloud_init_began())
    removed = load_sealed(site.tree)
    actions: dict[str, Action] = {}
    for want in host_keys.wanted(site.config.host_keys, files):
        try:
            found = inspect(site, sshd, want, ledger)
            if found.public and removed.knows(found.public.blob, instance):
                # `firstkey seal` took it out of an image, and it is there again: not this instance's own.
                mark = (want.file, found.public.fingerprint, found.digest, SEALED_ORIGIN, None)
                found = found._replace(remembered=MadeHostKey(*mark, made=True))
            action = host_keys.decide(found, site.config.host_keys, now)
        except FirstkeyError as error:
            reason = error.reason
            if reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
                reason = reasons.NEEDS_ROOT
            action = Action(Found(want, "unknown"), host_keys.FAIL, reason, error.message)
        if not want.optional or action.kind == host_keys.REPLACE:
            # Two HostKey lines may lead to one file, through a link.
            actions.setdefault(action.found.place or want.file, action)
    return list(actions.values())


def inspect(site: Site, sshd: Sshd, want: Wanted, ledger: Ledger | None = None) -> Found:
    """Look at one host key; its files are only read. Raises FirstkeyError where that is impossible.

    `ledger` knows which keys were good already, under sshd's configuration as it is.
    """
    if want.file.endswith(".pub"):
        return Found(want, host_keys.IN_AGENT)
    place, private = _half(site.tree, want.file)
    if private is None:
        has_agent = sshd.meaning("root").effective.has_host_key_agent
        return Found(want, host_keys.IN_AGENT if has_agent else host_keys.MISSING, place)
    public = _half(site.tree, f"{want.file}.pub")[1]
    found = _judged(site, sshd, want, (private, public), ledger or Ledger())
    return found._replace(place=place, modified_ns=private.modified_ns)


def _half(tree: Tree, path: str) -> tuple[str, File | None]:
    """Where `path` leads, and what is there. Each half has its own way: either may be a link."""
    found = tree.locate(path)
    if found is None:
        return path, None
    directory, name = found
    with directory:
        return directory.join(name), directory.read(name, limit=LIMIT)


def _judged(site: Site, sshd: Sshd, want: Wanted, halves: tuple[File, File | None], ledger: Ledger) -> Found:
    private, public = halves
    said = _parsed(public.content) if public else None
    if said and public:
        last = ledger.host_key_at(want.file)
        digest = digest_of(private.content, public.content, _looks(private))
        if last and last.digest == digest:
            return Found(want, host_keys.GOOD, "", said, digest, last)
    is_empty = not private.content.strip(b"\0 \t\r\n")
    derived = None if is_empty else _parsed(public_half(private.content) or b"")
    if derived is None:
        condition = host_keys.BROKEN
        if not is_empty and is_encrypted(private.content):
            condition = host_keys.ENCRYPTED
        elif not is_empty and said and public and not knows_key(public.content):
            condition = host_keys.UNKNOWN_TYPE  # which is not broken
        return Found(want, condition)
    is_loose = _is_loose(site, private)
    looks = (host_keys.PRIVATE_MODE, os.geteuid(), 0) if is_loose else _looks(private)
    if derived.type == "ssh-rsa" and derived.bits < sshd.meaning("root").effective.least_rsa_bits:
        condition = host_keys.TOO_SMALL
    elif said is None:
        condition = host_keys.NO_PUBLIC_HALF
    else:
        condition = host_keys.GOOD if said.blob == derived.blob else host_keys.MISMATCHED
    shown = public.content if public and said else _public_line(derived)
    digest = digest_of(private.content, shown, looks)
    return Found(want, condition, "", derived, digest, ledger.host_key(derived.fingerprint), is_loose)


def _looks(private: File) -> tuple[int, int, int]:
    """Mode, owner, and the group where it has a say."""
    return private.mode, private.uid, private.gid if private.mode & 0o070 else 0


def _is_loose(site: Site, private: File) -> bool:
    """OpenSSH reads no key of its own that others can read, but Fedora's OpenSSH lets the group ssh_keys."""
    if os.geteuid() == 0 and private.uid != 0:
        return True
    if private.mode & 0o077 != 0o040 or private.gid != site.accounts.group_id(host_keys.KEY_GROUP):
        return bool(private.mode & 0o077)
    if command.ask_watcher:
        return False  # a boxed process can give no copy to the group
    with command.scratch_directory() as workshop:
        return not _is_taken(workshop, private.content, Looks(private.mode, (private.uid, private.gid)))


def _is_taken(workshop: Directory, private: bytes, looks: Looks) -> bool:
    """Whether OpenSSH takes a key with that mode and owner: of a copy in `workshop`, a private directory.

    What it takes beside 0600 changed several times with OpenSSH's versions.
    """
    workshop.replace("judged", private, looks._replace(durable=False))
    return ask_keygen("-y", "-P", "", "-f", f"{workshop.on_host}/judged").status == 0


def digest_of(private: bytes, public: bytes, looks: tuple[int, int, int]) -> str:
    """What tells this pair from any other, from a damaged one, and from one that others can get at.

    It gives nothing of the key away. `looks` are the private half's mode, owner and group.
    """
    digest: str = public_key.sha256(
        b"%d %o %d %d\n%b%b" % (len(private), *looks, private, public)
    ).hexdigest()
    return digest


def _public_line(key: PublicKey) -> bytes:
    return f"{key.line}\n".encode("utf-8", "surrogateescape")


def _parsed(content: bytes) -> PublicKey | None:
    """The first public key in the file, as sshd reads one (authfile.c: sshkey_load_public)."""
    keys = (public_key.read_host_key(line.strip(b" \t\r")) for line in content.split(b"\n"))
    return next((key for key in keys if key), None)


# --- make -----------------------------------------------------------------------------------------


class KeyPair(NamedTuple):
    """A new key pair that is not in place yet. `looks`: how the private half is to be."""

    file: str
    private: bytes
    public_line: bytes
    public: PublicKey
    looks: Looks

    def record(self, instance: str | None, boot: str | None) -> MadeHostKey:
        """What the ledger is to know of the pair once it is in place."""
        uid, gid = self.looks.owner or (os.geteuid(), 0)
        digest = digest_of(self.private, self.public_line, (self.looks.mode, uid, gid))
        return MadeHostKey(self.file, self.public.fingerprint, digest, instance, boot, made=True)


class HostKey:
    """One host key while the run lasts: what is to be done about it, and how far that is.

    `process` makes it under `name` in the workshop; `is_later`: sshd does not wait for that. `pair` is a new
    one that is not in place yet, `made` one that is. `is_news`: it is still to be dealt with or reported.
    `is_touched`: what was there before an attempt may be gone. `backup`: where the old private half is now.
    """

    def __init__(self, action: Action) -> None:
        self.action = action
        self.name = ""
        self.process: Process | None = None
        self.is_later = False
        self.pair: KeyPair | None = None
        self.made: PublicKey | None = None
        self.failure: Refusal | None = None
        self.is_news = True
        self.is_touched = False
        self.backup: str | None = None

    @property
    def shown(self) -> PublicKey | None:
        """The key that sshd has at that place now, as far as that is known."""
        before = self.action.found.public
        if self.failure:
            return None if self.is_touched else before
        return self.made or (None if self.action.makes_a_key else before)

    def result(self) -> HostKeyResult:
        """What became of it so far; of a dry run, what would."""
        action, failure, shown = self.action, self.failure, self.shown
        if self.is_later and not failure:
            failure = Refusal(reasons.HOST_KEY_PENDING, f"{action.file} is being generated in the background")
        known = shown or action.found.public
        if failure:
            is_skipped = failure.reason in (reasons.KEYGEN_REFUSED, reasons.HOST_KEY_PENDING)
            result = SKIPPED if is_skipped else FAILED
        else:
            unchanged = {host_keys.SKIP: SKIPPED, host_keys.FAIL: FAILED}.get(action.kind, UNCHANGED)
            result = CHANGED if action.changes else unchanged
        return HostKeyResult(
            action.type or (known.short_type if known else "unknown"),
            action.file,
            result,
            shown.fingerprint if shown else None,
            failure or action.refusal,
            shown.line if shown else None,
            shown.bits if shown else 0,
            () if failure else action.changes,
        )


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
        self._keys: dict[str, HostKey] = {}
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
        for key in self._keys.values():
            if key.process:
                key.process.kill()
        # What stays is removed by the next run, and no reason to go without launch keys.
        with suppress(FirstkeyError):
            self._undo.close()

    @property
    def has_ended(self) -> bool:
        """Whether no key is being made any more: all can be put in place at once."""
        return all(key.process.has_ended for key in self._keys.values() if key.process)

    @property
    def is_pending(self) -> bool:
        """Whether keys are still being made that sshd does not wait for."""
        return any(key.is_later for key in self._keys.values())

    def begin(self, actions: Sequence[Action]) -> None:
        """Begin to make all keys that these actions ask for. Of a second look, what is new counts."""
        begun = []
        for action in actions:
            before = self._keys.get(action.file)
            is_news = action.kind == host_keys.REPLACE or action.reason
            if not before or (is_news and not before.process):
                self._keys[action.file] = HostKey(action)
                begun.append(self._keys[action.file])
        if self._in_background:
            later = host_keys.for_later(
                [key.action for key in self._keys.values()], self._site.config.host_keys
            )
            for key in begun:
                key.is_later = key.action.file in later
        for key in begun:
            if key.action.makes_a_key and not self._site.dry_run:
                self._start(key)

    def _start(self, key: HostKey) -> None:
        """Start making it, of ssh-keygen's default size, or a larger one if sshd asks for that."""
        self.began = self.began or time.monotonic()
        try:
            key.name = self._workshop.temporary_name("key")
            kind = str(key.action.type)
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
        run = self._undo.enter_context(self._site.tree.ensure(RUN_DIRECTORY, mode=0o755))
        name = run.temporary_name("hostkeys")
        self._undo.callback(run.remove_all, name)
        return self._undo.enter_context(run.make(name, Looks(0o700)))

    def finish(self, *, is_last: bool = False) -> list[HostKey]:
        """Wait for the keys that sshd has to wait for, at last for all. Returns those of which there is news.

        Where none of the others is one that sshd would show to any client, it has to wait for all.
        """
        keys = list(self._keys.values())
        if not is_last:
            self._collect([key for key in keys if not key.is_later], command.SECONDS)
            ready = [key.pair.public if key.pair else key.shown for key in keys if not key.is_later]
            shows = self._sshd.meaning("root").effective.shows if self.is_pending else None
            is_last = not (shows and any(each and shows(each.type) for each in ready))
        if is_last:
            # Begun with what the rest of the boot leaves, it may take longer. The boot has its own deadline.
            self._collect(keys, BACKGROUND_SECONDS)
        return [key for key in keys if key.is_news]

    def _collect(self, keys: Sequence[HostKey], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for key in keys:
            if key.process is None:
                continue
            try:
                # One that has ended is collected, though no time may be left when its turn comes.
                outcome = key.process.finish(seconds=max(0.0, deadline - time.monotonic()))
                key.pair = self._pair(key, outcome)
            except FirstkeyError as error:
                key.failure = error.refusal
            key.process, key.is_later, key.is_news = None, False, True

    def _pair(self, key: HostKey, outcome: Outcome) -> KeyPair:
        """The new pair. Raises FirstkeyError where there is none, or none that can be believed."""
        action, kind = key.action, str(key.action.type)
        halves = None
        if outcome.status > 0 and kind not in KINDS:
            halves = self._default_of_openssh(kind, f"{key.name}.all")
        if halves is None:
            if outcome.status:
                message = f"ssh-keygen makes no {kind} key: {outcome.words}"
                is_unable = outcome.status < 0 or _UNSAVED.search(outcome.stderr)
                reason = reasons.KEYGEN_FAILED if is_unable else reasons.KEYGEN_REFUSED
                raise FirstkeyError(message, reason=reason)
            halves = _read(self._workshop, key.name)
        public = _parsed(halves[1]) if halves else None
        if halves is None or public is None:
            message = f"ssh-keygen left no {kind} key behind"
            raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        private, line = halves
        if action.found.condition == host_keys.BROKEN:
            # Whoever called the old key broken must be able to tell a good one; else the old one stays.
            derived = _parsed(public_half(private) or b"")
            if derived is None or derived.blob != public.blob:
                message = f"ssh-keygen cannot load the key that it has made, so {action.file} was left alone"
                raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        if self._looks is None:
            self._looks = self._private_looks(private)
        return KeyPair(action.file, private, line, public, self._looks)

    def _private_looks(self, private: bytes) -> Looks:
        """0640 for the group ssh_keys where there is one and OpenSSH takes such a key, else 0600."""
        if os.geteuid() != 0:
            return Looks(host_keys.PRIVATE_MODE)
        group = self._site.accounts.group_id(host_keys.KEY_GROUP)
        lent = Looks(host_keys.GROUP_MODE, (0, group or 0))
        if group is not None and _is_taken(self._workshop, private, lent):
            return lent
        return Looks(host_keys.PRIVATE_MODE, (0, 0))

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

    def publish(self, keys: Sequence[HostKey]) -> None:
        """Put the new pairs in place, and repair what only needs that."""
        for key in keys:
            key.is_news = False
            try:
                if not self._site.dry_run:
                    self._carry_out(key)
            except FirstkeyError as error:
                key.failure = error.refusal  # one key that fails does not stop the others

    def _carry_out(self, key: HostKey) -> None:
        action, pair, tree = key.action, key.pair, self._site.tree
        if pair and action.kind == host_keys.MAKE and tree.exists(action.file):
            # The distribution's own unit, which runs once sshd may start, was faster.
            found = inspect(self._site, self._sshd, action.found.wanted)
            if found.condition == host_keys.GOOD:
                key.action, key.pair = Action(found, host_keys.KEEP), None
                return
        if pair:
            key.is_touched, key.pair = True, None
            # The old public half goes first, the new one comes last: to sshd, a private half is a host key.
            keeps = action.kind == host_keys.BACK_UP
            key.backup = _clear(tree, action.file, keeps=True) if keeps else None
            _clear(tree, f"{action.file}.pub", keeps=keeps)
            _write(self._site, action.file, pair.private, pair.looks)
            _write(self._site, f"{action.file}.pub", pair.public_line, Looks(PUBLIC_MODE))
            key.made, key.failure = pair.public, None
        elif action.keeps_the_key and action.changes:
            if action.found.is_loose:
                directory, name = tree.place(action.file)
                with directory:
                    owner = (0, 0) if os.geteuid() == 0 else None
                    directory.set_mode(name, host_keys.PRIVATE_MODE, owner)
            if "public-half" in action.changes and action.found.public:
                line = _public_line(action.found.public)
                _write(self._site, f"{action.file}.pub", line, Looks(PUBLIC_MODE))
        elif key.is_later and action.kind == host_keys.REPLACE:
            # Another instance's key. The private half last: while it is there, the next run sees it.
            key.is_touched = True
            _clear(tree, f"{action.file}.pub", keeps=False)
            _clear(tree, action.file, keeps=False)
        else:
            return
        self.changed[action.file] = time.monotonic()

    def results(self) -> list[HostKeyResult]:
        """What became of each wanted host key so far; for a dry run, what would."""
        results = [key.result() for key in self._keys.values()]
        if any(result.result in (CHANGED, UNCHANGED) for result in results):
            return results
        # Where there is no host key at all, sshd does not start: then a refused type is a failure.
        return [
            result._replace(result=FAILED)
            if result.refusal and result.refusal.reason is reasons.KEYGEN_REFUSED
            else result
            for result in results
        ]


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
