"""`jp.explain` names what Optax does otherwise than torch, against torch and Optax themselves."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import optim

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.verify import CAUSES
from parity_tests.verify.linear_layers import zeros


def chained(*parts, lr):
    return optax.chain(*parts, optax.scale_by_learning_rate(lr))


DECAY = optax.add_decayed_weights
SGD = {"lr": 0.1, "momentum": 0.9}
ADAM = {"lr": 1e-3}
RMS = {"decay": 0.99, "eps_in_sqrt": False}


class WithoutRate(optim.Optimizer):
    """An optimizer whose rate is None, as that of transformers' Adafactor."""

    def __init__(self, params):
        super().__init__(params, {"lr": None, "weight_decay": 0.0})

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data -= 0.01 * p.grad.sign()


# torch's class and options, an Optax transformation, the causes' names in order, a message's part.
DIFFERENT = {
    "dampening left out": (optim.SGD, SGD | {"dampening": 0.5}, optax.sgd(0.1, 0.9), "dampening"),
    "nesterov left out": (optim.SGD, SGD | {"nesterov": True}, optax.sgd(0.1, 0.9), "nesterov"),
    "nesterov added": (optim.SGD, SGD, optax.sgd(0.1, 0.9, nesterov=True), "nesterov"),
    "decay left out": (optim.SGD, SGD | {"weight_decay": 0.1}, optax.sgd(0.1, 0.9), "number"),
    "decay after momentum": (
        optim.SGD,
        SGD | {"weight_decay": 0.1},
        chained(optax.trace(0.9), DECAY(0.1), lr=0.1),
        "decay-order",
    ),
    "another rate": (optim.SGD, {"lr": 0.1}, optax.sgd(0.01), "number"),
    "a rate in bfloat16": (optim.SGD, SGD, optax.sgd(jnp.bfloat16(0.1), 0.9), "low-precision"),
    "a rate in float16": (optim.Adam, ADAM, optax.adam(jnp.float16(1e-3)), "low-precision"),
    "another momentum": (optim.SGD, SGD, optax.sgd(0.1, 0.8), "number"),
    "up the gradient": (optim.SGD, SGD, chained(optax.trace(0.9), lr=-0.1), "sign"),
    "a schedule on one side": (
        optim.SGD, {"lr": 0.1}, optax.sgd(lambda count: jnp.where(count < 3, 0.1, 0.05)), "number"
    ),
    "frozen": (optim.SGD, SGD, optax.set_to_zero(), "frozen-leaf"),
    "clipped": (
        optim.SGD, SGD, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9)),
        "clip-missing",
    ),
    "eps in the root": (
        optim.Adam, ADAM, optax.adam(1e-3, eps=0.0, eps_root=1e-8), "eps-placement"
    ),
    "betas swapped": (optim.Adam, ADAM, optax.adam(1e-3, b1=0.999, b2=0.9), "betas-swapped"),
    "another beta": (optim.Adam, ADAM, optax.adam(1e-3, b2=0.99), "number"),
    "another eps": (optim.Adam, ADAM, optax.adam(1e-3, eps=1e-6), "number"),
    "a warm-up on one side": (
        optim.Adam, ADAM,
        chained(optax.scale_by_adam(), optax.scale_by_schedule(
            lambda t: (1 - 0.9 ** (t + 1)) / jnp.sqrt(1 - 0.999 ** (t + 1))
        ), lr=1e-3),
        "number",
    ),
    "adamw for adam": (
        optim.Adam, ADAM | {"weight_decay": 0.1}, optax.adamw(1e-3, weight_decay=0.1),
        "decay-coupling",
    ),
    "adamw's defaults for adam": (
        optim.Adam, ADAM | {"weight_decay": 0.1}, optax.adamw(1e-3), "decay-coupling"
    ),
    "adam for adamw": (
        optim.AdamW, ADAM | {"weight_decay": 0.1}, optax.chain(DECAY(0.1), optax.adam(1e-3)),
        "decay-coupling",
    ),
    "adamw's default decay": (optim.AdamW, ADAM, optax.adamw(1e-3), "number"),
    "decay without the rate": (
        optim.AdamW, ADAM | {"weight_decay": 0.1}, optax.chain(optax.adam(1e-3), DECAY(-0.1)),
        "decay-order",
    ),
    "amsgrad added": (optim.Adam, ADAM, optax.amsgrad(1e-3), "amsgrad"),
    "amsgrad left out": (optim.Adam, ADAM | {"amsgrad": True}, optax.adam(1e-3), "amsgrad"),
    "amsgrad of Optax": (optim.Adam, ADAM | {"amsgrad": True}, optax.amsgrad(1e-3), "amsgrad"),
    "rmsprop by name": (optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2), "eps-placement"),
    "rmsprop's eps": (optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, 0.99), "eps-placement"),
    "rmsprop's decay": (
        optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, 0.9, eps_in_sqrt=False), "number"
    ),
    "rmsprop from 1": (
        optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, **RMS, initial_scale=1.0),
        "initial-accumulator",
    ),
    "rmsprop centred": (
        optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, **RMS, centered=True), "centered"
    ),
    "rmsprop corrected": (
        optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, **RMS, bias_correction=True),
        "bias-correction",
    ),
    "adagrad by name": (optim.Adagrad, {"lr": 1e-2}, optax.adagrad(1e-2), "initial-accumulator"),
    "adagrad's eps": (
        optim.Adagrad, {"lr": 1e-2},
        optax.adagrad(1e-2, initial_accumulator_value=0.0, eps=1e-10), "eps-placement",
    ),
    "adamax's beta": (optim.Adamax, {"lr": 2e-3}, optax.adamax(2e-3, b1=0.8), "number"),
    "nadam's decay": (optim.NAdam, {"lr": 2e-3}, jp.nadam(lr=2e-3, momentum_decay=0.0), "number"),
    "adadelta's rho": (optim.Adadelta, {"lr": 1.0}, jp.adadelta(lr=1.0, rho=0.95), "number"),
    "no rate": (WithoutRate, {}, optax.sgd(0.01), "another-optimizer"),
    "no rate, another optimizer": (WithoutRate, {}, optax.lion(0.01), "another-optimizer"),
    "no rate, another size of steps": (WithoutRate, {}, optax.sign_sgd(0.02), "number"),
    "a rate of RAdam": (optim.RAdam, {"lr": 1e-2}, jp.radam(lr=2e-2), "number"),
}  # fmt: skip
SAME = {
    "sgd": (optim.SGD, SGD | {"weight_decay": 0.1}, optax.chain(DECAY(0.1), optax.sgd(0.1, 0.9))),
    "adam": (optim.Adam, ADAM, optax.adam(1e-3)),
    "adamw": (optim.AdamW, ADAM, optax.adamw(1e-3, weight_decay=1e-2)),
    "rmsprop": (optim.RMSprop, {"lr": 1e-2}, optax.rmsprop(1e-2, **RMS)),
    "nadam": (optim.NAdam, {"lr": 2e-3}, jp.nadam(lr=2e-3)),
    "made in float64": (optim.SGD, {"lr": 0.1}, lambda: optax.inject_hyperparams(optax.sgd)(0.1)),
    "grouped": (optim.AdamW, ADAM, jp.AdamW(lr=1e-3)),
    "muon": (optim.Adafactor, {"lr": 1e-2}, jp.adafactor(lr=1e-2)),
}


