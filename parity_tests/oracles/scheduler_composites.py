"""Configurations of schedulers of schedulers, as data."""

from parity_tests.oracles.scheduler_case import ONE, Case

COMPOSITES: dict[str, Case] = {
    # ── SequentialLR ──
    "sequential docs": Case(
        lambda s: s.SequentialLR([s.ConstantLR(0.1, 20), s.ExponentialLR(0.9)], [20]), ONE
    ),
    "sequential warm-up cosine": Case(
        lambda s: s.SequentialLR([s.LinearLR(0.01, total_iters=30), s.CosineAnnealingLR(250)], [30])
    ),
    "sequential three": Case(
        lambda s: s.SequentialLR(
            [s.LinearLR(0.1, total_iters=10), s.StepLR(20, 0.7), s.PolynomialLR(100)], [10, 150]
        )
    ),
    "sequential constants": Case(
        lambda s: s.SequentialLR([s.ConstantLR(1.0), s.ConstantLR(0.1)], [10])
    ),
    "sequential one": Case(lambda s: s.SequentialLR([s.StepLR(20, 0.7)], [])),
    "sequential at zero": Case(
        lambda s: s.SequentialLR([s.ConstantLR(0.5), s.ExponentialLR(0.98)], [0]),
        since="2.13",  # before, the first scheduler set the first rate
    ),
    "sequential equal milestones": Case(
        lambda s: s.SequentialLR([s.ConstantLR(), s.LinearLR(), s.ExponentialLR(0.98)], [7, 7])
    ),
    "sequential unordered": Case(
        lambda s: s.SequentialLR([s.ConstantLR(), s.LinearLR(), s.ExponentialLR(0.98)], [50, 9])
    ),
    "sequential restarts": Case(
        lambda s: s.SequentialLR(
            [s.LinearLR(0.1, total_iters=10), s.CosineAnnealingWarmRestarts(10, 2)], [10]
        )
    ),
    "sequential lambda": Case(
        lambda s: s.SequentialLR(
            [s.LambdaLR(lambda e: (e + 1) / 20), s.LambdaLR(lambda e: 0.97**e)], [19]
        ),
        own_function=True,
    ),
    "sequential multiplicative": Case(
        lambda s: s.SequentialLR([s.MultiplicativeLR(lambda e: 0.9), s.StepLR(10, 0.8)], [19])
    ),
    "sequential cyclic": Case(
        lambda s: s.SequentialLR([s.ConstantLR(0.5, 30), s.CyclicLR(0.01, 0.1, 12)], [30])
    ),
    "sequential onecycle": Case(
        lambda s: s.SequentialLR([s.ConstantLR(0.5, 30), s.OneCycleLR(0.1, 400)], [30])
    ),
    "sequential onecycles": Case(
        lambda s: s.SequentialLR([s.OneCycleLR(0.1, 110), s.OneCycleLR(0.05, 400)], [100])
    ),
    "sequential swa": Case(
        lambda s: s.SequentialLR([s.CosineAnnealingLR(200), s.SWALR(0.02, 30)], [160])
    ),
    "sequential beta1": Case(
        lambda s: s.SequentialLR([s.OneCycleLR(0.1, 110), s.ExponentialLR(0.99)], [100]),
        optimizer="Adam",
    ),
    "sequential resumed": Case(
        lambda s: s.SequentialLR(
            [s.ConstantLR(0.5, 30), s.ExponentialLR(0.99)], [30], last_epoch=12
        )
    ),
    # ── ChainedScheduler ──
    "chained docs": Case(
        lambda s: s.ChainedScheduler([s.ConstantLR(0.1, 20), s.ExponentialLR(0.9)]), ONE
    ),
    "chained": Case(
        lambda s: s.ChainedScheduler([s.LinearLR(0.2, total_iters=50), s.StepLR(60, 0.5)])
    ),
    "chained three": Case(
        lambda s: s.ChainedScheduler(
            [s.LinearLR(0.2, total_iters=50), s.CosineAnnealingLR(300), s.ExponentialLR(0.999)]
        )
    ),
    "chained one": Case(lambda s: s.ChainedScheduler([s.StepLR(60, 0.5)])),
    "chained polynomial": Case(
        lambda s: s.ChainedScheduler([s.PolynomialLR(50, 0.9), s.ConstantLR(0.1, 20)])
    ),
    "chained restarts": Case(
        lambda s: s.ChainedScheduler([s.CosineAnnealingWarmRestarts(30), s.StepLR(60, 0.5)])
    ),
    # ── composites of composites ──
    "sequential in sequential": Case(
        lambda s: s.SequentialLR(
            [
                s.SequentialLR([s.ConstantLR(0.5, 9), s.LinearLR(0.5, total_iters=9)], [10]),
                s.ExponentialLR(0.99),
            ],
            [40],
        )
    ),
    "chained in sequential": Case(
        lambda s: s.SequentialLR(
            [s.ChainedScheduler([s.LinearLR(0.1), s.ExponentialLR(0.99)]), s.StepLR(9, 0.8)], [40]
        )
    ),
    "sequential in chained": Case(
        lambda s: s.ChainedScheduler(
            [
                s.SequentialLR([s.LinearLR(0.1), s.CosineAnnealingLR(200)], [5]),
                s.MultiStepLR([100, 200], 0.5),
            ]
        )
    ),
    "three deep": Case(
        lambda s: s.SequentialLR(
            [
                s.ChainedScheduler(
                    [
                        s.SequentialLR([s.LinearLR(0.1), s.CosineAnnealingLR(100)], [5]),
                        s.ExponentialLR(0.999),
                    ]
                ),
                s.CosineAnnealingWarmRestarts(20),
                s.SWALR(0.01, 20),
            ],
            [80, 200],
        )
    ),
    "three deep chained": Case(
        lambda s: s.ChainedScheduler(
            [
                s.SequentialLR(
                    [
                        s.SequentialLR([s.ConstantLR(0.5), s.StepLR(10, 0.9)], [20]),
                        s.PolynomialLR(300, 1.5),
                    ],
                    [60],
                ),
                s.ChainedScheduler([s.MultiStepLR([90], 0.5), s.LinearLR(0.7)]),
            ]
        )
    ),
    "three deep sequential": Case(
        lambda s: s.SequentialLR(
            [
                s.SequentialLR(
                    [s.SequentialLR([s.LinearLR(), s.StepLR(3, 0.9)], [6]), s.ExponentialLR(0.99)],
                    [30],
                ),
                s.CyclicLR(0.001, 0.01, 20),
            ],
            [90],
        ),
        ONE,
    ),
}
