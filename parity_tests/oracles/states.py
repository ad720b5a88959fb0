"""States that hold what torch holds."""

from collections.abc import Mapping
from typing import Any

from jaxopt_port.engine import find_groups_state, replace_groups_state, with_group_leaf_states


def with_leaf_states(state: Any, states: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return a state that holds other things for its parameters: the inverse of `leaf_states`."""
    new = find_groups_state(state)
    for group in new.table.trained:
        new = with_group_leaf_states(new, group, states)
    return replace_groups_state(state, lambda _: new)
