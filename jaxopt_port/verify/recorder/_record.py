"""Writes a trace; ``docs/trace-format.md`` describes the format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from ._batches import count_of, cycled
from ._described import (
    environment,
    layers_described,
    scalars_of,
    tensors_described,
    tensors_of,
)
from ._files import FORMAT, check_target, json_bytes, trace_folder, write_json, write_step
from ._plan import Plan, bytes_of, fitting, sizes_of
from ._run import TorchRun
from ._side import TorchSide
from ._together import listed

VERSION = 1

_SAME = ("options", "batch")  # said once, as long as they stay the same


def record(
    path: str | os.PathLike[str],
    side: TorchSide,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    every: int = 10,
    budget: int | str = "2 GB",
    store_batches: bool = True,
    seeds: Any = None,
    name: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train with torch, and write a trace that ``jaxopt-port replay`` compares the JAX side with.

    Module, optimizer and scheduler are left as they were. Where all does not fit into the budget,
    less is kept, and the trace says what: first no optimizer state and no parameters of the run's
    own dtype at steps that are not checked, then fewer steps that are checked, then updates of the
    first steps only, then no updates of the largest parameters.

    Args:
        path: a folder, which is made.
        side: what is trained.
        batches: of each step: NumPy arrays or tensors in nested tuples, lists and dicts.
        steps: how many; all batches by default, which must then have a length.
        every: the first three steps, each ``every``-th and the last are recorded in full.
        budget: bytes, or as ``"500 MB"``.
        store_batches: False keeps SHA-256 hashes: a replay is then given the same batches.
        seeds: what the run was seeded with, for the reader.
        name: of the case, likewise.
        overwrite: replace a trace that is there, once the new one is whole.
        progress: called with the steps done and the number of steps.

    Raises:
        TypeError: ``batches`` has no length and ``steps`` is missing; see also `TorchRun`.
        ValueError: the batches end early, the budget is too small for the first step, or
            see `TorchRun`.
        FileExistsError: the folder is there and not empty, and no trace that is to be replaced.

    Example:
        >>> import tempfile
        >>> module = torch.nn.Linear(3, 1)
        >>> side = TorchSide(
        ...     module=module,
        ...     optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        ...     loss=lambda output, batch: torch.nn.functional.mse_loss(output, batch[1]),
        ... )
        >>> batches = [(torch.ones(4, 3), torch.ones(4, 1))] * 5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record(Path(folder, "run.trace"), side, batches)
        ...     sorted(p.name for p in Path(folder, "run.trace").iterdir())
        ['scalars.jsonl', 'steps', 'trace.json']
    """
    target, limit = Path(path), bytes_of(budget)
    check_target(target, overwrite)
    count = count_of(batches, steps, every)
    every = int(every)  # NumPy's are written as texts
    plan = Plan(asked=every, every=every, steps=count, updates=count)
    run = TorchRun(side, lambda step: plan.checks(step))
    before = run.snapshot()
    tensors = tensors_described(side.module)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "name": name or type(side.module).__name__,
        "optimizer": run.optimizer_name,
        "dtype": run.dtype,
        "steps": count,
        "environment": environment(run),
        "seeds": {"given": seeds, "torch.initial_seed": torch.initial_seed()},
        "tensors": tensors,
        "layers": layers_described(side.module),
        "scheduler": ", ".join(type(s).__name__ for s in listed(side.scheduler)) or None,
        "scheduler_every": side.scheduler_every,
        "metric": bool(side.metric),
        "clip": run.clips,
        "closure": bool(side.closure),
        "changes": sorted(side.changes),
        "steps_hooked": run.steps_hooked,
        "accumulation_steps": side.accumulation_steps,
        "batches": "stored" if store_batches else "hashed",
    }
    described = {tensor["name"] for tensor in tensors}
    try:
        with trace_folder(target) as folder, open(folder / "scalars.jsonl", "wb") as scalars:
            given, last = iter(cycled(batches)[0]), dict[str, Any]()
            for step in range(count):
                evaluation = run.evaluate(_next(given, step, count))
                update = run.update()
                found = tensors_of(evaluation, update, described)
                line = scalars_of(evaluation, update, store_batches)
                if step == 0:
                    scheduled = side.scheduler is not None or bool(side.changes)
                    sizes = sizes_of(found, line, store_batches, scheduled)
                    facts["rounded"] = sorted(run.rounded)
                    facts["groups"] = [group["params"] for group in evaluation.options]
                    plan = fitting(plan, sizes, facts, limit, store_batches)
                    write_json(folder, facts | plan.described(limit) | {"complete": False})
                kept = plan.kept(step, found, store_batches)
                size = write_step(folder / "steps" / f"{step:08d}.safetensors", kept)
                if step >= plan.updates:
                    del line["state"], line["state64"]
                brief = {k: v for k, v in line.items() if k not in _SAME or last.get(k) != v}
                scalars.write(json_bytes({**brief, "bytes": size}) + b"\n")
                scalars.flush()
                last = line
                if progress is not None:
                    progress(step + 1, count)
            write_json(folder, facts | plan.described(limit) | {"complete": True})
    finally:
        run.restore(before)


_END = object()


def _next(batches: Iterator[Any], step: int, steps: int) -> Any:
    batch = next(batches, _END)
    if batch is _END:
        raise ValueError(
            f"the batches end after {step} of {steps} steps; give more, or steps={step}"
            if step
            else "there are no batches"
        )
    return batch
