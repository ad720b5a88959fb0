"""Right ports: networks, optimizers, schedules, and what Optax's users write around them.

Each trains as torch does. A port may keep in float32 what Optax and Flax have so by their own
habit.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import torch
from torch import optim

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.faults.right_networks import NETWORKS, side, torch_side
from parity_tests.faults.right_schedules import RATE, SCHEDULES

STEPS = 16


class Kind(NamedTuple):
    """An optimizer on both sides; ``tx`` makes it of a rate or a schedule.

    ``factory`` and ``given``: Optax's function and numbers, where it can be injected. ``decays``:
    whether a leaf's share of the update does not vanish with its gradient.
    """

    torch: Any
    options: dict[str, Any]
    tx: Callable[[Any], Any]
    factory: Any = None
    given: dict[str, Any] = {}  # noqa: RUF012
    constant: bool = False  # only with a constant rate
    decays: bool = False


def is_matrix(name: str, p: Any) -> bool:
    """Whether a parameter is no bias, in Flax's attention either, whose have two axes."""
    return bool(p.ndim > 1) and not name.endswith("bias")


def matrices(tree: Any) -> Any:
    """Return a mask of all leaves that are matrices."""
    pairs, structure = jax.tree.flatten_with_path(tree)
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs)
    return jax.tree.unflatten(
        structure, [is_matrix(name, p) for name, (_, p) in zip(names, pairs, strict=True)]
    )


def by_matrix(tree: Any) -> Any:
    """Label the leaves of a tree: "matrix" or "vector"."""
    return jax.tree.map(lambda is_one: "matrix" if is_one else "vector", matrices(tree))


def groups_of(module: Any) -> list[dict[str, Any]]:
    """Return torch's two groups: matrices, which decay, and the rest, which do not."""
    named = list(module.named_parameters())
    return [
        {"params": [p for name, p in named if is_matrix(name, p)]},
        {"params": [p for name, p in named if not is_matrix(name, p)], "weight_decay": 0.0},
    ]


def _negative(rate: Any) -> Any:
    return (lambda count: -rate(count)) if callable(rate) else (lambda count: -rate)


