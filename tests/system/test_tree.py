"""A tree: every path stays inside it, and goes only through links that nobody but root could have placed."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import processes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey import reasons
from firstkey.reasons import FirstkeyError, Reason
from firstkey.system import walk
from firstkey.system.tree import MAXIMUM_LINKS, Tree

LIMIT = 1 << 20
STRANGER = 64101


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a file in it, and one beside it that nothing in the tree may reach."""
    made = tmp_path / "root"
    (made / "etc" / "sub").mkdir(parents=True)
    (made / "etc" / "file").write_bytes(b"inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "file").write_bytes(b"OUTSIDE")
    return made


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    """The same tree, open."""
    with Tree(str(root)) as opened:
        yield opened


def refusal(tree: Tree, path: str) -> Reason:
    """Why the directory cannot be opened."""
    with pytest.raises(FirstkeyError) as caught:
        tree.open(path)
    return caught.value.reason


@pytest.mark.parametrize(
    "path",
    [
        "/etc/file", "etc/file", "//etc//file", "/./etc/./file", "/etc/sub/../file", "/../etc/file",
        "/../../../../etc/file", "/etc/../../etc/file", "/absolute/file", "/climbing/file", "/up/up/etc/file",
        "/twice/file", "/etc/link", "/etc/dots",
    ],
)  # fmt: skip
def test_every_path_stays_inside(root: Path, tree: Tree, path: str) -> None:
    """At the root `..` is the root, and an absolute link begins there, as for a chrooted process."""
    (root / "absolute").symlink_to("/etc")
    (root / "climbing").symlink_to("../../../../etc")
    (root / "up").symlink_to("..")
    (root / "twice").symlink_to("/absolute")
    (root / "etc" / "link").symlink_to("/etc/file")
    (root / "etc" / "dots").symlink_to("../../../etc/file")
    assert tree.read(path, limit=LIMIT) == b"inside"


NAMES = ("a", "b", "c")
PLACES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map("/".join)
PATHS = st.lists(st.sampled_from((*NAMES, "..", ".", "")), min_size=1, max_size=6).map("/".join)
TARGETS = st.tuples(st.sampled_from(("", "/")), PATHS).map("".join).filter(bool)


@pytest.mark.root
@given(st.dictionaries(PLACES, st.one_of(st.none(), TARGETS), max_size=6), PATHS)
@pytest.mark.slow
def test_it_resolves_as_the_kernel_does_for_a_chrooted_process(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, str | None], path: str
) -> None:
    """Whatever directories and links there are: the same directory, or none for both."""
    root = tmp_path_factory.mktemp("root")
    for place, target in made.items():
        match = root / place
        if match.parent.is_dir() and not match.parent.is_symlink() and not os.path.lexists(match):
            match.mkdir() if target is None else match.symlink_to(target)

    def chrooted() -> bytes:
        os.chroot(root)
        os.chdir("/")
        try:
            return b"%d" % os.stat(path or "/").st_ino if os.path.isdir(path or "/") else b"none"
        except OSError:
            return b"none"

    with Tree(str(root)) as tree:
        try:
            found = tree.open(path)
        except FirstkeyError:
            found = None
        ours = b"none"
        if found:
            with found:
                ours = b"%d" % os.fstat(found.fd).st_ino
    assert ours == processes.in_child(chrooted)


def test_what_is_missing_is_none_and_what_is_no_directory_is_refused(root: Path, tree: Tree) -> None:
    """A missing part, a dangling link and a name that no file can have are all the same absence."""
    (root / "dangling").symlink_to("/nowhere/at/all")
    for path in ("/none", "/none/x", "/dangling", "/dangling/x", "/\0/x"):
        assert tree.open(path) is None
        assert tree.read(path, limit=LIMIT) is None
        assert not tree.exists(f"{path}/x")
    os.mkfifo(root / "fifo")
    for path in ("/etc/file", "/etc/file/x", "/fifo", "/fifo/.."):
        assert refusal(tree, path) is reasons.NOT_A_DIRECTORY
        assert not tree.exists(f"{path}/x")
    assert tree.names("/none") == []


def test_links_that_go_round_end(root: Path, tree: Tree) -> None:
    """A loop and a chain that is too long are refused; one of the kernel's length is walked."""
    (root / "loop").symlink_to("loop")
    (root / "one").symlink_to("/two")
    (root / "two").symlink_to("/one/x")
    for path in ("/loop", "/loop/x", "/one", "/two"):
        assert refusal(tree, path) is reasons.SYMLINK_REFUSED
    with pytest.raises(FirstkeyError):
        tree.read("/loop", limit=LIMIT)
    (root / "link0").symlink_to("/etc")
    for number in range(1, MAXIMUM_LINKS + 1):
        (root / f"link{number}").symlink_to(f"/link{number - 1}")
    tree.opened(f"/link{MAXIMUM_LINKS - 1}").__exit__()
    assert refusal(tree, f"/link{MAXIMUM_LINKS}") is reasons.SYMLINK_REFUSED


