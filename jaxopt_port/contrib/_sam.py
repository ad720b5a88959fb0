"""SAM: steps by the gradient at a point uphill, for minima that are flat."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from .._compat import check_whole
from ..clip_grad import trained_grads
from ..engine import as_complex, as_real, check_transformation, grouped_states
from ..numerics.torch_ops import add, add_scalar, mul, reciprocal, sqrt, widened
from ..optim import ranges
from ..trees import checked_gradients
from ._sums import norm

Params = TypeVar("Params")


def sam_perturbed(
    params: Params,
    grads: Any,
    rho: float = 0.05,
    *,
    adaptive: bool = False,
    perturb_eps: float = 1e-12,
) -> Params:
    """Return the parameters at which SAM takes the gradient of its step: uphill, by ``rho``.

    The counterpart of ``first_step`` of ``pytorch_optimizer.SAM``; ``second_step`` is the
    optimizer's own step, from where the parameters were, by the gradient there.

    Args:
        params: the parameters.
        grads: their gradients, of complex parameters torch's, the conjugates of ``jax.grad``'s;
            one that is None leaves its parameter out.
        rho: how far, in the norm of all gradients, >= 0.
        adaptive: measure each number by its own size.
        perturb_eps: added to the norm, >= 0. That is float32 for all parameters, as there, and is
            added up in the order of the leaves.

    Returns:
        A tree like ``params``.

    Raises:
        ValueError: a number out of its range; gradients whose tree or shapes are not the
            parameters', or which are parts within ``jax.shard_map``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import sam_perturbed
        >>> loss, tx, params = lambda w: jnp.sum(w**2), jp.SGD(lr=0.5), jnp.array([3.0, 4.0])
        >>> ahead = sam_perturbed(params, jax.grad(loss)(params), rho=0.5)
        >>> ahead.round(4)
        Array([3.3, 4.4], dtype=float32)
        >>> params, state = jp.step(tx, jax.grad(loss)(ahead), tx.init(params), params)
        >>> [round(float(x), 4) for x in params]
        [-0.3, -0.4]
    """
    _check(rho, perturb_eps)
    leaves, treedef = jax.tree.flatten(params)
    given = checked_gradients(grads, params)
    squares = []
    for grad, param in zip(given, leaves, strict=True):
        if grad is None:
            continue
        check_whole(grad, "SAM", "a gradient")
        wide, size = widened(grad), jnp.abs(widened(param))
        if jnp.iscomplexobj(grad):
            wide, size = as_real(wide), size[..., None]
        length = norm(mul(wide, size) if adaptive else wide)
        length = length.astype(jnp.float32)
        squares.append(mul(length, length))
    if not squares:
        return params
    scale = mul(reciprocal(add_scalar(sqrt(functools.reduce(jnp.add, squares)), perturb_eps)), rho)

    def moved(grad: Any, param: jax.Array) -> jax.Array:
        if grad is None:
            return param
        is_complex = jnp.iscomplexobj(param)
        times = jnp.multiply if is_complex else mul
        uphill = times(times(param, param), grad) if adaptive else grad
        if is_complex:
            param, uphill = as_real((param, uphill))
        new = add(param, mul(uphill, scale.astype(param.dtype)))
        return as_complex(new) if is_complex else new

    ahead: Params = jax.tree.unflatten(treedef, map(moved, given, leaves))
    return ahead


def _check(rho: float, perturb_eps: float) -> None:
    for name, value in (("rho", rho), ("perturb_eps", perturb_eps)):
        ranges.check_number(name, value)
        if not value >= 0.0:
            raise ValueError(f"{name} must be non-negative; got {value}")


def sam(
    tx: optax.GradientTransformation,
    rho: float = 0.05,
    *,
    adaptive: bool = False,
    perturb_eps: float = 1e-12,
) -> optax.GradientTransformationExtraArgs:
    """SAM: steps by the gradient at a point uphill, for minima that are flat.

    The counterpart of ``pytorch_optimizer.SAM`` without ``use_gc``. Two gradients make a step, so
    `jp.step` is given the loss, as it is by ``jp.lbfgs``: a function of the parameters (give its
    data by ``jax.tree_util.Partial(loss, batch=batch)``). Where a loss returns more than a number,
    take the two steps yourself: `sam_perturbed`. Clipping and accumulation belong within:
    ``sam(optax.chain(jp.clip_by_grad_norm(1.0), tx))``, ``sam(jp.accumulate_grads(tx, 4))``.

    It has no state of its own: the state, its groups and state dicts are the optimizer's. There is
    one ``rho`` for all groups, and what they freeze stays where it is and out of the norm. Of
    complex parameters it takes the conjugates of ``jax.grad``'s gradients, as torch has them.

    Args:
        tx: the optimizer of the step.
        rho: how far uphill, in the norm of all gradients, >= 0.
        adaptive: measure each number by its own size.
        perturb_eps: added to the norm, >= 0.

    Raises:
        ValueError: as `sam_perturbed` does.
        TypeError: no number; by ``update``, gradients without the loss.

    References:
        Foret et al., 2020, *Sharpness-Aware Minimization for Efficiently Improving
        Generalization*; Kwon et al., 2021, *ASAM*; ``pytorch_optimizer.optimizer.sam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import sam
        >>> tx, params = sam(jp.SGD(lr=0.5), rho=0.5), jnp.array([3.0, 4.0])
        >>> params, state = jp.step(tx, lambda w: jnp.sum(w**2), tx.init(params), params)
        >>> [round(float(x), 4) for x in params]
        [-0.3, -0.4]
    """
    _check(rho, perturb_eps)
    check_transformation(tx)
    tx = optax.with_extra_args_support(tx)

    def update(
        grads: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra_args: Any
    ) -> Any:
        if value_fn is None:
            raise TypeError(
                "SAM requires closure: a step takes two gradients; give jp.step the loss, a "
                "function of the parameters, in place of gradients, or use contrib.sam_perturbed"
            )
        first = {id(grad) for grad in jax.tree.leaves(extra_args.get("grad", grads))}
        if any(id(grad) not in first for grad in jax.tree.leaves(grads)):
            raise TypeError(
                "what stands around SAM has changed its first gradient, and would not see the "
                "second, by which it steps: put it within: contrib.sam(optax.chain(clip, tx)) "
                "and contrib.sam(jp.accumulate_grads(tx, steps))"
            )
        grads = jax.tree.map(jnp.conj, grads)
        own = trained_grads(grads, state) if grouped_states(state) else grads
        ahead = sam_perturbed(params, own, rho, adaptive=adaptive, perturb_eps=perturb_eps)
        rest = {k: v for k, v in extra_args.items() if k not in ("value", "grad")}
        second = jax.tree.map(jnp.conj, jax.grad(value_fn)(ahead))
        return tx.update(second, state, params, **rest)

    return optax.GradientTransformationExtraArgs(tx.init, update)
