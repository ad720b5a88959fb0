"""DCGAN, pytorch/examples: two Adam with betas (0.5, 0.999), of a generator and a discriminator."""

import torch
from network import give, rates

import jaxopt_port as jp


def in_torch(net, grads):
    generator = torch.optim.Adam(net.blocks.parameters(), lr=2e-4, betas=(0.5, 0.999))
    discriminator = torch.optim.Adam(
        [*net.stem.parameters(), *net.head.parameters()], lr=2e-4, betas=(0.5, 0.999)
    )
    for grad in grads:
        net.zero_grad()
        give(net, grad)
        discriminator.step()
        generator.step()
        yield rates(discriminator) + rates(generator)


def in_jax(params, grads):
    generator = jp.Adam(lr=2e-4, betas=(0.5, 0.999))
    discriminator = jp.Adam(lr=2e-4, betas=(0.5, 0.999))
    makes = params["blocks"]
    judges = {"stem": params["stem"], "head": params["head"]}
    g, d = generator.init(makes), discriminator.init(judges)
    for grad in grads:
        own = {"stem": grad["stem"], "head": grad["head"]}
        judges, d = jp.step(discriminator, own, d, judges)
        makes, g = jp.step(generator, grad["blocks"], g, makes)
        found = [jp.get_hyperparams(state)[0]["lr"] for state in (d, g)]
        yield found, {**judges, "blocks": makes}
