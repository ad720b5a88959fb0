"""`replay`: a trace of torch's training beside JAX's."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from typing import Any

from ...interop import ParamMap
from ...interop.mapping import map_of_tensors
from ..report import Report
from ..trace import Trace, TraceReference
from ._compare import Progress, check_closures, finished, never, peeked
from ._comparison import Checks, paired, run
from ._context import Context
from ._evidence import Evidence
from ._findings import checked_causes
from ._jax_side import JaxSide
from ._names import Names, mapped_as
from ._stages import Stages


def replay(
    trace: str | os.PathLike[str],
    jax_side: JaxSide,
    *,
    batches: Iterable[Any] | None = None,
    name: str = "",
    rename: Any = (),
    layouts: Any = None,
    param_map: ParamMap | None = None,
    steps_per_epoch: int | None = None,
    allow_partial: bool = False,
    stop: bool = True,
    accept: Iterable[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Compare the JAX side with a trace of torch's, which `recorder.record` wrote; without torch.

    Args:
        trace: its folder.
        jax_side: as for `compare`.
        batches: of each step, where the trace holds their hashes only.
        name: of the case, for the report; the trace's by default.
        rename: see `interop.param_map`.
        layouts: likewise.
        param_map: instead, a map made before.
        steps_per_epoch: for the diagnosis of schedules.
        allow_partial: take a trace whose recording was cut off, as far as it goes.
        stop: False goes on to the end after a divergence.
        accept: names of causes that are known and meant: see `compare`.
        progress: called with the steps done and the number of steps: both are the same in the end,
            when causes are looked for.

    Returns:
        The report; its notes say what the trace does not hold.

    Raises:
        ValueError: it is no trace, of another version, incomplete or damaged; batches of other
            contents; parameters that do not map; see also `compare`.
        FileNotFoundError: there is no such folder.
    """
    if not isinstance(jax_side, JaxSide):
        raise TypeError(f"the second argument must be a JaxSide, got {type(jax_side).__name__}")
    accept = checked_causes(accept)
    began = time.perf_counter()
    recorded = Trace.open(trace, allow_partial=allow_partial)
    steps = recorded.steps
    if recorded.stores_batches:
        given: Iterable[Any] = itertools.repeat(None, steps)
        first = recorded.evaluation(0).batch
    elif batches is None:
        raise ValueError(f"{trace} holds hashes of its batches only: give batches=")
    else:
        first, given = peeked(batches)
    told = {"rename": rename, "layouts": layouts, **mapped_as(jax_side, first)}
    made = param_map or map_of_tensors(recorded.tensors, **told)
    check_closures(bool(recorded.facts.get("closure", False)), jax_side.closure)
    names = Names(made, jax_side)
    reference = TraceReference(recorded)
    epoch = steps_per_epoch or recorded.facts.get("scheduler_every", 1)
    evidence = Evidence(jax_side, names, reference.optimizer_name, epoch, recorded.momenta)
    context = Context(reference, jax_side, names, evidence)
    context.reasons["trajectory"] = "a trace has no run of torch's in float64 on its own"
    pairs = paired(given, jax_side.batches, steps)
    stages = Stages(context, None, 0)
    checks = Checks(1, steps, only=recorded.checked_steps)
    done = run(stages, pairs, steps, checks, progress or never, stop=stop and not accept)
    report = finished(context, name or recorded.name, done, recorded.notes, accept)
    there = {f"{key} (recorded)": value for key, value in recorded.environment.items()}
    report.environment = {**report.environment, **there}
    report.seconds = time.perf_counter() - began
    return report
