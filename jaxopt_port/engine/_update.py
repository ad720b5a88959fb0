"""The state of all groups, and one update of it: this library's rules together, others by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..numerics import Float64, decoded, encoded, own_value
from ._arguments import value_at
from ._checks import canonical, check_accepted, check_given, checked_gradients, to_array
from ._clocks import split_clocks, ticked
from ._layout import from_rule, to_rule, to_rule_leaves
from ._one_pass import Leaf
from ._programs import (
    check_holds_no_numbers,
    foreign_transform,
    leaves_of_part,
    part_of,
    value_fn_of_part,
)
from ._table import GroupsState, Table
from ._tables import first_numbers, of_group, of_groups, parts_of
from ._transform import as_trees, check_wholes, gathered, held_by, rested, stepped, summed

if TYPE_CHECKING:
    from ._definition import Definition


def initial_state(definition: Definition, params: Any, table: Table) -> GroupsState:
    """Return the state before the first step."""
    params = to_rule(canonical(params), definition.layouts)
    check_accepted(params, table.rules)
    leaves, treedef = jax.tree.flatten(params)
    x64 = bool(jax.enable_x64.value)
    numbers = first_numbers([member.numbers for member in definition.members], table)
    with jax.enable_x64(True):
        held: list[dict[str, Any]] = [{} for _ in leaves]
        names: dict[str, None] = {}
        starts: dict[int, dict[str, jax.Array]] = {}
        for clock, group in enumerate(table.of_clocks):
            program = table.groups[group].program
            assert program is not None
            own = {k: jnp.asarray(v) for k, v in of_group(numbers, table, group).items()}
            starts[clock] = program.start(own)
            names |= dict.fromkeys(program.names(own))
            for i in table.members(group):
                held[i] = program.init_leaf(leaves[i], own)
                names |= dict.fromkeys(held[i])
        scalars = {
            name: jnp.stack([starts[c].get(name, jnp.zeros((), kind)) for c in starts]).astype(kind)
            for name, kind in _kinds(starts.values()).items()
        }
    encoded_numbers = {k: Float64(jnp.asarray(encoded(v))) for k, v in numbers.items()}
    others = {}
    for group in table.trained:
        if table.groups[group].rule is None:
            tx = _foreign(definition, group, of_group(numbers, table, group), x64)
            with jax.enable_x64(x64):
                state = tx.init(part_of(params, leaves, table.members(group)))
            check_holds_no_numbers(state, definition.members[group].factory)
            others[str(group)] = state
    trees = as_trees(held, dict.fromkeys(names, treedef))
    counts = jnp.zeros(len(table.groups), jnp.int32)
    return GroupsState(trees, scalars, encoded_numbers, counts, others, table)


def _foreign(
    definition: Definition, group: int, numbers: Mapping[str, Any], x64: bool
) -> optax.GradientTransformationExtraArgs:
    member = definition.members[group]
    return foreign_transform(member.factory, numbers, member.static, x64)


def updated(
    definition: Definition, updates: Any, state: GroupsState, params: Any = None, **extra_args: Any
) -> tuple[Any, GroupsState]:
    """Return Optax's updates and the next state; raises before anything is computed."""
    check_given(params)
    table = definition.checked_table(state, params)
    grads = checked_gradients(updates, params, table.rules)
    grads = [grad if grad is None else to_array(grad) for grad in grads]
    params = canonical(params)
    grads = to_rule_leaves(grads, table.paths, definition.layouts)
    params = to_rule(params, definition.layouts)
    leaves, treedef = jax.tree.flatten(params)
    stepping = [
        grad is not None and owner not in table.resting and not table.groups[owner].frozen
        for grad, owner in zip(grads, table.assignment, strict=True)
    ]
    x64 = bool(jax.enable_x64.value)
    with jax.enable_x64(True):
        state = _scheduled(definition, state)
        numbers = {name: jnp.asarray(decoded(parts)) for name, parts in parts_of(state).items()}
        new_updates, new = _rules_stepped(state, numbers, grads, leaves, stepping)
    others = dict(state.others)
    for group in table.trained:
        if table.groups[group].rule is None and group not in table.resting:
            own = of_group(numbers, table, group)
            made, others[str(group)] = _others_stepped(
                definition, group, own, state, grads, params, x64, extra_args
            )
            new_updates |= made
    final = [new_updates[i] if i in new_updates else rested(leaf) for i, leaf in enumerate(leaves)]
    trained = np.array([not group.frozen for group in table.groups], np.int32)
    new = replace(new, others=others, counts=state.counts + trained)
    return from_rule(jax.tree.unflatten(treedef, final), definition.layouts), new


