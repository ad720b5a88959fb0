from __future__ import annotations

import dataclasses
from typing import Any

from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from ..engine import step


class TrainState(train_state.TrainState):  # type: ignore[no-untyped-call]
    """Linen's ``TrainState`` whose step is `jp.step`: torch's bits, in one pass over memory.

    It is made and used as Flax's own, with any Optax transformation, and can be extended as it can.
    Donate it, ``jax.jit(train_step, donate_argnums=0)``, and the step is taken in place.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> from flax import linen as nn
        >>> from jaxopt_port.flax import TrainState
        >>> model, x = nn.Dense(1), jnp.ones((4, 2))
        >>> params = model.init(jax.random.key(0), x)["params"]
        >>> state = TrainState.create(apply_fn=model.apply, params=params, tx=jp.AdamW(lr=0.1))
        >>> def train_step(state, x):
        ...     loss = lambda params: jnp.mean(state.apply_fn({"params": params}, x) ** 2)
        ...     return state.apply_gradients(grads=jax.grad(loss)(state.params))
        >>> state = jax.jit(train_step, donate_argnums=0)(state, x)
        >>> int(state.step), jp.get_hyperparams(state.opt_state)[0]["lr"]
        (1, 0.1)
        >>> state = state.replace(opt_state=jp.set_hyperparams(state.opt_state, lr=0.01))
    """

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> TrainState:
        """Take a step: torch's ``optimizer.step()``, to the last bit.

        Args:
            grads: gradients, a tree as ``params``; where one is None, or a layer has none, the
                parameter rests. For ``jp.lbfgs`` and ``contrib.sam``, the loss itself.
            **kwargs: further attributes and their new values.

        Returns:
            The state after the step, ``step`` raised by one.

        Raises:
            ValueError: gradients whose tree or shapes are not the parameters'.
            TypeError: gradients whose dtypes are not the parameters', an attribute that there is
                not.
        """
        if unknown := kwargs.keys() - {field.name for field in dataclasses.fields(self)}:
            raise TypeError(
                f"{type(self).__name__} has no attribute {min(unknown)!r}; what a transformation "
                "takes besides gradients goes to the step itself: params, opt_state = jp.step("
                f"state.tx, grads, state.opt_state, state.params, {min(unknown)}=…), then "
                "state.replace(step=state.step + 1, params=params, opt_state=opt_state)"
            )
        # What Flax's fp8 layers give in the place of gradients is the new value itself.
        overwritten = (
            {OVERWRITE_WITH_GRADIENT: grads[OVERWRITE_WITH_GRADIENT]}
            if not callable(grads) and OVERWRITE_WITH_GRADIENT in grads
            else {}
        )
        own_grads = grads["params"] if overwritten else grads
        params = self.params["params"] if overwritten else self.params
        new, opt_state = step(self.tx, own_grads, self.opt_state, params)
        new = {"params": new, **overwritten} if overwritten else new
        stepped: TrainState = self.replace(
            step=self.step + 1, params=new, opt_state=opt_state, **kwargs
        )
        return stepped
