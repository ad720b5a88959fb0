"""What `optimizer_from_torch` and `optimizer_to_torch` refuse, and what they say."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.interop.two_linear_layers import LIKE, network, stepped
from parity_tests.oracles.two_networks import Bare, Matrices, Pair, like_of


@pytest.fixture
def pair():
    pair = Pair(torch.optim.AdamW, {})
    rest = pair.optimizer.param_groups[1]
    rest["params"] = [p for p in rest["params"] if p.requires_grad]
    pair.torch_steps(0, 2)
    return pair


class Mine(torch.optim.AdamW):
    def step(self, closure=None):
        """Not torch's."""


def without(group, name):
    return {k: v for k, v in group.items() if k != name}


REFUSED = {
    "no optimizer": (lambda p: (3, {}), TypeError, "expected a torch optimizer.*int"),
    "a class of the user's": (
        lambda p: (Mine(p.module.parameters()), {}),
        TypeError,
        "Mine is not a class of torch.optim",
    ),
    "a state dict without a class": (
        lambda p: (p.optimizer.state_dict(), {}),
        TypeError,
        "does not say which optimizer",
    ),
    "a class that is not there": (
        lambda p: (p.optimizer.state_dict(), {"optimizer_name": "Lyon"}),
        TypeError,
        "no optimizer is named 'Lyon'; .*there are Adadelta",
    ),
    **{
        f"not quite {name}": (
            lambda p, name=name: (p.optimizer.state_dict(), {"optimizer_name": name}),
            TypeError,
            f"no optimizer is named '{name}'; did you mean \"timm.Lion\"",
        )
        for name in ("timm.lion", "timm.optim.Lion", "timm.Loin")
    },
    **{
        f"what stands around another, of {module}": (
            lambda p, module=module, name=name: (
                type(name, (torch.optim.SGD,), {"__module__": module})(p.module.parameters()),
                {},
            ),
            TypeError,
            f"{name} stands around another optimizer, .* pass optimizer.{inner}, .* {around}",
        )
        for module, name, inner, around in (
            ("timm.optim.lookahead", "Lookahead", "_base_optimizer", "contrib.lookahead"),
            (
                "pytorch_optimizer.optimizer.lookahead",
                "Lookahead",
                "optimizer",
                "contrib.lookahead",
            ),
            ("pytorch_optimizer.optimizer.sam", "SAM", "base_optimizer", "contrib.sam"),
        )
    },
    "a state dict without names": (
        lambda p: ({**p.optimizer.state_dict(), "state": {}}, {"optimizer_name": "AdamW"}),
        ValueError,
        r"no 'param_names'.*named_parameters\(\)",
    ),
    "names that are none": (
        lambda p: (
            {
                "state": {},
                "param_groups": [
                    {**g, "param_names": None} for g in p.optimizer.state_dict()["param_groups"]
                ],
            },
            {"optimizer_name": "AdamW"},
        ),
        ValueError,
        r"no 'param_names'.*named_parameters\(\)",
    ),
    "too few names": (
        lambda p: (p.optimizer.state_dict(), {"optimizer_name": "AdamW", "param_names": ["gain"]}),
        ValueError,
        "1 names; the optimizer has 5 parameters",
    ),
    "a name that is not there": (
        lambda p: (
            p.optimizer.state_dict(),
            {"optimizer_name": "AdamW", "param_names": ["a", "b", "c", "d", "e"]},
        ),
        ValueError,
        "a: the map has no such parameter",
    ),
    "names in another order": (
        lambda p: (
            p.optimizer.state_dict(),
            {"optimizer_name": "AdamW", "param_names": names_of(p)[::-1]},
        ),
        ValueError,
        "has shape",
    ),
    "no state dict": (
        lambda p: ({"model": {}}, {"optimizer_name": "AdamW"}),
        ValueError,
        "no 'state' and no 'param_groups'; it has 'model'",
    ),
    "another class's state": (
        lambda p: (
            p.optimizer.state_dict(),
            {"optimizer_name": "SGD", "param_names": names_of(p)},
        ),
        ValueError,
        "the options of AdamW, and not those of SGD",
    ),
    "Adam's state as AdamW's": (
        lambda p: (
            torch.optim.Adam(p.module.named_parameters(), weight_decay=0.1).state_dict(),
            {"optimizer_name": "AdamW"},
        ),
        ValueError,
        'the state dict is that of Adam, .* pass optimizer_name="Adam"',
    ),
    "RAdam's state as Adam's": (
        lambda p: (
            torch.optim.RAdam(p.module.named_parameters()).state_dict(),
            {"optimizer_name": "Adam"},
        ),
        ValueError,
        'the options of RAdam, and not those of Adam; pass optimizer_name="RAdam"',
    ),
    "RAdam's state as AdamW's": (
        lambda p: (
            torch.optim.RAdam(p.module.named_parameters()).state_dict(),
            {"optimizer_name": "AdamW"},
        ),
        ValueError,
        'the options of RAdam, and not those of AdamW; pass optimizer_name="RAdam"',
    ),
    "NAdam named Adam": (
        lambda p: (
            torch.optim.NAdam(p.module.named_parameters()),
            {"optimizer_name": "Adam"},
        ),
        ValueError,
        "the options of NAdam, and not those of Adam",
    ),
    "RAdam's state with a key of one's own as Adam's": (
        lambda p: (
            torch.optim.RAdam(
                [{"params": list(p.module.named_parameters()), "lr_scale": 1.0}]
            ).state_dict(),
            {"optimizer_name": "Adam"},
        ),
        ValueError,
        "has no 'amsgrad'; it is not that of adam",
    ),
    "another module's optimizer": (
        lambda p: (torch.optim.SGD(Bare().parameters()), {}),
        ValueError,
        "are not the module's",
    ),
}


