"""From files to settings: precedence, lists, warnings, and that no text does any harm."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.cli.config import describe
from firstkey.cli.overrides import configuration
from firstkey.config import Config, ConfigWarning, Origin, Source, load, read
from firstkey.reasons import ConfigError
from firstkey.settings import SETTINGS
from firstkey.system.tree import Tree

ETC, RUN, LOCAL, VENDOR = "etc/firstkey", "run/firstkey", "usr/local/lib/firstkey", "usr/lib/firstkey"


def of(*texts: str) -> Config:
    """The configuration that files /1, /2, ... with these texts make."""
    return read([Source(f"/{number}", text.encode()) for number, text in enumerate(texts, start=1)])


def warned(config: Config) -> list[tuple[str, int]]:
    """Where the warnings point."""
    return [(warning.origin.path, warning.origin.line) for warning in config.warnings]


# --- values ---------------------------------------------------------------------------------------


def test_every_setting_arrives_in_its_place() -> None:
    """One file that sets everything: no value is lost or mixed up with another."""
    config = of(
        "[IMDS]\nEndpoints=http://127.0.0.1:1 http://[::1]:2\nVersion=2\nTokenTTLSec=1h\n"
        "RequestTimeoutSec=500ms\nBootTimeoutSec=1min\n"
        "[Keys]\nUsers=deploy root\nRevoke=never\nRedirectRoot=yes\n"
        "[HostKeys]\nTypes=rsa ed25519\nRegenerate=never\nConsole=no\n"
        "[User deploy]\nCreate=yes\nGroups=wheel adm\nShell=/bin/sh\nSudo=ALL=(ALL) NOPASSWD: ALL\n"
        "AuthorizedKeysFile=/keys/%u\n"
        "[Image]\nPublisher=P\nContact=C\nDescription=D\n"
    )
    assert config.warnings == ()
    assert config.imds == (("http://127.0.0.1:1", "http://[::1]:2"), "2", 3600, 0.5, 60.0)
    assert config.keys == (("deploy", "root"), "never", True)
    assert config.host_keys == (("rsa", "ed25519"), ("rsa",), "never", False)
    deploy = ("deploy", True, ("wheel", "adm"), "/bin/sh", "ALL=(ALL) NOPASSWD: ALL", "/keys/%u")
    assert config.users == {"deploy": deploy}
    assert config.image == ("P", "C", "D")


def test_without_files_the_defaults_hold() -> None:
    """An image without any configuration works, and nobody gets an account or rights by default."""
    config = read([])
    assert config.imds == (("http://169.254.169.254", "http://[fd00:ec2::254]"), "auto", 21600, 2.0, 30.0)
    assert config.keys == (("root",), "previous-instance", False)
    assert config.host_keys == (("auto",), ("rsa",), "clones", True)
    assert config.image == ("", "", "")
    assert (config.users, config.warnings, config.origins) == ({}, (), {})
    assert config.user("anybody") == ("anybody", False, (), "/bin/bash", "", "")


def test_the_last_assignment_of_a_value_wins() -> None:
    """Within a file, over repeated sections, and over files."""
    assert of("[IMDS]\nVersion=1\nVersion=2\n").imds.version == "2"
    assert of("[IMDS]\nVersion=1\n[Keys]\n[IMDS]\nVersion=2\n").imds.version == "2"
    assert of("[IMDS]\nVersion=1\n", "[IMDS]\nVersion=2\n").imds.version == "2"


def test_assignments_of_a_list_add_up() -> None:
    """As systemd's lists do, over files too; the first one takes the default's place; none is there twice."""
    assert of("[Keys]\nUsers=a b\nUsers=c a\n").keys.users == ("a", "b", "c")
    assert of("[Keys]\nUsers=a\n", "[Keys]\nUsers=b\n").keys.users == ("a", "b")


@pytest.mark.parametrize(
    "lines, users",
    [
        ("Users=a\nUsers=", ("root",)),
        ("Users=a\nUsers=\nUsers=b", ("b",)),
        ("Users=", ("root",)),
        ("Users=a\nUsers=\nUsers=b@", ("root",)),
    ],
)
def test_an_empty_assignment_brings_the_default_back(lines: str, users: tuple[str, ...]) -> None:
    """What was said before no longer counts; what comes after it does."""
    assert of(f"[Keys]\n{lines}\n").keys.users == users


def test_no_users_at_all_is_a_mistake() -> None:
    """It gives root the launch keys, which the word that is left out does not say."""
    assert not of("[Keys]\nUsers=a\nUsers=\nUsers=b").warnings
    (warning,) = of("[Keys]\nUsers=a", "[Keys]\nUsers=").warnings
    assert str(warning) == "/2:2: Users= is empty; Users=root stands"


def test_an_empty_assignment_of_a_value_brings_its_default_back() -> None:
    """A drop-in can take back what the main file sets, and is named as the one that did."""
    config = of("[IMDS]\nBootTimeoutSec=5\n", "[IMDS]\nBootTimeoutSec=\n")
    assert config.imds.boot_timeout == 30
    assert config.origins["IMDS", "BootTimeoutSec"] == (Origin("/2", 2),)


@pytest.mark.parametrize(
    "lines, types, warnings",
    [
        ("Types=rsa\nTypes=auto", ("auto",), 0),
        ("Types=auto\nTypes=rsa\nTypes=ecdsa", ("rsa", "ecdsa"), 0),
        ("Types=auto rsa", ("rsa",), 1),
    ],
)
def test_auto_and_named_types_do_not_mix(lines: str, types: tuple[str, ...], warnings: int) -> None:
    """`auto` is the default by name, not one type among others."""
    config = of(f"[HostKeys]\n{lines}\n")
    assert config.host_keys.types == types
    assert len(config.warnings) == warnings


def test_a_users_sections_add_up() -> None:
    """Over several files, and however the blanks in the header are."""
    config = of("[Keys]\nUsers=x\n[User x]\nShell=/bin/sh\nGroups=a\n", "[ User   x ]\nGroups=b\n")
    assert config.users == {"x": config.user("x")}
    assert config.user("x")[2:4] == (("a", "b"), "/bin/sh")
    assert not config.warnings


# --- mistakes -------------------------------------------------------------------------------------


def test_a_bad_value_is_a_warning_and_the_earlier_one_stands() -> None:
    """The sentence says where, what is accepted, what was found and what stands instead."""
    config = of("[IMDS]\nVersion=2\n\nVersion=3\n[Keys]\nRevoke=soon\n")
    assert (config.imds.version, config.keys.revoke) == ("2", "previous-instance")
    assert [str(warning) for warning in config.warnings] == [
        "/1:4: Version= takes auto, 2 or 1, not '3'; Version=2 stands",
        "/1:6: Revoke= takes previous-instance or never, not 'soon'; Revoke=previous-instance stands",
    ]
    assert config.origins == {("IMDS", "Version"): (Origin("/1", 2),)}


def test_a_good_word_beside_a_bad_one_counts() -> None:
    """One mistyped user does not cost the others their keys."""
    config = of("[Keys]\nUsers=good b@d ALL fine\n")
    assert config.keys.users == ("good", "fine")
    assert warned(config) == [("/1", 2)]


@pytest.mark.parametrize("comment", ["# who gets the keys", "; who", "#who", "#"])
def test_a_comment_behind_a_list_names_nobody(comment: str) -> None:
    """Words of a misplaced comment do not become users, and the warning says what is wrong."""
    config = of(f"[Keys]\nUsers=admin {comment}\n")
    assert config.keys.users == ("admin",)
    assert "a comment needs a line of its own" in config.warnings[0].detail


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("[imds]\nVersion=1\n", 1, "there are [IMDS] [Keys] [HostKeys] [User NAME] [Image]"),
        ("[HostKey]\n", 1, "there are [IMDS] [Keys] [HostKeys]"),
        ("[Bogus]\nx=1\n", 1, "there is no section 'Bogus' (there are"),
        ("[Keys root]\n", 1, "there is no section 'Keys root' (there are"),
        ("[user deploy]\n", 1, "there is no section 'user deploy' (there are"),
        ("[User]\nCreate=yes\n", 1, "[User NAME] needs the name of one account"),
        ("[User a b]\nCreate=yes\n", 1, "[User NAME] needs the name of one account, not 'a b'"),
        ("[User ALL]\nCreate=yes\n", 1, "[User NAME] needs the name of one account"),
        ("[Keys]\nusers=a\n", 2, "there are Users Revoke RedirectRoot"),
        ("[Keys]\nUser=a\n", 2, "there are Users Revoke RedirectRoot"),
        ("[Keys]\nTypes=rsa\n", 2, "it belongs in [HostKeys]"),
        ("[Keys]\nzzzz=rsa\n", 2, "[Keys] has no setting 'zzzz' (there are Users"),
        ("[Keys]\nUsers root\n", 2, "is neither [SECTION] nor KEY=VALUE"),
        ("[Keys]\nUsers: root\n", 2, "is neither [SECTION] nor KEY=VALUE"),
        ("[Keys\n", 1, "is neither [SECTION] nor KEY=VALUE"),
        ("[User ghost]\nShell=/bin/sh\n", 1, "Users= in [Keys] does not name ghost"),
        ("[Keys]\n[User root]\nCreate=yes\n", 3, "Create=yes is ignored in [User root]"),
    ],
)
def test_each_mistake_is_one_warning_at_its_line(text: str, line: int, words: str) -> None:
    """And changes nothing."""
    config = of(text)
    assert warned(config) == [("/1", line)]
    assert words in config.warnings[0].detail
    assert config._replace(warnings=(), users={}, origins={}) == read([])
    assert all(user[1:3] == (False, ()) for user in config.users.values())


def test_a_warning_is_short_whatever_is_in_the_file() -> None:
    """Neither a long bad value nor a long good one before it makes a message that nobody can read."""
    config = of(f"[Keys]\nUsers={'good ' * 9}{' '.join(f'u{n}' for n in range(999))}\nUsers={'b@d ' * 999}\n")
    assert len(config.warnings) == 1
    assert len(str(config.warnings[0])) < 250


def test_warnings_come_to_an_end() -> None:
    """A file that is something else altogether neither floods the journal nor holds the boot."""
    start = time.monotonic()
    config = of("[Keys]\n" + "".join(f"Userz{number}=1\n" for number in range(5000)) + "Users=deploy\n")
    assert len(config.warnings) == 101
    more = "there are more mistakes from here on than are listed"
    assert config.warnings[-1] == ConfigWarning(Origin("/1", 102), more)
    assert config.keys.users == ("deploy",)
    assert time.monotonic() - start < 10


# --- no text does harm ----------------------------------------------------------------------------

GOOD = [
    ("Keys", "Users=deploy"),
    ("Keys", "Users=admin"),
    ("Keys", "Revoke=never"),
    ("IMDS", "Version=2"),
    ("IMDS", "Endpoints=http://127.0.0.1:80"),
    ("HostKeys", "Types=rsa"),
    ("HostKeys", "Console=no"),
    ("User deploy", "Groups=wheel"),
    ("User deploy", "Create=yes"),
    ("User admin", "Sudo=ALL=(ALL) ALL"),
    ("Image", "Publisher=P % # ; ["),
]
MISTAKES = rb"Usres=x|Users=b@d|Version=3|Version|=|:|Version : 1|]|%(x)s|Create=maybe|#x\|Shell=sh"
BAD = st.one_of(
    st.sampled_from([*MISTAKES.split(b"|"), b"Sudo=\x00", b"Revoke=\xff"]),
    st.binary(max_size=12).filter(lambda line: not re.search(rb"[\n\[=]|\\\r*$", line)),
)
PIECES = rb"[Keys]|[User root]|[IMDS]|[|]|Users|Create=|Sudo=|Types=|auto|BootTimeoutSec=|5|Endpoints="
FRAGMENTS = st.sampled_from(
    [
        *PIECES.split(b"|"),
        *(bytes([byte]) for byte in b"\n\r\t #;=\\%:\x00\xff"),
        b"\n",
        b"\xef\xbb\xbf",
        b"DEFAULT",
    ]
)


@given(texts=st.lists(st.one_of(st.binary(), st.lists(FRAGMENTS).map(b"".join)), max_size=3))
def test_no_text_whatsoever_raises(texts: list[bytes]) -> None:
    """Whatever is in the files, there is a configuration, and every warning and origin points into them."""
    sources = {f"/{number}": text for number, text in enumerate(texts)}
    config = read([Source(path, text) for path, text in sources.items()])
    assert config.keys.users
    origins = [origin for lines in config.origins.values() for origin in lines]
    for path, line in [warning.origin for warning in config.warnings] + origins:
        assert 1 <= line <= sources[path].count(b"\n") + 1
    assert all("\n" not in row.value for row in describe(config))


@given(
    good=st.lists(st.sampled_from(GOOD), max_size=8),
    bad=st.lists(st.tuples(st.integers(0, 16), BAD), max_size=6),
)
def test_a_bad_line_never_changes_what_a_good_one_says(
    good: list[tuple[str, str]], bad: list[tuple[int, bytes]]
) -> None:
    """Bad lines anywhere between good ones: the same settings, each from the line where it now stands."""
    clean = [line.encode() for section, setting in good for line in (f"[{section}]", setting)]
    dirty = list(clean)
    for place, line in bad:
        dirty.insert(min(place, len(dirty)), line)
    expected, config = (read([Source("/f", b"\n".join(lines))]) for lines in (clean, dirty))
    assert config._replace(warnings=(), origins={}) == expected._replace(warnings=(), origins={})
    assert {place: [dirty[line - 1] for _, line in lines] for place, lines in config.origins.items()} == {
        place: [clean[line - 1] for _, line in lines] for place, lines in expected.origins.items()
    }


# --- which files ----------------------------------------------------------------------------------


def drop_ins(listing: dict[str, list[str]]) -> list[str]:
    """The drop-ins that are read, in that order, out of such directories."""

    class Listing:
        def read(self, path: str, *, limit: int) -> bytes | None:
            assert limit
            return None if path.endswith("/firstkey.conf") else b"[Keys]\nUsers=a\n"

        def names(self, path: str) -> list[str]:
            return listing.get(path, [])

    return [origin.path for origin in load(Listing()).origins["Keys", "Users"]]


def test_drop_ins_are_sorted_by_name_and_earlier_directories_mask_later_ones() -> None:
    """As systemd has it, whatever the order in which a directory lists its names."""
    etc, run, lib = (f"/{where}/firstkey/firstkey.conf.d" for where in ("etc", "run", "usr/lib"))
    listing = {etc: ["20.conf", "10.conf"], run: ["15.conf", "20.conf"], lib: ["99.conf", "10.conf"]}
    assert drop_ins(listing) == [f"{etc}/10.conf", f"{run}/15.conf", f"{etc}/20.conf", f"{lib}/99.conf"]


def test_only_names_that_end_in_conf_are_drop_ins() -> None:
    """Editors' backups, package managers' leftovers and hidden files are none."""
    names = ["a.conf~", "a.conf.rpmnew", "a.conf.dpkg-old", ".a.conf", "a", ".conf", "a.conf", "README"]
    assert drop_ins({"/etc/firstkey/firstkey.conf.d": names}) == ["/etc/firstkey/firstkey.conf.d/a.conf"]


def loaded(root: Path, files: dict[str, str | None]) -> Config:
    """What is read from a tree with these files; None is a link to /dev/null."""
    (root / "dev").mkdir(exist_ok=True)  # every image has it; links to /dev/null lead there
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.symlink_to("/dev/null")
        else:
            path.write_text(text)
    with Tree(str(root)) as tree:
        return load(tree)


def users(*names: str) -> str:
    """A file's text that names these users."""
    return f"[Keys]\nUsers={' '.join(names)}\n"


