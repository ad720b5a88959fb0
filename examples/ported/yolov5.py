"""YOLOv5, train.py: three groups of SGD, a warm-up of rates and momentum, a linear decay."""

import numpy as np
import torch
from network import give, rates

import jaxopt_port as jp

EPOCHS, IN_EPOCH, WARM, LR0, LAST, MOMENTUM = 6, 5, 10, 0.01, 0.01, 0.937
OPTIONS = {"lr": LR0, "momentum": MOMENTUM, "nesterov": True}


def factor(epoch):
    return (1 - epoch / EPOCHS) * (1.0 - LAST) + LAST


def warm_up(i, epoch, group):
    """Rate and momentum of a group in the first steps: those of biases fall, the others rise."""
    start = 0.1 if group == 2 else 0.0
    rate = np.interp(i, [0, WARM], [start, LR0 * factor(epoch)])
    return float(rate), float(np.interp(i, [0, WARM], [0.8, MOMENTUM]))


def in_torch(net, grads):
    norms = [block.norm.weight for block in net.blocks]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for p in net.parameters() if p.ndim > 1]
    optimizer = torch.optim.SGD(weights, **OPTIONS, weight_decay=5e-4)
    optimizer.add_param_group({"params": norms, "weight_decay": 0.0})
    optimizer.add_param_group({"params": biases, "weight_decay": 0.0})
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    scheduler.last_epoch = -1  # start_epoch - 1, "do not move"
    for i, grad in enumerate(grads):
        if i <= WARM:
            for j, group in enumerate(optimizer.param_groups):
                group["lr"], group["momentum"] = warm_up(i, i // IN_EPOCH, j)
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        if (i + 1) % IN_EPOCH == 0:
            scheduler.step()
        yield rates(optimizer)


def in_jax(params, grads):
    decayed = {"params": "**/kernel", "weight_decay": 5e-4}
    tx = jp.SGD([decayed, {"params": "**/scale"}, {"params": jp.REST}], **OPTIONS)
    scheduler = jp.lr_scheduler.LambdaLR(factor)
    state, sched = scheduler.init(tx.init(params))
    sched = scheduler.load_state_dict({**scheduler.state_dict(sched), "last_epoch": -1})
    for i, grad in enumerate(grads):
        if i <= WARM:
            warm = [warm_up(i, i // IN_EPOCH, j) for j in range(3)]
            lr, momentum = map(list, zip(*warm, strict=True))
            state = jp.set_hyperparams(state, lr=lr, momentum=momentum)
        params, state = jp.step(tx, grad, state, params)
        if (i + 1) % IN_EPOCH == 0:
            state, sched = scheduler.step(state, sched)
        yield [group["lr"] for group in jp.get_hyperparams(state)], params