MOMENTUM, L2, ADAMW = {"momentum": 0.9}, {"weight_decay": 0.1}, {"weight_decay": 0.1}
SMOOTH = {"betas": (0.8, 0.95), "eps": 1e-6}
OPTAX = {
    "sgd": Kind(optim.SGD, {}, optax.sgd, optax.sgd),
    "momentum": Kind(optim.SGD, MOMENTUM, lambda r: optax.sgd(r, 0.9), optax.sgd, MOMENTUM),
    "nesterov": Kind(optim.SGD, {**MOMENTUM, "nesterov": True}, lambda r: optax.sgd(r, 0.9, nesterov=True)),
    "sgd, L2": Kind(optim.SGD, {**MOMENTUM, **L2}, lambda r: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(r, 0.9)), decays=True),
    "trace, scale": Kind(optim.SGD, MOMENTUM, lambda r: optax.chain(optax.trace(0.9), optax.scale_by_schedule(_negative(r)))),
    "adam": Kind(optim.Adam, {}, optax.adam, optax.adam),
    "adam, other numbers": Kind(optim.Adam, SMOOTH, lambda r: optax.adam(r, 0.8, 0.95, 1e-6), optax.adam, {"b1": 0.8, "b2": 0.95, "eps": 1e-6}),
    "adam, L2": Kind(optim.Adam, L2, lambda r: optax.chain(optax.add_decayed_weights(0.1), optax.adam(r)), decays=True),
    "adamw": Kind(optim.AdamW, ADAMW, lambda r: optax.adamw(r, weight_decay=0.1), optax.adamw, ADAMW, decays=True),
    "adamw by parts": Kind(
        optim.AdamW, ADAMW,
        lambda r: optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale_by_learning_rate(r)), decays=True,
    ),
    "adamw, matrices decay": Kind(
        lambda params, **options: optim.AdamW(params, **options), {"weight_decay": 0.1},
        lambda r: optax.adamw(r, weight_decay=0.1, mask=matrices), decays=True,
    ),
    "rmsprop": Kind(optim.RMSprop, {}, lambda r: optax.rmsprop(r, decay=0.99, eps_in_sqrt=False), optax.rmsprop, {"decay": 0.99, "eps_in_sqrt": False}),
    "rmsprop, centered": Kind(optim.RMSprop, {"centered": True, "eps": 1e-3}, lambda r: optax.rmsprop(r, decay=0.99, eps=1e-3, eps_in_sqrt=False, centered=True)),
    "rmsprop, momentum": Kind(optim.RMSprop, MOMENTUM, lambda r: optax.rmsprop(r, decay=0.99, eps_in_sqrt=False, momentum=0.9), constant=True),
    "adadelta": Kind(optim.Adadelta, {}, lambda r: optax.adadelta(r, rho=0.9, eps=1e-6)),
    "adamax": Kind(optim.Adamax, {}, optax.adamax),
}  # fmt: skip
OWN = {
    "jp.adam": Kind(optim.Adam, {}, lambda r: jp.adam(r)),
    "jp.sgd": Kind(optim.SGD, MOMENTUM, lambda r: jp.SGD(lr=r, momentum=0.9)),
    "jp.adamw": Kind(optim.AdamW, ADAMW, lambda r: jp.AdamW(lr=r, weight_decay=0.1), decays=True),
    "jp.amsgrad": Kind(optim.Adam, {"amsgrad": True}, lambda r: jp.Adam(lr=r, amsgrad=True)),
    "jp.rmsprop": Kind(optim.RMSprop, MOMENTUM, lambda r: jp.RMSprop(lr=r, momentum=0.9)),
    "jp.adagrad": Kind(optim.Adagrad, {"lr_decay": 0.1}, lambda r: jp.Adagrad(lr=r, lr_decay=0.1)),
    "jp.adadelta": Kind(optim.Adadelta, {}, lambda r: jp.Adadelta(lr=r)),
    "jp.adamax": Kind(optim.Adamax, {}, lambda r: jp.Adamax(lr=r)),
    "jp.nadam": Kind(optim.NAdam, {}, lambda r: jp.NAdam(lr=r)),
    "jp.radam": Kind(optim.RAdam, {}, lambda r: jp.RAdam(lr=r)),
    "jp.asgd": Kind(optim.ASGD, {"t0": 4}, lambda r: jp.ASGD(lr=r, t0=4), decays=True),
    "jp.rprop": Kind(optim.Rprop, {}, lambda r: jp.Rprop(lr=r), constant=True),
}
OPTIMIZERS: dict[str, Kind] = {**OPTAX, **OWN}


class Wrapped(NamedTuple):
    """What stands around an optimizer; ``theirs`` makes more arguments of `TorchSide`."""

    tx: Any
    theirs: Callable[[Any, Any], dict[str, Any]] = lambda module, optimizer: {}
    mine: Mapping[str, Any] = {}


def _injected(kind: Kind, rate: Any, **how: Any) -> Wrapped:
    tx = optax.inject_hyperparams(kind.factory, **how)(learning_rate=rate, **kind.given)
    return Wrapped(tx)


def _halves(kind: Kind, rate: Any) -> Wrapped:
    parts = {"matrix": kind.tx(rate), "vector": kind.tx(rate)}
    return Wrapped(optax.multi_transform(parts, by_matrix))


def _frozen(kind: Kind, rate: Any) -> Wrapped:
    """Freeze all vectors, in torch by ``requires_grad``."""

    def theirs(module: Any, optimizer: Any) -> dict[str, Any]:
        for name, p in module.named_parameters():
            p.requires_grad_(is_matrix(name, p))
        return {}

    parts = {"matrix": kind.tx(rate), "vector": optax.set_to_zero()}
    return Wrapped(optax.multi_transform(parts, by_matrix), theirs)


