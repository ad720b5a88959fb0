"""Explains a loss that is not torch's by the gradients of both losses in torch's output.

A row is what one label is predicted from. The gradient of a cross entropy in its logits is the
probability less the target, times the weight that the row has in the mean: that tells which rows
count, how much, and towards what.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array
from ._numbers import nice, same

_SAME = 1e-6


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
        logits = output.reshape(-1, classes)
        shifted = logits - logits.max(-1, keepdims=True)
        total = np.exp(shifted).sum(-1, keepdims=True)
        self.chances = np.exp(shifted) / total
        self.log_total = (logits.max(-1, keepdims=True) + np.log(total))[:, 0]
        square = (self.theirs**2).sum(-1)
        self.counts = square > 0  # in torch's loss
        self.mine_count = (self.mine**2).sum(-1) > 0
        dots = (self.mine * self.theirs).sum(-1)
        self.ratio = np.divide(dots, square, out=np.zeros_like(dots), where=self.counts)
        gap = np.abs(self.mine - self.ratio[:, None] * self.theirs).max(-1)
        scale = max(np.abs(self.mine).max(), np.abs(self.theirs).max())
        self.parallel = bool(np.all(gap[self.counts] <= _SAME * scale))

    def by(self, key: Array) -> dict[int, float] | None:
        """Return the ratio of rows by a key that decides it, if it does.

        A key of which each row has its own would decide anything.
        """
        found = {}
        for value in np.unique(key[self.counts]):
            here = self.ratio[(key == value) & self.counts]
            if np.ptp(here) > _SAME * max(1e-30, np.abs(self.ratio).max()):
                return None
            found[int(value)] = float(here[0])
        return found if len(found) < self.counts.sum() else None


def explain_by_gradient(
    output: Array, yours: Array, torchs: Array, batch: Sequence[Array]
) -> Cause | None:
    """Explain a loss by which parts of the output move it.

    Args:
        output: torch's, float64.
        yours: the gradient of your loss in it.
        torchs: the same.
        batch: its arrays.
    """
    if output.ndim < 1 or not np.any(torchs) or not np.all(np.isfinite([yours, torchs])):
        return None
    whole = [
        x
        for x in batch
        if np.issubdtype(x.dtype, np.integer) and x.shape == output.shape[:-1] != ()
    ]
    # The labels are what torch's loss pulls towards; tokens that are read may look like them.
    pulled = torchs.any(-1)
    whole.sort(key=lambda x: -int((torchs.argmin(-1) == x)[pulled].sum()))
    for labels in whole:
        rows = Rows(output, yours, torchs, labels)
        found = _weighted(rows) if rows.parallel else _targets(rows)
        if found is not None:
            return found
    for target in batch:
        if target.shape == output.shape and target.dtype.kind in "fiub":
            return _regression(output, target.astype(np.float64), yours, torchs)
    return None


def _weighted(rows: Rows) -> Cause | None:
    """Explain rows that count otherwise, towards the same targets."""
    labels, counts, mine = rows.labels, rows.counts, rows.mine_count
    if not np.array_equal(counts, mine):
        more = mine & ~counts if np.any(mine & ~counts) else counts & ~mine
        who = ("your", "torch's") if np.any(mine & ~counts) else ("torch's", "your")
        left = np.unique(labels[more])
        if np.isin(labels[counts & mine], left).any():
            return _positions(rows, more, who)
        shown = ", ".join(map(str, left[:4]))
        return Cause(
            "ignored-labels",
            f"{who[0]} loss counts the label {shown} ({int(more.sum())} of {len(labels)}); "
            f"{who[1]} leaves it out",
            "give both the same padding: torch's ignore_index is a mask here, and the mean is "
            "over the labels that count",
        )
    ratios = rows.ratio[counts]
    if np.ptp(ratios) <= _SAME * np.abs(ratios).max():
        return _number_for_weights(rows)  # or one factor: see the sizes
    position = np.arange(len(labels))
    length = rows.shape[-1] if len(rows.shape) > 1 else 1
    if length > 1 and (by := rows.by(position // length)):
        kept = [int((counts[i * length : (i + 1) * length]).sum()) for i in by]
        part = [ratio * n for ratio, n in zip(by.values(), kept, strict=True)]
        words = (
            "takes the mean of each sequence, and then the mean of these"
            if np.ptp(part) <= _SAME * max(part)
            else "weighs sequences otherwise than torch's"
        )
        return Cause(
            "sequence-mean",
            f"your loss {words}; torch's takes the mean over all labels that count",
            "sum the losses of all labels that count, and divide by their number once",
        )  # fmt: skip
    if by := rows.by(labels):
        shown = ", ".join(f"{k}: {nice(v):.4g}" for k, v in list(by.items())[:4])
        return Cause(
            "class-weights",
            f"classes count otherwise in your loss, times torch's {{{shown}, …}}",
            "give both the same class weights; torch divides by the sum of the weights of the "
            "labels, not by their number",
        )  # fmt: skip
    return None


def _number_for_weights(rows: Rows) -> Cause | None:
    """Explain a sum that is divided by the number of labels, not by their classes' weights."""
    labels, classes = rows.labels[rows.counts], rows.chances.shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        return None
    away = rows.chances[rows.counts] - np.eye(classes)[labels]
    square = (away**2).sum(-1)
    if not square.all():
        return None
    shares = []
    for side in (rows.mine[rows.counts], rows.theirs[rows.counts]):
        of_rows = (side * away).sum(-1) / square
        if np.abs(side - of_rows[:, None] * away).max() > _SAME * np.abs(side).max():
            return None
        shares.append(of_rows)
    mine, theirs = shares
    by_class = [len(labels) * mine[labels == k] for k in np.unique(labels)]
    slack = _SAME * len(labels) * np.abs(mine).max()
    if not same(theirs.sum(), 1) or np.ptp(mine) * len(labels) <= slack:
        return None
    short = all(_is_short(nice(float(of_class[0]))) for of_class in by_class)
    ratio = mine[0] / theirs[0]
    if all(np.ptp(x) <= slack for x in by_class) and (short or not _is_short(nice(ratio))):
        return Cause(
            "class-weights",
            f"your loss is {nice(ratio):.6g} times torch's: it is divided by the number of labels "
            f"({len(labels)}), where torch divides by the sum of their classes' weights",
            "divide the weighted sum by weights[labels].sum(), in each batch",
        )
    return None


