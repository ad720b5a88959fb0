"""What the parts of a trace may be: a damaged one is refused as it is read, and by its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy "bfloat16")
import numpy as np

from ...optim import OPTIMIZERS

FLOATING = ("float32", "float64", "bfloat16", "float16")


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


def _is_setting(value: Any) -> bool:
    """Whether a value is a number; one in a tensor of one element is a list."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    return type(one) in (int, float, bool, type(None))


def _are_settings(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_is_setting, value))


_TEXT, _NUMBER, _TRUTH = _is(str), _is(int, float), _is(bool)
_PERHAPS_NUMBER, _PERHAPS_TEXT = _is(int, float, type(None)), _is(str, type(None))

FACTS = {
    "dtype": lambda x: x in FLOATING,
    "optimizer": _TEXT,
    "steps": _is_count,
    "groups": [[_TEXT]],
    "tensors": [
        {"name": _TEXT, "shape": [_is_count], "dtype": _is_dtype, "buffer": _TRUTH,
         "tied_to": _PERHAPS_TEXT}
    ],
    "layers": {
        str: {"bases": [_TEXT], "num_heads": lambda x: x is None or (_is_count(x) and x > 0),
              "momentum": _PERHAPS_NUMBER}
    },
    "scheduler": _PERHAPS_TEXT,
    "metric": _TRUTH,
    "clip": _TRUTH,
    "batches": lambda x: x in ("stored", "hashed"),
    "budget": {"every": _is_count, "updates": _is_count, "thrifty": _TRUTH, "left_out": [_TEXT],
               "notes": [_TEXT]},
    "complete": _TRUTH,
}  # fmt: skip
# What older recordings may lack.
FREE = {
    "name": _TEXT,
    "environment": {str: _TEXT},
    "closure": _TRUTH,
    "steps_hooked": _TRUTH,
    "changes": [_is_count],
    "rounded": [_TEXT],
    "scheduler_every": lambda x: _is_count(x) and x > 0,
    "accumulation_steps": lambda x: _is_count(x) and x > 0,
}
LINE = {
    "step": _is_count,
    "bytes": _is_count,
    "loss": _NUMBER,
    "loss64": _PERHAPS_NUMBER,
    "checked": _TRUTH,
    "stepped": _TRUTH,
    "options": [{str: _is_option}],
    "batch": lambda x: _is_structure(x, 0),
}
STATES = {str: {str: _is_option}}
# Of a group's options those that are read, whatever the optimizer.
OPTIONS = {
    "lr": _is_setting,
    "weight_decay": _is_setting,
    "momentum": _is_setting,
    "betas": _are_settings,
}


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
    owned = [t for t in facts["tensors"] if not t["buffer"] and t["tied_to"] is None]
    first = next((t["dtype"] for t in owned if t["dtype"] in FLOATING), None)
    if facts["dtype"] != first:
        yield f"'dtype' is {facts['dtype']}, and the first parameter is {first}"
    listed = [name for group in facts["groups"] for name in group]
    named = {tensor["name"] for tensor in owned}
    yield from (f"a group has {name!r}, no parameter" for name in listed if name not in named)
    if not listed or len(set(listed)) < len(listed):
        yield "the groups have no parameter, or one twice"
    odd = set(facts["budget"]["left_out"]) - named
    yield from (f"the budget leaves out {name!r}, no parameter" for name in sorted(odd))


def disagreements_of_line(line: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the scalars of a step, each right by itself, do not fit to the trace."""
    where, groups = f"line {line['step'] + 1}", facts["groups"]
    if len(line["options"]) != len(groups):
        yield f"{where} has {len(line['options'])} groups, and trace.json {len(groups)}"
    for i, group in enumerate(line["options"]):
        by = group.get("optimizer", facts["optimizer"])
        read = {key: OPTIONS[key] for key in OPTIONS if key in group}
        if by in OPTIMIZERS:  # those of other packages may have no rate
            read["lr"] = OPTIONS["lr"]
        yield from faults(group, read, f"{where}['options'][{i}]")
    if (line["loss64"] is None) == line["checked"]:
        yield f"{where} has 'checked' {line['checked']} and 'loss64' {line['loss64']}"
    if line["step"] == 0 and not line["checked"]:
        yield f"{where} is not checked, and the first step is in every trace"
    if line["stepped"] != ((line["step"] + 1) % facts.get("accumulation_steps", 1) == 0):
        yield f"{where} has 'stepped' {line['stepped']}"
