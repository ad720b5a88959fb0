"""Runs of the data-parallel example in processes that can be killed.

Each is forked from a server that has imported everything and has used nothing of JAX: a life of a
worker takes as long as its steps.
"""

import importlib.util
import multiprocessing
import socket
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp

EXAMPLE = Path(__file__).parents[2] / "examples" / "data_parallel_lenet.py"


def example():
    spec = importlib.util.spec_from_file_location("data_parallel_lenet", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAIN = example().train

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload([__name__])


def life(folder, steps, save_every, devices, process, address, channel):
    """Be one process of a run; say each step; leave the parameters in a file."""
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if address is not None:
        jax.distributed.initialize(address, 2, process)
    params = TRAIN(folder, steps, 32, save_every, lambda step, loss: channel.send((step, loss)))
    whole = [np.asarray(x.addressable_data(0)) for x in jax.tree.leaves(params)]
    np.savez(folder.parent / f"{folder.name}_{process}.npz", *whole)


def started(target, processes, arguments=()):
    """Start processes that find each other; return them, and where each is heard."""
    address = None
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
    workers, channels = [], []
    for process in range(processes):
        mine, theirs = server.Pipe(duplex=False)
        every = (*arguments, process, address, theirs)
        workers.append(server.Process(target=target, args=every, daemon=True))
        workers[-1].start()
        theirs.close()
        channels.append(mine)
    return workers, channels


class Lives:
    """One run, of one or two processes, as often as it is started.

    Attributes:
        workers: the processes of this start.
        channels: by process, where it says its steps.
    """

    def __init__(self, folder, steps=12, save_every=3, devices=4, processes=1):
        self.folder, self.processes = folder, processes
        self._arguments = (folder, steps, save_every, devices)

    def start(self):
        self.workers, self.channels = started(life, self.processes, self._arguments)

    def kill(self):
        """Kill the last process, and then the others, which wait for it."""
        for worker in reversed(self.workers):
            worker.kill()
        for worker in self.workers:
            worker.join()

    def finish(self, timeout=120):
        for worker in self.workers:
            worker.join(timeout)
        codes = [worker.exitcode for worker in self.workers]
        if any(code != 0 for code in codes):
            self.kill()
            raise AssertionError(f"the processes ended with {codes}")

    def params(self):
        """The parameters that each process ended with."""
        files = [self.folder.parent / f"{self.folder.name}_{i}.npz" for i in range(self.processes)]
        return [list(np.load(file).values()) for file in files]

    def wait_for_step(self, step, timeout=120):
        """Wait until the first process has said that it has done a step."""
        channel = self.channels[0]
        while channel.poll(timeout):
            if channel.recv()[0] >= step:
                return
        raise AssertionError(f"no step {step} in {timeout} s")

    def wait_for_write(self, timeout=120):
        """Wait until a checkpoint is begun, or the run has ended."""
        end = time.monotonic() + timeout
        while not self.partial() and self.workers[0].is_alive():
            assert time.monotonic() < end
            time.sleep(0.0005)

    def partial(self):
        """Checkpoints that are not whole, by Orbax's name for them."""
        return list(self.folder.glob("*.orbax-checkpoint-tmp*"))

    def latest(self):
        """The last checkpoint that is whole by its name."""
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]
        return max(steps, default=0)


def steps_life(process, address, channel):
    """Take steps of split parameters and compare this process's shards with one device's."""
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(address, 2, process)
    different = {}
    shapes = {"a": (16, 8), "b": (8, 32)}
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))

    def placed(x):
        return jax.make_array_from_callback(x.shape, split, x.__getitem__)

    for name in ("SGD", "AdamW", "RMSprop", "Muon"):
        rng = np.random.default_rng(0)
        start, *grads = (
            {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
            for _ in range(21)
        )
        tx = getattr(jp, name)(lr=0.1)
        one = jax.tree.map(lambda x: jax.device_put(x, jax.local_devices()[0]), start)
        one_state = jax.jit(tx.init)(one)
        params = jax.tree.map(placed, start)
        shardings = jp.state_shardings(tx, params)
        state = jax.jit(tx.init, out_shardings=shardings)(params)
        for grad in grads:
            one, one_state = jp.step(tx, grad, one_state, one)
            params, state = jp.step(tx, jax.tree.map(placed, grad), state, params)
        for x, y in zip(*map(jax.tree.leaves, ((one, one_state), (params, state))), strict=True):
            whole = np.asarray(x)
            for shard in y.addressable_shards:
                if whole[shard.index].tobytes() != np.asarray(shard.data).tobytes():
                    different[name] = different.get(name, 0) + 1
    channel.send(different)
