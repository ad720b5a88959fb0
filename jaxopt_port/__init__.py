"""torch.optim for JAX: the same optimizers, groups and numbers, as Optax transformations.

Lower-case names are plain Optax transformations with torch's semantics; CapWords names take
torch's parameter groups and have every number settable between steps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import accumulation as accumulation
    from . import amp as amp
    from . import checkpoint as checkpoint
    from . import clip_grad as clip_grad
    from . import engine as engine
    from . import lr_scheduler as lr_scheduler
    from . import quasi_newton as quasi_newton
    from . import rules as rules
    from . import sharding as sharding
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
    from .sharding import state_shardings as state_shardings

__version__ = "0.1.0"

# Where each name is. It is loaded when it is asked for: a script that clips gradients and nothing
# else does not wait for the schedulers.
_PLACES = {
    "accumulation": ".accumulation",
    "amp": ".amp",
    "checkpoint": ".checkpoint",
    "clip_grad": ".clip_grad",
    "engine": ".engine",
    "quasi_newton": ".quasi_newton",
    "rules": ".rules",
    "sharding": ".sharding",
    "lr_scheduler": ".lr_scheduler",
    "swa_utils": ".swa_utils",
    "ASGD": "._optimizers",
    "LBFGS": "._optimizers",
    "SGD": "._optimizers",
    "Adadelta": "._optimizers",
    "Adafactor": "._optimizers",
    "Adagrad": "._optimizers",
    "Adam": "._optimizers",
    "Adamax": "._optimizers",
    "AdamW": "._optimizers",
    "Muon": "._optimizers",
    "NAdam": "._optimizers",
    "RAdam": "._optimizers",
    "RMSprop": "._optimizers",
    "Rprop": "._optimizers",
    "SparseAdam": "._optimizers",
    "adadelta": "._optimizers",
    "adafactor": "._optimizers",
    "adagrad": "._optimizers",
    "adam": "._optimizers",
    "adamax": "._optimizers",
    "adamw": "._optimizers",
    "asgd": "._optimizers",
    "lbfgs": "._optimizers",
    "muon": "._optimizers",
    "nadam": "._optimizers",
    "radam": "._optimizers",
    "rmsprop": "._optimizers",
    "rprop": "._optimizers",
    "sgd": "._optimizers",
    "sparse_adam": "._optimizers",
    "REST": ".engine",
    "GroupedTransformation": ".engine",
    "add_param_group": ".engine",
    "get_hyperparams": ".engine",
    "param_groups": ".engine",
    "set_hyperparams": ".engine",
    "step": ".engine",
    "transformation": ".engine",
    "Explanation": "._explain",
    "explain": "._explain",
    "accumulate_grads": ".accumulation",
    "GradScaler": ".amp",
    "GradScalerState": ".amp",
    "load_state_dict": ".checkpoint",
    "state_dict": ".checkpoint",
    "clip_by_grad_norm": ".clip_grad",
    "clip_by_grad_value": ".clip_grad",
    "clip_grad_norm": ".clip_grad",
    "clip_grad_value": ".clip_grad",
    "clip_grads_with_norm": ".clip_grad",
    "get_total_norm": ".clip_grad",
    "state_shardings": ".sharding",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name], __name__)
    found = module if _PLACES[name] == f".{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
