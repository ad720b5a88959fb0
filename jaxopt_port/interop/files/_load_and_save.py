"""Checkpoints read from files and written to them; the name says the format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from . import _distributed, _exchange_files, _folders, _pt_files, _sharded_files
from ._checkpoint import Checkpoint
from ._replaced_files import Progress

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_FORMATS = (
    ".pt, .pth, .bin and .ckpt (torch's), .safetensors, and folders or .index.json files of shards"
)


def load(path: str | os.PathLike[str], *, keys: Mapping[str, str] | None = None) -> Checkpoint:
    """Return the checkpoint in a file or a folder; nothing in it is run, and no name is believed.

    The counterpart of ``torch.load``, which needs no torch. What is there is looked at:

    - torch's own files, zip or of before 1.6, whatever their names: a state dict, a dict of model,
      optimizers, schedulers and others, a part alone; Lightning's, timm's, torchvision's.
    - ``.safetensors``: this library's exchange format, or anyone's, which holds parameters only.
    - a folder of Hugging Face's Trainer, of Accelerate's ``save_state``, of
      ``torch.distributed.checkpoint``, a universal checkpoint of DeepSpeed, or a model in shards
      with its index.

    Plain data of Python and NumPy is read (``argparse.Namespace`` and enums as what they hold,
    paths as text, sets as lists); other objects that nothing needs are left out with a
    `CheckpointWarning` that names them. Prefixes that a wrapper put before all names (``module.``,
    ``_orig_mod.``) are left out and reported. Arrays lie over the mapped file where the format
    allows: they may be written to, and the file stays as it is.

    Args:
        path: of the file or folder.
        keys: where parts have names that do not say what they are: ``{"params": "net",
            "optimizer": "opt_g", "scheduler": "sched"}``, ``"scaler"`` and ``"averages"`` too. What
            is within another is named with a dot: ``"state.net"``, ``"optimizers.0"``. What has no
            role stands in ``extra``.

    Raises:
        ValueError: it is damaged, of a newer version, of no known format, needs code to be run, or
            does not say what is what; the message names the place and the remedy.
        OSError: it cannot be read.

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
    if file.is_dir():
        return _of_folder(file, keys)
    with open(file, "rb") as opened:
        start = opened.read(512)
    # First, since the length that it begins with may be spelled as the marks of the others are.
    length = int.from_bytes(start[:8], "little")
    is_tensors = start[8:9] == b"{" and length <= file.stat().st_size - 8
    marked = start[:2] == b"PK" or start[:1] == b"\x80" or file.suffix in TORCH_SUFFIXES
    is_torchs = marked and not is_tensors
    foreign = _foreign(start)
    if foreign is not None:
        raise ValueError(f"{file}: {foreign}")
    if keys is not None and not is_torchs:
        raise ValueError(f"{file}: keys are for files of torch's, which need not say what is what")
    if is_torchs:
        return _pt_files.read(file, keys)
    if file.name.endswith(".index.json"):
        return _pt_files.unwrapped(_sharded_files.read(file), str(file))
    if file.suffix == ".safetensors" or is_tensors:
        return _pt_files.unwrapped(_exchange_files.read(file), str(file))
    empty = "" if start else "it is empty; "
    raise ValueError(
        f"{file}: {empty}it does not say what it is, by its contents or by its name; there are "
        "files of torch.save, .safetensors, and folders of a run"
    )


def _of_folder(folder: Path, keys: Mapping[str, str] | None) -> Checkpoint:
    if (folder / _distributed.METADATA).is_file():
        return _distributed.read(folder, keys)
    if keys is None and _sharded_files.index_of(folder).is_file() and not _has_more(folder):
        return _pt_files.unwrapped(_sharded_files.read(folder), str(folder))
    reader = _folders.reader_of(folder)
    if reader is not None:
        return reader(folder, keys)
    raise FileNotFoundError(_folders.without_a_run(folder))


# What others begin with, and what is to be done; torch's own loader says less.
_FOREIGN = (
    (b"version https://", "it is a pointer of Git LFS, not the file itself: git lfs pull"),
    (b"<!DOCTYPE", "it is a web page, not the file itself: download the file, not its page"),
    (b"<html", "it is a web page, not the file itself: download the file, not its page"),
    (b"\x1f\x8b", "it is packed by gzip: unpack it first (gunzip, tar -xzf)"),
    (b"\xfd7zXZ", "it is packed by xz: unpack it first (unxz, tar -xJf)"),
    (b"BZh", "it is packed by bzip2: unpack it first (bunzip2, tar -xjf)"),
    (b"\x28\xb5\x2f\xfd", "it is packed by zstd: unpack it first (unzstd)"),
    (b"\x89HDF", "it is of HDF5, as Keras writes; torch's files are read here"),
    (b"GGUF", "it is of GGUF, as llama.cpp writes; torch's files are read here"),
    (b"\x93NUMPY", "it is NumPy's, for numpy.load"),
)


def _foreign(start: bytes) -> str | None:
    """Say what a file is that is of neither torch nor safetensors, where it is known."""
    if start[257:262] == b"ustar":
        if start.startswith(b"sys_info\0"):
            return "torch wrote it before 0.1.10: load it in torch, and save it again"
        return "it is a tar archive: unpack it first (tar -xf)"
    return next((words for mark, words in _FOREIGN if start.startswith(mark)), None)


def _has_more(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("optimizer.pt", "optimizer.bin", "zero"))


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
        TypeError: it is no `Checkpoint`, or has something that no file can hold; it is named.
        ValueError: the name says no format.
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
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(
            f"expected a Checkpoint, got {type(checkpoint).__name__}: Checkpoint(params, optimizer)"
        )
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
