"""`verify.compare`: it finds what it should where it should, and refuses what it cannot compare."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.verify import Report
from jaxopt_port.verify.comparison import _environment

STEPS = 40


def torch_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def torch_loss(output, batch):
    return torch.nn.functional.mse_loss(output, batch[1])


def apply(params, batch):
    hidden = jnp.tanh(batch[0] @ params["0"]["kernel"] + params["0"]["bias"])
    return hidden @ params["2"]["kernel"] + params["2"]["bias"]


def jax_loss(output, batch):
    return jnp.mean((output - batch[1]) ** 2)


PARAMS = {
    "0": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)},
    "2": {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)},
}


def batches(steps=STEPS, size=7):
    rng = np.random.default_rng(1)
    return [
        (rng.normal(size=(size, 5)).astype(np.float32), rng.normal(size=(size, 3)))
        for _ in range(steps)
    ]


def theirs(**changes):
    module = changes.pop("module", None) or torch_net()
    make = changes.pop("optimizer", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9))
    return verify.TorchSide(
        **{"module": module, "optimizer": make(module.parameters()), "loss": torch_loss, **changes}
    )


TX = jp.SGD(lr=0.05, momentum=0.9)


def mine(**changes):
    given = {"apply": apply, "params": PARAMS, "tx": TX, "loss": jax_loss}
    return verify.JaxSide(**{**given, **changes})


def test_the_same_training_is_the_same_and_what_is_given_stays():
    side = theirs()
    side.scheduler = torch.optim.lr_scheduler.StepLR(side.optimizer, 15)
    before = copy.deepcopy((side.module.state_dict(), side.scheduler.state_dict()))
    report = verify.compare(side, mine(scheduler=jp.lr_scheduler.StepLR(15)), batches())
    assert report.ok, str(report)
    assert report.steps == STEPS
    assert len(report.curves.loss_yours) == STEPS
    assert report.curves.lr_yours == report.curves.lr_torch
    assert report.stages["update"].steps == STEPS
    assert report.stages["forward"].steps == 7  # 0, 1, 2, 10, 20, 30 and the last
    for name, value in side.module.state_dict().items():
        assert torch.equal(value, before[0][name])
    assert side.scheduler.state_dict() == before[1]
    assert side.optimizer.state_dict()["state"] == {}
    assert side.optimizer.param_groups[0]["lr"] == 0.05


def _gradient_fault(params, batch):
    """A forward pass that is wrong for one batch, between two checks."""
    marked = batch[0][0, 0] == 99.0
    return apply(params, batch) * jnp.where(marked, 1.5, 1.0)


def test_a_fault_between_two_checks_is_found_by_going_back():
    data = batches()
    data[26][0][0, 0] = 99.0
    report = verify.compare(theirs(), mine(apply=_gradient_fault), data)
    assert report.ok, "no check sees step 26, and nothing comes of it: torch's gradients are fed"
    data[30][0][0, 0] = 99.0
    report = verify.compare(theirs(), mine(apply=_gradient_fault), data)
    assert (report.first.step, report.first.stage) == (26, "forward")


@pytest.mark.parametrize("from_step", [0, 17])
def test_an_optimizer_is_watched_at_every_step(from_step):
    tx = optax.sgd(lambda count: jnp.where(count < from_step, 0.05, 0.04), momentum=0.9)
    report = verify.compare(theirs(), mine(tx=tx), batches())
    assert (report.first.step, report.first.stage) == (from_step, "update")
    assert set(report.first.leaves) == {"0/kernel", "0/bias", "2/kernel", "2/bias"}
    assert "hyperparameters" in report.stages
    assert not report.stages["hyperparameters"].leaves


def test_to_the_end():
    report = verify.compare(theirs(), mine(tx=jp.SGD(lr=0.04)), batches(), stop=False)
    assert report.steps == STEPS
    assert report.first.step == 0


def test_own_batches_and_own_parameters_are_compared():
    data = batches()
    own = [data[1], *data[1:]]
    report = verify.compare(theirs(), mine(batches=own), data)
    assert (report.first.step, report.first.stage, report.first.leaf) == (0, "data", "batch/0")
    side = theirs()
    values = {k: v.detach().numpy() for k, v in side.module.named_parameters()}
    params = {n: {"kernel": values[f"{n}.weight"].T, "bias": values[f"{n}.bias"]} for n in "02"}
    assert verify.compare(side, mine(params=params, imports=False), data).ok
    params["2"]["bias"] = params["2"]["bias"] + 1e-4
    report = verify.compare(side, mine(params=params, imports=False), data)
    first = report.first
    assert (first.step, first.stage, first.leaf) == (0, "parameters", "2/bias")
    assert first.torch_name == "2.bias"


def _narrow(params, batch):
    return apply(params, batch).astype(jnp.bfloat16).astype(params["0"]["bias"].dtype)


def _float32_only(params, batch):
    return apply(*jax.tree.map(lambda x: x.astype(jnp.float32), (params, batch)))


def test_low_precision_is_found_and_a_fixed_dtype_is_said():
    report = verify.compare(theirs(), mine(apply=_narrow), batches())
    assert (report.first.step, report.first.stage) == (0, "forward")
    report = verify.compare(theirs(), mine(apply=_float32_only), batches())
    assert report.ok
    assert "float32 though it is given float64" in report.notes[0]


def _by_std(params, batch):
    made = apply(params, batch)
    return made / jnp.std(made)  # whose program has NaN for no elements at all


def _without_infinities(params, batch):
    made = apply(params, batch)
    return jnp.where(jnp.isinf(made), jnp.nan, made)


class ByStd(torch.nn.Sequential):
    def forward(self, x):
        made = super().forward(x)
        return made / made.std(correction=0)


_DRAWN = np.random.default_rng(5)


def _drawn_anew(params, batch):
    made = _without_infinities(params, batch)
    return made + jnp.where(made > 9, _DRAWN.normal(), 0.0)  # which no output shows


@pytest.mark.parametrize(
    ("port", "module", "found"),
    [
        (_by_std, ByStd, None),
        (_without_infinities, torch.nn.Sequential, None),
        (_drawn_anew, torch.nn.Sequential, "not-repeatable"),
    ],
)
def test_a_nan_in_a_program_is_the_same_in_the_next_trace(port, module, found):
    report = verify.compare(
        theirs(module=module(*torch_net())), mine(apply=port), batches(), steps=3
    )
    causes = [divergence.cause.name for divergence in report.found]
    assert causes == ([] if found is None else [found]), str(report)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(5, 6, rngs=rngs), jnp.tanh, nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="2")(jnp.tanh(linen.Dense(6, name="0")(x)))


def test_flax_models():
    side = verify.nnx_side(Net(nnx.Rngs(0)), tx=TX, loss=jax_loss)
    rename = [(r"^", "layers.")]
    assert verify.compare(theirs(), side, batches(), steps=12, rename=rename).ok
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.ones((1, 5)))
    side = verify.linen_side(module, variables, tx=TX, loss=jax_loss)
    assert verify.compare(theirs(), side, batches(), steps=12).ok


class TorchsPair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(3, 2), torch.nn.Linear(4, 2)

    def forward(self, x, y):
        return self.a(x) * self.b(y)


class Pair(linen.Module):
    @linen.compact
    def __call__(self, x, y):
        return linen.Dense(2, name="a")(x) * linen.Dense(2, name="b")(y)


def test_a_linen_module_of_two_inputs():
    """What calls it knows how; and says what the batch is where it looks for something else."""
    module, net, rng = TorchsPair(), Pair(), np.random.default_rng(0)
    data = [tuple(rng.normal(size=(5, n)).astype(np.float32) for n in (3, 4)) for _ in range(3)]
    theirs = verify.TorchSide(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        forward=lambda module, batch: module(*batch),
        loss=lambda output, batch: output.square().mean(),
    )
    variables = net.init(jax.random.key(0), *data[0])

    def side(forward):
        return verify.linen_side(
            net, variables, tx=optax.sgd(0.1), loss=lambda o, b: (o**2).mean(), forward=forward
        )

    mine = side(lambda variables, batch: net.apply(variables, *batch))
    assert verify.compare(theirs, mine, data).ok
    with pytest.raises(TypeError, match="tuple indices") as raised:
        verify.compare(theirs, side(lambda v, batch: net.apply(v, batch["x"], batch["y"])), data)
    told = "raised in your forward pass or loss, whose batch is ((5, 3), (5, 4)) (shapes)"
    assert told in raised.value.__notes__


class Normalised(nnx.Module):
    def __init__(self, rngs, norm):
        self.norm = norm(5, rngs=rngs, epsilon=1e-5, momentum=0.9)
        self.dense = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


class Unbiased(nnx.BatchNorm):
    """Flax's layer with torch's running variance."""

    def __call__(self, x):
        kept, n = 0.9 * self.var[...], x.shape[0]
        y = super().__call__(x)
        self.var[...] = kept + (self.var[...] - kept) * n / (n - 1)
        return y


@pytest.mark.parametrize("norm", [nnx.BatchNorm, Unbiased])
def test_running_statistics_of_flax(norm):
    """Flax keeps the biased variance; torch's side is the same but for that."""
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
    side = verify.nnx_side(Normalised(nnx.Rngs(0), norm), tx=TX, loss=jax_loss)
    rename = [(r"^0\.", "norm."), (r"^1\.", "dense.")]
    report = verify.compare(theirs(module=module), side, batches(), steps=12, rename=rename)
    if norm is Unbiased:
        assert report.ok, str(report)
    else:
        first = report.first
        assert (first.step, first.stage, first.leaves) == (0, "buffers", ("norm/var",))
        assert first.cause.name == "biased-variance"
        assert any(note.startswith("LayerDifferenceWarning") for note in report.notes)


