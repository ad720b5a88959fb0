"""The command: records a case file."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from ._batches import count_of
from ._files import check_target
from ._plan import bytes_of
from ._record import record
from ._side import TorchSide


def main(arguments: list[str] | None = None) -> None:
    """Record a case file: ``python record.pyz CASE.py TRACE``.

    The file has ``torch_side()``, which returns a `TorchSide` or a dict of its arguments,
    ``batches()``, and may set ``STEPS``.
    """
    parser = argparse.ArgumentParser(
        prog="record.pyz", description="Record torch's side of a case."
    )
    parser.add_argument("case", help="a Python file with torch_side() and batches()")
    parser.add_argument("trace", help="the folder to write")
    parser.add_argument("--budget", default="2 GB", help="as 500MB (default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="record each N-th step in full")
    parser.add_argument("--hashes", action="store_true", help="of the batches, not the batches")
    parser.add_argument("--overwrite", action="store_true", help="replace the trace that is there")
    given = parser.parse_args(arguments)
    if not Path(given.case).is_file():
        parser.error(f"there is no file {given.case}")
    try:
        check_target(Path(given.trace), given.overwrite)
        bytes_of(given.budget)
    except (FileExistsError, ValueError) as error:
        parser.error(str(error))
    sys.path.insert(0, str(Path(given.case).resolve().parent))
    case = runpy.run_path(given.case)
    lacking = [f"{name}()" for name in ("torch_side", "batches") if name not in case]
    if lacking:
        parser.error(f"{given.case} has no function {' and '.join(lacking)}")
    side, batches, steps = case["torch_side"](), case["batches"](), case.get("STEPS")
    if steps is None and not hasattr(batches, "__len__"):
        parser.error(f"{given.case} says nothing of how many steps: set STEPS")
    try:
        count_of(batches, steps, given.every)
    except (TypeError, ValueError) as error:
        parser.error(str(error))

    def progress(done: int, steps: int) -> None:
        print(f"\r{done} of {steps} steps", end="\n" if done == steps else "", file=sys.stderr)

    record(
        given.trace,
        TorchSide(**side) if isinstance(side, Mapping) else side,
        batches,
        steps=steps,
        every=given.every,
        budget=given.budget,
        store_batches=not given.hashes,
        name=Path(given.case).stem,
        overwrite=given.overwrite,
        progress=progress,
    )
