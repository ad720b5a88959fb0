"""The optimizers of other packages under test: which class, in which configurations.

The contract is PLAIN, of a reference whose roots are rounded correctly, and of whole vectors. A
bound beyond it is what an error of torch's own may come to in a step, and names that error; how
far it comes was measured first (`make matrix` prints it), so it says that a configuration is not
much farther than it was then.
"""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxopt_port.contrib import REFERENCES, Reference
from parity_tests.contrib.given_draws import with_draws_of_here

RECORDED = pathlib.Path(__file__).parent / "recorded.json"
RECORDED_SCHEDULES = RECORDED.with_name("recorded_schedules.json")
# Of the runs whose end is recorded.
STEPS = 8
# The least that shows each branch: factored and not, kernels of convolutions, scalars.
SHAPES = {"bias": (5,), "kernel": (18, 20), "conv": (20, 3, 2, 2), "scalar": ()}


# What torch's vectors divide, factors of kernels too: its loops and the rest differ in bfloat16.
WHOLE = {"bias": (64,), "kernel": (32, 64), "conv": (32, 32, 2, 2)}

# The first gradient has the rank of each axis, but for one: SOAP's first bases have no other
# choice than signs, which do not matter.
OF_FULL_RANK = {"bias": (2,), "kernel": (12, 13), "conv": (13, 3, 2, 2), "scalar": ()}

# Held as codes, and as they are: what is small, and what is no whole number of blocks.
IN_BLOCKS = {"bias": (5,), "weight": (64, 80), "odd": (65, 64)}

PLAIN = (4, 1, "the contract")
RESTS = (4, 3, "torch rounds a factor to bfloat16 in its vector loop, and not in the rest after it")
SIGNS = (4, 8, "the same, and it decides the sign of what is nearly zero")
ROOTS = (16, 2, "MKL's root is a unit off, and a step and the momentum before it nearly cancel")
CLIPS = (64, 1, "the norm of all gradients is a unit off, and a gradient and the average cancel")
CUBE_ROOT = (
    64,
    3,
    "the cube root is a unit off, and the sum that it divides, which grows with the steps, is "
    "added to the first parameter: units of that sum, not of the step",
)
SUM = (
    512,
    8,
    "the root is a unit off, and the sum that it divides, of all steps, is added to the first "
    "parameter: units of that sum, not of the step",
)
PRODUCTS = (
    1 << 20,
    1,
    "a product of matrices is added up in another order, and is rounded to another bfloat16 number "
    "five times over: a step that it happens to may be 6e-2 of itself off",
)
MEANS = (
    32,
    16,
    "a mean is added up in another order, and an update and the average before it nearly cancel: "
    "torch itself with its means in float64 is as far off; and RESTS",
)
BASES = (
    64,
    1,
    "a small number in a basis is the difference of large products, and is divided by its own "
    "size: torch itself is farther off where it adds the other way round",
)
FACTORS = (
    18,
    4,
    "products of matrices are added up in another order (torch is up to 17 units from itself where "
    "it does so), are rounded between in bfloat16; a step and the parameter nearly cancel; RESTS",
)


