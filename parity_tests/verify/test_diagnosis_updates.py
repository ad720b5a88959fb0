"""The diagnosis of an update: real torch optimizers, and what ports make of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.verify.diagnosis import (
    CAUSES,
    UpdateHistory,
    _other_optimizers,
    explain_update,
    explain_updates,
)
from jaxopt_port.verify.diagnosis._known_ways import known_ways
from jaxopt_port.verify.diagnosis._schedules import another_schedule

STEPS, SIZE, BATCH, EPOCH = 12, 8, 16, 4
chain, decayed, scaled = optax.chain, optax.add_decayed_weights, optax.scale_by_learning_rate


@dataclasses.dataclass(frozen=True)
class Run:
    """Torch's side: its options, the rate of each step, the norm or number it clips to."""

    optimizer: str
    options: dict[str, Any]
    rates: tuple[float, ...] | None = None
    max_norm: float | None = None
    max_value: float | None = None


def uncorrected_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        m, v = state
        m, v = b1 * m + (1 - b1) * grads, b2 * v + (1 - b2) * grads**2
        return m / (jnp.sqrt(v) + eps), (m, v)

    return optax.GradientTransformation(lambda p: (jnp.zeros_like(p), jnp.zeros_like(p)), update)


def summed() -> Any:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        return state + grads, state + grads

    return optax.GradientTransformation(jnp.zeros_like, update)


