"""Runs a layer of torch's, and one of Flax's, on numbers drawn for both."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...trees import leaf_paths
from .._tensors import import_torch
from ._jax_leaves import is_linen_module, is_nnx_module
from ._param_map import Array, Entry

_SMALL = 3e-3  # of inputs whose variance is of the size of an eps
_STATISTICS = ("mean", "var")


class Pair(NamedTuple):
    """Two layers, and the numbers that both get in place of their parameters and statistics."""

    torch_layer: Any
    part: Any
    kind: str  # which inputs they take
    values: Mapping[str, Array]  # by the tensors' own names
    leaves: Mapping[str, Array]  # the same by the leaves', in Flax's layout
    entries: Mapping[str, Entry]  # by the leaves' names


def drawn_pair(torch_layer: Any, part: Any, kind: str, entries: Sequence[Entry]) -> Pair:
    """Draw numbers that are positive and of the size of one, variances of that of an eps."""
    rng = np.random.default_rng(0)
    by_leaf = {entry.path.rpartition("/")[2]: entry for entry in entries}
    values: dict[str, Array] = {}
    for leaf, entry in by_leaf.items():
        size = np.float32(1e-5 if leaf == "var" else 1)
        drawn = size * (rng.random(entry.torch_shape, np.float32) + np.float32(0.5))
        values[_own_name(entry)] = drawn
    leaves = {leaf: entry.to_jax(values[_own_name(entry)]) for leaf, entry in by_leaf.items()}
    return Pair(torch_layer, part, kind, values, leaves, by_leaf)


def _own_name(entry: Entry) -> str:
    return entry.torch_name.rpartition(".")[2]


def inputs(pair: Pair) -> Iterator[tuple[Array, Array]]:
    """Yield inputs for torch and for Flax; of images torch's may have the channels before."""
    rng = np.random.default_rng(1)

    def drawn(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    if pair.kind == "Function":
        points = np.linspace(-5, 5, 41, dtype=np.float32)[None]
        yield points, points
    elif pair.kind == "Embedding":
        ids = np.arange(min(5, len(pair.leaves["embedding"])))[None]
        yield ids, ids
    elif pair.kind == "Linear":
        x = drawn(4, pair.leaves["kernel"].shape[0])
        yield x, x
    elif pair.kind == "Conv":
        *sizes, per_group, _ = pair.leaves["kernel"].shape
        x = drawn(
            2, *(3 * n + 3 for n in sizes), per_group * getattr(pair.part, "feature_group_count", 1)
        )
        yield np.moveaxis(x, -1, 1), x
    else:
        own = getattr(pair.part, "num_features", 6)  # where there are no leaves to say it
        features = max((leaf.shape[-1] for leaf in pair.leaves.values()), default=own)
        for between in ((), (3,), (2, 3)):
            x = drawn(8, *between, features)
            x[::2] *= _SMALL
            x[..., ::2] *= _SMALL
            yield x, x
            if between:
                yield np.moveaxis(x, -1, 1), x


def of_torch(
    pair: Pair, x: Array, training: bool = False, eps: float | None = None
) -> tuple[Array, dict[str, Array]]:
    """Run a copy of torch's layer in float32, on the CPU, without hooks.

    Args:
        pair: whose layer.
        x: its input.
        training: whether it is in that mode.
        eps: in place of its own.

    Returns:
        The output, and the statistics after it, by the leaves' names.
    """
    torch = import_torch()
    layer = copy.deepcopy(pair.torch_layer).cpu().float().train(training)
    if eps is not None:
        layer.eps = eps
    held = dict(layer.named_parameters()) | dict(layer.named_buffers())
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in pair.values.items():
            held[name].copy_(torch.tensor(value))
        out = layer.forward(torch.tensor(x)).numpy()
    kept = {leaf: entry for leaf, entry in pair.entries.items() if leaf in _STATISTICS}
    return out, {leaf: e.to_jax(held[_own_name(e)].numpy()) for leaf, e in kept.items()}


def of_flax(pair: Pair, x: Array, eps: float | None = None) -> Array:
    """Run a copy of Flax's layer, or the function, likewise; return the output."""
    settings: dict[str, Any] = {"dtype": jnp.float32, "use_running_average": True}
    settings = {name: value for name, value in settings.items() if hasattr(pair.part, name)}
    settings |= {} if eps is None else {"epsilon": eps}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        given = jnp.asarray(x)
        if is_linen_module(pair.part):
            part = pair.part.clone(parent=None, name=None, **settings)
            variables: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
            for leaf, value in pair.leaves.items():
                of_batches = leaf in _STATISTICS
                variables["batch_stats" if of_batches else "params"][leaf] = jnp.asarray(value)
            return np.asarray(part.apply(variables, given))
        part = pair.part
        if is_nnx_module(part):
            nnx = sys.modules["flax.nnx"]
            graph, state = nnx.split(part)
            leaves = [
                jnp.asarray(pair.leaves[path]) if path in pair.leaves else leaf
                for path, leaf in leaf_paths(state)
            ]
            part = nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))
            for name, value in settings.items():
                setattr(part, name, value)
        return np.asarray(part(given))
