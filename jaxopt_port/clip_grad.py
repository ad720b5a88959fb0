"""Gradient clipping: torch's ``torch.nn.utils.clip_grad``, as functions and as transformations.

Here the gradients are a tree, not the parameters' ``.grad``, and they are returned, not changed.
Leaves that are None are left out, as torch leaves out parameters without a gradient. Gradients of
frozen parameters count in the norm if they are in the tree; in torch such parameters have none:
`trained_grads` takes them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ._compat import AxisName, beside, split_over, stacked
from .engine import grouped_states, untrained_paths
from .numerics.torch_ops import add_scalar, mul, reciprocal, widened
from .trees import leaf_paths

Grads = TypeVar("Grads")


def trained_grads(grads: Grads, state: Any) -> Grads:
    """Return the gradients with None in the place of those of frozen parameters, as in torch.

    ``jax.grad`` returns a gradient for every parameter. Where torch's ``requires_grad`` is False
    there is none, and it has no part in a norm that gradients are clipped by, nor among those that
    a `GradScaler` looks through for infinities: take them out first.

    Args:
        grads: a tree of gradients.
        state: the state of an optimizer of this library, bare or within other Optax states. Frozen
            is what its groups leave alone, from the beginning or for now.

    Raises:
        ValueError: a state without such an optimizer, in which nothing says what is frozen.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"stem": jnp.zeros(1), "head": jnp.zeros(1)}
        >>> state = jp.SGD([{"params": "head"}, {"params": "stem", "frozen": True}]).init(params)
        >>> grads = {"stem": jnp.array([4.0]), "head": jnp.array([3.0])}
        >>> trained = jp.trained_grads(grads, state)
        >>> float(jp.get_total_norm(grads)), float(jp.get_total_norm(trained))
        (5.0, 3.0)
    """
    if not grouped_states(state):
        raise ValueError(
            "the state has no optimizer of this library, which would say what is frozen; leave the "
            "gradients of frozen parameters out of the tree, or put None in their place"
        )
    untrained = untrained_paths(state)
    kept = [None if path in untrained else grad for path, grad in leaf_paths(grads)]
    trained: Grads = jax.tree.unflatten(jax.tree.structure(grads), kept)
    return trained


def get_total_norm(
    grads: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    axis_name: AxisName = None,
) -> jax.Array:
    """Return the norm of all gradients together: torch's ``get_total_norm``.

    Arrays that are sharded over devices need nothing more under ``jax.jit``, which adds the sums of
    the devices' parts by one small all-reduce. Outside of it some may lie on other devices than the
    others, as in torch. Within ``jax.shard_map`` a function sees one device's part alone: name the
    mesh axes.

    Args:
        grads: a tree of gradients.
        norm_type: the p of the norm; ``inf``, ``-inf`` and 0 too.
        error_if_nonfinite: whether to raise where the norm is no finite number. Within ``jit``
            nothing can raise, unless the program is made by ``checkify.checkify``.
        axis_name: within ``jax.shard_map``, the mesh axes that gradients are split over. One that
            is the same on all of an axis counts once; with ``check_vma=False`` that is not known,
            and all count as split. ``()`` for the norm of each device's own part.

    Returns:
        A scalar in the gradients' dtype; of complex ones, in that of their parts.

    Raises:
        NotImplementedError: sparse gradients, as in torch.
        RuntimeError: the norm is not finite; an infinite or negative ``norm_type`` and an empty
            gradient.
        TypeError: what is no number, or no array among the gradients.
        ValueError: gradients that differ between devices, and no ``axis_name``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> float(jp.get_total_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    norm_type = real_number(norm_type, "norm_type", static=True)
    leaves = dense_leaves(grads, "aten::linalg_vector_norm")
    if (norm_type < 0 or norm_type == math.inf) and not all(map(jnp.size, leaves)):
        operator, which = "linalg.vector_norm", f"{norm_type:g}"
        if norm_type > 0:
            operator, which = "_foreach_norm", "infinity"
        raise RuntimeError(
            f"{operator} cannot compute the {which} norm on an empty tensor because the operation "
            "does not have an identity; leave empty gradients out of the tree"
        )
    if not leaves:
        return jnp.zeros(())
    norms = [
        norm.astype(jnp.abs(leaf).dtype)
        for norm, leaf in zip(_norms(leaves, norm_type, axis_name), leaves, strict=True)
    ]
    with jax.numpy_dtype_promotion("standard"):
        together = stacked(norms)
    total_norm = _norms([together], norm_type, ())[0].astype(together.dtype)
    if error_if_nonfinite:
        _check_finite(total_norm, norm_type)
    return total_norm


def dense_leaves(grads: Any, operator: str) -> list[jax.Array]:
    """Return the gradients, or raise torch's error where one of them is sparse.

    Raises:
        NotImplementedError: a sparse gradient, whose indices are no numbers to reckon with.
        TypeError: what is no array of JAX or NumPy.
    """
    leaves = jax.tree.leaves(grads)
    for leaf in leaves:
        check_array(leaf, "the gradients")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise NotImplementedError(
                f"Could not run '{operator}' with arguments from the 'SparseCPU' backend: among "
                f"the gradients is an array of {jnp.result_type(leaf)}, as the indices of a sparse "
                "one are; leave it out of the tree, or clip its values alone"
            )
    return leaves


def check_array(leaf: Any, where: str) -> None:
    """Raise TypeError for a leaf that is no array and no number."""
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex | int):
        raise TypeError(
            f"among {where} is a {type(leaf).__module__}.{type(leaf).__qualname__}, {leaf!r}: "
            "arrays of JAX or NumPy are wanted"
        )


