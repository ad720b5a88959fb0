"""L-BFGS as style transfer and physics-informed networks have it: a closure, a line search."""

import jax
import jax.numpy as jnp
import torch
from network import rates

import jaxopt_port as jp

OPTIONS = {"lr": 0.5, "max_iter": 4, "history_size": 5, "line_search_fn": "strong_wolfe"}


def in_torch(net, grads):
    optimizer = torch.optim.LBFGS(net.parameters(), **OPTIONS)
    for _ in grads:

        def closure():
            optimizer.zero_grad()
            loss = sum(((p - 0.3) ** 2).sum() + (p**4).sum() for p in net.parameters())
            loss.backward()
            return loss

        optimizer.step(closure)
        yield rates(optimizer)


def in_jax(params, grads):
    def loss(params):
        return sum(jnp.sum((p - 0.3) ** 2) + jnp.sum(p**4) for p in jax.tree.leaves(params))

    tx = jp.LBFGS(**OPTIONS)
    state = tx.init(params)
    for _ in grads:
        params, state = jp.step(tx, loss, state, params)
        yield [jp.get_hyperparams(state)[0]["lr"]], params
