"""The figures of docs/numerics.md that no test holds, measured where this runs."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import jaxopt_port as jp
from jaxopt_port.models import LeNet
from jaxopt_port.numerics import _emitted, fma

SEEDS = 20
_Rng = np.random.Generator


def _normal(rng: _Rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _worst(measure: Callable[[_Rng], float]) -> float:
    return max(measure(np.random.default_rng(seed)) for seed in range(SEEDS))


def _norm_error(shape: tuple[int, ...], norm: Callable[[np.ndarray], Any]) -> str:
    def error(rng: _Rng) -> float:
        x = _normal(rng, *shape)
        exact = np.linalg.norm(x.astype(np.float64))
        return float(abs(float(norm(x)) - exact) / exact)

    return f"{_worst(error):.0e}"


def _norm_of_torch(x: np.ndarray) -> Any:
    return torch.linalg.vector_norm(torch.from_numpy(x))


@jax.jit
def _norm_of_xla(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x))


def _orthogonalised(gradient: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Muon's iteration with every intermediate of a dtype."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.double()


def _without_rounding(rng: _Rng) -> float:
    gradient = torch.from_numpy(_normal(rng, 32, 64))
    exact = _orthogonalised(gradient, torch.bfloat16)
    return float((_orthogonalised(gradient, torch.float32) - exact).norm() / exact.norm())


def _differ(ours: Callable[..., Any], theirs: Callable[..., Any]) -> str:
    """Return which part of a million results differ in a bit between XLA and torch."""
    rng = np.random.default_rng(0)
    x, y = _normal(rng, 1_000_000), np.abs(_normal(rng, 1_000_000)) + np.float32(0.01)
    got = np.asarray(jax.jit(ours)(x, y))
    wanted = theirs(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    return f"{np.mean(got.view(np.int32) != wanted.view(np.int32)):.0%}"


def _bias_gradient(rng: _Rng) -> float:
    """How many times further from exact than torch's is XLA's bfloat16 sum over a batch."""
    x = np.asarray(jnp.asarray(_normal(rng, 512, 64), jnp.bfloat16), np.float32)
    exact = x.astype(np.float64).sum(0)
    low = torch.from_numpy(x).bfloat16()
    theirs = low.sum(0).double().numpy()

    def loss(bias: jax.Array) -> jax.Array:
        return jnp.sum((jnp.zeros((512, 64), jnp.bfloat16) + bias) * jnp.asarray(x, jnp.bfloat16))

    ours = np.asarray(jax.jit(jax.grad(loss))(jnp.zeros(64, jnp.bfloat16)), np.float64)
    distances = [np.sqrt(np.mean((each - exact) ** 2)) for each in (ours, theirs)]
    return float(distances[0] / distances[1])


def _injected() -> str:
    """The largest difference of one update, of the largest update, with and without injection."""
    grads = {"w": jnp.asarray(_normal(np.random.default_rng(0), 10_000))}
    params = {"w": jnp.ones(10_000)}
    found = []
    for tx in (optax.adamw(1e-3), optax.inject_hyperparams(optax.adamw)(1e-3)):
        updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
        found.append(np.asarray(updates["w"], np.float64))
    return f"{np.max(np.abs(found[0] - found[1])) / np.max(np.abs(found[0])):.0e}"


def _median(call: Callable[[], Any], turns: int = 15) -> float:
    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(turns))


def _cost_of_exactness() -> str:
    """Time of an exact fused multiply-add over that of one which is left to the compiler."""
    a, x, y = (jnp.asarray(_normal(np.random.default_rng(i), 2**15, 8)) for i in range(3))

    def many(combine: Callable[..., jax.Array]) -> Callable[[], Any]:
        once = lambda y, _: (combine(a, x, y), None)  # noqa: E731
        compiled = jax.jit(lambda y: jax.lax.scan(once, y, length=50)[0])
        return lambda: compiled(y)

    return f"{_median(many(fma)) / _median(many(lambda a, x, y: a * x + y)):.1f}"


def _cost_in_steps(optimizer: str, shapes: Sequence[tuple[int, ...]], kernels: str = "off") -> str:
    """Time of a step and of its compilation over those with all left to contraction, in turns."""
    tx = getattr(jp, optimizer)(lr=0.1, weight_decay=0.1)
    rng = np.random.default_rng(0)
    params, grads = ([jnp.asarray(_normal(rng, *shape)) for shape in shapes] for _ in range(2))
    state = tx.init(params)
    compilations, steps = [], []
    with mock.patch.dict(os.environ, {"JAXOPT_PORT_KERNELS": kernels}):
        for _ in range(7):
            compiled = []
            for exact in (_emitted._is_exact, lambda ctx: False):
                with mock.patch.object(_emitted, "_is_exact", exact):
                    lowered = jax.jit(lambda p, s, g: jp.step(tx, g, s, p)).lower(
                        params, state, grads
                    )
                start = time.perf_counter()
                call = functools.partial(lowered.compile(), params, state, grads)
                compiled.append((time.perf_counter() - start, call))
            (own, ours), (other, theirs) = compiled
            compilations.append(own / other)
            steps += [_median(ours, 5) / _median(theirs, 5) for _ in range(5)]
    return f"step {statistics.median(steps):.2f}, compilation {statistics.median(compilations):.2f}"


def _exact_steps() -> list[tuple[str, str]]:
    net = nnx.eval_shape(lambda: LeNet(rngs=nnx.Rngs(0)))
    lenet = [leaf.shape for leaf in jax.tree.leaves(nnx.state(net, nnx.Param))]
    alike, unlike = [(64, 4)] * 100, [(16 + n, 3 + n % 5) for n in range(40)]
    rows: dict[str, tuple[Any, ...]] = {
        "SGD, LeNet": ("SGD", lenet),
        "AdamW, LeNet": ("AdamW", lenet),
        "AdamW, 40 unlike narrow leaves": ("AdamW", unlike),
        "AdamW, 100 leaves (64, 4)": ("AdamW", alike, "auto"),
        "the same without a C compiler": ("AdamW", alike),
        "SGD, the same without a C compiler": ("SGD", alike),
    }
    said = "exact steps over those left to the compiler: "
    return [(said + what, _cost_in_steps(*of)) for what, of in rows.items()]


def _initialised() -> tuple[str, str]:
    """Seconds for the structure of a LeNet, and for the LeNet, both for the first time."""
    times = []
    for make in (
        lambda: nnx.eval_shape(lambda: LeNet(rngs=nnx.Rngs(0))),
        lambda: LeNet(rngs=nnx.Rngs(0)),
    ):
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(make()))
        times.append(time.perf_counter() - start)
    return f"{times[0]:.2f} s", f"{times[1]:.1f} s"


def _until_subnormal(momentum: float) -> int:
    buffer, steps = np.float32(1.0), 0
    while buffer >= np.finfo(np.float32).tiny:
        buffer, steps = buffer * np.float32(momentum), steps + 1
    return steps


def _decay_as_alpha() -> str:
    parameter = torch.zeros(64, dtype=torch.bfloat16)
    parameter.add_(torch.ones(64, dtype=torch.bfloat16), alpha=-0.1)
    acting = jp.SGD(lr=0.1)
    params = {"w": jnp.zeros(64, jnp.bfloat16)}
    new, _ = jp.step(acting, {"w": jnp.ones(64, jnp.bfloat16)}, acting.init(params), params)
    assert float(new["w"][0]) == float(parameter[0])
    return f"{-float(parameter[0]):.11g}"


def rows() -> list[tuple[str, str]]:
    """Return what was measured, and the figure."""
    shape, drawn = _initialised()  # before anything else has compiled a draw
    muon = f"{_worst(_without_rounding):.1%}"
    scalar = _differ(lambda x, y: x / 3.7, lambda x, y: x / 3.7)
    root = _differ(
        lambda x, y: x / jnp.sqrt(y), lambda x, y: x / torch.from_numpy(np.sqrt(y.numpy()))
    )
    return [
        ("bfloat16: 0.1 as the alpha of add acts as", _decay_as_alpha()),
        ("norm of 70,001 numbers, error: torch", _norm_error((70_001,), _norm_of_torch)),
        ("the same: XLA", _norm_error((70_001,), _norm_of_xla)),
        ("norm of 512 x 300 numbers, error: torch", _norm_error((512, 300), _norm_of_torch)),
        ("the same: XLA", _norm_error((512, 300), _norm_of_xla)),
        ("Muon's update without bfloat16's roundings, from that with", muon),
        ("steps until a momentum buffer of 1 is subnormal, at 0.9", str(_until_subnormal(0.9))),
        ("time of an exact fma over one that is left to the compiler", _cost_of_exactness()),
        *_exact_steps(),
        ("XLA's division by a scalar: other bits", scalar),
        ("XLA's division by a root: other bits", root),
        ("gradient of a bfloat16 bias: XLA's error over torch's", f"{_worst(_bias_gradient):.1f}"),
        ("an injected optax.adamw from the same with Python's numbers", _injected()),
        ("the structure of a LeNet by nnx.eval_shape", shape),
        ("the LeNet itself", drawn),
    ]  # fmt: skip
