"""What torch's own tests of its schedulers hold for true, as formulas of the step.

Each fact is a scheduler, or several that are stepped in turn, of an optimizer with two groups; the
rates, and the momenta where they move, that each group has before step 0, 1, 2, …
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from parity_tests.oracles.scheduler_fact import (
    Fact,
    bent,
    between,
    cosine,
    cyclic,
    linear,
    momentum_of,
    multistep,
    reduced,
    restarted,
    step,
    straight,
)
from parity_tests.oracles.scheduler_facts_together import TOGETHER


def _cycle(s: Any, **more: Any) -> Any:
    arguments = {"base_lr": 1, "max_lr": 5, "base_momentum": 1, "max_momentum": 5, **more}
    return s.CyclicLR(**arguments)


def _lists(more: int) -> dict[str, Any]:
    low, high = [1, 1 + more], [5, 5 + more]
    return {"base_lr": low, "max_lr": high, "base_momentum": low, "max_momentum": high}


_ONE_CYCLE = {"max_lr": 25, "base_momentum": 1, "max_momentum": 22, "total_steps": 10}
_RATES = [(0, 1.0), (2, 25.0), (9, 0.5)]
_MOMENTA = [(0, 22.0), (2, 1.0), (9, 22.0)]
_THREE_RATES = [(0, 1.0), (3, 25.0), (6, 1.0), (9, 0.25)]
_THREE_MOMENTA = [(0, 22.0), (3, 1.0), (6, 22.0), (9, 22.0)]

ONE = (lambda i: 1.0, lambda i: 0.5 ** (i // 8), lambda i: 0.9**i)

FACTS: dict[str, Fact] = {
    "step": Fact(lambda s: s.StepLR(3, 0.1), step),
    "multistep": Fact(lambda s: s.MultiStepLR([2, 5, 9], 0.1), multistep),
    "constant": Fact(lambda s: s.ConstantLR(0.5, 5), lambda lr, i: lr * (0.5 if i < 5 else 1)),
    "linear": Fact(
        lambda s: s.LinearLR(0.5, total_iters=4), lambda lr, i: lr * linear(i, 0.5, 1.0, 4)
    ),
    "linear to less": Fact(
        lambda s: s.LinearLR(0.25, 0.6, 4), lambda lr, i: lr * linear(i, 0.25, 0.6, 4)
    ),
    "exponential": Fact(lambda s: s.ExponentialLR(0.9), lambda lr, i: lr * 0.9**i),
    "polynomial": Fact(
        lambda s: s.PolynomialLR(5, 0.9), lambda lr, i: lr * max(0.0, 1 - i / 5) ** 0.9
    ),
    "cosine": Fact(lambda s: s.CosineAnnealingLR(10, 1e-10), lambda lr, i: cosine(lr, i, 10)),
    "lambda": Fact(
        lambda s: s.LambdaLR([lambda e: 0.9**e, lambda e: 0.8**e]),
        (lambda lr, i: lr * 0.9**i, lambda lr, i: lr * 0.8**i),
        lrs=(0.05, 0.4),
    ),
    "multiplicative": Fact(
        lambda s: s.MultiplicativeLR([lambda e: 0.9, lambda e: 0.8]),
        (lambda lr, i: lr * 0.9**i, lambda lr, i: lr * 0.8**i),
        lrs=(0.05, 0.4),
    ),
    **{
        f"restarts times {k}": Fact(
            lambda s, k=k: s.CosineAnnealingWarmRestarts(10, k, 1e-10),
            lambda lr, i, k=k: cosine(lr, *restarted(i, 10, k)),
            steps=100,
        )
        for k in (1, 2, 4)
    },
    # ── told the epoch: the rates of that epoch, whatever was before ──
    "step of epochs": Fact(lambda s: s.StepLR(3, 0.1), step, told=range(20)),
    "multistep of epochs": Fact(lambda s: s.MultiStepLR([2, 5, 9], 0.1), multistep, told=range(20)),
    "constant of epochs": Fact(
        lambda s: s.ConstantLR(1 / 3, 4), lambda lr, i: lr * (1 / 3 if i < 4 else 1), told=range(20)
    ),
    "linear of epochs": Fact(
        lambda s: s.LinearLR(1 / 3, 0.7, 4),
        lambda lr, i: lr * linear(i, 1 / 3, 0.7, 4),
        told=range(20),
    ),
    "exponential of epochs": Fact(
        lambda s: s.ExponentialLR(0.9), lambda lr, i: lr * 0.9**i, told=range(20)
    ),
    "polynomial of epochs": Fact(
        lambda s: s.PolynomialLR(power=0.9),
        lambda lr, i: lr * max(0.0, 1 - i / 5) ** 0.9,
        told=range(20),
    ),
    "cosine of epochs": Fact(
        lambda s: s.CosineAnnealingLR(5, 1e-10), lambda lr, i: cosine(lr, i, 5), told=range(20)
    ),
    "constant of ten epochs": Fact(
        lambda s: s.ConstantLR(0.5, 5), lambda lr, i: lr * (0.5 if i < 5 else 1), told=range(10)
    ),
    "linear of ten epochs": Fact(
        lambda s: s.LinearLR(0.5, total_iters=4),
        lambda lr, i: lr * linear(i, 0.5, 1.0, 4),
        told=range(10),
    ),
    **{
        f"restarts of fractions times {k}": Fact(
            lambda s, k=k: s.CosineAnnealingWarmRestarts(10, k, 1e-10),
            lambda lr, i, k=k: cosine(lr, *restarted(i, 10, k)),
            told=[i / 8 for i in range(240)],
        )
        for k in (1, 2, 4)
    },
    **{
        f"restarts to and fro times {k}": Fact(
            lambda s, k=k: s.CosineAnnealingWarmRestarts(10, k, 1e-10),
            lambda lr, i, k=k: cosine(lr, *restarted(i, 10, k)),
            told=told,
        )
        for k, told in [
            (1, [0, 1, 2, 3, 4, 5, 12, 27, 3, 4, 5, 6, 13]),
            (2, [0, 1, 2, 3, 4, 5, 25, 32, 33, 34, 80, 81, 3]),
            (3, [0, 0.125, 0.25, 1.25, 2.25, 17.5, 18.5, 19.5, 29.5, 30.5, 31.5, 50]),
        ]
    },
    # ── cycles ──
    "triangular": Fact(
        lambda s: _cycle(s, step_size_up=4), cyclic(ONE[0]), momentum_of(cyclic(ONE[0])), 11
    ),
    "triangular without momentum": Fact(
        lambda s: _cycle(s, step_size_up=4, cycle_momentum=False),
        cyclic(ONE[0]),
        lambda _, i: 0.0,
        11,
    ),
    "triangular2": Fact(
        lambda s: _cycle(s, step_size_up=4, mode="triangular2"),
        cyclic(ONE[1]),
        momentum_of(cyclic(ONE[1])),
        22,
    ),
    "exp_range": Fact(
        lambda s: _cycle(s, step_size_up=4, mode="exp_range", gamma=0.9),
        cyclic(ONE[2]),
        momentum_of(cyclic(ONE[2])),
        13,
    ),
    "triangular lists": Fact(
        lambda s: s.CyclicLR(step_size_up=4, **_lists(1)),
        (cyclic(ONE[0]), cyclic(ONE[0], low=2, high=6)),
        (momentum_of(cyclic(ONE[0])), momentum_of(cyclic(ONE[0], low=2, high=6), 2, 6)),
        11,
    ),
    "triangular2 lists": Fact(
        lambda s: s.CyclicLR(step_size_up=4, mode="triangular2", **_lists(2)),
        (cyclic(ONE[1]), cyclic(ONE[1], low=3, high=7)),
        (momentum_of(cyclic(ONE[1])), momentum_of(cyclic(ONE[1], low=3, high=7), 3, 7)),
        22,
    ),
    "exp_range lists": Fact(
        lambda s: s.CyclicLR(
            [1, 5],
            [5, 12],
            4,
            mode="exp_range",
            gamma=0.9,
            base_momentum=[1, 5],
            max_momentum=[5, 12],
        ),
        (cyclic(ONE[2]), cyclic(ONE[2], low=5, high=12)),
        (momentum_of(cyclic(ONE[2])), momentum_of(cyclic(ONE[2], low=5, high=12), 5, 12)),
        13,
    ),
    "triangular up and down": Fact(
        lambda s: _cycle(s, step_size_up=4, step_size_down=6),
        cyclic(ONE[0], 4, 6),
        momentum_of(cyclic(ONE[0], 4, 6)),
        11,
    ),
    "triangular2 up and down": Fact(
        lambda s: s.CyclicLR(step_size_up=2, step_size_down=6, mode="triangular2", **_lists(2)),
        (cyclic(ONE[1], 2, 6), cyclic(ONE[1], 2, 6, 3, 7)),
        (momentum_of(cyclic(ONE[1], 2, 6)), momentum_of(cyclic(ONE[1], 2, 6, 3, 7), 3, 7)),
        24,
    ),
    "exp_range up and down": Fact(
        lambda s: _cycle(s, step_size_up=2, step_size_down=6, mode="exp_range", gamma=0.9),
        cyclic(ONE[2], 2, 6),
        momentum_of(cyclic(ONE[2], 2, 6)),
        13,
    ),
    "triangular of Adam": Fact(
        lambda s: s.CyclicLR(1, 5, 4, cycle_momentum=False),
        cyclic(ONE[0]),
        lambda _, i: 0.9,
        11,
        optimizer="Adam",
    ),
    "onecycle linear": Fact(
        lambda s: s.OneCycleLR(final_div_factor=2, anneal_strategy="linear", **_ONE_CYCLE),
        lambda _, i: between(_RATES, i, straight),
        lambda _, i: between(_MOMENTA, i, straight),
    ),
    "onecycle cosine": Fact(
        lambda s: s.OneCycleLR(final_div_factor=2, **_ONE_CYCLE),
        lambda _, i: between(_RATES, i, bent),
        lambda _, i: between(_MOMENTA, i, bent),
    ),
    "onecycle three phases": Fact(
        lambda s: s.OneCycleLR(
            final_div_factor=4,
            anneal_strategy="linear",
            pct_start=0.4,
            three_phase=True,
            **_ONE_CYCLE,
        ),
        lambda _, i: between(_THREE_RATES, i, straight),
        lambda _, i: between(_THREE_MOMENTA, i, straight),
    ),
    "onecycle of Adam": Fact(
        lambda s: s.OneCycleLR(final_div_factor=2, anneal_strategy="linear", **_ONE_CYCLE),
        lambda _, i: between(_RATES, i, straight),
        lambda _, i: between(_MOMENTA, i, straight),
        optimizer="Adam",
    ),
    # ── a metric ──
    "plateau that improves": Fact(
        lambda s: s.ReduceLROnPlateau("min", 0.1, 5, 0.01, "abs", 5),
        reduced(),
        lrs=(0.5, 0.5),
        told=[10 - i * 0.0167 for i in range(10)],
    ),
    "plateau that stalls": Fact(
        lambda s: s.ReduceLROnPlateau("min", 0.1, 5, 0.1, "abs"),
        reduced(6, 13, 20),
        lrs=(0.5, 0.5),
        told=[10 - i * 0.0165 for i in range(22)],
    ),
    "plateau of a maximum": Fact(
        lambda s: s.ReduceLROnPlateau("max", 0.1, 5, threshold_mode="abs", cooldown=5),
        reduced(8, 19),
        lrs=(0.5, 0.5),
        told=[-0.8] * 2 + [-0.234] * 20,
    ),
    "plateau of a maximum that improves": Fact(
        lambda s: s.ReduceLROnPlateau("max", 0.1, 3, 0.1),
        reduced(),
        lrs=(0.5, 0.5),
        told=[1.5 * 1.025**i for i in range(20)],
    ),
    "plateau of a maximum that stalls": Fact(
        lambda s: s.ReduceLROnPlateau("max", 0.1, 5, 0.1, cooldown=5),
        reduced(6, 17),
        lrs=(0.5, 0.5),
        told=[1.5 * 1.005**i for i in range(20)],
    ),
    "plateau that falls": Fact(
        lambda s: s.ReduceLROnPlateau("min", 0.1, threshold=0.1),
        reduced(),
        lrs=(0.5, 0.5),
        told=[1.5 * 0.85**i for i in range(20)],
    ),
    "plateau with cooldown": Fact(
        lambda s: s.ReduceLROnPlateau("min", 0.1, 5, 0.1, cooldown=5),
        reduced(6, 17),
        lrs=(0.5, 0.5),
        told=[1] * 7 + [0.6] + [0.5] * 12,
    ),
    "plateau with floors": Fact(
        lambda s: s.ReduceLROnPlateau("max", 0.1, 5, 0.1, cooldown=5, min_lr=[0.4, 0.3]),
        (lambda _, i: 0.5 if i <= 6 else 0.4, lambda _, i: 0.5 if i <= 6 else 0.3),
        lrs=(0.5, 0.5),
        told=[1.5 * 1.005**i for i in range(20)],
    ),
    **TOGETHER,
}

# The same rates where no step is told its epoch.
FACTS |= {
    name.replace("of epochs", "by steps"): replace(fact, told=None, steps=20)
    for name, fact in FACTS.items()
    if name.endswith("of epochs")
}
