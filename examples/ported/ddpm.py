"""Denoising diffusion: Adam with a warm-up, clipping at 1, an average that begins after a while."""

import torch
from network import give, rates

import jaxopt_port as jp

LR, WARM, BEGIN, DECAY = 2e-4, 10, 5, 0.9999


def factor(step):
    return min(step, WARM) / WARM


def in_torch(net, grads):
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY)
    averages = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average)
    for step, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step >= BEGIN:
            averages.update_parameters(net)
        yield rates(optimizer), dict(averages.module.named_parameters())


def in_jax(params, grads):
    tx = jp.Adam(lr=LR)
    scheduler = jp.lr_scheduler.LambdaLR(factor)
    state, sched = scheduler.init(tx.init(params))
    averaged = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(DECAY))
    averages = averaged.init(params)
    for step, grad in enumerate(grads):
        grad, _ = jp.clip_grad_norm(grad, 1.0)
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        if step >= BEGIN:
            averages = averaged.update_parameters(averages, params)
        yield scheduler.get_last_lr(sched), params, averages.params
