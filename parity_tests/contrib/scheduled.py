"""A scheduler of two groups, run in a compiled loop and one step after the other."""

import warnings

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


def begun(scheduler, scales=(1.0, 1.0)):
    return scheduler.init(optimizer(scales).init(PARAMS))


def ours_of_fvcore(name, **arguments):
    """A function of how far the training is, of a case's name and arguments."""
    if "scheduler" in arguments:
        of, more = arguments["scheduler"]
        arguments = {**arguments, "scheduler": ours_of_fvcore(of, **more)}
    return getattr(contrib, name)(**arguments)


def stepping(scheduler):
    """Its step, without the warning that the optimizer has taken none."""

    def step(state, own, t):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return scheduler.step(state, own)

    return step


def rates_of(scheduler, step=None, scales=(1.0, 1.0)):
    """The rates of both groups, by one compiled loop and one step after the other; and the end."""
    step = step or stepping(scheduler)

    @jax.jit
    def looped(state, own):
        def body(carried, t):
            state, own = step(*carried, t)
            return (state, own), own.values["_last_lr"]

        return jax.lax.scan(body, (state, own), jnp.arange(1, STEPS))

    state, own = begun(scheduler, scales)
    first = own.values["_last_lr"]
    _, parts = looped(state, own)
    compiled = np.concatenate([np.asarray(first)[None], np.asarray(parts)]).astype(np.float64)
    eager = [scheduler.get_last_lr(own)]
    for t in range(1, STEPS):
        state, own = step(state, own, t)
        eager.append(scheduler.get_last_lr(own))
    return compiled.sum(axis=-1), np.array(eager), own


def rates_there(theirs):
    """The rates of a scheduler of torch's kind."""
    rates = [theirs.get_last_lr()]
    for _ in range(1, STEPS):
        theirs.optimizer.step()
        theirs.step()
        rates.append(theirs.get_last_lr())
    return rates


def check_rates(scheduler, expected, step=None):
    """The rates are these, eagerly and compiled; return the state at the end."""
    compiled, eager, own = rates_of(scheduler, step)
    np.testing.assert_array_equal(eager, expected)
    np.testing.assert_array_equal(compiled, expected)
    return own


def check_run(scheduler, theirs):
    """Rates and state are those of a scheduler of torch's kind; return the latter, twice."""
    expected = rates_there(theirs)
    own, saved = check_rates(scheduler, expected), theirs.state_dict()
    assert scheduler.state_dict(own) == saved
    assert scheduler.get_last_lr(scheduler.load_state_dict(saved)) == expected[-1]
    return own, saved


def named(cases):
    return [pytest.param(*case, id=shown(*case[:2])) for case in cases]
