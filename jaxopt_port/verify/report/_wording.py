"""The words and figures of a report, the same in the terminal and in HTML."""

from __future__ import annotations

import math

import numpy as np

from ._report import Divergence, LeafResult, Report, StageResult

# Between what fits a line and what tells siblings apart: "encoder/…/3/kernel".
_GAP = "…"
FIGURES = ("ulps max", "99%", "mean", "relative", "absolute", "bound")


def number(value: float, digits: int = 3) -> str:
    """Return a figure in few characters: ``"0.25"``, ``"3.1e-08"``, ``"∞"``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}g}"


def exact(value: float) -> str:
    """Return the fewest digits that give this number back, in float32 where it is one."""
    if not math.isfinite(value):
        return number(value)
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    return str(narrow if float(narrow) == value else float(value))


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters, cut in the middle: both ends say most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return _GAP[:width]
    tail = width // 2
    head = width - 1 - tail
    return text[:head] + _GAP + text[len(text) - tail :]


def worst_leaf(stage: StageResult) -> LeafResult | None:
    """Return the leaf to look at first: one that differs before one that does not."""
    if not stage.leaves:
        return None
    return max(stage.leaves, key=_severity)


def figures(leaf: LeafResult, digits: int = 3) -> list[str]:
    """Return those of `FIGURES`, the last three in so many digits."""
    d = leaf.worst
    ulps, sizes = (d.ulps_max, d.ulps_p99, d.ulps_mean), (d.relative, d.absolute, leaf.bound)
    return [*map(number, ulps), *(number(size, digits) for size in sizes)]


def compared(report: Report) -> list[tuple[StageResult, LeafResult]]:
    """Return the stages that were compared, each with its worst leaf."""
    found = [(each, worst_leaf(each)) for each in report.stages.values() if not each.skipped]
    return [(stage, worst) for stage, worst in found if worst is not None]


def by_severity(leaves: list[LeafResult]) -> list[LeafResult]:
    """Return the leaves, the worst first; equals stay in the order of the tree."""
    return sorted(leaves, key=_severity, reverse=True)


def _severity(leaf: LeafResult) -> tuple[bool, float, float]:
    return (not leaf.ok, _ordered(leaf.worst.ulps_max), _ordered(leaf.worst.relative))


def _ordered(value: float) -> float:
    """NaN is worse than any number: a comparison with it must not come out as harmless."""
    return math.inf if math.isnan(value) else value


def steps(count: int) -> str:
    """Return ``"1 step"`` or ``"12 steps"``."""
    return f"{count} step" if count == 1 else f"{count} steps"


def where(first: Divergence) -> str:
    """Return ``"step 12, update of layers/3/kernel"``."""
    return f"step {first.step}, {first.stage} of {first.leaf}"


def to_do(report: Report) -> list[tuple[str, str]]:
    """Return what to do where there is more than one fault, in order: where, and what."""
    if len(report.found) < 2:
        return []
    lines = []
    for found in report.found:
        cause = found.cause
        what = found.message if cause is None else f"{cause.message}: {cause.remedy}".rstrip(": ")
        more = f" and {len(found.leaves) - 1} more leaves" if len(found.leaves) > 1 else ""
        lines.append((where(found) + more, what))
    return lines


def subtitle(report: Report) -> str:
    """Return the run in a line: optimizer, dtype, steps, time."""
    return (
        f"{report.optimizer} · {report.dtype} · {steps(report.steps)} compared"
        f" · {number(report.seconds)} s"
    )


def stage_verdict(stage: StageResult) -> str:
    """Return ``"same"``, ``"differs"`` or ``"not compared"``."""
    if stage.skipped or not stage.leaves:
        return "not compared"
    return "same" if stage.ok else "differs"


def not_compared(report: Report) -> dict[str, list[str]]:
    """Return the stages that were skipped, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, stage in report.stages.items():
        if stage.skipped:
            reasons.setdefault(stage.skipped, []).append(name)
    return reasons
