import jax
import numpy as np
import pytest
import torch

# Two workers on two cores, each with torch's and XLA's threads, run ten times slower.
torch.set_num_threads(1)


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture
def x64():
    """The user's own jax_enable_x64."""
    with jax.enable_x64(True):
        yield
