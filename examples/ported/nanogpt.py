"""nanoGPT, train.py: AdamW that decays matrices alone, warm-up and cosine by hand, clipping."""

import math

import torch
from network import give, rates

import jaxopt_port as jp

STEPS, WARM, LR, LEAST = 30, 5, 6e-4, 6e-5


def rate_at(step):
    if step < WARM:
        return LR * (step + 1) / (WARM + 1)
    part = (step - WARM) / (STEPS - WARM)
    return LEAST + 0.5 * (1.0 + math.cos(math.pi * part)) * (LR - LEAST)


def in_torch(net, grads):
    matrices = [p for p in net.parameters() if p.dim() >= 2]
    others = [p for p in net.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))
    for step, grad in enumerate(grads):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        give(net, grad)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.AdamW(
        [
            {"params": lambda path, leaf: leaf.ndim >= 2, "weight_decay": 0.1},
            {"params": jp.REST, "weight_decay": 0.0},
        ],
        lr=LR,
        betas=(0.9, 0.95),
    )
    state = tx.init(params)
    for step, grad in enumerate(grads):
        state = jp.set_hyperparams(state, lr=rate_at(step))
        grad, _ = jp.clip_grad_norm(grad, 1.0)
        params, state = jp.step(tx, grad, state, params)
        yield [group["lr"] for group in jp.get_hyperparams(state)], params
