"""Reading and writing the numbers of a grouped optimizer between steps."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import numpy as np

from ..numerics import decoded, encoded, own_value
from ..trees import nearest
from ._arguments import as_number, check_values, reject_unknown
from ._rule import Rule
from ._table import Group, GroupsState
from ._tables import fitting, is_traced, parts_of, row, written

State = TypeVar("State")


def _is_groups_state(x: Any) -> bool:
    return isinstance(x, GroupsState)


def find_groups_state(state: Any) -> GroupsState:
    """Return the one grouped state in a state, which may be wrapped in others."""
    leaves = jax.tree.leaves(state, is_leaf=_is_groups_state)
    found = [leaf for leaf in leaves if isinstance(leaf, GroupsState)]
    if len(found) != 1:
        raise ValueError(
            f"expected the state of one grouped optimizer, found {len(found)}; the CapWords "
            "spellings and jp.param_groups make such states, the lower-case ones hold no numbers"
            if not found
            else f"the state holds {len(found)} grouped optimizers; pass the state of one of them"
        )
    return found[0]


def check_no_batch(state: GroupsState) -> None:
    """Raise ValueError for the states of several runs side by side."""
    if np.ndim(own_value(state.counts)) != 1:
        raise ValueError(
            "the state is a batch of states, as jax.vmap(tx.init) makes it; map over it: "
            "jax.vmap(lambda state: jp.set_hyperparams(state, lr=0.1))(state)"
        )


def values_of(state: GroupsState) -> dict[str, Any]:
    """Return the table of numbers, decoded: NumPy, or JAX where it is traced."""
    check_no_batch(state)
    return {name: decoded(parts) for name, parts in parts_of(state).items()}


def _row(state: GroupsState, group: int) -> dict[str, Any]:
    """Return the numbers of one group, as Python has them; traced ones as they are."""
    check_no_batch(state)
    parts = parts_of(state)
    own = {}
    with jax.enable_x64(True):
        for name, arity in state.table.groups[group].numbers:
            table = parts[name]
            table = table if is_traced(table) else np.asarray(table)
            own[name] = _shown(fitting(decoded(table[group]), arity))
    return own


def _shown(value: Any) -> Any:
    """Return a group's number as Python has it; traced ones as they are."""
    if isinstance(value, jax.Array):
        return value
    value = value.tolist() if hasattr(value, "tolist") else value
    # No number can be set to NaN: it is one that was left out.
    return tuple(None if math.isnan(v) else v for v in value) if isinstance(value, list) else value


