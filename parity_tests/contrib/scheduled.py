"""A scheduler of two groups, run in a compiled loop and one step after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib.schedule_cases import LR, STEPS, shown

PARAMS = {"a": jnp.ones(2), "b": jnp.ones(2)}


def optimizer(scales=(1.0, 1.0)):
    pairs = zip(PARAMS, LR, scales, strict=True)
    groups = [{"params": name, "lr": lr, "lr_scale": scale} for name, lr, scale in pairs]
    return jp.SGD(groups, lr=LR[0])


def ours_of_fvcore(name, **arguments):
    """A function of how far the training is, of a case's name and arguments."""
    if "scheduler" in arguments:
        of, more = arguments["scheduler"]
        arguments = {**arguments, "scheduler": ours_of_fvcore(of, **more)}
    return getattr(contrib, name)(**arguments)


def rates_of(scheduler, state, own, steps):
    """The rates of both groups, by one compiled loop and one step after the other."""

    @jax.jit
    def looped(state, own):
        def body(carried, t):
            state, own = steps(*carried, t)
            return (state, own), own.values["_last_lr"]

        return jax.lax.scan(body, (state, own), jnp.arange(1, STEPS))

    first = own.values["_last_lr"]
    _, parts = looped(state, own)
    compiled = np.concatenate([np.asarray(first)[None], np.asarray(parts)]).astype(np.float64)
    eager = [scheduler.get_last_lr(own)]
    for t in range(1, STEPS):
        state, own = steps(state, own, t)
        eager.append(scheduler.get_last_lr(own))
    return compiled.sum(axis=-1), np.array(eager), own


def named(cases):
    return [pytest.param(*case, id=shown(*case[:2])) for case in cases]
