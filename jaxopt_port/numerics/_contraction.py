"""Whether LLVM contracts products and sums on this machine, where large arrays are left to it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import jax
import numpy as np

_log = logging.getLogger("jaxopt_port.numerics")


def update(fma: Any, product: Any, p: Any, g: Any, b: Any) -> tuple[Any, Any]:
    """SGD with all that it may have: three fused multiply-adds in one loop, and a product."""
    g = fma(np.float32(0.1), p, g)
    b = fma(np.float32(0.3), g, product(np.float32(0.9), b))
    return fma(np.float32(-0.1), b, p), b


def expected(*case: Any) -> tuple[Any, Any]:
    """Return the same in NumPy: in float64, whose sums are rounded twice one time in 2**29."""
    return update(
        lambda a, y, x: (np.float64(a) * y + x).astype(np.float32), lambda a, x: a * x, *case
    )


def drawn(shape: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]


@functools.cache
def holds() -> bool:
    """Whether LLVM contracts in large arrays that are wide: looked at once, in a program.

    It needs fused multiply-adds in the processor, and ``--xla_cpu_max_isa`` not to forbid them.
    """
    from ._emitted import SMALL, WIDE
    from ._rounding import uncontracted

    case = drawn((SMALL // WIDE + 1, WIDE + 1))

    def contracted(a: Any, y: Any, x: Any) -> Any:
        return uncontracted(x) + a * y

    @jax.jit
    def program(case: Any) -> Any:
        return update(contracted, lambda a, x: uncontracted(a * x), *case)

    with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        made = program(case)
    held = all(map(np.array_equal, made, expected(*case)))
    if not held:
        _log.info("LLVM does not contract here: large arrays too are calculated in float64")
    return held
