"""Run every script in both frameworks and print the table of README.md.

Run it: ``python examples/ported/measure.py``
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from network import gradients, made, tree  # noqa: E402

SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("network", "measure"))
STEPS = 30


class Distance(NamedTuple):
    """How far a port is from torch: of rates, and of parameters over the largest of a tensor."""

    rates: float
    params: float
    steps: int


def measured(name: str, steps: int = STEPS) -> Distance:
    """Return the largest distances over all steps."""
    script = importlib.import_module(name)
    net, params, mapped = made()
    both = [dict(each) for each in gradients(net, steps)]
    here = script.in_jax(params, (tree(mapped.from_torch(grad)) for grad in both))
    worst_rate = worst = 0.0
    count = 0
    for torchs, (rates, params) in zip(script.in_torch(net, iter(both)), here, strict=True):
        pairs = zip(sorted(set(map(float, torchs))), sorted(set(map(float, rates))), strict=True)
        worst_rate = max([worst_rate, *(abs(a - b) for a, b in pairs)])
        count += 1
        for path, leaf in _leaves(params):
            entry = next(e for e in mapped.entries if e.path == path)
            want = entry.to_jax(net.get_parameter(entry.torch_name).detach().numpy())
            largest = float(np.abs(want).max()) or 1.0
            worst = max(worst, float(np.abs(leaf - want).max()) / largest)
    return Distance(worst_rate, worst, count)


def _leaves(params):
    from jaxopt_port.engine import leaf_paths

    return [(path, np.asarray(leaf)) for path, leaf in leaf_paths(params)]


def row(name: str) -> str:
    """Return a line of the table."""
    found = measured(name)
    first = (importlib.import_module(name).__doc__ or "").strip().splitlines()[0].rstrip(".")
    words = "equal bits" if found.params == 0 else f"{found.params:.0e}"
    rates = "equal bits" if found.rates == 0 else f"{found.rates:.0e}"
    return f"| [{name}.py]({name}.py) | {first} | {rates} | {words} |"


if __name__ == "__main__":
    print("| script | what it does around the optimizer | rates | parameters |")
    print("|---|---|---|---|")
    for each in SCRIPTS:
        print(row(each))
