"""Whole grids for `make test-all`, of which the shorter runs have a sample."""

import random

import pytest


def sampled(cases, every, *, otherwise="exhaustive"):
    """Parameters of cases, or of tuples: all but a seeded one in so many have another mark."""
    cases = list(cases)
    kept = set(random.Random(18).sample(range(len(cases)), -(-len(cases) // every)))
    mark = getattr(pytest.mark, otherwise)
    return [_param(case, [] if i in kept else [mark]) for i, case in enumerate(cases)]


def _param(case, marks):
    if hasattr(case, "values") and hasattr(case, "marks"):
        return pytest.param(*case.values, marks=[*case.marks, *marks], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
