"""JAX's contenders: this library's and plain Optax's; imported in a worker of its own."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import interop, kernels
from jaxopt_port.models import lenet

from ._contender import Contender, LeftOutError
from ._data import OPTIONS, STEPS_BEFORE_CHECK, arrays, sample
from ._flax_side import loop
from ._networks import lenet_batch, lenet_torch, transformer_nnx, transformer_torch, words
from ._shapes import shapes_of

# Options that make of Optax's optimizers what torch's do, as nearly as they can.
_OPTAX: dict[str, Callable[[], optax.GradientTransformation]] = {
    "SGD": lambda: optax.sgd(1e-3, momentum=0.9),
    "Adam": lambda: optax.adam(1e-3),
    "AdamW": lambda: optax.adamw(1e-3, weight_decay=1e-2),
    "RMSprop": lambda: optax.rmsprop(1e-3, decay=0.99, eps_in_sqrt=False),
    "Adagrad": lambda: optax.adagrad(1e-3, initial_accumulator_value=0.0, eps=1e-10),
    "Adafactor": lambda: optax.adafactor(1e-3),
    "Muon": lambda: optax.contrib.muon(1e-3),
    "Adadelta": lambda: optax.adadelta(1e-1, rho=0.9, eps=1e-6),
    "Adamax": lambda: optax.adamax(1e-3),
    "NAdam": lambda: optax.nadam(1e-3),
    "RAdam": lambda: optax.radam(1e-3),
    "Rprop": lambda: optax.rprop(1e-3),
}


def start(threads: int) -> dict[str, Any]:
    """Return the versions and the device; XLA takes as many threads as there are cores."""
    del threads
    jax.config.update("jax_default_matmul_precision", "highest")
    import flax

    (device, *_) = jax.devices()
    _compile_kernels()
    return {
        **{m.__name__: m.__version__ for m in (jax, optax, flax, jp)},
        "device": device.device_kind,
        "platform": device.platform,
        "kernels": kernels.enabled(),
    }


def _compile_kernels() -> None:
    """Compile what a first run on a machine would find not yet compiled, and have without."""
    before = os.environ.get("JAXOPT_PORT_KERNELS")
    os.environ["JAXOPT_PORT_KERNELS"] = before or "on"
    try:
        for optimizer, options in OPTIONS.items():
            tx, params = getattr(jp, optimizer)(**options), [jnp.ones((2, 2))]
            jp.step(tx, params, tx.init(params), params)
    finally:
        os.environ.pop("JAXOPT_PORT_KERNELS")
        os.environ |= {} if before is None else {"JAXOPT_PORT_KERNELS": before}


def make(suite: str, name: str, settings: dict[str, Any]) -> Contender:
    """Make a contender."""
    made = {
        "step": _step,
        "loops": _loop,
        "dispatch": _step,
        "train": _train,
        "groups": _groups,
        "limit": _limit,
    }
    return made[suite](name, **settings)


def _limit(name: str, size: int) -> Contender:
    """Move ``size`` bytes: half read, half written."""
    x = jnp.ones(size // 8, jnp.float32)
    if name == "copy":
        return Contender([lambda: jnp.copy(x)], wait=jax.block_until_ready)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [x]

    def call() -> Any:
        held[0] = add(held[0])
        return held[0]

    call()
    return Contender([call], wait=jax.block_until_ready, kept=held)


def _by_update(tx: optax.GradientTransformation) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _by_step(tx: optax.GradientTransformation) -> Callable[..., Any]:
    return lambda params, state, grads: jp.step(tx, grads, state, params)


def _stepper(
    step: Callable[..., Any], tx: optax.GradientTransformation, params: Any, grads: Any
) -> tuple[Callable[[], Any], list[Any]]:
    # In the order of the results: JAX pairs donated arguments with them by place.
    compiled = jax.jit(step, donate_argnums=(0, 1))
    held = [params, tx.init(params)]

    def call() -> Any:
        held[:] = compiled(*held, grads)
        return held

    return call, held


def _form(name: str, optimizer: str) -> tuple[Callable[..., Any], optax.GradientTransformation]:
    if name == "optax":
        if optimizer not in _OPTAX:
            raise LeftOutError(f"Optax has no {optimizer}")
        tx = _OPTAX[optimizer]()
        return _by_update(tx), tx
    tx = getattr(jp, optimizer)(**OPTIONS[optimizer])
    return (_by_step if name == "jp.step" else _by_update)(tx), tx


def _step(name: str, model: str, optimizer: str, copies: int) -> Contender:
    calls, check, kept = [], None, []
    if name == "nothing":
        step: Callable[..., Any] = lambda params, state, grads: (params, state)  # noqa: E731
        tx: optax.GradientTransformation = optax.adam(1e-3)
    else:
        step, tx = _form(name, optimizer)
    for copy in range(copies):
        params = [jnp.array(x) for x in arrays(model, optimizer, 0)]
        grads = [jnp.array(x) for x in arrays(model, optimizer, 1)]
        call, held = _stepper(step, tx, params, grads)
        del params
        for _ in range(STEPS_BEFORE_CHECK if copy == 0 else 1):
            jax.block_until_ready(call())
        if copy == 0 and name != "nothing":
            check = sample(np.asarray(x) for x in held[0])
        calls.append(call)
        kept.append((held, grads))
    return Contender(calls, check, wait=jax.block_until_ready, kept=kept)


def _loop(name: str, model: str, optimizer: str, copies: int) -> Contender:
    if name in ("jp.step", "optax"):
        return _step(name, model, optimizer, copies)
    if name.endswith("optax"):
        tx = _OPTAX[optimizer]()
    else:
        tx = getattr(jp, optimizer)(**OPTIONS[optimizer])
    params, grads = ([jnp.array(x) for x in arrays(model, optimizer, seed)] for seed in (0, 1))
    return loop(name, tx, params, grads)


def _groups(name: str, leaves: int, groups: int) -> Contender:
    names = [f"layer{i:04}" for i in range(leaves)]
    rng = np.random.default_rng(0)
    params = {n: jnp.asarray(rng.standard_normal((16, 16), dtype=np.float32)) for n in names}
    grads = jax.tree.map(lambda p: 1e-3 * p, params)
    if name == "optax":
        inject = optax.inject_hyperparams(optax.sgd)
        labels = {n: str(i % groups) for i, n in enumerate(names)}
        each = {str(g): inject(learning_rate=1e-3 * (g + 1), momentum=0.9) for g in range(groups)}
        tx: Any = optax.multi_transform(each, labels)
        call, held = _stepper(_by_update(tx), tx, params, grads)
    else:
        tx = jp.SGD(
            [{"params": names[g::groups], "lr": 1e-3 * (g + 1)} for g in range(groups)],
            momentum=0.9,
        )
        call, held = _stepper(_by_step(tx), tx, params, grads)
    for _ in range(STEPS_BEFORE_CHECK):
        jax.block_until_ready(call())
    check = sample(np.asarray(held[0][n]) for n in names)
    return Contender([call], check, wait=jax.block_until_ready, kept=held)


def _torchs(make: Callable[[], Any], params: Any) -> Any:
    """Return the parameters that torch begins with, where there is torch."""
    if importlib.util.find_spec("torch") is None:
        return params
    return interop.params_from_torch(make(), params)


def _loss(network: str, batch: int, apply: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the loss of a network as a function of its parameters."""
    if network == "LeNet":
        inputs, labels = map(jnp.asarray, lenet_batch(batch))
    else:
        tokens = jnp.asarray(words(batch))
        inputs, labels = tokens[:, :-1], tokens[:, 1:]

    def loss(params: Any) -> Any:
        logits = apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def _in_nnx(module: Any) -> tuple[Callable[..., Any], Any]:
    """Return a module as a function of its parameters, and them."""
    graph, params = nnx.split(module)
    return lambda params, x: nnx.merge(graph, params)(x), params


