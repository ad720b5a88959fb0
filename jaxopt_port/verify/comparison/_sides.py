"""JAX sides of the models of Flax and of Equinox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_port as jp

from ..._compat import as_pure
from ._jax_side import JaxSide

if TYPE_CHECKING:
    import equinox
    from flax import linen, nnx


def nnx_side(
    model: nnx.Module,
    *,
    tx: optax.GradientTransformation | nnx.Optimizer[Any],
    loss: Callable[[Any, Any], jax.Array],
    forward: Callable[[Any, Any], Any] | None = None,
    wrt: Any = None,
    **rest: Any,
) -> JaxSide:
    """Return the JAX side of an NNX model.

    Args:
        model: the model; it is left as it is. What its forward pass changes (running statistics,
            counts of random streams) is its state.
        tx: the optimizer; or an ``nnx.Optimizer``, Flax's or `jaxopt_port.flax.Optimizer`, of the
            model, whose transformation, state and ``wrt`` are taken.
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

    from ...flax import Optimizer

    if isinstance(model, type):
        raise TypeError(
            f"model must be a model, got the class {model.__name__}; make one: "
            f"{model.__name__}(…, rngs=nnx.Rngs(0))"
        )
    if isinstance(tx, nnx.Optimizer):
        wrt = tx.wrt if wrt is None else wrt
        kinds = [nnx.Optimizer, Optimizer, getattr(nnx, "ModelAndOptimizer", nnx.Optimizer)]
        if "step" not in rest:
            _refuse_own(tx, "update", kinds)
        trained = nnx.state(model, tx.wrt)
        rest = {**_optimizer(tx.tx, trained, tx.opt_state, isinstance(tx, Optimizer)), **rest}
        tx = rest.pop("tx")
    wrt = nnx.Param if wrt is None else wrt
    graph, params, *rest_of = nnx.split(model, wrt, ...)
    (others,) = rest_of
    changes = bool(jax.tree.leaves(others))
    apply = _nnx_apply(graph, forward, wrt if changes else None)
    return JaxSide(
        apply=apply,
        params=as_pure(params),
        tx=tx,
        loss=loss,
        model_state=as_pure(others) if changes else None,
        **{"like": model, **rest},
    )


def _refuse_own(held: Any, name: str, kinds: Sequence[type]) -> None:
    """Refuse an object whose step is none of these classes'."""
    if getattr(type(held), name) not in [getattr(kind, name) for kind in kinds]:
        raise TypeError(
            f"{type(held).__name__} has {name} of its own; say what it does by step=, a function "
            "of (tx, grads, state, params) that returns (params, state)"
        )


def _optimizer(tx: Any, params: Any, state: Any, ours: bool) -> dict[str, Any]:
    """Return arguments of `JaxSide` for an optimizer within one of Flax's objects.

    A state that is as it was made is made again, of torch's parameters: it may hold copies of them.

    Args:
        tx: its transformation.
        params: what it was made for.
        state: its state.
        ours: whether its step is `jp.step`.
    """
    step = jp.step if ours else applied
    state = as_pure(state)
    is_new = _same(_arrays(as_pure(tx.init(params))), _arrays(state))
    return {"tx": tx, "state": None if is_new else state, "step": step}


def _arrays(tree: Any) -> list[np.ndarray[Any, Any]]:
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [np.asarray(x) for x in leaves]


