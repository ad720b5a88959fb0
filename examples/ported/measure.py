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
    """How far a port is from torch: rates; parameters and averages over a tensor's largest."""

    rates: float
    params: float
    averages: float | None
    steps: int


def measured(name: str, steps: int = STEPS) -> Distance:
    """Return the largest distances over all steps."""
    script = importlib.import_module(name)
    net, params, mapped = made()
    both = [dict(each) for each in gradients(net, steps)]
    here = script.in_jax(params, (tree(mapped.from_torch(grad)) for grad in both))
    worst_rate = worst = 0.0
    worst_average, count = None, 0
    for torchs, (rates, params, *average) in zip(
        script.in_torch(net, iter(both)), here, strict=True
    ):
        torchs, *averages = torchs if isinstance(torchs, tuple) else (torchs,)
        own, theirs = list(map(float, rates)), list(map(float, torchs))
        if len(own) != len(theirs):  # other groups with the same rates
            own, theirs = sorted(set(own)), sorted(set(theirs))
        pairs = zip(own, theirs, strict=True)
        worst_rate = max([worst_rate, *(abs(a - b) for a, b in pairs)])
        count += 1
        worst = max(worst, _apart(params, dict(net.named_parameters()), mapped))
        for tree_of, by_name in zip(average, averages, strict=True):
            worst_average = max(worst_average or 0.0, _apart(tree_of, by_name, mapped))
    return Distance(worst_rate, worst, worst_average, count)


def _apart(tree_of, by_name, mapped):
    """Return how far the leaves of a tree are from torch's tensors."""
    worst = 0.0
    for path, leaf in _leaves(tree_of):
        entry = next(e for e in mapped.entries if e.path == path)
        want = entry.to_jax(by_name[entry.torch_name].detach().numpy())
        worst = max(worst, float(np.abs(leaf - want).max()) / (float(np.abs(want).max()) or 1.0))
    return worst


def _leaves(params):
    from jaxopt_port.engine import leaf_paths

    return [(path, np.asarray(leaf)) for path, leaf in leaf_paths(params)]


def row(name: str) -> str:
    """Return a line of the table."""
    found = measured(name)
    first = (importlib.import_module(name).__doc__ or "").strip().splitlines()[0].rstrip(".")
    words = "equal bits" if found.params == 0 else f"{found.params:.0e}"
    rates = "equal bits" if found.rates == 0 else f"{found.rates:.0e}"
    averages = "" if found.averages is None else f"{found.averages:.0e}"
    averages = "equal bits" if found.averages == 0 else averages
    return f"| [{name}.py]({name}.py) | {first} | {rates} | {words} | {averages} |"


if __name__ == "__main__":
    print("| script | what it does around the optimizer | rates | parameters | averages |")
    print("|---|---|---|---|---|")
    for each in SCRIPTS:
        print(row(each))
