"""The engine: lifts a rule for one leaf to Optax, with groups, hyperparameters and steps."""

from ._factory import transformation as transformation
from ._factory import whole_tree as whole_tree
from ._grouped import Grouped as Grouped
from ._groups import GroupedTransformation as GroupedTransformation
from ._groups import param_groups as param_groups
from ._hyperparams import get_hyperparams as get_hyperparams
from ._hyperparams import set_hyperparams as set_hyperparams
from ._leaf_states import leaf_states as leaf_states
from ._leaf_states import with_leaf_states as with_leaf_states
from ._paths import leaf_paths as leaf_paths
from ._regroup import add_param_group as add_param_group
from ._selectors import REST as REST
from ._step import step as step
from ._table import GroupsState as GroupsState
from ._transform import RuleState as RuleState
