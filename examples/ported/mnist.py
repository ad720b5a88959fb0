"""pytorch/examples, mnist: Adadelta with rate 1, and StepLR at each epoch."""

import torch
from network import give, rates

import jaxopt_port as jp

IN_EPOCH = 5


def in_torch(net, grads):
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for i, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        if (i + 1) % IN_EPOCH == 0:
            scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.Adadelta(lr=1.0)
    scheduler = jp.lr_scheduler.StepLR(step_size=1, gamma=0.7)
    state, sched = scheduler.init(tx.init(params))
    for i, grad in enumerate(grads):
        params, state = jp.step(tx, grad, state, params)
        if (i + 1) % IN_EPOCH == 0:
            state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
