"""Looking at a tree that firstkey did not make: in a box, out of which nothing comes but values."""

from __future__ import annotations

import argparse
import difflib  # noqa: F401 - as below
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from firstkey import display, events  # noqa: F401 - as below
from firstkey.boot.target import Target
from firstkey.cli import common, overrides, render, streams, timeline  # noqa: F401 - what is imported late, but in a box
from firstkey.system import accounts, boxed, inspector
from firstkey.system.boxed import Inside
from firstkey.system.tree import Tree, resolved
from firstkey.text import visible

Log = Callable[[events.Entry], None]
OnReport = Callable[[str, Any], None]

EVENT, OUTPUT, COMPLAINTS = "event", "output", "complaints"


class Looker:
    """Looks at the tree that the options name, as often as it is asked to. `log` gets its events."""

    def __init__(self, args: argparse.Namespace, log: Log) -> None:
        self._args = args
        self._log = log
        self.root = resolved(args.root)
        self._said: set[str] = set()
        overrides.adapt_remedies(args)
        args.named = overrides.named_configuration(args)  # a file of the host's, not of the tree's

    def look(self, works: Sequence[Callable[[Target, Inside], Any]], on_report: OnReport) -> list[Any]:
        """Do each of the works in a box, and return what they return. `on_report` gets a kind, and a value.

        Raises what one raised, if that was a FirstkeyError, and boxed.Overrun where it did not end well.
        """

        def on_target(work: Callable[[Target, Inside], Any], inside: Inside, log: Log) -> Any:  # noqa: ANN401
            with Tree(self.root, at=inside.tree) as tree:
                return work(common.target_of(tree, self._args, log), inside)

        return self._boxes([partial(on_target, work) for work in works], on_report)

    def run(self, main: Callable[[argparse.Namespace, Log], int], printed: OnReport) -> int:
        """Run a command in a box; returns its exit status. `printed` gets what it said by then."""

        def boxed_main(inside: Inside, log: Log) -> int:
            common.boxed_tree.append(lambda: Tree(self.root, at=inside.tree))
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            try:
                return main(self._args, log)
            finally:
                inside.report([OUTPUT, sys.stdout.getvalue()])
                inside.report([COMPLAINTS, sys.stderr.getvalue()])

        return int(self._boxes([boxed_main], printed)[0]) & 0xFF

    def _boxes(self, works: Sequence[Callable[[Inside, Log], Any]], on_report: OnReport) -> list[Any]:
        def begun(work: Callable[[Inside, Log], Any], inside: Inside) -> Any:  # noqa: ANN401 - as below
            def log(entry: events.Entry) -> None:
                inside.report([EVENT, [entry.event.name, entry.fields]])

            if inside.missing:
                log(events.BOX_INCOMPLETE(detail="; ".join(inside.missing)))
            return work(inside, log)

        def listen(reported: Any) -> None:  # noqa: ANN401 - as above
            kind, value = reported
            if kind != EVENT:
                on_report(str(kind), value)
                return
            name, fields = value
            entry = events.ALL[str(name)](**{str(key): str(text) for key, text in fields.items()})
            if entry.message not in self._said:  # what it looks at again, it says again
                self._said.add(entry.message)
                self._log(entry)

        questions: dict[str, Callable[..., Any]] = {"nss": accounts.nss} if self.root == "/" else {}
        questions |= {"find": inspector.answer_find, "program": inspector.answer_program}
        if hasattr(self._args, "wait"):  # the metadata service needs no tree, and a box has no network
            from firstkey.metadata import crossing

            questions["imds"] = partial(crossing.answer, log=self._log, named=overrides.endpoints(self._args))
        boxes = [partial(begun, work) for work in works]
        return boxed.look(boxes, root=self.root, questions=questions, on_report=listen)


def command(args: argparse.Namespace, main: Callable[[argparse.Namespace, Log], int]) -> int:
    """Run a command that only looks: in a box, where it looks at another tree than the running system.

    Returns its exit status. `main` opens the system by `common.opened` and prints, wherever it runs.
    """
    log = common.logger(args)
    if resolved(args.root) == "/":
        return main(args, log)
    common.tree_at(args.root).__exit__()

    def printed(kind: str, text: str) -> None:
        lines = str(text).removesuffix("\n").split("\n") if text else []
        if kind == COMPLAINTS:
            streams.complain(*lines)
        elif getattr(args, "json", False):
            streams.put(sys.stdout, "".join(f"{visible(line)}\n" for line in lines))
        else:
            streams.show(*lines)

    return Looker(args, log).run(main, printed)
