"""``docs/parity.md``: the measured rows as a document."""

from __future__ import annotations

import datetime
import inspect
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from .._torch_table import Configuration, defaults
from ._markdown import ANOTHER_ALGORITHM, both, brief, filled, in_parts, table
from ._measure import (
    BY_NAME,
    CLOSEST,
    DTYPES,
    MOVED,
    PORT,
    WIDE,
    Cell,
    Distance,
    Row,
    worst,
)
from ._optax_differences import SPELLINGS
from ._optax_spellings import lbfgs_iteration

DOCUMENT = Path(__file__).parents[2] / "docs" / "parity.md"

_SUMMARY = (
    "optimizer",
    "configurations",
    "this library, 1 step",
    "all steps",
    "torch's others, all steps",
    "closest Optax, 1 step",
    "all steps",
    "in float64",
    "Optax by name, all steps",
)
_STEP = ("optimizer.step()", "params, state = jp.step(tx, grads, state, params)")
_STEPS = {
    "LBFGS": ("optimizer.step(closure)", "params, state = jp.step(tx, loss, state, params)"),
    "SparseAdam": (
        "optimizer.step()  # of sparse gradients",
        'grads = {"table": (indices, values)}; params, state = jp.step(tx, grads, state, params)',
    ),
}


def document(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown: a summary, then a section for each optimizer."""
    by_optimizer: dict[str, list[Row]] = {}
    for row in rows:
        by_optimizer.setdefault(row.configuration.optimizer, []).append(row)
    parts = [_head(rows), table(_SUMMARY, [_summary(*each) for each in by_optimizer.items()])]
    parts += [_method(rows)]
    parts += [_section(optimizer, found) for optimizer, found in by_optimizer.items()]
    return "\n\n".join(parts) + "\n"


def write(text: str, file: Path = DOCUMENT) -> None:
    """Write the document beside its place first and then into it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def label(configuration: Configuration) -> str:
    """Return a configuration's name in its table."""
    return f"`{configuration}`" if configuration.options else "default"


def sources(optimizer: str) -> str:
    """Return the code of the closest Optax spelling, as it was measured."""
    functions = [SPELLINGS[optimizer].closest, *([lbfgs_iteration] * (optimizer == "LBFGS"))]
    return "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)


def reason(optimizer: str) -> str:
    """Return why the closest spelling, and Optax by name, are not torch's."""
    return filled(f"**Why it differs.** {SPELLINGS[optimizer].why}")


def _of_cells(rows: Iterable[Row], names: Iterable[str], when: str) -> Distance | None:
    cells = [row.cells.get(name) for row in rows for name in names]
    distances = [getattr(cell, when) for cell in cells if isinstance(cell, Cell)]
    return worst(distances) if distances else None


def _others(rows: Iterable[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.cells)
    return [name for name in names if name not in (PORT, CLOSEST, BY_NAME, WIDE)]


def _summary(optimizer: str, rows: Sequence[Row]) -> list[str]:
    asked = [
        ([PORT], "one"),
        ([PORT], "all"),
        (_others(rows), "all"),
        ([CLOSEST], "one"),
        ([CLOSEST], "all"),
        ([WIDE], "all"),
        ([BY_NAME], "all"),
    ]
    found = [_of_cells(rows, names, when) for names, when in asked]
    texts = ["–" if distance is None else brief(distance) for distance in found]
    if (wide := found[5]) is not None:
        texts[5] = in_parts(wide.relative)
    return [f"[{optimizer}](#{optimizer.lower()})", str(len(rows)), *texts]


def _names(optimizers: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(optimizers)) or "none"


def _beyond(rows: Iterable[Row], name: str) -> str:
    """Name the optimizers of which a contender is another algorithm by its distance."""
    return _names(
        row.configuration.optimizer
        for row in rows
        if isinstance(cell := row.cells.get(name), Cell) and cell.all.relative >= ANOTHER_ALGORITHM
    )


def _head(rows: Sequence[Row]) -> str:
    single = [row for row in rows if row.configuration.optimizer not in DTYPES]
    port = [cell for row in single if isinstance(cell := row.cells[PORT], Cell)]
    exact = sum(cell.all.units == 0 for cell in port)
    nothing = Distance(0.0, 0.0)
    far = _of_cells(single, [PORT], "all") or nothing
    torchs = _of_cells(single, _others(single), "all") or nothing
    beyond = f"beyond {100 * ANOTHER_ALGORITHM:g} %"
    return filled(f"""\
# Parity with torch

<!-- Written by `python -m benchmarks parity --write`: what is edited here is overwritten. -->

How far this library, torch's other implementations and plain Optax are from `torch.optim` in each \
configuration of torch's own test table, and how each optimizer is written in all three.

- **This library**, in float32 after {max(row.calls for row in rows)} steps: {exact} of \
{len(port)} configurations equal torch's default implementation in every bit; the furthest is \
{both(far)} away. torch's own foreach and fused implementations are up to {both(torchs)} away.
- **Plain Optax by name**, with torch's learning rate, is {beyond}: {_beyond(rows, BY_NAME)}.
- **The closest spelling in plain Optax**, which takes the code below, is still {beyond}: \
{_beyond(rows, CLOSEST)}. Elsewhere it is the same algorithm but for roundings and the place of \
`eps`.

The worst of each optimizer's configurations, in units in the last place (and relative to the \
parameters); from {100 * ANOTHER_ALGORITHM:g} % on, relative alone:""")


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return (
        f"{cpu}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"{platform.system()} {platform.machine()}"
    )


def _method(rows: Sequence[Row]) -> str:
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "jax", "jaxlib", "optax", "numpy")
    )
    return filled(f"""\
Measured on {datetime.date.today()} by `python -m benchmarks parity`: {_machine()}; Python \
{platform.python_version()}, {versions}; {len(rows)} configurations.

**How.** All sides start from the same random parameters and get the same random gradients, for \
{max(row.calls for row in rows)} steps; SparseAdam gets row-sparse gradients in which rows repeat. \
LBFGS, which evaluates its own gradients, minimizes Rosenbrock's function and a quadratic one, in \
a tenth as many calls. It multiplies every rounding, so it runs in float64, and its yardstick is \
torch itself started one unit in the last place away. Everything else is float32. Optax runs as \
users run it: `tx.update` and `optax.apply_updates` in one `jit`.

**Distances.** After one step, an element's error is counted in units in the last place of the \
largest number of its step: the parameter before, after, or the change. After all steps, an \
array's largest error is divided by its largest magnitude at the start or the end, and given as \
that and in that magnitude's units. The worst element of the worst array counts. The float64 \
column repeats the closest Optax spelling beside torch in float64: where that is small, the \
algorithm is torch's, and the distance in float32 is rounding.

In each section, `jp` stands for `import jaxopt_port as jp`; Optax's code needs `import jax, \
jax.numpy as jnp, optax`. The code shown is the code that was measured.""")


