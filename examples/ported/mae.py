"""MAE, main_finetune.py: layer-wise decay by ``lr_scale``, warm-up and half a cosine, in parts."""

import math

import torch
from network import give, rates

import jaxopt_port as jp

EPOCHS, WARM, LR, LEAST, DECAY, STEPS_IN_EPOCH = 6.0, 1.0, 1e-3, 1e-6, 0.75, 5


def rate_at(epoch):
    if epoch < WARM:
        return LR * epoch / WARM
    part = (epoch - WARM) / (EPOCHS - WARM)
    return LEAST + (LR - LEAST) * 0.5 * (1.0 + math.cos(math.pi * part))


def depth(name):
    first, second = name.replace("/", ".").split(".")[:2]
    return int(second) + 1 if first == "blocks" else {"stem": 0, "head": 3}[first]


def options(key):
    return {"weight_decay": 0.05 if key[1] else 0.0, "lr_scale": DECAY ** (3 - key[0])}


def in_torch(net, grads):
    groups = {}
    for name, p in net.named_parameters():
        key = depth(name), p.ndim > 1
        groups.setdefault(key, {"params": [], **options(key)})["params"].append(p)
    optimizer = torch.optim.AdamW(list(groups.values()), lr=LR)
    for step, grad in enumerate(grads):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step / STEPS_IN_EPOCH) * group["lr_scale"]
        net.zero_grad()
        give(net, grad)
        optimizer.step()
        yield rates(optimizer)


def of(key):
    return lambda path, leaf: (depth(path), leaf.ndim > 1) == key


def in_jax(params, grads):
    keys = [(d, decays) for d in range(4) for decays in (True, False)]
    tx = jp.AdamW([{"params": of(key), **options(key)} for key in keys], lr=LR)
    state = tx.init(params)
    scales = [group["lr_scale"] for group in jp.get_hyperparams(state)]
    for step, grad in enumerate(grads):
        state = jp.set_hyperparams(state, lr=[rate_at(step / STEPS_IN_EPOCH) * s for s in scales])
        params, state = jp.step(tx, grad, state, params)
        yield [group["lr"] for group in jp.get_hyperparams(state)], params
