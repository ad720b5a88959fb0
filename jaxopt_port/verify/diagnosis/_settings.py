"""Causes that are read off the program, or off the layers' settings, and not off numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..report import Cause

# What concerns running statistics only, which no output of a training step depends on.
_AFTERWARDS = ("running variance", "momentum")
_KINDS = {": eps is ": "layer-eps", ": padding is ": "padding"}


def narrow_forward(dtype: str) -> Cause:
    """Return the cause of an output that is right in float64, and rounded on its way."""
    return Cause(
        "low-precision",
        f"your forward pass calculates in {dtype} in places; torch's does not",
        f"look for astype({dtype}), dtype= and preferred_element_type= in the layers and in the "
        "attention's softmax",
    )


def of_layers(differences: Sequence[str]) -> Cause | None:
    """Return the cause where layers have other settings than torch's, as their settings say."""
    told = [text for text in differences if not any(word in text for word in _AFTERWARDS)]
    if not told:
        return None
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    name = next((name for word, name in _KINDS.items() if word in told[0]), "layer-setting")
    message = f"a layer has another setting than torch's: {told[0]}{more}"
    return Cause(name, message, "give your layer the setting of torch's, or torch's yours")
