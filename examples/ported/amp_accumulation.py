"""torch.amp, the examples: two micro-batches a step, a scaled loss, unscaled and clipped."""

import jax
import torch
from network import give, rates

import jaxopt_port as jp


def in_torch(net, grads):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    for i, grad in enumerate(grads):
        give(net, grad, float(scaler.scale(torch.tensor(0.5))))
        if i % 2 == 1:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        yield rates(optimizer)


def in_jax(params, grads):
    tx = jp.AdamW(lr=1e-3)
    scaler = jp.GradScaler(init_scale=2.0**10, growth_interval=4)
    state, scaler_state, held = tx.init(params), scaler.init(), None
    for i, grad in enumerate(grads):
        grad = scaler.scale(jax.tree.map(lambda g: g * 0.5, grad), scaler_state)
        held = grad if held is None else jax.tree.map(lambda a, b: a + b, held, grad)
        if i % 2 == 1:
            held, found_inf = scaler.unscale(held, scaler_state)
            held, _ = jp.clip_grad_norm(held, 1.0)
            params, state = scaler.step(tx, held, state, params, found_inf)
            scaler_state, held = scaler.update(scaler_state, found_inf), None
        yield [jp.get_hyperparams(state)[0]["lr"]], params
