"""timm's Kron with the draws of this library's: its noise, and its two numbers of a step."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_port.contrib._kron_factors import draws, noise


class _Draws:
    """Stands for its ``random.Random``: what it draws in a step is the same for all parameters."""

    def __init__(self, optimizer, seed: int):
        self.optimizer, self.seed = optimizer, seed
        wanted = any(group["stochastic_weight_decay"] for group in optimizer.param_groups)
        self.turn = itertools.cycle([1, 2] if wanted else [1])

    @property
    def of_step(self):
        """What `draws` makes of the step that is being taken."""
        step = max(held["step"] for held in self.optimizer.state.values()) - 1
        return draws(self.seed, jnp.int32(step))

    def random(self) -> float:
        return float(self.of_step[next(self.turn)])

    def noise(self, like):
        from parity_tests.oracles.optimizer import to_numpy, to_torch  # torch is not everywhere

        return to_torch(np.asarray(noise(self.of_step[0], jnp.asarray(to_numpy(like)))))

    def getstate(self):
        return None


def with_draws_of_here(optimizer, seed: int = 0) -> None:
    """Give an optimizer of timm's the draws of this library's, and its functions uncompiled."""
    timm = importlib.import_module("timm.optim.kron")
    own = optimizer.rng = _Draws(optimizer, seed)

    def divided(expression, grad, factors, drawn):
        with jax.enable_x64(drawn.dtype.itemsize == 8):
            return timm._calc_A_and_conjB(expression, grad, factors, own.noise(drawn))

    optimizer._calc_A_and_conjB = divided
    for name in ("_q_terms", "_precond_grad", "_balance_Q"):
        setattr(optimizer, name, getattr(timm, name))
