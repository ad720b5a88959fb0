"""What a comparison found, as data: it reads and writes JSON and needs neither torch nor Flax."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1

# In the order in which a step goes through them: the first divergence is the first of these.
STAGES: dict[str, str] = {
    "parameters": "initial parameters and buffers, after import",
    "data": "the batches that both sides were given",
    "forward": "output, from torch's parameters",
    "loss": "loss, of torch's output",
    "gradient": "gradients, from torch's parameters",
    "clipping": "torch's gradients, clipped by both",
    "hyperparameters": "learning rates and the other numbers of the groups",
    "update": "parameters after the optimizer's step, both fed with torch's gradients",
    "state": "optimizer state after that step",
    "averages": "running averages of the parameters after that step",
    "buffers": "running statistics after the step",
    "trajectory": "parameters of both sides on their own",
}


@dataclass(frozen=True)
class Distance:
    """How far your array is from torch's.

    Attributes:
        ulps_max: units in the last place of the run's dtype, the largest of all elements; infinite
            where only one side is NaN or infinite.
        ulps_p99: the same, of the 99th percentile.
        ulps_mean: the same, the mean over finite elements.
        absolute: largest absolute difference.
        relative: that over the largest magnitude of torch's array.
        mismatched: elements that are NaN or infinite on one side only, or infinite otherwise.
        cosine: of the angle between the two arrays; 1 where both are 0.
    """

    ulps_max: float
    ulps_p99: float
    ulps_mean: float
    absolute: float
    relative: float
    mismatched: int
    cosine: float


@dataclass(frozen=True)
class Element:
    """One number of a leaf, on both sides."""

    index: tuple[int, ...]
    torch: float
    yours: float


@dataclass(frozen=True)
class Cause:
    """What explains a difference.

    Attributes:
        name: of the kind, one of ``jaxopt_port.verify.CAUSES``.
        message: a sentence: what your side does, and what torch does.
        remedy: the setting or the change that would mend it.
        unexplained: the part of the difference that is left when this is taken into account; 0 is
            all explained.
        also: other causes: without which this one does not explain it, or that explain it as well,
            as the message says.
    """

    name: str
    message: str
    remedy: str
    unexplained: float = 0.0
    also: tuple[Cause, ...] = ()


@dataclass(frozen=True)
class Divergence:
    """The first place where the two sides differ by more than rounding.

    Attributes:
        step: counted from 0.
        stage: one of `STAGES`.
        leaf: path on the JAX side, or the name of what is no leaf: ``"output"``, ``"loss"``,
            ``"batch/0"``.
        torch_name: torch's name of it, or "".
        message: a sentence with the figures.
        distance: how far apart.
        bound: the largest absolute difference that rounding explains, of what is judged: mostly
            the two sides in float64, so it may be less than the distance in the run's dtype.
        why_not_rounding: a sentence: what in float64, or in the run's dtype, shows it.
        elements: the numbers that are furthest apart, the furthest first.
        leaves: all leaves that differ at that step and stage.
        cause: what explains it, where that was found.
    """

    step: int
    stage: str
    leaf: str
    torch_name: str
    message: str
    distance: Distance
    bound: float
    why_not_rounding: str
    elements: tuple[Element, ...] = ()
    leaves: tuple[str, ...] = ()
    cause: Cause | None = None

    def __str__(self) -> str:
        where = f"step {self.step}, {self.stage} of {self.leaf}"
        cause = "" if self.cause is None else f"\nLikely cause: {self.cause.message}"
        remedy = f"\nTo mend it: {self.cause.remedy}" if self.cause and self.cause.remedy else ""
        return f"{where}: {self.message}{cause}{remedy}"

    @property
    def why(self) -> str:
        """Where it is, and its cause or how far apart: in a line."""
        what = self.message if self.cause is None else self.cause.message
        return f"step {self.step}, {self.stage} of {self.leaf}: {what}"


@dataclass
class LeafResult:
    """One leaf at one stage, over the run.

    Attributes:
        leaf: path on the JAX side, or another name, as in `Divergence`.
        torch_name: torch's name of it, or "".
        worst: at the step with the largest ``relative``.
        worst_step: that step.
        ulps: by step, ``ulps_max``, where it was compared.
        bound: at ``worst_step``, absolute.
        ok: whether rounding explains every difference.
    """

    leaf: str
    torch_name: str
    worst: Distance
    worst_step: int
    ulps: dict[int, float] = field(default_factory=dict)
    bound: float = 0.0
    ok: bool = True


@dataclass
class StageResult:
    """One stage over the run.

    Attributes:
        stage: one of `STAGES`.
        leaves: what was compared, in the order of the tree.
        steps: how many steps were compared.
        skipped: why it was not compared, or "".
    """

    stage: str
    leaves: list[LeafResult] = field(default_factory=list)
    steps: int = 0
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether rounding explains every difference."""
        return all(leaf.ok for leaf in self.leaves)


