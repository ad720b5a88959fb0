"""Runs torch's side of a comparison, and records it where JAX is not installed.

It needs Python 3.11 and torch, and nothing else: ``jaxopt-port recorder`` writes it as one file
that Python runs. What `record` writes is described in ``docs/trace-format.md``.
"""

from ._batches import count_of as count_of
from ._batches import cycled as cycled
from ._command import main as main
from ._files import check_target as check_target
from ._float64 import all_float64 as all_float64
from ._float64 import in_float64 as in_float64
from ._record import record as record
from ._run import TorchRun as TorchRun
from ._side import TorchSide as TorchSide
from ._steps import Checked as Checked
from ._steps import Evaluation as Evaluation
from ._steps import Update as Update
from ._together import listed as listed
