"""One update of all groups: the rules of this library together, other optimizers by group."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .. import kernels
from .._compat import as_laid_out, check_whole, on_explicit_mesh, on_mesh_of
from ..numerics import Float64, decoded, encoded, entries, later, own_value
from ..trees import check_given, check_params, checked_gradients, leaves_up_to, to_array
from ._definition import Definition, Member
from ._groups import Table
from ._options import value_at
from ._rule import Program, as_real, leaf_update
from ._state import (
    GroupsState,
    as_trees,
    check_no_batch,
    first_numbers,
    held_by,
    of_group,
    of_groups,
    parts_of,
    row,
)
from ._step import recorder

_TRAINED = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_LARGE = 1 << 16  # numbers of a leaf whose scratch is worth an order


def initial_state(definition: Definition, table: Table, params: Any) -> GroupsState:
    """Return the state before the first step."""
    leaves, treedef = jax.tree.flatten(to_array(params))
    layouts = definition.layout_of
    for i, path in enumerate(table.paths):
        if path in layouts:
            leaves[i] = layouts[path].to_rule(leaves[i])
        rule = table.rules.get(path)
        if rule is not None and leaves[i].dtype.name not in _TRAINED:
            raise NotImplementedError(
                f'"add_stub" not implemented for {leaves[i].dtype.name} ("{path}"); keep '
                f"parameters in one of {', '.join(_TRAINED)}, and cast them in use"
            )
        if rule is not None and (problem := rule.accepts(leaves[i])) is not None:
            raise ValueError(f'{problem.message} ("{path}"); {problem.remedy}')
    x64 = bool(jax.enable_x64.value)
    numbers = {} if table.bare else first_numbers(definition.members, table)
    held: list[dict[str, Any]] = [{} for _ in leaves]
    names: dict[str, None] = {}
    starts: list[dict[str, jax.Array]] = [{} for _ in table.of_clocks]
    with jax.enable_x64(True):
        vectors = _own_numbers(definition.members[0], 0) if table.bare else numbers
        for program, clocks in table.clocks_of_programs.items():
            groups = [table.of_clocks[clock] for clock in clocks]
            columns = of_groups(vectors, table, groups)
            for k, (clock, group) in enumerate(zip(clocks, groups, strict=True)):
                own = {name: jnp.asarray(column[k]) for name, column in columns.items()}
                starts[clock] = program.start(own)
                if k == 0:  # alike for all
                    names |= dict.fromkeys(program.names(own))
                for i in table.members(group):
                    held[i] = program.init_leaf(leaves[i], own)
                    if on_explicit_mesh(leaves[i]):
                        held[i] = {n: on_mesh_of(leaves[i], x) for n, x in held[i].items()}
                    names |= dict.fromkeys(held[i])
        scalars = {
            name: jnp.stack([start.get(name, jnp.zeros((), kind)) for start in starts]).astype(kind)
            for name, kind in _promoted(starts).items()
        }
    _set_apart(held, leaves)
    others = {}
    for group in table.foreign:
        member = definition.members[group]
        tx = _foreign(member, of_group(numbers, table, group), x64)
        with jax.enable_x64(x64):
            others[str(group)] = tx.init(_part(treedef, leaves, table.members(group)))
        _check_holds_no_numbers(others[str(group)], member.factory)
    return GroupsState(
        leaves=as_trees(held, dict.fromkeys(names, treedef)),
        scalars=scalars,
        numbers={k: Float64(jnp.asarray(encoded(v))) for k, v in numbers.items()},
        counts=jnp.zeros(len(table.groups), jnp.int32),
        others=others,
        table=table,
    )


def _set_apart(held: Sequence[dict[str, Any]], params: Iterable[jax.Array]) -> None:
    """Copy what is held in the memory of a parameter or of something else that is held.

    Else neither could be given to a step that overwrites it: JAX donates no memory twice.
    """
    seen = set(map(id, params))
    for own in held:
        for name, array in own.items():
            if id(array) in seen:
                own[name] = jnp.copy(array)
            seen.add(id(array))


def updated(
    definition: Definition, updates: Any, state: GroupsState, params: Any = None, **extra_args: Any
) -> tuple[Any, GroupsState]:
    """Return Optax's updates and the next state; raises before anything is computed."""
    check_given(params)
    definition.check_state(state)
    table = state.table
    if state.counts.ndim != 1:
        check_no_batch(state)
    table.check_counts(state.scalars)
    by_path = check_params(params)
    table.check_paths(tuple(by_path))
    if not table.bare and table.groups != definition.groups:
        state = _all_made(definition, state, params)
    grads = checked_gradients(updates, params, table.rules, by_path)
    whole, grads = to_array((list(by_path.values()), grads))
    leaves, treedef = list(whole), jax.tree.structure(params)
    layouts = definition.layout_of
    seen_otherwise = [i for i, path in enumerate(table.paths) if path in layouts]
    for i in seen_otherwise:
        layout = layouts[table.paths[i]]
        leaves[i] = layout.to_rule(leaves[i])
        grads[i] = grads[i] if grads[i] is None else layout.to_rule(grads[i])
    x64 = bool(jax.enable_x64.value)
    with jax.enable_x64(True):
        if table.bare:
            vectors = definition.held_to(
                state, _own_numbers(definition.members[0], state.counts[0])
            )
        else:
            state = _scheduled(definition.members, state)
            vectors = {name: jnp.asarray(decoded(own)) for name, own in parts_of(state).items()}
        made, state = _rules_stepped(state, vectors, grads, leaves)
    others = dict(state.others)
    for group in table.foreign:
        if group not in table.resting:
            member, own = definition.members[group], dict(extra_args)
            step = _foreign_stepped(member, group, vectors, state, grads, leaves, treedef, own, x64)
            made |= step[0]
            others[str(group)] = step[1]
    final = [made[i] if i in made else _rested(leaf) for i, leaf in enumerate(leaves)]
    recording = recorder.get()
    for i in seen_otherwise:
        move = layouts[table.paths[i]].from_rule
        seen, final[i] = final[i], move(final[i])
        if recording is not None:
            final[i] = recording.follow(seen, final[i], move, whole[i])
    trained = np.array([not group.frozen for group in table.groups], np.int32)
    state = replace(state, others=others, counts=state.counts + trained)
    return jax.tree.unflatten(treedef, final), state


