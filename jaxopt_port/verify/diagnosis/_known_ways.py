"""The ways in which ports of each optimizer are known to differ from torch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..report import Cause
from ._algorithms import Variation
from ._numbers import NARROW
from ._simulation import Hypothesis, Part
from ._update_history import UpdateHistory

_EMA = "use optax.trace, not optax.ema, or jp.sgd"
_UNCORRECTED = (
    "your side does not correct {} for the start at zero; torch does",
    "divide moments by 1 - beta**step (optax.adam does)",
)
_EPS = (
    "your side adds eps {}; torch's {{torch}} adds it to the {{root}}",
    "set eps, not eps_root (optax.adam), or eps_in_sqrt=False (optax.rmsprop); optax.adagrad has "
    "no choice: jp.adagrad",
)
_MAXIMUM = (
    "your side's AMSGrad takes the maximum of corrected moments; torch's of those as they are",
    "use jp.Adam(amsgrad=True)",
)
# Of which optimizers it is one; its name, what changes, in words, and what would mend it. The
# likeliest come first.
_WAYS: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
    ("decoupled", "decay-coupling", {"decay": "coupled"},
     "your side applies weight decay to the gradient; torch's {torch} to the parameter",
     "use optax.adamw or jp.AdamW, or chain add_decayed_weights after scale_by_adam"),
    ("decoupled", "decay-order", {"decay": "raw"},
     "your side's weight decay is not multiplied by the learning rate; torch's is",
     "chain add_decayed_weights before the scaling by the learning rate"),
    ("decayed SGD", "decay-order", {"decay": "decoupled"},
     "your side adds weight decay after momentum, or takes it off the parameter; torch's SGD adds "
     "it to the gradient, before momentum",
     "chain optax.add_decayed_weights before optax.trace or optax.sgd"),
    ("coupled", "decay-coupling", {"decay": "decoupled"},
     "your side applies weight decay to the parameter; torch's {torch} to the gradient",
     "chain optax.add_decayed_weights before the optimizer, or use jp.{torch}"),
    ("not decoupled", "decay-order", {"decay": "raw"},
     "your side's weight decay is applied to the parameter, not multiplied by the learning rate; "
     "torch's {torch} adds it to the gradient",
     "chain optax.add_decayed_weights before the optimizer"),
    ("decayed", "decay-order", {"decay": "grown"},
     "your side's weight decay makes parameters grow: it is added after the update has its sign, "
     "and without the learning rate",
     "chain add_decayed_weights before the scaling by the negative learning rate"),
    ("decayed", "number", {"decay": "none"},
     "your side has no weight decay; torch has weight_decay={decay:.6g}",
     "give the optimizer weight_decay={decay:.6g}, or chain add_decayed_weights"),
    ("momentum", "first-momentum", {"first": "damped"},
     "your side's first momentum buffer is (1 - dampening) times the gradient; torch's is the "
     "gradient itself",
     "begin the buffer with the first gradient, as jp.sgd does"),
    ("SGD's momentum", "dampening", {"dampening": "ema"},
     "your side's momentum takes 1 - momentum of each gradient, as an average does; torch's takes "
     "1 - dampening = {share:.6g}", _EMA),
    ("SGD's momentum", "dampening", {"dampening": "ema", "first": "damped"},
     "your side's momentum is an average from zero, which takes 1 - momentum of each gradient; "
     "torch's takes the first gradient whole, and then 1 - dampening = {share:.6g}", _EMA),
    ("SGD's momentum", "dampening", {"dampening": "corrected", "first": "damped"},
     "your side's momentum is an average of the gradients, corrected for its beginning; torch's "
     "adds gradients up", _EMA),
    ("SGD's momentum", "nesterov", {"nesterov": True},
     "your side {nesterov[0]} Nesterov's momentum; torch {nesterov[1]}",
     "give nesterov={nesterov[2]}"),
    *(("SGD's momentum", "low-precision", {"narrow": dtype},
       f"your side keeps the momentum buffer in {dtype}", "give no accumulator_dtype")
      for dtype in NARROW),
    ("momentum", "lr-in-momentum", {"lr_inside": True},
     "your side's momentum buffer holds gradients multiplied by the learning rate, so that a new "
     "rate takes time to be felt; torch multiplies after",
     "scale by the learning rate after the momentum (optax.trace first, then the rate)"),
    ("eps", "eps-placement", {"eps": "inside"}, _EPS[0].format("inside the root"), _EPS[1]),
    ("eps", "eps-placement", {"eps": "root"},
     _EPS[0].format("inside the root of the corrected moment"), _EPS[1]),
    ("eps", "eps-placement", {"eps": "uncorrected"},
     _EPS[0].format("to the root before the correction of the bias"), _EPS[1]),
    ("corrected", "bias-correction", {"correction": "none"},
     _UNCORRECTED[0].format("the moments"), _UNCORRECTED[1]),
    ("corrected", "bias-correction", {"correction": "second"},
     _UNCORRECTED[0].format("the first moment"), _UNCORRECTED[1]),
    ("corrected", "bias-correction", {"correction": "first"},
     _UNCORRECTED[0].format("the second moment"), _UNCORRECTED[1]),
    ("RMSprop", "bias-correction", {"correction": "second"},
     "your side corrects the average of squares for its start at zero; torch does not",
     "give bias_correction=False"),
    ("RMSprop", "centered", {"centered": True},
     "your side {centered[0]} the average of squares; torch {centered[1]}",
     "give centered={centered[2]}"),
    ("NAdam", "nesterov", {"nesterov": True},
     "your side's NAdam has no momentum_decay, as optax.nadam; torch's has", "use jp.NAdam"),
    ("Adam", "nesterov", {"nesterov": True},
     "your side uses Nesterov's momentum; torch's {torch} does not",
     "give nesterov=False, or use optax.adam for optax.nadam"),
    ("Adam", "amsgrad", {"amsgrad": True},
     "your side {amsgrad[0]} AMSGrad; torch {amsgrad[1]}",
     "give both sides the same: optax.amsgrad or optax.adam"),
    ("without AMSGrad", "amsgrad", {"corrected_maximum": True, "amsgrad": True}, *_MAXIMUM),
    ("with AMSGrad", "amsgrad", {"corrected_maximum": True, "amsgrad": False}, *_MAXIMUM),
)  # fmt: skip


def known_ways(history: UpdateHistory) -> Iterator[Part]:
    """Yield the variations that there are of an optimizer, the likeliest first."""
    name, options = history.optimizer, history.options[0]
    decay, momentum = options.get("weight_decay", 0.0), bool(options.get("momentum"))
    decoupled = name == "AdamW" or bool(options.get("decoupled_weight_decay"))
    amsgrad, adam = bool(options.get("amsgrad")), name in ("Adam", "AdamW")
    applies = {
        "decayed": decay,
        "decoupled": decay and decoupled, "not decoupled": decay and not decoupled,
        "decayed SGD": decay and not decoupled and name == "SGD",
        "coupled": decay and not decoupled and name != "SGD",
        "momentum": momentum, "SGD's momentum": momentum and name == "SGD",
        "eps": "eps" in options and name != "Adadelta",  # whose eps is inside in torch, too
        "corrected": name in ("Adam", "AdamW", "NAdam", "Adamax"),
        "RMSprop": name == "RMSprop", "NAdam": name == "NAdam", "Adam": adam,
        "with AMSGrad": adam and amsgrad, "without AMSGrad": adam and not amsgrad,
    }  # fmt: skip

    def flag(option: str, has: str, lacks: str, does: str) -> tuple[str, str, bool]:
        """Return what your side does, what torch does, and torch's value."""
        on = bool(options.get(option))
        return (lacks, does, on) if on else (has, "does not", on)

    words = {
        "torch": name, "decay": decay, "share": 1 - options.get("dampening", 0.0),
        "root": "root" if name in ("RMSprop", "Adagrad") else "corrected root",
        "nesterov": flag("nesterov", "uses", "lacks", "uses it"),
        "amsgrad": flag("amsgrad", "uses", "lacks", "uses it"),
        "centered": flag("centered", "centres", "does not centre", "does"),
    }  # fmt: skip
    for of, cause, change, message, remedy in _WAYS:
        if applies[of]:
            told = Cause(cause, message.format(**words), remedy.format(**words))
            yield Part(told, Hypothesis(Variation(**change)), frozenset(change))
