"""torch's line search for the strong Wolfe conditions, as one loop that evaluates once a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

C1 = 1e-4
C2 = 0.9

Tree = TypeVar("Tree")


class Point(NamedTuple):
    """A point of the line.

    Attributes:
        t: the step length.
        f: the objective.
        g: its gradient, flat.
        gtd: its derivative along the line.
    """

    t: jax.Array
    f: jax.Array
    g: jax.Array
    gtd: jax.Array


class _Search(NamedTuple):
    """The line search between two evaluations.

    torch's ``bracket`` is ``[low, high]`` or, with `low_last`, ``[high, low]``. Before there is
    one, `low` is the point before the one to be evaluated.

    Attributes:
        t: where to evaluate next.
        low: the lower end of the bracket; at the end, the result.
        high: the other end.
        low_last: whether `low` is torch's ``bracket[1]``, which decides between equals.
        bracketed: whether there is a bracket: torch's second phase.
        insuf_progress: torch's flag of the same name.
        ls_iter: evaluations so far, less one.
        searching: whether to go on.
    """

    t: jax.Array
    low: Point
    high: Point
    low_last: jax.Array
    bracketed: jax.Array
    insuf_progress: jax.Array
    ls_iter: jax.Array
    searching: jax.Array


class _Line(NamedTuple):
    """What stays the same in a search: its start, and its limits."""

    start: Point
    d_norm: jax.Array
    tolerance_change: jax.Array
    max_ls: jax.Array

    def too_high(self, new: Point) -> jax.Array:
        """Whether the Armijo condition fails."""
        return new.f > self.start.f + C1 * new.t * self.start.gtd

    def flat_enough(self, new: Point) -> jax.Array:
        """Whether the curvature condition holds."""
        return jnp.abs(new.gtd) <= -C2 * self.start.gtd


def strong_wolfe(
    evaluate: Callable[[jax.Array], Point],
    t: jax.Array,
    start: Point,
    d_norm: jax.Array,
    tolerance_change: jax.Array,
    max_ls: jax.Array,
) -> tuple[Point, jax.Array]:
    """Search a line for a point that satisfies the strong Wolfe conditions.

    Args:
        evaluate: the objective at a step length; its trace is needed once.
        t: the step length to try first.
        start: where the search starts, at step length 0.
        d_norm: the largest magnitude in the direction.
        tolerance_change: the bracket is not refined once its parameters differ by less.
        max_ls: evaluations after the first, at most.

    Returns:
        The point, and the number of evaluations.

    References:
        Nocedal & Wright, 2006, *Numerical Optimization*, algorithms 3.5 and 3.6;
        ``torch.optim.lbfgs._strong_wolfe``.
    """
    line = _Line(start, d_norm, tolerance_change, max_ls)
    false = jnp.zeros((), bool)
    search = _Search(t, start, start, false, false, false, jnp.zeros((), jnp.int32), ~false)

    def turn(search: _Search) -> _Search:
        new = evaluate(search.t)
        bracketing, zooming = _bracketing(search, new, line), _zooming(search, new, line)
        return _where(search.bracketed, zooming, bracketing)

    search = lax.while_loop(lambda search: search.searching, turn, search)
    return search.low, search.ls_iter + 1


def _bracketing(search: _Search, new: Point, line: _Line) -> _Search:
    """Take a point beyond the last one: torch's first phase."""
    last = search.low
    exhausted = search.ls_iter >= line.max_ls
    overshot = line.too_high(new) | ((search.ls_iter > 1) & (new.f >= last.f))
    done = ~exhausted & ~overshot & line.flat_enough(new)
    bracketed = ~exhausted & ~done & (overshot | (new.gtd >= 0))
    further = ~exhausted & ~done & ~bracketed

    first = _where(exhausted, line.start, last)
    low_last = done | further | ~(first.f <= new.f)
    after = _Search(
        t=_cubic_interpolate(last, new, (new.t + 0.01 * (new.t - last.t), new.t * 10)),
        low=_where(low_last, new, first),
        high=_where(low_last, first, new),
        low_last=low_last,
        bracketed=bracketed,
        insuf_progress=search.insuf_progress,
        ls_iter=search.ls_iter + further,
        searching=further | bracketed,
    )
    return _where(bracketed, _next_trial(after, line), after)


def _zooming(search: _Search, new: Point, line: _Line) -> _Search:
    """Take a point within the bracket: torch's second phase."""
    low, high, low_last = search.low, search.high, search.low_last
    worse = line.too_high(new) | (new.f >= low.f)
    # The point takes the place of `high`; then the lower of the two is `low`, the first of equals.
    low_stays = jnp.where(low_last, ~(new.f <= low.f), low.f <= new.f)
    done = ~worse & line.flat_enough(new)
    turned = ~worse & ~done & (new.gtd * (high.t - low.t) >= 0)
    after = search._replace(
        low=_where(worse & low_stays, low, new),
        high=_where(worse & low_stays, new, _where(worse | turned, low, high)),
        low_last=low_last ^ (worse & ~low_stays),
        searching=~done,
    )
    return _next_trial(after, line)


def _next_trial(search: _Search, line: _Line) -> _Search:
    """Choose the next point within the bracket, or end the search."""
    first = _where(search.low_last, search.high, search.low)
    last = _where(search.low_last, search.low, search.high)
    lower, upper = jnp.minimum(first.t, last.t), jnp.maximum(first.t, last.t)
    t = _cubic_interpolate(first, last, _ordered(first, last))

    # Too close to an end of the bracket, for the second time or at the end itself: move inside.
    eps = 0.1 * (upper - lower)
    close = jnp.minimum(upper - t, t - lower) < eps
    inward = close & (search.insuf_progress | (t >= upper) | (t <= lower))
    from_nearest = jnp.where(jnp.abs(t - upper) < jnp.abs(t - lower), upper - eps, lower + eps)

    tiny = jnp.abs(last.t - first.t) * line.d_norm < line.tolerance_change
    searching = search.searching & (search.ls_iter < line.max_ls) & ~tiny
    return search._replace(
        t=jnp.where(inward, from_nearest, t),
        insuf_progress=close & ~inward,
        ls_iter=search.ls_iter + searching,
        searching=searching,
    )


def _ordered(x: Point, y: Point) -> tuple[jax.Array, jax.Array]:
    in_order = x.t <= y.t
    return jnp.where(in_order, x.t, y.t), jnp.where(in_order, y.t, x.t)


def _cubic_interpolate(x: Point, y: Point, bounds: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return the minimum of the cubic through two points, or the middle of the bounds."""
    lower, upper = bounds
    d1 = x.gtd + y.gtd - 3 * (x.f - y.f) / (x.t - y.t)
    d2_square = d1**2 - x.gtd * y.gtd
    d2 = jnp.sqrt(d2_square)
    min_pos = jnp.where(
        x.t <= y.t,
        y.t - (y.t - x.t) * ((y.gtd + d2 - d1) / (y.gtd - x.gtd + 2 * d2)),
        x.t - (x.t - y.t) * ((x.gtd + d2 - d1) / (x.gtd - y.gtd + 2 * d2)),
    )
    return jnp.where(d2_square >= 0, jnp.clip(min_pos, lower, upper), (lower + upper) / 2)


def _where(condition: jax.Array, x: Tree, y: Tree) -> Tree:
    chosen: Tree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)
    return chosen
