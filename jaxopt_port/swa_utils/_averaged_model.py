"""Running averages of parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ..numerics.torch_ops import add, div, lerp, mul

AvgFn: TypeAlias = Callable[[jax.Array, jax.Array, Any], jax.Array]
MultiAvgFn: TypeAlias = Callable[
    [Sequence[jax.Array], Sequence[jax.Array], Any], Sequence[jax.Array]
]


# A number, or a function of how many models have been averaged.
Decay: TypeAlias = "float | Callable[[Any], Any]"


def _check_decay(decay: Decay) -> None:
    if not callable(decay) and not 0.0 <= decay <= 1.0:
        raise ValueError(
            f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )


def _decay_at(decay: Decay, num_averaged: Any) -> tuple[Any, Any]:
    """Return a decay and what is left of 1, in float64, as Python's numbers are."""
    if not callable(decay):
        return decay, 1 - decay
    with jax.enable_x64(True):
        try:
            now = jnp.asarray(decay(jnp.asarray(num_averaged, jnp.int64)), jnp.float64)
        except TypeError as error:  # as all of JAX's errors about traced values are
            name = getattr(decay, "__qualname__", type(decay).__qualname__)
            raise TypeError(
                f"the decay {name} cannot be traced: it is given a JAX integer, of which Python's "
                "if, min, max and math can make nothing; write it with jax.numpy (jnp.minimum)"
            ) from error
        return now, 1 - now


def _by_parts(function: Callable[..., jax.Array]) -> AvgFn:
    """Let a function of real arrays take complex ones, whose parts it averages by themselves."""

    def of_any(averaged: jax.Array, current: jax.Array, number: Any) -> jax.Array:
        if not jnp.iscomplexobj(averaged):
            return function(averaged, current, number)
        parts = [(jnp.real(averaged), jnp.real(current)), (jnp.imag(averaged), jnp.imag(current))]
        return jax.lax.complex(*(function(*pair, number) for pair in parts))

    return of_any


def _is_float(x: jax.Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.inexact))


def get_ema_avg_fn(decay: Decay = 0.999) -> AvgFn:
    """Return the exponential moving average of one parameter: ``decay * avg + (1 - decay) * new``.

    The counterpart of ``torch.optim.swa_utils.get_ema_avg_fn``.

    Args:
        decay: between 0 and 1; or a function, in JAX's operations, of how many models have been
            averaged, for averages that are quick to begin with: ``lambda n: jnp.minimum(0.999,
            (1 + n) / (10 + n))``. It is calculated in float64.

    Raises:
        ValueError: ``decay`` is not between 0 and 1.
        TypeError: when it is called, a function that cannot be traced.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> float(jp.swa_utils.get_ema_avg_fn(0.75)(jnp.float32(4.0), jnp.float32(8.0), 1))
        5.0
    """
    _check_decay(decay)

    def ema_update(averaged: jax.Array, current: jax.Array, num_averaged: Any) -> jax.Array:
        if not _is_float(averaged):
            averaged, current = averaged.astype(jnp.float32), current.astype(jnp.float32)
        now, rest = _decay_at(decay, num_averaged)
        return add(mul(averaged, now), mul(current, rest))

    return _by_parts(ema_update)


def get_swa_avg_fn() -> AvgFn:
    """Return the equal average of one parameter: ``avg + (new - avg) / (num_averaged + 1)``.

    The counterpart of ``torch.optim.swa_utils.get_swa_avg_fn``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> float(jp.swa_utils.get_swa_avg_fn()(jnp.float32(4.0), jnp.float32(8.0), 3))
        5.0
    """

    def swa_update(averaged: jax.Array, current: jax.Array, num_averaged: Any) -> jax.Array:
        if _is_float(averaged):
            difference = add(current, averaged, alpha=-1.0)
        else:
            difference = (current - averaged).astype(jnp.float32)
            averaged = averaged.astype(jnp.float32)
        return add(averaged, div(difference, num_averaged + 1))

    return _by_parts(swa_update)


def get_ema_multi_avg_fn(decay: Decay = 0.999) -> MultiAvgFn:
    """Return the exponential moving average of a list of parameters of one dtype, by ``lerp``.

    The counterpart of ``torch.optim.swa_utils.get_ema_multi_avg_fn``. It returns the new averages,
    where torch's changes them in place.

    Args:
        decay: as for `get_ema_avg_fn`.

    Raises:
        ValueError: ``decay`` is not between 0 and 1.
        TypeError: when it is called, a function that cannot be traced.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> average = jp.swa_utils.get_ema_multi_avg_fn(0.75)
        >>> average([jnp.array([4.0])], [jnp.array([8.0])], 1)
        [Array([5.], dtype=float32)]
    """
    single = get_ema_avg_fn(decay)

    def ema_update(averaged: Any, current: Any, num_averaged: Any) -> list[jax.Array]:
        pairs = zip(averaged, current, strict=True)
        if _is_float(averaged[0]):
            _, rest = _decay_at(decay, num_averaged)
            mixed = _by_parts(lerp)
            return [mixed(a, c, rest) for a, c in pairs]
        return [single(a, c, num_averaged) for a, c in pairs]

    return ema_update


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """Return the equal average of a list of parameters of one dtype, by ``lerp``.

    The counterpart of ``torch.optim.swa_utils.get_swa_multi_avg_fn``. It returns the new averages,
    where torch's changes them in place.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> average = jp.swa_utils.get_swa_multi_avg_fn()
        >>> average([jnp.array([4.0])], [jnp.array([8.0])], 3)
        [Array([5.], dtype=float32)]
    """

    def swa_update(averaged: Any, current: Any, num_averaged: Any) -> list[jax.Array]:
        if not _is_float(averaged[0]):
            raise TypeError(
                f"get_swa_multi_avg_fn cannot average {averaged[0].dtype} arrays, as torch's "
                "cannot; use get_swa_avg_fn"
            )
        weight = 1 / jnp.asarray(num_averaged + 1).astype(jnp.float32)
        mixed = _by_parts(lerp)
        return [mixed(a, c, weight) for a, c in zip(averaged, current, strict=True)]

    return swa_update


