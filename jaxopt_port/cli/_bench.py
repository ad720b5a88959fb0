"""The command ``jaxopt-port bench``: the benchmarks of a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer

_ROOT = Path(__file__).parents[2]


def bench(context: typer.Context) -> None:
    """Measure this library's speed beside torch's and Optax's: the same as python -m benchmarks.

    Example: jaxopt-port bench --quick

    The benchmarks are in the project's repository, not in the installed package. Everything after
    "bench" is theirs: "jaxopt-port bench --quick" takes two minutes, "jaxopt-port bench run --help"
    says the rest; results are JSON in any case, which --out FILE puts into a file.

    Exit code 0: measured. 1: compare has found something slower. 2: bad usage.
    """
    if not (_ROOT / "benchmarks" / "__main__.py").is_file():
        typer.echo(
            "jaxopt-port bench needs the project's repository: clone it and, in it, "
            "pip install --editable '.[plot]'",
            err=True,
        )
        raise typer.Exit(2)
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "benchmarks", *context.args]
    raise typer.Exit(subprocess.run(command, env=os.environ | {"PYTHONPATH": path}).returncode)
