"""The two runs that are compared: torch's optimizer and a transformation, in float64, fed alike."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..engine import IMPLEMENTATIONS, leaf_paths
from ..engine import step as take_step

if TYPE_CHECKING:
    from ..interop import ParamMap

_ELEMENTS = 16  # of a leaf, where no parameters are given
_MATRIX = (4, 6)  # likewise, of a group of matrices: Muon takes nothing else
UNTRAINED = -1  # the group of what torch does not train


class Leaf(NamedTuple):
    """torch's group of a leaf, its shape here, and its entry in the map of layouts."""

    group: int
    shape: tuple[int, ...]
    entry: Any = None

    def to_torch(self, array: NDArray[Any]) -> Any:
        """Return a tensor of an array, in torch's layout: some rules go by rows and columns."""
        import torch

        own = array if self.entry is None else self.entry.to_torch(array)
        return torch.from_numpy(np.array(own, order="C"))

    def to_jax(self, tensor: Any) -> NDArray[Any]:
        """Return an array of a tensor."""
        own = tensor.detach().numpy()
        return np.array(own if self.entry is None else self.entry.to_jax(own))


def leaves_of(
    optimizer: Any, params: Any, module: Any, param_map: ParamMap | None
) -> dict[str, Leaf]:
    """Return torch's group and the shape of each leaf, by path."""
    if params is None:
        return {str(i): Leaf(i, _of_one(g)) for i, g in enumerate(optimizer.param_groups)}
    if module is None:
        raise ValueError(
            "with params, give module= too, the optimizer's torch module: leaves are found by name"
        )
    from ..interop import param_map as make_map

    made = param_map or make_map(module, params)
    parameters = dict(module.named_parameters())
    group_of = {
        id(p): i
        for i, g in enumerate(optimizer.param_groups)
        for p in g["params"]
        if p.requires_grad
    }
    if not {id(p) for p in parameters.values()} & group_of.keys():
        raise ValueError(
            "module has none of the parameters that the optimizer trains: it is another module, or "
            "a copy made before or after"
        )
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in leaf_paths(params)}
    owners = {
        entry.path: group_of.get(id(parameters[entry.torch_name]), UNTRAINED)
        for entry in made.entries
        if entry.torch_name in parameters
    }
    entries = {entry.path: entry for entry in made.entries}
    return {
        # A part of a tensor stands for itself.
        path: Leaf(owner, shapes[path], entries[path] if entries[path].rows is None else None)
        for path, owner in owners.items()
        if path in shapes
    }


def _of_one(group: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the one leaf for a group: a matrix where all that it has are matrices."""
    matrices = all(p.ndim == 2 for p in group["params"]) and group["params"]
    return _MATRIX if matrices else (_ELEMENTS,)


Series = list[dict[str, NDArray[np.float64]]]


def in_torch(
    optimizer: Any, leaves: Mapping[str, Leaf], start: dict[str, Any], grads: Series
) -> Series:
    import torch

    tensors = {path: torch.nn.Parameter(leaves[path].to_torch(x)) for path, x in start.items()}
    groups = []
    for i, group in enumerate(optimizer.param_groups):
        options = {k: copy.deepcopy(v) for k, v in group.items() if k not in _OF_THE_GROUP}
        held = [tensors[path] for path in tensors if leaves[path].group == i]
        if held:
            groups.append({**options, "params": held})
    copied = type(optimizer)(groups, **_first_options(optimizer))
    after: Series = []
    for given in grads:
        for path, grad in given.items():
            tensors[path].grad = leaves[path].to_torch(grad)
        copied.step()
        after.append({path: leaves[path].to_jax(p) for path, p in tensors.items()})
    return after


_OF_THE_GROUP = ("params", "param_names", "initial_lr", *IMPLEMENTATIONS)


def _first_options(optimizer: Any) -> dict[str, Any]:
    """Return the constructor's arguments; Adagrad has its state of them, not of the groups."""
    taken = inspect.signature(type(optimizer)).parameters
    held = {k: v for k, v in optimizer.defaults.items() if k in taken and k not in _OF_THE_GROUP}
    return held | {k: v for k, v in optimizer.param_groups[0].items() if k in held}


def in_jax(tx: Any, params: Any, start: dict[str, Any], grads: Series) -> Series:
    """Take the steps in float64; leaves that torch does not have get zeros."""
    with jax.enable_x64(True):
        if not hasattr(tx, "init"):
            tx = _made(tx)
        if params is None:
            paths, structure = list(start), jax.tree.structure(dict.fromkeys(start, 0))
            paths = sorted(paths)
            shapes = {path: start[path].shape for path in paths}
        else:
            pairs = leaf_paths(params)
            paths, structure = [path for path, _ in pairs], jax.tree.structure(params)
            shapes = {path: tuple(np.shape(leaf)) for path, leaf in pairs}

        def tree(leaves: dict[str, Any]) -> Any:
            zeros = {path: jnp.zeros(shape) for path, shape in shapes.items() if path not in leaves}
            full = {**leaves, **zeros}
            return jax.tree.unflatten(structure, [jnp.asarray(full[path]) for path in paths])

        tree_of_params = tree(start)
        after: Series = []
        state: Any = None
        for given in grads:
            try:
                state = tx.init(tree_of_params) if state is None else state
                tree_of_params, state = take_step(tx, tree(given), state, tree_of_params)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if params is not None:
                    raise
                wrong = ValueError(
                    "tx does not fit one small leaf for each of torch's groups, named 0, 1 and so "
                    f"on: {str(error).splitlines()[0]}"
                )
                wrong.add_note("where tx chooses leaves (a mask, labels), give params= and module=")
                raise wrong from error
            leaves = map(np.asarray, jax.tree.leaves(tree_of_params))
            after.append(dict(zip(paths, leaves, strict=True)))
    return after


def _made(tx: Callable[[], Any]) -> Any:
    try:
        inspect.signature(tx).bind()
    except TypeError as error:
        name = getattr(tx, "__name__", "tx")
        raise TypeError(
            f"tx is {name}, which takes arguments ({error}): make the transformation, {name}(…)"
        ) from error
    return tx()
