"""The tutorial's recipes: LeNet on handwritten digits, in torch and here, compared stage by stage.

It needs torch, Flax and scikit-learn: ``pip install 'jaxopt-port[verify]'``.
"""

from ._digits import Digits as Digits
from ._digits import load_digits as load_digits
from ._recipes import ALL_RECIPES as ALL_RECIPES
from ._recipes import LOOP_RECIPES as LOOP_RECIPES
from ._recipes import RECIPES as RECIPES
from ._results import Failure as Failure
from ._results import RecipeResult as RecipeResult
from ._results import Report as Report
from ._run import run as run
from ._table import render as render
