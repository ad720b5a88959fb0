"""LeNet, the network of the torch optimizer tutorial, in Flax NNX and in Flax Linen.

Parameter paths carry torch's indices: ``features/0/kernel`` is torch's ``features.0.weight``.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from ._convolution import conv_general_dilated, max_pool_2x2

_IMAGE_SHAPE = (3, 32, 32)


class LeNet(nnx.Module):
    """LeNet in Flax NNX.

    The counterpart of torch's ``features = Sequential(Conv2d(3, 6, 5), ReLU(), MaxPool2d(2),
    Conv2d(6, 16, 5), ReLU(), MaxPool2d(2))`` and ``classifier = Sequential(Linear(400, 120),
    ReLU(), Linear(120, 84), ReLU(), Linear(84, 10))``, with torch's default initialisation (its
    distribution, not its random numbers).

    Args:
        param_dtype: dtype of the parameters. Flax computes in the wider of this and the images'.
        rngs: ``nnx.Rngs`` with a ``params`` stream.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> model = LeNet(rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((2, 3, 32, 32))).shape
        (2, 10)
    """

    def __init__(self, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        def conv(c_in: int, c_out: int) -> nnx.Conv:
            return nnx.Conv(c_in, c_out, rngs=rngs, **_conv_options(c_in, param_dtype))

        def linear(n_in: int, n_out: int) -> nnx.Linear:
            return nnx.Linear(n_in, n_out, rngs=rngs, **_initializers(n_in, param_dtype))

        # An nnx.List names its modules by position, counting the functions between them.
        self.features: nnx.List[Any] = nnx.List(
            [conv(3, 6), nnx.relu, max_pool_2x2, conv(6, 16), nnx.relu, max_pool_2x2]
        )
        self.classifier: nnx.List[Any] = nnx.List(
            [linear(400, 120), nnx.relu, linear(120, 84), nnx.relu, linear(84, 10)]
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify images.

        Args:
            images: (N, 3, 32, 32), torch's layout.

        Returns:
            Logits, (N, 10).

        Raises:
            ValueError: the images have another shape.
        """
        x = _to_nhwc(images)
        for layer in self.features:
            x = layer(x)
        x = _flatten_as_torch(x)
        for layer in self.classifier:
            x = layer(x)
        return x


class LinenLeNet(nn.Module):
    """LeNet in Flax Linen: `LeNet` with the same paths below ``params``.

    Attributes:
        param_dtype: dtype of the parameters. Flax computes in the wider of this and the images'.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model = LinenLeNet()
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 3, 32, 32)))
        >>> variables["params"]["features"]["0"]["kernel"].shape
        (5, 5, 3, 6)
    """

    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify images.

        Args:
            images: (N, 3, 32, 32), torch's layout.

        Returns:
            Logits, (N, 10).

        Raises:
            ValueError: the images have another shape.
        """
        x = _LinenFeatures(self.param_dtype, name="features")(_to_nhwc(images))
        return _LinenClassifier(self.param_dtype, name="classifier")(_flatten_as_torch(x))


class _LinenFeatures(nn.Module):
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(6, name="0", **_conv_options(3, self.param_dtype))(x)
        x = max_pool_2x2(nn.relu(x))
        x = nn.Conv(16, name="3", **_conv_options(6, self.param_dtype))(x)
        x = max_pool_2x2(nn.relu(x))
        return x


class _LinenClassifier(nn.Module):
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(120, name="0", **_initializers(400, self.param_dtype))(x))
        x = nn.relu(nn.Dense(84, name="2", **_initializers(120, self.param_dtype))(x))
        return nn.Dense(10, name="4", **_initializers(84, self.param_dtype))(x)


def _conv_options(c_in: int, param_dtype: DTypeLike) -> dict[str, Any]:
    return {
        "kernel_size": (5, 5),
        "padding": "VALID",
        "conv_general_dilated": conv_general_dilated,
        **_initializers(25 * c_in, param_dtype),
    }


def _initializers(fan_in: int, param_dtype: DTypeLike) -> dict[str, Any]:
    """What torch's Conv2d and Linear start from: its kaiming_uniform(a=sqrt(5)), worked out."""
    bound = fan_in**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        # The same numbers as of `shape`, whose program takes XLA three times as long to compile.
        flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
        return flat.reshape(shape)

    return {"param_dtype": param_dtype, "kernel_init": uniform, "bias_init": uniform}


def _to_nhwc(images: jax.Array) -> jax.Array:
    if images.ndim != 4 or images.shape[1:] != _IMAGE_SHAPE:
        raise ValueError(f"LeNet takes images of shape (N, 3, 32, 32); got {images.shape}.")
    return images.transpose(0, 2, 3, 1)


def _flatten_as_torch(x: jax.Array) -> jax.Array:
    # In the order C, H, W, so that the first Linear's kernel is a plain transpose of torch's.
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
