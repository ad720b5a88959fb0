"""ResNet on CIFAR-10: SGD with Nesterov's momentum, rates cut at milestones."""

import torch
from network import give, rates

import jaxopt_port as jp

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}


def in_torch(net, grads):
    optimizer = torch.optim.SGD(net.parameters(), **OPTIONS)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20], gamma=0.2)
    for grad in grads:
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.SGD(**OPTIONS)
    scheduler = jp.lr_scheduler.MultiStepLR([10, 20], gamma=0.2)
    state, sched = scheduler.init(tx.init(params))
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
