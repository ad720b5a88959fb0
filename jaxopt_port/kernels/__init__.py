"""Update rules as one pass over memory: C written from a rule's jaxpr, called by XLA on the CPU.

XLA makes a loop of its own for each array that a step writes, so Adam reads and writes ten arrays
where seven are the least. A kernel does all of a leaf in one loop, and all leaves in one call. It
rounds as the rule does: the same bits. The machine's C compiler makes it, aside; without one, and
until it is made, plain XLA takes its place.

``JAXOPT_PORT_KERNELS``: ``auto`` uses kernels in steps of a million elements, or of 64 leaves, or
more; ``on`` in all, and waits for the compiler; ``off`` in none. ``JAXOPT_PORT_CACHE`` is the
folder where they are kept, instead of ``~/.cache/jaxopt_port``: the user's own, and nobody else's
to write. The logger ``jaxopt_port.kernels`` warns once where one cannot be had or kept.
"""

from ._calls import Leaf as Leaf
from ._calls import one_pass as one_pass
from ._library import Kernel as Kernel
from ._library import prepared as prepared
from ._library import register as register
from ._source import Source as Source
from ._source import UnsupportedError as UnsupportedError
from ._source import written as written
from ._switch import enabled as enabled
from ._switch import mode as mode
from ._switch import worthwhile as worthwhile
