"""A torch run beside its optimizer in float64: what it returns, and that it can be undone."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch

from jaxopt_port import numerics
from jaxopt_port.verify.recorder import TorchRun, TorchSide
from jaxopt_port.verify.recorder._float64 import is_rounded
from parity_tests.verify.recorded_runs import CASES, Case, Tied, batches, cross_entropy, side


def every_third(step):
    return step % 3 == 0


def plain(value):
    """Everything in what a run returned, as bytes that can be compared."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), flat.numpy().tobytes()
    return repr(value)


def ran(run, given):
    return [(plain(run.evaluate(batch)), plain(run.update())) for batch in given]


def everything(own):
    """The user's own objects, as bytes."""
    states = {n: own.optimizer.state.get(p, {}) for n, p in own.module.named_parameters()}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in own.optimizer.param_groups]
    scheduler = {} if own.scheduler is None else own.scheduler.state_dict()
    grads = {n: p.grad for n, p in own.module.named_parameters()}
    numbers = [torch.get_rng_state()]
    return plain([own.module.state_dict(), states, groups, scheduler, grads, numbers])


@pytest.mark.parametrize("name", CASES)
def test_it_can_be_undone_and_run_again(name):
    own = side(CASES[name])
    before = everything(own)
    run, given = TorchRun(own, every_third), batches()
    start = run.snapshot()
    first = ran(run, given[:5])
    middle = run.snapshot()
    rest = ran(run, given[5:])
    for _ in range(2):
        run.restore(middle)
        assert ran(run, given[5:]) == rest
    run.restore(start)
    assert everything(own) == before
    assert ran(run, given[:5]) == first


@pytest.mark.parametrize("name", CASES)
def test_it_trains_as_a_plain_loop_does(name):
    case, given = CASES[name], batches()
    run = TorchRun(side(case), every_third)
    for batch in given:
        loss = run.evaluate(batch).loss
        update = run.update()
    own = side(case)
    for step, (x, y) in enumerate(given, 1):
        own.optimizer.zero_grad()
        batch = (torch.from_numpy(x).to(case.dtype), torch.from_numpy(y).long())
        expected = own.loss(own.module(batch[0]), batch)
        expected.backward()
        if own.clip is not None:
            own.clip(list(own.module.parameters()))
        own.optimizer.step()
        if own.scheduler is not None and step % own.scheduler_every == 0:
            own.scheduler.step(*([expected.item()] if own.metric else []))
    assert loss == expected.item()
    assert plain(update.params) == plain(dict(own.module.named_parameters()))


@pytest.mark.parametrize("name", CASES)
def test_the_optimizer_in_float64_gets_the_same_gradients(name):
    case = CASES[name]
    run, own = TorchRun(side(case), every_third), side(case)
    own.module.double()
    params = dict(own.module.named_parameters())
    for state in own.optimizer.state.values():  # Adagrad makes it at once
        state["sum"] = state["sum"].double()
    for batch in batches():
        evaluation = run.evaluate(batch)
        for group, options in zip(own.optimizer.param_groups, evaluation.options, strict=True):
            group.update({k: v for k, v in options.items() if k != "params"})
        for n, p in params.items():
            p.grad = evaluation.grads[n].double() if n in evaluation.grads else None
        update = run.update()
        if own.clip is not None:
            own.clip(list(params.values()))
            assert plain(update.clipped64) == plain({n: p.grad for n, p in params.items()})
        own.optimizer.step()
    assert plain(update.params64) == plain(params)
    assert all(
        v.dtype == torch.float64
        for state in update.state64.values()
        for v in state.values()
        if isinstance(v, torch.Tensor) and v.ndim
    )


@pytest.mark.parametrize("name", CASES)
def test_a_check_evaluates_the_same_parameters_in_float64(name):
    case = CASES[name]
    run = TorchRun(side(case), every_third)
    for step, batch in enumerate(batches()):
        evaluation = run.evaluate(batch)
        assert (evaluation.checked is None) == bool(step % 3)
        if evaluation.checked is None:
            run.update()
            continue
        checked, exact = evaluation.checked, side(case).module
        named = {**checked.params, **checked.buffers}
        exact.load_state_dict(named, strict=False)
        exact.double()
        x, y = (part.double() if part.is_floating_point() else part for part in evaluation.batch)
        output = exact(x)
        logits = output["logits"] if isinstance(output, dict) else output
        weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        loss = torch.nn.functional.cross_entropy(logits, y, weight=weight)
        loss.backward()
        assert checked.loss64 == loss.item()
        grads = {n: p.grad for n, p in exact.named_parameters() if p.grad is not None}
        assert plain(checked.grads64) == plain(grads)
        assert checked.grads64.keys() == evaluation.grads.keys()
        after = {n: b for n, b in exact.named_buffers() if b.is_floating_point()}
        assert plain(checked.buffers_after64) == plain(after)
        assert any(torch.equal(out, logits) for out in checked.output64)
        run.update()


