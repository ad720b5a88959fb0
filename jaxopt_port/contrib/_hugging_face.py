"""The learning-rate schedules of Hugging Face's transformers, by its names.

Each is a ``jp.lr_scheduler.LambdaLR``, as theirs is torch's: a factor of the initial rate for each
step, with Python's bits also under ``jit``. Where theirs reads the rate of the optimizer, here it
is given.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

from ..lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from ..lr_scheduler.arithmetic import takes_no_optimizer
from ..trees import nearest
from ._looked_up import looked_up
from ._numbers import takes_numbers

_SHAPES = ("linear", "cosine", "1-sqrt")


def _scheduler(
    factor: Callable[[int], float],
    last: float,
    last_epoch: int,
    warmup: float = 0,
    constant: bool = True,
) -> LambdaLR:
    """Rise along a line, and follow a factor from there on."""

    def whole(step: int) -> float:
        return _warmed(step, warmup) if step < warmup else factor(step)

    return LambdaLR(looked_up(whole, max(last, 0), constant), last_epoch)


def _warmed(step: int, warmup: float) -> float:
    return float(step) / float(max(1, warmup))


def _progress(step: int, warmup: int, total: int) -> float:
    return float(step - warmup) / float(max(1, total - warmup))


def _one(step: Any) -> float:
    return 1.0


@takes_numbers
def get_constant_schedule(last_epoch: int = -1) -> LambdaLR:
    """Keep the initial rate: ``transformers.get_constant_schedule``."""
    return LambdaLR(_one, last_epoch)


@takes_numbers
def get_constant_schedule_with_warmup(num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """Rise to the initial rate and keep it: ``transformers.get_constant_schedule_with_warmup``."""
    return _scheduler(_one, num_warmup_steps, last_epoch, num_warmup_steps)


@takes_numbers
def get_linear_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """Rise, and fall to zero, along lines: ``transformers.get_linear_schedule_with_warmup``.

    Args:
        num_warmup_steps: steps to the initial rate.
        num_training_steps: steps to zero.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.

    Example:
        >>> from jaxopt_port.contrib import get_linear_schedule_with_warmup
        >>> schedule = get_linear_schedule_with_warmup(2, 6).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def factor(step: int) -> float:
        rest = float(num_training_steps - step)
        return max(0.0, rest / float(max(1, num_training_steps - num_warmup_steps)))

    last = max(num_training_steps, num_warmup_steps)
    return _scheduler(factor, last, last_epoch, num_warmup_steps)


@takes_numbers
def get_cosine_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5, last_epoch: int = -1
) -> LambdaLR:
    """Rise, and fall along a cosine: ``transformers.get_cosine_schedule_with_warmup``.

    Args:
        num_warmup_steps: steps to the initial rate.
        num_training_steps: steps of the rise and of all waves.
        num_cycles: waves; a half falls to zero.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.
    """
    return get_cosine_with_min_lr_schedule_with_warmup(
        num_warmup_steps, num_training_steps, num_cycles, last_epoch, min_lr_rate=0.0
    )


@takes_numbers
def get_cosine_with_hard_restarts_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> LambdaLR:
    """Rise, and fall along a cosine again and again, to zero at the end.

    ``transformers.get_cosine_with_hard_restarts_schedule_with_warmup``, by its arguments.
    """

    def factor(step: int) -> float:
        progress = _progress(step, num_warmup_steps, num_training_steps)
        if progress >= 1.0:
            return 0.0
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((float(num_cycles) * progress) % 1.0))))

    # Where there is nothing between them, it is zero one step after the rise.
    last = max(num_training_steps, num_warmup_steps) + 1
    return _scheduler(factor, last, last_epoch, num_warmup_steps)


@takes_numbers
def get_polynomial_decay_schedule_with_warmup(
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
    *,
    lr_init: float,
) -> LambdaLR:
    """Rise, and fall to ``lr_end`` by a power of what remains.

    ``transformers.get_polynomial_decay_schedule_with_warmup``; ``lr_init`` is the ``lr`` that the
    optimizer is made with, of all groups.

    Raises:
        ValueError: ``lr_end`` is not below ``lr_init``.
    """
    if not lr_init > lr_end:
        raise ValueError(f"lr_end ({lr_end}) must be smaller than initial lr ({lr_init})")

    def factor(step: int) -> float:
        if step > num_training_steps:
            return lr_end / lr_init
        remaining = 1 - (step - num_warmup_steps) / (num_training_steps - num_warmup_steps)
        return float(((lr_init - lr_end) * remaining**power + lr_end) / lr_init)

    last = max(num_training_steps, num_warmup_steps) + 1
    return _scheduler(factor, last, last_epoch, num_warmup_steps)


