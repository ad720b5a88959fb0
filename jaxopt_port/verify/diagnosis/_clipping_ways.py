"""The ways in which ports clip otherwise than torch: gradients, as factors on a leaf, or steps."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..report import Cause
from ._algorithms import Variation
from ._numbers import nice, same
from ._simulation import Hypothesis, Part, Simulation, factors_of, limits, max_norm
from ._update_history import UpdateHistory

# Whose norm it may be, and how that is said.
_PARTS = {
    "group": "the group's gradients", "leaf": "the leaf's gradients",
    "kind": "the gradients of matrices, and of vectors, apart",
}  # fmt: skip
# Of torch's limit, what another one often is.
_MULTIPLES = (0.1, 0.125, 0.2, 0.25, 0.5, 2.0, 4.0, 5.0, 8.0, 10.0)
LIMITS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BY_VALUE = "chain optax.clip, or jp.clip_by_grad_value, before the optimizer"


def _to(
    held: Sequence[dict[str, float]], limit: float, norm: str = "total", eps: float = 0.0
) -> list[float]:
    """Return what a clipping to a norm multiplies gradients by, at each step."""
    return [min(1.0, limit / (h[norm] + eps)) if h[norm] else 1.0 for h in held]


def clipping_ways(history: UpdateHistory) -> Iterator[Part]:
    """Yield the ways in which your side may clip gradients by a norm, torch's left out."""
    torchs = factors_of(history)
    for factors, name, words, remedy in _of_norms(history):
        # On what torch's clipping leaves of gradients.
        relative = [f / c if c else 0.0 for f, c in zip(factors, torchs, strict=True)]
        cause = Cause(name, words, remedy)
        yield Part(cause, Hypothesis(factor=relative), frozenset(["clip"]))


def _of_norms(history: UpdateHistory) -> Iterator[tuple[list[float], str, str, str]]:
    """Yield factors on gradients that are not clipped, and what that would be."""
    held = history.clip
    if held is None or limits(history):
        return  # by value: see `ways_for_values`
    most, clips = max_norm(history), any(h["factor"] < 1 - 1e-5 for h in held)
    if most is not None:
        yield (
            _to(held, most), "clip-epsilon",
            f"your side divides by the norm of the gradients to clip it to {most:.6g}; torch "
            "by the norm + 1e-6", "use jp.clip_by_grad_norm, which has torch's formula",
        )  # fmt: skip
    if clips:
        yield (
            [1.0] * len(held), "clip-missing", "your side does not clip gradients; torch does",
            "chain jp.clip_by_grad_norm before the optimizer",
        )  # fmt: skip
    if most is not None:
        multiples = {nice(most * k) for k in _MULTIPLES}
        limits_ = sorted({*LIMITS, *multiples, *_fitted(history, "total")})
        for limit, eps in itertools.product(limits_, (1e-6, 0.0)):
            if abs(limit / most - 1) > 1e-4:
                also = "" if eps else ", and divides by the norm without torch's 1e-6"
                yield (
                    _to(held, limit, eps=eps), "clip-limit",
                    f"your side clips gradients to a norm of {limit:g}; torch to {most:.6g}{also}",
                    "give both the same limit",
                )  # fmt: skip
        for (norm, which), eps in itertools.product(_PARTS.items(), (1e-6, 0.0)):
            yield (
                _to(held, most, norm, eps), "clip-per-group",
                f"your side clips by the norm of {which}; torch by that of all parameters'",
                "clip before the groups: optax.chain(jp.clip_by_grad_norm(…), groups)",
            )  # fmt: skip
    elif clips:
        limits_ = sorted({*LIMITS, *_fitted(history, "total")})
        for limit, eps in itertools.product(limits_, (1e-6, 0.0)):
            yield (
                _to(held, limit, eps=eps), "clip-kind",
                f"your side clips the 2-norm of the gradients to {limit:g}; torch another norm, or "
                "in another way", "give both the same norm: norm_type= of jp.clip_by_grad_norm",
            )  # fmt: skip
    for norm in () if clips else ("total", "group", "leaf"):
        for limit in dict.fromkeys((*LIMITS, *_fitted(history, norm))):
            always = limit == 1.0 and all(h[norm] > limit for h in held)
            also = ", or divides them by it" if always else ""
            yield (
                _to(held, limit, norm), "clip-missing",
                f"your side clips gradients to a norm of {limit:g}{also}; torch does not clip",
                "leave the clipping out, or give torch's side `clip`",
            )  # fmt: skip
    # Where each norm is beyond 1, that is a clipping, which comes before.
    whose = {"total": "of all of them", "leaf": "of the leaf's"}
    for norm, eps in itertools.product(whose, (0.0, 1e-6, 1e-8)):
        yield (
            [1 / (h[norm] + eps) if h[norm] else 1.0 for h in held], "normalized-gradient",
            f"your side divides gradients by the norm {whose[norm]}; torch does not",
            "take out what normalises gradients, or let torch's side do the same",
        )  # fmt: skip


