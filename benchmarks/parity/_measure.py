"""How far this library, torch's other implementations and plain Optax are from torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import jax
import numpy as np
import torch

from parity_tests.oracles.bits import step_units

from .._torch_table import Configuration, configurations, defaults
from ._optax_differences import SPELLINGS
from ._sides import OptaxSide, PortSide, Side, TorchSide
from ._workloads import Arrays, Objective, workload

CALLS = 200
QUICK_CALLS = 20

PORT, CLOSEST, BY_NAME = "this library", "closest Optax", "Optax by name"
WIDE = "closest Optax, float64"
MOVED = "torch, one unit away"
# L-BFGS multiplies every rounding: in float32 it is not near itself.
DTYPES = {"LBFGS": np.float64}


class Distance(NamedTuple):
    """A distance from torch's default implementation.

    Attributes:
        units: in units in the last place of the largest number.
        relative: as a part of the largest number.
    """

    units: float
    relative: float


class Cell(NamedTuple):
    """What was measured of one contender: the worst parameter after one call and after all.

    Attributes:
        one: after one call.
        all: after all calls.
        by_parameter: after all calls.
    """

    one: Distance
    all: Distance
    by_parameter: dict[str, Distance]


class Row(NamedTuple):
    """A configuration's cells by contender, a text where there was nothing to measure."""

    configuration: Configuration
    calls: int
    cells: dict[str, Cell | str]


def after_one(ours: np.ndarray, theirs: np.ndarray, start: np.ndarray) -> Distance:
    """Return the largest distance in units of each element's step, relative as in `after_all`."""
    return after_all(ours, theirs, start)._replace(
        units=float(np.max(step_units(ours, theirs, start)))
    )


def after_all(ours: np.ndarray, theirs: np.ndarray, start: np.ndarray) -> Distance:
    """Return the largest distance by the array's largest magnitude at the start or the end."""
    largest = np.maximum(np.max(np.abs(theirs)), np.max(np.abs(start)))
    far = float(np.max(np.abs(ours.astype(np.float64) - theirs)))
    return Distance(far / float(np.spacing(largest)), far / float(largest))


def worst(distances: Collection[Distance]) -> Distance:
    """Return the largest of each measure."""
    return Distance(*(float(np.max(values)) for values in zip(*distances, strict=True)))


def _snapshots(side: Side, calls: int) -> list[Arrays]:
    """Return the parameters after the first call and after the last."""
    found = []
    for call in range(calls):
        side.step(call)
        if call in (0, calls - 1):
            found.append(side.params())
    return found


class Measurement:
    """One configuration in one dtype, with torch's default implementation run once."""

    def __init__(self, configuration: Configuration, calls: int, dtype: type):
        self.configuration = configuration
        self.work = _workload(configuration.optimizer, calls, dtype)
        self._theirs = _snapshots(TorchSide(configuration, self.work), self.work.calls)

    def of(self, side: Side) -> Cell:
        start = self.work.start
        ours = _snapshots(side, self.work.calls)
        one, by_parameter = (
            {name: distance(found[name], torchs[name], start[name]) for name in start}
            for distance, found, torchs in zip(
                (after_one, after_all), ours, self._theirs, strict=True
            )
        )
        return Cell(worst(one.values()), worst(by_parameter.values()), by_parameter)

    def of_torchs(self, implementation: str) -> Cell | str:
        try:
            return self.of(TorchSide(self.configuration, self.work, **{implementation: True}))
        except (RuntimeError, ValueError) as error:  # a tensor for a learning rate, say
            return f"torch refuses it: {str(error).splitlines()[0]}"

    def of_moved(self) -> dict[str, Cell | str]:
        """Measure torch from a start one unit away, for what evaluates gradients itself."""
        if not isinstance(self.work, Objective):
            return {}
        return {MOVED: self.of(TorchSide(self.configuration, self.work.moved()))}

    def of_port(self) -> Cell | str:
        try:
            side = PortSide(self.configuration, self.work)
        except (AttributeError, TypeError) as error:
            return f"not here: {error}"
        return self.of(side)

    def of_closest(self) -> Cell | str:
        spelling, numbers = SPELLINGS.get(self.configuration.optimizer), self.configuration.numbers
        if spelling is None:
            return "not expressible"
        try:
            inspect.signature(spelling.closest).bind(**numbers)
        except TypeError as error:
            return f"not expressible: {error}"
        return self.of(OptaxSide(spelling.closest(**numbers), self.work))

    def of_named(self) -> Cell | str:
        optimizer = self.configuration.optimizer
        spelling = SPELLINGS.get(optimizer)
        if spelling is None or spelling.by_name is None:
            return "none"
        return self.of(OptaxSide(spelling.named(defaults(optimizer)["lr"]), self.work))


# The workloads of an optimizer's configurations are the same; only the latest are kept.
_workload = functools.lru_cache(maxsize=2)(workload)


def _measured(configuration: Configuration, calls: int) -> Row:
    dtype = DTYPES.get(configuration.optimizer, np.float32)
    with jax.enable_x64(dtype is np.float64):
        measurement = Measurement(configuration, calls, dtype)
        cells = {PORT: measurement.of_port()}
        cells |= {name: measurement.of_torchs(name) for name in configuration.implementations}
        cells |= measurement.of_moved()
        cells[CLOSEST] = measurement.of_closest()
        if not configuration.options:
            cells[BY_NAME] = measurement.of_named()
    if dtype is np.float64:
        cells[WIDE] = cells[CLOSEST]
    else:
        with jax.enable_x64(True):
            cells[WIDE] = Measurement(configuration, calls, np.float64).of_closest()
    return Row(configuration, measurement.work.calls, cells)


def measure(
    optimizers: Collection[str] = (),
    quick: bool = False,
    progress: Callable[[Configuration, int, int], None] = lambda *_: None,
) -> list[Row]:
    """Measure torch's own configurations.

    Args:
        optimizers: by torch's names; all if empty.
        quick: take a tenth of the calls.
        progress: called before each configuration, with how many are done and how many there are.
    """
    chosen = [c for c in configurations() if not optimizers or c.optimizer in optimizers]
    return list(_rows(chosen, QUICK_CALLS if quick else CALLS, progress))


def _rows(
    chosen: list[Configuration], calls: int, progress: Callable[[Configuration, int, int], None]
) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's idle threads take the cores from XLA's
    try:
        for done, configuration in enumerate(chosen):
            progress(configuration, done, len(chosen))
            yield _measured(configuration, calls)
    finally:
        torch.set_num_threads(threads)
