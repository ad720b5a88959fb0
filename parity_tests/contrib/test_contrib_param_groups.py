"""Groups of a tree, as timm and Hugging Face make them of the torch module."""

import jax.numpy as jnp
import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
from transformers.trainer_pt_utils import get_parameter_names

import jaxopt_port as jp
from jaxopt_port import contrib, interop
from parity_tests.contrib.cases import tree_of

# A vision transformer of two blocks, by timm's names.
SHAPES = {
    "cls_token": (1, 1, 4),
    "pos_embed": (1, 5, 4),
    "patch_embed.proj.weight": (4, 3, 2, 2),
    "patch_embed.proj.bias": (4,),
    **{
        f"blocks.{i}.{name}": shape
        for i in range(2)
        for name, shape in {"norm1.weight": (4,), "mlp.weight": (4, 4), "mlp.bias": (4,)}.items()
    },
    "norm.weight": (4,),
    "head.weight": (2, 4),
}
MATCHER = {
    "stem": r"^cls_token|pos_embed|patch_embed",
    "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
}
PARAMS = tree_of(SHAPES)


def named(groups):
    """Groups with torch's names, in no order."""
    return [
        {**group, "params": sorted(path.replace("/", ".") for path in group["params"])}
        for group in groups
    ]


def test_two_groups():
    made = contrib.param_groups_weight_decay(
        PARAMS, 0.05, no_weight_decay_list=["pos_*", "cls_token"]
    )
    decayed = ["blocks.0.mlp.weight", "blocks.1.mlp.weight", "head.weight"]
    decayed.append("patch_embed.proj.weight")
    assert named(made) == [
        {"params": sorted(set(SHAPES) - set(decayed)), "weight_decay": 0.0},
        {"params": decayed, "weight_decay": 0.05},
    ]
    state = jp.AdamW(made, lr=0.1).init(PARAMS)
    assert [group["weight_decay"] for group in jp.get_hyperparams(state)] == [0.0, 0.05]


def test_no_decay_is_one_group_and_fallbacks_are_apart():
    assert [g["weight_decay"] for g in contrib.param_groups_weight_decay(PARAMS, 0.0)] == [0.0]
    made = contrib.param_groups_weight_decay(
        PARAMS, 0.05, False, ["cls_token"], ["head.*"], fallback_no_weight_decay=True
    )
    assert [(g["weight_decay"], g.get("use_fallback")) for g in made] == [
        (0.05, None),
        (0.0, True),
        (0.05, True),
    ]
    assert named(made)[1]["params"] == ["cls_token"]
    assert named(made)[2]["params"] == ["head.weight"]


@pytest.mark.parametrize(("min_scale", "scales"), [(0.0, (0.125, 0.25, 0.5, 1.0)), (0.3, None)])
def test_layers_have_scales(min_scale, scales):
    made = contrib.param_groups_layer_decay(
        PARAMS, 0.05, layer_decay=0.5, min_scale=min_scale, group_matcher=MATCHER
    )
    found = {
        name: (group["lr_scale"], group["weight_decay"])
        for group in named(made)
        for name in group["params"]
    }
    stem, first, last, head = scales or (0.3, 0.3, 0.5, 1.0)
    assert set(found) == set(SHAPES)
    assert found["cls_token"] == (stem, 0.05)
    assert found["patch_embed.proj.bias"] == (stem, 0.0)
    assert found["blocks.0.mlp.weight"] == (first, 0.05)
    assert found["blocks.1.mlp.bias"] == (last, 0.0)
    assert found["norm.weight"] == (last, 0.0)  # of the layer before it
    assert found["head.weight"] == (head, 0.05)


def test_a_depth_is_enough_and_low_layers_may_rest():
    made = contrib.param_groups_layer_decay(
        PARAMS,
        layer_decay=0.5,
        no_opt_scale=0.3,
        group_matcher=lambda name: int(name.split(".")[1]) if "blocks" in name else -1,
    )
    assert made[-1]["frozen"]
    assert "cls_token" in made[-1]["params"]
    assert [group["lr_scale"] for group in made[:-1]] == [0.5, 0.5, 1.0, 1.0]
    scheduler = contrib.CosineLRScheduler(10)
    _, own = scheduler.init(jp.SGD(made, lr=0.4).init(PARAMS))
    assert scheduler.get_last_lr(own) == [0.2, 0.2, 0.4, 0.4]


