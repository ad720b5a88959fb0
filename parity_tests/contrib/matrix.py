"""Compares `jaxopt_port.contrib` with the packages themselves: ``make matrix``.

Prints a row for each configuration: how far 100 steps in float64 are apart, a step in float32 and
one in bfloat16 from the package's own state, in units in the last place, with the package's
foreach implementation beside its loop. Exits with 1 where a bound is broken.
"""

import argparse
import copy
import importlib.metadata
import json
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.numerics import relative, step_units
from parity_tests.contrib.cases import (
    CASES,
    RECORDED,
    RECORDED_SCHEDULES,
    Case,
    fingerprint,
    gradients,
)
from parity_tests.contrib.schedule_cases import TIMM, digest, shown, theirs_of_timm
from parity_tests.oracles.optimizer import TorchOracle, to_numpy, to_torch

FLOAT64, FLOAT32, BFLOAT16 = 1e-12, 4, 1
# PyPI's torchvision, which timm imports, is built for another torch; timm needs none of its
# operators here, and Python's part of it asks for the names of these two.
_VISION = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor a, Tensor b, float c) -> Tensor",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
):
    _VISION.define(_schema)


def oracle(case: Case, start, **own):
    options = {**case.options, **case.own, **own}
    made = TorchOracle(case.theirs(), start, [list(start)], options)
    if hasattr(made.optimizer, "train"):
        made.optimizer.train()
    return made


def in_numpy(value):
    if isinstance(value, torch.Tensor):
        return to_numpy(value)
    if isinstance(value, dict):
        return {k: in_numpy(v) for k, v in value.items()}
    return [in_numpy(v) for v in value] if isinstance(value, list) else value


def taken_over(case: Case, theirs: TorchOracle, tx):
    """The port where the reference is: parameters and state."""
    held = in_numpy(case.reference.from_torch(theirs.optimizer.state_dict(), theirs.optimizer))
    (group,) = held["param_groups"]
    group["param_names"] = list(theirs.tensors)
    params = {name: jnp.asarray(array) for name, array in theirs.params().items()}
    order = [i for i, _ in enumerate(theirs.tensors)]
    group["params"] = order
    return params, jp.load_state_dict(tx, held, params)


def run64(case: Case, steps: int) -> float:
    """How far runs in float64 are apart, relative to a leaf's largest magnitude."""
    rng = np.random.default_rng(7)
    start = case.drawn(rng, np.float64)
    theirs, far = oracle(case, start), 0.0
    with jax.enable_x64(True):
        tx = case.made()
        params = {name: jnp.asarray(array) for name, array in start.items()}
        state = tx.init(params)
        pool = [case.drawn(rng, np.float64) for _ in range(8)]
        for _ in range(steps):
            grads = pool[int(rng.integers(8))]
            theirs.step({k: to_torch(v) for k, v in grads.items()})
            ours = {k: jnp.asarray(v) for k, v in grads.items()}
            params, state = jp.step(tx, ours, state, params)
        for name, expected in theirs.params().items():
            far = max(far, relative(np.asarray(params[name]), expected))
    return far


def steps_apart(case: Case, dtype, steps: int) -> tuple[float, float]:
    """How far a step is from the reference's, and its foreach from its loop, in units."""
    rng = np.random.default_rng(11)
    start = case.drawn(rng, dtype)
    theirs, tx, far, spread = oracle(case, start), case.made(), 0.0, 0.0
    other = oracle(case, start, foreach=True) if "foreach" in case.own else None
    for _ in range(steps):
        grads = case.drawn(rng, dtype)
        params, state = taken_over(case, theirs, tx)
        before = theirs.params()
        if other is not None:
            other.optimizer.load_state_dict(copy.deepcopy(theirs.optimizer.state_dict()))
            for name, tensor in other.tensors.items():
                tensor.data.copy_(theirs.tensors[name].data)
            if hasattr(other.optimizer, "train"):
                other.optimizer.train()
            other.step({k: to_torch(v) for k, v in grads.items()})
        theirs.step({k: to_torch(v) for k, v in grads.items()})
        ours = {k: jnp.asarray(v) for k, v in grads.items()}
        params, state = jp.step(tx, ours, state, params)
        after = theirs.params()
        for name, expected in after.items():
            units = step_units(np.asarray(params[name]), expected, before[name])
            far = max(far, float(np.max(units, initial=0.0)))
        if other is not None:
            for name, array in other.params().items():
                units = step_units(array, after[name], before[name])
                spread = max(spread, float(np.max(units, initial=0.0)))
    return far, spread


