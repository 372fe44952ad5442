"""Our named tuples are typing's in all that anybody can see but the price."""

from __future__ import annotations

import typing

import pytest

from firstkey import NamedTuple


class Ours(NamedTuple):
    """What it is for."""

    name: str
    number: int = 3
    """What a field is for."""
    parts: tuple[str, ...] = ()

    @property
    def doubled(self) -> int:
        """Twice the number."""
        return self.number * 2

    @classmethod
    def of(cls, name: str) -> Ours:
        """One of that name."""
        return cls(name)


class Theirs(typing.NamedTuple):
    """What it is for."""

    name: str
    number: int = 3
    parts: tuple[str, ...] = ()


def test_it_is_a_tuple_with_names() -> None:
    """Fields in their order, the defaults, and what named tuples do."""
    made = Ours("x", parts=("y",))
    assert isinstance(made, tuple)
    assert list(made) == ["x", 3, ("y",)] == list(Theirs("x", parts=("y",)))
    assert made._replace(number=4).doubled == 8
    assert Ours.of("z") == Ours("z", 3, ())
    assert repr(made) == repr(Theirs("x", parts=("y",))).replace("Theirs", "Ours")
    assert made._asdict() == {"name": "x", "number": 3, "parts": ("y",)}


@pytest.mark.parametrize("attribute", ["_fields", "_field_defaults", "__doc__", "__module__", "__mro__"])
def test_the_class_is_like_one_of_typing(attribute: str) -> None:
    """What a reader of the class, a debugger or pickle looks at."""
    ours, theirs = (getattr(each, attribute) for each in (Ours, Theirs))
    if attribute == "__mro__":
        ours, theirs = ours[1:], theirs[1:]
    assert ours == theirs
    assert Ours.__qualname__ == "Ours"
    assert list(Ours.__annotations__) == list(Theirs.__annotations__)


def test_what_cannot_be_is_refused() -> None:
    """An argument that is missing or unknown, and a field that would hide what a tuple has."""
    with pytest.raises(TypeError):
        Ours()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Ours("x", nothing=1)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Ours("x").name = "y"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ours("x").more = "y"  # type: ignore[attr-defined]
