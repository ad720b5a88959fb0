"""A step of a small model in a process of its own: prints which program it had, and its result."""

import logging
import sys
import time

import jax
import jax.numpy as jnp

import jaxopt_port as jp

logging.basicConfig(format="%(levelname)s %(message)s")


def main(size=8):
    tx = jp.AdamW(lr=0.01)
    params = {"w": jnp.linspace(-1.0, 1.0, size)}
    state = tx.init(params)
    begun = time.perf_counter()
    step = jax.jit(lambda params, state, grads: jp.step(tx, grads, state, params))
    lowered = step.lower(params, state, params)
    new, _ = lowered.compile()(params, state, params)
    form = "kernel" if "custom_call @jaxopt_port_" in lowered.as_text() else "plain"
    print(form, new["w"].tobytes().hex()[:64], time.perf_counter() - begun)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
