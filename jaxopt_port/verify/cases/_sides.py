"""A recipe's two sides: what `verify.compare` is given."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from flax import nnx

import jaxopt_port as jp

from ...engine import leaf_states
from ...models.lenet import LeNet, LinenLeNet
from ..comparison import JaxSide, linen_side, nnx_side
from ..recorder import TorchSide
from ._recipes import Recipe
from ._torch_lenet import Net

Norms = list[tuple[float, float]]  # of all momentum buffers, before a change and after it


def make_net(seed: int, dtype: str) -> Net:
    """Return the net with torch's own initial weights; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net().to(getattr(torch, dtype))


# ── torch ──────────────────────────────────────────────────────────────────────────────────────


class TorchSchedulers:
    """torch's schedulers of one optimizer, to be called as this library's are, without it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        module: Any = torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler
        if name == "ChainedScheduler":
            return functools.partial(module.ChainedScheduler, optimizer=self._optimizer)
        return functools.partial(getattr(module, name), self._optimizer)


def _groups(recipe: Recipe, net: Net) -> list[dict[str, Any]]:
    def at(places: Any) -> list[torch.nn.Parameter]:
        named = [places] if isinstance(places, str) else places
        modules = [net.get_submodule(place.replace("/", ".")) for place in named]
        return [p for module in modules for p in module.parameters()]

    places = [group["params"] for group in recipe.groups]
    special = {id(p) for place in places if place is not jp.REST for p in at(place)}
    base = [p for p in net.parameters() if id(p) not in special]
    params = [base if place is jp.REST else at(place) for place in places]
    return [{**group, "params": p} for group, p in zip(recipe.groups, params, strict=True)]


def torch_side(recipe: Recipe, net: Net, steps: int, norms: Norms) -> TorchSide:
    """Return torch's side; ``norms`` is told what momentum a change has left."""
    optimizer = torch.optim.SGD(_groups(recipe, net), **recipe.defaults)

    def norm(of: torch.optim.Optimizer) -> float:
        buffers = [state.get("momentum_buffer") for state in of.state.values()]
        return float(sum(b.double().square().sum() for b in buffers if b is not None) ** 0.5)

    def change(held: torch.optim.Optimizer) -> None:
        before = norm(held)
        if recipe.rebuilt:
            groups = [dict(group) for group in held.param_groups]
            held.load_state_dict(torch.optim.SGD(groups).state_dict())
        for group, numbers in zip(held.param_groups, recipe.change, strict=True):
            group.update(numbers)
        norms.append((before, norm(held)))

    make, limit, averaged = recipe.scheduler, recipe.clip, None
    if recipe.ema is not None:
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average)
    return TorchSide(
        module=net,
        optimizer=optimizer,
        loss=_torch_own_output if recipe.own_output else lambda z, b: F.cross_entropy(z, b[1]),
        scheduler=None if make is None else make(TorchSchedulers(optimizer), steps),
        metric=recipe.metric,
        clip=None if limit is None else lambda ps: torch.nn.utils.clip_grad_norm_(ps, limit),
        averaged=averaged,
        changes={steps // 2: change} if recipe.change else {},
    )


def _torch_own_output(output: torch.Tensor, batch: Any) -> torch.Tensor:
    """What `output.backward(output)` differentiates: the cotangent is the output's value."""
    return (output * output.detach()).sum()


# ── JAX ────────────────────────────────────────────────────────────────────────────────────────


@functools.lru_cache(maxsize=8)
def network(flax: str, dtype: str) -> JaxSide:
    """Return the JAX side of the network, with shapes for parameters and an optimizer of none.

    Args:
        flax: ``"nnx"`` or ``"linen"``.
        dtype: of parameters.
    """
    with jax.enable_x64(True):
        given: dict[str, Any] = {"tx": optax.identity(), "loss": _cross_entropy}
        if flax == "nnx":
            model = nnx.eval_shape(lambda: LeNet(param_dtype=dtype, rngs=nnx.Rngs(0)))
            return nnx_side(model, **given)
        module = LinenLeNet(param_dtype=jnp.dtype(dtype))
        images = jax.ShapeDtypeStruct((1, 3, 32, 32), dtype)
        return linen_side(module, jax.eval_shape(module.init, jax.random.key(0), images), **given)


def jax_side(recipe: Recipe, model: JaxSide, steps: int, norms: Norms) -> JaxSide:
    """Return this library's side in the CapWords spelling."""

    def norm(state: Any) -> float:
        states = leaf_states(state).values()
        held = [own["momentum_buffer"] for own in states if own.get("has_momentum_buffer")]
        return float(sum(np.sum(np.square(np.asarray(b, np.float64))) for b in held) ** 0.5)

    def change(state: Any, params: Any) -> Any:
        before = norm(state)
        if recipe.rebuilt:
            state = optimizer(recipe).init(params)
        for group, numbers in enumerate(recipe.change):
            state = jp.set_hyperparams(state, group=group, **numbers)
        norms.append((before, norm(state)))
        return state

    make, limit, averaged = recipe.scheduler, recipe.clip, None
    if recipe.ema is not None:
        average = jp.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        averaged = jp.swa_utils.AveragedModel(multi_avg_fn=average)
    return dataclasses.replace(
        model,
        tx=optimizer(recipe),
        loss=_own_output if recipe.own_output else model.loss,
        scheduler=None if make is None else make(jp.lr_scheduler, steps),
        metric=recipe.metric,
        clip=None if limit is None else lambda grads: jp.clip_grad_norm(grads, limit)[0],
        averaged=averaged,
        changes={steps // 2: change} if recipe.change else {},
    )


def optimizer(recipe: Recipe) -> jp.Optimizer:
    """Return this library's optimizer of a recipe."""
    return jp.SGD(list(recipe.groups), **recipe.defaults)


def _cross_entropy(output: jax.Array, batch: Any) -> jax.Array:
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(output, batch[1])
    return losses.mean()


def _own_output(output: jax.Array, batch: Any) -> jax.Array:
    return jnp.sum(output * jax.lax.stop_gradient(output))