M = {"lr": 0.1, "momentum": 0.9}
MD = {**M, "weight_decay": 0.1}
W = {"lr": 1e-2, "weight_decay": 0.1}
L = {"lr": 1e-2}
DECAYING = tuple(0.1 * 0.9**i for i in range(STEPS))
BY_EPOCH = tuple(0.1 * 0.5 ** (i // EPOCH) for i in range(STEPS))


def falling(shift: int = 0, every: int = 1, by: float = 0.9) -> Any:
    return lambda count: 0.1 * by ** jnp.maximum(0, (count + shift) // every)


SGD, SGDM = Run("SGD", {"lr": 0.1}), Run("SGD", M)
CLIPPED = Run("SGD", {"lr": 0.1}, max_norm=0.5)
BY_VALUE = Run("SGD", M, max_value=0.25)
NAMED = [
    (SGD, optax.sgd(0.1 * BATCH), "gradient-scale", "16 times"),
    (SGDM, chain(optax.scale(1 / BATCH), optax.sgd(0.1, 0.9)), "gradient-scale", "0.0625 times"),
    (SGDM, chain(summed(), optax.sgd(0.1, 0.9)), "accumulated-gradient", "earlier"),
    (Run("Adam", L), chain(summed(), optax.adam(1e-2)), "accumulated-gradient", "earlier"),
    (Run("SGD", {"lr": 0.1, "maximize": True}), optax.sgd(0.1), "sign", "gradient"),
    (Run("SGD", M | {"maximize": True}), optax.sgd(0.1, 0.9), "sign", "gradient"),
    (Run("Adam", L), optax.adam(-1e-2), "sign", "gradient"),
    (Run("SGD", M, DECAYING), optax.sgd(falling(-1), 0.9), "schedule-offset", "step before"),
    (Run("SGD", M, DECAYING), optax.sgd(falling(1), 0.9), "schedule-offset", "next step"),
    (Run("Adam", L, DECAYING), optax.adam(falling(1)), "schedule-offset", "next step"),
    (Run("SGD", M, BY_EPOCH), optax.sgd(falling(by=0.5), 0.9), "schedule-per-epoch", "each step"),
    (Run("SGD", M, DECAYING),
     optax.sgd(lambda n: jnp.where(n < 5, falling()(n), 0.0), 0.9), "number", "not train"),
    (SGD, optax.sgd(lambda n: jnp.where(n == 5, jnp.nan, 0.1)), "not-finite", "makes NaN"),
    (Run("SGD", M, tuple(0.1 * 0.5**i for i in range(STEPS))),
     optax.sgd(falling(every=EPOCH, by=0.5), 0.9), "schedule-per-epoch", "each epoch"),
    (Run("SGD", M, DECAYING), chain(scaled(falling()), optax.trace(0.9)), "lr-in-momentum", "rate"),
    (Run("SGD", M | {"dampening": 0.5}), optax.sgd(0.1, 0.9), "dampening", "dampening=0;"),
    (Run("SGD", M | {"dampening": 0.9}), chain(optax.ema(0.9, debias=False), scaled(0.1)),
     "first-momentum", "1 - dampening"),
    (Run("SGD", MD), chain(optax.sgd(0.1, 0.9), decayed(-0.1)), "decay-order", "not multiplied"),
    (Run("SGD", MD), chain(optax.trace(0.9), decayed(0.1), scaled(0.1)), "decay-order", "after"),
    (Run("SGD", M), chain(decayed(5e-4), optax.sgd(0.1, 0.9)), "number", "weight_decay=0.0005"),
    (Run("SGD", M), optax.sgd(0.1), "number", "momentum=0;"),
    (Run("SGD", M), optax.sgd(0.1, float(jnp.bfloat16(0.9))), "low-precision", "bfloat16"),
    (Run("Adam", L), optax.adam(1e-2, b2=float(jnp.float16(0.999))), "low-precision", "float16"),
    (Run("Adam", L), optax.nadam(1e-2), "nesterov", "uses"),
    (Run("AdamW", W), optax.adamw(1e-2, weight_decay=0.1, nesterov=True), "nesterov", "uses"),
    (Run("NAdam", L), optax.nadam(1e-2), "nesterov", "momentum_decay"),
    (Run("Adam", L), optax.adamw(1e-2), "number", "weight_decay=0.0001 to the parameter"),
    (Run("Adam", L), optax.adam(1e-2, eps_root=1e-6), "eps-placement", "eps_root=1e-06"),
    (Run("AdamW", W), optax.adamw(1e-2, weight_decay=0.1, eps_root=1e-6), "eps-placement", "1e-06"),
    (Run("Adam", L), chain(uncorrected_adam(), scaled(1e-2)), "bias-correction", "start at zero"),
    (Run("Adam", W), chain(decayed(0.1), optax.adam(1e-2, eps=0.0, eps_root=1e-8)),
     "eps-placement", "inside the root"),
    (Run("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.1}), optax.adagrad(0.1),
     "eps-placement", "eps=1e-07"),
    (Run("Adagrad", {"lr": 0.1, "lr_decay": 0.1}), jp.adagrad(lr=0.1), "number", "lr_decay=0;"),
    (Run("RMSprop", L | {"momentum": 0.9}), optax.rmsprop(1e-2, 0.99, eps_in_sqrt=False), "number",
     "momentum=0;"),
    (Run("NAdam", W), jp.nadam(**W, decoupled_weight_decay=True), "decay-coupling", "parameter"),
    (Run("SGD", M), optax.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16), "low-precision",
     "the momentum buffer in bfloat16"),
    (Run("SGD", M), optax.sgd(0.1, 0.9, accumulator_dtype=jnp.float16), "low-precision",
     "the momentum buffer in float16"),
    (SGD, optax.set_to_zero(), "frozen-leaf", "your side does not train"),
    (SGD, optax.masked(optax.sgd(0.1), False), "passed-on", "what optax.masked leaves out"),
    (Run("SGD", {"lr": 1.0}), optax.sgd(-1.0), "sign", "goes up the gradient"),
    (Run("SGD", {"lr": 1.0}), optax.identity(), "sign", "what optax.masked leaves out"),
    (Run("SGD", M | {"lr": 1.0}), optax.identity(), "passed-on", "what optax.masked leaves out"),
    (Run("AdamW", W), chain(optax.adam(1e-2), optax.add_decayed_weights(0.1)), "decay-order",
     "grow"),
    (Run("SGD", {"lr": 0.0}), optax.sgd(0.1), "frozen-leaf", "your side trains"),
    (SGD, chain(optax.clip(0.5), optax.sgd(0.1)), "clip-kind", "each number"),
    (SGD, chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), "clip-missing", "norm of 1;"),
    (SGD, chain(optax.clip_by_global_norm(0.3), optax.sgd(0.1)), "clip-missing", "norm of 0.3;"),
    (SGD, chain(optax.scale(0.3), optax.sgd(0.1)), "number", "gradients are 0.3 times"),
    (CLIPPED, optax.sgd(0.1), "clip-missing", "does not clip"),
    (CLIPPED, chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)), "clip-epsilon", "1e-6"),
    (CLIPPED, chain(optax.clip(0.5), optax.sgd(0.1)), "clip-kind", "each number"),
    (BY_VALUE, chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, 0.9)), "clip-kind", "to 0.25"),
    (BY_VALUE, chain(jp.clip_by_grad_norm(0.25), optax.sgd(0.1, 0.9)), "clip-kind", "norm"),
    (BY_VALUE, optax.sgd(0.1, 0.9), "clip-missing", "does not clip"),
    (BY_VALUE, chain(optax.clip(0.25), optax.sgd(0.1, 0.8)), "number", "momentum=0.8"),
    (Run("SGD", M, DECAYING), optax.sgd(lambda n: falling()(n % 7), 0.9), "schedule-offset",
     "anew at step 7"),
    (Run("Rprop", L), jp.rprop(lr=2e-2), "number", "lr=0.02"),
    (Run("Rprop", L), optax.rprop(1e-2), "first-step", "takes no step at first"),
    (Run("SGD", M), chain(optax.scale_by_sign(), scaled(0.1)), "another-optimizer", "sign_sgd"),
    (Run("Adam", L), optax.lion(1e-2), "another-optimizer", "lion"),
    (Run("AdamW", W), optax.lamb(1e-2), None, ""),
]  # fmt: skip


