"""Bad input to accumulation and averages: torch's words where it has some; nothing is changed."""

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from flax import linen, nnx

import jaxopt_port as jp
from jaxopt_port import contrib, swa_utils
from parity_tests.oracles.bad_input import Bad, assert_refused

PARAMS = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.zeros(2)}
GRADS = {"w": jnp.ones(3), "b": jnp.ones(2)}
SHORT = {"w": jnp.ones(4), "b": jnp.ones(2)}
SGD = jp.SGD(lr=0.1, momentum=0.9)
STATE = SGD.init(PARAMS)
TWICE = jp.accumulate_grads(SGD, 2)
HELD = TWICE.init(PARAMS)
PARTS = {"w": "x", "b": "y"}
LENGTHS = [1, 2]


def stepped_from(own, around):
    tx = around(jp.SGD(lr=0.1))
    return lambda: jp.step(tx, GRADS, tx.init(own), PARAMS)


OTHER_SHAPE = r'"w" has shape \(4,\) in the state, \(3,\) by the parameters'


def branching(count):
    return 2 if count < 4 else 4


def accumulated(grads=GRADS, state=HELD, steps=None, **extra_args):
    tx = TWICE if steps is None else jp.accumulate_grads(SGD, steps)
    return lambda: jp.step(tx, grads, state, PARAMS, **extra_args)


def _of_a_loss(tx):
    def loss(params):
        return sum(jnp.sum((x - 3) ** 2) for x in params.values())

    return jp.step(tx, loss, tx.init(PARAMS), PARAMS)


