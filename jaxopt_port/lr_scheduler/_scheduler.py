"""What all schedulers share: torch's ``LRScheduler``, without the optimizer inside it."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec, Self, SupportsFloat, TypeVar

import jax
import numpy as np

from ..engine import grouped_states
from ..numerics import decoded
from ._arithmetic import Traced, Value, is_traced, lift, raw
from ._groups import ENTRIES, Groups, Written, entries_of
from ._messages import EPOCH_DEPRECATION, FEWER_RATES, NO_INITIAL_LR, STEP_ORDER
from ._schedule import as_schedule
from ._state import Own, SchedulerState, copied, decode, decode_value, encode, encode_entries
from ._state_dict import loaded, state_dict

P = ParamSpec("P")
R = TypeVar("R")
State = TypeVar("State")

# Annotations of arguments that are one number, and what is none.
_NUMBERS = ("int", "float")
_NO_NUMBERS = (str, bytes, tuple, dict, set, type(None))


def check_no_optimizer(name: str, arguments: Iterable[Any]) -> None:
    """Raise TypeError where torch's optimizer, or ours, is among the arguments of a scheduler."""
    if any(map(_is_optimizer, arguments)):
        raise TypeError(
            f"{name} takes no optimizer here, but its own arguments alone: scheduler = {name}(…), "
            "then state, own = scheduler.init(tx.init(params)), and state, own = "
            "scheduler.step(state, own) for scheduler.step()"
        )