def _same(made: Sequence[np.ndarray[Any, Any]], held: Sequence[np.ndarray[Any, Any]]) -> bool:
    """Whether a state is as it was made, but for the rounding of another program."""

    def alike(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            return np.array_equal(a, b)
        a, b = a.astype(np.complex128), b.astype(np.complex128)
        return np.allclose(a, b, rtol=_ROUNDED, atol=0.0, equal_nan=True)

    return len(made) == len(held) and all(map(alike, made, held))


_ROUNDED = 1e-6


def applied(tx: Any, grads: Any, state: Any, params: Any) -> Any:
    """Take a step as Optax's own loop does."""
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def _nnx_apply(graph: Any, forward: Any, wrt: Any) -> Callable[..., Any]:
    """Return ``apply``; ``wrt``: what is trained, where there is more than that, or None."""
    from flax import nnx

    def call(model: Any, batch: Any) -> Any:
        return model(batch[0]) if forward is None else forward(model, batch)

    def apply(params: Any, batch: Any) -> Any:
        return call(nnx.merge(graph, params), batch)

    def apply_with_state(params: Any, others: Any, batch: Any) -> Any:
        model = nnx.merge(graph, params, others)
        output = call(model, batch)
        return output, as_pure(nnx.state(model, nnx.Not(wrt)))

    return apply if wrt is None else apply_with_state


def linen_side(
    module: linen.Module,
    variables: Any,
    *,
    tx: optax.GradientTransformation | None = None,
    loss: Callable[[Any, Any], jax.Array],
    forward: Callable[..., Any] | None = None,
    inputs: Sequence[Any] = (),
    **rest: Any,
) -> JaxSide:
    """Return the JAX side of a Linen model.

    Args:
        module: the module.
        variables: from ``module.init``; collections besides ``"params"`` are its state. Or a
            ``TrainState``, Flax's or `jaxopt_port.flax.TrainState`, and no ``tx``.
        tx: the optimizer.
        loss: ``loss(output, batch) -> scalar``.
        forward: ``forward(variables, batch)``, which returns what ``module.apply`` does, with
            ``mutable`` if there is more than ``"params"``; by default that of ``batch[0]``.
        inputs: arguments of the module's call, where its layers should be compared with torch's.
        **rest: other arguments of `JaxSide`.

    Raises:
        ValueError: ``variables`` has no ``"params"``.
        TypeError: there is no ``tx``, or one beside a ``TrainState``.

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
    from flax.training import train_state

    from ...flax import TrainState

    if hasattr(variables, "apply_gradients"):
        if tx is not None:
            raise TypeError("a TrainState has its optimizer: give no tx beside it")
        made, ours = variables, type(variables).apply_gradients is TrainState.apply_gradients
        if not ours and "step" not in rest:
            _refuse_own(made, "apply_gradients", [train_state.TrainState])
        rest = {**_optimizer(made.tx, made.params, made.opt_state, ours), **rest}
        tx = rest.pop("tx")
        stats = getattr(made, "batch_stats", None)
        others = {} if stats is None else {"batch_stats": stats}
        variables = {"params": made.params, **others}
    if tx is None:
        raise TypeError("linen_side() needs tx, or a TrainState that has one")
    if "params" not in variables:
        raise ValueError(
            f'variables has no "params", only {sorted(variables)}; give what module.init returned'
        )
    if hasattr(inputs, "shape"):
        raise TypeError("inputs are the arguments of the module's call: inputs=(x,), a tuple")
    others = {name: tree for name, tree in variables.items() if name != "params"}
    mutable = sorted(others)

    def apply(params: Any, batch: Any) -> Any:
        if forward is not None:
            return forward({"params": params}, batch)
        return module.apply({"params": params}, batch[0])

    def apply_with_state(params: Any, others: Any, batch: Any) -> Any:
        full = {"params": params, **others}
        if forward is None:
            return module.apply(full, batch[0], mutable=mutable)
        made = forward(full, batch)
        if not (
            isinstance(made, (tuple, list)) and len(made) == 2 and isinstance(made[1], Mapping)
        ):
            raise TypeError(
                f"forward must return the output and the new {', '.join(mutable)}, as "
                f"module.apply(variables, x, mutable={mutable}) does"
            )
        return made

    return JaxSide(
        apply=apply_with_state if others else apply,
        params=variables["params"],
        tx=tx,
        loss=loss,
        model_state=others or None,
        **{"like": variables, "flax_module": module, "inputs": inputs, **rest},
    )


def equinox_side(
    model: equinox.Module,
    *,
    tx: optax.GradientTransformation,
    loss: Callable[[Any, Any], jax.Array],
    forward: Callable[[Any, Any], Any] | None = None,
    **rest: Any,
) -> JaxSide:
    """Return the JAX side of an Equinox model without state (no `equinox.nn.BatchNorm`).

    Args:
        model: the model; its floating arrays are trained.
        tx: the optimizer.
        loss: ``loss(output, batch) -> scalar``.
        forward: ``forward(model, batch) -> output``; ``jax.vmap(model)(batch[0])`` by default.
        **rest: other arguments of `JaxSide`.

    Raises:
        TypeError: ``model`` is no Equinox module.
        ValueError: a layer of it has a state.

    Example:
        >>> import equinox as eqx
        >>> side = equinox_side(
        ...     eqx.nn.Linear(3, 1, key=jax.random.key(0)),
        ...     tx=optax.sgd(0.1),
        ...     loss=lambda output, batch: ((output - batch[1]) ** 2).mean(),
        ... )
        >>> side.params.weight.shape
        (1, 3)
    """
    import equinox as eqx

    if not isinstance(model, eqx.Module):
        name = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"equinox_side() takes an equinox.Module, got {name}")
    stateful = eqx.nn.StateIndex
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, stateful))
    if any(isinstance(node, stateful) for node in nodes):
        raise ValueError(
            "a layer of the model has a state (BatchNorm, SpectralNorm): write the side as "
            "JaxSide(apply=…, model_state=…), with the running statistics as a tree of arrays"
        )
    params, others = eqx.partition(model, eqx.is_inexact_array)

    def apply(params: Any, batch: Any) -> Any:
        whole = eqx.combine(params, others)
        return jax.vmap(whole)(batch[0]) if forward is None else forward(whole, batch)

    return JaxSide(apply=apply, params=params, tx=tx, loss=loss, **rest)
