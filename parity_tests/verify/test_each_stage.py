"""Each stage finds what differs in it."""

import jax
import numpy as np
import optax
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import jaxopt_port as jp
from jaxopt_port.verify import JaxSide, TorchSide, compare
from parity_tests.verify.linear_layers import mean_square, one_layer, zeros


def of_half(params, batch):
    """The same output, through which half the gradient comes back."""
    output = one_layer(params, batch) / 2
    return output + jax.lax.stop_gradient(output)


def averaged(decay):
    return jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(decay))


RIGHT = {
    "apply": one_layer, "loss": mean_square, "tx": optax.adamw(1e-2, weight_decay=1e-2),
    "averaged": averaged(0.9), "clip": lambda grads: jp.clip_grad_norm(grads, 0.1)[0],
}  # fmt: skip
WRONG = {
    "forward": {"apply": lambda params, batch: 1.01 * one_layer(params, batch)},
    "loss": {"loss": lambda output, batch: 2 * mean_square(output, batch)},
    "gradient": {"apply": of_half},
    "clipping": {"clip": lambda grads: jp.clip_grad_norm(grads, 0.2)[0]},
    "hyperparameters": {"tx": jp.AdamW(lr=2e-2, weight_decay=1e-2)},
    "update": {"tx": optax.adamw(2e-2, weight_decay=1e-2)},
    "state": {"tx": optax.adamw(1e-2, b2=0.99, weight_decay=1e-2)},
    "averages": {"averaged": averaged(0.8)},
}


def first_of(**mine):
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3)
    theirs = TorchSide(
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=1e-2),
        loss=mean_square,
        clip=lambda params: torch.nn.utils.clip_grad_norm_(params, 0.1),
        averaged=AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    )
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(8, 4)), rng.normal(size=(8, 3))) for _ in range(4)]
    return compare(theirs, JaxSide(**{"params": zeros(4, 3), **RIGHT, **mine}), batches).first


EACH = ("gradient", "state", "averages")  # in every run


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=pytest.mark.always) if s in EACH else s for s in WRONG]
)
def test_a_stage_finds_what_differs_in_it(stage):
    assert first_of(**WRONG[stage]).stage == stage


def test_there_is_nothing_where_nothing_differs():
    assert first_of() is None
