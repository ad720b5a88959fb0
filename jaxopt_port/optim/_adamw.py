"""Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import optax

from ..engine import REST, Groups, Number, Optimizer, leafwise, of_rule
from ._adam import RULE as ADAM


@of_rule(replace(ADAM, implied=(("decoupled_weight_decay", True),)))
def adamw(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay.

    The counterpart of ``torch.optim.AdamW``: before the step the parameter is multiplied by
    ``1 - lr * weight_decay``. The default decay is 1e-2, where Optax's is 1e-4.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Loshchilov and Hutter, 2019, *Decoupled Weight Decay Regularization*;
        ``torch.optim.AdamW``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.zeros(2)}
        >>> tx = jp.adamw(lr=0.5, weight_decay=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.75, 0.75], dtype=float32)
    """
    return leafwise(adamw, locals())


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    The counterpart of ``torch.optim.AdamW``: before the step the parameter is multiplied by
    ``1 - lr * weight_decay``. The default decay is 1e-2, where Optax's is 1e-4.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Loshchilov and Hutter, 2019, *Decoupled Weight Decay Regularization*;
        ``torch.optim.AdamW``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.zeros(2)}
        >>> tx = jp.AdamW(lr=0.5, weight_decay=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.75, 0.75], dtype=float32)
    """

    factory = staticmethod(adamw)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
