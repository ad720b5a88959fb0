"""`interop.TorchOptimizer`: torch's own script, with the step computed here."""

import copy
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.interop import TorchOptimizer
from parity_tests.oracles.bits import relative
from parity_tests.oracles.configurations import LEAFWISE, MUON
from parity_tests.oracles.tolerances import RESUMED, bound
from parity_tests.oracles.two_networks import held


def make(shapes=((5, 3), (4,)), dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def give(params, step):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def both(name, options=None, dtype=torch.float32):
    """torch's optimizer and this one, each over its own copy of the parameters."""
    shapes = ((5, 3), (2, 4)) if name == "Muon" else ((5, 3), (4,))
    pairs = []
    for cls in (getattr(torch.optim, name), None):
        params = make(shapes, dtype)
        groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.02}]
        if cls is None:
            optimizer = TorchOptimizer(groups, getattr(jp, name), **options or {})
        else:
            optimizer = cls(groups, **options or {})
        pairs.append((params, optimizer))
    return pairs


def run(params, optimizer, steps, scheduler=None):
    for step in steps:
        give(params, step)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", [*LEAFWISE, MUON], ids=lambda o: o.name)
def test_steps_schedules_and_states_are_torchs(optimizer, correct_root):
    sides = both(optimizer.name)
    for params, made in sides:
        scheduler = torch.optim.lr_scheduler.StepLR(made, 2, gamma=0.5)
        run(params, made, range(5), scheduler)
    (theirs, torchs), (ours, port) = sides
    if optimizer.sums:
        for a, b in zip(ours, theirs, strict=True):
            assert relative(a.detach(), b.detach()) <= RESUMED[optimizer.name]
    else:
        assert_equal(ours, theirs)
        for key, value in held(torchs).items():
            np.testing.assert_array_equal(held(port)[key], value, err_msg=key)
    assert [g["lr"] for g in port.param_groups] == [g["lr"] for g in torchs.param_groups]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_types(dtype):
    (theirs, torchs), (ours, port) = both("SGD", {"momentum": 0.9}, dtype)
    run(theirs, torchs, range(3))
    run(ours, port, range(3))
    assert_equal(ours, theirs)
    assert port.state[ours[0]]["momentum_buffer"].dtype == dtype


def test_gradients_that_are_views_of_their_conjugates():
    """Of complex parameters torch may set a bit where others would copy."""
    sides = []
    for make_optimizer in (
        torch.optim.SGD,
        lambda params, **o: TorchOptimizer(params, jp.SGD, **o),
    ):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(3, dtype=torch.complex64).conj())]
        params.append(torch.nn.Parameter(torch.ones(3)))
        params[0].grad = torch.randn(3, dtype=torch.complex64).conj()
        params[1].grad = torch.randn(3, dtype=torch.complex64).conj().imag
        make_optimizer(params, lr=0.5).step()
        sides.append([p.detach().resolve_conj() for p in params])
    assert_equal(*sides)


