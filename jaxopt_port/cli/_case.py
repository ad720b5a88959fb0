"""Case files: Python files that say what is compared."""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

# Names that a case file may set, and the arguments of `compare` and `replay` that they are.
_OPTIONS = {
    "RENAME": "rename",
    "LAYOUTS": "layouts",
    "PARAM_MAP": "param_map",
    "STEPS_PER_EPOCH": "steps_per_epoch",
    "ACCEPT": "accept",
}
_ONLY_COMPARED = {"EVERY": "every", "FREE_STEPS": "free_steps"}
_FUNCTIONS = ("torch_side", "jax_side", "batches")


class CaseError(ValueError):
    """A case file that cannot be used."""


@dataclass(frozen=True)
class Case:
    """What a case file says.

    Attributes:
        path: the file.
        torch_side: makes the `TorchSide`.
        jax_side: makes the `JaxSide`.
        batches: makes the batches.
        steps: how many, or None for all batches.
        options: arguments of `compare` and `replay`.
        compared: further arguments of `compare`.
    """

    path: Path
    torch_side: Callable[[], Any] | None
    jax_side: Callable[[], Any] | None
    batches: Callable[[], Iterable[Any]] | None
    steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    compared: Mapping[str, Any] = field(default_factory=dict)

    def made_torch_side(self) -> Any:
        """Return the `TorchSide`, which the case may give as a dict of its arguments."""
        from ..verify import TorchSide

        self.need("torch_side")
        assert self.torch_side is not None
        side = self.torch_side()
        return TorchSide(**side) if isinstance(side, Mapping) else side

    def need(self, *names: str) -> None:
        """Refuse a case that lacks one of these functions.

        Raises:
            CaseError: it does.
        """
        lacking = [name for name in names if getattr(self, name) is None]
        if lacking:
            functions = " and ".join(f"{name}()" for name in lacking)
            raise CaseError(
                f"{self.path} has no function {functions}; `jaxopt-port new-case` writes a file "
                "to begin with"
            )


def load_case(file: str | os.PathLike[str]) -> Case:
    """Read a case file: it is run as a module, its folder on the import path.

    Raises:
        CaseError: there is no such file, or it sets a name that is nearly one of a case's.
    """
    path = Path(file)
    if (path / "trace.json").is_file():
        raise CaseError(
            f"{path} is a trace, no case file; `jaxopt-port replay {path} CASE.py` takes it, "
            "in this order"
        )
    if not path.is_file():
        raise CaseError(f"there is no file {path}; `jaxopt-port new-case {path}` writes one")
    module = run_file(path, f"jaxopt_port_case_{path.stem}")
    known = ["STEPS", *_OPTIONS, *_ONLY_COMPARED]
    for name, value in vars(module).items():
        # A user's own constants (LAYERS, NAME) differ from all of these by more than a letter.
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near and name not in known:
            raise CaseError(f'{path} sets {name}, which no case has; did you mean "{near[0]}"?')
        if name in _FUNCTIONS and not callable(value):
            raise CaseError(f"{name} in {path} must be a function")
    steps = getattr(module, "STEPS", None)
    if steps is not None and (type(steps) is not int or steps < 1):
        raise CaseError(f"STEPS in {path} must be a whole number of at least 1, got {steps!r}")
    return Case(
        path=path,
        torch_side=getattr(module, "torch_side", None),
        jax_side=getattr(module, "jax_side", None),
        batches=getattr(module, "batches", None),
        steps=steps,
        options=_set(module, _OPTIONS),
        compared=_set(module, _ONLY_COMPARED),
    )


def _set(module: ModuleType, names: Mapping[str, str]) -> dict[str, Any]:
    return {arg: getattr(module, name) for name, arg in names.items() if hasattr(module, name)}


def run_file(path: Path, name: str) -> ModuleType:
    """Run a file of the user's as a module of this name, its folder on the import path."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CaseError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look themselves up there
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SyntaxError):  # which of a null byte says no file
            error.filename = error.filename or str(path)
        raise
    finally:
        sys.path.remove(folder)
    return module


TEMPLATE = '''\
"""A case for `jaxopt-port verify`: one training, in torch and in JAX.

    jaxopt-port verify {file} --html report.html

Both frameworks in two environments instead:

    jaxopt-port record {file} run.trace      # where torch is
    jaxopt-port replay run.trace {file}      # where JAX is

Import torch in torch_side() and JAX in jax_side() only, and each works without the other. Where
there is no JAX, `jaxopt-port recorder record.pyz` has written a recorder that needs torch only:
python record.pyz {file} run.trace
"""

import numpy as np

STEPS = 100
# RENAME = [(r"^backbone\\.", "encoder.")]  # where names differ: torch's, then yours
# ACCEPT = ["biased-variance"]  # causes that are known and meant: that is Flax's BatchNorm
# LAYOUTS = {{"head.weight": (1, 0)}}  # where a layout is not certain
# STEPS_PER_EPOCH = 50  # helps to name a scheduler that is stepped once an epoch by mistake; where
# both sides step theirs once an epoch: scheduler_every=50, in torch_side() and in jax_side()


def batches():
    """Yield what both sides are given in each step: NumPy arrays, here inputs and labels."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield rng.normal(size=(32, 16)).astype(np.float32), rng.integers(0, 4, 32)


def torch_side():
    """Return the arguments of jaxopt_port.verify.TorchSide."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)
    return dict(
        module=module,
        optimizer=optimizer,
        loss=lambda output, batch: torch.nn.functional.cross_entropy(output, batch[1]),
        clip=lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
    )


def jax_side():
    import optax
    from flax import nnx

    import jaxopt_port as jp
    from jaxopt_port.verify import nnx_side

    rngs = nnx.Rngs(0)  # the values are torch's in any case
    model = nnx.Sequential(
        nnx.Linear(16, 32, rngs=rngs),
        nnx.LayerNorm(32, epsilon=1e-5, rngs=rngs),
        nnx.relu,
        nnx.Linear(32, 4, rngs=rngs),
    )
    return nnx_side(
        model,
        tx=optax.chain(jp.clip_by_grad_norm(1.0), jp.AdamW(lr=1e-3, weight_decay=0.1)),
        loss=lambda output, batch: optax.softmax_cross_entropy_with_integer_labels(
            output, batch[1]
        ).mean(),
        scheduler=jp.lr_scheduler.CosineAnnealingLR(STEPS),
    )
'''
