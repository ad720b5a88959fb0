"""What a run depends on: versions, the machine, its precision."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import jax

_PACKAGES = ("jax", "jaxlib", "optax", "flax", "torch", "numpy")


def environment() -> dict[str, str]:
    """Return what a run depends on: versions and the machine."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    device = f"{len(devices)} × {devices[0].device_kind}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {**versions, "device": device, "machine": machine}


def of_precision() -> list[str]:
    """Say what JAX's products of matrices are on a GPU, where nothing else is set."""
    if jax.default_backend() != "gpu" or getattr(jax.config, "jax_default_matmul_precision", None):
        return []
    return [
        "on NVIDIA's GPUs JAX multiplies float32 matrices in TF32, some 3e-4 from exact, and torch "
        'does not: set jax.config.update("jax_default_matmul_precision", "highest") before you '
        "judge what differs by as much"
    ]
