from __future__ import annotations

from typing import Any, TypeVar

import jax
import optax
from flax import nnx
from flax.nnx import filterlib

from .._compat import as_pure
from ..engine import check_transformation, is_traced, step
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
        if not jax.tree.leaves(nnx.state(model, wrt, **graph)):
            raise ValueError(
                f"optimizer got an empty parameter list: the model has no variable that wrt={wrt} "
                "names"
            )
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
                "grads must be gradients; got a function: nnx.grad(loss)(model) makes them. (For "
                "SAM, which takes two, make the optimizer of what is within contrib.sam, and give "
                "it those at contrib.sam_perturbed(params, grads))"
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
        state, given = as_pure(self.opt_state), as_pure(found)
        of_paths = dict(jax.tree_util.tree_leaves_with_path(given))
        if of_paths.keys() < {path for path, _ in jax.tree_util.tree_leaves_with_path(params)}:
            given = jax.tree_util.tree_map_with_path(lambda path, _: of_paths.get(path), params)
        new, self.opt_state = step(self.tx, given, state, params, **extra)
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
        structures: list[Any] = [jax.tree.structure(tree) for tree in (held, after)]
        if structures[0] == structures[1]:
            nnx.update(self.opt_state, nnx.state(after))
            return self.opt_state
        # Something static has changed: who rests, who counts with whom, what buffers there are.
        before = jax.tree_util.tree_leaves_with_path(self.opt_state, is_leaf=is_nnx_variable)
        variables = {path: x for path, x in before if is_nnx_variable(x)}
        traced = is_traced(after)

        def placed(path: Any, value: Any) -> Any:
            if path not in variables:
                return nnx.OptArray(value)
            if not traced:
                return variables[path].copy(value)
            variables[path].set_value(value)
            return variables[path]

        made = nnx.data(jax.tree_util.tree_map_with_path(placed, after))
        if not traced:
            for variable in variables.values():
                variable.set_raw_value(_Replaced())
        return made


class _Replaced:
    """In the Variables of a state whose structure is no longer the optimizer's."""


def _refused(_: _Replaced) -> Any:
    raise ValueError(
        "the optimizer's state has another structure since this call was prepared (a group was "
        "frozen or added, or a parameter had no gradient): prepare it anew, by nnx.cached_partial "
        "or nnx.split, and take the first step of a new kind outside of it"
    )


jax.tree_util.register_pytree_node(_Replaced, _refused, lambda *_: _Replaced())
