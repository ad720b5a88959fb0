"""Schedulers whose step multiplies the current learning rate by a factor of the epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ._arithmetic import Value, bisect_right, entry, looked_up, minimum, where
from ._groups import Groups
from ._scheduler import EpochScheduler
from ._state import Own


@dataclass(frozen=True)
class StepLR(EpochScheduler):
    """Multiply the learning rate by ``gamma`` every ``step_size`` epochs.

    The counterpart of ``torch.optim.lr_scheduler.StepLR``.

    Args:
        step_size: epochs between changes.
        gamma: factor of each.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"weight": jnp.ones(3)}
        >>> tx = jp.SGD(lr=0.5)
        >>> scheduler = jp.lr_scheduler.StepLR(step_size=2, gamma=0.5)
        >>> state, sched_state = scheduler.init(tx.init(params))
        >>> for epoch in range(4):
        ...     params, state = jp.step(tx, {"weight": jnp.ones(3)}, state, params)
        ...     state, sched_state = scheduler.step(state, sched_state)
        ...     print(scheduler.get_last_lr(sched_state))
        [0.5]
        [0.25]
        [0.25]
        [0.125]
    """

    step_size: int
    gamma: float = 0.1
    last_epoch: int = -1

    def _check(self) -> None:
        if self.step_size == 0:
            raise ValueError("step_size must not be 0")

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"step_size": self.step_size, "gamma": self.gamma}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        kept = (own.last_epoch == 0) | (own.last_epoch % self.step_size != 0)
        return where(kept, groups.lr, lambda: groups.lr * self.gamma)

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        return self._base_lrs(own, groups) * self.gamma ** (own.last_epoch // self.step_size)


@dataclass(frozen=True)
class MultiStepLR(EpochScheduler):
    """Multiply the learning rate by ``gamma`` at each milestone.

    The counterpart of ``torch.optim.lr_scheduler.MultiStepLR``.

    Args:
        milestones: epochs; one that is given twice counts twice.
        gamma: factor of each.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Example:
        >>> import jaxopt_port as jp
        >>> jp.lr_scheduler.MultiStepLR([30, 80], gamma=0.1)
        MultiStepLR(milestones=(30, 80), gamma=0.1, last_epoch=-1)
    """

    milestones: Iterable[int]
    gamma: float = 0.1
    last_epoch: int = -1

    def __post_init__(self) -> None:
        given: Any = self.milestones
        epochs = tuple(given) if isinstance(given, Iterable) else (None,)
        if not all(isinstance(epoch, Real) for epoch in epochs):
            raise TypeError(f"milestones must be a list of epochs; got {given!r}")
        object.__setattr__(self, "milestones", epochs)
        super().__post_init__()

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"milestones": Counter(self.milestones), "gamma": self.gamma}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        factors = {m: self.gamma**count for m, count in Counter(self.milestones).items()}
        if not factors:
            return groups.lr
        # A factor of 1 changes nothing.
        return groups.lr * looked_up(factors, own.last_epoch, 1.0)

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        milestones = sorted(self.milestones)
        powers = [self.gamma**k for k in range(len(milestones) + 1)]
        passed = bisect_right(milestones, own.last_epoch)
        return self._base_lrs(own, groups) * entry(powers, passed)


@dataclass(frozen=True)
class ConstantLR(EpochScheduler):
    """Multiply the learning rate by ``factor``, until ``total_iters`` epochs have passed.

    The counterpart of ``torch.optim.lr_scheduler.ConstantLR``.

    Args:
        factor: between 0 and 1.
        total_iters: the epoch at which the learning rate is divided by ``factor`` again.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Raises:
        ValueError: ``factor`` out of range.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> scheduler = jp.lr_scheduler.ConstantLR(factor=0.5, total_iters=4)
        >>> state, _ = scheduler.init(jp.SGD(lr=0.1).init({"weight": jnp.ones(3)}))
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.05
    """

    factor: float = 1.0 / 3
    total_iters: int = 5
    last_epoch: int = -1

    def _check(self) -> None:
        if self.factor > 1.0 or self.factor < 0:
            raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"factor": self.factor, "total_iters": self.total_iters}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        def later() -> Value:
            # A product with 1 changes nothing.
            return groups.lr * (1.0 / where(own.last_epoch == self.total_iters, self.factor, 1.0))

        return where(own.last_epoch == 0, lambda: groups.lr * self.factor, later)

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        more = where(own.last_epoch >= self.total_iters, 1 - self.factor, 0.0)
        return self._base_lrs(own, groups) * (self.factor + more)


@dataclass(frozen=True)
class LinearLR(EpochScheduler):
    """Change the factor of the learning rate linearly, over ``total_iters`` epochs.

    The counterpart of ``torch.optim.lr_scheduler.LinearLR``.

    Args:
        start_factor: in the first epoch, above 0 and at most 1.
        end_factor: at the end, between 0 and 1.
        total_iters: epochs it takes.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Raises:
        ValueError: a factor out of range.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> scheduler = jp.lr_scheduler.LinearLR(start_factor=0.5, total_iters=4)
        >>> state, _ = scheduler.init(jp.SGD(lr=0.1).init({"weight": jnp.ones(3)}))
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.05
    """

    start_factor: float = 1.0 / 3
    end_factor: float = 1.0
    total_iters: int = 5
    last_epoch: int = -1

    def _check(self) -> None:
        if self.start_factor > 1.0 or self.start_factor <= 0:
            raise ValueError(
                "Starting multiplicative factor expected to be greater than 0 and less or equal to "
                "1."
            )
        if self.end_factor > 1.0 or self.end_factor < 0:
            raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")

    def _arguments(self, size: int) -> dict[str, Any]:
        return {
            "start_factor": self.start_factor,
            "end_factor": self.end_factor,
            "total_iters": self.total_iters,
        }

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        def later() -> Value:
            rise = self.end_factor - self.start_factor
            passed = self.total_iters * self.start_factor + (own.last_epoch - 1) * rise
            return groups.lr * (1.0 + rise / passed)

        return where(
            own.last_epoch == 0,
            lambda: groups.lr * self.start_factor,
            lambda: where(initial | (own.last_epoch > self.total_iters), groups.lr, later),
        )

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        rise = (self.end_factor - self.start_factor) * minimum(self.total_iters, own.last_epoch)
        return self._base_lrs(own, groups) * (self.start_factor + rise / self.total_iters)


@dataclass(frozen=True)
class ExponentialLR(EpochScheduler):
    """Multiply the learning rate by ``gamma`` every epoch.

    The counterpart of ``torch.optim.lr_scheduler.ExponentialLR``.

    Args:
        gamma: the factor.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.ExponentialLR(gamma=0.5).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """

    gamma: float
    last_epoch: int = -1

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"gamma": self.gamma}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        return groups.lr if initial else groups.lr * self.gamma

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        return self._base_lrs(own, groups) * self.gamma**own.last_epoch


@dataclass(frozen=True)
class PolynomialLR(EpochScheduler):
    """Let the learning rate fall to zero as a power of the epochs left of ``total_iters``.

    The counterpart of ``torch.optim.lr_scheduler.PolynomialLR``.

    Args:
        total_iters: epochs it takes.
        power: 1 for a straight line.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.PolynomialLR(total_iters=4).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    total_iters: int = 5
    power: float = 1.0
    last_epoch: int = -1

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"total_iters": self.total_iters, "power": self.power}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        def later() -> Value:
            left = 1.0 - own.last_epoch / self.total_iters
            before = 1.0 - (own.last_epoch - 1) / self.total_iters
            return groups.lr * (left / before) ** self.power

        return where(initial | (own.last_epoch > self.total_iters), groups.lr, later)

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        left = 1.0 - minimum(self.total_iters, own.last_epoch) / self.total_iters
        return self._base_lrs(own, groups) * left**self.power
