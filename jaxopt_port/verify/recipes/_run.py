"""Runs recipes on both sides, two at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import jax

from ._comparison import Comparison
from ._digits import Digits, batches
from ._port_side import models_of
from ._recipes import ALL_RECIPES, RECIPES
from ._results import RecipeResult, Report
from ._torch_side import one_thread

_AT_ONCE = 2  # recipes; each keeps about one core busy, compiling for a third of its time


def _never(recipe: str, step: int) -> None:
    """Report no progress."""


def run(
    recipes: Iterable[str] = tuple(RECIPES),
    *,
    digits: Digits,
    steps: int = 100,
    seed: int = 0,
    flax: str = "nnx",
    dtype: str = "float32",
    batch_size: int = 16,
    progress: Callable[[str, int], None] = _never,
) -> Report:
    """Train the LeNet by each recipe in torch and here, from the same weights on the same batches.

    Args:
        recipes: names, from ``ALL_RECIPES``.
        digits: the data.
        steps: optimizer steps; a recipe's change in mid-run comes after half of them.
        seed: of weights and batches.
        flax: ``"nnx"`` or ``"linen"``.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"``, of parameters and data.
        batch_size: images a step.
        progress: called with a recipe's name and the steps it has taken; two recipes run at once,
            each in a thread.

    Returns:
        What was measured, and the bounds that were broken.
    """
    models = models_of(flax, dtype)
    # A run in float64 has it for the whole program; any other has the user's setting.
    x64 = dtype == "float64" or bool(jax.enable_x64.value)

    def compare(comparison: Comparison) -> RecipeResult:
        name = comparison.recipe.name
        with jax.enable_x64(x64):  # which belongs to a thread
            data = batches(digits, batch_size, steps, seed)
            return comparison.run(data, steps, functools.partial(progress, name))

    with one_thread(), jax.enable_x64(x64), ThreadPoolExecutor(_AT_ONCE) as pool:
        chosen = [ALL_RECIPES[name] for name in recipes]
        comparisons = [Comparison(r, models, digits, seed, dtype, steps) for r in chosen]
        return Report(flax, dtype, seed, batch_size, list(pool.map(compare, comparisons)))
