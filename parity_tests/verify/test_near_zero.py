"""Right ports where something comes near zero, whose rounding is that of what it was made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jaxopt_port import verify
from parity_tests.verify.linear_layers import mean_square, one_layer, zeros

functional = torch.nn.functional
DTYPES = (torch.float32, torch.float64)


def linear(optimizer, tx, losses, dtype, features=3, outputs=3):
    """Return both sides of a linear layer."""
    torch.manual_seed(0)
    module = torch.nn.Linear(features, outputs).to(dtype)
    theirs = verify.TorchSide(
        module=module, optimizer=optimizer(module.parameters()), loss=losses[0]
    )
    mine = verify.JaxSide(apply=one_layer, params=zeros(features, outputs), tx=tx, loss=losses[1])
    return theirs, mine


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


TX = optax.sgd(0.1)


def picked(array, batch):
    return jnp.take_along_axis(array, batch[1][:, None], 1)


def with_labels(output, batch):
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[1])


def hot(batch):
    return jax.nn.one_hot(batch[1], 3)


def torch_hot(output, batch):
    return functional.one_hot(batch[1], 3).to(output.dtype)


# What torch's users write, and another way of rounding it.
LOSSES = {
    "cross entropy": (
        lambda o, b: functional.cross_entropy(o, b[1]),
        lambda o, b: with_labels(o, b).mean(),
    ),
    "a sum": (
        lambda o, b: functional.cross_entropy(o, b[1], reduction="sum"),
        lambda o, b: with_labels(o, b).sum(),
    ),
    "a logarithm of a softmax": (
        lambda o, b: functional.cross_entropy(o, b[1]),
        lambda o, b: -jnp.mean(jnp.log(picked(jax.nn.softmax(o), b))),
    ),
    "sigmoids": (
        lambda o, b: functional.binary_cross_entropy_with_logits(o, torch_hot(o, b)),
        lambda o, b: optax.sigmoid_binary_cross_entropy(o, hot(b)).mean(),
    ),
    "squares": (
        lambda o, b: functional.mse_loss(o, 14 * torch_hot(o, b)),
        lambda o, b: ((o - 14 * hot(b)) ** 2).mean(),
    ),
    "cosines": (
        lambda o, b: (1 - functional.cosine_similarity(o, torch_hot(o, b))).mean(),
        lambda o, b: optax.cosine_distance(o, hot(b)).mean(),
    ),
    "a margin": (
        lambda o, b: functional.multi_margin_loss(o, b[1]),
        lambda o, b: (
            jnp.where(hot(b) > 0, 0, jnp.maximum(0, 1 - picked(o, b) + o)).sum(-1) / 3
        ).mean(),
    ),
}
GRID = [(name, size, dtype) for name in LOSSES for size in (6.0, 14.0, 25.0) for dtype in DTYPES]


@pytest.mark.parametrize(("name", "size", "dtype"), GRID)
def test_a_loss_near_zero_raises_no_alarm(name, size, dtype):
    theirs, mine = linear(sgd, TX, LOSSES[name], dtype)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        drawn = torch.tensor(rng.normal(size=(3, 3)) / 9)
        theirs.module.weight.copy_(size * torch.eye(3) + drawn)
    labels = rng.integers(0, 3, 16)
    x = (np.eye(3)[labels] + rng.normal(size=(16, 3)) / 99).astype(np.float32)
    report = verify.compare(theirs, mine, [(x, labels)] * 6, layouts={"weight": (1, 0)})
    assert report.ok, report


def test_a_loss_in_fewer_bits_is_still_found():
    def rounded(output, batch):
        return with_labels(output.astype(jnp.bfloat16), batch).mean().astype(output.dtype)

    theirs, mine = linear(sgd, TX, (LOSSES["cross entropy"][0], rounded), torch.float32)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 3, 16)
    first = verify.compare(theirs, mine, [batch] * 6, layouts={"weight": (1, 0)}).first
    assert (first.stage, first.cause.name) == ("loss", "low-precision")


def test_a_loss_that_zeros_make_infinite_is_no_error():
    """The measure is the loss of outputs that are zero, which may have none."""
    losses = (
        lambda o, b: -torch.log(o[:, 0] ** 2).mean(),
        lambda o, b: -jnp.log(o[:, 0] ** 2).mean(),
    )
    sides = linear(sgd, TX, losses, torch.float32)
    batch = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    with jax.debug_nans(True), jax.debug_infs(True):
        assert verify.compare(*sides, [batch] * 3, layouts={"weight": (1, 0)}).ok


def test_a_parameter_that_comes_near_zero_raises_no_alarm():
    """What its steps have rounded is of what it was: the bias of data that have none."""

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.05)

    losses = lambda output, batch: functional.mse_loss(output, batch[1]), mean_square
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype(np.float32)
    y = (x @ rng.normal(size=(4, 2))).astype(np.float32)
    sides = linear(adam, optax.adam(0.05), losses, torch.float64, 4, 2)
    report = verify.compare(*sides, [(x, y)] * 150)
    assert report.ok, report


class ByHand:
    """A schedule as torch's users write it: the optimizer is not told where it goes."""

    def __init__(self, optimizer, rate):
        self.optimizer, self.rate, self.steps = optimizer, rate, 0

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]

    def step(self):
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = self.rate(self.steps)


