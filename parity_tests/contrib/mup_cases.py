"""A network of two widths, in torch and as a tree of Flax's layouts, and what muP makes of it."""

import pathlib

import jax
import jax.numpy as jnp
import torch

from jaxopt_port import contrib, interop

RECORDED = pathlib.Path(__file__).with_name("recorded_mup.json")
# Width, and that of the hidden layer: of the base, of the delta model, of the one that is trained.
BASE, DELTA, TARGET = (8, 12), (12, 20), (24, 48)
OPTIMIZERS = ("MuAdam", "MuAdamW", "MuSGD")
NUMBERS = {"lr": 0.1, "weight_decay": 0.03}
# Groups that are split: one of its own rate, and one without decay.
APART = [
    ({"lr": 0.02}, ["embed.weight", "up.weight", "up.bias", "mix.out_proj.weight"]),
    (
        {"weight_decay": 0.0},
        ["conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight"],
    ),
]


class Network(torch.nn.Module):
    """Never called: what counts are names and shapes."""

    def __init__(self, sizes, readout=torch.nn.Linear):
        super().__init__()
        width, hidden = sizes
        self.embed = torch.nn.Embedding(11, width)
        self.conv = torch.nn.Conv2d(3, width, 3)
        self.mix = torch.nn.MultiheadAttention(width, 2)
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, hidden)
        self.down = torch.nn.Linear(hidden, width, bias=False)
        self.head = readout(width, 10)


def tree(sizes):
    """The same, as Flax has it."""
    width, hidden = sizes
    heads = {"kernel": jnp.zeros((width, 2, width // 2)), "bias": jnp.zeros((2, width // 2))}
    mix = {name: dict(heads) for name in ("query", "key", "value")}
    mix["out"] = {"kernel": jnp.zeros((2, width // 2, width)), "bias": jnp.zeros(width)}
    return {
        "embed": {"embedding": jnp.zeros((11, width))},
        "conv": {"kernel": jnp.zeros((3, 3, 3, width)), "bias": jnp.zeros(width)},
        "mix": mix,
        "norm": {"scale": jnp.zeros(width), "bias": jnp.zeros(width)},
        "up": {"kernel": jnp.zeros((width, hidden)), "bias": jnp.zeros(hidden)},
        "down": {"kernel": jnp.zeros((hidden, width))},
        "head": {"kernel": jnp.zeros((width, 10)), "bias": jnp.zeros(10)},
    }


def plain(groups, names):
    """Groups as numbers and sorted names, in no order; those of nothing left out."""
    found = [
        [group["lr"], group["weight_decay"], sorted({names(p) for p in group["params"]})]
        for group in groups
    ]
    return sorted(group for group in found if group[-1])


PARAMS = tree(TARGET)
MAPPED = interop.param_map(Network(TARGET), PARAMS)
NAMES = {entry.path: entry.torch_name for entry in MAPPED.entries}


def ours(optimizer, apart):
    """The groups here."""
    given = [
        {**more, "params": [path for path, name in NAMES.items() if name in of]}
        for more, of in APART
    ]
    return contrib.param_groups_mup(
        PARAMS,
        jax.eval_shape(lambda: tree(BASE)),
        tree(DELTA),
        **NUMBERS,
        optimizer=optimizer,
        groups=given if apart else None,
        param_map=MAPPED,
    )


def theirs(optimizer, apart):
    """The groups of mup's optimizer: it has to be installed."""
    import mup

    model = Network(TARGET, mup.MuReadout)
    mup.set_base_shapes(model, Network(BASE, mup.MuReadout), delta=Network(DELTA, mup.MuReadout))
    names = {id(p): name for name, p in model.named_parameters()}
    tensors = dict(model.named_parameters())
    given = [{**more, "params": [tensors[name] for name in of]} for more, of in APART]
    made = getattr(mup, optimizer)(given if apart else model.parameters(), **NUMBERS)
    return plain(made.param_groups, lambda p: names[id(p)])
