"""The schedules of other packages under test: function or class, and arguments."""

import hashlib
import warnings

import numpy as np

LR = (0.8, 0.05)  # of two groups, of which the second has another scale in timm
SCALES = (1.0, 0.65)
STEPS = 300

PARTS = {"num_warmup_steps": 24.3, "num_training_steps": 243.5}  # of a run, not whole

# By transformers' name: arguments, and those that theirs reads off the optimizer.
HUGGING_FACE = [
    ("get_constant_schedule", {}, {}),
    ("get_constant_schedule_with_warmup", {"num_warmup_steps": 7}, {}),
    ("get_linear_schedule_with_warmup", {"num_warmup_steps": 0, "num_training_steps": 113}, {}),
    ("get_linear_schedule_with_warmup", {"num_warmup_steps": 13, "num_training_steps": 280}, {}),
    ("get_cosine_schedule_with_warmup", {"num_warmup_steps": 13, "num_training_steps": 113}, {}),
    (
        "get_cosine_schedule_with_warmup",
        {"num_warmup_steps": 0, "num_training_steps": 200, "num_cycles": 1.7},
        {},
    ),
    (
        "get_cosine_with_hard_restarts_schedule_with_warmup",
        {"num_warmup_steps": 13, "num_training_steps": 250, "num_cycles": 3},
        {},
    ),
    (
        "get_polynomial_decay_schedule_with_warmup",
        {"num_warmup_steps": 13, "num_training_steps": 250, "power": 1.7, "lr_end": 1e-3},
        {"lr_init": LR[0]},
    ),
    ("get_inverse_sqrt_schedule", {"num_warmup_steps": 13}, {}),
    ("get_inverse_sqrt_schedule", {"num_warmup_steps": 0, "timescale": 50}, {}),
    (
        "get_cosine_with_min_lr_schedule_with_warmup",
        {"num_warmup_steps": 13, "num_training_steps": 200, "min_lr": 0.01},
        {"lr_init": LR[0]},
    ),
    (
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
        {"num_warmup_steps": 13, "num_training_steps": 200, "min_lr_rate": 0.1},
        {},
    ),
    (
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
        {
            "num_warmup_steps": 13,
            "num_training_steps": 200,
            "min_lr_rate": 0.1,
            "warmup_lr_rate": 0.3,
        },
        {},
    ),
    *(
        (
            "get_wsd_schedule",
            {
                "num_warmup_steps": 20,
                "num_decay_steps": 90,
                "num_training_steps": 250,
                "warmup_type": shape,
                "decay_type": shape,
                "min_lr_ratio": 0.05,
            },
            {},
        )
        for shape in ("linear", "cosine", "1-sqrt")
    ),
    (
        "get_wsd_schedule",
        {"num_warmup_steps": 5, "num_decay_steps": 50, "num_stable_steps": 100},
        {},
    ),
    *(
        (f"get_{shape}_schedule_with_warmup", PARTS, reads)
        for shape, reads in (
            ("linear", {}),
            ("cosine", {}),
            ("cosine_with_hard_restarts", {}),
            ("polynomial_decay", {"lr_init": LR[0]}),
        )
    ),
    (
        "get_wsd_schedule",
        {"num_warmup_steps": 24.3, "num_decay_steps": 48.6, "num_stable_steps": 170.1},
        {},
    ),
]

WARM = {"warmup_t": 9, "warmup_lr_init": 1e-3}
CYCLES = {"cycle_limit": 3, "cycle_decay": 0.5, "cycle_mul": 1.5}
# By timm's name: arguments.
TIMM = [
    ("CosineLRScheduler", {"t_initial": 200}),
    ("CosineLRScheduler", {"t_initial": 50, "lr_min": 1e-4, **WARM, **CYCLES}),
    ("CosineLRScheduler", {"t_initial": 90, "k_decay": 1.5, "warmup_prefix": True, **WARM}),
    (
        "CosineLRScheduler",
        {"t_initial": 250, "noise_range_t": (40, 200), "noise_pct": 0.4, "noise_seed": 7},
    ),
    ("CosineLRScheduler", {"t_initial": 150, "cycle_mul": 0.5, "cycle_limit": 2}),
    ("CosineLRScheduler", {"t_initial": 90, "lr_min": 1e-3, "noise_range_t": (80, 120)}),
    ("CosineLRScheduler", {"t_initial": 90, "lr_min": 1e-3, "noise_range_t": 99.5}),
    ("CosineLRScheduler", {"t_initial": 150, "noise_range_t": 100, "t_in_epochs": False, **WARM}),
    ("TanhLRScheduler", {"t_initial": 120, "lr_min": 1e-3, **WARM}),
    ("TanhLRScheduler", {"t_initial": 60, "warmup_prefix": True, **WARM, **CYCLES}),
    ("PolyLRScheduler", {"t_initial": 200, "power": 0.9, **WARM}),
    ("PolyLRScheduler", {"t_initial": 50, "lr_min": 1e-4, "k_decay": 0.7, **CYCLES}),
    ("StepLRScheduler", {"decay_t": 30, "decay_rate": 0.7, **WARM}),
    ("StepLRScheduler", {"decay_t": 2.4, "decay_rate": 0.97, "warmup_prefix": False, **WARM}),
    ("MultiStepLRScheduler", {"decay_t": [30, 80, 200], "decay_rate": 0.1, **WARM}),
    ("MultiStepLRScheduler", {"decay_t": [30], "decay_rate": 0.1, "noise_range_t": (200, 220)}),
    ("WSDLRScheduler", {"t_initial": 250, "decay_t": 60, **WARM}),
    (
        "WSDLRScheduler",
        {"t_initial": 200, "decay_t": 50, "stable_fn": "rsqrt", "decay_fn": "linear", **WARM},
    ),
    (
        "WSDLRScheduler",
        {
            "t_initial": 200,
            "decay_t": 90,
            "stable_fn": "power",
            "stable_power": 0.3,
            "stable_timescale": 40.0,
            "decay_fn": "exp",
            "lr_min": 1e-4,
        },
    ),
    ("WSDLRScheduler", {"t_initial": 200, "decay_t": 90, "decay_fn": "cosine"}),
    ("WSDLRScheduler", {"t_initial": 200, "decay_t": 90, "decay_fn": "power", "decay_power": 2.0}),
]

