from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy "bfloat16")
import numpy as np
from numpy.typing import NDArray

from ...trees import nearest, raise_if
from ._layout import Layout

Array = NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """One leaf of a JAX tree, and the torch tensor, or the part of one, that it is.

    Args:
        path: the leaf's, as ``"features/0/kernel"``.
        torch_name: the tensor's, as ``"features.0.weight"``; of tied names the first.
        torch_shape: of the whole torch tensor.
        dtype: torch's, as NumPy or ml_dtypes names it: ``"float32"``, ``"bfloat16"``.
        rows: the part of torch's first axis that this leaf has, ``(start, stop)``; None for all.
        view: the shape into which the rows are then reshaped; None leaves it.
        axes: how that is then transposed; None leaves it.
        flip: the axes of the leaf along which it is then reversed.
        buffer: whether torch has it as a buffer (``running_mean``), not as a parameter.
    """

    path: str
    torch_name: str
    torch_shape: tuple[int, ...]
    dtype: str
    rows: tuple[int, int] | None = None
    view: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    flip: tuple[int, ...] = ()
    buffer: bool = False

    @property
    def layout(self) -> Layout:
        return Layout(self.axes, self.rows, self.view, self.flip)

    @property
    def shape(self) -> tuple[int, ...]:
        """The leaf's shape."""
        return self.layout.shape_of(self.torch_shape)

    def to_jax(self, tensor: Array) -> Array:
        """Return a torch tensor's values in the leaf's layout: a view where that can be.

        Args:
            tensor: of shape ``torch_shape``, of any dtype: a value, a gradient, a moment.
        """
        return self.layout.to_jax(tensor)

    def to_torch(self, leaf: Array) -> Array:
        """Return a leaf's values as its rows of the torch tensor; undoes `to_jax`."""
        return self.layout.to_torch(leaf, self.torch_shape)


def check_is_map(given: Any, rename: Any = (), layouts: Any = None) -> None:
    """Raise TypeError for what is given for a map and is none, and for rules beside a map."""
    if given is not None and (rename or layouts):
        raise TypeError("rename and layouts make the map; it is given: give them to param_map")
    if given is not None and not isinstance(given, ParamMap):
        raise TypeError(
            "param_map must be what interop.param_map(module, tree) returns; got"
            f" {type(given).__name__}"
        )


