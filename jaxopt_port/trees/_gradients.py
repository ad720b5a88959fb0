"""What is asked of parameters and of gradients before anything is calculated."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import dtypes

from ._paths import leaf_paths, leaves_up_to, nearest


class Taking(Protocol):
    """What takes a gradient: an update rule."""

    @property
    def name(self) -> str: ...
    @property
    def sparse(self) -> bool | None: ...


_MISSING_PARAMS = (
    "params is required: tx.update(grads, state, params). torch's rules round the parameter "
    "itself, and weight decay reads it"
)


SPLIT = (
    "Give the parameters alone, and keep the rest (running statistics, counts of random streams) "
    "beside them: graph, params, rest = nnx.split(model, nnx.Param, ...); of Linen's variables, "
    'variables["params"]'
)


def check_params(params: Any) -> dict[str, Any]:
    """Return parameters by their paths, in the order of ``jax.tree.leaves``.

    Raises:
        TypeError: a leaf that is no array, or not of an inexact dtype.
    """
    leaves = leaf_paths(params)
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and not isinstance(leaf, float | complex):
            raise TypeError(
                f'the parameter "{path}" is {leaf!r}, not an array; keep only the arrays, as '
                "eqx.filter(model, eqx.is_inexact_array) does"
            )
        if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f'the parameter "{path}" has dtype {dtype}; only floating and complex parameters '
                f"can be trained. {SPLIT if 'flax' in sys.modules else ''}".rstrip()
            )
    by_path = dict(leaves)
    if len(by_path) < len(leaves):
        paths = [path for path, _ in leaves]
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise ValueError(
            f'two parameters have the path "{twice}", and groups and state dicts go by paths; '
            "rename one: a key with a slash in it is read as two"
        )
    return by_path


def to_array(x: Any) -> Any:
    """Return a tree with arrays of the dtypes that ``jit`` would give its leaves."""
    return jax.tree.map(
        # Of a weakly typed array result_type is another one, under x64.
        lambda a: jnp.asarray(
            a,
            dtypes.canonicalize_dtype(a.dtype) if hasattr(a, "dtype") else jnp.result_type(a),
        ),
        x,
    )


def check_given(params: Any) -> None:
    """Raise ValueError where the parameters are left out."""
    if params is None:
        raise ValueError(_MISSING_PARAMS)


def checked_gradients(
    grads: Any,
    params: Any,
    rules: Mapping[str, Taking | None] | None = None,
    by_path: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Return the gradient of each leaf, or None, as torch's ``.grad`` of a parameter may be.

    A gradient is None where the tree has a None, at a leaf or above it, and where a whole subtree
    of the parameters is left out of it.

    Args:
        grads: gradients.
        params: parameters.
        rules: by path, what takes a gradient; None for a factory of Optax or of the user, and of no
            path for a frozen parameter. Left out, no gradient may be sparse.
        by_path: what `check_params` has returned, if it was asked.

    Raises:
        ValueError: ``params`` is missing, or the trees or shapes differ.
        TypeError: the dtypes differ, or a gradient is dense where it should be sparse or the other
            way round.
    """
    if by_path is None:
        check_given(params)
        by_path = dict(leaf_paths(params))
    if grads is None and list(by_path) != [""]:
        raise ValueError(
            "the gradients are None as a whole; one that there is not is a None in their tree"
        )
    try:
        at_leaves = leaves_up_to(params, grads)
    except ValueError:  # other containers, or something missing: compared by path
        at_leaves = []
    if len(at_leaves) != len(by_path):
        of_grads, nones = dict(leaf_paths(grads)), _nones(grads)
        if not of_grads and not nones:
            raise ValueError(
                f"the gradients hold nothing, not even a None, for {len(by_path)} parameters; "
                "was something else given in their place?"
            )
        _check_tree(grads, params, of_grads)
        _check_paths(of_grads, by_path, nones)
        at_leaves = [of_grads.get(path) for path in by_path]
    for (path, param), grad in zip(by_path.items(), at_leaves, strict=True):
        if grad is None:
            continue
        rule = None if rules is None else rules.get(path)
        frozen = rules is not None and path not in rules
        sparse = _is_sparse(grad)
        if rule is not None and (rule.sparse or (rule.sparse is None and sparse)):
            _check_sparse(path, grad, param, rule.name)
        elif not sparse:
            if jnp.shape(grad) != jnp.shape(param):
                raise ValueError(
                    f'the gradient of "{path}" has shape {jnp.shape(grad)}, the parameter '
                    f"{jnp.shape(param)}"
                )
            _check_dtype(path, grad, param)
        elif not frozen:
            name = None if rules is None else "the optimizer" if rule is None else rule.name
            raise TypeError(_no_sparse(path, name))
    return at_leaves


