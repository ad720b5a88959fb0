"""What a pickle may name, and the plain value that is made of it; all else is `Unread`."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.items: list[Any] = []

    def build(self, state: Any) -> None:
        self.state = state

    def extend(self, items: list[Any]) -> None:
        self.items += items

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append(value)

    def children(self) -> list[Any]:
        return [self.state]

    def finish(self, finished: Callable[[Any], Any]) -> Any:
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


class Attributes(Deferred):
    """An object of which only the attributes matter: ``argparse.Namespace``."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"its pickle has attributes that are {type(state).__name__}")
        self.held = state

    def children(self) -> list[Any]:
        return [self.held]

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return finished(self.held)


class RandomState(Deferred):
    """A random generator of NumPy's: the dict that says where it stands."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def build(self, state: Any) -> None:
        # That of a bit generator is a pair with its seed.
        self.held = state[0] if isinstance(state, tuple) and state else state

    def children(self) -> list[Any]:
        return [self.held]

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return finished(self.held)


_CODE = re.compile(r"[?]|[biufcSUV]\d{0,9}|O8?")


class DType(Deferred):
    """A NumPy dtype: by its name where it stands alone."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError(f"its pickle has a dtype {code!r}")
        self._code, self._order, self._plain = code, "", True

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("its pickle has a dtype whose state is none")
        self._order = state[1]
        self._plain = state[2] is None and state[3] is None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """None for a dtype of objects, of dates or of records."""
        if not self._plain or self._code[0] in "OV":
            return None
        return np.dtype(self._order.replace("|", "") + self._code)

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return Unread("numpy.dtype", ()) if self.dtype is None else self.dtype.name


class Array(Deferred):
    """A NumPy array: its state follows."""

    def __init__(self, *_: Any) -> None:
        self._made: Any = Unread("numpy.ndarray", ())

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("its pickle has an array whose state is none")
        _, shape, dtype, fortran, data = state
        made = array_of_bytes(data, dtype, shape, "F" if fortran else "C")
        self._made = Unread("numpy.ndarray of objects", ()) if made is NotImplemented else made

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return 0 if isinstance(self._made, Unread) else int(self._made.nbytes)

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        made = self._made
        # No file has a place for texts but lists.
        return made.tolist() if isinstance(made, np.ndarray) and made.dtype.kind in "SU" else made


def array_of_bytes(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    """Return the array in bytes, or NotImplemented where its elements are objects."""
    kind = dtype.dtype if isinstance(dtype, DType) else None
    if kind is None:
        return NotImplemented
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray) or not is_shape(shape) or order not in ("C", "F"):
        raise ValueError("its pickle has an array of no bytes, or of no shape")
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"its pickle has {len(data)} bytes for an array {kind} of shape {shape}")
    made: NDArray[Any] = np.frombuffer(data, kind).reshape(shape, order=order)
    return np.array(made, made.dtype.newbyteorder("="))


def is_shape(shape: Any) -> bool:
    """Whether a value is the shape of an array that may be."""
    return (
        isinstance(shape, tuple | list)
        and len(shape) <= 32
        and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    )


class _Frozen(Deferred):
    """A value that is there already."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.nbytes = int(getattr(value, "nbytes", 0))

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return self._value


def _scalar(dtype: Any, data: Any) -> Any:
    made = array_of_bytes(data, dtype, ())
    return made if made is NotImplemented else made.item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    made = array_of_bytes(data, dtype, shape, order)
    return made if made is NotImplemented else _Frozen(made)


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


def _nothing(*_: Any) -> Any:
    return None


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


def _of_generator(bit_generator: Any = None, *_: Any) -> Any:
    return bit_generator if isinstance(bit_generator, RandomState) else RandomState()


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray.scalar": _scalar,
    "multiarray._reconstruct": Array,
    "numeric._frombuffer": _from_buffer,
}
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")

# By the name that the pickle has: a function of the arguments that it has, NotImplemented where
# they are not such as are known.
KINDS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.{name}": f for core in ("core", "_core") for name, f in _NUMPY.items()},
    "numpy.dtype": DType,
    "numpy.random._pickle.__randomstate_ctor": _of_generator,
    "numpy.random._pickle.__generator_ctor": _of_generator,
    "numpy.random._pickle.__bit_generator_ctor": lambda *_: RandomState(),
    "argparse.Namespace": Attributes,
    "types.SimpleNamespace": Attributes,
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
    "torch._C.Generator": _nothing,
}
