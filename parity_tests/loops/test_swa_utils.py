"""Weight averaging against torch.optim.swa_utils."""

import itertools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from flax import nnx
from torch.optim import swa_utils as torch_swa

import jaxopt_port as jp
from jaxopt_port import swa_utils as swa
from parity_tests.oracles.bits import most_ulps, relative
from parity_tests.oracles.optimizer import to_numpy, to_torch
from parity_tests.oracles.tolerances import bound

STATISTICS = bound("batch statistics")


class Net(torch.nn.Module):
    def __init__(self, arrays):
        super().__init__()
        self.w = torch.nn.Parameter(to_torch(arrays["w"]))
        self.register_buffer("b", to_torch(arrays["b"]))
        self.register_buffer("n", to_torch(arrays["n"]))


def model_at(step, dtype="float32"):
    rng = np.random.default_rng(step)
    w = jnp.asarray(rng.standard_normal((9, 5)), dtype)
    b = jnp.asarray(rng.standard_normal(7), dtype)
    return {"w": np.asarray(w), "b": np.asarray(b), "n": np.int32([step, 5 * step])}


AVERAGES = {
    "default": lambda s: {},
    "swa": lambda s: {"avg_fn": s.get_swa_avg_fn()},
    "ema": lambda s: {"avg_fn": s.get_ema_avg_fn(0.9)},
    "ema default decay": lambda s: {"avg_fn": s.get_ema_avg_fn()},
    "multi swa": lambda s: {"multi_avg_fn": s.get_swa_multi_avg_fn()},
    "multi ema": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.9)},
    "multi ema fast": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.3)},
    "own": lambda s: {"avg_fn": lambda a, c, n: 0.5 * a + 0.5 * c},
}


ALL = list(itertools.product(AVERAGES, ["float32", "bfloat16"], [False, True]))


@pytest.mark.parametrize(("name", "dtype", "use_buffers"), ALL)
def test_averages(name, dtype, use_buffers):
    make = AVERAGES[name]
    first = model_at(0, dtype)
    theirs = torch_swa.AveragedModel(Net(first), use_buffers=use_buffers, **make(torch_swa))
    ours = swa.AveragedModel(use_buffers=use_buffers, **make(swa))
    # torch's lerp cannot average integers equally, and this library's cannot either.
    buffers = ("b",) if name == "multi swa" and use_buffers else ("b", "n")
    if buffers == ("b",):
        del theirs.module._buffers["n"]
    averages = ours.init({"w": first["w"]}, {k: first[k] for k in buffers})
    update = jax.jit(ours.update_parameters)
    for step in range(1, 8):
        arrays = model_at(step, dtype)
        net = Net(arrays)
        if buffers == ("b",):
            del net._buffers["n"]
        theirs.update_parameters(net)
        averages = update(averages, {"w": arrays["w"]}, {k: arrays[k] for k in buffers})
        held = {**averages.params, **averages.buffers}
        expected = {k: to_numpy(v) for k, v in theirs.module.state_dict().items()}
        for key in ("w", "b"):
            assert most_ulps({key: held[key]}, {key: expected[key]}) <= bound("averaging")
        if "n" in buffers:
            np.testing.assert_array_equal(held["n"], expected["n"])
        assert int(averages.n_averaged) == int(theirs.n_averaged)


def test_an_average_is_pickled_and_goes_on():
    averaged = swa.AveragedModel()
    averages = averaged.init({"w": model_at(0)["w"]})
    for step in range(1, 4):
        averages = averaged.update_parameters(averages, {"w": model_at(step)["w"]})
    copied, copies = pickle.loads(pickle.dumps((averaged, averages)))
    ours, theirs = (
        each.update_parameters(held, {"w": model_at(4)["w"]})
        for each, held in ((averaged, averages), (copied, copies))
    )
    np.testing.assert_array_equal(ours.params["w"], theirs.params["w"])
    assert int(theirs.n_averaged) == 4


def test_integers_have_no_lerp():
    with pytest.raises(TypeError, match="cannot average int32 arrays"):
        swa.get_swa_multi_avg_fn()([jnp.arange(3)], [jnp.arange(3)], 1)


class BatchNormed(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(x))