def resumed(case: Case) -> float:
    """How far a run in float64 is from the unbroken one, that goes over to this side and back."""
    start, grads = gradients(case)
    unbroken, broken = oracle(case, start), oracle(case, start)
    for given in grads:
        unbroken.step({k: to_torch(v) for k, v in given.items()})
    for given in grads[:3]:
        broken.step({k: to_torch(v) for k, v in given.items()})
    module = torch.nn.ParameterDict({k: torch.nn.Parameter(t) for k, t in broken.tensors.items()})
    for group in broken.optimizer.param_groups:
        for old in group["params"]:
            (name,) = [k for k, t in broken.tensors.items() if t is old]
            if old in broken.optimizer.state:
                broken.optimizer.state[module[name]] = broken.optimizer.state.pop(old)
        group["params"] = list(module.values())
    with jax.enable_x64(True):
        params = {name: jnp.asarray(array) for name, array in broken.params().items()}
        mapped = interop.param_map(module, params)
        tx, state = interop.optimizer_from_torch(broken.optimizer, params, mapped, module=module)
        for given in grads[3:5]:
            ours = {k: jnp.asarray(v) for k, v in given.items()}
            params, state = jp.step(tx, ours, state, params)
        for name, tensor in module.items():
            tensor.data.copy_(to_torch(np.asarray(params[name])))
        again = interop.optimizer_to_torch(tx, state, params, module, mapped)
    assert type(again) is case.theirs()
    if hasattr(again, "train"):
        again.train()
        for group in again.param_groups:
            group["train_mode"] = True
    for given in grads[5:]:
        for name, tensor in module.items():
            tensor.grad = to_torch(given[name])
        again.step()
    return max(relative(to_numpy(module[k]), v) for k, v in unbroken.params().items())


def recorded(cases) -> dict:
    """By configuration and leaf, what tells the parameters at a run's end from others."""
    found = {}
    for case in cases:
        start, grads = gradients(case)
        theirs = oracle(case, start)
        for given in grads:
            theirs.step({k: to_torch(v) for k, v in given.items()})
        found[repr(case)] = {k: fingerprint(v) for k, v in theirs.params().items()}
    return found


def recorded_schedules() -> dict:
    """By schedule of timm's, what tells its rates from others, and its state dict at the end."""
    found = {}
    for name, arguments in TIMM:
        rates, state_dict = theirs_of_timm(name, arguments)
        found[shown(name, arguments)] = {
            "first": rates[:12],
            "digest": digest(rates),
            "state_dict": state_dict,
        }
    return found


def versions(cases) -> str:
    packages = dict.fromkeys(["torch", *(case.package for case in cases)])
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} (from source)")
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of a case's name")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--record", action="store_true", help="write what the tests compare with")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only.lower() in repr(case).lower()]
    print(versions(cases))
    if arguments.record:
        RECORDED.write_text(json.dumps(recorded(cases), indent=0) + "\n")
        RECORDED_SCHEDULES.write_text(json.dumps(recorded_schedules(), indent=0) + "\n")
        return 0
    print(
        f"| configuration | float64, {arguments.steps} steps | over and back | float32 | bfloat16 |"
    )
    print("|---|---|---|---|---|")
    broken = 0
    for case in cases:
        far64 = run64(case, arguments.steps)
        far32, spread = steps_apart(case, np.float32, arguments.steps)
        far16, spread16 = steps_apart(case, ml_dtypes.bfloat16, arguments.steps // 4)
        over = resumed(case)
        held = max(far64, over) <= FLOAT64 and far32 <= max(FLOAT32, spread)
        held = held and far16 <= max(BFLOAT16, spread16)
        broken += not held
        mark = "" if held else " **broken**"
        row = (
            f"{far64:.1e} | {over:.1e} | {far32:.2g} / {spread:.2g} | {far16:.2g} / {spread16:.2g}"
        )
        print(f"| {case!r}{mark} | {row} |", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
