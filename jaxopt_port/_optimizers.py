"""The optimizers, in both spellings."""

from . import rules
from .engine import Grouped, transformation

sgd = transformation(rules.sgd)
SGD = Grouped("SGD", sgd)
