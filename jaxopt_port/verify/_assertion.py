"""`assert_same_training`, for tests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .comparison import JaxSide, compare, replay
from .report import Report


def assert_same_training(
    torch_side: Any,
    jax_side: JaxSide,
    batches: Iterable[Any] | None = None,
    *,
    report: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Assert that a port trains as torch does.

    Args:
        torch_side: a `TorchSide`, or the folder of a trace.
        jax_side: the same training in JAX.
        batches: of each step; a trace may hold them.
        report: a file, ``.html`` or JSON, that is written if they differ.
        **options: of `compare`, or of `replay`.

    Returns:
        The report.

    Raises:
        AssertionError: they differ: step, stage, leaf, how far, the likely cause and its remedy.
    """
    __tracebackhide__ = True
    if isinstance(torch_side, (str, os.PathLike)):
        result = replay(torch_side, jax_side, batches=batches, **options)
    else:
        result = compare(torch_side, jax_side, batches, **options)  # type: ignore[arg-type]
    first = result.first
    if first is None:
        return result
    lines = [str(first), first.why_not_rounding]
    lines += [f"  {e.index}: torch {e.torch:.9g}, yours {e.yours:.9g}" for e in first.elements]
    if len(first.leaves) > 1:
        lines.append(f"{len(first.leaves)} leaves differ there: {', '.join(first.leaves[:8])}")
    lines += [f"Also at {other}" for other in result.found[1:]]
    if report is not None:
        target = Path(report)
        target.parent.mkdir(parents=True, exist_ok=True)
        result.write(target)
        lines.append(f"The report is in {target}")
    raise AssertionError("\n".join(lines))
