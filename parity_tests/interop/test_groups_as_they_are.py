"""Groups, options and names of real scripts: empty, frozen, of older torch, with keys."""

import copy
import functools
import pickle
import warnings

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.interop import CheckpointWarning, TorchOptimizer
from parity_tests.interop.two_linear_layers import LIKE, network, stepped

OLDER = ("maximize", "foreach", "differentiable", "decoupled_weight_decay", "capturable", "fused")
CLASSES = ("Adam", "AdamW", "SGD", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax",
           "ASGD", "Rprop", "Adafactor")  # fmt: skip
STEPS = {
    "an int": int,
    "of one element": lambda step: np.full((1,), float(step), np.float32),
}


def older(optimizer, step=int):
    """A state dict as an older torch wrote it."""
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for name in OLDER:
            group.pop(name, None)
    for held in saved["state"].values():
        for name in ("mu_product", "eta", "mu"):
            if name in held:
                held[name] = float(held[name])
        if "step" in held:
            held["step"] = step(held["step"])
    return saved


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("name", CLASSES)
def test_older_torch(name, step):
    module = network()
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = stepped(module, getattr(torch.optim, name)(module.parameters(), lr=0.1, **options))
    params = interop.params_from_torch(module, LIKE)
    _, want = interop.optimizer_from_torch(optimizer, params, module)
    with pytest.warns(CheckpointWarning, match="of an older torch, without .*filled in"):
        _, got = interop.optimizer_from_torch(
            older(optimizer, step), params, module, optimizer_name=name
        )
    assert jp.get_hyperparams(got) == jp.get_hyperparams(want)
    assert set(got.scalars) == set(want.scalars)
    for of in ("scalars", "leaves"):
        jax.tree.map(np.testing.assert_array_equal, getattr(got, of), getattr(want, of))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_what_took_no_step_does_not_rest_however_steps_are_held(step):
    """Adagrad makes its state before the first."""
    module = network()
    module[0].bias.requires_grad_(False)
    optimizer = stepped(module, torch.optim.Adagrad(module.parameters(), lr=0.1))
    params = interop.params_from_torch(module, LIKE)
    saved = copy.deepcopy(optimizer.state_dict())
    for held in saved["state"].values():
        held["step"] = step(held["step"])
    tx, state = interop.optimizer_from_torch(saved, params, module, optimizer_name="Adagrad")
    assert not any("resting" in g for g in jp.state_dict(tx, state, params)["param_groups"])


def test_names_may_come_from_an_iterator():
    module = network()
    optimizer = stepped(module, torch.optim.Adam(module.parameters()))
    params = interop.params_from_torch(module, LIKE)
    names = (name for name, _ in module.named_parameters())
    tx, state = interop.optimizer_from_torch(
        optimizer, params, module, param_names=names, frozen=iter(["0.bias"])
    )
    assert jp.state_dict(tx, state, params)["param_groups"][0]["resting"] == ["0/bias"]


