"""detectron2, solver: SGD whose norms do not decay, a linear warm-up into steps, clipped values."""

import torch
from network import give, rates

import jaxopt_port as jp

WARM, STEPS, GAMMA = 5, (15, 25), 0.1


def factor(step):
    """WarmupMultiStepLR."""
    warm = 1.0 if step >= WARM else 0.001 * (1 - step / WARM) + step / WARM
    return warm * GAMMA ** sum(step >= each for each in STEPS)


def in_torch(net, grads):
    norms = [p for block in net.blocks for p in block.norm.parameters()]
    others = [p for p in net.parameters() if all(p is not norm for norm in norms)]
    optimizer = torch.optim.SGD(
        [{"params": others}, {"params": norms, "weight_decay": 0.0}],
        lr=0.02,
        momentum=0.9,
        weight_decay=1e-4,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for grad in grads:
        optimizer.zero_grad()
        give(net, grad)
        torch.nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.SGD(
        [{"params": jp.REST}, {"params": "**/norm/**", "weight_decay": 0.0}],
        lr=0.02,
        momentum=0.9,
        weight_decay=1e-4,
    )
    scheduler = jp.lr_scheduler.LambdaLR(factor)
    state, sched = scheduler.init(tx.init(params))
    for grad in grads:
        params, state = jp.step(tx, jp.clip_grad_value(grad, 1.0), state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
