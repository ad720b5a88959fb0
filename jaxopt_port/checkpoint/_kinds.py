"""The three kinds of state that a group may have: of a rule, of L-BFGS, of another factory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine import GroupsState
from ..optim import LBFGSState
from . import _foreign_states, _lbfgs_states, _rule_states
from ._rule_states import States


def _kind_of(found: GroupsState, group: int) -> Any:
    if found.table.groups[group].rule is not None:
        return _rule_states
    held = found.others[str(group)]
    return _lbfgs_states if isinstance(held, LBFGSState) else _foreign_states


def read_group(found: GroupsState, group: int) -> States:
    """Return what the parameters of a group hold; {} where torch would hold nothing."""
    states: States = _kind_of(found, group).read(found, group)
    return states


def write_group(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> tuple[GroupsState, list[str]]:
    """Return a fresh state with other things held, and the problems, with which it is worthless."""
    written: tuple[GroupsState, list[str]] = _kind_of(found, group).write(found, group, states)
    return written
