"""AdamW whose moments are held in eight bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import jax
import optax

from ..engine import (
    REST,
    Groups,
    LeafState,
    Number,
    Optimizer,
    leafwise,
    of_rule,
)
from ._adam8bit import RULE as ADAM8BIT


def _update(
    grad: jax.Array, param: jax.Array, state: LeafState, **options: Any
) -> tuple[Any, LeafState]:
    return ADAM8BIT.update(grad, param, state, decoupled=True, **options)


@of_rule(replace(ADAM8BIT, update=_update))
def adamw8bit(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
    amsgrad: bool = False,
    *,
    block_size: int = 256,
    bf16_stochastic_round: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdamW whose moments are held in eight bits.

    The Optax spelling of :class:`AdamW8bit`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adamw8bit, locals())


class AdamW8bit(Optimizer):
    """AdamW whose moments are held in eight bits.

    The counterpart of ``torchao.optim.AdamW8bit``: :class:`Adam8bit`, whose description holds for
    it, with decoupled weight decay.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: decoupled weight decay, >= 0: ``lr * weight_decay`` of the parameter is taken
            from it.
        amsgrad: False; there, a step fails where it is True.
        block_size: numbers that share a scale. One for all groups there.
        bf16_stochastic_round: False; there, True rounds bfloat16 parameters at random.

    Raises:
        ValueError: as :class:`Adam8bit`.

    References:
        Dettmers et al., 2022, *8-bit Optimizers via Block-wise Quantization*; ``torchao.optim``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import AdamW8bit
        >>> params = {"weight": jnp.ones((64, 64))}
        >>> states = [tx.init(params).leaves for tx in (AdamW8bit(), jp.AdamW())]
        >>> [sum(x.nbytes for x in jax.tree.leaves(state)) for state in states]
        [8320, 32768]
    """

    factory = staticmethod(adamw8bit)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
