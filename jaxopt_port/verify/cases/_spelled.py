"""Optax's literal spelling of a recipe, ``multi_transform`` of ``inject_hyperparams``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxopt_port as jp

from ...engine import leaf_paths
from ..comparison import JaxSide, applied
from ._recipes import Recipe

Factory = Callable[..., optax.GradientTransformation]


def spelled(recipe: Recipe, side: JaxSide, sgd: Factory) -> JaxSide:
    """Return a recipe's JAX side with another optimizer: this spelling of a factory's.

    Args:
        recipe: the recipe.
        side: its side in the CapWords spelling.
        sgd: with torch's names for its options.
    """
    rest = next((i for i, group in enumerate(recipe.groups) if group["params"] is jp.REST), 0)

    def label(path: str) -> str:
        for i, group in enumerate(recipe.groups):
            places = group["params"]
            named = [places] if isinstance(places, str) else places if i != rest else []
            if any(path.startswith(f"{place}/") for place in named):
                return str(i)
        return str(rest)

    def labels(params: Any) -> Any:
        each = [label(path) for path, _ in leaf_paths(params)]
        return jax.tree.unflatten(jax.tree.structure(params), each)

    inner = {
        str(i): optax.inject_hyperparams(sgd)(**options)
        for i, options in enumerate(recipe.options())
    }
    tx = optax.multi_transform(inner, labels)

    def change(state: Any, params: Any) -> Any:
        return with_numbers(tx.init(params) if recipe.rebuilt else state, recipe.change)

    return dataclasses.replace(
        side,
        tx=tx,
        step=applied,
        scheduler=None,  # Optax has none: its numbers are those of `side`
        changes=dict.fromkeys(side.changes, change),
    )


def with_numbers(state: Any, numbers: Sequence[Mapping[str, Any]]) -> Any:
    """Return the state of such a transformation with new numbers of each label."""
    inner = dict(state.inner_states)
    for label, new in enumerate(numbers):
        masked = inner[str(label)]
        held = masked.inner_state.hyperparams
        values = {k: jnp.asarray(v, held[k].dtype) for k, v in new.items() if k in held}
        injected = masked.inner_state._replace(hyperparams={**held, **values})
        inner[str(label)] = masked._replace(inner_state=injected)
    return state._replace(inner_states=inner)


def plain_optax_sgd(
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Return what one would write by hand in Optax, which has no dampening."""
    del dampening
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(lr, momentum=momentum, nesterov=nesterov),
    )
