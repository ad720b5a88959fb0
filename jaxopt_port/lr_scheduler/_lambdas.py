"""Schedulers that take the user's function of the epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from ._arithmetic import Traced, Value, raw
from ._functions import attributes_of, called, tabled
from ._groups import Groups, for_each
from ._messages import MORE_GROUPS
from ._scheduler import EpochScheduler
from ._state import Own

Lambda: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True)
class _OfLambda(EpochScheduler):
    lr_lambda: Lambda | Sequence[Lambda]
    last_epoch: int = -1
    total_steps: int | None = field(default=None, metadata={"torch": False})

    def _check(self) -> None:
        steps = self.total_steps
        if steps is not None and (not isinstance(steps, int) or steps <= 0):
            raise ValueError(f"Expected positive integer total_steps, but got {steps}")
        for function in for_each(self.lr_lambda, 1):
            if not callable(function):
                raise TypeError(
                    f"lr_lambda should be a function, but got {type(function).__name__}"
                )

    def _arguments(self, size: int) -> dict[str, Any]:
        return {
            "lr_lambdas": [attributes_of(function) for function in for_each(self.lr_lambda, size)]
        }

    def _called(self, function: Lambda, epoch: Value) -> Value:
        if self.total_steps is not None:
            return tabled(function, epoch, self.total_steps)
        remedy = f", or give {type(self).__name__} the length of the schedule as total_steps, and "
        remedy += "it is called beforehand for each epoch"
        return called(function, epoch, remedy)

    def _construct(self, groups: Groups) -> Own:
        given = len(for_each(self.lr_lambda, len(groups)))
        if given != len(groups):
            raise ValueError(
                f"Expected {len(groups)} lr_lambdas, but got {given}{groups.not_counted()}"
            )
        return super()._construct(groups)

    def _factors(self, own: Own) -> Value:
        """Return the function of the epoch of each group that there was at the beginning."""
        functions = for_each(self.lr_lambda, len(raw(own.base_lrs)))
        # Groups that have one function call it once.
        made = {id(function): self._called(function, own.last_epoch) for function in functions}
        factors = [made[id(function)] for function in functions]
        if any(isinstance(factor, Traced) for factor in factors):
            return Traced(jnp.stack([jnp.asarray(raw(factor), jnp.float64) for factor in factors]))
        return np.array(factors)


@dataclass(frozen=True)
class LambdaLR(_OfLambda):
    """Set the learning rate to its initial value times a function of the epoch.

    The counterpart of ``torch.optim.lr_scheduler.LambdaLR``.

    Args:
        lr_lambda: a function of the epoch, or one for each group. Under ``jit`` it is given a
            traced JAX integer, so there it must choose by ``jnp.where`` and not by ``if``, unless
            ``total_steps`` is given.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.
        total_steps: how many steps the schedule has. Then any function will do: under ``jit`` its
            factors are calculated beforehand, and are Python's to the bit. It may be stepped so
            many times; one step more raises, and under ``jit`` makes the learning rate NaN.

    Raises:
        ValueError: by `init`, another number of functions than there are groups.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.LambdaLR(lambda epoch: 0.5**epoch).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        return self._base_lrs(own, groups) * self._factors(own)

    def _check_loaded(self, own: Own, groups: Groups) -> None:
        """Warn where the function is another one: torch saves none, and so cannot tell."""
        if int(raw(own.last_epoch)) < 0:
            return  # set back, as YOLOv5 does: no rate is of that epoch
        saved, base = (np.asarray(raw(x), np.float64) for x in (own._last_lr, own.base_lrs))
        made = np.asarray(raw(self._factors(own)), np.float64) * base
        if made.shape == saved.shape and not np.allclose(made, saved, rtol=1e-6, atol=0.0):
            warnings.warn(
                f"the saved learning rates are {saved.tolist()}, and this schedule has "
                f"{made.tolist()} at epoch {int(raw(own.last_epoch))}: is it the one that was "
                "saved, with the same steps of warm-up and in all?",
                UserWarning,
                stacklevel=3,
            )


@dataclass(frozen=True)
class MultiplicativeLR(_OfLambda):
    """Multiply the learning rate by a function of the epoch, every epoch.

    The counterpart of ``torch.optim.lr_scheduler.MultiplicativeLR``.

    Args:
        lr_lambda: a function of the epoch, or one for each group. Under ``jit`` it is given a
            traced JAX integer, so there it must choose by ``jnp.where`` and not by ``if``, unless
            ``total_steps`` is given.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.
        total_steps: how many steps the schedule has. Then any function will do: under ``jit`` its
            factors are calculated beforehand, and are Python's to the bit. It may be stepped so
            many times; one step more raises, and under ``jit`` makes the learning rate NaN.

    Raises:
        TypeError: what is given is not callable.
        ValueError: by `init`, another number of functions than there are groups.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.MultiplicativeLR(lambda epoch: 0.5).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        if initial:
            return groups.lr
        groups.check_joined(len(raw(own.base_lrs)), MORE_GROUPS)
        return groups.lr * self._factors(own)
