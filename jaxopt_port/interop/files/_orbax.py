"""Checkpoints by Orbax: parameters, optimizer and scheduler of a run that is sharded, or not."""

from __future__ import annotations

import importlib
import json
import os
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding

from ...engine import GroupsState, check_not_donated, leaf_paths
from ._group_descriptions import HINT, described, differences, tables, with_table

_PARTS = ("params", "state", "scheduler_state")
_VERSION = 1
_RECORD = {"version", "states", "arrays", "extra"}


class Restored(NamedTuple):
    """What `restore_orbax` returns.

    Attributes:
        params: as it was saved; so is all else.
        state: of the optimizer.
        scheduler_state: None where none was asked for; so is ``state``.
        extra: what else was saved.
    """

    params: Any
    state: Any
    scheduler_state: Any
    extra: dict[str, Any]


def save_orbax(
    directory: str | os.PathLike[str],
    *,
    params: Any,
    state: Any = None,
    scheduler_state: Any = None,
    extra: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Save a run by Orbax, each process its own shards, with a description of the groups.

    The counterpart of ``torch.distributed.checkpoint.save``. What Orbax's own checkpointers make of
    ``{"params": params, "state": state}`` is as exact; this adds what `restore_orbax` checks.

    Args:
        directory: a new one.
        params: any tree of arrays.
        state: the optimizer's, bare or within other Optax states.
        scheduler_state: the scheduler's.
        extra: what JSON holds: the epoch, the name of the run.
        force: whether to replace what is in the directory.

    Raises:
        ValueError: the directory is there already, or two leaves have the same path.
        ImportError: Orbax is missing.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxopt_port as jp
        >>> params, tx = {"weight": jnp.ones(2)}, jp.Adam()
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save_orbax(directory, params=params, state=tx.init(params), extra={"epoch": 3})
        >>> restore_orbax(directory, params=params, state=tx.init(params)).extra
        {'epoch': 3}
    """
    ocp = _orbax()
    target = Path(directory).absolute()
    if target.exists() and not force:
        raise ValueError(f"{target} is there already; name a new directory, or pass force=True")
    trees = dict(zip(_PARTS, (params, state, scheduler_state), strict=True))
    check_not_donated(**trees)
    flat = {part: _by_path(tree) for part, tree in trees.items() if tree is not None}
    record = {
        "version": _VERSION,
        "states": {part: described(tree) for part, tree in trees.items()},
        "tables": tables(state),
        "arrays": {part: _shapes(leaves) for part, leaves in flat.items()},
        "extra": dict(extra or {}),
    }
    # Orbax has no place for arrays without elements.
    try:
        json.dumps(record)
    except TypeError as error:
        raise TypeError(f"extra must be what JSON holds: {error}") from None
    items = {
        part: ocp.args.StandardSave({path: x for path, x in leaves.items() if x.size})
        for part, leaves in flat.items()
        if any(x.size for x in leaves.values())
    }
    with jax.enable_x64(True), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            target,
            args=ocp.args.Composite(description=ocp.args.JsonSave(record), **items),
            force=force,
        )


def restore_orbax(
    directory: str | os.PathLike[str],
    *,
    params: Any,
    state: Any = None,
    scheduler_state: Any = None,
) -> Restored:
    """Return what `save_orbax` saved, bit by bit, in the shardings that are wanted now.

    The counterpart of ``torch.distributed.checkpoint.load``. float64 stays float64 where x64 is
    off.

    Args:
        directory: where it was saved.
        params: a tree like the one that was saved, of arrays or of ``jax.ShapeDtypeStruct``. The
            ``sharding`` of each leaf is the one that it gets, which may be another than it had; one
            that has none is whole, and goes where it is used.
        state: as ``tx.init(params)`` makes it, or ``jax.eval_shape(tx.init, params)``, with the
            shardings of `jp.state_shardings` where no device can hold it whole; None does not
            restore it.
        scheduler_state: likewise.

    Raises:
        ValueError: the groups are others than those that were saved, or paths, shapes or dtypes
            are; all differences are listed, before anything is read.
        FileNotFoundError: nothing was saved there.
        ImportError: Orbax is missing.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxopt_port as jp
        >>> params, tx = {"weight": jnp.ones(2)}, jp.SGD(lr=1 / 3)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save_orbax(directory, params=params, state=tx.init(params))
        >>> like = jax.eval_shape(jp.SGD().init, params)
        >>> state = restore_orbax(directory, params=params, state=like).state
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.3333333333333333
    """
    ocp = _orbax()
    source = Path(directory).absolute()
    if not (source / "description").is_dir():
        raise FileNotFoundError(f"{source} holds nothing that save_orbax saved")
    with jax.enable_x64(True), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        only = ocp.args.Composite(description=ocp.args.JsonRestore())
        record = _restored(checkpointer, source, only).description
        if not isinstance(record, Mapping) or not record.keys() >= _RECORD:
            raise ValueError(f"{source} is damaged: its description is {reprlib.repr(record)}")
        if state is not None:
            state = _with_tables(state, record)
        trees = dict(zip(_PARTS, (params, state, scheduler_state), strict=True))
        flat = {part: _by_path(tree) for part, tree in trees.items() if tree is not None}
        _check(source, record, trees, flat)
        shardings = [getattr(x, "sharding", None) for x in jax.tree.leaves(params)]
        meshes = {x.mesh.abstract_mesh: x.mesh for x in shardings if isinstance(x, NamedSharding)}
        items = {
            part: ocp.args.StandardRestore(
                {path: _wanted(path, x, meshes) for path, x in leaves.items() if _size(x)}
            )
            for part, leaves in flat.items()
            if any(map(_size, leaves.values()))
        }
        if lacking := [part for part in items if not (source / part).is_dir()]:
            raise ValueError(f"{source} is damaged: it has no folder {', '.join(lacking)}")
        found = _restored(checkpointer, source, ocp.args.Composite(**items)) if items else {}
    restored = {part: _like(trees[part], found[part] if part in items else {}) for part in flat}
    return Restored(**dict.fromkeys(_PARTS) | restored, extra=record["extra"])


def _restored(checkpointer: Any, source: Path, args: Any) -> Any:
    try:
        return checkpointer.restore(source, args=args)
    except (json.JSONDecodeError, UnicodeDecodeError, LookupError, AttributeError) as error:
        raise ValueError(f"{source} is damaged: {type(error).__name__}: {error}") from error


def _with_tables(state: Any, record: Any) -> Any:
    """Return what to restore, with those who rest, and who count steps together, as they did."""
    saved = iter(record.get("tables", ()))  # an earlier version wrote none
    if differences(record["states"].get("state", []), described(state)):
        return state  # which is refused

    def with_its_own(part: Any) -> Any:
        known = next(saved, None) if isinstance(part, GroupsState) else None
        if known is None:
            return part
        table = with_table(part.table, known)
        size = (len(table.of_clocks),)
        scalars = {
            name: jax.ShapeDtypeStruct(size, x.dtype, sharding=_sharding(x))
            for name, x in part.scalars.items()
        }
        return replace(part, table=table, scalars=scalars)

    return jax.tree.map(with_its_own, state, is_leaf=lambda x: isinstance(x, GroupsState))


def _orbax() -> Any:
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise ImportError("this needs Orbax: pip install orbax-checkpoint") from error


def _by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves by path, those that are numbers as arrays."""
    pairs = leaf_paths(tree)
    flat = {path: x if hasattr(x, "dtype") else np.asarray(x) for path, x in pairs}
    if len(flat) < len(pairs):
        paths = [path for path, _ in pairs]
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f'two leaves have the path "{twice}", by which they are saved')
    return flat


