"""Checkpoints read from files and written to them; the name says the format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from . import _exchange_files, _pt_files, _sharded_files
from ._checkpoint import Checkpoint
from ._replaced_files import Progress

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_FORMATS = (
    ".pt, .pth, .bin and .ckpt (torch's), .safetensors, and folders or .index.json files of shards"
)


def load(path: str | os.PathLike[str], *, keys: Mapping[str, str] | None = None) -> Checkpoint:
    """Return the checkpoint in a file; nothing in it is run.

    The counterpart of ``torch.load``. The name says the format: ``.pt``, ``.pth``, ``.bin`` or
    ``.ckpt`` is torch's, read with ``weights_only=True``; ``.safetensors`` is this library's
    exchange format (readable without torch), or anyone's, which holds parameters only; a folder
    with ``model.safetensors.index.json``, or that file, is a model in shards. Arrays lie over the
    mapped file where the format allows: they may be written to, and the file stays as it is.

    Args:
        path: of the file or folder.
        keys: for a file of torch's whose parts have names that do not say what they are:
            ``{"params": "net", "optimizer": "opt_g", "scheduler": "sched"}``. What has no role
            stands in ``extra``.

    Raises:
        ValueError: the file is damaged, of a newer version, of no known format, needs code to be
            run, or does not say what is what; the message names the place and the remedy.
        OSError: it cannot be read.
        ImportError: it is torch's, and torch is missing.

    Example:
        >>> import tempfile, numpy as np
        >>> file = Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> save(file, Checkpoint({"weight": np.ones(2, np.float32)}, extra={"epoch": 3}))
        >>> load(file).extra
        {'epoch': 3}
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    sharded = file.is_dir() or file.name.endswith(".index.json")
    if keys is not None and (sharded or file.suffix not in TORCH_SUFFIXES):
        raise ValueError(f"{file}: keys are for files of torch's, which need not say what is what")
    if sharded:
        return _sharded_files.read(file)
    if file.suffix in TORCH_SUFFIXES:
        return _pt_files.read(file, keys)
    if file.suffix == ".safetensors":
        return _exchange_files.read(file)
    raise ValueError(f"{file}: its name does not say what it is; there are {_FORMATS}")


def save(
    path: str | os.PathLike[str],
    checkpoint: Checkpoint,
    *,
    max_shard_size: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint to a file; an old one is replaced at once, when the new one is whole.

    The counterpart of ``torch.save``. The name says the format, as for `load`. A file of torch's
    holds a dict with ``"model_state_dict"``, ``"optimizer_state_dict"``, ``"scheduler_state_dict"``
    and the extras, for ``torch.load(path, weights_only=True)``.

    Args:
        path: of the file, or of a folder for shards, which hold parameters alone.
        checkpoint: what to write.
        max_shard_size: for shards, the most bytes in a file; 5 GB by default. An array that is
            larger has a file of its own.
        progress: called with the number of bytes written since its last call.

    Raises:
        TypeError: the checkpoint has something that no file can hold; it is named.
        ValueError: it is no checkpoint, or the name says no format.
        OSError: the file cannot be written; an old one is as it was.
        ImportError: it is torch's, and torch is missing.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> arrays = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)}
        >>> save(folder, Checkpoint(arrays), max_shard_size=16)
        >>> sorted(file.name for file in folder.iterdir())[0]
        'model-00001-of-00002.safetensors'
    """
    file = Path(path)
    if is_sharded(file):
        _sharded_files.write(file, checkpoint, max_shard_size or 5 * 10**9, progress)
        return
    if max_shard_size is not None:
        raise ValueError(f"{file} is one file; max_shard_size is for a folder of shards")
    if file.suffix in TORCH_SUFFIXES:
        _pt_files.write(file, checkpoint, progress)
    elif file.suffix == ".safetensors":
        _exchange_files.write(file, checkpoint, progress)
    else:
        raise ValueError(f"{file}: its name does not say what it shall be; there are {_FORMATS}")


def is_sharded(path: Path) -> bool:
    """Whether a path to be written means a model in shards."""
    return path.name.endswith(".index.json") or (
        path.suffix not in (*TORCH_SUFFIXES, ".safetensors") and (path.is_dir() or not path.suffix)
    )
