"""The files of host keys: look at them, make new ones, put these in place, repair what only needs that.

Every key is looked at on every boot: a power cut after key generation leaves empty or torn files. A pair
whose digest the ledger knows was found good before; only others are put to OpenSSH's own programs.

The order is: make the keys where no other user can see them, write the ledger, put them in place. So a key
that sshd could ever show is one that the ledger knows as firstkey's own, whenever the power goes. Each half
gets its place in one instant, and at no instant do halves of different keys stand side by side.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.boot import host_keys
from firstkey.boot.host_keys import Action, Found, Judge, Now
from firstkey.boot.ledger import SEALED_ORIGIN, MadeHostKey, load_sealed
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key
from firstkey.system import command, keygen
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_keys import Wanted
    from firstkey.boot.ledger import Ledger, Sealed
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Process
    from firstkey.system.files import Directory, File
    from firstkey.system.tree import Tree

LIMIT = 64 * 1024  # bytes a file; an RSA key of 16384 bits takes a fifth of that
PUBLIC_MODE = 0o644
RUN_DIRECTORY = "/run/firstkey"
LEAST_SECONDS = 0.5
"""What a key gets to be collected that was ready long before its turn came."""
BACKGROUND_SECONDS = 300.0
"""How long a key may take that is made when nothing else wants the processor."""

_RESULTS = {host_keys.KEEP: UNCHANGED, host_keys.SKIP: SKIPPED, host_keys.FAIL: FAILED}


# --- look -----------------------------------------------------------------------------------------


def survey(
    site: Site, files: Sequence[str], ledger: Ledger, instance: str | None, judge: Judge
) -> list[Action]:
    """Look at every wanted host key and decide."""
    is_known = ledger.instance is not None and instance in (None, ledger.instance)
    now = Now(instance, site.boot_id(), is_known, site.cloud_init_began())
    removed = load_sealed(site.tree)
    actions: dict[str, Action] = {}
    for want in host_keys.wanted(site.config.host_keys, files):
        try:
            found = _back_from_an_image(inspect(site, want, ledger, judge), removed, now)
            action = host_keys.decide(found, site.config.host_keys, now)
        except FirstkeyError as error:
            reason = error.reason
            if reason is reasons.PERMISSION_DENIED and not keygen.is_root():
                reason = reasons.NEEDS_ROOT
            action = Action(Found(want, "unknown"), host_keys.FAIL, reason, error.message)
        if not want.optional or action.kind == host_keys.REPLACE:
            # Two HostKey lines may lead to one file, through a link.
            actions.setdefault(action.found.place or want.file, action)
    return list(actions.values())


def _back_from_an_image(found: Found, removed: Sealed, now: Now) -> Found:
    """A key that `firstkey seal` took out of an image and that is there again is not this instance's own."""
    if found.public is None or not removed.knows(found.public.blob, now.instance):
        return found
    file, fingerprint = found.wanted.file, found.public.fingerprint
    origin = MadeHostKey(file, fingerprint, found.digest, SEALED_ORIGIN, None, made=True)
    return found._replace(remembered=origin)


def inspect(site: Site, want: Wanted, ledger: Ledger, judge: Judge | None = None) -> Found:
    """Look at one host key; its files are only read. Raises FirstkeyError where that is impossible."""
    if want.file.endswith(".pub"):
        return Found(want, host_keys.IN_AGENT)
    place, private = _half(site.tree, want.file)
    if private is None:
        return Found(want, host_keys.IN_AGENT if ledger.sshd_has_key_agent else host_keys.MISSING, place)
    public = _half(site.tree, f"{want.file}.pub")[1]
    found = _judged(site, want, private, public, ledger, judge)
    return found._replace(place=place, modified_ns=private.stamp.modified_ns)


def _half(tree: Tree, path: str) -> tuple[str, File | None]:
    """Where `path` leads, and what is there. Each half has its own way: either may be a link."""
    found = tree.locate(path)
    if found is None:
        return path, None
    directory, name = found
    with directory:
        return directory.join(name), directory.read(name, limit=LIMIT)