@dataclass(frozen=True, eq=False)
class Case:
    """One optimizer in one configuration.

    Attributes:
        package: of the reference.
        name: of the class, there.
        options: of both sides.
        own: options of the reference alone, which choose among its implementations.
        left_out: shapes that the reference does not take.
        bounds: how many units a step may be off in float32 and in bfloat16, and why.
        rare: the part of the steps that may be off by more than PLAIN's units, of the reference
            with its roots rounded correctly, and of whole vectors.
        of_loss: whether a run needs gradients that lead somewhere: those of half the squared
            distance from what is drawn.
        of: the shapes of the arrays.
        groups: by name, the own options of those parameters that are in a group of their own.
        prepare: what is done with an optimizer of the reference before it steps.
        resting: parameters that have no gradient in the first step, and in each second one.
    """

    package: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    bounds: tuple[float, float, str] = PLAIN
    rare: float = 0.0
    of_loss: bool = False
    of: Mapping[str, tuple[int, ...]] = field(default_factory=SHAPES.copy)
    groups: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda optimizer: None
    resting: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        (found,) = [r for r in REFERENCES if (r.package, r.name) == (self.package, self.name)]
        return found

    def made(self):
        """The optimizer here."""
        options = {**self.options, **self.reference.fixed}
        # timm takes betas for a decay, and the rate for the flag.
        if self.package == "timm" and "betas" in options and self.name == "Adafactor":
            options["beta1"] = options.pop("betas")[0]
        if self.package == "timm" and self.name == "Adafactor":
            options["relative_step"] = options.get("lr") is None
        if not self.groups:
            return self.reference.optimizer(**options)
        groups = [{"params": names, **own} for names, own in self.grouped]
        return self.reference.optimizer(groups, **options)

    @property
    def grouped(self) -> list[tuple[list[str], dict[str, Any]]]:
        """The names of each group's parameters, and what is its own."""
        rest = [name for name in self.shapes if name not in self.groups]
        return [(rest, {}), *(([name], own) for name, own in self.groups.items())]

    def given(self, drawn, params, step: int):
        """The gradients of a step; None for what rests in it."""
        steps = {k: step % 2 or k not in self.resting for k in drawn}
        grads = {k: params[k] - v if self.of_loss else v for k, v in drawn.items()}
        return {k: v if steps[k] else None for k, v in grads.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.of.items() if name not in self.left_out}

    def theirs(self):
        """The package's class; it has to be installed."""
        return getattr(importlib.import_module(self.reference.module), self.name)

    def drawn(self, rng, dtype) -> dict[str, np.ndarray]:
        shapes = self.shapes.items()
        return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes}

    def __repr__(self):
        shown = ", ".join(f"{k}={v}" for k, v in {**self.options, **self.groups}.items())
        shown += "".join(f"; {name} rests" for name in self.resting)
        return f"{self.package} {self.name}({shown})"


