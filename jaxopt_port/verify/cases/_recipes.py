"""The tutorial's recipes as data: groups, a change in mid-run, what stands around the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jaxopt_port as jp

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        name: as on the command line.
        groups: as both sides' SGD takes them; their ``"params"`` are places in the network, or the
            rest of it.
        defaults: options of all groups.
        change: new numbers of each group in mid-run; none where nothing changes.
        rebuilt: whether a new optimizer has them, instead of the old one.
        own_output: ``output.backward(output)`` instead of a cross entropy.
        one_step: the recipe is a single step: at its rate a second one leaves all bounds.
        scheduler: makes the scheduler for a number of steps, of torch's schedulers or of this
            library's: ``lambda s, steps: s.StepLR(steps // 2)``; or None.
        metric: whether the scheduler is told the loss.
        clip: the norm that gradients are clipped to, or None.
        ema: the decay of an exponential moving average of the parameters, or None.
    """

    name: str
    groups: Sequence[Numbers] = ({"params": jp.REST},)
    defaults: Numbers = field(default_factory=dict)
    change: Sequence[Numbers] = ()
    rebuilt: bool = False
    own_output: bool = False
    one_step: bool = False
    scheduler: Callable[[Any, int], Any] | None = None
    metric: bool = False
    clip: float | None = None
    ema: float | None = None

    def options(self) -> list[dict[str, Any]]:
        """Return all options of each group, without its parameters."""
        groups = [{**self.defaults, **group} for group in self.groups]
        return [{k: v for k, v in group.items() if k != "params"} for group in groups]


def _subnetworks(features: Numbers, classifier: Numbers) -> list[Numbers]:
    return [{"params": "features", **features}, {"params": "classifier", **classifier}]


_OLD_LR = 0.1
_DYNAMIC: Mapping[str, Any] = {
    "groups": _subnetworks({}, {"lr": _OLD_LR}),
    "defaults": {"lr": 1e-5, "momentum": 0.9},
    "change": [{}, {"lr": _OLD_LR * 0.1}],
}
_DAMPED = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}
_NESTEROV = {"lr": 1e-2, "momentum": 0.8, "weight_decay": 5e-4, "nesterov": True}
_NEW_NUMBERS = {"lr": 3e-3, "momentum": 0.7, "weight_decay": 1e-2}

_TUTORIAL = (
    Recipe("basic", defaults={"lr": 1}, own_output=True, one_step=True),
    Recipe("per-subnetwork", _subnetworks({}, {"lr": 1e-2}), {"lr": 1e-5}),
    Recipe(
        "per-layer",  # of which classifier/3 has no parameters
        [{"params": jp.REST}, {"params": ["classifier/0", "classifier/3"], "lr": 0.01}],
        {"lr": 0.001},
    ),
    Recipe("dynamic-in-place", **_DYNAMIC),
    Recipe("dynamic-rebuilt", rebuilt=True, **_DYNAMIC),
    # Not the tutorial's, but what its recipes leave out.
    Recipe("every-option", _subnetworks(_DAMPED, _NESTEROV), change=[_NEW_NUMBERS, _NEW_NUMBERS]),
)


def _warm_up_cosine(s: Any, steps: int) -> Any:
    warm_up = max(1, steps // 10)
    cosine = s.CosineAnnealingLR(max(1, steps - warm_up))
    return s.SequentialLR([s.LinearLR(0.1, total_iters=warm_up), cosine], [warm_up])


def _loop(name: str, **loop: Any) -> Recipe:
    return Recipe(name, _subnetworks({"lr": 0.01}, {"lr": 0.02}), {"momentum": 0.9}, **loop)


# Of the loop around the step; a run has to ask for them.
_LOOPS = (
    _loop("one-cycle", scheduler=lambda s, steps: s.OneCycleLR([0.02, 0.04], total_steps=steps)),
    _loop(
        "plateau", scheduler=lambda s, _: s.ReduceLROnPlateau(factor=0.5, patience=8), metric=True
    ),
    _loop("warm-up-cosine", scheduler=_warm_up_cosine),
    _loop("clip-ema", clip=1.0, ema=0.9),
)

RECIPES = {recipe.name: recipe for recipe in _TUTORIAL}
LOOP_RECIPES = {recipe.name: recipe for recipe in _LOOPS}
ALL_RECIPES = {**RECIPES, **LOOP_RECIPES}