@pytest.mark.parametrize("options", [{}, {"capturable": True}], ids=["a step on the CPU", "not"])
def test_a_state_is_where_its_parameter_is(options):
    """As after torch's own load_state_dict; the device without memory stands for a GPU."""
    module = network()
    optimizer = stepped(module, torch.optim.AdamW(module.parameters(), capturable=False))
    optimizer.param_groups[0].update(options)
    params = interop.params_from_torch(module, LIKE)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    there = interop.optimizer_to_torch(tx, state, params, network().to("meta"))
    devices = {name: v.device.type for name, v in next(iter(there.state.values())).items()}
    step = "meta" if options else "cpu"
    assert devices == {"step": step, "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_a_step_beyond_int32():
    module = network()
    optimizer = stepped(module, torch.optim.Adam(module.parameters()))
    for held in optimizer.state.values():
        held["step"] = torch.tensor(2.0**31)
    params = interop.params_from_torch(module, LIKE)
    _, state = interop.optimizer_from_torch(optimizer, params, module)
    assert float(state.scalars["step"][0]) == 2.0**31


@pytest.mark.parametrize("name", CLASSES)
def test_older_torch_in_torch_optimizer(name):
    after = []
    for saved in (lambda optimizer: copy.deepcopy(optimizer.state_dict()), older):
        p = torch.nn.Parameter(torch.ones(2, 2))
        optimizer = TorchOptimizer([{"params": [p], "lr_scale": 0.5}], getattr(jp, name), lr=0.1)
        p.grad = torch.eye(2) + 1
        optimizer.step()
        optimizer.load_state_dict(saved(optimizer))
        optimizer.step()
        assert optimizer.param_groups[0]["lr_scale"] == 0.5
        after.append([p.detach(), *(torch.as_tensor(v) for v in optimizer.state[p].values())])
    assert len(after[0]) > 1 or name == "SGD"
    torch.testing.assert_close(*after, rtol=0, atol=0)


COUNTS = {
    "beyond int32": lambda: torch.tensor(2.0**31),
    "of one element": lambda: torch.ones(1),
    "of one integer": lambda: torch.ones(1, dtype=torch.int64),
    "of Python": lambda: 1,
}


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "ASGD", "Adafactor"])
def test_steps_of_any_kind_in_torch_optimizer(name):
    """The same step as torch's own, from the same state dict."""
    ours, theirs = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = TorchOptimizer([ours], getattr(jp, name), lr=0.1)
    reference = getattr(torch.optim, name)([theirs], lr=0.1)
    for each, p in ((optimizer, ours), (reference, theirs)):
        p.grad = torch.eye(2)
        each.step()
    for made in COUNTS.values():
        for each in (optimizer, reference):
            saved = copy.deepcopy(each.state_dict())
            saved["state"][0]["step"] = made()
            each.load_state_dict(saved)
            each.step()
        torch.testing.assert_close(ours, theirs, rtol=3e-6, atol=0)
        own = optimizer.state_dict()["state"][0]["step"]
        assert float(own) == float(reference.state_dict()["state"][0]["step"])


