from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optax

if TYPE_CHECKING:
    from flax import nnx


def nnx_optimizer(
    model: nnx.Module, tx: optax.GradientTransformation, state: Any, wrt: Any = None
) -> nnx.Optimizer[Any]:
    """Return an ``nnx.Optimizer`` that goes on from a state, instead of beginning with a new one.

    Args:
        model: the model.
        tx: the transformation, such as `optimizer_from_torch` returns.
        state: its state for the model's variables, such as `jp.load_state_dict` returns.
        wrt: which variables are trained; ``nnx.Param`` by default.

    Raises:
        ValueError: a state of another structure than that of the model's variables.

    Example:
        >>> from flax import nnx
        >>> import jaxopt_port as jp
        >>> model, tx = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jp.AdamW(lr=0.1)
        >>> params = nnx.state(model, nnx.Param)
        >>> saved = jp.state_dict(tx, tx.init(params), params)
        >>> optimizer = nnx_optimizer(model, tx, jp.load_state_dict(tx, saved, params))
        >>> jp.get_hyperparams(optimizer.opt_state)[0]["lr"]
        0.1
    """
    import jax
    from flax import nnx

    wrt = nnx.Param if wrt is None else wrt
    expected: Any = jax.tree.structure(jax.eval_shape(tx.init, nnx.state(model, wrt)))
    if jax.tree.structure(state) != expected:
        raise ValueError(
            "the state is not one of this transformation for the model's variables: pass what "
            "tx.init(nnx.state(model, wrt)) or jp.load_state_dict returns"
        )
    # Flax wraps each leaf of what init returns.
    optimizer = nnx.Optimizer(
        model, optax.GradientTransformation(lambda params: state, tx.update), wrt=wrt
    )
    optimizer.tx = tx
    return optimizer
