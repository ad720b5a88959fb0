"""modded-nanogpt: Muon for the matrices in the blocks, AdamW for all else, a linear cool-down."""

import torch
from network import give, rates

import jaxopt_port as jp
from jaxopt_port import interop

STEPS, COOL = 30, 0.4


def factor(step):
    left = 1 - step / STEPS
    return 1.0 if left >= COOL else left / COOL


def in_torch(net, grads):
    hidden = [p for p in net.blocks.parameters() if p.ndim == 2]
    rest = [p for p in net.parameters() if all(p is not other for other in hidden)]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=3e-4, betas=(0.8, 0.95), weight_decay=0.0),
    ]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(each, factor) for each in optimizers]
    for grad in grads:
        net.zero_grad()
        give(net, grad)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        yield [rate for optimizer in optimizers for rate in rates(optimizer)]


def in_jax(params, grads):
    rest = {"optimizer": jp.AdamW, "lr": 3e-4, "betas": (0.8, 0.95), "weight_decay": 0.0}
    groups = [{"params": "blocks/**/kernel", "momentum": 0.95}, {"params": jp.REST, **rest}]
    tx = jp.Muon(groups, lr=0.02, weight_decay=0.01)
    tx = interop.in_torch_layout(tx, params)  # Muon scales by the rows of torch's (out, in)
    state = tx.init(params)
    scheduler = jp.lr_scheduler.LambdaLR(factor)
    state, sched = scheduler.init(state)
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
