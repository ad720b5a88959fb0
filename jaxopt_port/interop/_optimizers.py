"""torch's optimizers in mid-run as this library's, and back."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import (
    check_structure,
    load_state_dict,
    state_dict,
)
from ..contrib import Reference, references_of
from ..engine import Optimizer, arguments_of, as_factory, find_groups_state, rule_of
from ..trees import listed, raise_if, users_level
from ._optimizer_layout import ORDER, rule_layouts, to_jax_layout, to_torch_layout
from ._order_by_shapes import check_order, names_by_order
from ._tensors import import_torch, tensor_of
from ._torch_classes import factory_named, factory_of, torch_name, unwrapped_optimizer
from ._torch_groups import built, with_frozen, with_options_of, with_own_keys
from ._torch_state_dict import (
    check_memory,
    check_names,
    in_numpy,
    indices_of,
    indices_untrained,
    named,
    names_in,
    renamed_state,
    without,
)
from ._warnings import CheckpointWarning
from ._wrapper_prefixes import known_names
from .files import Checkpoint, by_indices, names_of, renamed
from .mapping import Layouts, ParamMap, Rename, check_is_map, unwrapped
from .mapping import param_map as map_of

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer as TorchsOptimizer


def optimizer_from_torch(
    optimizer: torch.optim.Optimizer | Mapping[str, Any] | Checkpoint,
    params: Any,
    param_map: ParamMap | torch.nn.Module | None = None,
    *,
    module: torch.nn.Module | None = None,
    optimizer_name: str | None = None,
    param_names: Sequence[str] | Sequence[Sequence[str]] | None = None,
    frozen: Iterable[str] = (),
    factory: Callable[..., Any] | None = None,
    state: Mapping[str, str | None] | None = None,
    rename: Rename = (),
    layouts: Layouts | None = None,
) -> tuple[Optimizer, Any]:
    """Return this library's optimizer and its state, where torch's stands: in mid-run, too.

    Groups and options are torch's, keys of the user's own included; a leaf that torch's optimizer
    was not given, or whose parameter does not require a gradient, is frozen. Each array of the
    state goes to the layout of its parameter. Adafactor and Muon, which are not the same in every
    layout, see their parameters in torch's (``tx.update`` lays them out and back). Options that an
    older torch did not write are torch's defaults.

    Args:
        optimizer: torch's optimizer, of one of its own classes or of those that
            `jaxopt_port.contrib` has the twins of, its ``state_dict()``, or what `load` returns.
            What Accelerate, Lightning and others wrap is looked through.
        params: the JAX parameters: a tree whose leaves the map names.
        param_map: from `param_map`, or the torch module itself.
        module: torch's module, where ``param_map`` is a map, or left out: it says which parameter
            is which.
        optimizer_name: torch's class, ``"AdamW"``, or another package's, ``"timm.Lion"``; a state
            dict does not say it.
        param_names: torch's names of the parameters, a list for each group in the order in which
            the optimizer was given them; of one group, one list. Needed where the state dict has no
            ``"param_names"`` (an optimizer that was made with ``module.named_parameters()`` has)
            and their order does not follow from the module's and their shapes.
        frozen: torch's names of parameters that the optimizer was given and did not train. Those
            that require no gradient, in the optimizer or in the module, are known.
        factory: for an optimizer that is none of torch's: ``jp.AdamW``, or a factory of the user's
            (`jp.transformation`) that does the same.
        state: with ``factory``, torch's names of what a parameter holds and the rule's,
            ``{"exp_avg": "momentum"}``; None for what is not needed. Others keep their name.
        rename: where no map is given: see `param_map`.
        layouts: likewise.

    Returns:
        The transformation and its state.

    Raises:
        TypeError: an optimizer of another class, no class named, or rules beside a map.
        ValueError: names, shapes, types or steps that do not fit, all of which are listed;
            parameters of the module in one memory.
        ImportError: torch is missing.

    Example:
        >>> import jax.numpy as jnp, torch, jaxopt_port as jp
        >>> from jaxopt_port import interop
        >>> module = torch.nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        >>> like = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
        >>> params = interop.params_from_torch(module, like)
        >>> tx, state = optimizer_from_torch(optimizer, params, module)
        >>> jp.get_hyperparams(state)[0]["momentum"]
        0.9
    """
    if param_map is None and module is None:
        raise TypeError("optimizer_from_torch needs a param_map, or module=, torch's module")
    if isinstance(param_map, ParamMap):
        check_is_map(param_map, rename, layouts)
        mapped = param_map
    else:
        module = module if param_map is None else param_map
        mapped = map_of(module, params, rename=rename, layouts=layouts)
    if module is not None:
        if not isinstance(module, import_torch().nn.Module):
            raise TypeError(f"module must be torch's module; got {type(module).__name__}")
        check_memory(unwrapped(module).named_parameters())
    if param_names is not None:
        param_names = [n if isinstance(n, str) else list(n) for n in param_names]
    torch_dict: dict[str, Any]
    left_out: set[int] = set()
    sure = False
    if isinstance(optimizer, Checkpoint):
        sure = optimizer.origin is not None and "Trainer" in optimizer.origin
        optimizer_name = optimizer_name or optimizer.optimizer_name
        if optimizer.optimizer is None:
            raise ValueError("the checkpoint has no optimizer's state")
        optimizer = optimizer.optimizer
    given = None if factory is None else as_factory(factory)
    usual: Mapping[str, Any] = {}
    if isinstance(optimizer, Mapping):
        torch_dict = by_indices(optimizer)
        check_structure(torch_dict)
        found = given or factory_named(optimizer_name, torch_dict["param_groups"])
        torch_dict = _of_package(found, torch_dict, None)
    else:
        torchs: Any = unwrapped_optimizer(optimizer)
        found = given or factory_of(torchs, optimizer_name)
        torch_dict = _of_package(found, torchs.state_dict(), torchs)
        if not isinstance(found, Reference):
            (usual,) = in_numpy({"state": {}, "param_groups": [torchs.defaults]})["param_groups"]
        tensors = [p for group in torchs.param_groups for p in group["params"]]
        left_out = {i for i, p in enumerate(tensors) if not p.requires_grad}
        if module is not None and param_names is not None:
            check_names(param_names, module, tensors)
        if module is not None and param_names is None:
            flat = iter(names_in(module, tensors))
            param_names = [[next(flat) for _ in g["params"]] for g in torchs.param_groups]
    made = found.optimizer.factory if isinstance(found, Reference) else found
    torch_dict = with_own_keys(in_numpy(torch_dict), arguments_of(made))
    if param_names is not None:
        check_order(torch_dict, param_names, mapped)
    elif module is not None and not any("param_names" in g for g in torch_dict["param_groups"]):
        param_names = names_by_order(torch_dict, unwrapped(module), sure)
    torch_dict = _with_known_names(named(torch_dict, param_names), mapped)
    left_out |= indices_of(torch_dict, frozen)
    if module is not None:
        left_out |= indices_untrained(torch_dict, unwrapped(module))
    torch_dict = without(torch_dict, left_out)
    torch_dict = renamed_state(torch_dict, state or {})
    rule = rule_of(made)
    elementwise = rule is None or (rule.elementwise and not _cautious(torch_dict))
    laid_out = to_jax_layout(torch_dict, mapped, elementwise=elementwise)
    for group in laid_out["param_groups"]:
        # From a time when the run was here; torch has counted on, where it counts.
        if any("step" in laid_out["state"].get(p, {}) for p in group["params"]):
            group.pop("update_count", None)
    if factory is not None:
        laid_out = with_options_of(made, laid_out)
    tx = built(made, laid_out, torch_dict, params, mapped, elementwise, usual)
    return tx, load_state_dict(tx, with_frozen(laid_out, params), params)


def _with_known_names(torch_dict: dict[str, Any], mapped: ParamMap) -> dict[str, Any]:
    """Return a state dict with the names that the map has, whatever a wrapper put there."""
    known = {entry.torch_name for entry in mapped.entries} | set(mapped.aliases)
    names = list(names_of(torch_dict))
    if set(names) <= known:
        return torch_dict
    return renamed(torch_dict, known_names(names, known))


def _of_package(found: Any, torch_dict: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return a state dict with this side's options and names."""
    if isinstance(found, Reference):
        return found.from_torch(torch_dict, optimizer)
    return dict(torch_dict)


