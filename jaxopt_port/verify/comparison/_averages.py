"""Running averages of the parameters, beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._context import Context
from ._distances import Values
from ._held import Held
from ._names import Array
from ._results import Place
from ._stepper import Stepper


class Averages(Held):
    """Compares the averages of both sides, each taken of what its optimizer was fed to make.

    Attributes:
        before: torch's, after the step before.
    """

    held = ("before",)

    def __init__(self, context: Context) -> None:
        self._context = context
        self.before: dict[str, Array] = {}

    def see(self, step: int, update: Any, fed: Stepper, exact: Stepper) -> None:
        """Compare those after a step."""
        context, names = self._context, self._context.names
        if not update.stepped or (fed.averages is None and not update.averages64):
            return
        if fed.averages is None or not update.averages64:
            which = "torch's side" if fed.averages is None else "your side"
            context.reasons["averages"] = f"only {which} has averages (averaged=)"
            return
        yours, yours64 = (
            names.leaves_of(getattr(s.averages, "params", s.averages)) for s in (fed, exact)
        )
        torchs, torchs64 = (names.by_path(x) for x in (update.averages, update.averages64))
        params = names.by_path(update.params64)
        for path, theirs in torchs64.items():
            held = Values(yours[path], torchs[path], yours64[path], theirs)
            diagnosis = context.evidence.averages(held, self.before.get(path), params[path])
            place = Place(step, "averages", path, names.torch_name(path))
            context.see(place, held, diagnosis, in_own_dtype=False)
        self.before = {path: np.array(theirs) for path, theirs in torchs64.items()}
