"""The tutorial's recipes, each in torch and in three JAX spellings.

``torch_start`` and ``torch_change`` are what the tutorial writes. ``port_*`` is the CapWords
spelling. ``spelled`` is Optax's literal one, ``multi_transform`` of ``inject_hyperparams``, once
with this library's ``sgd`` in it and once with what one would write by hand in Optax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import jaxopt_port as jp

from ._loops import LOOPS, OPTIONS, Loop, port_sgd, torch_sgd
from ._spelled import Spelled

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        name: as on the command line.
        shows: what must hold.
        torch_start: a torch net to its optimizer.
        port_start: makes the CapWords optimizer.
        spelled: Optax's literal spelling.
        torch_change: what happens in mid-run, or None.
        port_set: the same here, where it sets numbers: a state to a state.
        port_rebuild: the same here, where it makes a new optimizer.
        output_as_cotangent: ``output.backward(output)`` instead of a cross entropy.
        one_step: each batch starts again from the initial weights: at lr 1 the recipe is one step,
            and a second one leaves all bounds.
        loop: what stands around the steps, or None.
    """

    name: str
    shows: str
    torch_start: Callable[[Any], Optimizer]
    port_start: Callable[[], jp.Optimizer]
    spelled: Spelled
    torch_change: Callable[[Any, Optimizer], Optimizer] | None = None
    port_set: Callable[[Any], Any] | None = None
    port_rebuild: Callable[[], jp.Optimizer] | None = None
    output_as_cotangent: bool = False
    one_step: bool = False
    loop: Loop | None = None


# ── basic ──────────────────────────────────────────────────────────────────────────────────────


def _basic_torch(net: Any) -> Optimizer:
    return torch.optim.SGD(net.parameters(), lr=1)


def _basic() -> jp.Optimizer:
    return jp.SGD(lr=1)


# ── per subnetwork ─────────────────────────────────────────────────────────────────────────────


def _subnetworks_torch(net: Any) -> Optimizer:
    return torch.optim.SGD(
        [
            {"params": net.features.parameters()},
            {"params": net.classifier.parameters(), "lr": 1e-2},
        ],
        lr=1e-5,
    )


def _subnetworks() -> jp.Optimizer:
    return jp.SGD([{"params": "features"}, {"params": "classifier", "lr": 1e-2}], lr=1e-5)


def _first_component(path: str) -> str:
    return path.split("/")[0]


# ── per layer ──────────────────────────────────────────────────────────────────────────────────


def _layers_torch(net: Any) -> Optimizer:
    special_layers = nn.ModuleList([net.classifier[0], net.classifier[3]])
    special = list(map(id, special_layers.parameters()))
    base = filter(lambda p: id(p) not in special, net.parameters())
    groups: list[dict[str, Any]] = [
        {"params": base},
        {"params": special_layers.parameters(), "lr": 0.01},
    ]
    return torch.optim.SGD(groups, lr=0.001)


def _layers() -> jp.Optimizer:
    return jp.SGD(
        [{"params": jp.REST}, {"params": ["classifier/0", "classifier/3"], "lr": 0.01}], lr=0.001
    )


def _special_or_base(path: str) -> str:
    return "special" if path.startswith(("classifier/0/", "classifier/3/")) else "base"


# ── dynamic ────────────────────────────────────────────────────────────────────────────────────

_OLD_LR = 0.1


def _dynamic_torch(net: Any, lr: float = _OLD_LR) -> Optimizer:
    return torch.optim.SGD(
        [
            {"params": net.features.parameters()},
            {"params": net.classifier.parameters(), "lr": lr},
        ],
        lr=1e-5,
        momentum=0.9,
    )


def _dynamic(lr: float = _OLD_LR) -> jp.Optimizer:
    return jp.SGD(
        [{"params": "features"}, {"params": "classifier", "lr": lr}], lr=1e-5, momentum=0.9
    )


def _in_place_torch(net: Any, optimizer: Optimizer) -> Optimizer:
    optimizer.param_groups[1]["lr"] = _OLD_LR * 0.1
    return optimizer