@pytest.mark.root
@pytest.mark.parametrize("link", ["home", "home/user", "home/user/.ssh"])
def test_a_strangers_link_is_refused_wherever_it_stands(root: Path, tree: Tree, link: str) -> None:
    """A user who owns a link could aim it anywhere. Root's own link is walked."""
    real = root / "real"
    (real / "user" / ".ssh" / "sub").mkdir(parents=True)
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to("/" + link.replace("home", "real", 1))
    tree.opened("/home/user/.ssh/sub").__exit__()
    os.chown(root / link, STRANGER, STRANGER, follow_symlinks=False)
    assert refusal(tree, "/home/user/.ssh/sub") is reasons.SYMLINK_REFUSED
    with pytest.raises(FirstkeyError, match=f"user {STRANGER}"):
        tree.ensure("/home/user/.ssh/sub/new", mode=0o700)
    assert os.listdir(real / "user" / ".ssh" / "sub") == []


@pytest.mark.root
def test_a_strangers_link_at_the_end_of_a_path_is_refused(root: Path, tree: Tree) -> None:
    """A configuration file that is a user's link is not read; one that is root's is."""
    (root / "etc" / "conf").symlink_to("/etc/file")
    assert tree.read("/etc/conf", limit=LIMIT) == b"inside"
    os.chown(root / "etc" / "conf", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(FirstkeyError) as caught:
        tree.read("/etc/conf", limit=LIMIT)
    assert caught.value.reason is reasons.SYMLINK_REFUSED


@pytest.mark.root
def test_a_user_reads_through_roots_links_too() -> None:
    """A link that is root's is walked by a process with a user's rights, whose real uid is root's."""

    def work() -> bytes:
        os.seteuid(STRANGER)
        with Tree("/") as host:
            return b"yes" if host.exists("/proc/self/stat") else b"no"

    assert processes.in_child(work) == b"yes"


def test_only_what_masks_reads_as_empty(root: Path, tree: Tree) -> None:
    """A link to /dev/null masks a file of the configuration, as in systemd; no device is opened for it."""
    (root / "etc" / "masked").symlink_to("/dev/null")
    (root / "etc" / "twice").symlink_to("masked")
    assert tree.read("/etc/masked", limit=LIMIT) == b""
    assert tree.read("/etc/twice", limit=LIMIT) == b""
    (root / "dev").mkdir()
    (root / "dev" / "null").write_bytes(b"not really")
    assert tree.read("/etc/masked", limit=LIMIT) == b""


def test_directories_are_made_with_their_modes(root: Path, tree: Tree) -> None:
    """The last one with the mode asked for, its missing parents with 0755; what is there stays as it is."""
    (root / "etc").chmod(0o711)
    before = os.umask(0o077)
    try:
        tree.ensure("/etc/a/b/c", mode=0o700).__exit__()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE((root / "etc" / path).stat().st_mode) for path in (".", "a", "a/b", "a/b/c")}
    assert modes == {".": 0o711, "a": 0o755, "a/b": 0o755, "a/b/c": 0o700}


@pytest.mark.parametrize("kind", ["file", "fifo", "socket", "dangling"])
def test_nothing_is_made_in_place_of_something_else(root: Path, tree: Tree, kind: str) -> None:
    """What stands where a directory belongs is left standing."""
    match = root / "spot"
    if kind == "file":
        match.write_bytes(b"x")
    elif kind == "fifo":
        os.mkfifo(match)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as channel:
            channel.bind(str(match))
    else:
        match.symlink_to("nowhere")
    expected = reasons.SYMLINK_REFUSED if kind == "dangling" else reasons.NOT_A_DIRECTORY
    before = match.lstat()
    with pytest.raises(FirstkeyError) as caught:
        tree.ensure("/spot/new", mode=0o700)
    assert caught.value.reason is expected
    assert match.lstat() == before
    assert not (root / "nowhere").exists()


def test_writing_replaces_a_link_and_does_not_follow_it(root: Path, tree: Tree) -> None:
    """The name holds the file afterwards; what the link led to, in or out of the tree, is as it was."""
    (root / "etc" / "link").symlink_to(root.parent / "etc" / "file")
    tree.write("/etc/link", b"new", mode=0o600)
    assert not (root / "etc" / "link").is_symlink()
    assert (root / "etc" / "link").read_bytes() == b"new"
    assert (root.parent / "etc" / "file").read_bytes() == b"OUTSIDE"


