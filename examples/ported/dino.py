"""DINO, main_dino.py: rates and decay by hand, a last layer that rests at first, an average."""

import jax
import numpy as np
import torch
from network import give, rates

import jaxopt_port as jp

STEPS, REST_FOR = 30, 5
COSINE = 0.5 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS))
LR, DECAY = 1e-6 + (5e-4 - 1e-6) * COSINE, 0.4 + (0.04 - 0.4) * COSINE
KEEP = 1 + (0.996 - 1) * COSINE  # of the teacher


def in_torch(net, grads):
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1]},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    teacher = {n: p.detach().clone() for n, p in net.named_parameters()}
    for step, grad in enumerate(grads):
        for i, group in enumerate(optimizer.param_groups):
            group["lr"] = LR[step]
            if i == 0:
                group["weight_decay"] = DECAY[step]
        optimizer.zero_grad()
        give(net, grad)
        if step < REST_FOR:
            for p in net.head.parameters():
                p.grad = None
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(teacher.values(), net.parameters(), strict=True):
                old.mul_(KEEP[step]).add_((1 - KEEP[step]) * new.detach())
        yield rates(optimizer), teacher


def in_jax(params, grads):
    groups = [{"params": "**/kernel"}, {"params": jp.REST, "weight_decay": 0.0}]
    tx = jp.AdamW(groups)
    state, teacher = tx.init(params), params
    for step, grad in enumerate(grads):
        state = jp.set_hyperparams(state, lr=LR[step])
        state = jp.set_hyperparams(state, weight_decay=DECAY[step], group=0)
        if step < REST_FOR:
            grad = {**grad, "head": None}
        params, state = jp.step(tx, grad, state, params)
        keep = KEEP[step]  # a decay of its own at each step
        teacher = jax.tree.map(lambda a, b, k=keep: a * k + (1 - k) * b, teacher, params)
        yield [group["lr"] for group in jp.get_hyperparams(state)], params, teacher
