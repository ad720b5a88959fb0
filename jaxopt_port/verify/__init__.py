"""The verification harness: finds the first place where a port goes wrong.

`compare` runs torch and JAX side by side; `verify.recorder` writes a trace where there is no JAX,
and `replay` compares with it where there is no torch. ``verify.cases`` has the tutorial's LeNet.
"""

from typing import TYPE_CHECKING, Any

from ._assertion import assert_same_training as assert_same_training
from .comparison import JaxSide as JaxSide
from .comparison import Step as Step
from .comparison import compare as compare
from .comparison import equinox_side as equinox_side
from .comparison import linen_side as linen_side
from .comparison import nnx_side as nnx_side
from .comparison import replay as replay
from .diagnosis import CAUSES as CAUSES
from .report import STAGES as STAGES
from .report import Cause as Cause
from .report import Distance as Distance
from .report import Divergence as Divergence
from .report import Element as Element
from .report import LeafResult as LeafResult
from .report import Report as Report
from .report import StageResult as StageResult

if TYPE_CHECKING:
    from .recorder import TorchSide as TorchSide


def __getattr__(name: str) -> Any:
    # A class that needs torch to be made.
    if name == "TorchSide":
        from .recorder import TorchSide

        return TorchSide
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
