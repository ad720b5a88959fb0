"""What a user says of the JAX side of a comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import optax

import jaxopt_port as jp


@dataclass(frozen=True, kw_only=True)
class JaxSide:
    """The training in JAX: functions of parameters and a batch, and an Optax transformation.

    `nnx_side` and `linen_side` make one of a Flax model, `equinox_side` of Equinox's.

    Raises:
        TypeError: ``tx`` is no transformation.
        ValueError: ``changes`` has something else than steps; ``closure`` beside what needs
            gradients.

    Args:
        apply: ``apply(params, batch) -> output``, an array or a tree of arrays; with
            ``model_state``: ``apply(params, model_state, batch) -> (output, new_model_state)``. To
            be checked in float64 too, it must calculate in the dtype of what it is given.
        params: a tree. Its values are replaced by torch's, unless ``imports`` is False.
        tx: the optimizer; clipping may be part of it.
        loss: ``loss(output, batch) -> scalar``.
        model_state: running statistics and the like, or None.
        state: the optimizer's state to begin with; None for ``tx.init(params)``.
        clip: ``clip(grads) -> grads``, where clipping is not part of ``tx``.
        scheduler: one of `jp.lr_scheduler`, whose ``step`` follows the optimizer's.
        scheduler_every: steps between two of the scheduler: the batches of an epoch, where it is
            stepped once an epoch.
        metric: whether the scheduler is told the loss.
        batch: makes this side's batch of torch's, both trees of NumPy arrays: NHWC of NCHW, say.
        batches: this side's own data pipeline, to be compared with torch's; None takes torch's.
        accumulation_steps: where your loop divides the loss by so many, and `jp.accumulate_grads`
            adds the gradients up. `optax.MultiSteps` takes their mean, and needs nothing here.
        scaler: a `jp.GradScaler`, whose ``step`` then takes the step.
        averaged: a `jp.swa_utils.AveragedModel`, which is told each step.
        step: ``step(tx, grads, state, params) -> (params, state)``; `jp.step`, which is `tx.update`
            and `optax.apply_updates`, by default.
        closure: whether ``step`` is given the loss as a function of the parameters in the place of
            gradients, and evaluates it itself: `jp.lbfgs`, Optax's too.
        changes: what your loop changes between steps, by the step before which it does, counted
            from 0: ``changes={50: lambda state, params: jp.set_hyperparams(state, lr=1e-3)}``.
            Returns the optimizer's state; that of a new optimizer is ``tx.init(params)``.
        imports: False compares ``params`` with torch's, where the user has imported them.
        like: what `interop.param_map` is given: a model, where its layers tell the layouts.
        flax_module: likewise, the Linen module of the variables ``like``.
        inputs: likewise, arguments of its call.
    """

    apply: Callable[..., Any]
    params: Any
    tx: optax.GradientTransformation
    loss: Callable[[Any, Any], jax.Array]
    model_state: Any = None
    state: Any = None
    clip: Callable[[Any], Any] | None = None
    scheduler: Any = None
    scheduler_every: int = 1
    metric: bool = False
    batch: Callable[[Any], Any] | None = None
    batches: Iterable[Any] | None = None
    accumulation_steps: int = 1
    scaler: jp.GradScaler | None = None
    averaged: Any = None
    step: Callable[..., Any] = jp.step
    closure: bool = False
    changes: Mapping[int, Callable[[Any, Any], Any]] = field(default_factory=dict)
    imports: bool = True
    like: Any = field(default=None, repr=False)
    flax_module: Any = field(default=None, repr=False)
    inputs: Sequence[Any] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        made = hasattr(self.tx, "init") and hasattr(self.tx, "update")
        if not made or isinstance(self.tx, type):
            name = getattr(self.tx, "__name__", "")
            hint = f"; call it: tx={name}(…)" if callable(self.tx) and name else ""
            raise TypeError(
                f"tx must be an optax.GradientTransformation, got {name or type(self.tx).__name__}"
                f"{hint}"
            )
        lacking = [k for k in ("init", "step") if not hasattr(self.scheduler, k)]
        if self.scheduler is not None and lacking:
            raise TypeError(
                "scheduler must be one of jp.lr_scheduler; an Optax schedule is the learning rate "
                f"of tx, optax.adam(schedule); got {self.scheduler!r}"
            )
        if self.averaged is not None and not hasattr(self.averaged, "update_parameters"):
            raise TypeError(
                "averaged must be a jp.swa_utils.AveragedModel, such as AveragedModel(avg_fn="
                f"jp.swa_utils.get_ema_avg_fn(0.9)); got {self.averaged!r}"
            )
        if self.clip is not None and (hasattr(self.clip, "update") or not callable(self.clip)):
            raise TypeError(
                "clip must be a function of the gradients that returns them clipped; chain a "
                f"transformation before the optimizer, in tx=optax.chain(…); got {self.clip!r}"
            )
        if not isinstance(self.changes, Mapping) or not all(map(callable, self.changes.values())):
            raise TypeError(f"changes are functions by step, {{50: f}}; got {self.changes!r}")
        odd = [step for step in self.changes if not isinstance(step, int) or step < 0]
        if odd:
            raise ValueError(f"changes has {odd[0]!r} for a step; steps are counted from 0")
        if self.closure and (self.clip or self.scaler or self.accumulation_steps != 1):
            raise ValueError(
                "closure=True beside clip, scaler or accumulation_steps: a step that evaluates the "
                "loss itself is given no gradients"
            )


def output_of(apply: Any, params: Any, model_state: Any, batch: Any) -> tuple[Any, Any]:
    """Return the output and the new state of a model, which may have none."""
    if model_state is None:
        return apply(params, batch), None
    output, new_state = apply(params, model_state, batch)
    return output, new_state


@contextlib.contextmanager
def told_of(batch: Any) -> Iterator[None]:
    """Say what the batch is where the user's functions look for something else in it."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        shapes = jax.tree.map(np.shape, batch)
        error.add_note(f"raised in your forward pass or loss, whose batch is {shapes!r} (shapes)")
        raise
