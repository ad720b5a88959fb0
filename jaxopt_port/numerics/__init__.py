"""Rounding: torch's primitives, and what makes any compilation of them give the same bits."""

from ._rounding import fma as fma
from ._rounding import uncontracted as uncontracted
