"""Learning-rate schedulers: torch's ``torch.optim.lr_scheduler``, as pure functions of states.

A scheduler holds torch's arguments and nothing else. ``init`` takes the state of a grouped
optimizer and returns it with the scheduler's own state; ``step`` takes and returns both, eagerly,
under ``jit`` and inside ``scan``.
"""

from ._composites import ChainedScheduler as ChainedScheduler
from ._composites import SequentialLR as SequentialLR
from ._cosine import CosineAnnealingLR as CosineAnnealingLR
from ._cosine import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from ._cyclic import CyclicLR as CyclicLR
from ._decays import ConstantLR as ConstantLR
from ._decays import ExponentialLR as ExponentialLR
from ._decays import LinearLR as LinearLR
from ._decays import MultiStepLR as MultiStepLR
from ._decays import PolynomialLR as PolynomialLR
from ._decays import StepLR as StepLR
from ._lambdas import LambdaLR as LambdaLR
from ._lambdas import MultiplicativeLR as MultiplicativeLR
from ._one_cycle import OneCycleLR as OneCycleLR
from ._plateau import ReduceLROnPlateau as ReduceLROnPlateau
from ._scheduler import LRScheduler as LRScheduler
from ._state import SchedulerState as SchedulerState
from ._swa import SWALR as SWALR

# By torch's name.
SCHEDULERS: dict[str, type[LRScheduler]] = {
    name: value
    for name, value in sorted(globals().items())
    if name[0].isupper() and issubclass(value, LRScheduler) and value is not LRScheduler
}
