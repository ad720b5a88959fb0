"""Muon: momentum made orthogonal by a Newton-Schulz iteration, for matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._compat import Forms, alternative, whole_on_each
from ..engine import (
    REST,
    Groups,
    LeafState,
    Number,
    Optimizer,
    Problem,
    Rule,
    Sum,
    leafwise,
    of_rule,
)
from ..numerics import fma, uncontracted
from ..numerics.torch_ops import Scalar, constant, div, lerp, mul, norm, rounded, widened
from . import _ranges
from ._momentum import init

_BFLOAT16 = jnp.dtype(jnp.bfloat16)
_ADJUSTMENTS = (None, "original", "match_rms_adamw", "spectral_unclamped")


def _problems(
    lr: Scalar,
    weight_decay: Scalar,
    momentum: Scalar,
    ns_steps: int,
    adjust_lr_fn: str | None,
    **_: Any,
) -> Iterator[Problem]:
    if not lr >= 0.0:
        yield Problem(f"Learning rate should be >= 0 but is: {lr}", "lr must be >= 0")
    if not momentum >= 0.0:
        yield Problem(f"momentum should be >= 0 but is: {momentum}", "momentum must be >= 0")
    if not weight_decay >= 0.0:
        yield Problem(
            f"weight decay should be >= 0 but is: {weight_decay}", "weight_decay must be >= 0"
        )
    if adjust_lr_fn not in _ADJUSTMENTS:
        yield Problem(
            f"Adjust learning rate function {adjust_lr_fn} is not supported",
            f"it is one of {_ADJUSTMENTS}",
        )
    if not isinstance(ns_steps, int) or not 0 <= ns_steps < 100:
        yield Problem(
            "Number of steps must be less than 100 for computational efficiency",
            f"ns_steps must be an integer from 0 to 99; got {ns_steps!r}",
        )


def _accepts(param: jax.Array) -> Problem | None:
    if param.ndim != 2:
        return Problem(
            "Muon only supports 2D parameters whereas we found a parameter with size: "
            f"{param.shape}",
            "give it to another optimizer, jp.adamw say",
        )
    return _ranges.OnlyReal("Muon")(param)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.dot(x, y, preferred_element_type=jnp.float32)


def _zeropower(
    grad: jax.Array, ns_coefficients: jax.Array, ns_steps: int, eps: jax.Array
) -> jax.Array:
    """Return nearly ``U V^T`` of ``grad = U S V^T``, in bfloat16."""
    a, b, c = ns_coefficients.astype(jnp.float32)
    tall = grad.shape[0] > grad.shape[1]
    x = rounded(grad, _BFLOAT16)
    x = x.T if tall else x
    # A spectral norm of at most 1.
    x = div(x, widened(jnp.maximum(norm(x), constant(eps, x))))
    for _ in range(ns_steps):
        gram = rounded(_matmul(x, x.T), _BFLOAT16)
        # As oneDNN has addmm: the product of matrices by its factor, then one multiply-add.
        square = uncontracted(c * _matmul(gram, gram))
        gram_update = rounded(fma(b, widened(gram), square), _BFLOAT16)
        x = rounded(fma(a, widened(x), _matmul(gram_update, x)), _BFLOAT16)
    return x.T if tall else x


@functools.lru_cache
def _on_all_devices(ns_steps: int) -> Forms:
    """The iteration where the matrix is split over devices: each of them calculates the whole.

    XLA would split the products, and their sums, in another order, would be rounded to other
    bfloat16 numbers: 1e-4 of a step.
    """

    def plain(grad: jax.Array, ns_coefficients: jax.Array, eps: jax.Array) -> list[jax.Array]:
        with jax.enable_x64(True):
            return [_zeropower(grad, ns_coefficients, ns_steps, eps)]

    return whole_on_each(plain)


def _adjusted_ratio(adjust_lr_fn: str | None, shape: tuple[int, ...]) -> float:
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    if adjust_lr_fn == "spectral_unclamped":
        return math.sqrt(rows / columns)
    return math.sqrt(max(1, rows / columns))


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
    nesterov: bool,
    ns_coefficients: jax.Array,
    eps: jax.Array,
    ns_steps: int,
    adjust_lr_fn: str | None,
) -> tuple[Sum, LeafState]:
    buf = lerp(state["momentum_buffer"], grad, 1 - momentum)
    update = lerp(grad, buf, momentum) if nesterov else buf
    zeropower = jax.typeof(update).update(dtype=_BFLOAT16)
    (update,) = alternative(_on_all_devices(ns_steps), (update, ns_coefficients, eps), [zeropower])
    update = update.astype(param.dtype)
    adjusted_lr = lr * _adjusted_ratio(adjust_lr_fn, param.shape)
    param = mul(param, 1 - lr * weight_decay)
    return Sum(param, update, -adjusted_lr), {"momentum_buffer": buf}


def _oriented(shape: tuple[int, ...], adjust_lr_fn: str | None = None, **_: Any) -> bool:
    if len(shape) != 2:
        return False
    return _adjusted_ratio(adjust_lr_fn, shape) != _adjusted_ratio(adjust_lr_fn, shape[::-1])


@of_rule(Rule(_problems, init, _update, accepts=_accepts, elementwise=False, oriented=_oriented))
def muon(
    lr: Number = 1e-3,
    weight_decay: Number = 0.1,
    momentum: Number = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.7750, 2.0315),
    eps: Number = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Muon: momentum made orthogonal by a Newton-Schulz iteration, for matrices.

    The counterpart of ``torch.optim.Muon``: parameters of two axes only, weight decay decoupled,
    and the iteration in bfloat16 whatever the parameter is. Give other parameters to another
    optimizer, by ``jp.param_groups`` or ``optax.multi_transform`` (``examples/muon_and_adamw.py``).

    ``adjust_lr_fn="original"`` scales by ``sqrt(max(1, rows / columns))`` of the array it is given.
    torch's Linear weights are (out, in) and Flax's kernels (in, out): the numbers are torch's if
    the array is laid out as torch's is, and ``init`` warns of a kernel that is not. ``tx =
    jaxopt_port.interop.in_torch_layout(tx, params)`` shows the rule torch's layout.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        momentum: decay of the gradient's average, >= 0.
        nesterov: look ahead: mix the gradient with its average.
        ns_coefficients: of the iteration's polynomial, ``a x + b x^3 + c x^5``.
        eps: the least norm that the matrix is divided by.
        ns_steps: iterations, below 100.
        adjust_lr_fn: ``"original"`` (as None); ``"match_rms_adamw"``, which scales by
            ``0.2 * sqrt(max(rows, columns))``; or ``"spectral_unclamped"`` (torch 2.14), by
            ``sqrt(rows / columns)``.

    Raises:
        ValueError: a number out of its range, or a parameter that is complex or has not two axes,
            beginning with torch's own message.

    References:
        Jordan, 2024, *Muon: An optimizer for hidden layers in neural networks*; Liu et al., 2025,
        *Muon is Scalable for LLM Training*; ``torch.optim.Muon``,
        ``torch.optim._muon._single_tensor_muon``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"kernel": jnp.eye(2)}, {"kernel": jnp.eye(2)}
        >>> tx = jp.muon(lr=0.5, weight_decay=0.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["kernel"].round(1)
        Array([[0.4, 0. ],
               [0. , 0.4]], dtype=float32)
    """
    return leafwise(muon, locals())


