"""The command ``jaxopt-port``."""

from __future__ import annotations

import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn

from .. import __version__
from ._bench import bench
from ._cases import new_case, record, recorder, replay, verify_case
from ._convert import convert
from ._frame import (
    Commands,
    HtmlFile,
    JsonFile,
    counting,
    target,
    usage_errors,
    waiting,
    write_json,
)
from ._show import show as show_checkpoint
from ._shown import say, show

app = typer.Typer(
    cls=Commands,
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


def _recipes(names: list[str] | None, every: bool) -> list[str]:
    from ..verify.cases import ALL_RECIPES, RECIPES

    unknown = [name for name in names or [] if name not in ALL_RECIPES]
    if unknown:
        raise typer.BadParameter(
            f"there is no recipe {unknown[0]!r}; the recipes are {', '.join(ALL_RECIPES)}",
            param_hint="--recipe",
        )
    if every and names:
        raise typer.BadParameter("give --recipe or --all, not both", param_hint="--all")
    return list(ALL_RECIPES) if every else names or list(RECIPES)


@app.command()
def verify(
    case: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CASE.py]",
            help="A case file, which `jaxopt-port new-case` writes; without one, the recipes.",
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Verify this recipe alone; give it again for more. One of basic, per-subnetwork, "
            "per-layer, dynamic-in-place, dynamic-rebuilt, every-option (these by default), "
            "one-cycle, plateau, warm-up-cosine, clip-ema (the loop around the step).",
            show_default="the first six",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Verify every recipe, those of the loop too.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Optimizer steps.",
            show_default="100 for a recipe; the case's STEPS, or all its batches",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a recipe: seed of weights and batches.")] = 0,
    flax: Annotated[
        Flax, typer.Option(help="Of a recipe: which of Flax's APIs the model is in.")
    ] = Flax.NNX,
    dtype: Annotated[
        Dtype, typer.Option(help="Of a recipe: that of parameters and data.")
    ] = Dtype.FLOAT32,
    json: JsonFile = None,
    html: HtmlFile = None,
    to_end: Annotated[
        bool, typer.Option("--to-end", help="Of a case: go on after the first divergence.")
    ] = False,
) -> None:
    """Compare the training of a case file in torch and in JAX; or the tutorial's LeNet recipes.

    Example: jaxopt-port verify case.py --html report.html

    Of a case: finds the first place (step, stage, leaf) where the two differ by more than rounding,
    and names the likely cause.

    Of a recipe: the same, of LeNet on batches of scikit-learn's handwritten digits. Besides,
    torch's own gradients are fed to both optimizers at each step, whose parameters and momentum
    buffers must agree to the last bit, and to Optax's literal spelling. The recipes of the loop add
    a scheduler, clipping or averages: learning rates and momenta must be torch's in every bit.

    Exit code 0: every bound holds. 1: one is broken, and the first place is named. 2: bad usage.
    """
    if case is not None:
        if recipe or every:
            raise typer.BadParameter("give a case file or recipes, not both")
        if seed or flax is not Flax.NNX or dtype is not Dtype.FLOAT32:
            raise typer.BadParameter("--seed, --flax and --dtype are for recipes")
        verify_case(case, steps=steps, html=html, json=json, to_end=to_end)
        return
    if html is not None or to_end:
        raise typer.BadParameter("--html and --to-end are for a case file")
    if steps == 1:
        raise typer.BadParameter("a recipe takes 2 steps at least", param_hint="--steps")
    with usage_errors():
        with waiting("reading the digits"):
            from ..verify.cases import load_digits, render, run

            digits = load_digits()
            names = _recipes(recipe, every)
        with counting(MofNCompleteColumn()) as bar:
            tasks = {name: bar.add_task(f"{name:17}", total=steps or 100) for name in names}
            report = run(
                names,
                digits=digits,
                steps=steps or 100,
                seed=seed,
                flax=flax.value,
                dtype=dtype.value,
                progress=lambda name, step: bar.update(tasks[name], completed=step),
            )
        show(render(report))
        write_json(json, report.to_json())
        if report.failures:
            raise typer.Exit(1)


def _png_target(file: Path) -> Path:
    if file.suffix.lower() != ".png":
        raise typer.BadParameter(f"{file} is not a PNG: name a file that ends in .png")
    target(file)
    return file


@app.command()
def lr(
    plan: Annotated[
        str | None,
        typer.Argument(
            help="A scheduler as in Python, without the optimizer: "
            "'SequentialLR([LinearLR(0.1, total_iters=10), CosineAnnealingLR(90)], [10])'."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Draw an example of every scheduler instead.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the scheduler.")] = 100,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            "--lr",
            help="The optimizer's learning rate; give it again for more groups.",
            show_default="0.1",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", callback=_png_target, help="The PNG to write.")
    ] = Path("lr.png"),
    json: JsonFile = None,
) -> None:
    """Draw a learning-rate schedule beside torch's: learning rate and momentum over steps.

    Example: jaxopt-port lr "OneCycleLR(0.1, total_steps=100)" --output lr.png

    The optimizer is SGD with momentum 0.9. ReduceLROnPlateau is told a loss that falls for 24 steps
    and then stays. Functions are Python's: 'LambdaLR(lambda epoch: 0.95**epoch)'.

    Exit code 0: the two are equal in every bit. 1: they differ, and by how much is printed. 2: bad
    usage.
    """
    if (plan is None) != every:
        raise typer.BadParameter("give a scheduler, or --all for an example of each")
    try:
        with waiting("drawing"):
            from ._lr_figure import EXAMPLES, draw, parsed

            plans = EXAMPLES if plan is None else {plan: parsed(plan)}
            difference = draw(plans, rate or [0.1], steps, output)
    except ImportError as error:
        say(f"jaxopt-port lr needs: pip install 'jaxopt-port[plot]' ({error})", err=True)
        raise typer.Exit(2) from None
    except Exception as error:
        written = any(f.filename == "PLAN" for f in traceback.extract_tb(error.__traceback__))
        if not written and not isinstance(error, (ValueError, TypeError)):
            raise
        raise typer.BadParameter(f"{type(error).__name__}: {error}") from None
    write_json(json, {"schedules": list(plans), "difference": difference, "figure": output})
    say(f"Largest difference from torch: {difference:.3g}. Written to {output}")
    if difference != 0:
        raise typer.Exit(1)


for command in (new_case, record, recorder, replay, convert):
    app.command()(command)
app.command("show")(show_checkpoint)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)
