"""The statistics of batch normalisation for averaged weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

_MODES = ("deterministic", "use_running_average")


def update_bn(loader: Iterable[Any], model: Any) -> None:
    """Estimate the statistics of each batch normalisation anew, from one pass over data.

    The counterpart of ``torch.optim.swa_utils.update_bn``, for a Flax NNX model, which it changes
    in place: each ``nnx.BatchNorm`` gets the mean over all batches of their mean and variance. As
    everywhere in Flax these are variances of a batch itself, where torch's running variance is
    ``n / (n - 1)`` times as large, n being the number of values in a channel of a batch.

    Args:
        loader: batches; of a tuple or a list, its first element.
        model: a Flax NNX module that takes one batch. Without batch normalisation it is not called.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from flax import nnx
        >>> model = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
        >>> jp.swa_utils.update_bn([jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [4.0]])], model)
        >>> model.mean[...], model.var[...]
        (Array([2.5], dtype=float32), Array([0.5], dtype=float32))
    """
    from flax import nnx

    modules = [module for _, module in nnx.iter_modules(model)]
    norms = [module for module in modules if isinstance(module, nnx.BatchNorm)]
    if not norms:
        return
    modes = [{k: getattr(m, k) for k in _MODES if hasattr(m, k)} for m in modules]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.mean[...] = jnp.zeros_like(norm.mean[...])
        norm.var[...] = jnp.ones_like(norm.var[...])
    model.train()
    try:
        for count, batch in enumerate(loader):
            for norm in norms:
                norm.momentum = count / (count + 1)
            model(batch[0] if isinstance(batch, tuple | list) else batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in zip(modules, modes, strict=True):
            for name, value in mode.items():
                setattr(module, name, value)
