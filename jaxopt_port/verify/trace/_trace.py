"""A recorded run: a folder with ``trace.json``, ``scalars.jsonl`` and a file for each step."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...interop.files import read_tensors
from ...interop.mapping import TorchTensor
from ..recorder import Evaluation, Update
from ..report import floats_of
from ._arrays import StepFiles
from ._batches import built, checked
from ._schema import (
    FACTS,
    FREE,
    LINE,
    STATES,
    disagreements,
    disagreements_of_line,
    faults,
)
from ._steps import Array, evaluation_of, update_of
from ._tensors import tensors_of_trace

FORMAT = "jaxopt_port trace"
VERSION = 1


class Trace:
    """A trace that `verify.recorder.record` wrote. `Trace.open` makes one; it needs no torch.

    Attributes:
        folder: where it is.
        facts: all of ``trace.json``.
        name: of the case.
        steps: how many steps can be read.
        names: of the parameters, tied ones once.
        optimizer_name: torch's class.
        dtype: of the run, ``"float32"``.
        tensors: parameters and buffers, for `interop.param_map`.
        momenta: of the layers that have one (batch normalisation), by layer.
        stores_batches: whether it holds the batches, or their hashes only.
        notes: what it does not hold.
        environment: versions, where it was recorded.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        self.folder, self.facts, self._lines = folder, facts, lines
        self.name: str = facts.get("name", folder.name)
        self.steps = len(lines)
        self.tensors: list[TorchTensor] = tensors_of_trace(facts["tensors"], facts["layers"])
        self.names = tuple(t.name for t in self.tensors if not t.buffer)
        self.optimizer_name: str = facts["optimizer"]
        self.dtype: str = facts["dtype"]
        self.stores_batches = facts["batches"] == "stored"
        self.environment: dict[str, str] = facts.get("environment", {})
        self.momenta = {
            name: layer["momentum"]
            for name, layer in facts["layers"].items()
            if layer.get("momentum") is not None
        }
        self.notes = [f"the trace has {note}" for note in facts["budget"]["notes"]]
        if self.steps < facts["steps"]:
            self.notes.append(f"the trace ends after {self.steps} of {facts['steps']} steps")
        self._evaluated: tuple[dict[str, Any], dict[str, Array]] | None = None  # awaits an update
        self._dtypes = {tensor.name: tensor.dtype for tensor in self.tensors}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, allow_partial: bool = False) -> Trace:
        """Read what a trace says of itself; steps are read as they are asked for.

        Args:
            folder: of the trace.
            allow_partial: take one whose recording was cut off, as far as it goes.

        Raises:
            ValueError: it is no trace, of another version, incomplete or damaged.
            FileNotFoundError: there is no such folder.

        Example:
            >>> Trace.open("run.trace").steps  # doctest: +SKIP
            200
        """
        where = Path(folder)
        if not where.exists():
            raise FileNotFoundError(f"there is no trace {where}")
        facts = _facts(where)
        lines = list(_whole_steps(where, facts))
        if not facts["complete"] and not allow_partial:
            raise ValueError(
                f"{where} is incomplete: its recording was cut off, and {len(lines)} of "
                f"{facts['steps']} steps are whole. allow_partial=True, or --partial, compares "
                "those"
            )
        if len(lines) > facts["steps"]:
            raise ValueError(f"{where} is damaged: it has more than its {facts['steps']} steps")
        if facts["complete"] and len(lines) < facts["steps"]:
            raise ValueError(
                f"{where} is damaged: {_step_file(where, len(lines))} or its line in scalars.jsonl "
                f"is missing or cut off, and {facts['steps']} steps were recorded. "
                "Copy the trace again, whole"
            )
        if not lines:
            raise ValueError(f"{where} holds no whole step; record it again")
        return cls(where, facts, lines)

    @property
    def checked_steps(self) -> frozenset[int]:
        """The steps of which everything is known."""
        return frozenset(i for i, line in enumerate(self._lines) if line["checked"])

    def evaluation(self, step: int, batch: Any = None) -> Evaluation:
        """Return what is known of a step before the optimizer made it.

        Args:
            step: counted from 0.
            batch: where the trace holds hashes only, the batch that was trained on.

        Raises:
            IndexError: the trace has no such step.
            ValueError: the batch is another one, or the step's file is damaged.
        """
        line, tensors = self._evaluated = self._read(step)
        if self.stores_batches:
            return evaluation_of(line, tensors, built(line["batch"], tensors))
        if batch is None:
            raise ValueError(
                f"{self.folder} holds hashes of its batches only; the case has to give the batches"
            )
        return evaluation_of(line, tensors, checked(line["batch"], batch, f"step {step}: batch"))

    def update(self, step: int) -> Update:
        """Return what the optimizer's step left; empty where the trace does not hold it.

        Raises:
            IndexError: the trace has no such step.
            ValueError: the step's file is damaged.
        """
        read, self._evaluated = self._evaluated, None
        line, tensors = read if read and read[0]["step"] == step else self._read(step)
        return update_of(line, tensors, self._dtypes)

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Array]]:
        if not 0 <= step < self.steps:
            raise IndexError(f"{self.folder} has steps 0 to {self.steps - 1}, not {step}")
        return self._lines[step], read_tensors(_step_file(self.folder, step))[0]


