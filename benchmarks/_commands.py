"""The commands of ``python -m benchmarks``: each package's own, and by default ``run``."""

from __future__ import annotations

from typing import Any

import typer

from jaxopt_port.cli._frame import Commands

from . import harness
from .parity import loops, numerics, parity
from .speed._commands import COMMANDS


class _RunByDefault(Commands):
    """``python -m benchmarks step`` is ``python -m benchmarks run step``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure this library beside its peers. Without a command: run.",
)
for command in COMMANDS:
    app.command()(command)
app.command()(parity)
app.command()(loops)
app.command()(numerics)
for name, command in harness.COMMANDS.items():
    app.command(name)(command)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def accelerator(context: typer.Context) -> None:
    """Measure all that matters of a GPU or TPU, within a budget; needs no typer. See its --help."""
    from .accelerator import main

    raise typer.Exit(main(context.args))