def _fitted(history: UpdateHistory, norm: str) -> set[float]:
    """Return the short limits that SGD's first other step may have been clipped to."""
    if history.optimizer != "SGD" or history.clip is None:
        return set()
    i, options = history.first, history.options[history.first]
    grad, held = history.grads[i], history.clip[i]
    scale = float(options["lr"]) * (1 - float(options["dampening"]) * (i > 0))
    scale *= 1 + float(options["momentum"]) * bool(options["nesterov"])
    square = scale * float(np.dot(grad, grad))
    if not square:
        return set()
    by = held["factor"] - float(np.dot(history.yours[i] - history.torchs[i], grad)) / square
    found = {nice(by * (held[norm] + eps)) for eps in (0.0, 1e-6) if 0 < by < 1}
    return {limit for limit in found if limit == float(f"{limit:.1e}")}  # others: a factor


def ways_for_values(history: UpdateHistory) -> Iterator[Part]:
    """Yield what your side may do where torch clips each number; factors on gradients unclipped."""
    held, values = history.clip or [], limits(history)
    if not values:
        return

    def unclipped(factors: list[float], name: str, words: str) -> Part:
        hypothesis = Hypothesis(factor=factors, gradients=lambda grads: grads)
        return Part(Cause(name, words, _BY_VALUE), hypothesis)

    limit = nice(min(values))
    words = f"your side does not clip gradients; torch to {limit:g}"
    yield unclipped([1.0] * len(held), "clip-missing", words)
    for most, eps in itertools.product(dict.fromkeys((limit, *LIMITS)), (0.0, 1e-6)):
        words = f"your side clips the norm of the gradients to {most:g}; torch each number to "
        yield unclipped(_to(held, most, eps=eps), "clip-kind", f"{words}{limit:g}")


def by_value(history: UpdateHistory) -> Iterator[Part]:
    """Yield clippings of each number of the gradients, to other limits than torch's."""
    torchs = nice(min(limits(history), default=math.inf))
    for limit in LIMITS:
        clip = functools.partial(np.clip, a_min=-limit, a_max=limit)
        words = f"your side clips each number of the gradients to {limit:g}; torch"
        cause = Cause("clip-limit", f"{words} to {torchs:g}", "give both the same limit")
        if not math.isfinite(torchs):
            remedy = "clip by the norm (jp.clip_by_grad_norm) or not at all, as torch's side does"
            cause = Cause("clip-kind", f"{words}'s does not", remedy)
        yield Part(cause, Hypothesis(gradients=clip))


def clipped_step(history: UpdateHistory, enough: float) -> Cause | None:
    """Look for steps of one length over all leaves, where torch's first is longer.

    Args:
        history: of a leaf.
        enough: a cause leaves no more than this part of the difference.
    """
    if history.first or len(history.moved) < 2 or not same(*history.moved):
        return None
    undone = [1 / factor if factor else 0.0 for factor in factors_of(history)]
    for factor in (1.0, undone):
        simulation = Simulation(history, Hypothesis(factor=factor))
        rates = simulation.fitted_rates(Variation())
        left = np.inf if rates is None else simulation.unexplained(Hypothesis(rates=rates))
        if not rates or left > enough or rates[0] >= simulation.torch_rates[0]:
            continue
        norm = history.moved[0]
        before = nice(norm / simulation.torch_rates[0])
        if history.optimizer == "SGD" and not history.options[0]["momentum"]:
            return Cause(  # whose step is the gradient
                "clip-missing" if set(undone) == {1.0} else "clip-limit",
                f"your side clips gradients to a norm of {before:.6g}; torch to another, or does "
                "not",
                "give both the same limit", left,
            )  # fmt: skip
        return Cause(
            "clip-order",
            f"your side clips the optimizer's step: to a norm of {nice(norm):.6g}, or to one of "
            f"{before:.6g} before the rate; torch clips no step",
            "clip gradients: chain jp.clip_by_grad_norm before the optimizer", left,
        )  # fmt: skip
    return None