def _section(optimizer: str, rows: Sequence[Row]) -> str:
    parts = [f"## {optimizer}", _calls(optimizer, rows)]
    if optimizer in SPELLINGS:
        parts += [
            "The closest in plain Optax:",
            f"```python\n{sources(optimizer)}\n```",
            reason(optimizer),
            *_by_parameter(rows),
        ]
    return "\n\n".join([*parts, _configurations(rows)])


def _calls(optimizer: str, rows: Sequence[Row]) -> str:
    options = max(
        (str(row.configuration) for row in rows if "tensor" not in str(row)), key=len, default=""
    )
    in_torch, here = _STEPS.get(optimizer, _STEP)
    texts = {
        "torch": f"`optimizer = torch.optim.{optimizer}(params, {options})`<br>`{in_torch}`",
        "here": f"`tx = jp.{optimizer}({options})`; `state = tx.init(params)`<br>`{here}`",
    }
    if not any(isinstance(row.cells[PORT], Cell) for row in rows):
        del texts["here"]
    spelling = SPELLINGS.get(optimizer)
    if spelling is not None and spelling.by_name is not None:
        text = f"`{spelling.expression(defaults(optimizer)['lr'])}`"
        if differing := spelling.differing_defaults():
            text += f"<br>its defaults that are not torch's: {', '.join(differing)}"
        texts["Optax by name"] = text
    return "\n".join(["|  |  |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in texts.items())])


def _by_parameter(rows: Sequence[Row]) -> list[str]:
    """Return a line on each array's distance, where the closest spelling is another algorithm."""
    cell = rows[0].cells[CLOSEST]
    if not isinstance(cell, Cell) or cell.all.relative < ANOTHER_ALGORITHM:
        return []
    each = [f"{name} {in_parts(d.relative)}" for name, d in cell.by_parameter.items()]
    return [f"The closest spelling's distance by array, in the first row: {', '.join(each)}."]


def _configurations(rows: Sequence[Row]) -> str:
    others = _others(rows)
    names = [
        PORT,
        *others,
        CLOSEST,
        *([BY_NAME] if isinstance(rows[0].cells.get(BY_NAME), Cell) else []),
    ]
    heads = {name: f"torch {name}" for name in others if name != MOVED}
    lines, notes = [], []
    for row in rows:
        for when, step in (("one", "1"), ("all", str(row.calls))):
            texts = []
            for name in names:
                cell = row.cells.get(name, "")
                texts.append(
                    both(getattr(cell, when)) if isinstance(cell, Cell) else "–" * bool(cell)
                )
            lines.append([label(row.configuration), step, *texts])
        notes += [
            f"{label(row.configuration)}, {heads.get(name, name)}: {cell}"
            for name in names
            if isinstance(cell := row.cells.get(name), str)
        ]
    head = ["configuration", "steps", *(heads.get(name, name) for name in names)]
    return "\n\n".join([table(head, lines), *[f"- {note}" for note in notes]])
