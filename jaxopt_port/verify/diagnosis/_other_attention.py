"""Attention in other ways than torch's call has it: scale, mask, the parts of a projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._calls import Call

ATTENTION = "scaled_dot_product_attention"


def scaled(power: float) -> Callable[[Call], Any]:
    """Multiply scores by a power of the head's size."""

    def change(call: Call) -> Any:
        if call.name == ATTENTION:
            d = call.args[0].shape[-1]
            own = call.options.get("scale") or d**-0.5
            return call.again(scale=own * d**power)
        return call.again(call.args[0] * call.inner**power)

    return change


def _hidden(call: Call, hide: Any) -> Any:
    """Hide positions from an attention: before its softmax, or by its mask."""
    x = call.args[0]
    if call.name == ATTENTION:
        size = (x.shape[-2], call.args[1].shape[-2])
        own = _mask_of(call, size)
        options = {**call.options, "is_causal": False, "attn_mask": ~hide(own, size)}
        return call.function(*call.args[:3], **options)
    if call.name == "masked_fill":
        mask = call.args[1]
        square = mask.ndim > 1 and mask.shape[-1] == mask.shape[-2]
        return call.again(x, hide(mask.bool(), mask.shape[-2:])) if square else None
    if x.ndim < 3 or x.shape[-1] != x.shape[-2]:
        return None
    return call.again(x.masked_fill(hide(~x.isfinite(), x.shape[-2:]), -math.inf))


def _mask_of(call: Call, size: Any) -> Any:
    """Return which positions an attention of torch's hides."""
    import torch

    mask, device = call.get(3, "attn_mask"), call.args[0].device
    if call.get(5, "is_causal", False):
        return torch.ones(size, dtype=torch.bool, device=device).triu(1)
    if mask is None:
        return torch.zeros(size, dtype=torch.bool, device=device)
    return ~mask if mask.dtype == torch.bool else ~mask.isfinite()


def causal(offset: int) -> Callable[[Call], Any]:
    """Hide what is later by more than ``offset``."""

    def hide(own: Any, size: Any) -> Any:
        import torch

        whole = torch.ones(tuple(size), dtype=torch.bool, device=own.device)
        # What is hidden for another reason, padding, stays hidden.
        return whole.triu(1 + offset) | (own & ~whole.triu(1))

    return lambda call: _hidden(call, hide)


def windowed(more: bool) -> Callable[[Call], Any]:
    """See one position more of what is before, or one less: move the lower edge of a mask."""

    def hide(own: Any, size: Any) -> Any:
        import torch

        whole = torch.ones(tuple(size), dtype=torch.bool, device=own.device)
        before = own & whole.tril(-1)
        edge = torch.zeros_like(before)
        if more:
            edge[..., 1:, :] = before[..., :-1, :]
        else:
            edge[..., :-1, :] = before[..., 1:, :]
            edge[..., -1, :] = before[..., -1, :] | before[..., -1, :].roll(1, -1)
        return (own & ~before) | edge

    return lambda call: _hidden(call, hide)


def unmasked(call: Call) -> Any:
    """Hide nothing."""
    if call.name != ATTENTION:
        return call.args[0] + 0
    return call.function(*call.args[:3], **{k: v for k, v in call.options.items() if k == "scale"})


def masked_late(call: Call) -> Any:
    """Hide positions after the softmax."""
    if call.name != ATTENTION:
        if call.masked is None or call.masked[0].shape != call.args[0].shape:
            return None
        scores, mask = call.masked
        return call.again(scores) * ~mask.bool()
    q, k, v = call.args[:3]
    scores = q @ k.transpose(-1, -2) * (call.options.get("scale") or q.shape[-1] ** -0.5)
    return (scores.softmax(-1) * ~_mask_of(call, scores.shape[-2:])) @ v


def _packed(call: Call, take: Callable[[Any, int], Any]) -> Any:
    """Take the parts of a packed projection otherwise."""
    x = call.args[0]
    made = call.again(x)
    parts = len(made)
    width = x.shape[-1]
    if parts not in (2, 3) or any(p.shape[-1] * parts != width for p in made):
        return None
    return take(x, parts)


def by_head(heads: int) -> Callable[[Call], Any]:
    """Take the parts of a packed projection head by head."""

    def take(x: Any, parts: int) -> Any:
        if x.shape[-1] % (heads * parts):
            return None
        whole = x.unflatten(-1, (heads, parts, -1))
        return tuple(whole[..., i, :].flatten(-2) for i in range(parts))

    return lambda call: _packed(call, take)


def interleaved(call: Call) -> Any:
    """Take the parts in turns, column by column."""
    return _packed(call, lambda x, parts: tuple(x[..., i::parts] for i in range(parts)))


def ordered(order: tuple[int, ...]) -> Callable[[Call], Any]:
    """Take the parts in another order."""

    def take(x: Any, parts: int) -> Any:
        whole = x.chunk(parts, -1)
        return tuple(whole[i] for i in order) if parts == len(order) else None

    return lambda call: _packed(call, take)


def _split(call: Call) -> Any:
    """Take the last axis, which the call splits, as (size, heads)."""
    x, made = call.args[0], call.again(*call.args)
    if made.ndim != x.ndim + 1 or made.shape[:-2] != x.shape[:-1]:
        return None
    *lead, heads, size = made.shape
    return x.reshape(*lead, size, heads).transpose(-1, -2)


def merged(axis: int) -> Callable[[Call], Any]:
    """Exchange an axis and the one after it before the last two are merged."""

    def change(call: Call) -> Any:
        x, made = call.args[0], call.again(*call.args)
        if x.ndim < 4 or made.ndim != x.ndim - 1 or made.shape[:-1] != x.shape[:-2]:
            return None
        return x.transpose(axis, axis + 1).reshape(made.shape)

    return change


def grouped(split: bool, merge: bool) -> Callable[[Call], Any]:
    """Split heads, or merge them, or both, as (size, heads)."""

    def change(call: Call) -> Any:
        made = _split(call) if split else None
        return merged(-2)(call) if merge and made is None else made

    return change
