"""scikit-learn's handwritten digits as LeNet takes them: real images that need no download."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Labels = NDArray[np.int32]

_SIDE = 32
_CHANNELS = 3
_TEST_EVERY = 5


@dataclass(frozen=True)
class Digits:
    """1797 digits, split for training and testing.

    Attributes:
        train_images: (1433, 3, 32, 32) float32, of mean 0 and variance 1.
        train_labels: (1433,) int32, 0 to 9.
        test_images: (364, 3, 32, 32) float32, normalised as the training images are.
        test_labels: (364,) int32, 0 to 9.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def load_digits() -> Digits:
    """Load scikit-learn's 8×8 digits, enlarged bilinearly to three equal channels of 32×32.

    Every fifth image of each class, in scikit-learn's order, is for testing: the split is the same
    everywhere and draws no random numbers.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: pip install 'jaxopt-port[verify]'."
        ) from error
    small, labels = datasets.load_digits(return_X_y=True)
    enlarge = _bilinear_matrix(8, _SIDE)
    images = enlarge @ small.reshape(-1, 8, 8) @ enlarge.T

    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[::_TEST_EVERY]] = True
    mean, std = images[~is_test].mean(), images[~is_test].std()
    images = (images - mean) / std

    def of(chosen: NDArray[np.bool_]) -> tuple[Images, Labels]:
        channels = np.repeat(images[chosen, None], _CHANNELS, axis=1)
        return channels.astype(np.float32), labels[chosen].astype(np.int32)

    return Digits(*of(~is_test), *of(is_test))


def batches(
    digits: Digits, batch_size: int, steps: int, seed: int
) -> Iterator[tuple[Images, Labels]]:
    """Iterate over batches of training images, shuffled anew for each pass through them.

    The counterpart of torch's ``DataLoader(shuffle=True, drop_last=True)``, with NumPy's random
    numbers, so that both frameworks see the same batches.

    Args:
        digits: what `load_digits` returns.
        batch_size: images in each batch; what is left at the end of a pass is dropped.
        steps: number of batches, over as many passes as it takes.
        seed: of the shuffles.

    Returns:
        Iterator of images (batch_size, 3, 32, 32) float32 and labels (batch_size,) int32.

    Raises:
        ValueError: ``batch_size`` is not between 1 and the number of training images, or ``steps``
            is negative.
    """
    size = len(digits.train_labels)
    if not 1 <= batch_size <= size:
        raise ValueError(f"Invalid batch_size: {batch_size}; must be between 1 and {size}.")
    if steps < 0:
        raise ValueError(f"Invalid steps: {steps}; must be >= 0.")
    rng, per_pass = np.random.default_rng(seed), size // batch_size
    passes = (rng.permutation(size) for _ in itertools.count())
    parts = (order[i * batch_size :][:batch_size] for order in passes for i in range(per_pass))
    chosen = itertools.islice(parts, steps)
    return ((digits.train_images[part], digits.train_labels[part]) for part in chosen)


def _bilinear_matrix(size_in: int, size_out: int) -> NDArray[Any]:
    """The (size_out, size_in) matrix of torch's interpolate(mode="bilinear"), along one axis."""
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    position = position.clip(0, size_in - 1)
    distance = np.abs(position[:, None] - np.arange(size_in))
    weights: NDArray[Any] = np.clip(1 - distance, 0, None)
    return weights
