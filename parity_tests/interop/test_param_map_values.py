"""Values through a map: ties, parts, random states, Linen's cells, and every dtype's bits."""

from __future__ import annotations

from collections import OrderedDict
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
from jaxopt_port.interop import Entry, param_map, params_from_torch, params_to_torch
from jaxopt_port.interop._tensors import to_jax
from parity_tests.interop.checkpoint_cases import DTYPES
from parity_tests.oracles.tolerances import bound
from parity_tests.oracles.two_layers import Tied, tensor_bytes

T = torch.nn
Z = jnp.zeros
LAYER = bound("a layer in float32")


def test_names_of_parameters_and_ties() -> None:
    module = T.ModuleDict({"tied": Tied(), "norm": T.BatchNorm1d(3)})
    like = {"tied": {"head": {"kernel": Z((4, 5))}}, "norm": {"scale": Z(3), "bias": Z(3)}}
    made = param_map(module, like)
    assert made.torch_names == tuple(name for name, _ in module.named_parameters())
    assert made.aliases == {"tied.head.weight": "tied.embed.weight"}
    assert made.notes == ("torch's buffers without a leaf: norm.running_mean, norm.running_var",)
    assert "tied to tied.head.weight" in str(made)
    assert param_map(module.state_dict(), like).torch_names == made.torch_names


def test_tied_leaves_come_back_under_each_name() -> None:
    module, like = Tied(), {"head": {"kernel": Z((4, 5))}}
    made = param_map(module, like)
    tree = params_from_torch(module, like, made)
    rebuilt = params_to_torch(tree, None, made)
    assert rebuilt.keys() == module.state_dict().keys()
    assert rebuilt["head.weight"] is rebuilt["embed.weight"]
    assert torch.equal(rebuilt["head.weight"], module.head.weight)
    one = {"head.weight": module.head.weight.detach()}  # as a file that keeps ties once
    assert torch.equal(
        params_to_torch(params_from_torch(one, like, made), None, made)["embed.weight"],
        module.embed.weight,
    )


def test_not_strict_takes_what_matches() -> None:
    module = T.Sequential(T.Linear(3, 2), T.Linear(2, 2))
    like = {"0": {"kernel": jnp.ones((3, 2))}, "9": {"kernel": jnp.full((2, 2), 7.0)}}
    got = params_from_torch(module, like, strict=False)
    np.testing.assert_array_equal(got["0"]["kernel"], module[0].weight.detach().numpy().T)
    np.testing.assert_array_equal(got["9"]["kernel"], like["9"]["kernel"])
    notes = param_map(module, like, strict=False).notes
    assert [note.partition(":")[0] for note in notes] == [
        "0/bias",
        "1/kernel",
        "1/bias",
        "9/kernel",
    ]

    before = {name: tensor_bytes(p) for name, p in module.named_parameters()}
    params_to_torch(like, module, strict=False)
    changed = {n for n, p in module.named_parameters() if tensor_bytes(p) != before[n]}
    assert changed == {"0.weight"}
    assert torch.equal(module[0].weight, torch.ones(2, 3))

    shapes = {"0": like["0"], "9": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}
    with pytest.raises(ValueError, match="9/kernel: torch has no value for it, and the tree only"):
        params_from_torch(module, shapes, strict=False)


def test_random_states_are_passed_over() -> None:
    model = nnx.List([nnx.Dropout(0.5, rngs=nnx.Rngs(3)), nnx.PReLU()])
    layer = T.Sequential(T.Dropout(0.5), T.PReLU(init=0.75))
    for like in (model, nnx.state(model), as_pure(nnx.state(model))):
        state = params_from_torch(layer, like)
        kept = dict(leaf_paths(state))
        assert kept["1/negative_slope"] == 0.75
        assert jax.random.key_data(kept["0/rngs/key"]).tolist() == [
            *jax.random.key_data(model[0].rngs.key[...]).tolist()
        ]
    nnx.update(model, params_from_torch(layer, model))
    assert model[1].negative_slope[...] == 0.75


class _LinenCell(nn.RNNCellBase):
    """An LSTM, or a GRU, with torch's two biases to each gate and Linen's names."""

    gates: tuple[str, ...]

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array) -> Any:
        c, h = carry
        of_x = {g: nn.Dense(3, name=f"i{g}")(x) for g in self.gates}
        of_h = {g: nn.Dense(3, name=f"h{g}")(h) for g in self.gates}
        if len(self.gates) == 3:
            r, z = (nn.sigmoid(of_x[g] + of_h[g]) for g in "rz")
            new = (1 - z) * nn.tanh(of_x["n"] + r * of_h["n"]) + z * h
            return (new, new), new
        i, f, o = (nn.sigmoid(of_x[g] + of_h[g]) for g in "ifo")
        c = f * c + i * nn.tanh(of_x["g"] + of_h["g"])
        return (c, o * nn.tanh(c)), o * nn.tanh(c)


@pytest.mark.parametrize(("layer", "gates"), [(T.LSTMCell, "ifgo"), (T.GRUCell, "rzn")])
def test_linen_cells_with_two_biases(layer: Any, gates: str) -> None:
    module, model = layer(4, 3), _LinenCell(tuple(gates))
    rng = np.random.default_rng(0)
    x, h, c = (rng.normal(size=(2, n)).astype(np.float32) for n in (4, 3, 3))
    like = jax.eval_shape(model.init, jax.random.key(0), (c, h), x)
    got = jax.jit(model.apply)(params_from_torch(module, like), (c, h), x)[1]
    state = tuple(map(torch.from_numpy, (h, c)))
    want = module(torch.from_numpy(x), state if len(gates) == 4 else state[0])
    want = want[0] if len(gates) == 4 else want
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=LAYER, atol=LAYER)


