"""What crosses between torch and here in a pair that does not fit: it is refused, or said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.bits import assert_same_bits, relative
from parity_tests.oracles.tolerances import RESUMED
from parity_tests.oracles.two_networks import flat, held

LIKE = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 3))}
S = torch.optim.lr_scheduler


class Two(torch.nn.Module):
    def __init__(self, size=3):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(2, size))
        self.b = torch.nn.Parameter(torch.full((2, size), 2.0))


def trained_here(tx, steps=2):
    params = interop.params_from_torch(Two(), LIKE)
    state = tx.init(params)
    for _ in range(steps):
        params, state = jp.step(tx, params, state, params)
    return params, state


def test_what_rests_here_is_not_trained_in_torch():
    tx, module = jp.SGD([{"params": "a"}, {"params": "b"}], lr=0.1, momentum=0.9), Two()
    params, state = trained_here(tx)
    state = jp.set_hyperparams(state, group=0, frozen=True)
    with pytest.raises(ValueError, match=r"^a rest here .*requires_grad_\(False\)"):
        interop.optimizer_to_torch(tx, state, params, module)
    module.a.requires_grad_(False)
    optimizer = interop.optimizer_to_torch(tx, state, params, module)
    (module.a.sum() + module.b.sum()).backward()
    optimizer.step()
    assert (module.a == 1).all()
    assert (module.b != 2).all()


def test_a_schedule_is_not_dropped_in_silence():
    tx = jp.SGD(lr=lambda count: 0.1 / (1 + count))
    params, state = trained_here(tx)
    with pytest.warns(interop.CheckpointWarning, match="lr of .* is a schedule here"):
        interop.optimizer_to_torch(tx, state, params, Two())


def test_a_map_of_another_module_is_refused():
    tx = jp.Adam(lr=0.1)
    params, state = trained_here(tx)
    stale = interop.param_map(Two(), LIKE)
    with pytest.raises(
        ValueError, match=r"exp_avg of a has shape \(2, 3\), the parameter \(2, 5\)"
    ):
        interop.optimizer_to_torch(tx, state, params, Two(5), stale)


class Tied(torch.nn.Module):
    """As autoencoders are tied by ``.data``: two parameters, one memory."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(2, 3, bias=False)
        self.dec.weight.data = self.enc.weight.data.t()


def test_parameters_in_one_memory_are_refused():
    module = Tied()
    like = {"enc": {"kernel": jnp.zeros((3, 2))}, "dec": {"kernel": jnp.zeros((2, 3))}}
    params = interop.params_from_torch(module, like)
    optimizer = torch.optim.SGD(module.named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"(enc|dec)\.weight and .* lie in one memory"):
        interop.optimizer_from_torch(optimizer, params, module)
    with pytest.raises(ValueError, match=r"(enc|dec)\.weight and .* lie in one memory"):
        interop.optimizer_from_torch(optimizer.state_dict(), params, module, optimizer_name="SGD")
    with torch.device("meta"):  # where there is no memory
        layers = Tied()
    interop.optimizer_from_torch(optimizer.state_dict(), params, layers, optimizer_name="SGD")
    with pytest.raises(ValueError, match="parameter 0 and parameter 1 lie in one memory"):
        interop.TorchOptimizer(module.parameters(), jp.SGD, lr=0.1)
    flat = torch.zeros(6)  # parts of one buffer, side by side
    square = flat.view(2, 3)
    for views in ((flat[:2], flat[2:]), (square[:, :2], square[:, 2:]), (flat[::2], flat[1::2])):
        interop.TorchOptimizer([torch.nn.Parameter(view) for view in views], jp.SGD, lr=0.1)
    for views in ((square[:, :2], flat[:1]), (square[:, :2], square[:, 2:], flat[4:5])):
        with pytest.raises(ValueError, match="lie in one memory"):
            interop.TorchOptimizer([torch.nn.Parameter(view) for view in views], jp.SGD, lr=0.1)


