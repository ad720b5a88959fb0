"""What is said of an output that several faults would explain: factors, and layers' settings."""

import jax
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from jaxopt_port import verify


class TorchNet(torch.nn.Module):
    """Of ReLUs, whose biases are zero or none at first; `aside` is called in the second form."""

    def __init__(self, bias, factors=(1.0, 1.0), aside=None):
        super().__init__()
        self.a, self.b = torch.nn.Linear(6, 8, bias=bias), torch.nn.Linear(8, 4, bias=bias)
        self.aside, (self.first, self.last) = aside, factors
        for layer in (self.a, self.b) if bias else ():
            torch.nn.init.zeros_(layer.bias)

    def forward(self, x):
        return self.b(torch.relu(self.a(x * self.first))) * self.last


class Net(nnx.Module):
    def __init__(self, bias, factors, aside):
        rngs = nnx.Rngs(0)
        self.a = nnx.Linear(6, 8, use_bias=bias, rngs=rngs)
        self.b = nnx.Linear(8, 4, use_bias=bias, rngs=rngs)
        self.aside, self.factors = aside, nnx.static(factors)

    def __call__(self, x):
        first, middle, last = self.factors
        return self.b(nnx.relu(self.a(x * first)) * middle) * last


def first_cause(module, model):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)

    def loss(output, batch):
        return ((output - batch[1]) ** 2).mean()

    theirs = verify.TorchSide(
        module=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), loss=loss
    )
    mine = verify.nnx_side(model, tx=optax.sgd(0.1), loss=loss)
    report = verify.compare(theirs, mine, [(x, y)], free_steps=0)
    assert report.first.stage == "forward"
    return report.first.cause


# Whether there are biases, zero at first; torch's factors, of input and output; yours, of input,
# hidden layer and output; the cause, and what else it may be.
FACTORS = {
    "left out before the first layer": (True, (0.5, 1.0), (1.0, 1.0, 1.0), ["left-out"]),
    "another before the first layer": (True, (0.5, 1.0), (0.25, 1.0, 1.0), [None]),
    "one within": (True, (0.5, 1.0), (0.5, 2.0, 1.0), [None]),
    "one at the end": (True, (0.5, 1.0), (0.5, 1.0, 2.0), ["output-activation"]),
    "left out at the end": (
        True, (1.0, 0.5), (1.0, 1.0, 1.0), ["left-out", "output-activation"]
    ),
    "one within, no biases": (False, (1.0, 1.0), (1.0, 2.0, 1.0), ["output-activation"]),
    "left out, no biases": (
        False, (0.5, 1.0), (1.0, 1.0, 1.0), ["left-out", "output-activation"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_is_looked_for_where_it_is(name):
    bias, torchs, yours, expected = FACTORS[name]
    torch.manual_seed(0)
    cause = first_cause(TorchNet(bias, torchs), Net(bias, yours, None))
    causes = [cause, *cause.also] if cause is not None else [None]
    assert [one and one.name for one in causes] == expected, cause


class Gated(TorchNet):
    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.b(self.aside(hidden) * torch.sigmoid(hidden))


class NnxGated(Net):
    def __call__(self, x):
        hidden = nnx.relu(self.a(x))
        return self.b(self.aside(hidden) * jax.nn.sigmoid(self.factors * hidden))


class Unused(TorchNet):
    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.b(hidden * torch.sigmoid(hidden))


class NnxUnused(Net):
    def __call__(self, x):
        hidden = nnx.relu(self.a(x))
        return self.b(hidden * jax.nn.sigmoid(self.factors * hidden))


class Scaled(TorchNet):
    def forward(self, x):
        return self.b(torch.relu(self.aside(self.a(x * 0.1))))


class NnxScaled(Net):
    def __call__(self, x):
        return self.b(nnx.relu(self.aside(self.a(x * self.factors))))


def by_batch(epsilon):
    return nnx.BatchNorm(8, epsilon=epsilon, momentum=0.9, rngs=nnx.Rngs(0))


def norm(epsilon):
    return nnx.LayerNorm(8, epsilon=epsilon, rngs=nnx.Rngs(0))


def groups(count):
    return nnx.GroupNorm(8, num_groups=count, epsilon=1e-5, rngs=nnx.Rngs(0))


SETTINGS = {
    "of a layer that is not called": (
        Unused, torch.nn.LayerNorm(8), NnxUnused, norm(1e-6), 2.0, None,
    ),
    "that does not explain it": (Gated, torch.nn.LayerNorm(8), NnxGated, norm(1e-6), 2.0, None),
    "that explains it": (Gated, torch.nn.LayerNorm(8), NnxGated, norm(1e-7), 1.0, "layer-eps"),
    "of a layer that a factor stands before": (
        Scaled, torch.nn.BatchNorm1d(8), NnxScaled, by_batch(1e-5), 0.01, None,
    ),
    "of a layer with a factor that is torch's": (
        Scaled, torch.nn.BatchNorm1d(8), NnxScaled, by_batch(1e-3), 0.1, "layer-eps",
    ),
    "groups": (Gated, torch.nn.GroupNorm(2, 8), NnxGated, groups(4), 1.0, "layer-setting"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_named_that_explains_the_output(name):
    torchs, aside, yours, other, factor, expected = SETTINGS[name]
    torch.manual_seed(0)
    cause = first_cause(torchs(True, aside=aside), yours(True, factor, other))
    assert (cause and cause.name) == expected, cause
