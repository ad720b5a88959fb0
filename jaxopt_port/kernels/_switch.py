"""When kernels are used."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import jax

from ._compiler import command

SWITCH = "JAXOPT_PORT_KERNELS"
_log = logging.getLogger("jaxopt_port.kernels")
_warned: set[str] = set()
_WORDS = {"": "auto", "1": "on", "true": "on", "0": "off", "false": "off"}

PLAIN = "no kernel, and plain XLA takes its place"
NOT_KEPT = "kernels are not kept for the next process"

# In a step of less, neither the bytes that a kernel saves are worth a compiler, nor the time that
# XLA does not spend on it: about 20 ms for a leaf.
ELEMENTS = 1 << 20
LEAVES = 64


def mode() -> str:
    """Return ``"on"``, ``"off"`` or ``"auto"``: the variable JAXOPT_PORT_KERNELS.

    Raises:
        ValueError: the variable is something else.
    """
    given = os.environ.get(SWITCH, "auto").strip().lower()
    word = _WORDS.get(given, given)
    if word not in ("on", "off", "auto"):
        raise ValueError(f"{SWITCH} must be on, off or auto; got {given!r}")
    return word


def enabled() -> bool:
    """Whether kernels may be used: on a CPU, with a C compiler, unless switched off."""
    wanted = mode()
    if wanted == "off" or sys.platform != "linux" or jax.default_backend() != "cpu":
        return False
    named = os.environ.get("CC")
    if command() is None and (named or wanted == "on"):
        fall_back(PLAIN, f"CC is {named!r}, which is no program" if named else "no C compiler")
    return command() is not None


def worthwhile(sizes: Sequence[int]) -> bool:
    """Whether the leaves of a step, of so many elements each, are worth a kernel."""
    return mode() == "on" or sum(sizes) >= ELEMENTS or len(sizes) >= LEAVES


def fall_back(what: str, why: str) -> None:
    """Say, with one warning for each kind, that things go on without."""
    level = logging.DEBUG if what in _warned else logging.WARNING
    _warned.add(what)
    _log.log(level, "%s: %s. %s=off does without kernels.", what, why, SWITCH)
