"""What the parts of a trace may be: a damaged one is refused as it is read, and by its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy "bfloat16")
import numpy as np

from ...interop.mapping import COUNTER
from ._steps import Array


def faults(value: Any, schema: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with a value of JSON.

    Args:
        value: as ``json.loads`` returns it.
        schema: a function that says whether a value fits; ``[schema]`` for a list, ``{str:
            schema}`` for a dict by names, ``{"name": schema}`` for a record, whose further entries
            are free.
        place: where the value stands.
    """
    if callable(schema):
        if not schema(value):
            yield f"{place} is {_short(value)}"
    elif not isinstance(value, type(schema)):
        yield f"{place} is {_short(value)}, no {type(schema).__name__}"
    elif isinstance(schema, list):
        for i, each in enumerate(value):
            yield from faults(each, schema[0], f"{place}[{i}]")
    elif str in schema:
        for key, each in value.items():
            yield from faults(each, schema[str], f"{place}[{key!r}]")
    else:
        for key, inner in schema.items():
            if key not in value:
                yield f"{place} lacks {key!r}"
            else:
                yield from faults(value[key], inner, f"{place}[{key!r}]")


def _short(value: Any) -> str:
    return repr(value)[:40] if not isinstance(value, list | dict) else f"a {type(value).__name__}"


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _is_dtype(value: Any) -> bool:
    try:
        return isinstance(value, str) and np.dtype(value).kind in "biufcV"
    except TypeError:
        return False


def _is_option(value: Any) -> bool:
    scalars = _is(str, int, float, bool, type(None))
    return scalars(value) or (isinstance(value, list) and all(map(scalars, value)))


_TEXT, _NUMBER = _is(str), _is(int, float)
_PERHAPS_NUMBER = _is(int, float, type(None))

FACTS = {
    "dtype": _is_dtype,
    "optimizer": _TEXT,
    "steps": _is_count,
    "groups": [[_TEXT]],
    "tensors": [
        {"name": _TEXT, "shape": [_is_count], "dtype": _is_dtype, "buffer": _is(bool),
         "tied_to": _is(str, type(None))}
    ],
    "layers": {
        str: {"bases": [_TEXT], "num_heads": lambda x: x is None or (_is_count(x) and x > 0),
              "momentum": _PERHAPS_NUMBER}
    },
    "batches": lambda x: x in ("stored", "hashed"),
    "budget": {"notes": [_TEXT]},
    "complete": _is(bool),
}  # fmt: skip
# What older recordings may lack.
FREE = {
    "name": _TEXT,
    "environment": {str: _TEXT},
    "closure": _is(bool),
    "steps_hooked": _is(bool),
    "rounded": [_TEXT],
    "scheduler_every": lambda x: _is_count(x) and x > 0,
    "accumulation_steps": lambda x: _is_count(x) and x > 0,
}
LINE = {
    "step": _is_count,
    "bytes": _is_count,
    "loss": _NUMBER,
    "loss64": _PERHAPS_NUMBER,
    "checked": _is(bool),
    "options": [{str: _is_option}],
    "batch": lambda x: _is_structure(x, 0),
}
STATES = {str: {str: _is_option}}


def _is_structure(value: Any, depth: int) -> bool:
    """Whether a value describes a batch: arrays in nested tuples, lists and dicts."""
    if value is None:
        return True
    if not isinstance(value, dict) or depth > 30:
        return False
    if "array" in value:
        hashed = isinstance(value.get("sha256", ""), str)
        shape = value.get("shape")
        fits = isinstance(shape, list) and all(map(_is_count, shape))
        return hashed and fits and _is_count(value["array"]) and _is_dtype(value.get("dtype"))
    parts = list(value.values())
    if len(value) != 1 or next(iter(value)) not in ("dict", "tuple", "list"):
        return False
    if not isinstance(parts[0], list):
        return False
    if "dict" in value:
        pairs = all(
            isinstance(p, list) and len(p) == 2 and isinstance(p[0], str | int | bool)
            for p in parts[0]
        )
        return pairs and all(_is_structure(part, depth + 1) for _, part in parts[0])
    return all(_is_structure(part, depth + 1) for part in parts[0])


