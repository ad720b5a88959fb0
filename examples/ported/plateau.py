"""RMSprop as MobileNet has it, and ReduceLROnPlateau that follows a loss."""

import torch
from network import give, rates

import jaxopt_port as jp

OPTIONS = {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 1e-5}


def loss(step):
    return max(1.0 - 0.1 * step, 0.5)


def in_torch(net, grads):
    optimizer = torch.optim.RMSprop(net.parameters(), **OPTIONS)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=4)
    for step, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        scheduler.step(loss(step))
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.RMSprop(**OPTIONS)
    scheduler = jp.lr_scheduler.ReduceLROnPlateau(patience=4)
    state, sched = scheduler.init(tx.init(params))
    for step, grad in enumerate(grads):
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched, loss(step))
        yield scheduler.get_last_lr(sched), params
