"""torch's calls made in other ways: what they are given by name, and products by einsum."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from jaxopt_port.verify.diagnosis import _other_attention, explain_by_calls
from jaxopt_port.verify.diagnosis._calls import Call
from jaxopt_port.verify.recorder._float64 import Through

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.randn(2, 3, 7, 7, generator=GENERATOR, dtype=torch.float64)
Q, K, V = torch.randn(3, 2, 5, 4, 8, generator=GENERATOR, dtype=torch.float64)


def pooled(kind, *args, **options):
    return getattr(functional, f"{kind}_pool2d")(IMAGES, *args, **options)


def attention(scale, q=Q, k=K):
    return torch.einsum(
        "bhqk,bkhd->bqhd", torch.einsum("bqhd,bkhd->bhqk", q * scale, k).softmax(-1), V
    )


HEADS = 2
X = torch.randn(3, 5, 8, generator=GENERATOR, dtype=torch.float64)
with torch.random.fork_rng():
    torch.manual_seed(0)
    MULTIHEAD = torch.nn.MultiheadAttention(8, HEADS, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(MULTIHEAD.out_proj.bias)  # zero, it could be left out
ALL = torch.ones(5, 5, dtype=torch.bool)
CAUSAL, LOWER = ALL.triu(1), ALL.tril(-3)
WINDOW = CAUSAL | LOWER  # of three positions
KERNEL = torch.randn(3, 2, 2, 2, generator=GENERATOR, dtype=torch.float64)


def multihead(scale=4**-0.5, hidden=None, axis=-1, bias=True, late=None):
    """`MULTIHEAD` of `X`, written out."""
    packed = functional.linear(X, MULTIHEAD.in_proj_weight, MULTIHEAD.in_proj_bias)
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in packed.chunk(3, -1))
    scores = scale * q @ k.transpose(-1, -2)
    scores = scores if hidden is None else scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(axis) if late is None else scores.softmax(axis) * ~late
    joined = (weights @ v).transpose(1, 2).flatten(-2)
    out = MULTIHEAD.out_proj
    return functional.linear(joined, out.weight, out.bias if bias else None)


def own_attention(
    split=lambda t: t.view(3, 5, HEADS, 4),
    back=lambda t: t.transpose(1, 2),
    late=None,
    hidden=None,
):
    """Attention as a module of one's own has it; `back` is what stands before the merging."""
    packed = functional.linear(X, MULTIHEAD.in_proj_weight, MULTIHEAD.in_proj_bias)
    q, k, v = (split(t).transpose(1, 2) for t in packed.chunk(3, -1))
    scores = q @ k.transpose(-1, -2)
    if late is not None:
        scores = scores if late else scores.masked_fill(CAUSAL, -torch.inf)
    scores = scores if hidden is None else scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(-1)
    made = (weights * ~CAUSAL if late else weights) @ v
    return MULTIHEAD.out_proj(back(made).reshape(3, 5, 8)).detach()


def sizes_first(t):
    return t.view(3, 5, 4, HEADS).transpose(-1, -2)


def torchs(hidden=None, weights=True):
    return lambda: MULTIHEAD(X, X, X, attn_mask=hidden, need_weights=weights)[0].detach()


with torch.random.fork_rng():
    torch.manual_seed(0)
    LSTM, GRU = (layer(8, 6, batch_first=True, dtype=torch.float64) for layer in (nn.LSTM, nn.GRU))
    RNN, BOTH = (
        nn.RNN(8, 6, batch_first=True, bidirectional=both, dtype=torch.float64)
        for both in (False, True)
    )
    PROJECTED = nn.LSTM(8, 6, batch_first=True, proj_size=2, dtype=torch.float64)
    OTHERWISE = copy.deepcopy(PROJECTED)
    for name, rows in OTHERWISE.named_parameters():
        if "hr" not in name:
            rows.data = torch.cat([rows.data.chunk(4)[k] for k in (1, 0, 2, 3)])
START = torch.randn(1, 3, 6, generator=GENERATOR, dtype=torch.float64)


