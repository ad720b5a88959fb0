"""State and steps of parameters that are split over eight devices, beside one device's."""

import functools
import itertools
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from jaxopt_port.optim import _muon

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.1, "amsgrad": True, "weight_decay": 0.01},
    "AdamW": {"lr": 0.1},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.9},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "Adadelta": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Rprop": {},
    "ASGD": {"t0": 2},
    "Adafactor": {"lr": 0.1, "weight_decay": 0.1},
    "Muon": {"lr": 0.1},
    "SparseAdam": {"lr": 0.1},
    "contrib.AdamW8bit": {"lr": 0.1},
    "contrib.Muon": {"lr": 0.1},
}
# A sum over elements is made in another order: the distance over the largest element.
SUMS = {"Adafactor": {np.float32: 1e-6, np.float64: 1e-12}}
# Of contrib, those that estimate a rate for all parameters together.
ESTIMATES = {"contrib.DAdaptAdam": {"d0": 1e-3}, "contrib.Prodigy": {"d0": 1e-3}}
# All else is leafwise, but that each device calculates Muon's whole matrix, that any may have
# the rows that SparseAdam's gradient names, that devices share a block of AdamW8bit's, and that
# estimates add up over all parameters.
WITH_COLLECTIVES = {"Adafactor", "Muon", "SparseAdam", "contrib.AdamW8bit", "contrib.Muon"}
WITH_COLLECTIVES |= ESTIMATES.keys()

SHAPES = {"kernel": (16, 8), "wide": (64, 128), "bias": (8,), "odd": (3, 5), "scalar": ()}
STEPS = 20


def mesh(kind=AxisType.Auto, shape=(8,), names=("data",)):
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def fsdp(shapes, kind=AxisType.Auto):
    split = {k: P("data") if s and s[0] % 8 == 0 else P() for k, s in shapes.items()}
    return {k: NamedSharding(mesh(kind), spec) for k, spec in split.items()}, ()


def tensor_parallel(shapes, kind=AxisType.Auto):
    def spec(shape):
        return P(*(None,) * (len(shape) - 1), "model") if shape and shape[-1] % 2 == 0 else P()

    grid = mesh(kind, (4, 2), ("data", "model"))
    return {k: NamedSharding(grid, spec(s)) for k, s in shapes.items()}, ()


def both(shapes, kind=AxisType.Auto):
    def spec(shape):
        if not shape or shape[-1] % 2:
            return P()
        return P("data", "model") if len(shape) == 2 else P(("data", "model"))

    grid = mesh(kind, (4, 2), ("data", "model"))
    return {k: NamedSharding(grid, spec(s)) for k, s in shapes.items()}, ()


def zero1(shapes, kind=AxisType.Auto):
    return {k: NamedSharding(mesh(kind), P()) for k in shapes}, ("data",)


LAYOUTS = {"fsdp": fsdp, "tensor parallel": tensor_parallel, "both": both, "zero-1": zero1}


def shapes_for(name):
    if name.endswith("Muon"):
        return {k: s for k, s in SHAPES.items() if len(s) == 2}
    return {k: s for k, s in SHAPES.items() if s} if name == "SparseAdam" else SHAPES


@functools.cache
def drawn(name, dtype):
    """Parameters, and gradients for each step."""
    rng = np.random.default_rng(0)
    shapes = shapes_for(name)

    def grad(shape):
        if name != "SparseAdam":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, shape[0], 3), rng.standard_normal((3, *shape[1:])).astype(dtype)

    params = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    return params, [{k: grad(s) for k, s in shapes.items()} for _ in range(STEPS)]


def collectives(compiled):
    kinds = r" (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\("
    return [(m[1], line) for line in compiled.splitlines() if (m := re.search(kinds, line))]


def optimizer(name):
    return operator.attrgetter(name)(jp)(**(OPTIONS | ESTIMATES)[name])


@functools.cache
def on_one_device(name, dtype):
    params, grads = drawn(name, dtype)
    tx = optimizer(name)
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for grad in grads:
        params, state = jp.step(tx, grad, state, params)
    return params, state


def on_eight(name, dtype, layout, kind=AxisType.Auto):
    """Return parameters, state, the state's shardings, and the compiled step."""
    params, grads = drawn(name, dtype)
    tx = optimizer(name)
    shardings, over = LAYOUTS[layout](shapes_for(name), kind)
    params = jax.device_put(params, shardings)
    of_state = jp.state_shardings(tx, params, over=over)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    step = jax.jit(
        lambda params, state, grads: jp.step(tx, grads, state, params),
        donate_argnums=(0, 1),
        out_shardings=(shardings, of_state),
    )
    if name != "SparseAdam":
        grads = [jax.device_put(grad, shardings) for grad in grads]
    compiled = step.lower(params, state, grads[0]).compile()
    for grad in grads:
        params, state = compiled(params, state, grad)
    return params, state, of_state, compiled.as_text()