def _shapes(leaves: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {path: [list(x.shape), x.dtype.name] for path, x in leaves.items()}


def _size(leaf: Any) -> int:
    return int(np.prod(leaf.shape))


def _check(
    source: Path, record: Any, trees: Mapping[str, Any], flat: Mapping[str, dict[str, Any]]
) -> None:
    if record.get("version") != _VERSION:
        raise ValueError(
            f"{source} was saved as version {record.get('version')}; this jaxopt_port restores "
            f"{_VERSION}"
        )
    problems: list[str] = []
    for part, leaves in flat.items():
        saved = record["arrays"].get(part)
        if saved is None:
            problems.append(f"no {part} was saved there")
            continue
        found = differences(record["states"][part], described(trees[part]))
        problems += found + ([HINT] if found and part == "state" else [])
        if not found:
            problems += _of_arrays(part, saved, _shapes(leaves))
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems[:20])
        raise ValueError(f"{source} does not fit what it shall be restored as:{lines}")


def _of_arrays(part: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    problems = [
        f'{part}: "{path}" was saved, and is not here' for path in saved if path not in here
    ]
    problems += [f'{part}: "{path}" was not saved' for path in here if path not in saved]
    for path, (shape, dtype) in here.items():
        was = saved.get(path, [shape, dtype])
        if was != [shape, dtype]:
            problems.append(
                f'{part}: "{path}" was saved as {was[1]} of shape {tuple(was[0])}; here it is '
                f"{dtype} of shape {tuple(shape)}"
            )
    return problems


def _sharding(leaf: Any) -> Any:
    """Return where a leaf was put; None where it may go with what it is used with."""
    return getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None


def _wanted(path: str, leaf: Any, meshes: Mapping[Any, Any]) -> Any:
    """Return what Orbax shall restore a leaf as: NumPy's where no device has been chosen for it."""
    sharding = _sharding(leaf)
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh):
        mesh = meshes.get(sharding.mesh)
        if isinstance(mesh, AbstractMesh | None):
            raise ValueError(
                f'"{path}" has a sharding on a mesh without devices ({sharding}), and no parameter '
                "lies on such a mesh: give parameters with shardings on a jax.sharding.Mesh"
            )
        sharding = NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
    if sharding is None:
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)  # takes no memory
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _like(tree: Any, found: Mapping[str, Any]) -> Any:
    with jax.enable_x64(True):
        leaves = [
            jax.numpy.asarray(found[path] if path in found else np.zeros(np.shape(x), x.dtype))
            for path, x in _by_path(tree).items()
        ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
