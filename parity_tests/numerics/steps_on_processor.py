"""Takes steps in every kind of program, in a process of its own.

NumPy puts the arrays in place: of each operation of JAX's own a program would be compiled.

``python -m parity_tests.numerics.steps_on_processor OUT CASES``: the cases by JSON, the
results as an .npz file, by case, kind of program and shape.
"""

import functools
import json
import sys

import jax
import numpy as np
from jax import lax

import jaxopt_port as jp
from parity_tests.numerics.drawn_steps import drawn, named

# As many leaves in one program: LLVM makes other loops of larger ones.
BATCH = 4


def eager(tx, params, grads):
    state = jax.jit(tx.init)(params)
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
    return params


def scanned(tx, params, grads):
    def body(carry, grad):
        return jp.step(tx, grad, carry[1], carry[0]), None

    stacked = jax.tree.map(lambda *xs: np.stack(xs), *grads)
    return jax.jit(lambda p, g: lax.scan(body, (p, tx.init(p)), g)[0][0])(params, stacked)


def mapped(tx, params, grads):
    """The second of three runs side by side; the others have other gradients."""

    def both(x):
        return np.stack([x * 3, x, -x])

    step = jax.jit(jax.vmap(functools.partial(jp.step, tx)))
    many = jax.tree.map(both, params)
    state = jax.jit(jax.vmap(tx.init))(many)
    for grad in grads:
        many, state = step(jax.tree.map(both, grad), state, many)
    return jax.tree.map(lambda x: np.asarray(x)[1], many)


def split(layout, tx, params, grads):
    from parity_tests.sharding.layouts import LAYOUTS

    shardings, over = LAYOUTS[layout]({k: v.shape for k, v in params.items()})
    params = jax.device_put(params, shardings)
    of_state = jp.state_shardings(tx, params, over=over)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    step = jax.jit(lambda p, s, g: jp.step(tx, g, s, p), out_shardings=(shardings, of_state))
    for grad in grads:
        params, state = step(params, state, jax.device_put(grad, shardings))
    return params


def results(case):
    tx = getattr(jp, case["optimizer"])(**case["options"])
    on_one = {"eager": eager, "scan": scanned, "vmap": mapped}
    for shapes, kinds in (
        (case["shapes"], {k: on_one[k] for k in case["programs"]}),
        (case["split"], {k: functools.partial(split, k) for k in case["layouts"]}),
    ):
        for begin in range(0, len(shapes), BATCH):
            params, grads = drawn(shapes[begin : begin + BATCH])
            for kind, run in kinds.items():
                for shape, array in run(tx, params, grads).items():
                    yield f"{named(case)}|{kind}|{shape}", np.asarray(array)


if __name__ == "__main__":
    out, cases = sys.argv[1:]
    np.savez(out, **dict(r for case in json.loads(cases) for r in results(case)))