def _frozen_by_chain(kind: Kind, rate: Any) -> Wrapped:
    """Freeze all vectors by a mask behind the optimizer."""

    def rest(tree: Any) -> Any:
        return jax.tree.map(lambda is_one: not is_one, matrices(tree))

    tx = optax.chain(kind.tx(rate), optax.masked(optax.set_to_zero(), rest))
    return Wrapped(tx, _frozen(kind, rate).theirs)


def _clipped(kind: Kind, rate: Any) -> Wrapped:
    clip = {"clip": lambda params: torch.nn.utils.clip_grad_norm_(params, 0.5)}
    return Wrapped(optax.chain(jp.clip_by_grad_norm(0.5), kind.tx(rate)), lambda m, o: clip)


def _clipped_apart(kind: Kind, rate: Any) -> Wrapped:
    clip = {"clip": lambda params: torch.nn.utils.clip_grad_norm_(params, 0.5)}
    mine = {"clip": lambda grads: jp.clip_grad_norm(grads, 0.5)[0]}
    return Wrapped(kind.tx(rate), lambda m, o: clip, mine)


def _clipped_values(kind: Kind, rate: Any) -> Wrapped:
    clip = {"clip": lambda params: torch.nn.utils.clip_grad_value_(params, 0.01)}
    return Wrapped(optax.chain(optax.clip(0.01), kind.tx(rate)), lambda m, o: clip)


def _loosely_clipped(kind: Kind, rate: Any) -> Wrapped:
    clip = {"clip": lambda params: torch.nn.utils.clip_grad_norm_(params, 1e6)}
    return Wrapped(optax.chain(optax.clip_by_global_norm(1e6), kind.tx(rate)), lambda m, o: clip)


def _accumulated(kind: Kind, rate: Any, **how: Any) -> Wrapped:
    tx = optax.MultiSteps(kind.tx(rate), 2, **how).gradient_transformation()
    return Wrapped(tx, lambda module, optimizer: {"accumulation_steps": 2})


def _own_accumulated(kind: Kind, rate: Any) -> Wrapped:
    more = {"accumulation_steps": 2}
    return Wrapped(jp.accumulate_grads(kind.tx(rate), 2), lambda m, o: more, more)


def _averaged(kind: Kind, rate: Any) -> Wrapped:
    def theirs(module: Any, optimizer: Any) -> dict[str, Any]:
        average = optim.swa_utils.get_ema_multi_avg_fn(0.9)
        return {"averaged": optim.swa_utils.AveragedModel(module, multi_avg_fn=average)}

    average = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(0.9))
    return Wrapped(kind.tx(rate), theirs, {"averaged": average})


def _scaled(kind: Kind, rate: Any) -> Wrapped:
    made = {"scaler": torch.amp.GradScaler("cpu", init_scale=8.0)}
    return Wrapped(kind.tx(rate), lambda m, o: made, {"scaler": jp.GradScaler(init_scale=8.0)})