def check_same(one, eight, name, dtype):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if name in SUMS:
            finite = np.isfinite(a)  # what an option left out is not
            bound = SUMS[name][dtype] * np.max(np.abs(a), where=finite, initial=0)
            np.testing.assert_allclose(b, a, rtol=0, atol=bound)
        else:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def check(name, dtype, layout, kind=AxisType.Auto):
    params, state, of_state, compiled = on_eight(name, dtype, layout, kind)
    check_same(on_one_device(name, dtype), (params, state), name, dtype)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(of_state), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    found = collectives(compiled)
    if layout == "zero-1":
        assert "all-gather" in {kind for kind, _ in found}  # of the new parameters
    elif name not in WITH_COLLECTIVES:
        assert not found
    return params, state


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_common_optimizers_have_the_bits_of_one_device(name, layout):
    check(name, np.float32, layout)


# The layout "both" is what the tests of float64 and of explicit axes have.
OTHER_LAYOUTS = [layout for layout in LAYOUTS if layout != "both"]


@pytest.mark.share(12)
@pytest.mark.parametrize(
    ("name", "layout"),
    list(itertools.product([n for n in OPTIONS if n not in ("SGD", "AdamW")], OTHER_LAYOUTS)),
)
def test_every_optimizer_has_the_bits_of_one_device(name, layout):
    check(name, np.float32, layout)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_bits_in_float64(name, x64):
    for layout in LAYOUTS if name in SUMS else ("both",):
        check(name, np.float64, layout)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_bits_on_a_mesh_with_explicit_axes(name):
    for layout in ("both", "zero-1") if name in ("AdamW", *WITH_COLLECTIVES) else ("both",):
        check(name, np.float32, layout, AxisType.Explicit)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_of_the_rate_has_the_bits_of_one_device(name, kind):
    check(name, np.float32, "both", kind)


def test_muons_products_would_be_rounded_otherwise(monkeypatch):
    forms = _muon._on_all_devices(5)
    monkeypatch.setattr(forms, "several", None)
    monkeypatch.setitem(OPTIONS, "Muon", {"lr": 0.1, "eps": 1.01e-7})  # traced anew
    on_one_device.cache_clear()
    one, _ = on_one_device("Muon", np.float32)
    eight, *_ = on_eight("Muon", np.float32, "tensor parallel")
    on_one_device.cache_clear()
    assert np.abs(one["wide"] - eight["wide"]).max() > 1e-5 * np.abs(one["wide"]).max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_device_holds_its_part_of_the_state(name, layout):
    shapes = {k: s for k, s in shapes_for(name).items() if k not in ("odd", "scalar")}
    params = {k: jnp.ones(s) for k, s in shapes.items()}
    shardings, over = LAYOUTS[layout](shapes)
    params = jax.device_put(params, shardings)
    # A sum over the axis that is split leaves nothing to split, and a scale is of numbers in a run.
    of_its_own = name in ("Adafactor", "contrib.AdamW8bit")
    if of_its_own:
        over = ("data",) if layout in ("fsdp", "zero-1") else ("data", "model")
    tx = optimizer(name)
    of_state = jp.state_shardings(tx, params, over=over)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    held = dict.fromkeys(jax.devices(), 0)
    arrays = [x for x in jax.tree.leaves(state) if x.size > 8]  # numbers are on all devices
    for leaf in arrays:
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    parts = 2 if layout == "tensor parallel" and not of_its_own else 8
    whole = sum(leaf.nbytes for leaf in arrays)
    assert whole or name == "Adafactor"
    for of_device in held.values():
        assert of_device == pytest.approx(whole / parts, rel=0.05)


def test_a_state_as_large_as_no_memory_has_shardings():
    shapes = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}
    sharding = NamedSharding(mesh(), P("data"))
    tx = jp.Adam(lr=0.1)
    made = jp.state_shardings(tx, sharding, shapes)
    state = jax.eval_shape(tx.init, shapes)
    assert jax.tree.structure(made) == jax.tree.structure(state)
    found = {leaf.shape: s.spec for s, leaf in zip(*map(jax.tree.leaves, (made, state)))}  # noqa: B905
    assert found[1 << 20, 1 << 20] == P("data", None)


