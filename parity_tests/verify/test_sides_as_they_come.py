"""Sides as people bring them: parameters of few bits, outputs that are parameters, odd rates."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx

import jaxopt_port as jp
from jaxopt_port import interop, verify
from jaxopt_port.flax import Optimizer, TrainState
from parity_tests.verify.compared_runs import PARAMS, TX, apply, batches, mine, theirs, torch_net
from parity_tests.verify.linear_layers import mean_square, zeros


def compared(torchs, yours, **options):
    return verify.compare(torchs, yours, batches(12), **options)


def half(tree):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


@pytest.mark.parametrize("which", ["yours", "torch's"])
def test_parameters_of_few_bits_on_one_side_are_no_import(which):
    module = torch_net().bfloat16() if which == "torch's" else torch_net()
    report = compared(
        theirs(module=module), mine(params=half(PARAMS) if which == "yours" else PARAMS)
    )
    assert (report.first.stage, report.first.cause.name) == ("parameters", "low-precision")
    assert "param_dtype" in report.first.cause.remedy


def test_autocast_on_torchs_side_alone_is_noted():
    def forward(module, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module(batch[0])

    report = verify.compare(theirs(forward=forward), mine(), batches(3), free_steps=0)
    assert any("torch's output is bfloat16, yours float32" in note for note in report.notes)


class WithScale(torch.nn.Module):
    """An output is a parameter itself, as a policy's deviation is."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = torch_net(), torch.nn.Parameter(torch.full((3,), -0.5))

    def forward(self, x):
        return self.net(x), self.scale


def test_an_output_that_is_a_parameter():
    def loss(output, batch):
        return ((output[0] - batch[1]) ** 2).mean() + (output[1] ** 2).sum()

    report = compared(
        theirs(module=WithScale(), loss=loss),
        mine(
            params={"net": PARAMS, "scale": jnp.zeros(3)},
            apply=lambda params, batch: (apply(params["net"], batch), params["scale"]),
            loss=loss,
        ),
    )
    assert report.ok, report


@pytest.mark.parametrize("inplace", [False, True])
def test_what_torch_itself_has_not_in_float64(inplace):
    module = torch.nn.Sequential(torch_net(), torch.nn.Hardsigmoid(inplace))

    def hard(params, batch):
        return jax.nn.hard_sigmoid(apply(params["0"], batch))

    assert compared(theirs(module=module), mine(params={"0": PARAMS}, apply=hard)).ok
    report = compared(
        theirs(module=module),
        mine(params={"0": PARAMS}, apply=lambda p, b: jax.nn.sigmoid(apply(p["0"], b))),
    )
    assert report.first.cause.name == "activation"


@dataclasses.dataclass
class Config:  # which has no hash
    slope: float = 1.0


class Configured(nnx.Module):
    def __init__(self, config):
        self.config, rngs = config, nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(5, 6, rngs=rngs), jnp.tanh, nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        slope = self.config["slope"] if isinstance(self.config, dict) else self.config.slope
        for layer in self.layers:
            x = layer(x)
        return slope * x


def plain_side(config):
    return mine(apply=lambda params, batch: config.slope * apply(params, batch))


def plain_loss(config):
    return mine(loss=lambda output, batch: config.slope * mean_square(output, batch))


def plain_step(config):
    def step(tx, grads, state, params):
        return jp.step(tx, jax.tree.map(lambda g: config.slope * g, grads), state, params)

    return mine(step=step)


def nnx_config(config):
    return verify.nnx_side(Configured(config), tx=TX, loss=mean_square)


@pytest.mark.parametrize(
    ("side", "config", "change"),
    [
        (plain_side, Config(), lambda config: setattr(config, "slope", 2.0)),
        (plain_loss, Config(), lambda config: setattr(config, "slope", 2.0)),
        (plain_step, Config(), lambda config: setattr(config, "slope", 2.0)),
        (nnx_config, SimpleNamespace(slope=1.0), lambda config: setattr(config, "slope", 2.0)),
        (nnx_config, Config(), lambda config: setattr(config, "slope", 2.0)),
        (nnx_config, {"slope": 1.0}, lambda config: config.update(slope=2.0)),
    ],
)
def test_what_a_function_reads_from_outside_is_read_in_each_comparison(
    side: Callable[[Any], verify.JaxSide], config: Any, change: Callable[[Any], None]
):
    yours = side(config)
    options = {"rename": [(r"^", "layers.")]} if side is nnx_config else {}
    assert verify.compare(theirs(), yours, batches(3), free_steps=0, **options).ok
    change(config)
    assert not verify.compare(theirs(), yours, batches(3), free_steps=0, **options).ok


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_a_compiled_module_is_the_module_itself():
    module = torch.compile(torch_net())
    assert compared(theirs(module=module), mine()).ok


class WithBuffer(torch.nn.Module):
    """What is a buffer here is a parameter on the other side, as sinusoidal positions may be."""

    def __init__(self):
        super().__init__()
        self.net = torch_net()
        self.register_buffer("shift", torch.full((3,), 0.5))

    def forward(self, x):
        return self.net(x) + self.shift


@pytest.mark.parametrize("frozen", [True, False])
def test_a_buffer_of_torchs_may_be_a_parameter_that_is_frozen(frozen):
    shift = {"params": "shift", **({"frozen": True} if frozen else {})}
    report = compared(
        theirs(module=WithBuffer()),
        mine(
            params={"net": PARAMS, "shift": jnp.zeros(3)},
            apply=lambda p, batch: apply(p["net"], batch) + p["shift"],
            tx=jp.SGD([{"params": "net"}, shift], lr=0.05, momentum=0.9),
        ),
        steps=np.int64(12),
    )
    assert report.ok == frozen


