"""What is written on the command line of ``convert`` and ``show``, as values."""

from __future__ import annotations

import re
from typing import Literal

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20,
          "GIB": 2**30}  # fmt: skip


def parsed_size(text: str) -> int:
    """Return the bytes in ``5GB``, ``500 MB``, ``2GiB``.

    Raises:
        ValueError: it is no such thing, or none at all.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS:
        raise ValueError(f"{text!r} is no size; write 5GB, 500MB or 2GiB")
    size = int(float(found[1]) * UNITS[found[2].upper()])
    if size < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return size


def parsed_rules(texts: list[str]) -> list[tuple[str, str]]:
    """Return what is replaced and by what, of ``OLD=NEW``.

    Raises:
        ValueError: there is no ``=`` in one.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (old, equals, _) in zip(texts, pairs, strict=True):
        if not (old and equals):
            raise ValueError(f"{text!r} is not OLD=NEW, such as '^encoder\\.=' or 'fc=head'")
    return [(old, new) for old, _, new in pairs]


def parsed_layouts(
    texts: list[str],
) -> tuple[Literal["torch", "jax"] | None, dict[str, tuple[int, ...] | None]]:
    """Return whose layout DST has, and axes by hand: of ``jax``, ``fc.weight=1,0``.

    Raises:
        ValueError: it is neither.
    """
    whose: Literal["torch", "jax"] | None = None
    by_hand: dict[str, tuple[int, ...] | None] = {}
    for text in texts:
        name, equals, axes = text.rpartition("=")
        if text in ("torch", "jax"):
            whose = "torch" if text == "torch" else "jax"
        elif equals and axes == "none":
            by_hand[name] = None
        elif equals and re.fullmatch(r"\d+(,\d+)*", axes):
            by_hand[name] = tuple(map(int, axes.split(",")))
        else:
            raise ValueError(
                f"{text!r} is neither torch, nor jax, nor NAME=AXES, such as fc.weight=1,0 (none: "
                "as it is)"
            )
    return whose, by_hand


def parsed_keys(texts: list[str]) -> dict[str, str]:
    """Return roles and keys of ``params=net``.

    Raises:
        ValueError: there is no ``=`` in one.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (role, equals, key) in zip(texts, pairs, strict=True):
        if not (role and equals and key):
            raise ValueError(f"{text!r} is not role=key, such as params=net or optimizer=opt_g")
    return {role: key for role, _, key in pairs}
