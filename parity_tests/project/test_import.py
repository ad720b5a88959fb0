"""`import jaxopt_port` in a fresh process."""

import subprocess
import sys

import pytest

import jaxopt_port as jp


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def loaded():
    return loaded_by("import jaxopt_port; [getattr(jaxopt_port, n) for n in dir(jaxopt_port)]")


@pytest.mark.parametrize("package", ["torch", "flax", "matplotlib", "sklearn", "typer", "rich"])
def test_is_not_loaded(package, loaded):
    assert package not in loaded


@pytest.mark.parametrize("package", ["jax", "optax", "numpy", "jaxopt_port"])
def test_is_loaded(package, loaded):
    assert package in loaded


def test_a_step_loads_nothing_else():
    statement = (
        "import jaxopt_port as jp, jax.numpy as jnp; tx = jp.SGD(lr=0.1); p = {'w': jnp.ones(1)}; "
        "jp.step(tx, p, tx.init(p), p)"
    )
    assert not loaded_by(statement) & {"torch", "flax", "matplotlib"}


def test_interop_loads_torch_when_it_is_needed():
    assert "torch" not in loaded_by("import jaxopt_port.interop")


def test_every_name_is_found_and_no_other():
    for name in dir(jp):
        assert getattr(jp, name) is not None
    assert {"Adam", "adam", "step", "Optimizer", "lr_scheduler"} <= set(dir(jp))
    with pytest.raises(AttributeError, match="has no attribute 'Adem'"):
        jp.Adem  # noqa: B018


def test_an_editor_lists_the_public_names_alone():
    dunder = {name for name in dir(jp) if name.startswith("__")}
    assert set(dir(jp)) - dunder == set(jp.__all__)
    assert not [name for name in jp.__all__ if name.startswith("_")]


def test_the_core_works_without_torch_and_flax():
    """What ``make release-check`` runs with the wheel in an environment that has neither."""
    code = """
import importlib.util
import sys
from parity_tests.project import smoke

found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in smoke.ABSENT else found(name)
sys.modules |= dict.fromkeys(smoke.ABSENT)
with smoke.tempfile.TemporaryDirectory() as folder:
    smoke.loop()
    smoke.files(smoke.Path(folder))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
