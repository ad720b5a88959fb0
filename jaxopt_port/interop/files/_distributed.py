"""Folders of ``torch.distributed.checkpoint``: ``.metadata`` and ``*.distcp``, read as data.

The metadata is a pickle that says, for each name, the shape and the pieces of a tensor, and for
each piece its file, its place there and its length; a piece is a file of ``torch.save`` itself. Its
classes are those of ``torch.distributed.checkpoint.metadata``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint
from ._pickled_kinds import Unread
from ._pickled_numpy import is_shape
from ._pickled_values import read_pickle
from ._plain_values import finished
from ._pt_files import checkpoint_in
from ._torch_archives import read_archive_in

METADATA = ".metadata"
_CLASSES = "torch.distributed.checkpoint."
_ORIGIN = "a folder of torch.distributed.checkpoint"


def read(folder: Path, keys: Mapping[str, str] | None) -> Checkpoint:
    """Return the checkpoint in a folder.

    Raises:
        ValueError: the metadata or a piece is damaged, missing, or outside the folder.
        OSError: a file cannot be read.
    """
    data = (folder / METADATA).read_bytes()
    try:
        root = _of(finished(read_pickle(io.BytesIO(data)), len(data)), "metadata.Metadata")
        tree = _Folder(folder, root).tree()
    except (ValueError, RecursionError, MemoryError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder} is damaged, or of a kind that is not read: {error}") from error
    try:
        made = checkpoint_in(tree, keys, str(folder))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {error}") from error
    made.origin = _ORIGIN
    return made


def _of(value: Any, kind: str) -> Mapping[str, Any]:
    """Return the attributes of an object of one of torch's classes."""
    if not isinstance(value, Unread) or value.name != _CLASSES + kind:
        raise ValueError(f"{METADATA} has {value!r} where {kind} should be")
    return value.attributes


class _Folder:
    def __init__(self, folder: Path, root: Mapping[str, Any]) -> None:
        self._folder = folder
        self._entries: Mapping[str, Any] = root.get("state_dict_metadata") or {}
        self._paths: Any = root.get("planner_data") or {}
        self._places: dict[tuple[str, Any], Any] = {}
        sizes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        self._budget = 8 * sizes + (1 << 20)
        for index, place in (root.get("storage_data") or {}).items():
            own = _of(index, "metadata.MetadataIndex")
            offset = own.get("offset")
            self._places[own["fqn"], None if offset is None else tuple(offset)] = place

    def tree(self) -> dict[str, Any]:
        """Return all that the folder holds, nested as it was saved."""
        made: dict[str, Any] = {}
        for name, entry in self._entries.items():
            if not isinstance(entry, Unread):
                raise ValueError(f"{METADATA} has {name!r}, which is neither a tensor nor bytes")
            if entry.name == f"{_CLASSES}metadata.BytesStorageMetadata":
                value = self._piece(name, None)
            else:
                value = self._tensor(name, _of(entry, "metadata.TensorStorageMetadata"))
            path = self._paths.get(name) if isinstance(self._paths, Mapping) else None
            _put(made, path if isinstance(path, tuple) and path else (name,), value)
        lists: dict[str, Any] = _with_lists(made)
        return lists

    def _tensor(self, name: str, entry: Mapping[str, Any]) -> Any:
        shape = tuple(entry.get("size") or ())
        pieces = [_of(each, "metadata.ChunkStorageMetadata") for each in entry.get("chunks") or ()]
        if not is_shape(shape) or not pieces:
            raise ValueError(f"{name} has no shape, or no pieces")
        if len(pieces) == 1 and tuple(pieces[0]["sizes"]) == shape:
            whole = self._piece(name, tuple(pieces[0]["offsets"]))
            return self._checked(name, whole, shape)
        made: Any = None
        done = np.zeros(0, bool)
        for piece in pieces:
            offsets, sizes = tuple(piece["offsets"]), tuple(piece["sizes"])
            if not is_shape(offsets) or not is_shape(sizes) or len(offsets) != len(shape):
                raise ValueError(f"{name} has a piece of no shape")
            if any(o + n > size for o, n, size in zip(offsets, sizes, shape, strict=True)):
                raise ValueError(f"{name} has a piece beyond its shape {shape}")
            part = self._checked(name, self._piece(name, offsets), sizes)
            if made is None:
                self._spend(name, math.prod(shape) * part.dtype.itemsize)
                made, done = np.empty(shape, part.dtype), np.zeros(shape, bool)
            place = tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))
            made[place], done[place] = part, True  # pieces may overlap
        if not done.all():
            raise ValueError(f"{name} has pieces for {int(done.sum())} of {done.size} elements")
        return made

    def _spend(self, name: str, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError(f"{name} and those before it have far more bytes than the folder")

    def _checked(self, name: str, array: Any, shape: tuple[int, ...]) -> Any:
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError(f"{name} has a piece that is no tensor of shape {shape}")
        return array

    def _piece(self, name: str, offset: Any) -> Any:
        place = self._places.get((name, offset), self._places.get((name, None)))
        own = _of(place, "filesystem._StorageInfo")
        file, start, length = own["relative_path"], own["offset"], own["length"]
        if own.get("transform_descriptors"):
            raise ValueError(
                f"{name} has gone through {own['transform_descriptors']!r}, which is not undone "
                "here; load the run in torch, and save it without extensions"
            )
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise ValueError(f"{name} is in {file!r}, which is no file of the folder")
        if type(start) is not int or type(length) is not int or start < 0 or length < 0:
            raise ValueError(f"{name} is at no place of {file}")
        path = self._folder / file
        if start + length > path.stat().st_size:
            raise ValueError(f"{file} is cut off: {name} ends at {start + length}")
        with open(path, "rb") as opened:
            opened.seek(start)
            data = opened.read(length)
        if not data.startswith(b"PK"):
            raise ValueError(
                f"{name} in {file} is no file of torch.save; save with FileSystemWriter's usual "
                "serialization_format"
            )
        return read_archive_in(data, f"{name} in {file}")


def _put(tree: dict[Any, Any], path: tuple[Any, ...], value: Any) -> None:
    for i, part in enumerate(path[:-1]):
        key = part if isinstance(part, str | int) else str(part)
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ValueError(f"{path[: i + 1]} is a value, and holds others")
    tree[path[-1] if isinstance(path[-1], str | int) else str(path[-1])] = value


def _with_lists(tree: Any) -> Any:
    """Return nested dicts with lists for those whose keys are 0, 1 and so on, as integers."""
    if not isinstance(tree, dict):
        return tree
    made = {key: _with_lists(value) for key, value in tree.items()}
    if made and all(type(key) is int for key in made) and sorted(made) == list(range(len(made))):
        return [made[i] for i in range(len(made))]
    return made
