"""What converting a checkpoint costs beside a copy of its bytes, in time and in memory.

The checkpoint is parameters with Adam's state. Each conversion is a process of its own, taking
turns with copies on the same disk; its imports are not in the time, and are in the memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .._spread import Spread

_LEAF = 4_000_000
_COPY = """
import os, shutil, sys, time
start = time.perf_counter()
shutil.copyfile(sys.argv[1], sys.argv[2])
if sys.argv[3:]:
    file = os.open(sys.argv[2], os.O_RDONLY)
    os.fsync(file)
print(time.perf_counter() - start, 0)
"""
_CONVERT = """
import re, sys, time
from jaxopt_port import interop
from jaxopt_port.interop._tensors import import_torch
import_torch()
start = time.perf_counter()
interop.save(sys.argv[2], interop.load(sys.argv[1]))
seconds = time.perf_counter() - start
status = open("/proc/self/status").read()
print(seconds, int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024)
"""


def checkpoint(size: int) -> dict[str, object]:
    """Return torch's dict of parameters and Adam's state, of about so many bytes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    leaf = min(_LEAF, size // 12)
    names = [f"layers.{i}.weight" for i in range(max(1, size // (12 * leaf)))]
    groups = torch.optim.Adam([torch.zeros(1) for _ in names]).state_dict()["param_groups"]
    arrays = ("exp_avg", "exp_avg_sq")
    return {
        "model": {name: torch.randn(leaf, generator=generator) for name in names},
        "optimizer": {
            "state": {
                i: {"step": torch.tensor(1.0)}
                | {name: torch.randn(leaf, generator=generator) for name in arrays}
                for i in range(len(names))
            },
            "param_groups": groups,
        },
    }


def _run(code: str, *arguments: object) -> tuple[float, int]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = out.split()
    return float(seconds), int(peak)


def measure(quick: bool = False, size: int | None = None) -> dict[str, Spread]:
    """Return the times of copies and conversions; the names of the latter say their peak memory.

    Args:
        quick: a tenth of the size, and fewer rounds.
        size: of the checkpoint in bytes, 1 GB by default.
    """
    import torch

    size = size or (10**8 if quick else 10**9)
    with tempfile.TemporaryDirectory() as folder:
        pt, exchange = Path(folder) / "run.pt", Path(folder) / "run.safetensors"
        torch.save(checkpoint(size), pt)
        _run(_CONVERT, pt, exchange)
        contenders = {
            # As lasting as what a conversion writes.
            "copy, synced": (_COPY, pt, "copy", "fsync"),
            "copy, not synced": (_COPY, pt, "copy"),
            ".pt → .safetensors": (_CONVERT, pt, "new.safetensors"),
            ".safetensors → .pt": (_CONVERT, exchange, "new.pt"),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        peaks = dict.fromkeys(contenders, 0)
        for _ in range(3 if quick else 7):
            for name, (code, source, target, *more) in contenders.items():
                made = Path(folder) / target
                seconds, peak = _run(code, source, made, *more)
                made.unlink()
                times[name].append(seconds)
                peaks[name] = max(peaks[name], peak)
        whole = os.path.getsize(pt)
    return {
        name + (f", peak {peaks[name] / whole:.2f} × it" if peaks[name] else ""): Spread.of(seen)
        for name, seen in times.items()
    }