# Which of a network's parameters an optimizer was given, and what is said to name them.
GIVEN = {
    "matrices": (lambda m: [p for p in m.parameters() if p.ndim == 2], "p.ndim == 2"),
    "a part": (lambda m: m[1].parameters(), 'name.startswith("1.")'),
    "no rule": (lambda m: [m[0].weight], "…"),
}


@pytest.mark.parametrize(("given", "condition"), GIVEN.values(), ids=GIVEN)
def test_the_names_of_some_parameters_are_asked_for(given, condition):
    module = network()
    saved = stepped(module, torch.optim.AdamW(given(module))).state_dict()
    call = functools.partial(
        interop.optimizer_from_torch, saved, LIKE, module, optimizer_name="AdamW"
    )
    count = len(saved["state"])
    with pytest.raises(ValueError, match=f"has {count} parameters, the module 4$") as caught:
        call()
    code = str(caught.value).partition("of one group ")[2].partition(": the optimizer")[0]
    assert code == f"[name for name, p in module.named_parameters() if {condition}]"
    if condition != "…":
        call(param_names=eval(code, {"module": module}))


def names_of(pair):
    names = {id(p): n for n, p in pair.module.named_parameters()}
    return [names[id(p)] for group in pair.optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_optimizer_in_mid_run(pair, make, kind, message):
    optimizer, more = make(pair)
    with pytest.raises(kind, match=message):
        interop.optimizer_from_torch(optimizer, pair.params(), pair.module, **more)


def test_a_state_dict_with_names_is_enough(pair):
    named = torch.optim.AdamW(pair.module.named_parameters())
    for p in pair.module.parameters():
        p.grad = torch.ones_like(p)
    named.step()
    params = pair.params()
    _, state = interop.optimizer_from_torch(
        named.state_dict(), params, pair.param_map, optimizer_name="AdamW"
    )
    assert jp.get_hyperparams(state)[0]["lr"] == 1e-3


def test_steps_that_differ_are_counted_apart(pair):
    pair.optimizer.state[pair.module.gain]["step"] += 1
    params, tx, state = pair.from_torch()
    assert len(jp.get_hyperparams(state)) == 3  # with that of what is frozen
    saved = jp.state_dict(tx, state, params)
    steps = {
        name: float(saved["state"][index]["step"])
        for group in saved["param_groups"][:2]
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    assert steps == {name: 3.0 if name == "gain" else 2.0 for name in steps}


def test_a_state_dict_does_not_say_what_is_frozen():
    pair = Pair(torch.optim.AdamW, {})
    pair.torch_steps(0, 2)
    more = {"optimizer_name": "AdamW", "param_names": names_of(pair)}
    params, saved = pair.params(), pair.optimizer.state_dict()
    _, state = interop.optimizer_from_torch(saved, params, pair.param_map, **more)
    assert not any(group.get("frozen") for group in jp.get_hyperparams(state))
    with pytest.raises(ValueError, match="'stil' in frozen is none of the optimizer's"):
        interop.optimizer_from_torch(saved, params, pair.param_map, frozen=["stil"], **more)
    _, state = interop.optimizer_from_torch(saved, params, pair.param_map, frozen=["still"], **more)
    assert jp.get_hyperparams(state)[-1] == {"frozen": True}


def test_a_leaf_that_the_optimizer_has_not_is_frozen(pair):
    params, tx, state = pair.from_torch()
    assert jp.get_hyperparams(state)[-1] == {"frozen": True}
    grads = jax.tree.map(jnp.ones_like, params)
    after, _ = jp.step(tx, grads, state, params)
    np.testing.assert_array_equal(after["still"], params["still"])


def test_state_that_the_parameters_cannot_hold(pair):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), pair.params())
    with pytest.raises(ValueError, match=r"exp_avg.*float32, which bfloat16 cannot hold.*load_st"):
        interop.optimizer_from_torch(pair.optimizer, params, pair.module)
    pair.module.bfloat16()
    pair.optimizer.load_state_dict(pair.optimizer.state_dict())
    _, state = interop.optimizer_from_torch(pair.optimizer, params, pair.module)
    assert {x.dtype for x in jax.tree.leaves(state.leaves)} == {jnp.dtype(jnp.bfloat16)}