@takes_numbers
def get_inverse_sqrt_schedule(
    num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LambdaLR:
    """Rise, and fall with the root of the step: ``transformers.get_inverse_sqrt_schedule``.

    Args:
        num_warmup_steps: steps to the initial rate.
        timescale: by default the same, or 10,000 where that is 0.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.
    """
    scale = num_warmup_steps or 10_000 if timescale is None else timescale

    def factor(step: int) -> float:
        return 1.0 / math.sqrt((step + (scale - num_warmup_steps)) / scale)

    return _scheduler(factor, 1 << 16, last_epoch, num_warmup_steps, constant=False)


def _least_rate(min_lr: float | None, min_lr_rate: float | None, lr_init: float | None) -> float:
    if min_lr is not None and min_lr_rate is not None:
        raise ValueError("Only one of min_lr or min_lr_rate should be set")
    if min_lr is not None:
        if lr_init is None:
            raise ValueError("min_lr is a part of the initial rate: give lr_init too")
        return min_lr / lr_init
    if min_lr_rate is None:
        raise ValueError(
            "One of min_lr or min_lr_rate should be set through the `lr_scheduler_kwargs`"
        )
    return min_lr_rate


@takes_numbers
def get_cosine_with_min_lr_schedule_with_warmup(
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    *,
    lr_init: float | None = None,
) -> LambdaLR:
    """Rise, and fall along a cosine to a least rate.

    ``transformers.get_cosine_with_min_lr_schedule_with_warmup``, by its arguments; ``lr_init``, of
    which ``min_lr`` is a part, is the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: not one of ``min_lr`` and ``min_lr_rate``, or the first without ``lr_init``.
    """
    least = _least_rate(min_lr, min_lr_rate, lr_init)

    def factor(step: int) -> float:
        progress = _progress(step, num_warmup_steps, num_training_steps)
        wave = 0.5 * (1.0 + math.cos(math.pi * float(num_cycles) * 2.0 * progress))
        return max(0, wave * (1 - least) + least)

    return _scheduler(factor, num_training_steps, last_epoch, num_warmup_steps, constant=False)


@takes_numbers
def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
    *,
    lr_init: float | None = None,
) -> LambdaLR:
    """The same from a least rate on, a step further.

    ``transformers.get_cosine_with_min_lr_schedule_with_warmup_lr_rate``, by its arguments.

    Raises:
        ValueError: not one of ``min_lr`` and ``min_lr_rate``, or the first without ``lr_init``.
    """
    least = _least_rate(min_lr, min_lr_rate, lr_init)
    warmup, total = float(num_warmup_steps), float(num_training_steps)

    def factor(step: int) -> float:
        if step < warmup:
            if warmup_lr_rate is None:
                return (step + 1.0) / max(1.0, warmup)
            first = float(warmup_lr_rate)
            return first + (1.0 - first) * float(step) / max(1, warmup - 1)
        progress = (step - warmup + 1.0) / max(1.0, total - warmup)
        wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * progress))
        return max(0, wave * (1 - least) + least)

    return _scheduler(factor, num_training_steps, last_epoch, constant=False)