def test_the_first_main_file_counts_alone(tmp_path: Path) -> None:
    """A file in /etc takes the place of the vendor's as a whole."""
    config = loaded(
        tmp_path,
        {
            f"{VENDOR}/firstkey.conf": users("vendor") + "[IMDS]\nVersion=1\n",
            f"{LOCAL}/firstkey.conf": users("local"),
            f"{RUN}/firstkey.conf": users("run"),
        },
    )
    assert (config.keys.users, config.imds.version) == (("run",), "auto")
    assert loaded(tmp_path, {f"{ETC}/firstkey.conf": users("etc")}).keys.users == ("etc",)


def test_drop_ins_of_all_directories_go_over_the_main_file(tmp_path: Path) -> None:
    """Also a vendor's drop-in over the administrator's main file, as with systemd."""
    config = loaded(
        tmp_path,
        {
            f"{ETC}/firstkey.conf": users("main") + "[IMDS]\nVersion=1\n",
            f"{VENDOR}/firstkey.conf.d/30-x.conf": users("c"),
            f"{ETC}/firstkey.conf.d/20-x.conf": users("b") + "[IMDS]\nVersion=2\n",
            f"{RUN}/firstkey.conf.d/10-x.conf": users("a"),
        },
    )
    assert (config.keys.users, config.imds.version) == (("main", "a", "b", "c"), "2")
    mains = [f"/{ETC}/firstkey.conf", f"/{RUN}/firstkey.conf.d/10-x.conf"]
    drop_ins = [f"/{ETC}/firstkey.conf.d/20-x.conf", f"/{VENDOR}/firstkey.conf.d/30-x.conf"]
    assert config.origins["Keys", "Users"] == tuple(Origin(path, 2) for path in (*mains, *drop_ins))


