from __future__ import annotations

from typing import Any, TypeVar

import jax
import optax
from flax import nnx
from flax.nnx import filterlib

from .._compat import as_pure
from ..engine import check_transformation, step
from ..trees import is_nnx_variable

M = TypeVar("M")


class Optimizer(nnx.Optimizer[M]):
    """An ``nnx.Optimizer`` whose update is `jp.step`: torch's bits, in one pass over memory.

    It is used as Flax's own, under ``nnx.jit``, ``nnx.cached_partial`` and ``nnx.split``, with any
    Optax transformation. Unlike Flax's, it takes gradients that are None, or left out: such a
    parameter rests, as in torch.

    Args:
        model: the model.
        tx: the transformation, of this library, of Optax or the user's own.
        wrt: which variables are trained, a filter such as ``nnx.Param``. Gradients must be taken
            with the same, by ``nnx.grad(loss, argnums=nnx.DiffState(0, wrt))`` if it is another.
        opt_state: the state to go on from, such as `jp.load_state_dict` and
            `interop.optimizer_from_torch` return; a new one by default.
        graph: as in Flax.

    Attributes:
        step: a variable, how many updates there were.
        tx: the transformation.
        opt_state: its state, each leaf within a variable. `jp.get_hyperparams` reads the numbers
            in it, and `jp.set_hyperparams` returns it with others:
            ``optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=0.01)``.

    Raises:
        ValueError: a state of another structure than the transformation has for this model.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from flax import nnx
        >>> from jaxopt_port.flax import Optimizer
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> optimizer = Optimizer(model, jp.AdamW(lr=0.1), wrt=nnx.Param)
        >>> @nnx.jit
        ... def train_step(model, optimizer, x):
        ...     grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
        ...     optimizer.update(model, grads)
        >>> train_step(model, optimizer, jnp.ones((4, 2)))
        >>> jp.get_hyperparams(optimizer.opt_state)[0]["lr"], int(optimizer.step[...])
        (0.1, 1)
    """

    def __init__(
        self,
        model: M,
        tx: optax.GradientTransformation,
        *,
        wrt: filterlib.Filter,
        opt_state: Any = None,
        **graph: Any,
    ) -> None:
        check_transformation(tx)
        made_by = tx
        if opt_state is not None:
            state = as_pure(opt_state)
            expected: Any = jax.tree.structure(
                as_pure(jax.eval_shape(tx.init, nnx.state(model, wrt, **graph)))
            )
            if jax.tree.structure(state) != expected:
                raise ValueError(
                    "opt_state is not one of this transformation for the model's variables: pass "
                    "what tx.init(nnx.state(model, wrt)) or jp.load_state_dict returns"
                )
            # Flax wraps each leaf of what init returns.
            made_by = optax.GradientTransformation(lambda params: opt_state, tx.update)
        super().__init__(model, made_by, wrt=wrt, **graph)
        self.tx = tx

    def _state_of(self, node: Any) -> Any:
        # Releases of Flax before 0.12.3 know no other mode.
        graph = {"graph": self.graph} if hasattr(self, "graph") else {}
        return nnx.state(node, self.wrt, **graph)

    def update(self, model: M, grads: Any, /, **kwargs: Any) -> Any:
        """Take a step: torch's ``optimizer.step()``, to the last bit.

        Args:
            model: the model; its variables get their new values.
            grads: its gradients, from ``nnx.grad``. None, or left out: the parameter rests.
            **kwargs: arguments for transformations that take more.

        Returns:
            Optax's updates, the new parameters less the old; within ``jit`` they cost nothing
            where they are not used.

        Raises:
            ValueError: gradients whose tree or shapes are not the parameters'.
            TypeError: gradients whose dtypes are not the parameters', or none at all.
        """
        if isinstance(model, nnx.State) and not isinstance(grads, nnx.State):
            raise TypeError(
                f"the model comes first, then its gradients: update(model, grads); got a "
                f"{type(model).__name__} and a {type(grads).__name__}"
            )
        if callable(grads) and not isinstance(grads, nnx.Module):
            raise TypeError(
                "grads must be gradients; got a function: nnx.grad(loss)(model) makes them"
            )
        params, found = as_pure(self._state_of(model)), self._state_of(grads)
        if not jax.tree.leaves(found, is_leaf=is_nnx_variable):
            found = grads  # of bare arrays, which no filter finds
            if not jax.tree.leaves(grads):
                raise ValueError(
                    "grads has no gradient of a variable that wrt names; take them with the same "
                    "filter: nnx.grad(loss, argnums=nnx.DiffState(0, wrt))(model)"
                )
        extra: dict[str, Any] = {
            name: jax.tree_util.Partial(value) if callable(value) else value
            for name, value in as_pure(kwargs).items()
        }
        state = as_pure(self.opt_state)
        new, self.opt_state = step(self.tx, as_pure(found), state, params, **extra)
        nnx.update(model, new)
        self.step.set_value(self.step.get_value() + 1)  # in place is not possible for all arrays
        return jax.tree.map(lambda new, old: new - old, new, params)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "opt_state" and name in vars(self):
            value = self._in_its_variables(value)
        elif name in ("lr", "learning_rate", "param_groups") and type(self) is Optimizer:
            raise AttributeError(
                f"an optimizer has no {name} to be set: optimizer.opt_state = "
                "jp.set_hyperparams(optimizer.opt_state, lr=…)"
            )
        super().__setattr__(name, value)

    def _in_its_variables(self, state: Any) -> Any:
        """Return a state in the Variables that are there, where it fits: cached calls hold them."""
        held, after = as_pure(self.opt_state), as_pure(state)
        leaves = jax.tree.leaves(after)
        structure: Any = jax.tree.structure(after)
        if structure == jax.tree.structure(held):
            nnx.update(self.opt_state, nnx.state(after))
            return self.opt_state
        variables = jax.tree.leaves(self.opt_state, is_leaf=is_nnx_variable)
        if len(variables) != len(leaves):
            return state
        # Something static is another: who counts steps with whom, since some gradients were None.
        for i, (variable, value) in enumerate(zip(variables, leaves, strict=True)):
            if is_nnx_variable(variable):
                variable.set_value(value)
                leaves[i] = variable
        return nnx.data(jax.tree.unflatten(structure, leaves))