def test_numbers_given_as_tensors_are_numbers_here():
    pair = Pair(torch.optim.Adam, {"lr": torch.tensor(0.5)})
    _, _, state = pair.from_torch()
    assert jp.get_hyperparams(state)[1]["lr"] == 0.5


def test_what_torch_has_no_optimizer_for(pair):
    params = pair.params()
    mixed = jp.SGD([{"params": "fc"}, {"params": jp.REST, "optimizer": jp.adam}])
    foreign = jp.param_groups(optax.adamw, learning_rate=0.1)
    for tx in (mixed, foreign):
        with pytest.raises(TypeError, match="torch has no one optimizer for these groups"):
            interop.optimizer_to_torch(tx, tx.init(params), params, pair.module)


def test_a_rule_that_saw_jaxs_layout_cannot_go_to_torch():
    torch.manual_seed(0)
    module = Matrices()
    params = interop.params_from_torch(module, like_of(module))
    for tx in (jp.Muon(), jp.Adafactor()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jp.engine.LayoutWarning)
            state = tx.init(params)
        with pytest.raises(ValueError, match=r"is not the same in every layout.*fc/kernel"):
            interop.optimizer_to_torch(tx, state, params, module)


def test_types_that_differ_are_listed(pair):
    params, tx, state = pair.from_torch()
    half = Bare().half()
    with pytest.raises(ValueError, match=r"(?s)exp_avg of conv.weight is float32.*float16"):
        interop.optimizer_to_torch(tx, state, params, half, pair.param_map)


def test_parts_of_one_tensor_in_two_groups():
    attention = torch.nn.MultiheadAttention(4, 2, bias=False)
    like = {
        **{name: {"kernel": np.zeros((4, 2, 2), np.float32)} for name in ("query", "key", "value")},
        "out": {"kernel": np.zeros((2, 2, 4), np.float32)},
    }
    params = interop.params_from_torch(attention, like)
    tx = jp.AdamW([{"params": "query"}, {"params": jp.REST, "lr": 0.1}])
    with pytest.raises(ValueError, match=r"in_proj_weight: .* are in another group"):
        interop.optimizer_to_torch(tx, tx.init(params), params, attention)
    muon = torch.optim.Adafactor(attention.parameters())
    with pytest.raises(ValueError, match=r"(?s)whole arrays.*query/kernel is a part of"):
        interop.optimizer_from_torch(muon, params, attention)


def test_a_tensor_in_a_dtype_of_torchs_is_no_array():
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    theirs = torch.optim.Adam([("w", w)])
    w.grad = torch.ones_like(w)
    theirs.step()
    with pytest.raises(ValueError, match="dtype that NumPy lacks"):
        jp.load_state_dict(jp.Adam(), theirs.state_dict(), {"w": jnp.ones(2, jnp.bfloat16)})
