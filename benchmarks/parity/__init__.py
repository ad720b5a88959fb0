"""How far this library, torch's other implementations and plain Optax are from torch."""

from ._commands import loops as loops
from ._commands import numerics as numerics
from ._commands import parity as parity
