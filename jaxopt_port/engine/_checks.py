from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._paths import leaf_paths, nearest

_MISSING_PARAMS = (
    "params is required: tx.update(grads, state, params). torch's rules round the parameter "
    "itself, and weight decay reads it"
)


def check_params(params: Any) -> None:
    """Raise TypeError for leaves that cannot be trained.

    Raises:
        TypeError: a leaf that is no array, or not of an inexact dtype.
    """
    for path, leaf in leaf_paths(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and not isinstance(leaf, float | complex):
            raise TypeError(
                f'the parameter "{path}" is {leaf!r}, not an array; keep only the arrays, as '
                "eqx.filter(model, eqx.is_inexact_array) does"
            )
        if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f'the parameter "{path}" has dtype {dtype}; only floating and complex parameters '
                "can be trained"
            )


def canonical(params: Any) -> Any:
    """Return parameters as arrays of the dtype that ``jit`` would give them."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)


def check_gradients(grads: Any, params: Any) -> None:
    """Raise for gradients that do not fit the parameters, before anything is computed.

    Raises:
        ValueError: ``params`` is missing, or the trees or shapes differ.
        TypeError: the dtypes differ.
    """
    if params is None:
        raise ValueError(_MISSING_PARAMS)
    of_grads, of_params = dict(leaf_paths(grads)), dict(leaf_paths(params))
    for path in of_params:
        if path not in of_grads:
            raise ValueError(
                f'the gradients have no "{path}", which the parameters have'
                f"{nearest(path, list(of_grads))}"
            )
    for path, grad in of_grads.items():
        if path not in of_params:
            raise ValueError(
                f'the gradients have "{path}", which the parameters have not'
                f"{nearest(path, list(of_params))}"
            )
        param = of_params[path]
        if jnp.shape(grad) != jnp.shape(param):
            raise ValueError(
                f'the gradient of "{path}" has shape {jnp.shape(grad)}, the parameter '
                f"{jnp.shape(param)}"
            )
        if jnp.result_type(grad) != jnp.result_type(param):
            raise TypeError(
                f'the gradient of "{path}" has dtype {jnp.result_type(grad)}, the parameter '
                f"{jnp.result_type(param)}; cast one to the other, as torch demands too"
            )
