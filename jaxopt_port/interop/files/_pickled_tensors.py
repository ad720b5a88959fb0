"""Tensors in torch's pickles, as NumPy arrays over the memory of their storages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ._pickled_kinds import KINDS, ClassName, Deferred, Unread
from ._pickled_numpy import is_shape

# torch's name of a dtype.
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype(bool),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
}
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    # Of tensors that are quantized, which are left unread themselves.
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
_NO_DENSE = (
    "a tensor that is {} has no NumPy counterpart; make it dense first (to_dense() or dequantize())"
)


BytesOf: TypeAlias = Callable[[str, int], Any]


class Storage(Deferred):
    """The memory of tensors, which is found once all is read.

    Args:
        key: its name in the file.
        dtype: of its elements.
        count: how many it has, as the pickle says.
        bytes_of: returns its bytes by its key, of the number that is needed.
    """

    def __init__(self, key: str, dtype: np.dtype[Any], count: int, bytes_of: BytesOf) -> None:
        self.key, self.dtype, self.count = key, dtype, count
        self._bytes_of = bytes_of

    def bytes(self) -> NDArray[np.uint8]:
        """Return its memory.

        Raises:
            ValueError: the file has another number of bytes.
        """
        needed = self.count * self.dtype.itemsize
        data: NDArray[np.uint8] = np.frombuffer(self._bytes_of(self.key, needed), np.uint8)
        if data.size != needed:
            raise ValueError(
                f"the storage {self.key!r} has {data.size} bytes, and its tensors are made for "
                f"{needed} ({self.count} of {self.dtype})"
            )
        return data

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        return self.bytes().view(self.dtype)


def storage_of(identifier: Any, bytes_of: BytesOf) -> Storage:
    """Return the storage that torch's persistent identifier names."""
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise ValueError("its pickle refers to something that is no storage")
    kind, key, count = identifier[1], identifier[2], identifier[4]
    name = kind.name.rpartition(".")[2] if isinstance(kind, ClassName) else ""
    if name not in _STORAGES:
        raise ValueError(f"there is no storage {name or kind!r} here")
    if not isinstance(key, str) or type(count) is not int or not 0 <= count < 1 << 48:
        raise ValueError("its pickle has a storage of no name or no size")
    return Storage(key, DTYPES[_STORAGES[name]], count, bytes_of)


def arrays_of_module(value: Unread) -> dict[str, Any] | None:
    """Return the parameters and buffers of a whole module that was pickled; None for another."""
    own = value.attributes
    parts = [own.get(name) for name in ("_parameters", "_buffers", "_modules")]
    parameters, buffers, modules = parts
    if not (
        isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)
    ):
        return None
    passing = own.get("_non_persistent_buffers_set")
    left_out = set(passing) if isinstance(passing, list) else set()
    held = {**parameters, **{name: x for name, x in buffers.items() if name not in left_out}}
    arrays = {name: x for name, x in held.items() if isinstance(x, np.ndarray | Unread)}
    for name, inner in modules.items():
        if isinstance(inner, Unread):
            deeper = arrays_of_module(inner) or {}
            arrays |= {f"{name}.{key}": x for key, x in deeper.items()}
    return arrays


