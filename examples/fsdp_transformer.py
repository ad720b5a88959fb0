"""A transformer whose parameters, gradients and optimizer state are split over all devices (FSDP).

No device ever holds the whole model: it is made split, trained split, and XLA gathers each layer's
weights where they are used. What torch needs ``FullyShardedDataParallel`` for is here a sharding
for each parameter; the optimizer's state follows from ``jp.state_shardings``.

Run it: ``python examples/fsdp_transformer.py`` (on a CPU it makes eight devices of one).
"""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp

LENGTH, WIDTH, HEADS, DEPTH = 64, 64, 4, 2


class Block(nnx.Module):
    """Attention and an MLP, each after a norm of its own."""

    def __init__(self, rngs: nnx.Rngs):
        """Make the layers."""
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Return N × LENGTH × WIDTH numbers of as many."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    """Which character is the next?"""

    def __init__(self, characters: int, rngs: nnx.Rngs):
        """Make the layers."""
        self.embed = nnx.Embed(characters, WIDTH, rngs=rngs)
        self.place = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, characters, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return the logits of N × LENGTH next characters."""
        x = self.embed(tokens) + self.place(jnp.arange(LENGTH))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def split_over(mesh: Mesh, x: jax.ShapeDtypeStruct) -> NamedSharding:
    """Split an array along its longest axis that divides, and a small one not at all."""
    axes = [i for i, n in enumerate(x.shape) if n % mesh.size == 0]
    if x.size < 1024 or not axes:
        return NamedSharding(mesh, P())
    longest = max(axes, key=lambda i: x.shape[i])
    return NamedSharding(mesh, P(*(None,) * longest, "data"))


def train(steps: int) -> float:
    """Train on the source of a module; return the last loss."""
    text = inspect.getsource(argparse)
    characters = sorted(set(text))
    tokens = np.array([characters.index(c) for c in text], np.int32)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))

    def init() -> Any:
        return nnx.split(Transformer(len(characters), nnx.Rngs(0)), nnx.Param, ...)

    # Only shapes, so that the model can be larger than any device.
    graph, shapes, _ = nnx.eval_shape(init)
    shardings = jax.tree.map(lambda x: split_over(mesh, x), shapes)
    params = jax.jit(lambda: init()[1], out_shardings=shardings)()
    rest = jax.jit(lambda: init()[2], out_shardings=NamedSharding(mesh, P()))()

    # torch's usual groups: no weight decay for biases, norms and embeddings.
    tx = jp.AdamW(
        [{"params": "**/kernel", "name": "decayed"}, {"params": jp.REST, "weight_decay": 0.0}],
        lr=3e-3,
        betas=(0.9, 0.95),
        weight_decay=0.1,
    )
    of_state = jp.state_shardings(tx, shardings, shapes)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    scheduler = jp.lr_scheduler.OneCycleLR(max_lr=3e-3, total_steps=steps + 1)
    state, sched_state = scheduler.init(state)

    @jax.jit(donate_argnums=(0, 1), out_shardings=(shardings, of_state, None, None))
    def step(params: Any, state: Any, tokens: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = nnx.merge(graph, params, rest)(tokens[:, :-1])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
            return losses.mean()

        value, grads = jax.value_and_grad(loss)(params)
        grads, norm = jp.clip_grad_norm(grads, 1.0)
        return (*jp.step(tx, grads, state, params), value, norm)

    rng = np.random.default_rng(0)
    for i in range(steps):
        begins = rng.integers(0, len(tokens) - LENGTH - 1, 16)
        batch = tokens[begins[:, None] + np.arange(LENGTH + 1)]
        batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
        params, state, value, norm = step(params, state, batch)
        state, sched_state = scheduler.step(state, sched_state)
        if i % 20 == 0 or i + 1 == steps:
            (lr, _) = scheduler.get_last_lr(sched_state)
            print(f"step {i + 1:4}  loss {value:.3f}  gradient {norm:.3f}  lr {lr:.1e}")

    def bytes_on(device: Any, tree: Any) -> int:
        parts = [part for x in jax.tree.leaves(tree) for part in x.addressable_shards]
        return sum(part.data.nbytes for part in parts if part.device == device)

    whole = sum(x.nbytes for x in jax.tree.leaves((params, state)))
    own = bytes_on(jax.devices()[0], (params, state))
    print(f"parameters and state: {whole / 1e6:.2f} MB, {own / 1e6:.2f} MB on each device")
    return float(value)


def main() -> None:
    """Train for a while."""
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", 8)
    train(steps=60)


if __name__ == "__main__":
    main()
