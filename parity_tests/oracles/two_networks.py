"""One network on both sides for tests of conversion, with gradients that are given."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.optimizer import to_numpy, to_torch

_LEAVES = {"Linear": "kernel", "Conv1D": "kernel", "Conv2d": "kernel", "Embedding": "embedding"}


class Bare(torch.nn.Module):
    """Layers with their layouts, a scalar, and a parameter that stays frozen."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, (2, 3))
        self.fc = torch.nn.Linear(7, 5)
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.still = torch.nn.Parameter(torch.ones(3), requires_grad=False)


class Matrices(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(7, 5, bias=False)
        self.conv = torch.nn.Linear(4, 6, bias=False)
        self.still = torch.nn.Parameter(torch.ones(3, 2), requires_grad=False)


nested = functools.partial(unflatten_dict, sep="/")


def like_of(module: torch.nn.Module) -> dict[str, Any]:
    """The tree that the same network in Flax has, of zeros."""
    flat = {}
    for name, p in module.named_parameters():
        layer, _, leaf = name.rpartition(".")
        shape, kind = tuple(p.shape), type(module.get_submodule(layer)).__name__
        if leaf == "weight" and p.ndim > 1:
            leaf = _LEAVES[kind]
            shape = shape[::-1] if kind == "Linear" else shape
            shape = (*shape[2:], shape[1], shape[0]) if kind == "Conv2d" else shape
        elif leaf == "weight":
            leaf = "scale"
        layer = layer.replace("._orig_mod", "")  # of torch.compile: no part of a tree
        flat[f"{layer.replace('.', '/')}/{leaf}".lstrip("/")] = np.zeros(shape, np.float32)
    made: dict[str, Any] = nested(flat)
    return made


class Pair:
    """A torch module with an optimizer of two groups, and what it becomes here."""

    def __init__(self, optimizer, options, dtype=torch.float32, module=Bare, seed=0, **torchs_own):
        torch.manual_seed(seed)
        self.dtype = dtype
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Complex modules are a new feature")
            self.module = module().to(dtype)
        with torch.no_grad():
            for p in self.module.parameters():
                p.copy_(torch.randn(p.shape, dtype=dtype))
        self.param_map = interop.param_map(self.module, like_of(self.module))
        slow = [p for n, p in self.module.named_parameters() if n.startswith("conv")]
        rest = [p for n, p in self.module.named_parameters() if not n.startswith("conv")]
        lr = {"lr": 0.004} if "lr" in options else {}
        self.optimizer = optimizer(
            [{"params": slow, **lr}, {"params": rest}], **options, **torchs_own
        )
        rng = np.random.default_rng(seed)
        self.grads = [
            {
                n: np.asarray(rng.standard_normal(p.shape), to_numpy(p).dtype)
                for n, p in self.module.named_parameters()
            }
            for _ in range(10)
        ]
        self.jax_grads = [self.to_jax(grads) for grads in self.grads]

    def to_jax(self, tensors):
        leaves = self.param_map.from_torch(tensors)
        structure = jax.tree.structure(like_of(self.module))
        with jax.enable_x64(True):
            return jax.tree.unflatten(
                structure, [jnp.asarray(np.array(v)) for v in leaves.values()]
            )

    def torch_steps(self, start: int, stop: int):
        for i in range(start, stop):
            for name, p in self.module.named_parameters():
                p.grad = to_torch(self.grads[i % 10][name]) if p.requires_grad else None
            self.optimizer.step()

    def port_steps(self, tx, state, params, start: int, stop: int):
        for i in range(start, stop):
            params, state = jp.step(tx, self.jax_grads[i % 10], state, params)
        return params, state

    def params(self):
        """torch's parameters in JAX's layout."""
        return self.to_jax({n: to_numpy(p) for n, p in self.module.named_parameters()})

    def from_torch(self, **more):
        params = self.params()
        return params, *interop.optimizer_from_torch(self.optimizer, params, self.module, **more)

    def to_torch(self, tx, state, params):
        """Put torch's side where this one is."""
        interop.params_to_torch(params, self.module)
        self.optimizer = interop.optimizer_to_torch(tx, state, params, self.module)


def flat(tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in jp.engine.leaf_paths(tree)}


def held(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that torch's optimizer holds, flat, arrays as NumPy."""
    state_dict = optimizer.state_dict()
    found: dict[str, Any] = {}
    for index, state in state_dict["state"].items():
        for name, value in state.items():
            values = value if isinstance(value, list) else [value]
            for i, v in enumerate(values):
                if v is not None:
                    key = f"{index} {name} {i}"
                    found[key] = to_numpy(v) if isinstance(v, torch.Tensor) else np.asarray(v)
    return found


def options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The entries of each group that the optimizer was made with, or that a scheduler left."""
    left_out = ("params", "param_names", "update_count")
    return [
        {k: v for k, v in group.items() if k not in left_out} | {"count": len(group["params"])}
        for group in optimizer.param_groups
    ]