class Tensor(Deferred):
    """A tensor over a storage."""

    def __init__(
        self, storage: Storage, dtype: np.dtype[Any], offset: Any, shape: Any, strides: Any
    ) -> None:
        if not is_shape(shape) or not is_shape(strides) or len(shape) != len(strides):
            raise ValueError("its pickle has a tensor of no shape")
        if type(offset) is not int or offset < 0:
            raise ValueError(f"its pickle has a tensor that begins at {offset!r}")
        self._storage, self._dtype, self._offset = storage, dtype, offset
        self.shape, self._strides = tuple(shape), tuple(strides)
        self.conjugate = self.negative = False

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return int(math.prod(self.shape) * self._dtype.itemsize)

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        data, item = self._storage.bytes(), self._dtype.itemsize
        size = math.prod(self.shape)
        reach = sum((n - 1) * s for n, s in zip(self.shape, self._strides, strict=True))
        if size and (self._offset + reach + 1) * item > data.size:
            raise ValueError(
                f"a tensor of shape {self.shape} goes beyond its storage {self._storage.key!r}, "
                f"which has {data.size} bytes"
            )
        if not size:
            return np.empty(self.shape, self._dtype)
        flat = data[self._offset * item :]
        flat = flat[: flat.size // item * item].view(self._dtype)
        strides = [s * item for s in self._strides]
        array = np.lib.stride_tricks.as_strided(flat, self.shape, strides)
        array = np.conjugate(array) if self.conjugate else array
        array = np.negative(array) if self.negative else array
        # Other writers may place records anywhere.
        return array if array.flags.aligned else array.copy()


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    """``_rebuild_tensor_v2``; of an older one without the arguments that have no meaning here."""
    if not isinstance(storage, Storage):
        raise ValueError("its pickle has a tensor without a storage")
    made = Tensor(storage, storage.dtype, offset, shape, strides)
    marks = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
    made.conjugate, made.negative = bool(marks.get("conj")), bool(marks.get("neg"))
    return made


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, ClassName) else None
    if not isinstance(storage, Storage):
        raise ValueError("its pickle has a tensor without a storage")
    if name not in DTYPES:
        return Unread(f"a tensor of dtype {name}, which NumPy has not; cast it first", ())
    return Tensor(storage, DTYPES[name], offset, shape, strides)


def _same(tensor: Any, *_: Any) -> Any:
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A subclass, or a tensor with attributes: the values are its base's."""
    known = KINDS.get(function.name) if isinstance(function, ClassName) else None
    name = kind.name if isinstance(kind, ClassName) else "a subclass of Tensor"
    if name in KINDS and "DTensor" in name:
        return KINDS[name]()
    if known is None or not isinstance(arguments, tuple):
        return Unread(name, ())
    return known(*arguments)


def _unread(words: str) -> Callable[..., Any]:
    return lambda *_: Unread(words, ())


_REBUILT: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_of_dtype,
    "_rebuild_parameter": _same,
    "_rebuild_parameter_with_state": _same,
    "_rebuild_sparse_tensor": _unread(_NO_DENSE.format("sparse")),
    "_rebuild_sparse_csr_tensor": _unread(_NO_DENSE.format("sparse")),
    "_rebuild_qtensor": _unread(_NO_DENSE.format("quantized")),
    "_rebuild_nested_tensor": _unread(_NO_DENSE.format("nested")),
    "_rebuild_meta_tensor_no_storage": _unread(
        'a tensor on the "meta" device, which has no values'
    ),
    "_rebuild_wrapper_subclass": _unread(
        "a subclass of Tensor; save what it wraps (of a DTensor full_tensor()), or load it into "
        "torch's optimizer, and give that to optimizer_from_torch"
    ),
    "_rebuild_device_tensor_from_numpy": _same,
    "_rebuild_device_tensor_from_cpu_tensor": _same,
}
_DTENSOR = _unread(
    "a DTensor, of which each process has a part; save the whole: get_state_dict(model, optimizer, "
    "options=StateDictOptions(full_state_dict=True)), or a folder by torch.distributed.checkpoint"
)
for _place in ("tensor", "tensor._api", "_tensor", "_tensor.api"):
    KINDS[f"torch.distributed.{_place}.DTensor"] = _DTENSOR
KINDS.update({f"torch._utils.{name}": f for name, f in _REBUILT.items()})
KINDS["torch._tensor._rebuild_from_type_v2"] = _of_type
KINDS["torch.nn.parameter.Parameter"] = lambda data=None, *_: data
KINDS["torch.serialization._get_layout"] = lambda name="", *_: str(name)