def test_shapes_and_names_are_torchs_where_there_is_a_map():
    module = torch.nn.MultiheadAttention(4, 2)
    heads = {"kernel": jnp.zeros((4, 2, 2)), "bias": jnp.zeros((2, 2))}
    params = dict.fromkeys(("query", "key", "value"), heads)
    params["out"] = {"kernel": jnp.zeros((2, 2, 4)), "bias": jnp.zeros(4)}
    mapped = interop.param_map(module, params)
    made = contrib.param_groups_layer_decay(params, group_matcher=lambda name: 0, param_map=mapped)
    decays = {path: group["weight_decay"] for group in made for path in group["params"]}
    # One axis in torch, two here.
    assert decays["query/bias"] == 0.0
    assert decays["query/kernel"] == 0.05
    alone = contrib.param_groups_layer_decay(params, group_matcher=lambda name: 0)
    assert {p: g["weight_decay"] for g in alone for p in g["params"]}["query/bias"] == 0.05
    with pytest.raises(ValueError, match="the map has no leaf 'more'"):
        contrib.param_groups_weight_decay({**params, "more": jnp.ones(2)}, param_map=mapped)


SMALL = {"num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 4, "vocab_size": 7}


@pytest.mark.parametrize(
    "module",
    [
        BertModel(BertConfig(**SMALL, num_attention_heads=2)),
        GPT2Model(GPT2Config(n_layer=1, n_embd=4, n_head=2, vocab_size=7, n_positions=5)),
        torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.LayerNorm(2)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_hugging_faces_names(module):
    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    expected = set(get_parameter_names(module, [torch.nn.LayerNorm], patterns))
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    norms = [n for n, child in module.named_modules() if isinstance(child, torch.nn.LayerNorm)]
    decayed, other = named(
        contrib.param_groups_decay_names(tree_of(shapes), 0.1, layer_norms=norms)
    )
    assert (set(decayed["params"]), decayed["weight_decay"]) == (expected, 0.1)
    assert (set(other["params"]), other["weight_decay"]) == (set(shapes) - expected, 0.0)


def test_a_scale_is_a_layer_norms_by_default():
    params = {"ln": {"scale": jnp.ones(2), "bias": jnp.ones(2)}, "dense": {"kernel": jnp.ones(2)}}
    made = contrib.param_groups_decay_names(params, 0.1)
    assert [group["params"] for group in made] == [["dense/kernel"], ["ln/bias", "ln/scale"]]


MISTAKEN = [
    ("param_groups_weight_decay", {"no_weight_decay_list": "head.*"}, TypeError, r"\['head.\*'\]"),
    (
        "param_groups_layer_decay",
        {"fallback_list": "head.*"},
        TypeError,
        "fallback_list must be a li",
    ),
    ("param_groups_decay_names", {"layer_norms": "norm"}, TypeError, "layer_norms must be a list"),
    ("param_groups_layer_decay", {"params": {}}, ValueError, "the tree has no parameters"),
]


@pytest.mark.parametrize(("name", "given", "error", "message"), MISTAKEN)
def test_what_is_mistaken_is_said(name, given, error, message):
    more = {"group_matcher": MATCHER} if "layer_decay" in name else {}
    with pytest.raises(error, match=message):
        getattr(contrib, name)(**{"params": PARAMS, "weight_decay": 0.1, **more, **given})


@pytest.mark.parametrize("more", [{}, {"stem": r"^cls_token|pos_embed", "unused": None}])
def test_a_kind_of_layer_that_no_name_is_of_is_a_warning(more):
    matcher = {**more, "blocks": r"^block_(\d+)"}
    with pytest.warns(UserWarning, match=r"no parameter is of 'blocks', .* are blocks.0.mlp") as w:
        contrib.param_groups_layer_decay(PARAMS, group_matcher=matcher)
    assert [each.filename for each in w] == [__file__]


@pytest.mark.parametrize("tx", [jp.SGD(), jp.adam(0.1)])
def test_an_optimizer_in_the_parameters_place_is_said(tx):
    with pytest.raises(TypeError, match="params must be the parameters; got the optimizer"):
        contrib.param_groups_weight_decay(tx, 0.1)
