"""A rule's kernel has the bits of its program in XLA, and is there only where it can be."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import kernels
from jaxopt_port.kernels import _calls
from parity_tests.oracles.bits import assert_same_bits

SHAPES = {"w": (37, 11), "large": (70001,), "none": (0,)}
GROUPS = [{"params": jp.REST}, {"params": "large", "lr": 0.003}]
CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "betas": (0.4, 0.99)}),
    ("AdamW", {"maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Adamax", {}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Rprop", {}),
    ("ASGD", {"t0": 2, "lambd": 0.1}),
]
LOW = [case for case in CASES[2:] if case[0] != "Rprop"]

pytestmark = [
    pytest.mark.skipif(not kernels.enabled(), reason="no C compiler: plain XLA is used"),
    pytest.mark.usefixtures("always"),
]


def calls_kernel(text):
    return re.search(r'custom_call(_target="| @)jaxopt_port_', text) is not None


def drawn(rng, dtype):
    """Normal numbers by leaf; of a complex type, in both parts."""
    parts = [2] if jnp.issubdtype(dtype, jnp.complexfloating) else []
    made = {k: rng.standard_normal([*s, *parts]) for k, s in SHAPES.items()}
    return {k: np.asarray(x @ [1, 1j] if parts else x, jnp.dtype(dtype)) for k, x in made.items()}


def run(tx, dtype, rng, monkeypatch, switch, steps=4):
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", switch)
    jax.clear_caches()  # a traced step keeps what it was traced with
    params = drawn(rng, dtype)
    state = tx.init(params)
    step = jax.jit(lambda params, state, grads: jp.step(tx, grads, state, params))
    for _ in range(steps):
        grads = drawn(rng, dtype)
        grads["w"][0, :3] = [0.0, np.nan, np.inf]
        params, state = step(params, state, grads)
    return params, state, step.lower(params, state, grads).as_text()


def leaves(params, state):
    """By path, the arrays; each NaN the same, since which one an operation makes is undefined."""

    def plain(leaf):
        leaf = np.asarray(leaf)
        if leaf.dtype.kind == "c":
            leaf = np.stack([leaf.real, leaf.imag])
        number = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.where(leaf != leaf, leaf.dtype.type(np.nan), leaf) if number else leaf

    return {
        jax.tree_util.keystr(path): plain(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path((params, state))
    }


@pytest.mark.share(12)
@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [(*case, "float32") for case in CASES]
    + [(*case, dtype) for case in CASES[2:6:2] for dtype in ("float64", "complex128")]
    # Rprop multiplies signs in bfloat16 itself, and has no kernel there.
    + [(*case, "bfloat16") for case in (CASES[1], *LOW)]
    + [(*CASES[3], "complex64")],
)
def test_a_kernel_has_the_bits_of_the_rule(name, options, dtype, monkeypatch):
    tx = getattr(jp, name)(GROUPS, **{"lr": 0.01, **options})
    with jax.enable_x64(dtype in ("float64", "complex128")):
        *plain, plain_text = run(tx, dtype, np.random.default_rng(3), monkeypatch, "off")
        *quick, quick_text = run(tx, dtype, np.random.default_rng(3), monkeypatch, "on")
    assert calls_kernel(quick_text)
    assert not calls_kernel(plain_text)
    assert_same_bits(leaves(*quick), leaves(*plain), name)


def test_a_kernel_that_rounds_otherwise_is_seen(monkeypatch):
    """The comparison above can fail: contract what torch rounds."""
    written = kernels.written

    def wrong(*args):
        source = written(*args)
        # Each product rounded before its sum, which torch does not do.
        code = re.sub(r"FMA\((\w+), (\w+), (\w+)\)", r"\1 * \2 + \3", source.code)
        assert code != source.code
        return source._replace(code=code)

    monkeypatch.setattr(_calls, "written", wrong)
    # A rule of its own, whose kernel is not yet known.
    tx = jp.SGD(lr=0.01, momentum=0.9, dampening=0.25, maximize=False)
    _calls._kernel.cache_clear()
    *plain, _ = run(tx, "float32", np.random.default_rng(3), monkeypatch, "off")
    try:
        *quick, text = run(tx, "float32", np.random.default_rng(3), monkeypatch, "on")
    finally:
        _calls._kernel.cache_clear()
    assert calls_kernel(text)
    with pytest.raises(AssertionError):
        assert_same_bits(leaves(*quick), leaves(*plain), "SGD")


def test_users_rules_have_kernels_too(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    lion = importlib.import_module("lion").lion
    *_, text = run(lion(lr=0.01), "float32", np.random.default_rng(3), monkeypatch, "on", steps=1)
    assert calls_kernel(text)


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_rules_that_are_not_elementwise_have_none(name):
    tx = getattr(jp, name)(lr=0.01)
    params = {"w": jnp.ones((12, 8))}
    text = jax.jit(jp.step, static_argnums=0).lower(tx, params, tx.init(params), params).as_text()
    assert not calls_kernel(text)


@pytest.mark.parametrize("donate", [False, True])
def test_donation_reuses_the_memory(donate):
    tx = jp.Adam()
    params = {"w": jnp.ones((256, 256))}
    state = tx.init(params)
    size = params["w"].nbytes
    kept = (params["w"] + 0, state)
    new, _ = jp.step(tx, {"w": kept[0]}, state, params, donate=donate)
    assert params["w"].is_deleted() is donate
    step = jax.jit(
        lambda params, state, grads: jp.step(tx, grads, state, params), donate_argnums=(0, 1)
    )
    memory = step.lower(new, tx.init(new), new).compile().memory_analysis()
    assert memory.temp_size_in_bytes < size / 10


def test_transformations_see_the_rule_itself():
    tx = jp.Adam(lr=0.1)
    params = {"w": jnp.arange(1.0, 5.0)}
    state = tx.init(params)

    def after(grads):
        return jp.step(tx, grads, state, params)[0]["w"].sum()

    slope = jax.grad(lambda c: after({"w": c * params["w"]}))(1.0)
    assert np.isfinite(slope)
    grads = {"w": jnp.arange(1.0, 13.0).reshape(3, 4)}
    mapped = jax.vmap(lambda g: jp.step(tx, g, state, params)[0])(grads)
    each = [jp.step(tx, {"w": g}, state, params)[0]["w"] for g in grads["w"]]
    assert_same_bits({"w": np.asarray(mapped["w"])}, {"w": np.stack(each)}, "mapped")


def test_several_devices_and_exported_programs_have_none():
    """A custom call cannot be divided among devices, or read elsewhere."""
    text = """
