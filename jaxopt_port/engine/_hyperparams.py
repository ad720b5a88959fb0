"""Reading and writing the numbers of a grouped optimizer between steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import decoded, own_value
from ..trees import nearest
from ._groups import UNTRAINED, Group
from ._options import NO_NUMBER, arguments_of_rule, as_number, check_together, reject_unknown
from ._rule import Rule
from ._state import (
    GroupsState,
    check_no_batch,
    find_groups_state,
    fitting,
    is_traced,
    parts_of,
    replace_groups_state,
    written,
)

State = TypeVar("State")


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
    return _rows(find_groups_state(state))


def _rows(state: GroupsState) -> list[dict[str, Any]]:
    """Return the options of all groups, as `get_hyperparams` shows them."""
    check_no_batch(state)
    values = {name: decoded(parts) for name, parts in parts_of(state).items()}
    return _read(state, values, state.table.groups)


def _read(
    state: GroupsState, values: Mapping[str, Any], groups: Sequence[Group], first: int = 0
) -> list[dict[str, Any]]:
    """Return the options of groups, from the vectors of their numbers; traced ones as they are."""
    columns = {k: v if is_traced(v) else _shown(v) for k, v in values.items()}
    widths, made = state.table.widths, []
    with jax.enable_x64(True):
        for i, group in enumerate(groups):
            own = dict(group.shown)
            for name, arity in group.numbers:
                value = columns[name][i]
                own[name] = value if arity == widths[name] else fitting(value, arity)
            if first + i in state.table.resting:
                own["frozen"] = True
            made.append(own)
    return made


def _shown(vector: Any) -> list[Any]:
    """Return groups' numbers as Python has them, of a tuple also None for one that was left out."""
    column: list[Any] = vector.tolist()
    if vector.ndim == 1:
        return column
    if not (vector == NO_NUMBER).any():
        return list(map(tuple, column))
    return [tuple(None if v == NO_NUMBER else v for v in entry) for entry in column]


