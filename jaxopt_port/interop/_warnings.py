from __future__ import annotations


class CheckpointWarning(UserWarning):
    """Something in a file could not be kept, or was taken otherwise; the message names it."""
