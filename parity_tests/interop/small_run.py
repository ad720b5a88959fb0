"""A small run of this library's: two groups of Adam after a step."""

import jax.numpy as jnp
import numpy as np

import jaxopt_port as jp
from jaxopt_port.interop import Checkpoint

PARAMS = {"a": jnp.ones(2), "b": jnp.ones((3, 2))}
TX = jp.Adam([{"params": "a", "lr": 0.5}, {"params": jp.REST}])


def checkpoint() -> Checkpoint:
    _, state = jp.step(TX, PARAMS, TX.init(PARAMS), PARAMS)
    params = {name: np.asarray(leaf) for name, leaf in PARAMS.items()}
    return Checkpoint(params, jp.state_dict(TX, state, PARAMS), layout="jax", extra={"epoch": 3})
