"""Update rules: one file each, arrays in and arrays out, in torch's order of operations."""

from ._rule import LeafState as LeafState
from ._rule import Options as Options
from ._rule import Problem as Problem
from ._rule import Rule as Rule
from ._rule import Sum as Sum
from ._sgd import rule as sgd
