"""Bad input to clipping and the scaler: torch's words where it has some, and nothing is changed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.bad_input import Bad, assert_refused

PARAMS = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.zeros(2)}
GRADS = {"w": jnp.ones(3), "b": jnp.ones(2)}
SHORT = {"w": jnp.ones(4), "b": jnp.ones(2)}
WORD, NONE = "could not convert string", "float.. argument must be"


def gradients():
    made = [torch.nn.Parameter(torch.ones(n)) for n in (3, 2)]
    for each in made:
        each.grad = torch.ones_like(each)
    return made


def of_clip(name, ours, option):
    theirs = {
        "max_norm": lambda v: torch.nn.utils.clip_grad_norm_(gradients(), v),
        "clip_value": lambda v: torch.nn.utils.clip_grad_value_(gradients(), v),
        "norm_type": lambda v: torch.nn.utils.clip_grad_norm_(gradients(), 1.0, v),
    }[option]
    given = {"a word": ("a", ValueError, WORD), "None": (None, TypeError, NONE)}
    given["a list"] = ([1.0], TypeError, NONE)
    return {
        f"{name}, {option} is {what}": Bad(
            lambda v=v: ours(v), error, f"{message}.*: {option} must be one", lambda v=v: theirs(v)
        )
        for what, (v, error, message) in given.items()
    }


EMPTY = {"w": jnp.zeros((0, 2)), "b": jnp.ones(2)}


def of_empty(norm_type):
    def theirs():
        return torch.nn.utils.get_total_norm([torch.zeros(0, 2), torch.ones(2)], norm_type)

    message = "norm on an empty tensor because the operation does not have an identity; leave"
    return Bad(lambda: jp.get_total_norm(EMPTY, norm_type), RuntimeError, message, theirs)


STRANGE = {
    "a word": ({"w": "abc"}, "builtins.str, 'abc'"),
    "torch's": ({"w": torch.ones(3)}, "torch.Tensor, tensor"),
    "a function": ({"w": len}, "built-in function len"),
}
CLIP = {
    **of_clip("clip_grad_norm", lambda v: jp.clip_grad_norm(GRADS, v), "max_norm"),
    **of_clip("clip_by_grad_norm", jp.clip_by_grad_norm, "max_norm"),
    **of_clip("clip_grads_with_norm", lambda v: jp.clip_grads_with_norm(GRADS, v, 2.0), "max_norm"),
    **of_clip("clip_grad_value", lambda v: jp.clip_grad_value(GRADS, v), "clip_value"),
    **of_clip("clip_by_grad_value", jp.clip_by_grad_value, "clip_value"),
    **of_clip("get_total_norm", lambda v: jp.get_total_norm(GRADS, v), "norm_type"),
    **of_clip("clip_grad_norm", lambda v: jp.clip_grad_norm(GRADS, 1.0, v), "norm_type"),
    **of_clip("clip_by_grad_norm", lambda v: jp.clip_by_grad_norm(1.0, v), "norm_type"),
    **{f"empty, norm {p}": of_empty(p) for p in (math.inf, -math.inf, -1.0)},
    **{
        f"{name} of {what}": Bad(lambda f=f, g=g: f(g, 1.0), TypeError, f"among the grad.*{words}")
        for what, (g, words) in STRANGE.items()
        for name, f in {"norm": jp.clip_grad_norm, "value": jp.clip_grad_value}.items()
    },
    "two numbers": Bad(lambda: jp.clip_grad_norm(GRADS, jnp.ones(2)), TypeError, "one number; got"),
    "two norms": Bad(
        lambda: jp.clip_grads_with_norm(GRADS, 1.0, jnp.ones(3)), TypeError, r"shape \(3,\)"
    ),
    "a traced norm type": Bad(
        lambda: jax.jit(jp.get_total_norm)(GRADS, 2.0), TypeError, "norm_type must be known"
    ),
}

SCALER, FOUND = jp.GradScaler(), jnp.array(False)
SCALE = SCALER.init()
SAVED = SCALER.state_dict(SCALE)
SGD = jp.SGD(lr=0.1, momentum=0.9)
STATE = SGD.init(PARAMS)
OWN_STATE = "scaler_state must be the scaler's own.*got a"


def theirs(**options):
    return lambda: torch.amp.GradScaler("cpu", **options)


def scaled_by_torch(outputs):
    return lambda: torch.amp.GradScaler("cpu").scale(outputs)


def rescaled_by_torch():
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    scaler.update(torch.ones(2))


def stepped_by_torch():
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    scaler.step(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1))


def made(**options):
    return lambda: jp.GradScaler(**options)


def loaded(**entries):
    return lambda: SCALER.load_state_dict({**SAVED, **entries})


def loaded_by_torch():
    torch.amp.GradScaler("cpu").load_state_dict({})


def scaler_step(found, tx=SGD, grads=GRADS):
    return lambda: SCALER.step(tx, grads, STATE, PARAMS, found)


BOOLEAN = "found_inf must be one boolean.*got"
SCALING = {
    "growth of 1": Bad(
        made(growth_factor=1.0), AssertionError, r"must be > 1\.0", theirs(growth_factor=1.0)
    ),
    "backoff of 1": Bad(
        made(backoff_factor=1.0), AssertionError, r"must be < 1\.0", theirs(backoff_factor=1.0)
    ),
    "torch's device": Bad(made(init_scale="cuda"), TypeError, "takes no device.*'cuda'"),
    "no scale": Bad(made(init_scale=None), TypeError, f"{NONE}.*init_scale must be"),
    "two scales": Bad(made(init_scale=jnp.ones(2)), TypeError, "init_scale must be one number"),
    "a word for growth": Bad(made(growth_factor="a"), ValueError, f"{WORD}.*growth_factor must"),
    "a word for backoff": Bad(made(backoff_factor="a"), ValueError, f"{WORD}.*backoff_factor must"),
    "half an interval": Bad(made(growth_interval=1.5), TypeError, "growth_interval must be an int"),
    "nothing to scale": Bad(
        lambda: SCALER.scale(None, SCALE), ValueError, "one is None", scaled_by_torch(None)
    ),
    "None among outputs": Bad(
        lambda: SCALER.scale([jnp.ones(1), None], SCALE),
        ValueError,
        "one is None",
        lambda: list(torch.amp.GradScaler("cpu").scale([torch.ones(1), None])),
    ),
    "a word to scale": Bad(lambda: SCALER.scale("a", SCALE), TypeError, "among the outputs is a"),
    "scaled with a dict": Bad(
        lambda: SCALER.scale(1.0, {"scale": 2.0}), TypeError, f"{OWN_STATE} dict"
    ),
    "unscaled with a state of SGD": Bad(
        lambda: SCALER.unscale(GRADS, STATE), TypeError, f"{OWN_STATE} GroupsS"
    ),
    "updated with None": Bad(
        lambda: SCALER.update(None, FOUND), TypeError, f"{OWN_STATE} NoneType"
    ),
    "saved without a state": Bad(lambda: SCALER.state_dict(PARAMS), TypeError, f"{OWN_STATE} dict"),
    "float16": Bad(
        lambda: SCALER.unscale({"w": jnp.ones(2, jnp.float16)}, SCALE),
        ValueError,
        "Attempting to unscale FP16 gradients",
    ),
    "no gradient": Bad(
        lambda: SCALER.unscale({"w": None}, SCALE),
        AssertionError,
        "there is no grad",
        stepped_by_torch,
    ),
    "a word for a gradient": Bad(
        lambda: SCALER.unscale({"w": "a"}, SCALE), TypeError, "among the grad"
    ),
    "found None": Bad(scaler_step(None), TypeError, f"{BOOLEAN} None"),
    "found a word": Bad(scaler_step("a"), TypeError, f"{BOOLEAN} 'a'"),
    "found two": Bad(
        scaler_step(jnp.zeros(2, bool)), TypeError, rf"{BOOLEAN} an array of shape \(2,\)"
    ),
    "found in a tree": Bad(scaler_step({"w": False}), TypeError, f"{BOOLEAN} {{'w'"),
    "a class for an optimizer": Bad(
        scaler_step(FOUND, jp.SGD), TypeError, "got the class SGD: make one"
    ),
    "scaled, another shape": Bad(
        scaler_step(FOUND, grads=SHORT), ValueError, r'"w" has shape \(4,\)'
    ),
    "updated with two": Bad(lambda: SCALER.update(SCALE, jnp.zeros(2, bool)), TypeError, BOOLEAN),
    "updated, found None": Bad(lambda: SCALER.update(SCALE, None), TypeError, f"{BOOLEAN} None"),
    "two new scales": Bad(
        lambda: SCALER.update(SCALE, FOUND, jnp.ones(2)),
        AssertionError,
        "new_scale should be",
        rescaled_by_torch,
    ),
    "a word for a new scale": Bad(
        lambda: SCALER.update(SCALE, FOUND, "a"), AssertionError, "got 'a'"
    ),
    "not accumulated": Bad(
        lambda: SCALER.update(SCALE, FOUND, state=STATE), ValueError, "it holds 0"
    ),
    "an empty dict": Bad(
        lambda: SCALER.load_state_dict({}), RuntimeError, "is empty", loaded_by_torch
    ),
    "a list": Bad(lambda: SCALER.load_state_dict([1]), TypeError, "must be a dict, but got"),
    "entries missing": Bad(
        lambda: SCALER.load_state_dict({"scale": 2.0, "backoff_factor": 0.5, "growth_interval": 9}),
        ValueError,
        "it has no growth_factor, _growth_tracker; its entries",
    ),
    "another growth": Bad(
        loaded(growth_factor=3.0), ValueError, r"saved with growth_factor 3\.0, this"
    ),
    "another interval": Bad(loaded(growth_interval=7), ValueError, "saved with growth_interval 7"),
    "a saved word": Bad(loaded(scale="a"), ValueError, f"{WORD}.*the saved scale must be one"),
    "nothing saved": Bad(loaded(scale=None), TypeError, f"{NONE}.*the saved scale"),
    **{
        f"a saved scale of {scale}": Bad(loaded(scale=scale), ValueError, "no positive number that")
        for scale in (-1.0, 0.0, math.nan, math.inf, 1e300)
    },
    "two saved": Bad(loaded(scale=np.ones(2)), TypeError, "the saved scale must be one number"),
    "a saved count of steps": Bad(
        loaded(_growth_tracker=1.5), TypeError, "must be an integer; got 1.5"
    ),
    "a negative count": Bad(loaded(_growth_tracker=-1), ValueError, "-1 is no count of steps"),
    "too large a count": Bad(loaded(_growth_tracker=2**40), ValueError, "is no count of steps"),
}

CASES = {f"clip: {name}": bad for name, bad in CLIP.items()} | SCALING


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_refused(CASES[case], (PARAMS, GRADS, SCALE, STATE))
