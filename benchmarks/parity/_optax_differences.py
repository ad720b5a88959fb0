"""Why plain Optax is not torch, optimizer by optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import optax

from . import _optax_spellings as spellings


class Spelling(NamedTuple):
    """How plain Optax has one of torch's optimizers.

    Attributes:
        closest: its transformation by torch's arguments.
        why: what is left between it and torch.
        by_name: Optax's own function of that name as an expression, ``{lr}`` being torch's default.
        defaults: of that function, which are not torch's, by torch's name or None.
    """

    closest: Callable[..., optax.GradientTransformation]
    why: str
    by_name: str | None = None
    defaults: Mapping[str, str | None] = MappingProxyType({})

    @property
    def function(self) -> Callable[..., Any]:
        """Optax's function of the same name."""
        return eval(self.by_name.partition("(")[0], {"optax": optax})

    def expression(self, lr: float) -> str:
        """Return the call of Optax's function of the same name."""
        return self.by_name.format(lr=lr)

    def named(self, lr: float) -> optax.GradientTransformation:
        """Return what that call makes."""
        return eval(self.expression(lr), {"optax": optax})

    def differing_defaults(self) -> list[str]:
        """Return ``its=value (torch: torchs=value)`` for each of `defaults`."""
        theirs = inspect.signature(self.function).parameters
        torchs = inspect.signature(self.closest).parameters
        found = []
        for name, counterpart in self.defaults.items():
            text = f"`{name}={theirs[name].default}`"
            if counterpart is not None:
                text += f" (torch: `{counterpart}={torchs[counterpart].default}`)"
            found.append(text)
        return found


_FLOAT32_CORRECTION = (
    "The algorithm is torch's. `1 - b2 ** count` is calculated in float32, whose rounding is large "
    "beside the difference in the first steps; torch has it in float64."
)

SPELLINGS = {
    "Adadelta": Spelling(
        spellings.adadelta,
        "The algorithm is torch's; what is left is rounding. Weight decay and ascent are chained.",
        "optax.adadelta({lr})",
    ),
    "Adafactor": Spelling(
        spellings.adafactor,
        "Optax factors the two largest axes, torch the last two, and there is no option for it: "
        "parameters of three and more axes train differently. By name it factors only axes of "
        "`min_dim_size_to_factor` and more, and its rate is not bounded by `1 / sqrt(step)`. Its "
        "weight decay is not multiplied by the rate: here that is done by hand. `eps` is added to "
        "the squares where torch bounds their root, which matters to tiny gradients.",
        "optax.adafactor({lr})",
        {"min_dim_size_to_factor": None, "eps": None},
    ),
    "Adagrad": Spelling(
        spellings.adagrad,
        "`eps` is inside the root, torch's outside, which matters where the root is near `eps`. By "
        "name the sum does not start at 0, so that every early step is shorter. `lr_decay` is a "
        "schedule.",
        "optax.adagrad({lr})",
        {"initial_accumulator_value": "initial_accumulator_value", "eps": "eps"},
    ),
    "Adam": Spelling(
        spellings.adam,
        f"{_FLOAT32_CORRECTION} `weight_decay` is L2: `optax.adamw` is another optimizer. AMSGrad "
        "of torch takes the maximum of the uncorrected moments and corrects it, "
        "`optax.amsgrad` the maximum of corrected ones; spelt as here, `eps` counts for more in "
        "the first steps.",
        "optax.adam({lr})",
    ),
    "Adamax": Spelling(
        spellings.adamax,
        "The algorithm is torch's; what is left is rounding.",
        "optax.adamax({lr})",
    ),
    "AdamW": Spelling(
        spellings.adamw,
        f"{_FLOAT32_CORRECTION} torch multiplies the parameter by `1 - lr * weight_decay`, rounded "
        "to float32; this rounding is the same in each step and adds up. AMSGrad as under Adam.",
        "optax.adamw({lr})",
        {"weight_decay": "weight_decay"},
    ),
    "ASGD": Spelling(
        spellings.asgd,
        "Optax has none by name. Its parameters are SGD with a schedule and a decay; the average "
        "of the parameters, which is what it is used for, is not expressible. torch's default "
        "implementation multiplies by a rounded `1 - lambd * eta`, whose rounding adds up; its "
        "foreach one adds the decay to the gradient, as this does. torch keeps the rate in "
        "float32, in a float64 run too.",
    ),
    "LBFGS": Spelling(
        spellings.lbfgs,
        "One update is one iteration; torch makes up to `max_iter` in a call and stops at "
        "`tolerance_grad`, `tolerance_change` and `max_eval`, for which Optax has no counterpart. "
        "The first step is scaled by the gradient's 2-norm, in torch by its 1-norm. torch leaves "
        "out pairs of low curvature, and its strong Wolfe search tries other points. Both meet "
        "where they have converged. By name there is a line search; torch's default is without.",
        "optax.lbfgs({lr})",
        {"memory_size": "history_size"},
    ),
    "Muon": Spelling(
        spellings.muon,
        "torch iterates in bfloat16, Optax in the parameter's dtype. Optax corrects the two parts "
        "of Nesterov's momentum for bias, each by another factor, and torch neither: `optax.trace` "
        "in front has torch's mixture, since the iteration does not see its scale. By name the "
        "update is scaled by `sqrt(max(1, columns / rows))`, in torch by `rows / columns`.",
        "optax.contrib.muon({lr})",
        {"weight_decay": "weight_decay", "eps": "eps"},
    ),
    "NAdam": Spelling(
        spellings.nadam,
        "torch's momentum grows from half of `beta1` to all of it (`momentum_decay`), Optax's is "
        "`beta1` from the start, and a schedule of `b1` would change the moment itself: torch's is "
        "not expressible. (With an endless `momentum_decay` torch's is Optax's.)",
        "optax.nadam({lr})",
    ),
    "RAdam": Spelling(
        spellings.radam,
        "`rho` is a difference of nearly equal numbers, calculated in float32: about where the "
        "rectification starts it is off in the third digit. torch has it in float64. `eps` is "
        "added to the corrected root, torch's to the uncorrected one.",
        "optax.radam({lr})",
    ),
    "RMSprop": Spelling(
        spellings.rmsprop,
        "By name `eps` is inside the root, and the average decays faster. With both set "
        "the algorithm is torch's; what is left is rounding.",
        "optax.rmsprop({lr})",
        {"decay": "alpha", "eps_in_sqrt": None},
    ),
    "Rprop": Spelling(
        spellings.rprop,
        "Optax returns the step of the call before, and drops it where the sign has turned since: "
        "the first update is 0, and the last step before each turn is never taken. torch takes "
        "each step at once. Not expressible.",
        "optax.rprop({lr})",
    ),
    "SGD": Spelling(
        spellings.sgd,
        "The algorithm is torch's, with the dampening as a schedule. With momentum, XLA fuses the "
        "product and the sum that torch rounds apart; without, the bits are torch's.",
        "optax.sgd({lr})",
    ),
    "SparseAdam": Spelling(
        spellings.sparse_adam,
        "Optax takes no sparse gradient. Made dense, Adam moves every row with a moment and decays "
        "all moments, torch only the rows of the gradient; that is not expressible. `eps` is added "
        "to the corrected root, torch's to the uncorrected one. And the cost is the table's.",
    ),
}
