"""What stands behind an update that comes out of a branch: found in the traced program.

``optax.apply_if_finite`` and ``optax.MultiSteps`` call an optimizer within ``lax.cond``, of which
only the updates come out. An update is tagged there with the new parameter that it stands for; the
program is then run with the new parameters as further results of the branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._forms import Forms, alternative

_TAG = Forms(lambda update, new_param, param: [update])


class _Mark(NamedTuple):
    """An update, the new parameter that it stands for, and whose it is: a variable."""

    update: jax.Array
    new_param: jax.Array
    param: Any


def tagged(update: jax.Array, new_param: jax.Array, param: jax.Array) -> jax.Array:
    """Return an update that `through_branches` knows the new parameter of."""
    made: jax.Array
    (made,) = alternative(_TAG, [update, new_param, param], [jax.typeof(update)])
    return made


def moved(
    param: jax.Array, update: jax.Array, own: jax.Array | None = None, new_param: Any = None
) -> jax.Array:
    """Return ``param + update``; where the update is the optimizer's own, its new parameter."""
    new = jnp.asarray(param + update).astype(jnp.asarray(param).dtype)
    return new if own is None else jnp.where(update == own, new_param, new)


def through_branches(
    function: Callable[[Sequence[Any]], tuple[Any, Any, Any]], params: Sequence[jax.Array]
) -> Any:
    """Return what a function returns, with new parameters found behind its updates.

    Args:
        function: of the parameters' leaves: their updates and new parameters, two lists, and the
            rest.
        params: the leaves.

    Returns:
        The new parameters, those behind tagged updates from where they were computed; and the rest.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(list(params))
    outs, marks = _run(closed.jaxpr, closed.consts, params)
    updates, new, rest = jax.tree.unflatten(jax.tree.structure(shape), outs)
    for i, param in enumerate(params):
        mark = marks.get(i)
        if mark is not None and mark.param is closed.jaxpr.invars[i]:
            new[i] = moved(param, updates[i], mark.update, mark.new_param)
    return new, rest


def _run(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]
) -> tuple[list[Any], dict[int, _Mark]]:
    """Return a program's results and, by position, what is marked among them."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    marks: dict[Any, _Mark] = {}

    def read(atom: Any) -> Any:
        # A Python number among the operands would be float64 here.
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else values[atom]

    with jax.enable_x64(True):  # each operation says its own types
        for eqn in jaxpr.eqns:
            given = [read(atom) for atom in eqn.invars]
            with eqn.ctx.manager:
                made, found = _bound(eqn, given)
            values |= dict(zip(eqn.outvars, made, strict=True))
            if not found:
                found = _handed_on(eqn, {v: marks[v] for v in eqn.invars if _known(v, marks)})
            marks |= {eqn.outvars[k]: mark for k, mark in found.items()}
    outs = jaxpr.outvars
    return [read(v) for v in outs], {k: marks[v] for k, v in enumerate(outs) if _known(v, marks)}


def _known(atom: Any, table: Mapping[Any, Any]) -> bool:
    return not hasattr(atom, "val") and atom in table


def _bound(eqn: Any, given: Sequence[Any]) -> tuple[Sequence[Any], dict[int, _Mark]]:
    if _is_tag(eqn):
        return given[:1], {0: _Mark(given[0], given[1], eqn.invars[2])}
    owners = _owners_of(eqn)
    if not owners:
        params = eqn.primitive.get_bind_params(eqn.params)
        # JAX 0.9 tells functions apart from the rest.
        functions, params = params if isinstance(params, tuple) else ((), params)
        made = eqn.primitive.bind(*functions, *given, **params)
        return made if eqn.primitive.multiple_results else [made], {}
    index, *operands = given

    def branch(closed: Any) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            outs, marks = _run(closed.jaxpr, closed.consts, operands)
            return outs, [_resolved(operands[j], outs[k], marks.get(k)) for k, j in owners.items()]

        return run

    made, new = lax.switch(index, [branch(closed) for closed in eqn.params["branches"]], *operands)
    pairs = zip(owners.items(), new, strict=True)
    return made, {k: _Mark(made[k], x, eqn.invars[1 + j]) for (k, j), x in pairs}


def _resolved(param: jax.Array, update: jax.Array, mark: _Mark | None) -> jax.Array:
    """Return what a branch makes of a parameter; an update of zero leaves it, -0 as it is."""
    new = moved(param, update, *(() if mark is None else (mark.update, mark.new_param)))
    return jnp.where(update == 0, param, new)


def _is_tag(eqn: Any) -> bool:
    return eqn.params.get("forms") is _TAG


def _handed_on(eqn: Any, known: Mapping[Any, Any]) -> dict[int, Any]:
    """Return for the results of an operation what is known of an operand of the same type."""
    return {
        k: own
        for k, out in enumerate(eqn.outvars)
        for var, own in known.items()
        if (var.aval.shape, var.aval.dtype) == (out.aval.shape, out.aval.dtype)
    }


def _owners(jaxpr: Any) -> dict[int, int]:
    """Return by position of a marked result the position of the parameter that it belongs to."""
    owners: dict[Any, Any] = {}
    for eqn in jaxpr.eqns:
        found = {0: eqn.invars[2]} if _is_tag(eqn) else {}
        found |= {k: eqn.invars[1 + j] for k, j in _owners_of(eqn).items()}
        if not found:
            found = _handed_on(eqn, {v: owners[v] for v in eqn.invars if _known(v, owners)})
        owners |= {eqn.outvars[k]: param for k, param in found.items()}
    position = {var: i for i, var in enumerate(jaxpr.invars)}
    pairs = [(k, owners[v]) for k, v in enumerate(jaxpr.outvars) if _known(v, owners)]
    return {k: position[param] for k, param in pairs if _known(param, position)}


def _owners_of(eqn: Any) -> dict[int, int]:
    """Return the same of a choice between branches, which must not contradict each other."""
    if eqn.primitive.name != "cond":
        return {}
    each = [_owners(closed.jaxpr) for closed in eqn.params["branches"]]
    found = {k: {own[k] for own in each if k in own} for own in each for k in own}
    return {k: next(iter(owners)) for k, owners in found.items() if len(owners) == 1}