def _all_made(definition: Definition, state: GroupsState, params: Any) -> GroupsState:
    """Return the state with what its groups have come to hold since they were built."""
    fresh = initial_state(definition, state.table, params)
    now, structures = held_by(fresh.leaves, len(state.table.paths))
    was, _ = held_by(state.leaves, len(state.table.paths))
    leaves = as_trees([{**a, **b} for a, b in zip(now, was, strict=True)], structures)
    return replace(state, leaves=leaves, scalars={**fresh.scalars, **state.scalars})


def _own_numbers(member: Member, count: Any) -> dict[str, jax.Array]:
    """Return the numbers of a lower-case transformation, as vectors over its one group."""
    numbers = {}
    for name, value in member.numbers.items():
        value = value_at(value, count) if callable(value) else value
        value = row(value, len(value)) if isinstance(value, tuple) else value
        numbers[name] = jnp.asarray(value, jnp.float64)[None]
    return numbers


def _scheduled(members: Sequence[Member], state: GroupsState) -> GroupsState:
    """Return the state with the schedules' values among its numbers."""
    scheduled = [(i, name) for i, m in enumerate(members) for name in sorted(m.group.scheduled)]
    if not scheduled:
        return state
    parts = parts_of(state)
    for i, name in scheduled:
        value = jnp.asarray(value_at(members[i].numbers[name], state.counts[i]), jnp.float64)
        at = (i, 0) if parts[name].ndim == 3 else i
        parts[name] = jnp.asarray(parts[name]).at[at].set(encoded(value))
    return replace(state, numbers={name: Float64(own) for name, own in parts.items()})


class _Part(NamedTuple):
    """Those leaves that take the step of one program.

    Attributes:
        program: the rule and its static arguments.
        clocks: of the groups that have the program.
        leaves: by its place, what each is given; its clock is the place of that among these.
        numbers: float64, an entry for each of the clocks in the first axis.
        shared: what the leaves of a clock share, likewise.
    """

    program: Program
    clocks: list[int]
    leaves: dict[int, kernels.Leaf]
    numbers: dict[str, jax.Array]
    shared: dict[str, jax.Array]


