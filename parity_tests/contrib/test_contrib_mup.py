"""muP's groups of a Flax tree, beside those that mup made of the torch module."""

import json

import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib.cases import tree_of
from parity_tests.contrib.mup_cases import (
    BASE,
    DELTA,
    NAMES,
    NUMBERS,
    OPTIMIZERS,
    PARAMS,
    RECORDED,
    TARGET,
    Network,
    ours,
    plain,
    tree,
)

EXPECTED = json.loads(RECORDED.read_text())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("split", [False, True], ids=["all", "apart"])
def test_mups_groups(optimizer, split):
    made = ours(optimizer, split)
    assert plain(made, NAMES.get) == EXPECTED[f"{optimizer} {split}"]
    if not split:
        jp.AdamW(made, lr=0.1).init(PARAMS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_axes_are_told_without_a_map(optimizer):
    """Of torch's own names and axes, and of Flax's kernels."""
    three = [
        tree_of({name: tuple(p.shape) for name, p in Network(sizes).named_parameters()})
        for sizes in (TARGET, BASE, DELTA)
    ]
    three = [{**made, "mix": {**made["mix"]}} for made in three]
    for made in three:
        made["mix"]["in_proj"] = {"weight": made["mix"].pop("in_proj_weight")}
    made = contrib.param_groups_mup(*three, **NUMBERS, optimizer=optimizer)
    names = {"mix/in_proj/weight": "mix.in_proj_weight"}
    named = plain(made, lambda path: names.get(path, path.replace("/", ".")))
    assert named == EXPECTED[f"{optimizer} False"]

    flax = [{k: v for k, v in tree(s).items() if k != "mix"} for s in (TARGET, BASE, DELTA)]
    made = contrib.param_groups_mup(*flax, **NUMBERS, optimizer=optimizer)
    left = [
        [*numbers, kept]
        for *numbers, names in EXPECTED[f"{optimizer} False"]
        if (kept := [name for name in names if not name.startswith("mix.")])
    ]
    assert plain(made, NAMES.get) == left


def test_a_model_without_a_delta_is_its_own():
    narrow, wide = {"kernel": PARAMS["up"]["kernel"][:8, :12]}, {"kernel": PARAMS["up"]["kernel"]}
    (group,) = contrib.param_groups_mup(wide, narrow, lr=0.3)
    assert group["lr"] == 0.3 / 3.0
    (group,) = contrib.param_groups_mup(wide, wide, lr=0.3)
    assert group["lr"] == 0.3


ONE = {"mix": {"query": PARAMS["mix"]["query"]}}
BASE_ONE = {"mix": {"query": tree(BASE)["mix"]["query"]}}
BAD = [
    ((ONE, BASE_ONE), {}, "'mix/query/kernel' is .* give param_map"),
    ((PARAMS, ONE), {}, "base must have the leaves of params, and has no leaf 'conv/bias'"),
    ((ONE, ONE, PARAMS), {}, "delta must have the leaves of params, and has another leaf 'conv"),
    (
        (ONE, {"mix": {"query": {"kernel": ONE["mix"]["query"]["bias"], "bias": 0.0}}}),
        {},
        "the same axes",
    ),
    ((ONE, ONE), {"optimizer": "Adam"}, "optimizer is 'MuAdam', 'MuAdamW' or 'MuSGD'; got 'Adam'"),
    ((ONE, ONE), {"groups": [{"params": ["mix"]}]}, "there is no leaf 'mix'"),
]


@pytest.mark.parametrize(("given", "more", "message"), BAD)
def test_what_is_wrong_is_said(given, more, message):
    with pytest.raises(ValueError, match=message):
        contrib.param_groups_mup(*given, lr=0.1, **more)


def test_three_wide_axes_are_refused():
    wide, narrow = ({"weight": np.zeros((n, n, n))} for n in (4, 2))
    with pytest.raises(ValueError, match="more than 2 inf dimensions: 'weight'"):
        contrib.param_groups_mup(wide, narrow, lr=0.1)
