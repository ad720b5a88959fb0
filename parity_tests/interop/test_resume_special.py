"""SparseAdam and L-BFGS in torch's configurations: stopped on one side, gone on at the other."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.interop.two_linear_layers import LIKE, network
from parity_tests.oracles.bits import assert_same_bits, step_units
from parity_tests.oracles.optimizer import configurations, to_numpy, to_torch
from parity_tests.oracles.tolerances import bound
from parity_tests.oracles.two_networks import flat, held

STOP, END = 50, 100
SPARSE, LBFGS = (dict(configurations(o)) for o in (torch.optim.SparseAdam, torch.optim.LBFGS))


class Embeddings(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 3, sparse=True)


EMBEDDINGS = {"table": {"embedding": jnp.zeros((11, 3))}}
RNG = np.random.default_rng(0)
INDICES = [RNG.integers(0, 11, 4) for _ in range(10)]
VALUES = [RNG.standard_normal((4, 3)).astype(np.float32) for _ in range(10)]


def sparse_steps(module, optimizer, start, stop):
    for i in range(start, stop):
        module.table.weight.grad = torch.sparse_coo_tensor(
            INDICES[i % 10][None], to_torch(VALUES[i % 10]), (11, 3), check_invariants=True
        )
        optimizer.step()


def sparse_port_steps(tx, state, params, start, stop):
    for i in range(start, stop):
        pair = jnp.asarray(INDICES[i % 10]), jnp.asarray(VALUES[i % 10])
        params, state = jp.step(tx, {"table": {"embedding": pair}}, state, params)
    return params, state


@pytest.mark.parametrize("configuration", SPARSE)
def test_sparse_adam(configuration, correct_root):
    def begin():
        torch.manual_seed(0)
        module = Embeddings()
        return module, torch.optim.SparseAdam(module.parameters(), **SPARSE[configuration])

    def converted(module, optimizer):
        params = interop.params_from_torch(module, EMBEDDINGS)
        return params, *interop.optimizer_from_torch(optimizer, params, module)

    module, optimizer = begin()
    params, tx, state = converted(module, optimizer)
    half, half_state = sparse_port_steps(tx, state, params, 0, STOP)
    sparse_steps(module, optimizer, 0, STOP)
    params, tx, state = converted(module, optimizer)
    back = interop.optimizer_to_torch(tx, state, params, module)
    assert_same_bits(held(back), held(optimizer), "back in torch")
    assert type(back.state[module.table.weight]["step"]) is int
    sparse_steps(module, optimizer, STOP, END)
    resumed, _ = sparse_port_steps(tx, state, params, STOP, END)
    theirs = to_numpy(module.table.weight)
    close_units(resumed["table"]["embedding"], theirs)

    other, _ = begin()
    interop.params_to_torch(half, other)
    there = interop.optimizer_to_torch(tx, half_state, half, other)
    sparse_steps(other, there, STOP, END)
    whole, _ = sparse_port_steps(tx, half_state, half, STOP, END)
    ours = to_numpy(other.table.weight)
    close_units(ours, whole["table"]["embedding"])


def close_units(ours, theirs):
    units = step_units(np.asarray(ours), np.asarray(theirs), np.zeros((11, 3), np.float32))
    assert units.max() <= bound("sparse adam run")


SEARCHES = [(search, name) for search in (None, "strong_wolfe") for name in LBFGS]
LINEAR = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}


@pytest.mark.parametrize(("search", "configuration"), SEARCHES)
def test_lbfgs(search, configuration, x64):
    """In float64, and few calls: they converge, and what is left then is rounding."""
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3).double()
    inputs = torch.randn(20, 4, dtype=torch.float64)
    targets = torch.tanh(inputs @ torch.randn(4, 3, dtype=torch.float64))
    small = {"max_iter": 4, "history_size": 3, "line_search_fn": search, "lr": 0.5}
    options = small | LBFGS[configuration]
    optimizer = torch.optim.LBFGS(module.parameters(), **options)
    tensor_rate = isinstance(options["lr"], torch.Tensor)
    allowed = bound("lbfgs, rate a tensor" if tensor_rate else "lbfgs state")

    def torch_steps(optimizer, count):
        def closure():
            optimizer.zero_grad()
            loss = ((torch.sin(module(inputs)) - targets) ** 2).sum()
            loss.backward()
            return loss

        for _ in range(count):
            optimizer.step(closure)

    x, y = jnp.asarray(inputs.numpy()), jnp.asarray(targets.numpy())

    def loss(params):
        return jnp.sum((jnp.sin(x @ params["kernel"] + params["bias"]) - y) ** 2)

    torch_steps(optimizer, 2)
    params = interop.params_from_torch(module, LINEAR)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    back = interop.optimizer_to_torch(tx, state, params, module)
    ours, theirs = (
        {k: v for k, v in held(which).items() if " al " not in k} for which in (back, optimizer)
    )
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)

    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    torch_steps(optimizer, 2)
    end = interop.params_from_torch(module, LINEAR)
    for _ in range(2):
        params, state = jp.step(tx, loss, state, params)
    close(params, end, allowed)

    module.load_state_dict(start)
    torch_steps(back, 2)
    close(interop.params_from_torch(module, LINEAR), end, allowed)


def lbfgs_steps(module, optimizer, count):
    """Steps of L-BFGS towards fixed numbers, and the same loss of a JAX tree."""
    x = np.random.default_rng(0).standard_normal((20, 3))

    def closure():
        optimizer.zero_grad()
        loss = (torch.sin(module(to_torch(x))) - 0.5).square().sum()
        loss.backward()
        return loss

    for _ in range(count):
        optimizer.step(closure)

    def loss(params):
        h = jnp.asarray(x)
        for layer in ("0", "1"):
            h = h @ params[layer]["kernel"] + params[layer]["bias"]
        return jnp.sum((jnp.sin(h) - 0.5) ** 2)

    return loss


@pytest.mark.parametrize("frozen", [["0.weight"], ["0.bias", "1.weight"], ["1.bias"]])
def test_lbfgs_with_a_parameter_that_is_not_trained(frozen, x64):
    """torch's vectors have zeros for it, between those of the others."""
    module = network().double()
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=4, history_size=3)
    loss = lbfgs_steps(module, optimizer, 2)
    params = interop.params_from_torch(module, LIKE)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    back = interop.optimizer_to_torch(tx, state, params, module)
    ours, theirs = (
        {k: v for k, v in held(which).items() if " al " not in k} for which in (back, optimizer)
    )
    assert_same_bits(ours, theirs, "back in torch")
    lbfgs_steps(module, optimizer, 1)
    params, _ = jp.step(tx, loss, state, params)
    close(params, interop.params_from_torch(module, LIKE), bound("lbfgs state"))