def _in_place(state: Any) -> Any:
    return jp.set_hyperparams(state, lr=_OLD_LR * 0.1, group=1)


def _rebuilt_torch(net: Any, optimizer: Optimizer) -> Optimizer:
    return _dynamic_torch(net, lr=_OLD_LR * 0.1)


def _rebuilt() -> jp.Optimizer:
    return _dynamic(lr=_OLD_LR * 0.1)


_DYNAMIC_OPTIONS = {
    "features": {"lr": 1e-5, "momentum": 0.9},
    "classifier": {"lr": _OLD_LR, "momentum": 0.9},
}

_DYNAMIC_CHANGE = {"classifier": {"lr": _OLD_LR * 0.1}}

# ── every option: not the tutorial's, but what its recipes leave out ───────────────────────────

_DAMPED: dict[str, Any] = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}
_NESTEROV: dict[str, Any] = {
    "lr": 1e-2, "momentum": 0.8, "weight_decay": 5e-4, "nesterov": True
}  # fmt: skip


def _every_option_torch(net: Any) -> Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": net.features.parameters(), **_DAMPED},
        {"params": net.classifier.parameters(), **_NESTEROV},
    ]
    return torch.optim.SGD(groups)


def _every_option() -> jp.Optimizer:
    return jp.SGD([{"params": "features", **_DAMPED}, {"params": "classifier", **_NESTEROV}])


_NEW_NUMBERS: dict[str, Any] = {"lr": 3e-3, "momentum": 0.7, "weight_decay": 1e-2}


def _every_number_torch(net: Any, optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group.update(_NEW_NUMBERS)
    return optimizer


def _every_number(state: Any) -> Any:
    return jp.set_hyperparams(state, **_NEW_NUMBERS)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "basic",
            "one group; the cotangent is the output itself, not a loss",
            _basic_torch,
            _basic,
            Spelled({"all": {"lr": 1.0}}, lambda path: "all"),
            output_as_cotangent=True,
            one_step=True,
        ),
        Recipe(
            "per-subnetwork",
            "features at the default lr 1e-5, classifier at 1e-2",
            _subnetworks_torch,
            _subnetworks,
            Spelled({"features": {"lr": 1e-5}, "classifier": {"lr": 1e-2}}, _first_component),
        ),
        Recipe(
            "per-layer",
            "classifier/0 at 0.01, the rest at 0.001; classifier/3 has no parameters",
            _layers_torch,
            _layers,
            Spelled({"base": {"lr": 0.001}, "special": {"lr": 0.01}}, _special_or_base),
        ),
        Recipe(
            "dynamic-in-place",
            "the classifier's lr divided by 10 in mid-run; momentum is kept",
            _dynamic_torch,
            _dynamic,
            Spelled(_DYNAMIC_OPTIONS, _first_component, _DYNAMIC_CHANGE),
            _in_place_torch,
            _in_place,
        ),
        Recipe(
            "dynamic-rebuilt",
            "the same by a new optimizer in mid-run; momentum is lost",
            _dynamic_torch,
            _dynamic,
            Spelled(_DYNAMIC_OPTIONS, _first_component, _DYNAMIC_CHANGE, rebuild=True),
            _rebuilt_torch,
            port_rebuild=_rebuilt,
        ),
        Recipe(
            "every-option",
            "dampening and weight decay; Nesterov; every number changed in mid-run",
            _every_option_torch,
            _every_option,
            Spelled(
                {"features": _DAMPED, "classifier": _NESTEROV},
                _first_component,
                change={"features": _NEW_NUMBERS, "classifier": _NEW_NUMBERS},
            ),
            _every_number_torch,
            _every_number,
        ),
    )
}

# Recipes of the loop around the step, which a run has to ask for.
LOOP_RECIPES: dict[str, Recipe] = {
    name: Recipe(name, shows, torch_sgd, port_sgd, Spelled(OPTIONS, _first_component), loop=loop)
    for name, (loop, shows) in LOOPS.items()
}

ALL_RECIPES = {**RECIPES, **LOOP_RECIPES}
