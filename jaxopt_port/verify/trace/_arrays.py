"""What the file of a step holds: all of it, by kind, by name, by shape and by dtype."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (teaches NumPy "bfloat16")
import numpy as np

from ...interop.mapping import COUNTER
from ...optim import OPTIMIZERS
from ._schema import FLOATING
from ._steps import Array

_OWN, _WIDE, _ANY = "own", "wide", "any"  # the dtype that is described, its float64, another

# Of each kind, whether it is of parameters or of buffers, and its dtype.
_KINDS = {
    "grad": ("parameter", _OWN),
    "fed": ("parameter", _OWN),
    "given": ("parameter", _WIDE),
    "clipped": ("parameter", _OWN),
    "clipped64": ("parameter", _WIDE),
    "param": ("parameter", _OWN),
    "param64": ("parameter", _WIDE),
    "average": ("parameter", _ANY),
    "average64": ("parameter", _WIDE),
    "checked/param": ("parameter", _OWN),
    "checked64/grad": ("parameter", _WIDE),
    "checked/buffer": ("buffer", _OWN),
    "checked/buffer_after": ("buffer", _OWN),
    "checked64/buffer_after": ("buffer", _WIDE),
}
_FREE = ("checked/output", "checked64/output", "state", "state64", "batch")


class _Tensor(NamedTuple):
    shape: tuple[int, ...]
    dtype: str


def _kind_of(place: str) -> tuple[str, str]:
    kind, _, name = place.partition("/")
    if kind in ("checked", "checked64"):
        what, _, name = name.partition("/")
        kind = f"{kind}/{what}"
    return kind, name


def _are_numbered(names: Collection[str]) -> bool:
    return {*names} == {*map(str, range(len(names)))}


def _places(structure: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the arrays of a batch's structure."""
    if structure is None:
        return
    if "array" in structure:
        yield structure
        return
    ((kind, parts),) = structure.items()
    for part in parts:
        yield from _places(part[1] if kind == "dict" else part)


