"""Exchange with torch. torch itself is imported when a function here needs it, and not before."""

from typing import TYPE_CHECKING, Any

from ._nnx import nnx_optimizer as nnx_optimizer
from ._optimizers import optimizer_from_torch as optimizer_from_torch
from ._optimizers import optimizer_to_torch as optimizer_to_torch
from ._schedulers import scheduler_from_torch as scheduler_from_torch
from ._schedulers import scheduler_to_torch as scheduler_to_torch
from .files._checkpoint import Checkpoint as Checkpoint
from .files._checkpoint import CheckpointWarning as CheckpointWarning
from .files._checkpoint import check_state_dict as check_state_dict
from .files._files import load as load
from .files._files import save as save
from .files._flax_serialization import register as _register_with_flax
from .files._layout_of_checkpoints import with_layout as with_layout
from .files._orbax import Restored as Restored
from .files._orbax import restore_orbax as restore_orbax
from .files._orbax import save_orbax as save_orbax
from .mapping._layer_differences import LayerDifferenceWarning as LayerDifferenceWarning
from .mapping._layout import Layout as Layout
from .mapping._mapping import param_map as param_map
from .mapping._param_map import Entry as Entry
from .mapping._param_map import ParamMap as ParamMap
from .mapping._params import params_from_torch as params_from_torch
from .mapping._params import params_to_torch as params_to_torch

if TYPE_CHECKING:
    from ._shadow import Distance as Distance
    from ._torch_optimizer import TorchOptimizer as TorchOptimizer


def __getattr__(name: str) -> Any:
    # Classes that need torch to be made.
    if name == "TorchOptimizer":
        from ._torch_optimizer import TorchOptimizer

        return TorchOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_register_with_flax()
