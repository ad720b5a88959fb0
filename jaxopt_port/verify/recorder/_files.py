"""The files of a trace."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

FORMAT = "jaxopt_port trace"

# What a trace has, and what of it is being written.
_OWN = re.compile(r"trace\.json|\.trace\.json\.tmp|scalars\.jsonl|steps")
_STEP = re.compile(r"\d{8}\.safetensors|\.\d{8}\.safetensors\.tmp")

_SAFETENSORS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a place that no trace may be written to.

    Args:
        target: the folder to be: none yet, an empty one or, to be replaced, a trace.
        overwrite: whether a trace is replaced.

    Raises:
        FileExistsError: something else is there, or a trace and it is not to be replaced.
    """
    if not target.exists() or _is_empty(target):
        return
    foreign = _foreign(target)
    if foreign:
        raise FileExistsError(
            f"{target} is there already, and {foreign}: it is left as it is; name another folder"
        )
    if not overwrite:
        raise FileExistsError(
            f"{target} is there already; overwrite=True, or --overwrite, replaces it"
        )


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not any(target.iterdir())


def _foreign(target: Path) -> str:
    """Return what tells something from a trace; nothing of a trace."""
    if not target.is_dir():
        return "is a file"
    try:
        facts = json.loads((target / "trace.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return "is no trace"
    steps = target / "steps"
    within = steps.iterdir() if steps.is_dir() and not steps.is_symlink() else ()
    named = [*((each, _OWN) for each in target.iterdir()), *((each, _STEP) for each in within)]
    odd = [
        str(each.relative_to(target))
        for each, own in named
        if not own.fullmatch(each.name) or each.is_symlink() or each.is_dir() != (each == steps)
    ]
    return f"has {', '.join(sorted(odd)[:3])}, which no trace has" if odd else ""


@contextlib.contextmanager
def trace_folder(target: Path) -> Iterator[Path]:
    """Give the folder to write into: the target, or one beside that takes the place of the old."""
    target = target.resolve()
    if not target.exists() or _is_empty(target):
        (target / "steps").mkdir(parents=True)
        try:
            yield target
        except BaseException:
            if not (target / "trace.json").exists():  # it failed before the first step was whole
                shutil.rmtree(target)
            raise
        return
    mark = secrets.token_hex(4)
    beside, old = (target.with_name(f".{target.name}.{mark}.{end}") for end in ("tmp", "old"))
    (beside / "steps").mkdir(parents=True)
    try:
        yield beside
        os.replace(target, old)
        os.replace(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(old)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with open(beside, "wb") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(folder: Path, facts: Mapping[str, Any]) -> None:
    with _replacing(folder / "trace.json") as file:
        file.write(json_bytes(facts, indent=1))


def _memory(tensor: torch.Tensor) -> Any:
    """Return a tensor's bytes, in C order, without NumPy, which torch may lack."""
    flat = tensor.contiguous()
    view = (ctypes.c_char * flat.nbytes).from_address(flat.data_ptr()) if flat.nbytes else b""
    return flat, memoryview(view).cast("B")


def sha256(tensor: torch.Tensor) -> str:
    held, view = _memory(tensor)
    digest = hashlib.sha256(view).hexdigest()
    del view, held
    return digest


def write_step(path: Path, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write a safetensors file: a length, a JSON header, the bytes; return its size."""
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _SAFETENSORS:
            raise TypeError(f"{name} is {tensor.dtype}, which a trace has no room for")
        start, end = end, end + tensor.nbytes
        shape, dtype = list(tensor.shape), _SAFETENSORS[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with _replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            held, view = _memory(tensors[name])
            file.write(view)
            del view, held
    return 8 + len(text) + end


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(json_values(value), allow_nan=False, indent=indent).encode()


def json_values(value: Any) -> Any:
    """Return JSON values; infinities and NaNs as texts, what JSON has not as its repr."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): json_values(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [json_values(v) for v in value]
    return value if value is None or isinstance(value, (str, int)) else repr(value)
