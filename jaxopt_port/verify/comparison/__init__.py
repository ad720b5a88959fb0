"""Compares training on both sides, stage by stage."""

from ._compare import compare as compare
from ._distances import distance_of as distance_of
from ._environment import environment as environment
from ._jax_side import JaxSide as JaxSide
from ._names import Names as Names
from ._replay import replay as replay
from ._sides import applied as applied
from ._sides import equinox_side as equinox_side
from ._sides import linen_side as linen_side
from ._sides import nnx_side as nnx_side
from ._stepper import Stepper as Stepper
from ._watched import Step as Step
