"""Compares `jaxopt_port.contrib` with the packages themselves: ``make matrix``.

Prints a row for each configuration: how far 100 steps in float64 are apart, relative to a leaf's
largest magnitude (SOAP's bases, which are float32 there, being rounded once on both sides); the
same for a run that goes over to this side and back; and a step in float32 and one in bfloat16 from
the package's own state, in units in the last place of the largest number of the step, beside the
bound. Two more columns show what there is without torch's own errors: the step in float32 where the
reference takes its roots and powers in float64, and the step in bfloat16 of arrays whose length is
a multiple of torch's vectors. Where sums are what is left, another row says how far torch is from
itself when it adds in another order. Of what stands around an optimizer, a run in
float64, and the end of one of ten steps in float32 and in bfloat16. Then a row for each
schedule and each maker of groups (`schedules_and_groups`). Exits with 1 where a bound is broken, or
a rate or group differs.
"""

import argparse
import contextlib
import copy
import dataclasses
import importlib
import importlib.metadata
import io
import json
import operator
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.numerics import relative
from parity_tests.contrib import mup_cases, schedules_and_groups
from parity_tests.contrib.cases import (
    BASES,
    CASES,
    FACTORS,
    MEANS,
    PLAIN,
    RECORDED,
    RECORDED_SCHEDULES,
    WHOLE,
    Case,
    fingerprint,
    gradients,
)
from parity_tests.contrib.rounded_once import (
    added_otherwise,
    misrounded,
    misrounded_powers,
    rounded_once,
)
from parity_tests.contrib.wrapper_cases import WRAPPED, Wrapped, drawn
from parity_tests.oracles.bits import step_units
from parity_tests.oracles.optimizer import TorchOracle, to_numpy, to_torch

FLOAT64 = 1e-12
DOCUMENT = Path(__file__).parents[2] / "docs" / "contrib.md"
END = "<!-- until here -->"
OPTIMIZERS = "<!-- written by make matrix -->"
OTHERS = "<!-- schedules and groups, written by make matrix -->"
# PyPI's torchvision, which timm imports, is built for another torch; timm needs none of its
# operators here, and Python's part of it asks for the names of these two.
_VISION = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor a, Tensor b, float c) -> Tensor",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
):
    _VISION.define(_schema)


def oracle(case: Case, start):
    names, own = zip(*case.grouped, strict=True)
    made = TorchOracle(case.theirs(), start, names, {**case.options, **case.own}, own)
    if hasattr(made.optimizer, "train"):
        made.optimizer.train()
    case.prepare(made.optimizer)
    return made


def in_numpy(value):
    if isinstance(value, torch.Tensor):
        return to_numpy(value)
    if isinstance(value, dict):
        return {k: in_numpy(v) for k, v in value.items()}
    return [in_numpy(v) for v in value] if isinstance(value, list) else value


def in_jax(grads):
    return {k: v if v is None else jnp.asarray(v) for k, v in grads.items()}


def taken_over(case: Case, theirs: TorchOracle, tx):
    """The port where the reference is: parameters and state."""
    held = in_numpy(case.reference.from_torch(theirs.optimizer.state_dict(), theirs.optimizer))
    for group, (names, _) in zip(held["param_groups"], case.grouped, strict=True):
        group["param_names"] = names
    params = {name: jnp.asarray(array) for name, array in theirs.params().items()}
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
        for step in range(steps):
            grads = case.given(pool[int(rng.integers(8))], theirs.params(), step)
            theirs.step(grads)
            params, state = jp.step(tx, in_jax(grads), state, params)
        for name, expected in theirs.params().items():
            far = max(far, relative(np.asarray(params[name]), expected))
    return far


