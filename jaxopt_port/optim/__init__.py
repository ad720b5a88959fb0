"""torch's optimizers, one file each: the arithmetic, the function, the class."""

from collections.abc import Mapping
from typing import Any

from ..engine import Optimizer

# For jaxopt_port.contrib, whose rules decay and check as torch's do.
from . import _decay as decay  # noqa: F401
from . import _moments as moments  # noqa: F401
from . import _momentum as momentums  # noqa: F401
from . import _ranges as ranges  # noqa: F401
from ._adadelta import Adadelta as Adadelta
from ._adadelta import adadelta as adadelta
from ._adafactor import Adafactor as Adafactor
from ._adafactor import adafactor as adafactor
from ._adagrad import Adagrad as Adagrad
from ._adagrad import adagrad as adagrad
from ._adam import Adam as Adam
from ._adam import adam as adam
from ._adamax import Adamax as Adamax
from ._adamax import adamax as adamax
from ._adamw import AdamW as AdamW
from ._adamw import adamw as adamw
from ._asgd import ASGD as ASGD
from ._asgd import asgd as asgd
from ._lbfgs import LBFGS as LBFGS
from ._lbfgs import LBFGSState as LBFGSState
from ._lbfgs import history_from as history_from
from ._lbfgs import lbfgs as lbfgs
from ._lbfgs import oldest_first as oldest_first
from ._muon import Muon as Muon
from ._muon import muon as muon
from ._nadam import NAdam as NAdam
from ._nadam import nadam as nadam
from ._radam import RAdam as RAdam
from ._radam import radam as radam
from ._rmsprop import RMSprop as RMSprop
from ._rmsprop import rmsprop as rmsprop
from ._rprop import Rprop as Rprop
from ._rprop import rprop as rprop
from ._sgd import SGD as SGD
from ._sgd import sgd as sgd
from ._sparse_adam import SparseAdam as SparseAdam
from ._sparse_adam import sparse_adam as sparse_adam

_CLASSES: tuple[type[Optimizer], ...] = (
    Adadelta, Adafactor, Adagrad, Adam, Adamax, AdamW, ASGD, LBFGS, Muon, NAdam, RAdam, RMSprop,
    Rprop, SGD, SparseAdam,
)  # fmt: skip
# By torch's name.
OPTIMIZERS: Mapping[str, type[Optimizer]] = {cls.__name__: cls for cls in _CLASSES}


def class_of(factory: Any) -> type[Optimizer] | None:
    """Return the class whose groups a factory makes; None for one that is none of torch's."""
    return next((cls for cls in _CLASSES if cls.factory is factory), None)
