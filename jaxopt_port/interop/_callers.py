from __future__ import annotations

import sys

_PACKAGE = __name__.partition(".")[0]


def users_level() -> int:
    """Return the ``stacklevel`` at which a warning points at the user's own line.

    To be called in the call of ``warnings.warn`` itself.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level
