"""The closest spelling of each torch optimizer in plain Optax.

Each function takes torch's arguments, has torch's defaults and is built of Optax's own parts.
``docs/parity.md`` shows its source, and the distances there are measured with the same function.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def adadelta(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adadelta(rho, eps),
        optax.scale_by_learning_rate(lr),
    )


def adafactor(lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.scale_by_factored_rms(decay_rate=-beta2_decay, min_dim_size_to_factor=1),
        optax.clip_by_block_rms(d),
        optax.scale_by_schedule(lambda count: jnp.minimum(lr, (count + 1) ** -0.5)),
        optax.scale_by_param_block_rms(eps[1]),
        optax.add_decayed_weights(lr * weight_decay),
        optax.scale(-1.0),
    )


def adagrad(
    lr=1e-2,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    maximize=False,
):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_rss(initial_accumulator_value, eps**2),
        optax.scale_by_learning_rate(lambda count: lr / (1 + count * lr_decay)),
    )


def adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False):
    if amsgrad:  # torch corrects the maximum, not what it is taken of
        moments = optax.chain(
            optax.scale_by_amsgrad(*betas, eps, bias_correction_nu=False),
            optax.scale_by_schedule(lambda count: jnp.sqrt(1 - betas[1] ** (count + 1))),
        )
    else:
        moments = optax.scale_by_adam(*betas, eps)
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        moments,
        optax.scale_by_learning_rate(lr),
    )


def adamw(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, maximize=False):
    if amsgrad:
        moments = optax.chain(
            optax.scale_by_amsgrad(*betas, eps, bias_correction_nu=False),
            optax.scale_by_schedule(lambda count: jnp.sqrt(1 - betas[1] ** (count + 1))),
        )
    else:
        moments = optax.scale_by_adam(*betas, eps)
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        moments,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


def adamax(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adamax(*betas, eps),
        optax.scale_by_learning_rate(lr),
    )


def asgd(lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0, maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        optax.add_decayed_weights(lambd),
        optax.scale_by_learning_rate(lambda count: lr / (1 + lambd * lr * count) ** alpha),
    )


def muon(
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_coefficients=(3.4445, -4.7750, 2.0315),
    eps=1e-7,
    ns_steps=5,
):
    return optax.chain(
        optax.trace(momentum, nesterov),  # 1 / (1 - momentum) times torch's buffer
        optax.contrib.muon(
            lr,
            ns_coefficients,
            ns_steps,
            beta=0.0,
            eps=eps,
            weight_decay=weight_decay,
            nesterov=False,
            muon_weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 0),
        ),
    )


def nadam(
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(0.0 if decoupled_weight_decay else weight_decay),
        optax.scale_by_adam(*betas, eps, nesterov=True),
        optax.add_decayed_weights(weight_decay if decoupled_weight_decay else 0.0),
        optax.scale_by_learning_rate(lr),
    )


def radam(
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(0.0 if decoupled_weight_decay else weight_decay),
        optax.scale_by_radam(*betas, eps),
        optax.add_decayed_weights(weight_decay if decoupled_weight_decay else 0.0),
        optax.scale_by_learning_rate(lr),
    )


def rmsprop(
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    maximize=False,
):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        optax.rmsprop(
            lr, alpha, eps, eps_in_sqrt=False, centered=centered, momentum=momentum or None
        ),
    )


def rprop(lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0), maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.rprop(lr, *etas, *step_sizes),
    )


def sgd(lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    return optax.chain(
        optax.scale(-1.0 if maximize else 1.0),
        optax.add_decayed_weights(weight_decay),
        # torch dampens every gradient but the first
        optax.scale_by_schedule(lambda count: jnp.where(count == 0, 1.0, 1.0 - dampening)),
        optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(lr),
    )


def lbfgs(
    lr=1.0,
    max_iter=20,
    max_eval=None,
    tolerance_grad=1e-7,
    tolerance_change=1e-9,
    history_size=100,
    line_search_fn=None,
):
    search = optax.scale_by_zoom_linesearch(max_eval or max_iter * 5 // 4)
    return optax.lbfgs(lr, history_size, linesearch=search if line_search_fn else None)


def lbfgs_iteration(tx, loss, state, params):
    """Of these torch's ``step`` makes up to ``max_iter``."""
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
    return optax.apply_updates(params, updates), state


def sparse_adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, maximize=False):
    return adam(lr, betas, eps, maximize=maximize)  # of the gradient made dense
