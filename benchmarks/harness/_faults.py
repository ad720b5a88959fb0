"""What the verification harness finds: seeded faults, and alarms where there is no fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import typer
from rich import box
from rich.table import Table

DTYPES = ("float32", "bfloat16")


def scores() -> Iterator[tuple[Any, Any]]:
    """Yield each fault and its score; those that the diagnosis was not built on come last."""
    from parity_tests.faults.held_out import HELD_OUT
    from parity_tests.faults.seeded import FAULTS, score

    for fault in (*FAULTS, *HELD_OUT):
        yield fault, score(fault)


def table(scored: list[tuple[Any, Any]]) -> Table:
    """Return what was found of each fault, and the score."""
    shown = Table(box=box.SIMPLE_HEAD, title="seeded faults", title_justify="left")
    for column in ("fault", "network", "said", "found", "place", "cause"):
        shown.add_column(column, no_wrap=column in ("found", "place", "cause"))
    for fault, score in scored:
        marks = ["yes" if ok else "no" for ok in (score.found, score.place, score.cause)]
        shown.add_row(fault.name, fault.model, score.said, *marks)
    return shown


def summary(scored: list[tuple[Any, Any]]) -> str:
    """Return the score in words."""
    found, place = (sum(score[i] for _, score in scored) for i in range(2))
    known = [score.cause for fault, score in scored if fault.cause is not None]
    unknown = [score.cause for fault, score in scored if fault.cause is None]
    leaves = sum(fault.leaf is not None for fault, _ in scored)
    return (
        f"{len(scored)} faults: {found} found; {place} in the right place (step and stage; which "
        f"leaves differ, and which do not, in {leaves}); {sum(known)} of the {len(known)} with a "
        f"known cause named for it; {len(unknown) - sum(unknown)} of the {len(unknown)} without "
        "one misnamed"
    )


def matrix(seeds: int, models: list[str] | None = None) -> list[tuple[str, str, int, str]]:
    """Return model, optimizer, seed and dtype of the runs without a fault.

    Raises:
        BadParameter: there is no such model.
    """
    from parity_tests.faults.models import MODELS, PAIRS

    for name in models or ():
        if name not in MODELS:
            raise typer.BadParameter(
                f"no network {name!r}; they are {', '.join(MODELS)}", param_hint="--model"
            )
    return list(itertools.product(models or MODELS, PAIRS, range(seeds), DTYPES))


def alarm(model: str, optimizer: str, seed: int, dtype: str, steps: int) -> str:
    """Return what was found in a run without a fault, or ""."""
    from parity_tests.faults.models import unbroken

    report = unbroken(model, optimizer, seed, dtype, steps)
    return "" if report.ok else str(report)


def unseen() -> Iterator[tuple[Any, Any]]:
    """Yield each fault of the later held-out tables, and what was said of it."""
    from parity_tests.faults.further import FURTHER
    from parity_tests.faults.outside import OUTSIDE
    from parity_tests.faults.trainings import told
    from parity_tests.faults.unseen import UNSEEN

    for training in (*UNSEEN, *OUTSIDE, *FURTHER):
        yield training, told(training)


def right_ports(count: int) -> Iterator[tuple[Any, str]]:
    """Yield so many right ports, drawn by a seed, and what was found in each, or ""."""
    import torch

    from parity_tests.faults.idioms import ports, right_port

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the arrays are small: several threads wait for each other
    try:
        for port in ports(count):
            report = right_port(port)
            yield port, "" if report.ok else str(report)
    finally:
        torch.set_num_threads(threads)


def told_of(scored: list[tuple[Any, Any]]) -> str:
    """Return the score of the later held-out tables in words."""
    causes = sum(len(fault.causes) for fault, _ in scored)
    found = sum(told.found for _, told in scored)
    named, wrong = (sum(told[i] for _, told in scored) for i in (1, 2))
    return (
        f"{len(scored)} trainings with {causes} faults, held out: {found} with all found where "
        f"they are; {named} of the {causes} named, {wrong} named wrong"
    )
