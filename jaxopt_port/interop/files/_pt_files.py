"""torch's own files, ``.pt`` and ``.pth``: read without running what is in them, and written."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...trees import users_level
from .._tensors import BY_BITS, import_torch
from .._wrapper_prefixes import shared_prefix, without_inner
from ._checkpoint import Checkpoint, CheckpointWarning, check_checkpoint
from ._checkpoint_keys import PARAMS, contents_of
from ._exchange_files import KEY, checked_record, checkpoint_of, header_of
from ._json_values import check_can_be_written, without_unread
from ._optimizer_dicts import names_of, renamed
from ._pickled_kinds import Unread
from ._pickled_tensors import arrays_of_module
from ._replaced_files import Progress, replacing
from ._torch_archives import read_archive

# Where a file of this library's has its parts, and those of which there are several.
_NAMES = {
    "params": "model_state_dict",
    "optimizer": "optimizer_state_dict",
    "scheduler": "scheduler_state_dict",
    "scaler": "scaler_state_dict",
    "averages": "averages",
}
_SEVERAL = {"optimizers": "optimizer_state_dicts", "schedulers": "scheduler_state_dicts"}


def read(path: Path, keys: Mapping[str, str] | None = None) -> Checkpoint:
    """Return what is in a file of torch's, its arrays over the mapped file where that can be.

    Raises:
        ValueError: the file is damaged, needs code to be run, or does not say what is what.
        OSError: it cannot be read.
    """
    found = read_archive(path)
    try:
        if isinstance(found, Unread):
            arrays = arrays_of_module(found)
            if arrays is None:
                raise ValueError(needs_code([found.name]))
            found = arrays
        if isinstance(found, list | tuple):
            found = {str(i): value for i, value in enumerate(found)}
        if not isinstance(found, Mapping):
            raise ValueError(
                f"it holds {_said(found)}, not a dict: save a state_dict(), or a dict of several"
            )
        return checkpoint_in(dict(found), keys, str(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _said(found: Any) -> str:
    """Return what torch calls a value."""
    if isinstance(found, np.ndarray):
        return f"a tensor of shape {found.shape}"
    return "None" if found is None else f"a value of the type {type(found).__name__}"


def checkpoint_in(found: dict[Any, Any], keys: Mapping[str, str] | None, source: str) -> Checkpoint:
    """Return the checkpoint in a dict of plain values and arrays.

    Raises:
        ValueError: it does not say what is what, or needs code to be run.
        TypeError: parameters that are no arrays.
    """
    record = _record(found.pop(KEY, None))
    for key, value in found.items():
        if isinstance(value, Unread):
            arrays = arrays_of_module(value)
            if key in PARAMS and arrays is None:
                raise ValueError(needs_code([value.name]))
            if {"param_groups", "last_epoch"} & value.attributes.keys() and not keys:
                raise ValueError(
                    f"{key!r} is a pickled {value.name}, which is somebody's state: save its "
                    f"state_dict() instead; or read what else there is, by keys={{'params': …}}"
                )
            found[key] = arrays or value
    # What this library wrote as extra is no part, whatever it looks like.
    extra = {} if keys else {k: found.pop(k) for k in record.get("extra", ()) if k in found}
    held = contents_of(found, keys)
    held.extra, lost = without_unread(held.extra | extra, "the entry")
    if lost:
        names = sorted({name for _, name in lost})
        listed = "; ".join(f"{place} is {name.rpartition('.')[2]}" for place, name in lost[:12])
        warnings.warn(
            f"{source}: left out, since it would take code or no other file can hold it: {listed}. "
            + _remedy(names),
            CheckpointWarning,
            stacklevel=users_level(),
        )
    for part in ("params", "optimizers", "schedulers", "scaler", "averages"):
        value = getattr(held, part)
        if part == "schedulers":
            value = held.schedulers = {k: _without_methods(v) for k, v in value.items()}
        _, needed = without_unread(value, part)
        if needed:
            place, name = needed[0]
            if " " in name:
                raise ValueError(f"{place.replace('params/', 'model/', 1)}: {name}")
            raise ValueError(needs_code(sorted({name for _, name in needed})))
        if part in ("optimizers", "schedulers", "scaler"):
            check_can_be_written(value, part)
    described = checkpoint_of({}, record)
    checkpoint = Checkpoint(
        held.params,
        optimizer_name=described.optimizer_name,
        layout=described.layout,
        param_map=described.param_map,
        extra=held.extra,
        optimizers=held.optimizers,
        schedulers=held.schedulers,
        scaler=held.scaler,
        averages=held.averages,
        step=record.get("step", held.step),
        origin=held.origin,
    )
    check_checkpoint(checkpoint)
    return unwrapped(checkpoint, source)


def _without_methods(scheduler: Any) -> Any:
    """Return a scheduler's state dict without torch's own methods, which older torch wrote there.

    ``anneal_func`` of OneCycleLR says what ``_anneal_func_type`` says now.
    """
    if not isinstance(scheduler, Mapping):
        return scheduler
    kept = {key: value for key, value in scheduler.items() if not _is_torchs_method(value)}
    for value in scheduler.values():
        if _is_torchs_method(value) and "_annealing_" in value.name:
            kind = "cos" if value.name.endswith("cos") else "linear"
            kept.setdefault("_anneal_func_type", kind)
    if isinstance(kept.get("_schedulers"), list):
        kept["_schedulers"] = [_without_methods(inner) for inner in kept["_schedulers"]]
    return kept


def _is_torchs_method(value: Any) -> bool:
    return isinstance(value, Unread) and value.name.startswith("torch.optim.")


def unwrapped(checkpoint: Checkpoint, source: str) -> Checkpoint:
    """Return a checkpoint without the prefixes of wrappers, where all names have them."""
    if checkpoint.layout != "torch":
        return checkpoint
    others = [name for name in checkpoint.params if name != "n_averaged"]
    if len(others) < len(checkpoint.params) and shared_prefix(others):
        # The state dict of an AveragedModel alone.
        params = dict(checkpoint.params)
        extra = {**checkpoint.extra, "n_averaged": params.pop("n_averaged")}
        checkpoint = replace(checkpoint, params=params, extra=extra)
    prefix = shared_prefix(checkpoint.params)
    if prefix:
        warnings.warn(
            f"{source}: all names begin with {prefix!r}, which a wrapper put there; it is left out",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    params = {without_inner(n.removeprefix(prefix)): x for n, x in checkpoint.params.items()}
    if len(params) < len(checkpoint.params):
        return checkpoint
    averages, extra = {}, checkpoint.extra
    counts = {k: x["n_averaged"] for k, x in checkpoint.averages.items() if "n_averaged" in x}
    if counts:
        several = len(checkpoint.averages) > 1
        extra = {"n_averaged": counts if several else next(iter(counts.values())), **extra}
    for key, held in checkpoint.averages.items():
        own = {n: x for n, x in held.items() if n != "n_averaged"}
        inner = shared_prefix(own)
        averages[key] = {without_inner(n.removeprefix(inner)): x for n, x in own.items()}
    optimizers = {}
    for key, optimizer in checkpoint.optimizers.items():
        names = list(names_of(optimizer))
        inner = shared_prefix(names)
        plain = {name: without_inner(name.removeprefix(inner)) for name in names}
        optimizers[key] = renamed(optimizer, plain)
    return replace(checkpoint, params=params, averages=averages, optimizers=optimizers, extra=extra)


def _record(record: Any) -> dict[str, Any]:
    """Return what this library wrote into a file of torch's, or what holds of any other."""
    if record is None:
        return {"layout": "torch"}
    checked_record(record, "it")
    if not all(isinstance(key, str) for key in record.get("extra", ())):
        raise ValueError(f"'extra' of {KEY!r} in it is no list of names")
    return dict(record)