def real_number(value: Any, name: str, *, static: bool = False) -> Any:
    """Return a number as Python's, or as it is where it is traced.

    Raises:
        TypeError, ValueError: it is none; torch's words, which are those of ``float``.
    """
    if isinstance(value, jax.core.Tracer):
        if static or value.ndim:
            kind = "known when the program is made" if static else "one number"
            raise TypeError(f"{name} must be {kind}; got {value}")
        return value
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}: {name} must be one number; got {value!r}") from None


def scaled(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return an array times a real number, rounded once."""
    factor = beside(x, factor)
    if jnp.iscomplexobj(x):
        return lax.complex(mul(jnp.real(x), factor), mul(jnp.imag(x), factor))
    return mul(jnp.asarray(x), factor)


class _Kind(NamedTuple):
    """A norm: what is reduced over elements, how over devices, and what is made of it."""

    reduce: Callable[[jax.Array], jax.Array]
    over_devices: Callable[..., jax.Array]
    finish: Callable[[jax.Array], jax.Array]


def _kind(norm_type: float) -> _Kind:
    if norm_type == math.inf:
        return _Kind(lambda x: jnp.max(x, initial=0.0), lax.pmax, lambda x: x)
    if norm_type == -math.inf:
        return _Kind(jnp.min, lax.pmin, lambda x: x)
    if norm_type == 0:
        return _Kind(lambda x: jnp.sum(x != 0).astype(x.dtype), lax.psum, lambda x: x)
    if norm_type == 1:
        return _Kind(jnp.sum, lax.psum, lambda x: x)
    if norm_type == 2:
        return _Kind(lambda x: jnp.sum(x * x), lax.psum, jnp.sqrt)
    return _Kind(lambda x: jnp.sum(x**norm_type), lax.psum, lambda total: total ** (1 / norm_type))


def _norms(leaves: Sequence[jax.Array], norm_type: float, axis_name: AxisName) -> list[jax.Array]:
    """Return ``torch.linalg.vector_norm`` of each, which calculates in float32 at least."""
    kind = _kind(norm_type)
    sizes = [jnp.abs(leaf) for leaf in leaves]
    # Not made flat: an array that is split over devices along a later axis would be gathered.
    totals = [kind.reduce(widened(size)) for size in sizes]
    together: dict[Any, list[int]] = {}  # one all-reduce each
    for i, axes in enumerate(split_over(leaves, axis_name, "a norm")):
        if axes:
            together.setdefault((axes, totals[i].dtype), []).append(i)
    for (axes, _), indices in together.items():
        reduced = kind.over_devices(jnp.stack([totals[i] for i in indices]), axes)
        for i, total in zip(indices, reduced, strict=True):
            totals[i] = total
    return [kind.finish(total) for total in totals]


def _check_finite(total_norm: jax.Array, norm_type: float) -> None:
    message = (
        f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
        "cannot be clipped. To disable this error and scale the gradients by the non-finite norm "
        "anyway, set `error_if_nonfinite=False`"
    )
    if isinstance(total_norm, jax.core.Tracer):
        from jax.experimental import checkify  # at need: it takes a few milliseconds

        checkify.check(jnp.isfinite(total_norm), message)
    elif not math.isfinite(float(total_norm)):
        raise RuntimeError(message)


def clip_grads_with_norm(grads: Grads, max_norm: float, total_norm: jax.Array) -> Grads:
    """Scale gradients whose norm is known: torch's ``clip_grads_with_norm_``.

    Args:
        grads: a tree of gradients.
        max_norm: the norm that is allowed.
        total_norm: the norm that they have, from `get_total_norm`.

    Raises:
        NotImplementedError: sparse gradients, as in torch.
        TypeError: what is no number, or no array among the gradients.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> jp.clip_grads_with_norm(jnp.array([3.0, 4.0]), 10.0, jnp.array(5.0))
        Array([3., 4.], dtype=float32)
    """
    dense_leaves(grads, "aten::mul_")
    max_norm = real_number(max_norm, "max_norm")
    total_norm = jnp.asarray(total_norm)
    if total_norm.ndim:
        raise TypeError(f"total_norm must be one number; got an array of shape {total_norm.shape}")
    # torch's `max_norm / tensor` is the reciprocal times max_norm, rounded twice.
    clip_coef = mul(reciprocal(add_scalar(total_norm, 1e-6)), max_norm)
    clip_coef = jnp.minimum(clip_coef, 1.0).astype(total_norm.dtype)
    clipped: Grads = jax.tree.map(lambda grad: scaled(grad, clip_coef), grads)
    return clipped


def clip_grad_norm(
    grads: Grads,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    axis_name: AxisName = None,
) -> tuple[Grads, jax.Array]:
    """Clip gradients by their norm: torch's ``clip_grad_norm_``.

    The norm is that of all gradients together, over all groups. They are multiplied by
    ``min(1, max_norm / (norm + 1e-6))``.

    Args:
        grads: a tree of gradients.
        max_norm: the norm that is allowed.
        norm_type: the p of the norm; ``inf``, ``-inf`` and 0 too.
        error_if_nonfinite: whether to raise where the norm is no finite number. Within ``jit``
            nothing can raise, unless the program is made by ``checkify.checkify``.
        axis_name: within ``jax.shard_map``, the mesh axes that gradients are split over. One that
            is the same on all of an axis counts once; with ``check_vma=False`` that is not known,
            and all count as split. ``()`` for the norm of each device's own part.

    Returns:
        The clipped gradients, and the norm that they had.

    Raises:
        NotImplementedError: sparse gradients, as in torch.
        RuntimeError: as `get_total_norm`.
        TypeError: what is no number, or no array among the gradients.
        ValueError: gradients that differ between devices, and no ``axis_name``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> grads, norm = jp.clip_grad_norm({"weight": jnp.array([3.0, 4.0])}, max_norm=1.0)
        >>> [round(float(x), 4) for x in grads["weight"]], float(norm)
        ([0.6, 0.8], 5.0)
    """
    max_norm = real_number(max_norm, "max_norm")
    total_norm = get_total_norm(grads, norm_type, error_if_nonfinite, axis_name=axis_name)
    return clip_grads_with_norm(grads, max_norm, total_norm), total_norm


def clip_grad_value(grads: Grads, clip_value: float) -> Grads:
    """Clip each element of the gradients: torch's ``clip_grad_value_``.

    Args:
        grads: a tree of gradients.
        clip_value: the largest absolute value that is allowed.

    Raises:
        NotImplementedError: complex or sparse gradients, as in torch.
        TypeError: what is no number, or no array among the gradients.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> jp.clip_grad_value(jnp.array([-3.0, 0.5]), 1.0)
        Array([-1. ,  0.5], dtype=float32)
    """
    value = real_number(clip_value, "clip_value")
    for leaf in dense_leaves(grads, "aten::clamp_min_"):
        if jnp.iscomplexobj(leaf):
            raise NotImplementedError(
                "clamp is not supported for complex types: complex numbers have no order. Clip the "
                "norm, by jp.clip_grad_norm, or the real and imaginary parts by themselves"
            )

    def clipped(grad: jax.Array) -> jax.Array:
        grad = jnp.asarray(grad)
        return jnp.minimum(jnp.maximum(grad, jnp.asarray(-value, grad.dtype)), value).astype(
            grad.dtype
        )

    result: Grads = jax.tree.map(clipped, grads)
    return result


def clip_by_grad_norm(
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    axis_name: AxisName = None,
) -> optax.GradientTransformation:
    """`clip_grad_norm` as an Optax transformation, to be chained before an optimizer.

    ``optax.clip_by_global_norm`` lacks torch's ``+ 1e-6`` and its other norms.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> tx = optax.chain(jp.clip_by_grad_norm(1.0), jp.SGD(lr=0.1))
        >>> params = {"weight": jnp.zeros(2)}
        >>> grads = {"weight": jnp.array([3.0, 4.0])}
        >>> jp.step(tx, grads, tx.init(params), params)[0]["weight"].round(4)
        Array([-0.06, -0.08], dtype=float32)
    """
    max_norm = real_number(max_norm, "max_norm")
    norm_type = real_number(norm_type, "norm_type", static=True)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        clipped, _ = clip_grad_norm(
            updates, max_norm, norm_type, error_if_nonfinite, axis_name=axis_name
        )
        return clipped, state

    return optax.GradientTransformation(optax.init_empty_state, update)


def clip_by_grad_value(clip_value: float) -> optax.GradientTransformation:
    """`clip_grad_value` as an Optax transformation, to be chained before an optimizer.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> tx = optax.chain(jp.clip_by_grad_value(1.0), jp.SGD(lr=0.5))
        >>> params = jnp.zeros(2)
        >>> jp.step(tx, jnp.array([-3.0, 0.5]), tx.init(params), params)[0]
        Array([ 0.5 , -0.25], dtype=float32)
    """
    clip_value = real_number(clip_value, "clip_value")

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return clip_grad_value(updates, clip_value), state

    return optax.GradientTransformation(optax.init_empty_state, update)
