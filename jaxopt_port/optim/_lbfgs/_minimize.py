"""The iterations of one call: torch's ``LBFGS.step``, branch by branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from ._flat import Leaves, dot, moved
from ._history import History, direction, empty_history, remember
from ._strong_wolfe import Point, strong_wolfe

# The objective and its flat gradient.
Objective: TypeAlias = Callable[[Leaves], tuple[jax.Array, jax.Array]]


class LBFGSState(NamedTuple):
    """The state of `lbfgs`, by torch's names; n is the number of real parameters.

    Vectors are flat, as `_flat` lays them out. Until the first iteration (``n_iter``
    is 0) torch has none of what follows `n_iter`, and here it has no meaning.

    Attributes:
        func_evals: evaluations of the objective so far, int32.
        n_iter: iterations so far, int32.
        d: the last direction, ``[n]``.
        t: the last step length.
        old_dirs: `History` of gradient differences, a ring, ``[history_size, n]``.
        old_stps: of steps, ``[history_size, n]``.
        ro: of reciprocal curvatures, ``[history_size]``.
        num_old: how many rows of the history are filled, int32.
        oldest: the row of the oldest, int32.
        H_diag: the scale of the initial inverse Hessian.
        prev_flat_grad: the gradient at the start of the last iteration, ``[n]``.
        prev_loss: the objective there.
    """

    func_evals: jax.Array
    n_iter: jax.Array
    d: jax.Array
    t: jax.Array
    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    num_old: jax.Array
    oldest: jax.Array
    H_diag: jax.Array
    prev_flat_grad: jax.Array
    prev_loss: jax.Array

    @property
    def history(self) -> History:
        return History(self.old_dirs, self.old_stps, self.ro, self.num_old, self.oldest)


class Limits(NamedTuple):
    """The numbers of one call, as arrays: those of torch's options that need no other program."""

    lr: jax.Array
    tolerance_grad: jax.Array
    tolerance_change: jax.Array
    max_iter: jax.Array
    max_eval: jax.Array


class _Call(NamedTuple):
    """One call between two iterations.

    Attributes:
        params: the leaves.
        state: as it will be returned.
        loss: the objective at `params`; stale after the last fixed step, as in torch.
        flat_grad: the gradient there, likewise.
        n_iter: iterations of this call.
        current_evals: evaluations of this call.
        running: whether none of torch's conditions has ended it.
    """

    params: list[jax.Array]
    state: LBFGSState
    loss: jax.Array
    flat_grad: jax.Array
    n_iter: jax.Array
    current_evals: jax.Array
    running: jax.Array


class _Step(NamedTuple):
    """Where an iteration goes."""

    params: list[jax.Array]
    t: jax.Array
    loss: jax.Array
    flat_grad: jax.Array
    ls_func_evals: jax.Array


def initial_state(history_size: int, n: int, dtype: jnp.dtype, scalar: jnp.dtype) -> LBFGSState:
    """Return torch's empty state, at its full size.

    Args:
        history_size: rows of the history.
        n: the number of real parameters.
        dtype: that of vectors and of what torch holds as tensors.
        scalar: that of what torch holds as Python floats.
    """
    return LBFGSState(
        func_evals=jnp.zeros((), jnp.int32),
        n_iter=jnp.zeros((), jnp.int32),
        d=jnp.zeros(n, dtype),
        t=jnp.zeros((), scalar),
        **empty_history(history_size, n, dtype)._asdict(),
        H_diag=jnp.ones((), dtype),
        prev_flat_grad=jnp.zeros(n, dtype),
        prev_loss=jnp.zeros((), scalar),
    )


