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
    from . import contrib as contrib
    from . import engine as engine
    from . import flax as flax
    from . import interop as interop
    from . import lr_scheduler as lr_scheduler
    from . import models as models
    from . import numerics as numerics
    from . import optim as optim
    from . import sharding as sharding
    from . import swa_utils as swa_utils
    from . import verify as verify
    from ._explain import Explanation as Explanation
    from ._explain import explain as explain
    from ._spelled import spelled as spelled
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
    from .clip_grad import trained_grads as trained_grads
    from .engine import REST as REST
    from .engine import Optimizer as Optimizer
    from .engine import add_param_group as add_param_group
    from .engine import get_hyperparams as get_hyperparams
    from .engine import param_groups as param_groups
    from .engine import set_hyperparams as set_hyperparams
    from .engine import step as step
    from .engine import transformation as transformation
    from .numerics import without_float64 as without_float64
    from .optim import ASGD as ASGD
    from .optim import LBFGS as LBFGS
    from .optim import SGD as SGD
    from .optim import Adadelta as Adadelta
    from .optim import Adafactor as Adafactor
    from .optim import Adagrad as Adagrad
    from .optim import Adam as Adam
    from .optim import Adamax as Adamax
    from .optim import AdamW as AdamW
    from .optim import Muon as Muon
    from .optim import NAdam as NAdam
    from .optim import RAdam as RAdam
    from .optim import RMSprop as RMSprop
    from .optim import Rprop as Rprop
    from .optim import SparseAdam as SparseAdam
    from .optim import adadelta as adadelta
    from .optim import adafactor as adafactor
    from .optim import adagrad as adagrad
    from .optim import adam as adam
    from .optim import adamax as adamax
    from .optim import adamw as adamw
    from .optim import asgd as asgd
    from .optim import lbfgs as lbfgs
    from .optim import muon as muon
    from .optim import nadam as nadam
    from .optim import radam as radam
    from .optim import rmsprop as rmsprop
    from .optim import rprop as rprop
    from .optim import sparse_adam as sparse_adam
    from .optim._sgd import sgd as sgd
    from .sharding import state_shardings as state_shardings

__version__ = "0.1.0"

# Where each name is, beside the modules themselves. It is loaded when it is asked for: a script
# that clips gradients and nothing else does not wait for the schedulers.
_MODULES = {
    "_explain": "Explanation explain",
    "_spelled": "spelled",
    "accumulation": "accumulate_grads",
    "amp": "GradScaler GradScalerState",
    "checkpoint": "load_state_dict state_dict",
    "clip_grad": "clip_by_grad_norm clip_by_grad_value clip_grad_norm clip_grad_value "
    "clip_grads_with_norm get_total_norm trained_grads",
    "contrib": "",
    "engine": "REST Optimizer add_param_group get_hyperparams param_groups set_hyperparams step "
    "transformation",
    "lr_scheduler": "",
    "numerics": "without_float64",
    "optim": "ASGD LBFGS SGD Adadelta Adafactor Adagrad Adam Adamax AdamW Muon NAdam RAdam RMSprop "
    "Rprop SparseAdam adadelta adafactor adagrad adam adamax adamw asgd lbfgs muon nadam radam "
    "rmsprop rprop sgd sparse_adam",
    "sharding": "state_shardings",
    "swa_utils": "",
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names.split()}
_PLACES |= {module: module for module in _MODULES if not module.startswith("_")}
__all__ = sorted(_PLACES)
# What needs Flax or torch, and is no part of ``import *`` therefore.
_PARTS = ("flax", "interop", "models", "verify")
# What torch's users write, and where it is here.
_TORCHS = {
    "backward": "jax.value_and_grad(loss) returns gradients",
    "no_grad": "gradients are calculated where jax.grad is called, and nowhere else",
    "zero_grad": "jax.grad returns gradients, and nothing is left of the last ones",
    "autocast": "the model casts: nnx.Linear(…, dtype=jnp.bfloat16); jp.GradScaler is here",
    "load": "jaxopt_port.interop.load(path) reads what torch and others have saved",
    "save": "jaxopt_port.interop.save(path, checkpoint)",
    "compile": "jax.jit(step)",
}


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _PLACES:
        words = _elsewhere(name)
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}" + (f": {words}" if words else "")
        )
    module = importlib.import_module(f".{_PLACES[name]}", __name__)
    found = module if _PLACES[name] == name else getattr(module, name)
    globals()[name] = found
    return found


def _elsewhere(name: str) -> str:
    if name.endswith("_") and name[:-1] in _PLACES:
        return f"arrays do not change in place here: jp.{name[:-1]} returns new ones"
    for module in ("lr_scheduler", "swa_utils") if name[:1].isupper() else ():
        if hasattr(importlib.import_module(f".{module}", __name__), name):
            return f"jp.{module}.{name}"
    if name in _TORCHS or name.startswith("_"):
        return _TORCHS.get(name, "")
    from .trees import nearest

    alike = [each for each in __all__ if each[:1].isupper() == name[:1].isupper()]
    return nearest(name, alike).removeprefix("; ")


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
