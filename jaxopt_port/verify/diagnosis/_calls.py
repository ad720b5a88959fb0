"""Calls of torch functions, and the ways in which a port makes them otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Call:
    """A call of a torch function.

    Attributes:
        name: of the function.
        function: it.
        args: positional.
        options: by name.
        inner: the contracted size of the matrix product before it.
        masked: what the last ``masked_fill`` was given, and its mask.
    """

    name: str
    function: Any
    args: tuple[Any, ...]
    options: dict[str, Any]
    inner: int
    masked: Any = None

    def again(self, *args: Any, **options: Any) -> Any:
        """Call it with other first arguments, and other options."""
        return self.function(*args, *self.args[len(args) :], **{**self.options, **options})

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by place or by name."""
        return self.args[place] if len(self.args) > place else self.options.get(name, default)

    def put(self, place: int, name: str, value: Any) -> Any:
        """Call it with another value of an argument that may be given by place or by name."""
        if len(self.args) <= place:
            return self.again(**{name: value})
        return self.function(*self.args[:place], value, *self.args[place + 1 :], **self.options)


@dataclass(frozen=True)
class Way:
    """One way of calling torch's functions otherwise.

    Attributes:
        cause: its name.
        calls: the functions, by name.
        change: makes the call in that way; None leaves it as it is.
        words: what your side does.
        remedy: what would mend it.
        everywhere: whether a network has it at all such calls, or at none.
    """

    cause: str
    calls: tuple[str, ...]
    change: Callable[[Call], Any]
    words: str
    remedy: str
    everywhere: bool = False
