"""torch's forward pass run again, in other ways or from other parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .. import diagnosis
from ..report import Cause
from ._distances import largest
from ._names import Array, concrete, numpy_of

_EXAMPLES = 2
_MOVED = 0.1


def can_try(context: Any) -> bool:
    """Whether torch's module is at hand: a trace has what it gave, and no more."""
    return hasattr(context.reference, "exact")


def _plain(function: Any, args: Any, options: Any) -> Any:
    return function(*args, **options)


def by_calls(
    context: Any,
    evaluation: Any,
    yours: Sequence[Array],
    torchs: Sequence[Array],
    more: Sequence[diagnosis.Way] = (),
) -> Cause | None:
    """Try torch's forward pass with other calls; on two examples where they are independent."""
    reference, floor = context.reference, context.floor
    if not can_try(context):
        return None
    checked, batch = evaluation.checked, evaluation.batch
    whole = [len(x) for x in yours if x.ndim]
    part = jax.tree.map(lambda x: x[:_EXAMPLES] if x.ndim else x, batch)

    def run(calls: Any, batch: Any = batch) -> list[Array]:
        return concrete(reference.exact.forward(checked, batch, calls))

    few = [x[:_EXAMPLES] if x.ndim else x for x in torchs]
    try:
        made = run(_plain, part)
        alike = all(
            a.shape == b.shape and relative(a, b) < 1e-12 for a, b in zip(made, few, strict=True)
        )
    except (RuntimeError, ValueError, TypeError, IndexError):
        alike = False
    if alike and len(set(whole)) == 1:
        mine = [x[:_EXAMPLES] if x.ndim else x for x in yours]
        if any(relative(a, b) > 1e-9 for a, b in zip(mine, few, strict=True)):
            return diagnosis.explain_by_calls(
                lambda calls: run(calls, part), mine, few, floor, more
            )
    return diagnosis.explain_by_calls(run, yours, torchs, floor, more)


def by_calls_or_factor(
    context: Any,
    evaluation: Any,
    given: tuple[Any, Any],
    outputs: tuple[Sequence[Array], Sequence[Array]],
    which: int,
    more: Sequence[diagnosis.Way],
) -> Cause | None:
    """Explain an output by other calls of torch's, or as a multiple of torch's.

    Where biases are zero, as they often are at first, a factor anywhere in a network of ReLUs
    multiplies the output: then other parameters tell.

    Args:
        context: both sides.
        evaluation: torch's.
        given: your model's state, and your batch.
        outputs: yours, and torch's.
        which: of them is to be explained.
        more: ways of calling that are tried first.
    """
    yours, torchs = outputs
    if diagnosis.multiple(yours[which], torchs[which]) is not None and can_try(context):
        evaluation = _moved(evaluation)
        checked = evaluation.checked
        tree = context.names.params_tree({**checked.params, **checked.buffers})
        yours, torchs = (
            [np.array(x, np.float64) for x in concrete(side)]
            for side in (
                context.exact.evaluate(tree, *given).output,
                context.reference.exact.forward(checked, evaluation.batch, _plain),
            )
        )
    factor = diagnosis.multiple(yours[which], torchs[which])
    called = by_calls(context, evaluation, yours, torchs, more)
    if called is not None and called.name == "layer-eps" and _is_scaled(context, evaluation, given):
        called = None
    if called is None or factor is None:
        return called or factor
    message = f"{called.message}; or {factor.message}: these cannot be told apart here"
    return dataclasses.replace(
        called, message=message, remedy=f"{called.remedy}; or {factor.remedy}", also=(factor,)
    )


def _is_scaled(context: Any, evaluation: Any, given: tuple[Any, Any]) -> bool:
    """Whether a running statistic takes a multiple of torch's: a factor stands before the layer.

    Another eps gives the same output, and another momentum the same multiple at all of them.
    """
    checked, names = evaluation.checked, context.names
    before = {**checked.params, **checked.buffers}
    done = context.exact.evaluate(names.params_tree(before), *given)
    yours, old = names.state_leaves_of(done.model_state), names.state_by_path(before)
    torchs = names.state_by_path(checked.buffers_after64)
    ratios = [diagnosis.ratio_of(yours[p] - old[p], torchs[p] - old[p]) for p in torchs]
    return any(r and not diagnosis.same(r, 1.0) for r in ratios) and not all(
        r and ratios[0] and diagnosis.same(r, ratios[0]) for r in ratios
    )


def _moved(evaluation: Any) -> Any:
    """Return an evaluation from other parameters."""
    rng, checked = np.random.default_rng(0), evaluation.checked
    params = {
        name: p + p.new_tensor(_MOVED * rng.normal(size=tuple(p.shape)))
        for name, p in checked.params.items()
    }
    return dataclasses.replace(evaluation, checked=dataclasses.replace(checked, params=params))


def used_by(evaluation: Any, differences: Sequence[str]) -> list[str]:
    """Return how layers differ, of those that torch's output depends on."""
    grads = {n: np.any(numpy_of(g)) for n, g in evaluation.checked.grads64.items()}
    names = evaluation.checked.params

    def is_used(layer: str) -> bool:
        own = [name for name in names if name.startswith(f"{layer}.")]
        return not own or any(grads.get(name) for name in own)

    return [text for text in differences if is_used(text.partition(" (")[0])]


def relative(a: Array, b: Array) -> float:
    """Return how far apart two arrays are, of the second's largest."""
    scale, far = largest(b), largest(np.asarray(a, np.float64) - b)
    return far / scale if scale else far