def tree_of(shapes) -> dict[str, Any]:
    """Nested dicts of arrays, of shapes by torch's names."""
    made: dict[str, Any] = unflatten_dict(
        {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, sep="."
    )
    return made


def fingerprint(array) -> list[float]:
    """Numbers that tell an array from another: a sum with weights, a norm, the first entry."""
    flat = np.asarray(array, np.float64).ravel()
    weights = np.random.default_rng(flat.size).standard_normal(flat.size)
    return [float(flat @ weights), float(np.linalg.norm(flat)), float(flat[0])]


def gradients(case: Case, dtype=np.float64):
    """The start of a run, and what its gradients are made of, one after the other."""
    rng = np.random.default_rng(20240229)
    start = case.drawn(rng, dtype)
    return start, [case.drawn(rng, dtype) for _ in range(STEPS)]


def of(package, name, *configurations, **more):
    return [Case(package, name, options, **more) for options in configurations]


LOOP = {"foreach": False}
CASES = [
    *of(
        "timm",
        "Lion",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)},
        {"lr": 0.01, "caution": True, "weight_decay": 0.1, "corrected_weight_decay": True},
        {"lr": 0.01, "maximize": True},
        own=LOOP,
    ),
    *of(
        "lion-pytorch",
        "Lion",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)},
        {"lr": 0.01, "weight_decay": 1e-3, "decoupled_weight_decay": True},
        bounds=SIGNS,
    ),
    # The estimate is one for all groups, and what has rested takes it over.
    *of(
        "dadaptation",
        "DAdaptAdam",
        {"decouple": True, "use_bias_correction": True, "d0": 1e-3, "growth_rate": 1.1},
        groups={
            "kernel": {"weight_decay": 0.1, "layer_scale": 0.5},
            "conv": {"lr": 0.0, "weight_decay": 0.1},
        },
        resting=("bias", "kernel"),
        of_loss=True,
        bounds=RESTS,
    ),
    *of(
        "dadaptation",
        "DAdaptSGD",
        {"momentum": 0.5, "d0": 1e-3, "growth_rate": 1.1},
        groups={"kernel": {}, "conv": {"lr": 0.0}},
        resting=("kernel",),
        of_loss=True,
    ),
    *of(
        "prodigyopt",
        "Prodigy",
        {"d0": 1e-3},
        groups={"kernel": {"weight_decay": 0.1}, "conv": {"lr": 0.0, "weight_decay": 0.1}},
        resting=("bias", "kernel"),
        of_loss=True,
    ),
    *of(
        "dadaptation",
        "DAdaptAdaGrad",
        {},
        {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01, "d0": 1e-2},
        {"eps": 1e-3, "d0": 0.1, "growth_rate": 1.02},
        of_loss=True,
        bounds=SUM,
    ),
    *of(
        "dadaptation",
        "DAdaptAdam",
        {},
        {"lr": 0.5, "weight_decay": 0.1, "decouple": True, "use_bias_correction": True},
        {"weight_decay": 0.01, "betas": (0.8, 0.99), "growth_rate": 1.02, "d0": 1e-4},
        of_loss=True,
        bounds=RESTS,
    ),
    *of(
        "dadaptation",
        "DAdaptAdan",
        {},
        {"lr": 0.5, "betas": (0.9, 0.8, 0.95), "no_prox": True, "weight_decay": 0.1},
        {"eps": 1e-3, "d0": 1e-4, "growth_rate": 1.02},
        of_loss=True,
    ),
    *of(
        "dadaptation",
        "DAdaptLion",
        {},
        {"lr": 0.5, "weight_decay": 0.1},
        {"betas": (0.8, 0.95), "d0": 1e-4},
        of_loss=True,
    ),
    *of(
        "dadaptation",
        "DAdaptSGD",
        {},
        {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.5, "d0": 1e-4, "growth_rate": 1.02},
        of_loss=True,
    ),
    *of(
        "timm",
        "Kron",
        {},
        {
            "lr": 0.01,
            "weight_decay": 0.1,
            "decoupled_decay": True,
            "corrected_weight_decay": True,
            "stochastic_weight_decay": True,
            "flatten": True,
            "memory_save_mode": "smart_one_diag",
            "preconditioner_update_probability": 0.5,
        },
        {
            "lr": 0.01,
            "weight_decay": 0.1,
            "momentum_into_precond_update": False,
            "momentum": 0.8,
            "max_size_triangular": 18,
            "precond_lr": 0.3,
        },
        {"lr": 0.01, "memory_save_mode": "one_diag", "precond_init_scale": 0.1},
        {"lr": 0.01, "memory_save_mode": "all_diag", "min_ndim_triangular": 1},
        prepare=with_draws_of_here,
        bounds=FACTORS,
        rare=0.35,
    ),
    *of(
        "timm",
        "Lars",
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "trust_clip": True},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "always_adapt": True, "trust_coeff": 0.02},
        own=LOOP,
    ),
    *of(
        "timm",
        "MADGRAD",
        {},
        {"momentum": 0.0, "weight_decay": 0.01},
        {"lr": 0.1, "weight_decay": 0.1, "decoupled_decay": True},
        {"lr": 0.05, "eps": 1e-3},
        bounds=CUBE_ROOT,
    ),
    *of(
        "timm",
        "NAdamW",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "clipping_threshold": 1.0},
        {"lr": 0.01, "caution": True, "corrected_weight_decay": True},
        {"lr": 0.01, "maximize": True, "betas": (0.8, 0.99), "eps": 1e-4},
        own=LOOP,
    ),
    *of(
        "timm",
        "RMSpropTF",
        {},
        {"momentum": 0.9, "weight_decay": 0.01},
        {
            "momentum": 0.9,
            "centered": True,
            "eps": 1e-3,
            "decoupled_decay": True,
            "weight_decay": 0.1,
            "corrected_weight_decay": True,
        },
        {"momentum": 0.5, "lr_in_momentum": False, "caution": True, "alpha": 0.99},
        own=LOOP,
        bounds=ROOTS,
    ),
    *of(
        "timm",
        "SGDW",
        {},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "caution": True},
        {
            "lr": 0.1,
            "momentum": 0.9,
            "dampening": 0.5,
            "weight_decay": 0.1,
            "maximize": True,
            "corrected_weight_decay": True,
        },
        own=LOOP,
        bounds=RESTS,
    ),
    *of(
        "timm",
        "AdaBelief",
        {},
        {"lr": 0.01, "rectify": False, "amsgrad": True, "weight_decay": 0.1},
        {"lr": 0.01, "decoupled_decay": False, "weight_decay": 0.01, "betas": (0.8, 0.99)},
        {"lr": 0.01, "degenerated_to_sgd": False, "fixed_decay": True, "weight_decay": 1e-3},
        own=LOOP,
    ),
    *of(
        "timm",
        "Adan",
        {},
        {"lr": 0.01, "weight_decay": 0.1},
        {
            "lr": 0.01,
            "weight_decay": 0.1,
            "no_prox": True,
            "caution": True,
            "betas": (0.9, 0.8, 0.95),
        },
        own=LOOP,
    ),
    *of(
        "timm",
        "Adopt",
        {},
        {"lr": 0.01, "weight_decay": 0.01, "clip_exp": None},
        {
            "lr": 0.01,
            "weight_decay": 0.1,
            "decoupled": True,
            "corrected_weight_decay": True,
            "caution": True,
        },
        {"lr": 0.01, "maximize": True, "betas": (0.8, 0.99)},
        own=LOOP,
    ),
    *of(
        "timm",
        "LaProp",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99)},
        {"lr": 0.01, "caution": True, "weight_decay": 0.1, "corrected_weight_decay": True},
        own=LOOP,
    ),
    *of(
        "timm",
        "Mars",
        {},
        {"mars_type": "lion", "weight_decay": 0.1},
        {"optimize_1d": True, "caution": True, "weight_decay": 0.1, "gamma": 0.1},
        {"lr_1d_factor": 0.5, "betas_1d": (0.8, 0.95)},
        bounds=SIGNS,
    ),
    *of(
        "timm",
        "Lamb",
        {},
        {"lr": 0.01, "max_grad_norm": None, "trust_clip": True},
        {
            "lr": 0.01,
            "weight_decay": 0.1,
            "decoupled_decay": True,
            "caution": True,
            "corrected_weight_decay": True,
        },
        {
            "lr": 0.01,
            "weight_decay": 0.0,
            "always_adapt": True,
            "grad_averaging": False,
            "bias_correction": False,
        },
        own=LOOP,
        bounds=CLIPS,
    ),
    *of(
        "torchao",
        "Adam8bit",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.4, 0.99), "eps": 1e-4},
        {"lr": 0.01, "betas": (0.8, 0.95), "block_size": 1024},
        of=IN_BLOCKS,
    ),
    *of(
        "torchao",
        "AdamW8bit",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.95, 0.5), "block_size": 64},
        {"lr": 0.1, "weight_decay": 0.0, "eps": 1e-3},
        of=IN_BLOCKS,
    ),
    *of(
        "transformers",
        "Adafactor",
        {},
        {"warmup_init": True, "beta1": 0.9, "weight_decay": 0.1},
        {"lr": 0.01, "relative_step": False, "scale_parameter": False, "clip_threshold": 0.5},
        {"lr": 0.1, "relative_step": False, "decay_rate": -0.6},
    ),
    *of(
        "timm",
        "Adafactor",
        {},
        {"lr": 0.01, "weight_decay": 0.1, "min_dim_size_to_factor": 2},
        {"betas": (0.9, 0.99), "caution": True, "warmup_init": True},
        {"scale_parameter": False, "clip_threshold": 0.5, "min_dim_size_to_factor": 18},
    ),
    *of(
        "timm",
        "AdafactorBigVision",
        {"lr": 0.01},
        {"lr": 0.01, "momentum": None, "clipping_threshold": 1.0, "weight_decay": 0.1},
        {
            "lr": 0.01,
            "momentum_dtype": "float32",
            "caution": True,
            "weight_decay": 1e-3,
            "unscaled_wd": True,
            "min_dim_size_to_factor": 2,
        },
        {
            "lr": 0.01,
            "decay_offset": 5,
            "beta2_cap": 0.9,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "corrected_weight_decay": True,
        },
        bounds=RESTS,
    ),
    *of(
        "muon",
        "SingleDeviceMuon",
        {},
        {"lr": 0.1, "weight_decay": 0.1},
        {"momentum": 0.6},
        left_out=("bias", "scalar"),
        bounds=PRODUCTS,
        rare=0.02,
    ),
    *of(
        "prodigyopt",
        "Prodigy",
        {},
        {"weight_decay": 0.1, "use_bias_correction": True},
        {
            "decouple": False,
            "weight_decay": 0.01,
            "safeguard_warmup": True,
            "slice_p": 3,
            "d_coef": 2.0,
        },
        {"betas": (0.0, 0.99), "beta3": 0.9, "growth_rate": 1.02, "d0": 1e-4},
        of_loss=True,
    ),
    *of(
        "schedulefree",
        "SGDScheduleFree",
        {"lr": 0.1},
        {"lr": 0.1, "warmup_steps": 5, "r": 1.0},
        {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.01, "weight_lr_power": 1.0},
        own=LOOP,
    ),
    *of(
        "schedulefree",
        "AdamWScheduleFree",
        {},
        {"lr": 0.01, "warmup_steps": 5, "r": 1.0},
        {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1, "eps": 1e-4},
        own=LOOP,
    ),
    *of(
        "schedulefree",
        "RAdamScheduleFree",
        {},
        {"lr": 0.01, "silent_sgd_phase": False, "r": 1.0},
        {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1},
        own=LOOP,
    ),
    *of(
        "pytorch_optimizer",
        "SOAP",
        {},
        {"lr": 0.01, "precondition_frequency": 3, "precondition_1d": True, "weight_decay": 0.1},
        {"lr": 0.01, "normalize_gradient": True, "shampoo_beta": 0.8, "max_precondition_dim": 12},
        {"lr": 0.01, "correct_bias": False, "betas": (0.9, 0.99), "maximize": True},
        bounds=BASES,
        rare=0.1,
        of=OF_FULL_RANK,
    ),
    *of(
        "pytorch_optimizer",
        "AdEMAMix",
        {},
        {"lr": 0.01, "t_alpha_beta3": 50.0, "weight_decay": 0.1, "weight_decouple": True},
        {"lr": 0.01, "betas": (0.8, 0.99, 0.999), "alpha": 8.0, "weight_decay": 0.01},
        {
            "lr": 0.01,
            "maximize": True,
            "weight_decay": 1e-3,
            "weight_decouple": True,
            "fixed_decay": True,
        },
        own=LOOP,
    ),
    *of(
        "pytorch_optimizer",
        "CAME",
        {},
        {"lr": 0.01, "ams_bound": True, "weight_decay": 0.1, "eps1": 1e-8, "eps2": 1e-6},
        {"lr": 0.01, "clip_threshold": 0.5, "weight_decay": 0.01, "weight_decouple": False},
        {"lr": 0.01, "betas": (0.8, 0.99, 0.999), "maximize": True},
        own=LOOP,
        bounds=MEANS,
        rare=0.05,
    ),
]
