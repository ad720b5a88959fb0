"""What a scheduler is written with: numbers that are Python's or traced, and its groups."""

from ._arithmetic import RateError as RateError
from ._arithmetic import Value as Value
from ._arithmetic import extended as extended
from ._arithmetic import lift as lift
from ._arithmetic import raw as raw
from ._arithmetic import where as where
from ._groups import Groups as Groups
from ._plateau import metric_number as metric_number
from ._schedule import check_lengths as check_lengths
from ._schedule import of_each as of_each
from ._scheduler import EpochScheduler as EpochScheduler
from ._scheduler import takes_no_optimizer as takes_no_optimizer
from ._scheduler import whole as whole
from ._state import Own as Own
from ._state_dict import check_state_dict as check_state_dict
from ._state_dict import read_value as read_value
