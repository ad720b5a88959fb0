"""Layers of the user's own are run beside their counterparts: what differs is said, no more."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import linen as nn
from flax import nnx

from jaxopt_port.interop import LayerDifferenceWarning, param_map
from parity_tests.interop.own_layer_cases import OWN_LAYERS, LlamaRMSNorm, ScaledEmbedding
from parity_tests.oracles.two_layers import tensor_bytes


class Net(nnx.Module):
    def __init__(self, make: Any) -> None:
        self.layer = make(nnx.Rngs(0))


def _said(module: Any, like: Any, **options: Any) -> tuple[list[str], tuple[str, ...]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notes = param_map(module, like, **options).notes
    assert {each.category for each in caught} <= {LayerDifferenceWarning}
    return [str(each.message) for each in caught], notes


@pytest.mark.parametrize("name", OWN_LAYERS)
def test_a_layer_of_the_users_own(name: str) -> None:
    case = OWN_LAYERS[name]
    module = torch.nn.Module()
    module.layer = case.torch()
    before = [tensor_bytes(tensor) for tensor in module.state_dict().values()]
    random = torch.get_rng_state()
    messages, notes = _said(module, nnx.eval_shape(lambda: Net(case.nnx)), rename=case.rename)
    kind = type(module.layer).__name__
    assert len(messages) == bool(case.warning), messages
    assert all(m.startswith(f"layer ({kind}): {case.warning}") for m in messages), messages
    assert len(notes) == bool(case.note), notes
    assert all(note.startswith(case.note) for note in notes), notes
    assert [tensor_bytes(tensor) for tensor in module.state_dict().values()] == before
    assert torch.equal(torch.get_rng_state(), random)


class LinenNet(nn.Module):
    epsilon: float
    own: bool = False

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        x = nn.Embed(5, 6, name="embed")(ids)
        if self.own:
            return LinenNorm(self.epsilon, name="norm")(x)
        return nn.RMSNorm(epsilon=self.epsilon, name="norm")(x)


class LinenNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (6,))
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps) * scale


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
def test_linen(own: bool, epsilon: float) -> None:
    module = torch.nn.Module()
    module.embed, module.norm = ScaledEmbedding(5, 6), LlamaRMSNorm(1e-6)
    model, ids = LinenNet(epsilon, own), jnp.zeros((2, 3), int)
    variables = jax.eval_shape(model.init, jax.random.key(0), ids)
    messages, (note,) = _said(module, variables, flax_module=model, inputs=(ids,))
    assert note.startswith("embed (ScaledEmbedding) computes something else than nn.Embed")
    other = "computes something else than your LinenNorm" if own else "eps is 1e-06 in torch and 1"
    assert [m[:40] for m in messages] == [f"norm (LlamaRMSNorm): {other}"[:40]] * (epsilon == 1e-5)
    messages, (note,) = _said(module, variables)
    assert not messages
    assert note.startswith("eps of norm: 1e-05 in torch and 1e-06 in Flax where none is given")
    assert note.endswith("give flax_module, and inputs")


def test_a_state_dict_shows_no_layers() -> None:
    module = torch.nn.Sequential(LlamaRMSNorm(1e-5))
    model = nnx.eval_shape(lambda: nnx.Sequential(nnx.RMSNorm(6, rngs=nnx.Rngs(0))))
    messages, (note,) = _said(module.state_dict(), model)
    assert not messages
    assert note.startswith("eps of 0: ")
    assert note.endswith("give the module, not its state dict")
