"""A rule with all that is static about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from ._rule import Rule

Static: TypeAlias = tuple[tuple[str, Any], ...]


class Program(NamedTuple):
    """A rule with all that is static about it.

    Attributes:
        rule: the update rule.
        static: its static arguments.
        holds: the names of the state it needs, or None for all of it.
    """

    rule: Rule[Any]
    static: Static
    holds: frozenset[str] | None

    def _held(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in state.items() if self.holds is None or k in self.holds}

    def init_leaf(self, param: jax.Array, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of one leaf, complex where the leaf is."""
        state = self.rule.init(as_real(param), **numbers, **dict(self.static))
        held: dict[str, Any] = as_complex(self._held(state), param)
        return held

    def names(self, numbers: Mapping[str, Any]) -> list[str]:
        """Return what a leaf's state may consist of, whatever the parameters are."""
        found: dict[str, None] = {}
        for shape in ((), (1, 1)):
            leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
            found |= dict.fromkeys(jax.eval_shape(self.init_leaf, leaf, numbers))
        return list(found)

    def start(self, numbers: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Return what a group's leaves share."""
        state = self._held(self.rule.start(**numbers, **dict(self.static)))
        return {name: _narrow(jnp.asarray(value)) for name, value in state.items()}

    def advance(
        self,
        shared: dict[str, jax.Array],
        numbers: Mapping[str, Any],
        sums: Mapping[str, jax.Array],
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        after, scalars = self.rule.advance(shared, **numbers, **sums, **dict(self.static))
        return {k: jnp.asarray(v, shared[k].dtype) for k, v in after.items()}, scalars


def _narrow(x: jax.Array) -> jax.Array:
    """Return a scalar in a type that survives where x64 is off."""
    return x.astype({"float64": jnp.float32, "int64": jnp.int32}.get(x.dtype.name, x.dtype))


def as_real(tree: Any) -> Any:
    """View complex arrays as real, as ``torch.viewas_real`` does: parts in a new last axis."""

    def view(x: jax.Array) -> jax.Array:
        return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x

    return jax.tree.map(view, tree)


def as_complex(tree: Any, param: jax.Array) -> Any:
    """Undo `as_real` for a complex ``param``."""
    if not jnp.iscomplexobj(param):
        return tree
    return jax.tree.map(lambda x: lax.complex(x[..., 0], x[..., 1]), tree)
