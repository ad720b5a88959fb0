"""The same run in torch, in this library and in plain Optax."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
import torch

import jaxopt_port as jp

from .._torch_table import Configuration
from ._optax_spellings import lbfgs_iteration
from ._workloads import Arrays, Gradients, Objective


class Side(Protocol):
    """An optimizer over the parameters of a workload."""

    def step(self, call: int) -> None: ...

    def params(self) -> Arrays: ...


class TorchSide:
    """torch's optimizer, in its default implementation unless told otherwise."""

    def __init__(
        self, configuration: Configuration, work: Gradients | Objective, **implementation: bool
    ):
        self._work = work
        self._tensors = {k: torch.tensor(a).requires_grad_() for k, a in work.start.items()}
        self._optimizer = configuration.torch(
            list(self._tensors.values()), **configuration.options, **implementation
        )

    def step(self, call: int) -> None:
        self._optimizer.step(self._work.closure(call, self._tensors))

    def params(self) -> Arrays:
        return {name: tensor.detach().numpy().copy() for name, tensor in self._tensors.items()}


class _JaxSide:
    def __init__(self, work: Gradients | Objective, tx: optax.GradientTransformation):
        self._work, self._tx = work, tx
        self._params: Any = {name: jnp.asarray(array) for name, array in work.start.items()}
        self._state = tx.init(self._params)

    def params(self) -> Arrays:
        return jax.device_get(self._params)


class PortSide(_JaxSide):
    """This library, by ``jp.step``."""

    def __init__(self, configuration: Configuration, work: Gradients | Objective):
        super().__init__(work, getattr(jp, configuration.optimizer)(**configuration.options))

    def step(self, call: int) -> None:
        self._params, self._state = jp.step(
            self._tx, self._work.for_port(call), self._state, self._params
        )


class OptaxSide(_JaxSide):
    """A plain Optax transformation: ``update`` and ``apply_updates`` in one ``jit``."""

    def __init__(self, tx: optax.GradientTransformation, work: Gradients | Objective):
        super().__init__(work, tx)
        self._jitted = jax.jit(self._objective if isinstance(work, Objective) else self._gradients)

    def _gradients(self, grads: Any, state: Any, params: Any) -> Any:
        updates, state = self._tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def _objective(self, loss: Any, state: Any, params: Any) -> Any:
        return lbfgs_iteration(self._tx, loss, state, params)

    def step(self, call: int) -> None:
        for _ in range(self._work.iterations):
            self._params, self._state = self._jitted(
                self._work.for_optax(call), self._state, self._params
            )