def disagreements(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield where parts of ``trace.json``, each right by itself, do not fit together."""
    names = [tensor["name"] for tensor in facts["tensors"]]
    if len(set(names)) < len(names):
        yield "a name stands twice among 'tensors'"
    for i, tensor in enumerate(facts["tensors"]):
        name, first = tensor["name"], tensor["tied_to"]
        if name.rpartition(".")[0] not in facts["layers"]:
            yield f"{name} is of no layer"
        if first is not None and first not in names[:i]:
            yield f"{name} is tied to {first!r}, which does not stand before it"
    owned = {tensor["name"] for tensor in facts["tensors"] if not tensor["buffer"]}
    listed = [name for group in facts["groups"] for name in group]
    yield from (f"a group has {name!r}, no parameter" for name in listed if name not in owned)


def _places(structure: Any) -> Iterator[int]:
    """Yield the numbers of a batch's arrays."""
    if structure is None:
        return
    if "array" in structure:
        yield structure["array"]
        return
    ((kind, parts),) = structure.items()
    for part in parts:
        yield from _places(part[1] if kind == "dict" else part)


# The kinds of a step's tensors whose names and shapes are a parameter's, a buffer's.
_OF_PARAMETERS = ("grad", "fed", "given", "clipped", "clipped64", "param", "param64", "average",
                  "average64", "checked/param", "checked64/grad")  # fmt: skip
_OF_BUFFERS = ("checked/buffer", "checked/buffer_after", "checked64/buffer_after")
_NUMBERED = ("checked/output", "checked64/output")


def misfits(
    tensors: Mapping[str, Array], described: Sequence[Mapping[str, Any]], line: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what of a step's file is of no tensor that the trace describes, or of another shape.

    Args:
        tensors: of the file.
        described: ``"tensors"`` of ``trace.json``.
        line: of the step's scalars.
    """
    listed = sorted(_places(line["batch"]))
    if listed != list(range(len(listed))):
        yield f"the arrays of the batch are {listed[:12]}"
    stored = {place for place in tensors if place.startswith("batch/")}
    if stored and stored != {f"batch/{i}" for i in listed}:
        yield f"of {len(listed)} arrays of the batch it has {sorted(stored)[:12]}"
    shapes = {t["name"]: tuple(t["shape"]) for t in described}
    buffers = {t["name"] for t in described if t["buffer"]}
    counted: dict[str, set[str]] = {kind: set() for kind in _NUMBERED}
    for place, array in tensors.items():
        kinds = (*_OF_PARAMETERS, *_OF_BUFFERS, *_NUMBERED, "state", "state64", "batch")
        kind = max((k for k in kinds if place.startswith(f"{k}/")), key=len, default="")
        name = place.removeprefix(f"{kind}/")
        if kind in _NUMBERED:
            counted[kind].add(name)
        elif kind in ("state", "state64"):
            if name.rpartition("/")[0] not in shapes:
                yield f"{place} is of no parameter"
        elif kind == "batch":
            continue
        elif not kind or name not in shapes or (name in buffers) != (kind in _OF_BUFFERS):
            yield f"{place} is of nothing that the trace describes"
        elif array.shape != shapes[name]:
            yield f"{place} has shape {array.shape}; {name} has {shapes[name]}"
    if line["checked"]:
        wanted = {
            f"checked/{'buffer' if t['buffer'] else 'param'}/{t['name']}"
            for t in described
            if t["tied_to"] is None and not t["name"].endswith(COUNTER)
        }
        yield from (f"{place} is missing" for place in sorted(wanted - tensors.keys()))
    for kind, numbers in counted.items():
        if numbers != set(map(str, range(len(numbers)))):
            yield f"the arrays of {kind} are not numbered from 0"
    if len({len(numbers) for numbers in counted.values()}) > 1:
        yield "checked/output and checked64/output are not as many"
