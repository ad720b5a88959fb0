"""Layers that would compute something else with torch's parameters are named, with a remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from flax import nnx

from jaxopt_port.interop import LayerDifferenceWarning, param_map, params_from_torch
from jaxopt_port.interop.mapping._layer_differences import differences
from jaxopt_port.interop.mapping._padding import flax_padding, torch_padding
from parity_tests.faults.layer_differences import AGREEING, DIFFERENCES
from parity_tests.oracles.layer_cases import CASES
from parity_tests.oracles.tolerances import bound

T = torch.nn


def _made(make: Callable[[nnx.Rngs], Any]) -> Any:
    return nnx.eval_shape(lambda: nnx.List([make(nnx.Rngs(0))]))[0]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_named(name: str) -> None:
    case = DIFFERENCES[name]
    found = differences(case.torch(), _made(case.nnx))
    assert len(found) == len(case.messages), found
    for message, begin in zip(found, case.messages, strict=True):
        assert message.startswith(begin), message


@pytest.mark.parametrize("name", AGREEING)
def test_no_false_alarm(name: str) -> None:
    torch_layer, flax_part = AGREEING[name]
    assert differences(torch_layer(), _made(flax_part)) == []


class _Layers(nnx.Module):
    def __init__(self, *layers: Any) -> None:
        self.layers = nnx.List(layers)


def _gru(features: int = 4, **options: Any) -> Any:
    cell = nnx.GRUCell(features, 3, rngs=nnx.Rngs(0), **options.pop("cell", {}))
    cell.dense_i = nnx.Linear(features, 9, use_bias=False, rngs=nnx.Rngs(0))
    return nnx.RNN(cell, **options)


def _both(**options: Any) -> Any:
    return nnx.Bidirectional(_gru(), _gru(), **options)


# What runs a cell over a sequence: torch's options, Flax's, how the warnings and the notes begin.
FORWARDS = "reverse=True goes backwards"
RUNS: dict[str, tuple[dict[str, Any], Callable[[], Any], tuple[str, ...], tuple[str, ...]]] = {
    "as torch": ({}, lambda: _gru(), (), ()),
    "reverse": ({}, lambda: _gru(reverse=True), (FORWARDS,), ()),
    "reverse, in order": ({}, lambda: _gru(reverse=True, keep_order=True), (FORWARDS,), ()),
    "time first here": ({}, lambda: _gru(time_major=True), ("time_major=True takes (time",), ()),
    "time first there": (
        {"batch_first": False},
        lambda: _gru(),
        (),
        ("takes (time, batch, …) in",),
    ),
    "time first": ({"batch_first": False}, lambda: _gru(time_major=True), (), ()),
    "both directions": ({"bidirectional": True}, lambda: _both(), (), ()),
    "both directions, time first here": (
        {"bidirectional": True},
        lambda: _both(time_major=True),
        ("time_major=True takes (time",),
        (),
    ),
    "both directions, joined otherwise": (
        {"bidirectional": True},
        lambda: _both(merge_fn=lambda a, b: a + b),
        (),
        ("merge_fn is not Flax's own",),
    ),
    "the second of two": (
        {"num_layers": 2, "dropout": 0.1},
        lambda: _Layers(_gru(), _gru(3, reverse=True, cell={"activation_fn": nnx.relu})),
        ("activation_fn is relu in Flax", FORWARDS),
        ("has dropout=0.1 between its layers",),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_runs_a_cell_is_compared(name: str) -> None:
    options, make, warned, noted = RUNS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = param_map(T.GRU(4, 3, bias=False, **{"batch_first": True, **options}), make())
    for messages, begins in (([str(each.message) for each in caught], warned), (made.notes, noted)):
        assert len(messages) == len(begins), messages
        for message, begin in zip(messages, begins, strict=True):
            assert message.startswith(("the module (GRU): " + begin, "the module (GRU) " + begin))


# Flax's names for padding, and the strides and dilations with which the elements are counted.
COUNTED = {
    f"{kind} {padding} {kernel} {stride} {dilation}": (kind, padding, kernel, stride, dilation)
    for kind, padding, kernel, stride, dilation in (
        ("Conv", "SAME", 4, 1, 2),
        ("Conv", "VALID", 3, 2, 1),
        ("Conv", "CAUSAL", 3, 1, 2),
        ("ConvTranspose", "SAME", 4, 3, 1),
        ("ConvTranspose", "SAME", 2, 3, 1),
        ("ConvTranspose", "SAME", 3, 1, 2),
        ("ConvTranspose", "VALID", 2, 4, 1),
        ("ConvTranspose", "VALID", 3, 2, 2),
    )
}


@pytest.mark.parametrize("name", COUNTED)
def test_padding_is_counted_as_flax_pads(name: str) -> None:
    kind, padding, kernel, stride, dilation = COUNTED[name]

    def layer(padding: Any) -> Any:
        options = {"strides": (stride,), "kernel_dilation": (dilation,), "padding": padding}
        made = nnx.eval_shape(
            lambda: getattr(nnx, kind)(1, 1, (kernel,), use_bias=False, **options, rngs=nnx.Rngs(0))
        )
        made.kernel.set_value(jnp.arange(1.0, kernel + 1).reshape(kernel, 1, 1))
        return made

    named = layer(padding)
    counted = flax_padding(named, kind == "ConvTranspose").pairs
    inputs = jnp.arange(1.0, 8).reshape(1, 7, 1)
    np.testing.assert_array_equal(named(inputs), layer(counted)(inputs))


def test_torch_same_is_counted_as_torch_pads() -> None:
    layer = T.Conv1d(1, 1, 3, dilation=2, padding="same")
    ((low, high),) = torch_padding(layer).pairs or ()
    inputs = torch.arange(10.0)[None, None]
    explicit = T.functional.conv1d(
        T.functional.pad(inputs, (low, high)), layer.weight, layer.bias, dilation=2
    )
    torch.testing.assert_close(layer(inputs), explicit, rtol=0, atol=0)


def test_the_running_variance_differs_as_the_warning_says() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    norm, port = T.BatchNorm1d(4), nnx.BatchNorm(4, momentum=0.9, rngs=nnx.Rngs(0))
    norm(torch.from_numpy(x))
    port(jnp.asarray(x))
    of_batch = (port.var[...] - 0.9) / 0.1
    np.testing.assert_allclose(
        0.9 + 0.1 * of_batch * 5 / 4, norm.running_var, rtol=bound("a layer in float32")
    )


class Net(nnx.Module):
    def __init__(self, epsilon: float, activation: Any, r: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, epsilon=epsilon, rngs=r)
        self.layers = nnx.Sequential(
            nnx.Linear(4, 4, rngs=r), activation, nnx.Dropout(0.5, rngs=r), nnx.relu
        )


def _torch_net() -> Any:
    net = T.Module()
    net.norm = T.LayerNorm(4)
    net.layers = T.Sequential(T.Linear(4, 4), T.GELU(), T.Dropout(0.1), T.ReLU())
    return net


def _net(epsilon: float, activation: Any) -> Any:
    return nnx.eval_shape(lambda: Net(epsilon, activation, nnx.Rngs(0)))


@pytest.mark.parametrize("make", [param_map, params_from_torch])
def test_a_map_warns_of_each_layer_by_name(make: Any) -> None:
    with pytest.warns(LayerDifferenceWarning) as caught:
        make(_torch_net(), _net(1e-6, nnx.gelu))
    messages = sorted(str(each.message) for each in caught)
    begins = (
        "layers.1 (GELU): approximate is 'none'",
        "layers.2 (Dropout): p is 0.1",
        "norm (LayerNorm): eps is 1e-05",
    )
    assert len(messages) == len(begins)
    assert all(m.startswith(b) for m, b in zip(messages, begins, strict=True)), messages
    assert {each.filename for each in caught} == {__file__}


def test_what_cannot_be_seen_is_noted() -> None:
    net = _torch_net()
    made = param_map(net, nnx.state(_net(1e-6, nnx.gelu)), rename={"^layers": "layers.layers"})
    note, of_norm = made.notes
    assert of_norm.startswith("eps of norm: 1e-05 in torch and 1e-06 in Flax where none is given")
    assert note.startswith("GELU of layers.1 is exact in torch; nnx.gelu is the tanh")
    assert f"note: {note}" in str(made)

    with pytest.warns(LayerDifferenceWarning, match=r"^layers\.2 \(Dropout\)"):
        made = param_map(net, _net(1e-5, lambda x: x))
    assert [each.partition(" is")[0] for each in made.notes] == ["GELU of layers.1"]

    encoder = T.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu")
    leaves = {f"{n}": jnp.zeros(p.shape) for n, p in encoder.named_parameters()}
    given = {name: None for name, p in encoder.named_parameters() if p.ndim > 1}
    (note,) = param_map(encoder, leaves, layouts=given).notes
    assert note.startswith("GELU of the module")


class LinenNet(nn.Module):
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=True, epsilon=self.epsilon, name="norm")(x)
        return nn.Dropout(0.5, deterministic=True, name="drop")(nn.Dense(3, name="fc")(x))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6])
def test_linen_layers_are_seen_in_a_call(epsilon: float) -> None:
    net = T.Module()
    net.norm, net.fc, net.drop = T.BatchNorm1d(4), T.Linear(4, 3), T.Dropout(0.5)
    net.eval()
    model, x = LinenNet(epsilon), jnp.zeros((2, 4))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = param_map(net, variables, flax_module=model, inputs=(x,))
    assert [str(each.message)[:40] for each in caught] == [
        "norm (BatchNorm1d): eps is 1e-05 in torch"[:40]
    ] * (epsilon == 1e-6)
    assert made.notes == ()


def test_flax_module_must_be_one() -> None:
    like = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    with pytest.raises(TypeError, match=r"must be an nnx\.Module or a Linen module, got dict"):
        param_map(T.Linear(3, 2), like, flax_module=like)


# Except for batch normalisation while training, which always differs, the layers that are shown to
# compute the same raise no alarm.
@pytest.mark.parametrize("name", [name for name in CASES if "training" not in name])
def test_no_false_alarm_for_layers_that_agree(name: str) -> None:
    case = CASES[name]
    param_map(case.torch(), nnx.eval_shape(lambda: case.nnx(nnx.Rngs(0))))


class RNN(T.Module):
    """A module of one's own that is called as torch's layer, and has no parameter itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = T.Linear(3, 2)


class OwnCell(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.cell = nnx.Linear(3, 2, rngs=rngs)


def test_a_module_of_ones_own_may_be_called_as_torchs() -> None:
    assert param_map(RNN(), OwnCell(nnx.Rngs(0))).notes == ()


def test_differences_are_told_in_the_order_of_the_module():
    """Of layers without parameters, too: in each process the same."""
    names = ("stem", "body", "head", "tail", "left", "right", "top", "low")
    module = torch.nn.ModuleDict({name: torch.nn.Dropout(0.5) for name in names})
    module["fc"] = torch.nn.Linear(2, 2)

    class Flaxs(nnx.Module):
        def __init__(self):
            self.fc = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            for name in names:
                setattr(self, name, nnx.Dropout(0.1))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        param_map(module, Flaxs())
    assert tuple(str(each.message).partition(" ")[0] for each in told) == names
