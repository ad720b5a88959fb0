"""Names the way in which a port differs from torch: NumPy only."""

from ._arrays import explain_buffers as explain_buffers
from ._arrays import explain_gradient as explain_gradient
from ._arrays import explain_output as explain_output
from ._arrays import explain_parameters as explain_parameters
from ._arrays import multiple as multiple
from ._averages import explain_averages as explain_averages
from ._averages import step_too_early as step_too_early
from ._calls import Way as Way
from ._causes import CAUSES as CAUSES
from ._clipping import explain_clipping as explain_clipping
from ._data import explain_data as explain_data
from ._layouts import explain_forward as explain_forward
from ._layouts import narrow_forward as narrow_forward
from ._layouts import of_layers as of_layers
from ._losses import explain_loss as explain_loss
from ._numbers import explain_state_dtype as explain_state_dtype
from ._other_optimizers import of_another_class as of_another_class
from ._schedule_shapes import ANOTHER as ANOTHER
from ._schedules import explain_hyperparameter as explain_hyperparameter
from ._torch_calls import explain_by_calls as explain_by_calls
from ._update import explain_update as explain_update
from ._update import explain_updates as explain_updates
from ._update_history import Steps as Steps
from ._update_history import UpdateHistory as UpdateHistory
from ._ways import settings_of as settings_of
