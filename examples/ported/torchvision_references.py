"""torchvision, references/classification: SGD, a linear warm-up into a cosine, an average."""

import torch
from network import give, rates

import jaxopt_port as jp

LR, EPOCHS, WARM, IN_EPOCH = 0.5, 6, 2, 5


def in_torch(net, grads):
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=2e-5)
    lr_scheduler = torch.optim.lr_scheduler
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=WARM),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS - WARM),
        ],
        milestones=[WARM],
    )
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    averages = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average)
    for i, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        averages.update_parameters(net)
        if (i + 1) % IN_EPOCH == 0:
            scheduler.step()
        yield rates(optimizer), dict(averages.module.named_parameters())


def in_jax(params, grads):
    tx = jp.SGD(lr=LR, momentum=0.9, weight_decay=2e-5)
    scheduler = jp.lr_scheduler.SequentialLR(
        [
            jp.lr_scheduler.LinearLR(start_factor=0.01, total_iters=WARM),
            jp.lr_scheduler.CosineAnnealingLR(T_max=EPOCHS - WARM),
        ],
        milestones=[WARM],
    )
    state, sched = scheduler.init(tx.init(params))
    averaged = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(0.9))
    average = averaged.init(params)
    for i, grad in enumerate(grads):
        params, state = jp.step(tx, grad, state, params)
        average = averaged.update_parameters(average, params)
        if (i + 1) % IN_EPOCH == 0:
            state, sched = scheduler.step(state, sched)
        yield scheduler.get_last_lr(sched), params, average.params
