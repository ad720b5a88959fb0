"""Loss scaling for float16: torch's ``torch.amp.GradScaler``, as pure functions of a state."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ._compat import AxisName, split_over, stacked
from .accumulation import accumulations, as_after, overflow
from .clip_grad import check_array, real_number, scaled
from .engine import StepProgram, as_argument, as_program, check_transformation, is_loss, step

Params = TypeVar("Params")
State = TypeVar("State")
Outputs = TypeVar("Outputs")

# float32's smallest normal number and its smallest of all, and a power of 2 beyond both.
_SMALLEST, _UNIT, _PART = 2.0**-126, 2.0**-149, 2.0**64
_LARGEST = float(np.finfo(np.float32).max)
_SAVED = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class GradScalerState(NamedTuple):
    """What a scaler remembers.

    Attributes:
        scale: the factor of the loss, float32.
        growth_tracker: steps since the last one that was skipped or the last growth, int32.
    """

    scale: jax.Array
    growth_tracker: jax.Array


@dataclass(frozen=True)
class GradScaler:
    """Scale the loss so that float16 gradients neither vanish nor overflow.

    The counterpart of ``torch.amp.GradScaler``. One training step, eagerly or under ``jit``::

        loss, grads = jax.value_and_grad(lambda p: scaler.scale(loss_of(p), scaler_state))(params)
        grads, found_inf = scaler.unscale(grads, scaler_state)
        params, state = scaler.step(tx, grads, state, params, found_inf)
        scaler_state = scaler.update(scaler_state, found_inf)

    Args:
        init_scale: the first factor.
        growth_factor: how the factor grows after ``growth_interval`` steps without an infinity.
        backoff_factor: how it shrinks where a gradient was infinite or NaN.
        growth_interval: see there.
        enabled: whether to do anything at all.

    Raises:
        AssertionError: a factor out of range, as in torch.
        TypeError: what is no number.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> scaler = jp.GradScaler(init_scale=8.0)
        >>> scaler_state = scaler.init()
        >>> grads, found_inf = scaler.unscale({"w": jnp.array([8.0, jnp.inf])}, scaler_state)
        >>> bool(found_inf), float(scaler.update(scaler_state, found_inf).scale)
        (True, 4.0)
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    enabled: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.init_scale, str):
            raise TypeError(
                f"GradScaler takes no device, as torch's takes {self.init_scale!r}: its first "
                "argument is init_scale, a number"
            )
        for name in ("init_scale", "growth_factor", "backoff_factor"):
            real_number(getattr(self, name), name, static=True)
        _integer(self.growth_interval, "growth_interval")
        if self.enabled and self.growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if self.enabled and self.backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")

    def init(self) -> GradScalerState:
        """Return the state at the beginning of a run."""
        return GradScalerState(jnp.float32(self.init_scale), jnp.zeros((), jnp.int32))

    def scale(self, outputs: Outputs, scaler_state: GradScalerState) -> Outputs:
        """Multiply the loss, or a tree of outputs: torch's ``scaler.scale(loss)``.

        Integers become float32, and so does one number in float16 or bfloat16, as a loss is: in
        torch it takes the type of the scale, in which it does not overflow.

        Raises:
            ValueError: no outputs.
            TypeError: what is no array among them.
        """
        if not self.enabled:
            return outputs
        _check_scaler_state(scaler_state)
        leaves = jax.tree.leaves(outputs, is_leaf=lambda x: x is None)
        if outputs is None or any(leaf is None for leaf in leaves):
            raise ValueError("outputs must be a Tensor or an iterable of Tensors; one is None")

        def one(x: Any) -> jax.Array:
            check_array(x, "the outputs")
            if not _is_number(x):
                x = jnp.asarray(x, jnp.float32)
            elif jnp.ndim(x) == 0:
                x = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
            return scaled(x, scaler_state.scale)

        made: Outputs = jax.tree.map(one, outputs)
        return made

    def unscale(
        self, grads: Params, scaler_state: GradScalerState, *, axis_name: AxisName = None
    ) -> tuple[Params, jax.Array]:
        """Divide gradients by the scale: torch's ``scaler.unscale_(optimizer)``.

        Args:
            grads: gradients.
            scaler_state: the scaler's state.
            axis_name: within ``jax.shard_map``, the mesh axes that gradients are split over, so
                that all devices skip a step or none does; see `clip_grad_norm`.

        Returns:
            The gradients, and whether one of them was infinite or NaN.

        Raises:
            ValueError: float16 gradients; the parameters are to be float32. Gradients that differ
                between devices, and no ``axis_name``.
            AssertionError: no gradient at all, as torch's ``step`` says.
            TypeError: what is no array among them.
            NotImplementedError: complex gradients, as in torch.
        """
        if not self.enabled:
            return grads, jnp.zeros((), bool)
        _check_scaler_state(scaler_state)
        grads = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, grads)
        given = jax.tree.leaves(grads)
        for leaf in given:
            check_array(leaf, "the gradients")
        # The indices of a sparse gradient stay as they are.
        leaves = [x for x in given if _is_number(x)]
        if not leaves:
            raise AssertionError(
                "No inf checks were recorded for this optimizer: there is no gradient to unscale"
            )
        if any(map(jnp.iscomplexobj, leaves)):
            raise NotImplementedError(
                '"_amp_foreach_non_finite_check_and_unscale_cpu" not implemented for '
                "'ComplexFloat': scaling is for real gradients; do without the scaler"
            )
        if any(leaf.dtype == jnp.float16 for leaf in leaves):
            raise ValueError("Attempting to unscale FP16 gradients.")
        with jax.enable_x64(True):
            inverse = 1 / scaler_state.scale.astype(jnp.float64)
            # A subnormal one is rounded as torch's, and taken in two parts: XLA would flush it.
            small = inverse < _SMALLEST
            inverse = jnp.where(small, jnp.floor(inverse / _UNIT + 0.5) * _UNIT * _PART, inverse)
            parts = inverse.astype(jnp.float32), jnp.where(small, 1 / _PART, 1.0)
        found: dict[tuple[str, ...], list[jax.Array]] = {}
        for leaf, axes in zip(leaves, split_over(leaves, axis_name, "a check"), strict=True):
            found.setdefault(axes, []).append(~jnp.all(jnp.isfinite(leaf)))
        by_axes = [
            lax.pmax(jnp.any(stacked(own)).astype(jnp.int32), axes) > 0
            if axes
            else jnp.any(stacked(own))
            for axes, own in found.items()
        ]
        unscaled: Params = jax.tree.map(
            lambda grad: functools.reduce(scaled, parts, grad) if _is_number(grad) else grad, grads
        )
        return unscaled, jnp.any(stacked(by_axes))

    def step(
        self,
        tx: optax.GradientTransformation,
        grads: Params,
        state: State,
        params: Params,
        found_inf: jax.Array,
        **extra_args: Any,
    ) -> tuple[Params, State]:
        """Take a step of the optimizer unless a gradient was infinite: ``scaler.step(optimizer)``.

        A skipped step leaves parameters, state and step counts as they are. With
        `accumulate_grads` in ``tx`` each call is one backward pass of a window; an infinity in any
        of them skips the window's step, when it is due.

        Args:
            tx: the optimizer.
            grads: gradients, unscaled.
            state: the optimizer's state.
            params: the parameters.
            found_inf: from `unscale`.
            **extra_args: as for `jp.step`.

        Returns:
            Parameters and state, to the last bit those of `jp.step` where it is not skipped.

        Raises:
            TypeError: ``found_inf`` is not one boolean; ``donate``; what `jp.step` raises.
            RuntimeError: a loss in the place of gradients, as torch's scaler for a closure.
        """
        check_transformation(tx)
        if is_loss(grads, params):
            raise RuntimeError(
                "Closure use is not currently supported if GradScaler is enabled: give gradients, "
                "as scaler.unscale returns them"
            )
        if "donate" in extra_args:
            raise TypeError(
                "a step that may be skipped donates nothing: leave donate out here, and donate "
                "where the loop is compiled, by jax.jit(…, donate_argnums=…)"
            )
        extra_args = {name: as_argument(x) for name, x in extra_args.items()}
        stepped: tuple[Params, State] = _step_unless(
            as_program(tx), _found(found_inf), grads, state, params, extra_args
        )
        return stepped

    def update(
        self,
        scaler_state: GradScalerState,
        found_inf: jax.Array,
        new_scale: float | jax.Array | None = None,
        *,
        state: Any = None,
    ) -> GradScalerState:
        """Let the scale grow or shrink: torch's ``scaler.update()``.

        Args:
            scaler_state: the scaler's state.
            found_inf: from `unscale`; of several optimizers, whether any has found one.
            new_scale: a scale to set instead.
            state: with `accumulate_grads`, the optimizer's state after the step: then the scale
                moves once for each window, where it ends, as in torch's loop.

        Raises:
            AssertionError: a ``new_scale`` that is not one number, as in torch.
            TypeError: ``found_inf`` is not one boolean.
            ValueError: a ``state`` without accumulation.
        """
        if not self.enabled:
            return scaler_state
        _check_scaler_state(scaler_state)
        if state is not None:
            return self._updated_at_the_end(scaler_state, new_scale, state)
        scale, tracker = scaler_state
        if new_scale is not None:
            return GradScalerState(_new_scale(new_scale), tracker)
        found_inf = _found(found_inf)
        with jax.enable_x64(True):
            wide = scale.astype(jnp.float64)
            grown = (wide * self.growth_factor).astype(jnp.float32)
            less = (wide * self.backoff_factor).astype(jnp.float32)
        due = tracker + 1 == self.growth_interval
        grown = jnp.where(due & jnp.isfinite(grown), grown, scale)
        return GradScalerState(
            jnp.where(found_inf, less, grown),
            jnp.where(found_inf | due, 0, tracker + 1).astype(jnp.int32),
        )

    def _updated_at_the_end(
        self, scaler_state: GradScalerState, new_scale: float | jax.Array | None, state: Any
    ) -> GradScalerState:
        found = accumulations(state)
        if len(found) != 1:
            raise ValueError(
                "state is for the state of one optimizer under accumulate_grads, at whose end the "
                f"scale is to move; it holds {len(found)}"
            )
        ended = found[0].taken == 0
        updated = self.update(scaler_state, found[0].found_inf, new_scale)
        moved: GradScalerState = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old), updated, scaler_state
        )
        return moved

    def state_dict(self, scaler_state: GradScalerState) -> dict[str, Any]:
        """Return torch's ``scaler.state_dict()``."""
        if not self.enabled:
            return {}
        _check_scaler_state(scaler_state)
        return {
            "scale": float(scaler_state.scale),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(scaler_state.growth_tracker),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> GradScalerState:
        """Return the state from a state dict, torch's or one of `state_dict`.

        Raises:
            RuntimeError: the state dict is empty.
            ValueError: it lacks an entry, was saved with other factors, or its scale is none.
            TypeError: an entry that is no number.
        """
        if not self.enabled:
            return self.init()
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved "
                "from a disabled instance of GradScaler."
            )
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, but got {type(state_dict)}")
        missing = [name for name in _SAVED if name not in state_dict]
        if missing:
            raise ValueError(
                f"the state dict is not that of a GradScaler: it has no {', '.join(missing)}; its "
                f"entries are {', '.join(map(str, state_dict))}"
            )
        for name in ("growth_factor", "backoff_factor", "growth_interval"):
            if state_dict[name] != getattr(self, name):
                raise ValueError(
                    f"the state dict was saved with {name} {state_dict[name]!r}, this scaler has "
                    f"{getattr(self, name)!r}; make it with the arguments it was saved with"
                )
        scale = real_number(state_dict["scale"], "the saved scale", static=True)
        if not 0 < scale <= _LARGEST:
            raise ValueError(f"the saved scale {scale} is no positive number that float32 holds")
        tracker = _integer(state_dict["_growth_tracker"], "the saved _growth_tracker")
        if not 0 <= tracker < 2**31:
            raise ValueError(f"the saved _growth_tracker {tracker} is no count of steps")
        return GradScalerState(jnp.float32(scale), jnp.int32(tracker))


