"""One update of all groups: the rules of this library together, other optimizers by group."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    named: set[Program] = set()  # of many groups, most have the same
    starts: list[dict[str, jax.Array]] = []
    with jax.enable_x64(True):
        vectors = _own_numbers(definition.members[0], 0) if table.bare else numbers
        for group in table.of_clocks:
            program = table.program(group)
            own = {k: jnp.asarray(v) for k, v in of_group(vectors, table, group).items()}
            starts.append(program.start(own))
            if program not in named:
                named.add(program)
                names |= dict.fromkeys(program.names(own))
            for i in table.members(group):
                held[i] = program.init_leaf(leaves[i], own)
                if on_explicit_mesh(leaves[i]):
                    held[i] = {k: on_mesh_of(leaves[i], array) for k, array in held[i].items()}
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
        table=replace(table, layouts=definition.layouts),
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
    table.check_paths(check_params(params))
    if not table.bare and table.groups != definition.groups:
        state = _all_made(definition, state, params)
    grads: list[Any] = checked_gradients(updates, params, table.rules)
    whole, treedef = jax.tree.flatten(to_array(params))
    leaves = list(whole)
    grads = [grad if grad is None else to_array(grad) for grad in grads]
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


def _rules_stepped(
    state: GroupsState,
    numbers: Mapping[str, jax.Array],
    grads: Sequence[Any],
    leaves: Sequence[jax.Array],
) -> tuple[dict[int, jax.Array], GroupsState]:
    """Take the steps of this library's rules, those of one program together."""
    table = state.table
    pairs = zip(grads, table.rests, strict=True)
    stepping = [grad is not None and not rests for grad, rests in pairs]
    held, structures = held_by(state.leaves, len(leaves))
    updates: dict[int, jax.Array] = {}
    before = {name: jnp.asarray(own_value(vector)) for name, vector in state.scalars.items()}
    before = _as_the_newest(before, table)
    after = dict(before)
    work = []
    for program, clocks in table.clocks_of_programs.items():
        row = {clock: k for k, clock in enumerate(clocks)}
        members = [i for i, c in enumerate(table.clocks) if c in row and stepping[i]]
        _check_wholes(program, [leaves[i] for i in members])
        at = np.array(clocks, np.int32)
        vectors = of_groups(numbers, table, [table.of_clocks[c] for c in clocks])
        first = {k: v[0] for k, v in vectors.items()}
        _check_shapes(program, first, [(table.paths[i], leaves[i], held[i]) for i in members])
        kinds = program.kinds(first)
        shared = {k: before[k][at].astype(kind) for k, kind in kinds.items()}
        given = [kernels.Leaf(row[table.clocks[i]], grads[i], leaves[i], held[i]) for i in members]
        work.append((clocks, at, members, (program, given, vectors, shared)))
    parts = [(step[0].rule, part) for *_, step in work for part in _gathered(*step)]
    for clocks, at, members, step in work:
        made, advanced = _stepped(*step, [own for rule, own in parts if rule is step[0].rule])
        for name, vector in advanced.items():
            whole = len(clocks) == len(table.of_clocks)
            cast = vector.astype(before[name].dtype)
            after[name] = cast if whole else after[name].at[at].set(cast)
        for i, (update, new_state) in zip(members, made, strict=True):
            updates[i], held[i] = update, new_state
    table, origin, goes_on = table.ticked(stepping)
    if not all(goes_on):
        old, mask = np.array(origin, np.int32), np.array(goes_on)
        after = {k: jnp.where(mask, after[k][old], before[k][old]) for k in before}
        after = _as_the_newest(after, table)
    return updates, replace(state, leaves=as_trees(held, structures), scalars=after, table=table)


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


def _gathered(
    program: Program,
    leaves: Sequence[kernels.Leaf],
    numbers: Mapping[str, jax.Array],
    shared: Mapping[str, jax.Array],
) -> list[dict[str, jax.Array]]:
    """Return what the rule adds up over leaves, of each; the arguments are those of `_stepped`."""
    gathers = program.rule.gathers
    if gathers is None:
        return []

    def parts(leaf: Any, shared: dict[str, Any], own: dict[str, Any]) -> dict[str, jax.Array]:
        made: dict[str, jax.Array] = gathers(*leaf, shared, **own, **dict(program.static))
        return made

    made = []
    for leaf in leaves:
        given = leaf.grad, leaf.param, leaf.state
        if jnp.iscomplexobj(leaf.param):
            given = as_real(given)
        summed = as_laid_out(parts, jnp.sum(leaf.param)) if on_explicit_mesh(leaf.param) else parts
        made.append(summed(given, entries(shared, leaf.clock), entries(numbers, leaf.clock)))
    return made


