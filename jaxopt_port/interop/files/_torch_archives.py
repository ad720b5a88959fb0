"""The containers of ``torch.save``: a zip archive, or pickles in a row, without running them."""

from __future__ import annotations

import io
import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._pickled_kinds import KINDS
from ._pickled_tensors import Storage, storage_of
from ._pickled_values import read_pickle
from ._plain_values import finished

# torch.serialization's own marks of the format before 1.6.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# What deflate may unpack to: parameters hardly shrink, moments that are zero do.
_DENSEST, _LEAST = 16, 1 << 26
_DEFLATES = 1032  # the most that it can shrink anything


def read_archive(path: Path) -> Any:
    """Return what ``torch.save`` was given, with NumPy arrays over the mapped file.

    Raises:
        ValueError: the file is damaged, or none of torch's.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        if start[:2] != b"PK" and start[:1] != b"\x80":
            raise ValueError(
                f"{path} is no file of torch.save: it begins with {start!r}"
                + (" (it is empty)" if not start else "")
            )
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if start[:2] != b"PK":
        return _read_pickles(path, data)
    with open(path, "rb") as file:
        return _read_zip(str(path), file, data)


def read_archive_in(data: bytes, name: str) -> Any:
    """Return what ``torch.save`` was given, of a zip archive within another file.

    Raises:
        ValueError: it is damaged, or none of torch's.
    """
    return _read_zip(name, io.BytesIO(data), data)


def _read_zip(name: str, file: IO[bytes], data: Any) -> Any:
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is cut off or damaged: it begins as a zip file, and has no end")
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive, data).read()
    except ValueError as error:
        raise ValueError(f"{name} is damaged, or not of tensors and plain values: {error}") from (
            error
        )
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, OSError) as error:
        # RuntimeError: it is encrypted, or packed in another way. OSError: a seek to nowhere.
        raise ValueError(f"{name} is damaged: {type(error).__name__}: {error}") from error
    except (struct.error, OverflowError, IndexError, TypeError, MemoryError) as error:
        raise ValueError(f"{name} is damaged: its zip directory is none ({error})") from error


# What is in other zip files.
_OTHERS = (
    (".npy", "; it is NumPy's, for numpy.load"),
    ("/archive_format", "; it is an exported program: save its state_dict instead"),
)


class _Archive:
    """A zip file: ``<name>/data.pkl``, and ``<name>/data/<key>`` for each storage."""

    def __init__(self, archive: zipfile.ZipFile, data: Any) -> None:
        self._archive, self._data, self._size = archive, data, len(data)
        self._records: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            if info.filename in self._records:
                raise ValueError(f"it has {info.filename!r} twice")
            self._records[info.filename] = info
        self._unpacked = 0
        self._storages: dict[str, Any] = {}

    def read(self) -> Any:
        found = [name for name in self._records if name.endswith("/data.pkl")]
        found = [name for name in found if name.count("/") == 1]
        if len(found) != 1:
            raise ValueError(
                "it is a zip file without one data.pkl, as torch.save writes it"
                + next((words for end, words in _OTHERS if self._has(end)), "")
            )
        self._folder = found[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._records:
            raise ValueError("it is a TorchScript archive; save the module's state_dict() instead")
        order = self._record(f"{self._folder}byteorder", b"little")
        self._swapped = bytes(order) != b"little"
        pickled = io.BytesIO(self._record(found[0]))
        value = read_pickle(pickled, self._storage, allowed_globals())
        return finished(value, self._size)

    def _has(self, end: str) -> bool:
        return any(name.endswith(end) for name in self._records)

    def _storage(self, identifier: Any) -> Storage:
        made = storage_of(identifier, self._bytes)
        if self._swapped and made.dtype.itemsize > 1:
            raise ValueError("it is of a big-endian machine; load and save it on a little-endian")
        return made

    def _bytes(self, key: str, needed: int) -> Any:
        if key not in self._storages:
            name = f"{self._folder}data/{key}"
            info = self._records.get(name)
            if info is not None and info.file_size != needed:
                raise ValueError(
                    f"the storage {key!r} has {info.file_size} bytes, and its tensors are made for "
                    f"{needed}"
                )
            self._storages[key] = self._record(name)
        return self._storages[key]

    def _record(self, name: str, default: bytes | None = None) -> Any:
        """Return a record's bytes: a part of the mapped file where it is stored as it is."""
        info = self._records.get(name)
        if info is None:
            if default is None:
                raise ValueError(f"the record {name!r} is missing")
            return default
        if info.compress_type == zipfile.ZIP_STORED:
            return self._mapped(info)
        if not info.file_size <= _DEFLATES * info.compress_size <= _DEFLATES * self._size:
            raise ValueError(f"{name} cannot have {info.file_size} bytes")
        self._unpacked += info.file_size
        if self._unpacked > max(_LEAST, _DENSEST * self._size):
            raise ValueError(
                f"its records unpack to more than {_DENSEST} times the file; load it in torch, and "
                "save it again"
            )
        with self._archive.open(info) as record:
            data = bytearray(record.read(info.file_size + 1))
        if len(data) != info.file_size:
            raise ValueError(f"{name} has {len(data)} bytes, and its entry says {info.file_size}")
        return data

    def _mapped(self, info: zipfile.ZipInfo) -> Any:
        if info.compress_size != info.file_size or info.flag_bits & 1:
            raise ValueError(f"{info.filename} is stored, and its sizes differ")
        head = self._data[info.header_offset : info.header_offset + 30]
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise ValueError(f"the entry of {info.filename} points to no record")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + info.file_size > self._size:
            raise ValueError(f"{info.filename} goes beyond the end of the file")
        data = memoryview(self._data)[start : start + info.file_size]
        # torch leaves the sum 0 where it is told to calculate none.
        if info.CRC and zlib.crc32(data) != info.CRC:
            raise ValueError(f"the bytes of {info.filename} have another CRC than its entry")
        return _aligned(data)