def test_names_of_tied_and_frozen_parameters():
    run = TorchRun(side(Case(torch.optim.AdamW, Tied)), every_third)
    evaluation = run.evaluate(batches()[0])
    names = ("scale", "first.weight", "frozen.weight", "frozen.bias", "last.weight", "last.bias")
    assert run.names == names
    assert evaluation.grads.keys() == set(names) - {"frozen.weight", "frozen.bias"}
    assert evaluation.options[0]["params"] == list(names)
    assert [tuple(x.shape) for x in evaluation.checked.output] == [(6, 5), (6, 3)]
    assert (run.optimizer_name, run.dtype) == ("AdamW", "float32")


def test_batches_are_copied_and_cast():
    given = {"x": np.ones((6, 5)), "y": np.zeros(6, np.uint8), "no": None, "b": np.array([True])}
    own = side(Case(torch.optim.SGD))
    own.forward = lambda module, batch: module(batch["x"])
    own.loss = lambda output, batch: cross_entropy(output, (None, batch["y"]))
    held = TorchRun(own, every_third).evaluate(given).batch
    given["x"][:] = 7
    assert held["no"] is None
    assert {k: v.dtype for k, v in held.items() if v is not None} == {
        "x": torch.float32, "y": torch.int64, "b": torch.bool,
    }  # fmt: skip
    assert bool((held["x"] == 1).all())


def test_a_rate_may_be_a_tensor_with_an_axis():
    module = torch.nn.Linear(5, 3)
    run = TorchRun(
        linear(module=module, optimizer=torch.optim.SGD(module.parameters(), torch.tensor([0.5]))),
        every_third,
    )
    assert run.evaluate((X, Y)).options[0]["lr"] == 0.5


def linear(**changed):
    torch.manual_seed(0)
    module = changed.pop("module", None) or torch.nn.Linear(5, 3)
    given = {"module": module, "loss": cross_entropy} | changed
    if "optimizer" not in given:
        given["optimizer"] = torch.optim.SGD(module.parameters(), lr=0.1)
    return TorchSide(**given)


def with_nan():
    module = torch.nn.Linear(5, 3)
    module.bias.data[1] = float("nan")
    return linear(module=module)


def with_lbfgs():
    module = torch.nn.Linear(5, 3)
    return linear(module=module, optimizer=torch.optim.LBFGS(module.parameters()))


def with_a_foreign_optimizer():
    return linear(optimizer=torch.optim.SGD(torch.nn.Linear(5, 7).parameters(), lr=0.1))


def with_a_foreign_scheduler():
    other = torch.optim.SGD(torch.nn.Linear(5, 7).parameters(), lr=0.1)
    return linear(scheduler=torch.optim.lr_scheduler.StepLR(other, 2))


def with_a_plateau():
    own = linear()
    own.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(own.optimizer)
    return own


def with_a_sparse_gradient():
    module = torch.nn.Embedding(9, 3, sparse=True)
    return linear(module=module, forward=lambda m, batch: m(batch[1]))


def with_its_own_module():
    module = torch.nn.Linear(5, 3)
    return linear(module=module, forward=lambda _, batch: module(batch[0]))


def clipping_its_own_module():
    module = torch.nn.Linear(5, 3)
    clip = torch.nn.utils.clip_grad_norm_
    return linear(module=module, clip=lambda _: clip(module.parameters(), 0.01))


def with_dropout():
    return linear(module=torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.5)))