class Muon(Optimizer):
    """Muon: momentum made orthogonal by a Newton-Schulz iteration, for matrices.

    The counterpart of ``torch.optim.Muon``: parameters of two axes only, weight decay decoupled,
    and the iteration in bfloat16 whatever the parameter is. Give other parameters to another
    optimizer, by ``jp.param_groups`` or ``optax.multi_transform`` (``examples/muon_and_adamw.py``).

    ``adjust_lr_fn="original"`` scales by ``sqrt(max(1, rows / columns))`` of the array it is given.
    torch's Linear weights are (out, in) and Flax's kernels (in, out): the numbers are torch's if
    the array is laid out as torch's is, and ``init`` warns of a kernel that is not. ``tx =
    jaxopt_port.interop.in_torch_layout(tx, params)`` shows the rule torch's layout.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        momentum: decay of the gradient's average, >= 0.
        nesterov: look ahead: mix the gradient with its average.
        ns_coefficients: of the iteration's polynomial, ``a x + b x^3 + c x^5``.
        eps: the least norm that the matrix is divided by.
        ns_steps: iterations, below 100.
        adjust_lr_fn: ``"original"`` (as None); ``"match_rms_adamw"``, which scales by
            ``0.2 * sqrt(max(rows, columns))``; or ``"spectral_unclamped"`` (torch 2.14), by
            ``sqrt(rows / columns)``.

    Raises:
        ValueError: a number out of its range, or a parameter that is complex or has not two axes,
            beginning with torch's own message.

    References:
        Jordan, 2024, *Muon: An optimizer for hidden layers in neural networks*; Liu et al., 2025,
        *Muon is Scalable for LLM Training*; ``torch.optim.Muon``,
        ``torch.optim._muon._single_tensor_muon``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"kernel": jnp.eye(2)}, {"kernel": jnp.eye(2)}
        >>> tx = jp.Muon(lr=0.5, weight_decay=0.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["kernel"].round(1)
        Array([[0.4, 0. ],
               [0. , 0.4]], dtype=float32)
    """

    factory = staticmethod(muon)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        weight_decay: Number = 0.1,
        momentum: Number = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.7750, 2.0315),
        eps: Number = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> Self:
        return cls.with_options(params, locals())