def needs_code(names: list[str]) -> str:
    """Say that a file wants more than plain values."""
    return (
        f"it is not loaded: it would run {', '.join(names)}, and only tensors and plain values are "
        f"safe. {_remedy(names)}, or load it where it was made with torch.load(..., "
        "weights_only=False), and save again what is plain: "
        'torch.save({"model_state_dict": model.state_dict(), '
        '"optimizer_state_dict": optimizer.state_dict()}, ...)'
    )


def _remedy(names: list[str]) -> str:
    classes = [name for name in names if " " not in name]
    if not classes:
        return ""
    short = ", ".join(name.rpartition(".")[2] for name in classes)
    return (
        f"If you trust it: torch.serialization.add_safe_globals([{short}]) "
        f"(--allow {classes[0]} on the command line)"
    )


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
    taken = sorted({*_NAMES.values(), *_SEVERAL.values(), KEY} & checkpoint.extra.keys())
    if taken:
        raise ValueError(f"extra has {taken[0]!r}, which is where the file has another part")
    written: dict[str, Any] = {}
    tensors: dict[Any, Any] = {}
    for name, value in _parts(checkpoint):
        check_can_be_written(value, name)
        written[name] = _in_torch(value, tensors)
    check_can_be_written(checkpoint.extra, "extra")
    written |= _in_torch(checkpoint.extra, tensors)
    record = header_of(checkpoint, {})
    del record["names"], record["aliases"]  # torch keeps both
    if any(record[key] is not None for key in ("optimizer_name", "param_map")) or (
        checkpoint.layout != "torch"
    ):
        written[KEY] = record
    if checkpoint.step is not None and "step" not in checkpoint.extra:
        written.setdefault(KEY, record)["step"] = checkpoint.step
    if any(isinstance(value, Mapping | list) for value in checkpoint.extra.values()):
        written.setdefault(KEY, record)["extra"] = list(checkpoint.extra)
    with replacing(path, progress) as file:
        try:
            torch.save(written, file)
        except RuntimeError:
            # torch hides why the file could not be written.
            if file.error is not None:
                raise file.error from None
            raise


def _parts(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    for role, name in _NAMES.items():
        several = len(getattr(checkpoint, f"{role}s", ())) > 1
        value = getattr(checkpoint, f"{role}s" if several else role)
        if value is not None and (value or role in ("optimizer", "scheduler", "scaler")):
            yield _SEVERAL[f"{role}s"] if several else name, value


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
        # An empty array has no memory to speak of, and may share its address.
        if not kept.size:
            return torch.empty(array.shape, dtype=getattr(torch, name))
        plain = kept.view(BY_BITS[name][0]) if name in BY_BITS else kept
        tensor = torch.from_numpy(np.asarray(_Writable(plain)))
        # The copy, if there is one, must live as long as its address is known here.
        tensors[memory] = (array, tensor.view(getattr(torch, name)))
    return tensors[memory][1]
