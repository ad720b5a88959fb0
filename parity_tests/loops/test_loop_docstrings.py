"""What stands around the step has an example; parity_tests/project/test_docstrings.py runs them."""

import inspect

import jaxopt_port as jp


def test_what_is_public_has_an_example():
    public = [jp.GradScaler, jp.accumulate_grads, jp.get_total_norm]
    public += [getattr(jp, name) for name in dir(jp) if name.startswith("clip_")]
    for module in (jp.lr_scheduler, jp.swa_utils):
        public += [value for name, value in vars(module).items() if not name.startswith("_")]
    states = (jp.lr_scheduler.LRScheduler, jp.lr_scheduler.SchedulerState)
    for each in public:
        if callable(each) and each not in (*states, jp.swa_utils.AveragedState):
            assert ">>> " in inspect.getdoc(each), each
