"""nanoGPT whole: a run that stopped in torch goes on from ``ckpt.pt``, beside torch's own steps.

Four micro-batches to a step, clipping, AdamW whose matrices alone decay, warm-up and cosine by a
function, and weights that are tied. The torch half is nanoGPT's ``model.py`` and ``train.py`` on
random text; the JAX half is what a port of them is.

    python examples/nanogpt.py
"""

import functools
import math
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import interop

VOCABULARY, LENGTH, LAYERS, HEADS, WIDTH = 65, 16, 2, 2, 32
MICRO, BATCH, STOP, STEPS, LR = 4, 4, 5, 10, 1e-3
F = torch.nn.functional


def batches(step):
    rng = np.random.default_rng(step)
    text = rng.integers(0, VOCABULARY, (MICRO, BATCH, LENGTH + 1))
    return text[..., :-1], text[..., 1:]


def factor(step):
    """The part of the largest rate: nanoGPT's get_lr."""
    if step < 2:
        return (step + 1) / 3
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2)))


# torch's side


class LayerNorm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(WIDTH), LayerNorm(WIDTH)
        linear = torch.nn.Linear
        self.attn = torch.nn.ModuleDict(
            {"c_attn": linear(WIDTH, 3 * WIDTH), "c_proj": linear(WIDTH, WIDTH)}
        )
        self.mlp = torch.nn.ModuleDict(
            {"c_fc": linear(WIDTH, 4 * WIDTH), "c_proj": linear(4 * WIDTH, WIDTH)}
        )

    def forward(self, x):
        shape = (*x.shape[:2], HEADS, -1)
        parts = self.attn["c_attn"](self.ln_1(x)).split(WIDTH, dim=2)
        q, k, v = (part.view(shape).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](y.transpose(1, 2).reshape(x.shape))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class TorchGPT(torch.nn.Module):
    def __init__(self):
        super().__init__()
        parts = {
            "wte": torch.nn.Embedding(VOCABULARY, WIDTH),
            "wpe": torch.nn.Embedding(LENGTH, WIDTH),
            "h": torch.nn.ModuleList([TorchBlock() for _ in range(LAYERS)]),
            "ln_f": LayerNorm(WIDTH),
        }
        self.transformer = torch.nn.ModuleDict(parts)
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(LENGTH))
        for block in self.transformer["h"]:
            x = block(x)
        logits = self.lm_head(self.transformer["ln_f"](x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def in_torch(net, path):
    """Train; save a checkpoint half way; return the losses after it."""
    matrices = [p for p in net.parameters() if p.dim() >= 2]
    others = [p for p in net.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    for step in range(STEPS):
        if step == STOP:
            parts = {"model": net, "optimizer": optimizer, "scheduler": scheduler}
            torch.save({name: part.state_dict() for name, part in parts.items()}, path)
        losses.append(0.0)
        for ids, targets in zip(*map(torch.from_numpy, batches(step)), strict=True):
            loss = net(ids, targets) / MICRO
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
    return losses[STOP:]


# The same in Flax


class Part(nnx.Module):
    """Two linear layers by nanoGPT's names."""

    def __init__(self, rngs, first, wide):
        setattr(self, first, nnx.Linear(WIDTH, wide, rngs=rngs))
        self.c_proj = nnx.Linear(wide if first == "c_fc" else WIDTH, WIDTH, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, rngs):
        norm = functools.partial(nnx.LayerNorm, WIDTH, epsilon=1e-5, rngs=rngs)  # torch's epsilon
        self.ln_1, self.ln_2 = norm(), norm()
        self.attn, self.mlp = Part(rngs, "c_attn", 3 * WIDTH), Part(rngs, "c_fc", 4 * WIDTH)

    def __call__(self, x):
        parts = jnp.split(self.attn.c_attn(self.ln_1(x)), 3, axis=-1)
        q, k, v = (part.reshape(*x.shape[:2], HEADS, -1) for part in parts)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(y.reshape(x.shape))
        return x + self.mlp.c_proj(nnx.gelu(self.mlp.c_fc(self.ln_2(x)), approximate=False))


class GPT(nnx.Module):
    def __init__(self, rngs):
        self.wte = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.wpe = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.h = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.ln_f = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

    def __call__(self, ids):
        x = self.wte(ids) + self.wpe(jnp.arange(LENGTH))
        for block in self.h:
            x = block(x)
        return self.wte.attend(self.ln_f(x))  # the tied weights


def in_jax(module, path):
    """Go on from a checkpoint; return the losses and the parameters."""
    model = GPT(nnx.Rngs(0))
    graph = nnx.graphdef(model)
    run = interop.load(path)
    module.load_state_dict(torch.load(path)["model"])
    params = interop.params_from_torch(module, model)
    order = [[], []]  # of the optimizer's groups: many parameters have one shape
    for name, parameter in module.named_parameters():
        order[parameter.dim() < 2].append(name)
    tx, state = interop.optimizer_from_torch(
        run, params, module, optimizer_name="AdamW", param_names=order
    )
    scheduler = jp.lr_scheduler.LambdaLR(factor, total_steps=STEPS)  # it has an `if`: called first
    sched = scheduler.load_state_dict(run.scheduler)

    @jax.jit
    def train_step(params, state, sched, ids, targets):
        def loss(params, ids, targets):
            logits = nnx.merge(graph, params)(ids)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean() / MICRO

        def micro_step(held, batch):
            value, grads = jax.value_and_grad(loss)(params, *batch)
            return jax.tree.map(jnp.add, held, (value, grads)), None

        zeros = (0.0, jax.tree.map(jnp.zeros_like, params))
        (value, grads), _ = jax.lax.scan(micro_step, zeros, (ids, targets))
        grads, _ = jp.clip_grad_norm(grads, 1.0)
        params, state = jp.step(tx, grads, state, params)
        state, sched = scheduler.step(state, sched)
        return params, state, sched, value

    losses = []
    for step in range(STOP, STEPS):
        params, state, sched, value = train_step(params, state, sched, *batches(step))
        losses.append(float(value))
    return losses, params


def main():
    torch.manual_seed(0)
    net = TorchGPT()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ckpt.pt"
        expected = in_torch(net, path)
        losses, params = in_jax(TorchGPT(), path)
    for step, (theirs, mine) in enumerate(zip(expected, losses, strict=True), start=STOP):
        print(f"step {step}  torch {theirs:.6f}  here {mine:.6f}")
    crossed = interop.params_to_torch(params, TorchGPT()).state_dict()
    apart = {name: (crossed[name] - p).abs().max().item() for name, p in net.state_dict().items()}
    # The keys' bias has no gradient but rounding, of which Adam makes whole steps.
    without = max(d for name, d in apart.items() if not name.endswith("c_attn.bias"))
    print(f"losses equal to 1e-5: {np.allclose(losses, expected, rtol=1e-5)}")
    print(
        f"furthest parameter: {without:.0e}, of the biases with the keys' {max(apart.values()):.0e}"
    )


if __name__ == "__main__":
    main()
