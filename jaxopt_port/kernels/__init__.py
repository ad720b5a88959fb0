"""Update rules as one pass over memory: C written from a rule's jaxpr, called by XLA on the CPU.

XLA makes a loop of its own for each array that a step writes, so Adam reads and writes ten arrays
where seven are the least. A kernel does all of a leaf in one loop, and all leaves in one call. It
rounds as the rule does: the same bits. Compiled once by the machine's C compiler and kept; without
one, or under ``JAXOPT_PORT_KERNELS=off``, plain XLA takes its place.
"""

from ._calls import Leaf as Leaf
from ._calls import one_pass as one_pass
from ._compiler import enabled as enabled
from ._compiler import target as target
from ._source import Source as Source
from ._source import UnsupportedError as UnsupportedError
from ._source import written as written
