from __future__ import annotations

from typing import Any

from ._hyperparams import find_groups_state
from ._paths import leaf_paths
from ._transform import RuleState


def leaf_states(state: Any) -> dict[str, dict[str, Any]]:
    """Return what a grouped optimizer of this library holds for each parameter.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.

    Returns:
        By the parameter's path, torch's ``optimizer.state[param]``: arrays by torch's name, and the
        group's scalars. A frozen parameter has no entry.

    Raises:
        ValueError: the optimizer is not of this library's rules.
    """
    found = find_groups_state(state)
    if found.table.rule is None:
        raise ValueError("the state of a foreign factory is not kept by torch's names")
    states: dict[str, dict[str, Any]] = {}
    for path, owner in zip(found.table.paths, found.table.assignment, strict=True):
        group = found.table.groups[owner]
        if not group.frozen:
            scalars = found.injected(owner).inner_state.scalars
            states[path] = {name: vector[group.position] for name, vector in scalars.items()}
    for program in {
        g.program: i for i, g in enumerate(found.table.groups) if not g.frozen
    }.values():
        held: RuleState = found.injected(program).inner_state
        for name, (tree,) in held.leaves.items():
            for path, leaf in leaf_paths(tree):
                states[path][name] = leaf
    return states
