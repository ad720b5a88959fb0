"""Optax's literal spelling of a recipe: ``multi_transform`` of ``inject_hyperparams``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...engine import leaf_paths

Factory = Callable[..., optax.GradientTransformation]


@dataclass(frozen=True)
class Spelled:
    """A recipe in Optax's literal spelling.

    Attributes:
        options: of each label.
        label: of a parameter, by its path.
        change: the labels' new numbers at the change.
        rebuild: whether the change makes a new optimizer.
    """

    options: Mapping[str, Mapping[str, Any]]
    label: Callable[[str], str]
    change: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rebuild: bool = False

    def make(self, sgd: Factory) -> optax.GradientTransformation:
        def labels(params: Any) -> Any:
            each = [self.label(path) for path, _ in leaf_paths(params)]
            return jax.tree.unflatten(jax.tree.structure(params), each)

        return optax.multi_transform(
            {label: optax.inject_hyperparams(sgd)(**o) for label, o in self.options.items()}, labels
        )

    def changed(
        self, sgd: Factory, tx: optax.GradientTransformation, state: Any, params: Any
    ) -> tuple[optax.GradientTransformation, Any]:
        if self.rebuild:
            options = {k: {**o, **self.change.get(k, {})} for k, o in self.options.items()}
            tx = Spelled(options, self.label).make(sgd)
            return tx, tx.init(params)
        for label, numbers in self.change.items():
            hyperparams = state.inner_states[label].inner_state.hyperparams
            for name, value in numbers.items():
                hyperparams[name] = jnp.asarray(value, hyperparams[name].dtype)
        return tx, state


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
