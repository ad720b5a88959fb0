"""The package with the lowest and the newest of what it allows: ``make matrix``.

Each environment is made in .venv-matrix, where it stays until its requirements are others, and runs
the canaries and a part of the tests that has something of everything. Prints what ran with which
versions, and what did not and why; exits with 1 where a test fails. A word chooses the environments
whose name has it.

A torch whose build needs CUDA's libraries, which are gigabytes, is not installed, unless
``--cuda-builds`` asks for it. Its optimizers, which are Python, are laid over the newest torch that
is. Where a Python has no torch at all, the port is compared with numbers that torch has left in a
file.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from parity_tests.environments.laid_over import lay_over

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-matrix"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["flax"]]
LOWEST = [re.sub(">=", "==", requirement) for requirement in REQUIRED]
LOWEST_TORCH = Requirement(PROJECT["optional-dependencies"]["torch"][0])
PYTHONS = [f"3.{minor}" for minor in range(11, 20)]
TOOLS = ["pytest>=8.4", "pytest-xdist>=3.6", "hypothesis>=6.130"]
WITH_TORCH = ["expecttest>=0.3", "safetensors>=0.6"]
# Something of every area, the canaries first.
PART = [
    *("project/test_compat.py", "project/test_boundaries.py", "numerics/test_rounding.py"),
    *("optim/test_sgd_parity.py", "optim/test_optimizer_parity.py", "optim/test_lbfgs.py"),
    *("engine/test_hyperparams.py", "engine/test_foreign_factories.py"),
    *("kernels/test_kernels.py", "numerics/test_without_float64.py"),
    *("lr_scheduler/test_lr_scheduler.py", "loops/test_clip_grad.py"),
    *("loops/test_swa_utils.py", "checkpoint/test_state_dict.py", "interop/test_round_trips.py"),
    *("interop/test_torch_optimizer.py", "interop/test_scheduler_interop.py"),
    *("contrib/test_contrib_optimizers.py", "flax/test_flax_loops.py"),
    *("sharding/test_sharding.py", "sharding/test_within_shard_map.py"),
    *("sharding/test_state_shardings.py", "verify/test_compare.py", "cli/test_case_commands.py"),
]
# A count of calls, which JAX's version may raise by a few.
CALLS = "parity_tests/project/test_boundaries.py::test_a_step_takes_a_short_way"
# More of what knows torch's own classes, where another version's are laid over; its tables whole.
OF_OPTIM = [
    *("engine/test_arguments.py", "optim/test_options_checked_early.py", "optim/test_muon.py"),
    *("optim/test_sparse_adam.py", "optim/test_sparse_gradients.py", "optim/test_lbfgs_use.py"),
    *("loops/test_accumulation_and_loss_scaling.py", "interop/test_resume_special.py"),
    *("interop/test_torch_optimizer_conformance.py", "project/test_docstrings.py"),
]
TABLES = [
    *("optim/test_optimizer_parity.py", "optim/test_optimizer_errors.py", "optim/test_lbfgs.py"),
    *("lr_scheduler/", "loops/test_swa_utils.py"),
]
WITHOUT_TORCH = [
    *("project/test_compat.py", "numerics/test_rounding.py", "kernels/test_kernels.py"),
    *("engine/test_foreign_factories.py", "contrib/test_contrib_optimizers.py"),
    *("checkpoint/test_state_dict.py", "engine/test_hyperparams.py", "sharding/test_sharding.py"),
    *("sharding/test_state_shardings.py", "sharding/test_within_shard_map.py"),
]


class Environment(NamedTuple):
    """Packages to be tried together.

    Attributes:
        name: which stands in front of its lines.
        python: the interpreter.
        requirements: of the package's dependencies.
        torch: a version that can be installed, or None.
        optim: a version of torch whose optimizers are laid over that, or None.
    """

    name: str
    python: str
    requirements: list[str]
    torch: str | None
    optim: str | None = None

    @property
    def all_requirements(self) -> list[str]:
        tools = ["--upgrade", *TOOLS, *self.requirements]
        return [*tools, f"torch=={self.torch}", *WITH_TORCH] if self.torch else tools


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, **options
    )


def interpreters() -> dict[str, str]:
    """By version, the Pythons here: on the path, or beside this one, where pyenv has them."""
    found = {}
    for version in PYTHONS:
        beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python"))
        for candidate in (shutil.which(f"python{version}"), *beside):
            if candidate and not run(candidate, "-c", "import venv, ensurepip").returncode:
                found[version] = str(candidate)
    return found


def torch_versions(python: str) -> list[str]:
    """The last release of each minor version of torch that is allowed, from the lowest."""
    listed = run(python, "-m", "pip", "index", "versions", "torch").stdout
    _, _, versions = listed.partition("Available versions: ")
    last = {}
    for text in versions.partition("\n")[0].split(", "):
        version = Version(text or "0")
        if LOWEST_TORCH.specifier.contains(version.public):
            last[version.release[:2]] = max(version, last.get(version.release[:2], version))
    return [str(last[minor]) for minor in sorted(last)]


def cuda_library(python: str, torch: str) -> str | None:
    """One of CUDA's libraries that the build of a version of torch needs, if it does.

    Raises:
        RuntimeError: pip has no build.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", report]
        asked = run(python, "-m", "pip", "install", *options, f"torch=={torch}")
        if asked.returncode:
            errors = [line for line in asked.stderr.splitlines() if line.startswith("ERROR")]
            raise RuntimeError(f"pip: {(errors or ['nothing said'])[0]}")
        (found,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    needed = map(Requirement, found["metadata"].get("requires_dist", []))
    cuda = [
        r.name
        for r in needed
        if r.name.startswith(("nvidia-", "cuda-"))
        and (not r.marker or r.marker.evaluate({"extra": ""}))
    ]
    return cuda[0] if cuda else None


def environments(cuda_builds: bool) -> list[Environment]:
    """Return the environments, and print which torch there is none of."""
    pythons, torchs, large = interpreters(), {}, {}
    for version, python in pythons.items():
        torchs[version], large[version] = [], []
        for torch in torch_versions(python):
            try:
                library = cuda_library(python, torch)
            except RuntimeError as error:
                print(f"not run: torch {torch} on Python {version}: {error}", flush=True)
                continue
            if library and not cuda_builds:
                why = f"its build needs CUDA's libraries ({library} and others)"
                print(f"not installed: torch {torch} on Python {version}: {why}", flush=True)
            (large if library and not cuda_builds else torchs)[version].append(torch)
    first, *others = pythons
    lowest, newest = ((torchs[first] or [None])[i] for i in (0, -1))
    between = torchs[first][1:-1]
    names = [Requirement(requirement).name for requirement in REQUIRED]
    made = [
        Environment("lowest", pythons[first], LOWEST, lowest),
        Environment("newest", pythons[first], names, newest),
    ]
    for version in others:
        newest_there = (torchs[version] or [None])[-1]
        made.append(Environment(f"newest, Python {version}", pythons[version], names, newest_there))
    made += [Environment(f"torch {torch}", pythons[first], names, torch) for torch in between]
    for torch in large[first] if newest else []:
        name = f"torch {torch}'s optim over {newest}"
        made.append(Environment(name, pythons[first], names, newest, torch))
    return made


LAID_OVER = "laid_over.txt"


def installed(environment: Environment) -> Path:
    """Return the environment's Python, made anew where its requirements are others.

    Raises:
        RuntimeError: pip cannot install them.
    """
    folder = FOLDER / re.sub(r"[^\w.]+", "-", environment.name)
    stamp, python = folder / "requirements.json", folder / "bin" / "python"
    wanted = json.dumps([environment.python, environment.optim, *environment.all_requirements])
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        run(environment.python, "-m", "venv", "--clear", folder, check=True)
        extra = "[verify]" if environment.torch else "[cli,flax]"
        pip = [python, "-m", "pip", "install", "--quiet", "--editable", f".{extra}"]
        done = run(*pip, *environment.all_requirements)
        if done.returncode:
            raise RuntimeError(f"pip: {done.stderr.strip()[-1500:]}")
        if environment.optim:
            made = lay_over(run, python, environment.optim)
            (folder / LAID_OVER).write_text(made, encoding="utf-8")
        stamp.write_text(wanted, encoding="utf-8")
    return python


VERSIONS = """
import importlib.metadata as metadata, platform
names = ("jax", "jaxlib", "optax", "flax", "numpy", "torch")
known = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
found = (f"{name} {known.get(name, 'none')}" for name in names)
print(f"Python {platform.python_version()}", *found, sep=", ")
"""


def passes(environment: Environment, recorded: Path) -> bool:
    """Run an environment's part, and print how it went."""
    python = installed(environment)
    print(f"{environment.name}: {run(python, '-c', VERSIONS).stdout.strip()}", flush=True)
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"]
    pytest += ["--dist", "loadfile", "--deselect", CALLS]
    parts = {"0.3": PART if environment.torch else WITHOUT_TORCH}
    if environment.optim:
        print(f"  {(python.parents[1] / LAID_OVER).read_text(encoding='utf-8')}", flush=True)
        others = [file for file in PART + OF_OPTIM if not file.startswith(tuple(TABLES))]
        parts = {"0.3": others, "test": TABLES}
    done = [
        run(*pytest, "--budget", budget, *(f"parity_tests/{file}" for file in files))
        for budget, files in parts.items()
    ]
    if not environment.torch:
        script = "parity_tests.environments.recorded_runs"
        done.append(run(python, "-W", "error", "-m", script, "check", recorded))
    for each in done:
        lines = (each.stdout + each.stderr).strip().splitlines()
        shown = [line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:]
        print("\n".join(f"  {line}" for line in (shown if len(shown) > 1 else lines[-1:])))
    return not any(each.returncode for each in done)


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="of an environment's name")
    parser.add_argument("--cuda-builds", action="store_true", help="gigabytes of CUDA's libraries")
    given = parser.parse_args()
    every = environments(given.cuda_builds)
    chosen = [e for e in every if not given.words or any(w in e.name for w in given.words)]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder)
        if not all(environment.torch for environment in chosen):
            script = "parity_tests.environments.recorded_runs"
            run(sys.executable, "-m", script, "write", recorded, check=True)
        for environment in chosen:
            try:
                held = passes(environment, recorded)
            except RuntimeError as error:
                print(f"{environment.name}: {error}")
                held = False
            failed += [] if held else [environment.name]
    print(
        f"{len(chosen)} environments run, {len(failed)} failed" + "".join(f": {f}" for f in failed)
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