def _scheduled(definition: Definition, state: GroupsState) -> GroupsState:
    """Return the state with the schedules' values among its numbers."""
    scheduled = [
        (i, name, value)
        for i, member in enumerate(definition.members)
        for name, value in member.numbers.items()
        if callable(value)
    ]
    parts = parts_of(state) if scheduled else {}
    for i, name, schedule in scheduled:
        value = jnp.asarray(value_at(schedule, state.counts[i]), jnp.float64)
        at = (i, 0) if parts[name].ndim == 3 else i
        parts[name] = parts[name].at[at].set(encoded(value))
    new = {name: Float64(value) for name, value in parts.items()}
    return replace(state, numbers=new) if scheduled else state


def _rules_stepped(
    state: GroupsState,
    numbers: Mapping[str, jax.Array],
    grads: Sequence[Any],
    leaves: Sequence[jax.Array],
    stepping: Sequence[bool],
) -> tuple[dict[int, jax.Array], GroupsState]:
    """Take the steps of this library's rules, those of one program together."""
    table = state.table
    held, structures = held_by(state.leaves)
    held = held or [{} for _ in leaves]
    updates: dict[int, jax.Array] = {}
    after = {name: jnp.asarray(own_value(vector)) for name, vector in state.scalars.items()}
    before = dict(after)
    programs = dict.fromkeys(table.groups[group].program for group in table.of_clocks)
    work = []
    for program in programs:
        assert program is not None
        clocks = [c for c, g in enumerate(table.of_clocks) if table.groups[g].program == program]
        row = {clock: k for k, clock in enumerate(clocks)}
        members = [i for i, c in enumerate(table.clocks) if c in row and stepping[i]]
        check_wholes(program, [leaves[i] for i in members])
        groups, at = [table.of_clocks[c] for c in clocks], np.array(clocks, np.int32)
        vectors = of_groups(numbers, table, groups)
        kinds = _kinds([jax.eval_shape(program.start, {k: v[0] for k, v in vectors.items()})])
        given = [Leaf(row[table.clocks[i]], grads[i], leaves[i], held[i]) for i in members]
        shared = {k: before[k][at].astype(kind) for k, kind in kinds.items()}
        work.append((clocks, at, members, (program, given, vectors, shared)))
    parts = [(step[0].rule, part) for *_, step in work for part in gathered(*step)]
    for clocks, at, members, step in work:
        sums = summed([part for rule, part in parts if rule is step[0].rule])
        made, advanced = stepped(*step, sums)
        for name, vector in advanced.items():
            whole = len(clocks) == len(table.of_clocks)
            cast = vector.astype(before[name].dtype)
            after[name] = cast if whole else after[name].at[at].set(cast)
        for i, (update, new_state) in zip(members, made, strict=True):
            updates[i], held[i] = update, new_state
    clocks_after, origin, goes_on = split_clocks(table.clocks, len(table.of_clocks), stepping)
    scalars = ticked(before, after, origin, goes_on)
    if len(origin) > len(table.of_clocks):
        of_clocks = tuple(table.of_clocks[c] for c in origin)
        table = replace(table, clocks=clocks_after, of_clocks=of_clocks)
    new = replace(state, leaves=as_trees(held, structures), scalars=scalars, table=table)
    return updates, new


def _others_stepped(
    definition: Definition,
    group: int,
    numbers: Mapping[str, jax.Array],
    state: GroupsState,
    grads: Sequence[Any],
    params: Any,
    x64: bool,
    extra_args: Mapping[str, Any],
) -> tuple[dict[int, jax.Array], Any]:
    """Take the step of a group whose optimizer is a factory of Optax or of the user."""
    leaves, members = jax.tree.leaves(params), state.table.members(group)
    missing = [state.table.paths[i] for i in members if grads[i] is None]
    if missing:
        if len(missing) == len(members):
            return {}, state.others[str(group)]
        raise ValueError(
            f'the gradient of "{missing[0]}" is None, which the optimizer of '
            f"{state.table.groups[group].label} does not know; give it zeros, or put the "
            "parameter into a group of its own"
        )
    own_args = dict(extra_args)
    if "value_fn" in own_args:
        own_args["value_fn"] = value_fn_of_part(own_args["value_fn"], params)
    if "grad" in own_args:
        own_args["grad"] = (own_args["grad"],)
    tx = _foreign(definition, group, numbers, x64)
    seen = (part_of(params, grads, members), part_of(params, leaves, members))
    with jax.enable_x64(x64):
        updates, new = tx.update(seen[0], state.others[str(group)], seen[1], **own_args)
    return dict(zip(members, leaves_of_part(params, updates, members), strict=True)), new


def _kinds(starts: Iterable[Mapping[str, Any]]) -> dict[str, np.dtype[Any]]:
    """Return the types of what clocks hold, by name."""
    kinds: dict[str, np.dtype[Any]] = {}
    for start in starts:
        for name, value in start.items():
            kinds[name] = jnp.promote_types(kinds.get(name, value.dtype), value.dtype)
    return kinds
