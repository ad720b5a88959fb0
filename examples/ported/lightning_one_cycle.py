"""Lightning, configure_optimizers: OneCycleLR stepped at each batch, and the momentum it cycles."""

import torch
from network import give, rates

import jaxopt_port as jp

STEPS = 30


def in_torch(net, grads):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1)
    for grad in grads:
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = jp.lr_scheduler.OneCycleLR(0.1, total_steps=STEPS + 1)
    state, sched = scheduler.init(tx.init(params))
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
