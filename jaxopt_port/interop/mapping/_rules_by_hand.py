"""What the user says about names and layouts."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...trees import nearest
from .._wrapper_prefixes import without_inner
from ._layout import Layout

Rename = Mapping[str, str] | Sequence[tuple[str, str]] | Callable[[str], str | None]
Layouts = Mapping[str, Layout | Sequence[int] | None]


class Renaming:
    """The rules from torch's names to JAX paths, and which of them were of use.

    Args:
        rename: the user's.
        prefix: what all names begin with and a wrapper put there: it goes first.
    """

    def __init__(self, rename: Rename, prefix: str = "") -> None:
        self.prefix = prefix
        self._function = rename if callable(rename) else None
        self._rules: list[tuple[re.Pattern[str], str]] = []
        if not callable(rename):
            pairs = rename.items() if isinstance(rename, Mapping) else rename
            self._rules = [_rule(pair) for pair in pairs]
        self._used: set[int] = set()

    def __call__(self, torch_name: str) -> str:
        """Return where a tensor is looked for: a path, in the end of which torch's name may stay.

        Raises:
            TypeError: the user's function gave neither a path nor None.
        """
        torch_name = without_inner(torch_name.removeprefix(self.prefix))
        name: str | None = torch_name
        if self._function is not None:
            name = self._function(torch_name)
            if name is not None and not isinstance(name, str):
                raise TypeError(f"rename({torch_name!r}) gave {name!r}, not a path or None.")
        for i, (pattern, replacement) in enumerate(self._rules):
            name, count = pattern.subn(replacement, name or "")
            if count:
                self._used.add(i)
        return (torch_name if name is None else name).replace(".", "/").strip("/")

    def of_layer(self, torch_name: str) -> str:
        """Return where a layer without parameters is looked for; a function knows only tensors."""
        torch_name = without_inner(torch_name.removeprefix(self.prefix))
        for pattern, replacement in self._rules:
            torch_name = pattern.sub(replacement, torch_name)
        return torch_name.replace(".", "/").strip("/")

    def problems(self) -> list[str]:
        """Name the rules that matched nothing."""
        return [
            f'rename: "{pattern.pattern}" matches none of torch\'s names'
            for i, (pattern, _) in enumerate(self._rules)
            if i not in self._used
        ]


def _rule(pair: Any) -> tuple[re.Pattern[str], str]:
    try:
        pattern, replacement = pair
        return re.compile(pattern), str(replacement)
    except (TypeError, ValueError, re.error) as error:
        raise TypeError(
            "rename takes a mapping or a list of (regular expression, replacement), or a function"
            f" of a name; {pair!r}: {error}"
        ) from error


class LayoutsByHand:
    """The layouts that the user gave for names, paths or globs, and which of them were of use."""

    def __init__(self, layouts: Layouts | None) -> None:
        if layouts is not None and not isinstance(layouts, Mapping):
            raise TypeError(
                "layouts maps torch's names, paths or globs to axes, {'fc.weight': (1, 0)}; got "
                f"{layouts!r}"
            )
        self._layouts = {key: _layout(key, value) for key, value in (layouts or {}).items()}
        self._used: set[str] = set()
        self._seen: list[str] = []

    def get(self, torch_name: str, path: str, shape: tuple[int, ...]) -> Layout | None:
        """Return the layout for a tensor at a path: an exact key's before a glob's, or none.

        A glob's axes are for the tensors that have as many, and do not touch the others.
        """
        names = (torch_name, path)
        self._seen += names
        for key, layout in self._layouts.items():
            if key in names:
                self._used.add(key)
                return layout
        for key, layout in self._layouts.items():
            if any(fnmatch.fnmatchcase(name, key) for name in names) and (
                layout.view or layout.axes is None or len(layout.axes) == len(shape)
            ):
                self._used.add(key)
                return layout
        return None

    def problems(self) -> list[str]:
        """Name the keys that were of no use."""
        return [
            f'layouts: "{key}" is no name or path that was looked at{nearest(key, self._seen)}'
            for key in self._layouts
            if key not in self._used
        ]


def _layout(key: str, value: Any) -> Layout:
    if isinstance(value, Layout):
        return value
    if value is None:
        return Layout()
    if isinstance(value, Sequence) and all(type(axis) is int for axis in value):
        return Layout(axes=tuple(value))
    raise TypeError(
        f"layouts[{key!r}] must be axes as (1, 0), a Layout, or None for as is; got {value!r}."
    )