def weight():
    return torch.nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_difference_is_named(case):
    kind, options, tx, name = DIFFERENT[case]
    explanation = jp.explain(kind([weight()], **options), tx)
    assert not explanation.ok
    assert [cause.name for cause in explanation.causes] == ([] if name is None else [name])
    assert all(cause.name in CAUSES and cause.message for cause in explanation.causes)
    assert "differs from" in str(explanation)


@pytest.mark.parametrize("case", SAME)
def test_no_difference_is_named_where_there_is_none(case):
    kind, options, tx = SAME[case]
    explanation = jp.explain(kind([weight()], **options), tx)
    assert explanation.ok, str(explanation)
    assert str(explanation).startswith(f"the same as torch's {kind.__name__}")


def test_several_causes_and_numbers_are_in_one_message():
    adam = optim.Adam([weight()], lr=1e-3, weight_decay=0.1)
    (cause,) = jp.explain(adam, optax.adamw(1e-3)).causes
    assert "to the parameter; torch's Adam to the gradient; and" in cause.message
    assert "weight_decay=0.0001; torch has 0.1" in cause.message


def test_groups_are_explained_one_by_one():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 1e-2}]
    sgd = optim.SGD(groups, lr=1e-3)
    params = {"0": zeros(3, 4), "1": zeros(4, 2)}
    tx = jp.SGD([{"params": "0", "lr": 1e-3}, {"params": "1"}], lr=1e-3)
    explanation = jp.explain(sgd, tx, params, module=net)
    assert [d.leaf for d in explanation.differences] == ["1/bias", "1/kernel"]
    assert [cause.name for cause in explanation.causes] == ["group-options"]
    right = jp.SGD([{"params": "0"}, {"params": "1", "lr": 1e-2}], lr=1e-3)
    assert jp.explain(sgd, right, params, module=net).ok


