"""Reports and other facts as JSON values, and back: infinities and NaNs are texts there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._report import Cause, Distance, Divergence, Element, LeafResult, StageResult


def plain(value: Any) -> Any:
    """Return JSON values: NumPy's as Python's, what JSON has not as its text."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    finite = not isinstance(value, float) or math.isfinite(value)
    known = isinstance(value, (bool, int, float, str, type(None)))
    return value if known and finite else str(value)


_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_NAMES = ("name", "leaf", "torch_name")


def floats_of(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, Mapping):
        return {key: v if key in _NAMES else floats_of(v) for key, v in value.items()}
    if isinstance(value, list):
        return [floats_of(v) for v in value]
    return value


def stage_of(record: Any) -> StageResult:
    leaves = [
        LeafResult(
            **{
                **leaf,
                "worst": Distance(**leaf["worst"]),
                "ulps": {int(step): ulps for step, ulps in leaf["ulps"].items()},
            }
        )
        for leaf in record["leaves"]
    ]
    return StageResult(**{**record, "leaves": leaves})


def divergence_of(record: Any) -> Divergence | None:
    if record is None:
        return None
    elements = tuple(Element(**{**e, "index": tuple(e["index"])}) for e in record["elements"])
    cause = _cause(record["cause"])
    distance = Distance(**record["distance"])
    changed = {"elements": elements, "cause": cause, "distance": distance}
    return Divergence(**{**record, **changed, "leaves": tuple(record["leaves"])})


def _cause(record: Any) -> Cause | None:
    if record is None:
        return None
    also = tuple(c for c in map(_cause, record.get("also", ())) if c is not None)
    return Cause(**{**record, "also": also})
