"""What ``import jaxopt_port`` costs beside ``import optax``: fresh processes, taking turns."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from ._timing import Spread

_TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def measure(quick: bool = False) -> dict[str, Spread]:
    """Return the time of each import in a process of its own."""
    modules = ("optax", "jaxopt_port")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(5 if quick else 15):
        for module in modules:
            command = [sys.executable, "-c", _TIMED.format(module)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[module].append(float(out))
    return {
        f"import {module}": Spread(*(float(q) for q in np.quantile(seen, [0.5, 0.25, 0.75])))
        for module, seen in times.items()
    }
