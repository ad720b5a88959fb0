"""The command line of ``python -m benchmarks accelerator``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..speed._results import ResultsError, load
from ._report import markdown
from ._run import Run

_BUDGET = 340.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accelerator",
        description="Measure all that matters of a GPU or TPU, the most worthy first: torch's "
        "primitives, the distance of every optimizer from torch, the time of steps and of training "
        "steps, memory, tests. Results are written after each part. Without an accelerator, "
        "everything is rehearsed with small shapes.",
    )
    parser.add_argument("--budget", type=float, default=_BUDGET, metavar="SECONDS", help="for all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the results go (JSON)")
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="print a file of results as Markdown, and no more"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit code: 0 as soon as there is a file, 2 for wrong arguments."""
    parser = _parser()
    given = parser.parse_args(list(arguments))
    if (given.out is None) == (given.show is None):
        parser.error("give --out FILE, to measure, or --show FILE, to read")
    if given.show is not None:
        try:
            print(markdown(load(given.show)), end="")
        except ResultsError as error:
            parser.error(str(error))
        return 0
    if not given.budget > 0:
        parser.error(f"--budget must be above 0 seconds; got {given.budget:g}")
    if given.out.is_dir():
        parser.error(f"{given.out} is a folder; name a file")
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr, flush=True)

    command = " ".join(["python -m benchmarks accelerator", *arguments])
    results = Run(given.budget, given.out, command, say).measure()
    print(markdown(results), end="")
    say(f"written: {given.out}")
    return 0
