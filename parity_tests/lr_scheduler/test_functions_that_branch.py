"""Functions of the epoch that choose by Python: tabled where their length is known, else named."""

import bisect
import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxopt_port import lr_scheduler as lrs
from jaxopt_port._untraceable import name_of, why
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.scheduled_groups import stepped_optimizer, stepped_state

STEPS = 12


def warm_up(epoch):
    if epoch < 3:
        return (epoch + 1) / 3
    return 1.0


def warm_up_then_cosine(epoch, *, warm, total):
    if epoch < warm:
        return float(epoch) / float(max(1, warm))
    progress = float(epoch - warm) / float(max(1, total - warm))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * progress)))


class Steps:
    def __init__(self, at):
        self.at = at

    def __call__(self, epoch):
        return 0.5 ** bisect.bisect(self.at, epoch)


# The function, and a part of the line at which it stops where it is traced.
FUNCTIONS = {
    "if": (warm_up, "if epoch < 3"),
    "conditional": (lambda e: 1.0 if e < 3 else 0.1, "lambda e: 1.0 if e < 3"),
    "and": (lambda e: float(e > 2 and e < 7), "e > 2 and e < 7"),
    "not": (lambda e: 1.0 - 0.1 * (not e), "(not e)"),
    "max": (lambda e: max(0.0, 1 - e / 9), "max(0.0, 1 - e / 9)"),
    "min": (lambda e: min((e + 1) ** -0.5, (e + 1) * 4**-1.5), "min((e + 1)"),
    "math": (lambda e: math.cos(e / 9), "math.cos(e / 9)"),
    "float": (lambda e: float(e) / 9, "float(e) / 9"),
    "int": (lambda e: 0.9 ** int(e), "int(e)"),
    "list": (lambda e: [1.0, 0.5, 0.25, 0.1][min(int(e) // 3, 3)], "[1.0, 0.5"),
    "dict": (lambda e: {3: 0.5, 7: 0.1}.get(e, 1.0), ".get(e, 1.0)"),
    "numpy": (lambda e: np.interp(e, [0, 5, 9], [0.1, 1.0, 0.0]), "np.interp"),
    "partial": (functools.partial(warm_up_then_cosine, warm=3, total=10), "if epoch < warm"),
    "object": (Steps([4, 8]), "bisect.bisect(self.at, epoch)"),
}


def torch_run(make):
    optimizer = stepped_optimizer()
    scheduler = make(TorchSchedulers(optimizer))
    optimizer.step()
    rates = [scheduler.get_last_lr()]
    for _ in range(STEPS):
        scheduler.step()
        rates.append(scheduler.get_last_lr())
    return rates, scheduler.state_dict()


def port_run(scheduler, step):
    state, own = scheduler.init(stepped_state())
    rates = [scheduler.get_last_lr(own)]
    for _ in range(STEPS):
        state, own = step(state, own)
        rates.append(scheduler.get_last_lr(own))
    return rates, scheduler.state_dict(own)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "LambdaLR") for name in FUNCTIONS), ("partial", "MultiplicativeLR")],
)
def test_with_its_length_it_has_torchs_bits_when_traced(name, kind):
    function, _ = FUNCTIONS[name]
    scheduler = getattr(lrs, kind)(function, total_steps=STEPS)
    theirs = torch_run(lambda s: getattr(s, kind)(function))
    assert port_run(scheduler, scheduler.step) == theirs
    state, own = scheduler.init(stepped_state())

    def step(carried, _):
        carried = scheduler.step(*carried)
        return carried, jnp.stack(list(scheduler.get_last_lr(carried[1])))

    with jax.enable_x64(True):
        (_, own), rates = jax.jit(lambda c: jax.lax.scan(step, c, length=STEPS))((state, own))
    assert rates.tolist() == theirs[0][1:]
    assert scheduler.state_dict(own) == theirs[1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_it_the_error_names_the_function_its_line_and_the_remedy(name):
    function, code = FUNCTIONS[name]
    scheduler = lrs.LambdaLR(function)
    assert port_run(scheduler, scheduler.step)[0] == torch_run(lambda s: s.LambdaLR(function))[0]
    with pytest.raises(TypeError, match="cannot be traced") as caught:
        jax.jit(scheduler.step)(*scheduler.init(stepped_state()))
    message = str(caught.value)
    own = getattr(function, "func", function)
    assert getattr(own, "__qualname__", "Steps") in message
    assert f"{__file__}: " in message
    assert code in message
    line = int(message.partition("(line ")[2].partition(" ")[0])
    assert code in inspect.getsource(inspect.getmodule(warm_up)).splitlines()[line - 1]
    assert "give LambdaLR the length of the schedule as total_steps" in message


def test_a_function_of_the_library_is_not_blamed_and_one_without_lines_is_named():
    error = TypeError("of the library's own code")
    with pytest.raises(TypeError) as caught:
        why(functools.partial(name_of, 1), error)
    assert caught.value is error
    scheduler = lrs.LambdaLR(math.sqrt)
    with pytest.raises(TypeError, match=r"^sqrt cannot be traced: in a compiled"):
        jax.jit(scheduler.step)(*scheduler.init(stepped_state()))


def test_of_a_cycle_it_is_named_too():
    scheduler = lrs.CyclicLR(0.01, 0.1, 2, scale_fn=warm_up)
    with pytest.raises(TypeError, match=r"warm_up \(line .* cannot be traced.*jnp\.where"):
        jax.jit(scheduler.step)(*scheduler.init(stepped_state()))


def test_it_is_named_within_a_sequence():
    scheduler = lrs.SequentialLR([lrs.LambdaLR(warm_up), lrs.StepLR(2)], [3])
    with pytest.raises(TypeError, match="warm_up"):
        jax.jit(scheduler.step)(*scheduler.init(stepped_state()))


def test_a_sequence_of_functions_with_their_lengths():
    def make(s, **length):
        return s.SequentialLR([s.LambdaLR(warm_up, **length), s.CosineAnnealingLR(20)], [5])

    scheduler = make(lrs, total_steps=5)
    theirs = torch_run(make)
    assert port_run(scheduler, jax.jit(scheduler.step)) == theirs


def test_a_step_too_many():
    scheduler = lrs.LambdaLR(warm_up, total_steps=2)
    begun = scheduler.step(*scheduler.step(*scheduler.init(stepped_state())))
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        scheduler.step(*begun)
    assert np.isnan(scheduler.get_last_lr(jax.jit(scheduler.step)(*begun)[1])).all()
    with pytest.raises(ValueError, match="Expected positive integer total_steps, but got 0"):
        lrs.MultiplicativeLR(warm_up, total_steps=0)


def test_a_function_that_is_wrong_anyway_says_so():
    scheduler = lrs.LambdaLR(lambda epoch: epoch + "1")
    with pytest.raises(TypeError, match="unsupported operand"):
        scheduler.init(stepped_state())


def test_as_schedule_tables_it():
    scheduler = lrs.LambdaLR(warm_up)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up)
    with jax.enable_x64(True):
        schedule = scheduler.as_schedule(0.3, total_steps=6)
        compiled = jax.jit(schedule)
        for count in range(7):
            assert [float(schedule(count))] == theirs.get_last_lr() == [float(compiled(count))]
            optimizer.step()
            theirs.step()
        with pytest.raises(ValueError, match="the schedule has 6 steps"):
            schedule(7)
        assert np.isnan(compiled(7))
