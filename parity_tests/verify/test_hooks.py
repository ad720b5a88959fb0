"""Hooks of torch's side belong to its training: to its copy in float64, too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.verify import JaxSide, TorchSide, compare
from parity_tests.verify.linear_layers import mean_square, one_layer, zeros

MOST, NORM = 0.05, 0.1
TX = jp.SGD(lr=0.1)
clip = jp.clip_by_grad_norm(NORM)


def batches():
    rng = np.random.default_rng(3)
    return [(rng.normal(size=(8, 4)), 9 * rng.normal(size=(8, 3))) for _ in range(3)]


def of_optimizer(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def clamped(module, optimizer):
    @torch.no_grad()
    def clamp(optimizer, args, kwargs):
        for p in of_optimizer(optimizer):
            p.clamp_(-MOST, MOST)

    optimizer.register_step_post_hook(clamp)


def clipped(module, optimizer):
    def by_norm(optimizer, args, kwargs):
        torch.nn.utils.clip_grad_norm_(of_optimizer(optimizer), NORM)

    optimizer.register_step_pre_hook(by_norm)


def halved(module, optimizer):
    module.weight.register_hook(lambda grad: grad / 2)


def halved_when_summed(module, optimizer):
    def halve(p):
        p.grad.div_(2)

    module.weight.register_post_accumulate_grad_hook(halve)


def clamped_too(tx, grads, state, params):
    params, state = jp.step(tx, grads, state, params)
    return jax.tree.map(lambda p: jnp.clip(p, -MOST, MOST), params), state


def clipped_too(grads):
    return clip.update(grads, clip.init(grads))[0]


@jax.custom_vjp
def half(x):
    return x


half.defvjp(lambda x: (x, None), lambda _, grad: (grad / 2,))


def of_half(params, batch):
    return one_layer({**params, "kernel": half(params["kernel"])}, batch)


class Trainer:
    """Has the module, and a hook that uses it, and one that does not."""

    def __init__(self, module):
        self.module, self.most = module, MOST

    @torch.no_grad()
    def of_its_own(self, optimizer, args, kwargs):
        self.module.weight.clamp_(-self.most, self.most)

    @torch.no_grad()
    def clamp(self, optimizer, args, kwargs):
        for p in of_optimizer(optimizer):
            p.clamp_(-self.most, self.most)


# What is registered; what a right port does; where a port without it differs, and its cause.
HOOKS = {
    "after a step": (clamped, {"step": clamped_too}, "update", None),
    "of a trainer": (
        lambda module, optimizer: optimizer.register_step_post_hook(Trainer(module).clamp),
        {"step": clamped_too},
        "update",
        None,
    ),
    "before a step": (clipped, {"clip": clipped_too}, "update", "clip-missing"),
    "of a tensor": (halved, {"apply": of_half}, "gradient", "gradient-scale"),
    "of its sum": (halved_when_summed, {"apply": of_half}, "gradient", "gradient-scale"),
}


def compared(register, **mine):
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    register(module, optimizer)
    theirs = TorchSide(module=module, optimizer=optimizer, loss=mean_square)
    given = {"apply": one_layer, "params": zeros(4, 3), "tx": TX, "loss": mean_square, **mine}
    return compare(theirs, JaxSide(**given), batches())


@pytest.mark.parametrize("name", HOOKS)
def test_a_port_of_hooks_is_right_and_one_without_is_not(name):
    register, right, stage, cause = HOOKS[name]
    assert compared(register, **right).first is None
    first = compared(register).first
    assert (first.step, first.stage, first.cause and first.cause.name) == (0, stage, cause)


def replaced(module, optimizer):
    optimizer.step = lambda: None


def clips_the_modules_own(module, optimizer):
    optimizer.register_step_pre_hook(
        lambda *_: torch.nn.utils.clip_grad_norm_(module.parameters(), NORM) and None
    )


def clamps_the_modules_own(module, optimizer):
    def clamp(*_):
        for p in (p for p in module.parameters()):
            p.data.clamp_(-MOST, MOST)  # which leaves no trace on the parameter

    optimizer.register_step_post_hook(clamp)


class Callable(Trainer):
    def __call__(self, *_):
        self.module.weight.data.clamp_(-self.most, self.most)


def steps_another(module, optimizer):
    by_parameter = dict.fromkeys(module.parameters(), optimizer)
    module.weight.register_post_accumulate_grad_hook(lambda p: by_parameter[p].step())


REFUSED = {
    "a step of one's own": (replaced, {}, TypeError, "was replaced by .*register_step_post_hook"),
    "a hook of others' gradients": (
        clips_the_modules_own, {}, ValueError, "the hook clips.* of SGD's step uses the module"
    ),
    "a hook of others' parameters": (
        clamps_the_modules_own, {}, ValueError, "write it for the optimizer that it is given"
    ),
    "a hook of a trainer's module": (
        lambda module, optimizer: optimizer.register_step_post_hook(Trainer(module).of_its_own),
        {}, ValueError, "the hook Trainer.of_its_own of SGD's step uses",
    ),
    "an object that is called": (
        lambda module, optimizer: optimizer.register_step_post_hook(Callable(module)),
        {}, ValueError, "of SGD's step uses the module",
    ),
    "a step within the backward pass": (
        steps_another, {}, ValueError, "of the parameter weight uses .* the gradient or the param"
    ),
    "a hook beside clip": (
        halved, {"clip": clipped_too}, ValueError, "has hooks on weight and no clip=, your side"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_hooks_that_cannot_be_compared_are_refused(name):
    register, mine, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        compared(register, **mine)
