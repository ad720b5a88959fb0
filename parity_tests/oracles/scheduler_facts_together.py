"""Facts of several schedulers: one after the other, in a chain, by hand, and averaging."""

from __future__ import annotations

import numpy as np

from parity_tests.oracles.scheduler_fact import (
    Fact,
    annealed,
    bent,
    cosine,
    linear,
    multistep,
    passed,
    reduced,
    step,
    straight,
)

TOGETHER: dict[str, Fact] = {
    # ── one after the other ──
    "exponential, then step": Fact(
        lambda s: s.SequentialLR([s.ExponentialLR(0.8), s.StepLR(4, 0.1)], [3]),
        lambda lr, i: lr * (0.8**i if i < 3 else 0.1 ** ((i - 3) // 4)),
        steps=19,
    ),
    "constant, then exponential": Fact(
        lambda s: s.SequentialLR([s.ConstantLR(0.1, 3), s.ExponentialLR(0.9)], [3]),
        lambda lr, i: lr * (0.1 if i < 3 else 0.9 ** (i - 3)),
        steps=13,
    ),
    "three": Fact(
        lambda s: s.SequentialLR(
            [s.ConstantLR(0.1, 3), s.ExponentialLR(0.8), s.StepLR(2, 0.1)], [3, 6]
        ),
        lambda lr, i: lr * (0.1 if i < 3 else 0.8 ** (i - 3) if i < 6 else 0.1 ** ((i - 6) // 2)),
        steps=12,
    ),
    "two constants": Fact(
        lambda s: s.SequentialLR([s.ConstantLR(1.0), s.ConstantLR(0.1)], [10]), lambda lr, i: lr
    ),
    "a chain, then constant": Fact(
        lambda s: s.SequentialLR(
            [
                s.ChainedScheduler([s.LinearLR(0.1, total_iters=5), s.ConstantLR(0.1, 5)]),
                s.ConstantLR(0.5, 5),
            ],
            [5],
        ),
        lambda lr, i: lr * (0.1 * linear(i, 0.1, 1.0, 5) if i < 5 else 0.5),
    ),
    "up, then down": Fact(
        lambda s: s.SequentialLR([s.LinearLR(0.1, 0.8, 4), s.LinearLR(0.8, 0.1, 4)], [4]),
        lambda lr, i: lr * (linear(i, 0.1, 0.8, 4) if i < 4 else linear(i - 4, 0.8, 0.1, 4)),
        steps=8,
        lrs=(np.array(2.0), np.array(2.0)),
    ),
    # ── all at once, in a chain ──
    "a chain of one": Fact(lambda s: s.ChainedScheduler([s.StepLR(3, 0.1)]), step),
    "a chain of a line": Fact(
        lambda s: s.ChainedScheduler([s.LinearLR(0.4, total_iters=3)]),
        lambda lr, i: lr * linear(i, 0.4, 1.0, 3),
    ),
    "a line and milestones": Fact(
        lambda s: s.ChainedScheduler(
            [s.LinearLR(0.4, total_iters=3), s.MultiStepLR([4, 8, 10], 0.1)]
        ),
        lambda lr, i: lr * linear(i, 0.4, 1.0, 3) * 0.1 ** passed([4, 8, 10], i),
    ),
    "a chain of three": Fact(
        lambda s: s.ChainedScheduler([s.ExponentialLR(0.9), s.ConstantLR(0.2, 4), s.StepLR(3)]),
        lambda lr, i: lr * 0.9**i * (0.2 if i < 4 else 1) * 0.1 ** (i // 3),
    ),
    "a polynomial and a constant": Fact(
        lambda s: s.ChainedScheduler([s.PolynomialLR(5, 0.9), s.ConstantLR(0.1)]),
        lambda lr, i: lr * max(0.0, 1 - i / 5) ** 0.9 * (0.1 if i < 5 else 1),
    ),
    # ── all at once, by hand ──
    "step and milestones": Fact(
        lambda s: [s.StepLR(3, 0.1), s.MultiStepLR([2, 5, 9], 0.1)],
        lambda lr, i: step(lr, i) * 0.1 ** passed([2, 5, 9], i),
    ),
    "step and exponential": Fact(
        lambda s: [s.StepLR(3, 0.1), s.ExponentialLR(0.9)], lambda lr, i: step(lr, i) * 0.9**i
    ),
    "milestones and exponential": Fact(
        lambda s: [s.MultiStepLR([2, 5, 9], 0.1), s.ExponentialLR(0.9)],
        lambda lr, i: multistep(lr, i) * 0.9**i,
    ),
    "line and exponential": Fact(
        lambda s: [s.LinearLR(0.4, 0.9, 4), s.ExponentialLR(0.9)],
        lambda lr, i: lr * linear(i, 0.4, 0.9, 4) * 0.9**i,
    ),
    "step and constant": Fact(
        lambda s: [s.StepLR(3, 0.1), s.ConstantLR(0.4, 4)],
        lambda lr, i: step(lr, i) * (0.4 if i < 4 else 1),
    ),
    "milestones and line": Fact(
        lambda s: [s.MultiStepLR([2, 5, 9], 0.1), s.LinearLR(0.4, total_iters=4)],
        lambda lr, i: multistep(lr, i) * linear(i, 0.4, 1.0, 4),
    ),
    "cosine and step": Fact(
        lambda s: [s.CosineAnnealingLR(10), s.StepLR(3, 0.1)],
        lambda lr, i: cosine(lr, i, 10, 0.0) * 0.1 ** (i // 3),
    ),
    "cosine and milestones": Fact(
        lambda s: [s.CosineAnnealingLR(10), s.MultiStepLR([2, 5, 9], 0.1)],
        lambda lr, i: cosine(lr, i, 10, 0.0) * 0.1 ** passed([2, 5, 9], i),
    ),
    "line and cosine": Fact(
        lambda s: [s.LinearLR(0.4, total_iters=4), s.CosineAnnealingLR(10)],
        lambda lr, i: cosine(lr, i, 10, 0.0) * linear(i, 0.4, 1.0, 4),
    ),
    "cosine and exponential": Fact(
        lambda s: [s.CosineAnnealingLR(10), s.ExponentialLR(0.1)],
        lambda lr, i: cosine(lr, i, 10, 0.0) * 0.1**i,
    ),
    "a plateau that improves, and step": Fact(
        lambda s: [s.ReduceLROnPlateau("min", 0.1, 5, 0.01, "abs", 5), s.StepLR(3, 0.1)],
        step,
        lrs=(0.5, 0.5),
        told=[10 - i * 0.0167 for i in range(10)],
    ),
    "a plateau that stalls, and milestones": Fact(
        lambda s: [s.ReduceLROnPlateau("min", 0.1, 5, 0.1, "abs"), s.MultiStepLR([3, 8, 12], 0.1)],
        lambda lr, i: reduced(6, 13, 20)(lr, i) * 0.1 ** passed([3, 8, 12], i),
        lrs=(0.5, 0.5),
        told=[10 - i * 0.0165 for i in range(22)],
    ),
    # Its first reduction would be one of 4.5e-9, less than its eps.
    "a plateau below its eps, and exponential": Fact(
        lambda s: [
            s.ReduceLROnPlateau("max", 0.1, 5, threshold_mode="abs", cooldown=5),
            s.ExponentialLR(0.1),
        ],
        lambda lr, i: lr * 0.1**i,
        lrs=(0.5, 0.5),
        told=[-0.8] * 2 + [-0.234] * 20,
    ),
    "a plateau that improves, and cosine": Fact(
        lambda s: [s.ReduceLROnPlateau("max", 0.1, 3, 0.1), s.CosineAnnealingLR(10, 1e-10)],
        lambda lr, i: cosine(lr, i, 10),
        lrs=(0.05, 0.05),
        told=[1.5 * 1.025**i for i in range(10)],
    ),
    "a plateau that stalls, and line": Fact(
        lambda s: [
            s.ReduceLROnPlateau("min", 0.1, 5, 0.1, "abs"),
            s.LinearLR(0.4, total_iters=4),
        ],
        lambda lr, i: reduced(6, 13, 20)(lr, i) * linear(i, 0.4, 1.0, 4),
        lrs=(0.5, 0.5),
        told=[10 - i * 0.0165 for i in range(22)],
    ),
    # ── averaging: another scheduler for five steps, then SWALR ──
    "swa at once": Fact(
        lambda s: [(None, 5), (s.SWALR(0.01, 1), 10)], lambda lr, i: lr if i <= 5 else 0.01
    ),
    "swa cosine": Fact(
        lambda s: [(s.MultiplicativeLR(lambda e: 0.9), 5), (s.SWALR(0.01, 5), 15)],
        lambda lr, i: annealed(lr, 0.01, i, 5, bent),
        steps=15,
    ),
    "swa linear": Fact(
        lambda s: [
            (s.MultiplicativeLR(lambda e: 0.9), 5),
            (s.SWALR([0.01, 0.02], 4, "linear"), 15),
        ],
        (
            lambda lr, i: annealed(lr, 0.01, i, 4, straight),
            lambda lr, i: annealed(lr, 0.02, i, 4, straight),
        ),
        steps=15,
    ),
}
