"""Options that one package alone has, of those whose optimizer is one here."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine import Problem


def of_another(package: str, owner: str, **given: bool) -> Iterator[Problem]:
    """Yield which options are given though they are another package's alone.

    Args:
        package: whose optimizer it is.
        owner: whose options they are.
        given: of each by its name, whether it is given.
    """
    for name in (name for name, is_given in given.items() if is_given and owner != package):
        yield Problem(
            f"{name} is an option of {owner}'s alone, not of {package}'s",
            f'leave it out, or give package="{owner}"',
        )
