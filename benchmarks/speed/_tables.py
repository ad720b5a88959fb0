"""Results as text: tables in the terminal and in documents, a comparison of two files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table

from ._results import Measurement, Results
from ._targets import Found, targets

_ROOT = Path(__file__).parents[2]
README, SPEED = _ROOT / "README.md", _ROOT / "docs" / "speed.md"
# Of the targets, those that the README has.
_HEADLINES = (
    "step, AdamW, GPT-2 small: jp.step / torch fused",
    "step, AdamW, GPT-2 small: jp.step / optax",
    "step, SGD, GPT-2 small: jp.step / optax",
    "step, Adam, 300 small leaves: jp.step / torch fused",
    "train, LeNet, batch 32: NNX, jp, XLA's convolution / torch eager",
    "groups: 100 groups / 1 group, 400 leaves",
)
_BEGIN, _END = "<!-- speed: begin -->", "<!-- speed: end -->"
# A change is a regression beyond this part of the old time, and beyond both runs' quartiles.
_NOISE = 0.1


def amount(value: float, unit: str) -> str:
    """Return a number with its unit."""
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    if unit == "B/s":
        return f"{value / 1e9:.1f} GB/s"
    return f"{value / 2**20:.3g} MiB"


def suite_table(results: Results, suite: str) -> Table:
    """Return a suite's measurements, with ratios to the first contender of each case."""
    table = Table(title=suite, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("case", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for column in ("median", "quartiles", "ratio", "to the limit", "differs"):
        table.add_column(column, justify="right", no_wrap=True)
    case = None
    base = 1.0
    for m in (m for m in results.measurements if m.suite == suite):
        if m.case != case:
            base = m.median
        table.add_row(
            "" if m.case == case else m.case,
            m.contender,
            amount(m.median, m.unit),
            f"{amount(m.low, m.unit)} to {amount(m.high, m.unit)}",
            f"{m.median / base:.2f}" if base else "",
            f"{m.median / m.limit:.2f}" if m.limit else "",
            "" if m.differs is None else f"{m.differs:.0e}",
            end_section=False,
        )
        case = m.case
    return table


def targets_table(results: Results) -> Table:
    """Return the targets with what was found."""
    table = Table(title="targets", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("what")
    for column in ("found", "at most", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for found in targets(results):
        shown = [f"{x:.2f}{found.unit and ' ' + found.unit}" for x in (found.ratio, found.bound)]
        table.add_row(found.what, *shown, found.verdict)
    return table


class Change(NamedTuple):
    """A measurement in two files."""

    old: Measurement
    new: Measurement

    @property
    def ratio(self) -> float:
        """The new median over the old one."""
        return self.new.median / self.old.median

    @property
    def beyond_noise(self) -> bool:
        """Whether the medians differ by more than a tenth, and the quartiles do not meet."""
        apart = self.new.low > self.old.high or self.new.high < self.old.low
        return abs(self.ratio - 1) > _NOISE and apart


def changes(old: Results, new: Results) -> list[Change]:
    """Return what is in both files, the worst first; bandwidths left out."""
    before = {m.key: m for m in old.measurements if m.unit != "B/s" and m.median > 0}
    both = [Change(before[m.key], m) for m in new.measurements if m.key in before]
    return sorted(both, key=lambda change: -change.ratio)


def changes_table(found: list[Change], every: bool) -> Table:
    """Return what has changed beyond noise, or everything."""
    table = Table(title="new / old", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("suite", "case", "contender"):
        table.add_column(column, no_wrap=True)
    for column in ("old", "new", "ratio", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for change in found:
        old = change.old
        verdict = "" if not change.beyond_noise else "slower" if change.ratio > 1 else "faster"
        if every or verdict:
            shown = [amount(m.median, m.unit) for m in change]
            table.add_row(
                old.suite, old.case, old.contender, *shown, f"{change.ratio:.2f}", verdict
            )
    return table


def speed_table(cpu: Results, gpu: Results | None = None, only: Sequence[str] | None = None) -> str:
    """Return the table of speed as Markdown; where there is a GPU, its column too."""
    machine = cpu.machine
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, "
        f"torch {cpu.sides['torch']['torch']}, jax {cpu.sides['jax']['jax']}; "
        f"medians, both sides of a ratio from one run ({cpu.created[:10]}).",
    ]
    if gpu is not None:
        lines.append(f"GPU: {gpu.device} ({gpu.created[:10]}).")
    lines += ["", "| ratio | CPU | target | met | GPU |", "|---|---:|---:|---|---|"]
    on_cpu = {found.what: found for found in targets(cpu)}
    on_gpu = {found.what: found for found in targets(gpu)} if gpu else {}
    every = [*on_cpu, *(w for w in on_gpu if w not in on_cpu)]
    for what in every if only is None else only:
        here, there = on_cpu.get(what), on_gpu.get(what)
        of_cpu = ["", "", ""] if here is None else [amounts(here), bounds(here), verdict(here)]
        of_gpu = "not measured yet"
        if there is not None:
            of_gpu = f"{amounts(there)} ({bounds(there)}: {verdict(there)})"
        lines.append("| " + " | ".join([what, *of_cpu, of_gpu]) + " |")
    return "\n".join(lines) + "\n"


def amounts(found: Found) -> str:
    """Return a ratio, or seconds, as text."""
    return f"{found.ratio:.2f}{found.unit and ' ' + found.unit}"


def bounds(found: Found) -> str:
    """Return what it should not exceed."""
    return f"≤ {found.bound:.2f}{found.unit and ' ' + found.unit}"


def verdict(found: Found) -> str:
    """Return whether it does not."""
    return found.verdict if found.met else f"**{found.verdict}**"


def with_tables(cpu: Results, gpu: Results | None = None) -> dict[Path, str]:
    """Return the documents that have the table, or the head of it, with it in its place."""
    tables = {README: speed_table(cpu, gpu, _HEADLINES), SPEED: speed_table(cpu, gpu)}
    return {path: _in_place(path, table) for path, table in tables.items()}


def _in_place(path: Path, table: str) -> str:
    text = path.read_text()
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{path} has no place for the table: {_BEGIN} … {_END}")
    return pattern.sub(lambda _: f"{_BEGIN}\n{table}{_END}", text)