def minimize(
    evaluate: Objective,
    params: list[jax.Array],
    loss: jax.Array,
    flat_grad: jax.Array,
    state: LBFGSState,
    limits: Limits,
    line_search: bool,
) -> tuple[list[jax.Array], LBFGSState]:
    """Iterate until one of torch's conditions ends the call.

    Args:
        evaluate: the objective; its trace is needed once.
        params: the leaves.
        loss: the objective at ``params``.
        flat_grad: the gradient there.
        state: the state.
        limits: the numbers.
        line_search: whether to search for a step by the strong Wolfe conditions.
    """
    step = _searched_step if line_search else _fixed_step
    one = jnp.ones((), jnp.int32)
    call = _Call(
        params=params,
        state=state._replace(func_evals=state.func_evals + 1),
        loss=loss,
        flat_grad=flat_grad,
        n_iter=0 * one,
        current_evals=one,
        running=(limits.max_iter > 0) & ~_optimal(flat_grad, limits),
    )

    def iteration(call: _Call) -> _Call:
        state = _turned(call, limits)
        call = call._replace(state=state, n_iter=call.n_iter + 1)
        gtd = dot(call.flat_grad, state.d).astype(call.loss.dtype)
        too_flat = gtd > -limits.tolerance_change
        after = lax.cond(
            too_flat,
            lambda: _Step(call.params, state.t, call.loss, call.flat_grad, 0 * one),
            lambda: step(evaluate, call, gtd, limits),
        )
        return _concluded(call, after, too_flat, limits)

    call = lax.while_loop(lambda call: call.running, iteration, call)
    return call.params, call.state


def _optimal(flat_grad: jax.Array, limits: Limits) -> jax.Array:
    return jnp.max(jnp.abs(flat_grad)) <= limits.tolerance_grad


def _turned(call: _Call, limits: Limits) -> LBFGSState:
    """Return the state with the iteration's direction and first step length."""
    state, flat_grad = call.state, call.flat_grad
    n_iter = state.n_iter + 1
    first = n_iter == 1
    # In the first iteration d is still zero: nothing is remembered, and the new d is -flat_grad.
    history, h_diag = remember(
        state.history,
        state.H_diag,
        y=flat_grad - state.prev_flat_grad,
        s=state.d * state.t.astype(state.d.dtype),
    )
    # Of 1 and a NaN, Python's min takes the 1.
    inverse = 1.0 / jnp.sum(jnp.abs(flat_grad)).astype(limits.lr.dtype)
    return state._replace(
        n_iter=n_iter,
        d=direction(history, h_diag, flat_grad),
        t=jnp.where(first & (inverse < 1.0), inverse * limits.lr, limits.lr),
        **history._asdict(),
        H_diag=h_diag,
        prev_flat_grad=flat_grad,
        prev_loss=call.loss,
    )


def _fixed_step(evaluate: Objective, call: _Call, gtd: jax.Array, limits: Limits) -> _Step:
    params = moved(call.params, call.state.d, call.state.t)
    # torch does not evaluate after the last iteration: the next call begins with it.
    again = call.n_iter != limits.max_iter
    loss, flat_grad = lax.cond(again, lambda: evaluate(params), lambda: (call.loss, call.flat_grad))
    return _Step(params, call.state.t, loss, flat_grad, again.astype(jnp.int32))


def _searched_step(evaluate: Objective, call: _Call, gtd: jax.Array, limits: Limits) -> _Step:
    d = call.state.d

    def at(t: jax.Array) -> Point:
        f, g = evaluate(moved(call.params, d, t))
        return Point(t, f, g, dot(g, d).astype(f.dtype))

    start = Point(jnp.zeros_like(call.loss), call.loss, call.flat_grad, gtd)
    point, ls_func_evals = strong_wolfe(
        at,
        call.state.t,
        start,
        d_norm=jnp.max(jnp.abs(d)).astype(gtd.dtype),
        tolerance_change=limits.tolerance_change,
        max_ls=limits.max_eval - call.current_evals,
    )
    return _Step(moved(call.params, d, point.t), point.t, point.f, point.g, ls_func_evals)


def _concluded(call: _Call, step: _Step, too_flat: jax.Array, limits: Limits) -> _Call:
    """Take the step, and decide whether it was the last."""
    state = call.state._replace(t=step.t, func_evals=call.state.func_evals + step.ls_func_evals)
    current_evals = call.current_evals + step.ls_func_evals
    change = jnp.max(jnp.abs(state.d * step.t.astype(state.d.dtype)))
    ended = (
        too_flat
        | (call.n_iter == limits.max_iter)
        | (current_evals >= limits.max_eval)
        | _optimal(step.flat_grad, limits)
        | (change <= limits.tolerance_change)
        | (jnp.abs(step.loss - state.prev_loss) < limits.tolerance_change)
    )
    return _Call(
        step.params,
        state,
        step.loss,
        step.flat_grad,
        call.n_iter,
        current_evals,
        ~ended,
    )
