"""Runs recipes: each is a comparison of the harness, and some figures beside it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ml_dtypes import finfo

from ..compare._compare import compare, environment
from ..compare._report import Divergence, LeafResult, Report
from ._digits import Digits, batches
from ._figures import Figures, Worst
from ._recipes import ALL_RECIPES, RECIPES, Recipe
from ._sides import Norms, jax_side, make_net, network, torch_side

SCHEMA = 1
_AROUND_CHANGE = 10  # steps before and after it that its account looks at


@dataclass(frozen=True)
class Result:
    """One recipe.

    Attributes:
        recipe: its name.
        report: the harness's.
        figures: what was seen beside it.
        change: what the change in mid-run did, torch and port: norms of all momentum buffers
            before it and after it, the mean loss of the 10 steps before it and the largest of the
            10 after it; None where there is none.
        warnings: what the port warned of.
    """

    recipe: str
    report: Report
    figures: Figures
    change: dict[str, Any] | None
    warnings: list[str]

    @property
    def failures(self) -> list[Divergence]:
        """What the harness found, and what must be equal in every bit and is not."""
        told = {found.stage for found in self.report.found}
        numbers = self._worst("hyperparameters", lambda leaf: leaf.worst.relative)
        bits = [*self.figures.found.values()]
        if numbers.value > 0:
            bits.append(self._off(numbers))
        return [*self.report.found, *(found for found in bits if found.stage not in told)]

    def _off(self, numbers: Worst) -> Divergence:
        leaves = self.report.stages["hyperparameters"].leaves
        leaf = next(leaf for leaf in leaves if leaf.leaf == numbers.path)
        return Divergence(
            leaf.worst_step, "hyperparameters", leaf.leaf, leaf.torch_name,
            f"off by {numbers.value:.3g}", leaf.worst, 0.0,
            "the same numbers by the same float64 operations: every bit must agree.",
        )  # fmt: skip

    def _worst(self, stage: str, size: Callable[[LeafResult], float], unit: float = 1.0) -> Worst:
        worst = Worst()
        for leaf in self.report.stages[stage].leaves:
            worst = worst.or_(size(leaf) / unit, leaf.worst_step, leaf.leaf)
        return worst

    def columns(self) -> dict[str, Any]:
        """Return the figures by name; those of the forward pass and gradients in epsilons."""
        epsilon, curves = float(finfo(self.report.dtype).eps), self.report.curves
        theirs, ours = np.array(curves.loss_torch), np.array(curves.loss_yours)
        relative = lambda leaf: leaf.worst.relative  # noqa: E731
        worst = {
            "forward": self._worst("forward", relative, epsilon),
            "gradient": self._worst("gradient", relative, epsilon),
            **self.figures.worst,
            "schedule": self._worst("hyperparameters", relative),
            "averaged": self._worst("averages", relative, epsilon),
        }
        return {
            "recipe": self.recipe,
            "steps": self.report.steps,
            **{name: each._asdict() for name, each in worst.items()},
            "unit": self.figures.unit,
            "by_parameter": self.figures.by_parameter,
            "drift": self.figures.drift,
            "drift_torch": self.figures.drift_torch,
            "optax": self.figures.optax,
            "loss": (float(theirs[-1]), float(ours[-1])),
            "loss_difference": float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))),
            "accuracy": self.figures.accuracy,
            "change": self.change,
            "warnings": self.warnings,
            "failures": [
                {"recipe": self.recipe, "stage": f.stage, "step": f.step, "path": f.leaf,
                 "message": f.message}
                for f in self.failures
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Several recipes.

    Attributes:
        flax: ``nnx`` or ``linen``.
        dtype: of parameters and data.
        seed: of weights and batches.
        batch_size: images a step.
        results: a recipe each.
        versions: of what was run.
    """

    flax: str
    dtype: str
    seed: int
    batch_size: int
    results: list[Result]
    versions: dict[str, str] = field(default_factory=environment)

    @property
    def failures(self) -> list[tuple[str, Divergence]]:
        """Return what differs, and in which recipe."""
        return [(result.recipe, found) for result in self.results for found in result.failures]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, the harness's report of each recipe among them."""
        own = {"flax": self.flax, "dtype": self.dtype, "seed": self.seed}
        results = [{**each.columns(), "report": each.report.to_json()} for each in self.results]
        return {
            "schema": SCHEMA, "passed": not self.failures, **own, "batch_size": self.batch_size,
            "results": results, "versions": self.versions,
        }  # fmt: skip


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
) -> Run:
    """Train the LeNet by each recipe in torch and here, from the same weights on the same batches.

    Args:
        recipes: names, from ``ALL_RECIPES``.
        digits: the data.
        steps: optimizer steps; a recipe's change in mid-run comes after half of them.
        seed: of weights and batches.
        flax: ``"nnx"`` or ``"linen"``.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"``, of parameters and data.
        batch_size: images a step.
        progress: called with a recipe's name and the steps it has taken.

    Returns:
        What was measured and found.
    """
    data = list(batches(digits, batch_size, steps, seed))
    with one_thread():
        results = [
            _result(ALL_RECIPES[name], digits, data, seed, flax, dtype, progress)
            for name in recipes
        ]
    return Run(flax, dtype, seed, batch_size, results)


def _result(
    recipe: Recipe,
    digits: Digits,
    data: list[Any],
    seed: int,
    flax: str,
    dtype: str,
    progress: Callable[[str, int], None],
) -> Result:
    given = data[:1] if recipe.one_step else data
    steps, net = len(given), make_net(seed, dtype)
    norms: tuple[Norms, Norms] = ([], [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs = torch_side(recipe, net, steps, norms[0])
        mine = jax_side(recipe, network(flax, dtype), steps, norms[1])
        figures = Figures(recipe, mine, net, digits, steps, dtype)
        report = compare(
            theirs, mine, given, name=recipe.name, free_steps=steps, stop=False, watch=figures,
            progress=lambda done, _: progress(recipe.name, done),
        )  # fmt: skip
    told = sorted({str(warning.message) for warning in caught})
    return Result(recipe.name, report, figures, _change(steps // 2, norms, report), told)


def _change(at: int, norms: tuple[Norms, Norms], report: Report) -> dict[str, Any] | None:
    if not all(norms):
        return None
    (before, after), curves = zip(norms[0][0], norms[1][0], strict=True), report.curves
    losses = np.array([curves.loss_torch, curves.loss_yours])
    return {
        "after_step": at,
        "momentum_before": before,
        "momentum_after": after,
        "loss_before": tuple(losses[:, max(0, at - _AROUND_CHANGE) : at].mean(1).tolist()),
        "loss_peak": tuple(losses[:, at : at + _AROUND_CHANGE].max(1).tolist()),
    }


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: its idle ones spin, and would take the cores from XLA's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
