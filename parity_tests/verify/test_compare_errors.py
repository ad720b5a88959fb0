"""What `verify.compare` refuses, before any training."""

import copy

import jax.numpy as jnp
import optax
import pytest
import torch
from flax import linen, nnx
from torch.utils.data import DataLoader, IterableDataset

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.verify.compared_runs import (
    PARAMS,
    STEPS,
    TX,
    apply,
    batches,
    mine,
    theirs,
    torch_loss,
)
from parity_tests.verify.linear_layers import mean_square


def _dropout_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Dropout(), torch.nn.Linear(6, 3))


def _used():
    side = theirs()
    torch_loss(side.module(torch.ones(2, 5)), (None, torch.ones(2, 3))).backward()
    side.optimizer.step()
    return side


class Once(IterableDataset):
    def __init__(self):
        self._left = iter(batches(3))

    def __iter__(self):
        return self._left


BAD = {
    "another shape": (
        theirs,
        lambda: mine(params={**PARAMS, "2": {"kernel": jnp.zeros((6, 4)), "bias": jnp.zeros(3)}}),
        {},
        "2.weight",
    ),
    "a leaf too few": (theirs, lambda: mine(params={"0": PARAMS["0"]}), {}, "2.weight"),
    "a loss per example": (
        theirs,
        lambda: mine(loss=lambda output, batch: jnp.mean((output - batch[1]) ** 2, 1)),
        {},
        "your loss is no scalar",
    ),
    "torch's loss per example": (
        lambda: theirs(loss=lambda output, batch: ((output - batch[1]) ** 2).mean(1)),
        mine,
        {},
        "must be a scalar",
    ),
    "dropout": (lambda: theirs(module=_dropout_net()), mine, {}, "not deterministic.*eval"),
    "another output": (
        theirs,
        lambda: mine(apply=lambda p, b: apply(p, b).T, loss=lambda o, b: jnp.mean(o)),
        {},
        r"your output has shape \(3, 7\), torch's \(7, 3\)",
    ),
    "a complex output": (
        lambda: theirs(forward=lambda m, b: m(b[0]) + 0j, loss=lambda o, b: torch_loss(o.real, b)),
        lambda: mine(apply=lambda p, b: apply(p, b) + 0j, loss=lambda o, b: mean_square(o.real, b)),
        {},
        "your output is complex.*view_as_real",
    ),
    "a loader without batches": (
        theirs,
        mine,
        {"batches": DataLoader([1], 2, drop_last=True), "steps": 2},
        "there are no batches",
    ),
    "a dataset that is read once": (
        theirs,
        mine,
        {"batches": DataLoader(Once(), None), "steps": 5},
        "the batches end after 3 of 5 steps",
    ),
    "batches that end": (theirs, mine, {"steps": STEPS + 1}, f"the batches end after {STEPS}"),
    "no batches": (theirs, mine, {"batches": []}, "there are no batches"),
    "own batches that end": (
        theirs,
        lambda: mine(batches=batches(3)),
        {},
        "your own batches end after 3 of 40 steps",
    ),
    "own batches of another size": (
        theirs,
        lambda: mine(batches=batches(STEPS, 6)),
        {},
        r"batch/0 of step 0 has shape \(6, 5\) on your side and \(7, 5\)",
    ),
    "an optimizer in mid-run": (_used, mine, {}, "optimizer_from_torch"),
    "no cause": (
        theirs,
        mine,
        {"accept": ["biased"]},
        'is no cause of .*did you mean "biased-variance"',
    ),
    "no steps": (theirs, mine, {"steps": 0}, "steps is 0; it must be 1 or more"),
    "a check too often": (theirs, mine, {"every": 0}, "every is 0; it must be 1 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_an_error(case):
    make_theirs, make_mine, options, message = BAD[case]
    side = make_theirs()
    before = copy.deepcopy(side.module.state_dict())
    options = {"batches": batches(), **options}
    with pytest.raises(ValueError, match=message):
        verify.compare(side, make_mine(), **options)
    for name, value in side.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_module_without_shapes_is_refused():
    with pytest.raises(ValueError, match="weight, bias of torch's module have no shape yet"):
        verify.compare(theirs(module=torch.nn.LazyLinear(3)), mine(), batches())


def test_wrong_kinds_are_type_errors():
    with pytest.raises(TypeError, match="must be a TorchSide, got Linear"):
        verify.compare(torch.nn.Linear(1, 1), mine(), batches())
    with pytest.raises(TypeError, match="must be a JaxSide, got dict"):
        verify.compare(theirs(), {}, batches())
    with pytest.raises(TypeError, match="no length"):
        verify.compare(theirs(), mine(), iter(batches()))
    for function in (optax.adam, jp.Adam):
        with pytest.raises(TypeError, match=r"got [aA]dam; call it: tx=[aA]dam\(…\)"):
            mine(tx=function)
    with pytest.raises(TypeError, match=r"got Adam; make one: optimizer=Adam\(module"):
        verify.compare(theirs(optimizer=lambda _: torch.optim.Adam), mine(), batches())
    with pytest.raises(TypeError, match=r"the class StepLR; make one: StepLR\(optimizer"):
        verify.compare(theirs(scheduler=torch.optim.lr_scheduler.StepLR), mine(), batches())
    with pytest.raises(TypeError, match=r"averaged must be a jp\.swa_utils\.AveragedModel"):
        mine(averaged=optax.ema(0.9))
    with pytest.raises(TypeError, match=r"give what it returns: batches\(\)"):
        verify.compare(theirs(), mine(), batches)
    with pytest.raises(TypeError, match=r"steps is 3\.0; it must be an integer"):
        verify.compare(theirs(), mine(), batches(), steps=3.0)
    with pytest.raises(TypeError, match="layouts maps torch's names"):
        verify.compare(theirs(), mine(), batches(), layouts=[(1, 0)])
    with pytest.raises(TypeError, match="an Optax schedule is the learning rate of tx"):
        mine(scheduler=optax.constant_schedule(0.1))
    with pytest.raises(TypeError, match="chain a transformation before the optimizer"):
        mine(clip=optax.clip_by_global_norm(1.0))
    with pytest.raises(TypeError, match=r"clip must return the gradients.*has returned NoneType"):
        verify.compare(theirs(), mine(clip=lambda grads: None), batches())
    with pytest.raises(TypeError, match="got the class Linear; make one"):
        verify.nnx_side(nnx.Linear, tx=TX, loss=mean_square)
    with pytest.raises(ValueError, match=r"no \"params\""):
        verify.linen_side(linen.Dense(3), {"batch_stats": {}}, tx=TX, loss=mean_square)
