"""Reading and writing the numbers of a grouped optimizer between steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._arguments import as_number, reject_unknown
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


def _value(leaf: Any) -> Any:
    """See through a Variable, in which nnx.Optimizer wraps each leaf of its state."""
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf


def _rewrap(leaf: Any, value: jax.Array) -> Any:
    return leaf.replace(value) if hasattr(leaf, "get_value") else value


def _read(value: Any, position: int | None) -> Any:
    value = _value(value)
    if position is not None:
        with jax.enable_x64(True):
            value = value[position]
    if isinstance(value, jax.core.Tracer):
        return value
    return value.item() if value.ndim == 0 else tuple(value.tolist())


def get_hyperparams(state: Any) -> list[dict[str, Any]]:
    """Return the options of each group, as torch's ``optimizer.param_groups`` shows them.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states (``chain``,
            ``MultiSteps``, ``nnx.Optimizer.opt_state``).

    Returns:
        A dict per group, in the order in which they were given: numbers as Python floats, exactly
        as set (traced inside ``jit``); static options; ``"name"`` where the group has one. A
        scheduled number is the one that the last update used. A frozen group is
        ``{"frozen": True}``.

    Raises:
        ValueError: no grouped state is found, or more than one.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> state = jp.SGD(lr=0.1, momentum=0.9).init({"weight": jnp.ones(3)})
        >>> jp.get_hyperparams(state)[0]["lr"]
        0.1
    """
    found = find_groups_state(state)
    options = []
    for index, group in enumerate(found.table.groups):
        named = {} if group.name is None else {"name": group.name}
        if group.frozen:
            options.append({**named, "frozen": True})
            continue
        numbers = found.injected(index).hyperparams
        read = {name: _read(value, group.position) for name, value in numbers.items()}
        full = {**read, **dict(group.static)}
        order = [name for name in found.table.arguments.names if name in full]
        options.append({**named, **{name: full[name] for name in order}, **full})
    return options


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
    if not -len(groups) <= group < len(groups):
        raise ValueError(f"there is no group {group}; the groups are 0 to {len(groups) - 1}")
    return [range(len(groups))[group]]


def _check(
    state: GroupsState, index: int, current: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    """Return the checked new values of one group."""
    group, arguments = state.table.groups[index], state.table.arguments
    where = f" ({group.label})"
    if group.frozen:
        raise ValueError(f"{group.label} is frozen and has no options")
    for name in new:
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
    traced = {k for k, v in {**current, **new}.items() if isinstance(v, jax.core.Tracer)}
    values = {k: v if k in traced else as_number(k, v, where) for k, v in new.items()}
    if not traced:
        options = {k: v for k, v in {**current, **values}.items() if k != "name"}
        arguments.check_values(options, where)
        _check_held(group, arguments.rule, options, where)
    return values


def _check_held(group: Group, rule: Any, options: dict[str, Any], where: str) -> None:
    if rule is None or group.holds is None:
        return
    needed = rule.holds(**options)
    if needed is None or not needed <= group.holds:
        raise ValueError(
            f"the group was built with numbers under which it holds no state{where}, and the new "
            "ones need it; build the optimizer with them (and tx.init(params) again)"
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
    for index, numbers in checked.items():
        new = _write(new, index, numbers)
    return replace_groups_state(state, lambda _: new)


def _write(state: GroupsState, index: int, values: dict[str, Any]) -> GroupsState:
    group, injected = state.table.groups[index], state.injected(index)
    numbers = dict(injected.hyperparams)
    with jax.enable_x64(True):
        for name, value in values.items():
            old = jnp.asarray(_value(numbers[name]))
            at = old.at[... if group.position is None else group.position]
            numbers[name] = _rewrap(numbers[name], at.set(jnp.asarray(value, old.dtype)))
    return with_injected(state, group.program, injected._replace(hyperparams=numbers))


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