def test_lbfgs_that_goes_on_moving_what_is_not_trained_is_refused():
    module = network().double()
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=4)
    lbfgs_steps(module, optimizer, 1)
    module[0].bias.requires_grad_(False)
    params = interop.params_from_torch(module, LIKE)
    with pytest.raises(ValueError, match="L-BFGS has trained a parameter that requires no grad"):
        interop.optimizer_from_torch(optimizer, params, module)


def close(ours, theirs, allowed):
    for path, leaf in flat(theirs).items():
        np.testing.assert_allclose(flat(ours)[path], leaf, rtol=allowed, err_msg=path)


@pytest.mark.skipif(
    "maximize" in inspect.signature(torch.optim.LBFGS).parameters, reason="this torch has it"
)
def test_lbfgs_that_goes_up_is_not_given_to_a_torch_that_would_go_down():
    module = torch.nn.Linear(4, 3)
    params = interop.params_from_torch(module, LINEAR)
    tx = jp.LBFGS(maximize=True)
    with pytest.raises(ValueError, match=r"LBFGS of this torch has no maximize, which is new in"):
        interop.optimizer_to_torch(tx, tx.init(params), params, module)


JOINED = ["Adam", "SGD", "ASGD", "RMSprop", "Rprop"]
if torch.__version__ >= "2.12":  # before, torch's own step is a KeyError
    JOINED.append("Adagrad")


@pytest.mark.parametrize("name", JOINED)
def test_a_group_that_joined_and_has_no_gradient_yet(name, correct_root):
    module = torch.nn.ParameterDict({"a": torch.ones(2), "b": torch.ones(2)})
    optimizer = getattr(torch.optim, name)([module["a"]], lr=0.1)
    module["a"].grad = torch.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": [module["b"]]})
    params = {name: jnp.asarray(module[name].detach().numpy()) for name in ("a", "b")}
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    module["b"].grad = torch.ones(2)
    optimizer.step()
    params, _ = jp.step(tx, {"a": jnp.ones(2), "b": jnp.ones(2)}, state, params)
    for name in ("a", "b"):
        np.testing.assert_array_equal(params[name], module[name].detach().numpy())


def test_two_optimizers_in_turn(correct_root):
    """Muon of the matrices and AdamW of the rest: each is converted by itself."""
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 8)
    pair = torch.optim.Muon([module.weight], lr=0.02), torch.optim.AdamW([module.bias], lr=1e-2)
    drawn = [torch.randn(9, *p.shape) for p in module.parameters()]

    def train(start, stop):
        for i in range(start, stop):
            for parameter, grads in zip(module.parameters(), drawn, strict=True):
                parameter.grad = grads[i]
            for optimizer in pair:
                optimizer.step()

    train(0, 4)
    like = {"kernel": jnp.zeros((6, 8)), "bias": jnp.zeros(8)}
    params = interop.params_from_torch(module, like)
    made = [interop.optimizer_from_torch(optimizer, params, module) for optimizer in pair]
    states = [state for _, state in made]
    for i in range(4, 9):
        grads = {"kernel": jnp.asarray(drawn[0][i].T.numpy()), "bias": drawn[1][i].numpy()}
        for k, (tx, _) in enumerate(made):
            params, states[k] = jp.step(tx, grads, states[k], params)
    train(4, 9)
    assert_same_bits(params, interop.params_from_torch(module, like), "after 9 steps")
    with pytest.raises(TypeError, match="got 2: convert each by itself"):
        interop.optimizer_from_torch(pair, params, module)
