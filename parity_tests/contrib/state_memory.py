"""Prints what the state of 8-bit AdamW takes at GPT-2's shapes, beside AdamW's: ``make matrix``.

Of this library the bytes of the state's arrays, and what a donated step needs beyond its arguments,
as XLA says of the compiled program on this machine; of torch and torchao the bytes of what the
optimizer holds after a step, its tensors of codes with the numbers that these stand for.
"""

import importlib
import math

import jax
import jax.numpy as jnp
import torch

import jaxopt_port as jp
from benchmarks.speed._shapes import MODELS
from jaxopt_port import contrib

MODEL = "GPT-2 small"


def of_port(tx, shapes) -> tuple[int, int]:
    """The bytes of the state, and of a step's scratch."""
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    state = jax.eval_shape(tx.init, params)

    def step(params, state, grads):
        return jp.step(tx, grads, state, params)

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    held = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(state))
    return held, compiled.memory_analysis().temp_size_in_bytes


def of_torch(cls, shapes) -> int:
    """The bytes of the state, which is made by the first step; leaf by leaf, to need less."""
    held = 0
    for shape in shapes:
        param = torch.nn.Parameter(torch.zeros(shape))
        optimizer = cls([param])
        param.grad = torch.zeros(shape)
        with torch.compiler.set_stance("force_eager"):
            optimizer.step()
        for value in optimizer.state[param].values():
            names = getattr(value, "tensor_attrs", None)
            parts = [value] if names is None else [getattr(value, name) for name in names]
            held += sum(part.numel() * part.element_size() for part in parts)
    return held


def main() -> None:
    shapes = MODELS[MODEL]()
    numbers = sum(map(math.prod, shapes))
    print(f"{MODEL}: {numbers} parameters in {len(shapes)} leaves, float32")
    print("| optimizer | bytes of state | a parameter | scratch of a donated step |")
    print("| --- | ---: | ---: | ---: |")
    for name, tx in (("`jp.AdamW`", jp.AdamW()), ("`contrib.AdamW8bit`", contrib.AdamW8bit())):
        held, scratch = of_port(tx, shapes)
        print(f"| {name} | {held:,} | {held / numbers:.3f} | {scratch:,} |", flush=True)
    theirs = {"torch.optim": "AdamW", "torchao.optim": "AdamW8bit"}
    for package, name in theirs.items():
        held = of_torch(getattr(importlib.import_module(package), name), shapes)
        print(f"| {package}.{name} | {held:,} | {held / numbers:.3f} | |", flush=True)


if __name__ == "__main__":
    main()
