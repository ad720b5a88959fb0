"""The commands ``parity``, ``loops`` and ``numerics``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from .._terminal import bar


def parity(
    optimizer: Annotated[
        list[str] | None,
        typer.Option("--optimizer", metavar="NAME", help="Torch's class, RMSprop say; repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the steps.")] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Also write it to docs/parity.md; takes the whole run.")
    ] = False,
) -> None:
    """Take 200 steps in torch, here and in plain Optax, and print how far they end apart.

    In each configuration of torch's own table, as Markdown; takes minutes.
    """
    from .._torch_table import configurations
    from . import _document, _measure

    if write and (quick or optimizer):
        raise typer.BadParameter("--write takes the whole run: no --quick, no --optimizer")
    known = list(dict.fromkeys(configuration.optimizer for configuration in configurations()))
    for name in optimizer or ():
        if name not in known:
            raise typer.BadParameter(
                f"no optimizer {name!r}; torch's are {', '.join(known)}", param_hint="--optimizer"
            )
    with bar() as shown:
        task = shown.add_task("parity", total=None)

        def show(configuration: Any, done: int, total: int) -> None:
            text = f"{configuration.optimizer}({configuration})"
            shown.update(task, description=escape(text[:60]), completed=done, total=total)

        text = _document.document(_measure.measure(optimizer or [], quick, show))
    typer.echo(text, nl=False)
    if write:
        _document.write(text)
        typer.echo(f"written: {_document.DOCUMENT}", err=True)


def loops() -> None:
    """List which loops around an optimizer keep torch's bits, and what the others lose.

    How many of 20,000 elements differ in a bit after 20 steps: of SGD with momentum and decay from
    torch's, of AdamW from jp.step's. As Markdown; takes a minute.
    """
    from ._loops import table

    typer.echo(table())


def numerics() -> None:
    """Measure the figures of docs/numerics.md that no test holds.

    Rounding of torch's and XLA's operations, and what exactness costs; takes half a minute.
    """
    from ._numerics import rows

    measured = rows()
    width = max(len(what) for what, _ in measured)
    for what, figure in measured:
        typer.echo(f"{what:<{width}}  {figure}")
