from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from ..engine import (
    IMPLEMENTATIONS,
    GroupsState,
    Table,
    get_hyperparams,
    replace_groups_state,
    set_hyperparams,
    write_number,
)
from ..lr_scheduler import LRScheduler
from ..trees import raise_if
from ._kinds import write_group
from ._late_options import with_late_options
from ._state_dict import grouped_part
from ._structure import check_structure

# What torch's groups hold, and this library elsewhere: in a scheduler's state, in the class.
ELSEWHERE = (*LRScheduler.entries, "decoupled_weight_decay")
_OWN = ("params", "param_names", "update_count", "name", "frozen", "resting")


def load_state_dict(
    tx: optax.GradientTransformation, state_dict: Mapping[str, Any], params: Any
) -> Any:
    """Return the state of a grouped optimizer from a state dict.

    The counterpart of ``torch.optim.Optimizer.load_state_dict``: numbers and arrays are those of
    the state dict; what is static (flags such as ``nesterov``) must be as in ``tx``.
    A number that an Optax schedule sets goes on from the count of updates.

    Args:
        tx: an optimizer with groups, bare or within transformations that hold no arrays.
        state_dict: as `jp.state_dict` returns it, with NumPy or JAX arrays. One of torch's needs
            names and layouts of this side first: `jaxopt_port.interop.optimizer_from_torch`.
        params: the parameters.

    Returns:
        A new state.

    Raises:
        ValueError: the state dict does not fit; everything that is wrong is listed.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"weight": jnp.ones(2)}
        >>> tx = jp.Adam(lr=0.5)
        >>> params, state = jp.step(tx, params, tx.init(params), params)
        >>> saved = jp.state_dict(tx, state, params)
        >>> restored = jp.load_state_dict(jp.Adam(), saved, params)
        >>> jp.get_hyperparams(restored)[0]["lr"]
        0.5
    """
    check_structure(state_dict)
    fresh = tx.init(params)
    found = grouped_part(tx, fresh, "load_state_dict")
    groups = _filled(found, state_dict["param_groups"])
    raise_if(list(_misfits(found, groups)), "the state dict does not fit the optimizer")
    new = _with_numbers(found, groups)
    states = {path: state_dict["state"].get(index, {}) for path, index in _moved(found, groups)}
    problems: list[str] = []
    for group in new.table.trained:
        new, found_problems = write_group(new, group, states)
        problems += found_problems
    for i, info in enumerate(found.table.groups):
        held = [path for path in found.table.paths_of(i) if states[path]]
        if info.frozen and held:
            problems.append(f'{info.label} is frozen, and "{held[0]}" has state')
    raise_if(problems, "the state dict does not fit the optimizer")
    new = _with_counts(new, groups, states)
    resting = frozenset(i for i, group in enumerate(groups) if group.get("resting") is True)
    leaves = frozenset(_resting_leaves(new.table, groups))
    new = replace(new, table=replace(new.table, resting=resting, resting_leaves=leaves))
    return replace_groups_state(fresh, lambda _: new)


def _resting_leaves(table: Table, groups: list[Mapping[str, Any]]) -> Iterator[int]:
    """Yield the places of leaves that rest in a group that goes on.

    Raises:
        ValueError: the group's optimizer steps as a whole only.
    """
    place = {path: i for i, path in enumerate(table.paths)}
    for info, group in zip(table.groups, groups, strict=True):
        named = group.get("resting", ())
        for path in named if isinstance(named, list | tuple) else ():
            if info.rule is None:
                raise ValueError(
                    f'{info.label}: "{path}" rests, and the others of its group do not; an '
                    "optimizer that steps as a whole cannot do that: give it a group of its own"
                )
            if table.groups[table.assignment[place[path]]] is not info:
                raise ValueError(
                    f'{info.label}: "{path}", which rests, is not among its parameters'
                )
            yield place[path]