def test_linen_attention() -> None:
    module = T.MultiheadAttention(6, 2, batch_first=True)
    model = nn.MultiHeadDotProductAttention(num_heads=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    got = jax.jit(model.apply)(params_from_torch(module, like), x)
    inputs = torch.from_numpy(x)
    np.testing.assert_allclose(
        got, module(inputs, inputs, inputs)[0].detach().numpy(), rtol=LAYER, atol=LAYER
    )


class _LinenImages(nn.Module):
    transpose_kernel: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(3, (3, 3), name="0")(x)
        x = nn.BatchNorm(use_running_average=True, name="1")(x)
        pads, transpose = ((1, 1), (1, 1)), self.transpose_kernel
        x = nn.ConvTranspose(3, (3, 3), padding=pads, transpose_kernel=transpose, name="2")(x)
        return nn.Dense(2, name="4")(x.transpose(0, 3, 1, 2).reshape(len(x), -1))


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_linen_convolutions_and_statistics(transpose_kernel: bool) -> None:
    module = T.Sequential(
        T.Conv2d(3, 3, 3, padding=1), T.BatchNorm2d(3), T.ConvTranspose2d(3, 3, 3, padding=1)
    )
    module.append(T.Flatten()).append(T.Linear(60, 2)).eval()
    module[1].running_mean.add_(0.5)
    module[1].running_var.mul_(3)
    model = _LinenImages(transpose_kernel)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    images = x.transpose(0, 2, 3, 1)
    like = jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"params/2/kernel: torch's 2\.weight .* more than one"):
        param_map(module, like)  # as many channels in as out: the layer has to be seen
    made = param_map(module, like, flax_module=model, inputs=(images,))
    got = jax.jit(model.apply)(params_from_torch(module, like, made), images)
    want = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=LAYER, atol=LAYER)


def test_a_state_of_an_nnx_sequential_is_found_by_its_module() -> None:
    model = nnx.eval_shape(lambda: nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))))
    made = param_map(T.Sequential(T.Linear(3, 2)), nnx.state(model), flax_module=model)
    assert [entry.path for entry in made.entries] == ["layers/0/bias", "layers/0/kernel"]


# Through each step of a layout, of every dtype that both sides have.
ENTRIES = {
    "as is": Entry("a", "a", (6, 4), "float32"),
    "no axes": Entry("a", "a", (), "float32"),
    "empty": Entry("a", "a", (0, 3), "float32", axes=(1, 0)),
    "transposed": Entry("a", "a", (6, 4), "float32", axes=(1, 0)),
    "flipped": Entry("a", "a", (3, 4, 2, 5), "float32", axes=(2, 3, 0, 1), flip=(0, 1)),
    "rows": Entry("a", "a", (6, 4), "float32", rows=(2, 4), axes=(1, 0)),
    "heads": Entry("a", "a", (6, 4), "float32", rows=(0, 6), view=(3, 2, 4), axes=(2, 0, 1)),
    "viewed": Entry("a", "a", (1,), "float32", view=()),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_undone_bit_for_bit(name: str, dtype: str) -> None:
    entry = ENTRIES[name]
    size = np.dtype(DTYPES[dtype]).itemsize * int(np.prod(entry.torch_shape))
    # Any bits, NaN and subnormal numbers among them; of a boolean only two are.
    drawn = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    whole = drawn.view(DTYPES[dtype]).reshape(entry.torch_shape)
    leaf = entry.to_jax(whole)
    assert leaf.shape == entry.shape
    assert leaf.dtype == whole.dtype
    back = entry.to_torch(leaf)
    rows = whole if entry.rows is None else whole[slice(*entry.rows)]
    assert back.tobytes() == rows.tobytes()
    if whole.size:
        assert np.shares_memory(leaf, whole)


def test_gradients_and_moments_cross_together() -> None:
    # What an optimizer's state needs: any dtype, parts put together, in the order of the leaves.
    module = T.MultiheadAttention(6, 2)
    like = nnx.eval_shape(lambda: nnx.MultiHeadAttention(2, 6, decode=False, rngs=nnx.Rngs(0)))
    made = param_map(module, like)
    rng = np.random.default_rng(0)
    moments = {n: rng.normal(size=p.shape) for n, p in module.named_parameters()}
    there = made.from_torch(moments)
    assert list(there) == [entry.path for entry in made.entries]
    back = made.to_torch(there)
    assert back.keys() == moments.keys()
    for name, moment in moments.items():
        assert back[name].tobytes() == moment.tobytes(), name
    some = made.from_torch(OrderedDict(in_proj_bias=moments["in_proj_bias"]), strict=False)
    assert sorted(some) == ["key/bias", "query/bias", "value/bias"]
    assert made.to_torch(some, strict=False).keys() == {"in_proj_bias"}


def test_an_array_may_change_at_once() -> None:
    # JAX may read what it is given after the call has returned, and of large arrays it does.
    for _ in range(10):
        array = np.ones(1 << 22, np.float32)
        there = to_jax(array)
        array[:] = 2
        np.testing.assert_array_equal(there[:: 1 << 12], 1)


def test_any_strides_and_an_nnx_module_both_ways() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    state_dict = {"weight": values.T[::2], "bias": torch.arange(4.0)[::2].conj()}
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    nnx.update(model, params_from_torch(state_dict, model))
    np.testing.assert_array_equal(model.kernel[...], values[:, ::2].numpy())
    module = params_to_torch(model, T.Linear(3, 2))
    assert torch.equal(module.weight, values.T[::2])
    assert torch.equal(module.bias, torch.tensor([0.0, 2.0]))
