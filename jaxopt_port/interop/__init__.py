"""Exchange with torch. torch itself is imported when a function here needs it, and not before."""

from ._params import params_from_torch as params_from_torch
from ._params import params_to_torch as params_to_torch