def test_what_cannot_be_explained_is_an_error():
    sgd = optim.SGD([weight()], lr=0.1)
    with pytest.raises(TypeError, match=r"expected a torch.optim.Optimizer, got dict"):
        jp.explain({}, optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"expected an optax.GradientTransformation.* got dict"):
        jp.explain(sgd, {})
    with pytest.raises(TypeError, match="LBFGS evaluates the loss itself"):
        jp.explain(optim.LBFGS([weight()]), optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"tx is adam, which takes arguments .*adam\(…\)"):
        jp.explain(sgd, optax.adam)
    with pytest.raises(ValueError, match="steps is 0"):
        jp.explain(sgd, optax.sgd(0.1), steps=0)
    net = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="module has none of the parameters"):
        jp.explain(sgd, optax.sgd(0.1), zeros(2, 2), module=net)
    with pytest.raises(ValueError, match="give module= too"):
        jp.explain(sgd, optax.sgd(0.1), {"w": np.zeros(2)})
    with pytest.raises(ValueError, match="features") as error:
        jp.explain(sgd, jp.SGD([{"params": "features"}], lr=0.1))
    assert "give params= and module=" in error.value.__notes__[0]


@pytest.mark.parametrize("requires", [True, False], ids=["not given to torch", "without gradient"])
def test_what_torch_does_not_train_is_compared_too(requires):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    net[1].requires_grad_(requires)
    given = net[0].parameters() if requires else net.parameters()
    like = {"0": zeros(2, 3), "1": zeros(3, 2)}
    adamw = optim.AdamW(given, lr=1e-3)
    found = jp.explain(adamw, jp.AdamW(lr=1e-3), like, module=net)
    assert {d.leaf for d in found.differences} == {"1/kernel", "1/bias"}
    assert [cause.name for cause in found.causes] == ["frozen-leaf"]
    assert "where torch stays" in str(found)
    groups = [{"params": "0"}, {"params": "1", "frozen": True}]
    assert jp.explain(adamw, jp.AdamW(groups, lr=1e-3), like, module=net).ok
    masked = optax.masked(optax.sgd(0.1), {"0": True, "1": False})
    found = jp.explain(optim.SGD(net[0].parameters(), lr=0.1), masked, like, module=net)
    assert [cause.name for cause in found.causes] == ["passed-on"]
    begins = optax.sgd(lambda count: jnp.where(count < 3, 0.0, 0.1))
    tx = optax.multi_transform({"0": optax.set_to_zero(), "1": begins}, {"0": "0", "1": "1"})
    found = jp.explain(optim.SGD(net[0].parameters(), lr=0.0), tx, like, module=net)
    assert [cause.name for cause in found.causes] == ["frozen-leaf"]  # and not another rate


LAYOUTS = {
    "Muon": (lambda: torch.nn.Linear(8, 16, bias=False), (8, 16)),
    "Adafactor": (lambda: torch.nn.Conv2d(3, 8, 3, bias=False), (3, 3, 3, 8)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_that_change_the_numbers(name):
    make, shape = LAYOUTS[name]
    layer = make()
    params = interop.params_from_torch(layer, {"kernel": jnp.zeros(shape)})
    optimizer, tx = (
        getattr(torch.optim, name)(layer.parameters(), lr=0.02),
        getattr(jp, name)(lr=0.02),
    )
    found = jp.explain(optimizer, tx, params, module=layer)
    assert [cause.name for cause in found.causes] == ["transposed"]
    assert "in_torch_layout(tx, params, module)" in str(found)
    again = jp.explain(optimizer, tx, params, module=layer, steps=1).differences[0].distance
    optimizer.param_groups[0]["lr"] *= 1e-3
    slower = getattr(jp, name)(lr=0.02e-3)
    (same,) = jp.explain(optimizer, slower, params, module=layer, steps=1).differences
    assert same.distance == pytest.approx(again, rel=1e-6)  # of the way gone
    optimizer.param_groups[0]["lr"] = 0.02
    as_torchs = interop.in_torch_layout(tx, params, layer)
    assert jp.explain(optimizer, as_torchs, params, module=layer).ok
    from_torch, _ = interop.optimizer_from_torch(optimizer, params, layer)
    assert jp.explain(optimizer, from_torch, params, module=layer).ok


def test_rates_of_torch_may_be_tensors():
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=torch.tensor(0.1, dtype=torch.float64))
    assert jp.explain(optimizer, jp.AdamW(lr=0.1)).ok
    assert "lr=0.2; torch has 0.1" in str(jp.explain(optimizer, jp.AdamW(lr=0.2)))
    assert "jp.SGD(lr=0.5)" in jp.spelled(jp.SGD(lr=torch.tensor(0.5)))
    sparse = torch.optim.SparseAdam(layer.parameters())
    with pytest.raises(TypeError, match="SparseAdam takes sparse gradients"):
        jp.explain(sparse, jp.SparseAdam())
