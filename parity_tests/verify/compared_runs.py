"""A perceptron on both sides, of which `verify.compare` is told something else in each test."""

import jax.numpy as jnp
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.verify.linear_layers import layer, mean_square, zeros

STEPS = 40


def torch_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def torch_loss(output, batch):
    return torch.nn.functional.mse_loss(output, batch[1])


def apply(params, batch):
    return layer(params["2"], jnp.tanh(layer(params["0"], batch[0])))


PARAMS = {"0": zeros(5, 6), "2": zeros(6, 3)}


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
    given = {"apply": apply, "params": PARAMS, "tx": TX, "loss": mean_square}
    return verify.JaxSide(**{**given, **changes})
