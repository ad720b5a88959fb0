"""An operation with forms of its own for one CPU device or for several devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

Form: TypeAlias = Callable[..., Sequence[Any]]


def devices_of(ctx: Any) -> int | None:
    """Return on how many devices a program that is being lowered will run; None if it is exported.

    0 where one device has only its own part, as within ``shard_map``.
    """
    from jax.interpreters import mlir

    # What is not said counts as exported.
    if getattr(ctx.module_context.lowering_parameters, "for_export", True):
        return None
    context = ctx.module_context.axis_context
    return int(context.num_devices) if isinstance(context, mlir.ShardingContext) else 0


class Forms:
    """The forms of an operation, each a function of flat arrays; compared by identity.

    Attributes:
        plain: the operation, as ``vmap``, ``grad`` and exported programs see it, and every program
            that has no other form.
        one_cpu: for one CPU device.
        several: for several devices, outside of ``shard_map``; their number comes first.
    """

    def __init__(
        self, plain: Form, *, one_cpu: Form | None = None, several: Form | None = None
    ) -> None:
        self.plain, self.one_cpu, self.several = plain, one_cpu, several

    def chosen(self, ctx: Any, platform: str | None) -> Form:
        """Return the form for a program that is being lowered."""
        devices = devices_of(ctx)
        if devices is None:
            return self.plain
        if devices > 1 and self.several is not None:
            return functools.partial(self.several, devices)
        return self.one_cpu if devices == 1 and platform == "cpu" and self.one_cpu else self.plain


def whole_on_each(plain: Form) -> Forms:
    """Return the forms of an operation of which each of several devices calculates the whole.

    XLA would split products of matrices over them, with sums in another order.

    Args:
        plain: of one array, which may be split, and numbers; its result is one array.
    """

    def several(devices: int, x: jax.Array, *numbers: jax.Array) -> list[Any]:
        # Which mesh it is does not matter for what is on all of its devices.
        mesh = AbstractMesh((devices,), ("devices",), axis_types=(AxisType.Auto,))
        everywhere = NamedSharding(mesh, PartitionSpec())
        (made,) = plain(lax.with_sharding_constraint(x, everywhere), *numbers)
        return [lax.with_sharding_constraint(made, everywhere)]

    return Forms(plain, several=several)


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

    def lowering(platform: str | None) -> Any:
        def lowered(ctx: Any, *args: Any, forms: Forms, results: Any) -> Any:
            form = forms.chosen(ctx, platform)
            return mlir.lower_fun(form, multiple_results=True)(ctx, *args)

        return lowered

    mlir.register_lowering(primitive, lowering(None))
    mlir.register_lowering(primitive, lowering("cpu"), platform="cpu")
    return primitive


def alternative(forms: Forms, args: Sequence[jax.Array], results: Sequence[Any]) -> list[Any]:
    """Apply the operation.

    Args:
        forms: its forms.
        args: arrays.
        results: abstract values of the results.
    """
    made: list[Any] = _primitive().bind(*args, forms=forms, results=tuple(results))
    return made
