"""Update rules: one file each, arrays in and arrays out, in torch's order of operations."""

from . import (
    _adadelta,
    _adafactor,
    _adagrad,
    _adam,
    _adamax,
    _asgd,
    _muon,
    _nadam,
    _radam,
    _rmsprop,
    _rprop,
    _sgd,
    _sparse_adam,
)
from ._rule import LeafState as LeafState
from ._rule import Problem as Problem
from ._rule import Rows as Rows
from ._rule import Rule as Rule
from ._rule import Scalars as Scalars
from ._rule import Shared as Shared
from ._rule import Sum as Sum

adadelta = _adadelta.rule
adafactor = _adafactor.rule
adagrad = _adagrad.rule
adam = _adam.rule
adamax = _adamax.rule
adamw = _adam.decoupled_rule
asgd = _asgd.rule
muon = _muon.rule
nadam = _nadam.rule
radam = _radam.rule
rmsprop = _rmsprop.rule
rprop = _rprop.rule
sgd = _sgd.rule
sparse_adam = _sparse_adam.rule
