"""Moments in eight bits: codes as torchao's search finds them, what is not finite, its tensors."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.contrib import _eight_bits

RNG = np.random.default_rng(0)


def searched(x, signed):
    """torchao's search: by halves, then the upper of two codes from their middle on."""
    numbers = _eight_bits.numbers(signed)
    codes = np.zeros(x.shape, int)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        codes += np.where(x >= numbers[codes + bit], bit, 0)
    upper = np.minimum(codes + 1, 255)
    half = (numbers[upper] - numbers[codes]) * np.float32(0.5)
    return np.where(x - numbers[codes] >= half, upper, codes)


def around(numbers):
    """Numbers, and those within two units of them."""
    for _ in range(2):
        beside = [np.nextafter(numbers, np.float32(end)) for end in (-2, 2)]
        numbers = np.concatenate([numbers, *beside])
    return numbers


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_a_number_has_the_code_of_the_references_search(name):
    signed = name == "exp_avg"
    drawn = RNG.uniform(-1 if signed else 0, 1, 1 << 14) * 10.0 ** RNG.uniform(-8, 0, 1 << 14)
    near = [around(x) for x in (_eight_bits.bounds(signed)[:-1], _eight_bits.numbers(signed))]
    x = np.concatenate([drawn.astype(np.float32), *near, np.float32([0.0, 1.0])])
    x = np.clip(x, -1 if signed else 0, 1)
    block = np.append(x, np.ones(-x.size % 256, np.float32))  # of a scale of 1
    like = {name: jnp.zeros(block.size, jnp.uint8), f"{name}_scale": jnp.zeros(1)}
    written = _eight_bits.written(name, jnp.asarray(block), like)
    assert written[f"{name}_scale"] == 1
    np.testing.assert_array_equal(written[name], searched(block, signed))
    found = np.asarray(_eight_bits.read(name, {**like, **written}))
    np.testing.assert_array_equal(found, _eight_bits.numbers(signed)[searched(block, signed)])


def test_no_two_bounds_have_the_same_upper_bits():
    for signed in (True, False):
        bounds = _eight_bits.bounds(signed)[:-1]
        # A bound that is the least number with its upper bits lies between two of them.
        last = np.nextafter(bounds, np.float32(-2)).view(np.uint32) >> 16
        assert np.all(np.diff(bounds) > 0)
        assert len(set(last.tolist())) == len(bounds)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_makes_its_block_nan(bad):
    tx, params = contrib.AdamW8bit(), {"w": jnp.ones((64, 64))}
    grads = np.ones((64, 64), np.float32)
    state = tx.init(params)
    for first in (bad, 1.0):
        grads[20, 3] = first
        params, state = jp.step(tx, {"w": jnp.asarray(grads)}, state, params)
    isnan = np.isnan(np.asarray(params["w"])).reshape(16, 256)
    assert isnan.all(1).tolist() == isnan.any(1).tolist() == [i == 5 for i in range(16)]


@pytest.mark.parametrize(
    ("shape", "block_size", "scales"),
    [
        ((64, 64), 256, 16),
        ((8, 512), 512, 8),
        ((4095,), 1, None),
        ((65, 64), 256, None),
        ((), 1, 0),
    ],
)
def test_large_leaves_of_whole_blocks_are_held_as_codes(shape, block_size, scales):
    state = contrib.Adam8bit(block_size=block_size).init(jnp.ones(shape, jnp.bfloat16))
    kinds = {x.dtype.name: x.size for x in jax.tree.leaves(state.leaves)}
    assert kinds.get("float32") == (scales or None)
    assert ("uint8" in kinds) == bool(scales) != ("bfloat16" in kinds)


OPTIONS = types.SimpleNamespace(block_size=256, bf16_stochastic_round=False)


def test_tensors_of_codes_are_taken_apart_and_put_together():
    """With stand-ins for torchao's tensors; ``make matrix`` has those themselves."""
    reference = contrib.reference_named("AdamW8bit")
    codes, scale = torch.arange(4096).to(torch.uint8).reshape(64, 64), torch.arange(16.0)
    held = types.SimpleNamespace(codes=codes, scale=scale)
    saved = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": held, "exp_avg_sq": held}},
        "param_groups": [{"params": [0], "lr": torch.tensor(0.25)}],
    }
    read = reference.from_torch(saved, OPTIONS)
    assert read["param_groups"][0]["lr"] == 0.25
    own = read["state"][0]
    assert own["exp_avg"] is codes
    assert own["exp_avg_sq_scale"] is scale

    def zeros(param, signed, block_size):
        made = types.SimpleNamespace(
            codes=torch.zeros(4096, dtype=torch.uint8).reshape(param.shape),
            scale=torch.zeros(4096 // block_size),
            signed=signed,
        )
        return made

    optimizer = types.SimpleNamespace(_subclass_zeros=zeros)
    back = reference.tensors(optimizer, torch.zeros(64, 64), own)
    assert set(back) == {"step", "exp_avg", "exp_avg_sq"}
    assert [back[name].signed for name in ("exp_avg", "exp_avg_sq")] == [True, False]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(back[name].codes, codes)
        assert torch.equal(back[name].scale, scale)
    written = reference.to_torch(read)["param_groups"][0]["lr"]
    assert (written.dtype, written.shape) == (
        np.float32,
        (),
    )  # a tensor's, as it is asked for there


def test_a_run_in_float64_is_calculated_in_float32():
    params = {"w": jnp.asarray(RNG.standard_normal((64, 64)), jnp.float32)}
    tx = contrib.AdamW8bit(lr=0.1)
    narrow, _ = jp.step(tx, params, tx.init(params), params)
    with jax.enable_x64(True):
        wide = {"w": params["w"].astype(jnp.float64)}
        wide, _ = jp.step(tx, wide, tx.init(wide), wide)
        np.testing.assert_array_equal(wide["w"], narrow["w"])
