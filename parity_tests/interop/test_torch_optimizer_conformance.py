"""What any torch optimizer does besides its update: one table for torch's classes and for ours."""

import copy
import io
import pickle

import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.interop import TorchOptimizer
from parity_tests.oracles.configurations import LEAFWISE, MUON

NAMES = [o.name for o in [*LEAFWISE, MUON]]
SHAPES = ((5, 3), (2, 4))


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def loss_of(params):
    return sum((p**2).sum() for p in params)


def take(optimizer, steps=1):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()


def values(params):
    return [p.detach().clone() for p in params]


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


def steps_follow_gradients_alone(build):
    params = parameters()
    optimizer, before = build(params), values(params)
    assert optimizer.step() is None
    assert_equal(params, before)
    params[0].grad = torch.ones(SHAPES[0])
    optimizer.step()
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])


def gradients_are_cleared(build):
    params = parameters()
    optimizer = build(params)
    loss_of(params).backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


def closures_are_called_with_gradients_on(build):
    params = parameters()
    optimizer, losses = build(params), []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(loss_of(params))
        losses[-1].backward()
        return losses[-1]

    with torch.no_grad():
        returned = [optimizer.step(closure) for _ in range(2)]
    assert len(losses) == 2
    assert_equal(returned, losses)
    assert losses[1] != losses[0]


def hooks_are_called_and_removed(build):
    optimizer, called = build(parameters()), []
    before = optimizer.register_step_pre_hook(lambda o, a, k: called.append(("before", o)))
    optimizer.register_step_post_hook(lambda o, a, k: called.append(("after", o)))
    take(optimizer)
    assert called == [("before", optimizer), ("after", optimizer)]
    before.remove()
    take(optimizer)
    assert [what for what, _ in called[2:]] == ["after"]


def groups_have_options_of_their_own(build):
    params = parameters()
    optimizer = build([{"params": params[:1], "lr": 0.25}, {"params": params[1:]}], lr=0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]
    extra = torch.nn.Parameter(torch.ones(2, 2))
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125, 0.5]
    take(optimizer)
    assert not torch.equal(extra, torch.ones(2, 2))
    for bad, message in (
        ({"params": params[:1]}, "more than one parameter group"),
        ({"params": [torch.ones(2, 2, requires_grad=True) * 2]}, "non-leaf"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 3
    with pytest.raises(ValueError, match="empty parameter list"):
        build([])


def names_are_kept(build):
    named = list(zip(("first", "second"), parameters(), strict=True))
    optimizer = build(named)
    assert optimizer.param_groups[0]["param_names"] == ["first", "second"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["first", "second"]


def a_state_goes_through_a_file(build):
    params = parameters()
    optimizer = build(params)
    take(optimizer, 2)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copied = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = build(copied)
    other.load_state_dict(torch.load(file, weights_only=True))
    for one in (optimizer, other):
        take(one, 2)
    assert_equal(copied, params)


def a_state_of_other_groups_is_refused(build):
    one, params = build(parameters()), parameters()
    two = build([{"params": params[:1]}, {"params": params[1:]}])
    take(two)
    before = copy.deepcopy(two.state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        two.load_state_dict(one.state_dict())
    assert two.state_dict()["param_groups"] == before["param_groups"]
    assert two.state_dict()["state"].keys() == before["state"].keys()


def hooks_of_states_are_called(build):
    optimizer, called = build(parameters()), []
    optimizer.register_state_dict_pre_hook(lambda o: called.append("saving"))
    optimizer.register_state_dict_post_hook(lambda o, held: called.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda o, held: called.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda o: called.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["saving", "saved", "loading", "loaded"]


def schedulers_of_torch_set_its_rates(build):
    schedulers = torch.optim.lr_scheduler
    made = {
        "StepLR": lambda o: schedulers.StepLR(o, 2, 0.5),
        "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.5, 6, cycle_momentum=False),
        "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0),
        "SequentialLR": lambda o: schedulers.SequentialLR(
            o, [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.5)], [2]
        ),
    }
    for name, make in made.items():
        rates = []
        # Beside an optimizer that is surely torch's own.
        for one in (build(parameters(), lr=0.125), torch.optim.SGD(parameters(), lr=0.125)):
            scheduler, seen = make(one), []
            for _ in range(4):
                take(one)
                scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
                seen.append(one.param_groups[0]["lr"])
            rates.append(seen)
        assert rates[0] == rates[1], name


def copies_are_independent(build):
    optimizer = build(parameters())
    take(optimizer, 2)
    copies = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    mine, *others = (
        [p for group in o.param_groups for p in group["params"]] for o in (optimizer, *copies)
    )
    held = values(mine)
    for other in copies:
        take(other)
    assert_equal(mine, held)
    take(optimizer)
    assert not torch.equal(mine[0], held[0])
    for params in others:
        assert_equal(params, mine)


def it_says_what_it_is(build):
    optimizer = build(parameters(), lr=0.125)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert "Parameter Group 0" in repr(optimizer)
    assert "lr: 0.125" in repr(optimizer)
    assert optimizer.defaults["lr"] == 0.125


CONFORMANCE = [
    steps_follow_gradients_alone,
    gradients_are_cleared,
    closures_are_called_with_gradients_on,
    hooks_are_called_and_removed,
    groups_have_options_of_their_own,
    names_are_kept,
    a_state_goes_through_a_file,
    a_state_of_other_groups_is_refused,
    hooks_of_states_are_called,
    schedulers_of_torch_set_its_rates,
    copies_are_independent,
    it_says_what_it_is,
]


@pytest.mark.parametrize(
    ("name", "side"),
    [(name, side) for side in ("torch's", "ours") for name in NAMES],
)
def test_conformance(name, side):
    """One test for each optimizer, which compiles its step once."""

    def build(params, **options):
        if side == "torch's":
            return getattr(torch.optim, name)(params, **options)
        return TorchOptimizer(params, getattr(jp, name), **options)

    for check in CONFORMANCE:
        try:
            check(build)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error