def _rules_stepped(
    state: GroupsState,
    numbers: Mapping[str, jax.Array],
    grads: Sequence[Any],
    leaves: Sequence[jax.Array],
) -> tuple[dict[int, jax.Array], GroupsState]:
    """Take the steps of this library's rules, those of one program together."""
    table, recording = state.table, recorder.get()
    pairs = zip(grads, table.rests, strict=True)
    stepping = [grad is not None and not rests for grad, rests in pairs]
    held, structures = held_by(state.leaves, len(leaves))
    updates: dict[int, jax.Array] = {}
    before = {name: jnp.asarray(own_value(vector)) for name, vector in state.scalars.items()}
    before = _as_the_newest(before, table)
    after = dict(before)
    given = enumerate(map(kernels.Leaf, table.clocks, grads, leaves, held))
    parts = _parts(table, numbers, before, {i: leaf for i, leaf in given if stepping[i]})
    gathered = [(part.program.rule, own) for part in parts for own in _gathered(part)]
    for part in parts:
        rule, update_leaf = part.program.rule, leaf_update(part.program)
        shared, vectors = _advanced(part, [own for other, own in gathered if other is rule])
        by_kernel = {}
        if recording is not None and kernels.enabled():
            by_kernel = kernels.one_pass(update_leaf, part.leaves, vectors)
        known: dict[Any, dict[str, jax.Array]] = {}
        large: jax.Array | None = None
        for i, (clock, grad, param, own) in part.leaves.items():
            if i in by_kernel:
                new, held[i] = by_kernel[i]
                update = new - param  # where none follows, it is not computed
            else:
                key = clock, param.dtype
                if key not in known:
                    known[key] = entries(vectors[param.dtype], clock)
                if large is not None and param.size >= _LARGE:
                    # The scratch of what needs a whole leaf is as large as it: one after the other.
                    grad, param, *arrays = later((grad, param, *own.values()), large)
                    own = dict(zip(own, arrays, strict=True))
                new, update, held[i] = update_leaf(grad, param, own, known[key])
                if not rule.elementwise and new.size >= _LARGE:
                    large = new
            if recording is not None:
                update = recording.record(update, new, leaves[i])
            updates[i] = update
        at, whole = np.array(part.clocks, np.int32), len(part.clocks) == len(table.of_clocks)
        for name, vector in shared.items():
            cast = vector.astype(before[name].dtype)
            after[name] = cast if whole else after[name].at[at].set(cast)
    table, origin, goes_on = table.ticked(stepping)
    if not all(goes_on):
        old, mask = np.array(origin, np.int32), np.array(goes_on)
        after = {k: jnp.where(mask, after[k][old], before[k][old]) for k in before}
        after = _as_the_newest(after, table)
    return updates, replace(state, leaves=as_trees(held, structures), scalars=after, table=table)


def _parts(
    table: Table,
    numbers: Mapping[str, jax.Array],
    before: Mapping[str, jax.Array],
    leaves: Mapping[int, kernels.Leaf],
) -> list[_Part]:
    """Return the parts of a step, checked.

    Args:
        table: who is in which group.
        numbers: float64, an entry for each group in the first axis.
        before: what the leaves of a clock share, an entry for each clock.
        leaves: what those leaves are given that take a step, by their places.
    """
    parts = []
    for program, clocks in table.clocks_of_programs.items():
        row = {clock: k for k, clock in enumerate(clocks)}
        own = {i: x._replace(clock=row[x.clock]) for i, x in leaves.items() if x.clock in row}
        vectors = of_groups(numbers, table, [table.of_clocks[c] for c in clocks])
        first = {k: v[0] for k, v in vectors.items()}
        _check_leaves(program, first, [(table.paths[i], leaf) for i, leaf in own.items()])
        at = np.array(clocks, np.int32)
        shared = {k: before[k][at].astype(kind) for k, kind in program.kinds(first).items()}
        parts.append(_Part(program, clocks, own, vectors, shared))
    return parts


