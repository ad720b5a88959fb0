"""The statistics of batch normalisation for averaged weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

_MODES = ("deterministic", "use_running_average")


def update_bn(
    loader: Iterable[Any],
    model: Any,
    variables: Mapping[str, Any] | None = None,
    *,
    unbiased: bool = False,
    **apply_args: Any,
) -> Any:
    """Estimate the statistics of each batch normalisation anew, from one pass over data.

    The counterpart of ``torch.optim.swa_utils.update_bn``: each batch normalisation gets the mean,
    over all batches, of their means and variances. Everywhere in Flax these are variances of a
    batch itself, where torch's running variance is ``n / (n - 1)`` times as large, n being the
    number of values in a channel of a batch.

    Args:
        loader: batches; of a tuple or a list, its first element.
        model: a Flax NNX module that takes one batch, and is changed in place; or a Linen module,
            with its ``variables``. Without batch normalisation it is not called.
        variables: of a Linen module: parameters, averaged ones say, and ``"batch_stats"``.
        unbiased: take torch's running variance, for a model that torch is to run, or that shall
            give torch's numbers.
        **apply_args: for ``model.apply`` of a Linen module, such as ``train=True``, so that it
            normalises by the batch, and ``rngs``.

    Returns:
        Of a Linen module, the new variables; else None.

    Raises:
        TypeError: ``model`` is no module, or a Linen module without ``variables``.
        ValueError: a Linen module that normalises by its running averages; ``unbiased`` with a
            mask, or with one value in a channel, as torch raises.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from flax import nnx
        >>> model = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
        >>> jp.swa_utils.update_bn([jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [4.0]])], model)
        >>> model.mean[...], model.var[...]
        (Array([2.5], dtype=float32), Array([0.5], dtype=float32))
    """
    if variables is not None:
        return _of_linen(loader, model, variables, unbiased, apply_args)
    from flax import nnx

    modules = [module for _, module in nnx.iter_modules(model)]
    if not modules:
        raise TypeError(
            "model must be a Flax NNX module, or a Linen module with its variables, after the "
            f"batches: update_bn(loader, model, variables); got {type(model).__name__}"
        )
    norms: list[Any] = [module for module in modules if isinstance(module, nnx.BatchNorm)]
    if not norms:
        return None
    modes = [{k: getattr(m, k) for k in _MODES if hasattr(m, k)} for m in modules]
    kept = [(norm, type(norm), norm.momentum) for norm in norms]
    for norm, kind, _ in kept:
        norm.mean[...] = jnp.zeros_like(norm.mean[...])
        norm.var[...] = jnp.ones_like(norm.var[...])
        # In the state, where a compiled call counts too; of the axes of the mean, in layers that
        # are scanned.
        norm.calls = nnx.BatchStat(jnp.zeros_like(norm.mean[...]))
        norm.momentum, norm.__class__ = 0.0, _averaging(kind, unbiased)
    model.train()
    try:
        for batch in loader:
            model(_first(batch))
    finally:
        for norm, kind, momentum in kept:
            norm.__class__, norm.momentum = kind, momentum
            del norm.calls
        for module, mode in zip(modules, modes, strict=True):
            for name, value in mode.items():
                setattr(module, name, value)
    return None


def _first(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch


def _excess(size: int, channels: int, mask: Any) -> float:
    """Return torch's variance over that of a batch itself, from the batch's size."""
    n = size // channels
    if mask is not None:
        raise ValueError("unbiased=True counts the values of a channel; a mask leaves some out")
    if n < 2:
        raise ValueError(
            "Expected more than 1 value per channel when training: one has no unbiased variance"
        )
    return n / (n - 1)


def _averaging(kind: Any, unbiased: bool) -> Any:
    """Return a class of batch normalisation that takes the mean over all its calls."""

    class Averaging(kind):  # type: ignore[misc]
        def __call__(self, x: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
            mean, var = self.mean[...], self.var[...]
            # Without momentum, what the module then holds is the batch's own.
            out = super().__call__(x, *args, mask=mask, **kwargs)
            excess = _excess(x.size, self.num_features, mask) if unbiased else 1.0
            self.calls[...] += 1
            self.mean[...] = mean + (self.mean[...] - mean) / self.calls[...]
            self.var[...] = var + (self.var[...] * excess - var) / self.calls[...]
            return out

    return Averaging


def _of_linen(
    loader: Iterable[Any],
    model: Any,
    variables: Mapping[str, Any],
    unbiased: bool,
    apply_args: Mapping[str, Any],
) -> Mapping[str, Any]:
    from flax import linen

    if "batch_stats" not in variables:
        return variables

    def averaging(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        norm = context.module
        if not isinstance(norm, linen.BatchNorm) or context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        given = dict(zip(("x", "use_running_average"), args, strict=False)) | kwargs
        if given.get("use_running_average", norm.use_running_average) is not False:
            raise ValueError(
                f"the BatchNorm at {'/'.join(norm.path) or 'the top'} normalises by its running "
                "averages; give update_bn what makes the model train, train=True say"
            )
        before: dict[str, Any] = {
            name: norm.get_variable("batch_stats", name) for name in ("mean", "var", _CALLS)
        }
        count, momentum = before.pop(_CALLS) + 1, norm.momentum
        for name, value in before.items():
            norm.put_variable("batch_stats", name, jnp.zeros_like(value))
        object.__setattr__(norm, "momentum", 0.0)  # what it then holds is the batch's own
        try:
            out = next_fun(*args, **kwargs)
        finally:
            object.__setattr__(norm, "momentum", momentum)
        for name, value in before.items():
            own: Any = norm.get_variable("batch_stats", name)
            if unbiased and name == "var":
                own = own * _excess(given["x"].size, value.size, given.get("mask"))
            mean = jnp.where(count == 1, own, value + (own - value) / count)
            norm.put_variable("batch_stats", name, mean.astype(value.dtype))
        norm.put_variable("batch_stats", _CALLS, count)
        return out

    new = {**variables, "batch_stats": _with_calls(variables["batch_stats"])}
    for batch in loader:
        with linen.intercept_methods(averaging):
            _, made = model.apply(new, _first(batch), mutable=["batch_stats"], **apply_args)
        new["batch_stats"] = made["batch_stats"]
    return {**new, "batch_stats": _without_calls(new["batch_stats"])}


# How often a layer has been called: among its statistics, where layers that are scanned, which are
# traced as often as JAX likes, count too.
_CALLS = "jaxopt_port_calls"


def _with_calls(stats: Mapping[str, Any]) -> dict[str, Any]:
    own = {k: _with_calls(v) if isinstance(v, Mapping) else v for k, v in stats.items()}
    if own.keys() >= {"mean", "var"} and not isinstance(own["mean"], dict):
        own[_CALLS] = jnp.zeros_like(own["mean"])
    return own


def _without_calls(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: _without_calls(v) if isinstance(v, Mapping) else v
        for k, v in stats.items()
        if k != _CALLS
    }