def _cautious(torch_dict: Mapping[str, Any]) -> bool:
    """Whether a share of the whole array enters a step that is elementwise without it."""
    return any(group.get("caution", False) for group in torch_dict["param_groups"])


def optimizer_to_torch(
    tx: Optimizer,
    state: Any,
    params: Any,
    module: torch.nn.Module,
    param_map: ParamMap | None = None,
) -> torch.optim.Optimizer:
    """Return torch's optimizer over a module, where this library's stands: undoes the other way.

    The module's parameters are left as they are; `params_to_torch` copies them. What is frozen here
    the optimizer is not given, but for what torch's had in a group and did not train.

    Args:
        tx: a grouped optimizer all of whose trained groups are of one of torch's optimizers.
        state: its state.
        params: the JAX parameters, or their shapes.
        module: torch's module.
        param_map: from `param_map`; made from module and parameters by default.

    Returns:
        A new optimizer of torch's class, or of the package whose twin the groups are of, with named
        parameters; ``optimizer.state_dict()`` can be saved or loaded into another one.

    Raises:
        TypeError: groups of different optimizers, or of one that torch has not.
        ValueError: names, shapes or types that do not fit, all of which are listed; a parameter
            that rests here (frozen in mid-run) and requires a gradient there.
        ImportError: torch is missing.

    Warns:
        CheckpointWarning: a number is a schedule here, which torch's groups cannot hold.
    """
    torch = import_torch()
    if not isinstance(tx, Optimizer):
        within = hasattr(tx, "update") and not isinstance(tx, type)
        raise TypeError(
            "optimizer_to_torch takes an optimizer with groups, as jp.AdamW(lr=0.1) makes it; got"
            f" {f'the class {tx.__name__}' if isinstance(tx, type) else type(tx).__name__}"
            + ("; of a chain give the one that is in it, and its part of the state" * within)
        )
    check_is_map(param_map)
    mapped = map_of(module, params) if param_map is None else param_map
    port_dict = state_dict(tx, state, params)
    groups = [g for g in find_groups_state(state).table.groups if not g.frozen]
    reference = _reference_for(tx, port_dict)
    name = reference.name if reference else torch_name(tx, groups)
    rule = groups[0].rule
    elementwise = rule is None or (rule.elementwise and not _cautious(port_dict))
    if not elementwise and not tx.definition.layouts:
        trained = [
            path
            for group in port_dict["param_groups"]
            if not group.get("frozen")
            for path in group["param_names"]
        ]
        _check_same_layout(name, rule_layouts(mapped, trained))
    order = [n for g in port_dict["param_groups"] for n in g.pop(ORDER, ())]
    converted = to_torch_layout(port_dict, mapped, elementwise=elementwise, order=order)
    by_name = dict(unwrapped(module).named_parameters())
    _check_fit(converted, by_name, rule is not None and elementwise)
    _warn_of_schedules(groups)
    _check_rest(port_dict, mapped, by_name)
    if reference is None:
        cls = getattr(torch.optim, name)
        _check_new(cls, converted["param_groups"])
        arguments = _defaults(tx, rule, cls)
    else:
        converted = reference.to_torch(converted)
        cls, arguments = reference.imported(), reference.arguments(converted)
    names = [group["param_names"] for group in converted["param_groups"]]
    optimizer: Any = cls(
        [
            {
                **{k: _to_torch(v) for k, v in group.items() if k != "param_names"},
                "params": [by_name[n] for n in group["param_names"]],
            }
            for group in converted["param_groups"]
        ],
        **arguments,
    )
    # Not given with the parameters: torch takes a group without any for one without names.
    for group, own in zip(optimizer.param_groups, names, strict=True):
        group["param_names"] = own
    tensors = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    for index, held in converted["state"].items():
        param, group = tensors[index]
        # As torch's load_state_dict: all goes to the parameter but a step that is read on the CPU.
        on_cpu = () if group.get("capturable") or group.get("fused") else ("step",)
        own = {k: _to_torch(v, "cpu" if k in on_cpu else param.device) for k, v in held.items()}
        optimizer.state[param] = reference.tensors(optimizer, param, own) if reference else own
    made: TorchsOptimizer = optimizer
    return made