def _nones(grads: Any) -> list[str]:
    """Return the paths at which a tree has a None."""
    leaves = jax.tree_util.tree_leaves_with_path(grads, is_leaf=lambda x: x is None)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in leaves
        if leaf is None
    ]


def _check_tree(grads: Any, params: Any, of_grads: Mapping[str, Any]) -> None:
    """Raise ValueError for what is no tree of gradients at all."""
    if isinstance(grads, tuple) and len(grads) == 2:
        structures: list[Any] = [jax.tree.structure(tree) for tree in (grads[1], params)]
        if structures[0] == structures[1]:
            raise ValueError(
                "the gradients are a pair whose second part is a tree of the parameters: "
                "jax.value_and_grad returns (value, gradients); give the gradients alone"
            )
    if "" in of_grads:
        raise ValueError(
            f"the gradients are one value of shape {jnp.shape(grads)}, where the parameters are a "
            "tree: give jax.grad(loss)(params), or jp.step the function loss itself"
        )


def _check_paths(
    of_grads: Mapping[str, Any], of_params: Mapping[str, Any], nones: list[str]
) -> None:
    def left_out(path: str) -> bool:
        """Whether it is within a None, or within a subtree that is left out whole."""
        if any(not none or f"{path}/".startswith(f"{none}/") for none in nones):
            return True
        above = path.rpartition("/")[0]
        return bool(above) and not any(f"{p}/".startswith(f"{above}/") for p in of_grads)

    for path in of_params:
        if path not in of_grads and not left_out(path):
            raise ValueError(
                f'the gradients have no "{path}", which the parameters have'
                f"{nearest(path, list(of_grads))}; None is a gradient that there is not"
            )
    within = [path for path in nones if any(f"{p}/".startswith(f"{path}/") for p in of_params)]
    for path in (*of_grads, *nones):
        if path and path not in of_params and path not in within:
            raise ValueError(
                f'the gradients have "{path}", which the parameters have not'
                f"{nearest(path, list(of_params))}"
            )


def _is_sparse(grad: Any) -> bool:
    return hasattr(grad, "todense") or (isinstance(grad, tuple | list) and len(grad) == 2)


def _no_sparse(path: str, name: str | None) -> str:
    """Say what takes sparse gradients, where ``name`` does not, or what is around an optimizer."""
    if name is None:
        return (
            f'a sparse gradient ("{path}") is taken by jp.sparse_adam, jp.sgd and jp.adagrad '
            "themselves, not by what is around them; of several batches, join the indices and "
            "the rows into one gradient"
        )
    return (
        f'{name} does not support sparse gradients ("{path}"), please consider '
        "jp.sparse_adam instead (jp.sgd and jp.adagrad take both)"
    )


def _check_dtype(path: str, grad: Any, param: Any) -> None:
    known = getattr(grad, "dtype", None)
    if known is not None and known == getattr(param, "dtype", None):
        return
    own, wanted = to_array(grad).dtype, to_array(param).dtype
    if own != wanted:
        raise TypeError(
            f'the gradient of "{path}" has dtype {own}, the parameter {wanted}; cast one to the '
            "other, as torch demands too"
        )


def _check_sparse(path: str, grad: Any, param: Any, name: str) -> None:
    sparse = hasattr(grad, "todense")
    if not _is_sparse(grad):
        spelled = "".join(
            part.capitalize() for part in name.split("_")
        )  # SparseAdam, as torch says
        raise TypeError(
            f"{spelled} does not support dense gradients, please consider Adam instead "
            f'("{path}"); a sparse one is a BCOO or a pair (indices, values)'
        )
    indices, values = (grad.indices, grad.data) if sparse else grad
    if hasattr(grad, "indptr"):
        raise TypeError(f'the gradient of "{path}" is a BCSR; give a BCOO: grad.to_bcoo()')
    if isinstance(indices, tuple | list):
        raise TypeError(
            f'the indices of the sparse gradient of "{path}" are a {type(indices).__name__}; they '
            "must be one array: jnp.array(indices)"
        )
    shape, of_indices, of_values = map(jnp.shape, (param, indices, values))
    indexed = 1 if len(of_indices) == 1 else of_indices[-1] if len(of_indices) == 2 else 0
    if not 1 <= indexed <= len(shape) or of_values != (of_indices[0], *shape[indexed:]):
        raise ValueError(
            f'the sparse gradient of "{path}" has indices of shape {of_indices} and values of '
            f"shape {of_values}; for a parameter of shape {shape} they are (k,) or (k, n), for "
            "the first n axes, and (k, …) with the sizes of the other axes"
        )
    if sparse and grad.shape != shape:
        raise ValueError(f'the gradient of "{path}" has shape {grad.shape}, the parameter {shape}')
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        raise TypeError(
            f'the indices of the gradient of "{path}" have dtype {jnp.result_type(indices)}; '
            "they must be integers"
        )
    _check_dtype(path, values, param)
