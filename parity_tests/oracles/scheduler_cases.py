"""Scheduler configurations as data: each is made in torch and here by the same expression.

An expression is a function of ``s``, where ``s.StepLR(30)`` is torch's scheduler of the optimizer
at hand or this library's. Learning rates stay above 1e-22, the least that a grouped state holds
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from parity_tests.oracles.scheduler_case import ONE, Case
from parity_tests.oracles.scheduler_composites import COMPOSITES
from parity_tests.oracles.scheduler_resumed import RESUMED


def _losses(seed: int, falling: float) -> Callable[[int], float]:
    noise = np.random.default_rng(seed).standard_normal(301)
    return lambda step: float(2 * math.exp(-falling * step) + 0.05 * noise[step] + 0.3)


class Doubling:
    """A callable object with state, which torch saves."""

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, epoch: Any) -> Any:
        return 0.97 ** (epoch // self.every)


_up = [lambda epoch: epoch // 30, lambda epoch: 0.95**epoch, lambda epoch: 1 / (1 + epoch)]

CASES: dict[str, Case] = {
    # ── LambdaLR, MultiplicativeLR ──
    "lambda docs": Case(lambda s: s.LambdaLR(_up)),
    "lambda one": Case(lambda s: s.LambdaLR(lambda epoch: 0.65 ** (epoch // 20))),
    "lambda one group": Case(lambda s: s.LambdaLR([lambda epoch: 1.0 / (epoch + 1)]), ONE),
    "lambda constant": Case(lambda s: s.LambdaLR(lambda epoch: 0.3)),
    "lambda polynomial": Case(
        lambda s: s.LambdaLR(lambda epoch: 1 - epoch / 400), own_function=True
    ),
    "lambda callable": Case(lambda s: s.LambdaLR(Doubling(7))),
    "lambda callables": Case(lambda s: s.LambdaLR([Doubling(3), Doubling(11), lambda e: 0.5])),
    "lambda rising": Case(lambda s: s.LambdaLR(lambda epoch: epoch + 1), ONE),
    "lambda negative": Case(lambda s: s.LambdaLR(lambda epoch: 0.5 - epoch / 128), ONE),
    "multiplicative docs": Case(lambda s: s.MultiplicativeLR(lambda epoch: 0.95)),
    "multiplicative list": Case(
        lambda s: s.MultiplicativeLR([lambda e: 0.99, lambda e: 1.01, lambda e: 1.0])
    ),
    "multiplicative of epoch": Case(lambda s: s.MultiplicativeLR(lambda e: e / (e + 1.0))),
    "multiplicative callable": Case(lambda s: s.MultiplicativeLR(Doubling(40))),
    # ── StepLR, MultiStepLR, ExponentialLR ──
    "step docs": Case(lambda s: s.StepLR(step_size=30, gamma=0.1)),
    "step one group": Case(lambda s: s.StepLR(30), ONE),
    "step default gamma": Case(lambda s: s.StepLR(step_size=40)),
    "step every": Case(lambda s: s.StepLR(1, gamma=0.97)),
    "step odd": Case(lambda s: s.StepLR(7, gamma=0.83)),
    "step rising": Case(lambda s: s.StepLR(11, gamma=1.37)),
    "step never": Case(lambda s: s.StepLR(1000)),
    "multistep docs": Case(lambda s: s.MultiStepLR(milestones=[30, 80], gamma=0.1)),
    "multistep one group": Case(lambda s: s.MultiStepLR([30, 80]), ONE),
    "multistep unordered": Case(lambda s: s.MultiStepLR([80, 30, 200], gamma=0.3)),
    "multistep twice": Case(lambda s: s.MultiStepLR([50, 50, 120, 120, 120], gamma=0.7)),
    "multistep at zero": Case(lambda s: s.MultiStepLR([0, 10], gamma=0.7)),
    "multistep none": Case(lambda s: s.MultiStepLR([], gamma=0.7)),
    "multistep tuple": Case(lambda s: s.MultiStepLR((2, 3, 5, 7, 11, 13), gamma=0.9)),
    "exponential": Case(lambda s: s.ExponentialLR(gamma=0.95)),
    "exponential docs": Case(lambda s: s.ExponentialLR(gamma=0.9), ONE),
    "exponential slow": Case(lambda s: s.ExponentialLR(0.9999)),
    "exponential rising": Case(lambda s: s.ExponentialLR(1.03)),
    # ── ConstantLR, LinearLR, PolynomialLR ──
    "constant docs": Case(lambda s: s.ConstantLR(factor=0.5, total_iters=40)),
    "constant default": Case(lambda s: s.ConstantLR()),
    "constant third": Case(lambda s: s.ConstantLR(1 / 3, 100), ONE),
    "constant one": Case(lambda s: s.ConstantLR(factor=1.0, total_iters=7)),
    "constant zero iters": Case(lambda s: s.ConstantLR(factor=0.7, total_iters=0)),
    "constant endless": Case(lambda s: s.ConstantLR(factor=0.1, total_iters=1000)),
    "constant zero": Case(lambda s: s.ConstantLR(factor=0.0, total_iters=1000), ONE),
    "linear docs": Case(lambda s: s.LinearLR(start_factor=0.05, total_iters=40)),
    "linear default": Case(lambda s: s.LinearLR()),
    "linear down": Case(lambda s: s.LinearLR(1.0, end_factor=0.1, total_iters=100)),
    "linear to zero": Case(lambda s: s.LinearLR(1.0, end_factor=0.0, total_iters=250)),
    "linear tiny start": Case(lambda s: s.LinearLR(1e-3, total_iters=77), ONE),
    "linear zero iters": Case(lambda s: s.LinearLR(0.3, total_iters=0)),
    "linear flat": Case(lambda s: s.LinearLR(0.3, 0.3, total_iters=13)),
    "polynomial docs": Case(lambda s: s.PolynomialLR(total_iters=4, power=1.0)),
    "polynomial default": Case(lambda s: s.PolynomialLR()),
    "polynomial root": Case(lambda s: s.PolynomialLR(total_iters=200, power=0.5)),
    "polynomial square": Case(lambda s: s.PolynomialLR(total_iters=200, power=2.0)),
    "polynomial cube": Case(lambda s: s.PolynomialLR(total_iters=97, power=3), ONE),
    "polynomial long": Case(lambda s: s.PolynomialLR(total_iters=1000, power=0.9)),
    # ── CosineAnnealingLR, CosineAnnealingWarmRestarts ──
    "cosine": Case(lambda s: s.CosineAnnealingLR(T_max=100)),
    "cosine docs": Case(lambda s: s.CosineAnnealingLR(T_max=300), ONE),
    "cosine floor": Case(lambda s: s.CosineAnnealingLR(T_max=50, eta_min=1e-4)),
    "cosine odd": Case(lambda s: s.CosineAnnealingLR(T_max=37, eta_min=0.002)),
    "cosine two": Case(lambda s: s.CosineAnnealingLR(T_max=2)),
    "cosine long": Case(lambda s: s.CosineAnnealingLR(T_max=1000)),
    "cosine above": Case(lambda s: s.CosineAnnealingLR(T_max=30, eta_min=0.5)),
    "cosine fractional": Case(lambda s: s.CosineAnnealingLR(T_max=30.5), ONE),
    "restarts docs": Case(lambda s: s.CosineAnnealingWarmRestarts(T_0=20)),
    "restarts doubling": Case(lambda s: s.CosineAnnealingWarmRestarts(T_0=10, T_mult=2)),
    "restarts tripling": Case(lambda s: s.CosineAnnealingWarmRestarts(7, 3, eta_min=1e-3), ONE),
    "restarts each": Case(lambda s: s.CosineAnnealingWarmRestarts(T_0=1)),
    "restarts fractions": Case(
        lambda s: s.CosineAnnealingWarmRestarts(T_0=10), epoch=lambda i: i / 8
    ),
    "restarts fractions doubling": Case(
        lambda s: s.CosineAnnealingWarmRestarts(T_0=3, T_mult=2, eta_min=1e-5),
        epoch=lambda i: i + i / 17,
    ),
    "restarts fractions tripling": Case(
        lambda s: s.CosineAnnealingWarmRestarts(T_0=5, T_mult=3), epoch=lambda i: i / 3
    ),
    "restarts epochs": Case(
        lambda s: s.CosineAnnealingWarmRestarts(T_0=4, T_mult=2), epoch=lambda i: i
    ),
    "restarts to and fro": Case(
        lambda s: s.CosineAnnealingWarmRestarts(T_0=11), epoch=lambda i: (i * 29) % 97
    ),
    "restarts to and fro doubling": Case(
        lambda s: s.CosineAnnealingWarmRestarts(11, 2, 1e-3), epoch=lambda i: (i * 29) % 97
    ),
    # ── CyclicLR ──
    "cyclic docs": Case(lambda s: s.CyclicLR(0.01, 0.1)),
    "cyclic triangular": Case(lambda s: s.CyclicLR(0.01, 0.1, step_size_up=20)),
    "cyclic triangular2": Case(lambda s: s.CyclicLR(0.01, 0.1, 13, mode="triangular2")),
    "cyclic exp_range": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 13, mode="exp_range", gamma=0.99994), ONE
    ),
    "cyclic exp_range down": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 7, 20, mode="exp_range", gamma=0.99)
    ),
    "cyclic steep lists": Case(
        lambda s: s.CyclicLR(
            [0.01, 0.02, 0.03], [0.1, 0.3, 0.5], 40, 3, "triangular2", max_momentum=[0.8, 0.9, 0.95]
        )
    ),
    "cyclic down": Case(lambda s: s.CyclicLR(0.01, 0.1, 10, step_size_down=30)),
    "cyclic steep": Case(lambda s: s.CyclicLR(0.001, 0.1, 40, 3, mode="triangular2")),
    "cyclic no momentum": Case(lambda s: s.CyclicLR(0.01, 0.1, 9, cycle_momentum=False)),
    "cyclic momentum": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 9, base_momentum=0.5, max_momentum=0.99)
    ),
    "cyclic lists": Case(
        lambda s: s.CyclicLR(
            [0.01, 0.02, 0.03],
            [0.1, 0.3, 0.5],
            9,
            base_momentum=[0.5, 0.6, 0.7],
            max_momentum=[0.8, 0.9, 0.95],
        )
    ),
    "cyclic scale cycle": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 9, scale_fn=lambda x: 1 / (1 + x), scale_mode="cycle")
    ),
    "cyclic scale iterations": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 9, scale_fn=lambda x: 0.99**x, scale_mode="iterations")
    ),
    "cyclic scale object": Case(lambda s: s.CyclicLR(0.01, 0.1, 9, scale_fn=Doubling(2))),
    "cyclic ignored scale mode": Case(lambda s: s.CyclicLR(0.01, 0.1, 9, scale_mode="iterations")),
    "cyclic beta1": Case(lambda s: s.CyclicLR(0.01, 0.1, 21), optimizer="Adam"),
    "cyclic beta1 no momentum": Case(
        lambda s: s.CyclicLR(0.01, 0.1, 21, cycle_momentum=False), optimizer="Adam"
    ),
    "cyclic beta1 lists": Case(
        lambda s: s.CyclicLR(
            0.01, 0.1, 21, mode="exp_range", gamma=0.99, base_momentum=[0.5, 0.6, 0.7]
        ),
        optimizer="Adam",
    ),
    "cyclic seven": Case(lambda s: s.CyclicLR(0.001, 0.1, 7, 49), ONE),
    # ── OneCycleLR ──
    "onecycle docs": Case(lambda s: s.OneCycleLR(max_lr=0.01, steps_per_epoch=30, epochs=10)),
    "onecycle": Case(lambda s: s.OneCycleLR(0.1, total_steps=300)),
    "onecycle one group": Case(lambda s: s.OneCycleLR(0.1, total_steps=300), ONE),
    "onecycle linear": Case(lambda s: s.OneCycleLR(0.1, 300, anneal_strategy="linear")),
    "onecycle three phases": Case(lambda s: s.OneCycleLR(0.1, 300, three_phase=True)),
    "onecycle three linear": Case(
        lambda s: s.OneCycleLR(0.1, 311, three_phase=True, anneal_strategy="linear")
    ),
    "onecycle early": Case(lambda s: s.OneCycleLR(0.1, 300, pct_start=0.07)),
    "onecycle late": Case(lambda s: s.OneCycleLR(0.1, 300, pct_start=0.93)),
    "onecycle only down": Case(lambda s: s.OneCycleLR(0.1, 300, pct_start=0.0)),
    "onecycle only up": Case(lambda s: s.OneCycleLR(0.1, 301, pct_start=1.0)),
    "onecycle factors": Case(
        lambda s: s.OneCycleLR(0.1, 350, div_factor=7.0, final_div_factor=33.0)
    ),
    "onecycle no momentum": Case(lambda s: s.OneCycleLR(0.1, 300, cycle_momentum=False)),
    "onecycle lists": Case(
        lambda s: s.OneCycleLR(
            [0.1, 0.02, 0.5],
            300,
            base_momentum=[0.5, 0.6, 0.7],
            max_momentum=[0.8, 0.9, 0.99],
        )
    ),
    "onecycle beta1": Case(lambda s: s.OneCycleLR(0.1, 301), optimizer="Adam"),
    "onecycle beta1 three": Case(
        lambda s: s.OneCycleLR(
            [0.1, 0.02, 0.5], 305, three_phase=True, base_momentum=[0.5, 0.6, 0.7]
        ),
        optimizer="Adam",
    ),
    "onecycle long": Case(lambda s: s.OneCycleLR(0.1, 100_000)),
    # ── ReduceLROnPlateau ──
    "plateau docs": Case(lambda s: s.ReduceLROnPlateau("min"), metric=_losses(0, 0.05)),
    "plateau one group": Case(lambda s: s.ReduceLROnPlateau(), ONE, metric=_losses(1, 0.02)),
    "plateau max": Case(
        lambda s: s.ReduceLROnPlateau("max", patience=4, factor=0.8),
        metric=lambda i: -_losses(2, 0.03)(i),
    ),
    "plateau max abs": Case(
        lambda s: s.ReduceLROnPlateau("max", 0.8, 2, 0.05, "abs"),
        metric=lambda i: 3 - _losses(3, 0.03)(i),
    ),
    "plateau min abs": Case(
        lambda s: s.ReduceLROnPlateau("min", 0.8, 2, 0.05, "abs"), metric=_losses(4, 0.02)
    ),
    "plateau impatient": Case(
        lambda s: s.ReduceLROnPlateau(patience=0, factor=0.97), metric=_losses(5, 0.01)
    ),
    "plateau cooldown": Case(
        lambda s: s.ReduceLROnPlateau(patience=2, factor=0.8, cooldown=7), metric=_losses(6, 0.03)
    ),
    "plateau min_lr": Case(
        lambda s: s.ReduceLROnPlateau(patience=1, factor=0.6, min_lr=0.004),
        metric=_losses(7, 0.03),
    ),
    "plateau min_lrs": Case(
        lambda s: s.ReduceLROnPlateau(patience=1, factor=0.6, min_lr=[0.1, 1e-3, 0.0]),
        metric=_losses(8, 0.03),
    ),
    "plateau eps": Case(
        lambda s: s.ReduceLROnPlateau(patience=1, factor=0.5, eps=1e-3), metric=_losses(9, 0.03)
    ),
    "plateau threshold": Case(
        lambda s: s.ReduceLROnPlateau(patience=3, factor=0.9, threshold=0.03),
        metric=_losses(10, 0.01),
    ),
    "plateau flat": Case(lambda s: s.ReduceLROnPlateau(patience=9, factor=0.7), metric=lambda i: 1),
    "plateau nan": Case(
        lambda s: s.ReduceLROnPlateau(patience=5, factor=0.9),
        metric=lambda i: math.nan if i % 7 < 5 else 1 / (i + 1),
    ),
    "plateau infinite": Case(
        lambda s: s.ReduceLROnPlateau(patience=5, factor=0.9),
        metric=lambda i: math.inf if i < 20 else -math.inf,
    ),
    "plateau zero": Case(
        lambda s: s.ReduceLROnPlateau(factor=0.0, patience=20), metric=lambda i: 1
    ),
    # ── SWALR ──
    "swa docs": Case(lambda s: s.SWALR(anneal_strategy="linear", anneal_epochs=20, swa_lr=0.05)),
    "swa default": Case(lambda s: s.SWALR(0.05)),
    "swa cos": Case(lambda s: s.SWALR(0.05, anneal_epochs=100), ONE),
    "swa lists": Case(lambda s: s.SWALR([0.5, 0.05, 0.005], anneal_epochs=33)),
    "swa at once": Case(lambda s: s.SWALR(0.05, anneal_epochs=0)),
    "swa one": Case(lambda s: s.SWALR(0.05, anneal_epochs=1, anneal_strategy="linear")),
    # ── an epoch given: torch's closed forms ──
    "epoch step": Case(lambda s: s.StepLR(3, 0.9), epoch=lambda i: (i * 7) % 101),
    "epoch multistep": Case(lambda s: s.MultiStepLR([9, 4, 4], 0.5), epoch=lambda i: i % 13),
    "epoch constant": Case(lambda s: s.ConstantLR(0.3, 4), epoch=lambda i: i % 9),
    "epoch linear": Case(lambda s: s.LinearLR(0.3, 0.9, 40), epoch=lambda i: (i * 11) % 60),
    "epoch exponential": Case(lambda s: s.ExponentialLR(0.97), epoch=lambda i: 2 * i),
    "epoch polynomial": Case(lambda s: s.PolynomialLR(50, 1.7), epoch=lambda i: (i * 11) % 60),
    "epoch cosine": Case(lambda s: s.CosineAnnealingLR(50, 1e-3), epoch=lambda i: (i * 11) % 160),
    "epoch lambda": Case(lambda s: s.LambdaLR(lambda e: 0.99**e), epoch=lambda i: (i * 11) % 60),
    "epoch multiplicative": Case(
        lambda s: s.MultiplicativeLR(lambda e: 0.99), epoch=lambda i: (i * 11) % 60
    ),
    "epoch cyclic": Case(lambda s: s.CyclicLR(0.01, 0.1, 9), epoch=lambda i: (i * 11) % 60),
    "epoch onecycle": Case(lambda s: s.OneCycleLR(0.1, 60), epoch=lambda i: (i * 11) % 60),
    "epoch plateau": Case(
        lambda s: s.ReduceLROnPlateau(patience=2, factor=0.9),
        metric=_losses(11, 0.03),
        epoch=lambda i: 2 * i,
    ),
    **RESUMED,
    **COMPOSITES,
}
