"""Parameters in several safetensors files and an index, as Hugging Face has large models."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ._checkpoint import Checkpoint, check_checkpoint
from ._checkpoint_keys import is_params
from ._exchange_files import (
    KEY,
    checkpoint_of,
    header_of,
    named_as_saved,
    record_of,
    without_aliases,
)
from ._json_values import json_of
from ._replaced_files import Progress, replacing
from ._safetensors_files import format_dtype, read_tensors, write_tensors
from ._torch_archives import read_archive

INDEX = "model.safetensors.index.json"
_SUFFIX = ".index.json"


def index_of(path: Path) -> Path:
    """Return the index that a path means: itself, or that in a folder."""
    return path if path.name.endswith(_SUFFIX) else path / INDEX


def read(path: Path) -> Checkpoint:
    """Return the parameters in a folder with an index.

    Raises:
        ValueError: the index or a shard is damaged, or they do not agree; all is listed.
        OSError: a file cannot be read.
    """
    index = index_of(path)
    weight_map, metadata = _parsed(index)
    problems: list[str] = []
    tensors: dict[str, NDArray[Any]] = {}
    for shard in dict.fromkeys(weight_map.values()):
        file = index.parent / shard
        if not file.is_file():
            problems.append(f"the shard {shard} is missing")
            continue
        found = _tensors(file)
        listed = {name for name, where in weight_map.items() if where == shard}
        problems += [f"{name} is not in {shard}" for name in sorted(listed - found.keys())]
        problems += [
            f"{name} is in {shard}, and the index has it "
            + (f"in {weight_map[name]}" if name in weight_map else "nowhere")
            for name in sorted(found.keys() - listed)
        ]
        tensors |= {name: found[name] for name in listed & found.keys()}
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems[:20])
        raise ValueError(f"{index} and its shards do not agree:{lines}")
    params = {name: tensors[name] for name in weight_map}
    if KEY not in metadata:
        return Checkpoint(params)
    if not isinstance(metadata[KEY], str):
        raise ValueError(f"{index} is damaged: {KEY!r} in its metadata is no text")
    record = record_of(index, metadata[KEY])
    try:
        checkpoint = checkpoint_of(named_as_saved(params, record), record)
        check_checkpoint(checkpoint)
        return checkpoint
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{index} is damaged: {error}") from error


def _tensors(file: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a shard, of either kind."""
    if file.suffix == ".safetensors":
        return read_tensors(file)[0]
    found = read_archive(file)
    if not is_params(found):
        raise ValueError(f"{file} holds more than tensors, or none")
    return dict(found)


def _parsed(index: Path) -> tuple[dict[str, str], dict[str, Any]]:
    record = json_of(index)
    weight_map, metadata = record.get("weight_map"), record.get("metadata", {})
    if not isinstance(weight_map, dict) or not isinstance(metadata, dict):
        raise ValueError(f"{index} is damaged: it has no 'weight_map' from tensors to files")
    for name, shard in weight_map.items():
        # A file elsewhere is none of the model's.
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise ValueError(
                f"{index} is damaged: it has {name} in {shard!r}, which is no file name"
            )
    return weight_map, metadata


def write(
    path: Path,
    checkpoint: Checkpoint,
    max_shard_size: int,
    progress: Progress | None = None,
) -> None:
    """Write parameters into shards, then the index, then remove the shards of an old index.

    Raises:
        ValueError: the checkpoint has more than parameters, or no dtype for some.
        OSError: a file cannot be written; old shards and their index are as they were.
    """
    check_checkpoint(checkpoint)
    parts = ("optimizers", "schedulers", "scaler", "averages", "extra")
    more = [part.rstrip("s") for part in parts if getattr(checkpoint, part)]
    if more:
        raise ValueError(
            f"shards are for parameters alone, and the checkpoint has {' and '.join(more)} too; "
            "save the whole in one .safetensors file, or the parameters alone: "
            "Checkpoint(checkpoint.params)"
        )
    if max_shard_size < 1:
        raise ValueError(f"max_shard_size is {max_shard_size} bytes; it must be above 0")
    own, aliases = without_aliases(checkpoint.params)
    odd = [f"{name} ({x.dtype})" for name, x in own.items() if format_dtype(x) is None]
    if odd:
        raise ValueError(f"safetensors has no dtype for {', '.join(odd)}; cast them first")
    index = index_of(path)
    if not path.name.endswith(_SUFFIX):
        path.mkdir(exist_ok=True)
    old = set(_parsed(index)[0].values()) if index.exists() else set()
    shards = list(_shards(own, max_shard_size))
    names = _names(index, len(shards))
    weight_map: dict[str, str] = {}
    written: list[Path] = []
    try:
        for file, shard in zip(names, shards, strict=True):
            written.append(index.with_name(file))
            write_tensors(written[-1], shard, {"format": "pt"}, progress)
            weight_map |= dict.fromkeys(shard, file)
        total = sum(array.nbytes for array in own.values())
        header = json.dumps(header_of(checkpoint, aliases), separators=(",", ":"))
        record = {"metadata": {"total_size": total, KEY: header}, "weight_map": weight_map}
        with replacing(index) as target:
            target.write(json.dumps(record, indent=2).encode())
    except BaseException:
        for shard_file in written:
            shard_file.unlink(missing_ok=True)
        raise
    for name in old - set(names):
        if _is_shard_of(index, name):
            index.with_name(name).unlink(missing_ok=True)


def _is_shard_of(index: Path, name: str) -> bool:
    """Whether a file that an old index lists is one that was written beside it: no other's."""
    ends = r"-([0-9a-f]{6}-)?\d{5}-of-\d{5}\.safetensors"
    return re.fullmatch(re.escape(_stem(index)) + ends, name) is not None


def _stem(index: Path) -> str:
    return index.name.removesuffix(_SUFFIX).removesuffix(".safetensors")


def _shards(
    params: Mapping[str, NDArray[Any]], max_shard_size: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the arrays in their order, as many at a time as the size allows, one at least."""
    shard: dict[str, NDArray[Any]] = {}
    size = 0
    for name, array in params.items():
        if shard and size + array.nbytes > max_shard_size:
            yield shard
            shard, size = {}, 0
        shard[name] = array
        size += array.nbytes
    yield shard


def _names(index: Path, count: int) -> list[str]:
    """Return names that no file has: the old shards must stay until the index is another."""
    stem = _stem(index)
    ends = [f"{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    names = [f"{stem}-{end}" for end in ends]
    if any(os.path.lexists(index.with_name(name)) for name in names):
        tag = secrets.token_hex(3)
        names = [f"{stem}-{tag}-{end}" for end in ends]
    return names