def _by_hand(kind: Kind, rate: Any) -> Wrapped:
    def step(tx: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Wrapped(kind.tx(rate), mine={"step": step})


def _typed(tree: Any) -> Any:
    return jax.tree.map(lambda _: True, tree)


WRAPS: dict[str, Callable[[Kind, Any], Wrapped]] = {
    "as it is": lambda k, r: Wrapped(k.tx(r)),
    "by hand": _by_hand,
    "injected": _injected,
    "injected, float32": lambda k, r: _injected(k, r, hyperparam_dtype=jnp.float32),
    "apply_if_finite": lambda k, r: Wrapped(optax.apply_if_finite(k.tx(r), 3)),
    "masked": lambda k, r: Wrapped(optax.masked(k.tx(r), _typed)),
    "multi_transform": _halves,
    "frozen": _frozen,
    "frozen by a chain": _frozen_by_chain,
    "named_chain": lambda k, r: Wrapped(optax.named_chain(("first", optax.identity()), ("then", k.tx(r)))),
    "zero_nans": lambda k, r: Wrapped(optax.chain(optax.zero_nans(), k.tx(r))),
    "extra arguments": lambda k, r: Wrapped(optax.with_extra_args_support(k.tx(r))),
    "flatten": lambda k, r: Wrapped(optax.flatten(k.tx(r))),
    "clipped": _clipped,
    "clipped apart": _clipped_apart,
    "clipped values": _clipped_values,
    "loosely clipped": _loosely_clipped,
    "MultiSteps": _accumulated,
    "MultiSteps, finite only": lambda k, r: _accumulated(k, r, should_skip_update_fn=optax.skip_not_finite),
    "accumulate_grads": _own_accumulated,
    "averaged": _averaged,
    "scaled": _scaled,
}  # fmt: skip
# Of an optimizer of this library: what reads its state, or keeps it as it is.
_AROUND_OWN = ("as it is", "by hand", "clipped", "clipped apart", "accumulate_grads", "averaged", "scaled", "masked", "multi_transform", "named_chain", "zero_nans", "MultiSteps")  # fmt: skip


class Port(NamedTuple):
    """A right port, by the names in the tables."""

    network: str
    optimizer: str
    schedule: str
    wrap: str
    seed: int = 0


def fits(port: Port) -> bool:
    """Whether both sides of a port are the same training."""
    kind, wrap = OPTIMIZERS[port.optimizer], port.wrap
    if wrap.startswith("injected") and kind.factory is None:
        return False
    if kind.constant and port.schedule != "constant":
        return False
    if port.optimizer in OWN and (port.schedule == "a float32" or wrap not in _AROUND_OWN):
        return False
    # torch leaves a parameter without a gradient alone, Optax lets it decay.
    if port.network == "nnx bags" and kind.decays:
        return False
    # A flat tree has no matrices; torch's groups hold what is frozen.
    apart = wrap.startswith("frozen") or wrap == "flatten"
    return not (port.optimizer == "adamw, matrices decay" and apart)


def ports(count: int, seed: int = 0) -> Iterator[Port]:
    """Yield so many different ports, sorted by network, all rows of a table drawn equally often.

    Rows that fit few others are drawn in vain more often, and are fewer: injection, say.
    """
    rng = random.Random(seed)
    tables = [list(t) for t in (NETWORKS, OPTIMIZERS, SCHEDULES, WRAPS)]
    decks: list[list[str]] = [[] for _ in tables]

    def drawn(i: int) -> str:
        if not decks[i]:
            decks[i] = rng.sample(tables[i], len(tables[i]))
        return decks[i].pop()

    made: dict[Port, None] = {}
    while len(made) < count:
        port = Port(*map(drawn, range(4)), seed=len(made) % 4)
        if fits(port):
            made[port] = None
    order = list(NETWORKS)
    yield from sorted(made, key=lambda port: order.index(port.network))


def right_port(port: Port) -> Any:
    """Compare a right port."""
    kind = OPTIMIZERS[port.optimizer]
    scheduler, made = SCHEDULES[port.schedule]
    wrapped = WRAPS[port.wrap](kind, made(RATE))

    def optimizer(module: Any) -> Any:
        grouped = port.optimizer == "adamw, matrices decay"
        given = groups_of(module) if grouped else module.parameters()
        return kind.torch(given, lr=RATE, **kind.options)

    def theirs(module: Any, optimizer: Any) -> dict[str, Any]:
        given = {} if scheduler is None else {"scheduler": scheduler(optimizer)}
        return {**given, **wrapped.theirs(module, optimizer)}

    network = NETWORKS[port.network]
    return verify.compare(
        torch_side(network, optimizer, port.seed, theirs),
        dataclasses.replace(side(network), tx=wrapped.tx, **wrapped.mine),
        network.batches(port.seed, STEPS),
        **network.options,
    )
