"""A scheduler's undisturbed run as an Optax schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import decoded
from ._arithmetic import StepError, is_traced, raw
from ._functions import UntraceableError
from ._groups import Groups
from ._state import Own, decode, decode_value, encode, encode_value

if TYPE_CHECKING:
    from ._scheduler import LRScheduler


def check_lengths(**lengths: int) -> None:
    for name, steps in lengths.items():
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"Expected positive integer {name}, but got {steps}")


def as_schedule(
    scheduler: LRScheduler, base_lr: float, steps_per_epoch: int, total_steps: int
) -> Callable[[Any], jax.Array]:
    """Tabulate a run of one group, and go on from its end where a count is beyond."""
    check_lengths(steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    groups = Groups(np.array([base_lr], np.float64), np.zeros(1))
    with jax.enable_x64(True), np.errstate(all="ignore"):
        own = scheduler._construct(groups)
        first = float(groups.lr[0])
        start = (
            encode(own),
            {name: encode_value(value) for name, value in groups.entries.items()},
            encode_value(groups.lr),
            encode_value(groups.momentum),
        )

    def step(carried: Any, _: Any = None) -> tuple[Any, Any]:
        values, entries, lr, momentum = carried
        with jax.enable_x64(True):
            own, before = decode(values, traced=True), decode(values, traced=True)
            groups = Groups(decode_value(lr, traced=True), decode_value(momentum, traced=True))
            groups.entries = {k: decode_value(v, traced=True) for k, v in entries.items()}
            scheduler._advance(own, groups)
            lr = encode_value(groups.lr)
            values = encode(own, before, values)
            return (values, entries, lr, encode_value(groups.momentum)), lr[0]

    end: Any = None
    try:
        with jax.ensure_compile_time_eval():
            end, parts = jax.jit(lambda: jax.lax.scan(step, start, length=total_steps))()
            end, parts = jax.tree.map(np.asarray, (end, parts))
        table = np.concatenate([[first], decoded(parts)])
    except UntraceableError:
        with jax.enable_x64(True), np.errstate(all="ignore"):
            table = _stepped_eagerly(scheduler, own, groups, total_steps)

    @jax.jit
    def after(more: jax.Array) -> jax.Array:
        last = jax.lax.fori_loop(0, more, lambda _, carried: step(carried)[0], end)[2]
        with jax.enable_x64(True):
            return jnp.asarray(raw(decode_value(last, traced=True))[0])

    def after_table(more: Any) -> Any:
        if end is None and is_traced(more):
            return np.nan
        if end is None:
            raise ValueError(
                f"the schedule has {total_steps} steps, since a function in it cannot be traced; "
                "give as_schedule more total_steps"
            )
        return after(more)

    def rate_at(epoch: Any) -> Any:
        if not is_traced(epoch):
            at = max(int(epoch), 0)
            return table[at] if at <= total_steps else after_table(np.int32(at - total_steps))
        more = jnp.maximum(epoch - total_steps, 0).astype(jnp.int32)
        later = after_table(more)  # of no steps, unless the count is beyond
        with jax.enable_x64(True):
            return jnp.where(more > 0, later, jnp.asarray(table)[jnp.clip(epoch, 0, total_steps)])

    def schedule(count: Any) -> jax.Array:
        dtype = jnp.float64 if jax.enable_x64.value else jnp.float32
        rate = rate_at(jnp.asarray(count) // steps_per_epoch)
        with jax.enable_x64(True):
            return jnp.asarray(rate, dtype)

    return of_each(schedule)


def of_each(schedule: Callable[[Any], jax.Array]) -> Callable[[Any], jax.Array]:
    """Let a schedule of one count take an array of them too, as Optax's do."""

    def of_any(count: Any) -> jax.Array:
        if np.ndim(count) == 0:
            return schedule(count)
        counts = jnp.ravel(jnp.asarray(count))
        if is_traced(count) or not counts.size:
            return jax.vmap(schedule)(counts).reshape(np.shape(count))
        return jnp.stack([schedule(one) for one in np.asarray(counts)]).reshape(np.shape(count))

    return of_any


def _stepped_eagerly(
    scheduler: LRScheduler, own: Own, groups: Groups, total_steps: int
) -> np.ndarray[Any, Any]:
    """Return the same table without a trace: NaN from where a step is refused."""
    table = np.full(total_steps + 1, np.nan)
    table[0] = groups.lr[0]
    try:
        for step in range(1, total_steps + 1):
            scheduler._advance(own, groups)
            table[step] = groups.lr[0]
    except StepError:
        pass
    return table
