"""Where the state of parameters that are split lies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from jaxopt_port import interop  # which also tells Flax how states are written
from parity_tests.sharding.layouts import LAYOUTS, OPTIONS, mesh, optimizer, shapes_for

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")


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
# An optimizer, its parameters with their places, options; what of its state is split.
SPLIT = {
    "optax adamw": (optax.adamw(1e-3), KERNEL, {}, {(16, 8): ("data", "model")}),
    "optax chain": (
        optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.ema(0.9)),
        KERNEL, {}, {(16, 8): ("data", "model")},
    ),
    "optax MultiSteps": (optax.MultiSteps(jp.AdamW(), 2), KERNEL, {}, {(16, 8): ("data", "model")}),
    "optax adafactor": (
        optax.adafactor(1e-3, min_dim_size_to_factor=4), KERNEL, {},
        {(16,): ("data",), (8,): ("model",), (1,): (None,)},
    ),
    "Adafactor": (jp.Adafactor(), KERNEL, {}, {(16, 1): ("data", None), (1, 8): (None, "model")}),
    # A vector over groups is no parameter, whatever that is called.
    "names of numbers": (
        jp.Adam([{"params": f"{name}"} for name in ("step", "lr", "a", "b")]),
        {name: ((12,), P("data")) for name in ("step", "lr", "a", "b")}, {}, {(12,): ("data",)},
    ),
    "ZeRO-1": (jp.Adam(), {"w": ((16, 8), P())}, {"over": "data"}, {(16, 8): ("data", None)}),
    "the longest axis": (
        jp.Adam(), {"w": ((8, 16), P())}, {"over": "data"}, {(8, 16): (None, "data")},
    ),
    "beside another axis": (
        jp.Adam(), {"w": ((16, 6), P(None, "model"))}, {"over": "data"},
        {(16, 6): ("data", "model")},
    ),
    "an axis in use": (
        jp.Adam(), {"w": ((16, 6), P("data"))}, {"over": "data"}, {(16, 6): ("data", None)},
    ),
    "over two axes": (
        jp.Adam(), {"w": ((64, 6), P())}, {"over": ("data", "model")},
        {(64, 6): (("data", "model"), None)},
    ),
    "nothing divides": (jp.Adam(), {"w": ((3, 5), P())}, {"over": "data"}, {(3, 5): (None, None)}),
    "LBFGS": (
        jp.LBFGS(history_size=3), {"w": ((16,), P("data")), "v": ((8,), P("model"))}, {},
        {(24,): (("model", "data"),), (3, 24): (None, ("model", "data")), (3,): (None,)},
    ),
    "LBFGS, one axis divides": (
        jp.LBFGS(history_size=3), {"w": ((16,), P("data")), "v": ((6,), P("model"))}, {},
        {(22,): ("model",), (3, 22): (None, "model"), (3,): (None,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tx", "params", "options", "expected"), SPLIT.values(), ids=SPLIT)
def test_state_is_split_as_its_parameters(tx, params, options, expected):
    found = specs(tx, params, **options)
    shared = {shape: spec for shape, spec in found.items() if shape not in expected}
    assert {shape: spec for shape, spec in found.items() if shape in expected} == expected
    assert not any(any(spec) for spec in shared.values())


@pytest.mark.parametrize("shape", [(8, 16), (8, 8)], ids=["", "square"])
@pytest.mark.parametrize(
    ("around", "held"),
    [
        (lambda tx: tx, lambda state: [state]),
        (lambda tx: optax.chain(jp.clip_by_grad_norm(1.0), tx), lambda state: [state[1]]),
        (lambda tx: jp.accumulate_grads(tx, 2), lambda state: [state.inner_state, state.grads]),
    ],
    ids=["alone", "in a chain", "accumulated"],
)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (jp.Muon, {"momentum_buffer": P(None, "data")}),
        (jp.Adafactor, {"row_var": P(None, None), "col_var": P(None, "data")}),
    ],
    ids=["Muon", "Adafactor"],
)
def test_a_state_in_torchs_layout_is_split_along_the_same_axis(kind, expected, around, held, shape):
    sharding = NamedSharding(mesh(), P("data"))
    params = {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)}
    tx = around(interop.in_torch_layout(kind(), params))
    state, *as_they_are = held(jp.state_shardings(tx, params))
    assert {name: state.leaves[name]["kernel"].spec for name in expected} == expected
    assert all(tree["kernel"].spec == P("data", None) for tree in as_they_are)


@pytest.mark.parametrize(("tx", "name"), [(jp.AdamW(), "exp_avg"), (optax.adam(1e-3), "mu")])
def test_a_layer_that_is_called_as_a_part_of_the_state(tx, name):
    grid = mesh(shape=(4, 2), names=("data", "model"))
    specs = {"w": P("data", None), name: {"w": P(None, "model")}}
    shapes = {"w": jax.ShapeDtypeStruct((16, 8), jnp.float32)}
    shapes[name] = shapes.copy()
    shardings = jax.tree.map(lambda spec: NamedSharding(grid, spec), specs)
    made = jp.state_shardings(tx, shardings, shapes)
    made = getattr(made[0], name) if isinstance(made, tuple) else made.leaves[name]
    assert jax.tree.map(lambda x: x.spec, made) == specs


@pytest.mark.parametrize(
    "tx", [jp.Adafactor(), jp.contrib.CAME(), jp.AdamW()], ids=lambda tx: type(tx).__name__
)
def test_a_state_that_is_made_where_the_parameters_are(tx):
    """On explicit axes, whose parameters have a mesh: what is made anew must have it, too."""
    params = {"w": jnp.linspace(0.5, 1.0, 32).reshape(8, 4)}
    alone, _ = jp.step(tx, params, tx.init(params), params)
    placed = jax.device_put(params, NamedSharding(mesh(AxisType.Explicit), P("data")))
    split, _ = jp.step(tx, placed, tx.init(placed), placed)
    np.testing.assert_allclose(split["w"], alone["w"], rtol=1e-6)


def in_torchs_layout(tx, state, params):
    return jp.load_state_dict(tx, jp.state_dict(tx, state, params), params)


def in_bytes(tx, state, params):
    return serialization.from_bytes(tx.init(params), serialization.to_bytes(state))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("way", "tx"),
    [
        (in_torchs_layout, jp.AdamW(lr=0.1)),
        (in_torchs_layout, jp.param_groups(optax.adam, learning_rate=0.1)),
        (in_bytes, jp.AdamW(lr=0.1)),
        (in_bytes, jp.Adafactor()),
    ],
    ids=["state dict", "state dict of Optax's", "bytes", "bytes of Adafactor's"],
)
def test_what_is_loaded_goes_on_to_the_bit(kind, way, tx):
    w = np.linspace(0.5, 1.0, 32, dtype=np.float32).reshape(8, 4)
    params = {"w": jax.device_put(w, NamedSharding(mesh(kind), P("data")))}
    params, state = jp.step(tx, params, tx.init(params), params)
    loaded = way(tx, state, params)
    if way is in_torchs_layout:  # what is in bytes is NumPy's
        places = [leaf.sharding for leaf in jax.tree.leaves(loaded) if leaf.shape == w.shape]
        assert places
        assert all(place.is_equivalent_to(params["w"].sharding, 2) for place in places)
    steps = [jp.step(tx, params, one, params) for one in (state, loaded)]
    for a, b in zip(*map(jax.tree.leaves, steps), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def frozen_in_mid_run(tx, params):
    return jp.set_hyperparams(split_state(tx, params), frozen=True, group=0)


def without_a_gradient(tx, params):
    some = {**params, "b": None}
    return jax.jit(lambda state: jp.step(tx, some, state, params)[1])(split_state(tx, params))


def split_state(tx, params):
    return jax.jit(tx.init, out_shardings=jp.state_shardings(tx, params))(params)


@pytest.mark.parametrize("change", [frozen_in_mid_run, without_a_gradient])
def test_a_step_with_the_shardings_of_a_state_in_which_something_rests(change):
    place = NamedSharding(mesh(), P("data"))
    params = {"a": jnp.ones((8, 4)), "b": jnp.ones(8), "c": jnp.ones(16)}
    params = jax.device_put(params, place)
    tx = jp.AdamW([{"params": "a"}, {"params": jp.REST}])
    state = change(tx, params)
    shardings = jax.tree.map(lambda x: x.sharding, state)  # as docs/scale.md says
    step = jax.jit(
        lambda params, state, grads: jp.step(tx, grads, state, params),
        out_shardings=(place, shardings),
    )
    _, after = step(params, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {x.sharding.spec[0] for x in jax.tree.leaves(after.leaves)} == {"data"}


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
        (({"a": SHAPE},), {}, TypeError, '"a" has no sharding; a .*NamedSharding'),
        (({"a": np.ones(8)},), {}, TypeError, r'"a" has no sharding; a .*device_put\(params'),
        (({"a": SHAPE}, {"a": ON_MESH}), {}, TypeError, '"a" is NamedSharding.*no shape.* last'),
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


@pytest.mark.parametrize("tx", [{"a": SHAPE}, jp.SGD], ids=["parameters", "a class"])
def test_the_optimizer_comes_first(tx):
    with pytest.raises(TypeError, match="tx must be an Optax transformation"):
        jp.state_shardings(tx, jp.SGD(lr=0.1))


def test_a_parameter_beside_the_mesh_is_named():
    params = {"a": jax.device_put(jnp.ones(8), NamedSharding(mesh(), P())), "b": jnp.ones(8)}
    with pytest.raises(TypeError, match='"b" lies on one device and no mesh'):
        jp.state_shardings(jp.SGD(lr=0.1), params)
