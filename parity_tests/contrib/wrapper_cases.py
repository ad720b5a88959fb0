"""What stands around an optimizer, in other packages and here: which, in which configurations.

Gradients are those of half the squared distance from drawn numbers, so that both sides compute
them alike.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib.cases import SHAPES, STEPS


@dataclass(frozen=True, eq=False)
class Wrapped:
    """One wrapper in one configuration, around one of torch's optimizers.

    Attributes:
        package: of the reference.
        name: of the class, there.
        options: of the wrapper, on both sides.
        base: the class of the optimizer.
        base_options: its options.
    """

    package: str
    name: str
    options: dict[str, Any]
    base: str
    base_options: dict[str, Any]

    def made(self):
        """The wrapper here."""
        inner = getattr(jp, self.base)(**self.base_options)
        if self.name == "SAM":
            return contrib.sam(inner, **self.options)
        return contrib.lookahead(inner, package=self.package, **self.options)

    def module(self):
        """The package; it has to be installed."""
        return importlib.import_module({"timm": "timm.optim"}.get(self.package, self.package))

    def ours(self, start, goals):
        """The parameters here after steps towards each of the goals."""
        tx, params = self.made(), {name: jnp.asarray(array) for name, array in start.items()}
        state = tx.init(params)
        for goal in goals:
            near = jax.tree_util.Partial(distance, {k: jnp.asarray(v) for k, v in goal.items()})
            given = near if self.name == "SAM" else jax.grad(near)(params)
            params, state = jp.step(tx, given, state, params)
        return params

    def theirs(self, start, goals):
        """The parameters there."""
        import torch

        from parity_tests.oracles.optimizer import to_numpy, to_torch

        tensors = {name: to_torch(array).requires_grad_() for name, array in start.items()}
        base, cls = getattr(torch.optim, self.base), getattr(self.module(), self.name)
        if self.name == "SAM":
            optimizer = cls(tensors.values(), base, **self.options, **self.base_options)
        else:
            optimizer = cls(base(tensors.values(), **self.base_options), **self.options)

        def set_gradients(goal):
            for name, tensor in tensors.items():
                tensor.grad = tensor.detach() - to_torch(goal[name])

        for goal in goals:
            set_gradients(goal)
            if self.name == "SAM":
                optimizer.first_step()
                set_gradients(goal)
                optimizer.second_step()
            else:
                optimizer.step()
        return {name: to_numpy(tensor) for name, tensor in tensors.items()}

    def __repr__(self):
        given = [f"{k}={v}" for k, v in self.options.items()]
        inner = ", ".join(f"{k}={v}" for k, v in self.base_options.items())
        return f"{self.package} {self.name}({', '.join([f'{self.base}({inner})', *given])})"


def distance(goal, params):
    return sum(jnp.sum((params[name] - goal[name]) ** 2) / 2 for name in goal)


def drawn(dtype=np.float64, steps=STEPS):
    """A start and goals, in the order of the leaves: SAM's norm is a sum in float32, in order."""
    rng = np.random.default_rng(20240301)
    trees = [
        {
            name: np.asarray(rng.standard_normal(shape), dtype)
            for name, shape in sorted(SHAPES.items())
        }
        for _ in range(steps + 1)
    ]
    return trees[0], trees[1:]


_SGD = ("SGD", {"lr": 0.1, "momentum": 0.9})
_ADAMW = ("AdamW", {"lr": 0.01})
WRAPPED = [
    Wrapped("timm", "Lookahead", {}, *_SGD),
    Wrapped("timm", "Lookahead", {"k": 3, "alpha": 0.8}, *_ADAMW),
    Wrapped("timm", "Lookahead", {"k": 1, "alpha": 0.3}, *_SGD),
    Wrapped("pytorch_optimizer", "Lookahead", {"k": 5}, *_ADAMW),
    Wrapped("pytorch_optimizer", "Lookahead", {"k": 3, "alpha": 0.8}, *_SGD),
    Wrapped("pytorch_optimizer", "Lookahead", {"k": 2, "alpha": 0.3}, "SGD", {"lr": 0.1}),
    Wrapped("pytorch_optimizer", "SAM", {}, *_SGD),
    Wrapped("pytorch_optimizer", "SAM", {"rho": 0.5, "adaptive": True}, *_ADAMW),
    Wrapped("pytorch_optimizer", "SAM", {"rho": 2.0, "perturb_eps": 0.1}, "SGD", {"lr": 0.1}),
]
