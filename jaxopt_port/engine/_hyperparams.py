"""Reading and writing the numbers of a grouped optimizer between steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..rules import Rule
from ._arguments import as_number, check_values, reject_unknown
from ._numbers import decoded, encoded
from ._paths import nearest
from ._table import Group, GroupsState

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


def own_value(leaf: Any) -> Any:
    """See through a Variable, in which nnx.Optimizer wraps each leaf of its state."""
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf


def _rewrap(leaf: Any, value: Any) -> Any:
    return leaf.replace(value) if hasattr(leaf, "get_value") else value


def program_number(state: GroupsState, group: int, name: str) -> Any:
    """Return one number of a group's program, decoded: NumPy, or JAX where it is traced."""
    injected = state.injected(group)
    if np.ndim(own_value(injected.count)):
        raise ValueError(
            "the state is a batch of states, as jax.vmap(tx.init) makes it; map over it: "
            "jax.vmap(lambda state: jp.set_hyperparams(state, lr=0.1))(state)"
        )
    return decoded(own_value(injected.hyperparams[name]))


def _numbers(state: GroupsState, group: int) -> dict[str, Any]:
    return {name: program_number(state, group, name) for name in state.injected(group).hyperparams}


def _entry(value: Any, position: int | None) -> Any:
    if isinstance(value, jax.Array):
        with jax.enable_x64(True):
            return value if position is None else value[position]
    own = value if position is None else value[position]
    if np.ndim(own) == 0:
        return own.item()
    # No number can be set to NaN: it is one that was left out.
    return tuple(None if math.isnan(part) else part for part in own.tolist())


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
    numbers = {g.program: _numbers(found, i) for i, g in _trained(found).items()}
    options = []
    for group in found.table.groups:
        named = {} if group.name is None else {"name": group.name}
        if group.frozen:
            options.append({**named, "frozen": True})
            continue
        read = {name: _entry(v, group.position) for name, v in numbers[group.program].items()}
        full = {**read, **dict(group.static)}
        order = [name for name in group.options if name in full]
        options.append({**named, **{name: full[name] for name in order}, **full})
    return options


def _trained(state: GroupsState) -> dict[int, Group]:
    return {i: group for i, group in enumerate(state.table.groups) if not group.frozen}


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
        if name not in state.injected(index).hyperparams:
            reject_unknown(name, state.injected(index).hyperparams, where)


def _check(
    state: GroupsState, index: int, current: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    """Return the checked new values of one group."""
    group = state.table.groups[index]
    where = f" ({group.label})"
    check_names(state, index, new)
    likes = current if group.rule is None else defaults_of(group.rule)
    values = {k: v if is_traced(v) else as_number(k, v, where, likes[k]) for k, v in new.items()}
    options = {k: v for k, v in {**current, **values}.items() if k != "name"}
    if not any(map(is_traced, options.values())):
        check_values(group.rule, options, where)
        if group.check is not None:
            group.check(**options)
    check_held(group, group.rule, options, set(new), where)
    return values


def defaults_of(rule: Rule[Any]) -> dict[str, Any]:
    return {k: p.default for k, p in inspect.signature(rule.arguments).parameters.items()}


def is_traced(value: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


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
        group: which group, by index or by name; None for all that are not frozen.
        **values: new values; traced ones are taken as they are.

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
    indices = _indices(found, group)
    current = get_hyperparams(found)
    checked = {i: _check(found, i, current[i], values) for i in indices}
    new = found
    for program in dict.fromkeys(found.table.groups[i].program for i in indices):
        own = {i: v for i, v in checked.items() if found.table.groups[i].program == program}
        new = _write(new, program, own)
    return replace_groups_state(state, lambda _: new)


def _write(state: GroupsState, program: str, values: dict[int, dict[str, Any]]) -> GroupsState:
    """Write the numbers of the groups of one program, by the groups' indices."""
    first = next(iter(values))
    injected = state.injected(first)
    numbers = dict(injected.hyperparams)
    positions = [state.table.groups[i].position for i in values]
    at = ... if positions == [None] else np.array(positions)
    for name in values[first]:
        own = [_encoded(of_group[name]) for of_group in values.values()]
        stack = np.stack if all(isinstance(parts, np.ndarray) for parts in own) else jnp.stack
        numbers[name] = put(numbers[name], at, own[0] if at is ... else stack(own))
    return with_injected(state, program, injected._replace(hyperparams=numbers))


def put(leaf: Any, at: Any, parts: Any) -> Any:
    """Return a leaf of a state with other parts, where it was among the devices."""
    old = own_value(leaf)
    if is_traced((old, parts)):
        return _rewrap(leaf, jnp.asarray(old).at[at].set(parts))
    new = np.array(old)
    new[at] = parts
    if not isinstance(old, jax.Array):
        return _rewrap(leaf, new)
    return _rewrap(leaf, jax.device_put(new, old.sharding) if old.committed else jnp.asarray(new))


def _encoded(value: Any) -> Any:
    if isinstance(value, tuple | list) and any(isinstance(v, jax.Array) for v in value):
        return jnp.stack([encoded(v) for v in value])
    return encoded(value)


def with_injected(state: GroupsState, program: str, injected: Any) -> GroupsState:
    """Return the state with another injection state for one program."""
    programs = dict(state.inner.inner_states)
    programs[program] = programs[program]._replace(inner_state=injected)
    return replace(state, inner=state.inner._replace(inner_states=programs))


def replace_groups_state(state: State, change: Callable[[GroupsState], GroupsState]) -> State:
    """Apply a function to the grouped state in a state."""
    new: State = jax.tree.map(
        lambda leaf: change(leaf) if _is_groups_state(leaf) else leaf,
        state,
        is_leaf=_is_groups_state,
    )
    return new