def _train(name: str, network: str, batch: int, low: bool = False) -> Contender:
    """Make a training step; if ``low``, in bfloat16, with parameters and updates in float32."""
    options = "SGD" if network == "LeNet" else "AdamW"
    if network != "LeNet":
        apply, params = _in_nnx(transformer_nnx())
        make = transformer_torch
    else:
        make = lenet_torch
        if name.startswith("Linen"):
            linen = lenet.LinenLeNet()
            params = linen.init(jax.random.key(0), jnp.asarray(lenet_batch(batch)[0]))
            apply = linen.apply
        else:
            module = lenet.LeNet(rngs=nnx.Rngs(0))
            for layer in module.features:
                if "XLA's convolution" in name and isinstance(layer, nnx.Conv):
                    layer.conv_general_dilated = jax.lax.conv_general_dilated
            apply, params = _in_nnx(module)
    params = _torchs(make, params)
    tx = _OPTAX[options]() if name.endswith("optax") else getattr(jp, options)(**OPTIONS[options])
    loss = _loss(network, batch, apply)

    update = (_by_update if name.endswith("optax") else _by_step)(tx)

    def lowered(params: Any) -> Any:
        return loss(jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)).astype(jnp.float32)

    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(lowered if low else loss)(params)
        return (*update(params, state, grads), value)

    compiled, held = jax.jit(step, donate_argnums=(0, 1)), [params, tx.init(params)]

    def call() -> Any:
        *held[:], value = compiled(*held)
        return value

    losses = np.array([float(call()) for _ in range(STEPS_BEFORE_CHECK)])
    return Contender([call], losses, wait=jax.block_until_ready, kept=held)


