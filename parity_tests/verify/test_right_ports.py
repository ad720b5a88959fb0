"""Right ports, as people write them, that once raised an alarm, and wrong ones beside them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.verify.recorder import record
from parity_tests.verify.linear_layers import layer, mean_square, one_layer, zeros

STEPS = 6
TWO = {"a": (5, 8), "b": (8, 3)}


def of_two_layers(groups, tx, optimizer=torch.optim.AdamW):
    """Both sides of two layers; ``groups`` makes torch's of the module."""
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({name: torch.nn.Linear(*shape) for name, shape in TWO.items()})
    theirs = verify.TorchSide(
        module=module,
        optimizer=optimizer(groups(module), lr=1e-2),
        forward=lambda m, batch: m["b"](torch.tanh(m["a"](batch[0]))),
        loss=mean_square,
    )

    def apply(params, batch):
        return layer(params["b"], jnp.tanh(layer(params["a"], batch[0])))

    like = {name: zeros(*shape) for name, shape in TWO.items()}
    mine = verify.JaxSide(apply=apply, params=like, tx=tx, loss=mean_square)
    rng = np.random.default_rng(0)
    return theirs, mine, [(rng.normal(size=(8, 5)), rng.normal(size=(8, 3))) for _ in range(STEPS)]


def kernels_decay(module):
    named = dict(module.named_parameters())
    return [
        {"params": [p for n, p in named.items() if "weight" in n], "weight_decay": 0.1},
        {"params": [p for n, p in named.items() if "bias" in n], "weight_decay": 0.0},
    ]


def slow_stem(module):
    return [{"params": module["a"].parameters(), "lr": 1e-3}, {"params": module["b"].parameters()}]


def whole(module):
    return module.parameters()


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def of_stem(params):
    return {name: dict.fromkeys(part, name == "a") for name, part in params.items()}


def labels(params):
    return {name: dict.fromkeys(part, name) for name, part in params.items()}


@optax.inject_hyperparams
def rates_within(learning_rate):
    by_layer = {"a": optax.adamw(learning_rate * 0.1, weight_decay=0.01),
                "b": optax.adamw(learning_rate, weight_decay=0.01)}  # fmt: skip
    return optax.multi_transform(by_layer, labels)


@optax.inject_hyperparams
def by_batch_size(learning_rate):
    return optax.sgd(learning_rate * 8 / 256)


