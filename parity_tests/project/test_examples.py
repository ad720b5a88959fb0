"""The examples run, and the rule that one of them writes has all that the library's own have."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.engine import leaf_states

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What each prints, in part.
PRINTED = {
    "finetune_from_torch": "features kept: True",
    "fsdp_transformer": "parameters and state: 1.39 MB, 0.19 MB on each device",
    "layerwise_lr_decay": "half way, layers/97  lr 1.47e-03",
    "lion": "weight 3.00, bias 0.5",
    "nanogpt": "losses equal to 1e-5: True\nfurthest parameter: ",
    "muon_and_adamw": "rates: [0.02, 0.003, 0.003]",
    "tutorial_in_optax": "rebuilt      momentum kept: False",
}


# Has processes of its own: parity_tests/sharding/test_processes.py.
OF_PROCESSES = {"data_parallel_lenet"}


def test_every_example_is_in_the_table():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == PRINTED.keys() | OF_PROCESSES


@pytest.mark.parametrize("name", PRINTED)
def test_runs(name, capsys):
    load(name).main()
    assert PRINTED[name] in capsys.readouterr().out


# Each recipe of the tutorial: what the example makes, the rates of torch's groups, and the change.
RECIPES = {
    "basic": (lambda m: m.basic(), {"": 1.0}, 0.0),
    "per subnetwork": (
        lambda m: m.per_subnetwork(),
        {"features": 1e-5, "classifier": 1e-2},
        0.0,
    ),
    "per layer": (lambda m: m.per_layer(), {"classifier/0": 0.01, "": 0.001}, 0.0),
    "in place": (
        lambda m: m.per_subnetwork(momentum=0.9),
        {"features": 1e-5, "classifier": 1e-2},
        0.9,
    ),
    "rebuilt": (
        lambda m: m.per_subnetwork(momentum=0.9),
        {"features": 1e-5, "classifier": 1e-2},
        0.9,
    ),
}
LAYERS = ["features/0", "features/3", "classifier/0", "classifier/2", "classifier/4"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_tutorial_in_optax_has_every_bit_of_torch(name, rng):
    module, (make, rates, momentum) = load("tutorial_in_optax"), RECIPES[name]
    arrays = {layer: rng.standard_normal(7).astype(np.float32) for layer in LAYERS}
    tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in arrays.items()}

    def torch_sgd(rates):
        left, groups = dict(tensors), []
        for prefix, lr in rates.items():
            own = [k for k in left if k.startswith(prefix)]
            groups.append({"params": [left.pop(k) for k in own], "lr": lr})
        return torch.optim.SGD(groups, momentum=momentum)

    def tree(flat):
        nested = {"features": {}, "classifier": {}}
        for path, value in flat.items():
            part, index = path.split("/")
            nested[part][index] = {"kernel": value}
        return nested

    theirs, tx, params = torch_sgd(rates), make(module), tree(arrays)
    state = tx.init(params)
    for i in range(8):
        if i == 4 and name == "in place":
            theirs.param_groups[1]["lr"] = 0.1 * 0.1
            state = module.with_lr(state, "classifier", 0.1 * 0.1)
        if i == 4 and name == "rebuilt":
            theirs = torch_sgd({"features": 1e-5, "classifier": 0.1 * 0.1})
            tx, state = module.rebuilt(params)
        grads = {k: rng.standard_normal(7).astype(np.float32) for k in LAYERS}
        for key, tensor in tensors.items():
            tensor.grad = torch.tensor(grads[key])
        theirs.step()
        params, state = jp.step(tx, tree(grads), state, params)
        for path, tensor in tensors.items():
            part, index = path.split("/")
            np.testing.assert_array_equal(params[part][index]["kernel"], tensor.detach())


@pytest.fixture(scope="module")
def lion():
    return load("lion").lion


@pytest.fixture
def params(rng):
    return {name: rng.standard_normal(5).astype(np.float32) for name in ("a", "b", "c")}


def numpys(param, grads, lr, betas, weight_decay):
    param, average = np.float64(param), np.zeros(param.shape)
    for grad in grads:
        direction = np.sign(betas[0] * average + (1 - betas[0]) * grad)
        param = param * (1 - lr * weight_decay) - lr * direction
        average = betas[1] * average + (1 - betas[1]) * grad
    return param


def test_its_numbers_are_lions(lion, params, rng):
    grads = rng.standard_normal((6, 5)).astype(np.float32)
    options = {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1}
    tx = lion(**options)
    own = {"a": params["a"]}
    optaxs = optax.lion(0.02, 0.8, 0.95, weight_decay=0.1)
    theirs, optax_state, state = own, optaxs.init(own), tx.init(own)
    for grad in grads:
        own, state = jp.step(tx, {"a": grad}, state, own)
        updates, optax_state = optaxs.update({"a": jnp.asarray(grad)}, optax_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    np.testing.assert_allclose(own["a"], numpys(params["a"], grads, **options), rtol=1e-5)
    np.testing.assert_allclose(own["a"], theirs["a"], rtol=1e-5)


def test_it_has_groups_numbers_schedules_and_frozen_groups(lion, params):
    tx = jp.param_groups(
        lion,
        [
            {"params": "a", "lr": 0.5, "name": "first"},
            {"params": "b", "lr": lambda count: 0.25 * (count + 1)},
            {"params": "c", "frozen": True},
        ],
    )
    state = tx.init(params)
    traces = 0

    @jax.jit
    def step(params, state):
        nonlocal traces
        traces += 1
        return jp.step(tx, jax.tree.map(jnp.ones_like, params), state, params)

    stepped, state = step(params, state)
    state = jp.set_hyperparams(state, lr=0.125, betas=(0.5, 0.5), group="first")
    again, state = step(stepped, state)
    assert traces == 1
    for name, first, second in (("a", 0.5, 0.125), ("b", 0.25, 0.5), ("c", 0.0, 0.0)):
        np.testing.assert_allclose(stepped[name], params[name] - first, rtol=1e-6)
        np.testing.assert_allclose(again[name], stepped[name] - second, rtol=1e-6)
    assert jp.get_hyperparams(state)[0]["betas"] == (0.5, 0.5)
    assert set(leaf_states(state)) == {"a", "b"}
    with pytest.raises(ValueError, match=r"Invalid learning rate: -1.0 \(group 0, \"first\"\)"):
        jp.set_hyperparams(state, lr=-1.0, group="first")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.complex64])
def test_it_takes_other_dtypes(lion, dtype):
    params = {"w": np.ones(4, dtype)}
    stepped, state = jp.step(lion(lr=0.5), params, lion().init(params), params)
    assert stepped["w"].dtype == dtype
    assert state.leaves["exp_avg"]["w"].dtype == dtype
    np.testing.assert_array_equal(np.asarray(stepped["w"]).real, 0.5)
