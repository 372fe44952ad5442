"""Looking at a tree that firstkey did not make: in a box, out of which nothing comes but values."""

from __future__ import annotations

import difflib  # noqa: F401 - as below
import io
import sys
from typing import TYPE_CHECKING, Any

from firstkey import display, events  # noqa: F401 - as below
from firstkey.cli import common, overrides, render, streams, timeline  # noqa: F401 - what is imported late, but in a box
from firstkey.system import accounts, boxed, inspector
from firstkey.system.tree import Tree, resolved
from firstkey.text import visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from firstkey.boot.site import Site
    from firstkey.system.boxed import Inside

    Say = Callable[[events.Entry], None]
    Heard = Callable[[str, Any], None]

EVENT, MISSING, OUTPUT, COMPLAINTS = "event", "missing", "output", "complaints"


def ignored(_kind: str, _value: object) -> None:
    """Drop a value that the boxed process sends."""


class Looker:
    """Looks at the tree that the options name, as often as it is asked to. `say` hears the events of it."""

    def __init__(self, args: argparse.Namespace, say: Say) -> None:
        self._args = args
        self._say = say
        self.root = resolved(args.root)
        self._said: set[str] = set()
        args.named = overrides.named_configuration(args)  # a file of the host's, not of the tree's

    def look(self, work: Callable[[Site, Inside], Any], heard: Heard = ignored) -> Any:  # noqa: ANN401
        """Do `work` in a box, and return what it returns. `heard` gets what it sends: kind and value.

        Raises what `work` raised, if that was a FirstkeyError, and boxed.Overrun where it did not end well.
        """

        def on_site(inside: Inside, say: Say) -> Any:  # noqa: ANN401 - whatever JSON has
            with Tree(self.root, at=inside.tree) as tree:
                return work(common.site_of(tree, self._args, say), inside)

        return self._box(on_site, heard)

    def run(self, main: Callable[[argparse.Namespace, Say], int], printed: Heard) -> int:
        """Run a command in a box; returns its exit status. `printed` gets what it said by then."""

        def boxed_main(inside: Inside, say: Say) -> int:
            common.boxed_tree.append(lambda: Tree(self.root, at=inside.tree))
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            try:
                return main(self._args, say)
            finally:
                inside.tell([OUTPUT, sys.stdout.getvalue()])
                inside.tell([COMPLAINTS, sys.stderr.getvalue()])

        return int(self._box(boxed_main, printed)) & 0xFF

    def _box(self, work: Callable[[Inside, Say], Any], heard: Heard) -> Any:  # noqa: ANN401 - whatever JSON has
        def boxed_work(inside: Inside) -> Any:  # noqa: ANN401 - as above
            inside.tell([MISSING, list(inside.missing)])
            return work(inside, lambda entry: inside.tell([EVENT, [entry.event.name, entry.fields]]))

        def listen(told: Any) -> None:  # noqa: ANN401 - as above
            kind, value = told
            if kind == EVENT:
                self._event(value)
            elif kind == MISSING and value:
                self._event([events.BOX_INCOMPLETE.name, {"detail": "; ".join(map(str, value))}])
            elif kind != MISSING:
                heard(str(kind), value)

        return boxed.look(boxed_work, root=self.root, questions=self._questions(), heard=listen)

    def _event(self, value: Any) -> None:  # noqa: ANN401 - whatever JSON has
        """Say what the boxed process said, once; what it looks at again it says again."""
        name, fields = value
        entry = events.ALL[str(name)](**{str(key): str(text) for key, text in fields.items()})
        if entry.message not in self._said:
            self._said.add(entry.message)
            self._say(entry)

    def _questions(self) -> dict[str, Callable[..., Any]]:
        return {
            "find": inspector.answer_find,
            "program": inspector.answer_program,
            **({"nss": accounts.nss} if self.root == "/" else {}),
            **({"imds": self._ask_service} if hasattr(self._args, "wait") else {}),
        }

    def _ask_service(self, settings: list[Any], seconds: float) -> Any:  # noqa: ANN401 - as above
        """Ask the metadata service, which needs no tree, for a boxed process, which has no network."""
        from firstkey.metadata import crossing

        return crossing.answer(settings, seconds, self._say)


def command(args: argparse.Namespace, main: Callable[[argparse.Namespace, Say], int]) -> int:
    """Run a command that only looks: in a box, where it looks at another tree than the running system.

    Returns its exit status. `main` opens the system by `common.opened` and prints, wherever it runs.
    """
    say = common.voice(args)
    if resolved(args.root) == "/":
        return main(args, say)
    common.tree_at(args.root).__exit__()

    def printed(kind: str, text: str) -> None:
        lines = str(text).removesuffix("\n").split("\n") if text else []
        if kind == COMPLAINTS:
            streams.complain(*lines)
        elif getattr(args, "json", False):
            streams.put(sys.stdout, "".join(f"{visible(line)}\n" for line in lines))
        else:
            streams.show(*lines)

    return Looker(args, say).run(main, printed)