def _filled(found: GroupsState, groups: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the groups with what an older torch did not write."""
    if len(groups) != len(found.table.groups):
        return groups
    pairs = zip(groups, found.table.groups, strict=True)
    return [with_late_options(group, info.options)[0] for group, info in pairs]


def _moved(found: GroupsState, groups: list[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yield each path with its index in the state dict, which may count in another order."""
    for i, group in enumerate(groups):
        paths = found.table.paths_of(i)
        names = group.get("param_names") or paths
        by_name = dict(zip(names, group["params"], strict=True))
        for path in paths:
            yield path, by_name[path]


def _misfits(found: GroupsState, groups: list[Mapping[str, Any]]) -> Iterator[str]:
    table = found.table
    if len(groups) != len(table.groups):
        yield f"it has {len(groups)} parameter groups, the optimizer {len(table.groups)}"
        return
    options = get_hyperparams(found)
    owners = {path: i for i in range(len(groups)) for path in table.paths_of(i)}
    for i, (given, info) in enumerate(zip(groups, table.groups, strict=True)):
        paths = table.paths_of(i)
        names = given.get("param_names")
        if names is None and paths:
            yield (
                f"{info.label}: it has no 'param_names', so that which state is whose is not known;"
                " torch's state dict goes through jaxopt_port.interop.optimizer_from_torch("
                "state_dict, params, module, optimizer_name=…)"
            )
            continue
        if names is not None:
            yield from _wrong_names(info.label, list(names), paths, owners, table.groups)
        if bool(given.get("frozen", False)) != info.frozen:
            yield f"{info.label} is {'' if info.frozen else 'not '}frozen, unlike there"
            continue
        if info.frozen:
            continue
        known = {*options[i], *dict(info.extras), *_OWN, *IMPLEMENTATIONS, *ELSEWHERE}
        missing = [name for name in options[i] if name not in given and name != "name"]
        extra = [name for name in given if name not in known]
        if missing:
            yield f"{info.label}: the state dict has no {', '.join(map(repr, missing))}"
        if extra:
            yield f"{info.label}: the optimizer has no {', '.join(map(repr, extra))}"
        for name, value in dict(info.static).items():
            if name in given and not _same_option(name, given, value, dict(info.static)):
                yield (
                    f"{info.label}: {name} is {given[name]!r} there and {value!r} here, where it "
                    "cannot be changed any more; build the optimizer with it"
                )


def _same_option(
    name: str, given: Mapping[str, Any], value: Any, static: Mapping[str, Any]
) -> bool:
    if name == "max_eval" and value is None:  # torch works it out when L-BFGS is made
        return given[name] in (None, static["max_iter"] * 5 // 4)
    other = given[name].item() if isinstance(given[name], np.generic) else given[name]
    same: bool = type(other) is type(value) and other == value
    return same or (isinstance(value, bool) and other == value)


def _wrong_names(
    label: str, names: list[str], paths: list[str], owners: Mapping[str, int], groups: Any
) -> Iterator[str]:
    if len(set(names)) < len(names):
        yield f"{label} has a name twice: {names}"
    for name in names:
        if name not in owners:
            torchs = name.replace(".", "/") in owners or "." in name
            hint = "; names of torch's go through jaxopt_port.interop.optimizer_from_torch"
            yield f'{label}: there is no parameter "{name}" here{hint if torchs else ""}'
        elif name not in paths:
            yield f'{label}: "{name}" is in {groups[owners[name]].label} here'
    for path in paths:
        if path not in names:
            yield f'{label}: "{path}" is not in that group there'


def _with_numbers(found: GroupsState, groups: list[Mapping[str, Any]]) -> GroupsState:
    values: dict[str, Any] = {}
    below: dict[int, float] = {}  # rates that a scheduler has set, as torch's may; no user does
    for i, (given, info) in enumerate(zip(groups, found.table.groups, strict=True)):
        if info.frozen:
            continue
        for name in set(dict(info.numbers)) - info.scheduled:
            value = _plain(given[name])
            if name == "lr" and isinstance(value, float) and -math.inf < value < 0:
                below[i] = value
            else:
                values.setdefault(name, {})[i] = value
        for name in info.scheduled:  # what the last update used; the next one overwrites it
            found = write_number(found, [i], name, np.asarray([given[name]], np.float64))
    found = set_hyperparams(found, **values)
    if below:
        found = write_number(found, list(below), "lr", np.array(list(below.values())))
    return found


def _plain(value: Any) -> Any:
    """Return a number as the setter takes it: lists of them, as JSON makes them, as tuples."""
    return tuple(value) if isinstance(value, list) else value


def _with_counts(
    found: GroupsState, groups: list[Mapping[str, Any]], states: Mapping[str, Mapping[str, Any]]
) -> GroupsState:
    counts = np.zeros(len(groups), np.int32)
    for group in found.table.trained:
        count = groups[group].get("update_count", _steps(found, group, states))
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 0:
            raise ValueError(
                f"the state dict does not fit the optimizer: update_count of group {group} is "
                f"{count!r}; it must be a whole number, not below 0"
            )
        counts[group] = min(int(count), np.iinfo(np.int32).max)
    return replace(found, counts=jnp.asarray(counts))


def _steps(found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the steps that a group of torch's has taken, where it counts them."""
    for path in found.table.paths_of(group):
        step = float(np.asarray(states[path].get("step", 0)).item())
        if not math.isnan(step):
            return int(step)
    return 0
