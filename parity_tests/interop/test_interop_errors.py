"""What does not fit between torch and JAX is refused whole, and everything wrong is named."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import param_map, params_from_torch, params_to_torch
from parity_tests.oracles.two_layers import assert_begin, listed, make_module, plain, tensor_bytes


def _without(*path: str) -> Any:
    tree = plain()
    node = tree
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return tree


def _with(value: Any, *path: str) -> Any:
    tree = plain()
    node = tree
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    return tree


def _several() -> Any:
    tree = _with(jnp.zeros((6, 7)), "classifier", "1", "kernel")
    tree["features"]["0"]["kern"] = tree["features"]["0"].pop("kernel")
    tree["stem"] = {"bias": jnp.zeros(1)}
    return tree


# A tree that does not match the module, and what its message must say, all of it.
MISMATCHED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "missing": (
        lambda: _without("features", "0", "bias"),
        ["features/0/bias: missing from the JAX tree (torch's features.0.bias)"],
    ),
    "left over": (
        lambda: _with(jnp.zeros(1), "features", "2", "bias"),
        ["features/2/bias: torch's module has no such parameter"],
    ),
    "another shape": (
        lambda: _with(jnp.zeros((3, 2, 4, 5)), "features", "0", "kernel"),
        [
            "features/0/kernel: shape (3, 2, 4, 5), where torch's features.0.weight (3, 2, 4, 5)"
            " gives (4, 5, 2, 3)"
        ],
    ),
    "given twice": (
        lambda: {**plain(), "params": plain()},
        [f"params/{path}: torch's module has no such parameter" for path, _ in leaf_paths(plain())],
    ),
    "several at once": (
        _several,
        [
            "features/0/kern: torch's module has no such parameter; did you mean \"features/0",
            "features/0/kernel: missing from the JAX tree (torch's features.0.weight)",
            "classifier/1/kernel: shape (6, 7), where torch's classifier.1.weight (6, 6)",
            "stem/bias: torch's module has no such parameter",
        ],
    ),
    "nothing": (
        dict,
        [f"{path}: missing from the JAX tree" for path, _ in leaf_paths(plain())],
    ),
}
DIRECTIONS = {
    "from torch": lambda tree, module: params_from_torch(module, tree),
    "to torch": params_to_torch,
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("case", MISMATCHED)
def test_mismatches_are_listed_together_and_change_nothing(case: str, direction: str) -> None:
    tree, lines = MISMATCHED[case][0](), MISMATCHED[case][1]
    _assert_refused(DIRECTIONS[direction], tree, lines)


# What cannot be copied into a float32 module as it is.
OTHER_DTYPES: dict[str, tuple[Any, str]] = {
    "bfloat16": (jnp.zeros(6, jnp.bfloat16), "bfloat16 here, float32 in torch's classifier.1.bias"),
    "int32": (jnp.zeros(6, jnp.int32), "int32 here, float32 in torch's classifier.1.bias"),
    "float64": (np.zeros(6), "float64 here, float32 in torch's classifier.1.bias"),
}


@pytest.mark.parametrize("case", OTHER_DTYPES)
@pytest.mark.parametrize("mapped", [False, True])
def test_to_torch_does_not_round(case: str, mapped: bool) -> None:
    value, message = OTHER_DTYPES[case]
    # A mis-shaped leaf beside it: both kinds are in one message.
    tree = _with(value, "classifier", "1", "bias")
    tree["features"]["0"]["bias"] = jnp.zeros(4)
    lines = [f"classifier/1/bias: {message}", "features/0/bias: shape (4,)"]
    given = param_map(make_module(), plain()) if mapped else None
    call = functools.partial(params_to_torch, param_map=given)
    _assert_refused(call, tree, lines[:1] if mapped else lines)


def _assert_refused(call: Callable[[Any, Any], Any], tree: Any, lines: list[str]) -> None:
    module = make_module()
    before = [tensor_bytes(param) for param in module.parameters()]
    reported = listed(lambda: call(tree, module), "do not have the same parameters")
    assert_begin(sorted(reported), sorted(lines))
    assert [tensor_bytes(param) for param in module.parameters()] == before


def test_layers_without_parameters_need_no_layout() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 2), torch.nn.Flatten())
    like = {"1": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    assert params_from_torch(module, like)["1"]["bias"].shape == (2,)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.usefixtures("no_torch")
def test_missing_torch_is_said_to_be_missing(direction: str) -> None:
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-port\[torch\]'"):
        DIRECTIONS[direction](plain(), object())
