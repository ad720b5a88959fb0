"""Deliberate faults in the rules, each a way in which ports go wrong: the bits catch all."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.engine import Rule, Sum, transformation
from jaxopt_port.numerics.torch_ops import (
    add,
    add_scalar,
    addcmul,
    div,
    lerp,
    mul,
    quotient,
    sqrt,
)
from parity_tests.faults.patched import FAULTS as FAULTS_OF_RECIPES
from parity_tests.oracles.optimizer import TorchOracle, check_bits

pytestmark = pytest.mark.usefixtures("correct_root")


def changed(rule, **scalars):
    """A rule one of whose scalars is calculated otherwise, from its options and the step."""

    def advance(shared, **options):
        after, true = rule.advance(shared, **options)
        own = {k: f(step=after["step"].astype(jnp.float64), **options) for k, f in scalars.items()}
        return after, true | own

    return dataclasses.replace(rule, advance=advance)


def adam_with(denominator):
    """Adam with a denominator of one's own, and what it keeps as ``max_exp_avg_sq``."""

    def update(grad, param, state, *, eps, step_size, weight1, beta2, weight2, **scalars):
        exp_avg = lerp(state["exp_avg"], grad, weight1)
        exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
        correction = scalars["bias_correction2_sqrt"]
        denom, largest = denominator(exp_avg_sq, state.get("max_exp_avg_sq"), correction, eps)
        after = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        if "max_exp_avg_sq" in state:
            after["max_exp_avg_sq"] = largest
        return Sum(param, quotient(exp_avg, denom, value=-step_size)), after

    return dataclasses.replace(jp.adam.rule, update=update)


def _true_denominator(exp_avg_sq, largest, correction, eps):
    largest = exp_avg_sq if largest is None else jnp.maximum(largest, exp_avg_sq)
    return add_scalar(div(sqrt(largest), correction), eps), largest


def _eps_inside(exp_avg_sq, largest, correction, eps):
    return sqrt(add_scalar(div(exp_avg_sq, correction * correction), eps)), largest


def _largest_corrected(exp_avg_sq, largest, correction, eps):
    largest = jnp.maximum(largest, div(exp_avg_sq, correction * correction))
    return add_scalar(sqrt(largest), eps), largest


def _decay_coupled(grad, param, state, **options):
    options |= {"decoupled_weight_decay": False}
    return jp.adam.rule.update(grad, param, state, **options)


def _rprop_stale_sign(grad, param, state, **options):
    new_param, after = jp.rprop.rule.update(grad, param, state, **options)
    return new_param, after | {"prev": grad}


def _rprop_one_step_late(grad, param, state, **options):
    late = jp.rprop.rule.update(grad, param, state, **options)[1]
    step = mul(jnp.sign(late["prev"]), state["step_size"])
    return Sum(param, step, -1.0), late


def _adadelta_rate_in_average(grad, param, state, *, lr, **options):
    result, after = jp.adadelta.rule.update(grad, param, state, lr=lr, **options)
    weight = options["weight"] * lr * lr
    acc = addcmul(
        mul(state["acc_delta"], options["rho"]), result.addend, result.addend, value=weight
    )
    return result, after | {"acc_delta": acc}


def _eps_on_the_denominator(grad, param, state, *, eps, clr, **options):
    _, after = jp.adamax.rule.update(
        grad, param, state, eps=jnp.zeros_like(eps), clr=clr, **options
    )
    denom = add_scalar(after["exp_inf"], eps)
    return Sum(param, quotient(after["exp_avg"], denom, value=-clr)), after


def _maximize_ignored(grad, param, state, *, maximize, **options):
    return jp.sgd.rule.update(grad, param, state, maximize=False, **options)


def _momentum_in_one_rounding(grad, param, state, *, momentum, dampening, begun, **options):
    """momentum * buf + (1 - dampening) * grad with one fused multiply-add too many."""
    held = state["momentum_buffer"]
    buf = jnp.where(begun, add(mul(grad, 1 - dampening), held, alpha=momentum), grad)
    # Handed on as a first gradient, which the true update takes as its buffer.
    first = jnp.zeros_like(begun)
    options |= {"momentum": momentum, "dampening": dampening, "begun": first}
    return jp.sgd.rule.update(buf, param, state, **options)


def _float32_betas(rule):
    def advance(shared, *, betas, **options):
        return rule.advance(shared, betas=betas.astype(jnp.float32).astype(jnp.float64), **options)

    return dataclasses.replace(rule, advance=advance)


def _replaced(rule, update):
    return dataclasses.replace(rule, update=update)


class Fault(NamedTuple):
    optimizer: str
    options: dict[str, Any]
    rule: Rule[Any]


