"""Quasi-Newton methods: whole-tree algorithms that evaluate the objective themselves."""

from ._history import History as History
from ._history import history_from as history_from
from ._history import oldest_first as oldest_first
from ._lbfgs import lbfgs as lbfgs
from ._minimize import LBFGSState as LBFGSState
