"""Arrays, records and layouts that do not fit a map are refused, each with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxopt_port.interop import (
    Entry,
    Layout,
    ParamMap,
    param_map,
    params_from_torch,
    params_to_torch,
)
from parity_tests.oracles.two_layers import Tied, assert_begin, listed

T = torch.nn
Z = jnp.zeros

LINEAR = T.Linear(3, 2)
LIKE = {"kernel": Z((3, 2)), "bias": Z(2)}
MAP = param_map(LINEAR, LIKE)
PARTS = ParamMap(
    (
        Entry("a", "w", (4, 2), "float32", rows=(0, 2)),
        Entry("b", "w", (4, 2), "float32", rows=(2, 4)),
    ),
    ("w",),
)
# A call of a map with arrays that it is not of, and the lines of its error.
MISFITS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "from torch": (
        lambda: MAP.from_torch({"weight": np.zeros((3, 2)), "bais": np.zeros(2)}),
        ('bais: the map has no such tensor; did you mean "bias"', "bias: missing", "weight: shape"),
    ),
    "to torch": (
        lambda: MAP.to_torch({"kernel": np.zeros((2, 3)), "kernle": np.zeros(2)}),
        (
            "bias: missing (torch's bias)",
            "kernel: shape (2, 3), not (3, 2)",
            'kernle: the map has no such leaf; did you mean "kernel"',
        ),
    ),
    "tied values that differ": (
        lambda: param_map(Tied(), {"head": {"kernel": Z((4, 5))}}).from_torch(
            {"embed.weight": np.zeros((5, 4)), "head.weight": np.ones((5, 4))}
        ),
        ('head.weight: tied to "embed.weight", but its values differ',),
    ),
    "a part, even where not strict": (
        lambda: PARTS.to_torch({"a": np.zeros((2, 2))}, strict=False),
        ("b: missing (torch's w)",),
    ),
    "parts of two dtypes": (
        lambda: PARTS.to_torch({"a": np.zeros((2, 2)), "b": np.zeros((2, 2), np.float32)}),
        ("w: its parts have different dtypes: float64, float32",),
    ),
    "a map of some rows": (
        lambda: ParamMap(PARTS.entries[:1], ("w",)).to_torch({"a": np.zeros((2, 2))}),
        ("w: the map has only some of its rows",),
    ),
    "a map of another tree": (
        lambda: params_from_torch(LINEAR, {"kernel": Z((3, 2)), "scale": Z(2)}, MAP),
        ("bias: missing from the JAX tree", "scale: the map has no such leaf"),
    ),
    "a map of another shape": (
        lambda: params_from_torch(LINEAR, {"kernel": Z((3, 4)), "bias": Z(2)}, MAP),
        ("kernel: shape (3, 4), not (3, 2)",),
    ),
    "a map of another module": (
        lambda: params_to_torch(LIKE, T.Linear(3, 4, bias=False), MAP),
        ("bias: the module has no bias", "kernel: the map has shape (2, 3), torch's weight (4, 3)"),
    ),
    "a module without values": (
        lambda: params_to_torch(LIKE, T.Linear(3, 2, device="meta"), MAP),
        ("bias: torch's bias is on the device meta", "kernel: torch's weight is on the device"),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_arrays_that_a_map_is_not_of(name: str) -> None:
    call, begins = MISFITS[name]
    assert_begin(sorted(listed(call, ":\n")), begins)


RECORD = MAP.to_json()
RECORDS: dict[str, Any] = {
    "no mapping": [],
    "no entries": {"torch_names": []},
    "an entry without a path": {**RECORD, "entries": [{"torch_name": "a"}]},
    "a dtype that is none": {**RECORD, "entries": [{**RECORD["entries"][0], "dtype": "float99"}]},
    "axes that do not fit": {**RECORD, "entries": [{**RECORD["entries"][0], "axes": [5]}]},
    "rows that do not fit": {**RECORD, "entries": [{**RECORD["entries"][0], "rows": [1, 9]}]},
    "aliases that are none": {**RECORD, "aliases": ["a"]},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record(name: str) -> None:
    assert ParamMap.from_json(RECORD) == MAP
    with pytest.raises(ValueError, match="This is no record of a ParamMap: "):
        ParamMap.from_json(RECORDS[name])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(rows=(2, 9)), "rows 2 to 9 are not within"),
        (Layout(view=(5, 5)), "cannot be viewed as"),
        (Layout(axes=(0,)), r"axes \(0,\) do not transpose"),
        (Layout(flip=(2,)), "is not of 2 axes"),
    ],
)
def test_a_layout_that_does_not_fit(layout: Layout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.to_jax(np.zeros((3, 4)))
    assert not layout.fits((3, 4), (3, 4))


def test_a_leaf_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\), not \(3, 2\)"):
        Layout((1, 0)).to_torch(np.zeros((2, 3)), (2, 3))
