"""What a trace holds of a step, as the recorder's own words for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..recorder import Checked, Evaluation, Update

Array = NDArray[Any]


def evaluation_of(line: Mapping[str, Any], tensors: Mapping[str, Array], batch: Any) -> Evaluation:
    """Return a step before the optimizer made it."""
    checked = None
    if line["checked"]:
        checked = Checked(
            params=_under(tensors, "checked/param/"),
            buffers=_under(tensors, "checked/buffer/"),
            output=_numbered(tensors, "checked/output/"),
            buffers_after=_under(tensors, "checked/buffer_after/"),
            output64=_numbered(tensors, "checked64/output/"),
            loss64=line["loss64"],
            grads64=_under(tensors, "checked64/grad/"),
            buffers_after64=_under(tensors, "checked64/buffer_after/"),
        )
    grads, options = _under(tensors, "grad/"), [_options(group) for group in line["options"]]
    fed = _under(tensors, "fed/") or None
    return Evaluation(line["step"], batch, line["loss"], grads, options, checked, fed)


def update_of(
    line: Mapping[str, Any], tensors: Mapping[str, Array], dtypes: Mapping[str, str]
) -> Update:
    """Return what the optimizer's step left."""
    params, params64 = _under(tensors, "param/"), _under(tensors, "param64/")
    recorded = bool(params) or not params64
    if not recorded:
        params = {name: p.astype(np.dtype(dtypes[name])) for name, p in params64.items()}
    return Update(
        clipped=_under(tensors, "clipped/"),
        clipped64=_under(tensors, "clipped64/"),
        params=params,
        state=_states(line.get("state", {}), _under(tensors, "state/")),
        params64=params64,
        state64=_states(line.get("state64", {}), _under(tensors, "state64/")),
        own_dtype=recorded,
        stepped=line.get("stepped", True),
        grads=_under(tensors, "given/"),
        averages=_under(tensors, "average/"),
        averages64=_under(tensors, "average64/"),
    )


def _under(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


def _numbered(tensors: Mapping[str, Array], prefix: str) -> list[Array]:
    held = _under(tensors, prefix)
    return [held[str(i)] for i in range(len(held))]


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) and name != "params" else value
        for name, value in group.items()
    }


def _states(
    numbers: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Array]
) -> dict[str, dict[str, Any]]:
    states = {name: dict(held) for name, held in numbers.items()}
    for place, array in tensors.items():
        name, _, key = place.rpartition("/")
        states.setdefault(name, {})[key] = array
    return {name: state for name, state in states.items() if state}