def in_another_order():
    module = Two()
    optimizer = torch.optim.SGD([("b", module.b), ("a", module.a)], lr=0.1, momentum=0.9)
    (module.a.sum() + 2 * module.b.sum()).backward()
    optimizer.step()
    return module, optimizer


@pytest.mark.parametrize("kind", ["optimizer", "state dict"])
def test_names_that_are_others_are_refused(kind):
    module, optimizer = in_another_order()
    given = optimizer if kind == "optimizer" else optimizer.state_dict()
    params = interop.params_from_torch(module, LIKE)

    def brought(names):
        return interop.optimizer_from_torch(
            given, params, module, param_names=names, optimizer_name="SGD"
        )[1]

    with pytest.raises(ValueError, match="leave param_names out"):
        brought(["a", "b"])
    held = brought(["b", "a"]).leaves["momentum_buffer"]
    assert (float(held["a"][0, 0]), float(held["b"][0, 0])) == (1.0, 2.0)


def test_a_group_that_a_scheduler_does_not_know_is_named():
    module = Two()
    optimizer = torch.optim.SGD([module.a], lr=0.1, momentum=0.9)
    scheduler = S.SequentialLR(
        optimizer, [S.ConstantLR(optimizer, 0.5), S.OneCycleLR(optimizer, 0.1, total_steps=9)], [6]
    )
    optimizer.add_param_group({"params": [module.b], "lr": 0.3})
    params = interop.params_from_torch(module, LIKE)
    _, state = interop.optimizer_from_torch(optimizer, params, module)
    with pytest.raises(ValueError, match="has no 'max_lr': it joined after"):
        interop.scheduler_from_torch(scheduler, state)


class OfTwoLayers(nnx.Module):
    def __init__(self):
        self.a, self.b = nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1))


@pytest.mark.parametrize(
    "tx",
    [
        jp.SGD([{"params": "a"}, {"params": "b", "momentum": 0.0}], lr=0.1, momentum=0.9),
        jp.Adafactor(),
    ],
    ids=["momentum of one group", "Adafactor"],
)
@pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")
def test_nnx_leaves_that_hold_different_things_are_saved(tx):
    params = nnx.state(OfTwoLayers(), nnx.Param)
    grads = jax.tree.map(jnp.ones_like, params)
    params, state = jp.step(tx, grads, tx.init(params), params)
    saved = jp.state_dict(tx, state, params)
    assert all(
        np.ndim(x) == 0 or np.size(x) for held in saved["state"].values() for x in held.values()
    )
    loaded = jp.load_state_dict(tx, saved, params)
    stepped = (jp.step(tx, grads, s, params) for s in (state, loaded))
    for a, b in zip(*map(jax.tree.leaves, stepped), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("steps", [0, 2])
def test_adafactor_comes_to_nnx(steps):
    class Torchs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)

    torch.manual_seed(0)
    module = Torchs()
    optimizer = torch.optim.Adafactor(module.parameters())

    def step():
        optimizer.zero_grad()
        module.b(module.a(torch.ones(5, 3))).square().sum().backward()
        optimizer.step()

    for _ in range(steps):
        step()
    params = interop.params_from_torch(module, OfTwoLayers())
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    assert set(jp.get_hyperparams(state)[0]) >= {"lr", "eps", "d"}
    if steps:
        assert_same_bits(
            held(interop.optimizer_to_torch(tx, state, params, module)),
            held(optimizer),
            "back in torch",
        )
    step()
    grads = {name: p.grad for name, p in module.named_parameters()}
    params, _ = jp.step(tx, interop.params_from_torch(grads, OfTwoLayers()), state, params)
    theirs = flat(interop.params_from_torch(module, OfTwoLayers()))
    for path, leaf in flat(params).items():
        assert relative(leaf, theirs[path]) <= RESUMED["Adafactor"], path
