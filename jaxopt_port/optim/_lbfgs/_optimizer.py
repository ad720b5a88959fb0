from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..._compat import as_laid_out, as_users_axes, check_whole, on_explicit_mesh, on_mesh_of
from ...engine import (
    REST,
    Groups,
    Optimizer,
    as_number,
    is_traced,
    recorder,
    whole_tree,
)
from ...trees import check_params, checked_gradients, to_array
from ._flat import flat_dtype, flat_size, gathered, scalar_dtype
from ._minimize import LBFGSState, Limits, initial_state, minimize

# A Python number or an array of one, which may be traced.
Number: TypeAlias = float | jax.Array
Count: TypeAlias = int | jax.Array
Tree = TypeVar("Tree")

_HOW_TO_CALL = (
    "L-BFGS evaluates the objective itself: call jp.step(tx, value_fn, state, params), or "
    "tx.update(grads, state, params, value=value, value_fn=value_fn), where value, grads = "
    "jax.value_and_grad(value_fn)(params)"
)


@whole_tree
def lbfgs(
    lr: Number = 1.0,
    max_iter: Count = 20,
    max_eval: Count | None = None,
    tolerance_grad: Number = 1e-7,
    tolerance_change: Number = 1e-9,
    history_size: int = 100,
    line_search_fn: str | None = None,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """L-BFGS as torch has it: up to ``max_iter`` iterations in each update.

    The counterpart of ``torch.optim.LBFGS``, with the same number of evaluations. An update takes
    the place of ``optimizer.step(closure)``; ``value_fn(params)`` is the closure, and its first
    evaluation comes from outside: ``update(grads, state, params, *, value, value_fn)``, where
    ``value, grads = jax.value_and_grad(value_fn)(params)``. Two more keywords, ``max_iter`` and
    ``max_eval``, stand for the factory's in one call. Everything runs on the device, under ``jit``
    and ``scan`` too, and ``value_fn`` is traced once; called eagerly, an update compiles anew.

    All parameters make one vector of n reals (a complex one counts twice), in the dtype that they
    promote to; the state holds ``2 * history_size + 2`` such vectors from the start. Gradients of
    complex parameters are those of ``jax.grad``, the conjugates of torch's.

    Args:
        lr: learning rate, >= 0: the length of a step, or where the line search begins. The first
            step is shorter if the gradient's 1-norm is above 1.
        max_iter: iterations in an update, at most.
        max_eval: evaluations in an update, at most, the one from outside among them; looked at
            after each iteration, and within the line search. None for ``max_iter * 5 // 4``.
        tolerance_grad: an update ends where no derivative is larger.
        tolerance_change: it ends where neither the objective nor any parameter changes by more, or
            the slope is not below minus this.
        history_size: pairs of steps and gradient differences to remember, >= 1; static.
        line_search_fn: ``"strong_wolfe"`` or None; static.
        maximize: go up the objective, not down (torch 2.14 and later); static.

    With no parameters, as with all of them frozen, nothing moves, and no state is held.

    Raises:
        ValueError: a bad argument, beginning with torch's own message; ``value`` or ``value_fn``
            left out; parameters without an element.
        TypeError: an argument of a wrong type, or parameters that are no floating arrays.

    References:
        Nocedal & Wright, 2006, *Numerical Optimization*, algorithms 7.4, 3.5 and 3.6;
        ``torch.optim.LBFGS``, after Schmidt's minFunc.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from jaxopt_port import lbfgs
        >>> def rosenbrock(p):
        ...     return (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2
        >>> tx = lbfgs(line_search_fn="strong_wolfe")
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grads = jax.value_and_grad(rosenbrock)(params)
        ...     updates, state = tx.update(
        ...         grads, state, params, value=value, value_fn=rosenbrock
        ...     )
        ...     return optax.apply_updates(params, updates), state
        >>> params = {"x": jnp.asarray(-1.0), "y": jnp.asarray(1.5)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = step(params, state)
        >>> [round(float(v), 3) for v in (params["x"], params["y"])]
        [1.0, 1.0]
    """
    numbers = {
        name: _number(name, value)
        for name, value in {
            "lr": lr,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
        }.items()
    }
    if line_search_fn not in (None, "strong_wolfe"):
        raise ValueError(
            f"only 'strong_wolfe' is supported; got line_search_fn={line_search_fn!r}, which must "
            "be that or None."
        )
    if not isinstance(maximize, bool | np.bool_):
        raise TypeError(f"maximize must be True or False; got {maximize!r}")
    rows = _history_rows(history_size)
    counts = {"max_iter": _count("max_iter", max_iter), **_given(max_eval=max_eval)}

    return optax.GradientTransformationExtraArgs(
        functools.partial(_init, rows),
        functools.partial(_update, numbers, counts, line_search_fn is not None, maximize),
    )


def _init(rows: int, params: Any) -> LBFGSState:
    check_params(params)
    leaves = jax.tree.leaves(to_array(params))
    if leaves and flat_size(leaves) == 0:
        raise ValueError(
            "optimizer got an empty parameter list; there is nothing to minimize: no parameter "
            "has an element."
        )
    state = initial_state(rows, flat_size(leaves), flat_dtype(leaves), scalar_dtype(leaves))
    return _on_mesh(leaves, state)


def _on_mesh(leaves: list[jax.Array], arrays: Tree) -> Tree:
    """Return arrays on the explicit mesh of the parameters, if that is where these lie."""
    like = next(filter(on_explicit_mesh, leaves), None)
    placed: Tree = arrays
    if like is not None:
        placed = jax.tree.map(functools.partial(on_mesh_of, like), arrays)
    return placed


def _update(
    numbers: Mapping[str, Any],
    counts: Mapping[str, Any],
    line_search: bool,
    maximize: bool,
    updates: Any,
    state: LBFGSState,
    params: Any = None,
    *,
    value: Any = None,
    value_fn: Callable[[Any], Any] | None = None,
    max_iter: Count | None = None,
    max_eval: Count | None = None,
    **_: Any,
) -> tuple[Any, LBFGSState]:
    if value is None or value_fn is None:
        missing = "value_fn" if value_fn is None else "value"
        raise ValueError(f"{missing} is required. {_HOW_TO_CALL}")
    if jnp.shape(value) != ():
        raise ValueError(f"value has shape {jnp.shape(value)}; it must be a scalar.")
    grads = checked_gradients(updates, params)
    leaves, treedef = jax.tree.flatten(to_array(params))
    if not leaves:
        return updates, state
    for leaf in leaves:
        check_whole(leaf, "lbfgs", "every parameter")
    dtype = scalar_dtype(leaves)
    limits = Limits(
        **{name: jnp.asarray(number, dtype) for name, number in numbers.items()},
        **_resolved({**counts, **_given(max_iter=max_iter, max_eval=max_eval)}),
    )

    def objective(leaves: Any) -> tuple[jax.Array, list[jax.Array]]:
        value, grads = jax.value_and_grad(value_fn)(jax.tree.unflatten(treedef, leaves))
        return value, jax.tree.leaves(grads)

    def flat(value: jax.Array, grads: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        return downhill(value.astype(dtype)), downhill(gathered(grads))

    def downhill(array: jax.Array) -> jax.Array:
        return -array if maximize else array

    # torch, too, takes a gradient that is None for zeros here.
    pairs = zip(leaves, grads, strict=True)
    given = [jnp.zeros_like(x) if grad is None else to_array(grad) for x, grad in pairs]
    leaves, state = _on_mesh(leaves, (leaves, state))
    explicit = on_explicit_mesh(leaves[0])
    objective_at = as_users_axes(objective, leaves) if explicit else objective

    def evaluate(leaves: Any) -> tuple[jax.Array, jax.Array]:
        return flat(*objective_at(leaves))

    def minimized(
        leaves: Any, value: Any, given: Any, state: LBFGSState, limits: Limits
    ) -> tuple[list[jax.Array], LBFGSState]:
        return minimize(evaluate, leaves, *flat(value, given), state, limits, line_search)

    run = as_laid_out(minimized, (leaves, state)) if explicit else minimized
    new, state = run(leaves, jnp.asarray(value), given, state, limits)
    return jax.tree.unflatten(treedef, _as_updates(leaves, new)), state


class LBFGS(Optimizer):
    """L-BFGS as torch has it: up to ``max_iter`` iterations in each update.

    The counterpart of ``torch.optim.LBFGS``; ``jp.lbfgs`` says how it is called and what it holds.
    One group is trained; frozen ones may stand beside it. The learning rate and the tolerances can
    be set between steps, by ``jp.set_hyperparams``, and may be schedules of the update count.

    Args:
        params: the parameters: a selector, as for the other optimizers, or a list of one group and
            frozen ones; the default is all.
        lr: learning rate, >= 0.
        max_iter: iterations in an update, at most; static.
        max_eval: evaluations in an update, at most; None for ``max_iter * 5 // 4``; static.
        tolerance_grad: an update ends where no derivative is larger.
        tolerance_change: it ends where neither the objective nor any parameter changes by more.
        history_size: pairs of steps and gradient differences to remember, >= 1; static.
        line_search_fn: ``"strong_wolfe"`` or None; static.
        maximize: go up the objective, not down (torch 2.14 and later); static.

    Raises:
        ValueError: a bad argument, beginning with torch's own message, or several trained groups.

    References:
        ``torch.optim.LBFGS``, after Schmidt's minFunc.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> def loss(params):
        ...     return ((params["x"] - 3) ** 2).sum()
        >>> params = {"x": jnp.zeros(2)}
        >>> tx = jp.LBFGS(line_search_fn="strong_wolfe")
        >>> params, state = jp.step(tx, loss, tx.init(params), params)
        >>> [round(float(x), 3) for x in params["x"]]
        [3.0, 3.0]
    """

    factory = staticmethod(lbfgs)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Any = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: Any = 1e-7,
        tolerance_change: Any = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())


def _as_updates(old: list[jax.Array], new: list[jax.Array]) -> list[jax.Array]:
    """Return differences, behind each of which `jp.step` finds the new parameter itself."""
    recording = recorder.get()
    updates = [after - before for before, after in zip(old, new, strict=True)]
    if recording is not None:
        for made, after in zip(updates, new, strict=True):
            recording.record(made, after)
    return updates


def _number(name: str, value: Any) -> Any:
    """Check a number, and return it as a Python float or, where it may be traced, as an array."""
    if callable(value):
        raise TypeError(f"{name} must be a number here; a schedule is for the grouped spelling")
    if is_traced(value):
        if value.size != 1:
            raise ValueError(
                f"Tensor {name} must be 1-element; got an array of shape {value.shape}"
            )
    else:
        number: Any = as_number(name, value, "", 1.0)
        if name == "lr" and not number >= 0.0:
            raise ValueError(f"Invalid learning rate: {number}; lr must be >= 0.")
        if not isinstance(value, jax.Array):
            return number
    return value.reshape(())


def _count(name: str, value: Any) -> Any:
    """Return a count as a Python int, or as it is where it is traced."""
    if is_traced(value) and value.size == 1 and jnp.issubdtype(value.dtype, jnp.integer):
        return value.reshape(())
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None


def _history_rows(history_size: Any) -> int:
    if is_traced(history_size):
        raise TypeError(
            "history_size is traced, but it is the state's size; give it to "
            "optax.inject_hyperparams in static_args"
        )
    rows: int = _count("history_size", history_size)
    if rows < 1:
        raise ValueError(f"Invalid history_size: {rows}; history_size must be >= 1.")
    return rows


def _given(**counts: Any) -> dict[str, Any]:
    return {name: _count(name, value) for name, value in counts.items() if value is not None}


def _resolved(counts: dict[str, Any]) -> dict[str, jax.Array]:
    """Return both counts of one call, torch's default for the one that may be missing."""
    counts = {"max_eval": counts["max_iter"] * 5 // 4, **counts}
    return {name: jnp.asarray(count, jnp.int32) for name, count in counts.items()}
