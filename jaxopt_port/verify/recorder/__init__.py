"""Runs torch's side of a comparison, and records it where JAX is not installed.

It needs Python 3.11 and torch, and nothing else: ``jaxopt-port recorder`` writes it as one file
that Python runs. What `record` writes is described in ``docs/trace-format.md``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._steps import Checked as Checked
from ._steps import Evaluation as Evaluation
from ._steps import Update as Update

if TYPE_CHECKING:
    from ._batches import count_of as count_of
    from ._batches import cycled as cycled
    from ._command import main as main
    from ._files import check_target as check_target
    from ._float64 import all_float64 as all_float64
    from ._float64 import in_float64 as in_float64
    from ._record import record as record
    from ._run import TorchRun as TorchRun
    from ._side import TorchSide as TorchSide
    from ._together import listed as listed

# What needs torch, by its module: a trace is read without, as the same steps.
_HOMES = {
    "count_of": "_batches", "cycled": "_batches", "main": "_command", "check_target": "_files",
    "all_float64": "_float64", "in_float64": "_float64", "record": "_record", "TorchRun": "_run",
    "TorchSide": "_side", "listed": "_together",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