X = np.ones((4, 5), np.float32)
Y = np.zeros(4, np.int64)
ERRORS = {
    "nan": (with_nan, (X, Y), ValueError, "NaN or infinity in the initial parameters: bias"),
    "closure": (with_lbfgs, (X, Y), TypeError, "LBFGS evaluates the loss itself"),
    "foreign optimizer": (with_a_foreign_optimizer, (X, Y), ValueError, "not the module's: shapes"),
    "foreign scheduler": (with_a_foreign_scheduler, (X, Y), ValueError, "of another optimizer"),
    "a scheduler by hand": (
        lambda: linear(scheduler=types.SimpleNamespace(step=print)), (X, Y), TypeError,
        "no state_dict and no load_state_dict",
    ),
    "plateau": (with_a_plateau, (X, Y), ValueError, "metric=True"),
    "every": (lambda: linear(scheduler_every=0), (X, Y), ValueError, "scheduler_every is 0"),
    "no parameters": (
        lambda: linear(module=torch.nn.ReLU(), optimizer=linear().optimizer),
        (X, Y), ValueError, "ReLU has no parameters to train",
    ),
    "vector loss": (
        lambda: linear(loss=lambda out, batch: out.mean(1)),
        (X, Y), ValueError, r"a tensor of shape \(4,\); it must be a scalar",
    ),
    "number loss": (
        lambda: linear(loss=lambda out, batch: out.mean().item()),
        (X, Y), TypeError, "loss gave float",
    ),
    "detached loss": (
        lambda: linear(loss=lambda out, batch: out.detach().mean()),
        (X, Y), ValueError, "does not depend on the parameters",
    ),
    "dropout": (with_dropout, (X, Y), ValueError, r"not deterministic.*module.eval\(\)"),
    "sparse": (with_a_sparse_gradient, (X, Y), ValueError, "weight is sparse"),
    "own module": (with_its_own_module, (X, Y), RuntimeError, "dtype"),
    "own clip": (clipping_its_own_module, (X, Y), ValueError, "clip=lambda parameters"),
    "text": (linear, ("words", Y), TypeError, "the batch has a str"),
    "dict batch": (linear, {"x": X}, TypeError, "without `forward`"),
    "object output": (
        lambda: linear(forward=lambda m, batch: slice(m(batch[0]))),
        (X, Y), TypeError, "the output has a slice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_refused(name):
    make, batch, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        ran(TorchRun(make(), every_third), [batch])


def test_a_module_of_its_own_is_said_to_be_the_reason():
    with pytest.raises(RuntimeError) as caught:
        TorchRun(with_its_own_module(), every_third).evaluate((X, Y))
    assert "must use the module" in caught.value.__notes__[0]


def test_calls_in_the_wrong_order():
    run = TorchRun(linear(), every_third)
    with pytest.raises(RuntimeError, match="call evaluate"):
        run.update()
    run.evaluate((X, Y))
    with pytest.raises(RuntimeError, match="called twice"):
        run.evaluate((X, Y))


def test_gradients_that_were_there_come_back():
    own = linear()
    own.module.bias.grad = torch.full((3,), 7.0)
    run = TorchRun(own, every_third)
    start = run.snapshot()
    run.evaluate((X, Y))
    run.update()
    run.restore(start)
    assert own.module.bias.grad.tolist() == [7, 7, 7]
    assert own.module.weight.grad is None


def test_an_optimizer_with_attributes_of_its_own():
    class Counting(torch.optim.SGD):
        def __init__(self, params, lr):
            super().__init__(params, lr=lr)
            self.limits = {"factor": 0.5}

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.mul_(self.limits["factor"])
            return super().step(closure)

    module = torch.nn.Linear(5, 3)
    own = linear(module=module, optimizer=Counting(module.parameters(), 0.1))
    run = TorchRun(own, every_third)
    run.evaluate((X, Y))
    update = run.update()
    near = torch.allclose(update.params64["weight"].float(), update.params["weight"], atol=1e-6)
    assert near


def test_random_numbers_go_on_as_without_it():
    own = linear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = TorchRun(own, every_third)
    run.evaluate((X, Y))
    run.update()
    assert torch.equal(torch.rand(3), expected)


def test_random_numbers_go_back_with_a_snapshot():
    run = TorchRun(linear(), every_third)
    start = run.snapshot()
    first = torch.rand(3)
    run.restore(start)
    assert torch.equal(torch.rand(3), first)


def test_what_was_returned_holds():
    """Neither clipping, nor what happens to the batch, changes an evaluation."""
    x = X.copy()
    run = TorchRun(side(CASES["adam clipped"]), every_third)
    evaluation = run.evaluate((x, Y))
    held = plain(evaluation)
    x[:] = 7
    run.update()
    assert plain(evaluation) == held


def test_numbers_in_a_state_that_is_there_stay_float32():
    own = side(CASES["asgd"])
    TorchRun(own, every_third).evaluate((X, Y))
    own.optimizer.step()
    run = TorchRun(own, every_third)
    run.evaluate((X, Y))
    state = run.update().state64["scale"]
    names = ("step", "eta", "mu", "ax")
    assert [str(state[n].dtype) for n in names] == ["torch.float32"] * 3 + ["torch.float64"]


NUMBERS = [0, -0.0, 0.5, 0.1, 1 / 3, 1e-8, 2**-40, 3 * 2.0**-70, 123457.0, 1e30, math.inf, math.nan]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_recorder_tells_rounded_numbers_as_the_rest_does(number):
    for dtype in (torch.float32, torch.bfloat16):
        held = torch.tensor([1.0, number], dtype=dtype)
        assert is_rounded(held) is not numerics.is_exact(held.double().numpy())
