"""Running averages of parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._untraceable import why
from ..clip_grad import check_array
from ..numerics.torch_ops import add, div, lerp, mul
from ..trees import leaf_paths

AvgFn: TypeAlias = Callable[[jax.Array, jax.Array, Any], jax.Array]
MultiAvgFn: TypeAlias = Callable[
    [Sequence[jax.Array], Sequence[jax.Array], Any], Sequence[jax.Array]
]


# A number, or a function of how many models have been averaged.
Decay: TypeAlias = "float | Callable[[Any], Any]"


def _check_decay(decay: Any) -> None:
    """Raise for a decay that is neither a function nor within 0 and 1; a traced one may be any."""
    if callable(decay) or isinstance(decay, jax.core.Tracer):
        return
    message = f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
    try:
        within = 0.0 <= float(decay) <= 1.0
    except (TypeError, ValueError):
        raise TypeError(message) from None
    if not within:
        raise ValueError(message)


def _decay_at(decay: Decay, num_averaged: Any) -> tuple[Any, Any]:
    """Return a decay and what is left of 1, in float64, as Python's numbers are."""
    if not callable(decay):
        return decay, 1 - decay
    with jax.enable_x64(True):
        try:
            value = decay(jnp.asarray(num_averaged, jnp.int64))
        except TypeError as error:  # as all of JAX's errors about traced values are
            raise TypeError(f"the decay {why(decay, error)}") from error
        _check_decay(value)
        now = jnp.asarray(value, jnp.float64)
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
        TypeError: what is no function.

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
        for name in ("avg_fn", "multi_avg_fn"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise TypeError(
                    f"{name} must be a function of averages; got {given!r}. get_ema_avg_fn(decay) "
                    "makes one of a decay"
                )

    def init(self, params: Any, buffers: Any = ()) -> AveragedState:
        """Return the state before anything is averaged: copies of parameters and buffers.

        Raises:
            TypeError: a leaf that is no array.
        """
        _check_arrays((params, buffers))
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
            ValueError: parameters or buffers of another structure or other shapes; a function
                that returns averages of another shape, or too few.
            TypeError: a leaf that is no array, or complex or an integer where its average is not;
                averages that are not this class's.
        """
        if not isinstance(averages, AveragedState):
            raise TypeError(
                "averages must be what init or update_parameters returned; got a "
                f"{type(averages).__name__}"
            )
        _check_count(averages.n_averaged)
        _check_arrays((params, buffers))
        _check_alike("parameters", params, averages.params)
        _check_alike("buffers", buffers, averages.buffers)
        updated: AveragedState = _updated(self, averages, params, buffers)
        return updated

    def _averaged(
        self, old: list[jax.Array], new: list[jax.Array], num_averaged: jax.Array
    ) -> list[jax.Array]:
        if self.multi_avg_fn is None:
            single = self.avg_fn or get_swa_avg_fn()
            pairs = zip(old, new, strict=True)
            return [_called(single, "avg_fn", *pair, num_averaged) for pair in pairs]
        averaged: dict[int, jax.Array] = {}
        for dtype in dict.fromkeys(leaf.dtype for leaf in old):
            places = [i for i, leaf in enumerate(old) if leaf.dtype == dtype]
            lists = [old[i] for i in places], [new[i] for i in places]
            made = _called(self.multi_avg_fn, "multi_avg_fn", *lists, num_averaged)
            if made is None:
                raise TypeError(
                    "multi_avg_fn has returned None; JAX's arrays are not changed in place: let it "
                    "return the list of new averages"
                )
            if len(made) != len(places):
                raise ValueError(
                    f"multi_avg_fn has returned {len(made)} averages of {len(places)} arrays"
                )
            averaged.update(zip(places, made, strict=True))
        return [averaged[i] for i in range(len(old))]


def _called(function: Any, name: str, *args: Any) -> Any:
    try:
        return function(*args)
    except TypeError as error:  # as all of JAX's errors about traced values are
        if not isinstance(error, jax.errors.JAXTypeError):
            raise
        raise TypeError(f"{name}: {why(function, error)}") from error


def _check_count(count: Any) -> None:
    """Raise for what is no count of models, where it is not the one that was returned here."""
    if isinstance(count, jax.Array):
        return  # which may be calculated still, and is not waited for
    whole = isinstance(count, int | np.ndarray | np.generic) and np.ndim(count) == 0
    if not whole or np.asarray(count).dtype.kind not in "iu" or count < 0:
        raise TypeError(
            f"n_averaged must be how many models have been averaged; got {count!r}. Of torch's it "
            "is jnp.int32(averaged_model.n_averaged.item())"
        )


def _check_arrays(tree: Any) -> None:
    if tree[0] is None:
        raise TypeError("the parameters are None; give the tree of them")
    for leaf in jax.tree.leaves(tree):
        check_array(leaf, "the parameters and buffers")


def _kind_of(x: Any) -> tuple[bool, bool]:
    """Whether it is complex, and whether integers: no average of one is of the other."""
    return jnp.iscomplexobj(x), not jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _check_alike(what: str, now: Any, held: Any) -> None:
    """Raise for a tree that the averages were not made for."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (now, held)]
    forms = [[(np.shape(x), _kind_of(x)) for x in jax.tree.leaves(tree)] for tree in (now, held)]
    if structures[0] == structures[1] and forms[0] == forms[1]:
        return
    ours, theirs = dict(leaf_paths(now)), dict(leaf_paths(held))
    for path, array in theirs.items():
        if path in ours and _kind_of(ours[path]) != _kind_of(array):
            raise TypeError(
                f'"{path}" of the {what} is {jnp.result_type(ours[path])}, its average '
                f"{jnp.result_type(array)}"
            )
        if path in ours and np.shape(ours[path]) != np.shape(array):
            raise ValueError(
                f'"{path}" of the {what} has shape {np.shape(ours[path])}, its average '
                f"{np.shape(array)}"
            )
    odd = [f'"{p}" is new' for p in ours if p not in theirs]
    odd += [f'"{p}" is missing' for p in theirs if p not in ours]
    raise ValueError(
        f"the model's tree is not the one that the averages were made for: of the {what} "
        + (odd[0] if odd else "the containers are others")
    )


# Compiled, because torch's `lerp` rounds once, where single operations would round twice.
@functools.partial(jax.jit, static_argnums=0)
def _updated(
    model: AveragedModel, averages: AveragedState, params: Any, buffers: Any
) -> AveragedState:
    held = (averages.params, averages.buffers) if model.use_buffers else averages.params
    now = (params, buffers) if model.use_buffers else params
    old, new = jax.tree.leaves(held), jax.tree.leaves(now)
    first = averages.n_averaged == 0
    means = model._averaged(old, new, averages.n_averaged)
    for before, mean in zip(old, means, strict=True):
        if not isinstance(mean, jax.Array | np.ndarray) or mean.shape != before.shape:
            what = f"an array of shape {mean.shape}" if hasattr(mean, "shape") else repr(mean)
            raise ValueError(f"the average of an array of shape {before.shape} was {what}")
    each = zip(old, new, means, strict=True)
    # Integers are copied as they are: float32 does not hold the large ones.
    mixed = [
        jnp.where(first, *(jnp.asarray(x, before.dtype) for x in (current, mean)))
        for before, current, mean in each
    ]
    result = jax.tree.unflatten(jax.tree.structure(held), mixed)
    mean_params, mean_buffers = result if model.use_buffers else (result, buffers)
    return AveragedState(mean_params, mean_buffers, averages.n_averaged + 1)
