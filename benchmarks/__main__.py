"""``python -m benchmarks``: times beside torch's and Optax's, distances, found faults."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command; that for accelerators must do on a machine without typer."""
    if sys.argv[1:2] == ["accelerator"]:
        from .accelerator import main as accelerator

        raise SystemExit(accelerator(sys.argv[2:]))
    from jaxopt_port.cli import run

    from ._commands import app

    run(app, "python -m benchmarks")


if __name__ == "__main__":
    main()