POSITIVE = "Expected positive integer steps, but got"
ACCUMULATION = {
    "a function that is wrong anyway": Bad(
        lambda: jp.accumulate_grads(SGD, lambda: 2).update(GRADS, HELD, PARAMS),
        TypeError,
        "takes 0 positional arguments",
    ),
    "a class within Lookahead": Bad(
        lambda: contrib.lookahead(jp.SGD), TypeError, "got the class SGD: make one"
    ),
    "a class within SAM": Bad(lambda: contrib.sam(jp.SGD), TypeError, "got the class SGD"),
    **{
        f"{steps!r} steps": Bad(
            lambda s=steps: jp.accumulate_grads(SGD, s), ValueError, f"{POSITIVE} "
        )
        for steps in (0, -1, 1.5, 2.0, "a", None, True, [2])
    },
    "a class": Bad(lambda: jp.accumulate_grads(jp.SGD, 2), TypeError, "got the class SGD"),
    "L-BFGS, which evaluates the loss": Bad(
        lambda: _of_a_loss(jp.accumulate_grads(jp.LBFGS(), 2)), TypeError, "of the last gradient"
    ),
    "SAM": Bad(
        lambda: _of_a_loss(jp.accumulate_grads(contrib.sam(jp.SGD(lr=0.1)), 2)),
        TypeError,
        r"put it within.*sam\(jp\.accumulate_grads",
    ),
    **{
        f"a part of the parameters for {name}": Bad(
            lambda tx=tx: _of_a_loss(optax.multi_transform({"x": tx, "y": SGD}, PARTS)),
            TypeError,
            r"a part of them .*contrib\.sam\(optax\.masked",
        )
        for name, tx in (("SAM", contrib.sam(SGD)), ("L-BFGS", jp.LBFGS()), ("lbfgs", jp.lbfgs()))
    },
    "clipping around SAM": Bad(
        lambda: _of_a_loss(optax.chain(jp.clip_by_grad_norm(1.0), contrib.sam(jp.SGD(lr=0.1)))),
        TypeError,
        r"put it within.*sam\(optax\.chain",
    ),
    "no optimizer": Bad(lambda: jp.accumulate_grads(None, 2), TypeError, r"such as jp\.SGD.*None"),
    "none at all": Bad(accumulated(None), ValueError, "the gradients are None as a whole"),
    "one missing": Bad(accumulated({"w": jnp.ones(3)}), ValueError, 'the gradients have no "b"'),
    "one too many": Bad(
        accumulated({**GRADS, "c": jnp.ones(1)}), ValueError, 'the gradients have "c"'
    ),
    "one missing when compiled": Bad(
        lambda: jax.jit(TWICE.update)({"w": jnp.ones(3)}, HELD, PARAMS),
        ValueError,
        'the gradients have no "b"',
    ),
    "one None": Bad(accumulated({**GRADS, "b": None}), ValueError, "cannot be added up"),
    "another shape": Bad(accumulated(SHORT), ValueError, r'"w" has shape \(4,\)'),
    "another dtype": Bad(
        accumulated({**GRADS, "b": jnp.ones(2, jnp.float16)}), TypeError, "dtype float16"
    ),
    "the optimizer's state": Bad(
        accumulated(state=STATE), TypeError, "not one of accumulate_grads"
    ),
    "the optimizer's state within Lookahead": Bad(
        lambda: jp.step(contrib.lookahead(SGD), GRADS, STATE, PARAMS),
        TypeError,
        "a GroupsState, not one of lookahead",
    ),
    "a state of other parameters": Bad(
        stepped_from({"w": jnp.ones(3)}, lambda tx: jp.accumulate_grads(tx, 2)),
        ValueError,
        'the state was made for: "b" is in only one of the two',
    ),
    "a state of other shapes": Bad(
        stepped_from(SHORT, lambda tx: jp.accumulate_grads(tx, 2)), ValueError, OTHER_SHAPE
    ),
    "Lookahead's of other shapes": Bad(
        stepped_from(SHORT, contrib.lookahead), ValueError, OTHER_SHAPE
    ),
    "two conditions": Bad(accumulated(take_step=jnp.ones(2, bool)), TypeError, "take_step must be"),
    "a number for a condition": Bad(accumulated(take_step=1.0), TypeError, "take_step must be one"),
    "no condition": Bad(accumulated(take_step=None), TypeError, "take_step must be one boolean"),
    "a length of 0": Bad(accumulated(steps=lambda n: 0), ValueError, f"{POSITIVE} 0"),
    "no length": Bad(accumulated(steps=lambda n: None), ValueError, f"{POSITIVE} None"),
    "half a length": Bad(accumulated(steps=lambda n: n / 2), TypeError, "must return one integer"),
    "two lengths": Bad(accumulated(steps=lambda n: jnp.array([n, n])), TypeError, r"shape \(2,\)"),
    "a length that branches": Bad(
        accumulated(steps=branching), TypeError, r"branching \(line .*return 2 if.*jnp\.where"
    ),
    "a length by a list": Bad(
        accumulated(steps=lambda n: LENGTHS[n]), TypeError, "cannot be traced"
    ),
}

MEAN = swa_utils.AveragedModel()
AVERAGES = MEAN.init(PARAMS)


def averaged(params=PARAMS, averages=AVERAGES, buffers=(), **options):
    return lambda: swa_utils.AveragedModel(**options).update_parameters(averages, params, buffers)


def of_decay(make, torchs):
    return {
        f"{make.__name__}({decay!r})": Bad(
            lambda d=decay: make(d),
            error,
            r"in \[0,1\] range",
            (lambda d=decay: torchs(d)) if error is ValueError else None,
        )
        for decay, error in (
            (-0.1, ValueError),
            (1.1, ValueError),
            ("a", TypeError),
            (None, TypeError),
        )
    }