def specs(tx, params, **options):
    """By shape, how the state is split; parameters are as ``params`` says."""
    grid = mesh(shape=(4, 2), names=("data", "model"))
    shapes = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, (s, _) in params.items()}
    shardings = {k: NamedSharding(grid, spec) for k, (_, spec) in params.items()}
    made = jp.state_shardings(tx, shardings, shapes, **options)
    state = jax.eval_shape(tx.init, shapes)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(made), strict=True)
    return {leaf.shape: tuple(sharding.spec) for leaf, sharding in pairs if leaf.ndim}


KERNEL = {"kernel": ((16, 8), P("data", "model"))}


@pytest.mark.parametrize(
    ("tx", "params", "options", "expected"),
    [
        (optax.adamw(1e-3), KERNEL, {}, {(16, 8): ("data", "model")}),
        (
            optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.ema(0.9)),
            KERNEL,
            {},
            {(16, 8): ("data", "model")},
        ),
        (optax.MultiSteps(jp.AdamW(), 2), KERNEL, {}, {(16, 8): ("data", "model")}),
        (
            optax.adafactor(1e-3, min_dim_size_to_factor=4),
            {"kernel": ((16, 8), P("data", "model"))},
            {},
            {(16,): ("data",), (8,): ("model",), (1,): (None,)},
        ),
        (
            jp.Adafactor(),
            {"kernel": ((16, 8), P("data", "model"))},
            {},
            {(16, 1): ("data", None), (1, 8): (None, "model")},
        ),
        # A vector over groups is no parameter, whatever that is called.
        (
            jp.Adam([{"params": f"{name}"} for name in ("step", "lr", "a", "b")]),
            {name: ((12,), P("data")) for name in ("step", "lr", "a", "b")},
            {},
            {(12,): ("data",)},
        ),
        (jp.Adam(), {"w": ((16, 8), P())}, {"over": "data"}, {(16, 8): ("data", None)}),
        (jp.Adam(), {"w": ((8, 16), P())}, {"over": "data"}, {(8, 16): (None, "data")}),
        (
            jp.Adam(),
            {"w": ((16, 6), P(None, "model"))},
            {"over": "data"},
            {(16, 6): ("data", "model")},
        ),
        (jp.Adam(), {"w": ((16, 6), P("data"))}, {"over": "data"}, {(16, 6): ("data", None)}),
        (
            jp.Adam(),
            {"w": ((64, 6), P())},
            {"over": ("data", "model")},
            {(64, 6): (("data", "model"), None)},
        ),
        (jp.Adam(), {"w": ((3, 5), P())}, {"over": "data"}, {(3, 5): (None, None)}),
        (
            jp.LBFGS(history_size=3),
            {"w": ((16,), P("data")), "v": ((8,), P("model"))},
            {},
            {(24,): (("model", "data"),), (3, 24): (None, ("model", "data")), (3,): (None,)},
        ),
        (
            jp.LBFGS(history_size=3),
            {"w": ((16,), P("data")), "v": ((6,), P("model"))},
            {},
            {(22,): ("model",), (3, 22): (None, "model"), (3,): (None,)},
        ),
    ],
    ids=[
        "optax adamw",
        "optax chain",
        "optax MultiSteps",
        "optax adafactor",
        "Adafactor",
        "names of numbers",
        "ZeRO-1",
        "the longest axis",
        "beside another axis",
        "an axis in use",
        "over two axes",
        "nothing divides",
        "LBFGS",
        "LBFGS, one axis divides",
    ],
)
def test_state_is_split_as_its_parameters(tx, params, options, expected):
    found = specs(tx, params, **options)
    shared = {shape: spec for shape, spec in found.items() if shape not in expected}
    assert {shape: spec for shape, spec in found.items() if shape in expected} == expected
    assert not any(any(spec) for spec in shared.values())


def test_one_parameter_and_nothing_around_it():
    tx, sharding = jp.adam(1e-3), NamedSharding(mesh(), P("data"))
    made = jp.state_shardings(tx, jax.device_put(jnp.ones(8), sharding))
    assert {s.spec for s in jax.tree.leaves(made)} == {P("data"), P()}


def test_a_model_of_flax():
    model = nnx.Linear(16, 8, rngs=nnx.Rngs(0))
    grid = mesh()
    _, params = nnx.split(model, nnx.Param)
    params = jax.device_put(params, NamedSharding(grid, P("data")))
    tx = jp.AdamW(lr=1e-3)
    state = jax.jit(tx.init, out_shardings=jp.state_shardings(tx, params))(params)
    split = [x for x in jax.tree.leaves(state) if x.shape in ((16, 8), (8,))]
    assert len(split) == 4
    assert all(not x.sharding.is_fully_replicated for x in split)
    nnx.update(model, params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)  # made where the parameters are
    made = [x for x in jax.tree.leaves(nnx.state(optimizer)) if x.shape == (16, 8)]
    assert all(not x.sharding.is_fully_replicated for x in made)