@takes_numbers
def get_wsd_schedule(
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """Rise, stay, and fall: ``transformers.get_wsd_schedule``, by its arguments.

    Raises:
        ValueError: neither ``num_training_steps`` nor ``num_stable_steps``, or an unknown type.
    """
    if num_training_steps is None and num_stable_steps is None:
        raise ValueError("Either num_training_steps or num_stable_steps must be specified.")
    if num_training_steps is not None and num_stable_steps is not None:
        warnings.warn(
            "Both num_training_steps and num_stable_steps are specified. num_stable_steps will be "
            "used.",
            stacklevel=2,
        )
    for kind, given in (("warmup", warmup_type), ("decay", decay_type)):
        if given not in _SHAPES:
            raise ValueError(
                f"Unknown {kind} type: {given}, expected 'linear', 'cosine' or '1-sqrt'"
            )
    stable = num_stable_steps
    if stable is None:
        assert num_training_steps is not None
        stable = num_training_steps - num_warmup_steps - num_decay_steps
    rise: dict[str, Callable[[float], float]] = {
        "linear": lambda progress: progress,
        "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
        "1-sqrt": lambda progress: 1.0 - math.sqrt(1.0 - progress),
    }
    fall: dict[str, Callable[[float], float]] = {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: (
            0.5 * (1.0 + math.cos(math.pi * float(num_cycles) * 2.0 * progress))
        ),
        "1-sqrt": lambda progress: 1.0 - math.sqrt(progress),
    }

    def factor(step: int) -> float:
        since = step - num_warmup_steps - stable
        if step < num_warmup_steps:
            part = rise[warmup_type](_warmed(step, num_warmup_steps))
        elif since < 0:
            return 1.0
        elif since < num_decay_steps:
            part = fall[decay_type](_warmed(since, num_decay_steps))
        else:
            return min_lr_ratio
        return max(0.0, part * (1.0 - min_lr_ratio) + min_lr_ratio)

    # A step more: of fractions, the sum may be rounded down.
    return _scheduler(factor, num_warmup_steps + max(stable, 0) + num_decay_steps + 1, last_epoch)


_PLAIN: dict[str, Any] = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "cosine_with_restarts": get_cosine_with_hard_restarts_schedule_with_warmup,
    "polynomial": get_polynomial_decay_schedule_with_warmup,
    "cosine_with_min_lr": get_cosine_with_min_lr_schedule_with_warmup,
    "cosine_warmup_with_min_lr": get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
}
_OTHERS: dict[str, Any] = {
    "constant": get_constant_schedule,
    "constant_with_warmup": get_constant_schedule_with_warmup,
    "inverse_sqrt": get_inverse_sqrt_schedule,
    "reduce_lr_on_plateau": ReduceLROnPlateau,
    "warmup_stable_decay": get_wsd_schedule,
}


@takes_no_optimizer
def get_scheduler(
    name: str,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
    *,
    lr_init: float | None = None,
) -> LRScheduler:
    """Return a schedule by Hugging Face's name: ``transformers.get_scheduler``.

    Args:
        name: ``"linear"``, ``"cosine"``, ``"warmup_stable_decay"``, …; an enum of such will do.
        num_warmup_steps: needed by all but ``"constant"`` and ``"reduce_lr_on_plateau"``.
        num_training_steps: needed by most.
        scheduler_specific_kwargs: more arguments of the function of that name.
        lr_init: the ``lr`` that the optimizer is made with, where a schedule needs it
            (``"polynomial"``, and ``min_lr``).

    Returns:
        A scheduler of ``jp.lr_scheduler``.

    Raises:
        ValueError: an unknown name, or a number that it needs and has not.

    Example:
        >>> from jaxopt_port.contrib import get_scheduler
        >>> schedule = get_scheduler("cosine", 2, 6).as_schedule(1.0)
        >>> [round(float(schedule(count)), 3) for count in range(7)]
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    name = getattr(name, "value", name)
    makes = {**_PLAIN, **_OTHERS}
    if name not in makes:
        raise ValueError(f"{name!r} is not a valid scheduler; there are {', '.join(makes)}")
    if not isinstance(scheduler_specific_kwargs or {}, dict):
        raise TypeError(
            f"scheduler_specific_kwargs must be a dict; got {scheduler_specific_kwargs!r}"
        )
    more = dict(scheduler_specific_kwargs or {})
    known = list(inspect.signature(makes[name]).parameters)
    for key in more:
        if key not in known:
            raise TypeError(
                f"{name} has no argument {key!r} for scheduler_specific_kwargs{nearest(key, known)}"
            )
    if name == "constant":
        return get_constant_schedule()
    if name == "reduce_lr_on_plateau":
        return ReduceLROnPlateau(**more)
    if num_warmup_steps is None:
        raise ValueError(f"{name} requires `num_warmup_steps`, please provide that argument.")
    if name == "constant_with_warmup":
        return get_constant_schedule_with_warmup(num_warmup_steps)
    if name == "inverse_sqrt":
        return get_inverse_sqrt_schedule(num_warmup_steps, **more)
    if name == "warmup_stable_decay":
        if "num_decay_steps" not in more:
            raise ValueError(
                f"{name} requires `num_decay_steps`, please provide it in"
                " scheduler_specific_kwargs."
            )
        return get_wsd_schedule(num_warmup_steps, num_training_steps=num_training_steps, **more)
    if num_training_steps is None:
        raise ValueError(f"{name} requires `num_training_steps`, please provide that argument.")
    make = _PLAIN[name]
    if name == "polynomial" or more.get("min_lr") is not None:
        if lr_init is None:
            raise ValueError(f"{name} requires the optimizer's `lr`, please provide it as lr_init.")
        make = functools.partial(make, lr_init=lr_init)
    made: LRScheduler = make(num_warmup_steps, num_training_steps, **more)
    return made
