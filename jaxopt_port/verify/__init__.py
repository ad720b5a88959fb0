"""The verification harness: finds the first place where a port goes wrong.

`compare` runs torch and JAX side by side; `verify.recorder` writes a trace where there is no JAX,
and `replay` compares with it where there is no torch. ``verify.cases`` has the tutorial's LeNet.
"""

from typing import TYPE_CHECKING, Any

from ._assertion import assert_same_training as assert_same_training
from .compare._compare import compare as compare
from .compare._jax_side import JaxSide as JaxSide
from .compare._replay import replay as replay
from .compare._report import STAGES as STAGES
from .compare._report import Cause as Cause
from .compare._report import Distance as Distance
from .compare._report import Divergence as Divergence
from .compare._report import Element as Element
from .compare._report import LeafResult as LeafResult
from .compare._report import Report as Report
from .compare._report import StageResult as StageResult
from .compare._sides import equinox_side as equinox_side
from .compare._sides import linen_side as linen_side
from .compare._sides import nnx_side as nnx_side
from .compare._watched import Step as Step
from .diagnosis import CAUSES as CAUSES

if TYPE_CHECKING:
    from .recorder import TorchSide as TorchSide


def __getattr__(name: str) -> Any:
    # A class that needs torch to be made.
    if name == "TorchSide":
        from .recorder import TorchSide

        return TorchSide
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
