"""A fault as the caller orders it: its kind, how much of it, and for which requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from firstkey.metadata.emulator.kinds import FAULTS, Delivery, Value
from firstkey.metadata.emulator.rules import Reply, Request, Settings


@dataclass(frozen=True)
class Fault:
    """One fault, as `FAULTS` lists them, limited or not. Raises ValueError for what cannot be.

    `value` is a number or text as its kind wants it, None for the kind's default. `first`: only
    the first so many of the requests that it concerns; None: all. `path`: only requests whose
    path starts like that.
    """

    name: str
    value: Value | None = None
    first: int | None = None
    path: str = ""

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"no fault is called {self.name!r}; there are: {', '.join(FAULTS)}")
        if not _passes(FAULTS[self.name].check, self.amount):
            raise ValueError(f"{self.amount!r} is no value for a fault; it is written: {usage(self.name)}")
        if self.first is not None and self.first < 1:
            raise ValueError(f"first={self.first} would be no fault at all; it starts with 1")
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"path={self.path} matches no request: paths start with /")
        if self.name == "refuse" and (self.first or self.path):
            raise ValueError("a refused connection brings no request, so first= and path= mean nothing")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault as the command line has it: `NAME[=VALUE][,first=N][,path=PREFIX]`."""
        head, *options = text.split(",")
        name, _, value = head.partition("=")
        limits = dict(option.partition("=")[::2] for option in options)
        first, path = limits.pop("first", None), limits.pop("path", "")
        if limits or (first is not None and not first.isdecimal()):
            raise ValueError(f"{text!r}: a fault is limited by ,first=N and ,path=PREFIX only")
        return cls(name, value or None, None if first is None else int(first), path)

    @property
    def amount(self) -> Value:
        """The value, or the kind's default."""
        return FAULTS[self.name].default if self.value is None else self.value

    def concerns(self, request: Request) -> bool:
        """Whether the request is one that this fault spoils, its `first` not yet considered."""
        return request.path.startswith(self.path) and FAULTS[self.name].concerns(request)


def usage(name: str) -> str:
    """How a fault is written on the command line: `delay=SECONDS`."""
    value = FAULTS[name].value
    return f"{name}={value}" if value else name


def changed(settings: Settings, faults: Iterable[Fault]) -> Settings:
    """The settings as the faults make the service see them."""
    for fault in faults:
        settings = FAULTS[fault.name].change(settings, fault.amount)
    return settings


def spoiled(reply: Reply, faults: Iterable[Fault]) -> Delivery:
    """The reply as the faults let it out, one after the other in the order of `FAULTS`."""
    delivery = Delivery(reply)
    for fault in sorted(faults, key=lambda fault: list(FAULTS).index(fault.name)):
        delivery = FAULTS[fault.name].spoil(delivery, fault.amount)
    return delivery


def refusal_time(faults: Iterable[Fault]) -> float:
    """For how many seconds connections are refused; infinite for ever, 0 not at all."""
    return max((float(fault.amount) for fault in faults if fault.name == "refuse"), default=0.0)


def _passes(check: Callable[[Value], bool], value: Value) -> bool:
    try:
        return check(value)
    except (ValueError, OverflowError):
        return False
