"""The ways in which ports of each optimizer are known to differ from torch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ._update_history import UpdateHistory


class KnownWay(NamedTuple):
    """One way in which ports differ, as a change of torch's algorithm."""

    name: str
    change: dict[str, Any]
    message: str
    remedy: str


def known_ways(history: UpdateHistory) -> Iterator[KnownWay]:
    """Yield the variations that there are of an optimizer, the likeliest first."""
    name, options = history.optimizer, history.options[0]
    decay = options.get("weight_decay", 0.0)
    decoupled = name == "AdamW" or bool(options.get("decoupled_weight_decay"))
    if decay:
        if decoupled:
            yield KnownWay(
                "decay-coupling", {"decay": "coupled"},
                f"your side applies weight decay to the gradient; torch's {name} to the parameter",
                "use optax.adamw or jp.AdamW, or chain add_decayed_weights after scale_by_adam",
            )  # fmt: skip
            yield KnownWay(
                "decay-order", {"decay": "raw"},
                "your side's weight decay is not multiplied by the learning rate; torch's is",
                "chain add_decayed_weights before the scaling by the learning rate",
            )  # fmt: skip
        elif name == "SGD":
            yield KnownWay(
                "decay-order", {"decay": "decoupled"},
                "your side adds weight decay after momentum, or takes it off the parameter; "
                "torch's SGD adds it to the gradient, before momentum",
                "chain optax.add_decayed_weights before optax.trace or optax.sgd",
            )  # fmt: skip
        else:
            yield KnownWay(
                "decay-coupling", {"decay": "decoupled"},
                f"your side applies weight decay to the parameter; torch's {name} to the gradient",
                f"chain optax.add_decayed_weights before the optimizer, or use jp.{name}",
            )  # fmt: skip
        if not decoupled:
            yield KnownWay(
                "decay-order", {"decay": "raw"},
                "your side's weight decay is applied to the parameter, not multiplied by the "
                f"learning rate; torch's {name} adds it to the gradient",
                "chain optax.add_decayed_weights before the optimizer",
            )  # fmt: skip
        yield KnownWay(
            "decay-order", {"decay": "grown"},
            "your side's weight decay makes parameters grow: it is added after the update has its "
            "sign, and without the learning rate",
            "chain add_decayed_weights before the scaling by the negative learning rate",
        )  # fmt: skip
        yield KnownWay(
            "number", {"decay": "none"},
            f"your side has no weight decay; torch has weight_decay={decay:.6g}",
            f"give the optimizer weight_decay={decay:.6g}, or chain add_decayed_weights",
        )  # fmt: skip
    if options.get("momentum"):
        yield KnownWay(
            "first-momentum", {"first": "damped"},
            "your side's first momentum buffer is (1 - dampening) times the gradient; torch's is "
            "the gradient itself",
            "begin the buffer with the first gradient, as jp.sgd does",
        )  # fmt: skip
        if name == "SGD":
            yield KnownWay(
                "dampening", {"dampening": "ema"},
                "your side's momentum takes 1 - momentum of each gradient, as an average does; "
                f"torch's takes 1 - dampening = {1 - options.get('dampening', 0.0):.6g}",
                "use optax.trace, not optax.ema, or jp.sgd",
            )  # fmt: skip
            yield KnownWay(
                "dampening", {"dampening": "ema", "first": "damped"},
                "your side's momentum is an average from zero, which takes 1 - momentum of each "
                "gradient; torch's takes the first gradient whole, and then 1 - dampening = "
                f"{1 - options.get('dampening', 0.0):.6g}",
                "use optax.trace, not optax.ema, or jp.sgd",
            )  # fmt: skip
            yield KnownWay(
                "dampening", {"dampening": "corrected", "first": "damped"},
                "your side's momentum is an average of the gradients, corrected for its beginning; "
                "torch's adds gradients up",
                "use optax.trace, not optax.ema, or jp.sgd",
            )  # fmt: skip
            nesterov = bool(options.get("nesterov"))
            yield KnownWay(
                "nesterov", {"nesterov": True},
                f"your side {'lacks' if nesterov else 'uses'} Nesterov's momentum; torch "
                f"{'uses it' if nesterov else 'does not'}",
                f"give nesterov={nesterov}",
            )  # fmt: skip
        yield KnownWay(
            "lr-in-momentum", {"lr_inside": True},
            "your side's momentum buffer holds gradients multiplied by the learning rate, so that "
            "a new rate takes time to be felt; torch multiplies after",
            "scale by the learning rate after the momentum (optax.trace first, then the rate)",
        )  # fmt: skip
    if "eps" in options:
        yield from _of_eps(name)
    if name in ("Adam", "AdamW", "NAdam", "Adamax"):
        for which, words in (
            ("none", "the moments"), ("second", "the first moment"), ("first", "the second moment")
        ):  # fmt: skip
            yield KnownWay(
                "bias-correction", {"correction": which},
                f"your side does not correct {words} for the start at zero; torch does",
                "divide moments by 1 - beta**step (optax.adam does)",
            )  # fmt: skip
    if name == "RMSprop":
        yield KnownWay(
            "bias-correction", {"correction": "second"},
            "your side corrects the average of squares for its start at zero; torch does not",
            "give bias_correction=False",
        )  # fmt: skip
        centered = bool(options.get("centered"))
        yield KnownWay(
            "centered", {"centered": True},
            f"your side {'does not centre' if centered else 'centres'} the average of squares; "
            f"torch {'does' if centered else 'does not'}",
            f"give centered={centered}",
        )  # fmt: skip
    if name == "NAdam":
        yield KnownWay(
            "nesterov", {"nesterov": True},
            "your side's NAdam has no momentum_decay, as optax.nadam; torch's has",
            "use jp.NAdam",
        )  # fmt: skip
    if name in ("Adam", "AdamW"):
        yield KnownWay(
            "nesterov", {"nesterov": True},
            f"your side uses Nesterov's momentum; torch's {name} does not",
            "give nesterov=False, or use optax.adam for optax.nadam",
        )  # fmt: skip
        amsgrad = bool(options.get("amsgrad"))
        sides = ("lacks", "uses it") if amsgrad else ("uses", "does not")
        yield KnownWay(
            "amsgrad", {"amsgrad": True}, f"your side {sides[0]} AMSGrad; torch {sides[1]}",
            "give both sides the same: optax.amsgrad or optax.adam",
        )  # fmt: skip
        yield KnownWay(
            "amsgrad", {"corrected_maximum": True, "amsgrad": not amsgrad},
            "your side's AMSGrad takes the maximum of corrected moments; torch's of those as they "
            "are",
            "use jp.Adam(amsgrad=True)",
        )  # fmt: skip


def _of_eps(name: str) -> Iterator[KnownWay]:
    torchs = "inside" if name == "Adadelta" else "outside"
    if torchs == "inside":
        return
    root = "root" if name in ("RMSprop", "Adagrad") else "corrected root"
    for kind, words in (
        ("inside", "inside the root"),
        ("root", "inside the root of the corrected moment"),
        ("uncorrected", "to the root before the correction of the bias"),
    ):
        yield KnownWay(
            "eps-placement", {"eps": kind},
            f"your side adds eps {words}; torch's {name} adds it to the {root}",
            "set eps, not eps_root (optax.adam), or eps_in_sqrt=False (optax.rmsprop); "
            "optax.adagrad has no choice: jp.adagrad",
        )  # fmt: skip