def gradients() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)
    # Small elements show eps.
    return rng.normal(size=SIZE), rng.normal(size=(STEPS, SIZE)) * np.geomspace(1e-6, 2, SIZE)


def torch_side(run: Run, start: Any, grads: Any) -> tuple[Any, list[dict[str, Any]]]:
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = getattr(torch.optim, run.optimizer)([parameter], **run.options)
    after, options = [], []
    for step, grad in enumerate(grads):
        if run.rates is not None:
            optimizer.param_groups[0]["lr"] = run.rates[step]
        options.append({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})
        parameter.grad = torch.from_numpy(grad.copy())
        if run.max_norm is not None:
            torch.nn.utils.clip_grad_norm_([parameter], run.max_norm)
        if run.max_value is not None:
            torch.nn.utils.clip_grad_value_([parameter], run.max_value)
        optimizer.step()
        after.append(parameter.detach().numpy().copy())
    return np.array(after), options


def jax_side(tx: Any, start: Any, grads: Any) -> Any:
    with jax.enable_x64(True):
        params = jnp.asarray(start)
        state, after = tx.init(params), []
        for grad in grads:
            params, state = jp.step(tx, jnp.asarray(grad), state, params)
            after.append(np.asarray(params))
    return np.array(after)


def history_of(run: Run, tx: Any) -> UpdateHistory:
    start, grads = gradients()
    torchs, options = torch_side(run, start, grads)
    yours = jax_side(tx, start, grads)
    apart = ~(np.max(np.abs(yours - torchs), axis=1) <= 1e-13)
    norms = [float(np.linalg.norm(g)) for g in grads]
    most = run.max_norm or np.inf
    return UpdateHistory(
        optimizer=run.optimizer, options=options, other_options=[], grads=grads, start=start,
        yours=yours, torchs=torchs, first=int(np.argmax(apart)),
        clip=[
            {
                "factor": min(1.0, most / (n + 1e-6)), "total": n, "group": n, "leaf": n, "kind": n,
                "limit": run.max_value or np.inf,
            }
            for n in norms
        ],
        batch_size=BATCH, steps_per_epoch=EPOCH,
    )  # fmt: skip


def test_a_clipping_that_clips_each_step_is_named_before_a_norm_of_one(monkeypatch):
    start, grads = gradients()
    monkeypatch.setitem(globals(), "gradients", lambda: (start, 100 * grads))
    cause = explain_update(history_of(SGD, chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))))
    assert cause.name == "clip-missing"
    assert "clips gradients to a norm of 1, or divides them by it" in cause.message


