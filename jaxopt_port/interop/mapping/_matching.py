"""Pairs the tensors of a torch module with the leaves of a JAX tree."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...trees import ending_alike, nearest
from ._jax_leaves import JaxTree, Leaf, jax_tree
from ._layout import Layout
from ._param_map import Entry, ParamMap
from ._places import Place, Surroundings, alternatives
from ._rules_by_hand import LayoutsByHand, Renaming
from ._torch_tensors import TorchTensor

TWO_BIASES = (
    "; torch adds two biases to each gate and Flax's cells one, so neither gives the other: have"
    " two in both, or none in both (bias=False in torch)"
)
NOT_IN_LINEN = "; Linen's cells always have their one: write a cell of your own, or take NNX's"
STACKED = (
    "; it has all layers in one array (a scan over layers), which no tensor of torch is: keep them"
    ' apart, as {"0": …, "1": …}, and stack them where they are used:'
    " jax.tree.map(lambda *x: jnp.stack(x), *layers.values())"
)

_ONE_SLOPE = (
    "; Flax's PReLU has one slope for all (num_parameters=1 in torch): write your own of more"
)
_HINTS = 16  # lines, after which names stand alone: to find what is near takes time


class Lacking(NamedTuple):
    """A tensor without a leaf: where it was looked for, and what shapes it could have there."""

    torch_name: str
    path: str
    shapes: list[tuple[int, ...]]


@dataclasses.dataclass
class Problems:
    """What does not fit: what strict=False forgives, and what nothing does."""

    unmatched: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    lacking: list[Lacking] = dataclasses.field(default_factory=list)
    free: list[Leaf] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def lines(self) -> list[str]:
        return self.wrong + self.unmatched


_REPARAMETRISED = (
    (r"\.?parametrizations\.(\w+)\.", "torch.nn.utils.parametrize.remove_parametrizations"),
    (r"\.?(weight\w*)_[gv]$", "torch.nn.utils.remove_weight_norm"),
    (r"\.?(\w+)_(orig|u)$", "torch.nn.utils.remove_spectral_norm"),
)


def reparametrised(name: str) -> str:
    """Say of a weight that torch calculates from others, weight or spectral norm, what to do."""
    for pattern, remedy in _REPARAMETRISED:
        found = re.search(pattern, name)
        if found:
            return (
                f"; torch calculates {found[1]} from it (weight or spectral norm); Flax's layers "
                f"have {found[1]} itself, and its WeightNorm other shapes: call {remedy}(layer, "
                f"{found[1]!r}) first, which then is what trains, or have leaves of these names "
                "and shapes that your own layer calculates with"
            )
    return ""


class Matcher:
    """One matching; `run` gives the map and the problems."""

    def __init__(
        self,
        tensors: Sequence[TorchTensor],
        like: Any,
        renaming: Renaming,
        by_hand: LayoutsByHand,
        flax_parts: Mapping[str, Any],
    ) -> None:
        self._tensors = tensors
        names = [name.name for tensor in tensors for name in (tensor, *tensor.aliases)]
        self.tree: JaxTree = jax_tree(like, names, flax_parts)
        self._renaming, self._by_hand = renaming, by_hand
        self._problems = Problems()
        self._leaves = {leaf.short: leaf for leaf in self.tree.leaves}
        self._around = Surroundings(
            {short: leaf.shape for short, leaf in self._leaves.items()}, self.tree.layers
        )
        parts = [short.split("/") for short in self._leaves]
        self._nodes = {"/".join(p[:n]) for p in parts for n in range(len(p))}
        self._claims: dict[str, TorchTensor] = {}
        self._entries: dict[str, Entry] = {}
        self._lacking: list[tuple[TorchTensor, list[Place]]] = []
        self._two_biases, self._stacked = TWO_BIASES, STACKED

    def run(self) -> tuple[ParamMap, Problems]:
        for tensor in self._tensors:
            self._match(tensor)
        notes = self._report_lacking()
        self._report_left_over()
        self._problems.wrong += self._renaming.problems() + self._by_hand.problems()
        held = self._entries
        ordered = [held[leaf.path] for leaf in self.tree.leaves if leaf.path in held]
        parameters = [tensor for tensor in self._tensors if not tensor.buffer]
        aliases = {other.name: t.name for t in self._tensors for other in t.aliases}
        names = tuple(tensor.name for tensor in parameters)
        return ParamMap(tuple(ordered), names, aliases, tuple(notes)), self._problems

    def _match(self, tensor: TorchTensor) -> None:
        found: dict[tuple[str, ...], tuple[TorchTensor, list[Place]]] = {}
        for name in (tensor, *tensor.aliases):
            places = self._places(name)
            if any(place.path in self._leaves for place in places):
                found.setdefault(tuple(place.path for place in places), (name, places))
        if not found:
            self._lacking.append((tensor, self._places(tensor)))
        elif len(found) > 1:
            self._tied_apart(tensor, [places for _, places in found.values()])
        for name, places in list(found.values())[: len(found) == 1]:
            for place in places:
                self._take(tensor, name, place)

    def _places(self, tensor: TorchTensor) -> list[Place]:
        """Return the leaves for a tensor: those that are there, or else those that ought to be."""
        ways = list(alternatives(tensor, self._renaming(tensor.name), self._around))
        for fits in (self._all_there, self._any_there, self._any_near):
            for places in ways:
                if fits([place.path for place in places]):
                    return places
        return ways[0]

    def _all_there(self, paths: list[str]) -> bool:
        return all(path in self._leaves for path in paths)

    def _any_there(self, paths: list[str]) -> bool:
        return any(path in self._leaves for path in paths)

    def _any_near(self, paths: list[str]) -> bool:
        # The root is a node of every tree, and says nothing.
        parents = [path.rpartition("/")[0] for path in paths]
        return any(parent in self._nodes for parent in parents if parent)

    def _tied_apart(self, tensor: TorchTensor, apart: list[list[Place]]) -> None:
        paths = [place.path for places in apart for place in places if place.path in self._leaves]
        for path in paths:
            self._claims[path] = tensor
        names = [tensor.name, *(other.name for other in tensor.aliases)]
        self._problems.wrong.append(
            f"{' and '.join(paths)}: torch ties {' and '.join(names)}; here they would be trained"
            " apart: keep one leaf for both"
        )

    def _take(self, tensor: TorchTensor, name: TorchTensor, place: Place) -> None:
        leaf = self._leaves.get(place.path)
        if leaf is None:
            self._lacking.append((tensor, [place]))
            return
        if place.path in self._claims:
            first = self._claims[place.path].name
            self._problems.wrong.append(f"{leaf.path}: both torch's {first} and {tensor.name}")
            return
        self._claims[place.path] = tensor
        layout = self._layout(name, place, leaf.path, leaf.shape)
        if layout is not None:
            self._entries[leaf.path] = Entry(
                leaf.path,
                tensor.name,
                tensor.shape,
                tensor.dtype,
                **dataclasses.asdict(layout),
                buffer=tensor.buffer,
            )

    def _layout(
        self, tensor: TorchTensor, place: Place, path: str, shape: tuple[int, ...]
    ) -> Layout | None:
        given = self._by_hand.get(tensor.name, path, tensor.shape)
        possible = place.layouts if given is None else (given,)
        fitting: list[Layout] = []
        for layout in possible:
            known = any(layout.same_effect(other, tensor.shape) for other in fitting)
            if layout.fits(tensor.shape, shape) and not known:
                fitting.append(layout)
        if len(fitting) == 1:
            return fitting[0]
        torchs = f"torch's {tensor.name} {tensor.shape}"
        if fitting:
            words = " or ".join(f"{_spelled(layout)} ({layout})" for layout in fitting)
            self._problems.wrong.append(
                f"{path}: {torchs} fits in more than one layout, and what its layer is does not"
                f" decide: {words}; give layouts={{{tensor.name!r}: …}}"
            )
        else:
            shapes, reason = _shapes(possible, tensor)
            gives = " or ".join(map(str, shapes)) or f"none: {reason}"
            slopes = _ONE_SLOPE if tensor.kind == "PReLU" and not shape else ""
            self._problems.wrong.append(
                f"{path}: shape {shape}, where {torchs} gives {gives}{slopes}"
            )
        return None

    def _report_lacking(self) -> list[str]:
        """Report the tensors without a leaf; return a note of the buffers that need none."""
        self._problems.free = [x for x in self.tree.leaves if x.short not in self._claims]
        free: dict[tuple[int, ...], list[str]] = {}
        for leaf in self._problems.free:
            free.setdefault(leaf.shape, []).append(leaf.path)
        placeless = []
        for tensor, places in self._lacking:
            statistic = tensor.kind == "Norm" and self.tree.has_statistics
            if tensor.buffer and not statistic:
                placeless.append(tensor.name)
                continue
            for place in places:
                if tensor.leaf.startswith(("bias_ih", "bias_hh")):
                    hint = self._of_biases(self._full(place.path), True)
                elif reason := reparametrised(tensor.name):
                    hint = reason
                else:
                    hint = _fitting(free, place, tensor)
                lacking = Lacking(tensor.name, place.path, _shapes_of(place, tensor))
                self._problems.lacking.append(lacking)
                self._problems.unmatched.append(
                    f"{self._full(place.path)}: missing from the JAX tree (torch's {tensor.name})"
                    + hint
                )
        return [f"torch's buffers without a leaf: {', '.join(placeless)}"] if placeless else []

    def _full(self, short: str) -> str:
        """Return a missing leaf's path as a neighbour of the leaves that are there."""
        parent = short.rpartition("/")[0]
        for leaf in self.tree.leaves:
            if leaf.short.rpartition("/")[0] == parent and leaf.path.endswith(leaf.short):
                return leaf.path.removesuffix(leaf.short) + short
        return short

    def _report_left_over(self) -> None:
        unused = [place.path for _, places in self._lacking for place in places]
        of_layers = Counter(re.sub(r"(?<![^/])\d+/", "", path) for path in unused)
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for tensor, places in self._lacking:
            for shape in {s for place in places for s in _shapes_of(place, tensor)}:
                by_shape.setdefault(shape, []).append(tensor.name)
        for i, leaf in enumerate(self._problems.free):
            hint = nearest(leaf.short, unused) if i < _HINTS else ""
            same = ending_alike(leaf.short, by_shape.get(leaf.shape, []))
            hint += f"; torch's {' or '.join(same)} would fit by shape" if same else ""
            if leaf.shape[:1] == (of_layers[leaf.short],) != (1,):
                hint, self._stacked = self._stacked, ""
            if leaf.short.rpartition("/")[2] == "bias" and self._in_recurrent(leaf.short):
                hint = self._of_biases(leaf.path, False)
            self._problems.unmatched.append(
                f"{leaf.path}: torch's module has no such parameter{hint}"
            )

    def _of_biases(self, path: str, with_bias: bool) -> str:
        """Return the explanation, once, and what to write for the layer that a bias is of."""
        hint, self._two_biases = self._two_biases, ""
        if hint and not self.tree.layers:
            hint += NOT_IN_LINEN
        layer = path.rpartition("/")[0]
        shapes = [leaf.shape for leaf in self.tree.leaves if leaf.path == f"{layer}/kernel"]
        for features, out in shapes:
            name = re.sub(r"/(\d+)(?=/)", r"[\1]", f"/{layer}").replace("/", ".")
            without = "" if with_bias else "use_bias=False, "
            hint += f"; write model{name} = nnx.Linear({features}, {out}, {without}rngs=rngs)"
        return hint

    def _in_recurrent(self, short: str) -> bool:
        cell = short.rpartition("/")[0].rpartition("/")[0]
        return any(
            tensor.kind in ("LSTM", "GRU", "RNN") and claimed.rpartition("/")[0].startswith(cell)
            for claimed, tensor in self._claims.items()
        )