def test_a_program_for_one_device_needs_no_mesh():
    params = {"w": jnp.ones(3)}
    made = jp.state_shardings(jp.Adam(), params)
    assert set(jax.tree.leaves(made)) == {params["w"].sharding}


ON_MESH = NamedSharding(jax.sharding.AbstractMesh((8,), ("data",)), P("data"))
SHAPE = jax.ShapeDtypeStruct((16,), jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        (({"a": ON_MESH},), {}, TypeError, '"a" is a sharding without a shape; give the param'),
        (({"a": SHAPE},), {}, TypeError, '"a" has .*nothing.* for its sharding; a .*NamedSharding'),
        (
            ({"a": P("data")}, {"a": SHAPE}),
            {},
            TypeError,
            r"\"a\" has (P|PartitionSpec)\('data',\) for .*NamedSharding",
        ),
        (({},), {}, ValueError, "there are no parameters"),
        (
            ({"a": ON_MESH}, {"a": jax.ShapeDtypeStruct((15,), jnp.float32)}),
            {},
            ValueError,
            'sharding of "a" does not fit its shape: .*15',
        ),
        (
            ({"a": ON_MESH}, {"a": SHAPE}),
            {"over": "model"},
            ValueError,
            "over='model': the mesh has no such axis; it has 'data'",
        ),
        (
            (
                {"a": ON_MESH, "b": NamedSharding(jax.sharding.AbstractMesh((2,), ("x",)), P())},
                {"a": SHAPE, "b": SHAPE},
            ),
            {},
            ValueError,
            '"a" and "b" lie on different meshes',
        ),
    ],
)
def test_what_cannot_be_placed_is_said(arguments, options, error, said):
    with pytest.raises(error, match=said):
        jp.state_shardings(jp.SGD(lr=0.1, momentum=0.9), *arguments, **options)


def test_a_parameter_beside_the_mesh_is_named():
    params = {"a": jax.device_put(jnp.ones(8), NamedSharding(mesh(), P())), "b": jnp.ones(8)}
    with pytest.raises(TypeError, match='"b" lies on one device and no mesh'):
        jp.state_shardings(jp.SGD(lr=0.1), params)


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


# L-BFGS evaluates an objective of its own.
class Regression:
    """An objective for L-BFGS, and where 20 steps of it end."""

    def __init__(self, line_search_fn, dtype):
        rng = np.random.default_rng(2)
        params = {"w": rng.standard_normal((16, 8)), "b": np.zeros(8)}
        x, y = (rng.standard_normal((32, n)) for n in (16, 8))
        self.params, x, y = jax.tree.map(lambda a: a.astype(dtype), (params, x, y))

        def loss(params):
            error = jnp.mean((x @ params["w"] + params["b"] - y) ** 2)
            return error + jnp.mean(params["w"] ** 4)

        lr = 0.1 if line_search_fn is None else 1.0
        self.tx = jp.LBFGS(lr=lr, max_iter=2, line_search_fn=line_search_fn)
        self.step = jax.jit(lambda params, state: jp.step(self.tx, loss, state, params))

    def end(self, place, params=None):
        placed = jax.device_put(self.params if params is None else params, place)
        of_state = jp.state_shardings(self.tx, placed)
        state = jax.jit(self.tx.init, out_shardings=of_state)(placed)
        for _ in range(STEPS):
            placed, state = self.step(placed, state)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(placed)])

    def one_unit_away(self, seed):
        rng = np.random.default_rng(seed)
        return {
            k: np.nextafter(v, rng.choice(np.array([-9, 9], v.dtype), v.shape))
            for k, v in self.params.items()
        }


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_on_split_parameters(line_search_fn):
    one = jax.devices()[0]
    split, _ = fsdp({"w": (16, 8), "b": (8,)})
    with jax.enable_x64(True):
        wide = Regression(line_search_fn, np.float64)
        exact, eight = wide.end(one), wide.end(split)
    assert np.abs(eight - exact).max() < 1e-12 * np.abs(exact).max()
    # Its iterations amplify any rounding, and a line search may take another turn. Sums in another
    # order are no worse than starts that are a unit in the last place away.
    narrow = Regression(line_search_fn, np.float32)
    others = [narrow.end(one, narrow.one_unit_away(seed)) for seed in range(8)]
    spread = max(np.abs(end - exact).max() for end in others)
    assert np.abs(narrow.end(split) - exact).max() < 3 * spread < 1e-2
