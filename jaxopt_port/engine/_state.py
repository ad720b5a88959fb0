"""The state of an optimizer: by torch's name a tree shaped as the parameters, and the numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..numerics import Float64, encoded, entries, own_value
from ..trees import is_nnx_variable, leaf_paths
from ._groups import Table
from ._options import NO_NUMBER, first_value

State = TypeVar("State")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["leaves", "scalars", "numbers", "counts", "others"],
    meta_fields=["table"],
)
@dataclass(frozen=True)
class GroupsState:
    """The state of a grouped optimizer.

    Attributes:
        leaves: by torch's name (``exp_avg``), a tree shaped as the parameters, with a `NotHeld`
            where a parameter has nothing of that name.
        scalars: by torch's name (``step``), a vector over clocks: ``table.clocks`` says which
            parameter has which.
        numbers: by option (``lr``), a `Float64` over groups; 0 for a group that has none.
        counts: how many updates each group has seen, for Optax schedules.
        others: by the group's index, the state of a factory that is no rule of this library.
        table: what is static about the groups.
    """

    leaves: dict[str, Any]
    scalars: dict[str, jax.Array]
    numbers: dict[str, Float64]
    counts: jax.Array
    others: dict[str, Any]
    table: Table = field(repr=False)

    def with_others(self, group: int, state: Any) -> GroupsState:
        """Return the state with another state of a foreign factory."""
        return replace(self, others={**self.others, str(group): state})


class NotHeld(NamedTuple):
    """Stands where a leaf has nothing of one name; like None, it has no leaves."""


def is_not_held(x: Any) -> bool:
    return isinstance(x, NotHeld)


def held_by(state: Mapping[str, Any], count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what each of some leaves holds, by name, and the structure of each name's tree."""
    of_leaves: list[dict[str, Any]] = [{} for _ in range(count)]
    structures = {}
    for name, tree in state.items():
        flat, structures[name] = jax.tree.flatten(tree)
        if len(flat) < count:  # to ask each node is dear
            flat, structures[name] = jax.tree.flatten(tree, is_leaf=is_not_held)
        for held, value in zip(of_leaves, flat, strict=True):
            if not isinstance(value, NotHeld):
                held[name] = value
    return of_leaves, structures


def as_trees(
    of_leaves: Sequence[Mapping[str, Any]], structures: Mapping[str, Any]
) -> dict[str, Any]:
    """Undo `held_by`."""
    return {
        name: jax.tree.unflatten(structure, [held.get(name, NotHeld()) for held in of_leaves])
        for name, structure in structures.items()
    }


def first_numbers(members: Sequence[Any], table: Table) -> dict[str, Any]:
    """Return float64 vectors over groups of what groups were built with.

    0 where a group has no such number, and `NO_NUMBER` for one that was left out, as None.
    """
    made: dict[str, Any] = {}
    n = len(table.groups)
    for name, width in table.widths.items():
        shape = (n,) if width is None else (n, width)
        made[name] = np.zeros(shape)
        for i, member in enumerate(members):
            if name in member.numbers:
                value = member.numbers[name]
                value = first_value(value) if callable(value) else value
                made[name][i] = value if width is None else row(value, width)
    return made


def row(value: Any, width: int | None) -> Any:
    """Return a group's number as an entry of its option's vector: NumPy, or JAX where traced."""
    if width is None and isinstance(value, float):
        return value
    parts = list(value) if isinstance(value, tuple | list) else [value]
    padded = [NO_NUMBER if part is None else part for part in parts]
    padded += [NO_NUMBER] * ((width or 1) - len(parts))
    if any(isinstance(part, jax.Array) for part in parts):
        with jax.enable_x64(True):
            stacked = jnp.stack([jnp.asarray(part, jnp.float64) for part in padded])
            return stacked[0] if width is None else stacked
    own = np.asarray(padded, np.float64)
    return own[0] if width is None else own


