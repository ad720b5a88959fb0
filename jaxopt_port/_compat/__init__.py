"""What rests on parts of JAX, Optax and Flax that they do not promise, each with a canary.

``parity_tests/project/test_compat.py`` fails by the name of the assumption that no longer holds.
"""

from ._axes import AxisName as AxisName
from ._axes import check_whole as check_whole
from ._axes import split_over as split_over
from ._axes import varying_alike as varying_alike
from ._axes import varying_axes as varying_axes
from ._branches import moved as moved
from ._branches import tagged as tagged
from ._branches import through_branches as through_branches
from ._constants import current_trace as current_trace
from ._constants import known_number as known_number
from ._devices import beside as beside
from ._devices import stacked as stacked
from ._explicit import as_laid_out as as_laid_out
from ._explicit import as_users_axes as as_users_axes
from ._explicit import laid_out_as as laid_out_as
from ._explicit import on_explicit_mesh as on_explicit_mesh
from ._explicit import on_mesh_of as on_mesh_of
from ._forms import Forms as Forms
from ._forms import alternative as alternative
from ._forms import devices_of as devices_of
from ._forms import whole_on_each as whole_on_each
from ._indices import with_narrow_indices as with_narrow_indices
from ._mixing import mixes_elements as mixes_elements
from ._pure import as_pure as as_pure
from ._scans import carried_by as carried_by
