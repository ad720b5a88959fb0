"""Configurations of schedulers that begin in mid-run, as data."""

from parity_tests.oracles.scheduler_case import Case

RESUMED: dict[str, Case] = {
    **{
        f"resumed {name}": Case(make, resumed={"initial_lr": (0.3, 0.1, 0.05)})
        for name, make in {
            "step": lambda s: s.StepLR(30, last_epoch=40),
            "multistep": lambda s: s.MultiStepLR([30, 80], last_epoch=70),
            "constant": lambda s: s.ConstantLR(0.3, 20, last_epoch=10),
            "linear": lambda s: s.LinearLR(0.3, total_iters=60, last_epoch=20),
            "exponential": lambda s: s.ExponentialLR(0.97, last_epoch=9),
            "polynomial": lambda s: s.PolynomialLR(100, 2.0, last_epoch=31),
            "cosine": lambda s: s.CosineAnnealingLR(60, 1e-3, last_epoch=45),
            "cosine at the turn": lambda s: s.CosineAnnealingLR(60, 1e-3, last_epoch=60),
            "lambda": lambda s: s.LambdaLR(lambda e: 0.97**e, last_epoch=17),
            "multiplicative": lambda s: s.MultiplicativeLR(lambda e: 0.97, last_epoch=17),
            "restarts": lambda s: s.CosineAnnealingWarmRestarts(10, 2, last_epoch=4),
            "restarts late": lambda s: s.CosineAnnealingWarmRestarts(10, 2, last_epoch=25),
            "swa": lambda s: s.SWALR(0.05, last_epoch=5),
            "restarts, then decay": lambda s: s.SequentialLR(
                [
                    s.CosineAnnealingWarmRestarts(4, last_epoch=4),
                    s.ExponentialLR(0.9, last_epoch=4),
                ],
                [10],
                last_epoch=4,
            ),
            "cyclic": lambda s: s.CyclicLR(0.01, 0.1, 9, last_epoch=13),
            "first epoch": lambda s: s.StepLR(1, 0.99, last_epoch=0),
        }.items()
    },
    "resumed onecycle": Case(
        lambda s: s.OneCycleLR(0.1, 400, last_epoch=77),
        resumed={
            "initial_lr": (0.004, 0.004, 0.004),
            "max_lr": (0.1, 0.1, 0.1),
            "min_lr": (4e-7, 4e-7, 4e-7),
            "max_momentum": (0.95, 0.95, 0.95),
            "base_momentum": (0.85, 0.8, 0.75),
        },
    ),
    "second scheduler": Case(
        lambda s: s.CosineAnnealingLR(60), resumed={"initial_lr": (0.3, 0.1, 0.05)}
    ),
}
