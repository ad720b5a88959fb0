import builtins
import importlib.util
import os

import jax
import numpy as np
import pytest

from parity_tests.budget import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
)

# There is none for some of the environments of `make matrix`.
if importlib.util.find_spec("torch"):
    import torch

    # Two workers on two cores, each with torch's and XLA's threads, run ten times slower.
    torch.set_num_threads(1)

# The arrays of tests are small: without it they would all have plain XLA.
os.environ.setdefault("JAXOPT_PORT_KERNELS", "on")

# For what is split over devices; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """What a process of this run has compiled, it does not compile again: the same machine code.

    Each has a folder of its own (JAX writes no entry in one go), which no other run sees.
    """
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
