"""torch's own numbers in a file, and the port against them where there is no torch.

``python -m parity_tests.environments.recorded_runs write FOLDER``, with torch: runs of every
optimizer in each of torch's configurations and of every scheduler. ``… check FOLDER``, without
torch: the same runs here, which must have those bits (Adafactor and Muon, whose sums have another
order: the same numbers). Exits with 1 where one has not.
"""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import jaxopt_port as jp
from parity_tests.oracles.bits import as_integers, relative
from parity_tests.oracles.port_scheduler import PortSide, run
from parity_tests.oracles.scheduler_cases import CASES as SCHEDULERS
from parity_tests.oracles.tolerances import RESUMED

SHAPES = {"weight": (17, 31), "other": (9, 4)}  # matrices: Muon takes no others
STEPS = 8


def drawn():
    rng = np.random.default_rng(18)
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(STEPS + 1)
    ]


def write(folder):
    import torch

    from parity_tests.oracles.configurations import LEAFWISE, MUON
    from parity_tests.oracles.optimizer import configurations, torchs_parameters
    from parity_tests.oracles.scheduler import OF_TORCH, torch_run

    def root(tensor):
        """A correctly rounded one, in place of MKL's."""
        return torch.from_numpy(np.asarray(np.sqrt(tensor.numpy())))

    torch.Tensor.sqrt = root
    torch.Tensor.sqrt_ = lambda tensor: tensor.copy_(root(tensor))
    cases, arrays = [], {}
    start, *gradients = drawn()
    for optimizer in (*LEAFWISE, MUON):
        for _, options in configurations(optimizer.torch):
            ended = torchs_parameters(optimizer.torch, start, options, gradients)
            arrays |= {f"{len(cases)}/{name}": array for name, array in ended.items()}
            plain = {k: v.item() if torch.is_tensor(v) else v for k, v in options.items()}
            cases.append((optimizer.name, plain))
    arrays |= {f"scheduler/{name}": torch_run(name) for name in OF_TORCH}
    np.savez(folder / "runs.npz", **arrays)
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


def stepped(optimizer, options):
    start, *gradients = drawn()
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    tx = getattr(jp, optimizer)(**options)
    params = {name: jnp.asarray(array) for name, array in start.items()}
    state = tx.init(params)
    for grads in gradients:
        params, state = jp.step(tx, grads, state, params)
    return {name: np.asarray(array) for name, array in params.items()}


def is_same(ours, theirs):
    return ours.shape == theirs.shape and np.array_equal(as_integers(ours), as_integers(theirs))


def check(folder):
    assert "torch" not in sys.modules
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    arrays, odd = np.load(folder / "runs.npz"), []
    for i, (optimizer, options) in enumerate(cases):
        for name, ours in stepped(optimizer, options).items():
            theirs = arrays[f"{i}/{name}"]
            allowed = RESUMED.get(optimizer)
            held = relative(ours, theirs) <= allowed if allowed else is_same(ours, theirs)
            if not held:
                far = relative(ours, theirs)
                odd.append(f"{optimizer} {options}: {name} is {far:.1e} from torch's")
    schedules = {name: arrays[key] for name in SCHEDULERS if (key := f"scheduler/{name}") in arrays}
    odd += [
        f"scheduler {name}"
        for name, theirs in schedules.items()
        if not is_same(run(PortSide(SCHEDULERS[name])), theirs)
    ]
    print(f"{len(cases)} configurations of optimizers, {len(schedules)} schedules: {len(odd)} odd")
    print("\n".join(odd))
    return int(bool(odd))


if __name__ == "__main__":
    sys.exit({"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2])))
