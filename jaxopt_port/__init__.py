"""torch.optim for JAX: the same optimizers, groups and numbers, as Optax transformations.

Lower-case names are plain Optax transformations with torch's semantics; CapWords names take
torch's parameter groups and have every number settable between steps.
"""

from . import lr_scheduler as lr_scheduler
from . import swa_utils as swa_utils
from ._explain import Explanation as Explanation
from ._explain import explain as explain
from ._optimizers import ASGD as ASGD
from ._optimizers import LBFGS as LBFGS
from ._optimizers import SGD as SGD
from ._optimizers import Adadelta as Adadelta
from ._optimizers import Adafactor as Adafactor
from ._optimizers import Adagrad as Adagrad
from ._optimizers import Adam as Adam
from ._optimizers import Adamax as Adamax
from ._optimizers import AdamW as AdamW
from ._optimizers import Muon as Muon
from ._optimizers import NAdam as NAdam
from ._optimizers import RAdam as RAdam
from ._optimizers import RMSprop as RMSprop
from ._optimizers import Rprop as Rprop
from ._optimizers import SparseAdam as SparseAdam
from ._optimizers import adadelta as adadelta
from ._optimizers import adafactor as adafactor
from ._optimizers import adagrad as adagrad
from ._optimizers import adam as adam
from ._optimizers import adamax as adamax
from ._optimizers import adamw as adamw
from ._optimizers import asgd as asgd
from ._optimizers import lbfgs as lbfgs
from ._optimizers import muon as muon
from ._optimizers import nadam as nadam
from ._optimizers import radam as radam
from ._optimizers import rmsprop as rmsprop
from ._optimizers import rprop as rprop
from ._optimizers import sgd as sgd
from ._optimizers import sparse_adam as sparse_adam
from .accumulation import accumulate_grads as accumulate_grads
from .amp import GradScaler as GradScaler
from .amp import GradScalerState as GradScalerState
from .checkpoint import load_state_dict as load_state_dict
from .checkpoint import state_dict as state_dict
from .clip_grad import clip_by_grad_norm as clip_by_grad_norm
from .clip_grad import clip_by_grad_value as clip_by_grad_value
from .clip_grad import clip_grad_norm as clip_grad_norm
from .clip_grad import clip_grad_value as clip_grad_value
from .clip_grad import clip_grads_with_norm as clip_grads_with_norm
from .clip_grad import get_total_norm as get_total_norm
from .engine import REST as REST
from .engine import GroupedTransformation as GroupedTransformation
from .engine import add_param_group as add_param_group
from .engine import get_hyperparams as get_hyperparams
from .engine import param_groups as param_groups
from .engine import set_hyperparams as set_hyperparams
from .engine import step as step
from .engine import transformation as transformation

__version__ = "0.1.0"
