"""The gallery: scripts of the world in both frameworks, rates and parameters step by step."""

import importlib
import sys

import pytest

from parity_tests.project.test_examples import EXAMPLES

FOLDER = EXAMPLES / "ported"
# Over the largest value of a tensor, after each of the steps; equal bits where nothing is said.
BOUNDS = {
    # Sums of squares in another order, over the whole network.
    **dict.fromkeys(("amp_accumulation", "ddpm", "fairseq", "nanogpt", "trainer_lora"), 1e-6),
    # The square root of torch's CPU build is not correctly rounded.
    **dict.fromkeys(("dcgan", "dino", "mae", "mnist", "plateau", "soft_actor_critic"), 1e-6),
    # Its products are rounded to bfloat16, now and then to a neighbour.
    "modded_nanogpt": 5e-3,
    # Each step searches along a line, and magnifies what the last one rounded.
    "lbfgs": 1e-3,
}


AVERAGED = {"ddpm", "dino", "soft_actor_critic", "swa", "torchvision_references"}


@pytest.fixture(scope="module")
def measure():
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("measure")
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - set(before):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("network", "measure"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_step_is_torchs(measure, name):
    found = measure.measured(name, 30)
    assert found.steps == 30
    assert found.rates == 0
    assert found.params <= BOUNDS.get(name, 0)
    assert (found.averages is not None) == (name in AVERAGED)
    assert (found.averages or 0) <= BOUNDS.get(name, 0)


def test_the_page_lists_every_script():
    page = (FOLDER / "README.md").read_text()
    assert [name for name in SCRIPTS if f"[{name}.py]({name}.py)" not in page] == []
    assert len(SCRIPTS) >= 20


def test_scripts_are_short():
    lengths = {name: len((FOLDER / f"{name}.py").read_text().splitlines()) for name in SCRIPTS}
    assert {name: n for name, n in lengths.items() if n > 60} == {}
