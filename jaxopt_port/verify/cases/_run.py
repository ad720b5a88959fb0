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

from ..comparison import compare, environment
from ..report import Divergence, LeafResult, Report
from ._digits import Digits, batches
from ._figures import EVERY_BIT, Figures
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
        norms: of all momentum buffers before and after the change in mid-run, torch's and the
            port's; empty where there is none.
        warnings: what the port warned of.
    """

    recipe: str
    report: Report
    figures: Figures
    norms: tuple[Norms, Norms]
    warnings: list[str]

    def _worst(self, stage: str) -> LeafResult | None:
        return max(self.report.stages[stage].leaves, key=_relative, default=None)

    @property
    def failures(self) -> list[Divergence]:
        """What the harness found, and what must be equal in every bit and is not."""
        bits, leaf = list(self.figures.found.values()), self._worst("hyperparameters")
        if leaf is not None and _relative(leaf):
            message = f"off by {_relative(leaf):.3g} of itself"
            place = (leaf.worst_step, "hyperparameters", leaf.leaf, leaf.torch_name)
            bits.append(Divergence(*place, message, leaf.worst, 0.0, EVERY_BIT))
        told = {found.stage for found in self.report.found}
        return [*self.report.found, *(found for found in bits if found.stage not in told)]

    def columns(self) -> dict[str, Any]:
        """Return the figures by name; those of forward pass, gradients, averages in epsilons."""

        def worst(stage: str, unit: float = float(finfo(self.report.dtype).eps)) -> dict[str, Any]:
            leaf = self._worst(stage)
            if leaf is None or not _relative(leaf):
                return {"value": 0.0, "step": None, "path": None}
            return {"value": _relative(leaf) / unit, "step": leaf.worst_step, "path": leaf.leaf}

        figures = self.figures
        losses = np.array([self.report.curves.loss_torch, self.report.curves.loss_yours])
        apart = np.max(np.abs(losses[1] - losses[0])) / np.max(np.abs(losses[0]))
        return {
            "recipe": self.recipe,
            "steps": self.report.steps,
            "forward": worst("forward"),
            "gradient": worst("gradient"),
            **{name: each._asdict() for name, each in figures.worst.items()},
            "unit": figures.unit,
            "by_parameter": figures.by_parameter,
            "schedule": worst("hyperparameters", 1.0),
            "drift": figures.drift,
            "drift_torch": figures.drift_torch,
            "optax": figures.optax,
            "loss": losses[:, -1].tolist(),
            "loss_difference": float(apart),
            "accuracy": figures.accuracy,
            "change": self._change(losses) if all(self.norms) else None,
            "warnings": self.warnings,
            "failures": [
                {"recipe": self.recipe, "stage": f.stage, "step": f.step, "path": f.leaf,
                 "message": f.message}
                for f in self.failures
            ],
        }  # fmt: skip

    def _change(self, losses: Any) -> dict[str, Any]:
        """Return what the change did, torch and port: loss 10 steps before it, worst 10 after."""
        at = self.report.steps // 2
        before, after = zip(*(norms[0] for norms in self.norms), strict=True)
        return {
            "after_step": at,
            "momentum_before": before,
            "momentum_after": after,
            "loss_before": losses[:, max(0, at - _AROUND_CHANGE) : at].mean(1).tolist(),
            "loss_peak": losses[:, at : at + _AROUND_CHANGE].max(1).tolist(),
        }


def _relative(leaf: LeafResult) -> float:
    return leaf.worst.relative


@dataclass(frozen=True)
class Run:
    """Several recipes, and what they were run with."""

    flax: str
    dtype: str
    seed: int
    batch_size: int
    results: list[Result]
    versions: dict[str, str] = field(default_factory=environment)

    @property
    def failures(self) -> list[tuple[str, Divergence]]:
        """What differs, and in which recipe."""
        return [(result.recipe, found) for result in self.results for found in result.failures]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, the harness's report of each recipe among them."""
        results = [{**each.columns(), "report": each.report.to_json()} for each in self.results]
        return {
            "schema": SCHEMA, "passed": not self.failures, **vars(self), "results": results
        }  # fmt: skip


def run(
    recipes: Iterable[str] = tuple(RECIPES),
    *,
    digits: Digits,
    steps: int = 100,
    seed: int = 0,
    flax: str = "nnx",
    dtype: str = "float32",
    batch_size: int = 16,
    progress: Callable[[str, int], None] = lambda recipe, step: None,
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
    """
    data = list(batches(digits, batch_size, steps, seed))

    def one(recipe: Recipe) -> Result:
        given, net = data[:1] if recipe.one_step else data, make_net(seed, dtype)
        norms: tuple[Norms, Norms] = ([], [])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            theirs = torch_side(recipe, net, len(given), norms[0])
            mine = jax_side(recipe, network(flax, dtype), len(given), norms[1])
            figures = Figures(recipe, mine, net, digits, len(given), dtype)
            report = compare(
                theirs, mine, given, name=recipe.name, free_steps=len(given), stop=False,
                every=1, watch=figures, progress=lambda done, _: progress(recipe.name, done),
            )  # fmt: skip
        told = sorted({str(warning.message) for warning in caught})
        return Result(recipe.name, report, figures, norms, told)

    with one_thread():
        results = [one(ALL_RECIPES[name]) for name in recipes]
    return Run(flax, dtype, seed, batch_size, results)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: its idle ones spin, and would take the cores from XLA's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