@dataclass
class Curves:
    """Both sides on their own, by step.

    Attributes:
        loss_torch: of each batch.
        loss_yours: the same; shorter where the free run ended earlier.
        lr_torch: by group of torch's optimizer, the learning rate of each step.
        lr_yours: likewise; empty where they cannot be read.
    """

    loss_torch: list[float] = field(default_factory=list)
    loss_yours: list[float] = field(default_factory=list)
    lr_torch: list[list[float]] = field(default_factory=list)
    lr_yours: list[list[float]] = field(default_factory=list)


@dataclass
class Report:
    """The outcome of `compare` or of a replay.

    Attributes:
        name: of the case.
        steps: how many steps of training were compared.
        first: the first divergence, or None.
        found: all divergences that no other one explains, in order; the first is ``first``.
        stages: by name, in the order of `STAGES`.
        curves: losses and learning rates.
        dtype: of the run, ``"float32"``.
        optimizer: torch's class.
        environment: versions and machine.
        notes: what a reader should know: what was sampled, what was not compared, warnings.
        seconds: how long it took.
        accepted: divergences whose causes are accepted.
    """

    name: str
    steps: int
    first: Divergence | None
    stages: dict[str, StageResult]
    curves: Curves
    dtype: str
    optimizer: str
    environment: dict[str, str]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    found: tuple[Divergence, ...] = ()
    accepted: tuple[Divergence, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing differs by more than rounding, but what is accepted."""
        return self.first is None

    def __str__(self) -> str:
        if self.first is None:
            known = "".join(f"\nAccepted: {one.why}" for one in self.accepted)
            return f"{self.name}: the same training, {self.steps} steps compared{known}"
        others = [f"\nAlso at {other}" for other in self.found[1:]]
        return f"{self.name}: differs at {self.first}{''.join(others)}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; infinities and NaNs are strings."""
        from ._json import plain

        return {"schema": SCHEMA, "ok": self.ok, **plain(dataclasses.asdict(self))}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Report:
        """Return the report that `to_json` wrote.

        Raises:
            ValueError: another schema.
        """
        from ._json import divergence_of, floats_of, stage_of

        if record.get("schema") != SCHEMA:
            raise ValueError(
                f"the report has schema {record.get('schema')!r}; this version reads {SCHEMA}"
            )
        read = floats_of(record)
        values = {f.name: read.get(f.name, ()) for f in dataclasses.fields(cls)}
        values["first"] = divergence_of(values["first"])
        for name in ("found", "accepted"):
            values[name] = tuple(map(divergence_of, values[name]))
        values["stages"] = {k: stage_of(v) for k, v in values["stages"].items()}
        values["curves"] = Curves(**values["curves"])
        return cls(**values)

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write the report: HTML where the name ends in ``.html``, JSON otherwise.

        It is written beside the target and moved into place.
        """
        target = Path(file)
        if target.suffix.lower() in (".html", ".htm"):
            from ._html import html

            text = html(self)
        else:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        beside = target.with_name(f"{target.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