@pytest.mark.parametrize("at", range(len(NAMED)), ids=lambda at: f"{at}-{NAMED[at][2]}")
def test_an_update_is_explained(at: int) -> None:
    run, tx, name, words = NAMED[at]
    cause = explain_update(history_of(run, tx))
    assert (None if cause is None else cause.name) == name, cause
    if cause is not None:
        assert words in cause.message
        assert cause.name in CAUSES
        assert cause.remedy
        assert cause.unexplained <= 1e-3


@pytest.mark.parametrize(
    ("torchs", "tx", "remedy"),
    [
        ("SGD", optax.lion(1e-2), "use jp.SGD; torch.optim has no lion"),
        ("Adam", jp.RAdam(lr=1e-2), "use jp.Adam, or torch.optim.RAdam"),
    ],
)
def test_no_optimizer_of_torchs_is_named_that_it_has_not(torchs: str, tx: Any, remedy: str) -> None:
    cause = explain_update(history_of(Run(torchs, {"lr": 1e-2}), tx))
    assert cause is not None
    assert (cause.name, cause.remedy) == ("another-optimizer", remedy)


def test_torchs_optimizers_are_what_they_are_taken_for() -> None:
    assert all(hasattr(torch.optim, name) for name in _other_optimizers._OURS)
    assert not [name for name in _other_optimizers._OPTAX if hasattr(torch.optim, name)]
    assert all(hasattr(torch.optim, name) for name in _other_optimizers._WHOLE["jp"])
    assert all(hasattr(jp.contrib, name) for name in _other_optimizers._CONTRIB)


def test_a_group_is_recognized() -> None:
    history = history_of(SGD, optax.sgd(0.03))
    history.other_options = [{**history.options[0], "lr": 0.03}]
    cause = explain_update(history)
    assert cause is not None
    assert cause.name == "group-options"


MANY = [
    (Run("SGD", M, max_norm=0.5), chain(jp.clip_by_grad_norm(0.25), optax.sgd(0.1, 0.99)),
     ("clip-limit", "number")),
    (Run("SGD", MD, max_norm=0.5), chain(jp.clip_by_grad_norm(0.25), optax.sgd(0.1, 0.99)),
     ("number", "clip-limit", "number")),
    (Run("AdamW", W, max_norm=0.5),
     chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, b2=0.99, weight_decay=0.1)),
     ("clip-epsilon", "number")),
]  # fmt: skip


@pytest.mark.parametrize(("run", "tx", "names"), MANY, ids=lambda x: "-".join(x) if isinstance(
    x, tuple) and isinstance(x[0], str) else "")  # fmt: skip
def test_several_at_once_are_named(run: Run, tx: Any, names: tuple[str, ...]) -> None:
    cause = explain_update(history_of(run, tx))
    assert cause is not None
    assert tuple(part.name for part in (cause, *cause.also)) == names, cause.message


def test_another_groups_options_keep_the_schedule() -> None:
    run = Run("SGD", M | {"weight_decay": 0.0}, DECAYING)
    for momentum, names in ((0.9, ["group-options"]), (0.99, ["group-options", "number"])):
        history = history_of(run, chain(decayed(0.1), optax.sgd(falling(), momentum)))
        history.other_options = [{**history.options[0], "weight_decay": 0.1}]
        cause = explain_update(history)
        assert cause is not None
        assert [part.name for part in (cause, *cause.also)] == names, cause.message


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_a_cosine_after_a_warm_up_has_its_length(floor: float) -> None:
    def rates(length: int) -> list[float]:
        part = np.clip((np.arange(24) - 10) / length, 0, 1)
        falling = floor + (1 - floor) * (1 + np.cos(np.pi * part)) / 2
        return list(np.where(np.arange(24) < 10, np.arange(1, 25) / 11, falling))

    cause = another_schedule(rates(80), rates(90), 11, 11)
    assert cause is not None
    assert cause.message.startswith("your side's cosine is 80 steps long, torch's 90")