def _as_the_newest(scalars: Mapping[str, jax.Array], table: Table) -> dict[str, jax.Array]:
    """Return what clocks hold, with what those of a rule have in common as the newest has it."""
    of_rules: dict[Any, list[int]] = {}
    for program, clocks in table.clocks_of_programs.items():
        if program.rule.common:
            of_rules.setdefault(program.rule, []).extend(clocks)
    made = dict(scalars)
    for rule, clocks in of_rules.items():
        at = np.array(clocks, np.int32)
        newest = jnp.asarray(at)[lax.argmax(made[rule.common[0]][at], 0, np.int32)]
        for name in rule.common if len(at) > 1 else ():
            made[name] = made[name].at[at].set(made[name][newest])
    return made


def _gathered(part: _Part) -> list[dict[str, jax.Array]]:
    """Return what the rule adds up over leaves, of each."""
    gathers, static = part.program.rule.gathers, dict(part.program.static)
    if gathers is None:
        return []

    def summands(leaf: Any, shared: dict[str, Any], own: dict[str, Any]) -> dict[str, jax.Array]:
        made: dict[str, jax.Array] = gathers(*leaf, shared, **own, **static)
        return made

    made = []
    for clock, *given in part.leaves.values():
        param = given[1]
        if jnp.iscomplexobj(param):
            given = as_real(given)
        of_leaf = as_laid_out(summands, jnp.sum(param)) if on_explicit_mesh(param) else summands
        made.append(of_leaf(given, entries(part.shared, clock), entries(part.numbers, clock)))
    return made


def _advanced(
    part: _Part, gathered: Sequence[Mapping[str, jax.Array]]
) -> tuple[dict[str, jax.Array], dict[Any, dict[str, jax.Array]]]:
    """Return what follows from the step count: once for each clock.

    Args:
        part: the part.
        gathered: of all leaves of the rule, what it adds up over them.

    Returns:
        What is shared after the step; by the dtype of leaves, the numbers as they meet these, an
        entry for each clock.
    """
    names = gathered[0] if gathered else {}
    sums = {name: functools.reduce(jnp.add, [own[name] for own in gathered]) for name in names}
    advance = functools.partial(part.program.advance, sums=sums)
    shared, scalars = jax.vmap(advance)(part.shared, part.numbers)
    vectors = {}
    for dtype in dict.fromkeys([leaf.param.dtype for leaf in part.leaves.values()]):
        # Rounded once for all leaves.
        wide = jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32
        rounded = {k: v.astype(wide) if v.dtype == jnp.float64 else v for k, v in scalars.items()}
        vectors[dtype] = {**part.numbers, **rounded}
    return shared, vectors


def _promoted(starts: Iterable[Mapping[str, Any]]) -> dict[str, np.dtype[Any]]:
    """Return the types of what clocks hold, by name."""
    kinds: dict[str, np.dtype[Any]] = {}
    for start in starts:
        for name, value in start.items():
            kinds[name] = jnp.promote_types(kinds.get(name, value.dtype), value.dtype)
    return kinds


def _check_leaves(
    program: Program, numbers: Mapping[str, Any], leaves: Sequence[tuple[str, kernels.Leaf]]
) -> None:
    """Raise ValueError for leaves that the rule cannot step.

    A device has a part of one, where the rule needs the whole; or the state was made for parameters
    of other shapes.
    """
    rule = program.rule
    if rule.sparse or not rule.elementwise or rule.gathers is not None:
        for _, leaf in leaves:
            check_whole(leaf.param, rule.name, "a parameter")
    known: dict[Any, dict[str, Any]] = {}
    for path, leaf in leaves:
        key = leaf.param.shape, leaf.param.dtype
        if key not in known:
            known[key] = jax.eval_shape(program.init_leaf, jax.ShapeDtypeStruct(*key), numbers)
        for name, array in known[key].items():
            if name in leaf.state and leaf.state[name].shape != array.shape:
                raise ValueError(
                    f'{name} of "{path}" has shape {leaf.state[name].shape} in the state, '
                    f"{array.shape} by the parameters"
                )


def _rested(param: jax.Array) -> jax.Array:
    """Return the update that leaves a parameter as it is, to the bit: -0 is added to it."""
    update: jax.Array = jnp.full_like(param, -0.0)
    recording = recorder.get()
    if recording is not None:
        update = recording.record(update, param, param)
    return update


