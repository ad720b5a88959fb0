"""The norm of an array, as torch's kernel on the CPU adds it up."""

import jax
import numpy as np
import pytest
import torch

from jaxopt_port.contrib._sums import norm

# Nothing, less than eight, what is left over in fours and ones, whole blocks, and a row more.
LENGTHS = [0, 1, 3, 6, 8, 15, 129, 1023, 100_001]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_norm_has_torchs_bits(length):
    rng = np.random.default_rng(length)
    compiled = jax.jit(norm)
    for _ in range(3):
        drawn = rng.standard_normal(length).astype(np.float32)
        assert np.asarray(compiled(drawn)) == np.float32(torch.from_numpy(drawn).norm(2.0))


@pytest.mark.parametrize("shape", [(30, 50), (40, 3, 2, 2)])
def test_a_norm_of_several_axes_has_torchs_bits(shape):
    drawn = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    assert np.asarray(jax.jit(norm)(drawn)) == np.float32(torch.from_numpy(drawn).norm(2.0))


def test_a_norm_in_the_other_form_is_the_true_one():
    """As vmap and exported programs see it, and several devices."""
    drawn = np.random.default_rng(6).standard_normal((3, 1000)).astype(np.float32)
    expected = np.sqrt(np.sum(drawn.astype(np.float64) ** 2, axis=1)).astype(np.float32)
    np.testing.assert_array_equal(jax.vmap(norm)(drawn), expected)