SGD = torch.optim.SGD
# A number that an optimizer's state holds need not be in force on every leaf, nor as it is.
INJECTED = optax.inject_hyperparams(optax.adamw, static_args=("mask",))
NUMBERS = {
    "a mask": (kernels_decay, INJECTED(1e-2, weight_decay=0.1, mask=matrices)),
    "groups within": (slow_stem, rates_within(learning_rate=1e-2)),
    "a scale after it": (
        slow_stem,
        optax.chain(
            optax.inject_hyperparams(optax.sgd)(1e-2), optax.masked(optax.scale(0.1), of_stem)
        ),
        SGD,
    ),
    "a scale of all": (whole, optax.chain(jp.SGD(lr=1.0), optax.scale(0.01)), SGD),
    "a rate by the batch": (whole, by_batch_size(learning_rate=0.32), SGD),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_that_is_not_in_force_is_no_fault(case):
    report = verify.compare(*of_two_layers(*NUMBERS[case]))
    assert report.ok, str(report)
    assert "has the last word" in " ".join(report.notes)


def one_part_injected(stem):
    """The numbers that the state holds are the head's alone."""
    head = INJECTED(1e-2, weight_decay=0.01)
    return optax.multi_transform({"a": optax.adamw(1e-3, **stem), "b": head}, labels)


def test_numbers_of_one_part_are_not_those_of_the_other():
    report = verify.compare(*of_two_layers(slow_stem, one_part_injected({"weight_decay": 0.01})))
    assert report.ok, str(report)
    assert "has the last word" not in " ".join(report.notes)
    report = verify.compare(
        *of_two_layers(slow_stem, one_part_injected({"weight_decay": 0.01, "b1": 0.8}))
    )
    assert [d.cause.name for d in report.found] == ["number"]
    assert "betas[0]=0.8" in report.first.cause.message


def test_a_number_that_another_group_has_too_is_a_number():
    """Unless all of the leaf's are that group's."""

    def groups(module):
        stem, head = slow_stem(module)
        return [{**stem, "weight_decay": 0.1}, {**head, "weight_decay": 0.0}]

    for lr, name in ((1e-3, "number"), (1e-2, "group-options")):
        tx = jp.AdamW([{"params": "a", "lr": lr}, {"params": "b", "lr": 1e-2}], weight_decay=0.0)
        found = verify.compare(*of_two_layers(groups, tx)).found
        assert {d.cause.name for d in found if "weight_decay" in d.cause.message} <= {name}
        assert name in {d.cause.name for d in found}


def test_a_number_that_is_in_force_is_one():
    tx = optax.inject_hyperparams(optax.adamw)(1e-2, weight_decay=0.1)
    first = verify.compare(*of_two_layers(kernels_decay, tx)).first
    assert (first.step, first.stage, first.cause.name) == (0, "hyperparameters", "group-options")
    assert set(first.leaves) == {"a/bias", "b/bias"}


def test_a_state_with_a_random_key_can_be_compared():
    tx = optax.chain(optax.add_noise(0.0, 0.55, 0), optax.sgd(1e-2))
    report = verify.compare(*of_two_layers(whole, tx, SGD))
    assert report.ok, str(report)


@pytest.mark.parametrize("limit", [1e6, 0.1])
def test_a_clipping_that_changed_nothing_was_not_tested(limit):
    tx = optax.chain(jp.clip_by_grad_norm(limit), optax.sgd(1e-2))
    theirs, mine, batches = of_two_layers(whole, tx, SGD)
    clip = torch.nn.utils.clip_grad_norm_
    theirs = dataclasses.replace(theirs, clip=lambda params: clip(params, limit))
    report = verify.compare(theirs, mine, batches)
    assert report.ok, str(report)
    assert ("was not tested" in " ".join(report.notes)) == (limit > 1)


# ── what one side holds as float32 has rounded it ──────────────────────────────────────────────


class Table(torch.nn.Linear):
    """A linear layer after a table, as `kind` has it."""

    def __init__(self, kind):
        super().__init__(16, 3)
        self.kind = kind
        place = torch.arange(32).unsqueeze(1) * torch.exp(torch.arange(0, 16, 2) * (-0.5756463))
        self.register_buffer("table", torch.cat([place.sin(), place.cos()], 1), persistent=False)
        self.outside = torch.tensor(0.3)

    def forward(self, x):
        if self.kind == "a constant":
            return super().forward(x * self.outside)
        return super().forward(x + self.table)


def by_numpy():
    place = np.arange(32)[:, None] * np.exp(np.arange(0, 16, 2) * -0.5756463)
    return jnp.asarray(np.concatenate([np.sin(place), np.cos(place)], 1), jnp.float32)


def within():
    place = jnp.arange(32)[:, None] * jnp.exp(jnp.arange(0, 16, 2) * -0.5756463)
    return jnp.concatenate([jnp.sin(place), jnp.cos(place)], 1)


HELD = by_numpy()
TABLES = {
    "NumPy's table": ("a table", lambda x: x + HELD),
    "a table made within": ("a table", lambda x: x + within()),
    "a constant": ("a constant", lambda x: x * 0.3),
    "a constant of float32": ("a constant", lambda x: x * jnp.float32(0.3)),
    "another constant": ("a constant", lambda x: x * 0.30001),
}


def with_table(kind, change, loss=mean_square):
    torch.manual_seed(0)
    module = Table(kind)
    theirs = verify.TorchSide(
        module=module, optimizer=SGD(module.parameters(), lr=0.05),
        forward=lambda m, batch: m(batch[0]), loss=mean_square,
    )  # fmt: skip
    mine = verify.JaxSide(
        apply=lambda p, batch: layer(p, change(batch[0])),
        params=zeros(16, 3), tx=optax.sgd(0.05),
        loss=loss,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, 32, 16)), rng.normal(size=(4, 32, 3))) for _ in range(STEPS)]
    return theirs, mine, batches


