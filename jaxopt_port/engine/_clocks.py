"""Which leaves have taken their steps together: torch counts them for each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def split_clocks(
    clocks: Sequence[int], n: int, stepping: Sequence[bool]
) -> tuple[tuple[int, ...], list[int], list[bool]]:
    """Part those that take a step from those that do not, where they have one clock.

    Args:
        clocks: the clock of each leaf; -1 for one that has none.
        n: how many clocks there are.
        stepping: whether each leaf takes a step.

    Returns:
        The clock of each leaf; by clock, the old one that it goes on from, and whether it goes on.
    """
    new, origin = list(clocks), list(range(n))
    goes_on = [True] * n
    for clock in range(n):
        members = [i for i, own in enumerate(clocks) if own == clock]
        resting = [i for i in members if not stepping[i]]
        if resting and len(resting) == len(members):
            goes_on[clock] = False
        elif resting:
            for i in resting:
                new[i] = len(origin)
            origin.append(clock)
            goes_on.append(False)
    return tuple(new), origin, goes_on


def check_counts(scalars: Mapping[str, Any], n: int) -> None:
    """Raise ValueError for a state whose arrays and static part are of different steps."""
    for name, vector in scalars.items():
        if np.shape(vector)[:1] != (n,):
            raise ValueError(
                f"the state has {np.shape(vector)[0]} counts of {name!r} where its static part "
                f"knows of {n}. Gradients that are None part those who count steps together, and "
                "this static part is of before: take it anew after such a step (what nnx.split, "
                "or jax.tree.structure, returns), or take the first such step outside of jit"
            )


def ticked(
    before: Mapping[str, jax.Array],
    after: Mapping[str, jax.Array],
    origin: Sequence[int],
    goes_on: Sequence[bool],
) -> dict[str, jax.Array]:
    """Return vectors over clocks after a step, given those of the old clocks before and after."""
    if all(goes_on):
        return dict(after)
    at, mask = np.array(origin, np.int32), np.array(goes_on)
    return {k: jnp.where(mask, after[k][at], jnp.asarray(before[k])[at]) for k in before}
