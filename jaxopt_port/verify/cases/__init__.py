"""The tutorial's recipes as cases of `verify.compare`: LeNet on handwritten digits.

It needs torch, Flax and scikit-learn: ``pip install 'jaxopt-port[verify]'``.
"""

from ._digits import Digits as Digits
from ._digits import batches as batches
from ._digits import load_digits as load_digits
from ._recipes import ALL_RECIPES as ALL_RECIPES
from ._recipes import LOOP_RECIPES as LOOP_RECIPES
from ._recipes import RECIPES as RECIPES
from ._run import Run as Run
from ._run import one_thread as one_thread
from ._run import run as run
from ._sides import TorchSchedulers as TorchSchedulers
from ._sides import make_net as make_net
from ._sides import network as network
from ._table import render as render
from ._torch_lenet import Net as Net