EMA = swa_utils.get_ema_avg_fn
ANOTHER = "the model's tree is not the one that the averages were made for: of the"
AVERAGING = {
    **of_decay(EMA, torch.optim.swa_utils.get_ema_avg_fn),
    **of_decay(swa_utils.get_ema_multi_avg_fn, torch.optim.swa_utils.get_ema_multi_avg_fn),
    "a model for the batches": Bad(
        lambda: swa_utils.update_bn(nnx.BatchNorm(1, rngs=nnx.Rngs(0)), [jnp.ones((2, 1))]),
        TypeError,
        "after the batches",
    ),
    "a Linen module alone": Bad(
        lambda: swa_utils.update_bn([], linen.BatchNorm()), TypeError, "Linen module with its var"
    ),
    "two functions": Bad(
        lambda: swa_utils.AveragedModel(EMA(), swa_utils.get_ema_multi_avg_fn()),
        AssertionError,
        "Only one of avg_fn",
        lambda: torch.optim.swa_utils.AveragedModel(
            torch.nn.Linear(1, 1), avg_fn=len, multi_avg_fn=len
        ),
    ),
    "a decay for a function": Bad(
        lambda: swa_utils.AveragedModel(0.9), TypeError, r"get_ema_avg_fn"
    ),
    "averages in place": Bad(
        averaged(multi_avg_fn=lambda averages, now, n: averages.clear()), TypeError, "returned None"
    ),
    "an average that branches": Bad(
        averaged(avg_fn=lambda average, now, n: now if n < 2 else average),
        TypeError,
        "avg_fn: .*cannot be traced",
    ),
    "no parameters": Bad(lambda: MEAN.init(None), TypeError, "the parameters are None"),
    "a word": Bad(lambda: MEAN.init({"w": "a"}), TypeError, "among the parameters and buffers is"),
    "a word later": Bad(averaged({**PARAMS, "b": "a"}), TypeError, "among the parameters and buff"),
    "one is missing": Bad(
        averaged({"w": jnp.ones(3)}), ValueError, f'{ANOTHER} parameters "b" is m'
    ),
    "one is new": Bad(
        averaged({**PARAMS, "c": jnp.ones(1)}), ValueError, f'{ANOTHER} parameters "c"'
    ),
    "other containers": Bad(averaged(tuple(PARAMS.values())), ValueError, ANOTHER),
    "buffers forgotten": Bad(
        averaged(averages=MEAN.init(PARAMS, {"mean": jnp.ones(2)})),
        ValueError,
        f'{ANOTHER} buffers "m',
    ),
    "a longer one": Bad(
        averaged(SHORT), ValueError, r'"w" of the parameters has shape \(4,\), its'
    ),
    "one that broadcasts": Bad(averaged({**PARAMS, "w": jnp.ones(1)}), ValueError, r"shape \(1,\)"),
    "an optimizer's state": Bad(averaged(averages=STATE), TypeError, "averages must be what init"),
    "a mean that is shorter": Bad(
        averaged(avg_fn=lambda a, b, n: a[:1]), ValueError, r"was an array of shape \(1,\)"
    ),
    "a complex model": Bad(
        averaged({**PARAMS, "b": jnp.zeros(2, jnp.complex64)}),
        TypeError,
        '"b" of the parameters is complex64, its average float32',
    ),
    "a model of integers": Bad(
        averaged({**PARAMS, "b": jnp.zeros(2, jnp.int32)}), TypeError, "is int32, its average fl"
    ),
    "a count below 0": Bad(
        averaged(averages=AVERAGES._replace(n_averaged=-1)), TypeError, "n_averaged must be"
    ),
    "no count": Bad(
        averaged(averages=AVERAGES._replace(n_averaged=None)), TypeError, "n_averaged must be"
    ),
    "torch's count": Bad(
        averaged(averages=AVERAGES._replace(n_averaged=torch.tensor(1))),
        TypeError,
        r"is jnp\.int32\(",
    ),
    "a mean of nothing": Bad(averaged(avg_fn=lambda a, b, n: None), ValueError, "was None"),
    "too few means": Bad(
        averaged(multi_avg_fn=lambda a, b, n: a[:1]), ValueError, "1 averages of 2"
    ),
    "a decay beyond 1": Bad(
        averaged(avg_fn=EMA(lambda n: 2.0)), ValueError, "Invalid decay value 2.0"
    ),
    "a decay that branches": Bad(
        averaged(avg_fn=EMA(lambda n: 0.5 if n < 2 else 0.9)),
        TypeError,
        r"cannot be traced.*jnp\.min",
    ),
}

CASES = {f"average: {name}": bad for name, bad in AVERAGING.items()} | ACCUMULATION


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_refused(CASES[case], (PARAMS, GRADS, STATE, HELD, AVERAGES))
