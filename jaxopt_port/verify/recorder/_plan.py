"""What of a run fits into a budget of bytes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._files import json_bytes

_FIRST_CHECKS = 3
_LEAST_UPDATES = 3  # before leaves are left out
# Bytes that are not the tensors': of a tensor in the header of its file, of a step's file and the
# losses of a line, and of what was left out.
_HEADER, _LINE, _PLAN = 100, 120, 1000
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# The name of a tensor in a step's file begins with what it is.
_ALWAYS = ("batch",)
_GRADS = ("grad", "fed")
_UPDATE = ("given", "clipped", "clipped64", "param64", "average", "average64")
_SPARED = ("param", "state", "state64")  # not kept, where bytes are short, if not checked
_CHECKED = ("checked", "checked64")

_Sizes = dict[tuple[str, str], int]  # bytes, by what a tensor is and the parameter's name


def bytes_of(budget: int | str) -> int:
    if isinstance(budget, str):
        parts = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?B)\s*", budget, re.IGNORECASE)
        if parts is None or parts[1].count(".") > 1 or parts[1] == ".":
            raise ValueError(f"budget is {budget!r}; write bytes, or as '500 MB' or '2 GB'")
        budget = int(float(parts[1]) * _UNITS[parts[2].upper()])
    if budget < 1:
        raise ValueError(f"budget is {budget} bytes; it must be more than 0")
    return budget


@dataclass
class Plan:
    """What is kept of which step."""

    asked: int  # every so many steps is checked, if it fits
    every: int  # instead; 0: the first step only
    steps: int
    updates: int  # of the first so many steps
    thrifty: bool = False
    left_out: tuple[str, ...] = ()  # parameters without updates

    def checks(self, step: int) -> bool:
        if self.every == 0:
            return step == 0
        first = 1 if self.every > self.steps else _FIRST_CHECKS
        return step < first or step % self.every == 0 or step == self.steps - 1

    def keeps(self, step: int, kind: str, parameter: str = "") -> bool:
        if kind in _ALWAYS:
            return True
        if kind in _CHECKED:
            return self.checks(step)
        if kind in _GRADS:
            return step < self.updates or self.checks(step)
        spared = kind in _SPARED and self.thrifty and not self.checks(step)
        return step < self.updates and not spared and parameter not in self.left_out

    def kept(self, step: int, found: Mapping[str, Any], store_batches: bool) -> dict[str, Any]:
        return {
            name: tensor
            for name, tensor in found.items()
            if self.keeps(step, *_kind_of(name)) and (store_batches or _kind_of(name)[0] != "batch")
        }

    def described(self, limit: int) -> dict[str, Any]:
        notes = []
        if self.thrifty:
            notes.append("optimizer state and parameters in the run's own dtype only where checked")
        where = (
            "step 0"
            if self.every == 0
            else "the first and the last step"
            if self.every > self.steps
            else f"one step in {self.every}"
        )
        if self.every != self.asked:
            notes.append(f"forward, loss and gradient at {where} only")
        if self.updates < self.steps:
            first = f"updates of the first {self.updates} of {self.steps} steps only"
            notes.append(first if self.updates else "no updates")
        if self.left_out:
            notes.append(f"no updates of {', '.join(self.left_out)}")
        return {"budget": {"bytes": limit, **dataclasses.asdict(self), "notes": notes}}


def _kind_of(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition("/")
    return kind, rest.partition("/")[0]


def sizes_of(
    found: Mapping[str, Any], line: Mapping[str, Any], store_batches: bool, scheduled: bool
) -> _Sizes:
    size: _Sizes = {("batch", "scalars"): len(json_bytes(line)) + _LINE}
    if not scheduled:  # the options are said once
        size["once", ""] = len(json_bytes(line["options"]))
        size["batch", "scalars"] -= size["once", ""]
    for name, tensor in found.items():
        if store_batches or not name.startswith("batch/"):
            of = _kind_of(name)
            size[of] = size.get(of, 0) + tensor.nbytes + len(name.encode()) + _HEADER
    return size


def fitting(
    plan: Plan, size: _Sizes, facts: Mapping[str, Any], limit: int, store_batches: bool
) -> Plan:
    """Return the first plan, of those that keep less and less, that fits."""
    fixed = len(json_bytes(facts, indent=1)) + _PLAN

    def total(candidate: Plan) -> int:
        checked = sum(map(candidate.checks, range(candidate.steps)))
        updated = min(candidate.updates, candidate.steps)
        both = sum(map(candidate.checks, range(updated)))
        times = {"once": 1, "batch": candidate.steps}
        times |= dict.fromkeys(_GRADS, checked + updated - both)
        times |= dict.fromkeys(_CHECKED, checked) | dict.fromkeys(_UPDATE, updated)
        times |= dict.fromkeys(_SPARED, both if candidate.thrifty else updated)
        return fixed + sum(
            bytes_ * times[kind]
            for (kind, of), bytes_ in size.items()
            if of not in candidate.left_out or kind not in _UPDATE + _SPARED
        )

    smaller = plan
    for smaller in _smaller(plan, size):
        if total(smaller) <= limit:
            return _most_updates(smaller, plan, total, limit)
    batches = ", and all batches (store_batches=False keeps hashes of those)"
    raise ValueError(
        f"the budget is {limit} bytes; the least is {total(smaller)}: the parameters, output and "
        f"gradients of the first step{batches if store_batches else ''}"
    )


def _smaller(plan: Plan, size: _Sizes) -> Iterator[Plan]:
    yield plan
    plan = dataclasses.replace(plan, thrifty=True)
    yield plan
    while plan.every <= plan.steps:
        plan = dataclasses.replace(plan, every=2 * plan.every)
        yield plan
    plan = dataclasses.replace(plan, every=0)
    yield plan
    plan = dataclasses.replace(plan, updates=min(_LEAST_UPDATES, plan.steps))
    yield plan
    names = sorted((of for kind, of in size if kind == "param"), key=lambda n: -size["param", n])
    for n in range(1, len(names)):
        yield dataclasses.replace(plan, left_out=tuple(names[:n]))
    yield dataclasses.replace(plan, updates=0)


def _most_updates(smaller: Plan, plan: Plan, total: Callable[[Plan], int], limit: int) -> Plan:
    """Keep as many updates as fit, where they are what was cut."""
    if smaller.updates == plan.updates or smaller.left_out or not smaller.updates:
        return smaller
    low, high = smaller.updates, plan.updates
    while low < high:
        middle = (low + high + 1) // 2
        fits = total(dataclasses.replace(smaller, updates=middle)) <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return dataclasses.replace(smaller, updates=low)
