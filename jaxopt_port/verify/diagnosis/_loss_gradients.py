"""Explains a loss that is not torch's by the gradients of both losses in torch's output.

The gradient of a cross entropy in its logits is the probability less the target, times the weight
that the row has in the mean: that tells which rows count, how much, and towards what.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array, softmax
from ._loss_rows import NO_LABEL, Rows, apart, dots, one_hot, rows_of
from ._numbers import SAME, nice, same
from ._regression_losses import explain_regression, fit_of

_OFFSETS = {
    **{1: "the position before", -1: "the position after"},
    **{2: "two positions before", -2: "two positions after"},
}
_GAMMAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


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
    if (
        output.ndim < 1
        or not np.any(torchs)
        or not all(np.isfinite(x).all() for x in (yours, torchs))
    ):
        return None
    for rows in rows_of(output, yours, torchs, batch):
        found = (_weighted(rows) if rows.parallel else _targets(rows)) or _taken_for(rows)
        if found is not None:
            return found
    for target in batch:
        alike = target.size == output.size and target.shape[:1] == output.shape[:1]
        if alike and target.dtype.kind in "fiub":
            wanted = target.astype(np.float64).reshape(output.shape)
            if found := explain_regression(output, wanted, yours, torchs):
                return found
    return None


def _weighted(rows: Rows) -> Cause | None:
    """Explain rows that count otherwise, towards the same targets."""
    labels, counts, mine = rows.labels, rows.counts, rows.mine_count
    if not np.array_equal(counts, mine):
        more = mine & ~counts if np.any(mine & ~counts) else counts & ~mine
        who = ("your", "torch's") if np.any(mine & ~counts) else ("torch's", "your")
        left = np.unique(labels[more])
        if NO_LABEL in left or np.isin(labels[counts & mine], left).any():
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
    if np.ptp(ratios) <= SAME * np.abs(ratios).max():
        return _number_for_weights(rows)  # or one factor: see the sizes
    position = np.arange(len(labels))
    length = rows.shape[-1] if len(rows.shape) > 1 else 1
    if length > 1 and (by := rows.by(position // length)):
        kept = [int((counts[i * length : (i + 1) * length]).sum()) for i in by]
        part = [ratio * n for ratio, n in zip(by.values(), kept, strict=True)]
        words = (
            "takes the mean of each sequence, and then the mean of these"
            if np.ptp(part) <= SAME * max(part)
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
    return _focal(rows)


def _focal(rows: Rows) -> Cause | None:
    """Explain rows that count by how sure they are: ``(1 - p) ** gamma`` times the entropy."""
    valid, hot = rows.of_both()
    if hot is None or not np.array_equal(valid, rows.counts):
        return None
    right = (rows.chances[valid] * hot).sum(-1)
    for who, other, ratio in (
        ("your", "torch's", rows.ratio[valid]), ("torch's", "yours", 1 / rows.ratio[valid])
    ):  # fmt: skip
        for gamma in _GAMMAS:
            part = (1 - right) ** gamma
            part -= gamma * right * (1 - right) ** (gamma - 1) * np.log(right)
            shares = ratio / part
            if len(shares) > 2 and np.ptp(shares) <= SAME * np.abs(shares).max():
                return Cause(
                    "loss-kind",
                    f"{who} loss is a focal one with gamma={gamma:g}; {other} a cross entropy",
                    "take the same loss on both sides",
                )
    return None


def _number_for_weights(rows: Rows) -> Cause | None:
    """Explain a sum that is divided by the number of labels, not by their classes' weights."""
    counts, labels = rows.counts, rows.labels[rows.counts]
    if labels.min() < 0 or labels.max() >= rows.chances.shape[-1]:
        return None
    away = rows.chances.copy()
    away[np.flatnonzero(counts), labels] -= 1
    square = dots(away, away)
    if not square[counts].all():
        return None
    shares = [dots(side, away) / square for side in (rows.mine, rows.theirs)]
    mine, theirs = (of_rows[counts] for of_rows in shares)
    by_class = [len(labels) * mine[labels == k] for k in np.unique(labels)]
    slack = SAME * len(labels) * np.abs(mine).max()
    if not same(theirs.sum(), 1) or np.ptp(mine) * len(labels) <= slack:
        return None
    short = all(_is_short(nice(float(of_class[0]))) for of_class in by_class)
    ratio = mine[0] / theirs[0]
    if not (all(np.ptp(x) <= slack for x in by_class) and (short or not _is_short(nice(ratio)))):
        return None
    for side, of_rows in zip((rows.mine, rows.theirs), shares, strict=True):
        if apart(side, of_rows, away)[counts].max() > SAME * np.abs(side[counts]).max():
            return None
    return Cause(
        "class-weights",
        f"your loss is {nice(ratio):.6g} times torch's: it is divided by the number of labels "
        f"({len(labels)}), where torch divides by the sum of their classes' weights",
        "divide the weighted sum by weights[labels].sum(), in each batch",
    )


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
    valid, hot = rows.of_both()
    if hot is None:
        return None
    chances = rows.chances[valid]
    mine, theirs = rows.mine[valid], rows.theirs[valid]
    away = hot - 1 / classes
    fits = [
        fit_of(side, [chances - hot, away, rows.log_total[valid][:, None] * chances])
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


def _taken_for(rows: Rows) -> Cause | None:
    """Explain losses that take the same output for different things."""
    valid, hot = rows.of_both()
    if hot is None:
        return None
    names = [_form(rows.output[valid], hot, side[valid]) for side in (rows.mine, rows.theirs)]
    if None in names or names[0] == names[1]:
        return None
    return Cause(
        "loss-kind", f"your loss takes the output for {names[0]}; torch's for {names[1]}",
        "torch's cross_entropy and optax.softmax_cross_entropy take logits, nll_loss takes "
        "logarithms of probabilities: take the softmax once",
    )  # fmt: skip


def _form(output: Array, hot: Array, side: Array) -> str | None:
    """Return what a cross entropy of this gradient takes its output for."""
    if not np.any(side * (1 - hot)):  # the label alone counts
        chance = (output * hot).sum(-1, keepdims=True)
        if np.all(chance > 0) and fit_of(side, [-hot / chance]):
            return "probabilities"
        return "logarithms of probabilities" if fit_of(side, [-hot]) else None
    once = softmax(output)[0]
    away = softmax(once)[0] - hot
    if fit_of(side, [once - hot]):
        return "logits"
    if fit_of(side, [once * (away - (once * away).sum(-1, keepdims=True))]):
        return "logits whose softmax it takes twice"
    others = hot == 0
    if others.sum(-1).min() < 2 or not np.all(side[others]):
        return None
    # But for the label's, a row's are exp(scale * logit), times one number.
    logs, logits = (
        x - x.mean(-1, keepdims=True)
        for x in (
            np.log(np.abs(side[others])).reshape(len(side), -1),
            output[others].reshape(len(side), -1),
        )
    )
    scale = float(np.vdot(logs, logits) / max(np.vdot(logits, logits), 1e-300))
    fits = scale and fit_of(side, [softmax(scale * output)[0] - hot])
    return f"logits times {nice(scale):.4g}" if fits else None


def _other_labels(rows: Rows, valid: Array, hot: Array, torchs: object) -> Cause | None:
    """Find the labels that your loss pulls towards."""
    if torchs is None:
        return None
    mine = rows.mine[valid]
    towards = mine.argmin(-1)
    pulled = rows.chances[valid] - one_hot(towards, hot.shape[-1])
    if fit_of(mine, [pulled]) is None:
        return None
    labels = rows.labels[valid]
    known, to = valid.reshape(rows.shape), np.zeros(len(rows.labels), labels.dtype)
    to[valid] = towards
    for offset, which in _OFFSETS.items():
        moved = np.roll(rows.labels.reshape(rows.shape), offset, -1)
        inner = slice(offset, None) if offset > 0 else slice(None, offset)
        here = known[..., inner]
        if here.any() and np.array_equal(
            moved[..., inner][here], to.reshape(rows.shape)[..., inner][here]
        ):
            return Cause(
                "labels-shifted",
                f"your loss takes each label from {which} it",
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