def steps_apart(case: Case, dtype, steps: int) -> list[float]:
    """How far each of the steps is from the reference's, in units."""
    rng = np.random.default_rng(11)
    start = case.drawn(rng, dtype)
    theirs, tx, far = oracle(case, start), case.made(), []
    for step in range(steps):
        params, state = taken_over(case, theirs, tx)
        before = theirs.params()
        grads = case.given(case.drawn(rng, dtype), before, step)
        theirs.step(grads)
        params, state = jp.step(tx, in_jax(grads), state, params)
        units = [
            np.max(step_units(np.asarray(params[name]), expected, before[name]), initial=0.0)
            for name, expected in theirs.params().items()
        ]
        far.append(float(max(units)))
    return far


def own_spread(case: Case, steps: int) -> float:
    """How far a step of the reference's in float32 is from itself, adding in another order."""
    rng = np.random.default_rng(11)
    start = case.drawn(rng, np.float32)
    theirs, otherwise, far = oracle(case, start), oracle(case, start), 0.0
    for _ in range(steps):
        grads, before = case.drawn(rng, np.float32), theirs.params()
        otherwise.optimizer.load_state_dict(copy.deepcopy(theirs.optimizer.state_dict()))
        for name, tensor in otherwise.tensors.items():
            tensor.data.copy_(theirs.tensors[name].data)
        theirs.step(grads)
        with added_otherwise():
            otherwise.step(grads)
        for name, other in otherwise.params().items():
            units = step_units(other, theirs.params()[name], before[name])
            far = max(far, float(np.max(units, initial=0.0)))
    return far


def resumed(case: Case) -> float:
    """How far a run in float64 is from the unbroken one, that goes over to this side and back."""
    start, arrays = gradients(case)
    unbroken, broken = oracle(case, start), oracle(case, start)
    grads = []
    for step, one in enumerate(arrays):
        grads.append(case.given(one, unbroken.params(), step))
        unbroken.step(grads[-1])
    for given in grads[:3]:
        broken.step(given)
    module = torch.nn.ParameterDict({k: torch.nn.Parameter(t) for k, t in broken.tensors.items()})
    for group, (names, _) in zip(broken.optimizer.param_groups, case.grouped, strict=True):
        for name, old in zip(names, group["params"], strict=True):
            if old in broken.optimizer.state:
                broken.optimizer.state[module[name]] = broken.optimizer.state.pop(old)
        group["params"] = [module[name] for name in names]
    with jax.enable_x64(True):
        params = {name: jnp.asarray(array) for name, array in broken.params().items()}
        mapped = interop.param_map(module, params)
        tx, state = interop.optimizer_from_torch(broken.optimizer, params, mapped, module=module)
        for given in grads[3:5]:
            params, state = jp.step(tx, in_jax(given), state, params)
        for name, tensor in module.items():
            tensor.data.copy_(to_torch(np.asarray(params[name])))
        again = interop.optimizer_to_torch(tx, state, params, module, mapped)
    assert type(again) is case.theirs()
    if hasattr(again, "train"):
        again.train()
    case.prepare(again)
    for given in grads[5:]:
        for name, tensor in module.items():
            tensor.grad = None if given[name] is None else to_torch(given[name])
        again.step()
    return max(relative(to_numpy(module[k]), v) for k, v in unbroken.params().items())


def recorded(cases) -> dict:
    """By configuration and leaf, what tells the parameters at a run's end from others."""
    found = {}
    for case in cases:
        start, arrays = gradients(case)
        theirs = oracle(case, start)
        for step, one in enumerate(arrays):
            theirs.step(case.given(one, theirs.params(), step))
        found[repr(case)] = {k: fingerprint(v) for k, v in theirs.params().items()}
    return found


def wrapped64(case: Wrapped, steps: int) -> float:
    """How far runs in float64 are apart, relative to a leaf's largest magnitude."""
    start, goals = drawn(steps=steps)
    with jax.enable_x64(True), rounded_once():
        ours, theirs = case.ours(start, goals), case.theirs(start, goals)
    return max(relative(np.asarray(ours[name]), expected) for name, expected in theirs.items())