import jax, jax.numpy as jnp, numpy as np, jaxopt_port as jp
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
tx = jp.Adam()
params = {"w": jnp.ones((8, 4))}
step = jax.jit(lambda p, s, g: jp.step(tx, g, s, p))
one = step.lower(params, tx.init(params), params).as_text()
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), P("x"))
sharded = jax.device_put(params, sharding)
several = step.lower(sharded, tx.init(sharded), sharded).compile().as_text()
exported = export.export(step)(params, tx.init(params), params).mlir_module()
for text in (one, several, exported):
    print(text)
    print("=====")
"""
    environment = {
        "JAXOPT_PORT_KERNELS": "on",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    one, several, exported, _ = done.stdout.split("=====")
    assert list(map(calls_kernel, (one, several, exported))) == [True, False, False]
    assert "all-gather" not in several


def test_large_steps_and_those_of_many_leaves_have_kernels_without_being_asked(monkeypatch):
    monkeypatch.delenv("JAXOPT_PORT_KERNELS", raising=False)
    step = jax.jit(jp.step, static_argnums=0)

    def has_kernel(shapes):
        params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        state = jax.eval_shape(tx.init, params)
        return calls_kernel(step.lower(tx, params, state, params).as_text())

    tx = jp.AdamW(lr=0.1)
    # Once compiled, which nothing waits for.
    monkeypatch.setattr(kernels.Kernel, "target", lambda self: self.wait() and self._name)
    cases = [[(8,)], [(1 << 19,)], [(1 << 20,)], [(1 << 19,), (1 << 19,)], [(2,)] * 64]
    assert list(map(has_kernel, cases)) == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (lambda x: jnp.sum(x) * x, "follows from the arrays"),
        (lambda x: jnp.exp(x), "exp"),
        (lambda x: x[::-1], "rev"),
        (lambda x: x * jnp.arange(3.0), "iota"),
        (lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), "bfloat16"),
        (lambda x: x[:2], "another shape"),
    ],
    ids=["sum", "exp", "rev", "iota", "bfloat16", "slice"],
)
def test_what_c_does_not_round_as_xla_is_not_written(update, reason):
    leaf = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(kernels.UnsupportedError, match=reason):
        kernels.written(lambda arrays, numbers: [update(arrays[0])], [leaf], {})