def _is_short(number: float) -> bool:
    return float(f"{number:.3g}") == number


def _positions(rows: Rows, more: Array, who: tuple[str, str]) -> Cause | None:
    if len(rows.shape) < 2:
        return None
    length = rows.shape[-1]
    places = np.unique(np.flatnonzero(more) % length)
    if len(places) > 2:
        return None
    return Cause(
        "ignored-labels",
        f"{who[0]} loss counts position {', '.join(map(str, places))} of {length}; {who[1]} does "
        "not",
        "take the same positions on both sides",
    )


def _targets(rows: Rows) -> Cause | None:
    """Explain rows that are pulled elsewhere."""
    classes = rows.chances.shape[-1]
    valid = (rows.labels >= 0) & (rows.labels < classes) & rows.counts & rows.mine_count
    if not valid.any():
        return None
    labels = rows.labels[valid]
    hot = np.eye(classes)[labels] if classes * len(labels) < 2**24 else None
    if hot is None:
        return None
    chances = rows.chances[valid]
    mine, theirs = rows.mine[valid], rows.theirs[valid]
    away = hot - 1 / classes
    fits = [
        _fit(side, [chances - hot, away, rows.log_total[valid][:, None] * chances])
        for side in (mine, theirs)
    ]
    if fits[0] is None or fits[1] is None:
        return _other_labels(rows, valid, hot, fits[1])
    (a, b, c), (d, e, f) = fits[0], fits[1]
    smooth, penalty = (b / a, e / d), (c / (2 * a), f / (2 * d))
    shown = [nice(s) if s > 1e-9 else 0.0 for s in smooth]
    if same(*penalty) or max(map(abs, penalty)) < 1e-12:
        return Cause(
            "label-smoothing",
            f"your cross entropy has label smoothing {shown[0]:g}; torch's has {shown[1]:g}",
            "optax.smooth_labels(labels, alpha) with torch's label_smoothing as alpha, and the "
            "mean over the labels that count",
        )  # fmt: skip
    mine_has, torch_has = (
        f"{nice(p):.3g} of it" if abs(p) > 1e-12 else "none of it" for p in penalty
    )
    return Cause(
        "additional-term",
        "an additional term of the squared logarithm of the softmax's sum (a z-loss): your loss "
        f"has {mine_has}; torch's has {torch_has}",
        "give both losses the same: logsumexp(logits) ** 2, or nothing of it",
    )


def _fit(side: Array, parts: Sequence[Array]) -> tuple[float, ...] | None:
    """Return what a gradient is of each part, where it is a sum of these."""
    matrix = np.stack([p.ravel() for p in parts], -1)
    found, *_ = np.linalg.lstsq(matrix, side.ravel(), rcond=None)
    left = np.abs(matrix @ found - side.ravel()).max()
    if left > _SAME * np.abs(side).max() or found[0] == 0:
        return None
    return tuple(float(x) if abs(x) > 1e-10 * abs(found[0]) else 0.0 for x in found)


