"""Rounding: torch's primitives, numbers in float64, distances, and what keeps any bits the same."""

from ._distances import is_exact as is_exact
from ._distances import max_abs as max_abs
from ._distances import ordered as ordered
from ._distances import relative as relative
from ._distances import relative_norm as relative_norm
from ._distances import ulps as ulps
from ._float64 import Float64 as Float64
from ._float64 import decoded as decoded
from ._float64 import encoded as encoded
from ._float64 import entries as entries
from ._float64 import own_value as own_value
from ._order import later as later
from ._rounding import fma as fma
from ._rounding import uncontracted as uncontracted
from ._without_float64 import without_float64 as without_float64
