"""What NumPy's pickles name: arrays, scalars, dtypes, random states."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._pickled_kinds import KINDS, Deferred, Plain, Stated, Unread


class RandomState(Stated):
    """A random generator of NumPy's: the dict that says where it stands."""

    def build(self, state: Any) -> None:
        # That of a bit generator is a pair with its seed.
        self.held = state[0] if isinstance(state, tuple) and state else state


_CODE = re.compile(r"[?]|[biufcSUVMm]\d{0,9}|O8?")


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
        if not self._plain or self._code[0] in "OVMm":
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


def _scalar(dtype: Any, data: Any) -> Any:
    made = array_of_bytes(data, dtype, ())
    return made if made is NotImplemented else made.item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    made = array_of_bytes(data, dtype, shape, order)
    return made if made is NotImplemented else Plain(made)


def _of_generator(bit_generator: Any = None, *_: Any) -> Any:
    return bit_generator if isinstance(bit_generator, RandomState) else RandomState()


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray.scalar": _scalar,
    "multiarray._reconstruct": Array,
    "numeric._frombuffer": _from_buffer,
}

_CORES = {f"numpy.{core}.{name}": f for core in ("core", "_core") for name, f in _NUMPY.items()}
KINDS.update(_CORES)
KINDS["numpy.dtype"] = DType
KINDS["numpy.random._pickle.__randomstate_ctor"] = _of_generator
KINDS["numpy.random._pickle.__generator_ctor"] = _of_generator
KINDS["numpy.random._pickle.__bit_generator_ctor"] = lambda *_: RandomState()
