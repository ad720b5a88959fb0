"""What is static about the states that are saved, as JSON, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax

from ...engine import Group, GroupsState, Table, grouped_states
from ...lr_scheduler import SchedulerState
from ...trees import listed


def described(tree: Any) -> list[dict[str, Any]]:
    """Return a description of each grouped optimizer's and each scheduler's state in a tree."""
    parts = jax.tree.leaves(tree, is_leaf=_is_own)
    return [_described(part) for part in parts if _is_own(part)]


def tables(tree: Any) -> list[str]:
    """Return, of each grouped state in a tree, what of its static part changes during a run."""
    return [
        json.dumps(
            {
                "clocks": state.table.clocks,
                "of_clocks": state.table.of_clocks,
                "resting": sorted(state.table.resting),
                "resting_leaves": sorted(state.table.resting_leaves),
            }
        )
        for state in grouped_states(tree)
    ]


def with_table(table: Table, saved: str) -> Table:
    """Return a table with what `tables` has saved: who counts with whom, who rests."""
    try:
        found = json.loads(saved)
        return replace(
            table,
            clocks=tuple(found["clocks"]),
            of_clocks=tuple(found["of_clocks"]),
            resting=frozenset(found["resting"]),
            resting_leaves=frozenset(found["resting_leaves"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the saved state is damaged: its table is {saved!r}") from error


def _is_own(x: Any) -> bool:
    return isinstance(x, GroupsState | SchedulerState)


def _described(state: GroupsState | SchedulerState) -> dict[str, Any]:
    if isinstance(state, SchedulerState):
        return {"scheduler": state.kind, "values": sorted(state.values)}
    table = state.table
    groups = []
    for i, group in enumerate(table.groups):
        groups.append({**_program(group), "paths": table.paths_of(i)})
    return {"groups": groups}


def _program(group: Group) -> dict[str, Any]:
    if group.frozen:
        return {"label": group.label, "optimizer": "frozen", "numbers": [], "static": {}}
    return {
        "label": group.label,
        "optimizer": group.rule.name if group.rule is not None else "a factory",
        "numbers": sorted(dict(group.numbers)),
        "static": {name: repr(value) for name, value in group.static},
    }


def differences(saved: list[Any], expected: list[dict[str, Any]]) -> list[str]:
    """Say how descriptions differ; nothing where the one state can be restored as the other."""
    if len(saved) != len(expected):
        return [f"{len(saved)} grouped states and schedulers were saved; here are {len(expected)}"]
    return [line for pair in zip(saved, expected, strict=True) for line in _differences(*pair)]


def _differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if saved.keys() != here.keys():
        yield f"a state of {_kind(saved)} was saved; here is one of {_kind(here)}"
    elif "scheduler" in here:
        if saved != here:
            yield f"{saved['scheduler']} was saved; here is {here['scheduler']}, or other arguments"
    else:
        yield from _of_groups(saved["groups"], here["groups"])


def _kind(description: Mapping[str, Any]) -> str:
    return "a scheduler" if "scheduler" in description else "an optimizer with groups"


def _of_groups(saved: list[Any], here: list[Any]) -> Iterator[str]:
    if len(saved) != len(here):
        labels = [", ".join(group["label"] for group in groups) for groups in (saved, here)]
        yield f"{len(saved)} groups were saved ({labels[0]}); here are {len(here)} ({labels[1]})"
        return
    for was, now in zip(saved, here, strict=True):
        for what in ("optimizer", "numbers", "static"):
            if was[what] != now[what]:
                yield f"{now['label']}: {what} was {was[what]}; here it is {now[what]}"
        moved = sorted(set(was["paths"]) ^ set(now["paths"]))
        if moved:
            where = "there" if moved[0] in was["paths"] else "here"
            paths = listed([f'"{path}"' for path in moved], 1)
            yield f"{now['label']}: {paths} is in it only {where}"


HINT = (
    "Restore into the state of an optimizer with the groups that were saved, and then add the "
    "others: tx, state = jp.add_param_group(tx, state, params, group)"
)