# Factories of Optax or of the user, each the optimizer of one group.


def _foreign(
    member: Member, numbers: Mapping[str, Any], x64: bool
) -> optax.GradientTransformationExtraArgs:
    """Return what a factory makes of numbers that may be traced.

    They are handed to it weakly typed, as Python floats are, so that the 0.999 of a bfloat16 model
    does not become 1. They are float32 there, as under ``optax.inject_hyperparams``, unless the
    user has enabled x64: what the factory calculates with them alone (``1 - b2``, say) is rounded
    to float32, where a Python float would not be.
    """
    # jax.extend brings Pallas along, which would double what this library adds to `import optax`.
    from jax.extend.core.primitives import convert_element_type_p

    kind = {"new_dtype": np.dtype(np.float64 if x64 else np.float32), "weak_type": True}
    with jax.enable_x64(True):
        given = {
            k: convert_element_type_p.bind(jnp.asarray(v), **kind, sharding=None)
            for k, v in numbers.items()
        }
    with jax.enable_x64(x64):
        return optax.with_extra_args_support(member.factory(**given, **member.static))


def _check_holds_no_numbers(state: Any, factory: Callable[..., Any]) -> None:
    """Raise TypeError for the state of a factory that holds numbers itself."""

    def holds_numbers(x: Any) -> bool:
        injected = isinstance(x, optax.InjectStatefulHyperparamsState)
        return injected or (isinstance(x, GroupsState) and not x.table.bare)

    if any(map(holds_numbers, jax.tree.leaves(state, is_leaf=holds_numbers))):
        raise TypeError(
            f"{getattr(factory, '__name__', factory)} injects its numbers itself, and a "
            "change made outside would be lost; pass the factory without "
            "optax.inject_hyperparams (and a lower-case one, not a grouped one)"
        )


def _foreign_stepped(
    member: Member,
    group: int,
    numbers: Mapping[str, jax.Array],
    state: GroupsState,
    grads: Sequence[Any],
    leaves: Sequence[jax.Array],
    treedef: Any,
    extra_args: dict[str, Any],
    x64: bool,
) -> tuple[dict[int, jax.Array], Any]:
    """Take the step of a group whose optimizer is a factory of Optax or of the user."""
    members, before = state.table.members(group), state.others[str(group)]
    missing = [state.table.paths[i] for i in members if grads[i] is None]
    if missing and member.group.check is None:
        if len(missing) == len(members):
            return {}, before
        raise ValueError(
            f'the gradient of "{missing[0]}" is None, which the optimizer of {member.group.label} '
            "does not know; give it zeros, or put the parameter into a group of its own"
        )
    params = jax.tree.unflatten(treedef, leaves)
    if "value_fn" in extra_args:
        extra_args["value_fn"] = _value_fn_of_part(extra_args["value_fn"], params)
    if "grad" in extra_args:
        extra_args["grad"] = (extra_args["grad"],)
    with jax.enable_x64(True):
        tx = _foreign(member, of_group(numbers, state.table, group), x64)
    with jax.enable_x64(x64):
        part, own = (_part(treedef, xs, members) for xs in (grads, leaves))
        (updates,), new = tx.update(part, before, own, **extra_args)
    flat = leaves_up_to(params, updates)
    return {i: flat[i] for i in members}, new


def _part(treedef: Any, leaves: Sequence[Any], members: Sequence[int]) -> Any:
    """Return the leaves of one group as its optimizer sees them: a tree with gaps, in a tuple.

    Optax takes a callable module for a function of the parameters; a tuple is none.
    """
    own = set(members)
    seen = [leaf if i in own else optax.MaskedNode() for i, leaf in enumerate(leaves)]
    return (jax.tree.unflatten(treedef, seen),)


def _value_fn_of_part(value_fn: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    """Return the function that one group's optimizer sees: of its parameters, the rest as is."""

    def of_group(part: Any) -> Any:
        (own,) = part
        leaves = [
            param if isinstance(x, optax.MaskedNode) else x
            for x, param in zip(leaves_up_to(params, own), jax.tree.leaves(params), strict=True)
        ]
        return value_fn(jax.tree.unflatten(jax.tree.structure(params), leaves))

    return of_group
