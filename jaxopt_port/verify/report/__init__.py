"""What a comparison found, as data, in the terminal, and as one HTML file."""

from typing import TYPE_CHECKING, Any

from ._json import floats_of as floats_of
from ._json import plain as plain
from ._report import STAGES as STAGES
from ._report import Cause as Cause
from ._report import Curves as Curves
from ._report import Distance as Distance
from ._report import Divergence as Divergence
from ._report import Element as Element
from ._report import LeafResult as LeafResult
from ._report import Report as Report
from ._report import StageResult as StageResult

if TYPE_CHECKING:
    from ._terminal import render as render


def __getattr__(name: str) -> Any:
    if name == "render":  # which needs Rich
        from ._terminal import render

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