def test_a_clipping_by_group_is_recognized() -> None:
    run = Run("SGD", {"lr": 0.1}, max_norm=0.5)
    start, grads = gradients()
    totals = [2 * float(np.linalg.norm(g)) for g in grads]  # of this leaf and of others
    factors = [min(1.0, 0.5 / (t + 1e-6)) for t in totals]
    clipped = grads * np.array(factors)[:, None]
    torchs, options = torch_side(dataclasses.replace(run, max_norm=None), start, clipped)
    history = history_of(run, chain(jp.clip_by_grad_norm(0.5), optax.sgd(0.1)))
    history.torchs, history.options, history.first = torchs, options, 0
    history.clip = [
        {"factor": f, "total": t, "group": t / 2, "leaf": t / 2, "kind": t / 2, "limit": np.inf}
        for f, t in zip(factors, totals, strict=True)
    ]
    cause = explain_update(history)
    assert cause is not None
    assert cause.name == "clip-per-group"


def test_a_clipping_is_found_of_leaves_that_differ_at_different_steps() -> None:
    """Beside another fault later, which is told as such once the clipping is allowed for."""
    rng = np.random.default_rng(5)
    steps = np.arange(30)
    grads = rng.normal(size=(2, 30, SIZE)) * np.where(steps % 3, 0.05, 1.0)[:, None]
    grads[1, :3] = 0.0
    totals, known = np.linalg.norm(grads, axis=(0, 2)), []
    options = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False}
    for own in grads:
        torchs, yours = (
            1 - np.cumsum((rate * np.minimum(1, most / (totals + 1e-6)))[:, None] * own, axis=0)
            for most, rate in ((0.5, np.full(30, 0.1)), (0.25, np.where(steps < 13, 0.1, 0.03)))
        )
        clip = [
            {"factor": min(1.0, 0.5 / (t + 1e-6)), "limit": np.inf}
            | dict.fromkeys(("total", "group", "leaf", "kind"), t)
            for t in totals
        ]
        first = int(np.argmax(np.any(np.abs(yours - torchs) > 1e-13, axis=1)))
        history = UpdateHistory(
            "SGD", [options] * 30, [], own, np.ones(SIZE), yours, torchs, first, clip, BATCH, 1
        )
        found = explain_updates(history, known)
        assert [step for step, _ in found] == [first, 13]
        assert found[0][1].name == "clip-limit"


def test_a_late_difference_is_explained_from_the_state_there() -> None:
    grads = np.random.default_rng(3).normal(size=(60, SIZE))
    start = np.ones(SIZE)
    torchs, options = torch_side(Run("Adam", L), start, grads)
    yours = jax_side(optax.adam(lambda n: jnp.where(n < 50, 1e-2, 1e-3)), start, grads)
    cause = explain_update(
        UpdateHistory("Adam", options, [], grads, start, yours, torchs, 50, None, BATCH, 1)
    )
    assert cause is not None
    assert "lr=0.001" in cause.message


def test_an_algorithm_that_is_not_torchs_is_not_explained() -> None:
    history = history_of(SGDM, optax.sgd(0.1, 0.8))
    history.torchs = history.torchs + 1e-3 * np.arange(STEPS)[:, None]
    assert explain_update(history) is None


def test_another_optimizer_is_tried_on_leaves_that_it_takes():
    """A convolution's kernel is none of Muon's: trying it all the same cost every name."""
    kernel, matrix = np.zeros((3, 3, 1, 4)), np.zeros((3, 4))
    whole = _other_optimizers._WHOLE
    taken = {
        (home, name): _other_optimizers._takes(home, name, kernel)
        for home, names in whole.items()
        for name in names
    }
    assert not taken["jp", "Muon"]
    assert _other_optimizers._takes("jp", "Muon", matrix)
    for (home, name), takes in taken.items():
        if takes and home != "optax":
            getattr(jp if home == "jp" else jp.contrib, name)(lr=0.1).init(jnp.asarray(kernel))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_each_known_way_is_tried_once(name, decay):
    run = Run(name, {"lr": 0.1, "weight_decay": decay})
    ways = known_ways(history_of(run, optax.sgd(0.1)))
    changes = [way.hypothesis.variation for way in ways]
    assert all(changes.count(change) == 1 for change in changes)