def wrapped_units(case: Wrapped, dtype) -> float:
    """How far a run's end is, which is of two meetings at least, in units."""
    start, goals = drawn(dtype, 10)
    with rounded_once():
        ours, theirs = case.ours(start, goals), case.theirs(start, goals)
    units = (step_units(np.asarray(ours[k]), v, start[k]) for k, v in theirs.items())
    return float(max(np.max(u, initial=0.0) for u in units))


def is_installed(case: Case | Wrapped) -> bool:
    try:
        importlib.import_module(case.package.replace("-", "_"))
    except ImportError:
        return False
    return True


def versions(cases) -> str:
    packages = dict.fromkeys(["torch", *(case.package for case in cases)])
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} (from source)")
    return ", ".join(found)


class Distances(NamedTuple):
    """How far a configuration is: float64 runs, relative, and steps, in units.

    ``rounded32`` is of the reference with its roots rounded correctly, ``whole16`` of arrays
    without a rest; ``rare`` is the part of those steps that are farther than the contract's units.
    """

    case: Case
    run64: float
    over_and_back: float
    step32: float
    rounded32: float
    step16: float
    whole16: float
    rare: float

    @property
    def held(self) -> bool:
        units, low_units, _ = self.case.bounds
        exact = max(self.run64, self.over_and_back) <= FLOAT64
        near = self.step32 <= units and self.step16 <= low_units
        return exact and near and self.rare <= self.case.rare

    def __str__(self):
        units, low_units, _ = self.case.bounds
        far = (f"{self.run64:.1e}", f"{self.over_and_back:.1e}")
        steps = (f"{self.step32:.2g} of {units}", f"{self.rounded32:.2g}")
        low = (f"{self.step16:.2g} of {low_units}", f"{self.whole16:.2g}")
        return " | ".join([repr(self.case), *far, *steps, *low, f"{self.rare:.3g}"])


