"""The diagnosis of every stage but the update: made faults, the causes that they must be given."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from scipy import special

from jaxopt_port import verify
from jaxopt_port.verify import diagnosis
from jaxopt_port.verify.comparison._batches import Batches
from jaxopt_port.verify.diagnosis import CAUSES

RNG = np.random.default_rng(11)
LOGITS, LABELS = RNG.normal(size=(8, 5)), RNG.integers(0, 5, 8)
SQUARE, OTHER, CONV = (RNG.normal(size=s) for s in ((6, 6), (6, 6), (3, 3, 4, 4)))
TARGETS = RNG.normal(size=(8, 5))
BATCHES = [[RNG.normal(size=(8, 3, 4, 5)), RNG.integers(0, 5, 8)] for _ in range(4)]


def rounded(x, dtype=ml_dtypes.bfloat16):
    return x.astype(dtype).astype(np.float64)


def parameters(mine, other=OTHER):
    return diagnosis.explain_parameters(
        {"a/kernel": mine, "b/kernel": other}, {"a/kernel": SQUARE, "b/kernel": OTHER}, "a/kernel"
    )


PARAMETERS = {
    "transposed": parameters(SQUARE.T),
    "swapped-leaves": parameters(OTHER, SQUARE),
    "low-precision": parameters(rounded(SQUARE)),
    "flatten-order": parameters(SQUARE[[3, 4, 5, 0, 1, 2]]),
    "not-imported": parameters(RNG.normal(size=(6, 6))),
    None: parameters(SQUARE + 1e-3 * (np.arange(36).reshape(6, 6) == 7)),
}


def gradients(make, leaf="a"):
    torchs = {"a": SQUARE, "b": OTHER}
    params = {"a": np.cos(SQUARE), "b": np.sin(OTHER)}
    yours = {path: make(path, grad, params[path]) for path, grad in torchs.items()}
    return diagnosis.explain_gradient(yours, torchs, params, leaf, 16)


GRADIENTS = {
    "frozen-leaf": gradients(lambda path, g, p: 0 * g if path == "a" else g),
    "sign": gradients(lambda path, g, p: -g),
    "gradient-scale": gradients(lambda path, g, p: g / 16),
    "regularized-loss": gradients(lambda path, g, p: g + 0.02 * p),
    "transposed": gradients(lambda path, g, p: g.T),
    "swapped-leaves": gradients(lambda path, g, p: OTHER if path == "a" else SQUARE),
    "low-precision": gradients(lambda path, g, p: rounded(g)),
    None: gradients(lambda path, g, p: g + np.tanh(g)),
}


softmax = functools.partial(special.softmax, axis=-1)
OUTPUTS = {
    "output-activation": diagnosis.explain_output(np.log(softmax(LOGITS)), LOGITS),
    "low-precision": diagnosis.explain_output(rounded(LOGITS, np.float16), LOGITS),
    "transposed": diagnosis.explain_output(SQUARE.T, SQUARE),
    None: diagnosis.explain_output(LOGITS + 0.1 * np.sin(LOGITS), LOGITS),
}


def entropy(smoothing=0.0):
    logs = np.log(softmax(LOGITS))
    hard = -logs[np.arange(8), LABELS].mean()
    return float((1 - smoothing) * hard - smoothing * logs.mean())


def loss(yours):
    return diagnosis.explain_loss(yours, entropy(), [LOGITS], [TARGETS, LABELS], {"k": SQUARE})


LOSSES = {
    "loss-scale": loss(8 * entropy()),
    "label-smoothing": loss(entropy(0.1)),
    "regularized-loss": loss(entropy() + 1e-3 * float(np.vdot(SQUARE, SQUARE))),
    "low-precision": loss(float(ml_dtypes.bfloat16(entropy()))),
    None: loss(entropy() * 1.2345678901),
}


def data(yours, later=()):
    return diagnosis.explain_data(yours, dict(enumerate(BATCHES)), 1, later)


ORDER = np.random.default_rng(0).permutation(8)
DATA = {
    "data-offset": data(BATCHES[2]),
    "data-order": data([x[ORDER] for x in BATCHES[1]]),
    "data-layout": data([BATCHES[1][0].transpose(0, 2, 3, 1), BATCHES[1][1]]),
    "data-scale": data([BATCHES[1][0] * 255 + 3, BATCHES[1][1]]),
    "low-precision": data([rounded(BATCHES[1][0]), BATCHES[1][1]]),
    None: data([BATCHES[1][0] + np.sin(9 * BATCHES[1][0]), BATCHES[1][1]]),
}

IMAGES = [[x.transpose(0, 2, 3, 1), x.mean((2, 3))] for x, _ in BATCHES]
ONE_ARRAY = {
    "of the next batch": (0, IMAGES[2][0], "data-offset", "array 0 of your batch of step 1 is tor"),
    "shuffled": (1, IMAGES[1][1][ORDER], "data-order", "array 1 of your batch has torch's ex"),
    "reshaped": (
        0, BATCHES[1][0].reshape(8, 4, 5, 3), "data-layout",
        "reshaped, where it should be transposed by (0, 2, 3, 1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_ARRAY)
def test_one_array_of_a_batch(name):
    place, array, cause, words = ONE_ARRAY[name]
    yours = [*IMAGES[1][:place], array, *IMAGES[1][place + 1 :]]
    found = diagnosis.explain_data(yours, dict(enumerate(IMAGES)), 1)
    assert (found.name, words in found.message) == (cause, True), found


def test_one_number_is_a_multiple_of_another_and_no_more():
    assert diagnosis.explain_output(np.array(0.4), np.array(1.2)) is None
    leaves = {"scale": np.array(0.4), "k": SQUARE}
    torchs = {"scale": np.array(1.2), "k": SQUARE}
    assert diagnosis.explain_gradient(leaves, torchs, torchs, "scale", 8) is None


CLIPPED_OF = {"a": 3 * SQUARE, "b": OTHER}
NORMS = {path: float(np.linalg.norm(g)) for path, g in CLIPPED_OF.items()}
TOTAL = float(np.hypot(*NORMS.values()))


def clipping(make):
    torchs = {path: g * (1.0 / (TOTAL + 1e-6)) for path, g in CLIPPED_OF.items()}
    yours = {path: make(path, g) for path, g in CLIPPED_OF.items()}
    return diagnosis.explain_clipping(yours, torchs, CLIPPED_OF, {"a": 0, "b": 1})


CLIPPINGS = {
    "clip-missing": clipping(lambda path, g: g),
    "clip-epsilon": clipping(lambda path, g: g / TOTAL),
    "clip-per-group": clipping(lambda path, g: g / (NORMS[path] + 1e-6)),
    "clip-kind": clipping(lambda path, g: np.clip(g, -1, 1)),
    "clip-limit": clipping(lambda path, g: g * (0.5 / (TOTAL + 1e-6))),
    None: clipping(lambda path, g: np.sign(g) / TOTAL),
}

RATES = [0.1 * 0.9**i for i in range(10)]


def hyperparameter(yours, torchs=RATES, others=(), name="lr", step=1):
    return diagnosis.explain_hyperparameter(name, yours, torchs, step, 3, others)


HYPERPARAMETERS = {
    "schedule-offset": hyperparameter([RATES[0], *RATES[:-1]]),
    "schedule-per-epoch": hyperparameter([RATES[i // 3] for i in range(10)]),
    "low-precision": hyperparameter([float(ml_dtypes.bfloat16(r)) for r in RATES]),
    "group-options": hyperparameter([0.03] * 10, [0.1] * 10, [[0.03] * 10]),
    "number": hyperparameter([0.9] * 10, [0.99] * 10, name="alpha"),
}


CYCLED = [0.95 - 0.01 * i for i in range(10)]


@pytest.mark.parametrize(
    ("yours", "torchs", "said"),
    [
        ([0.9] * 10, CYCLED, "torch's betas[0] is set by a scheduler, your side's stays as it is"),
        (CYCLED, [0.95] * 10, "your side's betas[0] is set by a scheduler, torch's stays"),
        ([0.95, *CYCLED[2:], 0.9], CYCLED, "your side's betas[0] follows another schedule: at st"),
    ],
)
def test_a_momentum_that_a_scheduler_sets(yours, torchs, said):
    # That of step 2 is not yet that of the step before.
    found = hyperparameter(yours, torchs, name="betas[0]")
    assert (found.name, said in found.message) == ("schedule", True), found


def test_one_rate_after_others_that_are_the_same_is_a_schedule():
    found = hyperparameter([0.1, 0.2, 0.3, 0.31], [0.1, 0.2, 0.3, 0.29], step=3)
    assert found.name == "schedule"
    assert "is torch's until step 2, and then follows another schedule" in found.message


def test_what_rounds_to_0_is_0():
    found = hyperparameter([0.0] * 10, [1e-8] * 10, name="eps")
    assert found.name == "number"
    assert "behaves as with eps=0; torch has 1e-08" in found.message


COSINE = optax.cosine_decay_schedule
IN_FLOAT32 = {
    "a power": (lambda count: 0.05 * 0.9**count, 150),
    "exponential": (optax.exponential_decay(0.1, 1, 0.999), 600),
    "cosine, to its end": (COSINE(0.1, 400), 405),
    "linear": (optax.linear_schedule(0.1, 0.0, 350), 400),
    "warm-up and cosine": (optax.warmup_cosine_decay_schedule(0.0, 0.1, 30, 300), 310),
}
MOVED = {
    "early": ("schedule-offset", lambda count: count + 1),
    "late": ("schedule-offset", lambda count: np.maximum(count - 1, 0)),
    "anew": ("schedule-offset", lambda count: np.where(count < 20, count, count - 20)),
    "by epoch": ("schedule-per-epoch", lambda count: count // 3),
}


@pytest.mark.parametrize("moved", MOVED)
@pytest.mark.parametrize("of", IN_FLOAT32)
def test_a_schedule_in_float32_has_its_name(of, moved):
    (schedule, steps), (name, move) = IN_FLOAT32[of], MOVED[moved]
    count = np.arange(steps)
    mine = np.asarray(schedule(jnp.asarray(move(count), jnp.float32)))
    with jax.enable_x64(True):
        torchs = np.asarray(schedule(jnp.asarray(count, jnp.float64)))
    first = int(np.argmax(abs(mine - torchs) > 1e-4 * torchs))
    found = hyperparameter(mine.tolist(), torchs.tolist(), step=first)
    assert (found.name, mine.dtype) == (name, np.float32)


WARM = optax.warmup_cosine_decay_schedule
LINEAR = optax.linear_schedule
STAIRS = functools.partial(optax.exponential_decay, staircase=True)
BOUNDS = optax.piecewise_constant_schedule
OTHER_SCHEDULES = {
    "cosine": (COSINE(0.1, 300), COSINE(0.1, 400), 60, "schedule-length", "300 steps long"),
    "to a tenth": (COSINE(0.1, 300, 0.1), COSINE(0.1, 400, 0.1), 290, "schedule-length", "300"),
    "another end": (COSINE(0.1, 300), COSINE(0.1, 300, 0.05), 120, "schedule", "torch's at 0.005"),
    "end, seen whole": (COSINE(0.1, 90, 0.1), COSINE(0.1, 90), 90, "schedule", "at 0.01, torch"),
    "start": (WARM(0.01, 0.1, 30, 300), WARM(0, 0.1, 30, 300), 99, "schedule", "starts at 0.01,"),
    "long": (COSINE(0.1, 9000), COSINE(0.1, 10_000), 1500, "schedule-length", "torch's 10000"),
    "as far as seen": (COSINE(0.1, 9000), COSINE(0.1, 10_000), 100, "schedule", "another"),
    "warm-up": (WARM(0, 0.1, 40, 400), WARM(0, 0.1, 30, 400), 99, "schedule-length", "warm-up is"),
    "after it": (WARM(0, 0.1, 30, 300), WARM(0, 0.1, 30, 400), 200, "schedule-length", "270 steps"),
    "linear": (LINEAR(0, 0.1, 5000), LINEAR(0, 0.1, 4000), 60, "schedule-length", "2e-05 a step"),
    "powers": (
        optax.exponential_decay(0.1, 1, 0.999), optax.exponential_decay(0.1, 1, 0.998), 300,
        "schedule", "multiplied by 0.999",
    ),
    "torch's goes on": (
        COSINE(0.1, 50), lambda count: 0.05 * (1 + jnp.cos(jnp.pi * count / 50)), 70,
        "schedule", "after its 50 steps torch's goes up again",
    ),
    "steps": (STAIRS(0.1, 30, 0.1), STAIRS(0.1, 40, 0.1), 99, "schedule-length", "every 30 steps"),
    "one step of several": (
        BOUNDS(0.1, {30: 0.1}), STAIRS(0.1, 40, 0.1), 99, "schedule", "changes at step 30, torch's",
    ),
    "other milestones": (
        BOUNDS(0.1, {30: 0.1, 70: 0.1}), BOUNDS(0.1, {30: 0.1, 60: 0.1}), 99, "schedule", "30, 70,",
    ),
    "no warm-up": (
        COSINE(0.1, 300), WARM(0.01, 0.1, 30, 300), 99, "schedule", "torch's rate begins with a wa"
    ),
    "a warm-up": (
        WARM(0.01, 0.1, 30, 300), COSINE(0.1, 300), 99, "schedule", "your side's rate begins with a"
    ),
    "twice": (LINEAR(0, 0.2, 400), LINEAR(0, 0.1, 400), 99, "number", "is 2 times torch's"),
    "neither": (optax.constant_schedule(0.3), optax.constant_schedule(0.1), 60, "number", "lr=0.3"),
    "none": (optax.constant_schedule(0.1), COSINE(0.1, 400), 60, "number", "torch's learning rate"),
}  # fmt: skip


@pytest.mark.parametrize("given", OTHER_SCHEDULES.values(), ids=OTHER_SCHEDULES)
def test_another_schedule_in_float32_has_its_name(given):
    mine, torchs, steps, name, said = given
    count = np.arange(steps)
    ours = np.broadcast_to(jax.vmap(mine)(jnp.asarray(count)), steps)
    with jax.enable_x64(True):
        theirs = np.broadcast_to(jax.vmap(torchs)(jnp.asarray(count, jnp.float64)), steps)
    first = int(np.argmax(abs(ours - theirs) > 1e-5 * abs(theirs)))
    found = hyperparameter(ours.tolist(), theirs.tolist(), step=first)
    assert (found.name, said in found.message) == (name, True), found


BEFORE, MEANS = RNG.normal(size=6), RNG.uniform(1, 2, 6)


def buffers(yours):
    return diagnosis.explain_buffers(yours, 0.9 * BEFORE + 0.1 * MEANS, BEFORE, 0.1, 8)


BUFFERS = {
    "biased-variance": buffers(0.9 * BEFORE + 0.1 * MEANS * 31 / 32),
    "batchnorm-momentum": buffers(0.1 * BEFORE + 0.9 * MEANS),
    None: buffers(0.9 * BEFORE + 0.1 * np.sqrt(MEANS)),
}

DENSE = RNG.normal(size=(16, 3))  # after four channels of two by two


def forward(*changed):
    """Explain an output that is torch's once the leaves are these."""
    wanted = {"conv/kernel": CONV, "dense/kernel": DENSE, "square/kernel": SQUARE} | dict(changed)
    given = {"conv/kernel": CONV, "dense/kernel": DENSE, "square/kernel": SQUARE}

    def evaluate(leaves):
        return max(float(np.max(np.abs(leaves[n] - x))) for n, x in wanted.items())

    return diagnosis.explain_forward(given, evaluate)


