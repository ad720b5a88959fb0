"""Optimizer state to the other side and back: the same bits, dtypes and options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from bits import assert_same_bits
from optimizers import LEAFWISE, MUON
from torch_oracle import to_torch
from two_networks import Matrices, Pair, flat, held, options

import jaxopt_port as jp
from jaxopt_port import interop

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
# Options that make an optimizer hold all that it can.
FULL = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True, "lr": 0.1 + 1e-9},
}
QUICK = ("SGD", "AdamW", "Muon")
# Entries of torch's groups that choose its implementation.
CHOSEN = {"SGD": {"foreach": False}, "Adam": {"foreach": False, "capturable": False}}


def optimizers():
    for optimizer in [*LEAFWISE, MUON]:
        for dtype in DTYPES:
            if not dtype.is_complex or optimizer.complex:
                quick = optimizer.name in QUICK and not dtype.is_complex
                yield pytest.param(
                    optimizer,
                    dtype,
                    id=f"{optimizer.name} {dtype}",
                    marks=[] if quick else pytest.mark.slow,
                )


@pytest.mark.parametrize(("optimizer", "dtype"), list(optimizers()))
def test_torch_here_torch(optimizer, dtype, x64):
    module = {"module": Matrices} if optimizer is MUON else {}
    own = CHOSEN.get(optimizer.name, {})
    pair = Pair(optimizer.torch, FULL.get(optimizer.name, {}), dtype, **module, **own)
    for group in pair.optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    pair.torch_steps(0, 3)
    params, tx, state = pair.from_torch()
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    leave_out_what_is_frozen(pair)
    assert_same_bits(held(there), held(pair.optimizer), "back in torch")
    assert options(there) == options(pair.optimizer)
    assert type(there) is type(pair.optimizer)


def leave_out_what_is_frozen(pair):
    """torch's optimizer need not have it, and here nothing is held for it."""
    rest = pair.optimizer.param_groups[1]
    pair.optimizer.state.pop(pair.module.still, None)
    rest["params"] = [p for p in rest["params"] if p.requires_grad]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [*LEAFWISE, MUON], ids=lambda o: o.name)
def test_here_torch_here(optimizer):
    module = {"module": Matrices} if optimizer is MUON else {}
    pair = Pair(optimizer.torch, FULL.get(optimizer.name, {}), **module)
    params, tx, state = pair.from_torch()
    params, state = pair.port_steps(tx, state, params, 0, 2)
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    again_tx, again = interop.optimizer_from_torch(there, params, pair.module)
    assert jp.get_hyperparams(again) == jp.get_hyperparams(state)
    assert_same_bits(arrays(again), arrays(state), "back here")
    assert jax.tree.structure(again_tx.init(params)) == jax.tree.structure(again)


def arrays(state):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def test_numbers_that_were_changed_in_mid_run_do_not_lose_the_buffer():
    pair = Pair(torch.optim.SGD, {"momentum": 0.9})
    pair.torch_steps(0, 2)
    pair.optimizer.param_groups[0]["momentum"] = 0.0
    params, tx, state = pair.from_torch()
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    leave_out_what_is_frozen(pair)
    assert_same_bits(held(there), held(pair.optimizer), "back in torch")
    state = jp.set_hyperparams(state, momentum=0.9)
    params, _ = pair.port_steps(tx, state, params, 2, 4)
    pair.optimizer.param_groups[0]["momentum"] = 0.9
    pair.torch_steps(2, 4)
    assert_same_bits(flat(params), flat(pair.params()), "after two more steps")


class Embeddings(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 3, sparse=True)


def test_sparse_adam_goes_on_here(correct_root):
    torch.manual_seed(0)
    module = Embeddings()
    optimizer = torch.optim.SparseAdam(module.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    indices = [rng.integers(0, 11, 4) for _ in range(6)]
    values = [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(6)]

    def torch_steps(start, stop):
        for i in range(start, stop):
            module.table.weight.grad = torch.sparse_coo_tensor(
                indices[i][None], to_torch(values[i]), (11, 3), check_invariants=True
            )
            optimizer.step()

    torch_steps(0, 3)
    like = {"table": {"embedding": jnp.zeros((11, 3))}}
    params = interop.params_from_torch(module, like)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    back = interop.optimizer_to_torch(tx, state, params, module)
    assert_same_bits(held(back), held(optimizer), "back in torch")
    assert type(back.state[module.table.weight]["step"]) is int
    torch_steps(3, 6)
    for i in range(3, 6):
        grads = {"table": {"embedding": (jnp.asarray(indices[i]), jnp.asarray(values[i]))}}
        params, state = jp.step(tx, grads, state, params)
    theirs = interop.params_from_torch(module, like)
    np.testing.assert_allclose(
        params["table"]["embedding"], theirs["table"]["embedding"], rtol=0, atol=2e-7
    )


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_goes_on_on_both_sides(search, x64):
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3).double()
    inputs = torch.randn(20, 4, dtype=torch.float64)
    targets = torch.tanh(inputs @ torch.randn(4, 3, dtype=torch.float64))
    options = {"lr": 0.5, "max_iter": 4, "history_size": 3, "line_search_fn": search}
    optimizer = torch.optim.LBFGS(module.parameters(), **options)

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

    like = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    torch_steps(optimizer, 2)
    params = interop.params_from_torch(module, like)
    tx, state = interop.optimizer_from_torch(optimizer, params, module)
    back = interop.optimizer_to_torch(tx, state, params, module)
    ours = {k: v for k, v in held(back).items() if " al " not in k}
    theirs = {k: v for k, v in held(optimizer).items() if " al " not in k}
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)

    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    torch_steps(optimizer, 2)
    end = interop.params_from_torch(module, like)
    for _ in range(2):
        params, state = jp.step(tx, loss, state, params)
    close(params, end)

    module.load_state_dict(start)
    torch_steps(back, 2)
    close(interop.params_from_torch(module, like), end)


def close(ours, theirs):
    for path, leaf in flat(theirs).items():
        np.testing.assert_allclose(flat(ours)[path], leaf, rtol=1e-9, err_msg=path)
