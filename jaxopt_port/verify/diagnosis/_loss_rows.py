"""The rows of an output: what one label is predicted from, and how both losses move it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ._arrays import Array, softmax
from ._numbers import SAME

NO_LABEL = np.iinfo(np.int64).min  # of a last position, which has no next token
_MOST = 0.5  # of the rows whose likeliest pull is to a label, where the label has to be guessed


class Rows:
    """Both losses' gradients in an output whose last axis has the classes.

    Args:
        output: torch's, float64.
        yours: the gradient of your loss in it.
        torchs: the same.
        labels: whole numbers of the output's leading shape.
    """

    def __init__(self, output: Array, yours: Array, torchs: Array, labels: Array) -> None:
        classes = output.shape[-1]
        self.shape = output.shape[:-1]
        self.mine, self.theirs = yours.reshape(-1, classes), torchs.reshape(-1, classes)
        self.labels = labels.reshape(-1)
        self.output = output.reshape(-1, classes)
        self.chances, self.log_total = softmax(self.output)
        square = dots(self.theirs, self.theirs)
        self.counts = square > 0  # in torch's loss
        self.mine_count = dots(self.mine, self.mine) > 0
        both = dots(self.mine, self.theirs)
        self.ratio = np.divide(both, square, out=np.zeros_like(both), where=self.counts)
        gap = apart(self.mine, self.ratio, self.theirs)[self.counts]
        scale = max(np.abs(self.mine).max(), np.abs(self.theirs).max())
        self.parallel = bool(np.all(gap <= SAME * scale))

    def by(self, key: Array) -> dict[int, float] | None:
        """Return the ratio of rows by a key that decides it, if it does.

        A key of which each row has its own would decide anything.
        """
        found = {}
        for value in np.unique(key[self.counts]):
            here = self.ratio[(key == value) & self.counts]
            if np.ptp(here) > SAME * max(1e-30, np.abs(self.ratio).max()):
                return None
            found[int(value)] = float(here[0])
        return found if len(found) < self.counts.sum() else None

    def of_both(self) -> tuple[Array, Array | None]:
        """Return which rows count in both losses, and their labels as ones among zeros."""
        classes = self.chances.shape[-1]
        in_range = (self.labels >= 0) & (self.labels < classes)
        valid = in_range & self.counts & self.mine_count
        few = 0 < classes * int(valid.sum()) < 2**24
        return valid, one_hot(self.labels[valid], classes) if few else None


def dots(a: Array, b: Array) -> Array:
    """Return the product of each row with the other's, without an array of all products."""
    return np.asarray(np.einsum("ij,ij->i", a, b))


def apart(a: Array, ratio: Array, b: Array) -> Array:
    """Return how far each row is from so many times the other's, at most."""
    gap = ratio[:, None] * b
    gap -= a
    return np.asarray(np.abs(gap, out=gap).max(-1))


def one_hot(labels: Array, classes: int) -> Array:
    """Return a row for each label, with a one among zeros."""
    return np.asarray(labels[:, None] == np.arange(classes), np.float64)


def rows_of(output: Array, yours: Array, torchs: Array, batch: Sequence[Array]) -> Iterator[Rows]:
    """Yield the rows beside what may be their labels; classes stand last, or first of an example's.

    Args:
        output: torch's, float64.
        yours: the gradient of your loss in it.
        torchs: the same.
        batch: its arrays.
    """
    for axis in () if output.ndim < 1 else (-1,) if output.ndim < 3 else (-1, 1):
        logits, mine, theirs = (np.moveaxis(x, axis, -1) for x in (output, yours, torchs))
        for labels in _labels_of(logits, theirs, batch):
            yield Rows(logits, mine, theirs, labels)


def _labels_of(output: Array, torchs: Array, batch: Sequence[Array]) -> list[Array]:
    """Return what of a batch may be the labels, first those that torch's loss pulls towards."""
    places = output.shape[:-1]
    pulled = torchs.any(-1)  # tokens that are read may look like labels
    towards = torchs.argmin(-1)
    whole: list[tuple[float, Array]] = []
    for x in batch:
        if not np.issubdtype(x.dtype, np.integer):
            continue
        for labels in (x, *_next_of(x, places)):
            if labels.shape != places or places == ():
                continue
            of_pulled = labels[pulled]
            share = float((towards[pulled] == of_pulled).mean()) if of_pulled.size else 0.0
            in_range = np.all((of_pulled >= 0) & (of_pulled < output.shape[-1]))
            if in_range and (labels is x or share > _MOST):
                whole.append((share, labels))
    return [labels for _, labels in sorted(whole, key=lambda it: -it[0])]


def _next_of(tokens: Array, places: tuple[int, ...]) -> Iterator[Array]:
    """Yield the labels that a loss of the next token takes from the tokens themselves."""
    if len(places) < 2 or tokens.shape[:-1] != places[:-1]:
        return
    if tokens.shape[-1] == places[-1]:
        last = np.full((*places[:-1], 1), NO_LABEL)
        yield np.concatenate([tokens[..., 1:].astype(np.int64), last], -1)
    elif tokens.shape[-1] == places[-1] + 1:
        yield tokens[..., 1:]