_COMPILED: dict[str, Callable[[], tuple[Callable[..., Any], Any]]] = {
    "optax.adam": lambda: (_by_update, optax.adam(1e-3)),
    "jp.adam": lambda: (_by_step, jp.adam()),
    "inject_hyperparams(optax.adam)": lambda: (
        _by_update,
        optax.inject_hyperparams(optax.adam)(1e-3),
    ),
    "jp.Adam": lambda: (_by_step, jp.Adam()),
    "jp.Adam, tx.update": lambda: (_by_update, jp.Adam()),
}


def compile_seconds(name: str, leaves: int) -> float:
    """Return the processor time of tracing and compiling a step, which no other process adds to."""
    form, tx = _COMPILED[name]()
    shapes = [(64, 32), (32,), (3, 3, 16, 16), (128,)]
    params = {f"layer{i:04}": jnp.ones(shapes[i % 4]) for i in range(leaves)}
    state = tx.init(params)
    jax.clear_caches()
    begun = time.process_time()
    jax.jit(form(tx), donate_argnums=(0, 1)).lower(params, state, params).compile()
    return time.process_time() - begun


def compile_training_seconds(name: str, network: str) -> float:
    """Return the processor time of tracing and compiling a whole training step."""
    is_lenet = network == "LeNet"
    apply, params = _in_nnx(lenet.LeNet(rngs=nnx.Rngs(0)) if is_lenet else transformer_nnx(12))
    ours = name == "jp.AdamW"
    tx = jp.AdamW(**OPTIONS["AdamW"]) if ours else _OPTAX["AdamW"]()
    update, loss = (_by_step if ours else _by_update)(tx), _loss(network, 8, apply)
    state = tx.init(params)
    jax.clear_caches()
    begun = time.process_time()
    step = jax.jit(lambda p, s: update(p, s, jax.grad(loss)(p)), donate_argnums=(0, 1))
    step.lower(params, state).compile()
    return time.process_time() - begun


def memory(settings: dict[str, Any]) -> dict[str, float]:
    """Return bytes of parameters, of state, and what a donated step needs beyond its arguments."""
    tx = getattr(jp, settings["optimizer"])(**OPTIONS[settings["optimizer"]])
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes_of(**settings)]
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(_by_step(tx), donate_argnums=(0, 1))
    found = step.lower(params, state, params).compile().memory_analysis()
    more = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return {
        "parameters": float(sum(4 * math.prod(p.shape) for p in params)),
        "state": float(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))),
        "arguments": float(found.argument_size_in_bytes),
        "more": float(more),
    }