def _judged(
    site: Site, want: Wanted, private: File, public: File | None, ledger: Ledger, judge: Judge | None
) -> Found:
    said = _parsed(public.content) if public else None
    if said and public:
        last = ledger.host_key_at(want.file)
        digest = digest_of(private.content, public.content, _looks(private))
        if last and last.digest == digest and not _is_too_small(said, judge, was_good=True):
            return Found(want, host_keys.GOOD, "", said, digest, last)
    is_empty = not private.content.strip(b"\0 \t\r\n")
    derived = None if is_empty else _parsed(keygen.public_half(private.content) or b"")
    if derived is None:
        condition = host_keys.BROKEN
        if not is_empty and keygen.is_encrypted(private.content):
            condition = host_keys.ENCRYPTED
        elif not is_empty and said and public and not keygen.knows(public.content):
            condition = host_keys.UNKNOWN_TYPE  # which is not broken
        return Found(want, condition)
    is_loose = _is_loose(site, private)
    looks = (host_keys.PRIVATE_MODE, os.geteuid(), 0) if is_loose else _looks(private)
    if _is_too_small(derived, judge):
        condition = host_keys.TOO_SMALL
    elif said is None:
        condition = host_keys.NO_PUBLIC_HALF
    else:
        condition = host_keys.GOOD if said.blob == derived.blob else host_keys.MISMATCHED
    shown = public.content if public and said else _public_line(derived)
    digest = digest_of(private.content, shown, looks)
    return Found(want, condition, "", derived, digest, ledger.host_key(derived.fingerprint), is_loose)


def _is_too_small(key: PublicKey, judge: Judge | None, *, was_good: bool = False) -> bool:
    if judge is None or key.type != "ssh-rsa":
        return False
    return key.bits < judge.least_rsa_bits(was_good=was_good)


def _looks(private: File) -> tuple[int, int, int]:
    """Mode, owner, and the group where it has a say."""
    return private.mode, private.uid, private.gid if private.mode & 0o070 else 0


def _is_loose(site: Site, private: File) -> bool:
    """OpenSSH reads no key of its own that others can read, but Fedora's OpenSSH lets the group ssh_keys."""
    if keygen.is_root() and private.uid != 0:
        return True
    if private.mode & 0o077 != 0o040 or private.gid != site.accounts.group_id(host_keys.KEY_GROUP):
        return bool(private.mode & 0o077)
    if command.ask_watcher:
        return False  # a boxed process can give no copy to the group
    with command.scratch_directory() as private_place:
        looks = Looks(private.mode, (private.uid, private.gid), durable=False)
        private_place.replace("judged", private.content, looks)
        return not keygen.loads(f"{private_place.on_host}/judged")


def digest_of(private: bytes, public: bytes, looks: tuple[int, int, int]) -> str:
    """What tells this pair from any other, from a damaged one, and from one that others can get at.

    It gives nothing of the key away. `looks` are the private half's mode, owner and group.
    """
    from firstkey.ssh.public_key import sha256

    digest: str = sha256(b"%d %o %d %d\n%b%b" % (len(private), *looks, private, public)).hexdigest()
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

    action: Action
    private: bytes
    public_line: bytes
    public: PublicKey
    looks: Looks

    def record(self, instance: str | None, boot: str | None) -> MadeHostKey:
        """What the ledger is to know of the pair once it is in place."""
        uid, gid = self.looks.owner or (os.geteuid(), 0)
        digest = digest_of(self.private, self.public_line, (self.looks.mode, uid, gid))
        return MadeHostKey(self.action.file, self.public.fingerprint, digest, instance, boot, made=True)


class _Started(NamedTuple):
    """A key that is being made, under that name in the workshop."""

    action: Action
    name: str
    process: Process