def distances(case: Case, steps: int) -> Distances:
    whole = dataclasses.replace(case, of=WHOLE)
    with contextlib.redirect_stdout(io.StringIO()):  # Prodigy prints
        of32 = steps_apart(case, np.float32, steps)
        of16 = steps_apart(case, ml_dtypes.bfloat16, steps // 4)
        whole16 = steps_apart(whole, ml_dtypes.bfloat16, steps // 4)
        with rounded_once():
            rounded32 = steps_apart(case, np.float32, steps)
            runs = run64(case, steps), resumed(case)
        beyond = [u > PLAIN[0] for u in rounded32], [u > PLAIN[1] for u in whole16]
        rare = float(max(map(np.mean, beyond)))
    return Distances(case, *runs, *map(max, (of32, rounded32, of16, whole16)), rare)


def summary(found) -> str:
    """A table of classes, with the worst of each's configurations."""
    lines = [
        "| package | class | here | configurations | float64 run | over and back | float32 step "
        "| roots rounded | bfloat16 step | whole vectors |",
        f"| --- | --- | --- {'| ---: ' * 7}|",
    ]
    by_class = {}
    for row in found:
        by_class.setdefault((row.case.package, row.case.name), []).append(row)
    for (package, name), rows in sorted(by_class.items(), key=lambda item: str(item[0]).lower()):
        here = rows[0].case.reference.optimizer.__name__
        far = [max(getattr(row, field) for row in rows) for field in Distances._fields[1:]]
        cells = [*(f"{x:.0e}" for x in far[:2]), *(f"{x:.2g}" for x in far[2:-1])]
        lines.append(" | ".join([f"| {package}", name, f"`{here}`", str(len(rows)), *cells]) + " |")
    return "\n".join(lines)


def summary_of_wrappers(found) -> str:
    """A table of what stands around an optimizer, with the worst of each's configurations."""
    lines = [
        "| package | class | configurations | float64 run | float32, 10 steps "
        "| bfloat16, 10 steps |",
        f"| --- | --- {'| ---: ' * 4}|",
    ]
    by_class = {}
    for case, far in found.items():
        by_class.setdefault((case.package, case.name), []).append(far)
    for (package, name), rows in sorted(by_class.items()):
        far, *units = map(max, zip(*rows, strict=True))
        shown = " | ".join(f"{x:.2g}" for x in units)
        lines.append(f"| {package} | {name} | {len(rows)} | {far:.0e} | {shown} |")
    return "\n".join(lines)


def written(document: str, mark: str, table: str) -> str:
    """Return the document with another table after its mark."""
    before, _, rest = document.partition(mark)
    return f"{before}{mark}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of a case's name")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--record", action="store_true", help="write what the tests compare with")
    parser.add_argument("--write", action="store_true", help="write the table in docs/contrib.md")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.only.lower() in repr(case).lower()]
    cases = [case for case in chosen if is_installed(case)]
    wrapped = [case for case in WRAPPED if arguments.only.lower() in repr(case).lower()]
    wrapped = [case for case in wrapped if is_installed(case)]
    if (arguments.write or arguments.record) and cases != CASES:
        parser.error("what is written is of all cases, and needs all packages; see `make matrix`")
    for package in dict.fromkeys(case.package for case in chosen if case not in cases):
        print(f"{package} is not installed: left out")
    print(versions(cases))
    if arguments.record:
        with rounded_once():
            own = recorded(cases)
            for case in wrapped:
                params = case.theirs(*drawn())
                own[repr(case)] = {k: fingerprint(v) for k, v in params.items()}
        RECORDED.write_text(json.dumps(own, indent=0) + "\n")
        for path, record in (
            (RECORDED_SCHEDULES, schedules_and_groups.recorded_schedules),
            (mup_cases.RECORDED, schedules_and_groups.recorded_mup),
        ):
            path.write_text(json.dumps(record(), indent=0) + "\n")
        return 0
    print(
        f"| configuration | float64, {arguments.steps} steps | over and back | float32, units "
        "| roots rounded | bfloat16, units | whole vectors | rare |\n" + "|---" * 8 + "|"
    )
    found = []
    for i, case in enumerate(cases):
        if i % 16 == 0:  # Linux lets a process have 65,530 mappings, and each program has some
            jax.clear_caches()
        found.append(distances(case, arguments.steps))
        print(f"| {found[-1]} |", flush=True)
        if case.bounds in (MEANS, BASES, FACTORS):
            own = own_spread(case, arguments.steps)
            print(f"| … torch beside itself, adding in another order | | | {own:.2g} |", flush=True)
    around = {}
    for case in wrapped:
        units = [wrapped_units(case, kind) for kind in (np.float32, ml_dtypes.bfloat16)]
        around[case] = wrapped64(case, arguments.steps), *units
        print("| {!r} | {:.1e} | {:.2g} | {:.2g} |".format(case, *around[case]), flush=True)
    tables = f"{summary(found)}\n\n{summary_of_wrappers(around)}"
    print(f"\n{tables}\n\n{misrounded()}, {misrounded_powers()} are not rounded correctly")
    broken = [repr(row.case) for row in found if not row.held]
    held = FLOAT64, *PLAIN[:2]
    broken += [repr(case) for case, far in around.items() if any(map(operator.gt, far, held))]
    if not arguments.only:
        rows = schedules_and_groups.compared()
        others = schedules_and_groups.table(rows)
        print(f"\n{others}")
        broken += [f"{row.package} {row.name}" for row in rows if row.differ]
        broken += schedules_and_groups.not_as_recorded()
    if arguments.write:
        document = written(DOCUMENT.read_text(), OPTIMIZERS, f"{versions(cases)}.\n\n{tables}")
        DOCUMENT.write_text(written(document, OTHERS, others))
    print("\n".join(["", *(f"beyond its bound: {name}" for name in broken)]))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
