"""What is measured, the most worthy first; and less of it, to rehearse on a CPU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from ._data import Batch, Item

_OPTIMIZERS = ("AdamW", "SGD", "Adam", "RMSprop", "Adafactor", "Muon")
_MODELS = ("GPT-2 small", "300 small leaves", "Llama-like 1 B", "ViT-B/16", "ResNet-50")
_MODELS += ("1000 small leaves",)
_FIRST = [
    *(("AdamW", "GPT-2 small"), ("SGD", "GPT-2 small"), ("AdamW", "1 leaf of 124439808")),
    *(("AdamW", "300 small leaves"), ("Adam", "Llama-like 1 B"), ("AdamW", "ResNet-50")),
    *(("SGD", "1 leaf of 124439808"), ("Muon", "ViT-B/16"), ("AdamW", "ViT-B/16")),
    *(("RMSprop", "GPT-2 small"), ("Adafactor", "GPT-2 small"), ("SGD", "300 small leaves")),
    *(("AdamW", "1000 small leaves"), ("SGD", "Llama-like 1 B"), ("Adam", "300 small leaves")),
]
CONTENDERS = {
    "torch": ("torch fused", "torch foreach", "torch for-loop"),
    "jax": ("jp.step", "jaxopt_port.flax.Optimizer", "nnx.Optimizer, optax", "optax"),
}
TRAINED = {"torch": ("torch eager",), "jax": ("NNX, jp", "NNX, optax")}
COMPILED = {"torch": ("torch.compile",)}

# The tests that mean something where torch's results on a CPU are not the measure.
TESTS = (
    "parity_tests/project/test_compat.py",
    "parity_tests/engine/test_selectors.py",
    "parity_tests/engine/test_arguments.py",
    "parity_tests/engine/test_hyperparams.py",
    "parity_tests/engine/test_no_gradient.py",
    "parity_tests/engine/test_state_survives.py",
    "parity_tests/lr_scheduler/test_lr_scheduler_use.py",
    "parity_tests/checkpoint/test_state_dict.py",
    "parity_tests/numerics/test_lowering.py",
)


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
        steps: after which of an optimizer's steps both sides are compared.
        step: (optimizer, model) of the suite ``step``.
        compiled: how many cases torch.compile is measured in, of this suite and of ``train``.
        train: cases of the suite ``train``: name and settings.
        decoder: the size of the decoder that is trained.
        memory: (optimizer, model) of the suite ``memory``.
        copied: bytes that a copy moves, half of them read.
        turn: seconds of a turn, and how many turns.
        tests: which tests are run.
        optimizers: whose defaults alone are compared; each configuration of all where empty.
    """

    steps: tuple[int, ...]
    step: Sequence[tuple[str, str]]
    compiled: int
    train: Sequence[tuple[str, dict[str, Any]]]
    decoder: dict[str, int]
    memory: Sequence[tuple[str, str]]
    copied: int
    turn: tuple[float, int]
    tests: Sequence[str]
    optimizers: tuple[str, ...]


def _train(lenets: Sequence[int], decoder: int) -> list[tuple[str, dict[str, Any]]]:
    cases: list[tuple[str, dict[str, Any]]] = [
        (f"decoder, batch {decoder}", {"network": "decoder", "batch": decoder}),
        (
            f"decoder, batch {decoder}, bfloat16 with float32 masters",
            {"network": "decoder", "batch": decoder, "low": True},
        ),
    ]
    return [(f"LeNet, batch {n}", {"network": "LeNet", "batch": n}) for n in lenets] + cases


WHOLE = Sizes(
    steps=(1, 100),
    step=list(dict.fromkeys([*_FIRST, *itertools.product(_OPTIMIZERS, _MODELS)])),
    compiled=2,
    train=_train((256, 32), 8),
    decoder={"vocabulary": 8192, "width": 512, "heads": 8, "layers": 6, "length": 256},
    memory=[(o, "GPT-2 small") for o in ("AdamW", "SGD", "Adafactor")] + [("Muon", "ViT-B/16")],
    copied=2**31,
    turn=(0.08, 5),
    tests=TESTS,
    optimizers=(),
)
REHEARSAL = Sizes(
    steps=(1, 3),
    step=[("AdamW", "12 small leaves"), ("SGD", "2 leaves of 4096")],
    compiled=0,
    train=_train((), 2)[1:],
    decoder={"vocabulary": 32, "width": 16, "heads": 2, "layers": 1, "length": 8},
    memory=[("AdamW", "12 small leaves")],
    copied=2**22,
    turn=(0.005, 3),
    tests=TESTS[:1],
    optimizers=("SGD", "AdamW"),
)


def batches(items: Sequence[Item], optimizers: Sequence[str]) -> list[Batch]:
    """Return what is compared: the defaults together, then each optimizer's configurations.

    L-BFGS's come last: they take as long as all the others'.
    """
    names = dict.fromkeys([*_OPTIMIZERS, *(item.optimizer for item in items)])
    kinds = {name: [item for item in items if item.optimizer == name] for name in names}
    kinds["LBFGS"] = kinds.pop("LBFGS", [])
    defaults = tuple(Item(n, {}, {}) for n in optimizers or kinds if kinds[n] and n != "LBFGS")
    made = [Batch(defaults, dtype) for dtype in ("float32", "bfloat16")]
    if not optimizers:
        made += [
            Batch(tuple(of_kind), dtype)
            for of_kind, dtype in sorted(
                itertools.product(kinds.values(), ("float32", "bfloat16")),
                key=lambda pair: (pair[0] is kinds["LBFGS"], pair[1] == "bfloat16"),
            )
            if of_kind
        ]
    return made
