"""Lookahead: every few steps the parameters go back part of the way to where they were."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..clip_grad import trained_grads
from ..engine import (
    as_complex,
    as_real,
    check_transformation,
    grouped_states,
    recorder,
    with_joined,
)
from ..numerics.torch_ops import add, lerp
from ..optim import ranges
from ..trees import check_given, checked_gradients, leaf_paths


class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
        step: steps taken, int32.
        slow: the slow parameters.
        inner_state: the state of the optimizer.
        begun: whether each of the slow parameters counts: timm's does from its first meeting on.
    """

    step: jax.Array
    slow: Any
    inner_state: Any
    begun: Any


def lookahead(
    tx: optax.GradientTransformation, alpha: float = 0.5, k: int = 6, *, package: str = "timm"
) -> optax.GradientTransformationExtraArgs:
    """Lookahead: every few steps the parameters go back part of the way to where they were.

    The counterpart of ``timm.optim.Lookahead``, and of ``pytorch_optimizer.Lookahead`` without its
    ``pullback_momentum``. ``package`` says which: timm's slow parameters begin at the first
    meeting of each, the other's where the run does; and they round otherwise. Steps are counted for
    all parameters; one whose gradient is None at a meeting, as there that of a frozen one is, is
    left out of it. Around an
    optimizer of this library `jp.step` keeps every bit; its groups and numbers are found in the
    state as without. The slow parameters have no place in torch's state dicts: save the whole
    state.

    Args:
        tx: the optimizer.
        alpha: how much of the way from the slow to the fast parameters is kept, in [0, 1].
        k: steps from one meeting to the next, >= 1; 5 is pytorch_optimizer's default.
        package: whose: ``"timm"`` or ``"pytorch_optimizer"``.

    Raises:
        ValueError: a number out of its range, in timm's words.
        TypeError: no number.

    References:
        Zhang et al., 2019, *Lookahead Optimizer: k steps forward, 1 step back*;
        ``timm.optim.lookahead``; ``pytorch_optimizer.optimizer.lookahead``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import lookahead
        >>> tx = lookahead(jp.SGD(lr=1.0), k=2, package="pytorch_optimizer")
        >>> params = jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = jp.step(tx, jnp.ones(1), state, params)
        ...     print(params)
        [-1.]
        [-1.]
    """
    ranges.check_number("alpha", alpha)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"Invalid slow update rate: {alpha}; alpha must be in [0, 1]")
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ValueError(f"Invalid lookahead steps: {k}; k must be a whole number from 1 on")
    if package not in ("timm", "pytorch_optimizer"):
        raise ValueError(f'no package {package!r}; it is "timm" or "pytorch_optimizer"')
    check_transformation(tx)
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> LookaheadState:
        slow = jax.tree.map(jnp.array, params)  # of its own memory: both may be donated
        begun = jax.tree.map(lambda _: jnp.asarray(package != "timm"), params)
        return LookaheadState(jnp.zeros((), jnp.int32), slow, tx.init(params), begun)

    def met(slow: jax.Array, fast: jax.Array, begun: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(slow):
            slow, fast = as_real((slow, fast))
            new: jax.Array = as_complex(met(slow, fast, begun))
            return new
        if package == "pytorch_optimizer":
            return lerp(fast, slow, 1 - alpha)
        return jnp.where(begun, add(slow, add(fast, slow, alpha=-1.0), alpha=alpha), fast)

    def update(grads: Any, state: LookaheadState, params: Any = None, **extra_args: Any) -> Any:
        if not isinstance(state, LookaheadState):
            raise TypeError(
                f"the state is a {type(state).__name__}, not one of lookahead: make it by the init "
                "of what lookahead returned"
            )
        check_given(params)
        slows = with_joined(state.slow, params, state.inner_state, jnp.array)
        begun_before = dict(leaf_paths(state.begun))
        updates, inner_state = tx.update(grads, state.inner_state, params, **extra_args)
        trained = trained_grads(grads, state) if grouped_states(state) else grads
        leaves, treedef = jax.tree.flatten(params)
        recording, step = recorder.get(), state.step + 1
        made, slower, now = [], [], []
        given = zip(
            checked_gradients(trained, params),
            jax.tree.leaves(updates),
            jax.tree.leaves(slows),
            (begun_before.get(path, package != "timm") for path, _ in leaf_paths(params)),
            leaves,
            strict=True,
        )
        for grad, moved, slow, begun, param in given:
            fast = param + moved if recording is None else recording.apply(param, moved)
            due = step % k == 0 if grad is not None else False
            new = jnp.where(due, met(slow, fast, begun), fast)
            own = new - param
            made.append(own if recording is None else recording.record(own, new, param))
            slower.append(jnp.where(due, new, slow))
            now.append(begun | due)
        slow, own, begun = (jax.tree.unflatten(treedef, each) for each in (slower, made, now))
        return own, LookaheadState(step, slow, inner_state, begun)

    return optax.GradientTransformationExtraArgs(init, update)