class Generation:
    """The host keys of one run, while it lasts. Leaving the `with` block ends and removes what is unfinished.

    They are made in a directory of /run, for root alone: it is in memory, is gone with the boot, and no
    owner of a directory that HostKey names can lead ssh-keygen, which takes paths, anywhere else.
    `in_background`: sshd need not wait for the types that Background= names.
    """

    def __init__(self, site: Site, judge: Judge, *, in_background: bool) -> None:
        self._site = site
        self._judge = judge
        self._in_background = in_background and not site.dry_run
        self._actions: dict[str, Action] = {}
        self.todo: list[Action] = []
        """What the last look asks for, as long as it is not carried out."""
        self._started: list[_Started] = []
        self._later: frozenset[str] = frozenset()
        self._workshop: tuple[Directory, Directory, str] | None = None
        self._looks: Looks | None = None
        self._made: dict[str, PublicKey] = {}
        self._failures: dict[str, Refusal] = {}
        self._tried: set[str] = set()
        self.backups: dict[str, str | None] = {}
        """Where the old private half of a file was moved to, if it was kept."""
        self.began: float | None = None
        """When (time.monotonic) keys began to be made, beside everything else; None where none is."""
        self.changed: dict[str, float] = {}
        """Since when (time.monotonic) sshd could load another key than before, by file."""

    def __enter__(self) -> Generation:  # noqa: PYI034 - Self came with Python 3.11
        run = None if self._site.dry_run else self._site.tree.open(RUN_DIRECTORY)
        if run:
            with run:
                run.remove_stale()  # the workshop of a run that was killed: there are private keys in it
        return self

    def __exit__(self, *_: object) -> None:
        for started in self._started:
            started.process.kill()
        if self._workshop:
            run, workshop, name = self._workshop
            self._workshop = None
            workshop.__exit__()
            # What stays is removed by the next run, and no reason to go without launch keys.
            with run, suppress(FirstkeyError):
                run.remove_directory(name)

    @property
    def has_ended(self) -> bool:
        """Whether no key is being made any more: all can be put in place at once."""
        return all(started.process.has_ended for started in self._started)

    @property
    def is_pending(self) -> bool:
        """Whether keys are still being made that sshd does not wait for."""
        return bool(self._later)

    def begin(self, actions: Sequence[Action]) -> None:
        """Begin to make all keys that these actions ask for. Of a second look, what is new counts."""
        self.todo = list(actions)
        for action in actions:
            if action.file not in self._actions or action.kind == host_keys.REPLACE or action.reason:
                self._actions[action.file] = action
        if self._site.dry_run:
            return
        if self._in_background:
            later = host_keys.for_later(list(self._actions.values()), self._site.config.host_keys)
            self._later |= later.intersection(action.file for action in actions if action.makes_a_key)
        for action in actions:
            if action.makes_a_key:
                self._start(action)

    def finish(self, *, is_last: bool = False) -> list[KeyPair]:
        """Wait for the keys that sshd has to wait for, at last for all; what failed is known to `results`.

        Where none of the others is one that sshd would show to anybody, it has to wait for all.
        """
        deadline = time.monotonic() + (BACKGROUND_SECONDS if is_last else command.SECONDS)
        pairs = self._collect(() if is_last else self._later, deadline)
        if self._later and not is_last:
            kept = (action.found.public for action in self._actions.values() if action.keeps_the_key)
            shown = [*(pair.public for pair in pairs), *self._made.values(), *filter(None, kept)]
            is_last = not any(map(self._judge.offers, shown))
            # Begun with what the rest of the boot leaves, it may take longer. The boot has its own deadline.
            pairs += self._collect((), time.monotonic() + BACKGROUND_SECONDS) if is_last else []
        if is_last:
            self._later = frozenset()
        return pairs

    def _collect(self, without: Sequence[str] | frozenset[str], deadline: float) -> list[KeyPair]:
        pairs = []
        for started in [each for each in self._started if each.action.file not in without]:
            try:
                pairs.append(self._finished(started, deadline))
            except FirstkeyError as error:
                self._failures[started.action.file] = error.refusal
                if started.action not in self.todo:
                    self.todo.append(started.action)  # what became of it is still to be told
            self._started.remove(started)
        return pairs

    def _start(self, action: Action) -> None:
        self.began = self.began or time.monotonic()
        try:
            _prove_writable(self._site.tree, action.file)
            name = self._in_workshop().temporary_name("key")
            process = keygen.start_generating(
                # OpenSSH's own names have hyphens where those of its files have underscores.
                str(action.type).replace("_", "-"),
                f"{self._in_workshop().on_host}/{name}",
                comment=_comment(self._site.hostname() or ""),
                bits=self._judge.least_rsa_bits() if action.type == "rsa" else 0,
                before=_step_back if action.file in self._later else None,
            )
        except FirstkeyError as error:
            self._failures[action.file] = error.refusal
            self._later -= {action.file}
            return
        self._started.append(_Started(action, name, process))

    def _in_workshop(self) -> Directory:
        """The private directory in which keys are made."""
        if self._workshop is None:
            run = self._site.tree.ensure(RUN_DIRECTORY, mode=0o755)
            name = run.temporary_name("hostkeys")
            self._workshop = run, run.make(name, Looks(0o700)), name
        return self._workshop[1]

    def _finished(self, started: _Started, deadline: float) -> KeyPair:
        action, name, process = started
        outcome = process.finish(seconds=max(LEAST_SECONDS, deadline - time.monotonic()))
        halves = None
        if outcome.status > 0 and action.type not in keygen.KINDS:
            halves = self._default_of_openssh(str(action.type), f"{name}.all")
        if halves is None:
            keygen.check_generated(str(action.type), outcome)
            halves = _read(self._in_workshop(), name)
        key = _parsed(halves[1]) if halves else None
        if halves is None or key is None:
            message = f"ssh-keygen left no {action.type} key behind"
            raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        private, public = halves
        if action.found.condition == host_keys.BROKEN:
            # Whoever called the old key broken must be able to tell a good one; else the old one stays.
            told = _parsed(keygen.public_half(private) or b"")
            if told is None or told.blob != key.blob:
                message = f"ssh-keygen cannot load the key that it has made, so {action.file} was left alone"
                raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        if self._looks is None:
            self._looks = _private_looks(self._site, private, self._in_workshop())
        return KeyPair(action, private, public, key, self._looks)

    def _default_of_openssh(self, kind: str, name: str) -> tuple[bytes, bytes] | None:
        """The key of a type that is known by its file alone, where it is one of `ssh-keygen -A`."""
        looks = Looks(0o700, durable=False)
        with self._in_workshop().make(name, looks) as top, top.make("etc", looks) as etc:
            try:
                with etc.make("ssh", looks) as directory:
                    for known in keygen.KINDS:  # what is there is not made again
                        directory.replace(f"ssh_host_{known}_key", b"-", Looks(0o600, durable=False))
                    keygen.generate_defaults(top.on_host)
                    return _read(directory, f"ssh_host_{kind}_key")
            finally:
                etc.remove_directory("ssh")
                top.remove_directory("etc")
                self._in_workshop().remove_directory(name)

    # --- put in place -------------------------------------------------------------------------------

    def publish(self, pairs: Sequence[KeyPair]) -> list[Action]:
        """Put the new pairs in place, and repair what only needs that. Returns what was dealt with."""
        by_file = {pair.action.file: pair for pair in pairs}
        actions = [*self.todo, *(pair.action for pair in pairs if pair.action not in self.todo)]
        self.todo = []
        for action in actions:
            try:
                self._carry_out(action, by_file.get(action.file))
            except FirstkeyError as error:  # noqa: PERF203 - one key that fails must not stop the others
                self._failures[action.file] = error.refusal
        return actions

    def _carry_out(self, action: Action, pair: KeyPair | None) -> None:
        if pair:
            self._tried.add(action.file)
            self.backups[action.file] = _put_in_place(self._site, pair)
            self._made[action.file] = pair.public
            self._failures.pop(action.file, None)
        elif action.keeps_the_key and action.changes:
            _repair(self._site, action)
        elif action.file in self._later and action.kind == host_keys.REPLACE:
            # Another instance's key. The private half last: while it is there, the next run sees it.
            self._tried.add(action.file)
            _clear(self._site.tree, f"{action.file}.pub", keeps=False)
            _clear(self._site.tree, action.file, keeps=False)
        else:
            return
        self.changed[action.file] = time.monotonic()

    # --- what became of them ------------------------------------------------------------------------

    def results(self) -> list[HostKeyResult]:
        """What became of each wanted host key so far; for a dry run, what would."""
        results = list(map(self.result, self._actions.values()))
        if any(result.result in (CHANGED, UNCHANGED) for result in results):
            return results
        # Where there is no host key at all, sshd does not start: then a refused type is a failure.
        return [
            result._replace(result=FAILED)
            if result.refusal and result.refusal.reason is reasons.KEYGEN_REFUSED
            else result
            for result in results
        ]

    def result(self, action: Action) -> HostKeyResult:
        """What became of one."""
        file = action.file
        failure = self._failures.get(file)
        if file in self._later and not failure:
            failure = Refusal(reasons.HOST_KEY_PENDING, f"{file} is being made in the background")
        shown = self._shown(action)
        known = shown or action.found.public
        is_skipped = failure and failure.reason in (reasons.KEYGEN_REFUSED, reasons.HOST_KEY_PENDING)
        failed = SKIPPED if is_skipped else FAILED
        return HostKeyResult(
            action.type or (known.short_type if known else "unknown"),
            file,
            failed if failure else _RESULTS.get(action.kind, CHANGED),
            shown.fingerprint if shown else None,
            failure or action.refusal,
            shown.line if shown else None,
            shown.bits if shown else 0,
            () if failure else action.changes,
        )

    def _shown(self, action: Action) -> PublicKey | None:
        """The key that sshd has at that place now, as far as that is known."""
        if action.file in self._later:
            return None
        if action.file not in self._failures:
            return self._made.get(action.file) or (None if action.makes_a_key else action.found.public)
        # What came before a failed attempt is still there; what an attempt left behind is not known.
        return None if action.file in self._tried else action.found.public


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


