"""Runs tests in a process of their own, and reads what became of each as it goes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# One accelerator is no mesh.
_LEFT_OUT = "not devices and not mesh and not varying and not split"
_ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"^(parity_tests/\S+?::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", re.MULTILINE)
_SAID = re.compile(r"^(?:FAILED|ERROR) (parity_tests/.*?\.py(?:::.*?)?)(?: - (.*))?$", re.MULTILINE)


def outcomes(tests: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return how many tests passed, and what the others said; those begun in time.

    A warning of a version that is newer than the tests is no failure here.
    """
    command = [sys.executable, "-m", "pytest", "-v", "--tb=no", "-rfE", "-W", "default"]
    command += ["-k", _LEFT_OUT, "--continue-on-collection-errors"]
    command += ["-p", "no:cacheprovider", "-p", "benchmarks._torch_table", *tests]
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "PYTHONPATH": path,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "COLUMNS": "400",
    }
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(timeout=10)
        out.seek(0)
        text = out.read()
    ended = dict(_LINE.findall(text))
    said = dict(_SAID.findall(text))
    counts = {kind: sum(o == kind for o in ended.values()) for kind in sorted({*ended.values()})}
    found: dict[str, Any] = {"asked": list(tests), "outcomes": counts, "exit": process.returncode}
    found["not_passed"] = {k: o for k, o in ended.items() if o in ("FAILED", "ERROR")} | said
    if not ended:
        found["said"] = text[-2000:]
    return found