def parts_of(state: GroupsState) -> dict[str, Any]:
    """Return the float32 parts of the table, by option.

    A bare number that something has put in the place of a `Float64`, as ``optax.tree.set`` does, is
    taken for all groups.
    """
    n, widths = len(state.table.groups), state.table.widths
    found = {}
    for name, value in state.numbers.items():
        if isinstance(value, Float64):
            found[name] = own_value(value.parts)
            continue
        parts = encoded(own_value(value))
        shape = (n, 3) if widths[name] is None else (n, widths[name], 3)
        if parts.ndim < len(shape) and parts.shape != shape[1:]:
            parts = parts[..., None, :]
        sizes = zip(parts.shape[::-1], shape[::-1], strict=False)
        if parts.ndim > len(shape) or any(given not in (1, own) for given, own in sizes):
            raise ValueError(
                f"{name} was set to an array of shape {np.shape(own_value(value))}; the optimizer "
                f"has {n} groups, and takes one number, or one for each "
                f"(jp.set_hyperparams says what is wrong as it is set)"
            )
        found[name] = jnp.broadcast_to(parts, shape)
    return found


def of_group(numbers: Mapping[str, Any], table: Table, group: int) -> dict[str, Any]:
    """Return the numbers that a group's optimizer is given, from vectors over groups."""
    given = table.groups[group].given
    own = entries({name: numbers[name] for name, _ in given}, group)
    for name, arity in given:
        if table.widths.get(name, arity) != arity:
            own[name] = fitting(own[name], arity)
    return own


def fitting(value: Any, arity: int | None) -> Any:
    """Return a group's number from an entry of its option's vector, which may be wider."""
    width = len(value) if isinstance(value, list | tuple) else (np.shape(value) or (None,))[0]
    if width == arity or width is None:
        return value
    return value[0] if arity is None else value[:arity]


def of_groups(
    numbers: Mapping[str, jax.Array], table: Table, groups: Sequence[int]
) -> dict[str, jax.Array]:
    """Return vectors over some groups, all of one program, from vectors over all."""
    whole = list(groups) == list(range(len(table.groups)))
    at = np.array(groups, np.int32)
    made = {}
    for name, arity in table.groups[groups[0]].given:
        vector = numbers[name] if whole else numbers[name][at]
        if table.widths.get(name, arity) != arity:
            vector = vector[:, 0] if arity is None else vector[:, :arity]
        made[name] = vector
    return made


def written(state: GroupsState, name: str, groups: Sequence[int], values: Sequence[Any]) -> Float64:
    """Return an option's vector with other numbers for some groups."""
    held = state.numbers[name]
    rows = [row(value, state.table.widths[name]) for value in values]
    if any(isinstance(x, jax.Array) for x in rows):
        parts = jnp.stack([jnp.asarray(encoded(x)) for x in rows])
    else:
        parts = encoded(np.stack(rows))
    leaf = held.parts if isinstance(held, Float64) else parts_of(state)[name]
    return Float64(put(leaf, np.array(groups), parts))


def put(leaf: Any, at: Any, parts: Any) -> Any:
    """Return a leaf of a state with other parts, where it was among the devices."""
    old = own_value(leaf)
    if is_traced(old, parts):
        return _rewrap(leaf, jnp.asarray(old).at[at].set(parts))
    new = np.array(old)
    new[at] = parts
    return _rewrap(leaf, in_place_of(old, new) if isinstance(old, jax.Array) else new)


def _rewrap(leaf: Any, value: Any) -> Any:
    return leaf.replace(value) if hasattr(leaf, "get_value") else value


def is_traced(*values: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def _holds_numbers(x: Any) -> bool:
    return isinstance(x, GroupsState) and not x.table.bare


def grouped_states(state: Any) -> list[GroupsState]:
    """Return the states of this library's optimizers: several in Optax's multi_transform."""
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, GroupsState))
    return [node for node in nodes if isinstance(node, GroupsState)]


def untrained_paths(state: Any) -> set[str]:
    """Return the paths of the parameters that all optimizers with groups leave alone."""
    owned = [
        (path, rests)
        for table in (found.table for found in grouped_states(state))
        for path, rests in zip(table.paths, table.rests, strict=True)
    ]
    return {path for path, rests in owned if rests} - {path for path, rests in owned if not rests}


def check_not_donated(cause: Exception | None = None, **trees: Any) -> None:
    """Raise ValueError for arrays whose memory an earlier, donated step has taken."""
    for name, tree in trees.items():
        leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
        if any(not isinstance(x, jax.core.Tracer) and x.is_deleted() for x in leaves):
            raise ValueError(
                f"the arrays of {name} are no longer there: an earlier step that donated them has "
                "written its results into their memory; go on from what it returned, or donate "
                "nothing"
            ) from cause


