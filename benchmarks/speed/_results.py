"""Results: what was measured, on what, in a file whose schema has a number."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).parents[1] / "results"


class ResultsError(ValueError):
    """A file that does not hold results of this schema."""


@dataclass(frozen=True)
class Measurement:
    """What one contender took in one case.

    Attributes:
        suite: the suite.
        case: the case.
        contender: the contender.
        unit: ``s`` or ``B``.
        median: of the turns.
        low: first quartile.
        high: third quartile.
        turns: how many turns it had.
        calls: calls in each turn, by which its time is divided.
        limit: the least that is possible: the bytes that must be moved over the bandwidth measured
            in the same run, in seconds; None where that does not apply.
        differs: how far the results after the first steps are from the first contender's, as a part
            of the way that those have gone (or, for losses, of the losses); None if not compared.
        settings: numbers of the case that a figure is drawn over, and the like.
    """

    suite: str
    case: str
    contender: str
    unit: str
    median: float
    low: float
    high: float
    turns: int = 1
    calls: int = 1
    limit: float | None = None
    differs: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What the same measurement has in another file."""
        return self.suite, self.case, self.contender


@dataclass
class Results:
    """All of one run.

    Attributes:
        created: when, in UTC.
        command: what was asked for.
        machine: facts of the machine.
        sides: by side, versions and the device.
        measurements: the measurements.
        left_out: contenders that could not be had, with the reason.
        parts: what the command ``accelerator`` finds beside times, by part.
        schema: the schema's number.
    """

    created: str
    command: str
    machine: dict[str, Any]
    sides: dict[str, dict[str, Any]]
    measurements: list[Measurement] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def device(self) -> str:
        """The device, its driver and the versions on both sides."""
        jax, torch = self.sides.get("jax", {}), self.sides.get("torch", {})
        said = [str(jax.get("device") or torch.get("device") or "no device")]
        drivers = [x.split(",")[1].strip() for x in self.machine["accelerators"] if "," in x]
        said += [f"driver {drivers[0]}"] if drivers else []
        names = [(side, k) for side in (torch, jax) for k in ("torch", "cuda", "jax") if k in side]
        return ", ".join([*said, *(f"{k} {side[k]}" for side, k in names)])

    def find(self, suite: str, case: str, contender: str) -> Measurement | None:
        """Return one measurement, or None."""
        return next((m for m in self.measurements if m.key == (suite, case, contender)), None)

    def with_suites_of(self, earlier: Results) -> Results:
        """Return these results with the suites that only an earlier run on this machine has.

        Raises:
            ResultsError: the machine or the versions are not the same.
        """
        same = ("processor", "threads", "python")
        if [earlier.machine[k] for k in same] != [self.machine[k] for k in same] or (
            earlier.sides != self.sides
        ):
            raise ResultsError("the earlier results are of another machine or of other versions")
        own = {m.suite for m in self.measurements}
        kept = [m for m in earlier.measurements if m.suite not in own]
        cases = {m.case for m in kept}
        left_out = [left for left in earlier.left_out if left["case"] in cases]
        return replace(
            self,
            command=f"{earlier.command}; {self.command}",
            measurements=[*kept, *self.measurements],
            left_out=[*left_out, *self.left_out],
        )

    def save(self, file: Path) -> None:
        """Write the file beside its place, then move it there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as out:
            json.dump(asdict(self), out, indent=1)
            out.write("\n")
        Path(out.name).chmod(0o644)
        os.replace(out.name, file)


def load(file: Path) -> Results:
    """Read a file.

    Raises:
        ResultsError: it is not a file of results, or one of another schema.
    """
    try:
        read = json.loads(file.read_text())
        if read["schema"] != SCHEMA:
            raise ResultsError(
                f"{file} has schema {read['schema']}, and this version reads {SCHEMA}: measure "
                "anew, or check out the version that wrote it"
            )
        measurements = [Measurement(**m) for m in read.pop("measurements")]
        return Results(**read, measurements=measurements)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ResultsError(f"{file} is not a file of results: {error!r}") from None


def _cpu(name: str) -> str:
    try:
        found = re.search(rf"^{name}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def _accelerators() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"]
    try:
        done = subprocess.run([*query, "--format=csv,noheader"], capture_output=True, text=True)
    except OSError:
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def last_level_cache() -> int:
    """Return the bytes of the largest cache; 32 MiB where the system does not say."""
    entries = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [int(entry.read_text().strip().rstrip("K")) * 1024 for entry in entries]
    return max([2**25, *sizes])


def memory_free() -> int:
    """Return bytes of memory that can still be had."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 2**62


def machine(threads: int) -> dict[str, Any]:
    """Return facts of the machine."""
    return {
        "processor": _cpu("model name") or platform.processor(),
        "clock_mhz": _cpu("cpu MHz"),
        "vectors": [x for x in ("avx2", "avx512f", "amx_tile") if x in _cpu("flags").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "last_level_cache_bytes": last_level_cache(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "accelerators": _accelerators(),
    }


def now() -> str:
    """Return the time of now as it stands in a file."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
