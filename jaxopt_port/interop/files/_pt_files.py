"""torch's own files, ``.pt`` and ``.pth``: read without running what is in them, and written."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._tensors import array_of, import_torch
from ._checkpoint import Checkpoint, CheckpointWarning, check_checkpoint
from ._checkpoint_keys import is_optimizer, is_params, part, roles_in
from ._exchange_files import FORMAT, KEY, VERSION, checkpoint_of, header_of
from ._json_values import encoded, without_what_has_no_place
from ._replaced_files import Progress, replacing

_NAMES = {
    "params": "model_state_dict",
    "optimizer": "optimizer_state_dict",
    "scheduler": "scheduler_state_dict",
}


def read(path: Path, keys: Mapping[str, str] | None = None) -> Checkpoint:
    """Return what is in a file of torch's, its arrays over the mapped file where that can be.

    Raises:
        ValueError: the file is damaged, needs code to be run, or does not say what is what.
        OSError: it cannot be read.
        ImportError: torch is missing.
    """
    loaded = _loaded(path)
    try:
        found = _in_numpy(loaded)
        if not isinstance(found, Mapping):
            raise ValueError(f"it holds {type(found).__name__}, not a dict")
        if keys is None and is_params(found):
            return _checked(Checkpoint(dict(found)))
        if keys is None and is_optimizer(found):
            return _checked(Checkpoint({}, dict(found)))
        return _checked(_assembled(path, found, keys))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    check_checkpoint(checkpoint)
    return checkpoint


def _assembled(path: Path, found: Mapping[Any, Any], keys: Mapping[str, str] | None) -> Checkpoint:
    rest = {str(key): value for key, value in found.items()}
    record = _record(rest.pop(KEY, None))
    roles = roles_in(rest, keys)
    parts = {role: part(rest, key) for role, key in roles.items()}
    params = parts.get("params", {})
    if not isinstance(params, Mapping):
        raise ValueError(f"{roles['params']!r} is {type(params).__name__}, not a dict of tensors")
    checkpoint = checkpoint_of(dict(params), record)
    checkpoint.optimizer = parts.get("optimizer")
    checkpoint.scheduler = parts.get("scheduler")
    if checkpoint.scheduler is not None:
        encoded(checkpoint.scheduler, roles["scheduler"], {})
    others = {key: value for key, value in rest.items() if key not in roles.values()}
    checkpoint.extra, lost = without_what_has_no_place(others, "the entry")
    if lost:
        warnings.warn(
            f"{path}: left out, since no other file can hold it: {'; '.join(lost)}",
            CheckpointWarning,
            stacklevel=4,
        )
    return checkpoint


def _record(record: Any) -> dict[str, Any]:
    """Return what this library wrote into a file of torch's, or what holds of any other."""
    if record is None:
        return {"layout": "torch"}
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        raise ValueError(f"{KEY!r} in it is not what this library writes there")
    if not isinstance(record.get("version"), int) or record["version"] > VERSION:
        raise ValueError(
            f"it has version {record.get('version')!r} of what this library writes; this one reads "
            f"up to {VERSION}. Install a newer jaxopt_port"
        )
    return dict(record)


def _loaded(path: Path) -> Any:
    torch = import_torch()
    with open(path, "rb") as file:
        start = file.read(4)
    # Pickles of before torch 1.6 begin with their protocol; they cannot be mapped.
    if start[:2] != b"PK" and start[:1] != b"\x80":
        raise ValueError(
            f"{path} is no file of torch.save: it begins with {start!r}"
            + (" (it is empty)" if not start else "")
        )
    is_zip = start[:2] == b"PK"
    if is_zip and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is cut off or damaged: it begins as a zip file, and has no end")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(_needs_code(torch, path, error, is_zip)) from error
    except Exception as error:
        # torch raises anything from KeyError to RuntimeError for a damaged file.
        first = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{path} is damaged, or no file of torch.save: {type(error).__name__}: {first[0][:200]}"
        ) from error


