"""What sees one device's part: clipping, a scaler, a metric, rules that need the whole."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.engine import Rule
from parity_tests.sharding.layouts import (
    LAYOUTS,
    SHAPES,
    collectives,
    mesh,
    optimizer,
)

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

# Clipping.
NORMS = [2.0, 1.0, 3.0, 0.0, float("inf"), float("-inf")]


def gradients():
    rng = np.random.default_rng(1)
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}


def clipped(grads, norm_type=2.0, axis_name=None):
    return jp.clip_grad_norm(grads, 0.5, norm_type, axis_name=axis_name)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", ["fsdp", "tensor parallel"])
def test_clipping_takes_one_small_all_reduce(layout, kind):
    shardings, _ = LAYOUTS[layout](SHAPES, kind)
    grads = jax.device_put(gradients(), shardings)
    compiled = jax.jit(clipped).lower(grads).compile()
    ((kind, line),) = collectives(compiled.as_text())
    assert kind == "all-reduce"
    assert set(re.findall(r"f32\[(\d*)\]", line.split("all-reduce(")[0])) == {""}  # scalars alone
    for a, b in zip(*map(jax.tree.leaves, (clipped(gradients()), compiled(grads))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def within(fun, spec, out_spec, check_vma=True, **options):
    """A function that sees the part of one device."""
    return jax.jit(
        jax.shard_map(
            functools.partial(fun, **options),
            mesh=mesh(),
            in_specs=(spec,),
            out_specs=out_spec,
            check_vma=check_vma,
        )
    )


SPECS = {k: P("data") if s and s[0] % 8 == 0 else P() for k, s in SHAPES.items()}


@pytest.mark.parametrize(
    "norm_type", [pytest.param(n, marks=pytest.mark.always) if n == 2 else n for n in NORMS]
)
def test_clipping_within_shard_map(norm_type):
    own = functools.partial(clipped, norm_type=norm_type)
    made = within(own, (SPECS), (SPECS, P()), axis_name="data")(gradients())
    for a, b in zip(*map(jax.tree.leaves, (own(gradients()), made)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_without_an_account_all_count_as_split():
    split = {k: v for k, v in gradients().items() if SPECS[k] == P("data")}
    spec = {k: P("data") for k in split}
    made = within(clipped, spec, (spec, P()), check_vma=False, axis_name="data")(split)
    for a, b in zip(*map(jax.tree.leaves, (clipped(split), made)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_norm_of_a_part_is_asked_for():
    with pytest.raises(ValueError, match=r"differ along the mesh axis 'data'.* give the mesh axes"):
        within(clipped, SPECS, (SPECS, P()))(gradients())
    with pytest.raises(ValueError, match=r"axis_name='data': there is no such axis here.*leave it"):
        jp.clip_grad_norm(gradients(), 1.0, axis_name="data")
    norms = within(lambda g: clipped(g, axis_name=())[1][None], SPECS, P("data"))(gradients())
    assert len(set(np.asarray(norms).tolist())) == 8


def test_all_devices_skip_a_step_or_none():
    scaler = jp.GradScaler()
    grads = {"w": np.arange(8, dtype=np.float32), "b": np.float32(1)}
    spec = {"w": P("data"), "b": P()}

    def found(grads, axis_name):
        return scaler.unscale(grads, scaler.init(), axis_name=axis_name)[1]

    check_finite = within(found, spec, P(), axis_name="data")
    assert not check_finite(grads)
    grads["w"][3] = np.inf
    assert check_finite(grads)
    with pytest.raises(ValueError, match="a check of one device's part is not that of the whole"):
        within(found, spec, P("data"), axis_name=None)(grads)


@pytest.mark.parametrize("name", ["Adafactor", "contrib.AdamW8bit", "Muon", "SparseAdam"])
def test_what_needs_the_whole_array_says_so(name):
    tx = optimizer(name)

    def step(param):
        grad = (jnp.zeros(1, jnp.int32), param[:1]) if name == "SparseAdam" else param
        return jp.step(tx, grad, tx.init(param), param)[0]

    within(step, P(), P())(np.ones((8, 8), np.float32))  # the same on all devices
    with pytest.raises(ValueError, match=r"needs the whole of a parameter.*'data'.* under jax.jit"):
        within(step, P("data"), P("data"))(np.ones((8, 8), np.float32))


def by_its_norm(grad, param, state, *, lr):
    return param - (lr * grad / jnp.linalg.norm(grad)).astype(param.dtype), state


def by_its_size(grad, param, state, *, lr):
    return param - (lr * jnp.where(grad > 0, jnp.tanh(grad), -1)).astype(param.dtype), state


def rate(lr=1e-4):
    yield from ()


def rule_of_ones_own(update):
    return jp.transformation(Rule(rate, lambda param, **_: {}, update, title="one's own"))()


@pytest.mark.parametrize(
    ("tx", "whole"),
    [
        (contrib.NAdamW(), False),
        (contrib.NAdamW(clipping_threshold=0.5), True),
        (contrib.SGDW(momentum=0.9, caution=True), True),
        (rule_of_ones_own(by_its_size), False),
        (rule_of_ones_own(by_its_norm), True),
    ],
    ids=lambda x: x if isinstance(x, bool) else "",
)
def test_a_rule_whose_elements_meet_is_found_out(tx, whole):
    """Options may ask for a norm of the array, and a rule of one's own does not say so."""
    param = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)

    def step(param):
        return jp.step(tx, param, tx.init(param), param)[0]

    if whole:
        with pytest.raises(ValueError, match=r"needs the whole of a parameter.*under jax.jit"):
            within(step, P("data"), P("data"))(param)
    else:
        np.testing.assert_array_equal(within(step, P("data"), P("data"))(param), step(param))