FAULTS = {
    "eps inside the root": Fault("Adam", {}, adam_with(_eps_inside)),
    "first bias correction left out": Fault(
        "Adam", {}, changed(jp.adam.rule, step_size=lambda lr, **_: lr)
    ),
    "second bias correction left out": Fault(
        "Adam", {}, changed(jp.adam.rule, bias_correction2_sqrt=lambda lr, **_: jnp.ones_like(lr))
    ),
    "decay coupled": Fault(
        "AdamW", {"weight_decay": 0.1}, _replaced(jp.adamw.rule, _decay_coupled)
    ),
    "AMSGrad's maximum after correction": Fault(
        "Adam", {"amsgrad": True}, adam_with(_largest_corrected)
    ),
    "betas in float32": Fault("Adam", {}, _float32_betas(jp.adam.rule)),
    "betas of AdamW in float32": Fault("AdamW", {}, _float32_betas(jp.adamw.rule)),
    "betas swapped": Fault(
        "Adam",
        {},
        changed(
            jp.adam.rule, weight1=lambda betas, **_: 1 - betas[1], beta2=lambda betas, **_: betas[0]
        ),
    ),
    "step counted from 0": Fault(
        "Adamax",
        {},
        changed(jp.adamax.rule, clr=lambda lr, betas, step, **_: lr / (1 - betas[0] ** (step + 1))),
    ),
    "eps on the denominator of Adamax": Fault(
        "Adamax", {"eps": 1e-3}, _replaced(jp.adamax.rule, _eps_on_the_denominator)
    ),
    "a stale sign in Rprop": Fault("Rprop", {}, _replaced(jp.rprop.rule, _rprop_stale_sign)),
    "Rprop one step late": Fault("Rprop", {}, _replaced(jp.rprop.rule, _rprop_one_step_late)),
    "the rate in Adadelta's average": Fault(
        "Adadelta", {"lr": 0.5}, _replaced(jp.adadelta.rule, _adadelta_rate_in_average)
    ),
    "a constant momentum in NAdam": Fault(
        "NAdam",
        {"lr": 0.01},
        changed(
            jp.nadam.rule,
            grad_step=lambda lr, betas, step, **_: -lr * (1 - betas[0]) / (1 - betas[0] ** step),
        ),
    ),
    "RAdam rectified from 4 on": Fault(
        "RAdam",
        {"lr": 0.1, "betas": (0.9, 0.9)},
        changed(jp.radam.rule, rectified=lambda lr, **_: True),
    ),
    "lr decay counted from 1": Fault(
        "Adagrad",
        {"lr_decay": 0.1},
        changed(jp.adagrad.rule, clr=lambda lr, lr_decay, step, **_: lr / (1 + step * lr_decay)),
    ),
    "ASGD's rate one step early": Fault(
        "ASGD",
        {"lambd": 0.1},
        changed(
            jp.asgd.rule,
            eta=lambda lr, lambd, alpha, step, **_: lr / (1 + lambd * lr * step) ** alpha,
        ),
    ),
    "RMSprop's weight in float32": Fault(
        "RMSprop",
        {},
        changed(jp.rmsprop.rule, weight=lambda alpha, **_: 1 - alpha.astype(jnp.float32)),
    ),
    **{
        fault.name: Fault("SGD", fault.options, _replaced(jp.sgd.rule, fault.update))
        for fault in FAULTS_OF_RECIPES
    },
    "maximize ignored": Fault("SGD", {"maximize": True}, _replaced(jp.sgd.rule, _maximize_ignored)),
    "momentum in one rounding": Fault(
        "SGD", {"momentum": 0.9}, _replaced(jp.sgd.rule, _momentum_in_one_rounding)
    ),
}


def check_parity(optimizer, factory, options, steps=8):
    rng = np.random.default_rng(7)
    start, *gradients = ({"w": rng.standard_normal(257).astype(np.float32)} for _ in range(steps))
    oracle = TorchOracle(getattr(torch.optim, optimizer), start, [["w"]], options)
    check_bits(oracle, jp.param_groups(factory, **options), start, gradients)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault):
    optimizer, options, rule = FAULTS[fault]
    with pytest.raises(AssertionError, match=r"w after step \d: \d+ of 257 differ"):
        check_parity(optimizer, transformation(rule), options)


TRUE = {(fault.optimizer, repr(fault.options)): fault for fault in FAULTS.values()}


@pytest.mark.parametrize("name", TRUE, ids=lambda name: f"{name[0]} {name[1]}")
def test_there_is_none_where_there_is_no_fault(name):
    optimizer, options, _ = TRUE[name]
    check_parity(optimizer, getattr(jp, optimizer.lower()), options)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}], ids=repr)
def test_the_base_of_the_faults_is_none(options):
    check_parity("Adam", transformation(adam_with(_true_denominator)), options)