def takes_no_optimizer(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that makes a scheduler say so, where it is given torch's first argument."""

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        check_no_optimizer(function.__name__, (*args, *kwargs.values()))
        return function(*args, **kwargs)

    return made


class LRScheduler:
    """Base of all schedulers: arguments, and pure functions of states.

    Subclasses are frozen dataclasses of torch's arguments. Their methods with a leading underscore
    are torch's of the same purpose, on the attributes of torch's object (`Own`) and the groups.
    """

    last_epoch: int
    entries: ClassVar[tuple[str, ...]] = ENTRIES
    # Whether it can be a part of another scheduler, which steps it by the count alone.
    composable: ClassVar[bool] = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_no_optimizer(cls.__name__, (*args, *kwargs.values()))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        odd = None
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            given = getattr(self, field.name)
            if isinstance(given, LRScheduler):
                raise TypeError(
                    f"{field.name} of {type(self).__name__} must be a list; got {given!r}"
                )
            value = _held(given)
            if hasattr(given, "tolist") and str(field.type).startswith("Sequence"):
                value = value if isinstance(value, tuple) else (value,)
            object.__setattr__(self, field.name, value)
            if field.type in _NUMBERS and (callable(value) or isinstance(value, _NO_NUMBERS)):
                odd = odd or TypeError(
                    f"{field.name} of {type(self).__name__} must be a number; got {value!r}"
                )
        try:
            self._check()  # in torch's words, where it has some
        except TypeError as error:
            raise odd or error from None
        if odd is not None:
            raise odd

    # ── public ─────────────────────────────────────────────────────────────────────────────────

    def init(
        self, state: State, param_groups: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[State, SchedulerState]:
        """Begin: what torch does when the scheduler is made for an optimizer.

        Several schedulers change the learning rate here, and some the momentum.

        Args:
            state: the state of a grouped optimizer, bare or within other Optax states.
            param_groups: for a second scheduler of the same optimizer, or one that resumes
                (``last_epoch`` >= 0), what torch's schedulers leave in ``optimizer.param_groups``
                (``"initial_lr"``, …): a dict for each group that is not frozen, as
                `param_groups` of an earlier scheduler returns them or as torch's
                ``optimizer.state_dict()`` holds them. Other entries are ignored.

        Returns:
            The optimizer's state and the scheduler's.

        Raises:
            ValueError: a list of another length than there are groups (frozen ones not counted),
                or an optimizer whose numbers cannot be set as the scheduler must.
            KeyError: ``last_epoch`` >= 0 without ``"initial_lr"``.
        """
        written = Written(state)
        traced = written.traced
        with jax.enable_x64(True), np.errstate(all="ignore"):
            groups = written.groups({}, traced)
            groups.entries = written.entries() | entries_of(param_groups, groups)
            groups.stepped = None
            own = self._construct(groups)
            return written.state(groups, first=True), self._encoded(own, groups)

    def get_last_lr(self, sched_state: SchedulerState) -> list[float]:
        """Return the learning rate of each group that the scheduler set last; traced in `jit`."""
        self._check_state(sched_state)
        return _listed(sched_state.values["_last_lr"])

    def param_groups(self, sched_state: SchedulerState) -> list[dict[str, float]]:
        """Return what torch's schedulers keep in ``optimizer.param_groups``, for each group.

        A group that has joined since the scheduler began has no entries.

        Where both states go to torch as state dicts, the optimizer's groups need these entries too:
        ``OneCycleLR`` reads them at every step.
        """
        self._check_state(sched_state)
        columns = {name: _listed(parts) for name, parts in sched_state.param_groups.items()}
        size = len(sched_state.values["_last_lr"])
        return [
            {name: column[i] for name, column in columns.items() if i < len(column)}
            for i in range(size)
        ]

    def state_dict(self, sched_state: SchedulerState) -> dict[str, Any]:
        """Return torch's ``scheduler.state_dict()``: its names, nesting and values.

        Functions are left out as torch leaves them out.
        """
        self._check_state(sched_state)
        return state_dict(self, decode(sched_state.values, traced=False))

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state from a state dict, torch's or one of `state_dict`.

        The optimizer's learning rates come with the optimizer's own state.

        Args:
            state_dict: as torch's ``scheduler.state_dict()``.
            param_groups: torch's ``optimizer.param_groups``, for what schedulers keep there
                (``initial_lr``, OneCycleLR's ``max_lr``). Never wrong to give; needed only where
                that is not what this scheduler would put there: it was set by hand, say.

        Raises:
            TypeError: ``state_dict`` is none, but a checkpoint that holds it, perhaps.
            ValueError: the state dict belongs to a scheduler of another kind or other arguments.
        """
        own, groups = loaded(self, state_dict, param_groups)
        self._check_loaded(own, groups)
        groups.entries.update(entries_of(param_groups, groups, loading=True))
        return self._encoded(own, groups)

    def _check_loaded(self, own: Own, groups: Groups) -> None:
        """Warn of a state that another schedule has left."""

    def as_schedule(
        self, base_lr: float, steps_per_epoch: int = 1, total_steps: int = 10_000
    ) -> Callable[[Any], jax.Array]:
        """Return an Optax schedule: the learning rate after a count of optimizer steps.

        It is that of an undisturbed run, by the same recurrence, to the last bit of float64 (in
        float32 unless x64 is enabled).

        Args:
            base_lr: the optimizer's learning rate before the scheduler begins.
            steps_per_epoch: optimizer steps to one step of the scheduler.
            total_steps: how many steps of the scheduler to calculate beforehand. For a later count
                the schedule goes on from there each time it is called: right, but slow. With a
                function that cannot be traced (a Python ``if`` of the epoch) it ends there: a later
                count raises, and under ``jit`` gives NaN.

        Raises:
            ValueError: a scheduler that follows a metric.
        """
        return as_schedule(self, base_lr, steps_per_epoch, total_steps)

    # ── for subclasses ─────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        """Raise torch's errors for arguments."""

    def _arguments(self, size: int) -> dict[str, Any]:
        """Return what torch's object keeps of its arguments, for ``size`` groups."""
        raise NotImplementedError

    def _first(self) -> dict[str, Any]:
        """Return what else torch's object holds from before its initial step on."""
        return {}

    def _construct(self, groups: Groups) -> Own:
        """Torch's ``__init__``, from where it has an optimizer."""
        if self.last_epoch == -1:
            groups.setdefault("initial_lr", groups.lr)
        elif (index := groups.missing("initial_lr")) is not None:
            raise KeyError(NO_INITIAL_LR.format(index))
        own = Own(base_lrs=groups.entry("initial_lr"), last_epoch=self.last_epoch, **self._first())
        self._initial_step(own, groups)
        return own

    def _initial_step(self, own: Own, groups: Groups) -> None:
        own._step_count = 0
        self._advance(own, groups, initial=True)

    def _advance(
        self, own: Own, groups: Groups, epoch: Value | None = None, *, initial: bool = False
    ) -> None:
        """Torch's ``step``."""
        _warn_of_order(own, groups)
        own._step_count = own._step_count + 1
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATION, UserWarning, stacklevel=4)
        self._update_lr(own, groups, epoch, initial=initial)

    def _update_lr(
        self, own: Own, groups: Groups, epoch: Value | None = None, *, initial: bool = False
    ) -> None:
        if epoch is None:
            own.last_epoch = own.last_epoch + 1
            groups.lr = self._get_lr(own, groups, initial)
        else:
            own.last_epoch = epoch
            groups.lr = self._get_closed_form_lr(own, groups)
        own._last_lr = groups.lr

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        """Torch's ``get_lr``; ``initial`` is its ``_is_initial``."""
        raise NotImplementedError

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        """The same where an epoch is given; torch has a closed form for some."""
        return self._get_lr(own, groups, False)

    def _base_lrs(self, own: Own, groups: Groups, words: str = FEWER_RATES) -> Value:
        """Return an initial rate for each group, or raise torch's error, in its words."""
        groups.check_joined(len(raw(own.base_lrs)), words)
        return own.base_lrs

    # ── from arrays to torch's attributes and back ─────────────────────────────────────────────

    def _stepped(self, state: Any, sched_state: SchedulerState, *arguments: Value) -> Any:
        self._check_state(sched_state)
        written = Written(state)
        arrays = (sched_state.values, sched_state.param_groups, arguments)
        traced = written.traced or is_traced(arrays)
        with jax.enable_x64(True), np.errstate(all="ignore"):
            own = decode(sched_state.values, traced)
            entries = {k: decode_value(v, traced) for k, v in sched_state.param_groups.items()}
            groups = written.groups(entries, traced)
            before = copied(own)
            self._advance(own, groups, *(lift(a) if is_traced(a) else a for a in arguments))
            values = encode(own, before, sched_state.values)
            # A step changes the entries of no group.
            return written.state(groups), dataclasses.replace(sched_state, values=values)

    def _encoded(self, own: Own, groups: Groups) -> SchedulerState:
        return SchedulerState(encode(own), encode_entries(groups.entries), self.kind)

    @property
    def kind(self) -> str:
        """The name of the class; of a composite with those inside it."""
        return type(self).__name__

    def _check_state(self, sched_state: object) -> None:
        if not isinstance(sched_state, SchedulerState):
            raise TypeError(
                f"{type(self).__name__} needs the scheduler state that init or load_state_dict "
                f"returns; got {type(sched_state).__name__}"
            )
        if sched_state.kind != self.kind:
            raise ValueError(
                f"the scheduler state is that of {sched_state.kind}, not of {self.kind}"
            )


class EpochScheduler(LRScheduler):
    """A scheduler whose step may be told the epoch."""

    def step(
        self, state: State, sched_state: SchedulerState, epoch: int | None = None
    ) -> tuple[State, SchedulerState]:
        """Take one step: torch's ``scheduler.step()``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's, from `init` or an earlier step.
            epoch: deprecated by torch: go to this epoch, by torch's closed form where it has one.

        Returns:
            Both states; the arguments are left as they were.

        Raises:
            TypeError, ValueError: no state of this scheduler.
        """
        stepped: tuple[State, SchedulerState] = self._stepped(state, sched_state, whole(epoch))
        return stepped


def check_strategy(given: str) -> None:
    """Raise torch's error for another ``anneal_strategy`` than the two that there are."""
    if given not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {given}")


def _is_optimizer(x: Any) -> bool:
    """Whether it is an optimizer, or its state, which come later here."""
    if isinstance(x, LRScheduler):
        return False
    return any(hasattr(x, name) for name in ("tx", "init", "param_groups")) or (
        not callable(x) and bool(grouped_states(x))
    )


def whole(epoch: Any) -> Value | None:
    if epoch is None:
        return None
    if is_traced(epoch):
        is_whole = np.issubdtype(epoch.dtype, np.integer)
    else:
        is_whole = isinstance(epoch, SupportsFloat) and float(epoch).is_integer()
    if not is_whole:
        raise TypeError(f"epoch must be a whole number; got {epoch!r}")
    return epoch if is_traced(epoch) else int(epoch)


def _warn_of_order(own: Own, groups: Groups) -> None:
    count = own._step_count
    if isinstance(count, Traced) or count != 1 or groups.stepped is None:
        return
    if not groups.stepped():
        warnings.warn(STEP_ORDER, UserWarning, stacklevel=5)


def _listed(parts: Any) -> list[Any]:
    vector = decoded(parts)
    return vector.tolist() if isinstance(vector, np.ndarray) else list(vector)


def _held(value: Any) -> Any:
    """Return an argument as it can be hashed, and as nobody changes it in place afterwards."""
    if isinstance(value, list | tuple):
        return tuple(map(_held, value))
    if not hasattr(value, "tolist") or isinstance(value, np.generic | jax.core.Tracer):
        return value
    # An array, torch's too: a number for all groups, or one for each.
    return value.item() if math.prod(value.shape) == 1 else _held(value.tolist())
