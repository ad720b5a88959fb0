"""How far this library is from torch on the device: primitive by primitive, and in steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxopt_port.numerics import relative, ulps
from parity_tests.oracles.bits import as_integers, step_units

from ..speed._contender import LeftOutError
from ..speed._worker import WorkerError
from ._cases import batches
from ._data import Batch, Item, start
from ._primitives import STEPS, found, powers
from ._sides import MISSING, last_line

if TYPE_CHECKING:
    from ._run import Run

_AHEAD = 4  # batches that are compiled while the one before is compared
OURS, LOOP, FOREACH, FUSED = "jp.step", "torch for-loop", "torch foreach", "torch fused"
# On a GPU torch takes foreach where nothing else is said.
COMPARED = [(OURS, LOOP), (OURS, FOREACH), (FOREACH, LOOP), (FUSED, LOOP)]


@dataclass
class Distance:
    """How far a contender is from torch on the same device.

    Attributes:
        item: the optimizer and its options.
        optimizer: torch's name.
        dtype: of the parameters.
        steps: how many were taken, from the same start with the same gradients.
        contender: this library, or another of torch's implementations.
        reference: the implementation of torch's that it is compared with.
        units: the largest distance of a parameter, in units in the last place of the largest number
            of its step.
        differ: the share of parameters that differ in a bit.
        relative: the largest distance over the largest parameter.
        state_relative: the same of the state, the worst of its kinds; None where there is none.
    """

    item: str
    optimizer: str
    dtype: str
    steps: int
    contender: str
    reference: str
    units: float
    differ: float
    relative: float
    state_relative: float | None


def primitives(run: Run) -> Iterator[str]:
    """Compare each of torch's primitives, and what a step calculates of numbers."""
    rows: list[dict[str, Any]] = []
    run.parts["primitives"] = rows
    run.parts["numbers"] = numbers = {}
    for side in ("torch", "jax"):
        yield side
        if made := run.attempt("primitives", side, side, "primitives"):
            rows += [row._asdict() for row in found(side, made)]
        if made := run.attempt("matrix products", side, side, "matrix_products"):
            numbers |= made
        if side == "jax" and (made := run.attempt("powers", side, side, "powers")) is not MISSING:
            exact = powers()
            numbers["beta ** step in float64, ulp"] = ulps(made, exact)
            numbers["beta ** step in float64, relative"] = relative(made, exact)
            numbers["steps"] = list(STEPS)


def parity(run: Run) -> Iterator[str]:
    """Compare steps: every optimizer's defaults first, then each of torch's configurations."""
    rows: list[dict[str, Any]] = []
    run.parts["parity"] = rows
    yield "torch's table"
    items = run.attempt("parity", "torch", "torch", "configurations")
    if not items:
        return
    planned = batches(items, run.sizes.optimizers)
    prepared = 0
    for number, batch in enumerate(planned):  # which grows where a batch fails as a whole
        yield f"{number + 1}/{len(planned)}, {batch.items[0]} …, {batch.dtype}"
        if not run.sides.has("jax"):
            return
        if number >= prepared:
            ahead = planned[number : number + _AHEAD]
            case = f"parity, {batch.items[0]} …, {batch.dtype}"
            begun = run.attempt(case, "jp.step", "jax", "prepare", ahead, number)
            prepared = number + (0 if begun is MISSING else len(ahead))
        if number < prepared and not _compare(run, batch, number, rows):
            prepared = number + 1  # what was compiled ahead may have gone with the process
            if len(batch.items) > 1:
                planned += [Batch((item,), batch.dtype) for item in batch.items]


def _compare(run: Run, batch: Batch, number: int, rows: list[dict[str, Any]]) -> bool:
    """Compare a batch; returns whether that went well."""
    try:
        waiting = run.sides.ask("jax", "parity", number, batch, run.sizes.steps)
        made = {LOOP: _of_torch(run, batch, LOOP, leave_out=True)}
        ours, refused = waiting()
    except (LeftOutError, WorkerError) as error:
        run.leave_out(f"parity, {batch.items[0]} …, {batch.dtype}", OURS, last_line(error))
        return False
    for i, why in refused.items():
        run.leave_out(f"parity, {batch.items[i]}, {batch.dtype}", OURS, why)
    made |= {OURS: ours} | {form: _of_torch(run, batch, form) for form in (FOREACH, FUSED)}
    for i, item in enumerate(batch.items):
        for contender, reference in COMPARED:
            if i in made[contender] and i in made[reference]:
                pair = (contender, reference, made[contender][i], made[reference][i])
                rows += _distances(item, batch.dtype, *pair)
    return True


def _of_torch(run: Run, batch: Batch, form: str, leave_out: bool = False) -> dict[int, Any]:
    """Return torch's results by item, but for what torch has not."""
    made = {}
    for i, item in enumerate(batch.items):
        try:
            made[i] = run.sides("torch", "parity", item, batch.dtype, form, run.sizes.steps)
        except (LeftOutError, WorkerError) as error:
            if leave_out:
                run.leave_out(f"parity, {item}, {batch.dtype}", form, last_line(error))
    return made


def _distances(
    item: Item,
    dtype: str,
    contender: str,
    reference: str,
    made: Mapping[int, Any],
    theirs: Mapping[int, Any],
) -> Iterator[dict[str, Any]]:
    before = start(item.optimizer, dtype)
    for steps, (params, state) in theirs.items():
        ours, our_state = made[steps]
        pairs = [(ours[k], v, before[k]) for k, v in params.items()]
        states = [
            (np.asarray(our_state[name][k]), v)
            for name, tree in state.items()
            if name in our_state
            for k, v in tree.items()
            if k in our_state[name] and np.shape(our_state[name][k]) == np.shape(v)
        ]
        different = sum(int(np.sum(as_integers(a) != as_integers(b))) for a, b, _ in pairs)
        yield asdict(
            Distance(
                *(str(item), item.optimizer, dtype, steps, contender, reference),
                units=max(float(np.max(step_units(*pair))) for pair in pairs),
                differ=different / sum(b.size for _, b, _ in pairs),
                relative=max(relative(a, b) for a, b, _ in pairs),
                state_relative=max((relative(a, b) for a, b in states), default=None),
            )
        )