HWC = DENSE.reshape(4, 2, 2, 3).transpose(1, 2, 0, 3).reshape(16, 3)
FORWARDS = {
    "transposed": forward(("square/kernel", SQUARE.T)),
    "kernel-flipped": forward(("conv/kernel", CONV[::-1, ::-1])),
    "flatten-order": forward(("dense/kernel", HWC)),
    None: forward(("dense/kernel", DENSE[::-1])),
}

STAGES = {
    "parameters": PARAMETERS, "gradient": GRADIENTS, "output": OUTPUTS, "loss": LOSSES,
    "data": DATA, "clipping": CLIPPINGS, "hyperparameters": HYPERPARAMETERS, "buffers": BUFFERS,
    "forward": FORWARDS,
}  # fmt: skip
CASES = [(stage, name) for stage, causes in STAGES.items() for name in causes]


def test_a_batch_that_torch_has_not_had_is_told_by_those_after_it():
    other = [np.sin(9 * BATCHES[1][0]), BATCHES[1][1]]
    cause = data(other, later=[BATCHES[0], BATCHES[1]])
    assert cause.message == "your batch of step 2 is torch's of step 0, 2 earlier"
    assert data(other, later=[BATCHES[0], BATCHES[2]]) is None


def test_the_last_batches_are_kept():
    """A run may be longer than what is kept, and go back."""
    batches = Batches()
    for step in range(300):
        batches.add(step, [np.full(3, step)])
    assert (min(batches.kept), max(batches.kept)) == (44, 299)
    batches.truncate(290)
    assert [int(b[0][0]) for b in batches.after(287)] == [288, 289]
    batches.add(290, [np.zeros(2**25)])  # 256 MB alone
    assert [*batches.kept] == [290]
    assert diagnosis.explain_data([np.ones(3)], batches.kept, 289) is None


