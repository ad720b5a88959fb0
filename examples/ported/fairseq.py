"""fairseq, transformer: Adam with betas (0.9, 0.98), the inverse square root of the step."""

import torch
from network import give, rates

import jaxopt_port as jp

LR, WARM, START = 5e-4, 8, 1e-7


def rate_at(step):
    """InverseSquareRootSchedule.step_update."""
    if step < WARM:
        return START + step * (LR - START) / WARM
    return LR * WARM**0.5 * step**-0.5


def in_torch(net, grads):
    optimizer = torch.optim.Adam(net.parameters(), lr=START, betas=(0.9, 0.98), eps=1e-6)
    for step, grad in enumerate(grads):
        optimizer.zero_grad()
        give(net, grad)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step + 1)
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.Adam(lr=START, betas=(0.9, 0.98), eps=1e-6)
    state = tx.init(params)
    for step, grad in enumerate(grads):
        grad, _ = jp.clip_grad_norm(grad, 0.1)
        params, state = jp.step(tx, grad, state, params)
        state = jp.set_hyperparams(state, lr=rate_at(step + 1))
        yield [group["lr"] for group in jp.get_hyperparams(state)], params