def _defaults(tx: Optimizer, rule: Any, cls: Any) -> dict[str, Any]:
    """Return what torch's class takes of the numbers for groups that do not set them."""
    definition = tx.definition
    if definition.arguments.rule is not rule:
        return {}
    known = inspect.signature(cls).parameters
    return {
        name: value
        for name, value in definition.defaults.items()
        if name in known and not callable(value) and value != definition.arguments.defaults[name]
    }


def _check_new(cls: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Make groups as this torch's class makes them.

    Raises:
        ValueError: it lacks an option that matters.
    """
    for group in groups:
        if group.get("max_eval", 0) is None:  # torch works it out for what it is given alone
            group["max_eval"] = group["max_iter"] * 5 // 4
    if "maximize" in inspect.signature(cls).parameters:
        return
    wanted = [group.pop("maximize", False) for group in groups]
    if any(wanted):
        raise ValueError(
            f"torch.optim.{cls.__name__} of this torch has no maximize, which is new in torch "
            "2.14: it would go the other way"
        )


def _to_torch(value: Any, device: Any = "cpu") -> Any:
    if isinstance(value, list):
        return [tensor_of(v).to(device) for v in value]
    return tensor_of(value).to(device) if isinstance(value, np.ndarray) else value


def _reference_for(tx: Optimizer, port_dict: Mapping[str, Any]) -> Reference | None:
    """Return the class of another package whose twin all groups are of."""
    trained = [group for group in port_dict["param_groups"] if not group.get("frozen")]
    found = [references_of(tx.definition.factory, group) for group in trained]
    shared = [r for r in found[0] if all(r in own for own in found)] if found else []
    return shared[0] if shared else None


def _check_same_layout(name: str, layouts: Sequence[Any]) -> None:
    if layouts:
        shown = ", ".join(path for path, _ in layouts)
        raise ValueError(
            f"{name} is not the same in every layout, and this optimizer saw in JAX's what torch's "
            f"would see otherwise: {shown}. Make it by optimizer_from_torch, which shows it "
            "torch's layouts"
        )


def _warn_of_schedules(groups: Iterable[Any]) -> None:
    for group in groups:
        if group.scheduled:
            warnings.warn(
                f"{', '.join(sorted(group.scheduled))} of {group.label} is a schedule here, and "
                "torch's groups hold numbers: it has that of the last step, and stays there until "
                "a scheduler of torch's (LambdaLR) is given the optimizer",
                CheckpointWarning,
                stacklevel=users_level(),
            )


def _check_rest(port_dict: Mapping[str, Any], mapped: ParamMap, by_name: Mapping[str, Any]) -> None:
    """Raise ValueError for what rests here, and would be trained by torch."""
    resting: set[str] = set()
    for group in port_dict["param_groups"]:
        paths = group.get("resting", ())
        resting.update(group["param_names"] if paths is True else paths)
    names = [e.torch_name for e in mapped.entries if e.path in resting]
    trained = [n for n in dict.fromkeys(names) if n in by_name and by_name[n].requires_grad]
    if trained:
        raise ValueError(
            f"{listed(trained)} rest here (frozen in mid-run), and torch would train them: freeze "
            "them there too, module.get_parameter(name).requires_grad_(False)"
        )


def _check_fit(converted: Mapping[str, Any], by_name: Mapping[str, Any], elementwise: bool) -> None:
    problems = []
    named = [(name, group) for group in converted["param_groups"] for name in group["param_names"]]
    for index, (name, group) in enumerate(named):
        if name not in by_name:
            problems.append(f"{name}: the module has no such parameter")
            continue
        kind = str(by_name[name].dtype).removeprefix("torch.")
        for held, value in converted["state"].get(index, {}).items():
            same_shape = np.shape(value) == tuple(by_name[name].shape) != ()
            if elementwise and np.ndim(value) and not same_shape:
                problems.append(
                    f"{held} of {name} has shape {np.shape(value)}, the parameter "
                    f"{tuple(by_name[name].shape)}"
                )
            # L-BFGS has lists of vectors; an average of timm's may have a type of its own.
            kinds = (kind, group.get("momentum_dtype") if held == "exp_avg" else kind)
            if same_shape and isinstance(value, np.ndarray) and value.dtype.name not in kinds:
                problems.append(f"{held} of {name} is {value.dtype.name}, the parameter {kind}")
    raise_if(problems, "the state does not fit the module")
