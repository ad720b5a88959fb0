"""`verify.compare` of Flax's modules: inputs, running statistics, settings of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.verify.compared_runs import TX, batches, theirs
from parity_tests.verify.linear_layers import mean_square


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(5, 6, rngs=rngs), jnp.tanh, nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="2")(jnp.tanh(linen.Dense(6, name="0")(x)))


def test_flax_models():
    side = verify.nnx_side(Net(nnx.Rngs(0)), tx=TX, loss=mean_square)
    rename = [(r"^", "layers.")]
    assert verify.compare(theirs(), side, batches(), steps=12, rename=rename).ok
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.ones((1, 5)))
    side = verify.linen_side(module, variables, tx=TX, loss=mean_square)
    assert verify.compare(theirs(), side, batches(), steps=12).ok


class TorchsPair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(3, 2), torch.nn.Linear(4, 2)

    def forward(self, x, y):
        return self.a(x) * self.b(y)


class Pair(linen.Module):
    @linen.compact
    def __call__(self, x, y):
        return linen.Dense(2, name="a")(x) * linen.Dense(2, name="b")(y)


def test_a_linen_module_of_two_inputs():
    """What calls it knows how; and says what the batch is where it looks for something else."""
    module, net, rng = TorchsPair(), Pair(), np.random.default_rng(0)
    data = [tuple(rng.normal(size=(5, n)).astype(np.float32) for n in (3, 4)) for _ in range(3)]
    theirs = verify.TorchSide(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        forward=lambda module, batch: module(*batch),
        loss=lambda output, batch: output.square().mean(),
    )
    variables = net.init(jax.random.key(0), *data[0])

    def side(forward):
        return verify.linen_side(
            net, variables, tx=optax.sgd(0.1), loss=lambda o, b: (o**2).mean(), forward=forward
        )

    mine = side(lambda variables, batch: net.apply(variables, *batch))
    assert verify.compare(theirs, mine, data).ok
    with pytest.raises(TypeError, match="tuple indices") as raised:
        verify.compare(theirs, side(lambda v, batch: net.apply(v, batch["x"], batch["y"])), data)
    told = "raised in your forward pass or loss, whose batch is ((5, 3), (5, 4)) (shapes)"
    assert told in raised.value.__notes__


class Normalised(nnx.Module):
    def __init__(self, rngs, norm):
        self.norm = norm(5, rngs=rngs, epsilon=1e-5, momentum=0.9)
        self.dense = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


class Unbiased(nnx.BatchNorm):
    """Flax's layer with torch's running variance."""

    def __call__(self, x):
        kept, n = 0.9 * self.var[...], x.shape[0]
        y = super().__call__(x)
        self.var[...] = kept + (self.var[...] - kept) * n / (n - 1)
        return y


@pytest.mark.parametrize("norm", [nnx.BatchNorm, Unbiased])
def test_running_statistics_of_flax(norm):
    """Flax keeps the biased variance; torch's side is the same but for that."""
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
    side = verify.nnx_side(Normalised(nnx.Rngs(0), norm), tx=TX, loss=mean_square)
    rename = [(r"^0\.", "norm."), (r"^1\.", "dense.")]
    report = verify.compare(theirs(module=module), side, batches(), steps=12, rename=rename)
    if norm is Unbiased:
        assert report.ok, str(report)
    else:
        first = report.first
        assert (first.step, first.stage, first.leaves) == (0, "buffers", ("norm/var",))
        assert first.cause.name == "biased-variance"
        assert any(note.startswith("LayerDifferenceWarning") for note in report.notes)


@pytest.mark.parametrize("tx", [TX, jp.SGD(lr=0.06, momentum=0.9)], ids=["right", "a fault beside"])
def test_a_cause_that_is_accepted_does_not_hide_others(tx):
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
    side = verify.nnx_side(Normalised(nnx.Rngs(0), nnx.BatchNorm), tx=tx, loss=mean_square)
    report = verify.compare(
        theirs(module=module), side, batches(), steps=12, accept=iter(["biased-variance"]),
        rename=[(r"^0\.", "norm."), (r"^1\.", "dense.")],
    )  # fmt: skip
    assert [(d.stage, d.leaves) for d in report.accepted] == [("buffers", ("norm/var",))]
    assert any(note.startswith("accepted: step 0, buffers of norm/var") for note in report.notes)
    assert report.steps == 12
    assert [d.stage for d in report.found] == ([] if tx is TX else ["hyperparameters"])
    assert report.ok is (tx is TX)
    again = verify.Report.from_json(report.to_json())
    assert (again.ok, str(again)) == (report.ok, str(report))


class Norms(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.LayerNorm(5, rngs=rngs) for _ in range(5)])
        self.dense = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dense(x)


def test_layers_that_differ_alike_are_one_note():
    torch.manual_seed(1)  # nearly equal outputs, which any number close to 1 seems to explain
    norms = [torch.nn.LayerNorm(5) for _ in range(5)]
    module = torch.nn.Sequential(*norms, torch.nn.Linear(5, 3))
    side = verify.nnx_side(Norms(nnx.Rngs(0)), tx=TX, loss=mean_square)
    rename = [(r"^5\.", "dense."), (r"^(\d)\.", r"layers.\1.")]
    report = verify.compare(theirs(module=module), side, batches(), steps=1, rename=rename)
    assert report.first.cause.name == "layer-eps"
    (note,) = (note for note in report.notes if note.startswith("LayerDifferenceWarning"))
    assert "0, 1, 2 and 2 more (LayerNorm): eps is 1e-05 in torch and 1e-06 in Flax" in note