def _aligned(data: memoryview) -> Any:
    """Return the bytes of a storage where its tensors can lie over them and share them.

    torch aligns the records of its zip files; files of before 1.6, and other writers, do not.
    """
    placed = np.frombuffer(data, np.uint8)
    return data if placed.ctypes.data % 16 == 0 else placed.copy()


def _read_pickles(path: Path, data: mmap.mmap) -> Any:
    """Return what is in a file of before torch 1.6, or of a plain ``pickle.dump``.

    A number, the version, what the machine was, the value, the keys of its storages, and then for
    each a count and its bytes.
    """
    try:
        first = read_pickle(data, None, allowed_globals())
        return finished(_after_magic(data, data) if first == _MAGIC else first, len(data))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is damaged, or no file of torch.save: {error}") from error


def _after_magic(stream: Any, data: Any) -> Any:
    """Return the value that follows the first number, unfinished; its storages lie over data."""
    storages: dict[str, Storage] = {}
    held: dict[str, Any] = {}

    def storage(identifier: Any) -> Any:
        if isinstance(identifier, tuple) and identifier[:1] == ("module",):
            return identifier[1] if len(identifier) > 1 else None  # a class, with its source
        made = storage_of(identifier, lambda key, _: held.get(key, b""))
        if len(identifier) > 5 and identifier[5] is not None:
            raise ValueError("it has a view of a storage, as torch wrote before 0.4")
        return storages.setdefault(made.key, made)

    version, machine = read_pickle(stream), read_pickle(stream)
    if version != _PROTOCOL or not isinstance(machine, dict):
        raise ValueError(f"it is of the version {version!r} of torch's format")
    if not machine.get("little_endian", True):
        raise ValueError("it is of a big-endian machine; load and save it on a little-endian")
    value = read_pickle(stream, storage, allowed_globals())
    keys = read_pickle(stream)
    if not isinstance(keys, list) or not set(map(str, keys)) >= storages.keys():
        raise ValueError("the list of its storages is none, or lacks some")
    for key in keys:
        known = storages.get(key) if isinstance(key, str) else None
        if known is None:
            raise ValueError(f"it has a storage {key!r} that nothing refers to")
        head = stream.read(8)
        count = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        if count != known.count:
            raise ValueError(
                f"the storage {key!r} has {count} elements, and its tensors are made for "
                f"{known.count}"
            )
        start, size = stream.tell(), count * known.dtype.itemsize
        if start + size > len(data):
            raise ValueError("it is cut off")
        held[key] = _aligned(memoryview(data)[start : start + size])
        stream.seek(start + size)
    return value


# Whether a storage is read, in whose bytes none may be.
_inside: ContextVar[bool] = ContextVar("inside", default=False)


def _storage_of_bytes(data: Any = b"") -> Any:
    """``_load_from_bytes``: a storage as ``pickle.dump`` writes it, a file of its own."""
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray) or _inside.get():
        return NotImplemented
    before = _inside.set(True)
    try:
        stream = io.BytesIO(data)
        made = _after_magic(stream, data) if read_pickle(stream) == _MAGIC else None
    finally:
        _inside.reset(before)
    if not isinstance(made, Storage):
        raise ValueError("a tensor in it has a storage that is none")
    return made


KINDS["torch.storage._load_from_bytes"] = _storage_of_bytes


def allowed_globals() -> Mapping[str, Any]:
    """Return what the user has told torch to be safe, by name."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    listed = {}
    for each in torch.serialization.get_safe_globals():
        function, name = each if isinstance(each, tuple) else (each, None)
        module = getattr(function, "__module__", "")
        listed[name or f"{module}.{getattr(function, '__qualname__', '')}"] = function
    return listed
