"""Stochastic weight averaging, torch.optim.swa_utils: a cosine, then SWALR and equal averages."""

import torch
from network import give, rates

import jaxopt_port as jp

BEGIN, IN_EPOCH = 3, 5


def in_torch(net, grads):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    averaging = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    averages = torch.optim.swa_utils.AveragedModel(net)
    for i, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        optimizer.step()
        if (i + 1) % IN_EPOCH == 0:
            if i // IN_EPOCH > BEGIN:
                averages.update_parameters(net)
                averaging.step()
            else:
                cosine.step()
        yield rates(optimizer), dict(averages.module.named_parameters())


def in_jax(params, grads):
    tx = jp.SGD(lr=0.1, momentum=0.9)
    cosine = jp.lr_scheduler.CosineAnnealingLR(T_max=10)
    averaging = jp.swa_utils.SWALR(swa_lr=0.05, anneal_epochs=2)
    state, cosine_state = cosine.init(tx.init(params))
    state, swa_state = averaging.init(state, cosine.param_groups(cosine_state))
    averaged = jp.swa_utils.AveragedModel()
    average = averaged.init(params)
    for i, grad in enumerate(grads):
        params, state = jp.step(tx, grad, state, params)
        if (i + 1) % IN_EPOCH == 0:
            if i // IN_EPOCH > BEGIN:
                average = averaged.update_parameters(average, params)
                state, swa_state = averaging.step(state, swa_state)
            else:
                state, cosine_state = cosine.step(state, cosine_state)
        yield [group["lr"] for group in jp.get_hyperparams(state)], params, average.params