def test_update_bn_against_torch():
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((4, 3, 2, 1)).astype(np.float32) * 3 + 1 for _ in range(5)]
    theirs = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    torch_swa.update_bn([torch.from_numpy(batch) for batch in batches], theirs)
    batches = [batch.transpose(0, 2, 3, 1) for batch in batches]
    model = BatchNormed(nnx.Rngs(0))
    model.norm.mean[...] += 7
    model.eval()
    swa.update_bn([(batch, "label") for batch in batches], model)
    np.testing.assert_allclose(model.norm.mean[...], theirs[0].running_mean, rtol=STATISTICS)
    unbiased = model.norm.var[...] * (8 / 7)  # each pixel counts
    np.testing.assert_allclose(unbiased, theirs[0].running_var, rtol=STATISTICS)
    swa.update_bn(batches, model, unbiased=True)
    np.testing.assert_allclose(model.norm.var[...], theirs[0].running_var, rtol=STATISTICS)
    assert model.norm.momentum == 0.9
    assert model.norm.use_running_average
    assert model.dropout.deterministic


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="one")(x)
        two = nn.BatchNorm(use_running_average=not train, name="two")
        return two(two(x) * 3)  # called twice in a batch


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return self.two(self.two(self.one(x)) * 3)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.one, self.two = nnx.BatchNorm(3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.two(self.two(self.one(x)) * 3)


def bn_batches():
    """Of several sizes, so that no one factor makes an unbiased variance of the other."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, 3)).astype(np.float32) * 3 + 1 for n in (8, 5, 2)]


def stats_of_torch():
    net = TorchNet()
    torch_swa.update_bn([torch.from_numpy(batch) for batch in bn_batches()], net)
    return {k: (m.running_mean.numpy(), m.running_var.numpy()) for k, m in net.named_children()}


class CompiledNet(NnxNet):
    __call__ = nnx.jit(NnxNet.__call__)


@pytest.mark.parametrize("kind", [NnxNet, CompiledNet])
def test_update_bn_with_torchs_variance(kind):
    model = kind(nnx.Rngs(0))
    before = jax.tree.structure(nnx.state(model))
    # Twice each, so that a compiled call is not always a traced one.
    swa.update_bn([batch for batch in bn_batches() for _ in range(2)], model, unbiased=True)
    assert jax.tree.structure(nnx.state(model)) == before
    for name, (mean, var) in stats_of_torch().items():
        norm = getattr(model, name)
        np.testing.assert_allclose(norm.mean[...], mean, rtol=STATISTICS, atol=1e-6)
        np.testing.assert_allclose(norm.var[...], var, rtol=STATISTICS)
        assert type(norm) is nnx.BatchNorm
        assert norm.momentum == 0.99


def test_update_bn_counts_the_calls_of_a_compiled_model():
    batches = [np.float32([[10 * i], [10 * i + 4]]) for i in range(4)]
    theirs = torch.nn.BatchNorm1d(1)
    torch_swa.update_bn([torch.from_numpy(batch) for batch in batches], theirs)
    model = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    compiled = nnx.jit(lambda module, x: module(x))

    class Compiled(nnx.Module):
        def __init__(self):
            self.norm = model

        def __call__(self, x):
            return compiled(self.norm, x)

    swa.update_bn(batches, Compiled())
    np.testing.assert_array_equal(model.mean[...], theirs.running_mean)
    np.testing.assert_array_equal(model.var[...] * 2, theirs.running_var)
    assert not hasattr(model, "calls")


def test_update_bn_of_linen():
    net = LinenNet()
    variables = net.init(jax.random.key(0), bn_batches()[0], train=False)
    made = swa.update_bn(bn_batches(), net, variables, unbiased=True, train=True)
    assert made["params"] is variables["params"]
    for name, (mean, var) in stats_of_torch().items():
        stats = made["batch_stats"][name]
        np.testing.assert_allclose(stats["mean"], mean, rtol=STATISTICS, atol=1e-6)
        np.testing.assert_allclose(stats["var"], var, rtol=STATISTICS)
    own = NnxNet(nnx.Rngs(0))
    swa.update_bn(bn_batches(), own)
    made = swa.update_bn([(batch, "label") for batch in bn_batches()], net, variables, train=True)
    np.testing.assert_allclose(made["batch_stats"]["two"]["var"], own.two.var[...], rtol=STATISTICS)
    with pytest.raises(ValueError, match="BatchNorm at one normalises by its running averages"):
        swa.update_bn(bn_batches(), net, variables, train=False)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        swa.update_bn([bn_batches()[0][:1]], net, variables, unbiased=True, train=True)
    dense = nn.Dense(2)
    plain = dense.init(jax.random.key(0), bn_batches()[0])
    assert swa.update_bn(iter(()), dense, plain) is plain


class Block(nn.Module):
    """A normalised layer, for nn.scan; with a momentum that moves nothing."""

    train: bool

    @nn.compact
    def __call__(self, x, _):
        return nn.BatchNorm(use_running_average=not self.train, momentum=1.0)(x * 3 + 1), None


class Scanned(nn.Module):
    axis: int

    @nn.compact
    def __call__(self, x, train):
        axes = {"batch_stats": self.axis, "params": self.axis}
        layers = nn.scan(Block, axes, split_rngs={"params": True}, length=2, in_axes=nn.broadcast)
        return layers(train, name="layers")(x, None)[0]


@pytest.mark.parametrize("axis", [0, 1])
def test_update_bn_of_layers_that_are_scanned(axis):
    """Flax traces a scanned layer as often as it likes; each batch counts once."""
    scanned, batches = Scanned(axis), bn_batches()
    variables = scanned.init(jax.random.key(0), batches[0], False)
    made = swa.update_bn(batches, scanned, variables, train=True)["batch_stats"]
    made = made["layers"]["BatchNorm_0"]
    assert sorted(made) == ["mean", "var"]
    first = [np.take(np.asarray(made[name]), 0, axis) for name in ("mean", "var")]
    inputs = [batch * 3 + 1 for batch in batches]
    for got, of in zip(first, (np.mean, np.var), strict=True):
        want = np.mean([of(x, axis=0) for x in inputs], axis=0)
        np.testing.assert_allclose(got, want, rtol=STATISTICS)


def test_integers_are_copied_as_they_are_at_first():
    """A count of batches beyond 2**24, which float32 does not hold."""
    averaged, count = swa.AveragedModel(use_buffers=True), jnp.int32(20_000_001)
    averages = averaged.init({"w": jnp.ones(1)}, {"n": jnp.int32(0)})
    averages = averaged.update_parameters(averages, {"w": jnp.ones(1)}, {"n": count})
    assert averages.buffers["n"] == count


DECAYS = {
    "timm": (
        lambda n: min(0.9, (1 + n) / (10 + n)),
        lambda n: jnp.minimum(0.9, (1 + n) / (10 + n)),
    ),
    "yolo": (lambda n: 0.99 * (1 - math.exp(-n / 8)), lambda n: 0.99 * (1 - jnp.exp(-n / 8))),
    "steps": (lambda n: 0.5 if n < 3 else 0.9, lambda n: jnp.where(n < 3, 0.5, 0.9)),
    "constant": (lambda n: 0.9, lambda n: 0.9),
}


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("name", DECAYS)
def test_a_decay_that_changes_with_the_step(name, multi):
    theirs_of, ours_of = DECAYS[name]

    def single(averaged, current, n):
        return theirs_of(int(n)) * averaged + (1 - theirs_of(int(n))) * current

    def several(averaged, current, n):
        torch._foreach_lerp_(averaged, current, 1 - theirs_of(int(n)))

    first = model_at(0)
    if multi:
        theirs = torch_swa.AveragedModel(Net(first), multi_avg_fn=several)
        ours = swa.AveragedModel(multi_avg_fn=swa.get_ema_multi_avg_fn(ours_of))
    else:
        theirs = torch_swa.AveragedModel(Net(first), avg_fn=single)
        ours = swa.AveragedModel(swa.get_ema_avg_fn(ours_of))
    averages = ours.init({"w": first["w"]})
    for step in range(1, 9):
        arrays = model_at(step)
        theirs.update_parameters(Net(arrays))
        averages = ours.update_parameters(averages, {"w": arrays["w"]})
        expected = {"w": to_numpy(theirs.module.w)}
        assert most_ulps(averages.params, expected) <= bound("averaging")


@pytest.mark.parametrize("make", ["default", "swa", "ema", "multi swa", "multi ema"])
def test_complex_parameters_are_averaged(make):
    rng = np.random.default_rng(0)

    def drawn():
        return (rng.standard_normal(9) + 1j * rng.standard_normal(9)).astype(np.complex64)

    class One(torch.nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(w))

    w = drawn()
    theirs = torch_swa.AveragedModel(One(w), **AVERAGES[make](torch_swa))
    ours = swa.AveragedModel(**AVERAGES[make](swa))
    averages = ours.init({"w": w})
    for _ in range(5):
        w = drawn()
        theirs.update_parameters(One(w))
        averages = ours.update_parameters(averages, {"w": w})
        expected = theirs.module.w.detach().numpy()
        assert relative(np.asarray(averages.params["w"]), expected) <= bound("complex")


def test_update_bn_leaves_other_models_alone():
    def no_batch():
        raise AssertionError("a batch was taken")
        yield

    swa.update_bn(no_batch(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


def test_averaging_begins_after_some_steps_in_one_scan():
    """The loop of torch's docs: averages and SWALR from an epoch on, a schedule before it."""
    tx, averaged = jp.SGD(lr=0.1), swa.AveragedModel()
    cosine, swa_lr = jp.lr_scheduler.CosineAnnealingLR(100), swa.SWALR(0.05, anneal_epochs=3)

    def step(carried, epoch):
        params, state, cosine_state, swa_state, averages = carried
        params, state = jp.step(tx, {"w": jnp.ones(2)}, state, params)

        def average():
            new_state, new_swa = swa_lr.step(state, swa_state)
            return new_state, cosine_state, new_swa, averaged.update_parameters(averages, params)

        def before():
            return *cosine.step(state, cosine_state), swa_state, averages

        rest = jax.lax.cond(epoch > 5, average, before)
        return (params, *rest), params["w"]

    params = {"w": jnp.zeros(2)}
    state, cosine_state = cosine.init(tx.init(params))
    state, swa_state = swa_lr.init(state, cosine.param_groups(cosine_state))
    start = (params, state, cosine_state, swa_state, averaged.init(params))
    end, path = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(10)))(start)
    assert int(end[-1].n_averaged) == 4
    mean = {"w": np.mean(path[6:], axis=0)}
    assert most_ulps(end[-1].params, mean) <= bound("an average beside the mean")
    (lr,) = swa_lr.get_last_lr(end[3])
    assert lr == pytest.approx(0.05)