def _check_scaler_state(scaler_state: Any) -> None:
    if not isinstance(scaler_state, GradScalerState):
        raise TypeError(
            "scaler_state must be the scaler's own, from scaler.init() or an update; got a "
            f"{type(scaler_state).__name__}"
        )


def _found(found_inf: Any) -> jax.Array:
    """Return whether an infinity was found: a boolean, or torch's number."""
    numeric = isinstance(found_inf, jax.Array | np.ndarray | np.generic | bool | int | float)
    if not numeric or np.ndim(found_inf):
        what = f"an array of shape {np.shape(found_inf)}" if numeric else repr(found_inf)
        raise TypeError(f"found_inf must be one boolean, as scaler.unscale returns it; got {what}")
    return jnp.asarray(found_inf) != 0


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None


def _new_scale(value: Any) -> jax.Array:
    try:
        number = jnp.asarray(value, jnp.float32)
    except (TypeError, ValueError):
        number = None
    if number is None or number.size != 1:
        raise AssertionError(
            "new_scale should be a float or a 1-element torch.cuda.FloatTensor or "
            f"torch.FloatTensor with requires_grad=False: got {value!r}"
        )
    return number.reshape(())


def _is_number(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


@functools.partial(jax.jit, static_argnums=0)
def _step_unless(
    program: StepProgram,
    found_inf: jax.Array,
    grads: Any,
    state: Any,
    params: Any,
    extra_args: dict[str, Any],
) -> Any:
    def stepped() -> Any:
        return step(program.tx, grads, state, params, **extra_args)

    if accumulations(state):  # there it is the window's step that is skipped, when it is due
        before = overflow.set(found_inf)
        try:
            return stepped()
        finally:
            overflow.reset(before)
    _, after = jax.eval_shape(stepped)
    return jax.lax.cond(found_inf, lambda: (params, as_after(state, after)), stepped)
