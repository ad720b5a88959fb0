"""The diagnosis of a loss by its gradient in the output: made losses, and their causes."""

import functools
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn.functional import cross_entropy

from jaxopt_port.verify import diagnosis
from jaxopt_port.verify.diagnosis._loss_gradients import explain_by_gradient

RNG = np.random.default_rng(11)
LOGITS, LABELS = RNG.normal(size=(8, 5)), RNG.integers(0, 5, 8)


softmax = functools.partial(special.softmax, axis=-1)
DISTINCT = np.arange(5)  # a label of each row's own
WEIGHTS = RNG.uniform(0.5, 2, 8)
BY_CLASS = np.array([1.0, 2.0, 0.5, 1.0, 3.0])


def pulled(labels, weights=1.0, towards=None, penalty=0.0, focal=0.0):
    """Return the gradient of a cross entropy in its logits."""
    logits = LOGITS[: len(labels)]
    chances, hot = softmax(logits), np.eye(5)[labels if towards is None else towards]
    total = np.log(np.exp(logits).sum(-1, keepdims=True))
    right = (chances * hot).sum(-1, keepdims=True)
    # The derivative of (1 - p) ** focal * -log(p), over that of -log(p).
    factor = (1 - right) ** focal - focal * right * (1 - right) ** max(focal - 1, 0) * np.log(right)
    made = (chances - hot) * factor + 2 * penalty * total * chances
    return made * np.broadcast_to(weights, len(labels))[:, None] / len(labels)


def by_gradient(mine, theirs=None, labels=LABELS):
    theirs = pulled(labels) if theirs is None else theirs
    return explain_by_gradient(LOGITS[: len(labels)], mine, theirs, [labels])


