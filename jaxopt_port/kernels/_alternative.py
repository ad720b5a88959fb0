"""An operation with a quicker form on one CPU device, and plain JAX everywhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax


class Forms:
    """The two forms of an operation, each a function of flat arrays; compared by identity.

    Attributes:
        plain: the operation; what ``vmap`` and ``grad`` see, and every platform but the CPU, and
            programs for several devices.
        quick: the same results by a custom call that none of these can look into.
    """

    def __init__(
        self, plain: Callable[..., Sequence[Any]], quick: Callable[..., Sequence[Any]]
    ) -> None:
        self.plain, self.quick = plain, quick


@functools.cache
def _primitive() -> Any:
    # Not at import time: jax.extend brings Pallas along.
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    primitive = Primitive("jaxopt_port_step")
    primitive.multiple_results = True
    primitive.def_impl(lambda *args, forms, results: forms.plain(*args))
    primitive.def_abstract_eval(lambda *args, forms, results: results)

    def jvp(primals: Any, tangents: Any, *, forms: Forms, results: Any) -> Any:
        tangents = [ad.instantiate_zeros(t) for t in tangents]
        return jax.jvp(lambda *xs: list(forms.plain(*xs)), tuple(primals), tuple(tangents))

    def batched(args: Any, dims: Any, *, forms: Forms, results: Any) -> Any:
        axes = tuple(d if isinstance(d, int) else None for d in dims)
        made = jax.vmap(lambda *xs: list(forms.plain(*xs)), in_axes=axes)(*args)
        return made, [0] * len(made)

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batched

    def plain_lowering(ctx: Any, *args: Any, forms: Forms, results: Any) -> Any:
        return mlir.lower_fun(forms.plain, multiple_results=True)(ctx, *args)

    def cpu_lowering(ctx: Any, *args: Any, forms: Forms, results: Any) -> Any:
        # What is not said counts as several devices, or as exported.
        devices = getattr(ctx.module_context.axis_context, "num_devices", 0)
        exported = getattr(ctx.module_context.lowering_parameters, "for_export", True)
        form = forms.quick if devices == 1 and not exported else forms.plain
        return mlir.lower_fun(form, multiple_results=True)(ctx, *args)

    mlir.register_lowering(primitive, plain_lowering)
    mlir.register_lowering(primitive, cpu_lowering, platform="cpu")
    return primitive


def alternative(forms: Forms, args: Sequence[jax.Array], results: Sequence[Any]) -> list[Any]:
    """Apply the operation.

    Args:
        forms: its two forms.
        args: arrays.
        results: abstract values of the results.
    """
    made: list[Any] = _primitive().bind(*args, forms=forms, results=tuple(results))
    return made