def begun_by_its_norm(param, **_):
    return {"start": jnp.linalg.norm(param) + jnp.zeros_like(param)}


def by_its_start(grad, param, state, *, lr):
    return param - (lr * grad * state["start"]).astype(param.dtype), state


def squares(grad, param, state, shared, **_):
    return {"squares": jnp.sum(jnp.square(grad.astype(jnp.float64)))}


def by_all_norms(shared, *, lr, squares=1.0, **_):
    return shared, {"lr": lr / jnp.sqrt(squares)}


@pytest.mark.parametrize(
    "rule",
    [
        Rule(rate, begun_by_its_norm, by_its_start, title="one's own"),
        Rule(rate, lambda param, **_: {}, by_its_size, advance=by_all_norms, gathers=squares),
    ],
    ids=["begun by a norm", "gathers"],
)
def test_a_rule_that_begins_or_gathers_with_the_whole_is_found_out(rule):
    tx = jp.transformation(rule)()

    def step(param):
        return jp.step(tx, param, tx.init(param), param)[0]

    with pytest.raises(ValueError, match=r"needs the whole of a parameter.*under jax.jit"):
        within(step, P("data"), P("data"))(np.ones((8, 8), np.float32))


def test_lbfgs_needs_the_whole():
    tx = jp.LBFGS()

    def step(param):
        return jp.step(tx, lambda p: (p**2).sum(), tx.init(param), param)[0]

    with pytest.raises(ValueError, match="needs the whole of every parameter"):
        within(step, P("data"), P("data"))(np.ones(8, np.float32))


def test_a_metric_is_the_same_on_all_devices():
    tx, scheduler = jp.SGD(lr=0.1), jp.lr_scheduler.ReduceLROnPlateau(patience=0)
    state, sched_state = scheduler.init(tx.init({"w": jnp.ones(1)}))

    def rate(losses, mean):
        loss = jax.lax.pmean(losses.sum(), "data") if mean else losses.sum()
        _, after = scheduler.step(state, sched_state, loss)
        return after.own["best"] if hasattr(after, "own") else jax.tree.leaves(after)[0]

    losses = np.arange(8, dtype=np.float32)
    within(rate, P("data"), P(), mean=True)(losses)
    with pytest.raises(ValueError, match=r"give their mean, jax.lax.pmean\(metrics, \('data',\)\)"):
        within(rate, P("data"), P("data"), mean=False)(losses)
