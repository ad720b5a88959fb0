"""Trees of parameters and gradients: paths, selectors of them, what fits what, nearest names."""

from ._gradients import SPLIT as SPLIT
from ._gradients import check_given as check_given
from ._gradients import check_params as check_params
from ._gradients import checked_gradients as checked_gradients
from ._gradients import to_array as to_array
from ._paths import common_end as common_end
from ._paths import ending_alike as ending_alike
from ._paths import is_nnx_variable as is_nnx_variable
from ._paths import leaf_paths as leaf_paths
from ._paths import leaves_up_to as leaves_up_to
from ._paths import listed as listed
from ._paths import nearest as nearest
from ._paths import raise_if as raise_if
from ._paths import statistics_paths as statistics_paths
from ._selectors import REST as REST
from ._selectors import Selector as Selector
from ._selectors import check_selector as check_selector
from ._selectors import describe as describe
from ._selectors import in_no_group as in_no_group
from ._selectors import is_boolean_tree as is_boolean_tree
from ._selectors import resolve as resolve
from ._selectors import users_level as users_level