@pytest.mark.parametrize("case", TABLES)
def test_numbers_that_float32_has_rounded_are_rounding(case):
    report = verify.compare(*with_table(*TABLES[case]))
    assert report.ok == (case != "another constant"), str(report)
    assert "holds numbers that float32 has rounded" in " ".join(report.notes)


def test_a_plain_model_holds_none():
    report = verify.compare(*of_two_layers(whole, optax.adamw(1e-2, weight_decay=1e-2)))
    assert report.ok
    assert not report.notes


def test_a_trace_says_what_was_rounded(tmp_path):
    theirs, mine, batches = with_table(*TABLES["NumPy's table"])
    record(tmp_path / "trace", theirs, batches)
    assert json.loads((tmp_path / "trace" / "trace.json").read_text())["rounded"] == ["table"]
    assert verify.replay(tmp_path / "trace", mine).ok


def test_a_numpy_array_of_float64_from_outside_is_told():
    levels = np.array([0.1, 0.5, 0.9])
    sides = with_table("a table", lambda x: x + HELD, lambda o, b: jnp.mean(levels * (o - b[1])))
    with pytest.raises(ValueError, match=r"hold it as jnp.asarray"):
        verify.compare(*sides)


# ── near nothing ───────────────────────────────────────────────────────────────────────────────


def test_a_gradient_of_terms_that_cancel():
    """The hinge of a GAN's discriminator: as many ones as minus ones."""
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 3)
    relu = torch.nn.functional.relu
    theirs = verify.TorchSide(
        module=module, optimizer=SGD(module.parameters(), lr=1e-3),
        loss=lambda o, batch: relu(1 - o[:4]).mean() + relu(1 + o[4:]).mean(),
    )  # fmt: skip
    mine = verify.JaxSide(
        apply=one_layer, params=zeros(6, 3), tx=optax.sgd(1e-3),
        loss=lambda o, batch: jax.nn.relu(1 - o[:4]).mean() + jax.nn.relu(1 + o[4:]).mean(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    assert verify.compare(theirs, mine, [(0.1 * rng.normal(size=(8, 6)),) for _ in range(8)]).ok


class Scaled(torch.nn.Linear):
    """A linear layer and a temperature, as CLIP has."""

    def __init__(self):
        super().__init__(4, 3)
        self.scale = torch.nn.Parameter(torch.tensor(2.659))

    def forward(self, x):
        return super().forward(x) * self.scale.exp()


def test_a_parameter_without_axes_has_a_history():
    torch.manual_seed(0)
    module = Scaled()
    theirs = verify.TorchSide(
        module=module, optimizer=torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.2),
        forward=lambda m, batch: m(batch[0]), loss=mean_square,
    )  # fmt: skip
    mine = verify.JaxSide(
        apply=lambda p, b: layer(p, b[0]) * jnp.exp(p["scale"]),
        params={**zeros(4, 3), "scale": jnp.zeros(())},
        tx=optax.adamw(1e-2, weight_decay=0.2, mask=lambda p: {k: k != "scale" for k in p}),
        loss=mean_square,
    )
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(8, 4)), rng.normal(size=(8, 3))) for _ in range(STEPS)]
    (found,) = verify.compare(theirs, mine, batches).found
    assert (found.leaves, found.cause.name) == (("scale",), "number")
    assert "no weight decay" in found.cause.message


def test_a_search_begins_where_the_first_rate_is_nothing():
    warm = optax.chain(optax.centralize(), optax.adam(optax.linear_schedule(0.0, 1e-2, 5)))
    theirs, mine, batches = of_two_layers(whole, warm, torch.optim.Adam)
    theirs = verify.TorchSide(
        module=theirs.module, optimizer=theirs.optimizer, forward=theirs.forward, loss=theirs.loss,
        scheduler=torch.optim.lr_scheduler.LambdaLR(theirs.optimizer, lambda i: min(i / 5, 1.0)),
    )  # fmt: skip
    report = verify.compare(theirs, mine, batches)
    assert not any("fault of this library" in note for note in report.notes)
    assert report.first.cause.name == "changed-gradient"
