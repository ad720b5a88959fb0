"""Parameters cross between torch and JAX bit for bit, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from flax import nnx

from jaxopt_port._compat import as_pure
from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import params_from_torch, params_to_torch
from parity_tests.oracles.two_layers import make_module, plain, tensor_bytes

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class NNXModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.features = nnx.List([nnx.Conv(2, 3, (4, 5), rngs=rngs), nnx.relu])
        self.classifier = nnx.List([nnx.relu, nnx.Linear(6, 6, rngs=rngs)])


class LinenFeatures(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Conv(3, (4, 5), name="0")(images)


class LinenClassifier(nn.Module):
    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        return nn.Dense(6, name="1")(vectors)


class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, vectors: jax.Array) -> Any:
        features = LinenFeatures(name="features")(images)
        return features, LinenClassifier(name="classifier")(vectors)


def _nnx_state() -> Any:
    return nnx.state(nnx.eval_shape(lambda: NNXModel(nnx.Rngs(0))), nnx.Param)


def _linen_variables() -> Any:
    key, images, vectors = jax.random.key(0), jnp.zeros((1, 8, 8, 2)), jnp.zeros((1, 6))
    return jax.eval_shape(LinenModel().init, key, images, vectors)


def _explicit_params() -> dict[str, Any]:
    return {"params": plain()}


LIKE: dict[str, Callable[[], Any]] = {
    "dict": plain,
    "dict below params": _explicit_params,
    "list of layers": lambda: {**plain(), "features": [plain()["features"]["0"]]},
    "shapes only": lambda: jax.eval_shape(plain),
    "NNX state": _nnx_state,
    "NNX pure state": lambda: as_pure(_nnx_state()),
    "Linen variables": _linen_variables,
    "Linen params": lambda: _linen_variables()["params"],
}


@pytest.mark.parametrize("like", LIKE)
def test_from_torch_keeps_the_structure_and_lays_out_by_layer(like: str) -> None:
    module, tree = make_module(), LIKE[like]()
    got = params_from_torch(module, tree)
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    values = {path.removeprefix("params/"): np.asarray(leaf) for path, leaf in leaf_paths(got)}
    conv, linear = module.features[0], module.classifier[1]
    want = {
        "features/0/kernel": conv.weight.permute(2, 3, 1, 0),
        "features/0/bias": conv.bias,
        "classifier/1/kernel": linear.weight.T,
        "classifier/1/bias": linear.bias,
    }
    assert values.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(values[path], want[path].detach().numpy(), err_msg=path)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("like", LIKE)
def test_there_and_back_changes_no_bit(like: str, dtype: str) -> None:
    source, target = (make_module(seed, DTYPES[dtype]) for seed in (0, 1))
    _write_special_values(source)
    tree = params_from_torch(source, LIKE[like]())
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {dtype}
    assert params_to_torch(tree, target) is target
    for name, param in target.named_parameters():
        assert tensor_bytes(param) == tensor_bytes(source.get_parameter(name)), name
        assert param.requires_grad, name


def _write_special_values(module: torch.nn.Module) -> None:
    # Negative zero, a subnormal of float32, infinity, NaN: what arithmetic on the way would change.
    special = torch.tensor([-0.0, 1e-39, float("-inf"), float("nan")])
    with torch.no_grad():
        for param in module.parameters():
            param.view(-1)[:4] = special[: param.numel()].to(param.dtype)


def test_nothing_is_aliased() -> None:
    module = make_module()
    tree = params_from_torch(module, plain())
    before = jax.tree.map(np.array, tree)
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
    jax.tree.map(np.testing.assert_array_equal, tree, before)

    params_to_torch(tree, module)
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
    jax.tree.map(np.testing.assert_array_equal, tree, before)


def test_to_torch_writes_in_place() -> None:
    # An optimizer that holds the parameters goes on with them.
    module = make_module()
    before = {name: (param, param.data_ptr()) for name, param in module.named_parameters()}
    params_to_torch(jax.tree.map(lambda x: x + 1, plain()), module)
    for name, param in module.named_parameters():
        assert (param, param.data_ptr()) == before[name]
        assert torch.equal(param, torch.ones_like(param))


def test_a_single_layer_and_no_bias() -> None:
    layer = torch.nn.Linear(3, 2, bias=False)
    tree = params_from_torch(layer, {"kernel": jnp.zeros((3, 2))})
    np.testing.assert_array_equal(tree["kernel"], layer.weight.detach().numpy().T)


def test_a_module_called_params_keeps_its_name() -> None:
    module = torch.nn.ModuleDict({"params": torch.nn.Linear(3, 2)})
    like = {"params": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    assert params_from_torch(module, like)["params"]["kernel"].shape == (3, 2)
