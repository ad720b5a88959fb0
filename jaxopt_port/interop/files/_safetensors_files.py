"""The safetensors format: a length, a JSON header, the bytes of each array.

Its own library is not needed to read it, and does not write all that is wanted here: its NumPy side
has no bfloat16 and no float8, tells of no progress and writes over the old file. This one streams
arrays from where they are, and maps those that it reads.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ._json_values import no_key_twice
from ._replaced_files import Progress, replacing

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the format's own limit


def format_dtype(array: NDArray[Any]) -> str | None:
    """Return the format's name for an array's dtype, None where it has none."""
    return _NAMES.get(array.dtype)


def write_tensors(
    path: Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write arrays and texts, in a stream, and move the file into place.

    Raises:
        TypeError: the format has no such dtype; all such arrays are listed.
        OSError: the file cannot be written; an old one is as it was.
    """
    odd = [f"{n} ({x.dtype})" for n, x in tensors.items() if format_dtype(x) is None]
    if odd:
        raise TypeError(f"{path}: safetensors has no dtype for {', '.join(odd)}; cast them first")
    # The widest first, so that each is aligned for its dtype. The header keeps the order.
    names = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= dict.fromkeys(tensors)
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": format_dtype(tensors[name]),
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise ValueError(
            f"{path}: the names and the metadata take {len(text)} bytes; a safetensors file has "
            f"room for {_LONGEST_HEADER}. Keep what is large as arrays"
        )
    with replacing(path, progress) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            if tensors[name].size:
                # Of an array in another order, this copies: one array at a time.
                flat = np.ascontiguousarray(tensors[name]).reshape(-1)
                file.write(flat.view(np.uint8).data)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return arrays over the mapped file, and the texts in its header.

    The arrays can be written to; the file does not change by it.

    Raises:
        ValueError: the file is no safetensors file, or damaged; what is wrong is named.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError(f"{path} is no safetensors file: it has {size} bytes, and 8 are least")
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(
                f"{path} is no safetensors file, or cut off: its first 8 bytes announce a header of"
                f" {length} bytes, and {size - 8} follow"
            )
        header = _parsed(path, file.read(length))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError(f"{path} is damaged: '__metadata__' is not a dict of texts")
    room = size - 8 - length
    problems: list[str] = []
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if found := _faults(entry, room):
            problems.append(f"{name}: {found}")
        else:
            spans.append((*entry["data_offsets"], name))
    problems += _gaps(sorted(spans), room) if not problems else []
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:20])
        raise ValueError(f"{path} is damaged, or cut off:{shown}")
    return {
        name: _array(data, 8 + length + entry["data_offsets"][0], entry)
        for name, entry in header.items()
    }, metadata


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or damaged: its header is not JSON ({error})"
        ) from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is damaged: its header is {type(header).__name__}, not a dict")
    return header


def _faults(entry: Any, room: int) -> str | None:
    """Return what is wrong with an array's entry in the header."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return "its entry does not say dtype, shape and data_offsets"
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        return f"there is no dtype {entry['dtype']!r} here; there are {', '.join(_DTYPES)}"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        return f"its shape is {shape!r}"
    if not isinstance(offsets, list) or not all(type(n) is int for n in offsets):
        return f"its data_offsets are {offsets!r}"
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1] <= room:
        return f"its data_offsets are {offsets}; the file has data from 0 to {room}"
    needed = math.prod(shape) * _DTYPES[entry["dtype"]].itemsize
    if offsets[1] - offsets[0] != needed:
        return (
            f"shape {tuple(shape)} of {entry['dtype']} takes {needed} bytes; its data_offsets hold"
            f" {offsets[1] - offsets[0]}"
        )
    return None


def _gaps(spans: list[tuple[int, int, str]], room: int) -> list[str]:
    """Return where arrays overlap, or bytes belong to none."""
    problems, end, before = [], 0, ""
    for start, stop, name in spans:
        if start < end:
            problems.append(f"{name} begins at {start}, within {before}, which ends at {end}")
        elif start > end:
            problems.append(f"no array has the bytes from {end} to {start}")
        end, before = stop, name
    if end != room:
        problems.append(f"the arrays end at {end}, and the file's data at {room}")
    return problems


def _array(data: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    dtype = _DTYPES[entry["dtype"]]
    count = math.prod(entry["shape"])
    if not count:
        return np.empty(entry["shape"], dtype)
    array: NDArray[Any] = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
    # Other writers may place arrays anywhere.
    return array if array.flags.aligned else array.copy()
