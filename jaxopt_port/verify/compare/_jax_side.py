"""What a user says of the JAX side of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import optax

import jaxopt_port as jp

if TYPE_CHECKING:
    from flax import linen, nnx


@dataclass(frozen=True, kw_only=True)
class JaxSide:
    """The training in JAX: functions of parameters and a batch, and an Optax transformation.

    `nnx_side` and `linen_side` make one of a Flax model.

    Raises:
        TypeError: ``tx`` is no transformation.

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
        step: ``step(tx, grads, state, params) -> (params, state)``; `jp.step`, which is `tx.update`
            and `optax.apply_updates`, by default.
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
    step: Callable[..., Any] = jp.step
    imports: bool = True
    like: Any = field(default=None, repr=False)
    flax_module: Any = field(default=None, repr=False)
    inputs: Sequence[Any] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not (hasattr(self.tx, "init") and hasattr(self.tx, "update")):
            name = getattr(self.tx, "__name__", "")
            hint = f"; call it: tx={name}(…)" if callable(self.tx) and name else ""
            raise TypeError(
                f"tx must be an optax.GradientTransformation, got {name or type(self.tx).__name__}"
                f"{hint}"
            )


def nnx_side(
    model: nnx.Module,
    *,
    tx: optax.GradientTransformation,
    loss: Callable[[Any, Any], jax.Array],
    forward: Callable[[Any, Any], Any] | None = None,
    wrt: Any = None,
    **rest: Any,
) -> JaxSide:
    """Return the JAX side of an NNX model.

    Args:
        model: the model; it is left as it is. What its forward pass changes (running statistics,
            counts of random streams) is its state.
        tx: the optimizer.
        loss: ``loss(output, batch) -> scalar``.
        forward: ``forward(model, batch) -> output``; ``model(batch[0])`` by default.
        wrt: which variables are trained; ``nnx.Param`` by default.
        **rest: other arguments of `JaxSide`.

    Example:
        >>> from flax import nnx
        >>> side = nnx_side(
        ...     nnx.Linear(3, 1, rngs=nnx.Rngs(0)),
        ...     tx=optax.sgd(0.1),
        ...     loss=lambda output, batch: ((output - batch[1]) ** 2).mean(),
        ... )
        >>> sorted(side.params)
        ['bias', 'kernel']
    """
    from flax import nnx

    wrt = nnx.Param if wrt is None else wrt
    graph, params, *rest_of = nnx.split(model, wrt, ...)
    (others,) = rest_of
    changes = bool(jax.tree.leaves(others))
    apply = _nnx_apply(graph, forward, wrt if changes else None)
    return JaxSide(
        apply=apply,
        params=nnx.as_pure(params),
        tx=tx,
        loss=loss,
        model_state=nnx.as_pure(others) if changes else None,
        **{"like": model, **rest},
    )


# A program is compiled once for each `apply`: models of the same graph share one.
_APPLIES: dict[Any, Callable[..., Any]] = {}
_MOST_APPLIES = 32


def _nnx_apply(graph: Any, forward: Any, wrt: Any) -> Callable[..., Any]:
    """Return ``apply``; ``wrt``: what is trained, where there is more than that, or None."""
    from flax import nnx

    key = (graph, forward, wrt)
    if key in _APPLIES:
        return _APPLIES[key]

    def call(model: Any, batch: Any) -> Any:
        return model(batch[0]) if forward is None else forward(model, batch)

    def apply(params: Any, batch: Any) -> Any:
        return call(nnx.merge(graph, params), batch)

    def apply_with_state(params: Any, others: Any, batch: Any) -> Any:
        model = nnx.merge(graph, params, others)
        output = call(model, batch)
        return output, nnx.as_pure(nnx.state(model, nnx.Not(wrt)))

    if len(_APPLIES) >= _MOST_APPLIES:
        del _APPLIES[next(iter(_APPLIES))]
    _APPLIES[key] = apply if wrt is None else apply_with_state
    return _APPLIES[key]


def linen_side(
    module: linen.Module,
    variables: Mapping[str, Any],
    *,
    tx: optax.GradientTransformation,
    loss: Callable[[Any, Any], jax.Array],
    forward: Callable[..., Any] | None = None,
    inputs: Sequence[Any] = (),
    **rest: Any,
) -> JaxSide:
    """Return the JAX side of a Linen model.

    Args:
        module: the module.
        variables: from ``module.init``; collections besides ``"params"`` are its state.
        tx: the optimizer.
        loss: ``loss(output, batch) -> scalar``.
        forward: ``forward(variables, batch)``, which returns what ``module.apply`` does, with
            ``mutable`` if there is more than ``"params"``; by default that of ``batch[0]``.
        inputs: arguments of the module's call, where its layers should be compared with torch's.
        **rest: other arguments of `JaxSide`.

    Raises:
        ValueError: ``variables`` has no ``"params"``.

    Example:
        >>> from flax import linen
        >>> import jax.numpy as jnp
        >>> module = linen.Dense(1)
        >>> side = linen_side(
        ...     module,
        ...     module.init(jax.random.key(0), jnp.ones((2, 3))),
        ...     tx=optax.sgd(0.1),
        ...     loss=lambda output, batch: ((output - batch[1]) ** 2).mean(),
        ... )
        >>> sorted(side.params)
        ['bias', 'kernel']
    """
    if "params" not in variables:
        raise ValueError(
            f'variables has no "params", only {sorted(variables)}; give what module.init returned'
        )
    others = {name: tree for name, tree in variables.items() if name != "params"}
    mutable = sorted(others)

    def apply(params: Any, batch: Any) -> Any:
        if forward is not None:
            return forward({"params": params}, batch)
        return module.apply({"params": params}, batch[0])

    def apply_with_state(params: Any, others: Any, batch: Any) -> Any:
        full = {"params": params, **others}
        if forward is not None:
            return forward(full, batch)
        return module.apply(full, batch[0], mutable=mutable)

    return JaxSide(
        apply=apply_with_state if others else apply,
        params=variables["params"],
        tx=tx,
        loss=loss,
        model_state=others or None,
        **{"like": variables, "flax_module": module, "inputs": inputs, **rest},
    )