def _fitting(free: Mapping[tuple[int, ...], list[str]], place: Place, tensor: TorchTensor) -> str:
    shapes = _shapes_of(place, tensor)
    found = list(dict.fromkeys(path for shape in shapes for path in free.get(shape, [])))
    found = ending_alike(place.path, found)
    return f"; {' or '.join(found)} would fit by shape: give a rename rule" if found else ""


def _shapes_of(place: Place, tensor: TorchTensor) -> list[tuple[int, ...]]:
    return _shapes(place.layouts, tensor)[0]


def _shapes(layouts: Sequence[Layout], tensor: TorchTensor) -> tuple[list[tuple[int, ...]], str]:
    """Return the shapes that a tensor may have, and why it has no other."""
    found: dict[tuple[int, ...], None] = {}
    reason = ""
    for layout in layouts:
        try:
            found[layout.shape_of(tensor.shape)] = None
        except ValueError as error:
            reason = str(error)
    return list(found), reason


def _spelled(layout: Layout) -> str:
    """Return how a user gives a layout."""
    if layout == Layout():
        return "None"
    if layout == Layout(axes=layout.axes):
        return str(layout.axes)
    given = {name: value for name, value in vars(layout).items() if value}
    return f"Layout({', '.join(f'{name}={value}' for name, value in given.items())})"
