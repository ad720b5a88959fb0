"""What stands around the step has examples, and the docs' first runs."""

import inspect
import re
from pathlib import Path

import jaxopt_port as jp

DOCS = Path(__file__).parents[2] / "docs" / "schedulers.md"


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
