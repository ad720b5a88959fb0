"""What a pickle may name, and the plain value that is made of it; all else is `Unread`."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class Deferred:
    """Something whose value is known when all has been read."""

    nbytes = 0

    def build(self, state: Any) -> None:
        """Take what the pickle sets as its state."""

    def children(self) -> list[Any]:
        """Return what it holds of other values."""
        return []

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        """Return the value."""
        return self


class ClassName(Deferred):
    """A class or function that a pickle names, and that is not looked up."""

    def __init__(self, name: str) -> None:
        self.name = name

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return self.name if _DTYPE.fullmatch(self.name) else Unread(self.name, ())


_DTYPE = re.compile(r"torch\.((b?float|complex|u?int)\d+(_\w+)?|bool)")


class Unread(Deferred):
    """An object that would take code to make.

    Attributes:
        name: of its class or function.
        state: what the pickle says of it, unfinished.
        held: items of a subclass of list or dict, likewise; None for none.
    """

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.held: Any = None

    def build(self, state: Any) -> None:
        self.state = state

    def extend(self, items: list[Any]) -> None:
        self._held_as(list).extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._held_as(dict)[key] = value

    def _held_as(self, kind: type[Any]) -> Any:
        self.held = kind() if self.held is None else self.held
        if not isinstance(self.held, kind):
            raise ValueError(f"its pickle has a {self.name} that is both a list and a dict")
        return self.held

    def children(self) -> list[Any]:
        return [self.state, self.held]

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        if self.held and not self.arguments:  # of a subclass of dict or list, what it holds
            return finished(self.held)
        plain = all(isinstance(x, str | int | float) for x in self.arguments)
        made = Unread(self.name, self.arguments if plain else ())
        made.state = finished(self.state)
        return made

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes, where they are plain."""
        return self.state if isinstance(self.state, dict) else {}

    def __repr__(self) -> str:
        return f"<{self.name}, not read>"


class Stated(Deferred):
    """An object of which only what is set as its state matters: ``torch.Generator``."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def build(self, state: Any) -> None:
        self.held = state

    def children(self) -> list[Any]:
        return [self.held]

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return finished(self.held)


class Attributes(Stated):
    """An object of which only the attributes matter: ``argparse.Namespace``."""

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"its pickle has attributes that are {type(state).__name__}")
        self.held = state


class Plain(Deferred):
    """A value that is there already: of an array that was read, or an object that stands for it."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.nbytes = int(getattr(value, "nbytes", 0))

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return self.value


def _encoded(text: Any, encoding: Any = "utf-8") -> Any:
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8", "ascii"):
        return NotImplemented
    return text.encode(encoding)


def _dict(items: Any = ()) -> Any:
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, list | tuple) or not all(_is_pair(item) for item in items):
        return NotImplemented
    return dict(items)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str | int)


def _counter(items: Any = None) -> Any:
    if items is not None and not (
        isinstance(items, dict) and all(isinstance(n, int) for n in items.values())
    ):
        return NotImplemented
    return Counter(items or {})


def _list(items: Any = (), *_: Any) -> Any:
    return list(items) if isinstance(items, list | tuple) else NotImplemented


def _tuple(items: Any = ()) -> Any:
    return tuple(items) if isinstance(items, list | tuple) else NotImplemented


def _path(*parts: Any) -> Any:
    return "/".join(parts).replace("//", "/") if _are_texts(parts) else NotImplemented


def _are_texts(parts: tuple[Any, ...]) -> bool:
    return all(isinstance(part, str) for part in parts)


def _text(*parts: Any) -> Any:
    return ":".join(map(str, parts)) if all(isinstance(p, str | int) for p in parts) else ""


def _complex(*parts: Any) -> Any:
    numbers = all(isinstance(part, int | float) for part in parts) and len(parts) <= 2
    return complex(*parts) if numbers else NotImplemented


def _of_time(cls: Any) -> Callable[..., Any]:
    def made(*parts: Any) -> Any:
        data = parts[0] if parts else None
        data = data.encode("latin1") if isinstance(data, str) else data
        if len(parts) != 1 or not isinstance(data, bytes):
            return NotImplemented  # with a time zone, which is an object
        return cls(data).isoformat()

    return made


def _bytes(data: Any = b"", *_: Any) -> Any:
    return bytes(data) if isinstance(data, bytes | bytearray) else NotImplemented


def _attribute(target: Any, name: Any = "") -> Any:
    """``getattr``, by which older pickles name the methods of a class."""
    if isinstance(target, ClassName) and isinstance(name, str):
        return ClassName(f"{target.name}.{name}")
    return NotImplemented


def _old_object(cls: Any, base: Any = None, state: Any = None) -> Any:
    """``copyreg._reconstructor``, by which protocols 0 and 1 make an object of a class."""
    if not isinstance(cls, ClassName):
        return NotImplemented
    kind = KINDS.get(cls.name)
    return Unread(cls.name, ()) if kind is None else kind()


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")

# By the name that the pickle has: a function of the arguments that it has, NotImplemented where
# they are not such as are known.
KINDS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": lambda: Attributes({}),
    "types.SimpleNamespace": lambda: Attributes({}),
    **{f"pathlib.{name}": _path for name in _PATHS},
    **{f"pathlib._local.{name}": _path for name in _PATHS},
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _counter,
    "collections.deque": _list,
    "builtins.dict": _dict,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _old_object,
    "_codecs.encode": _encoded,
    "datetime.datetime": _of_time(datetime.datetime),
    "datetime.date": _of_time(datetime.date),
    "torch.Size": _tuple,
    "torch.device": _text,
    "torch._C.Generator": lambda *_: Stated(),
    "torch.torch_version.TorchVersion": _text,
}
