"""The JAX side of a recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_port as jp

from ...engine import leaf_paths, leaf_states
from ...optim import sgd
from ._flavours import FLAVOURS, Flavour
from ._loops import PortLoop
from ._recipes import Recipe
from ._spelled import Factory, plain_optax_sgd


class Evaluation(NamedTuple):
    """Output, loss and gradients of a batch."""

    output: jax.Array
    loss: jax.Array
    grads: Any


def evaluator(flavour: Flavour) -> Callable[..., Evaluation]:
    """Return the compiled forward and backward pass of all recipes."""

    def cross_entropy(output: jax.Array, labels: jax.Array) -> jax.Array:
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(output, labels)
        return losses.mean()

    @jax.jit
    def evaluate(
        params: Any, images: jax.Array, labels: jax.Array, output_as_cotangent: bool
    ) -> Evaluation:
        output, backward = jax.vjp(lambda p: flavour.apply(p, images), params)
        loss, cotangent = jax.lax.cond(
            output_as_cotangent,
            lambda: (0.5 * jnp.sum(output**2), output),
            lambda: jax.value_and_grad(cross_entropy)(output, labels),
        )
        return Evaluation(output, loss, backward(cotangent)[0])

    return evaluate


class Models:
    """The model in the dtype of a run and in float64, compiled once for all recipes."""

    def __init__(self, own: Flavour, exact: Flavour) -> None:
        self.like, self.like_exact = own.like, exact.like
        self.apply = jax.jit(own.apply)
        self.evaluate, self.evaluate_exact = evaluator(own), evaluator(exact)


@functools.lru_cache(maxsize=4)
def models_of(flax: str, dtype: str) -> Models:
    """Return the models of one of Flax's APIs: ``"nnx"`` or ``"linen"``."""
    with jax.enable_x64(True):
        return Models(FLAVOURS[flax](jnp.dtype(dtype)), FLAVOURS[flax](jnp.dtype("float64")))


class Port:
    """The CapWords spelling, stepped by ``jp.step``."""

    def __init__(
        self, tx: jp.Optimizer, params: Any, loop: PortLoop, *, clips: bool = True
    ) -> None:
        self._tx = loop.clipping(tx) if clips else tx
        self.loop = loop
        self._start = (params, loop.begin(self._tx.init(params), params))
        self.params, self.state = self._start

    def restart(self) -> None:
        self.params, self.state = self._start

    def step(self, grads: Any, loss: float) -> None:
        self.params, state = jp.step(self._tx, grads, self.state, self.params)
        self.state = self.loop.after_step(state, self.params, loss)

    def rebuild(self, tx: jp.Optimizer) -> None:
        self._tx, self.state = tx, tx.init(self.params)

    def momentum_buffers(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the buffers that have begun, by path."""
        return {
            path: np.asarray(state["momentum_buffer"])
            for path, state in leaf_states(self.state).items()
            if state.get("has_momentum_buffer", False)
        }


class Literal:
    """Optax's literal spelling, with this library's sgd or what plain Optax has."""

    def __init__(self, recipe: Recipe, params: Any, sgd: Factory) -> None:
        self._spelled, self._sgd = recipe.spelled, sgd
        self._compile(recipe.spelled.make(sgd))
        self._start = (params, self._tx.init(params))
        self.params, self.state = self._start

    def restart(self) -> None:
        self.params, self.state = self._start

    def _compile(self, tx: optax.GradientTransformation) -> None:
        self._tx = tx

        @jax.jit
        def step(grads: Any, state: Any, params: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._step = step

    def step(self, grads: Any) -> None:
        self.params, self.state = self._step(grads, self.state, self.params)

    def follow(self, options: Iterable[Mapping[str, Any]]) -> None:
        """Take over the numbers of the recipe's groups."""
        for label, numbers in zip(self._spelled.options, options, strict=True):
            hyperparams = self.state.inner_states[label].inner_state.hyperparams
            for name in ("lr", "momentum"):
                hyperparams[name] = jnp.asarray(numbers[name], hyperparams[name].dtype)

    def change(self) -> None:
        tx, self.state = self._spelled.changed(self._sgd, self._tx, self.state, self.params)
        if tx is not self._tx:
            self._compile(tx)


def literal(recipe: Recipe, params: Any) -> Literal:
    return Literal(recipe, params, sgd)


def plain_optax(recipe: Recipe, params: Any) -> Literal:
    return Literal(recipe, params, plain_optax_sgd)


def arrays(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return a tree's leaves as NumPy arrays, by path."""
    return {path: np.asarray(leaf) for path, leaf in leaf_paths(tree)}