def test_what_no_torch_leaves_out_is_missed_before_anything_changes():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = TorchOptimizer([p], jp.SGD, lr=0.1, momentum=0.9)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0] |= {"lr": 5.0}
    del saved["param_groups"][0]["momentum"]
    with pytest.raises(ValueError, match="group 0 of the state dict has no 'momentum'"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_jps_own_dicts_of_an_older_torch():
    params = {"a": jnp.ones(2)}
    tx = jp.Adam(lr=0.5)
    saved = jp.state_dict(tx, tx.init(params), params)
    for group in saved["param_groups"]:
        del group["maximize"], group["amsgrad"]
    assert jp.get_hyperparams(jp.load_state_dict(tx, saved, params))[0]["lr"] == 0.5


SCHEDULERS = {
    "partial": lambda o: torch.optim.lr_scheduler.LambdaLR(
        o, functools.partial(lambda epoch, half: half**epoch, half=0.5)
    ),
    "function": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_lambdas_of_either_kind(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8)
    scheduler = make(optimizer)
    optimizer.step()
    scheduler.step()
    saved = {**scheduler.state_dict(), "verbose": False}
    del saved["_is_initial"]
    for function in (lambda epoch: 0.5**epoch, functools.partial(lambda e, b: b**e, b=0.5)):
        ours = jp.lr_scheduler.LambdaLR(function)
        assert ours.state_dict(ours.load_state_dict(saved))["last_epoch"] == 1


def test_plateau_of_older_torch_has_no_rates_before_its_first_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8)
    saved = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict()
    del saved["_last_lr"]
    ours = jp.lr_scheduler.ReduceLROnPlateau()
    held = ours.load_state_dict(saved, optimizer.state_dict()["param_groups"])
    assert ours.get_last_lr(held) == [0.8]


def test_one_cycles_method_of_older_torch(tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=9)
    saved = scheduler.state_dict()
    saved["anneal_func"] = torch.optim.lr_scheduler.OneCycleLR._annealing_cos
    del saved["_anneal_func_type"]
    torch.save(saved, tmp_path / "scheduler.pt")
    found = interop.load(tmp_path / "scheduler.pt").scheduler
    assert found["_anneal_func_type"] == "cos"
    assert "anneal_func" not in found


# ── groups ─────────────────────────────────────────────────────────────────────────────────────


def empty(module):
    return [{"params": []}, {"params": list(module.parameters())}]


def frozen_whole(module):
    module[0].requires_grad_(False)
    return [
        {"params": list(module[0].parameters()), "lr": 1e-3},
        {"params": list(module[1].parameters())},
    ]


def frozen_in_part(module):
    module[0].weight.requires_grad_(False)
    return [
        {"params": list(module[0].parameters()), "lr": 1e-3},
        {"params": list(module[1].parameters())},
    ]


def of_nobody(module):
    return [{"params": [module[1].weight], "lr": 1e-3}, {"params": [module[0].bias]}]


def one_in_another_order(module):
    (weight, bias), (weight1, bias1) = (list(layer.parameters()) for layer in module)
    return [{"params": [weight1, weight]}, {"params": [bias, bias1]}]


def frozen_before_others(module):
    (weight, bias), (weight1, bias1) = (list(layer.parameters()) for layer in module)
    bias.requires_grad_(False)
    return [{"params": [bias1, bias, weight]}, {"params": [weight1]}]


def with_keys(module):
    return [
        {"params": list(module[0].parameters()), "lr_scale": 0.25, "tag": "stem", "depths": [1, 2]},
        {"params": list(module[1].parameters()), "lr_scale": 1},
    ]


@pytest.mark.parametrize(
    "divide",
    [
        empty,
        frozen_whole,
        frozen_in_part,
        of_nobody,
        one_in_another_order,
        frozen_before_others,
        with_keys,
    ],
    ids=lambda divide: divide.__name__,
)
def test_groups_there_and_back(divide, correct_root):
    module = network()
    optimizer = stepped(module, torch.optim.AdamW(divide(module), lr=0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    params = interop.params_from_torch(module, LIKE)
    tx, state = interop.optimizer_from_torch(optimizer, params, module=module)
    ours, sched = interop.scheduler_from_torch(scheduler, state)
    grads = {k: {n: jnp.full(x.shape, 0.3) for n, x in layer.items()} for k, layer in LIKE.items()}
    params, state = jp.step(tx, grads, state, params)
    for p in module.parameters():
        p.grad = torch.full_like(p, 0.3) if p.requires_grad else None
    optimizer.step()
    back = interop.optimizer_to_torch(tx, state, params, module)
    interop.scheduler_to_torch(ours, sched, back)
    want, got = optimizer.state_dict(), back.state_dict()
    for theirs, own in zip(want["param_groups"], got["param_groups"], strict=True):
        assert own["params"] == theirs["params"]
        held = [{i: x["state"][i] for i in own["params"] if i in x["state"]} for x in (got, want)]
        torch.testing.assert_close(*held, rtol=1e-6, atol=1e-7, check_dtype=False)
        for key in ("lr", "weight_decay", "lr_scale", "tag"):
            assert own.get(key) == theirs.get(key), key
    optimizer.load_state_dict(got)
    after = interop.params_to_torch(params, param_map=interop.param_map(module, LIKE))
    for name, p in module.named_parameters():
        assert torch.equal(after[name], p.detach()), name


@pytest.mark.parametrize("kind", ["state dict", "file"])
@pytest.mark.parametrize("frozen", ["from the beginning", "in mid-run", "all"])
def test_what_the_module_does_not_train_is_frozen_whatever_is_read(frozen, kind, tmp_path):
    module = network()
    still = module if frozen == "all" else module[0].weight
    still.requires_grad_(frozen == "in mid-run")
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    stepped(module, optimizer)
    still.requires_grad_(False)
    params = interop.params_from_torch(module, LIKE)
    read = optimizer.state_dict()
    if kind == "file":
        torch.save({"model": module.state_dict(), "optimizer": read}, tmp_path / "saved.pt")
        read = interop.load(tmp_path / "saved.pt")
    steps = []
    for given in (optimizer, read):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tx, state = interop.optimizer_from_torch(
                given, params, module=module, optimizer_name="AdamW"
            )
        assert any("all are frozen here" in str(w.message) for w in told) == (frozen == "all")
        steps.append(jp.step(tx, jax.tree.map(jnp.ones_like, params), state, params)[0])
    assert jnp.array_equal(steps[1]["0"]["kernel"], params["0"]["kernel"])
    assert jnp.array_equal(steps[1]["1"]["kernel"], params["1"]["kernel"]) == (frozen == "all")
    jax.tree.map(np.testing.assert_array_equal, *steps)


def test_keys_of_ones_own_are_shown_and_can_be_set():
    module = network()
    optimizer = torch.optim.SGD(with_keys(module), lr=0.1)
    params = interop.params_from_torch(module, LIKE)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    first, second = jp.get_hyperparams(state)
    assert (first["lr_scale"], first["tag"], second["lr_scale"]) == (0.25, "stem", 1.0)
    state = jp.set_hyperparams(state, lr_scale=0.5, group=0)
    back = interop.optimizer_to_torch(tx, state, params, module)
    assert back.param_groups[0]["lr_scale"] == 0.5
    optimizer.param_groups[0]["weight_decai"] = 0.1
    with pytest.raises(TypeError, match='did you mean "weight_decay"'):
        interop.optimizer_from_torch(optimizer, params, module)


def with_key(key, value):
    module = network()
    optimizer = torch.optim.AdamW([{"params": [p]} for p in module.parameters()], lr=0.1)
    optimizer.param_groups[0][key] = value
    stepped(module, optimizer)
    return module, interop.params_from_torch(module, LIKE), optimizer


# What torch's groups may hold, and how it comes back: as it is, but for lists.
KEYS = {
    "of another optimizer": ("d", 1.0, 1.0),
    "of another optimizer, a number": ("t0", 3, 3.0),
    "of another optimizer, a text": ("mask", "x", "x"),
    "a list of lists": ("depths", [1, [2, 3]], (1, (2, 3))),
    "a flag as a number": ("maximize", 1, True),
    "a flag of NumPy": ("maximize", np.bool_(True), True),
    "no flag": ("amsgrad", None, False),
}


@pytest.mark.parametrize(("key", "value", "back"), KEYS.values(), ids=KEYS)
def test_keys_and_flags_of_any_kind_are_kept(key, value, back):
    module, params, optimizer = with_key(key, value)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    assert jp.get_hyperparams(state)[0][key] == back
    again = interop.optimizer_to_torch(tx, state, params, module).param_groups[0][key]
    assert (again, type(again)) == (back, type(back))


@pytest.mark.parametrize("value", [{"a": 1}, {}, torch.ones(3), [1, {"a": 1}]], ids=repr)
def test_keys_that_no_state_keeps_are_left_out_with_a_word(value):
    module, params, optimizer = with_key("kept", value)
    with pytest.warns(CheckpointWarning, match="^kept of group 0 left out: numbers, texts"):
        _, state = interop.optimizer_from_torch(optimizer, params, module)
    assert "kept" not in jp.get_hyperparams(state)[0]


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frozen", True),
        ("frozen", False),
        ("resting", True),
        ("resting", ["0.weight"]),
        ("untrained", ["0.weight"]),
        ("param_order", ["0.weight"]),
        ("optimizer", "AdamW"),
        ("update_count", "x"),
        ("name", 3),
    ],
)
def test_keys_that_have_a_meaning_here_are_refused(key, value, as_dict):
    module, params, optimizer = with_key(key, value)
    given = optimizer.state_dict() if as_dict else optimizer
    with pytest.raises(ValueError, match=f"has '{key}' as a key of its own.*rename it, as group"):
        interop.optimizer_from_torch(given, params, module, optimizer_name="AdamW")


def test_a_state_dict_does_not_say_which_keys_are_no_options():
    module, params, optimizer = with_key("d", 1.0)
    with pytest.raises(TypeError, match=r"unknown option 'd'.*rename it, as group\[\"my_key\"\] ="):
        interop.optimizer_from_torch(optimizer.state_dict(), params, module, optimizer_name="AdamW")


def test_a_group_that_was_trained_and_then_frozen_rests():
    module = network()
    groups = [{"params": list(layer.parameters())} for layer in module]
    optimizer = stepped(module, torch.optim.AdamW(groups, lr=0.1))
    module[0].requires_grad_(False)
    params = interop.params_from_torch(module, LIKE)
    _, state = interop.optimizer_from_torch(optimizer, params, module)
    first, second = jp.get_hyperparams(state)
    assert first["frozen"]
    assert "frozen" not in second
    assert float(state.leaves["exp_avg"]["0"]["bias"][0]) != 0


PART = {
    "AdamW": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, [0.1, 0.2], total_steps=30, cycle_momentum=False
    ),
    "SGD": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "Adafactor": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
}


