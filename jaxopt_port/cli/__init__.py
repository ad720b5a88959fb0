"""The command ``jaxopt-port``."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._main import app as app

_NEEDS = "jaxopt-port needs its extras for commands: pip install 'jaxopt-port[verify]'"
_HELP = f"""Usage: jaxopt-port COMMAND [OPTIONS]

torch.optim for JAX: verify that a port trains as the original does, and convert checkpoints.

  verify    compare a training in torch and in JAX     new-case  begin a case for it
  record    write what torch's side did                recorder  the recorder as one file
  replay    compare the JAX side with a recording      lr        draw a schedule beside torch's
  show      say what is in a checkpoint                convert   make one checkpoint of another
  bench     measure speed

{_NEEDS}"""


def __getattr__(name: str) -> Any:
    # What needs typer and rich.
    if name == "app":
        return importlib.import_module("._main", __name__).app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line; version and help need no extras."""
    try:
        from ._main import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        _without_extras(sys.argv[1:], error.name)
    else:
        run(app, "jaxopt-port")


def run(app: Any, name: str) -> None:
    """Run a command line, a group of `Commands`, and exit: with 1 only where two sides differ."""
    import typer

    try:
        app(prog_name=name)
    except SystemExit as end:
        # Typer has 1, too, for a pipe that was closed and for an input that has ended.
        if end.code == 1 and not isinstance(end.__context__, typer.Exit):
            raise SystemExit(2) from None
        raise


def _without_extras(arguments: list[str], missing: str | None) -> None:
    from .. import __version__

    if arguments[:1] == ["--version"]:
        print(f"jaxopt-port {__version__}")
    elif arguments[:1] in ([], ["--help"]):
        print(_HELP)
    else:
        print(f"{_NEEDS} (missing: {missing})", file=sys.stderr)
        sys.exit(2)
