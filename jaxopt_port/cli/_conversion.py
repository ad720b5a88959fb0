"""The work of ``jaxopt-port convert``: one checkpoint file made of another."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table

from ..contrib import reference_named
from ..interop import Checkpoint, LayerDifferenceWarning, load, param_map, with_layout
from ..interop.files import CheckpointWarning, arrays_in, check_can_be_written, is_sharded
from ..optim import OPTIMIZERS
from ..trees import nearest
from ._case import run_file
from ._parsed import UNITS
from ._shown import text

Layout = Literal["torch", "jax"]


def prepared(
    source: Path,
    target: Path,
    *,
    torch: str | None,
    jax: str | None,
    layout: Layout | None,
    optimizer: str | None,
    keys: Mapping[str, str] | None,
    rename: Sequence[tuple[str, str]],
    layouts: Mapping[str, tuple[int, ...] | None],
    allow: Sequence[str],
    params_only: bool,
    force: bool,
) -> tuple[Checkpoint, Checkpoint, list[str]]:
    """Return the checkpoint that was read, the one to be written, and what should be looked at.

    Args:
        source: the file or folder to read.
        target: the one to write.
        torch: ``file.py:function`` that makes the torch module; likewise ``jax`` the Flax module.
        jax: likewise.
        layout: the names and layouts that are wanted; None for the other side's where both
            factories are given, else for what the file has.
        optimizer: the class of the optimizer.
        keys: what is what in a file of torch's.
        rename: rules from torch's names to JAX paths, regular expressions and what replaces them.
        layouts: axes by hand, by torch's name, by path, or by a glob of either.
        allow: classes in the file that may be run, by name.
        params_only: whether to leave out all else.
        force: whether an old target may be replaced.

    Raises:
        ValueError: the file, the factories or the options do not fit.
        OSError: the file cannot be read, or the target is there already.
    """
    there = _existing(target)
    if there is not None and not force:
        raise FileExistsError(f"{there} is there already; pass --force to replace it")
    if (torch is None) != (jax is None):
        missing = "--jax" if jax is None else "--torch"
        raise ValueError(
            f"{missing} is missing: a map between the two sides needs both factories, such as "
            "--torch model.py:make_torch --jax model.py:make_flax"
        )
    if torch is None and (rename or layouts):
        raise ValueError("--rename and --layout NAME=AXES need both factories, --torch and --jax")
    if optimizer is not None:
        _check_optimizer(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        for category in (CheckpointWarning, LayerDifferenceWarning):
            warnings.simplefilter("always", category)
        with allowed(allow):
            checkpoint = load(source, keys=keys)
        checkpoint, more = without_objects(checkpoint)
        if optimizer is not None:
            checkpoint = replace(checkpoint, optimizer_name=optimizer)
        converted, wanted = checkpoint, checkpoint.layout
        mapped = None
        if params_only:
            own = checkpoint.param_map
            converted = Checkpoint(checkpoint.params, layout=wanted, param_map=own)

        if torch is not None and jax is not None:
            sides = made_by(torch, "--torch"), made_by(jax, "--jax")
            mapped = param_map(*sides, rename=rename, layouts=layouts)
            wanted = "jax" if checkpoint.layout == "torch" else "torch"
        converted = with_layout(converted, layout or wanted, mapped)
    notes = [*(str(each.message) for each in caught), *more]
    return checkpoint, converted, notes


def _check_optimizer(name: str) -> None:
    """Raise ValueError for the name of no class, as it is asked for and not on a later day."""
    known = list(OPTIMIZERS)
    if name not in known and reference_named(name) is None:
        raise ValueError(
            f"--optimizer {name!r}: no optimizer has that name{nearest(name, known)}; torch's are "
            f"{', '.join(known)}"
        )


def _existing(target: Path) -> Path | None:
    if is_sharded(target) and not target.name.endswith(".index.json"):
        index = target / "model.safetensors.index.json"
        return index if index.exists() else None
    return target if target.exists() else None


@contextlib.contextmanager
def allowed(names: Sequence[str]) -> Iterator[None]:
    """Let classes and functions be run that the user names, as torch's ``safe_globals`` does.

    Raises:
        ValueError: there is no such thing.
    """
    if not names:
        yield
        return
    import torch

    with torch.serialization.safe_globals([_imported(name) for name in names]):
        yield


def _imported(name: str) -> Any:
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise ValueError(f"--allow {name!r}: there is no such class or function to import")


def without_objects(checkpoint: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """Return a checkpoint without extras that no file has a place for, and what is lost."""
    kept, notes = {}, []
    for name, value in checkpoint.extra.items():
        try:
            check_can_be_written(value, name)
        except (TypeError, ValueError) as error:
            notes.append(f"left out: {error}")
        else:
            kept[name] = value
    return replace(checkpoint, extra=kept), notes


def made_by(factory: str, option: str) -> Any:
    """Return what a function makes, ``file.py:function`` or ``package.module:function``.

    Raises:
        ValueError: there is no such function, or it fails; the message says where.
    """
    where, _, name = factory.rpartition(":")
    if not where or not name:
        raise ValueError(f"{option} {factory!r} is not file.py:function or module:function")
    try:
        module = (
            _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        )
        function: Callable[[], Any] = getattr(module, name)
        return function()
    except Exception as error:
        # Whatever the user's own code raises.
        raise ValueError(f"{option} {factory!r}: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    path, name = path.resolve(), "_jaxopt_port_convert_" + re.sub(r"\W", "_", path.stem)
    # Both factories may stand in one file, which runs once.
    known = sys.modules.get(name)
    return known if known and known.__file__ == str(path) else run_file(path, name)


def contents(checkpoint: Checkpoint, title: str) -> Table:
    """Return a table of what a checkpoint holds."""
    table = Table(title=text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("part", "what", "arrays"):
        table.add_column(column)
    table.add_column("size", justify="right", no_wrap=True)
    rows: list[tuple[str, str, Any]] = [
        ("parameters", f"{checkpoint.layout}'s names and layouts", checkpoint.params)
    ]
    for key, optimizer in checkpoint.optimizers.items():
        groups = optimizer["param_groups"]
        count = sum(len(group["params"]) for group in groups)
        name = checkpoint.optimizer_name or "class unknown"
        what = f"{name}; groups: {len(groups)}, parameters: {count}"
        rows.append((key, what, optimizer))
    for key, scheduler in checkpoint.schedulers.items():
        rows.append((key, f"last_epoch {scheduler.get('last_epoch')}", scheduler))
    if checkpoint.scaler is not None:
        rows.append(("scaler", f"scale {checkpoint.scaler.get('scale')}", {}))
    for key, average in checkpoint.averages.items():
        rows.append(("averages", key, average))
    if checkpoint.step is not None:
        rows.append(("step", str(checkpoint.step), {}))
    if checkpoint.extra:
        rows.append(("extra", ", ".join(checkpoint.extra), checkpoint.extra))
    if checkpoint.param_map is not None:
        leaves = f"{len(checkpoint.param_map.entries)} leaves"
        rows.append(("map", f"torch to JAX, {leaves}", {}))
    for part, what, value in rows:
        arrays = list(arrays_in(value))
        size = sum(array.nbytes for array in arrays)
        kinds = sorted({array.dtype.name for array in arrays})
        shown = f"{len(arrays)} {', '.join(kinds)}" if arrays else "none"
        table.add_row(text(part), text(what), text(shown), in_words(size))
    return table


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a checkpoint holds, without its arrays."""
    return {
        "origin": checkpoint.origin,
        "layout": checkpoint.layout,
        "step": checkpoint.step,
        "bytes": checkpoint.nbytes,
        "params": {k: [v.dtype.name, list(v.shape)] for k, v in checkpoint.params.items()},
        "optimizer_class": checkpoint.optimizer_name,
        "optimizers": {k: v["param_groups"] for k, v in checkpoint.optimizers.items()},
        "schedulers": dict(checkpoint.schedulers),
        "averages": list(checkpoint.averages),
        "extra": list(checkpoint.extra),
    }


def in_words(size: int) -> str:
    """Say a number of bytes."""
    for unit in ("GB", "MB", "KB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.2f} {unit}"
    return f"{size} B"
