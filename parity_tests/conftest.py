import builtins
import importlib.util
import os

import jax
import numpy as np
import pytest

# There is none for some of the environments of `make matrix`.
if importlib.util.find_spec("torch"):
    import torch

    # Two workers on two cores, each with torch's and XLA's threads, run ten times slower.
    torch.set_num_threads(1)

# The arrays of tests are small: without it they would all have plain XLA.
os.environ.setdefault("JAXOPT_PORT_KERNELS", "on")

# For what is split over devices; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture
def no_torch(monkeypatch):
    """torch cannot be imported."""
    real_import = builtins.__import__

    def importing(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'", name="torch")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.fixture
def x64():
    """The user's own jax_enable_x64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def correct_root(monkeypatch):
    """A correctly rounded square root in torch, in place of MKL's."""

    def root(tensor):
        return torch.from_numpy(np.asarray(np.sqrt(tensor.numpy())))

    monkeypatch.setattr(torch.Tensor, "sqrt", root)
    monkeypatch.setattr(torch.Tensor, "sqrt_", lambda tensor: tensor.copy_(root(tensor)))
