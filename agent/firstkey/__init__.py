"""firstkey: the first SSH access to a fresh EC2 instance, and images clean enough to share."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]
__version__ = (
    "0.9.0"  # the one source: pyproject.toml, the spec and the Debian changelog are held to it by a test
)

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Maker(type):
        """Makes the class of tuples that a class's body describes."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024
            for attribute in body.keys() - fields.keys():
                setattr(made, attribute, body[attribute])
            return made

    class NamedTuple(metaclass=_Maker):
        """A tuple whose items have names, as typing.NamedTuple makes it, at a third of its price.

        A command has some sixty of them, made anew each time it starts. typing.NamedTuple compiles the
        annotation of each field, to see whether it could be a type: together that takes half as long as
        Python's own start. Annotations are the type checker's business, which sees the original here.
        """
