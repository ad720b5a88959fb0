"""Linear layers in plain JAX, of which many tests' networks are made, and a loss of both sides."""

import jax.numpy as jnp


def zeros(inputs, outputs):
    """The parameters of a layer before those of torch are imported."""
    return {"kernel": jnp.zeros((inputs, outputs)), "bias": jnp.zeros(outputs)}


def layer(params, x):
    return x @ params["kernel"] + params["bias"]


def one_layer(params, batch):
    return layer(params, batch[0])


def mean_square(output, batch):
    """In torch and in JAX."""
    return ((output - batch[1]) ** 2).mean()