def _needs_code(torch: Any, path: Path, error: Exception, is_zip: bool) -> str:
    wanted = set(re.findall(r"GLOBAL ([\w.]+)", str(error)))
    if is_zip and wanted:
        wanted |= set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    if not wanted:
        first = str(error).strip().splitlines() or [""]
        return f"{path} is damaged, or not only of tensors and plain values: {first[0][:200]}"
    return (
        f"{path} is not loaded: it would run {', '.join(sorted(wanted))}, and only tensors and "
        "plain values are safe. If you trust it, load it where it was made with "
        "torch.load(..., weights_only=False), and save again what is plain: "
        'torch.save({"model_state_dict": model.state_dict(), '
        '"optimizer_state_dict": optimizer.state_dict()}, ...)'
    )


def _in_numpy(value: Any, place: str = "") -> Any:
    torch = import_torch()
    if isinstance(value, torch.Tensor):
        try:
            return array_of(value)
        except TypeError as error:
            raise TypeError(f"{place}: {error}") from error
    if isinstance(value, Counter):
        return Counter(value)
    if isinstance(value, Mapping):
        return {k: _in_numpy(item, f"{place}/{k}".lstrip("/")) for k, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_in_numpy(item, f"{place}/{i}") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def write(path: Path, checkpoint: Checkpoint, progress: Progress | None = None) -> None:
    """Write a dict that ``torch.load(path, weights_only=True)`` reads.

    Raises:
        TypeError: something in it has no place in a file; it is named.
        ValueError: it is no checkpoint, or an extra has the name of one of its parts.
        OSError: the file cannot be written; an old one is as it was.
        ImportError: torch is missing.
    """
    torch = import_torch()
    check_checkpoint(checkpoint)
    taken = sorted({*_NAMES.values(), KEY} & checkpoint.extra.keys())
    if taken:
        raise ValueError(f"extra has {taken[0]!r}, which is where the file has another part")
    written: dict[str, Any] = {}
    tensors: dict[Any, Any] = {}
    for role, name in _NAMES.items():
        value = getattr(checkpoint, role)
        if value is not None and (value or role != "params"):
            encoded(value, name, {})
            written[name] = _in_torch(value, tensors)
    encoded(checkpoint.extra, "extra", {})
    written |= _in_torch(checkpoint.extra, tensors)
    record = header_of(checkpoint, {})
    del record["names"], record["aliases"]  # torch keeps both
    if any(record[key] is not None for key in ("optimizer_name", "param_map")) or (
        checkpoint.layout != "torch"
    ):
        written[KEY] = record
    with replacing(path, progress) as file:
        try:
            torch.save(written, file)
        except RuntimeError:
            # torch hides why the file could not be written.
            if file.error is not None:
                raise file.error from None
            raise


def _in_torch(value: Any, tensors: dict[Any, Any]) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _tensor_over(np.asarray(value), tensors)
    if isinstance(value, Counter):
        return value
    if isinstance(value, Mapping):
        return {key: _in_torch(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_in_torch(item, tensors) for item in value)
    return [_in_torch(item, tensors) for item in value] if isinstance(value, list) else value


class _Writable:
    """An array's memory, without the mark that it is not to be written to, at which torch warns."""

    def __init__(self, array: NDArray[Any]) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.array = array


def _tensor_over(array: NDArray[Any], tensors: dict[Any, Any]) -> Any:
    """Return a tensor over an array's memory, only to be read from; the same for the same."""
    torch = import_torch()
    memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
    if memory not in tensors:
        kept = np.asarray(array, order="C")
        name = kept.dtype.name
        own = not name.startswith(("bfloat", "float8"))
        plain = kept if own else kept.view(np.int16 if name == "bfloat16" else np.int8)
        # An empty array has no memory to speak of, and may share its address.
        if not plain.size:
            return torch.empty(array.shape, dtype=getattr(torch, name))
        tensor = torch.from_numpy(np.asarray(_Writable(plain)))
        # The copy, if there is one, must live as long as its address is known here.
        tensors[memory] = (array, tensor if own else tensor.view(getattr(torch, name)))
    return tensors[memory][1]