def _stepped(
    program: Program,
    leaves: Sequence[kernels.Leaf],
    numbers: Mapping[str, jax.Array],
    shared: Mapping[str, jax.Array],
    parts: Sequence[Mapping[str, jax.Array]],
) -> tuple[list[tuple[jax.Array, dict[str, Any]]], dict[str, jax.Array]]:
    """Take a step of leaves that have one program.

    Args:
        program: the rule and its static arguments.
        leaves: what each is given.
        numbers: float64, an entry for each clock in the first axis.
        shared: what the leaves of a clock share, likewise.
        parts: of all leaves of the rule, what it adds up over them.

    Returns:
        The Optax update and the new state of each leaf, and what is shared after the step.
    """
    recording, update_leaf = recorder.get(), leaf_update(program)
    names = parts[0] if parts else {}
    sums = {name: functools.reduce(jnp.add, [part[name] for part in parts]) for name in names}
    advance = functools.partial(program.advance, sums=sums)
    after_shared, scalars = jax.vmap(advance)(dict(shared), dict(numbers))
    vectors: dict[Any, dict[str, jax.Array]] = {}
    for dtype in dict.fromkeys(leaf.param.dtype for leaf in leaves):
        # As they meet arrays of the type, rounded once for all leaves.
        wide = jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32
        rounded = {k: v.astype(wide) if v.dtype == jnp.float64 else v for k, v in scalars.items()}
        vectors[dtype] = {**numbers, **rounded}
    by_kernel = {}
    if recording is not None and kernels.enabled():
        by_kernel = kernels.one_pass(update_leaf, leaves, vectors.__getitem__, entries)
    own: dict[Any, dict[str, jax.Array]] = {}
    made: list[tuple[jax.Array, dict[str, Any]]] = []
    before: jax.Array | None = None
    for i, leaf in enumerate(leaves):
        key = leaf.clock, leaf.param.dtype
        if i in by_kernel:
            new_param, after = by_kernel[i]
            new_update = new_param - leaf.param  # where none follows, it is not computed
        else:
            if key not in own:
                own[key] = entries(vectors[leaf.param.dtype], leaf.clock)
            grad, param, state = leaf.grad, leaf.param, leaf.state
            if before is not None and param.size >= _LARGE:
                # The scratch of what needs a whole leaf is as large as it: one after the other.
                grad, param, *held = later((grad, param, *state.values()), before)
                state = dict(zip(state, held, strict=True))
            new_param, new_update, after = update_leaf(grad, param, state, own[key])
            if not program.rule.elementwise and new_param.size >= _LARGE:
                before = new_param
        if recording is not None:
            new_update = recording.record(new_update, new_param, leaf.param)
        made.append((new_update, after))
    return made, after_shared


def _promoted(starts: Iterable[Mapping[str, Any]]) -> dict[str, np.dtype[Any]]:
    """Return the types of what clocks hold, by name."""
    kinds: dict[str, np.dtype[Any]] = {}
    for start in starts:
        for name, value in start.items():
            kinds[name] = jnp.promote_types(kinds.get(name, value.dtype), value.dtype)
    return kinds


def _check_wholes(program: Program, leaves: Sequence[Any]) -> None:
    """Raise for a leaf of which a device has a part, where the rule needs the whole."""
    rule = program.rule
    if rule.sparse or not rule.elementwise or rule.gathers is not None:
        for leaf in leaves:
            check_whole(leaf, rule.name, "a parameter")


def _check_shapes(
    program: Program, numbers: Mapping[str, Any], members: Iterable[tuple[str, Any, Any]]
) -> None:
    """Raise ValueError for a state that was made for parameters of other shapes."""
    known: dict[Any, dict[str, Any]] = {}
    for path, leaf, held in members:
        key = leaf.shape, leaf.dtype
        if key not in known:
            known[key] = jax.eval_shape(program.init_leaf, jax.ShapeDtypeStruct(*key), numbers)
        for name, array in known[key].items():
            if name in held and held[name].shape != array.shape:
                raise ValueError(
                    f'{name} of "{path}" has shape {held[name].shape} in the state, {array.shape} '
                    "by the parameters"
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
