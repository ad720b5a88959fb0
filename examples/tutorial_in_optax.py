"""A short torch tutorial on optimizers, in Optax's literal spelling, with torch's numbers.

Its recipes: one learning rate; one for each subnetwork; one for each layer; a rate that changes in
mid-run, in place (momentum is kept) or by a new optimizer (momentum is lost). Each is Optax's own
`multi_transform` of `inject_hyperparams`; only the factory in it, `jp.sgd`, is this library's.

    python examples/tutorial_in_optax.py
"""

import jax
import jax.numpy as jnp
import optax

import jaxopt_port as jp
from jaxopt_port.models.lenet import LinenLeNet


def sgd(lr, momentum=0.0):
    """Make ``torch.optim.SGD(…, lr=lr, momentum=momentum)`` of one group."""
    return optax.inject_hyperparams(jp.sgd)(lr=lr, momentum=momentum)


def basic():
    """``SGD(net.parameters(), lr=1)``."""
    return sgd(lr=1.0)


def per_subnetwork(momentum=0.0):
    """``SGD([{"params": features}, {"params": classifier, "lr": 1e-2}], lr=1e-5)``."""
    rates = {"features": 1e-5, "classifier": 1e-2}
    return optax.multi_transform(
        {name: sgd(lr, momentum) for name, lr in rates.items()},
        {name: name for name in rates},  # each subnetwork is labelled by its own name
    )


def per_layer():
    """``classifier[0]`` and ``classifier[3]`` at 0.01, the rest at 0.001.

    ``classifier[3]`` is a ReLU, which has no parameters, so only ``classifier[0]`` is faster.
    """
    return optax.multi_transform(
        {"special": sgd(lr=0.01), "rest": sgd(lr=0.001)},
        {"features": "rest", "classifier": {"0": "special", "2": "rest", "4": "rest"}},
    )


def with_lr(state, label, lr):
    """``optimizer.param_groups[i]["lr"] = lr``: a state with another rate, all else as it is."""
    masked = state.inner_states[label]
    injected = masked.inner_state
    old = injected.hyperparams["lr"]
    hyperparams = {**injected.hyperparams, "lr": jnp.asarray(lr, old.dtype)}  # no retrace
    masked = masked._replace(inner_state=injected._replace(hyperparams=hyperparams))
    return state._replace(inner_states={**state.inner_states, label: masked})


def rebuilt(params, momentum=0.9):
    """``SGD([{"params": features}, {"params": classifier, "lr": 0.1 * 0.1}], lr=1e-5)``, anew."""
    tx = optax.multi_transform(
        {"features": sgd(1e-5, momentum), "classifier": sgd(0.1 * 0.1, momentum)},
        {"features": "features", "classifier": "classifier"},
    )
    return tx, tx.init(params)


def train(tx, state, params, batches):
    """Train on batches, and return parameters, state and losses."""

    @jax.jit
    def train_step(params, state, images, labels):
        def loss_of(params):
            logits = LinenLeNet().apply({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        params, state = jp.step(tx, grads, state, params)  # torch's rounding, to the bit
        return params, state, loss

    losses = []
    for images, labels in batches:
        params, state, loss = train_step(params, state, images, labels)
        losses.append(float(loss))
    return params, state, losses


def momentum_of(state, label):
    """Return the largest entry of a label's momentum buffers."""
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(
        state.inner_states[label].inner_state.inner_state.leaves
    ))  # fmt: skip


def main():
    """Run the recipes on random images."""
    keys = jax.random.split(jax.random.key(0), 9)
    images = [jax.random.normal(key, (16, 3, 32, 32)) for key in keys[1:]]
    labels = jnp.arange(16) % 10
    batches = [(image, labels) for image in images]
    start = LinenLeNet().init(keys[0], images[0])["params"]

    for name, tx in [
        ("basic", basic()),
        ("subnetworks", per_subnetwork()),
        ("layers", per_layer()),
    ]:
        params, _, losses = train(tx, tx.init(start), start, batches[:1])
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, start)
        first, last = moved["classifier"]["0"]["kernel"], moved["classifier"]["4"]["kernel"]
        print(f"{name:12} loss {losses[0]:.3f}  classifier/0 moved {first:.1e}, /4 {last:.1e}")

    tx = per_subnetwork(momentum=0.9)
    params, state, _ = train(tx, tx.init(start), start, batches[:4])
    before = momentum_of(state, "classifier")
    state = with_lr(state, "classifier", 0.1 * 0.1)
    print(f"in place     momentum kept: {momentum_of(state, 'classifier') == before}")
    train(tx, state, params, batches[4:])
    tx, state = rebuilt(params)
    print(f"rebuilt      momentum kept: {momentum_of(state, 'classifier') == before}")
    train(tx, state, params, batches[4:])


if __name__ == "__main__":
    main()
