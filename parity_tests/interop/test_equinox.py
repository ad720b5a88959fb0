"""Equinox's layers, whose tensors lie mostly as torch's do: outputs agree, bits come back."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.interop import param_map, params_from_torch, params_to_torch

T, E = torch.nn, eqx.nn
KEY = jax.random.key(0)


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Attention(T.Module):
    def __init__(self):
        super().__init__()
        self.attn = T.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attn(x, x, x)[0]


class EqxAttention(eqx.Module):
    attn: E.MultiheadAttention

    def __call__(self, x):
        return self.attn(x, x, x)


def attention():
    biases = dict.fromkeys(
        ("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True
    )
    return EqxAttention(E.MultiheadAttention(2, 8, **biases, key=KEY))


def sequential(*layers):
    functions = (layer if isinstance(layer, eqx.Module) else E.Lambda(layer) for layer in layers)
    return E.Sequential(list(functions))


CASES: dict[str, Any] = {
    "square linear layers": (
        lambda: T.Sequential(T.Linear(4, 4), T.ReLU(), T.Dropout(0.0), T.Linear(4, 4, bias=False)),
        lambda: sequential(
            E.Linear(4, 4, key=KEY), jax.nn.relu, E.Dropout(0.0),
            E.Linear(4, 4, use_bias=False, key=KEY),
        ),
        drawn(3, 4),
    ),
    "convolutions": (
        lambda: T.Sequential(T.Conv2d(3, 4, 3, padding=1), T.GroupNorm(2, 4), T.Conv2d(4, 4, 4)),
        lambda: sequential(
            E.Conv2d(3, 4, 3, padding=1, key=KEY), E.GroupNorm(2, 4), E.Conv2d(4, 4, 4, key=KEY)
        ),
        drawn(2, 3, 6, 6),
    ),
    "transposed convolutions": (
        lambda: T.Sequential(T.ConvTranspose1d(4, 4, 3, stride=2), T.ConvTranspose1d(4, 2, 2)),
        lambda: sequential(
            E.ConvTranspose1d(4, 4, 3, stride=2, key=KEY), E.ConvTranspose1d(4, 2, 2, key=KEY)
        ),
        drawn(2, 4, 5),
    ),
    "attention": (Attention, attention, drawn(2, 5, 8)),
    "a norm": (lambda: T.LayerNorm(4), lambda: E.LayerNorm(4), drawn(3, 4)),
    "a slope": (T.PReLU, E.PReLU, drawn(3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_outputs_agree_and_values_come_back(name):
    make, port, x = CASES[name]
    torch.manual_seed(0)
    module, model = make(), port()
    for p in module.parameters():
        torch.nn.init.uniform_(p, 0.1, 1.0)
    imported = params_from_torch(module, model)
    want = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(jax.jit(jax.vmap(imported))(x), want, rtol=2e-6, atol=2e-6)
    back = params_to_torch(imported, make())
    held = module.state_dict()
    assert all(torch.equal(value, held[key]) for key, value in back.state_dict().items())
    # What a user trains: the arrays alone.
    arrays = eqx.filter(model, eqx.is_inexact_array)
    assert param_map(module, arrays).entries == param_map(module, model).entries
    both = {"net": model}  # modules within a tree of one's own
    got = params_from_torch(T.ModuleDict({"net": module}), both)["net"]
    assert eqx.tree_equal(got, imported)


def test_a_layer_of_ones_own_does_not_tell_its_layout():
    class Own(eqx.Module):
        weight: jax.Array

    with pytest.raises(ValueError, match="fits in more than one layout"):
        param_map(T.Linear(4, 4, bias=False), Own(jnp.zeros((4, 4))))


def equinox_case(**options):
    torch.manual_seed(0)
    module = T.Sequential(T.Linear(4, 4), T.ReLU(), T.Linear(4, 4))
    theirs = verify.TorchSide(
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=0.01),
        clip=lambda parameters: T.utils.clip_grad_norm_(parameters, 0.1),
        loss=lambda output, batch: T.functional.mse_loss(output, batch[1]),
    )
    mine = verify.equinox_side(
        sequential(E.Linear(4, 4, key=KEY), jax.nn.relu, E.Linear(4, 4, key=KEY)),
        loss=lambda output, batch: jnp.mean((output - batch[1]) ** 2),
        clip=lambda grads: jp.clip_grad_norm(grads, 0.1)[0],
        **options,
    )
    return verify.compare(theirs, mine, [(drawn(8, 4), drawn(8, 4) ** 2)] * 5)


def test_a_side_of_an_equinox_model():
    assert equinox_case(tx=jp.AdamW(lr=0.01)).ok
    halved = equinox_case(
        tx=optax.adamw(0.01, weight_decay=0.01),
        forward=lambda model, batch: jax.vmap(model)(batch[0]) / 2,
    )
    assert halved.first.stage == "forward"


def test_what_is_no_model_or_has_state_is_refused():
    given = {"tx": jp.SGD(lr=0.1), "loss": lambda output, batch: output.sum()}
    with pytest.raises(TypeError, match=r"takes an equinox\.Module, got dict"):
        verify.equinox_side({}, **given)
    with pytest.raises(TypeError, match="got the class Linear"):
        verify.equinox_side(E.Linear, **given)
    model, _ = E.make_with_state(E.BatchNorm)(3, axis_name="batch", mode="ema")
    with pytest.raises(ValueError, match="a layer of the model has a state"):
        verify.equinox_side(model, **given)
