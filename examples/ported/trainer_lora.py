"""Hugging Face's Trainer with LoRA: a frozen base, two groups, a linear schedule, clipping at 1."""

import torch
from network import give, rates

import jaxopt_port as jp

STEPS, WARM, LR = 30, 3, 2e-4


def factor(step):
    """get_linear_schedule_with_warmup."""
    if step < WARM:
        return step / max(1, WARM)
    return max(0.0, (STEPS - step) / max(1, STEPS - WARM))


def in_torch(net, grads):
    for name, p in net.named_parameters():
        p.requires_grad_(name.startswith("blocks") and "norm" not in name)
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for grad in grads:
        optimizer.zero_grad()
        give(net, grad)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    groups = [
        {"params": "blocks/**/kernel", "weight_decay": 0.01},
        {"params": ["blocks/*/up/bias", "blocks/*/down/bias"], "weight_decay": 0.0},
        {"params": jp.REST, "frozen": True},
    ]
    tx = jp.AdamW(groups, lr=LR)
    scheduler = jp.lr_scheduler.LambdaLR(factor)
    state, sched = scheduler.init(tx.init(params))
    for grad in grads:
        trained = {
            i: {k: v for k, v in block.items() if k != "norm"}
            for i, block in grad["blocks"].items()
        }
        clipped, _ = jp.clip_grad_norm(trained, 1.0)  # over what is trained, as torch does
        blocks = {i: {**block, "norm": None} for i, block in clipped.items()}
        grad = {"stem": None, "head": None, "blocks": blocks}
        params, state = jp.step(tx, grad, state, params)
        state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params