@pytest.mark.parametrize("mask", ["", None])
def test_an_empty_file_or_a_link_to_dev_null_masks(tmp_path: Path, mask: str | None) -> None:
    """Both the main file and a drop-in can be switched off from /etc."""
    config = loaded(
        tmp_path,
        {
            f"{VENDOR}/firstkey.conf": users("vendor"),
            f"{VENDOR}/firstkey.conf.d/10.conf": users("masked"),
            f"{VENDOR}/firstkey.conf.d/20.conf": users("stays"),
            f"{ETC}/firstkey.conf": mask,
            f"{ETC}/firstkey.conf.d/10.conf": mask,
        },
    )
    assert config.keys.users == ("stays",)
    assert not config.warnings


def test_what_cannot_be_read_is_a_warning_and_masks_all_the_same(tmp_path: Path) -> None:
    """A directory or a huge file in place of a configuration file keeps nobody out."""
    (tmp_path / ETC / "firstkey.conf").mkdir(parents=True)
    config = loaded(
        tmp_path,
        {
            f"{VENDOR}/firstkey.conf": users("vendor"),
            f"{ETC}/firstkey.conf.d/10.conf": "#" * 70000 + "\n" + users("huge"),
            f"{ETC}/firstkey.conf.d/20.conf": users("good"),
            f"{RUN}/firstkey.conf.d": "not a directory",
        },
    )
    assert config.keys.users == ("good",)
    assert set(warned(config)) == {
        (f"/{ETC}/firstkey.conf", 0),
        (f"/{ETC}/firstkey.conf.d/10.conf", 0),
        (f"/{RUN}/firstkey.conf.d", 0),
    }
    assert str(config.warnings[0]).startswith(f"/{ETC}/firstkey.conf: the file is ignored: ")