def with_joined(
    held: Any, params: Any, inner_state: Any, begin: Callable[[jax.Array], jax.Array]
) -> Any:
    """Return what is held of each parameter around an optimizer, with that of those that joined.

    Args:
        held: a tree shaped as the parameters were when the run began.
        params: the parameters.
        inner_state: the optimizer's state, which `add_param_group` has extended.
        begin: makes of a parameter what is held of it at first.

    Raises:
        ValueError: parameters that the state was not made for, or of other shapes.
    """
    before, pairs = dict(leaf_paths(held)), leaf_paths(params)
    known = {path for found in grouped_states(inner_state) for path in found.table.paths}
    joined = {path for path, _ in pairs if path in known and path not in before}
    if odd := sorted({path for path, _ in pairs} ^ (before.keys() | joined)):
        raise ValueError(
            "the parameters are not those that the state was made for: "
            f'"{odd[0]}" is in only one of the two'
        )
    for path, param in pairs:
        shape, wanted = jnp.shape(before.get(path, param)), jnp.shape(param)
        if shape != wanted:
            raise ValueError(f'"{path}" has shape {shape} in the state, {wanted} by the parameters')
    leaves = [before[path] if path in before else begin(param) for path, param in pairs]
    return jax.tree.unflatten(jax.tree.structure(params), leaves) if joined else held


def find_groups_state(state: Any) -> GroupsState:
    """Return the one grouped state that holds numbers; the state may be wrapped in others."""
    if isinstance(state, optax.GradientTransformation):
        raise ValueError(
            "got the optimizer, where its state is meant: what tx.init(params) returns, and each "
            "step"
        )
    found = [one for one in grouped_states(state) if not one.table.bare]
    if len(found) != 1:
        raise ValueError(
            f"expected the state of one grouped optimizer, found {len(found)}; the CapWords "
            "spellings and jp.param_groups make such states, the lower-case ones hold no numbers"
            if not found
            else f"the state holds {len(found)} grouped optimizers; pass the state of one of them"
        )
    check_not_donated(state=found[0])
    return found[0]


def check_no_batch(state: GroupsState) -> None:
    """Raise ValueError for the states of several runs side by side."""
    if np.ndim(own_value(state.counts)) != 1:
        raise ValueError(
            "the state is a batch of states, as jax.vmap(tx.init) makes it; map over it what takes "
            "one: jax.vmap(lambda state: jp.set_hyperparams(state, lr=0.1))(state), say, or "
            "jax.vmap(functools.partial(jp.step, tx))(grads, state, params)"
        )


def replace_groups_state(state: State, change: Callable[[GroupsState], GroupsState]) -> State:
    """Apply a function to the grouped state in a state."""
    new: State = jax.tree.map(
        lambda leaf: change(leaf) if _holds_numbers(leaf) else leaf, state, is_leaf=_holds_numbers
    )
    return new


def leaf_states(state: Any) -> dict[str, dict[str, Any]]:
    """Return what a grouped optimizer of this library holds for each parameter.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.

    Returns:
        By the parameter's path, torch's ``optimizer.state[param]``: arrays by torch's name, and
        scalars such as ``step``. A frozen parameter has no entry.

    Raises:
        ValueError: a group's optimizer is not of this library's rules.
    """
    found = find_groups_state(state)
    if found.table.foreign:
        raise ValueError("the state of a foreign factory is not kept by torch's names")
    held = {
        path: of_leaf
        for group in found.table.trained
        for path, of_leaf in group_leaf_states(found, group).items()
    }
    return {path: held[path] for path in found.table.paths if path in held}


def scalar_kinds(found: GroupsState, group: int) -> dict[str, Any]:
    """Return the types of what the leaves of a clock share, by torch's name."""
    of = found.table.groups[group]
    assert of.program is not None
    with jax.enable_x64(True):
        shapes = {k: () if arity is None else (arity,) for k, arity in of.given}
        return of.program.kinds(
            {k: jax.ShapeDtypeStruct(shape, jnp.float64) for k, shape in shapes.items()}
        )


def group_leaf_states(found: GroupsState, group: int) -> dict[str, dict[str, Any]]:
    """The same as `leaf_states` for the parameters of one group."""
    kinds = scalar_kinds(found, group)
    # What a group has come to hold since it was built is made in its next step.
    none = np.zeros(len(found.table.of_clocks))
    vectors = {name: own_value(found.scalars.get(name, none)) for name in kinds}
    members = found.table.members(group)
    flat = {name: leaves_up_to_held(tree) for name, tree in found.leaves.items()}
    return {
        found.table.paths[i]: {
            **{k: v[found.table.clocks[i]].astype(kinds[k]) for k, v in vectors.items()},
            **{name: leaves[i] for name, leaves in flat.items() if not is_not_held(leaves[i])},
        }
        for i in members
    }


