"""The examples of what stands around the step run: those in docstrings, and the docs' first."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import jaxopt_port as jp

QUICK = ["amp", "lr_scheduler._plateau"]
SLOW = [
    "accumulation",
    "clip_grad",
    "swa_utils._averaged_model",
    "swa_utils._batch_norm",
    *(f"lr_scheduler._{name}" for name in ("composites", "cosine", "cyclic", "decays")),
    *(f"lr_scheduler._{name}" for name in ("lambdas", "one_cycle", "swa")),
]
DOCS = Path(__file__).parents[2] / "docs" / "schedulers.md"


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_examples(name):
    module = importlib.import_module(f"jaxopt_port.{name}")
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_what_is_public_has_an_example():
    public = [jp.GradScaler, jp.accumulate_grads, jp.get_total_norm]
    public += [getattr(jp, name) for name in dir(jp) if name.startswith("clip_")]
    for module in (jp.lr_scheduler, jp.swa_utils):
        public += [value for name, value in vars(module).items() if not name.startswith("_")]
    states = (jp.lr_scheduler.LRScheduler, jp.lr_scheduler.SchedulerState)
    for each in public:
        if not inspect.ismodule(each) and each not in (*states, jp.swa_utils.AveragedState):
            assert ">>> " in inspect.getdoc(each), each


def test_the_docs_first_example_runs():
    example = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    names = {}
    exec(compile(example, "schedulers.md", "exec"), names)
    (lr,) = names["scheduler"].get_last_lr(names["sched_state"])
    assert lr < 1e-4