def test_averages_of_one_side_alone_are_told():
    report = compared(theirs(), mine(averaged=jp.swa_utils.AveragedModel()))
    assert report.ok
    assert any("only your side has averages" in note for note in report.notes)


@pytest.mark.parametrize(("norm", "limit"), [(float("inf"), 0.05), (1.0, 0.5)])
def test_another_norm_is_clipped(norm, limit):
    def clip(params):
        torch.nn.utils.clip_grad_norm_(params, limit, norm_type=norm)

    tx = optax.chain(jp.clip_by_grad_norm(limit), optax.sgd(0.05, 0.9))
    report = compared(theirs(clip=clip), mine(tx=tx))
    assert [d.cause.name for d in report.found] == ["clip-kind"]
    tx = optax.chain(jp.clip_by_grad_norm(limit, norm), optax.sgd(0.05, 0.9))
    assert compared(theirs(clip=clip), mine(tx=tx)).ok


def test_a_rate_that_becomes_nothing():
    def lambda_lr(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 4))

    side = theirs()
    side.scheduler = lambda_lr(side.optimizer)
    report = compared(side, mine(tx=optax.sgd(0.05, 0.9)))
    assert (report.first.step, report.first.cause.name) == (4, "number")
    report = compared(theirs(), mine(tx=optax.sgd(lambda n: jnp.where(n < 4, 0.05, 0.0), 0.9)))
    assert (report.first.step, report.first.cause.name) == (4, "number")
    assert [cause.name for cause in report.first.cause.also] == ["frozen-leaf"]


def decayed(layer):
    mask = {name: name == layer for name in PARAMS}
    return optax.chain(optax.adam(0.01), optax.masked(optax.add_decayed_weights(-1e-3), mask))


@pytest.mark.parametrize(
    ("rate", "tx", "found"),
    [
        (0.0, optax.adam(0.01), []),
        (0.0, optax.chain(optax.clip(0.01), optax.adam(0.01)), [("update", "clip-kind")]),
        (0.0, decayed("0"), [("update", "frozen-leaf")]),
        (0.01, optax.adam(0.01), [("gradient", "frozen-leaf")]),
    ],
)
def test_a_rate_of_nothing_on_one_side_is_no_gradient_on_the_other(rate, tx, found):
    module = torch_net()
    groups = [{"params": module[0].parameters(), "lr": rate}, {"params": module[2].parameters()}]

    def at_rest(params, batch):
        return apply({**params, "0": jax.lax.stop_gradient(params["0"])}, batch)

    report = compared(
        theirs(module=module, optimizer=lambda _: torch.optim.Adam(groups, lr=0.01)),
        mine(apply=at_rest, tx=tx),
    )
    assert [(d.stage, d.cause.name) for d in report.found] == found, report


def linear_of_torch(steps):
    torch.manual_seed(0)
    module = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in batches(steps):
        optimizer.zero_grad()
        mean_square(module(torch.tensor(inputs)), [None, torch.tensor(targets)]).backward()
        optimizer.step()
    return verify.TorchSide(module=module, optimizer=optimizer, loss=mean_square)


class Normalised(TrainState):
    batch_stats: object = None


def by_linen(tx, change, params=None):
    dense = linen.Dense(3)
    if params is None:
        params = dense.init(jax.random.key(0), jnp.ones((1, 5)))["params"]
    held = Normalised.create(apply_fn=dense.apply, params=params, tx=tx)
    held = held.replace(opt_state=change(held.opt_state))
    return verify.linen_side(dense, held, loss=mean_square)


def by_nnx(tx, change, params=None):
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    if params is not None:
        nnx.update(model, nnx.State(params))
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    optimizer.opt_state = change(optimizer.opt_state)
    return verify.nnx_side(model, tx=optimizer, loss=mean_square)


@pytest.mark.parametrize("made_by", [by_linen, by_nnx])
@pytest.mark.parametrize(("lr", "then"), [(0.1, 0.5), (0.5, 0.1)], ids=["wrong", "right"])
def test_numbers_that_were_set_before_the_first_step_count(made_by, lr, then):
    side = made_by(jp.SGD(lr=lr, momentum=0.9), lambda state: jp.set_hyperparams(state, lr=then))
    report = compared(linear_of_torch(0), side)
    assert report.ok is (then == 0.1), report
    assert report.ok or report.first.stage == "hyperparameters"


@pytest.mark.parametrize("made_by", [by_linen, by_nnx])
def test_a_run_of_torchs_goes_on_whatever_flax_has_counted(made_by):
    side = linear_of_torch(3)
    params = interop.params_from_torch(side.module, zeros(5, 3))
    tx, state = interop.optimizer_from_torch(side.optimizer, params, side.module)
    report = compared(side, made_by(tx, lambda _: state, params))
    assert report.ok, report


class Norm(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False, name="norm")(x)


def test_a_forward_pass_without_its_statistics_is_told_what_it_returns():
    norm, module = Norm(), torch.nn.Sequential(torch.nn.BatchNorm1d(5))
    variables = norm.init(jax.random.key(0), jnp.ones((2, 5)))
    side = verify.linen_side(
        norm, variables, tx=jp.SGD(lr=0.1), loss=lambda output, batch: jnp.mean(output**2),
        forward=lambda v, b: norm.apply(v, b[0], mutable=["batch_stats"])[0],
    )  # fmt: skip
    torchs = theirs(module=module, loss=lambda output, batch: (output**2).mean())
    with pytest.raises(TypeError, match=r"the output and the new batch_stats, as module.apply\("):
        compared(torchs, side, rename=[(r"^0\.", "norm.")])