class AveragedState(NamedTuple):
    """The averages.

    Attributes:
        params: of the parameters.
        buffers: of the buffers, such as batch statistics, or copies of them.
        n_averaged: how many models have been averaged, int32.
    """

    params: Any
    buffers: Any
    n_averaged: jax.Array


@dataclass(frozen=True)
class AveragedModel:
    """Average the parameters of a model while it trains.

    The counterpart of ``torch.optim.swa_utils.AveragedModel``, over trees: parameters, and what
    torch calls buffers (Flax's ``BatchStat`` or ``batch_stats``). The first update copies. Without
    a function all models count alike, as torch averages them on the CPU.

    Args:
        avg_fn: ``avg_fn(averaged, current, num_averaged)`` of one array.
        multi_avg_fn: the same of lists of arrays of one dtype.
        use_buffers: whether to average the buffers too; otherwise they are copied.

    Raises:
        AssertionError: two functions, as in torch.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> averaged = jp.swa_utils.AveragedModel()
        >>> averages = averaged.init({"weight": jnp.array([0.0])})
        >>> for value in (1.0, 2.0, 6.0):
        ...     averages = averaged.update_parameters(averages, {"weight": jnp.array([value])})
        >>> averages.params["weight"], int(averages.n_averaged)
        (Array([3.], dtype=float32), 3)
    """

    avg_fn: AvgFn | None = None
    multi_avg_fn: MultiAvgFn | None = None
    use_buffers: bool = False

    def __post_init__(self) -> None:
        if self.avg_fn is not None and self.multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")

    def init(self, params: Any, buffers: Any = ()) -> AveragedState:
        """Return the state before anything is averaged: copies of parameters and buffers."""
        params, buffers = jax.tree.map(jnp.array, (params, buffers))
        return AveragedState(params, buffers, jnp.zeros((), jnp.int32))

    def update_parameters(
        self, averages: AveragedState, params: Any, buffers: Any = ()
    ) -> AveragedState:
        """Take a model into the averages: torch's ``averaged_model.update_parameters(model)``.

        Args:
            averages: the averages.
            params: the model's parameters now.
            buffers: its buffers now.

        Returns:
            The new averages.

        Raises:
            ValueError: parameters or buffers of another structure.
        """
        structure: Any = jax.tree.structure((averages.params, averages.buffers))
        if structure != jax.tree.structure((params, buffers)):
            raise ValueError("the model's tree is not the one that the averages were made for")
        updated: AveragedState = _updated(self, averages, params, buffers)
        return updated

    def _averaged(
        self, old: list[jax.Array], new: list[jax.Array], num_averaged: jax.Array
    ) -> list[jax.Array]:
        if self.multi_avg_fn is None:
            single = self.avg_fn or get_swa_avg_fn()
            return [single(*pair, num_averaged) for pair in zip(old, new, strict=True)]
        averaged: dict[int, jax.Array] = {}
        for dtype in dict.fromkeys(leaf.dtype for leaf in old):
            places = [i for i, leaf in enumerate(old) if leaf.dtype == dtype]
            lists = [old[i] for i in places], [new[i] for i in places]
            averaged.update(zip(places, self.multi_avg_fn(*lists, num_averaged), strict=True))
        return [averaged[i] for i in range(len(old))]


# Compiled, because torch's `lerp` rounds once, where single operations would round twice.
@functools.partial(jax.jit, static_argnums=0)
def _updated(
    model: AveragedModel, averages: AveragedState, params: Any, buffers: Any
) -> AveragedState:
    held = (averages.params, averages.buffers) if model.use_buffers else averages.params
    now = (params, buffers) if model.use_buffers else params
    old, new = jax.tree.leaves(held), jax.tree.leaves(now)
    first = averages.n_averaged == 0
    each = zip(old, new, model._averaged(old, new, averages.n_averaged), strict=True)
    mixed = [jnp.where(first, current, mean).astype(before.dtype) for before, current, mean in each]
    result = jax.tree.unflatten(jax.tree.structure(held), mixed)
    mean_params, mean_buffers = result if model.use_buffers else (result, buffers)
    return AveragedState(mean_params, mean_buffers, averages.n_averaged + 1)
