"""A run of one process or several, saved in all of torch's ways.

``python -m parity_tests.interop.distributed_run RANK WORLD FOLDER``.

The processes meet over a file. Each layout is a folder or a file in FOLDER, and an .npz for each
optimizer has the parameters after the steps that torch goes on with, from the gradients that
`gradient` gives.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

BEGUN, MORE = 5, 20


def network() -> torch.nn.Sequential:
    """Three rows in a layer, which two processes do not share evenly."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


def optimizer_of(name: str, module: torch.nn.Module) -> torch.optim.Optimizer:
    """In two groups, of different options."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    biases = [p for p in module.parameters() if p.ndim == 1]
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "lr": 0.05}]
    made: torch.optim.Optimizer = getattr(torch.optim, name)(groups, lr=0.1, **options)
    return made


def gradient(step: int, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the same gradients in every process, and on the other side."""
    rng = np.random.default_rng(step)
    return {
        name: torch.from_numpy(rng.normal(size=tuple(p.shape)).astype(np.float32))
        for name, p in module.named_parameters()
    }


def train(module: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Take steps; of a DTensor, the gradient is one too."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    for step in steps:
        for (_, p), grad in zip(
            module.named_parameters(), gradient(step, module).values(), strict=True
        ):
            whole = isinstance(p, DTensor)
            p.grad = distribute_tensor(grad, p.device_mesh, p.placements) if whole else grad
        optimizer.step()


def whole(value: torch.Tensor) -> np.ndarray:
    """Return a tensor's or a DTensor's values."""
    full = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach().numpy()


def saved(name: str, module: Any, optimizer: Any, folder: Path) -> None:
    """Save in all ways, and then what torch goes on to."""
    train(module, optimizer, range(BEGUN))
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    full = StateDictOptions(full_state_dict=True, cpu_offload=True)
    for way, options in (("named", None), ("flattened", flat)):
        model, held = get_state_dict(module, optimizer, options=options)
        dcp.save({"model": model, "optim": held}, checkpoint_id=folder / f"{name}.{way}")
    for way, options in (
        ("full", full),
        ("full_flattened", StateDictOptions(True, True, flatten_optimizer_state_dict=True)),
    ):
        model, held = get_state_dict(module, optimizer, options=options)
        if dist.get_rank() == 0:
            torch.save({"model": model, "optim": held}, folder / f"{name}.{way}")
    torch.save(
        {"model": module.state_dict(), "optim": optimizer.state_dict()},
        folder / f"{name}.of_rank_{dist.get_rank()}",
    )
    train(module, optimizer, range(BEGUN, BEGUN + MORE))
    values = {n: whole(p) for n, p in module.named_parameters()}
    if dist.get_rank() == 0:
        np.savez(folder / f"{name}.npz", **values)


def main(rank: int, world: int, folder: Path) -> None:
    """Run one process of several."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    for name in ("Adamax", "SGD", "AdamW"):
        module = network()
        for layer in (module[0], module[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        saved(name, module, optimizer_of(name, module), folder)
    wrapped = torch.nn.parallel.DistributedDataParallel(network())
    saved("DDP", wrapped, optimizer_of("SGD", wrapped), folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