class Norms(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.LayerNorm(5, rngs=rngs) for _ in range(5)])
        self.dense = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dense(x)


def test_layers_that_differ_alike_are_one_note():
    torch.manual_seed(1)  # nearly equal outputs, which any number close to 1 seems to explain
    norms = [torch.nn.LayerNorm(5) for _ in range(5)]
    module = torch.nn.Sequential(*norms, torch.nn.Linear(5, 3))
    side = verify.nnx_side(Norms(nnx.Rngs(0)), tx=TX, loss=jax_loss)
    rename = [(r"^5\.", "dense."), (r"^(\d)\.", r"layers.\1.")]
    report = verify.compare(theirs(module=module), side, batches(), steps=1, rename=rename)
    assert report.first.cause.name == "layer-eps"
    (note,) = (note for note in report.notes if note.startswith("LayerDifferenceWarning"))
    assert "0, 1, 2 and 2 more (LayerNorm): eps is 1e-05 in torch and 1e-06 in Flax" in note


def test_a_report_goes_through_json(tmp_path):
    report = verify.compare(theirs(), mine(tx=optax.sgd(jnp.inf)), batches(), steps=5)
    assert report.first.distance.mismatched > 0
    assert Report.from_json(report.to_json()).to_json() == report.to_json()
    file = tmp_path / "report.json"
    report.write(file)
    assert file.read_text().startswith("{")
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError, match="schema 99"):
        Report.from_json({"schema": 99})


