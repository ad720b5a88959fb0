"""The table of breakages fits the package: each changes a place that is there."""

from pathlib import Path

import pytest

import jaxopt_port
from parity_tests.faults.breakages import BREAKAGES


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_each_breakage_has_its_place(breakage):
    text = (Path(jaxopt_port.__file__).parent / breakage.file).read_text(encoding="utf-8")
    compile(breakage.of(text), breakage.file, "exec")
