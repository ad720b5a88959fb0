"""Who is in which group: every kind of selector, and every error."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_port as jp

PARAMS = {
    "features": {"0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}},
    "classifier": {
        "0": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
        "10": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    },
}
ALL = {
    "features/0/kernel",
    "features/0/bias",
    "classifier/0/kernel",
    "classifier/0/bias",
    "classifier/10/kernel",
    "classifier/10/bias",
}
BIASES = {path for path in ALL if path.endswith("bias")}
CLASSIFIER = {path for path in ALL if path.startswith("classifier")}

KINDS = {
    "prefix": ("features", ALL - CLASSIFIER),
    "prefix of several components": ("classifier/0", {p for p in ALL if "classifier/0/" in p}),
    "prefix by whole components only": ("classifier/1*", {p for p in ALL if "/10/" in p}),
    "full path": ("features/0/bias", {"features/0/bias"}),
    "trailing slash": ("features/", ALL - CLASSIFIER),
    "glob": ("**/bias", BIASES),
    "glob in one component": ("classifier/*/bias", BIASES & CLASSIFIER),
    "glob of everything": ("**", ALL),
    "question mark": ("classifier/?", {p for p in ALL if "classifier/0/" in p}),
    "regex": (re.compile(r"0/k"), {p for p in ALL if p.endswith("kernel")}),
    "predicate": (lambda path, leaf: leaf.ndim == 1, BIASES),
    "what is empty or not": (lambda path, leaf: {"bias"} & set(path.split("/")), BIASES),
    "a count": (lambda path, leaf: path.count("bias"), BIASES),
    "boolean tree": (jax.tree.map(lambda x: x.ndim == 1, PARAMS), BIASES),
    "boolean tree of NumPy": (jax.tree.map(lambda x: np.bool_(x.ndim == 1), PARAMS), BIASES),
    "boolean prefix tree": ({"features": False, "classifier": True}, CLASSIFIER),
    "list": (["features", "**/bias"], (ALL - CLASSIFIER) | BIASES),
    "tuple of kinds": (("features", re.compile("10"), lambda p, _: p.endswith("0/bias")), None),
    "nested list": (["features", ["classifier"]], ALL),
    "rest": (jp.REST, ALL),
}
KINDS["tuple of kinds"] = (
    KINDS["tuple of kinds"][0],
    {p for p in ALL if "features" in p or "10" in p or p.endswith("0/bias")},
)


def chosen(tx, params=PARAMS, group=0):
    table = tx.init(params).table
    return {p for p, owner in zip(table.paths, table.assignment, strict=True) if owner == group}


@pytest.mark.parametrize("kind", KINDS)
def test_kind(kind):
    selector, expected = KINDS[kind]
    others = [] if expected == ALL else [{"params": jp.REST, "frozen": True}]
    assert chosen(jp.SGD([{"params": selector}, *others], lr=0.1)) == expected


@pytest.mark.parametrize("kind", [k for k, (_, paths) in KINDS.items() if paths == ALL])
def test_a_selector_alone_is_one_group(kind):
    assert chosen(jp.SGD(KINDS[kind][0], lr=0.1)) == ALL


def test_booleans_over_a_list_of_parameters_are_a_tree():
    tx = jp.SGD([{"params": [True, False]}, {"params": jp.REST}], lr=0.1)
    assert chosen(tx, [jnp.ones(1), jnp.ones(1)]) == {"0"}


def test_a_single_array_has_the_empty_path():
    assert chosen(jp.SGD("**", lr=0.1), jnp.ones(2)) == {""}
    assert chosen(jp.SGD(lr=0.1), jnp.ones(2)) == {""}


def test_groups_may_come_from_an_iterator():
    groups = ({"params": name} for name in PARAMS)
    assert chosen(jp.SGD(groups, lr=0.1)) == ALL - CLASSIFIER
    groups = iter([{"params": name} for name in PARAMS])
    assert chosen(jp.SGD(groups, lr=0.1), group=1) == CLASSIFIER


def rest(**options):
    return {"params": jp.REST, **options}


def group(params, **options):
    return {"params": params, **options}


# (groups, the message's pattern), raised by init.
INIT_ERRORS = {
    "a leaf in two groups": (
        [group("features"), group("**/bias"), rest()],
        r'some parameters appear in more than one parameter group: "features/0/bias" is in '
        r'group 0, "features" and in group 1, "\*\*/bias"',
    ),
    "a group that matches nothing": (
        [group("featurs"), rest()],
        r'group 0, "featurs" matched no parameter; did you mean "features"',
    ),
    "a named group that matches nothing": (
        [rest(), group("classifier/3", name="head")],
        r'group 1, "head" matched no parameter; did you mean "classifier/0"',
    ),
    "torch's dots": (
        [group("features.0"), rest()],
        r'paths are joined by "/", not ".": "features/0"',
    ),
    "a regex that matches nothing": (
        [group(re.compile("nothing")), rest()],
        r'group 0, re.compile\("nothing"\) matched no parameter; the paths are "classifier/0/bias"',
    ),
    "a predicate that matches nothing": (
        [group(lambda path, leaf: False), rest()],
        r"group 0, .*<lambda> matched no parameter; the paths are",
    ),
    "a boolean tree of False": (
        [group({"features": False, "classifier": False}), rest()],
        r"group 0, a boolean pytree matched no parameter",
    ),
    "all of a list matches nothing": (
        [group(["stem", "neck"]), rest()],
        r'group 0, \["stem", "neck"\] matched no parameter',
    ),
    "an empty list": (
        [group([], name="stem"), rest()],
        r'the list of parameters of group 0, "stem" is empty; leave the group out',
    ),
    "a leaf in no group": (
        [group("features"), group("classifier/0")],
        r'"classifier/10/bias" \(and 1 more\) is in no parameter group; add '
        r'\{"params": jp.REST\} to train the rest, or \{"params": jp.REST, "frozen": True\}',
    ),
    "REST twice": (
        [rest(), rest(lr=0.2)],
        r"only one group may have it; group 0, jp.REST and group 1, jp.REST both do",
    ),
    "a boolean tree of another structure": (
        [group({"features": True, "head": False}), rest()],
        r"a boolean pytree that selects parameters must have the structure of the parameters",
    ),
}


@pytest.mark.filterwarnings("ignore:the selector")
@pytest.mark.parametrize("case", INIT_ERRORS)
def test_init_error(case):
    groups, message = INIT_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        jp.SGD(groups, lr=0.1).init(PARAMS)


# (what SGD is given, error, the message's pattern), raised as the optimizer is built.
BUILD_ERRORS = {
    "one dict": (group("features"), TypeError, "parameter groups are a list of dicts"),
    "no groups": ([], ValueError, "optimizer got an empty parameter list"),
    "groups and selectors": (
        [group("features"), "classifier"],
        TypeError,
        "each parameter group must be a dict; got 'classifier' among dicts",
    ),
    "no params entry": ([{"lr": 0.1}], ValueError, "group 0 has no 'params' entry"),
    "the learning rate in its place": (
        0.1,
        TypeError,
        r"params argument given to the optimizer should be a path.*\(group 0\); got 0.1",
    ),
    "a set": ([group({"features"}), rest()], TypeError, r"must stand in a list.*got set; list"),
    "a generator": ([group(x for x in ["features"]), rest()], TypeError, "got generator; list"),
    "the parameters themselves": (
        PARAMS,
        TypeError,
        r"params argument given .* got parameters themselves, which are given to tx.init\(params\)",
    ),
    "a list of parameters": (
        jax.tree.leaves(PARAMS),
        TypeError,
        "got parameters themselves",
    ),
    "parameters in a group": (
        [rest(), group(PARAMS["features"])],
        TypeError,
        r"\(group 1\); got parameters themselves",
    ),
    "REST in a list": (
        [group(["features", jp.REST])],
        ValueError,
        r"jp.REST cannot stand in a list \(group 0\)",
    ),
    "a name given twice": (
        [group("features", name="a"), rest(name="a")],
        ValueError,
        'two parameter groups are named "a"',
    ),
    "a name that is no string": ([rest(name=3)], TypeError, "the name of group 0 must be a string"),
    "a frozen group with options": (
        [rest(frozen=True, lr=0.1)],
        ValueError,
        r"group 0, jp.REST is frozen: its option 'lr' has no use",
    ),
    "an unknown option": (
        [group("features", momentun=0.9), rest()],
        TypeError,
        r"unknown option 'momentun' \(group 0, \"features\"\); did you mean \"momentum\"\?; the "
        r"options are lr, momentum, dampening",
    ),
    "an unknown option of a frozen group": (
        [rest(frozen=True, lrr=1.0)],
        TypeError,
        r"unknown option 'lrr' \(group 0, jp.REST\)",
    ),
    "a bad number in a group": (
        [group("features"), group("classifier", name="head", lr=-0.1)],
        ValueError,
        r'Invalid learning rate: -0.1 \(group 1, "head"\); lr must be >= 0.',
    ),
}


@pytest.mark.parametrize("case", BUILD_ERRORS)
def test_build_error(case):
    groups, error, message = BUILD_ERRORS[case]
    with pytest.raises(error, match=message):
        jp.SGD(groups, lr=0.1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda path, x: "decay" if x.ndim > 1 else "none", r"returned 'none'\. .* labels makes"),
        (
            lambda path, x: np.array([True, False]),
            r"returned array\(\[ True, False\]\)\. A group has",
        ),
    ],
    ids=["labels", "elements"],
)
def test_a_predicate_answers_yes_or_no(answer, message):
    tx = jp.SGD([group(answer), rest()], lr=0.1)
    with pytest.raises(TypeError, match=r"must return True or False; of .* it " + message):
        tx.init(PARAMS)


class Layers(nnx.Module):
    def __init__(self, rngs):
        self.head, self.overhead = (nnx.Linear(2, 2, rngs=rngs) for _ in range(2))
        self.lora = nnx.LoRALinear(2, 2, lora_rank=1, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(1, 1, rngs=rngs) for _ in range(11)])


FILTERS = [
    nnx.PathContains("head"),
    nnx.PathContains(1),
    nnx.LoRAParam,
    nnx.OfType(nnx.LoRAParam),
    nnx.Not(nnx.LoRAParam),
    nnx.Any(nnx.LoRAParam, nnx.PathContains("head")),
    nnx.All(nnx.Param, nnx.PathContains("kernel")),
]


@pytest.mark.parametrize("by", FILTERS, ids=str)
def test_a_filter_of_nnx_selects_what_it_selects_there(by):
    model = Layers(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    tx = jp.SGD([group(by), rest(frozen=True)], lr=0.1)
    paths = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, by))}
    assert chosen(tx, params) == paths
    with pytest.raises(TypeError, match="a filter of Flax NNX, which is asked of Variables"):
        tx.init(nnx.to_pure_dict(params))
    with pytest.raises(ValueError, match=r"a class of Variables, .* selects by itself"):
        jp.SGD(lambda path, leaf: isinstance(leaf, nnx.Param), lr=0.1).init(params)


WRAPPINGS = {
    "bare": lambda tx: tx.init(PARAMS),
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx).init(PARAMS),
    "jit": lambda tx: jax.jit(tx.init)(PARAMS),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_part_of_a_list_that_matches_nothing_warns_at_the_users_line(wrapping):
    tx = jp.SGD([{"params": ["classifier/0", "classifier/3"]}, {"params": jp.REST}], lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WRAPPINGS[wrapping](tx)
    (warning,) = caught
    assert warning.filename == __file__
    assert re.match(
        r'the selector "classifier/3" of group 0, \["classifier/0", "classifier/3"\] matched no '
        'parameter; did you mean "classifier/0"',
        str(warning.message),
    )
