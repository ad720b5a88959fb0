"""Exchange with torch. torch itself is imported when a function here needs it, and not before."""

from typing import TYPE_CHECKING, Any

from ._likely_schedulers import likely_scheduler as likely_scheduler
from ._optimizer_layout import in_torch_layout as in_torch_layout
from ._optimizers import optimizer_from_torch as optimizer_from_torch
from ._optimizers import optimizer_to_torch as optimizer_to_torch
from ._schedulers import scheduler_from_torch as scheduler_from_torch
from ._schedulers import scheduler_to_torch as scheduler_to_torch
from ._spelled_here import spelled as spelled
from ._tensors import array_of as array_of
from ._tensors import import_torch as import_torch
from ._torch_classes import likely_class as likely_class
from .files import Checkpoint as Checkpoint
from .files import CheckpointWarning as CheckpointWarning
from .files import Restored as Restored
from .files import check_state_dict as check_state_dict
from .files import load as load
from .files import register as _register_with_flax
from .files import restore_orbax as restore_orbax
from .files import save as save
from .files import save_orbax as save_orbax
from .files import with_layout as with_layout
from .mapping import Entry as Entry
from .mapping import LayerDifferenceWarning as LayerDifferenceWarning
from .mapping import Layout as Layout
from .mapping import ParamMap as ParamMap
from .mapping import param_map as param_map
from .mapping import params_from_torch as params_from_torch
from .mapping import params_to_torch as params_to_torch

if TYPE_CHECKING:
    from ._shadow import Distance as Distance
    from ._torch_optimizer import TorchOptimizer as TorchOptimizer


_OF_TORCH = ("Distance", "TorchOptimizer")


def __getattr__(name: str) -> Any:
    # Classes that need torch to be made.
    if name in _OF_TORCH:
        from . import _torch_optimizer

        return getattr(_torch_optimizer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_OF_TORCH})


_register_with_flax()