class StepFiles:
    """Says what is wrong with the files of a trace's steps, which are given in order."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts, self._plan = facts, facts["budget"]
        self._of: dict[str, dict[str, _Tensor]] = {"parameter": {}, "buffer": {}}
        for each in facts["tensors"]:
            counts = each["buffer"] and (
                each["dtype"] not in FLOATING or each["name"].endswith(COUNTER)
            )
            if each["tied_to"] is None and not counts:
                held = self._of["buffer" if each["buffer"] else "parameter"]
                held[each["name"]] = _Tensor(tuple(each["shape"]), each["dtype"])
        self._updated = self._of["parameter"].keys() - set(self._plan["left_out"])
        self._grouped = {name for group in facts["groups"] for name in group}
        self._torchs = all(name in OPTIMIZERS for name in facts["optimizer"].split(" and "))
        self._states: set[str] = set()  # of the last step that has them
        self._averaged: bool | None = None  # in all steps, or in none

    def misfits(self, line: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[str]:
        """Yield what a step's file lacks, has too much, or has of another shape or dtype."""
        found: dict[str, set[str]] = {kind: set() for kind in (*_KINDS, *_FREE)}
        for place, array in arrays.items():
            kind, name = _kind_of(place)
            if kind not in found:
                yield f"{place} is of nothing that the trace describes"
                continue
            found[kind].add(name)
            if kind in _KINDS:
                yield from self._misfit(kind, name, place, array)
        if self._averaged is None:
            self._averaged = bool(found["average"] | found["average64"])
        for kind, names in self._wanted(line, found).items():
            yield from (f"{kind}/{name} is missing" for name in sorted(names - found[kind]))
            yield from (f"it has {kind}/{name}" for name in sorted(found[kind] - names))
        yield from self._batch(line, arrays, found["batch"])
        yield from self._outputs(arrays, found)
        yield from self._state(line, arrays, found)

    def _misfit(self, kind: str, name: str, place: str, array: Array) -> Iterator[str]:
        of, dtype = _KINDS[kind]
        tensor = self._of[of].get(name)
        if tensor is None:
            yield f"{place} is of nothing that the trace describes"
        elif array.shape != tensor.shape:
            yield f"{place} has shape {array.shape}; {name} has {tensor.shape}"
        elif dtype != _ANY:
            wide = dtype == _WIDE and tensor.dtype in FLOATING
            expected = "float64" if wide else tensor.dtype
            if array.dtype != np.dtype(expected):
                yield f"{place} is {array.dtype}, and not {expected}"

    def _wanted(
        self, line: Mapping[str, Any], found: Mapping[str, set[str]]
    ) -> dict[str, Set[str]]:
        """Return which names there must be, no more and no fewer, by the kind."""
        facts, plan, checked = self._facts, self._plan, line["checked"]
        within = line["step"] < plan["updates"]
        updated = self._updated if within else set[str]()
        stepped = updated if line["stepped"] else set[str]()
        parameters, buffers = (held.keys() if checked else set[str]() for held in self._of.values())
        # Not every parameter has a gradient in every step, but one of them has.
        grads = (found["grad"] or {"…"}) if within or checked else set[str]()
        fed = grads if found["fed"] else set[str]()
        accumulated = facts.get("accumulation_steps", 1) > 1
        given = stepped & grads if fed or accumulated else set[str]()
        if accumulated:  # and what batches before have added
            given |= found["given"] & stepped
        average = updated if self._averaged else set[str]()
        return {
            "grad": grads,
            "fed": fed,
            "given": given,
            **self._clipped(stepped, given or grads, found),
            "param": updated if checked or not plan["thrifty"] else set(),
            "param64": updated,
            "average": average,
            "average64": average,
            "checked/param": parameters,
            "checked64/grad": grads if checked else set(),
            "checked/buffer": buffers,
            "checked/buffer_after": buffers,
            "checked64/buffer_after": buffers,
        }

    def _clipped(
        self, stepped: Set[str], given: Set[str], found: Mapping[str, set[str]]
    ) -> dict[str, Set[str]]:
        """Return what is clipped of the gradients; hooks may take some of them away.

        Args:
            stepped: parameters of which there is a step.
            given: those of which there are gradients.
            found: what there is, by the kind.
        """
        facts, kinds = self._facts, ("clipped", "clipped64")
        if not facts["clip"]:
            return {kind: set() for kind in kinds}
        if facts.get("closure"):  # it makes gradients anew
            return {kind: found[kind] & stepped for kind in kinds}
        limit = stepped & given
        if facts.get("steps_hooked"):
            return {kind: found[kind] & limit for kind in kinds}
        either = (found["clipped"] | found["clipped64"]) & limit
        return dict.fromkeys(kinds, either or limit)

    def _batch(
        self, line: Mapping[str, Any], arrays: Mapping[str, Array], found: Set[str]
    ) -> Iterator[str]:
        listed = {str(each["array"]): each for each in _places(line["batch"])}
        stored = self._facts["batches"] == "stored"
        if len(listed) != len([*_places(line["batch"])]) or not _are_numbered(listed):
            yield f"the arrays of the batch are {sorted(listed)[:12]}"
        elif found != (listed.keys() if stored else set()):
            yield f"of {len(listed)} arrays of the batch it has {sorted(found)[:12]}"
        elif not stored:
            yield from (f"batch/{n} has no hash" for n, x in listed.items() if "sha256" not in x)
        else:
            for number, each in listed.items():
                array = arrays[f"batch/{number}"]
                said = tuple(each["shape"]), np.dtype(each["dtype"])
                if (array.shape, array.dtype) != said:
                    yield f"batch/{number} is {array.dtype} of shape {array.shape}: not the batch's"

    def _outputs(self, arrays: Mapping[str, Array], found: Mapping[str, Set[str]]) -> Iterator[str]:
        names, wide = found["checked/output"], found["checked64/output"]
        if names != wide or not _are_numbered(names):
            yield "checked/output and checked64/output are not the same arrays, numbered from 0"
            return
        for name in sorted(names):
            narrow, exact = arrays[f"checked/output/{name}"], arrays[f"checked64/output/{name}"]
            if narrow.shape != exact.shape:
                yield f"checked64/output/{name} has shape {exact.shape}, the output {narrow.shape}"

    def _state(
        self,
        line: Mapping[str, Any],
        arrays: Mapping[str, Array],
        found: Mapping[str, Set[str]],
    ) -> Iterator[str]:
        """Torch's optimizers keep the same arrays in both dtypes, once they have them."""
        facts, thrifty = self._facts, self._plan["thrifty"]
        kept = line["step"] < self._plan["updates"] and (line["checked"] or not thrifty)
        held, wide = found["state"], found["state64"]
        may = self._updated & self._grouped if kept and not facts.get("closure") else set()
        for kind in ("state", "state64"):
            odd = sorted(place for place in found[kind] if place.rpartition("/")[0] not in may)
            yield from (f"it has {kind}/{place}" for place in odd)
        if not self._torchs or not kept:
            return
        if not found["fed"]:  # a scaler's step is left out by what overflows in one of the dtypes
            yield from (f"state/{place} is missing" for place in sorted(wide - held))
            yield from (f"state64/{place} is missing" for place in sorted(held - wide))
        for place in sorted(held & wide):
            one, two = arrays[f"state/{place}"], arrays[f"state64/{place}"]
            if one.shape != two.shape:
                yield f"state/{place} has shape {one.shape}, state64/{place} {two.shape}"
            elif two.dtype not in (one.dtype, np.float64):
                yield f"state64/{place} is {two.dtype}, and state/{place} {one.dtype}"
        if line["step"] not in facts.get("changes", (line["step"],)):
            lost = sorted(self._states - held)
            yield from (f"state/{place}, which steps before have, is missing" for place in lost)
        self._states = {*held}
