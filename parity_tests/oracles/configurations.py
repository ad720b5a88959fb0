"""The table of optimizers under test: their names on both sides and how exact they are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

import jaxopt_port as jp
from parity_tests.oracles.optimizer import configurations

SHAPES = {
    "scalar": (),
    "empty": (0,),
    "one": (1,),
    "odd": (5, 7),
    "kernel": (17, 3, 3),
    "wide": (2, 1023),
    "long": (70_001,),  # beyond the 65,536 elements at which torch goes parallel
}


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    Attributes:
        name: of the class, on both sides.
        exact: whether torch's arithmetic can be reproduced to the bit: no root, no sum.
        sums: whether it sums over elements, in an order of its own.
        fused: whether torch has a fused implementation on the CPU.
        left_out: shapes that torch's class does not take, with the reason.
        complex: whether torch takes complex parameters.
    """

    name: str
    exact: bool = False
    sums: bool = False
    fused: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    complex: bool = True

    @property
    def torch(self) -> type[torch.optim.Optimizer]:
        return getattr(torch.optim, self.name)

    @property
    def port(self) -> Callable[..., Any]:
        return getattr(jp, self.name)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in SHAPES.items() if name not in self.left_out}

    def groupings(self) -> dict[str, list[list[str]]]:
        names = list(self.shapes)
        return {"one group": [names], "three groups": [names[:1], names[1:3], names[3:]]}


# Each with a rule for one leaf; LBFGS and SparseAdam have tests of their own.
LEAFWISE = [
    Optimizer("Adadelta"),
    Optimizer(
        "Adafactor",
        sums=True,
        left_out={"empty": "torch divides by its size: ZeroDivisionError"},
        complex=False,
    ),
    Optimizer("Adagrad", fused=True),
    Optimizer("Adam", fused=True),
    Optimizer("AdamW", fused=True),
    Optimizer("Adamax", exact=True),
    Optimizer("ASGD", exact=True),
    Optimizer("NAdam"),
    Optimizer("RAdam"),
    Optimizer("RMSprop"),
    Optimizer("Rprop", exact=True),
    Optimizer("SGD", exact=True, fused=True),
]
MUON = Optimizer(
    "Muon",
    sums=True,
    left_out={
        name: "torch refuses all but matrices" for name, shape in SHAPES.items() if len(shape) != 2
    },
    complex=False,
)


class Case(NamedTuple):
    optimizer: Optimizer
    description: str
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.optimizer.name} {self.description}"


CASES = [
    Case(optimizer, description, options)
    for optimizer in LEAFWISE
    for description, options in configurations(optimizer.torch)
]
