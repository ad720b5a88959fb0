"""Drawn batches for networks of a few parameters, and losses that are more than a mean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch.nn import functional

from parity_tests.faults.models import each, wanted

BATCH, CLASSES, FEATURES = 6, 5, 7


def vectors(seed: int, steps: int) -> list[Any]:
    """Return vectors and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, FEATURES)).astype(np.float32)
    return list(zip(data, rng.integers(0, CLASSES, (steps, BATCH)), strict=True))


def targets(seed: int, steps: int) -> list[Any]:
    """Return vectors of large numbers, and numbers to be told from them."""
    rng = np.random.default_rng(seed)
    data = rng.uniform(0, 255, size=(steps, BATCH, FEATURES)).astype(np.float32)
    return list(zip(data, rng.normal(size=(steps, BATCH, 3)).astype(np.float32), strict=True))


def images(seed: int, steps: int) -> list[Any]:
    """Return images of 6 × 6, channels first, and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, 2, 6, 6)).astype(np.float32)
    return list(zip(data, rng.integers(0, CLASSES, (steps, BATCH)), strict=True))


def texts(seed: int, steps: int) -> list[Any]:
    """Return tokens, of which 0 is padding, and the next ones, as a dict."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 11, (steps, BATCH, 6))
    tokens[:, :, 4:] *= rng.integers(0, 2, (steps, BATCH, 2))
    return [{"ids": t[:, :-1], "labels": t[:, 1:]} for t in tokens]


def sequences(seed: int, steps: int) -> list[Any]:
    """Return sequences and numbers."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, 5, FEATURES)).astype(np.float32)
    return list(zip(data, 3 * rng.normal(size=(steps, BATCH, 2)).astype(np.float32), strict=True))


def pixels(seed: int, steps: int) -> list[Any]:
    """Return images of ones and zeros, which are their own targets."""
    rng = np.random.default_rng(seed)
    return [((rng.random((BATCH, 1, 4, 4)) < 0.4).astype(np.float32),) for _ in range(steps)]


def smooth(output: Any, batch: Any) -> Any:
    """Return a cross entropy of smoothed labels."""
    labels = optax.smooth_labels(jax.nn.one_hot(batch[1], CLASSES), 0.1)
    return optax.softmax_cross_entropy(output, labels).mean()


def torch_smooth(output: Any, batch: Any) -> Any:
    """Return the same of torch's."""
    return functional.cross_entropy(output, batch[1], label_smoothing=0.1)


def masked(output: Any, batch: Any) -> Any:
    """Return the mean over what is no padding."""
    kept = wanted(batch) != 0
    return jnp.where(kept, each(output, batch), 0.0).sum() / jnp.maximum(kept.sum(), 1)


def torch_masked(output: Any, batch: Any, smoothing: float = 0.0) -> Any:
    """Return the same of torch's."""
    return functional.cross_entropy(
        output.flatten(0, 1), wanted(batch).flatten(), ignore_index=0, label_smoothing=smoothing
    )


def by_sequence(output: Any, batch: Any) -> Any:
    """Return the mean over sequences of the mean of each."""
    kept = wanted(batch) != 0
    sums = jnp.where(kept, each(output, batch), 0.0).sum(1)
    return (sums / jnp.maximum(kept.sum(1), 1)).mean()
