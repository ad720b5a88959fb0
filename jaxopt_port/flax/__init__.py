"""Drop-ins for Flax's own optimizer and train state, whose steps are `jp.step`'s.

Flax applies an update as Optax does, ``params + updates``: not torch's bits, and one pass over
memory more. `Optimizer` stands for ``nnx.Optimizer``, `TrainState` for Linen's.
"""

# flax.serialization learns this library's states by it.
from .. import interop as _interop  # noqa: F401
from ._linen import TrainState as TrainState
from ._nnx import Optimizer as Optimizer