def rising(start):
    return lambda step: start * 0.1 + 0.1 * (1 - start) * step / 500


WARM_UPS = {
    "torch's": lambda optimizer, start: torch.optim.lr_scheduler.LinearLR(
        optimizer, start, 1.0, total_iters=500
    ),
    "by hand": lambda optimizer, start: ByHand(optimizer, rising(start)),
}


@pytest.mark.parametrize("start", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("kind", WARM_UPS)
def test_a_rate_that_rises_from_next_to_nothing_raises_no_alarm(kind, start):
    """Optax calculates it, in float32, from where it goes, and is as far off as that rounds."""
    tx = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.1 * start, 0.1, 500))
    first = 0.1 if kind == "torch's" else rising(start)(0)

    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=first)

    theirs, mine = linear(optimizer, tx, LOSSES["cross entropy"], torch.float32)
    theirs.scheduler = WARM_UPS[kind](theirs.optimizer, start)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 3, 16)
    report = verify.compare(theirs, mine, [batch] * 8, layouts={"weight": (1, 0)})
    assert report.ok, report


RATES = 0.01 * np.cos(np.arange(12) / 9)  # such as no six digits say
TABLE = jnp.asarray(RATES, jnp.float32)
FROM_A_TABLE = {
    "plain": optax.adam(lambda n: TABLE[n]),
    "taken": optax.adam(lambda n: jnp.take(TABLE, n)),
    "chained": optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda n: -TABLE[n])),
    "injected": optax.inject_hyperparams(optax.adam)(lambda n: TABLE[n]),
}


def beside_a_table(tx):
    theirs, mine = linear(
        lambda p: torch.optim.Adam(p, lr=RATES[0]), tx, LOSSES["cross entropy"], torch.float32
    )
    theirs.scheduler = ByHand(theirs.optimizer, lambda step: float(RATES[step]))
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 3, 16)
    return verify.compare(theirs, mine, [batch] * 8, layouts={"weight": (1, 0)})


@pytest.mark.parametrize("name", FROM_A_TABLE)
def test_rates_from_a_table_in_float32_raise_no_alarm(name):
    report = beside_a_table(FROM_A_TABLE[name])
    assert report.ok, report


def test_another_table_of_rates_is_a_fault():
    late = optax.adam(lambda n: TABLE[jnp.maximum(n - 1, 0)])
    first = beside_a_table(late).first
    assert (first.step, first.stage, first.cause.name) == (1, "update", "schedule-offset")
