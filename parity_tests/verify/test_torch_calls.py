"""torch's calls made in other ways: what they are given by name, and products by einsum."""

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from jaxopt_port.verify.diagnosis import explain_by_calls


class Through(TorchFunctionMode):
    """Makes each call through another."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.calls(func, args, kwargs or {})


GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.randn(2, 3, 7, 7, generator=GENERATOR, dtype=torch.float64)
Q, K, V = torch.randn(3, 2, 5, 4, 8, generator=GENERATOR, dtype=torch.float64)


def pooled(kind, *args, **options):
    return getattr(functional, f"{kind}_pool2d")(IMAGES, *args, **options)


def attention(scale, q=Q, k=K):
    return torch.einsum(
        "bhqk,bkhd->bqhd", torch.einsum("bqhd,bkhd->bhqk", q * scale, k).softmax(-1), V
    )


# What torch calls, what your side calculates, and the words for it.
CASES = {
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
    "attention by einsum, unscaled": (
        lambda: attention(8**-0.5), lambda: attention(1.0),
        "attention is without the division by the root of the head's size",
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
