"""torch's orders of scaling, accumulation, clipping and stepping, as tables against its loop."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.scheduled_groups import PARAMS as THREE

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
START = {"w": np.float32([1.5, -2.0, 0.25]), "v": np.float32([3.0])}
# Gradients whose norm is a sum of squares without rounding, so that clipping has torch's bits.
DRAWN = np.random.default_rng(0).integers(-4, 5, (40, 4)).astype(np.float32)

# Which gradients have an infinity or a NaN.
OVERFLOWS = {
    "none": {},
    "first": {0: math.inf},
    "within": {4: math.inf, 5: -math.inf},
    "last of a window": {3: math.nan},
    "all of a window": {4: math.inf, 5: math.nan, 6: math.inf, 7: -math.inf},
    "two windows": {1: math.nan, 9: math.inf},
}
# When torch's loop takes its step, given the number of a gradient from 0; and the same here.
WINDOWS = {
    "each": (lambda i: True, 1, None),
    "two": (lambda i: (i + 1) % 2 == 0, 2, None),
    "four": (lambda i: (i + 1) % 4 == 0, 4, None),
    "epochs of seven": (
        lambda i: (i % 7 + 1) % 3 == 0 or i % 7 == 6, 3, lambda i: i % 7 == 6
    ),
}  # fmt: skip
CLIPS = ["no clip", "clip norm", "clip value"]


def gradient(i, overflows):
    flat = DRAWN[i].copy()
    if i in overflows:
        flat[i % 4] = overflows[i]
    return {"w": flat[:3], "v": flat[3:]}


class TorchLoop:
    def __init__(self, clip, scaler=None):
        self.tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in START.items()}
        self.optimizer = torch.optim.SGD(self.tensors.values(), **OPTIONS)
        self.clip, self.scaler = clip, scaler

    def backward(self, grads):
        loss = sum((self.tensors[k] * torch.tensor(g)).sum() for k, g in grads.items())
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self):
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.clip == "clip norm":
            torch.nn.utils.clip_grad_norm_(self.tensors.values(), 2.0)
        if self.clip == "clip value":
            torch.nn.utils.clip_grad_value_(self.tensors.values(), 1.5)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()

    def read(self):
        return {k: t.detach().numpy().copy() for k, t in self.tensors.items()}


def clipped(clip):
    before = {
        "clip norm": [jp.clip_by_grad_norm(2.0)],
        "clip value": [jp.clip_by_grad_value(1.5)],
    }.get(clip, [])
    return optax.chain(*before, jp.SGD(**OPTIONS))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("clip", CLIPS)
def test_windows_have_every_bit_of_torchs_loop(window, clip):
    ends, steps, early = WINDOWS[window]
    theirs, tx = TorchLoop(clip), jp.accumulate_grads(clipped(clip), steps)
    params, state = START, tx.init(START)
    for i in range(16):
        theirs.backward(gradient(i, {}))
        if ends(i):
            theirs.step()
        extra = {} if early is None else {"take_step": early(i)}
        params, state = jp.step(tx, gradient(i, {}), state, params, **extra)
        assert_same_bits(params, theirs.read(), f"after gradient {i}")


SCALED = list(itertools.product(OVERFLOWS, [w for w in WINDOWS if w != "each"], CLIPS))
SCALER = {"init_scale": 2.0**10, "growth_interval": 2}


@functools.cache
def scaled_step(window, clip):
    scaler, tx = jp.GradScaler(**SCALER), jp.accumulate_grads(clipped(clip), WINDOWS[window][1])

    @jax.jit
    def step(carried, grads, take_step):
        params, state, scaler_state = carried
        scaled = scaler.scale(grads, scaler_state)
        unscaled, found_inf = scaler.unscale(scaled, scaler_state)
        params, state = scaler.step(tx, unscaled, state, params, found_inf, take_step=take_step)
        return params, state, scaler.update(scaler_state, found_inf, state=state)

    return scaler, step, (START, tx.init(START), scaler.init())


EACH = ("two windows", "four", "clip norm")  # an overflow that is not a window's last


@pytest.mark.parametrize(
    ("overflows", "window", "clip"),
    [pytest.param(*one, marks=pytest.mark.always) if one == EACH else one for one in SCALED],
)
def test_a_scaler_around_windows_is_torchs(overflows, window, clip):
    """An overflow anywhere in a window skips its step; the scale moves once for each window."""
    ends, _, early = WINDOWS[window]
    theirs = TorchLoop(clip, torch.amp.GradScaler("cpu", **SCALER))
    scaler, step, carried = scaled_step(window, clip)
    for i in range(16):
        grads = gradient(i, OVERFLOWS[overflows])
        theirs.backward(grads)
        if ends(i):
            theirs.step()
        carried = step(carried, grads, early is not None and early(i))
        assert_same_bits(carried[0], theirs.read(), f"after gradient {i}")
        assert scaler.state_dict(carried[2]) == theirs.scaler.state_dict(), f"gradient {i}"


@pytest.mark.parametrize(
    ("overflows", "clip"), [*((o, "clip norm") for o in OVERFLOWS), ("first", "no clip")]
)
def test_a_scaler_without_windows_is_torchs_in_a_scan(overflows, clip):
    theirs = TorchLoop(clip, torch.amp.GradScaler("cpu", **SCALER))
    scaler, tx = jp.GradScaler(**SCALER), clipped(clip)

    def step(carried, grads):
        params, state, scaler_state = carried
        unscaled, found = scaler.unscale(scaler.scale(grads, scaler_state), scaler_state)
        params, state = scaler.step(tx, unscaled, state, params, found)
        return (params, state, scaler.update(scaler_state, found)), params

    rows = [gradient(i, OVERFLOWS[overflows]) for i in range(12)]
    start = (START, tx.init(START), scaler.init())
    (_, _, scaler_state), path = jax.lax.scan(
        step, start, jax.tree.map(lambda *each: np.stack(each), *rows)
    )
    for i, grads in enumerate(rows):
        theirs.backward(grads)
        theirs.step()
        assert_same_bits({k: v[i] for k, v in path.items()}, theirs.read(), f"after step {i}")
    assert scaler.state_dict(scaler_state) == theirs.scaler.state_dict()


def test_the_figures_of_the_documents():
    tx, scaler = jp.accumulate_grads(jp.SGD(lr=1.0), 2), jp.GradScaler()
    params, scaler_state = jnp.zeros(1), scaler.init()
    state, path = tx.init(params), []
    for grad in (1.0, np.inf, 10.0, 100.0, 1000.0, 1e4):
        grads, found_inf = scaler.unscale(jnp.full(1, grad) * scaler_state.scale, scaler_state)
        params, state = scaler.step(tx, grads, state, params, found_inf)
        scaler_state = scaler.update(scaler_state, found_inf, state=state)
        path.append(float(params[0]))
    assert path == [0, 0, 0, -110, -110, -11110]


def test_a_length_that_changes():
    """Torch's loops that compare the number of gradients with a length that grows."""

    def length(i):
        return min(1 + i // 4, 3)

    theirs = TorchLoop("no clip")
    tx = jp.accumulate_grads(jp.SGD(**OPTIONS), lambda i: jnp.minimum(1 + i // 4, 3))
    params, state, last = START, tx.init(START), -1
    step = jax.jit(lambda grads, state, params: jp.step(tx, grads, state, params))
    for i in range(20):
        theirs.backward(gradient(i, {}))
        if i - last >= length(i):
            theirs.step()
            last = i
        params, state = step(gradient(i, {}), state, params)
        assert_same_bits(params, theirs.read(), f"after gradient {i}")


@pytest.mark.parametrize("mean", [False, True])
def test_clipping_of_the_sum_and_of_the_mean(mean):
    """The loss is divided by the length or is not; what is clipped is what was added up."""
    theirs, tx = TorchLoop("clip norm"), jp.accumulate_grads(clipped("clip norm"), 4)
    params, state = START, tx.init(START)
    for i in range(12):
        grads = {k: g / np.float32(4 if mean else 1) for k, g in gradient(i, {}).items()}
        theirs.backward(grads)
        if i % 4 == 3:
            theirs.step()
        params, state = jp.step(tx, grads, state, params)
        assert_same_bits(params, theirs.read(), f"after gradient {i}")


def test_two_optimizers_and_one_scaler():
    """Each skips its own step; the scale shrinks where any has found an infinity."""
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    tensors = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizers = [torch.optim.SGD([tensors[0]], lr=0.1), torch.optim.SGD([tensors[1]], lr=0.2)]
    scaler, txs = jp.GradScaler(8.0, growth_interval=2), [jp.SGD(lr=0.1), jp.SGD(lr=0.2)]
    params = [jnp.ones(2), jnp.ones(2)]
    states, scaler_state = [tx.init(jnp.ones(2)) for tx in txs], scaler.init()
    for rows in [(1.0, 2.0), (math.inf, 1.0), (1.0, math.nan), (3.0, 1.0), (1.0, 1.0)]:
        for tensor, row in zip(tensors, rows, strict=True):
            tensor.grad = None
            theirs.scale((tensor * row).sum()).backward()
        for optimizer in optimizers:
            theirs.step(optimizer)
        theirs.update()
        found = []
        for k, row in enumerate(rows):
            grads = jnp.full(2, row) * scaler_state.scale
            grads, found_inf = scaler.unscale(grads, scaler_state)
            params[k], states[k] = scaler.step(txs[k], grads, states[k], params[k], found_inf)
            found.append(found_inf)
        scaler_state = scaler.update(scaler_state, jnp.stack(found).any())
        for ours, tensor in zip(params, tensors, strict=True):
            np.testing.assert_array_equal(ours, tensor.detach())
        assert scaler.state_dict(scaler_state) == theirs.state_dict()


def test_frozen_parameters_need_no_gradient():
    groups = [{"params": ["a", "b"]}, {"params": "c", "frozen": True}]
    tx = jp.accumulate_grads(jp.SGD(groups, lr=0.5, momentum=0.9), 2)
    params, state = THREE, tx.init(THREE)
    for grads in ({**THREE, "c": None}, THREE):
        params, state = jp.step(tx, grads, state, params)
    np.testing.assert_array_equal(params["a"], 0)
    np.testing.assert_array_equal(params["c"], 1)


def test_a_skipped_step_has_the_structure_of_one_that_is_taken():
    """Where the step would make a buffer, or count some parameters apart."""
    scaler = jp.GradScaler()
    fresh = jp.SGD(lr=0.1)
    state, _ = jp.lr_scheduler.OneCycleLR(0.1, 10).init(fresh.init(THREE))
    for tx in (fresh, jp.accumulate_grads(fresh, 2)):
        own = state if tx is fresh else tx.init(THREE)._replace(inner_state=state)
        params, after = scaler.step(tx, THREE, own, THREE, jnp.array(True))
        jax.tree.map(np.testing.assert_array_equal, params, THREE)
        again = scaler.step(tx, THREE, after, params, jnp.array(False))[1]
        assert jax.tree.structure(again) == jax.tree.structure(after)

    adam = jp.Adam(lr=0.1)
    params, state = scaler.step(
        adam, {**THREE, "b": None}, adam.init(THREE), THREE, jnp.array(False)
    )
    _, skipped = scaler.step(adam, {**THREE, "b": None}, state, params, jnp.array(True))
    assert skipped.scalars["step"].tolist() == state.scalars["step"].tolist() == [1, 0]
    _, first = scaler.step(adam, {**THREE, "b": None}, adam.init(THREE), THREE, jnp.array(True))
    assert first.scalars["step"].tolist() == [0, 0]
