"""Steps of parameters that are split over eight devices, beside one device's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from jaxopt_port.optim import _muon
from parity_tests.sharding.layouts import (
    ESTIMATES,
    LAYOUTS,
    OPTIONS,
    STEPS,
    SUMS,
    WITH_COLLECTIVES,
    check_same,
    collectives,
    fsdp,
    on_eight,
    on_one_device,
)

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")


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


def two_devices():
    return [jax.sharding.SingleDeviceSharding(device) for device in jax.devices()[2:4]]


def two_meshes(kind):
    def half(devices):
        return jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=devices)

    devices = jax.devices()
    return [NamedSharding(half(own), P("data")) for own in (devices[:4], devices[4:])]


@pytest.mark.parametrize(
    "places",
    [
        two_devices,
        lambda: two_meshes(AxisType.Auto),
        lambda: two_meshes(AxisType.Explicit),
        lambda: [*two_meshes(AxisType.Auto)[:1], *two_devices()[1:]],
    ],
    ids=["devices", "meshes", "explicit meshes", "a mesh and a device"],
)
def test_gradients_on_different_devices_are_clipped_and_unscaled_together(places):
    rng = np.random.default_rng(3)
    grads = {k: rng.standard_normal((8, 2)).astype(np.float32) for k in "ab"}
    apart = dict(zip(grads, map(jax.device_put, grads.values(), places()), strict=True))
    scaler = jp.GradScaler()
    for one_call in (
        lambda grads: jp.clip_grad_norm(grads, 1.0),
        lambda grads: jp.clip_grad_norm(grads, 1.0, norm_type=np.inf),
        lambda grads: scaler.unscale(grads, scaler.init()),
    ):
        together, found = one_call(grads), one_call(apart)
        for a, b in zip(*map(jax.tree.leaves, (together, found)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        for k, leaf in apart.items():
            assert found[0][k].sharding.is_equivalent_to(leaf.sharding, 2)


def test_muons_products_would_be_rounded_otherwise(monkeypatch):
    forms = _muon._on_all_devices(5)
    monkeypatch.setattr(forms, "several", None)
    monkeypatch.setitem(OPTIONS, "Muon", {"lr": 0.1, "eps": 1.01e-7})  # traced anew
    on_one_device.cache_clear()
    one, _ = on_one_device("Muon", np.float32)
    eight, *_ = on_eight("Muon", np.float32, "tensor parallel")
    on_one_device.cache_clear()
    assert np.abs(one["wide"] - eight["wide"]).max() > 1e-5 * np.abs(one["wide"]).max()


# L-BFGS evaluates an objective of its own.
class Regression:
    """An objective for L-BFGS, and where 20 steps of it end."""

    def __init__(self, line_search_fn, dtype, whole=lambda x: x):
        rng = np.random.default_rng(2)
        params = {"w": rng.standard_normal((16, 8)), "b": np.zeros(8)}
        x, y = (rng.standard_normal((32, n)) for n in (16, 8))
        self.params, x, y = jax.tree.map(lambda a: a.astype(dtype), (params, x, y))

        def loss(params):
            error = jnp.mean((x @ whole(params["w"]) + whole(params["b"]) - y) ** 2)
            return error + jnp.mean(params["w"] ** 4)

        self.loss = loss
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
def test_lbfgs_on_a_mesh_with_explicit_axes(line_search_fn, x64):
    split, _ = fsdp({"w": (16, 8), "b": (8,)}, AxisType.Explicit)
    everywhere = NamedSharding(split["b"].mesh, P())
    beside = {**split, "b": everywhere}
    exact = Regression(line_search_fn, np.float64).end(jax.devices()[0])
    explicit = Regression(line_search_fn, np.float64, lambda x: jax.sharding.reshard(x, everywhere))
    for place in (split, beside):
        assert np.abs(explicit.end(place) - exact).max() < 1e-12 * np.abs(exact).max()
    # A state that was read is on no mesh, and a step need not be within jit.
    placed = jax.device_put(explicit.params, beside)
    made = explicit.tx.init(placed)
    read = jax.tree.map(np.asarray, made)
    new, _ = jp.step(explicit.tx, explicit.loss, read, placed)
    np.testing.assert_allclose(new["w"], explicit.step(placed, made)[0]["w"], rtol=1e-12)


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
