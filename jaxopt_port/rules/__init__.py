"""Update rules: one file each, arrays in and arrays out, in torch's order of operations."""

from . import _sgd
from ._rule import LeafState as LeafState
from ._rule import Problem as Problem
from ._rule import Rule as Rule
from ._rule import Sum as Sum

sgd = _sgd.rule
