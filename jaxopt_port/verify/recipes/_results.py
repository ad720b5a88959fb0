"""What a verification run found, as data."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass
class Worst:
    """The largest of a series of distances, and where it stood."""

    value: float = 0.0
    step: int | None = None
    path: str | None = None

    def see(self, value: float, step: int, path: str) -> None:
        if value > self.value:
            self.value, self.step, self.path = value, step, path


@dataclass(frozen=True)
class Failure:
    """A bound that was broken, at the first place where it was."""

    recipe: str
    stage: str
    step: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.recipe}: {self.stage}, step {self.step}, {self.path}: {self.message}"


@dataclass
class Change:
    """What a change in mid-run did.

    Attributes:
        after_step: how many steps were taken before it.
        momentum_before: norm of all momentum buffers before it, torch and port.
        momentum_after: the same after it, before the next step.
        loss_before: torch and port, mean over the 10 steps before it.
        loss_peak: torch and port, largest over the 10 steps after it.
    """

    after_step: int
    momentum_before: tuple[float, float]
    momentum_after: tuple[float, float]
    loss_before: tuple[float, float] = (0.0, 0.0)
    loss_peak: tuple[float, float] = (0.0, 0.0)


@dataclass
class RecipeResult:
    """One recipe.

    Attributes:
        recipe: its name.
        steps: how many.
        forward: output of the net on torch's weights, relative to its largest value, in epsilons.
        gradient: the same of each parameter's gradient, at the worst step.
        gradient_median: the same, the median over the steps.
        update_param: torch's gradients fed to both optimizers; units in the last place (bfloat16:
            epsilons of the largest value).
        update_buffer: the same of the momentum buffers.
        by_parameter: the same two for each parameter.
        literal_differs: the same unit between the literal Optax spelling, with this
            library's sgd, and the CapWords one.
        schedule: learning rates and momenta of each step, of the port fed with torch's gradients
            and of the one running free, relative; where the recipe has a loop.
        averaged: averaged parameters, in the unit of ``update_param``; likewise.
        exact: output, gradients and parameters of two free runs in float64, relative.
        drift: relative norm between the free-running port's parameters and torch's at the end.
        drift_torch: the same between torch in the dtype of the run and torch in float64.
        optax: the same between plain Optax, given torch's gradients, and torch.
        loss: of torch and port at the last step.
        loss_difference: the largest over the steps, over torch's largest loss.
        accuracy: on the test images, torch and port.
        change: what the change in mid-run did, where there is one.
        warnings: what the port warned of.
        failures: bounds that were broken.
    """

    recipe: str
    steps: int = 0
    forward: Worst = field(default_factory=Worst)
    gradient: Worst = field(default_factory=Worst)
    gradient_median: float = 0.0
    update_param: Worst = field(default_factory=Worst)
    update_buffer: Worst = field(default_factory=Worst)
    by_parameter: dict[str, dict[str, float]] = field(default_factory=dict)
    literal_differs: Worst = field(default_factory=Worst)
    schedule: Worst = field(default_factory=Worst)
    averaged: Worst = field(default_factory=Worst)
    exact: Worst = field(default_factory=Worst)
    drift: float = 0.0
    drift_torch: float = 0.0
    optax: float = 0.0
    loss: tuple[float, float] = (0.0, 0.0)
    loss_difference: float = 0.0
    accuracy: tuple[float, float] = (0.0, 0.0)
    change: Change | None = None
    warnings: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass
class Report:
    """A verification run.

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
    results: list[RecipeResult] = field(default_factory=list)
    versions: dict[str, str] = field(
        default_factory=lambda: {
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            **{name: version(name) for name in ("jax", "optax", "flax", "torch", "numpy")},
        }
    )

    @property
    def failures(self) -> list[Failure]:
        return [failure for result in self.results for failure in result.failures]

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "passed": not self.failures, **dataclasses.asdict(self)}

    def write(self, file: Path) -> None:
        """Write the report as JSON, beside the file first and then into its place."""
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w") as out:
                json.dump(self.to_json(), out, indent=1)
                out.write("\n")
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
