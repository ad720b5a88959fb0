"""L-BFGS: a whole-tree algorithm that evaluates the objective itself."""

from ._history import History as History
from ._history import history_from as history_from
from ._history import oldest_first as oldest_first
from ._minimize import LBFGSState as LBFGSState
from ._optimizer import LBFGS as LBFGS
from ._optimizer import lbfgs as lbfgs
