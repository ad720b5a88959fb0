"""The state of a grouped optimizer as torch's state dict, and back."""

from ._late_options import LATE as LATE
from ._late_options import with_late_options as with_late_options
from ._loading import ELSEWHERE as ELSEWHERE
from ._loading import load_state_dict as load_state_dict
from ._state_dict import state_dict as state_dict
from ._structure import StateDict as StateDict
from ._structure import check_structure as check_structure
