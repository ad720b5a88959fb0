"""This library's exchange format: a safetensors file of a whole checkpoint, version 1.

Parameters are the tensors ``params/<name>``, an optimizer's arrays ``optimizer/<index>/<state>``,
of lists ``optimizer/<index>/<state>/<i>``. The text ``jaxopt_port`` in the header's metadata is
JSON with all the rest: ``format``, ``version``, ``layout``, ``optimizer_name``, ``optimizer``,
``scheduler``, ``extra`` and ``param_map``, in which ``{"$array": name}`` stands for a tensor, and
``$tuple``, ``$float`` (infinity, NaN), ``$complex``, ``$dict`` (pairs) and ``$counter`` for what
JSON lacks. ``names`` are those of the parameters in their order. A tensor under two names is
written once, and ``aliases`` has the other name with the first.
complex128, which the format lacks, is written as pairs of float64 and listed in ``complex128``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import StateDict
from ..mapping import ParamMap
from ._checkpoint import Checkpoint, check_checkpoint
from ._json_values import Tensors, decoded, encoded, no_key_twice
from ._replaced_files import Progress
from ._safetensors_files import read_tensors, write_tensors

FORMAT = "jaxopt_port checkpoint"
VERSION = 1
KEY = "jaxopt_port"
_PARAMS = "params/"


def write(path: Path, checkpoint: Checkpoint, progress: Progress | None = None) -> None:
    """Write a checkpoint.

    Raises:
        TypeError: something in it has no place in a file; it is named.
        ValueError: it is no checkpoint.
        OSError: the file cannot be written; an old one is as it was.
    """
    check_checkpoint(checkpoint)
    own, aliases = without_aliases(checkpoint.params)
    tensors = {_PARAMS + name: array for name, array in own.items()}
    record = header_of(checkpoint, aliases)
    if len(checkpoint.optimizers) > 1:
        record["optimizers"] = {
            name: _encoded_optimizer(each, tensors, f"optimizers/{name}")
            for name, each in checkpoint.optimizers.items()
        }
    else:
        record["optimizer"] = _encoded_optimizer(checkpoint.optimizer, tensors, "optimizer")
    if len(checkpoint.schedulers) > 1:
        record["schedulers"] = encoded(checkpoint.schedulers, "schedulers", tensors)
    else:
        record["scheduler"] = encoded(checkpoint.scheduler, "scheduler", tensors)
    record["scaler"] = encoded(checkpoint.scaler, "scaler", tensors)
    record["averages"] = encoded(checkpoint.averages, "averages", tensors)
    record["step"], record["origin"] = checkpoint.step, checkpoint.origin
    record["extra"] = encoded(checkpoint.extra, "extra", tensors)
    pairs = [name for name, array in tensors.items() if array.dtype == np.complex128]
    record["complex128"] = pairs
    for name in pairs:
        array = np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape)
        tensors[name] = array[..., None].view(np.float64)
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    write_tensors(path, tensors, {KEY: text}, progress)


def header_of(checkpoint: Checkpoint, aliases: dict[str, str]) -> dict[str, Any]:
    """Return what a file says of its parameters."""
    mapped = checkpoint.param_map
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": checkpoint.layout,
        "optimizer_name": checkpoint.optimizer_name,
        "param_map": None if mapped is None else mapped.to_json(),
        "names": list(checkpoint.params),
        "aliases": aliases,
    }


def without_aliases(
    params: dict[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays that have memory of their own, and the other names of the rest."""
    first: dict[Any, str] = {}
    aliases = {}
    for name, array in params.items():
        if array.size:
            memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
            if first.setdefault(memory, name) != name:
                aliases[name] = first[memory]
    return {name: array for name, array in params.items() if name not in aliases}, aliases