def test_a_named_file_stands_alone(tmp_path: Path) -> None:
    """--config FILE is all there is: neither the main file nor drop-ins count."""
    loaded(tmp_path, {f"{ETC}/firstkey.conf.d/10.conf": users("drop-in"), "my.conf": users("mine")})
    named = Namespace(root="/", config=str(tmp_path / "my.conf"), imds=None)
    with Tree(str(tmp_path)) as tree:
        assert configuration(tree, named).keys.users == ("mine",)


@pytest.mark.parametrize("name", ["/absent.conf", "/no/such/directory.conf", "/dir"])
def test_a_named_file_must_be_readable(tmp_path: Path, name: str) -> None:
    """Who names a file means it: going on without it would be a silent guess."""
    (tmp_path / "dir").mkdir()
    named = Namespace(root="/", config=f"{tmp_path}{name}", imds=None)
    with Tree(str(tmp_path)) as tree, pytest.raises(ConfigError, match=name) as caught:
        configuration(tree, named)
    assert caught.value.exit_status == 78


# --- showing --------------------------------------------------------------------------------------


def test_describe_shows_every_setting_and_where_it_comes_from() -> None:
    """One row for each setting of the table, those of a user for each user."""
    user = "[User deploy]\nGroups=a b\nCreate=on\n"
    config = of(f"[Keys]\nUsers=root deploy\n{user}[IMDS]\nRequestTimeoutSec=1500ms\n")
    rows = {(row.section, row.key): row[2:] for row in describe(config)}
    assert rows["IMDS", "RequestTimeoutSec"] == ("1.5", "2", (Origin("/1", 7),))
    assert rows["User deploy", "Create"] == ("yes", "no", (Origin("/1", 5),))
    assert rows["User deploy", "Groups"] == ("a b", "", (Origin("/1", 4),))
    assert rows["User root", "Shell"] == ("/bin/bash", "/bin/bash", ())
    assert len(rows) == len(SETTINGS) + 5


def test_what_is_shown_can_be_read_again() -> None:
    """Written to a file, the rows of `describe` make the same configuration."""
    first = of(
        "[Keys]\nUsers=x\nRedirectRoot=t\n[User x]\nAuthorizedKeysFile=~/k\n",
        "[HostKeys]\nTypes=rsa\n[IMDS]\nTokenTTLSec=1h\n",
    )
    text = "".join(f"[{row.section}]\n{row.key}={row.value}\n" for row in describe(first))
    assert of(text)._replace(origins={}) == first._replace(origins={})


def test_a_usual_boot_imports_no_parser() -> None:
    """The configuration as it is installed costs no import that a run does not make anyway."""
    vendor = Path(__file__).parent.parent / "packaging/firstkey.conf"
    program = (
        "import sys; from firstkey import config;"
        f"config.read([config.Source('/f', open({str(vendor)!r}, 'rb').read())]);"
        "config.settings.endpoint('http://[::1]:80');"
        "slow = {'configparser', 'difflib', 'socket', 'dataclasses', 'inspect', 'logging', 'typing'};"
        "print(*slow & set(sys.modules))"
    )
    agent = str(Path(__file__).parent.parent / "agent")
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {agent!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == ""