def test_a_state_dict_goes_to_torchs_optimizer_and_back(correct_root):
    (theirs, torchs), (ours, port) = both("AdamW")
    run(theirs, torchs, range(2))
    run(ours, port, range(2))
    stream = io.BytesIO()
    torch.save(port.state_dict(), stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    saved = torchs.state_dict()
    for group, given in zip(loaded["param_groups"], saved["param_groups"], strict=True):
        group.update({k: v for k, v in given.items() if k not in group})
    torchs.load_state_dict(loaded)
    port.load_state_dict(saved)
    run(theirs, torchs, range(2, 4))
    run(ours, port, range(2, 4))
    assert_equal(ours, theirs)


def test_a_change_of_the_state_is_seen():
    (theirs, torchs), (ours, port) = both("SGD", {"momentum": 0.9})
    for params, optimizer in ((theirs, torchs), (ours, port)):
        run(params, optimizer, range(2))
        optimizer.state[params[0]]["momentum_buffer"].zero_()
        optimizer.param_groups[1]["momentum"] = 0.0
        run(params, optimizer, range(2, 4))
        optimizer.param_groups[1]["momentum"] = 0.5
        run(params, optimizer, range(4, 6))
    assert_equal(ours, theirs)


def test_momentum_may_begin_in_mid_run():
    (theirs, torchs), (ours, port) = both("SGD")
    for params, optimizer in ((theirs, torchs), (ours, port)):
        run(params, optimizer, range(2))
        for group in optimizer.param_groups:
            group["momentum"] = 0.9
        run(params, optimizer, range(2, 4))
    assert_equal(ours, theirs)


def test_what_has_no_gradient_is_left_alone_and_counts_its_own_steps(correct_root):
    (theirs, torchs), (ours, port) = both("Adam", {"weight_decay": 0.1})
    for params, optimizer in ((theirs, torchs), (ours, port)):
        for step in range(4):
            give(params, step)
            if step == 1:
                params[0].grad = None
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(ours, theirs)
    assert [float(port.state[p]["step"]) for p in ours] == [3.0, 4.0]


def test_a_group_is_added_in_mid_run(correct_root):
    (theirs, torchs), (ours, port) = both("Adam")
    for params, optimizer in ((theirs, torchs), (ours, port)):
        run(params, optimizer, range(2))
        extra = torch.nn.Parameter(torch.ones(3))
        optimizer.add_param_group({"params": [extra], "lr": 0.3})
        params.append(extra)
        run(params, optimizer, range(2, 5))
    assert_equal(ours, theirs)


def of_one_shape(cls):
    params = make(((3,), (3,), (3,)))
    options = {"lr": 0.1, "momentum": 0.9}
    made = cls(params, **options) if cls is torch.optim.SGD else cls(params, jp.SGD, **options)
    return params, made


def replaced(params, made):
    params[1] = torch.nn.Parameter(torch.ones(3))
    made.param_groups[0]["params"][1] = params[1]


def moved_to_a_group_of_its_own(params, made):
    made.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "lr": 0.01})
    made.param_groups[1]["params"].insert(0, made.param_groups[0]["params"].pop())


