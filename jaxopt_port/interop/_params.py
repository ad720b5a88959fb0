from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..engine._paths import leaf_paths, nearest

if TYPE_CHECKING:
    import torch

Params = TypeVar("Params")


class _Leaf(NamedTuple):
    """How a Flax layer keeps a parameter of torch's: ``torch_array.transpose(axes)``."""

    name: str
    axes: tuple[int, ...]


# By class name in torch.nn and by parameter name. The layout follows from the layer, not from the
# shape: a square Linear weight is transposed too.
_LAYOUTS: Mapping[str, Mapping[str, _Leaf]] = {
    "Conv2d": {"weight": _Leaf("kernel", (2, 3, 1, 0)), "bias": _Leaf("bias", (0,))},
    "Linear": {"weight": _Leaf("kernel", (1, 0)), "bias": _Leaf("bias", (0,))},
}


class Entry(NamedTuple):
    """One parameter of a torch module, and where a JAX tree keeps it."""

    path: str
    torch_name: str
    param: torch.nn.Parameter
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.param.shape[axis] for axis in self.axes)

    def laid_out(self, tensor: torch.Tensor) -> NDArray[Any]:
        """Return a tensor of the parameter's shape (its gradient, say) in the leaf's layout.

        A copy of NumPy's own: JAX may keep or read later what it is given, and torch overwrites it.
        """
        return np.array(_array_of(tensor).transpose(self.axes), order="C")


def entries_of(module: torch.nn.Module, like: Any) -> list[Entry]:
    """Return the module's parameter for each leaf of a tree, in the order of the leaves.

    Raises:
        TypeError: the module has layers whose layout is not known.
        ValueError: parameters are missing, left over, or of another shape; all are listed.
        ImportError: torch is missing.
    """
    pairs, problems = _match(module, like)
    _raise_if(problems, module)
    return [entry for entry, _ in pairs]


def params_from_torch(module: torch.nn.Module, like: Params) -> Params:
    """Return a torch module's parameters as a JAX tree, in Flax's layouts.

    The counterpart of ``load_state_dict`` for a port: torch's ``features.0.weight`` becomes the
    leaf ``features/0/kernel``. What a layer's type says decides the layout: ``nn.Conv2d`` goes from
    (O, I, H, W) to (H, W, I, O), ``nn.Linear`` from (out, in) to (in, out).

    Args:
        module: its layers with parameters must be Conv2d or Linear. Nothing is aliased.
        like: a tree that gives structure and shapes: NNX state, pure or with Variables, Linen
            variables or their ``params``, nested dicts; the leaves may be ``ShapeDtypeStruct``.

    Returns:
        A tree of the structure of ``like``, with torch's values and torch's dtypes. float64 stays
        float64, even where ``jax_enable_x64`` is off.

    Raises:
        TypeError: the module has layers whose layout is not known.
        ValueError: parameters are missing, left over, or of another shape; all are listed.
        ImportError: torch is missing.

    Example:
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> like = {"0": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
        >>> params_from_torch(module, like)["0"]["kernel"].shape
        (3, 2)
    """
    leaves = [_to_jax(entry.laid_out(entry.param)) for entry in entries_of(module, like)]
    tree: Params = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return tree


def params_to_torch(params: Any, module: torch.nn.Module) -> None:
    """Copy a JAX tree of parameters into a torch module, in place: undoes `params_from_torch`.

    Everything is checked before anything is copied.

    Args:
        params: tree as `params_from_torch` returns it, with torch's dtypes.
        module: its layers with parameters must be Conv2d or Linear.

    Raises:
        TypeError: the module has layers whose layout is not known.
        ValueError: parameters are missing, left over, or of another shape or dtype; all are listed.
        ImportError: torch is missing.
    """
    pairs, problems = _match(module, params)
    problems += [
        f"{entry.path}: {dtype} here, {_dtype_name(entry.param)} in torch's {entry.torch_name};"
        " convert one of them first"
        for entry, leaf in pairs
        if (dtype := np.asarray(leaf).dtype.name) != _dtype_name(entry.param)
    ]
    _raise_if(problems, module)

    import torch

    with torch.no_grad():
        for entry, leaf in pairs:
            back = np.asarray(leaf).transpose(np.argsort(entry.axes))
            entry.param.copy_(_to_torch(back))


def _match(module: torch.nn.Module, tree: Any) -> tuple[list[tuple[Entry, Any]], list[str]]:
    """Pair each leaf of a tree, in its order, with its parameter; what has no pair is a problem."""
    entries = {entry.path: entry for entry in _entries(module)}
    leaves = dict(_without_collection(leaf_paths(tree), entries))
    pairs, problems = [], []
    for path, leaf in leaves.items():
        if path not in entries:
            hint = nearest(path, [other for other in entries if other not in leaves])
            problems.append(f"{path}: torch's module has no such parameter{hint}")
        elif np.shape(leaf) != entries[path].shape:
            problems.append(
                f"{path}: shape {np.shape(leaf)}, where torch's {entries[path].torch_name}"
                f" {tuple(entries[path].param.shape)} gives {entries[path].shape}"
            )
        else:
            pairs.append((entries[path], leaf))
    problems += [
        f"{entry.path}: missing from the JAX tree (torch's {entry.torch_name})"
        for entry in entries.values()
        if entry.path not in leaves
    ]
    return pairs, problems


def _entries(module: torch.nn.Module) -> Iterator[Entry]:
    torch = _import_torch()
    layouts = {getattr(torch.nn, name): leaves for name, leaves in _LAYOUTS.items()}
    unknown = []
    for module_name, layer in module.named_modules():
        # The nearest known base, so that a subclass may change what a layer does with its weights.
        known = next((layouts[base] for base in type(layer).__mro__ if base in layouts), {})
        for name, param in layer.named_parameters(recurse=False):
            if name not in known:
                unknown.append(f'{name} of "{module_name}" ({type(layer).__qualname__})')
                continue
            path = f"{module_name}.{known[name].name}".lstrip(".").replace(".", "/")
            torch_name = f"{module_name}.{name}".lstrip(".")
            yield Entry(path, torch_name, param, known[name].axes)
    if unknown:
        raise TypeError(
            f"No JAX layout is known for {', '.join(unknown)}; known are {', '.join(_LAYOUTS)}."
        )


def _without_collection(
    leaves: list[tuple[str, Any]], entries: Mapping[str, Entry]
) -> list[tuple[str, Any]]:
    """Leave out the name that Linen's variables put before a parameter's path."""
    given = {path for path, _ in leaves}
    if any(path.startswith("params/") for path in entries):
        return leaves
    return [
        (path if (short := path.removeprefix("params/")) in given else short, leaf)
        for path, leaf in leaves
    ]


def _raise_if(problems: list[str], module: torch.nn.Module) -> None:
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(
            f"The JAX tree and torch's {type(module).__name__} do not have the same parameters:"
            + lines
        )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _array_of(tensor: torch.Tensor) -> NDArray[Any]:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # which NumPy does not have of its own
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def _to_jax(array: NDArray[Any]) -> jax.Array:
    with jax.enable_x64(True):
        return jnp.asarray(array)


def _to_torch(array: NDArray[Any]) -> torch.Tensor:
    import torch

    private = np.array(array, order="C")  # torch warns of read-only arrays, which JAX's are
    if private.dtype == jnp.bfloat16:
        return torch.from_numpy(private.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(private)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "jaxopt_port.interop needs torch: pip install 'jaxopt-port[torch]'."
        ) from error
    return torch
