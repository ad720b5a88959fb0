"""The command ``jaxopt-port``."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from . import __version__

_NEEDS = "jaxopt-port needs its extras for commands: pip install 'jaxopt-port[verify]'"

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
except ImportError as error:
    sys.exit(f"{_NEEDS} (missing: {error.name})")

app = typer.Typer(
    help="torch.optim for JAX: verify that a port trains as the original does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Flax(StrEnum):
    """Flax's two APIs."""

    NNX = "nnx"
    LINEN = "linen"


class Dtype(StrEnum):
    """Dtypes that both sides train in."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxopt-port {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def _json_target(file: Path | None) -> Path | None:
    if file is not None and not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist")
    if file is not None and file.is_dir():
        raise typer.BadParameter(f"{file} is a folder; name a file")
    if file is not None and not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"the folder {file.parent} cannot be written to")
    return file


def _recipes(names: list[str] | None) -> list[str]:
    from .verify import RECIPES

    unknown = [name for name in names or [] if name not in RECIPES]
    if unknown:
        raise typer.BadParameter(
            f"there is no recipe {unknown[0]!r}; the recipes are {', '.join(RECIPES)}",
            param_hint="--recipe",
        )
    return names or list(RECIPES)


@app.command()
def verify(
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Verify this recipe alone; give it again for more. One of basic, per-subnetwork, "
            "per-layer, dynamic-in-place, dynamic-rebuilt, every-option.",
            show_default="all",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps for each recipe.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and batches.")] = 0,
    flax: Annotated[Flax, typer.Option(help="Which of Flax's APIs the model is in.")] = Flax.NNX,
    dtype: Annotated[Dtype, typer.Option(help="Of parameters and data.")] = Dtype.FLOAT32,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=_json_target, help="Write all that was measured."),
    ] = None,
) -> None:
    """Train the tutorial's LeNet in torch and here, by each recipe, and report parity.

    Both sides start from the same weights and see the same batches of scikit-learn's handwritten
    digits. At each step the outputs and gradients on torch's weights are compared; torch's own
    gradients are fed to both optimizers, whose parameters and momentum buffers must agree to the
    last bit; and the port runs free beside torch.

    Exit code 0: every bound holds. 1: one is broken, and the first place is named. 2: bad usage.
    """
    try:
        from .verify import load_digits, render, run

        digits = load_digits()
    except ImportError as error:
        typer.echo(f"{_NEEDS} ({error})", err=True)
        raise typer.Exit(2) from None
    names = _recipes(recipe)
    # A pipe or a log has no width of its own; the tables want 92 columns.
    console = Console(width=None if sys.stdout.isatty() else 100)
    bar = Progress(
        TextColumn("{task.description:17}"), BarColumn(), MofNCompleteColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        tasks = {name: bar.add_task(name, total=steps) for name in names}
        report = run(
            names,
            digits=digits,
            steps=steps,
            seed=seed,
            flax=flax.value,
            dtype=dtype.value,
            progress=lambda name, step: bar.update(tasks[name], completed=step),
        )
    console.print(render(report))
    if json is not None:
        report.write(json)
        console.print(f"Written to {json}")
    if report.failures:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    app()