CHANGES = {
    "a new head": replaced,
    "two change places": lambda params, made: made.param_groups[0]["params"].reverse(),
    "one leaves": lambda params, made: made.param_groups[0]["params"].pop(0),
    "one moves to another group": moved_to_a_group_of_its_own,
    "a group leaves": lambda params, made: made.param_groups.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_state_is_of_the_tensor_and_not_of_its_place(change):
    sides = []
    for cls in (torch.optim.SGD, TorchOptimizer):
        params, made = of_one_shape(cls)
        run(params, made, range(2))
        change(params, made)
        run(params, made, range(2, 4))
        sides.append(params)
    assert_equal(*sides)


def test_the_shadow_finds_the_step_where_a_difference_begins():
    params, optimizer = of_one_shape(lambda *args, **k: TorchOptimizer(*args, shadow=True, **k))
    run(params, optimizer, range(3))
    assert [d.ulps for d in optimizer.distances] == [0, 0, 0]
    optimizer.state[params[1]]["momentum_buffer"][0] += 1.0
    run(params, optimizer, range(3, 4))
    assert (optimizer.distances[3].step, optimizer.distances[3].name) == (4, "parameter 1")
    assert optimizer.distances[3].ulps > 1000
    assert optimizer.distances[3].relative > 0.1


def test_the_shadow_follows_what_is_loaded_or_changed_between_steps():
    def begun():
        params = make()
        return params, TorchOptimizer(params, jp.SGD, lr=0.1, momentum=0.9, shadow=True)

    params, optimizer = begun()
    run(params, optimizer, range(2))
    resumed, other = begun()
    run(resumed, other, range(1))
    with torch.no_grad():
        for mine, theirs in zip(resumed, params, strict=True):
            mine.copy_(theirs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, other, range(2, 4))
    resumed[0].data.zero_()
    other.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    run([*resumed, *other.param_groups[1]["params"]], other, range(4, 6))
    assert [d.ulps for d in other.distances] == [0] * 5


def test_a_factory_of_optax():
    params = make()
    optimizer = TorchOptimizer(params, optax.adamw, learning_rate=0.1)
    tx = optax.adamw(0.1)
    with jax.enable_x64(True):  # as it is for the other
        theirs = [jnp.asarray(p.detach().numpy().copy()) for p in params]
        state = tx.init(theirs)
        for step in range(2):
            run(params, optimizer, [step])
            grads = [jnp.asarray(p.grad.numpy()) for p in params]
            updates, state = tx.update(grads, state, theirs)
            theirs = optax.apply_updates(theirs, updates)
    for ours, leaf in zip(params, theirs, strict=True):
        assert relative(ours.detach().numpy(), leaf) <= bound("a factory of Optax")
    assert optimizer.state[params[0]]["0/mu"].shape == (5, 3)
    give(params, 2)
    params[0].grad = None
    optimizer.step()
    assert int(optimizer.state[params[1]]["0/count"]) == 3


def test_sparse_gradients(correct_root):
    sides = []
    for cls in (torch.optim.SparseAdam, None):
        torch.manual_seed(0)
        table = torch.nn.Embedding(7, 3, sparse=True)
        made = (
            TorchOptimizer(table.parameters(), jp.SparseAdam)
            if cls is None
            else cls(table.parameters())
        )
        for step in range(3):
            made.zero_grad()
            (table(torch.tensor([step, 2, 2])) ** 2).sum().backward()
            made.step()
        sides.append(table.weight)
    theirs, ours = (table.detach() for table in sides)
    assert relative(ours, theirs) <= bound("sparse gradients float32")


REFUSED = {
    "L-BFGS": ((jp.LBFGS,), {}, TypeError, "use torch.optim.LBFGS"),
    "an unknown option": ((jp.SGD,), {"rate": 1.0}, TypeError, "rate"),
    "torch's own option": ((jp.SGD,), {"foreach": True}, TypeError, "foreach"),
    "out of range": ((jp.SGD,), {"lr": -1.0}, ValueError, "Invalid learning rate: -1.0"),
    "a schedule": ((jp.SGD,), {"lr": lambda count: 0.1}, TypeError, "torch's schedulers"),
    "an optimizer that is made": ((jp.SGD(lr=1.0),), {}, TypeError, "its options would be lost"),
    "one of Optax's that is made": ((optax.sgd(1.0),), {}, TypeError, "its options would be lost"),
    "a shadow of Optax": ((optax.sgd,), {"learning_rate": 0.1, "shadow": True}, TypeError, "torch"),
}


@pytest.mark.parametrize(("args", "options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(args, options, kind, message):
    with pytest.raises(kind, match=message):
        TorchOptimizer(make(), *args, **options)


def test_a_group_is_a_dict():
    with pytest.raises(TypeError, match="must be a dict, but got <class 'list'>; write"):
        TorchOptimizer(make(), jp.SGD).add_param_group([torch.nn.Parameter(torch.ones(1))])


def test_a_bad_group_changes_nothing():
    params = make()
    optimizer = interop.TorchOptimizer(params, jp.AdamW)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": -1.0})
    with pytest.raises(ValueError, match="lie in one memory"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(params[0].data)]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kept", ["before the first step", "after it"])
def test_a_state_that_is_kept_stays_the_optimizers(kept):
    def trained(make):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1)
        optimizer = make(module.parameters())
        state = optimizer.state
        for step in range(6):
            optimizer.zero_grad()
            module(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            if step == 0 and kept == "after it":
                state = optimizer.state
            if step == 2:
                for p in module.parameters():
                    state[p]["momentum_buffer"].zero_()
            if step == 4:
                state[module.bias] = {"momentum_buffer": torch.ones(1)}
        return module.bias.item(), len(state)

    theirs = trained(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    assert trained(lambda params: TorchOptimizer(params, jp.SGD, lr=0.1, momentum=0.9)) == theirs
