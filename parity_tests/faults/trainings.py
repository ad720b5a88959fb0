"""Trainings with one fault or several, held out, and what is said of them.

Stage and causes of a row were written down before it was run. Where two causes cannot be told
apart, either name will do, and both are to be said.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxopt_port import verify
from parity_tests.faults import right_networks as nets
from parity_tests.faults.further_networks import FURTHER
from parity_tests.faults.seeded import searched

STEPS = 12
NETWORKS = {**nets.NETWORKS, **FURTHER}


class Training(NamedTuple):
    """One fault, or several; ``causes`` by stage, "" one without a known cause.

    ``side`` makes another JAX side; ``theirs`` makes more arguments of `TorchSide`, ``mine`` are
    other ones of `JaxSide`; ``data`` changes the batches of both sides.
    """

    name: str
    network: str
    torch: Callable[[Any], Any]
    tx: Any
    causes: tuple[tuple[str, str], ...]
    side: Callable[[], Any] | None = None
    mine: Mapping[str, Any] = MappingProxyType({})
    theirs: Callable[[Any, Any], dict[str, Any]] = lambda module, optimizer: {}
    data: Callable[[Any], Any] = lambda made: made


def own(network: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a pipeline of one's own: a change of torch's batches."""
    return {"batches": change(NETWORKS[network].batches(0, STEPS))}


class Told(NamedTuple):
    """What was said of a training: all found, and named right, wrong, or not at all."""

    found: bool
    named: int
    wrong: int
    said: str


def report(training: Training) -> Any:
    """Run the comparison of a training."""
    network = NETWORKS[training.network]
    made = nets.side(network) if training.side is None else training.side()
    return verify.compare(
        nets.torch_side(network, training.torch, 0, training.theirs),
        dataclasses.replace(made, tx=training.tx, **training.mine),
        training.data(network.batches(0, STEPS)),
        **network.options,
    )


def told(training: Training) -> Told:
    """Compare what is said with what is so."""
    causes, made = training.causes, searched(report(training))
    said = [(d.stage, d.cause.name if d.cause else "") for d in made.found]
    more = [
        (d.stage, also.name) for d in made.found if d.cause is not None for also in d.cause.also
    ]
    named = sum(
        any(stage == s and n in names.split("|") for s, n in said + more) for stage, names in causes
    )
    right = [(stage, name) for stage, names in causes for name in names.split("|")]
    wrong = sum(bool(name) and (stage, name) not in right for stage, name in said + more)
    stages = {stage for stage, _ in said}
    words = "; ".join(
        f"{d.step} {d.stage}: {n or None}" for d, (_, n) in zip(made.found, said, strict=True)
    ) + "".join(f"; also {stage}: {name}" for stage, name in more)
    return Told(all(stage in stages for stage, _ in causes), named, wrong, words or "nothing")
