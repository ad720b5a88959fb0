"""The command ``jaxopt-port``."""

from ._main import app as app
from ._main import main as main
from ._main import run as run
