"""A rule that torch does not have, with groups, dynamic numbers and schedules for nothing.

Lion (Chen et al., 2023, *Symbolic Discovery of Optimization Algorithms*) steps by the sign of an
interpolation between the gradient and its average. What is written here is what is done to one
parameter; the rest is the library's.

Run it: ``python examples/lion.py``
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxopt_port as jp
from jaxopt_port.engine import LeafState, Problem, Rule, Sum
from jaxopt_port.numerics.torch_ops import lerp, mul, sign


def arguments(
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> Iterator[Problem]:
    """Lion: evolved sign momentum.

    The signature is the optimizer's: what has a float for a default is a number, which can be set
    between steps and scheduled; ``maximize`` is a static flag. The body yields what is wrong.
    """
    if not lr >= 0.0:
        yield Problem(f"Invalid learning rate: {lr}", "lr must be >= 0")
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            yield Problem(f"Invalid beta parameter at index {i}: {beta}", "it must be in [0, 1)")


def init(param: jax.Array, **_: Any) -> LeafState:
    """Return what is held for a parameter, by name."""
    return {"exp_avg": jnp.zeros_like(param)}


def update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    maximize: bool,
) -> tuple[Sum, LeafState]:
    """Take one step; numbers are float64 scalars, rounded where they meet an array."""
    beta1, beta2 = betas
    grad = -grad if maximize else grad
    direction = sign(lerp(state["exp_avg"], grad, 1 - beta1))
    param = mul(param, 1 - lr * weight_decay)
    new = Sum(param, direction, -lr)
    return new, {"exp_avg": lerp(state["exp_avg"], grad, 1 - beta2)}


lion = jp.transformation(Rule(arguments, init, update, title="lion"))


def main() -> None:
    """Fit a line, with the bias in a group of its own and a rate that is changed on the way."""
    x = jnp.linspace(-1.0, 1.0, 64)
    y = 3.0 * x + 0.5

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean((params["weight"] * x + params["bias"] - y) ** 2)

    params = {"weight": jnp.zeros(()), "bias": jnp.zeros(())}
    tx = jp.param_groups(
        lion, [{"params": "bias", "lr": 0.005}, {"params": jp.REST}], lr=0.05, weight_decay=1e-3
    )
    state = tx.init(params)
    for step in range(300):
        if step == 200:
            state = jp.set_hyperparams(state, lr=0.002)
        params, state = jp.step(tx, loss, state, params)
    print(", ".join(f"{name} {float(params[name]):.2f}" for name in ("weight", "bias")))


if __name__ == "__main__":
    main()
