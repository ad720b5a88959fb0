"""What a run does after it has crossed: groups that join or go on, rates below 0, L-BFGS."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2)}
OPTIONS = {"lr": 0.3, "betas": (0.5, 0.9), "weight_decay": 0.2}


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.ones(n)) for n in (3, 2))


def stepped(optimizer, *schedulers):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    for scheduler in schedulers:
        scheduler.step()


def test_a_group_that_joins_takes_torchs_defaults():
    module = Two()
    optimizer = torch.optim.AdamW([module.a], **OPTIONS, amsgrad=True)
    tx, state = interop.optimizer_from_torch(optimizer, PARAMS, module)
    tx, state = jp.add_param_group(tx, state, PARAMS, {"params": "b"})
    optimizer.add_param_group({"params": [module.b]})
    theirs, mine = optimizer.param_groups[-1], jp.get_hyperparams(state)[-1]
    assert {name: mine[name] for name in (*OPTIONS, "amsgrad")} == {**OPTIONS, "amsgrad": True}
    assert all(theirs[name] == mine[name] for name in OPTIONS)


def test_torchs_optimizer_has_the_defaults_of_this_sides():
    params, module = {"a": PARAMS["a"]}, Two()
    del module.b
    tx = jp.AdamW([{"params": "a", "lr": 0.1}], **OPTIONS)
    made = interop.optimizer_to_torch(tx, tx.init(params), params, module)
    assert made.param_groups[0]["lr"] == 0.1
    assert {name: made.defaults[name] for name in OPTIONS} == OPTIONS


@pytest.mark.parametrize("again", [False, True], ids=["joined last", "and stepped"])
def test_a_scheduler_crosses_where_a_group_has_joined(again):
    module = Two()
    optimizer = torch.optim.SGD([module.a], lr=0.1)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    stepped(optimizer, theirs)
    optimizer.add_param_group({"params": [module.b], "lr": 0.6})
    if again:
        stepped(optimizer, theirs)
    _, state = interop.optimizer_from_torch(optimizer, PARAMS, module)
    scheduler, own = interop.scheduler_from_torch(theirs, state)
    loaded = scheduler.load_state_dict(theirs.state_dict(), optimizer.param_groups)
    assert scheduler.state_dict(own) == scheduler.state_dict(loaded)
    back = interop.scheduler_to_torch(scheduler, own, optimizer)
    assert back.state_dict() == theirs.state_dict()
    assert len(optimizer.param_groups) == 2
    stepped(optimizer, back)
    state, own = scheduler.step(state, own)
    assert scheduler.get_last_lr(own) == back.get_last_lr()
    rates = [group["lr"] for group in jp.get_hyperparams(state)]
    assert rates == [group["lr"] for group in optimizer.param_groups]


def test_what_torch_did_not_train_goes_on_if_it_was_brought_over_to_rest():
    module = Two()
    groups = [{"params": [module.a]}, {"params": [module.b], "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    module.b.requires_grad_(False)
    _, state = interop.optimizer_from_torch(optimizer, PARAMS, module)
    with pytest.raises(ValueError, match=r"group 1.* does not hold b: .*frozen=True, group=1\)"):
        jp.set_hyperparams(state, group=1, frozen=False)
    module.b.requires_grad_(True)
    tx, state = interop.optimizer_from_torch(optimizer, PARAMS, module)
    state = jp.set_hyperparams(state, frozen=True, group=1)
    params, state = jp.step(tx, PARAMS, state, PARAMS)
    assert params["b"].tolist() == [1, 1]
    params, _ = jp.step(tx, PARAMS, jp.set_hyperparams(state, frozen=False, group=1), params)
    assert params["b"].tolist() == [0.5, 0.5]


def below_zero():
    """torch's run and this side's, whose scheduler has taken the rate below 0."""
    module = Two()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5 - epoch)
    stepped(optimizer, theirs)
    tx, scheduler = jp.SGD(lr=0.1, momentum=0.9), jp.lr_scheduler.LambdaLR(lambda e: 0.5 - e)
    state, own = scheduler.init(tx.init(PARAMS))
    params, state = jp.step(tx, {k: jnp.ones_like(p) for k, p in PARAMS.items()}, state, PARAMS)
    state, _ = scheduler.step(state, own)
    return module, optimizer, tx, state, params


def test_a_run_whose_rate_is_below_zero_goes_on():
    module, optimizer, tx, state, params = below_zero()
    brought = interop.optimizer_from_torch(optimizer, params, module)[1]
    resumed = jp.load_state_dict(tx, jp.state_dict(tx, state, params), params)
    slower = jp.set_hyperparams(resumed, momentum=0.8)
    found = [jp.get_hyperparams(s)[0] for s in (brought, resumed, slower)]
    assert [group["lr"] for group in found] == [optimizer.param_groups[0]["lr"]] * 3
    assert found[2]["momentum"] == 0.8
    with pytest.raises(ValueError, match=r"Invalid learning rate: -0\.2"):
        jp.set_hyperparams(resumed, lr=-0.2)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_goes_on_in_torch(search):
    def loss(a):
        return (a**4).sum() + a.sum() ** 2

    params, module = {"a": jnp.array([1.0, 2.0, 3.0])}, Two()
    del module.b
    tx = jp.LBFGS(lr=0.02, max_iter=2, line_search_fn=search)
    state, after = tx.init(params), params
    for _ in range(4):  # then there are as many pairs as `a` has elements
        after, state = jp.step(tx, lambda p: loss(p["a"]), state, after)
    module.a.data = torch.tensor(np.asarray(after["a"]))
    made = interop.optimizer_to_torch(tx, state, after, module)
    assert made.param_groups[0]["max_eval"] == 2
    assert len(made.state[module.a]["old_dirs"]) == 3

    def closure():
        made.zero_grad()
        value = loss(module.a)
        value.backward()
        return value

    made.step(closure)
    after, _ = jp.step(tx, lambda p: loss(p["a"]), state, after)
    # Two iterations of float32, whose dot products are summed in another order.
    np.testing.assert_allclose(after["a"], module.a.detach(), rtol=1e-5)