def _other_labels(rows: Rows, valid: Array, hot: Array, torchs: object) -> Cause | None:
    """Find the labels that your loss pulls towards."""
    if torchs is None:
        return None
    mine = rows.mine[valid]
    towards = mine.argmin(-1)
    pulled = rows.chances[valid] - np.eye(hot.shape[-1])[towards]
    if _fit(mine, [pulled]) is None:
        return None
    labels = rows.labels[valid]
    known, to = valid.reshape(rows.shape), np.zeros(len(rows.labels), labels.dtype)
    to[valid] = towards
    for offset in (1, -1):
        moved = np.roll(rows.labels.reshape(rows.shape), offset, -1)
        inner = slice(1, None) if offset > 0 else slice(None, -1)
        here = known[..., inner]
        if here.any() and np.array_equal(
            moved[..., inner][here], to.reshape(rows.shape)[..., inner][here]
        ):
            which = "before" if offset > 0 else "after"
            return Cause(
                "labels-shifted",
                f"your loss takes each label from the position {which} it",
                "shift inputs and labels against each other once: logits[:, :-1] with "
                "labels[:, 1:]",
            )
    by: dict[int, int] = {}
    for label, other in zip(labels, towards, strict=True):
        if by.setdefault(int(label), int(other)) != int(other):
            return None
    if len(by) == len(labels):  # a label of each row's own may become any other
        return None
    shown = ", ".join(f"{a} for {b}" for b, a in list(by.items())[:4] if a != b)
    return Cause(
        "labels-shifted", f"your loss takes another label for each class: {shown}",
        "give both sides the same labels: do they count from 0?",
    )  # fmt: skip


def _regression(output: Array, target: Array, yours: Array, torchs: Array) -> Cause | None:
    apart = output - target
    names = [_kind(apart, output, target, side) for side in (yours, torchs)]
    if names[0] is None or names[1] is None or names[0] == names[1]:
        return None
    if any(name is not None and name.startswith("Huber's") for name in names):
        most = f" (or Huber's with a delta beyond {np.abs(apart).max():.3g}, the largest error)"
        names = [name and name + most * (name == _SQUARED) for name in names]
    return Cause(
        "loss-kind", f"your loss is {names[0]}; torch's is {names[1]}",
        "take the same loss, and the same numbers of it, on both sides",
    )  # fmt: skip


_SQUARED = "the squared error"


def _kind(apart: Array, output: Array, target: Array, gradient: Array) -> str | None:
    """Return the loss whose gradient this is."""
    known = {
        _SQUARED: apart,
        "the absolute error": np.sign(apart),
        "the logarithm of the hyperbolic cosine": np.tanh(apart),
    }
    for name, part in known.items():
        square = float(np.vdot(part, part))
        ratio = float(np.vdot(gradient, part)) / square if square else 0.0
        if ratio and np.abs(gradient - ratio * part).max() <= _SAME * np.abs(gradient).max():
            return name
    return _huber(apart, gradient) or _binary(output, target, gradient)


def _huber(apart: Array, gradient: Array) -> str | None:
    """Return Huber's loss with its delta, where a gradient goes with the error and then stays."""
    sizes = np.abs(apart[apart != 0])
    if sizes.size < 4:  # one tells the scale, and another one the delta
        return None
    nearest = np.abs(apart) == sizes.min()
    scale = abs(float(gradient[nearest][0])) / float(sizes.min())
    if not scale:
        return None
    delta = float(np.abs(gradient).max()) / scale
    made = scale * np.clip(apart, -delta, delta)
    fits = np.abs(np.abs(gradient) - np.abs(made)).max() <= _SAME * np.abs(gradient).max()
    fits = fits and int((sizes < delta).sum()) >= 2
    return f"Huber's with delta={nice(delta):.4g}" if fits else None


def _binary(output: Array, target: Array, gradient: Array) -> str | None:
    """Return the binary cross entropy of logits, with what weighs or smooths its targets."""
    if target.min() < 0 or target.max() > 1:
        return None
    with np.errstate(over="ignore"):
        chance = 1 / (1 + np.exp(-output))
    fit = _fit(gradient, [(1 - target) * chance, -target * (1 - chance), target - 0.5])
    if fit is None:
        return None
    weight, smooth = nice(fit[1] / fit[0]), nice(fit[2] / fit[0])
    name = "the binary cross entropy of logits"
    if same(weight, 1.0):
        return name if abs(smooth) < _SAME else f"{name}, its targets smoothed by {smooth:.4g}"
    return f"{name} with pos_weight={weight:.4g}" if abs(smooth) < _SAME else None