@dataclass(frozen=True)
class ParamMap:
    """Which leaf of a JAX tree is which tensor of a torch module; `param_map` makes one.

    It needs neither framework: values are NumPy arrays.

    Args:
        entries: one for each leaf, in the order of ``jax.tree.leaves``.
        torch_names: the module's parameters in the order of ``named_parameters()``, tied ones once.
        aliases: the other names of tied tensors, each with the first.
        notes: what should be looked at by hand.
    """

    entries: tuple[Entry, ...]
    torch_names: tuple[str, ...]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def from_torch(self, tensors: Mapping[str, Array], *, strict: bool = True) -> dict[str, Array]:
        """Return arrays by path in JAX's layouts, of arrays by torch's names.

        Args:
            tensors: values, gradients or moments; each of its tensor's whole shape, of any dtype.
                A tied tensor may stand under any of its names.
            strict: False also takes some of the map's tensors, and leaves out those that are not
                in the map.

        Raises:
            ValueError: tensors are missing, left over, of another shape, or tied and different;
                all are listed.

        Example:
            >>> entry = Entry("fc/kernel", "fc.weight", (2, 3), "float32", axes=(1, 0))
            >>> param_map = ParamMap((entry,), ("fc.weight",))
            >>> param_map.from_torch({"fc.weight": np.zeros((2, 3))})["fc/kernel"].shape
            (3, 2)
        """
        problems: list[str] = []
        held: dict[str, Array] = {}
        known = {entry.torch_name: entry for entry in self.entries}
        for given, tensor in tensors.items():
            name = self.aliases.get(given, given)
            if name not in known:
                if strict and not given.endswith("num_batches_tracked"):
                    hint = nearest(given, list(known))
                    problems.append(f"{given}: the map has no such tensor{hint}")
            elif np.shape(tensor) != known[name].torch_shape:
                want = known[name].torch_shape
                problems.append(f"{given}: shape {np.shape(tensor)}, not {want}")
            elif name in held and not _same(held[name], tensor):
                problems.append(f'{given}: tied to "{name}", but its values differ')
            else:
                held.setdefault(name, np.asarray(tensor))
        # Tensors of another shape are here too, and have been reported.
        given_names = {self.aliases.get(name, name) for name in tensors}
        if strict:
            problems += [f"{name}: missing" for name in known if name not in given_names]
        raise_if(problems, "Torch's tensors do not fit the map")
        return {e.path: e.to_jax(held[e.torch_name]) for e in self.entries if e.torch_name in held}

    def to_torch(self, leaves: Mapping[str, Array], *, strict: bool = True) -> dict[str, Array]:
        """Return arrays by torch's names, parts put together, of arrays by path.

        Args:
            leaves: values, gradients or moments, of any dtype.
            strict: False also takes some of the map's leaves (all parts of a tensor, or none), and
                leaves out those that are not in the map.

        Returns:
            One array for each tensor, under the first of tied names.

        Raises:
            ValueError: leaves are missing, left over, of another shape, or parts of one tensor have
                different dtypes; all are listed.

        Example:
            >>> entry = Entry("fc/kernel", "fc.weight", (2, 3), "float32", axes=(1, 0))
            >>> param_map = ParamMap((entry,), ("fc.weight",))
            >>> param_map.to_torch({"fc/kernel": np.zeros((3, 2))})["fc.weight"].shape
            (2, 3)
        """
        by_path = {entry.path: entry for entry in self.entries}
        problems = [
            f"{path}: the map has no such leaf{nearest(path, list(by_path))}"
            for path in leaves
            if strict and path not in by_path
        ]
        problems += [
            f"{path}: shape {np.shape(leaf)}, not {by_path[path].shape}"
            for path, leaf in leaves.items()
            if path in by_path and np.shape(leaf) != by_path[path].shape
        ]
        tensors = {}
        for name, parts in by_tensor(self.entries).items():
            lacking = [part.path for part in parts if part.path not in leaves]
            if lacking and (strict or len(lacking) < len(parts)):
                problems += [f"{path}: missing (torch's {name})" for path in lacking]
            elif not lacking and sum(map(_rows, parts)) != _rows_of_all(parts[0]):
                problems.append(f"{name}: the map has only some of its rows")
            elif not lacking:
                arrays = [np.asarray(leaves[part.path]) for part in parts]
                if len({array.dtype for array in arrays}) > 1:
                    kinds = ", ".join(str(array.dtype) for array in arrays)
                    problems.append(f"{name}: its parts have different dtypes: {kinds}")
                tensors[name] = (parts, arrays)
        raise_if(problems, "The JAX leaves do not fit the map")
        return {name: _joined(parts, arrays) for name, (parts, arrays) in tensors.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: lists, dicts, strings and numbers only."""
        record = dataclasses.asdict(self)
        plain: dict[str, Any] = json.loads(json.dumps(record))
        return plain

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ParamMap:
        """Return the map that `to_json` wrote.

        Raises:
            ValueError: the record is not one of a map; what is wrong is named.
        """
        try:
            entries = tuple(_entry_of(each) for each in record["entries"])
            names = tuple(str(name) for name in record["torch_names"])
            aliases = {str(k): str(v) for k, v in record["aliases"].items()}
            return cls(entries, names, aliases, tuple(str(note) for note in record["notes"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"This is no record of a ParamMap: {type(error).__name__}: {error}"
            ) from error

    def __str__(self) -> str:
        head = ("JAX path", "shape", "torch name", "shape", "layout")
        rows = [
            (e.path, str(e.shape), e.torch_name, str(e.torch_shape), self._words(e))
            for e in self.entries
        ]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, tuple("-" * width for width in widths), *rows]
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def _words(self, entry: Entry) -> str:
        tied = sorted(name for name, first in self.aliases.items() if first == entry.torch_name)
        words = [str(entry.layout)]
        words += [f"tied to {', '.join(tied)}"] if tied else []
        return "; ".join(words + ["buffer"] * entry.buffer)


def _rows(entry: Entry) -> int:
    return _rows_of_all(entry) if entry.rows is None else entry.rows[1] - entry.rows[0]


def _rows_of_all(entry: Entry) -> int:
    return entry.torch_shape[0] if entry.torch_shape else 1


def by_tensor(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the leaves of each tensor, by its name."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.torch_name, []).append(entry)
    return found


def _joined(parts: list[Entry], arrays: list[Array]) -> Array:
    if len(parts) == 1 and parts[0].rows is None:
        return parts[0].to_torch(arrays[0])
    whole = np.empty(parts[0].torch_shape, arrays[0].dtype)
    for part, array in zip(parts, arrays, strict=True):
        start, stop = part.rows or (0, part.torch_shape[0])
        whole[start:stop] = part.to_torch(array)
    return whole


def _same(a: Array, b: Array) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype:
        return False
    if a.__array_interface__["data"] == b.__array_interface__["data"] and a.strides == b.strides:
        return True
    return a.tobytes() == b.tobytes()  # NaN is equal to itself here


def _entry_of(record: Mapping[str, Any]) -> Entry:
    fields: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value := record[field.name], list) else value
        for field in dataclasses.fields(Entry)
    }
    entry = Entry(**fields)
    np.dtype(entry.dtype)
    entry.layout.shape_of(entry.torch_shape)
    return entry
