"""What a recipe shows beside the harness's report: every bit, Optax's spellings, the end of a run.

The two sides are SGD's, which is promised to have torch's bits: what the harness lets pass as
rounding is a fault here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_dtypes import finfo

import jaxopt_port as jp

from ...engine import leaf_states
from ...interop import param_map
from ...numerics import relative, relative_norm, ulps
from ..comparison import JaxSide, Names, Step, Stepper, distance_of
from ..report import Divergence
from ._digits import Digits
from ._recipes import Recipe
from ._spelled import plain_optax_sgd, spelled, with_numbers
from ._torch_lenet import Net

ACCURACY = 0.02  # measured: up to 0.003 after 100 steps, 0.011 after 1,000 at momentum 0.9
BORDERS = "A tie that rounding breaks the other way moves a few images across a class border."
_OF_PARAMETER = {"update_param": "parameter", "update_buffer": "momentum_buffer"}
_compiled = functools.cache(jax.jit)
EVERY_BIT = "SGD makes torch's operations in torch's order: every bit must agree."


class Worst(NamedTuple):
    """The largest of a series of distances, and where it stood."""

    value: float = 0.0
    step: int | None = None
    path: str | None = None

    def or_(self, value: float, step: int, path: str) -> Worst:
        return Worst(value, step, path) if value > self.value else self


class Figures:
    """Watches a comparison, step by step.

    Args:
        recipe: what is trained.
        side: its side in the CapWords spelling.
        net: torch's network, before its first step.
        digits: for the accuracy.
        steps: how many there will be.
        dtype: of the run.

    Attributes:
        unit: of the distances: of the last place; in bfloat16, where not every bit is promised,
            epsilons of the largest value.
        worst: by what is compared at every step; ``exact`` is relative.
        by_parameter: the same of parameter and momentum buffer, by path.
        found: what differs in a bit and must not, each kind once.
        drift: distance of your parameters from torch's at the end, each on its own, over the norm.
        drift_torch: the same of torch's from torch's in float64.
        optax: the same of plain Optax's, given torch's gradients, from torch's.
        accuracy: on the test images, torch and port.
    """

    def __init__(
        self, recipe: Recipe, side: JaxSide, net: Net, digits: Digits, steps: int, dtype: str
    ) -> None:
        self._side, self._net, self._digits, self._last = side, net, digits, steps - 1
        self._dtype, self._seen, self._epsilon = dtype, 0, float(finfo(dtype).eps)
        self.unit = "ε" if dtype == "bfloat16" else "ulp"
        self._names = names = Names(param_map(net, side.params), side)
        self._x64 = dtype == "float64" or bool(jax.enable_x64.value)
        start = names.params_tree(dict(net.named_parameters()))
        # Given what torch has clipped: a norm is a sum in another order.
        fed = dataclasses.replace(side, clip=None)
        sides = fed, spelled(recipe, fed, jp.sgd), spelled(recipe, fed, plain_optax_sgd)
        self._fed, self._literal, self._optax = (
            Stepper(each, start, wide=False, x64=self._x64) for each in sides
        )
        self.worst = dict.fromkeys(
            ("update_param", "update_buffer", "averaged", "literal_differs", "exact"), Worst()
        )
        self.by_parameter = {p: {"parameter": 0.0, "momentum_buffer": 0.0} for p in names.paths}
        self.found: dict[str, Divergence] = {}
        self.drift = self.drift_torch = self.optax = math.nan
        self.accuracy = (math.nan, math.nan)

    def __call__(self, step: Step) -> None:
        """Take in a step."""
        if step.step < self._seen:  # the run went back to look closer
            return
        self._seen = step.step + 1
        self._fed.step(step.clipped, step.loss)
        for stepper in (self._literal, self._optax):
            if self._side.scheduler is not None:
                numbers = jp.get_hyperparams(self._fed.updated)
                stepper.state = with_numbers(stepper.state, numbers)
            stepper.step(step.clipped, step.loss)
        yours, literal = (self._names.leaves_of(s.params) for s in (self._fed, self._literal))
        for path, theirs in step.torch.items():
            self._bits("update_param", step.step, path, yours[path], theirs)
            self._bits("literal_differs", step.step, path, literal[path], yours[path])
        states = (leaf_states(self._fed.updated), step.torch_state)
        held, buffers = ({p: _buffer(own) for p, own in each.items()} for each in states)
        for path, theirs in buffers.items():
            if held[path] is not None or theirs is not None:
                self._bits("update_buffer", step.step, path, held[path], theirs)
        if self._fed.averages is not None:
            averages = self._names.leaves_of(self._fed.averages.params)
            for path, theirs in step.torch_averages.items():
                self._bits("averaged", step.step, path, averages[path], theirs)
        for ours64, theirs64 in [step.alone64] if step.alone64 else []:
            for path, value in theirs64.items():
                far = relative(ours64[path], value)
                self.worst["exact"] = self.worst["exact"].or_(far, step.step, path)
        if step.step == self._last:
            self._end(step)

    def _bits(self, figure: str, step: int, path: str, ours: Any, theirs: Any) -> None:
        """Compare what must be equal in every bit."""
        if np.array_equal(ours, theirs):
            return
        both = ours is not None and theirs is not None  # or one side alone has a buffer
        ours = np.full_like(theirs, np.nan) if ours is None else ours
        theirs = np.full_like(ours, np.nan) if theirs is None else theirs
        exact, literal = self.unit == "ulp", figure == "literal_differs"
        far = float(ulps(ours, theirs)) if exact else relative(ours, theirs) / self._epsilon
        self.worst[figure] = self.worst[figure].or_(far, step, path)
        if figure in _OF_PARAMETER:
            at, name = self.by_parameter[path], _OF_PARAMETER[figure]
            at[name] = max(at[name], far)
        judged = self._dtype != "bfloat16" if literal else exact
        if far and judged and figure not in self.found:
            stage = "literal" if literal else "update"
            distance = distance_of(ours, theirs)
            message = f"differs by {far:g} {self.unit}" if both else "one side alone has a buffer"
            self.found[figure] = Divergence(
                step, stage, path, "", message, distance, 0.0, EVERY_BIT, leaves=(path,)
            )

    def _end(self, step: Step) -> None:
        theirs = list(step.torch.values())
        optax = self._names.leaves_of(self._optax.params)
        self.optax = relative_norm([optax[path] for path in step.torch], theirs)
        self.drift = relative_norm([step.alone[path] for path in step.torch], theirs)
        for _, exact in [step.alone64] if step.alone64 else []:  # until something differs
            self.drift_torch = relative_norm(theirs, [exact[path] for path in step.torch])
        images, labels = self._digits.test_images, self._digits.test_labels
        parameter = next(self._net.parameters())
        torchs = self._net(parameter.new_tensor(images)).argmax(1).numpy()
        with jax.enable_x64(self._x64):
            batch = (jax.numpy.asarray(images, self._dtype), labels)
            logits = _compiled(self._side.apply)(self._names.tree_of(step.alone), batch)
        ours = np.asarray(logits).argmax(1)
        there, here = float((torchs == labels).mean()), float((ours == labels).mean())
        self.accuracy = (there, here)
        if not abs(here - there) <= ACCURACY:
            pair = np.array([here]), np.array([there])
            self.found["accuracy"] = Divergence(
                step.step, "trajectory", "accuracy", "", f"{here:.1%}, torch's {there:.1%}",
                distance_of(*pair), ACCURACY, BORDERS,
            )  # fmt: skip


def _buffer(own: Any) -> Any:
    """Return the momentum buffer, if there is one: this library has room for it before."""
    held = own.get("momentum_buffer") if own.get("has_momentum_buffer", True) else None
    return None if held is None else np.asarray(held)
