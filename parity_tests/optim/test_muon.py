"""Muon against torch's. Both run its iteration in bfloat16, whose matrix products round at will."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.configurations import MUON
from parity_tests.oracles.optimizer import TorchOracle, configurations
from parity_tests.oracles.tolerances import bound

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

SHAPES = {"square": (48, 48), "tall": (60, 24), "row": (1, 30)}
GROUPINGS = {"one group": [list(SHAPES)], "three groups": [[name] for name in SHAPES]}
CONFIGURATIONS = [
    *configurations(MUON.torch),
    ("match_rms_adamw", {"adjust_lr_fn": "match_rms_adamw"}),
    ("original", {"adjust_lr_fn": "original"}),
    ("no nesterov", {"nesterov": False}),
    ("no steps", {"ns_steps": 0}),
]


def random_matrices(rng, dtype):
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


def update_distance(ours, theirs, before):
    """Relative error and cosine of an update."""
    ours, theirs = (np.ravel(np.asarray(x, np.float64) - before) for x in (ours, theirs))
    norms = np.linalg.norm(ours), np.linalg.norm(theirs)
    return np.linalg.norm(ours - theirs) / norms[1], ours @ theirs / np.prod(norms)


@pytest.mark.parametrize(
    ("options", "grouping", "dtype"),
    [
        pytest.param(options, grouping, dtype, id=f"{name}-{grouping}-{dtype.__name__}")
        for name, options in CONFIGURATIONS
        for grouping, dtype in [
            ("three groups", np.float32),
            *([("one group", np.float32), ("one group", np.float64)] if name == "default" else []),
        ]
    ],
)
def test_updates_are_near_torchs(options, grouping, dtype, rng, x64):
    start = random_matrices(rng, dtype)
    groups = GROUPINGS[grouping]
    oracle = TorchOracle(MUON.torch, start, groups, options)
    tx = jp.Muon([{"params": names} for names in groups], **options)
    params, state = start, tx.init(start)
    for _ in range(3):
        grads, before = random_matrices(rng, dtype), oracle.params()
        params, state = jp.step(tx, grads, state, before)
        oracle.step(grads)
        for name, theirs in oracle.params().items():
            error, cosine = update_distance(params[name], theirs, before[name])
            assert error <= bound("muon update"), name
            assert cosine >= bound("muon cosine"), name
            held = jp.engine.leaf_states(state)[name]["momentum_buffer"]
            np.testing.assert_array_max_ulp(
                np.asarray(held), oracle.held(name)["momentum_buffer"], 0
            )


def test_a_smaller_number_of_steps_is_seen(rng):
    """The bound can fail: an iteration left out is ten times beyond it."""
    start, grads = random_matrices(rng, np.float32), random_matrices(rng, np.float32)
    oracle = TorchOracle(torch.optim.Muon, start, [list(SHAPES)], {"ns_steps": 5})
    oracle.step(grads)
    tx = jp.Muon(ns_steps=4)
    params, _ = jp.step(tx, grads, tx.init(start), start)
    errors = [
        update_distance(params[n], oracle.params()[n], start[n])[0] for n in ("square", "tall")
    ]
    assert min(errors) > 5 * bound("muon update")


REFUSED = {
    "a vector": (jnp.ones(3), r"Muon only supports 2D parameters .* size: \(3,\) \(\"w\"\)"),
    "a convolution": (jnp.ones((3, 3, 2, 4)), "Muon only supports 2D parameters"),
    "a complex matrix": (jnp.ones((2, 2), jnp.complex64), "Muon does not support complex"),
}


@pytest.mark.parametrize("spelling", [jp.muon, jp.Muon])
@pytest.mark.parametrize("case", REFUSED)
def test_other_parameters_are_refused(case, spelling):
    param, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        spelling().init({"w": param})


def test_others_go_to_another_optimizer_in_one_call():
    params = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
    tx = jp.Muon(
        [{"params": "**/kernel"}, {"params": jp.REST, "optimizer": jp.AdamW, "lr": 3e-4}], lr=0.02
    )
    stepped, state = jp.step(tx, params, tx.init(params), params)
    for path, alone, options in (
        ("kernel", jp.Muon, {"lr": 0.02}),
        ("bias", jp.AdamW, {"lr": 3e-4}),
    ):
        own = {path: params["dense"][path]}
        expected, _ = jp.step(alone(**options), own, alone(**options).init(own), own)
        np.testing.assert_array_equal(stepped["dense"][path], expected[path])
    assert [group["lr"] for group in jp.get_hyperparams(state)] == [0.02, 3e-4]
    assert "momentum" not in jp.get_hyperparams(state)[1]


@pytest.mark.parametrize(
    ("shape", "compiled"),
    [(s, c) for s in [(4, 4), (8, 2), (2, 8), (3, 7)] for c in (False, True)],
)
def test_muon_by_the_ratio_of_the_sides(shape, compiled):
    """spectral_unclamped is sqrt(rows / columns), also below 1: original, scaled."""
    grad = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    rows, columns = shape
    tensor = torch.nn.Parameter(torch.zeros(shape))
    of_original = (max(1, rows / columns)) ** 0.5
    theirs = torch.optim.Muon([tensor], lr=0.1 * (rows / columns) ** 0.5 / of_original)
    theirs.param_groups[0]["weight_decay"] = 0.0
    tx = jp.Muon(lr=0.1, weight_decay=0.0, adjust_lr_fn="spectral_unclamped")
    params = jnp.zeros(shape)
    step = jax.jit(lambda g, s, p: jp.step(tx, g, s, p)) if compiled else None
    state = tx.init(params)
    for _ in range(3):
        tensor.grad = torch.tensor(grad)
        theirs.step()
        grads = jnp.asarray(grad)
        made = step(grads, state, params) if compiled else jp.step(tx, grads, state, params)
        params, state = made
    np.testing.assert_array_equal(params, tensor.detach().numpy())
