"""The ways in which ports clip otherwise than torch: gradients, as factors on a leaf, or steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..report import Cause
from ._algorithms import Variation
from ._numbers import nice, same
from ._simulation import Hypothesis, Simulation, limits, max_norm
from ._update_history import UpdateHistory

# Whose norm it may be, and how that is said.
_PARTS = {
    "group": "the group's gradients", "leaf": "the leaf's gradients",
    "kind": "the gradients of matrices, and of vectors, apart",
}  # fmt: skip
# Of torch's limit, what another one often is.
_MULTIPLES = (0.1, 0.125, 0.2, 0.25, 0.5, 2.0, 4.0, 5.0, 8.0, 10.0)
LIMITS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class ClippingWay(NamedTuple):
    """What gradients are multiplied by at each step, and what that would mean."""

    name: str
    factors: list[float]
    message: str
    remedy: str


def clipping_ways(history: UpdateHistory) -> Iterator[ClippingWay]:
    """Yield the ways in which your side may clip gradients by a norm, torch's left out."""
    held = history.clip
    if held is None:
        return
    most = max_norm(history)
    if limits(history):
        return  # by value: see `ways_for_values`
    if most is not None:
        remedy = "use jp.clip_by_grad_norm, which has torch's formula"
        yield ClippingWay(
            "clip-epsilon",
            [min(1.0, most / h["total"]) if h["total"] else 1.0 for h in held],
            f"your side divides by the norm of the gradients to clip it to {most:.6g}; torch "
            "by the norm + 1e-6",
            remedy,
        )
    if any(h["factor"] < 1 - 1e-5 for h in held):
        yield ClippingWay(
            "clip-missing", [1.0] * len(held),
            "your side does not clip gradients; torch does",
            "chain jp.clip_by_grad_norm before the optimizer",
        )  # fmt: skip
    if most is not None:
        multiples = {nice(most * k) for k in _MULTIPLES}
        for limit in sorted({*LIMITS, *multiples, *_fitted(history, "total")}):
            if abs(limit / most - 1) > 1e-4:
                for eps in (1e-6, 0.0):
                    also = "" if eps else ", and divides by the norm without torch's 1e-6"
                    yield ClippingWay(
                        "clip-limit",
                        [min(1.0, limit / (h["total"] + eps)) if h["total"] else 1.0 for h in held],
                        f"your side clips gradients to a norm of {limit:g}; torch to "
                        f"{most:.6g}{also}",
                        "give both the same limit",
                    )
        for norm, which in _PARTS.items():
            yield ClippingWay(
                "clip-per-group",
                [min(1.0, most / (h[norm] + 1e-6)) for h in held],
                f"your side clips by the norm of {which}; torch by that of all parameters'",
                "clip before the groups: optax.chain(jp.clip_by_grad_norm(…), groups)",
            )
            yield ClippingWay(
                "clip-per-group",
                [min(1.0, most / h[norm]) if h[norm] else 1.0 for h in held],
                f"your side clips by the norm of {which}; torch by that of all parameters'",
                "clip before the groups: optax.chain(jp.clip_by_grad_norm(…), groups)",
            )
    elif any(h["factor"] < 1 - 1e-5 for h in held):
        for limit, eps in itertools.product(
            sorted({*LIMITS, *_fitted(history, "total")}), (1e-6, 0.0)
        ):
            yield ClippingWay(
                "clip-kind",
                [min(1.0, limit / (h["total"] + eps)) if h["total"] else 1.0 for h in held],
                f"your side clips the 2-norm of the gradients to {limit:g}; torch another norm, or "
                "in another way",
                "give both the same norm: norm_type= of jp.clip_by_grad_norm",
            )
    if not any(h["factor"] < 1 - 1e-5 for h in held):
        for norm in ("total", "group", "leaf"):
            for limit in dict.fromkeys((*LIMITS, *_fitted(history, norm))):
                always = limit == 1.0 and all(h[norm] > limit for h in held)
                also = ", or divides them by it" if always else ""
                yield ClippingWay(
                    "clip-missing",
                    [min(1.0, limit / h[norm]) if h[norm] else 1.0 for h in held],
                    f"your side clips gradients to a norm of {limit:g}{also}; torch does not clip",
                    "leave the clipping out, or give torch's side `clip`",
                )
    # Where each norm is beyond 1, that is a clipping, which comes before.
    whose = {"total": "of all of them", "leaf": "of the leaf's"}
    for norm, eps in itertools.product(whose, (0.0, 1e-6, 1e-8)):
        yield ClippingWay(
            "normalized-gradient",
            [1 / (h[norm] + eps) if h[norm] else 1.0 for h in held],
            f"your side divides gradients by the norm {whose[norm]}; torch does not",
            "take out what normalises gradients, or let torch's side do the same",
        )


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


def ways_for_values(history: UpdateHistory) -> Iterator[ClippingWay]:
    """Yield what your side may do where torch clips each number; factors on gradients unclipped."""
    held, values = history.clip or [], limits(history)
    if not values:
        return
    limit = nice(min(values))
    yield ClippingWay(
        "clip-missing", [1.0] * len(held), f"your side does not clip gradients; torch to {limit:g}",
        "chain optax.clip, or jp.clip_by_grad_value, before the optimizer",
    )  # fmt: skip
    for most in dict.fromkeys((limit, *LIMITS)):
        for eps in (0.0, 1e-6):
            yield ClippingWay(
                "clip-kind",
                [min(1.0, most / (h["total"] + eps)) if h["total"] else 1.0 for h in held],
                f"your side clips the norm of the gradients to {most:g}; torch each number to "
                f"{limit:g}",
                "use optax.clip, or jp.clip_by_grad_value, before the optimizer",
            )


def clipped_step(history: UpdateHistory, unclipped: list[float], enough: float) -> Cause | None:
    """Look for steps of one length over all leaves, where torch's first is longer.

    Args:
        history: of a leaf.
        unclipped: factors on what torch's clipping leaves of gradients, which undo it.
        enough: a cause leaves no more than this part of the difference.
    """
    if history.first or len(history.moved) < 2 or not same(*history.moved):
        return None
    for factor in (1.0, unclipped):
        simulation = Simulation(history, Hypothesis(factor=factor))
        rates = simulation.fitted_rates(Variation())
        left = np.inf if rates is None else simulation.unexplained(Hypothesis(rates=rates))
        if not rates or left > enough or rates[0] >= simulation.torch_rates[0]:
            continue
        norm = history.moved[0]
        before = nice(norm / simulation.torch_rates[0])
        if history.optimizer == "SGD" and not history.options[0]["momentum"]:
            return Cause(  # whose step is the gradient
                "clip-missing" if set(unclipped) == {1.0} else "clip-limit",
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