def _options(state: GroupsState, read: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the options of a group, as `get_hyperparams` shows them, given its numbers."""
    group = state.table.groups[index]
    named = {} if group.name is None else {"name": group.name}
    if group.frozen:
        return {**named, "frozen": True}
    full = {**read, **dict(group.static), **dict(group.kept)}
    order = [name for name in group.options if name in full]
    resting = {"frozen": True} if index in state.table.resting else {}
    return {**named, **{name: full[name] for name in order}, **full, **resting}


def get_hyperparams(state: Any) -> list[dict[str, Any]]:
    """Return the options of each group, as torch's ``optimizer.param_groups`` shows them.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states (``chain``,
            ``MultiSteps``, ``nnx.Optimizer.opt_state``).

    Returns:
        A dict per group, in the order in which they were given: numbers as Python floats, exactly
        as set; static options; ``"name"`` where the group has one. A
        scheduled number is the one that the last update used. A frozen group is
        ``{"frozen": True}``. Inside ``jit`` the numbers are traced float64 scalars; to calculate
        with them there, enter ``jax.enable_x64(True)``.

    Raises:
        ValueError: no grouped state is found, or more than one.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> state = jp.SGD(lr=0.1, momentum=0.9).init({"weight": jnp.ones(3)})
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.1
    """
    found = find_groups_state(state)
    return [_options(found, numbers, i) for i, numbers in enumerate(_rows(found))]


def _rows(state: GroupsState) -> list[dict[str, Any]]:
    """Return the numbers of each group, as Python has them; traced ones as they are."""
    values = values_of(state)
    if not any(isinstance(vector, jax.Array) for vector in values.values()):
        values = {name: vector.tolist() for name, vector in values.items()}
    with jax.enable_x64(True):
        return [
            {name: _shown(fitting(values[name][i], arity)) for name, arity in group.numbers}
            for i, group in enumerate(state.table.groups)
        ]


def _indices(state: GroupsState, group: int | str | None) -> list[int]:
    groups = state.table.groups
    if group is None:
        return [i for i, g in enumerate(groups) if not g.frozen]
    if isinstance(group, str):
        names = [g.name for g in groups]
        if group not in names:
            known = [name for name in names if name is not None]
            raise ValueError(
                f'no group is named "{group}"{nearest(group, known)}; '
                + (f"the names are {known}" if known else "no group has a name")
            )
        return [names.index(group)]
    if not isinstance(group, int | np.integer) or isinstance(group, bool):
        raise TypeError(f"group must be an index or a name; got {group!r}")
    if not -len(groups) <= group < len(groups):
        raise ValueError(f"there is no group {group}; the groups are 0 to {len(groups) - 1}")
    return [range(len(groups))[group]]


def check_names(state: GroupsState, index: int, names: Iterable[str]) -> None:
    """Raise ValueError or TypeError for options that a group does not let be set."""
    group = state.table.groups[index]
    where = f" ({group.label})"
    if group.frozen:
        raise ValueError(f"{group.label} is frozen and has no options")
    for name in names:
        if name in group.scheduled:
            raise ValueError(
                f"{name} is set by an Optax schedule{where}, which would overwrite the value; "
                "build the optimizer with a number to set it by hand"
            )
        if name in dict(group.static):
            raise ValueError(
                f"{name} is static{where}: it decides which program runs. Build another "
                "optimizer to change it"
            )
        if name not in dict(group.numbers):
            reject_unknown(name, dict(group.numbers), where)


def _check(
    state: GroupsState, index: int, current: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    """Return the checked new values of one group."""
    group = state.table.groups[index]
    where = f" ({group.label})"
    check_names(state, index, new)
    likes = current if group.rule is None else defaults_of(group.rule)
    values = {
        k: v if is_traced(v) else as_number(k, v, where, likes.get(k, 0.0)) for k, v in new.items()
    }
    others = {"name", "frozen", *group.own, *dict(group.kept)}
    options = {k: v for k, v in {**current, **values}.items() if k not in others}
    if not any(map(is_traced, options.values())):
        check_values(group.rule, options, where)
        if group.check is not None:
            group.check(**options)
    check_held(group, group.rule, options, set(new), where)
    return values


@functools.lru_cache
def defaults_of(rule: Rule[Any]) -> dict[str, Any]:
    return {k: p.default for k, p in inspect.signature(rule.arguments).parameters.items()}


def check_held(
    group: Group, rule: Rule[Any] | None, options: dict[str, Any], new: set[str], where: str
) -> None:
    """Raise ValueError for numbers that need state which the group was built without."""
    if rule is None or group.holds is None:
        return
    known = {k: math.nan if is_traced(v) else v for k, v in options.items()}
    needed = rule.holds(**known)
    if needed is not None and needed <= group.holds:
        return
    # What is traced and not new was in order before; what is new need not be what needs state.
    defaults = defaults_of(rule)
    if needed != rule.holds(**{**known, **{k: defaults[k] for k in new}}):
        raise ValueError(
            f"the group was built without the state that {', '.join(sorted(new))} would need"
            f"{where}; build the optimizer with such a value, and set another after tx.init(params)"
        )


def set_hyperparams(state: State, *, group: int | str | None = None, **values: Any) -> State:
    """Return a state with other numbers: torch's ``optimizer.param_groups[i]["lr"] = …``.

    Everything else (momentum, step counts) is kept, and a compiled step is not traced again.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.
        group: which group, by index or by name; None for all that were not built frozen.
        **values: new values; traced ones are taken as they are. A list has a value for each group,
            or None; a mapping has them by the groups' indices or names. ``frozen=True`` lets a
            group rest with all that it holds, as if its gradients were None, and ``frozen=False``
            go on; each compiles once more.

    Raises:
        ValueError: no such group, a value out of range, a scheduled or static option, a frozen
            group; nothing is changed then.
        TypeError: an unknown option, or a value that is no number.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> state = jp.SGD(lr=0.1, momentum=0.9).init({"weight": jnp.ones(3)})
        >>> state = jp.set_hyperparams(state, lr=0.01)
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.01
    """
    found = find_groups_state(state)
    frozen = values.pop("frozen", None)
    wanted = _by_group(found, group, values)
    new = found if frozen is None else _frozen(found, _indices(found, group), frozen)
    # The numbers of a group beside those that are set: they may be at odds with each other.
    checked = {
        i: _check(found, i, _options(found, _row(found, i), i), v) for i, v in wanted.items()
    }
    numbers, widths = dict(new.numbers), new.table.widths
    for name in values:
        own = [i for i in checked if name in checked[i]]
        if own:
            entries = [encoded(row(checked[i][name], widths[name])) for i in own]
            numbers[name] = written(new, name, own, entries)
    new = replace(new, numbers=numbers)
    return replace_groups_state(state, lambda _: new)


def _by_group(
    state: GroupsState, group: int | str | None, values: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """Return the new values by the groups that they are for."""
    wanted: dict[int, dict[str, Any]] = {}
    indices = _indices(state, group)
    for name, value in values.items():
        if isinstance(value, Mapping):
            own = {i: v for key, v in value.items() for i in _indices(state, key)}
        elif isinstance(value, list) and not _is_tuple(state, name):
            if group is not None:
                raise ValueError(
                    f"{name} is a list, which has a value for each group; leave group={group!r} out"
                )
            if len(value) != len(state.table.groups):
                raise ValueError(
                    f"{name} has {len(value)} values for {len(state.table.groups)} groups; give "
                    "None for those that shall stay as they are"
                )
            own = {i: v for i, v in enumerate(value) if v is not None}
        else:
            own = dict.fromkeys(indices, value)
        for i, v in own.items():
            wanted.setdefault(i, {})[name] = v
    return wanted


def _is_tuple(state: GroupsState, name: str) -> bool:
    return any(dict(group.numbers).get(name) is not None for group in state.table.groups)


def _frozen(state: GroupsState, indices: Sequence[int], frozen: Any) -> GroupsState:
    """Freeze groups for now, or let them go on."""
    if not isinstance(frozen, bool | np.bool_):
        raise TypeError(f"frozen must be True or False; got {frozen!r}")
    for i in indices:
        if state.table.groups[i].frozen:
            raise ValueError(
                f"{state.table.groups[i].label} was built frozen and holds no state; give its "
                "parameters to a new group by jp.add_param_group"
            )
    resting = state.table.resting | set(indices) if frozen else state.table.resting - set(indices)
    return replace(state, table=replace(state.table, resting=resting))


def replace_groups_state(state: State, change: Callable[[GroupsState], GroupsState]) -> State:
    """Apply a function to the grouped state in a state."""
    new: State = jax.tree.map(
        lambda leaf: change(leaf) if _is_groups_state(leaf) else leaf,
        state,
        is_leaf=_is_groups_state,
    )
    return new