NOISY = {"noise_range_t": (30, 160), "noise_pct": 0.4, "noise_seed": 7}
# timm's PlateauLRScheduler: arguments.
PLATEAU = [
    {},
    {"decay_rate": 0.5, "patience_t": 3, "mode": "min", **WARM},
    {"decay_rate": 0.7, "patience_t": 1, "cooldown_t": 4, "threshold": 0.02, **NOISY},
    {"decay_rate": 0.6, "patience_t": 2, "lr_min": 0.01, "noise_range_t": 5, "mode": "min", **WARM},
]

DETECTRON2_WARM = {"warmup_factor": 0.01, "warmup_iters": 37}
# By detectron2's name: arguments.
DETECTRON2 = [
    ("WarmupMultiStepLR", {"milestones": [100, 180, 180], "warmup_iters": 0}),
    ("WarmupMultiStepLR", {"milestones": [30, 120], "gamma": 0.3, **DETECTRON2_WARM}),
    (
        "WarmupMultiStepLR",
        {"milestones": [110, 250], "warmup_method": "constant", **DETECTRON2_WARM},
    ),
    ("WarmupCosineLR", {"max_iters": 200, "warmup_method": "constant", **DETECTRON2_WARM}),
    ("WarmupCosineLR", {"max_iters": 350, **DETECTRON2_WARM}),
]
_STEPS = ("MultiStepParamScheduler", {"values": [1, 0.1, 0.01], "milestones": [170, 260]})
_STEPS[1]["num_updates"] = STEPS
_COSINE = ("CosineParamScheduler", {"start_value": 1, "end_value": 0.03})
# What detectron2's LRMultiplier multiplies by, over all steps: a name, and arguments.
MULTIPLIERS = [
    _COSINE,
    _STEPS,
    *(
        (
            "WarmupParamScheduler",
            {
                "scheduler": after,
                "warmup_factor": 0.001,
                "warmup_length": length / STEPS,
                "warmup_method": method,
                "rescale_interval": rescaled,
            },
        )
        for after, length, method, rescaled in (
            (_STEPS, 41, "linear", False),
            (_STEPS, 190, "constant", True),
            (_COSINE, 41, "constant", False),
            (_COSINE, 0, "linear", True),
            (_COSINE, 83, "linear", True),
        )
    ),
]

# The arguments of a Noam schedule, and of fairseq's inverse_sqrt.
NOAM = [
    {"package": "opennmt", "model_size": 512, "warmup_steps": 100},
    {"package": "annotated-transformer", "model_size": 300, "warmup_steps": 17, "factor": 2.0},
    {"package": "opennmt", "model_size": 300, "warmup_steps": 17, "factor": 0.7},
]
INVERSE_ROOT = [
    {"lr": 5e-4, "warmup_updates": 4000},
    {"lr": 0.3, "warmup_updates": 70, "warmup_init_lr": 1e-7},
]


def metrics():
    """A metric for each count that improves, stops and is noisy: numbers that float32 has too."""
    noise = np.random.default_rng(5).standard_normal(STEPS)
    counts = np.minimum(np.arange(STEPS), 120)
    return np.float32(1 / (1 + counts / 20) + 0.05 * noise).tolist()


def digest(rates) -> str:
    """What tells rates from others by a single bit."""
    return hashlib.sha256(np.asarray(rates, np.float64).tobytes()).hexdigest()[:16]


def shown(name, arguments) -> str:
    return f"{name}({', '.join(f'{k}={v}' for k, v in arguments.items())})"


def theirs_of_timm(name, arguments):
    """timm's rates: after it is made, and after each count."""
    import timm.scheduler
    import torch

    optimizer = torch.optim.SGD(
        [
            {"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr, "lr_scale": scale}
            for lr, scale in zip(LR, SCALES, strict=True)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(timm.scheduler, name)(optimizer, **arguments)
    step = scheduler.step if arguments.get("t_in_epochs", True) else scheduler.step_update
    given = metrics() if name == "PlateauLRScheduler" else [None] * STEPS
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for t in range(1, STEPS):
        step(t, given[t])
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates, scheduler.state_dict()