def _comment(hostname: str) -> str:
    """The comment of a new key: root@HOSTNAME, as ssh-keygen -A writes it, or root (hostname(7))."""
    letters = hostname.replace("-", "").replace(".", "")
    is_name = letters.isascii() and letters.isalnum() and hostname[0].isalnum() and hostname[-1].isalnum()
    return f"root@{hostname}" if is_name and len(hostname) <= 64 else "root"


def _private_looks(site: Site, private: bytes, workshop: Directory) -> Looks:
    """0640 for the group ssh_keys where there is one and OpenSSH takes such a key, else 0600.

    Which of the two is right changed several times with OpenSSH's versions, so OpenSSH itself is the
    judge: of a copy of the key in `workshop`, a private directory.
    """
    if not keygen.is_root():
        return Looks(host_keys.PRIVATE_MODE)
    group = site.accounts.group_id(host_keys.KEY_GROUP)
    if group is not None:
        lent = Looks(host_keys.GROUP_MODE, (0, group))
        workshop.replace("judged", private, lent._replace(durable=False))
        if keygen.loads(f"{workshop.on_host}/judged"):
            return lent
    return Looks(host_keys.PRIVATE_MODE, (0, 0))


def _prove_writable(tree: Tree, file: str) -> None:
    """Raise FirstkeyError where a new key could not be put in place, before the work of making one."""
    place = tree.locate(file)
    if place is None:
        return
    with place[0] as directory:
        name = directory.temporary_name(place[1])
        directory.replace(name, b"", Looks(host_keys.PRIVATE_MODE, durable=False))
        directory.remove(name)


