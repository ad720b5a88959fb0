"""What a step changes, to go back to."""

from __future__ import annotations

import copy
from typing import Any, ClassVar


class Held:
    """An object that can go back to where it was.

    Attributes:
        held: names of what a step changes: other such objects, dicts, and what is replaced whole.
    """

    held: ClassVar[tuple[str, ...]] = ()

    def snapshot(self) -> Any:
        """Return all that a step changes."""
        parts = (getattr(self, name) for name in self.held)
        return [part.snapshot() if isinstance(part, Held) else _copied(part) for part in parts]

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        for name, value in zip(self.held, snapshot, strict=True):
            part = getattr(self, name)
            if isinstance(part, Held):
                part.restore(value)
            else:
                setattr(self, name, _copied(value))


def _copied(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, dict) else value