def of_gates(order=(0, 1, 2, 3), forget=0.0, second=True, x=X, of=0):
    """`LSTM` written out: all states, or the last cell's; `order` is that of the weights' rows."""
    w, u, b, c = (p.detach() for p in LSTM.parameters())
    b = b + c if second else b
    h = cell = X.new_zeros(len(x), 6)
    out = []
    for t in range(x.shape[1]):
        rows = (x[:, t] @ w.T + h @ u.T + b).chunk(4, -1)
        i, f, g, o = (rows[k] for k in order)
        cell = (f + forget).sigmoid() * cell + i.sigmoid() * g.tanh()
        h = o.sigmoid() * cell.tanh()
        out.append(h)
    return (torch.stack(out, 1), cell)[of]


def gru(order=(0, 1, 2), old=True):
    w, u, b, c = (p.detach() for p in GRU.parameters())
    h = X.new_zeros(3, 6)
    for t in range(5):
        given, held = ((y.chunk(3, -1)) for y in (X[:, t] @ w.T + b, h @ u.T + c))
        r, z = ((given[k] + held[k]).sigmoid() for k in order[:2])
        n = (given[order[2]] + r * held[order[2]]).tanh()
        h = (1 - z) * n + z * h if old else z * n + (1 - z) * h
    return h


def simple(function=torch.tanh, start=None):
    w, u, b, c = (p.detach() for p in RNN.parameters())
    h = X.new_zeros(3, 6) if start is None else start[0]
    for t in range(5):
        h = function(X[:, t] @ w.T + b + h @ u.T + c)
    return h


def last_of(layer, *given):
    return lambda: layer(X, *given)[0][:, -1].detach()


