"""Names, ties and layouts: by name where both sides agree, by rules where they do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import Layout, ParamMap, param_map
from parity_tests.oracles.two_layers import Tied

T = torch.nn
Z = jnp.zeros
TRANSPOSED = Layout((1, 0))


def _linear(features: int = 3, out: int = 2, name: str = "kernel") -> dict[str, Any]:
    return {name: Z((features, out)), "bias": Z(out)}


def _two_linears() -> Any:
    return T.Sequential(T.Linear(3, 2), T.ReLU(), T.Linear(2, 3))


class _Conv1D(T.Module):
    """As in GPT-2: a weight that torch keeps as (in, out)."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            T.Parameter(torch.randn(features, out)),
            T.Parameter(torch.randn(out)),
        )


class Named(NamedTuple):
    module: Callable[[], Any]
    like: Callable[[], Any]
    found: dict[str, tuple[str, Layout]]  # by path
    options: Mapping[str, Any] = MappingProxyType({})


def _both(prefix: str, torch_prefix: str) -> dict[str, tuple[str, Layout]]:
    return {
        f"{prefix}bias": (f"{torch_prefix}bias", Layout()),
        f"{prefix}kernel": (f"{torch_prefix}weight", TRANSPOSED),
    }


DENSE = {"Dense_0": _linear(), "Dense_1": _linear(2, 3)}
DENSE_FOUND = {**_both("Dense_0/", "0."), **_both("Dense_1/", "2.")}
NAMED: dict[str, Named] = {
    "one layer": Named(lambda: T.Linear(3, 2), _linear, _both("", "")),
    "a rule for each": Named(
        _two_linears, lambda: DENSE, DENSE_FOUND, {"rename": [("^0", "Dense_0"), ("^2", "Dense_1")]}
    ),
    "rules as a mapping, in turn": Named(
        _two_linears,
        lambda: {"params": DENSE},
        {f"params/{path}": found for path, found in DENSE_FOUND.items()},
        {"rename": {r"^(\d)\.": r"Dense_\1/", "Dense_2": "Dense_1"}},
    ),
    "a function": Named(
        _two_linears,
        lambda: DENSE,
        DENSE_FOUND,
        {"rename": lambda name: f"Dense_{int(name[0]) // 2}{name[1:]}"},
    ),
    "a function of leaves and layers, or of neither": Named(
        _two_linears,
        lambda: {"a": Z((3, 2)), "b": Z(2), "2": _linear(2, 3)},
        {"a": ("0.weight", TRANSPOSED), "b": ("0.bias", Layout()), **_both("2/", "2.")},
        {"rename": {"0.weight": "a", "0.bias": "b", "2.weight": "2"}.get},
    ),
    "torch's own names": Named(
        lambda: T.Linear(3, 2),
        lambda: {"weight": Z((2, 3)), "bias": Z(2)},
        {"weight": ("weight", Layout()), "bias": ("bias", Layout())},
    ),
    "torch's own name, transposed": Named(
        lambda: T.Linear(3, 2, bias=False),
        lambda: {"weight": Z((3, 2))},
        {"weight": ("weight", TRANSPOSED)},
    ),
    "torch's names as keys": Named(
        lambda: T.Sequential(T.Linear(3, 2)),
        lambda: {"0.weight": Z((2, 3)), "0.bias": Z(2)},
        {"0.weight": ("0.weight", Layout()), "0.bias": ("0.bias", Layout())},
    ),
    "an nnx.Sequential": Named(
        _two_linears,
        lambda: nnx.eval_shape(
            lambda: nnx.Sequential(
                nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(2, 3, rngs=nnx.Rngs(0))
            )
        ),
        {**_both("layers/0/", "0."), **_both("layers/2/", "2.")},
    ),
    "a state dict": Named(lambda: T.Linear(3, 2).state_dict(), lambda: _linear(), _both("", "")),
    "a state dict, square": Named(
        lambda: T.Sequential(T.Linear(3, 3), T.LayerNorm(3)).state_dict(),
        lambda: {"0": _linear(3, 3), "1": {"scale": Z(3), "bias": Z(3)}},
        {**_both("0/", "0."), "1/scale": ("1.weight", Layout()), "1/bias": ("1.bias", Layout())},
        {"layouts": {"*.weight": (1, 0)}},
    ),
    "a state dict of arrays": Named(
        lambda: {"w.weight": np.zeros((2, 3)), "w.bias": np.zeros(2)},
        lambda: {"w": _linear()},
        _both("w/", "w."),
    ),
    "a state dict, one element": Named(
        lambda: {"weight": np.zeros((1, 1))},
        lambda: {"kernel": Z((1, 1))},
        {"kernel": ("weight", Layout())},
    ),
    "a state dict's convolution": Named(
        lambda: {"weight": np.zeros((5, 4, 3, 2))},
        lambda: {"kernel": Z((3, 2, 4, 5))},
        {"kernel": ("weight", Layout((2, 3, 1, 0)))},
    ),
    "a state dict's convolution in Flax's layer": Named(
        lambda: {"weight": np.zeros((4, 4, 3, 2))},
        lambda: nnx.eval_shape(lambda: nnx.Conv(4, 4, (3, 2), use_bias=False, rngs=nnx.Rngs(0))),
        {"kernel": ("weight", Layout((2, 3, 1, 0)))},
    ),
    "a state dict's transposed convolution": Named(
        lambda: {"weight": np.zeros((5, 4, 3))},
        lambda: {"kernel": Z((3, 5, 4))},
        {"kernel": ("weight", Layout((2, 0, 1), flip=(0,)))},
    ),
    "layouts by path": Named(
        lambda: T.ConvTranspose1d(4, 4, 3, bias=False),
        lambda: {"kernel": Z((3, 4, 4))},
        {"kernel": ("weight", Layout((2, 0, 1), flip=(0,)))},
        {"layouts": {"kernel": Layout((2, 0, 1), flip=(0,))}},
    ),
    "a layer that is not torch's": Named(
        lambda: T.Sequential(_Conv1D(3, 2), _Conv1D(4, 4)),
        lambda: {"0": _linear(), "1": _linear(4, 4)},
        {
            "0/kernel": ("0.weight", Layout()),
            "0/bias": ("0.bias", Layout()),
            "1/kernel": ("1.weight", Layout()),
            "1/bias": ("1.bias", Layout()),
        },
        {"layouts": {"1.weight": None}},
    ),
    "an exact layout before a glob's": Named(
        lambda: T.Sequential(T.Linear(4, 4, bias=False), T.Linear(4, 4, bias=False)).state_dict(),
        lambda: {"0": {"kernel": Z((4, 4))}, "1": {"kernel": Z((4, 4))}},
        {"0/kernel": ("0.weight", TRANSPOSED), "1/kernel": ("1.weight", Layout())},
        {"layouts": {"*": (1, 0), "1/kernel": None}},
    ),
    "tied, at the first": Named(
        Tied,
        lambda: {"embed": {"embedding": Z((5, 4))}},
        {"embed/embedding": ("embed.weight", Layout())},
    ),
    "tied, at the second": Named(
        Tied,
        lambda: {"head": {"kernel": Z((4, 5))}},
        {"head/kernel": ("embed.weight", TRANSPOSED)},
    ),
    "tied in a state dict": Named(
        lambda: Tied().state_dict(),
        lambda: {"head": {"kernel": Z((4, 5))}},
        {"head/kernel": ("embed.weight", TRANSPOSED)},
    ),
    "batch statistics of Linen": Named(
        lambda: T.Sequential(T.BatchNorm1d(3)),
        lambda: {
            "params": {"0": {"scale": Z(3), "bias": Z(3)}},
            "batch_stats": {"0": {"mean": Z(3), "var": Z(3)}},
        },
        {
            "params/0/scale": ("0.weight", Layout()),
            "params/0/bias": ("0.bias", Layout()),
            "batch_stats/0/mean": ("0.running_mean", Layout()),
            "batch_stats/0/var": ("0.running_var", Layout()),
        },
    ),
    "parameters without their statistics": Named(
        lambda: T.BatchNorm1d(3),
        lambda: {"scale": Z(3), "bias": Z(3)},
        {"scale": ("weight", Layout()), "bias": ("bias", Layout())},
    ),
    "attention of a state dict": Named(
        lambda: dict(T.MultiheadAttention(6, 3, bias=False).state_dict()),
        lambda: {
            **{name: {"kernel": Z((6, 3, 2))} for name in ("query", "key", "value")},
            "out": {"kernel": Z((3, 2, 6))},
        },
        {
            **{
                f"{name}/kernel": (
                    "in_proj_weight",
                    Layout((2, 0, 1), (6 * i, 6 * i + 6), (3, 2, 6)),
                )
                for i, name in enumerate(("query", "key", "value"))
            },
            "out/kernel": ("out_proj.weight", Layout((1, 2, 0), None, (6, 3, 2))),
        },
    ),
    "attention without an axis of heads": Named(
        lambda: T.MultiheadAttention(4, 2, bias=False),
        lambda: {name: {"kernel": Z((4, 4))} for name in ("query", "key", "value", "out_proj")},
        {
            **{
                f"{name}/kernel": ("in_proj_weight", Layout((1, 0), (4 * i, 4 * i + 4)))
                for i, name in enumerate(("query", "key", "value"))
            },
            "out_proj/kernel": ("out_proj.weight", TRANSPOSED),
        },
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_names_and_layouts(name: str) -> None:
    case = NAMED[name]
    module, like = case.module(), case.like()
    made = param_map(module, like, **case.options)
    found = {entry.path: (entry.torch_name, entry.layout) for entry in made.entries}
    assert found == case.found
    tree = nnx.state(like) if isinstance(like, nnx.Module) else like
    assert list(found) == [path for path, _ in leaf_paths(tree)]
    for entry, (_, leaf) in zip(made.entries, leaf_paths(tree), strict=True):
        assert entry.shape == leaf.shape
    assert ParamMap.from_json(json.loads(json.dumps(made.to_json()))) == made
    for entry in made.entries:
        assert re.search(
            f"^{re.escape(entry.path)} .* {re.escape(entry.torch_name)} ", str(made), re.M
        )