def _step_file(folder: Path, step: int) -> Path:
    return folder / "steps" / f"{step:08d}.safetensors"


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "trace.json"
    if not file.is_file():
        raise ValueError(
            f"{folder} is no trace: a folder with trace.json, as jaxopt-port record writes"
        )
    facts = _parsed(file.read_bytes(), f"{file} is damaged")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f'{folder} is no trace: trace.json has no "format": "{FORMAT}"')
    if type(facts.get("version")) is not int or facts["version"] != VERSION:
        there = facts.get("environment")
        writer = there.get("jaxopt_port", "unknown") if isinstance(there, dict) else "unknown"
        raise ValueError(
            f"{folder} has version {facts.get('version')!r} of the format, and this jaxopt_port "
            f"reads version {VERSION}: record it again with its recorder, or replay it "
            f"with the jaxopt_port that recorded it ({writer})"
        )
    schema = FACTS | {name: inner for name, inner in FREE.items() if name in facts}
    _raise_if(file, faults(facts, schema, "it"))
    _raise_if(file, disagreements(facts))
    return facts


# Where a text may stand for a number that JSON has not; what else is a text is a name.
_NUMBERS = ("layers", "loss", "loss64", "options", "state", "state64")
_NAMES = ("name", "optimizer")  # among a group's options


def _parsed(text: bytes, trouble: str) -> Any:
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            return found
        return {name: _numbers(x) if name in _NUMBERS else x for name, x in found.items()}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{trouble}: {error}") from error


def _numbers(value: Any) -> Any:
    if not isinstance(value, list):
        return floats_of(value)
    return [
        floats_of(group) | {name: group[name] for name in _NAMES if name in group}
        if isinstance(group, dict)
        else group
        for group in value
    ]


def _raise_if(file: Path, found: Iterator[str]) -> None:
    problems = list(itertools.islice(found, 12))
    if problems:
        raise ValueError(f"{file} is damaged: {'; '.join(problems)}")


def _whole_steps(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the scalars of steps, up to the first that is not whole."""
    last: dict[str, Any] = {"stepped": True}  # as older recordings mean it
    files, groups = StepFiles(facts), facts["groups"]
    scalars = folder / "scalars.jsonl"
    if not scalars.is_file():
        return
    with open(scalars, "rb") as lines:
        for step, text in enumerate(lines):
            file = _step_file(folder, step)
            if not text.endswith(b"\n") or not file.is_file():
                return
            line = _line(scalars, step, text, facts, last)
            if file.stat().st_size != line["bytes"]:
                return
            _raise_if(file, files.misfits(line, read_tensors(file)[0]))
            last |= {name: line[name] for name in ("options", "batch")}
            options = zip(groups, line["options"], strict=True)
            yield {**line, "options": [{**own, "params": names} for names, own in options]}


def _line(
    scalars: Path, step: int, text: bytes, facts: Mapping[str, Any], last: Mapping[str, Any]
) -> dict[str, Any]:
    line = _parsed(text, f"{scalars} is damaged in line {step + 1}")
    if not isinstance(line, dict) or line.get("step") != step or "bytes" not in line:
        raise ValueError(f"{scalars} is damaged: line {step + 1} is not that of step {step}")
    line = {**last, **line}
    states = {name: STATES for name in ("state", "state64") if name in line}
    _raise_if(scalars, faults(line, LINE | states, f"line {step + 1}"))
    _raise_if(scalars, disagreements_of_line(line, facts))
    return line