def leaves_up_to_held(tree: Any) -> list[Any]:
    """Return the leaves of a tree, a `NotHeld` where there is none; a Variable is one."""

    def is_leaf(x: Any) -> bool:
        return is_not_held(x) or (is_nnx_variable(x) and not is_not_held(x.get_value()))

    return list(jax.tree.leaves(tree, is_leaf=is_leaf))


def with_group_leaf_states(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> GroupsState:
    """Return a state that holds other things for the parameters of a group of a rule.

    Args:
        found: the state.
        group: which.
        states: by path and by torch's name, arrays of the shapes and dtypes that ``found`` has.
            Leaves whose scalars differ count their steps apart from then on.

    Raises:
        KeyError: a path or a name that ``found`` has is missing.
        ValueError: a shape that is not the state's.
    """
    table, members = found.table, found.table.members(group)
    names = list(scalar_kinds(found, group))
    paths = {i: table.paths[i] for i in members}
    found = _with_clocks(found, group, {i: [states[p][n] for n in names] for i, p in paths.items()})
    table = found.table
    scalars = {name: found.scalars[name] for name in found.scalars}
    for clock, i in reversed([(table.clocks[i], i) for i in members]):
        for name in names:
            scalars[name] = put(scalars[name], clock, states[paths[i]][name])
    leaves = {}
    for name, tree in found.leaves.items():
        old = leaves_up_to_held(tree)
        for i, path in paths.items():
            if not is_not_held(old[i]):
                old[i] = _replaced(path, old[i], states[path][name])
        structure = jax.tree.structure(tree, is_leaf=lambda x: is_not_held(x) or is_nnx_variable(x))
        leaves[name] = jax.tree.unflatten(structure, old)
    return replace(found, scalars=scalars, leaves=leaves)


def _with_clocks(found: GroupsState, group: int, shared: Mapping[int, list[Any]]) -> GroupsState:
    """Return a state in which those leaves of a group have one clock that share the same."""
    if is_traced(list(shared.values())):
        return found
    table = found.table
    keys = {i: tuple(np.asarray(own_value(x)).tobytes() for x in own) for i, own in shared.items()}
    clocks, of_clocks = list(table.clocks), list(table.of_clocks)
    known: dict[Any, int] = {}
    free = [c for c, g in enumerate(of_clocks) if g == group]
    for i, key in keys.items():
        if key not in known:
            known[key] = free.pop(0) if free else len(of_clocks)
            if known[key] == len(of_clocks):
                of_clocks.append(group)
        clocks[i] = known[key]
    more = len(of_clocks) - len(table.of_clocks)
    scalars = {
        name: _longer(vector, more) if more else vector for name, vector in found.scalars.items()
    }
    table = replace(table, clocks=tuple(clocks), of_clocks=tuple(of_clocks))
    return replace(found, scalars=scalars, table=table)


def _longer(vector: Any, more: int) -> Any:
    old = np.asarray(own_value(vector))
    return jnp.asarray(np.concatenate([old, np.zeros(more, old.dtype)]))


def _replaced(path: str, leaf: Any, array: Any) -> Any:
    old = own_value(leaf)
    if jnp.shape(array) != jnp.shape(old):
        raise ValueError(
            f'the state of "{path}" has shape {jnp.shape(array)}; {jnp.shape(old)} is needed'
        )
    new = in_place_of(old, array)
    return leaf.replace(new) if is_nnx_variable(leaf) else new


def in_place_of(old: Any, array: Any) -> jax.Array:
    """Return an array of the dtype of another, on those devices that hold that one.

    NumPy's are copied: JAX may alias them, and their owner (torch) overwrites them.
    """
    with jax.enable_x64(True):
        owned = isinstance(array, np.ndarray)
        new: Any = np.array(array, old.dtype) if owned else jnp.asarray(array, old.dtype)
        placed = isinstance(old, jax.Array) and not is_traced(old, array) and old.committed
        made: jax.Array = jax.device_put(new, old.sharding) if placed else jnp.asarray(new)
    return made
