"""Gradual unfreezing, as in ULMFiT: the head first, then the blocks, then all; warm restarts."""

import torch
from network import give, rates

import jaxopt_port as jp

BEGINS = {"head": 0, "blocks": 8, "stem": 16}  # the step at which each goes on
OPTIONS = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 1e-4}


def in_torch(net, grads):
    groups = [{"params": getattr(net, name).parameters()} for name in BEGINS]
    optimizer = torch.optim.SGD(groups, **OPTIONS)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=8)
    for step, grad in enumerate(grads):
        for name, begin in BEGINS.items():
            getattr(net, name).requires_grad_(step >= begin)
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.SGD([{"params": name, "name": name} for name in BEGINS], **OPTIONS)
    scheduler = jp.lr_scheduler.CosineAnnealingWarmRestarts(T_0=8)
    state, sched = scheduler.init(tx.init(params))
    for step, grad in enumerate(grads):
        for name, begin in BEGINS.items():
            state = jp.set_hyperparams(state, frozen=step < begin, group=name)
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
