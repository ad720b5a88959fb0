"""The digits are scikit-learn's, enlarged as torch would, and batched the same everywhere."""

from __future__ import annotations

import builtins
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets

from jaxopt_port.verify.cases import Digits, batches, load_digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def test_shapes_and_dtypes(digits: Digits) -> None:
    described = {
        field.name: (getattr(digits, field.name).shape, getattr(digits, field.name).dtype.name)
        for field in dataclasses.fields(digits)
    }
    assert described == {
        "train_images": ((1433, 3, 32, 32), "float32"),
        "train_labels": ((1433,), "int32"),
        "test_images": ((364, 3, 32, 32), "float32"),
        "test_labels": ((364,), "int32"),
    }


def test_images_are_torchs_bilinear_enlargement(digits: Digits) -> None:
    small, labels = datasets.load_digits(return_X_y=True)
    large = torch.nn.functional.interpolate(
        torch.tensor(small).reshape(-1, 1, 8, 8), size=(32, 32), mode="bilinear"
    ).numpy()
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[::5]] = True
    mean, std = large[~is_test].mean(), large[~is_test].std()
    for images, given, chosen in (
        (digits.train_images, digits.train_labels, ~is_test),
        (digits.test_images, digits.test_labels, is_test),
    ):
        np.testing.assert_array_equal(given, labels[chosen])
        # Rounded to float32 once: below 4, by half of 2**-22.
        want = np.broadcast_to((large[chosen] - mean) / std, images.shape)
        np.testing.assert_allclose(images, want, rtol=0, atol=2**-23)


def test_training_images_are_normalised(digits: Digits) -> None:
    # A float32 unit in the last place is 1e-7, and the errors of 4.4 million values average out.
    assert digits.train_images.mean(dtype=np.float64) == pytest.approx(0, abs=1e-7)
    assert digits.train_images.std(dtype=np.float64) == pytest.approx(1, abs=1e-7)


def test_split_is_stratified_and_leaves_nothing_out(digits: Digits) -> None:
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    _, labels = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(train + test, np.bincount(labels))
    np.testing.assert_array_equal(test, -(-(train + test) // 5))


def test_loading_draws_no_global_random_numbers(digits: Digits) -> None:
    # The generators a user may have seeded.
    before = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    again = load_digits()
    next(batches(again, 32, 1, seed=0))
    assert before == (np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
    np.testing.assert_array_equal(again.test_images, digits.test_images)


def numbered(size: int) -> Digits:
    """Each image holds its own number."""
    images = np.arange(size, dtype=np.float32).reshape(-1, 1, 1, 1)
    labels = np.arange(size, dtype=np.int32)
    return Digits(images, labels, images[:0], labels[:0])


# training images, batch size, steps, batches in a pass
PASSES = {
    "even": (12, 4, 9, 3),
    "a remainder": (14, 4, 7, 3),
    "within a pass": (12, 4, 2, 3),
    "one batch a pass": (5, 5, 3, 1),
    "no steps": (12, 4, 0, 3),
}


@pytest.mark.parametrize("case", PASSES)
def test_each_pass_shuffles_all_images_anew(case: str) -> None:
    size, batch_size, steps, per_pass = PASSES[case]
    seen = list(batches(numbered(size), batch_size, steps, seed=3))
    assert len(seen) == steps
    for images, labels in seen:
        assert labels.shape == (batch_size,)
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    passes = [seen[start : start + per_pass] for start in range(0, steps, per_pass)]
    orders = [np.concatenate([labels for _, labels in each]) for each in passes]
    for order in orders:
        assert len(np.unique(order)) == len(order)
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_the_seed_decides() -> None:
    def order(seed: int) -> list[int]:
        return [int(n) for _, labels in batches(numbered(40), 10, 8, seed) for n in labels]

    assert order(0) == order(0)
    assert order(0) != order(1)


BAD_ARGUMENTS = {
    "no images": ((0, 1), "Invalid batch_size: 0; must be between 1 and 12"),
    "too many images": ((13, 1), "Invalid batch_size: 13; must be between 1 and 12"),
    "negative steps": ((4, -1), "Invalid steps: -1; must be >= 0"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_at_once(case: str) -> None:
    (batch_size, steps), message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        batches(numbered(12), batch_size, steps, seed=0)


def test_missing_scikit_learn_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_sklearn(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError("No module named 'sklearn'", name="sklearn")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-port\[verify\]'"):
        load_digits()