def _row(state: GroupsState, index: int) -> dict[str, Any]:
    """Return the options of one group, as `get_hyperparams` shows them."""
    check_no_batch(state)
    parts = parts_of(state)
    read = {k: v if is_traced(v) else np.asarray(v) for k, v in parts.items()}
    with jax.enable_x64(True):
        values = {k: decoded(v[index : index + 1]) for k, v in read.items()}
    (own,) = _read(state, values, state.table.groups[index : index + 1], index)
    return own


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
                + (
                    f"the names are {known}"
                    if known
                    else f"no group has a name; give its index, 0 to {len(groups) - 1}"
                )
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
        if name in dict(group.kept):
            raise ValueError(
                f"{name}{where} is no number and is kept as it was given; build another optimizer "
                "to change it"
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
    likes = current if group.rule is None else arguments_of_rule(group.rule).defaults
    if group.rule is not None and any(value is None for value in new.values()):
        _check_no_none(group.rule, new, where)
    values = {
        k: _checked_shape(k, v, where, likes.get(k, 0.0))
        if is_traced(v)
        else as_number(k, v, where, likes.get(k, 0.0))
        for k, v in new.items()
    }
    others = {"name", "frozen", *group.own, *dict(group.kept)}
    options = {k: v for k, v in {**current, **values}.items() if k not in others}
    before = {k: v for k, v in current.items() if k not in others}
    _check_known(group, options, before, set(new), where)
    if group.check is not None and not is_traced(options):
        group.check(**options)
    check_held(group, options, set(new), where)
    return values


def check_rate(state: GroupsState, index: int, name: str) -> None:
    """Raise ValueError or TypeError for a group whose rate cannot be set."""
    _check(state, index, _row(state, index), {name: 1.0})


def _check_no_none(rule: Rule[Any], new: Mapping[str, Any], where: str) -> None:
    """Raise TypeError for None where the optimizer itself takes it, for infinity."""
    for name, parameter in inspect.signature(rule.signed).parameters.items():
        if name in new and new[name] is None and "None" in str(parameter.annotation):
            inf = "(math.inf, math.inf)" if isinstance(parameter.default, tuple) else "math.inf"
            raise TypeError(f"{name}{where} is held as a number, None as infinity: give {inf}")


def _checked_shape(name: str, value: Any, where: str, like: Any) -> Any:
    """Return a traced number, or the tuple of them, as scalars."""
    if isinstance(like, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(like):
            raise TypeError(f"{name}{where} must be {len(like)} numbers; got {value!r}")
        return tuple(_checked_shape(name, x, where, y) for x, y in zip(value, like, strict=True))
    if isinstance(value, tuple | list):
        raise TypeError(f"{name}{where} must be one number; got {value!r}")
    if not is_traced(value):  # beside one that is
        return value if value is None and like is None else as_number(name, value, where, like)
    if math.prod(jnp.shape(value)) != 1:
        raise ValueError(
            f"Tensor {name} must be 1-element{where}; got an array of shape {jnp.shape(value)}"
        )
    return value if jnp.ndim(value) == 0 else jnp.reshape(value, ())


def _check_known(
    group: Group, options: dict[str, Any], before: dict[str, Any], new: set[str], where: str
) -> None:
    """Raise for what is out of range, as far as it is known; the rest counts as the defaults.

    What was so before is no matter of the new numbers: a scheduler may have set it.
    """
    if group.rule is None:
        return
    likes = arguments_of_rule(group.rule).defaults
    known = {k: likes[k] if is_traced(v) else v for k, v in options.items()}
    problems = list(group.rule.arguments(**known))
    if not problems:
        return
    old = list(
        group.rule.arguments(**{k: likes[k] if is_traced(v) else v for k, v in before.items()})
    )
    if is_traced(options):
        # The defaults may be at odds with what was set before.
        old += group.rule.arguments(**{**known, **{k: likes[k] for k in new if k in likes}})
    for problem in problems:
        if problem not in old:
            raise ValueError(f"{problem.message}{where}; {problem.remedy}.")


def check_held(group: Group, options: dict[str, Any], new: set[str], where: str) -> None:
    """Raise ValueError for numbers that need state which the group was built without."""
    rule = group.rule
    # What is not new was in order before.
    own = frozenset() if rule is None else rule.state_options & new
    if rule is None or group.holds is None or not own:
        return
    needed = rule.holds(
        **{
            k: jax.tree.map(lambda x: math.nan if is_traced(x) else x, v)
            for k, v in options.items()
        }
    )
    if needed is None or not needed <= group.holds:
        raise ValueError(
            f"the group was built without the state that {', '.join(sorted(own))} would need"
            f"{where}; build the optimizer with such a value, and set another after tx.init(params)"
        )


def set_hyperparams(state: State, *, group: int | str | None = None, **values: Any) -> State:
    """Return a state with other numbers: torch's ``optimizer.param_groups[i]["lr"] = …``.

    Everything else (momentum, step counts) is kept, and a compiled step is not traced again.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.
        group: which group, by index or by name; None for all that were not built frozen.
        **values: new values; traced ones are taken as they are. A list (where an option is one
            number, a tuple too) has a value for each group, or None; a mapping has them by the
            groups' indices or names. ``frozen=True`` lets a group rest with all that it holds, as
            if its gradients were None, and ``frozen=False`` go on; each compiles once more.

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
    if len(wanted) > 1:
        current = dict(enumerate(_rows(found)))
    else:
        current = {i: _row(found, i) for i in wanted}
    checked = {i: _check(found, i, current[i], own) for i, own in wanted.items()}
    check_others(found, checked)
    numbers = dict(new.numbers)
    for name in values:
        own = [i for i in checked if name in checked[i]]
        if own:
            numbers[name] = written(new, name, own, [checked[i][name] for i in own])
    new = replace(new, numbers=numbers)
    for name in values:
        new = _agreeing(new, name)
    return replace_groups_state(state, lambda _: new)


def check_others(state: GroupsState, checked: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise ValueError for numbers that have to be those of all groups, where they are not."""
    together = [
        (i, group.rule, group.label)
        for i, group in enumerate(state.table.groups)
        if group.rule is not None and group.rule.own_options is not None
    ]
    rows = _rows(state) if together else []
    check_together((rule, label, {**rows[i], **checked.get(i, {})}) for i, rule, label in together)


def _by_group(
    state: GroupsState, group: int | str | None, values: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """Return the new values by the groups that they are for."""
    wanted: dict[int, dict[str, Any]] = {}
    indices = _indices(state, group)
    for name, value in values.items():
        if isinstance(value, tuple) and group is None and not _is_tuple(state, name):
            value = list(value)
        if isinstance(value, Mapping):
            if group is not None:
                raise ValueError(
                    f"{name} is a mapping, which says the groups itself; leave group={group!r} out"
                )
            keyed = [(i, v) for key, v in value.items() for i in _indices(state, key)]
            own = dict(keyed)
            if len(own) < len(keyed):
                raise ValueError(f"{name} names a group twice, by its name and its index")
        elif isinstance(value, list) and (
            not _is_tuple(state, name) or any(isinstance(v, tuple | list) for v in value)
        ):
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
    table, chosen = state.table, set(indices)
    rest = table.resting | {table.assignment[i] for i in table.resting_leaves}
    for i in [] if frozen else sorted(chosen - rest):
        if names := dict(table.groups[i].extras).get(UNTRAINED):
            raise ValueError(
                f"{table.groups[i].label} does not hold {', '.join(names)}: torch did not train "
                "that as the optimizer was brought over, and it cannot go on here. Bring it over "
                "with requires_grad_(True) there, and freeze it here until then: "
                f"jp.set_hyperparams(state, frozen=True, group={i})"
            )
    leaves = {i for i in table.resting_leaves if frozen or table.assignment[i] not in chosen}
    resting = table.resting | chosen if frozen else table.resting - chosen
    table = replace(table, resting=resting, resting_leaves=frozenset(leaves))
    return replace(state, table=table)


def read_number(state: GroupsState, groups: Sequence[int], name: str) -> Any:
    """Return a number of several groups as one float64 array: NumPy, or JAX where it is traced."""
    check_no_batch(state)
    value = decoded(parts_of(state)[name])
    kinds = [dict(state.table.groups[i].numbers)[name] for i in groups]
    with jax.enable_x64(True):
        if kinds[0] is None:
            return value[np.array(groups)] if value.ndim == 1 else value[np.array(groups), 0]
        return value[np.array(groups), : kinds[0]]


def write_number(state: GroupsState, groups: Sequence[int], name: str, values: Any) -> GroupsState:
    """Write a number of several groups, unchecked, as torch's ``param_groups`` takes it."""
    own = _rows_of(values[k] for k in range(len(groups)))
    numbers = {**state.numbers, name: written(state, name, groups, own)}
    return _agreeing(replace(state, numbers=numbers), name)


def _agreeing(state: GroupsState, name: str) -> GroupsState:
    """Return the state with NaN where a traced number has to be that of all groups, and is not."""
    alike: dict[Rule[Any], list[int]] = {}
    for i, group in enumerate(state.table.groups):
        rule = group.rule
        if rule is None or rule.own_options is None or name in rule.own_options:
            continue
        if name in dict(group.numbers):
            alike.setdefault(rule, []).append(i)
    for rule, groups in alike.items():
        value = read_number(state, groups, name)
        if is_traced(value) and len(groups) > 1:
            with jax.enable_x64(True):
                rests = (value == 0) & (name == "lr" and rule.zero_rates)
                # The largest, since a rate of 0 is the least.
                agree = jnp.all(rests | (value == jnp.max(value, axis=0)))
                value = jnp.where(agree, value, np.nan)
            numbers = {**state.numbers, name: written(state, name, groups, _rows_of(value))}
            state = replace(state, numbers=numbers)
    return state


def _rows_of(values: Any) -> list[Any]:
    return [list(v) if jnp.ndim(v) else v for v in values]


def settable(state: GroupsState, groups: Sequence[int], name: str) -> GroupsState:
    """Return the state in which a number may be set to anything in each of the groups.

    A group that was built without the state that the number may need (SGD's momentum_buffer) holds
    it from the next step on, which makes it, as torch does.

    Raises:
        ValueError: a number that cannot be set.
    """
    new = list(state.table.groups)
    for i in groups:
        check_names(state, i, [name])
        rule = new[i].rule
        if rule is not None and name in rule.state_options:
            new[i] = replace(new[i], holds=None)
    return replace(state, table=replace(state.table, groups=tuple(new)))


def updates_taken(state: GroupsState, group: int) -> Any:
    """Return how many updates a group has taken; traced where the state is."""
    return own_value(state.counts)[group]