def _read(directory: Directory, name: str) -> tuple[bytes, bytes] | None:
    private, public = (directory.read(f"{name}{suffix}", limit=LIMIT) for suffix in ("", ".pub"))
    return (private.content, public.content) if private and public else None


# --- put in place, remove, repair -----------------------------------------------------------------


def _put_in_place(site: Site, pair: KeyPair) -> str | None:
    """Put a new pair in place; returns where the old private half was moved to, if it was kept.

    The old public half goes first, the new one comes last: a private half alone is a host key to sshd.
    """
    file = pair.action.file
    keeps = pair.action.kind == host_keys.BACK_UP
    backup = None
    directory, name = site.tree.place(file)
    with directory:
        directory.remove_stale()
        if keeps and directory.status(name):
            backup = directory.join(directory.set_aside(name, "broken"))
            # For whoever wants to look at it; root alone: half a private key is still a secret.
            directory.set_mode(os.path.basename(backup), host_keys.PRIVATE_MODE)
        _clear(site.tree, f"{file}.pub", keeps=keeps)
        directory.replace(name, pair.private, pair.looks._replace(label=_label(site, file)))
    _write_public_half(site, file, pair.public_line)
    return backup


def _clear(tree: Tree, path: str, *, keeps: bool) -> None:
    """Out of the way with one half, for good or under another name."""
    place = tree.locate(path)
    if place is None:
        return
    directory, name = place
    with directory:
        if keeps and directory.status(name):
            directory.set_aside(name, "broken")
        else:
            directory.remove(name, durable=True)


def _repair(site: Site, action: Action) -> None:
    """Repair mode and owner of a key that stays, and derive its public half if that is lost."""
    found = action.found
    if found.is_loose:
        directory, name = site.tree.place(action.file)
        with directory:
            directory.set_mode(name, host_keys.PRIVATE_MODE, (0, 0) if keygen.is_root() else None)
    if action.kind == host_keys.DERIVE and found.public:
        _write_public_half(site, action.file, _public_line(found.public))


def _write_public_half(site: Site, file: str, line: bytes) -> None:
    path = f"{file}.pub"
    directory, name = site.tree.place(path)
    with directory:
        directory.remove_stale()
        directory.replace(name, line, Looks(PUBLIC_MODE, label=_label(site, path)))


def _label(site: Site, path: str) -> str | None:
    return command.selinux_label(site.tree, path, "file")