BY_GRADIENT = {
    "class weights": (by_gradient(pulled(LABELS, BY_CLASS[LABELS])), "class-weights"),
    "weights, and the number of labels": (
        by_gradient(
            pulled(LABELS, BY_CLASS[LABELS]),
            pulled(LABELS, 8 * BY_CLASS[LABELS] / BY_CLASS[LABELS].sum()),
        ),
        "class-weights",
    ),
    "weights, and a factor besides": (
        by_gradient(
            pulled(LABELS, 12 * BY_CLASS[LABELS] / BY_CLASS[LABELS].sum()),
            pulled(LABELS, 8 * BY_CLASS[LABELS] / BY_CLASS[LABELS].sum()),
        ),
        None,
    ),
    "a factor": (by_gradient(pulled(LABELS, 1.5)), None),
    "a weight of each example's own": (by_gradient(pulled(LABELS, WEIGHTS)), None),
    "a weight of each example's own, labels distinct": (
        by_gradient(pulled(DISTINCT, WEIGHTS[:5]), labels=DISTINCT), None
    ),
    "a focal loss": (by_gradient(pulled(LABELS, focal=2.0)), "loss-kind"),
    "torch's focal loss": (by_gradient(pulled(LABELS), pulled(LABELS, focal=1.5)), "loss-kind"),
    "a focal loss of an odd power": (by_gradient(pulled(LABELS, focal=2.2)), None),
    "classes numbered otherwise": (
        by_gradient(pulled(LABELS, towards=(2 * LABELS + 1) % 5)), "labels-shifted"
    ),
    "unrelated targets, labels distinct": (
        by_gradient(pulled(DISTINCT, towards=[2, 2, 0, 1, 0]), labels=DISTINCT), None
    ),
    "torch's gradient is not finite": (by_gradient(pulled(LABELS), np.full((8, 5), np.nan)), None),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_rows_and_their_weights(name):
    cause, wanted = BY_GRADIENT[name]
    assert (None if cause is None else cause.name) == wanted, cause


@pytest.mark.parametrize("smoothed", [0.0, 0.1])
def test_of_a_vocabulary_there_is_no_square(smoothed):
    classes = 20_000
    logits, labels = RNG.normal(size=(4, classes)), RNG.integers(0, classes, 4)
    hot = np.zeros_like(logits)
    hot[np.arange(4), labels] = 1
    theirs = (softmax(logits) - hot) / 4
    tracemalloc.start()
    cause = explain_by_gradient(
        logits, 2 * theirs + smoothed * (hot - 1 / classes), theirs, [labels]
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (None if cause is None else cause.name) == ("label-smoothing" if smoothed else None)
    assert peak < 40 * logits.nbytes


CHANCES, HOT = softmax(LOGITS), np.eye(5)[LABELS]


def in_logits(away):
    """The gradient in logits, of that in their probabilities."""
    return CHANCES * (away - (CHANCES * away).sum(-1, keepdims=True)) / 8


# Your gradient in an output, and torch's; what is said of both.
TAKEN_FOR = {
    "softmax twice": (LOGITS, in_logits(softmax(CHANCES) - HOT), CHANCES - HOT, "for logits whose"),
    "a temperature": (LOGITS, softmax(LOGITS / 4) - HOT, CHANCES - HOT, "for logits times 0.25; "),
    "probabilities": (CHANCES, -HOT / CHANCES, softmax(CHANCES) - HOT, "for probabilities; torch"),
    "no logarithm": (CHANCES, -HOT, -HOT / CHANCES, "for logarithms of probabilities; "),
    "alike": (LOGITS, softmax(LOGITS / 4) - HOT, 2 * softmax(LOGITS / 4) - 2 * HOT, None),
    "a power": (LOGITS, CHANCES**2 - HOT, CHANCES - HOT, None),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN_FOR)
def test_what_a_cross_entropy_takes_its_output_for(name):
    output, mine, theirs, words = TAKEN_FOR[name]
    cause = explain_by_gradient(output, mine, theirs, [LABELS])
    assert (cause is None) == (words is None), cause
    assert words is None or (cause.name, words in cause.message) == ("loss-kind", True), cause


ERRORS = RNG.normal(size=(8, 5))
TRUTH = (RNG.uniform(size=(8, 5)) > 0.5).astype(np.float64)


def huber(delta):
    return np.clip(ERRORS, -delta, delta) / 40


def binary(weight=1.0, smooth=0.0):
    """The gradient of a binary cross entropy of the logits `ERRORS` + `TRUTH`."""
    chances = 1 / (1 + np.exp(-(ERRORS + TRUTH)))
    made = (1 - TRUTH) * chances - weight * TRUTH * (1 - chances)
    return (made + smooth * (TRUTH - 0.5)) / 40


# Your gradient and torch's; what is said of each.
OF_TARGETS = {
    "other deltas": (huber(1.0), huber(0.7), "Huber's with delta=1; torch's is Huber's with de"),
    "a delta that no error reaches": (
        huber(9.0), huber(0.7), "squared error (or Huber's with a delta beyond"
    ),
    "absolute errors": (np.sign(ERRORS), huber(0.7), "the absolute error; torch's is Huber's"),
    "no pos_weight": (binary(), binary(3.0), "logits; torch's is the binary cross entropy of "
                      "logits with pos_weight=3"),
    "another pos_weight": (binary(2.5), binary(3.0), "logits with pos_weight=2.5; torch's is"),
    "smoothed targets": (binary(smooth=0.1), binary(), "its targets smoothed by 0.1; torch's is"),
    "another loss": (binary(), 2 * ERRORS, "logits; torch's is the squared error"),
    "both at once": (binary(3.0, 0.1), binary(), None),
}  # fmt: skip


SIGNS = 2 * TRUTH - 1
HALVES = softmax(np.cos(np.arange(40.0)).reshape(8, 5))
LEFT = np.maximum(1 - SIGNS * LOGITS, 0)
# Output, target, your gradient and torch's; what is said.
OF_KINDS = {
    "a hinge": (LOGITS, SIGNS, -SIGNS * (LEFT > 0), -SIGNS * LEFT,
                "your loss is the hinge loss; torch's is the squared hinge loss"),
    "a logistic loss": (LOGITS, SIGNS, -SIGNS / (1 + np.exp(SIGNS * LOGITS)), -SIGNS * LEFT,
                        "the logistic loss; torch's is the squared hinge"),
    "a quantile": (LOGITS, ERRORS, np.where(LOGITS > ERRORS, 0.2, -0.8), np.sign(LOGITS - ERRORS),
                   "the quantile's with 0.8; torch's is the absolute error"),
    "Poisson's": (LOGITS**2, np.abs(SIGNS), LOGITS**2 - 1, 1 - 1 / LOGITS**2,
                  "the squared error; torch's is Poisson's of rates"),
    "Poisson's of logarithms": (LOGITS, 2 * TRUTH, LOGITS - 2 * TRUTH, np.exp(LOGITS) - 2 * TRUTH,
                                "the squared error; torch's is Poisson's of logarithms"),
    "soft targets": (LOGITS, HALVES, LOGITS - HALVES, CHANCES - HALVES,
                     "the squared error; torch's is the cross entropy of logits and soft targets"),
    "probabilities' error": (
        LOGITS, HALVES, in_logits(CHANCES - HALVES), CHANCES - HALVES,
        "the squared error of probabilities, of logits; torch's is the cross entropy of logits and",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_KINDS)
def test_what_kind_of_loss_it_is(name):
    output, target, mine, theirs, words = OF_KINDS[name]
    cause = explain_by_gradient(output, mine, theirs, [target])
    assert cause is not None
    assert (cause.name, words in cause.message) == ("loss-kind", True), cause


@pytest.mark.parametrize("name", OF_TARGETS)
def test_what_a_loss_of_targets_is(name):
    mine, theirs, words = OF_TARGETS[name]
    cause = explain_by_gradient(ERRORS + TRUTH, mine, theirs, [TRUTH])
    assert (cause is None) == (words is None)
    assert words is None or words in cause.message


def test_labels_are_what_torchs_loss_pulls_towards():
    """Tokens that are read stand beside those that are to be found, of one shape and kind."""
    tokens = np.roll(LABELS, 1)
    counts = LABELS != 0
    theirs = pulled(LABELS, counts / counts.mean())
    cause = explain_by_gradient(LOGITS, pulled(LABELS), theirs, [tokens, LABELS])
    assert cause.message.startswith("your loss counts the label 0 (")
    batch = [tokens, LABELS]
    given = ([counts.mean() * theirs], [theirs])
    cause = diagnosis.explain_loss(counts.mean(), 1.0, [LOGITS], batch, {}, None, given)
    assert f"over all 8 labels, where torch takes it over the {counts.sum()} that" in cause.message


def distilled(soft, hard=0.5, temperature=4.0):
    """A cross entropy and a distillation, of a teacher that is in no batch."""
    teacher = np.sin(np.arange(40.0)).reshape(8, 5)
    apart = softmax(LOGITS / temperature) - softmax(teacher / temperature)
    return hard * pulled(LABELS) + soft * apart / 8


# Your gradients in the outputs, and torch's; what is said of them.
TERMS = {
    "no square of the temperature": (
        [distilled(0.5 / 16)], [distilled(0.5)],
        "0.0625 times torch's, and 0.46875 times the mean cross entropy of the labels besides",
    ),
    "more of the labels": (
        [distilled(0.5, 0.75)], [distilled(0.5)], "1 times torch's, and 0.25 times the mean cross"
    ),
    "another temperature": ([distilled(0.5, temperature=2.0)], [distilled(0.5)], None),
    "a latent's term": (
        [ERRORS, TRUTH / 4, ERRORS / 4], [ERRORS, TRUTH, ERRORS],
        "the terms of output 0 as torch's, of outputs 1, 2 0.25 times torch's",
    ),
    "one number beside an output": (
        [np.array(0.5), distilled(0.5, 0.7)], [np.array(0.2), distilled(0.5)],
        "and 0.2 times the mean cross",
    ),
    "a term left out of one number": (
        [ERRORS, np.array(0.5)], [ERRORS, np.array(0.31371234)],
        "the terms of output 0 as torch's, of output 1, one number each, otherwise than torch's",
    ),
    "a half, and what it does to one number": (
        [ERRORS, TRUTH / 2, np.array(0.5)], [ERRORS, TRUTH, np.array(0.31371234)],
        "the terms of output 0 as torch's, of output 1 0.5 times torch's",
    ),
    "a scale that was learned": (
        [ERRORS * np.exp(0.63), TRUTH, np.array(0.5)], [ERRORS, TRUTH, np.array(0.31371234)], None
    ),
    "all terms alike": ([ERRORS / 7, TRUTH / 7], [ERRORS, TRUTH], None),
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_terms_that_have_other_weights(name):
    mine, torchs, words = TERMS[name]
    outputs = [LOGITS if side.ndim else side for side in mine]
    cause = diagnosis.explain_loss(1 / 7, 1.0, outputs, [LABELS], {}, None, (mine, torchs))
    assert (cause is None) == (words is None), cause
    assert words is None or (cause.name, words in cause.message) == ("loss-terms", True), cause


@pytest.mark.parametrize(
    ("ratio", "shape", "words", "remedy"),
    [
        (0.5, (8, 2), "a mean over what is in each example or the last axis (2)", "l2_loss"),
        (0.5, (8, 2), "or a factor of 0.5 in your loss, or of 2 in torch's", "take the sum"),
        (0.1, (10, 3), "or a factor of 0.1 in your loss", "; or leave the factor out"),
        (2.0, (8, 2), "takes the mean; or a factor of 2 in your loss", "take the mean"),
        (0.125, (8, 3), "a mean over the examples of the batch (8), where torch takes the sum", ""),
        (0.5, (8, 3), "your loss is 0.5 times torch's", "leave the factor out; optax.l2_loss"),
    ],
)
def test_a_factor_that_is_as_large_as_an_axis(ratio, shape, words, remedy):
    output = np.ones(shape)
    cause = diagnosis.explain_loss(ratio / 3, 1 / 3, [output], [output], {})
    assert (cause.name, words in cause.message, remedy in cause.remedy) == (
        "loss-scale", True, True
    ), cause  # fmt: skip


def test_a_constant_trains_nothing():
    cause = diagnosis.explain_loss(1.5, 1.25, [LOGITS], [], {}, None, ([ERRORS], [ERRORS]))
    assert (cause.name, "plus 0.25, which is a constant in" in cause.message) == (
        "additional-term",
        True,
    )


def test_classes_may_be_the_first_axis_of_an_example():
    """As of images: (N, C, H, W)."""
    logits, labels = RNG.normal(size=(2, 5, 3, 4)), RNG.integers(0, 5, (2, 3, 4))
    chances = softmax(logits.transpose(0, 2, 3, 1))
    theirs = (chances - np.eye(5)[labels]).transpose(0, 3, 1, 2) / 24
    mine = theirs * BY_CLASS[labels][:, None]
    assert explain_by_gradient(logits, mine, theirs, [labels]).name == "class-weights"


def test_numbers_that_are_no_classes_are_no_labels():
    """Lengths beside a mean and its deviation."""
    lengths = np.array([3, 5, 1, 4, 2, 5, 6, 3])
    mine, theirs = ERRORS[:, :2] + 0.1, ERRORS[:, :2]
    assert explain_by_gradient(LOGITS[:, :2], mine, theirs, [lengths]) is None


@pytest.mark.parametrize(
    ("mine", "torchs", "words"),
    [
        (1e-3, 0.0, "your loss has 0.001 of it; torch's has none of it"),
        (0.0, 1e-3, "your loss has none of it; torch's has 0.001 of it"),
        (1e-3, 3e-3, "your loss has 0.001 of it; torch's has 0.003 of it"),
    ],
)
def test_a_term_is_told_of_the_side_that_has_it(mine, torchs, words):
    cause = by_gradient(pulled(LABELS, penalty=mine), pulled(LABELS, penalty=torchs))
    assert cause.name == "additional-term"
    assert words in cause.message


TOKENS = torch.tensor(RNG.integers(0, 5, (4, 7)))
OF_TOKENS = torch.tensor(RNG.normal(size=(4, 7, 5)))
EACH = {"reduction": "none"}


def of_next(logits, tokens, **options):
    """The cross entropy of each token by the logits of the position before it."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), **options)


def but_padding(logits, tokens):
    """Each sequence's sum without its padding, and how many labels it has."""
    losses = of_next(logits, tokens, ignore_index=0, **EACH).reshape(4, 6)
    return losses.sum(1), (tokens[:, 1:] != 0).sum(1)


def z_loss(logits, tokens):
    return of_next(logits, tokens) + 1e-3 * logits[:, :-1].logsumexp(-1).square().mean()


def mean_of_sequences(logits, tokens):
    sums, counts = but_padding(logits, tokens)
    return (sums / counts).mean()


# Losses of the next token, your own and torch's, whose labels are in no batch.
WITHOUT_PADDING = functools.partial(of_next, ignore_index=0)
OF_NEXT = {
    "smoothing": (
        of_next, functools.partial(of_next, label_smoothing=0.1),
        "your cross entropy has label smoothing 0; torch's has 0.1",
    ),
    "padding counts": (of_next, WITHOUT_PADDING, "your loss counts the label 0 ("),
    "no shift": (
        lambda logits, tokens: cross_entropy(logits.flatten(0, 1), tokens.flatten()),
        of_next, "your loss takes each label from the position before it",
    ),
    "the other way": (
        lambda logits, tokens: cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, :-1].flatten()),
        of_next, "your loss takes each label from two positions before it",
    ),
    "rolled": (
        lambda logits, tokens: cross_entropy(
            logits.flatten(0, 1), tokens.roll(-1, 1).flatten()
        ),
        of_next, "your loss counts position 6 of 7; torch's does not",
    ),
    "a mean for each sequence": (
        mean_of_sequences, WITHOUT_PADDING, "takes the mean of each sequence, and then the mean",
    ),
    "a mean over padding, too": (
        lambda logits, tokens: but_padding(logits, tokens)[0].sum() / 24,
        WITHOUT_PADDING, "a mean over all 24 labels, where torch takes it over the ",
    ),
    "a sum": (
        lambda *given: 24 * of_next(*given), of_next, "a sum over all positions but the last (24)",
    ),
    "a z-loss": (z_loss, of_next, "your loss has 0.001 of it; torch's has none of it"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_NEXT)
def test_a_loss_of_the_next_token(name):
    *sides, words = OF_NEXT[name]
    values, gradients = [], []
    for loss in sides:
        logits = OF_TOKENS.clone().requires_grad_()
        value = loss(logits, TOKENS)
        values.append(value.item())
        (gradient,) = torch.autograd.grad(value, logits)
        gradients.append([gradient.numpy()])
    outputs, batch = [OF_TOKENS.numpy()], [TOKENS.numpy()]
    cause = diagnosis.explain_loss(*values, outputs, batch, {}, None, gradients)
    assert words in cause.message


def test_tokens_of_which_the_last_is_not_read():
    """One more of them than the output has positions."""
    labels = np.stack([LABELS, LABELS]).reshape(2, 8)
    logits = np.stack([LOGITS, LOGITS[::-1]])
    tokens = np.concatenate([labels[:, :1], labels], 1)
    theirs = (softmax(logits) - np.eye(5)[labels]) / 16
    mine = theirs * (labels != 2)[..., None]
    cause = explain_by_gradient(logits, mine, theirs, [tokens])
    assert cause.message.startswith("torch's loss counts the label 2 (")