def test_a_schedule_that_begins_anew_is_seen():
    cause = hyperparameter([*RATES[:5], *RATES[:5]], step=5)
    assert cause.name == "schedule-offset"
    assert "begins anew at step 5" in cause.message


def test_each_leaf_clipped_by_its_own_norm_is_told_from_each_group():
    torchs = {path: g * (1.0 / (TOTAL + 1e-6)) for path, g in CLIPPED_OF.items()}
    yours = {path: g / (NORMS[path] + 1e-6) for path, g in CLIPPED_OF.items()}
    cause = diagnosis.explain_clipping(yours, torchs, CLIPPED_OF, {"a": 0, "b": 0})
    assert (cause.name, "each leaf" in cause.message) == ("clip-per-group", True)


@pytest.mark.parametrize(
    ("labels", "wanted"), [([0, 1, 1, 2, 0], "labels-shifted"), ([3, 1, 4, 2, 0], None)]
)
def test_labels_are_renumbered_where_one_number_stands_for_another(labels, wanted):
    """Where each example has a label of its own, any others would be that."""
    torchs = np.array(labels)
    cause = diagnosis.explain_data([torchs**2 + 5], {0: [torchs]}, 0)
    assert (None if cause is None else cause.name) == wanted, cause


def test_half_a_loss_may_be_optaxs_and_no_other_factor_is():
    half, third = loss(entropy() / 2), loss(entropy() * 3)
    assert (half.name, "optax.l2_loss" in half.remedy) == ("loss-scale", True)
    assert (third.name, third.remedy) == ("loss-scale", "leave the factor out")


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_a_fault_is_named(stage, name):
    cause = STAGES[stage][name]
    assert (None if cause is None else cause.name) == name, cause
    assert cause is None or (name in CAUSES and cause.message and cause.remedy)


def test_every_cause_that_is_named_has_a_description():
    assert all(words and len(words) < 100 for words in CAUSES.values())
    sources = [p.read_text("utf-8") for p in Path(verify.__file__).parent.rglob("*.py")]
    named = {n for s in sources for n in re.findall(r'\bCause\(\s*(?:#.*\s*)?"([a-z-]+)"', s)}
    assert named
    assert named <= CAUSES.keys()
