"""The state of a scheduler: a pytree of int32 and float32 arrays.

While a scheduler runs, its values stand in an `Own`, under torch's attribute names, as numbers that
can be calculated with. Between steps they are arrays whose structure and dtypes never change.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import decoded, encoded
from ._arithmetic import Traced, Value, absent_in, lift, raw, where

# The attributes of one of torch's scheduler objects; those of its own schedulers in `_schedulers`.
Own: TypeAlias = SimpleNamespace


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["values", "param_groups"], meta_fields=["kind"]
)
@dataclass(frozen=True)
class SchedulerState:
    """What a scheduler remembers between steps.

    A count is an int32 scalar, a number three float32 parts whose sum it is, and a number for each
    group is a row of such parts for each. So it survives wherever float32 does, exactly.

    Attributes:
        values: by torch's attribute names; those of a composite's schedulers are dicts in a list
            under ``"_schedulers"``.
        param_groups: what torch's schedulers keep in the optimizer's ``param_groups``, such as
            ``"initial_lr"``.
        kind: which scheduler it belongs to.
    """

    values: dict[str, Any]
    param_groups: dict[str, Any]
    kind: str = field(default="")


def encode(own: Own, before: Own | None = None, arrays: Any = None) -> dict[str, Any]:
    """Return the attributes as arrays.

    Args:
        own: the attributes.
        before: what ``arrays`` was decoded as; what is still the same is not encoded again.
        arrays: the earlier arrays.
    """
    return {
        name: _unchanged(value, getattr(before, name, None), arrays, name)
        for name, value in sorted(vars(own).items())
    }


def _unchanged(value: Any, before: Any, arrays: Any, name: str) -> Any:
    if isinstance(value, list):
        if before is None:
            return [encode(own) for own in value]
        return [encode(*each) for each in zip(value, before, arrays[name], strict=True)]
    if before is value:
        return arrays[name]
    if isinstance(value, Traced) and arrays and arrays[name].dtype == np.int32:
        return value.value.astype(jnp.int32)
    return encode_value(value)


def encode_entries(entries: dict[str, Value]) -> dict[str, Any]:
    """Return the groups' entries as arrays; groups at the end that have none are left out."""
    return {name: encode_value(_known(value)) for name, value in sorted(entries.items())}


def _known(value: Value) -> Any:
    held = np.flatnonzero(~absent_in(value))
    return raw(value)[: held[-1] + 1 if len(held) else 0]


def encode_value(value: Value) -> Any:
    value = raw(value)
    return np.asarray(value, np.int32) if isinstance(value, int) else encoded(value)


def decode(values: dict[str, Any], traced: bool) -> Own:
    return Own(**{name: decode_value(value, traced) for name, value in values.items()})


def decode_value(value: Any, traced: bool) -> Value:
    if isinstance(value, list):
        return [decode(own, traced) for own in value]
    if value.dtype == np.int32:
        return lift(jnp.asarray(value)) if traced else int(value)
    number = decoded(value)
    if traced:
        return lift(jnp.asarray(number))
    return number if np.ndim(number) else float(number)


def copied(own: Own) -> Own:
    return Own(
        **{
            name: [copied(child) for child in value] if isinstance(value, list) else value
            for name, value in vars(own).items()
        }
    )


def merge(condition: Traced, then: Own, otherwise: Own) -> Own:
    """Return ``then`` where the condition holds, value by value."""
    merged = {}
    for name, value in vars(then).items():
        other = getattr(otherwise, name)
        if isinstance(value, list):
            pairs = zip(value, other, strict=True)
            merged[name] = [merge(condition, a, b) for a, b in pairs]
        else:
            merged[name] = where(condition, value, other)
    return Own(**merged)
