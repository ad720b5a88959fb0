"""Drop-ins for Flax's own optimizer and train state, whose steps are `jp.step`'s.

Flax applies an update as Optax does, ``params + updates``: not torch's bits, and one pass over
memory more. `Optimizer` stands for ``nnx.Optimizer``, `TrainState` for Linen's.
"""

try:
    import flax as _flax  # noqa: F401
except ModuleNotFoundError:
    raise ImportError("jaxopt_port.flax needs Flax: pip install 'jaxopt-port[flax]'") from None

# flax.serialization learns this library's states by it.
from .. import interop as _interop  # noqa: F401
from ._linen import TrainState as TrainState
from ._nnx import Optimizer as Optimizer
