"""Checkpoints in files: torch's, safetensors, shards, Orbax; whole or not at all."""

import importlib.util

from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import CheckpointWarning as CheckpointWarning
from ._checkpoint import check_state_dict as check_state_dict
from ._json_values import arrays_in as arrays_in
from ._json_values import check_can_be_written as check_can_be_written
from ._layout_of_checkpoints import with_layout as with_layout
from ._load_and_save import is_sharded as is_sharded
from ._load_and_save import load as load
from ._load_and_save import save as save
from ._optimizer_dicts import by_indices as by_indices
from ._optimizer_dicts import names_of as names_of
from ._optimizer_dicts import renamed as renamed
from ._orbax import Restored as Restored
from ._orbax import restore_orbax as restore_orbax
from ._orbax import save_orbax as save_orbax
from ._safetensors_files import read_tensors as read_tensors


def register() -> None:
    """Let ``flax.serialization`` write and read this library's states, where there is Flax."""
    if importlib.util.find_spec("flax") is not None:
        from . import _flax_serialization

        _flax_serialization.register()
