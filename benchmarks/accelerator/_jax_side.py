"""JAX's answers: this library's and plain Optax's; imported in a worker of its own."""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxopt_port as jp
from jaxopt_port.flax import Optimizer
from jaxopt_port.numerics import torch_ops as ops

from ..speed import _flax_side as flax_side
from ..speed import _jax_side as speed
from ..speed._contender import Contender
from ..speed._data import STEPS_BEFORE_CHECK
from ..speed._networks import TRANSFORMER
from ..speed._shapes import elements, shapes_of
from ._data import FACTOR, MIDDLE, POOL, SCALE, SHIFT, Batch, checked, gradients, objective
from ._data import start as first
from ._primitives import BETAS, STEPS, W_FAR, W_NEAR, A, S, V, inputs

# XLA compiles without Python's lock, so several programs at once.
_POOL = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2))
_PROGRAMS: dict[int, Future[Any]] = {}
_MADE: dict[str, Future[Contender]] = {}


def start(threads: int) -> dict[str, Any]:
    """Return versions and facts of the device."""
    facts = speed.start(threads)
    (device, *_) = jax.devices()
    memory = device.memory_stats() or {}
    return facts | {
        "devices": len(jax.devices()),
        "platform_version": device.client.platform_version.splitlines()[0],
        "capability": getattr(device, "compute_capability", None),
        "memory": memory.get("bytes_limit"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


PLAIN: dict[str, Callable[..., Any]] = {
    "x.add(y, alpha=0.1)": lambda x, y, z: ops.add(x, y, alpha=A),
    "x.mul(0.1).add(y)": lambda x, y, z: ops.add(ops.mul(x, A), y),
    "x.lerp(y, 0.3)": lambda x, y, z: ops.lerp(x, y, W_NEAR),
    "x.lerp(y, 0.7)": lambda x, y, z: ops.lerp(x, y, W_FAR),
    "x.addcmul(y, z, value=v)": lambda x, y, z: ops.addcmul(x, y, z, value=V),
    "x.addcmul(y, z)": lambda x, y, z: ops.addcmul(x, y, z, value=1.0),
    "x.addcdiv(y, z, value=v)": lambda x, y, z: ops.addcdiv(x, y, z, value=V),
    "x.div(0.29)": lambda x, y, z: ops.div(x, S),
    "_foreach_div([x], [0.29])": lambda x, y, z: ops.div_each(x, S),
    "x.div(z)": lambda x, y, z: ops.div(x, z),
    "z.sqrt()": lambda x, y, z: ops.sqrt(z),
    "z.sqrt().div(0.29)": lambda x, y, z: ops.div(ops.sqrt(z), S),
    "z.rsqrt()": lambda x, y, z: ops.rsqrt(z),
    "z.reciprocal()": lambda x, y, z: ops.reciprocal(z),
    "x.norm()": lambda x, y, z: ops.norm(x),
}
LOW: dict[str, Callable[..., Any]] = {
    "bfloat16 x.add(y, alpha=0.1)": lambda x, y, z: ops.add(x, y, alpha=A),
    "bfloat16 x.mul(0.1)": lambda x, y, z: ops.mul(x, A),
}


def primitives() -> dict[str, Any]:
    """Return what each primitive gives, each in a program of its own."""
    made = {}
    for functions, given in ((PLAIN, inputs()), (LOW, inputs(low=True))):
        arrays = [jnp.asarray(v) for v in given]
        results = _POOL.map(
            lambda f, arrays=arrays: np.asarray(jax.jit(f)(*arrays)), functions.values()
        )
        made |= dict(zip(functions, results, strict=True))
    return made


def powers() -> Any:
    """Return ``beta ** step`` in float64, as a step calculates its bias corrections."""
    with jax.enable_x64(True):
        betas = jnp.asarray(BETAS, jnp.float64)[:, None]
        return np.asarray(jax.jit(lambda b, n: b**n)(betas, jnp.asarray(STEPS, jnp.float64)))


def matrix_products() -> dict[str, float]:
    """Return the relative error of a product of float32 matrices, as JAX comes and at its best."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)

    def error(precision: Any) -> float:
        made = np.asarray(jnp.matmul(a, b, precision=precision), np.float64)
        return float(np.linalg.norm(made - exact) / np.linalg.norm(exact))

    return {"jax, default": error("default"), "jax, highest": error("highest")}


def prepare(batches: list[Batch], first_number: int) -> None:
    """Begin to compile; `parity` waits for its batch."""
    for i, batch in enumerate(batches):
        _PROGRAMS[first_number + i] = _POOL.submit(_compiled, batch)


def _compiled(batch: Batch) -> tuple[Any, Any, dict[int, str]]:
    """Return a program of all items' steps, what it begins with, and the items left out."""
    transformations, params, states, refused = {}, {}, {}, {}
    for i, item in enumerate(batch.items):
        try:
            transformations[i] = getattr(jp, item.optimizer)(**item.options)
            params[i] = jax.tree.map(jnp.asarray, first(item.optimizer, batch.dtype))
            states[i] = transformations[i].init(params[i])
        except (TypeError, ValueError) as error:
            refused[i] = str(error).splitlines()[0]
            transformations.pop(i, None)

    def program(params: Any, states: Any, grads: Any) -> Any:
        made = {
            i: jp.step(tx, grads[batch.items[i].optimizer], states[i], params[i])
            for i, tx in transformations.items()
        }
        return {i: new for i, (new, _) in made.items()}, {i: s for i, (_, s) in made.items()}

    begin = ({i: params[i] for i in transformations}, states)
    compiled = jax.jit(program).lower(*begin, _gradients(batch, 0)).compile()
    return compiled, begin, refused


def _gradients(batch: Batch, step: int) -> dict[str, Any]:
    return {name: _of(name, step, batch.dtype) for name in {i.optimizer for i in batch.items}}


@functools.lru_cache(maxsize=32 * POOL)
def _of(optimizer: str, step: int, dtype: str) -> Any:
    if optimizer == "LBFGS":
        return jax.tree_util.Partial(objective)
    return jax.tree.map(jnp.asarray, gradients(optimizer, step, dtype))


def parity(number: int, batch: Batch, steps: tuple[int, ...]) -> tuple[dict[int, Any], Any]:
    """Return what `_torch_side.parity` does, by item, and why items are left out."""
    compiled, (params, states), refused = _PROGRAMS.pop(number).result()
    made: dict[int, dict[int, Any]] = {i: {} for i in params}
    for step in range(max(steps)):
        params, states = compiled(params, states, _gradients(batch, step % POOL))
        if step + 1 in steps:
            arrays = jax.device_get((params, {i: _leaves(s) for i, s in states.items()}))
            for i in made:
                made[i][step + 1] = (arrays[0][i], arrays[1][i])
    return made, refused


def _leaves(state: Any) -> dict[str, Any]:
    """Return the state by torch's name and by path; nothing where it is of another form."""
    leaves = getattr(state, "leaves", {})
    return {
        name: {k: v for k, v in tree.items() if isinstance(v, jax.Array)}
        for name, tree in leaves.items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _filled(shape: tuple[int, ...], seed: Any) -> jax.Array:
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32) + seed.astype(jnp.uint32)
    upper = (index * jnp.uint32(FACTOR)) >> SHIFT
    return ((upper.astype(jnp.float32) - MIDDLE) * jnp.float32(SCALE)).reshape(shape)


def prepare_contenders(suite: str, names: list[str], settings: dict[str, Any]) -> None:
    """Begin to make contenders, all at once; `make` waits for its own."""
    _MADE.clear()
    _MADE.update({name: _POOL.submit(_make, suite, name, settings) for name in names})


def make(suite: str, name: str, settings: dict[str, Any]) -> Contender:
    """Make a contender of the suites ``step`` and ``train``, or one that copies."""
    begun = _MADE.pop(name, None)
    return begun.result() if begun else _make(suite, name, settings)


def _make(suite: str, name: str, settings: dict[str, Any]) -> Contender:
    return _step(name, **settings) if suite == "step" else speed.make(suite, name, settings)


def _step(name: str, model: str, optimizer: str) -> Contender:
    shapes = shapes_of(model, optimizer)
    params = [_filled(shape, np.uint32(2 * i)) for i, shape in enumerate(shapes)]
    grads = [_filled(shape, np.uint32(2 * i + 1)) for i, shape in enumerate(shapes)]
    step, tx = speed._form(name.removeprefix("nnx.Optimizer, "), optimizer)
    if "Optimizer" in name:
        kind = nnx.Optimizer if name.startswith("nnx") else Optimizer
        model = flax_side.Leaves(params)
        call, now = flax_side.split_and_merged(model, kind(model, tx, wrt=nnx.Param), grads)
        del model
    else:
        call, held = speed._stepper(step, tx, params, grads)
        now = functools.partial(operator.getitem, held, 0)
    del params
    for _ in range(STEPS_BEFORE_CHECK):
        jax.block_until_ready(call())
    after = jax.tree.leaves(now()) if checked(elements(shapes)) else []
    check = [np.asarray(x).reshape(-1)[:64] for x in after]
    made_check = np.concatenate(check) if check else None
    return Contender([call], made_check, jax.block_until_ready, grads)


def resize(size: dict[str, int]) -> None:
    """Give the decoder that is trained another size."""
    TRANSFORMER.update(size)


def release() -> None:
    """What is dropped is free again at once."""


memory = speed.memory
