"""Loops around the optimizer: each right port is the same training, each fault is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx
from flax.training import train_state

import jaxopt_port as jp
from jaxopt_port.flax import Optimizer, TrainState
from jaxopt_port.verify import JaxSide, TorchSide, compare, linen_side, nnx_side, replay
from jaxopt_port.verify.comparison import _compare, _sides
from jaxopt_port.verify.recorder import record
from parity_tests.verify.linear_layers import layer, zeros

STEPS = 9
EMA, SWA = torch.optim.swa_utils.get_ema_multi_avg_fn, torch.optim.swa_utils.get_swa_multi_avg_fn


def module():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"first": torch.nn.Linear(4, 6), "last": torch.nn.Linear(6, 3)})


def forward(m, batch):
    return m["last"](torch.tanh(m["first"](batch[0])))


def torch_side(optimizer=None, averaged=None, times=1.0, **rest):
    m = module()
    made = torch.optim.AdamW(m.parameters(), lr=0.01) if optimizer is None else optimizer(m)

    def loss(output, batch):
        return times * torch.nn.functional.cross_entropy(output, batch[1])

    if averaged is not None:
        rest["averaged"] = torch.optim.swa_utils.AveragedModel(m, multi_avg_fn=averaged)
    return TorchSide(module=m, optimizer=made, loss=loss, forward=forward, **rest)


def apply(params, batch):
    return layer(params["last"], jnp.tanh(layer(params["first"], batch[0])))


def loss(output, batch, times=1.0):
    return times * optax.softmax_cross_entropy_with_integer_labels(output, batch[1]).mean()


# One object for one program: what is compiled goes by identity.
ADAMW = jp.AdamW(lr=0.01)
louder = functools.partial(loss, times=16.0)


def jax_side(tx=ADAMW, averaged=None, loss=loss, **rest):
    params = {"first": zeros(4, 6), "last": zeros(6, 3)}
    if averaged is not None:
        rest["averaged"] = jp.swa_utils.AveragedModel(multi_avg_fn=averaged)
    return JaxSide(apply=apply, params=params, tx=tx, loss=loss, **rest)


@functools.cache
def batches():
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8)) for _ in range(STEPS)
    ]


def muon_and_adamw(m):
    return [
        torch.optim.Muon([p for p in m.parameters() if p.ndim == 2], lr=0.02),
        torch.optim.AdamW([p for p in m.parameters() if p.ndim == 1], lr=0.01),
    ]


def by_axes(adamw=0.01):
    kinds = jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "rest", jax_side().params)
    groups = [{"params": "**/kernel"}, {"params": jp.REST, "frozen": True}]
    muon = jp.interop.in_torch_layout(jp.Muon(groups, lr=0.02), jax_side().params)
    adamw = jp.AdamW([{"params": "**/bias"}, {"params": jp.REST, "frozen": True}], lr=adamw)
    return optax.multi_transform({"matrix": muon, "rest": adamw}, kinds)


def scaler(**rest):
    return torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3, **rest)


def clip(parameters):
    return torch.nn.utils.clip_grad_norm_(parameters, 0.05)


def scheduler(side):
    side.scheduler = torch.optim.lr_scheduler.StepLR(side.optimizer, 2, 0.5)
    return side


ema, swa = jp.swa_utils.get_ema_multi_avg_fn, jp.swa_utils.get_swa_multi_avg_fn
stepped = jp.lr_scheduler.StepLR(2, 0.5)
clipped = optax.chain(jp.clip_by_grad_norm(0.05), ADAMW)

RIGHT = {
    "MultiSteps": (
        lambda: torch_side(accumulation_steps=4),
        jax_side(optax.MultiSteps(ADAMW, 4)),
    ),
    "MultiSteps of Optax, clipped": (
        lambda: torch_side(accumulation_steps=3, clip=clip),
        jax_side(optax.MultiSteps(
            optax.chain(jp.clip_by_grad_norm(0.05), optax.adamw(0.01, weight_decay=0.01)), 3
        )),
    ),
    "accumulate_grads, a scheduler": (
        lambda: scheduler(torch_side(accumulation_steps=2)),
        jax_side(
            jp.accumulate_grads(ADAMW, 2), accumulation_steps=2, scheduler=stepped
        ),
    ),
    "an average": (lambda: torch_side(averaged=EMA(0.9)), jax_side(averaged=ema(0.9))),
    "SWA of what is accumulated": (
        lambda: torch_side(averaged=SWA(), accumulation_steps=2),
        jax_side(optax.MultiSteps(ADAMW, 2), averaged=swa()),
    ),
    "a scaler that skips": (
        lambda: torch_side(scaler=scaler(), clip=clip, times=16.0),
        jax_side(clipped, scaler=jp.GradScaler(), loss=louder),
    ),
    "two optimizers": (lambda: torch_side(muon_and_adamw), jax_side(by_axes())),
}  # fmt: skip

FAULTS = {
    "no accumulation": (
        lambda: torch_side(accumulation_steps=4), jax_side(), (0, "update"), ["accumulation"],
    ),
    "accumulation on one side": (
        torch_side, jax_side(optax.MultiSteps(ADAMW, 2)), (0, "update"),
        ["accumulation"],
    ),
    "of what is accumulated, another rate": (
        lambda: torch_side(accumulation_steps=3),
        jax_side(optax.MultiSteps(optax.adamw(0.02, weight_decay=0.01), 3)),
        (2, "update"), ["number"],
    ),
    "a sum for a mean": (
        lambda: torch_side(lambda m: torch.optim.SGD(m.parameters(), 0.1), accumulation_steps=3),
        jax_side(jp.accumulate_grads(jp.SGD(lr=0.1), 3)), (2, "update"),
        ["gradient-scale", "number"],
    ),
    "another decay of an average": (
        lambda: torch_side(averaged=EMA(0.9)), jax_side(averaged=ema(0.99)),
        (1, "averages"), ["average-decay"],
    ),
    "one of two optimizers": (
        lambda: torch_side(muon_and_adamw), jax_side(by_axes(0.03)), (0, "hyperparameters"),
        ["number"],
    ),
}  # fmt: skip


def test_a_clipping_that_is_always_active_hides_a_sum_for_a_mean():
    """The numbers are the same, and the loop is wrong: that is a note."""
    chained = optax.chain(jp.clip_by_grad_norm(0.05), ADAMW)
    louder = functools.partial(loss, times=1e4)
    torchs = torch_side(accumulation_steps=3, clip=clip, times=1e4)
    report = compare(torchs, jax_side(jp.accumulate_grads(chained, 3), loss=louder), batches())
    assert report.ok, report
    assert any("give your side accumulation_steps=3" in note for note in report.notes)


# At how many steps averages are compared.
AVERAGED = {"an average": STEPS, "SWA of what is accumulated": STEPS // 2}


@pytest.mark.parametrize("name", RIGHT)
def test_right_loops_are_the_same_training(name):
    theirs, mine = RIGHT[name]
    report = compare(theirs(), mine, batches())
    assert report.ok, str(report)
    assert report.steps == report.stages["update"].steps == STEPS
    if name in AVERAGED:
        assert report.stages["averages"].steps == AVERAGED[name]


@pytest.mark.parametrize("name", FAULTS)
def test_faults_in_the_loop_are_placed_and_named(name):
    theirs, mine, place, names = FAULTS[name]
    report = compare(theirs(), mine, batches())
    first = report.first
    assert (first.step, first.stage) == place, str(report)
    assert first.cause is not None, str(report)
    assert first.cause.name in names, str(report)


def test_an_average_of_one_side_is_said_to_be_not_compared():
    report = compare(torch_side(averaged=EMA(0.9)), jax_side(), batches()[:3])
    assert report.ok
    assert report.stages["averages"].skipped == "only torch's side has averages (averaged=)"


LOOPS = ["MultiSteps", "an average", "two optimizers", "a scaler that skips"]


@pytest.mark.parametrize("name", LOOPS)
def test_a_trace_has_the_loop_too(name, tmp_path):
    theirs, mine = RIGHT[name]
    record(tmp_path / "t", theirs(), batches())
    report = replay(tmp_path / "t", mine)
    assert report.ok, str(report)
    compared = compare(theirs(), mine, batches())
    steps = {k: s.steps for k, s in compared.stages.items() if k in ("update", "averages")}
    assert {k: report.stages[k].steps for k in steps} == steps


def test_torchs_side_trains_as_a_plain_loop_with_all_of_it():
    from jaxopt_port.verify.recorder import TorchRun

    side = torch_side(
        averaged=EMA(0.9), accumulation_steps=2, scaler=scaler(), clip=clip, times=16.0
    )
    run = TorchRun(side, lambda step: step % 3 == 0)
    before = run.snapshot()
    for batch in batches():
        run.evaluate(batch)
        update = run.update()
    m, own = module(), scaler()
    optimizer = torch.optim.AdamW(m.parameters(), lr=0.01)
    averaged = torch.optim.swa_utils.AveragedModel(m, multi_avg_fn=EMA(0.9))
    for step, (x, y) in enumerate(batches(), 1):
        given = (torch.from_numpy(x), torch.from_numpy(y))
        own.scale(side.loss(forward(m, given), given) / 2).backward()
        if step % 2 == 0:
            own.unscale_(optimizer)
            clip(m.parameters())
            own.step(optimizer)
            own.update()
            averaged.update_parameters(m)
            optimizer.zero_grad()
    assert own.get_scale() == side.scaler.get_scale() < 2.0**127
    for held, expected in ((update.params, m), (update.averages, averaged.module)):
        for n, p in expected.named_parameters():
            assert torch.equal(held[n], p.detach()), n
    assert not torch.equal(update.params["last.bias"], module()["last"].bias)
    run.restore(before)
    assert side.scaler.get_scale() == 2.0**127
    pairs = zip(module().parameters(), side.module.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


# ── Flax's objects, torch's loaders, ties, large models ────────────────────────────────────────


def linear_side(**rest):
    torch.manual_seed(0)
    m = torch.nn.Linear(4, 3)
    cross_entropy = torch.nn.functional.cross_entropy
    optimizer = torch.optim.Adam(m.parameters(), lr=0.01)
    return TorchSide(
        module=m, optimizer=optimizer, loss=lambda out, batch: cross_entropy(out, batch[1]), **rest
    )


def nnx_of(kind, **given):
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    return nnx_side(model, tx=kind(model, jp.Adam(lr=0.01), wrt=nnx.Param), loss=loss, **given)


class Own(nnx.Optimizer):
    def update(self, model, grads, **rest):
        super().update(model, jax.tree.map(jnp.sign, grads), **rest)


class OwnState(train_state.TrainState):
    def apply_gradients(self, *, grads, **rest):
        return super().apply_gradients(grads=jax.tree.map(jnp.sign, grads), **rest)


def linen_of(kind):
    net = linen.Dense(3)
    params = net.init(jax.random.key(0), jnp.ones((2, 4)))["params"]
    made = kind.create(apply_fn=net.apply, params=params, tx=optax.adam(0.01))
    return linen_side(net, made, loss=loss)


FLAX = {
    "nnx.Optimizer": lambda: nnx_of(nnx.Optimizer),
    "jaxopt_port.flax.Optimizer": lambda: nnx_of(Optimizer),
    "TrainState": lambda: linen_of(train_state.TrainState),
    "jaxopt_port.flax.TrainState": lambda: linen_of(TrainState),
}
OWN = {"nnx": lambda: nnx_of(Own), "linen": lambda: linen_of(OwnState)}


@pytest.mark.parametrize("name", FLAX)
def test_flaxs_own_objects_are_sides(name):
    mine = FLAX[name]()
    assert mine.step is (jp.step if name.startswith("jaxopt_port") else _sides.applied)
    report = compare(linear_side(), mine, batches()[:4])
    assert report.ok, str(report)


@pytest.mark.parametrize("name", OWN)
def test_a_step_of_its_own_is_to_be_said(name):
    with pytest.raises(TypeError, match=r"of its own; say what it does by step="):
        OWN[name]()


def test_a_train_state_has_its_optimizer():
    side = linen_of(train_state.TrainState)
    net, params = linen.Dense(3), side.params
    made = train_state.TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(1.0))
    with pytest.raises(TypeError, match="no tx beside it"):
        linen_side(net, made, tx=optax.sgd(1.0), loss=loss)
    with pytest.raises(TypeError, match="needs tx, or a TrainState"):
        linen_side(net, {"params": params}, loss=loss)


def test_a_loader_goes_on_for_as_many_steps_as_are_asked_for(tmp_path):
    x, y = (torch.from_numpy(np.concatenate(part)) for part in zip(*batches()[:3], strict=True))
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    report = compare(linear_side(), nnx_of(Optimizer), loader, steps=7)
    assert (report.ok, report.steps) == (True, 7)
    assert compare(linear_side(), nnx_of(Optimizer), loader).steps == 3
    record(tmp_path / "t", linear_side(), loader, steps=7)
    assert replay(tmp_path / "t", nnx_of(Optimizer)).ok


class Tied(torch.nn.Module):
    def __init__(self, tied):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7, bias=False)
        self.head.weight.data.copy_(self.embed.weight.data)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)))


def tied_sides(torchs, mine):
    m = Tied(torchs)
    entropy = torch.nn.functional.cross_entropy
    theirs = TorchSide(
        module=m, optimizer=torch.optim.SGD(m.parameters(), lr=0.1),
        loss=lambda out, batch: entropy(out, batch[1]),
        clip=lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 0.05),
    )  # fmt: skip
    params = {"embed": {"embedding": jnp.zeros((7, 5))}}
    if not mine:
        params["head"] = {"kernel": jnp.zeros((5, 7))}

    def apply(p, batch):
        table = p["embed"]["embedding"]
        return jnp.tanh(table[batch[0]]) @ (table.T if mine else p["head"]["kernel"])

    tx = optax.chain(jp.clip_by_grad_norm(0.05), optax.sgd(0.1))
    return theirs, JaxSide(apply=apply, params=params, tx=tx, loss=loss)


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("torchs", [True, False])
def test_what_one_side_alone_ties_is_a_finding(torchs, mine):
    rng = np.random.default_rng(0)
    given = [(rng.integers(0, 7, 8), rng.integers(0, 7, 8)) for _ in range(4)]
    report = compare(*tied_sides(torchs, mine), given)
    assert report.ok == (torchs == mine), str(report)
    if torchs != mine:
        (found,) = report.found
        assert (found.step, found.stage, found.cause.name) == (0, "parameters", "tied-parameters")
        assert found.torch_name == "head.weight"
        assert found.leaf == ("head/kernel" if torchs else "embed/embedding")


def test_a_large_model_is_judged_by_the_same_stages(monkeypatch):
    monkeypatch.setattr(_compare, "_LARGE", 10)
    report = compare(linear_side(), nnx_of(Optimizer), batches())
    assert report.ok, str(report)
    small = compare(linear_side(), nnx_of(Optimizer), batches()[:3])
    skipped = {name for name, stage in small.stages.items() if stage.skipped}
    assert {name for name, stage in report.stages.items() if stage.skipped} == skipped
    assert report.stages["trajectory"].steps == 3


# ── other optimizers, by name ──────────────────────────────────────────────────────────────────

OTHERS = {
    "lamb": (optax.lamb(0.01, weight_decay=0.01), "lamb"),
    "lars": (optax.lars(0.1, weight_decay=0.01), "lars"),
    "Optax's Muon": (optax.contrib.muon(0.01), "muon"),
    "Optax's Adafactor": (optax.adafactor(0.01), "adafactor"),
    "Adafactor": (jp.Adafactor(lr=0.01), "Adafactor"),
    "Lamb": (jp.contrib.Lamb(lr=0.01, weight_decay=0.1, max_grad_norm=None), "contrib.Lamb"),
    "LaProp": (jp.contrib.LaProp(lr=0.003), "contrib.LaProp"),
    "MADGRAD": (jp.contrib.MADGRAD(lr=0.01), "contrib.MADGRAD"),
    "schedule-free": (jp.contrib.AdamWScheduleFree(lr=0.01), "contrib.AdamWScheduleFree"),
}


@pytest.mark.filterwarnings("ignore::jaxopt_port.engine._groups.LayoutWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_named(name):
    tx, said = OTHERS[name]
    report = compare(torch_side(), jax_side(tx), batches())
    first = report.first
    assert (first.step, first.stage) in [(0, "update"), (0, "hyperparameters")], str(report)
    causes = [f.cause for f in report.found if f.cause and f.cause.name == "another-optimizer"]
    assert causes, str(report)
    assert f"optimizer is {said}" in causes[0].message
