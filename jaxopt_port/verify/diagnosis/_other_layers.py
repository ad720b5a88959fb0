"""Layers in other ways than torch's call has them: activation, flattening, padding, left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._calls import Call

ACTIVATIONS = (
    "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "mish", "softplus", "relu6",
    "selu", "hardtanh", "hardsigmoid", "hardswish", "softsign", "log_sigmoid",
    "prelu",
)  # fmt: skip
# What torch has no function of a tensor alone for, or one of another name than its call's.
_FORMULAS: dict[str, Callable[[Any], Any]] = {
    "GELU in its tanh form": lambda x: _functional().gelu(x, approximate="tanh"),
    "GELU as x * sigmoid(1.702 x)": lambda x: x * (1.702 * x).sigmoid(),
    "a hard sigmoid of slope 1/5": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "logsigmoid": lambda x: _functional().logsigmoid(x),
}
OTHERS = (*(name for name in ACTIVATIONS if name not in ("prelu", "log_sigmoid")), *_FORMULAS)
PRODUCTS = ("mul", "rmul", "div", "truediv")


def _functional() -> Any:
    from torch.nn import functional

    return functional


def activation(other: str) -> Callable[[Call], Any]:
    """Call another activation."""
    return lambda call: (_FORMULAS.get(other) or getattr(_functional(), other))(call.args[0])


def argument(place: int, name: str, value: Any) -> Callable[[Call], Any]:
    """Give an argument another value."""

    def change(call: Call) -> Any:
        return None if call.get(place, name) == value else call.put(place, name, value)

    return change


def turned(order: tuple[int, ...]) -> Callable[[Call], Any]:
    """Flatten after the axes were put in another order."""

    def change(call: Call) -> Any:
        x = call.args[0]
        flat = call.again(x)
        if x.ndim != 4 or flat.ndim != 2:
            return None
        return x.permute(0, *order).flatten(1)

    return change


def same_padding(call: Call) -> Any:
    """Pad a strided convolution as SAME does, more at the end."""
    stride, padding = call.get(3, "stride", 1), call.get(4, "padding", 0)
    x, weight = call.args[:2]
    n = x.ndim - 2
    strides = stride if isinstance(stride, (tuple, list)) else (stride,) * n
    if not padding or max(strides) == 1 or isinstance(padding, str):
        return None
    wanted = []
    for size, k, s in zip(
        reversed(x.shape[2:]), reversed(weight.shape[2:]), reversed(strides), strict=True
    ):
        total = max(0, (-(-size // s) - 1) * s + k - size)
        wanted += [total // 2, total - total // 2]
    padded = _functional().pad(x, wanted)
    rest = {k: v for k, v in call.options.items() if k not in ("stride", "padding")}
    return call.function(padded, weight, call.get(2, "bias"), stride, 0, *call.args[5:], **rest)


def left_out(call: Call) -> Any:
    """Leave the second operand out."""
    import torch

    if len(call.args) < 2 or not isinstance(call.args[0], torch.Tensor):
        return None
    other = call.args[1]
    if call.name in PRODUCTS:
        broad = not isinstance(other, torch.Tensor) or _covers(call.args[0], other)
        return call.args[0] + 0 if broad and call.args[0].is_floating_point() else None
    kept = isinstance(other, torch.Tensor) and call.args[0].is_floating_point()
    return call.args[0] + 0 if kept and other.ndim else None


def as_given(call: Call) -> Any:
    """Return what the layer was given."""
    return call.args[0] + 0


def reduced(by: Callable[..., Any]) -> Callable[[Call], Any]:
    """Reduce axes in the way of ``by(x, dim, keepdim)``."""

    def change(call: Call) -> Any:
        dim = call.get(1, "dim")
        return None if dim is None else by(call.args[0], dim, call.get(2, "keepdim", False))

    return change


def last(x: Any, dim: Any, keepdim: bool) -> Any:
    """Return what stands last along an axis."""
    if not isinstance(dim, int):
        return None
    return x.narrow(dim, -1, 1) if keepdim else x.select(dim, -1)


def taken_at(index: int, other: int) -> Callable[[Call], Any]:
    """Take another position of a sequence than the first or the last."""

    def change(call: Call) -> Any:
        if call.name == "select":
            at = call.get(2, "index")
            return call.put(2, "index", other) if at == index else None
        at = call.args[1]
        parts = at if isinstance(at, tuple) else (at,)
        numbers = [i for i, part in enumerate(parts) if type(part) is int]
        if len(numbers) != 1 or parts[numbers[0]] != index or call.args[0].ndim < 3:
            return None
        return call.args[0][tuple(other if i in numbers else p for i, p in enumerate(parts))]

    return change


def turned_over(place: int, name: str, default: bool = False) -> Callable[[Call], Any]:
    """Give a flag the other value."""
    return lambda call: call.put(place, name, not call.get(place, name, default))


def pooled(other: str) -> Callable[[Call], Any]:
    """Pool by another function; torch gives some arguments by place and some by name."""

    def change(call: Call) -> Any:
        ceil = call.get(5 if call.name == "max_pool2d" else 4, "ceil_mode", False)
        kernel, stride, padding = (
            call.get(1, "kernel_size"), call.get(2, "stride"), call.get(3, "padding", 0)
        )  # fmt: skip
        return getattr(_functional(), other)(call.args[0], kernel, stride, padding, ceil_mode=ceil)

    return change


def _covers(x: Any, other: Any) -> bool:
    """Whether one tensor has the shape of its product with another."""
    import torch

    return bool(torch.broadcast_shapes(x.shape, other.shape) == x.shape)


def first_left_out(call: Call) -> Any:
    """Leave the first of two operands of one shape out."""
    shapes = [getattr(x, "shape", None) for x in call.args[:2]]
    return call.args[1] + 0 if shapes[0] and shapes[0] == shapes[-1] else None


def first_factor_left_out(call: Call) -> Any:
    """Leave the first of two factors out, which is a tensor that the other's shape covers."""
    first, other = (*call.args[:2], None, None)[:2]
    tensors = hasattr(first, "shape") and hasattr(other, "shape")
    return other + 0 if tensors and other.is_floating_point() and _covers(other, first) else None


def turned_round(call: Call) -> Any:
    """Join parts in the opposite order."""
    parts = call.get(0, "tensors")
    return call.put(0, "tensors", parts[::-1]) if isinstance(parts, (tuple, list)) else None


def adaptive(call: Call) -> Any:
    """Pool to one size by the largest."""
    return _functional().adaptive_max_pool2d(call.args[0], call.get(1, "output_size"))
