"""Pooling chooses as torch's does, to the last bit; convolution is lax's."""

from __future__ import annotations

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax import lax

from jaxopt_port.models._convolution import conv_general_dilated, max_pool_2x2

NAN, INF = float("nan"), float("inf")


def _few_values(shape: tuple[int, ...], values: list[float]) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array(values, np.float32), shape)


# (N, H, W, C)
POOLED = {
    "no ties": np.random.default_rng(0).standard_normal((2, 8, 6, 3)).astype(np.float32),
    "flat": np.zeros((2, 8, 6, 3), np.float32),
    # All 3**4 windows of three values, each in an image of its own.
    "every order": np.array([*itertools.product([0.0, 1.0, 2.0], repeat=4)], np.float32).reshape(
        -1, 2, 2, 1
    ),
    "every NaN": np.array([*itertools.product([0.0, 1.0, NAN], repeat=4)], np.float32).reshape(
        -1, 2, 2, 1
    ),
    "infinities": _few_values((2, 8, 6, 3), [-INF, INF, NAN, 0.0]),
    "signed zeros": _few_values((2, 8, 6, 3), [0.0, -0.0]),
    "odd sides": _few_values((2, 7, 5, 3), [0.0, 1.0, 2.0]),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", POOLED)
def test_pooling_is_torchs_in_value_and_gradient(case: str, dtype: str) -> None:
    # Bit for bit: nothing is rounded.
    x = POOLED[case]
    cotangent = np.arange(1, 1 + x[:, ::2, ::2].size, dtype=np.float64)

    theirs = torch.tensor(x).to(DTYPES[dtype]).permute(0, 3, 1, 2).requires_grad_()
    want = torch.nn.MaxPool2d(2)(theirs).permute(0, 2, 3, 1)
    cotangent = cotangent[: want.numel()].reshape(want.shape)
    want.backward(torch.tensor(cotangent).to(DTYPES[dtype]))

    with jax.enable_x64(dtype == "float64"):
        got, gradient = _pool_with_gradient(jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype))

    _assert_same(got, want.detach())
    _assert_same(gradient, theirs.grad.permute(0, 2, 3, 1))


@jax.jit
def _pool_with_gradient(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    out, pull_back = jax.vjp(max_pool_2x2, x)
    return out, *pull_back(cotangent)


def _assert_same(got: jax.Array, want: torch.Tensor) -> None:
    # float64 holds every bfloat16 and float32; the sign of zero is compared too.
    a, b = np.asarray(got, np.float64), want.double().numpy()
    np.testing.assert_array_equal(a, b)
    numbers = ~np.isnan(b)
    np.testing.assert_array_equal(np.signbit(a)[numbers], np.signbit(b)[numbers])


def _arrays(n: int, side: int, k: int, c: int, o: int, dtype: str) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.standard_normal((n, side, side, c)), dtype),
        jnp.asarray(rng.standard_normal((k, k, c, o)), dtype),
    )


def _conv(function: Any, **options: Any) -> Any:
    given = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": NHWC, **options}
    return lambda images, kernel: function(images, kernel, **given)


def _with_gradients(function: Any) -> Any:
    @jax.jit
    def run(images: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        out, pull_back = jax.vjp(function, images, kernel)
        return out, *pull_back(cotangent)

    return run


NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
NCHW_OUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 1, 2, 3))

# n, image side, kernel side, channels in, channels out
SHAPES = {
    "LeNet's first": (2, 32, 5, 3, 6),
    "LeNet's second": (2, 14, 5, 6, 16),
    "prime output": (1, 13, 3, 2, 4),
    "many channels": (1, 10, 3, 8, 200),
    "one pixel out": (3, 5, 5, 2, 3),
    "1×1": (2, 4, 1, 3, 5),
    "even kernel": (2, 9, 4, 1, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_its_gradients_are_laxs(shape: str) -> None:
    with jax.enable_x64(True):
        images, kernel = _arrays(*SHAPES[shape], "float64")
        ours, theirs = _conv(conv_general_dilated), _conv(lax.conv_general_dilated)
        assert "conv_general_dilated" not in str(jax.make_jaxpr(ours)(images, kernel))
        cotangent = jax.eval_shape(ours, images, kernel)
        cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(cotangent.shape))
        # Sums of at most 1800 products of size 1, in another order: 1e-13 allows for a few units
        # in the last place of each, 1e-14 is the most measured.
        got = _with_gradients(ours)(images, kernel, cotangent)
        want = _with_gradients(theirs)(images, kernel, cotangent)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * np.abs(b).max())


LEFT_TO_LAX = {
    "strides": {"window_strides": (2, 2)},
    "same padding": {"padding": "SAME"},
    "padding": {"padding": ((1, 1), (0, 2))},
    "input dilation": {"lhs_dilation": (2, 1), "padding": ((0, 0), (0, 0))},
    "kernel dilation": {"rhs_dilation": (1, 2)},
    "another layout": {"dimension_numbers": NCHW_OUT},
}


@pytest.mark.parametrize("case", LEFT_TO_LAX)
def test_what_is_not_plain_is_left_to_lax(case: str) -> None:
    images, kernel = _arrays(2, 12, 3, 2, 4, "float32")
    got = _conv(conv_general_dilated, **LEFT_TO_LAX[case])(images, kernel)
    want = _conv(lax.conv_general_dilated, **LEFT_TO_LAX[case])(images, kernel)
    np.testing.assert_array_equal(got, want)


GROUPS = {"feature groups": {"feature_group_count": 2}, "batch groups": {"batch_group_count": 2}}


@pytest.mark.parametrize("case", GROUPS)
def test_groups_are_left_to_lax(case: str) -> None:
    images, _ = _arrays(2, 12, 3, 4, 4, "float32")
    _, kernel = _arrays(2, 12, 3, 4 // GROUPS[case].get("feature_group_count", 1), 4, "float32")
    got = _conv(conv_general_dilated, **GROUPS[case])(images, kernel)
    want = _conv(lax.conv_general_dilated, **GROUPS[case])(images, kernel)
    np.testing.assert_array_equal(got, want)


def test_other_backends_use_lax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    images, kernel = _arrays(2, 12, 3, 2, 4, "float32")
    jaxpr = jax.make_jaxpr(_conv(conv_general_dilated))(images, kernel)
    assert "conv_general_dilated" in str(jaxpr)


def test_an_image_that_is_too_small_is_laxs_case() -> None:
    images, kernel = _arrays(1, 4, 5, 1, 1, "float32")
    want = _conv(lax.conv_general_dilated)(images, kernel)
    assert _conv(conv_general_dilated)(images, kernel).shape == want.shape


def test_preferred_element_type_is_honoured() -> None:
    images, kernel = _arrays(2, 12, 3, 2, 4, "bfloat16")
    out = _conv(conv_general_dilated, preferred_element_type=jnp.float32)(images, kernel)
    assert out.dtype == jnp.float32


def test_flax_layers_take_the_plain_path() -> None:
    # Were Flax to name its dimensions otherwise, the CPU would be slow again, and silently.
    x = jnp.zeros((2, 32, 32, 3))
    options = {"padding": "VALID", "conv_general_dilated": conv_general_dilated}
    in_nnx = nnx.Conv(3, 6, (5, 5), rngs=nnx.Rngs(0), **options)
    in_linen = nn.Conv(6, (5, 5), **options)
    variables = in_linen.init(jax.random.key(0), x)
    for layer in (in_nnx, lambda x: in_linen.apply(variables, x)):
        assert "conv_general_dilated" not in str(jax.make_jaxpr(layer)(x))