@pytest.mark.parametrize(("name", "schedule"), PART.items(), ids=PART)
def test_a_part_of_a_group_that_was_trained_and_then_frozen_rests(name, schedule):
    """As with torch, whose gradient is None: state, count and value stay, in the next steps too."""
    module = network()
    options = {"momentum": 0.9} if name == "SGD" else {}
    groups = [{"params": list(layer.parameters())} for layer in module]
    optimizer = getattr(torch.optim, name)(groups, lr=0.1, **options)
    scheduler = schedule(optimizer)
    stepped(module, optimizer)
    module[0].weight.requires_grad_(False)
    module[0].weight.grad = None
    params = interop.params_from_torch(module, LIKE)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    ours, sched = interop.scheduler_from_torch(scheduler, state)
    step = jax.jit(lambda grads, state, params: jp.step(tx, grads, state, params))
    grads = {k: {n: jnp.full(x.shape, 0.3) for n, x in layer.items()} for k, layer in LIKE.items()}
    for turn in range(6):
        if turn == 3:  # there and back
            back = interop.optimizer_to_torch(tx, state, params, module)
            interop.scheduler_to_torch(ours, sched, back)
            assert back.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
            module[0].weight.grad = torch.ones(4, 3)
            optimizer.load_state_dict(back.state_dict())
            saved = jp.state_dict(tx, state, params)
            assert saved["param_groups"][0]["resting"] == ["0/kernel"]
            state = jp.load_state_dict(tx, saved, params)
            module[0].weight.grad = None
        if turn == 5:
            module[0].weight.requires_grad_(True)
            state = jp.set_hyperparams(state, frozen=False, group=0)
        for p in module.parameters():
            p.grad = torch.full_like(p, 0.3) if p.requires_grad else None
        optimizer.step()
        scheduler.step()
        params, state = step(grads, state, params)
        state, sched = ours.step(state, sched)
    want = {n: p.detach().numpy() for n, p in module.named_parameters()}
    mapped = interop.param_map(module, LIKE)
    leaves = {path: np.asarray(x) for path, x in jp.engine.leaf_paths(params)}
    for key, got in mapped.to_torch(leaves).items():
        np.testing.assert_allclose(got, want[key], rtol=1e-6, atol=1e-7)
    held = optimizer.state_dict()["state"][0]
    own = interop.optimizer_to_torch(tx, state, params, module).state_dict()["state"][0]
    assert float(own.get("step", 0)) == float(held.get("step", 0))


def test_a_part_that_rests_survives_flaxs_bytes_and_new_groups():
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)}
    tx = jp.AdamW([{"params": ["a", "b"]}, {"params": "c", "frozen": True}], lr=0.1)
    _, state = jp.step(tx, params, tx.init(params), params)
    saved = jp.state_dict(tx, state, params)
    saved["param_groups"][0]["resting"] = ["b"]
    state = jp.load_state_dict(tx, saved, params)
    again = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    again = pickle.loads(pickle.dumps(again))
    tx, again = jp.add_param_group(tx, again, params, {"params": "c"})
    after, again = jp.step(tx, params, again, params)
    assert [float(x[0]) == 1.0 for x in after.values()] == [False, True, False]
    assert jp.state_dict(tx, again, params)["param_groups"][0]["resting"] == ["b"]
    saved["param_groups"][0]["resting"] = ["c"]
    with pytest.raises(ValueError, match='"c", which rests, is not among its parameters'):
        jp.load_state_dict(jp.AdamW(saved_groups(saved), lr=0.1), saved, params)


def saved_groups(saved):
    return [
        {"params": group["param_names"], **({"frozen": True} if group.get("frozen") else {})}
        for group in saved["param_groups"]
    ]