# What torch calls, what your side calculates, and the words for it.
CASES = {
    "gates of an LSTM": (
        lambda: LSTM(X)[0].detach(), lambda: of_gates((0, 1, 3, 2)),
        "gates of the LSTM's weights in the order input, forget, output, cell; torch's is input, f",
    ),
    "gates of an LSTM, all elsewhere": (
        lambda: LSTM(X)[0].detach(), lambda: of_gates((3, 0, 1, 2)),
        "in the order forget, cell, output, input; torch's",
    ),
    "gates of an LSTM that projects": (
        last_of(PROJECTED), lambda: OTHERWISE(X)[0][:, -1].detach(), "the order forget, input, ce"
    ),
    "one more to forget": (
        lambda: LSTM(X)[0].detach(), lambda: of_gates(forget=1.0), "adds 1 to the forget gate",
    ),
    "one bias of a recurrent layer": (
        last_of(LSTM), lambda: of_gates(second=False)[:, -1], "leaves bias_hh of a recurrent layer",
    ),
    "backwards": (
        lambda: LSTM(X)[0].detach(), lambda: of_gates(x=X.flip(1)).flip(1), "from its end; torch",
    ),
    "time and batch": (
        lambda: LSTM(X)[0].detach(), lambda: of_gates(x=X.transpose(0, 1)).transpose(0, 1),
        "takes the batch's axis for the time's",
    ),
    "the cell's state": (
        lambda: LSTM(X)[1][0].detach(), lambda: of_gates(of=1)[None], "cell's state for the hidden",
    ),
    "gates of a GRU": (
        last_of(GRU), lambda: gru((1, 0, 2)), "the GRU's weights in the order update, reset, new",
    ),
    "an update gate the other way": (
        last_of(GRU), lambda: gru(old=False), "update gate keeps the new state where torch's",
    ),
    "another function of a recurrent layer": (
        last_of(RNN), lambda: simple(torch.relu), "has relu where torch has tanh",
    ),
    "no first state": (last_of(RNN, START), simple, "begins with a state of zeros; torch with the"),
    "directions joined the other way": (
        last_of(BOTH), lambda: torch.cat(BOTH(X)[0][:, -1].detach().chunk(2, -1)[::-1], -1),
        "joins backward and forward outputs",
    ),
    "the first position": (
        last_of(RNN), lambda: RNN(X)[0][:, 0].detach(), "the first position where torch takes the l"
    ),
    "the last position": (
        lambda: X.tanh().select(1, 0), lambda: X.tanh().select(1, 4), "the last position where tor"
    ),
    "a maximum, by name": (
        lambda: pooled("max", 3, stride=1, padding=1), lambda: pooled("avg", 3, 1, 1),
        "avg_pool2d where torch has max_pool2d",
    ),
    "a maximum, rounded up": (
        lambda: pooled("max", 2, ceil_mode=True), lambda: pooled("avg", 2, ceil_mode=True),
        "avg_pool2d where torch has max_pool2d",
    ),
    "a mean, by name": (
        lambda: pooled("avg", kernel_size=3, stride=2, padding=1), lambda: pooled("max", 3, 2, 1),
        "max_pool2d where torch has avg_pool2d",
    ),
    "a mean, rounded up by place": (
        lambda: pooled("avg", 2, 2, 0, True), lambda: pooled("max", 2, ceil_mode=True),
        "max_pool2d where torch has avg_pool2d",
    ),
    "the largest of places": (
        lambda: IMAGES.mean((2, 3)), lambda: IMAGES.amax((2, 3)),
        "takes the largest where torch takes the mean (mean)",
    ),
    "the last place": (
        lambda: X.mean(dim=1), lambda: X[:, -1], "what stands last where torch takes the mean",
    ),
    "a sum, and an axis kept": (
        lambda: X.mean(1, keepdim=True), lambda: X.sum(1, True), "adds up where torch takes",
    ),
    "the largest of an image": (
        lambda: functional.adaptive_avg_pool2d(IMAGES, 1), lambda: IMAGES.amax((2, 3), True),
        "takes the largest where torch takes the mean (adaptive_avg_pool2d)",
    ),
    "positions from one": (
        lambda: functional.embedding(torch.arange(5), X[0]), lambda: X[0][[1, 2, 3, 4, 4]],
        "looks up the row after torch's",
    ),
    "sines after cosines": (
        lambda: torch.cat([X.sin(), X.cos()], -1), lambda: torch.cat([X.cos(), X.sin()], -1),
        "joins parts in the opposite order (cat)",
    ),
    "attention by einsum, unscaled": (
        lambda: attention(8**-0.5), lambda: attention(1.0),
        "attention is without the division by the root of the head's size",
    ),
    "torch's layer of attention, unscaled": (
        torchs(), lambda: multihead(1.0).detach(), "without the division by the root of the head's"
    ),
    "the same without weights": (
        torchs(weights=False), lambda: multihead(1.0).detach(), "without the division by the root"
    ),
    "the same with a mask": (
        torchs(CAUSAL), lambda: multihead(1.0, CAUSAL).detach(), "without the division by the root"
    ),
    "torch's layer of attention, its mask forgotten": (
        torchs(CAUSAL), lambda: multihead().detach(), "has no mask where torch's has one"
    ),
    "torch's layer of attention, another axis": (
        torchs(), lambda: multihead(axis=-2).detach(), "softmax goes along axis -2"
    ),
    "torch's layer of attention, no bias at its end": (
        torchs(), lambda: multihead(bias=False).detach(), "leaves a bias out (linear)"
    ),
    "a window of one more": (
        lambda: own_attention(hidden=WINDOW), lambda: own_attention(hidden=CAUSAL | LOWER.tril(-4)),
        "sees one position more of the past",
    ),
    "a window of one less, in torch's layer": (
        torchs(WINDOW, weights=False), lambda: multihead(hidden=CAUSAL | ALL.tril(-2)).detach(),
        "sees one position less of the past",
    ),
    "no tanh": (
        lambda: torch.tanh(X) + functional.silu(X), lambda: X + functional.silu(X),
        "leaves an activation out (tanh)",
    ),
    "a PReLU": (
        lambda: functional.prelu(X, X.new_tensor(0.25)), lambda: functional.relu(X),
        "has relu where torch has prelu",
    ),
    "a GELU by tanh": (
        lambda: functional.relu(X), lambda: functional.gelu(X, approximate="tanh"),
        "has GELU in its tanh form where torch has relu",
    ),
    "a GELU by a sigmoid": (
        lambda: functional.gelu(X), lambda: X * torch.sigmoid(1.702 * X),
        "has GELU as x * sigmoid(1.702 x) where torch has gelu",
    ),
    "a hard sigmoid of another slope": (
        lambda: functional.hardsigmoid(X), lambda: (0.2 * X + 0.5).clamp(0, 1),
        "has a hard sigmoid of slope 1/5 where torch has hardsigmoid",
    ),
    "an ELU": (
        lambda: nn.ELU(0.5)(X), lambda: functional.elu(X), "ELU has alpha=1; torch's another"
    ),
    "the logarithm of a sigmoid": (
        lambda: functional.softplus(X), lambda: functional.logsigmoid(X),
        "has logsigmoid where torch has softplus",
    ),
    "a soft sign": (
        lambda: torch.tanh(X), lambda: functional.softsign(X), "softsign where torch has tanh"
    ),
    "not of length one, twice beside a layer of norms": (
        lambda: functional.normalize(functional.layer_norm(functional.normalize(X) * 2, (8,))),
        lambda: functional.layer_norm(X * 2, (8,)), "leaves a normalisation out (normalize)",
    ),
    "a scale for each feature": (
        lambda: X * Q[0, 0, 0, 0], lambda: X, "leaves a factor out: a scale, a temperature",
    ),
    "a scale that stands first": (
        lambda: torch.tanh(Q[0, 0, 0, 0] * X), lambda: torch.tanh(X), "a scale, a gate, a mask"
    ),
    "a gate": (
        lambda: X * torch.sigmoid(X.flip(-1)), lambda: X, "leaves a factor out: a scale",
    ),
    "not of length one": (
        lambda: functional.normalize(X, dim=-1) * 2, lambda: X * 2,
        "leaves a normalisation out (normalize)",
    ),
    "no bias of a transposed convolution": (
        lambda: functional.conv_transpose2d(IMAGES, KERNEL, KERNEL[0, :, 0, 0]),
        lambda: functional.conv_transpose2d(IMAGES, KERNEL), "leaves a bias out (conv_transpose2d)",
    ),
    "masked after the softmax": (
        lambda: own_attention(late=False), lambda: own_attention(late=True),
        "is masked after its softmax",
    ),
    "torch's layer of attention, masked late": (
        torchs(CAUSAL, weights=False), lambda: multihead(late=CAUSAL).detach(),
        "is masked after its softmax",
    ),
    "heads split as sizes": (
        own_attention, lambda: own_attention(sizes_first), "splits heads as (size of a head, he"
    ),
    "heads merged as sizes": (
        own_attention, lambda: own_attention(back=lambda t: t.permute(0, 2, 3, 1)),
        "merges heads as (size of a head, heads)",
    ),
    "heads merged where they stand": (
        own_attention, lambda: own_attention(back=lambda t: t),
        "merges heads where they stand, before the positions",
    ),
    "heads split and merged as sizes": (
        own_attention,
        lambda: own_attention(sizes_first, lambda t: t.permute(0, 2, 3, 1)),
        "splits and merges heads as (size of a head, heads)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_call_made_otherwise_is_found(name):
    torchs, yours, words = CASES[name]

    def forward(calls):
        with Through(calls):
            return [torchs().numpy()]

    cause = explain_by_calls(forward, [yours().numpy()], [torchs().numpy()])
    assert cause is not None
    assert words in cause.message


@pytest.mark.parametrize("change", [_other_attention.causal(1), _other_attention.windowed(True)])
@pytest.mark.parametrize("mask", [{"is_causal": True}, {}, "masked_fill"])
def test_a_mask_is_made_where_its_tensors_are(change, mask):
    x = torch.ones(2, 5, 5, device="meta")
    if mask == "masked_fill":
        call = Call(mask, torch.Tensor.masked_fill, (x, x > 0, -1.0), {}, 1)
    else:
        function = functional.scaled_dot_product_attention
        call = Call(function.__name__, function, (x, x, x), mask, 1)
    assert change(call).device.type == "meta"