def test_where_a_path_leads_in_the_end(root: Path, tree: Tree) -> None:
    """Links at its end are followed inside the tree, to a file that need not be there."""
    (root / "etc" / "link").symlink_to("/etc/sub/target")
    place, directory = tree.locate("/etc/link")
    assert directory
    with directory:
        assert (directory.on_host, place) == (str(root / "etc" / "sub"), "/etc/sub/target")
    assert tree.locate("/none/at/all") == ("/none/at/all", None)


def test_what_a_path_leads_to_is_told_by_its_real_path(root: Path, tree: Tree) -> None:
    """Links on the way are resolved, those at the end are named, and none leads out."""
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "file").write_text("x")
    (root / "way").symlink_to("/real")
    (root / "real" / "second").symlink_to("deep/../file")
    (root / "first").symlink_to("../../way/second")
    (root / "back").symlink_to("real/deep/..")
    (root / "masked").symlink_to("/dev/null")
    (root / "outside").symlink_to("/etc/passwd")
    found = walk.follow(tree, "/first")
    assert found
    assert (found.path, found.links) == ("/real/file", ("/first", "/real/second"))
    assert found.status.st_ino == (root / "real" / "file").stat().st_ino
    back = walk.follow(tree, "/back")
    assert back
    assert (back.path, back.links) == ("/real", ("/back",))
    assert [walk.follow(tree, path) for path in ("/masked", "/outside", "/none", "/none/below")] == [None] * 4
    (root / "round").symlink_to("round")
    with pytest.raises(FirstkeyError, match="goes round"):
        walk.follow(tree, "/round")


@pytest.mark.root
def test_a_users_link_leads_only_to_what_is_that_users(root: Path, tree: Tree) -> None:
    """Else anybody could aim at another's file what root does to their own; to nothing it may lead."""
    for name in ("own", "another"):
        (root / name).write_text("x")
        (root / f"to-{name}").symlink_to(name)
        os.chown(root / f"to-{name}", 1000, 1000, follow_symlinks=False)
    os.chown(root / "own", 1000, 1000)
    (root / "to-nothing").symlink_to("/dev/null")
    os.chown(root / "to-nothing", 1000, 1000, follow_symlinks=False)
    own = walk.follow(tree, "/to-own")
    assert own
    assert own.path == "/own"
    assert walk.follow(tree, "/to-nothing") is None
    with pytest.raises(FirstkeyError, match="user's link"):
        walk.follow(tree, "/to-another")


def test_the_root_itself_may_be_reached_by_a_link(root: Path) -> None:
    """`--root` is the caller's own word."""
    link = root.parent / "link"
    link.symlink_to(root)
    with Tree(str(link)) as tree:
        assert tree.read("/etc/file", limit=LIMIT) == b"inside"
        assert not tree.is_running_system
    with Tree("/") as host:
        assert host.is_running_system
    with pytest.raises(FirstkeyError) as caught:
        Tree(str(root / "none"))
    assert str(root / "none") in caught.value.message


def test_a_directory_one_may_only_pass_through(root: Path) -> None:
    """Without the right to list it (a home with 0711), what is in it is found all the same."""
    for above in root.parents:
        if above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode | 0o111)
    (root / "etc").chmod(0o711)

    def work() -> bytes:
        if os.geteuid() == 0:
            os.setgid(STRANGER)
            os.setuid(STRANGER)
        with Tree(str(root)) as tree:
            content = tree.read("/etc/file", limit=LIMIT)
            try:
                tree.names("/etc")
            except FirstkeyError as error:
                return b"%s %s" % (content, error.reason.code.encode())
        return b"listed"

    if os.geteuid() != 0:
        (root / "etc").chmod(0o311)
    assert processes.in_child(work) == b"inside permission-denied"


def test_nothing_stays_open(root: Path, tree: Tree) -> None:
    """Good or bad, deep or linked, a walk closes all that it opened."""
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to("/etc/sub")
    deep = "/".join(["d"] * 60)
    tree.ensure(deep, mode=0o755).__exit__()
    before = os.listdir("/proc/self/fd")
    for path in ("/etc", "/link", "/loop", "/none", "/etc/file", deep, f"{deep}/none", "/link/../../.."):
        for attempt in (tree.names, tree.exists, lambda path: tree.read(path, limit=3)):
            with suppress(FirstkeyError):
                attempt(path)
    assert os.listdir("/proc/self/fd") == before
