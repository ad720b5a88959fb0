"""The Flax LeNet as a tree of parameters and a function of it, in NNX and in Linen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from ..._compat import as_pure
from ...models.lenet import LeNet, LinenLeNet


class Flavour(NamedTuple):
    """A model of one of Flax's two APIs.

    Attributes:
        like: the parameters' structure, shapes and dtypes, without values.
        apply: parameters and images of shape (N, 3, 32, 32) to outputs of shape (N, 10).
    """

    like: Any
    apply: Callable[[Any, jax.Array], jax.Array]


def _nnx(dtype: Any) -> Flavour:
    model = nnx.eval_shape(lambda: LeNet(param_dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    return Flavour(as_pure(state), lambda params, images: nnx.merge(graph, params)(images))


def _linen(dtype: Any) -> Flavour:
    model = LinenLeNet(param_dtype=dtype)
    images = jax.ShapeDtypeStruct((1, 3, 32, 32), dtype)
    like = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def apply(params: Any, images: jax.Array) -> jax.Array:
        output = model.apply({"params": params}, images)
        assert isinstance(output, jax.Array)  # a tuple only where collections are mutable
        return output

    return Flavour(like, apply)


FLAVOURS: dict[str, Callable[[Any], Flavour]] = {"nnx": _nnx, "linen": _linen}