def _dropout_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Dropout(), torch.nn.Linear(6, 3))


def _used():
    side = theirs()
    torch_loss(side.module(torch.ones(2, 5)), (None, torch.ones(2, 3))).backward()
    side.optimizer.step()
    return side


BAD = {
    "another shape": (
        theirs,
        lambda: mine(params={**PARAMS, "2": {"kernel": jnp.zeros((6, 4)), "bias": jnp.zeros(3)}}),
        {},
        "2.weight",
    ),
    "a leaf too few": (theirs, lambda: mine(params={"0": PARAMS["0"]}), {}, "2.weight"),
    "a loss per example": (
        theirs,
        lambda: mine(loss=lambda output, batch: jnp.mean((output - batch[1]) ** 2, 1)),
        {},
        "your loss is no scalar",
    ),
    "torch's loss per example": (
        lambda: theirs(loss=lambda output, batch: ((output - batch[1]) ** 2).mean(1)),
        mine,
        {},
        "must be a scalar",
    ),
    "dropout": (lambda: theirs(module=_dropout_net()), mine, {}, "not deterministic.*eval"),
    "another output": (
        theirs,
        lambda: mine(apply=lambda p, b: apply(p, b).T, loss=lambda o, b: jnp.mean(o)),
        {},
        r"your output has shape \(3, 7\), torch's \(7, 3\)",
    ),
    "batches that end": (theirs, mine, {"steps": STEPS + 1}, f"the batches end after {STEPS}"),
    "no batches": (theirs, mine, {"batches": []}, "there are no batches"),
    "own batches that end": (
        theirs,
        lambda: mine(batches=batches(3)),
        {},
        "your own batches end after 3 of 40 steps",
    ),
    "own batches of another size": (
        theirs,
        lambda: mine(batches=batches(STEPS, 6)),
        {},
        r"batch/0 of step 0 has shape \(6, 5\) on your side and \(7, 5\)",
    ),
    "an optimizer in mid-run": (_used, mine, {}, "optimizer_from_torch"),
    "no steps": (theirs, mine, {"steps": 0}, "steps is 0; it must be 1 or more"),
    "a check too often": (theirs, mine, {"every": 0}, "every is 0; it must be 1 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_an_error(case):
    make_theirs, make_mine, options, message = BAD[case]
    side = make_theirs()
    before = copy.deepcopy(side.module.state_dict())
    options = {"batches": batches(), **options}
    with pytest.raises(ValueError, match=message):
        verify.compare(side, make_mine(), **options)
    for name, value in side.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_wrong_kinds_are_type_errors():
    with pytest.raises(TypeError, match="must be a TorchSide, got Linear"):
        verify.compare(torch.nn.Linear(1, 1), mine(), batches())
    with pytest.raises(TypeError, match="must be a JaxSide, got dict"):
        verify.compare(theirs(), {}, batches())
    with pytest.raises(TypeError, match="no length"):
        verify.compare(theirs(), mine(), iter(batches()))
    for function in (optax.adam, jp.Adam):
        with pytest.raises(TypeError, match=r"got [aA]dam; call it: tx=[aA]dam\(…\)"):
            mine(tx=function)
    with pytest.raises(TypeError, match=r"got Adam; make one: optimizer=Adam\(module"):
        verify.compare(theirs(optimizer=lambda _: torch.optim.Adam), mine(), batches())
    with pytest.raises(TypeError, match="an Optax schedule is the learning rate of tx"):
        mine(scheduler=optax.constant_schedule(0.1))
    with pytest.raises(TypeError, match="chain a transformation before the optimizer"):
        mine(clip=optax.clip_by_global_norm(1.0))
    with pytest.raises(TypeError, match=r"clip must return the gradients.*has returned NoneType"):
        verify.compare(theirs(), mine(clip=lambda grads: None), batches())
    with pytest.raises(TypeError, match="got the class Linear; make one"):
        verify.nnx_side(nnx.Linear, tx=TX, loss=jax_loss)
    with pytest.raises(ValueError, match=r"no \"params\""):
        verify.linen_side(LinenNet(), {"batch_stats": {}}, tx=TX, loss=jax_loss)


def test_products_in_tf32_are_said(monkeypatch):
    assert not _environment.of_precision()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (said,) = _environment.of_precision()
    assert "TF32" in said
    with jax.default_matmul_precision("highest"):
        assert not _environment.of_precision()
