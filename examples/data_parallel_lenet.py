"""LeNet on several processes, with checkpoints: killed at any moment, it goes on where it was.

Every device has all parameters and its part of the batch and of the optimizer's state (ZeRO-1). The
checkpoint does not remember how many devices there were: start it again on more or on fewer.

Run it: ``python examples/data_parallel_lenet.py --processes 2 --devices 4``. Kill it, and run it
again. On a real cluster each host starts ``worker`` itself, and ``jax.distributed.initialize()``
finds the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import jaxopt_port as jp
from jaxopt_port.models import LeNet

Report = Callable[[int, float], None]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of LeNet's size, (N, 3, 32, 32), and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).repeat(3, 1).repeat(4, 2).repeat(4, 3) / 16
    return images.astype(np.float32), labels.astype(np.int32)


def train(folder: Path, steps: int, batch: int, save_every: int, report: Report) -> Any:
    """Train on all devices of all processes, from the last complete checkpoint in a folder.

    Returns:
        The parameters.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    tx = optax.chain(jp.clip_by_grad_norm(1.0), jp.SGD(lr=0.05, momentum=0.9, nesterov=True))
    scheduler = jp.lr_scheduler.CosineAnnealingLR(T_max=steps)

    def init() -> Any:
        return nnx.split(LeNet(rngs=nnx.Rngs(0)), nnx.Param)

    graph, shapes = nnx.eval_shape(init)
    params = jax.jit(lambda: init()[1], out_shardings=everywhere)()
    of_state = jp.state_shardings(tx, everywhere, shapes, over="data")
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    state, sched_state = scheduler.init(state)

    @jax.jit(donate_argnums=(0, 1), out_shardings=(everywhere, of_state, everywhere))
    def step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = nnx.merge(graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        # The mean is over the whole batch: XLA adds up what the devices have.
        value, grads = jax.value_and_grad(loss)(params)
        return (*jp.step(tx, grads, state, params), value)

    options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=save_every)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        done = manager.latest_step() or 0
        if done:
            like = {"params": params, "state": state, "scheduler": sched_state}
            kept = manager.restore(done, args=ocp.args.StandardRestore(like))
            params, state, sched_state = kept["params"], kept["state"], kept["scheduler"]
        images, labels = digits()
        for i in range(done, steps):
            # The same in all processes; each of them puts its own part on its devices.
            chosen = np.random.default_rng(i).integers(0, len(labels), batch)
            x, y = (
                jax.make_array_from_callback(array.shape, split, array.__getitem__)
                for array in (images[chosen], labels[chosen])
            )
            params, state, value = step(params, state, x, y)
            state, sched_state = scheduler.step(state, sched_state)
            report(i + 1, float(value))
            manager.save(
                i + 1,
                args=ocp.args.StandardSave(
                    {"params": params, "state": state, "scheduler": sched_state}
                ),
            )
    return params


def worker(index: int, address: str | None, options: argparse.Namespace) -> None:
    """Be one of the processes."""
    jax.config.update("jax_num_cpu_devices", options.devices)
    if address is not None:
        jax.distributed.initialize(address, options.processes, index)
    begun = time.monotonic()

    def report(step: int, loss: float) -> None:
        if index == 0 and (step % 20 == 0 or step == options.steps):
            print(f"step {step:4}  loss {loss:.4f}  {time.monotonic() - begun:.1f} s", flush=True)

    train(options.folder, options.steps, options.batch, options.save_every, report)


def main(arguments: list[str] | None = None) -> None:
    """Start the processes, and end them all if one of them dies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("lenet_checkpoints"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=4, help="of each process")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64, help="of all devices together")
    parser.add_argument("--save-every", type=int, default=20, help="steps")
    options = parser.parse_args(arguments)
    if options.batch % (options.processes * options.devices):
        parser.error("--batch must be a multiple of --processes times --devices")

    address = None
    if options.processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")  # a process that has used JAX must not fork
    workers = [
        spawn.Process(target=worker, args=(i, address, options), daemon=True)
        for i in range(options.processes)
    ]
    for each in workers:
        each.start()
    multiprocessing.connection.wait([each.sentinel for each in workers])
    while any(each.is_alive() for each in workers):
        if any(each.exitcode for each in workers):
            for each in workers:
                each.kill()
        time.sleep(0.1)
    if any(each.exitcode for each in workers):
        raise SystemExit("a process died; run the same command again to go on")


if __name__ == "__main__":
    main()