def named_as_saved(
    held: dict[str, NDArray[Any]], record: dict[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return arrays under all of their names, in the order that they had.

    Raises:
        ValueError: arrays are missing or left over; all are listed.
    """
    first = {name: record["aliases"].get(name, name) for name in record["names"]}
    missing = sorted(set(first.values()) - set(held))
    odd = sorted(set(held) - set(first))
    if missing or odd:
        problems = [f"{name} is missing" for name in missing]
        problems += [f"{name} is not among the names that were saved" for name in odd]
        raise ValueError("; ".join(problems[:20]))
    return {name: held[where] for name, where in first.items()}


def _encoded_optimizer(optimizer: StateDict | None, tensors: Tensors, name: str) -> Any:
    if optimizer is None:
        return None
    rest = {key: value for key, value in optimizer.items() if key != "state"}
    return {
        "state": encoded(dict(optimizer["state"]), name, tensors),
        "rest": encoded(rest, f"{name}/rest", tensors),
    }


def _decoded_optimizer(record: Any, tensors: Tensors) -> StateDict | None:
    if record is None:
        return None
    return {"state": decoded(record["state"], tensors), **decoded(record["rest"], tensors)}


def read(path: Path) -> Checkpoint:
    """Return the checkpoint in a file, its arrays over the mapped file; of any other, the arrays.

    Raises:
        ValueError: the file is damaged, of a newer version, or no safetensors file.
        OSError: it cannot be read.
    """
    tensors, metadata = read_tensors(path)
    if KEY not in metadata:
        kept = {k: v for k, v in metadata.items() if k != "format"}
        return Checkpoint(tensors, extra={"safetensors_metadata": kept} if kept else {})
    record = record_of(path, metadata[KEY])
    try:
        for name in record.get("complex128", ()):
            pairs = tensors[name]
            if pairs.dtype != np.float64 or pairs.shape[-1:] != (2,):
                raise ValueError(f"{name!r} is said to be complex128, and is no pairs of float64")
            tensors[name] = pairs.view(np.complex128)[..., 0]
        held = {n[len(_PARAMS) :]: x for n, x in tensors.items() if n.startswith(_PARAMS)}
        params = named_as_saved(held, record)
        several = record.get("optimizers") or {"optimizer": record.get("optimizer")}
        optimizers = {name: _decoded_optimizer(each, tensors) for name, each in several.items()}
        schedulers = decoded(record.get("schedulers"), tensors) or {
            "scheduler": decoded(record.get("scheduler"), tensors)
        }
        step, origin = record.get("step"), record.get("origin")
        checkpoint = dataclasses.replace(
            checkpoint_of(params, record),
            optimizers={name: each for name, each in optimizers.items() if each is not None},
            schedulers={name: each for name, each in schedulers.items() if each is not None},
            scaler=decoded(record.get("scaler"), tensors),
            averages=decoded(record.get("averages", {}), tensors),
            step=step if type(step) is int else None,
            origin=origin if isinstance(origin, str) else None,
            extra=decoded(record["extra"], tensors),
        )
        check_checkpoint(checkpoint)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {_reason(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: its metadata is nested too deep") from error
    return checkpoint


def _reason(error: Exception) -> str:
    return f"its metadata has no {error}" if isinstance(error, KeyError) else str(error)


def checkpoint_of(params: dict[str, NDArray[Any]], record: dict[str, Any]) -> Checkpoint:
    """Return a checkpoint of parameters, with what a file says of them."""
    mapped = record.get("param_map")
    return Checkpoint(
        params,
        optimizer_name=record.get("optimizer_name"),
        layout=record["layout"],
        param_map=None if mapped is None else ParamMap.from_json(mapped),
    )


def record_of(path: Path, text: str) -> dict[str, Any]:
    """Return what this library wrote into the metadata.

    Raises:
        ValueError: it is no JSON, or of a newer version than is known here.
    """
    try:
        record = json.loads(text, object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: {KEY!r} in its metadata is not JSON ({error})"
        ) from error
    return checked_record(record, str(path))


def checked_record(record: Any, where: str) -> dict[str, Any]:
    """Return what this library wrote; raise ValueError for what is none, or of a newer version."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{where} is damaged: {KEY!r} in it does not say {FORMAT!r}")
    version = record.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"{where} is damaged: its version is {version!r}")
    if version > VERSION:
        raise ValueError(
            f"{where} has version {version} of this format; this jaxopt_port reads up to {VERSION}."
            " Install a newer jaxopt_port"
        )
    return record
