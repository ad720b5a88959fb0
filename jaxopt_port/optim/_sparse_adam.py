"""Adam for row-sparse gradients: only the rows that occur in the gradient are touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from ..engine import (
    REST,
    Groups,
    LeafState,
    Number,
    Optimizer,
    Problem,
    Rows,
    Rule,
    Scalars,
    Shared,
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import Scalar, add, add_scalar, div, mul, sqrt
from . import _moments, _ranges
from ._rows import coalesced


def _problems(lr: Scalar, betas: tuple[Scalar, Scalar], eps: Scalar, **_: Any) -> Iterator[Problem]:
    if not lr > 0.0:
        yield Problem(f"Invalid learning rate: {lr}", "lr must be > 0")
    if not eps > 0.0:
        yield Problem(f"Invalid epsilon value: {eps}", "eps must be > 0")
    yield from _ranges.beta_pair(betas)


def _accepts(param: jax.Array) -> Problem | None:
    if param.ndim == 0:
        return Problem("SparseAdam needs a parameter with rows", "give a scalar to jp.adam")
    return _ranges.OnlyReal("SparseAdam")(param)


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    bias_correction1, bias_correction2 = 1 - betas ** step.astype(jnp.float64)
    return {"step": step}, {
        "step_size": lr * jnp.sqrt(bias_correction2) / bias_correction1,
        **_moments.scalars(betas),
    }


def _update(
    grad: Any,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    maximize: bool,
    step_size: jax.Array,
    weight1: jax.Array,
    weight2: jax.Array,
    **_: Any,
) -> tuple[Rows, LeafState]:
    indices, values = coalesced(grad, param)
    if maximize:
        values = -values
    after, rows = {}, {}
    for name, new, weight in (
        ("exp_avg", values, weight1),
        ("exp_avg_sq", mul(values, values), weight2),
    ):
        old = state[name].at[indices].get(mode="fill", fill_value=0)
        rows[name] = add(old, mul(add(new, old, alpha=-1.0), weight))
        after[name] = (
            state[name]
            .at[indices]
            .set(rows[name], mode="drop", indices_are_sorted=True, unique_indices=True)
        )
    denom = add_scalar(sqrt(rows["exp_avg_sq"]), eps)
    return Rows(indices, mul(div(rows["exp_avg"], denom), -step_size)), after


@of_rule(
    Rule(_problems, _moments.init, _update, step_count, _advance, accepts=_accepts, sparse=True)
)
def sparse_adam(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam for row-sparse gradients: only the rows that occur in the gradient are touched.

    The counterpart of ``torch.optim.SparseAdam``, for embedding tables. A gradient is a
    ``jax.experimental.sparse.BCOO`` or a pair ``(indices, values)``: ``k`` integer indices of rows
    (or ``(k, n)`` ones, into the first ``n`` axes) and ``k`` rows of the parameter's dtype. Rows
    that occur twice are summed; an index that is out of bounds (padding) is left out. The cost is
    that of the touched rows where the parameters and the state are donated
    (``jax.jit(step, donate_argnums=…)`` around `jp.step`); without that, all is copied, and the
    update that ``tx.update`` returns is as large as the table.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, > 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the root of the uncorrected second moment, > 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, or a complex parameter, beginning with torch's own
            message; indices and values that do not fit the parameter.
        TypeError: a dense gradient.

    References:
        ``torch.optim.SparseAdam``, ``torch.optim._functional.sparse_adam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"table": jnp.ones((4, 2))}
        >>> grads = {"table": (jnp.array([3, 1, 3]), jnp.ones((3, 2)))}
        >>> tx = jp.sparse_adam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> [round(float(x), 3) for x in params["table"][:, 0]]
        [1.0, 0.5, 1.0, 0.5]
    """
    return leafwise(sparse_adam, locals())


class SparseAdam(Optimizer):
    """Adam for row-sparse gradients: only the rows that occur in the gradient are touched.

    The counterpart of ``torch.optim.SparseAdam``, for embedding tables. A gradient is a
    ``jax.experimental.sparse.BCOO`` or a pair ``(indices, values)``: ``k`` integer indices of rows
    (or ``(k, n)`` ones, into the first ``n`` axes) and ``k`` rows of the parameter's dtype. Rows
    that occur twice are summed; an index that is out of bounds (padding) is left out. The cost is
    that of the touched rows where the parameters and the state are donated
    (``jax.jit(step, donate_argnums=…)`` around `jp.step`); without that, all is copied, and the
    update that ``tx.update`` returns is as large as the table.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, > 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the root of the uncorrected second moment, > 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, or a complex parameter, beginning with torch's own
            message; indices and values that do not fit the parameter.
        TypeError: a dense gradient.

    References:
        ``torch.optim.SparseAdam``, ``torch.optim._functional.sparse_adam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"table": jnp.ones((4, 2))}
        >>> grads = {"table": (jnp.array([3, 1, 3]), jnp.ones((3, 2)))}
        >>> tx = jp.SparseAdam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> [round(float(x), 3) for x in params["table"][:, 0]]
        [1.0, 0.5, 1.0, 0.5]
    """

    factory = staticmethod(sparse_adam)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
