"""What a map cannot be made of, or cannot carry: each is named, with what to do."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxopt_port.interop import (
    optimizer_from_torch,
    param_map,
    params_from_torch,
    params_to_torch,
)
from parity_tests.oracles.two_layers import Tied, assert_begin, listed

T = torch.nn
Z = jnp.zeros


class Refused(NamedTuple):
    module: Callable[[], Any]
    like: Callable[[], Any]
    lines: tuple[str, ...]  # how each line begins, all of them
    options: Any = None


def _square(name: str = "kernel") -> Any:
    return {name: Z((3, 3)), "bias": Z(3)}


def _nnx(make: Callable[[nnx.Rngs], Any]) -> Callable[[], Any]:
    return lambda: nnx.eval_shape(lambda: make(nnx.Rngs(0)))


UNSURE = "torch's weight (3, 3) fits in more than one layout, and what its layer is does not decide"
REFUSED: dict[str, Refused] = {
    "layers in one array": Refused(
        lambda: T.ModuleDict({"h": T.ModuleList(T.Linear(3, 4) for _ in range(2))}),
        lambda: {"h": {"kernel": Z((2, 3, 4)), "bias": Z((2, 4))}},
        (
            *(f"h/{i}/{n}: missing from the JAX tree" for i in (0, 1) for n in ("kernel", "bias")),
            "h/bias: torch's module has no such parameter; it has all layers in one array (a scan",
            "h/kernel: torch's module has no such parameter",
        ),
    ),
    "a square weight of a state dict": Refused(
        lambda: T.Linear(3, 3).state_dict(),
        _square,
        (f"kernel: {UNSURE}: None (as is) or (1, 0) (transposed (1, 0)); give layouts=",),
    ),
    "torch's name, square": Refused(
        lambda: T.Linear(3, 3), lambda: _square("weight"), (f"weight: {UNSURE}",)
    ),
    "a square weight of a layer that is not torch's": Refused(
        lambda: _own_layer(), lambda: {"kernel": Z((3, 3))}, (f"kernel: {UNSURE}",)
    ),
    "a transposed convolution": Refused(
        lambda: T.ConvTranspose2d(3, 3, 2),
        lambda: {"kernel": Z((2, 2, 3, 3)), "bias": Z(3)},
        (
            "kernel: torch's weight (3, 3, 2, 2) fits in more than one layout, and what its layer"
            " is does not decide: (2, 3, 1, 0) (transposed (2, 3, 1, 0)) or"
            " Layout(axes=(2, 3, 0, 1), flip=(0, 1)) (transposed (2, 3, 0, 1), reversed along",
        ),
    ),
    "a convolution of a state dict": Refused(
        lambda: {"weight": np.zeros((4, 4, 3))},
        lambda: {"kernel": Z((3, 4, 4))},
        ("kernel: torch's weight (4, 4, 3) fits in more than one layout",),
    ),
    "Linen's own names": Refused(
        lambda: T.Sequential(T.Linear(3, 2)),
        lambda: {"params": {"Dense_0": {"kernel": Z((3, 2)), "bias": Z(2)}}},
        (
            "0/kernel: missing from the JAX tree (torch's 0.weight); params/Dense_0/kernel would"
            " fit by shape: give a rename rule",
            "0/bias: missing from the JAX tree (torch's 0.bias); params/Dense_0/bias would",
            "params/Dense_0/bias: torch's module has no such parameter; did you mean \"0/bias",
            "params/Dense_0/kernel: torch's module has no such parameter; did you mean",
        ),
    ),
    "a rule and a layout of no use": Refused(
        lambda: T.Linear(3, 2),
        lambda: {"kernel": Z((3, 2)), "bias": Z(2)},
        (
            'rename: "foo" matches none of torch\'s names',
            'layouts: "wieght" is no name or path that was looked at; did you mean "weight"?',
        ),
        {"rename": {"foo": "bar"}, "layouts": {"wieght": None}},
    ),
    "two tensors for one leaf": Refused(
        lambda: T.Sequential(T.Linear(3, 2, bias=False), T.Linear(3, 2, bias=False)),
        lambda: {"0": {"kernel": Z((3, 2))}},
        ("0/kernel: both torch's 0.weight and 1.weight",),
        {"rename": {"^1": "0"}},
    ),
    "a layout that does not fit": Refused(
        lambda: T.Linear(3, 2, bias=False),
        lambda: {"kernel": Z((3, 2))},
        ("kernel: shape (3, 2), where torch's weight (2, 3) gives none: axes (0, 2) do not",),
        {"layouts": {"weight": (0, 2)}},
    ),
    "a layout of another shape": Refused(
        lambda: T.Linear(3, 2, bias=False),
        lambda: {"kernel": Z((3, 2))},
        ("kernel: shape (3, 2), where torch's weight (2, 3) gives (2, 3)",),
        {"layouts": {"weight": None}},
    ),
    "tied and apart": Refused(
        Tied,
        lambda: {"embed": {"embedding": Z((5, 4))}, "head": {"kernel": Z((4, 5))}},
        (
            "embed/embedding and head/kernel: torch ties embed.weight and head.weight; here they"
            " would be trained apart: keep one leaf for both",
        ),
    ),
    "tied and nowhere": Refused(
        Tied, dict, ("embed/embedding: missing from the JAX tree (torch's embed.weight)",)
    ),
    "LSTM's biases": Refused(
        lambda: T.LSTM(4, 3),
        _nnx(lambda r: nnx.RNN(nnx.OptimizedLSTMCell(4, 3, rngs=r))),
        (
            "cell/dense_i/bias: missing from the JAX tree (torch's bias_ih_l0); torch adds two"
            " biases to each gate and Flax's cells one, so neither gives the other: have two"
            " in both, or none in both (bias=False in torch); write model.cell.dense_i ="
            " nnx.Linear(4, 12, rngs=rngs)",
        ),
    ),
    "LSTM's gates' biases": Refused(
        lambda: T.LSTMCell(4, 3),
        _nnx(lambda r: nnx.LSTMCell(4, 3, rngs=r)),
        (
            "ii/bias: missing from the JAX tree (torch's bias_ih); torch adds two biases",
            *(
                f"{name}/bias: missing from the JAX tree (torch's bias_ih); write model.{name} ="
                for name in ("if_", "ig", "io")
            ),
        ),
    ),
    "GRU's biases": Refused(
        lambda: T.GRU(4, 3, bias=False),
        _nnx(lambda r: nnx.RNN(nnx.GRUCell(4, 3, rngs=r))),
        ("cell/dense_i/bias: torch's module has no such parameter; torch adds two biases",),
    ),
    "Linen's biases": Refused(
        lambda: T.LSTM(4, 3, bias=False),
        lambda: {
            "dense_i": {"kernel": Z((4, 12))},
            "dense_h": {"kernel": Z((3, 12)), "bias": Z(12)},
        },
        (
            "dense_h/bias: torch's module has no such parameter; torch adds two biases to each gate"
            " and Flax's cells one, so neither gives the other: have two in both, or none in both"
            " (bias=False in torch); Linen's cells always have their one: write a cell",
        ),
    ),
    "a slope for each channel": Refused(
        lambda: T.PReLU(4),
        _nnx(lambda r: nnx.PReLU()),
        (
            "negative_slope: shape (), where torch's weight (4,) gives (4,); Flax's PReLU has one"
            " slope for all",
        ),
    ),
    "LSTM's projection": Refused(
        lambda: T.LSTM(4, 3, proj_size=2, bias=False),
        lambda: {"dense_i": {"kernel": Z((4, 12))}, "dense_h": {"kernel": Z((2, 12))}},
        ("weight_hr_l0: missing from the JAX tree (torch's weight_hr_l0)",),
    ),
    "another number of heads": Refused(
        lambda: T.MultiheadAttention(6, 2, bias=False),
        lambda: {
            **{name: {"kernel": Z((6, 3, 2))} for name in ("query", "key", "value")},
            "out": {"kernel": Z((2, 3, 6))},
        },
        tuple(
            f"{name}/kernel: shape (6, 3, 2), where torch's in_proj_weight (18, 6) gives (6, 2, 3)"
            for name in ("query", "key", "value")
        ),
    ),
    "attention's own biases": Refused(
        lambda: T.MultiheadAttention(6, 2, bias=False, add_bias_kv=True),
        lambda: {
            **{name: {"kernel": Z((6, 2, 3))} for name in ("query", "key", "value")},
            "out": {"kernel": Z((2, 3, 6))},
        },
        ("bias_k: missing from the JAX tree", "bias_v: missing from the JAX tree"),
    ),
    "half of the statistics": Refused(
        lambda: T.Sequential(T.BatchNorm1d(3, affine=False)),
        lambda: {"params": {}, "batch_stats": {"0": {"mean": Z(3)}}},
        ("batch_stats/0/var: missing from the JAX tree (torch's 0.running_var)",),
    ),
}


def _own_layer() -> Any:
    layer = T.Module()
    layer.weight = T.Parameter(torch.zeros(3, 3))
    return layer


@pytest.mark.parametrize("name", REFUSED)
def test_all_that_is_wrong_is_listed(name: str) -> None:
    case = REFUSED[name]
    call = functools.partial(param_map, case.module(), case.like(), **(case.options or {}))
    assert_begin(listed(call, "do not have the same parameters:"), case.lines)


CELLS: dict[str, tuple[Any, Any]] = {
    "LSTM": (T.LSTM, nnx.OptimizedLSTMCell),
    "LSTM, gates apart": (T.LSTM, nnx.LSTMCell),
    "GRU": (T.GRU, nnx.GRUCell),
    "RNN": (T.RNN, nnx.SimpleCell),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_what_is_said_of_biases_can_be_followed(name: str, bias: bool) -> None:
    of_torch, cell = CELLS[name]
    module = of_torch(4, 3, num_layers=2, bias=bias, batch_first=True)

    def followed(lines: str) -> nnx.Module:
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(*(nnx.RNN(cell(n, 3, rngs=rngs)) for n in (4, 3)))
        exec(lines, {"model": model, "nnx": nnx, "rngs": rngs})
        return model

    model = nnx.eval_shape(lambda: followed(""))
    with pytest.raises(ValueError, match="torch adds two biases") as caught:
        param_map(module, model)
    lines = "\n".join(re.findall(r"; write (model.*)", str(caught.value)))
    made = param_map(module, nnx.eval_shape(lambda: followed(lines)))
    assert {entry.torch_name for entry in made.entries} == dict(module.named_parameters()).keys()


@pytest.mark.parametrize("layers", [False, True])
def test_a_state_asks_for_the_map_of_its_model(layers: bool) -> None:
    """Which says what its layers are, and where nnx.Sequential has them."""
    module: Any = T.ConvTranspose2d(3, 3, 2)
    model: Any = nnx.ConvTranspose(3, 3, (2, 2), padding="VALID", rngs=nnx.Rngs(0))
    if layers:
        module, model = T.Sequential(module), nnx.Sequential(model)
    optimizer = torch.optim.SGD(module.parameters())
    params = nnx.state(model, nnx.Param)
    with pytest.raises(ValueError, match=r"param_map=interop\.param_map\(module, model\)\n"):
        optimizer_from_torch(optimizer, params, module)
    given = {"param_map": param_map(module, model)}
    assert optimizer_from_torch(optimizer, params, module=module, **given)


def test_strict_false_forgives_no_doubt_and_no_shape() -> None:
    like = {"0": _square(), "1": {"kernel": Z((3, 5))}}
    state_dict = T.Sequential(T.Linear(3, 3), T.Linear(3, 4), T.Linear(2, 2)).state_dict()
    lines = listed(lambda: param_map(state_dict, like, strict=False), "same parameters")
    assert [line.partition(":")[0] for line in lines] == ["0/kernel", "1/kernel"]


LINEAR = T.Linear(3, 2)
LIKE = {"kernel": Z((3, 2)), "bias": Z(2)}
MAP = param_map(LINEAR, LIKE)
# A call with an argument of the wrong kind, and how its TypeError begins.
WRONG_KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (
        lambda: param_map(3, LIKE),
        r"Expected a torch\.nn\.Module or its state_dict\(\), a mapping .* got int",
    ),
    "a number in a state dict": (
        lambda: param_map({"epoch": 3}, LIKE),
        "A state dict maps names to tensors; 'epoch' has int",
    ),
    "a file of several": (
        lambda: params_from_torch({"model": LINEAR.state_dict()}, LIKE),
        "A state dict maps names to tensors; 'model' has OrderedDict. Where a file holds more",
    ),
    "no rule": (
        lambda: param_map(LINEAR, LIKE, rename=["weight"]),
        r"rename takes a mapping or a list of \(regular expression, replacement\)",
    ),
    "no expression": (
        lambda: param_map(LINEAR, LIKE, rename={"(": "a"}),
        r"rename takes a mapping or a list .* missing \)",
    ),
    "a function that gives no path": (
        lambda: param_map(LINEAR, LIKE, rename=lambda name: 3),
        r"rename\('weight'\) gave 3, not a path or None",
    ),
    "no layout": (
        lambda: param_map(LINEAR, LIKE, layouts={"weight": "transposed"}),
        r"layouts\['weight'\] must be axes as \(1, 0\), a Layout, or None",
    ),
    "into a state dict": (
        lambda: params_to_torch(LIKE, LINEAR.state_dict()),
        r"params_to_torch writes into a torch\.nn\.Module, got OrderedDict; leave it out, and give",
    ),
    "out of a state dict": (
        lambda: params_to_torch(LINEAR.state_dict(), LINEAR),
        r"these are torch's tensors: module\.load_state_dict\(params\)",
    ),
    "into nothing": (
        lambda: params_to_torch(LIKE),
        "params_to_torch needs a torch module, or a param_map for a state dict",
    ),
    "a sparse tensor": (
        lambda: params_from_torch({"weight": torch.ones(2, 3).to_sparse()}, {"kernel": Z((3, 2))}),
        "A tensor of layout torch.sparse_coo .* make it dense first",
    ),
    "a tensor without values": (
        lambda: params_from_torch(T.Linear(3, 2, device="meta"), LIKE),
        'A tensor on the "meta" device has no values; load the module',
    ),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_arguments_of_another_kind(name: str) -> None:
    call, message = WRONG_KINDS[name]
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.usefixtures("no_torch")
def test_arrays_need_no_torch() -> None:
    arrays = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
    assert params_from_torch(arrays, LIKE)["kernel"].shape == (3, 2)
    assert params_from_torch(arrays, LIKE, MAP)["kernel"].shape == (3, 2)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-port\[torch\]'"):
        param_map(LINEAR, LIKE)


class Blocks(T.Module):
    """Names as nanoGPT has them: most below one module, the head beside it."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        blocks = [T.ModuleDict({"ln_1": T.LayerNorm(4), "fc": T.Linear(4, 4)}) for _ in range(3)]
        self.transformer = T.ModuleDict({"wte": T.Embedding(7, 4), "h": T.ModuleList(blocks)})
        self.lm_head = T.Linear(4, 7, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight


def _tree(norm: str = "ln_1", embed: str = "wte", head: str = "lm_head") -> dict[str, Any]:
    block = {norm: {"scale": Z(4), "bias": Z(4)}, "fc": {"kernel": Z((4, 4)), "bias": Z(4)}}
    tree: dict[str, Any] = {embed: {"embedding": Z((7, 4))}, "h": {str(i): block for i in range(3)}}
    return tree | ({head: {"kernel": Z((4, 7))}} if head else {})


RULES: dict[str, tuple[Any, Any, list[tuple[str, str]]]] = {
    "a module around most": (Blocks, _tree(), [(r"^transformer\.", "")]),
    "one around the tree": (lambda: Blocks().transformer, {"net": _tree(head="")}, [("^", "net.")]),
    "one in the place of another": (
        lambda: Blocks().transformer,
        {"wte": _tree()["wte"], "blocks": _tree()["h"]},
        [(r"^h\.", "blocks.")],
    ),
    "a layer within each": (
        lambda: Blocks(True),
        _tree(norm="norm", head=""),
        [(r"^h\.(\d+)\.ln_1\.", r"h.\1.norm.")],
    ),
    "two, one by its shape": (
        Blocks, _tree(embed="embed", head="out"),
        [(r"^transformer\.", ""), (r"^wte\.", "embed."), (r"^lm_head\.", "out.")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("back", [False, True])
def test_one_rule_is_proposed_for_all(name: str, back: bool) -> None:
    make, like, rules = RULES[name]
    module = make()
    with pytest.raises(ValueError, match="same parameters: rename=") as caught:
        params_to_torch(like, module) if back else param_map(module, like)
    head, *lines = str(caught.value).split("\n  ")
    proposed = ast.literal_eval(head.partition("rename=")[2].partition(" would make them fit")[0])
    assert sorted(proposed) == sorted(rules)
    assert len(lines) <= 4
    assert len(param_map(module, like, rename=proposed).entries) == len(jax.tree.leaves(like))


def test_what_no_rule_mends_is_what_is_listed() -> None:
    like = _tree() | {"extra": {"kernel": Z((9, 9))}}
    with pytest.raises(
        ValueError, match=r"would make them fit, but for 1 of \d+ lines\n"
    ) as caught:
        param_map(Blocks(), like, rename=[("^lm_head", "lm_head")])
    assert "rename=[('^lm_head', 'lm_head'), ('^transformer" in str(caught.value)
    assert str(caught.value).split("\n  ")[1:] == [
        "extra/kernel: torch's module has no such parameter"
    ]


def test_a_tie_is_named_though_a_prefix_stands_before_all() -> None:
    begins = r"\('transformer\.', with which torch's names begin"
    lines = listed(lambda: param_map(Blocks(True), _tree()), begins)
    tied = "wte/embedding and lm_head/kernel: torch ties transformer.wte.weight and"
    assert_begin(lines, [tied])


def test_a_state_dict_asks_for_its_module_and_much_is_cut() -> None:
    given = {f"layer{i}.weight": np.zeros((i + 1, 3)) for i in range(20)}
    remedy = "same parameters: a state dict does not say what its layers are: give the module if"
    lines = listed(lambda: param_map(given, {"other": Z((99,))}), remedy)
    assert (len(lines), lines[-1]) == (13, "and 9 more")


def test_what_ends_alike_comes_first() -> None:
    like = {**_tree(head=""), "h": {f"b{i}": block for i, block in _tree()["h"].items()}}
    call = functools.partial(param_map, Blocks(True), like, rename=lambda name: None)
    lines = listed(call, "same parameters:")
    expected = (
        "(torch's transformer.h.0.fc.bias); h/b0/fc/bias or h/b1/fc/bias or h/b2/fc/bias would"
    )
    assert any(expected in line for line in lines), lines
