"""Orbax and flax.serialization keep this library's states to the bit, and say what does not fit."""

import functools
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.bits import assert_same_tree
from parity_tests.oracles.configurations import CASES, MUON

PARAMS = {
    "dense": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3)},
    "half": jnp.linspace(-2, 2, 4, dtype=jnp.bfloat16),
    "scalar": np.float32(0.3),
    "empty": np.zeros((0, 2), np.float32),
}
GROUPS = [
    {"params": "dense/bias", "lr": 1 / 3},
    {"params": "half", "frozen": True},
    {"params": jp.REST},
]
MATRIX = {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}


def drawn(tree):
    """Arrays that JAX holds, of a tree's shapes and dtypes, float64 among them."""
    rng = np.random.default_rng(0)

    def leaf(x):
        x = x if hasattr(x, "dtype") else np.asarray(x)
        values = rng.standard_normal(x.shape) * 3
        return jnp.asarray(np.abs(values) if x.dtype.kind == "i" else values).astype(x.dtype)

    with jax.enable_x64(True):
        return jax.tree.map(leaf, tree)


NAMES = [*dict.fromkeys(case.optimizer.name for case in CASES), MUON.name, "LBFGS", "SparseAdam"]


def optimizers():
    """An optimizer of each class, and the parameters that it takes."""
    for name in NAMES:
        if name in (MUON.name, "LBFGS", "SparseAdam"):
            yield name, getattr(jp, name)(), MATRIX
        else:
            left_out = "empty" if name == "Adafactor" else ""
            yield name, getattr(jp, name)(GROUPS), {k: PARAMS[k] for k in PARAMS if k != left_out}


@pytest.fixture(scope="module")
def states():
    with jax.enable_x64(True):
        return {name: jax.eval_shape(tx.init, params) for name, tx, params in optimizers()}


def test_every_optimizers_state_comes_back_to_the_bit(tmp_path, states):
    params, state = drawn(PARAMS), drawn(states)
    assert {"float64", "bfloat16"} <= {leaf.dtype.name for leaf in jax.tree.leaves(params)}
    interop.save_orbax(tmp_path / "run", params=params, state=state, extra={"epoch": 3})
    found = interop.restore_orbax(tmp_path / "run", params=params, state=states)
    assert_same_tree((found.params, found.state), (params, state))
    assert (found.extra, found.scheduler_state) == ({"epoch": 3}, None)

    written = serialization.to_bytes({"params": params, "state": state})
    target = {"params": params, "state": drawn(states)}
    assert_same_tree(serialization.from_bytes(target, written), {"params": params, "state": state})


def test_orbax_alone_is_as_exact(tmp_path, states):
    kept = {name: states[name] for name in ("Adam", "LBFGS", "Muon")}
    saved = {
        "params": drawn({k: v for k, v in PARAMS.items() if k != "empty"}),
        "opt": drawn(jax.tree.map(lambda x: x if x.size else x.update(shape=(1,)), kept)),
    }
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", saved)
        checkpointer.wait_until_finished()
        with jax.enable_x64(True):
            assert_same_tree(checkpointer.restore(tmp_path / "run", saved), saved)


def test_a_run_with_a_scheduler(tmp_path):
    params = {"w": jnp.ones(2)}
    tx, scheduler = jp.SGD(lr=1 / 3), jp.lr_scheduler.CosineAnnealingLR(7)
    state, sched_state = scheduler.init(tx.init(params))
    fresh = (state, sched_state)
    for _ in range(3):
        _, state = tx.update(params, state, params)
        state, sched_state = scheduler.step(state, sched_state)
    interop.save_orbax(tmp_path / "a", params=params, state=state, scheduler_state=sched_state)
    found = interop.restore_orbax(
        tmp_path / "a", params=params, state=fresh[0], scheduler_state=fresh[1]
    )
    assert_same_tree((found.state, found.scheduler_state), (state, sched_state))
    assert_same_tree(
        serialization.from_bytes(fresh, serialization.to_bytes((state, sched_state))),
        (state, sched_state),
    )
    other = jp.lr_scheduler.ExponentialLR(0.9).init(fresh[0])[1]
    with pytest.raises(ValueError, match="CosineAnnealingLR was saved; here is ExponentialLR"):
        interop.restore_orbax(tmp_path / "a", params=params, scheduler_state=other)
    with pytest.raises(ValueError, match="CosineAnnealingLR was saved; here is ExponentialLR"):
        serialization.from_bytes(other, serialization.to_bytes(sched_state))


