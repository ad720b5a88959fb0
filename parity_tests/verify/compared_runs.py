"""A perceptron on both sides, of which `verify.compare` is told something else in each test."""

import jax.numpy as jnp
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import verify

STEPS = 40


def torch_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def torch_loss(output, batch):
    return torch.nn.functional.mse_loss(output, batch[1])


def apply(params, batch):
    hidden = jnp.tanh(batch[0] @ params["0"]["kernel"] + params["0"]["bias"])
    return hidden @ params["2"]["kernel"] + params["2"]["bias"]


def jax_loss(output, batch):
    return jnp.mean((output - batch[1]) ** 2)


PARAMS = {
    "0": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)},
    "2": {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)},
}


def batches(steps=STEPS, size=7):
    rng = np.random.default_rng(1)
    return [
        (rng.normal(size=(size, 5)).astype(np.float32), rng.normal(size=(size, 3)))
        for _ in range(steps)
    ]


def theirs(**changes):
    module = changes.pop("module", None) or torch_net()
    make = changes.pop("optimizer", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9))
    return verify.TorchSide(
        **{"module": module, "optimizer": make(module.parameters()), "loss": torch_loss, **changes}
    )


TX = jp.SGD(lr=0.05, momentum=0.9)


def mine(**changes):
    given = {"apply": apply, "params": PARAMS, "tx": TX, "loss": jax_loss}
    return verify.JaxSide(**{**given, **changes})
