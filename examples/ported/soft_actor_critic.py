"""Soft actor-critic: an actor every other step, a critic at each, and a target that follows it."""

import torch
from network import give, rates

import jaxopt_port as jp

TAU = 0.005


def in_torch(net, grads):
    critic = torch.optim.Adam([*net.stem.parameters(), *net.blocks.parameters()], lr=1e-3)
    actor = torch.optim.Adam(net.head.parameters(), lr=3e-4)
    target = {f"blocks.{n}": p.detach().clone() for n, p in net.blocks.named_parameters()}
    for step, grad in enumerate(grads):
        net.zero_grad()
        give(net, grad)
        critic.step()
        if step % 2 == 0:
            actor.step()
        with torch.no_grad():
            for old, new in zip(target.values(), net.blocks.parameters(), strict=True):
                old.lerp_(new, TAU)
        yield rates(critic) + rates(actor), target


def in_jax(params, grads):
    # One optimizer of two groups: what has no gradient at a step is not touched.
    tx = jp.Adam([{"params": ["stem", "blocks"], "lr": 1e-3}, {"params": "head", "lr": 3e-4}])
    state = tx.init(params)
    follow = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(1 - TAU))
    target = follow.update_parameters(follow.init(params["blocks"]), params["blocks"])
    for step, grad in enumerate(grads):
        grad = grad if step % 2 == 0 else {**grad, "head": None}
        params, state = jp.step(tx, grad, state, params)
        target = follow.update_parameters(target, params["blocks"])
        yield (
            [group["lr"] for group in jp.get_hyperparams(state)],
            params,
            {"blocks": target.params},
        )
