"""A trace is recorded where there is no JAX and read where there is no torch."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from jaxopt_port.cli import app

ROOT = Path(__file__).parents[2]

RECORD = """
import importlib.util
assert all(importlib.util.find_spec(name) is None for name in ("jax", "numpy", "jaxopt_port"))
import sys, torch
sys.path.insert(0, "record.pyz")
from recorder import TorchSide, record
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.1)
side = TorchSide(
    module=module,
    optimizer=optimizer,
    loss=lambda output, batch: torch.nn.functional.cross_entropy(output, batch[1]),
    scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5),
    clip=lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 0.5),
)
batches = [(torch.randn(16, 5), torch.randint(3, (16,))) for _ in range(15)]
record("run.trace", side, batches, name="no JAX here")
"""

CASE = """
import importlib.util
assert all(importlib.util.find_spec(name) is None for name in ("torch", "safetensors"))
import jax, jax.numpy as jnp, json, optax, sys
import jaxopt_port as jp
from flax import nnx
from jaxopt_port import verify

WEIGHT_DECAY = float(sys.argv[1])

class Model(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(1)
        self.layers = nnx.List([nnx.Linear(5, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 3, rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

def loss(output, batch):
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[1]).mean()

tx = jp.AdamW(lr=1e-2, weight_decay=WEIGHT_DECAY)
scheduler = jp.lr_scheduler.StepLR(4, 0.5)
clip = lambda grads: jp.clip_grad.clip_grad_norm(grads, 0.5)[0]
side = verify.nnx_side(Model(), tx=tx, loss=loss, scheduler=scheduler, clip=clip)
report = verify.replay("run.trace", side, rename=[(r"^", "layers.")])
assert not [name for name in sys.modules if name == "torch"]
first = report.first
found = None if first is None else [first.step, first.stage]
print(json.dumps({"steps": report.steps, "found": found, "message": str(report)}))
"""


def wanted(requirement, found):
    """Add to ``found`` what an installed package asks for, and what that asks for, by name."""
    requirement = Requirement(requirement)
    name, extras = canonicalize_name(requirement.name), {"", *requirement.extras}
    if found.setdefault(name, set()) >= extras:
        return found
    found[name] |= extras
    for text in metadata.requires(name) or ():
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            wanted(text, found)
    return found


def environment(folder, requirement):
    """Make an environment of what a package says that it needs, and no more; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in wanted(requirement, {}):
        installed = metadata.distribution(name)
        # A folder that several share stands there already.
        for top in {file.parts[0] for file in installed.files} - {"..", *os.listdir(site)}:
            if not top.endswith(".pth"):
                (site / top).symlink_to(installed.locate_file(top))
    return folder / "bin" / "python"


def ran(python, code, folder, *arguments, warnings="error"):
    command = [python, "-W", warnings, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with a trace that was recorded where there is only torch."""
    folder = tmp_path_factory.mktemp("recorded")
    python = environment(folder / "torch-only", "torch")
    assert CliRunner().invoke(app, ["recorder", str(folder / "record.pyz")]).exit_code == 0
    # Without NumPy, torch warns as it is imported.
    ran(python, RECORD, folder, warnings="ignore::UserWarning")
    return folder


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without_torch")
    python = environment(folder / "jax-only", "jaxopt-port[cli,flax]")
    (site,) = (folder / "jax-only").glob("lib/python*/site-packages")
    (site / "jaxopt_port").symlink_to(ROOT / "jaxopt_port")  # it is installed as a checkout
    return python


def test_recorded_without_jax_and_replayed_without_torch(recorded, without_torch):
    same = json.loads(ran(without_torch, CASE, recorded, "0.1"))
    assert (same["steps"], same["found"]) == (15, None), same
    other = json.loads(ran(without_torch, CASE, recorded, "0.2"))
    assert other["found"] is not None
    assert other["found"][0] == 0, other
