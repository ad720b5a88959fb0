"""``python -m jaxopt_port``: the command ``jaxopt-port``."""

from .cli import main

main()
