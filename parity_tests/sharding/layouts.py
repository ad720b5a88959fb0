"""Optimizers whose parameters are split over eight devices, and one device beside them."""

import functools
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp

OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.1, "amsgrad": True, "weight_decay": 0.01},
    "AdamW": {"lr": 0.1},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.9},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "Adadelta": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Rprop": {},
    "ASGD": {"t0": 2},
    "Adafactor": {"lr": 0.1, "weight_decay": 0.1},
    "Muon": {"lr": 0.1},
    "SparseAdam": {"lr": 0.1},
    "contrib.AdamW8bit": {"lr": 0.1},
    "contrib.Muon": {"lr": 0.1},
}
# A sum over elements is made in another order: the distance over the largest element.
SUMS = {"Adafactor": {np.float32: 1e-6, np.float64: 1e-12}}
# Of contrib, those that estimate a rate for all parameters together.
ESTIMATES = {"contrib.DAdaptAdam": {"d0": 1e-3}, "contrib.Prodigy": {"d0": 1e-3}}
# All else is leafwise, but that each device calculates Muon's whole matrix, that any may have
# the rows that SparseAdam's gradient names, that devices share a block of AdamW8bit's, and that
# estimates add up over all parameters.
WITH_COLLECTIVES = {"Adafactor", "Muon", "SparseAdam", "contrib.AdamW8bit", "contrib.Muon"}
WITH_COLLECTIVES |= ESTIMATES.keys()

SHAPES = {"kernel": (16, 8), "wide": (64, 128), "bias": (8,), "odd": (3, 5), "scalar": ()}
STEPS = 20


def mesh(kind=AxisType.Auto, shape=(8,), names=("data",)):
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def fsdp(shapes, kind=AxisType.Auto):
    split = {k: P("data") if s and s[0] % 8 == 0 else P() for k, s in shapes.items()}
    return {k: NamedSharding(mesh(kind), spec) for k, spec in split.items()}, ()


def tensor_parallel(shapes, kind=AxisType.Auto):
    def spec(shape):
        return P(*(None,) * (len(shape) - 1), "model") if shape and shape[-1] % 2 == 0 else P()

    grid = mesh(kind, (4, 2), ("data", "model"))
    return {k: NamedSharding(grid, spec(s)) for k, s in shapes.items()}, ()


def both(shapes, kind=AxisType.Auto):
    def spec(shape):
        if not shape or shape[-1] % 2:
            return P()
        return P("data", "model") if len(shape) == 2 else P(("data", "model"))

    grid = mesh(kind, (4, 2), ("data", "model"))
    return {k: NamedSharding(grid, spec(s)) for k, s in shapes.items()}, ()


def zero1(shapes, kind=AxisType.Auto):
    return {k: NamedSharding(mesh(kind), P()) for k in shapes}, ("data",)


LAYOUTS = {"fsdp": fsdp, "tensor parallel": tensor_parallel, "both": both, "zero-1": zero1}


def shapes_for(name):
    if name.endswith("Muon"):
        return {k: s for k, s in SHAPES.items() if len(s) == 2}
    return {k: s for k, s in SHAPES.items() if s} if name == "SparseAdam" else SHAPES


@functools.cache
def drawn(name, dtype):
    """Parameters, and gradients for each step."""
    rng = np.random.default_rng(0)
    shapes = shapes_for(name)

    def grad(shape):
        if name != "SparseAdam":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, shape[0], 3), rng.standard_normal((3, *shape[1:])).astype(dtype)

    params = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    return params, [{k: grad(s) for k, s in shapes.items()} for _ in range(STEPS)]


def collectives(compiled):
    kinds = r" (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\("
    return [(m[1], line) for line in compiled.splitlines() if (m := re.search(kinds, line))]


def optimizer(name):
    return operator.attrgetter(name)(jp)(**(OPTIONS | ESTIMATES)[name])


@functools.cache
def on_one_device(name, dtype):
    params, grads = drawn(name, dtype)
    tx = optimizer(name)
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
    return params, state


def on_eight(name, dtype, layout, kind=AxisType.Auto):
    """Return parameters, state, the state's shardings, and the compiled step."""
    params, grads = drawn(name, dtype)
    tx = optimizer(name)
    shardings, over = LAYOUTS[layout](shapes_for(name), kind)
    params = jax.device_put(params, shardings)
    of_state = jp.state_shardings(tx, params, over=over)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    step = jax.jit(
        lambda params, state, grads: jp.step(tx, grads, state, params),
        donate_argnums=(0, 1),
        out_shardings=(shardings, of_state),
    )
    if name != "SparseAdam":
        grads = [jax.device_put(grad, shardings) for grad in grads]
    compiled = step.lower(params, state, grads[0]).compile()
    for grad in grads:
        params, state = compiled(params, state, grad)
    return params, state, of_state, compiled.as_text()


def check_same(one, eight, name, dtype):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if name in SUMS:
            finite = np.isfinite(a)  # what an option left out is not
            bound = SUMS[name][dtype] * np.max(np.abs(a), where=finite, initial=0)
            np.testing.assert_allclose(b, a, rtol=0, atol=bound)
        else:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
