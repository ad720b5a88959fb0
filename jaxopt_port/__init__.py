"""torch.optim for JAX: the same optimizers, groups and numbers, as Optax transformations.

Lower-case names are plain Optax transformations with torch's semantics; CapWords names take
torch's parameter groups and have every number settable between steps.
"""

from ._optimizers import SGD as SGD
from ._optimizers import sgd as sgd
from .engine import REST as REST
from .engine import GroupedTransformation as GroupedTransformation
from .engine import add_param_group as add_param_group
from .engine import get_hyperparams as get_hyperparams
from .engine import param_groups as param_groups
from .engine import set_hyperparams as set_hyperparams
from .engine import step as step

__version__ = "0.1.0"