SMALL = {"stem": jnp.ones(2), "head": jnp.ones(3)}


def adam(groups=({"params": "head", "lr": 1 / 3},), **more):
    return jp.Adam([*groups, {"params": jp.REST}], **more)


UNFIT = {
    "fewer groups": (lambda: jp.Adam(), r"2 groups were saved .*; here are 1"),
    "another optimizer": (
        lambda: jp.SGD([{"params": "head"}, {"params": jp.REST}]),
        "optimizer was adam",
    ),
    "another flag": (lambda: adam(amsgrad=True), "static was"),
    "other members": (lambda: adam([{"params": "stem"}]), '"head" and 1 more is in it only there'),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved run of two groups, and its state."""
    state = drawn(jax.eval_shape(adam().init, SMALL))
    folder = tmp_path_factory.mktemp("orbax") / "run"
    interop.save_orbax(folder, params=SMALL, state=state)
    return folder, state


@pytest.mark.parametrize("name", UNFIT)
def test_other_groups_are_refused_with_the_way_out(run, name):
    make, message = UNFIT[name]
    folder, state = run
    like = make().init(SMALL)
    with pytest.raises(ValueError, match=rf"(?s){message}.*jp\.add_param_group"):
        interop.restore_orbax(folder, params=SMALL, state=like)
    with pytest.raises(ValueError, match=rf"(?s){message}.*jp\.add_param_group"):
        serialization.from_bytes(like, serialization.to_bytes(state))


def test_a_group_is_added_after_the_restore(run):
    folder, _ = run
    more = {**SMALL, "new": jnp.ones(4)}
    with pytest.raises(ValueError, match='"new" was not saved'):
        interop.restore_orbax(folder, params=more)
    old = jp.Adam([{"params": "head", "lr": 1 / 3}, {"params": "stem"}])
    state = interop.restore_orbax(folder, params=SMALL, state=old.init(SMALL)).state
    before = jp.get_hyperparams(state)
    tx, state = jp.add_param_group(old, state, more, {"params": "new", "lr": 0.5})
    after = jp.get_hyperparams(state)
    assert (after[:2], after[2]["lr"]) == (before, 0.5)
    jp.step(tx, more, state, more)


def test_other_arrays_are_refused(run, tmp_path):
    folder, _ = run
    other = {"stem": jnp.ones(5), "head": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(ValueError, match=r"(?s)bfloat16 of shape \(3,\).*of shape \(5,\)"):
        interop.restore_orbax(folder, params=other)
    with pytest.raises(ValueError, match="no scheduler_state was saved"):
        interop.restore_orbax(folder, params=SMALL, scheduler_state=SMALL)
    with pytest.raises(FileNotFoundError, match="holds nothing that save_orbax saved"):
        interop.restore_orbax(tmp_path, params=SMALL)
    with pytest.raises(ValueError, match="is there already"):
        interop.save_orbax(folder, params=SMALL)


def without_state(folder):
    shutil.rmtree(folder / "state")


def described_as(text, file="description/metadata"):
    return lambda folder: (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_state, "is damaged: it has no folder state"),
        (described_as("{}"), "is damaged: its description is {}"),
        (described_as("[]"), r"is damaged: its description is \[\]"),
        (described_as("{"), "is damaged: JSONDecodeError"),
        (described_as("{}", "state/_METADATA"), "is damaged: KeyError: 'tree_metadata'"),
        (described_as("[]", "params/_METADATA"), "is damaged: AttributeError"),
    ],
)
def test_what_is_damaged_is_refused(damage, message, tmp_path):
    state = adam().init(SMALL)
    interop.save_orbax(tmp_path / "run", params=SMALL, state=state)
    damage(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        interop.restore_orbax(tmp_path / "run", params=SMALL, state=state)


def test_what_json_does_not_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="extra must be what JSON holds: Object of type object"):
        interop.save_orbax(tmp_path / "run", params=SMALL, extra={"a": object()})
    assert not (tmp_path / "run").exists()


RESHARDED = """
import sys, jax, jax.numpy as jnp, numpy as np, jaxopt_port as jp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxopt_port import interop
devices = np.array(jax.devices())
assert len(devices) == 8
def sharded(shape, *spec):
    mesh = Mesh(devices.reshape(shape), ("x", "y"))
    return NamedSharding(mesh, P(*spec))
whole = {"w": np.arange(128, dtype=np.float32).reshape(16, 8)}
params = jax.device_put(whole, sharded((8, 1), "x", None))
tx = jp.Adam(lr=1 / 3)
params, state = jp.step(tx, params, tx.init(params), params)
interop.save_orbax(sys.argv[1], params=params, state=state)
new = sharded((2, 4), "y", "x")
def like(x):
    sharding = new if x.shape == (16, 8) else NamedSharding(new.mesh, P())
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
found = interop.restore_orbax(
    sys.argv[1], params=jax.tree.map(like, params), state=jax.tree.map(like, state)
)
for a, b in zip(jax.tree.leaves((found.params, found.state)), jax.tree.leaves((params, state))):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes() and a.dtype == b.dtype
    assert a.sharding.mesh.shape == {"x": 2, "y": 4}, a.sharding
print(len({str(s.index) for s in found.params["w"].addressable_shards}))
"""


@pytest.mark.parametrize("changed", ["a group that rests", "counts that have parted"])
@pytest.mark.parametrize(
    "like", [lambda x: x, lambda x: jax.eval_shape(lambda: x)], ids=["", "shapes"]
)
def test_what_is_static_and_changes_in_a_run_comes_back(tmp_path, changed, like):
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    tx = jp.AdamW([{"params": "a"}, {"params": "b"}], lr=0.1)
    state = tx.init(params)
    if changed == "a group that rests":
        state = jp.set_hyperparams(state, frozen=True, group=1)
    else:
        tx = jp.AdamW(lr=0.1)
        _, state = jp.step(tx, {**params, "b": None}, tx.init(params), params)
    interop.save_orbax(tmp_path / "run", params=params, state=state)
    restored = interop.restore_orbax(
        tmp_path / "run", params=params, state=like(tx.init(params))
    ).state
    assert_same_tree(state, restored)
    assert_same_tree(jp.step(tx, params, state, params), jp.step(tx, params, restored, params))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    "like", [lambda tx: tx.init, lambda tx: functools.partial(jax.eval_shape, tx.init)],
    ids=["made", "shapes"],
)  # fmt: skip
def test_a_split_run_goes_on_without_shardings_for_its_state(tmp_path, kind, like):
    tx = jp.AdamW(lr=0.1)

    def split(n):
        mesh = jax.make_mesh((n,), ("data",), axis_types=(kind,), devices=jax.devices()[:n])
        w = np.linspace(-1, 1, 128, dtype=np.float32).reshape(16, 8)
        return {"w": jax.device_put(w, NamedSharding(mesh, P("data")))}

    params = split(8)
    params, state = jp.step(tx, params, tx.init(params), params)
    interop.save_orbax(tmp_path / "run", params=params, state=state)
    for n in (8, 4):
        wanted = split(n)
        found = interop.restore_orbax(tmp_path / "run", params=wanted, state=like(tx)(wanted))
        assert found.params["w"].sharding == wanted["w"].sharding
        after = jp.step(tx, found.params, found.state, found.params)
        assert_same_tree(after, jp.step(tx, params, state, params))


def test_a_mesh_without_devices_is_refused(run):
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    like = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P()))
        for name, x in SMALL.items()
    }
    with pytest.raises(ValueError, match='"head" has a sharding on a mesh without devices'):
        interop.restore_orbax(run[0], params=like)


def test_another_sharding(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run = subprocess.run(
        [sys.executable, "-c", RESHARDED, str(tmp_path / "run")],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "8"
