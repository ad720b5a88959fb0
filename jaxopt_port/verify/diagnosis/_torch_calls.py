"""Explains an output by calls of torch's that your side makes in another way.

torch's own forward pass is run again with one kind of call changed: another eps, another form of
GELU, another mask. Where that gives your output, it is what your side does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..compare._report import Cause
from ._arrays import Array

# Of one kind of call, one by one: so many are tried.
_MOST_CALLS = 48
# Of several ways together, the nearest are gone on with.
_MOST_WAYS, _BEAM = 3, 3
_SAME = 1e-9
_EPS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12)


@dataclass
class Call:
    """A call of a torch function.

    Attributes:
        name: of the function.
        function: it.
        args: positional.
        options: by name.
        inner: the contracted size of the matrix product before it.
    """

    name: str
    function: Any
    args: tuple[Any, ...]
    options: dict[str, Any]
    inner: int

    def again(self, *args: Any, **options: Any) -> Any:
        """Call it with other first arguments, and other options."""
        return self.function(*args, *self.args[len(args) :], **{**self.options, **options})

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by place or by name."""
        return self.args[place] if len(self.args) > place else self.options.get(name, default)

    def put(self, place: int, name: str, value: Any) -> Any:
        """Call it with another value of an argument that may be given by place or by name."""
        if len(self.args) <= place:
            return self.again(**{name: value})
        return self.function(
            *self.args[:place], value, *self.args[place + 1 :], **self.options
        )


@dataclass(frozen=True)
class Way:
    """One way of calling torch's functions otherwise.

    Attributes:
        cause: its name.
        calls: the functions, by name.
        change: makes the call in that way; None leaves it as it is.
        words: what your side does.
        remedy: what would mend it.
    """

    cause: str
    calls: tuple[str, ...]
    change: Callable[[Call], Any]
    words: str
    remedy: str


class Changed(NamedTuple):
    """A way, at all calls or at one only."""

    way: Way
    only: int | None = None


@dataclass
class Calls:
    """What a forward pass called, and what is to be changed in the next one."""

    names: dict[str, int] = field(default_factory=dict)
    ways: tuple[Changed, ...] = ()
    at: list[int] = field(default_factory=list)
    changed: int = 0
    inner: int = 1

    def begin(self, *ways: Changed) -> None:
        """Begin a forward pass."""
        self.ways, self.at, self.changed, self.inner = ways, [0] * len(ways), 0, 1

    def __call__(self, function: Any, args: Any, options: Any) -> Any:
        """Make a call, as it is or in the other ways."""
        name = getattr(function, "__name__", "").strip("_")
        if not self.ways:
            self.names[name] = self.names.get(name, 0) + 1
        result = None
        for i, (way, only) in enumerate(self.ways):
            if name in way.calls:
                if only in (None, self.at[i]):
                    made = way.change(Call(name, function, args, dict(options), self.inner))
                    self.changed += made is not None
                    result = made if result is None else result
                self.at[i] += 1
        if name in ("matmul", "bmm", "einsum") and hasattr(args[0], "shape") and args[0].ndim:
            self.inner = int(args[0].shape[-1])
        return function(*args, **options) if result is None else result


_ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "mish", "softplus")
_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = ("mul", "rmul", "div", "truediv")


def _functional() -> Any:
    from torch.nn import functional

    return functional


def _activation(other: str) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        own = call.name == other
        return None if own else getattr(_functional(), other)(call.args[0])

    return change


def _number(place: int, name: str, value: Any) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        return None if call.get(place, name) == value else call.put(place, name, value)

    return change


def _scaled(power: float) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        if call.name == _ATTENTION:
            d = call.args[0].shape[-1]
            own = call.options.get("scale") or d**-0.5
            return call.again(scale=own * d**power)
        return call.again(call.args[0] * call.inner**power)

    return change


def _hidden(call: Call, hide: Any) -> Any:
    """Hide positions from an attention: before its softmax, or by its mask."""
    x = call.args[0]
    if call.name == _ATTENTION:
        size = (x.shape[-2], call.args[1].shape[-2])
        own = _mask_of(call, size)
        options = {**call.options, "is_causal": False, "attn_mask": ~hide(own, size)}
        return call.function(*call.args[:3], **options)
    if x.ndim < 3 or x.shape[-1] != x.shape[-2]:
        return None
    return call.again(x.masked_fill(hide(~x.isfinite(), x.shape[-2:]), -math.inf))


def _mask_of(call: Call, size: Any) -> Any:
    """Return which positions an attention of torch's hides."""
    import torch

    mask = call.get(3, "attn_mask")
    if call.get(5, "is_causal", False):
        return torch.ones(size, dtype=torch.bool).triu(1)
    if mask is None:
        return torch.zeros(size, dtype=torch.bool)
    return ~mask if mask.dtype == torch.bool else ~mask.isfinite()


def _causal(offset: int) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        import torch

        def hide(own: Any, size: Any) -> Any:
            later = torch.ones(tuple(size), dtype=torch.bool).triu(1)
            moved = torch.ones(tuple(size), dtype=torch.bool).triu(1 + offset)
            # What is hidden for another reason, padding, stays hidden.
            return moved | (own & ~later)

        return _hidden(call, hide)

    return change


def _shifted_mask(offset: int) -> Callable[[Call], Any]:
    """Hide one position more or less of a mask that torch fills in itself."""

    def change(call: Call) -> Any:
        import torch

        x, mask = call.args[:2]
        if mask.shape[-1] != mask.shape[-2]:
            return None
        size = tuple(mask.shape[-2:])
        later = torch.ones(size, dtype=torch.bool).triu(1)
        moved = torch.ones(size, dtype=torch.bool).triu(1 + offset)
        return call.again(x, (mask.bool() & ~later) | moved)

    return change


def _unmasked(call: Call) -> Any:
    if call.name != _ATTENTION:
        return call.args[0] + 0
    return call.function(*call.args[:3], **{k: v for k, v in call.options.items() if k == "scale"})


def _packed(call: Call, take: Callable[[Any, int], Any]) -> Any:
    """Take the parts of a packed projection otherwise."""
    x = call.args[0]
    made = call.again(x)
    parts = len(made)
    width = x.shape[-1]
    if parts not in (2, 3) or any(p.shape[-1] * parts != width for p in made):
        return None
    return take(x, parts)


def _by_head(heads: int) -> Callable[[Call], Any]:
    def take(x: Any, parts: int) -> Any:
        if x.shape[-1] % (heads * parts):
            return None
        whole = x.unflatten(-1, (heads, parts, -1))
        return tuple(whole[..., i, :].flatten(-2) for i in range(parts))

    return lambda call: _packed(call, take)


def _interleaved(call: Call) -> Any:
    return _packed(call, lambda x, parts: tuple(x[..., i::parts] for i in range(parts)))


def _ordered(order: tuple[int, ...]) -> Callable[[Call], Any]:
    def take(x: Any, parts: int) -> Any:
        whole = x.chunk(parts, -1)
        return tuple(whole[i] for i in order) if parts == len(order) else None

    return lambda call: _packed(call, take)


def _turned(order: tuple[int, int, int]) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        x = call.args[0]
        flat = call.again(x)
        if x.ndim != 4 or flat.ndim != 2:
            return None
        return x.permute(0, *order).flatten(1)

    return change


def _same_padding(call: Call) -> Any:
    stride, padding = call.get(3, "stride", 1), call.get(4, "padding", 0)
    x, weight = call.args[:2]
    n = x.ndim - 2
    strides = stride if isinstance(stride, (tuple, list)) else (stride,) * n
    if not padding or max(strides) == 1 or isinstance(padding, str):
        return None
    wanted = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), reversed(strides), strict=True):
        total = max(0, (-(-size // s) - 1) * s + k - size)
        wanted += [total // 2, total - total // 2]
    padded = _functional().pad(x, wanted)
    rest = {k: v for k, v in call.options.items() if k not in ("stride", "padding")}
    return call.function(padded, weight, call.get(2, "bias"), stride, 0, *call.args[5:], **rest)


def _flipped(call: Call) -> Any:
    weight = call.args[1]
    return call.again(call.args[0], weight.flip(tuple(range(2, weight.ndim))))


def _left_out(call: Call) -> Any:
    import torch

    if len(call.args) < 2 or not isinstance(call.args[0], torch.Tensor):
        return None
    other = call.args[1]
    if call.name in _PRODUCTS:
        number = not isinstance(other, torch.Tensor) or other.ndim == 0
        return call.args[0] + 0 if number and call.args[0].is_floating_point() else None
    kept = isinstance(other, torch.Tensor) and call.args[0].is_floating_point()
    return call.args[0] + 0 if kept and other.ndim else None


def _same_shape(call: Call) -> Any:
    return call.args[0] + 0


def _without_bias(call: Call) -> Any:
    return None if call.get(2, "bias") is None else call.put(2, "bias", None)


def _rooted(call: Call) -> Any:
    made = call.again(*call.args)
    return made * made.shape[-1] ** 0.5


def ways() -> Iterator[Way]:
    """Yield what is tried, the likeliest first."""
    for kind, names, place in (
        ("LayerNorm", ("layer_norm",), 4),
        ("BatchNorm", ("batch_norm",), 7),
        ("GroupNorm", ("group_norm",), 4),
        ("RMSNorm", ("rms_norm",), 3),
    ):
        for eps in _EPS:
            yield Way(
                "layer-eps", names, _number(place, "eps", eps),
                f"your side's {kind} has eps={eps:g}; torch's {{eps}}",
                "give the layer epsilon={eps}: Flax's default is 1e-6 for LayerNorm, torch's 1e-5",
            )  # fmt: skip
    for form, words in (("tanh", "the tanh approximation"), ("none", "the exact form")):
        yield Way(
            "activation", ("gelu",), _number(1, "approximate", form),
            f"your side's GELU is {words}; torch's is not",
            "give jax.nn.gelu the same approximate= as torch's (True is JAX's default, and "
            "approximate='tanh' torch's name of it)",
        )  # fmt: skip
    yield Way(
        "training-mode", ("batch_norm",), lambda call: call.put(5, "training", not call.get(5, "training")),
        "your side's BatchNorm normalises by the {running}; torch by the {other}",
        "give use_running_average as torch's module has it: module.train() is False, eval() True",
    )  # fmt: skip
    for power, words in ((0.5, "without the division by the root of the head's size"),
                         (-0.5, "with one division by the root of the head's size more"),
                         (1.0, "multiplied by the root of the head's size, not divided")):
        yield Way(
            "attention-scale", ("softmax", _ATTENTION), _scaled(power),
            f"your side's attention is {words}",
            "scale queries by head_size ** -0.5, once",
        )  # fmt: skip
    for offset, words in ((1, "sees one position more of the future than torch's"),
                          (-1, "does not see its own position; torch's does")):
        for names, made in ((("masked_fill",), _shifted_mask(offset)), (("softmax", _ATTENTION), _causal(offset))):
            yield Way(
                "attention-mask", names, made, f"your side's attention {words}",
                "make the causal mask as jnp.tril(jnp.ones((t, t), bool)), of diagonal 0",
            )  # fmt: skip
    yield Way(
        "attention-mask", ("masked_fill", _ATTENTION), _unmasked,
        "your side's attention has no mask where torch's has one",
        "give the attention the mask (causal, of padding) that torch's has",
    )  # fmt: skip
    yield Way(
        "attention-mask", ("softmax", _ATTENTION), _causal(0),
        "your side's attention is causal; torch's sees the future",
        "leave the causal mask out, or give torch's side one",
    )  # fmt: skip
    packing = ("chunk", "split", "unbind", "tensor_split")
    for heads in (1, 2, 3, 4, 6, 8, 12, 16, 32):
        yield Way(
            "packed-layout", packing, _by_head(heads),
            f"your side takes the packed projection head by head ({heads} heads); torch takes it "
            "part by part",
            "split the packed projection as torch does (all of q, then k, then v), or rearrange "
            "its columns when it is imported",
        )  # fmt: skip
    yield Way(
        "packed-layout", packing, _interleaved,
        "your side takes the parts of the packed projection in turns, column by column",
        "split the packed projection as torch does (all of q, then k, then v)",
    )  # fmt: skip
    for order in (*itertools.permutations(range(3)), (1, 0)):
        if list(order) != sorted(order):
            yield Way(
                "packed-layout", packing, _ordered(order),
                f"your side takes the parts of the packed projection in the order {order}",
                "take the parts in torch's order",
            )  # fmt: skip
    for turn in itertools.permutations((1, 2, 3)):
        if turn != (1, 2, 3):
            yield Way(
                "flatten-order", ("flatten", "reshape", "view"), _turned(turn),
                f"your side flattens the axes in the order {turn} of torch's before a layer",
                "transpose before the flattening, so that it is torch's order (N, C, H, W), or "
                "rearrange the kernel's rows on import",
            )  # fmt: skip
    convolutions = ("conv1d", "conv2d", "conv3d")
    yield Way(
        "padding", convolutions, _same_padding,
        "your side pads a strided convolution as SAME does, more at the end; torch pads both ends "
        "alike",
        "give the padding in numbers: padding=((1, 1), (1, 1))",
    )  # fmt: skip
    yield Way(
        "kernel-flipped", (*convolutions, "conv_transpose1d", "conv_transpose2d"), _flipped,
        "your side's convolution has its kernel flipped",
        "flip the kernel when it is imported, or give transpose_kernel=True",
    )  # fmt: skip
    for other in _ACTIVATIONS:
        yield Way(
            "activation", _ACTIVATIONS, _activation(other),
            f"your side has {other} where torch has {{name}}",
            "use torch's activation",
        )  # fmt: skip
    pools = {"max_pool2d": "avg_pool2d", "avg_pool2d": "max_pool2d"}
    for name, other in pools.items():
        yield Way(
            "pooling", (name,), lambda call, other=other: getattr(_functional(), other)(*call.args[:4]),
            f"your side has {other} where torch has {name}", "use torch's pooling",
        )  # fmt: skip
    yield Way(
        "pooling", ("avg_pool2d",), lambda call: call.put(5, "count_include_pad", not call.get(5, "count_include_pad", True)),
        "your side's average pooling counts the padding otherwise than torch's",
        "give count_include_pad as torch has it",
    )  # fmt: skip
    norms = ("layer_norm", "batch_norm", "group_norm", "rms_norm")
    yield Way("left-out", norms, _same_shape, "your side leaves a normalisation out ({name})",
              "add the layer, or take it out of torch's module")  # fmt: skip
    yield Way("left-out", _ACTIVATIONS, _same_shape, "your side leaves an activation out ({name})",
              "add it, or take it out of torch's module")  # fmt: skip
    yield Way("left-out", ("linear", *convolutions), _without_bias, "your side leaves a bias out ({name})",
              "add the bias, or give torch's layer bias=False")  # fmt: skip
    yield Way("left-out", ("add", "iadd", "radd"), _left_out,
              "your side leaves an addition out: a residual connection, a position embedding",
              "add what torch adds")  # fmt: skip
    yield Way("left-out", _PRODUCTS, _left_out,
              "your side leaves a factor out: a scale, a temperature",
              "multiply by what torch multiplies by")  # fmt: skip
    yield Way("embedding-scale", ("embedding",), _rooted,
              "your side multiplies embeddings by the root of their size; torch does not",
              "leave the factor out")  # fmt: skip


class _Tries:
    """Runs torch's forward pass in other ways."""

    def __init__(
        self,
        forward: Callable[[Calls], list[Array]],
        yours: Sequence[Array],
        torchs: Sequence[Array],
    ) -> None:
        self._forward, self._yours, self._torchs = forward, yours, torchs
        self.calls = Calls()
        self.calls.begin()
        forward(self.calls)
        self.known = [way for way in ways() if self.calls.names.keys() & set(way.calls)]

    def far(self, *changed: Changed) -> float:
        """Return how far your output is from torch's in these ways; infinite for nonsense."""
        self.calls.begin(*changed)
        try:
            made = self._forward(self.calls)
        except (RuntimeError, ValueError, TypeError, IndexError):
            return math.inf  # it does not fit this network
        if len(changed) > self.calls.changed or len(made) != len(self._yours):
            return math.inf
        if any(a.shape != b.shape for a, b in zip(made, self._yours, strict=True)):
            return math.inf
        worst = 0.0
        for a, b in zip(made, self._yours, strict=True):
            gap = np.abs(a - b)
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, gap)
            if not np.all(np.isfinite(gap)):
                return math.inf
            scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0))
            worst = max(worst, float(np.max(gap, initial=0.0)) / scale if scale else 0.0)
        return worst

    def found(self) -> list[Changed]:
        """Return the ways that give your output together, or nothing."""
        begun: list[tuple[Changed, ...]] = [()]
        for _ in range(_MOST_WAYS):
            tried: list[tuple[float, tuple[Changed, ...]]] = []
            for ways_so_far in begun:
                nearest = self.far(*ways_so_far) if ways_so_far else math.inf
                for changed in self._candidates(ways_so_far):
                    far = self.far(*ways_so_far, changed)
                    if far <= _SAME:
                        return [*ways_so_far, changed]
                    if far < nearest:
                        tried.append((far, (*ways_so_far, changed)))
            tried.sort(key=lambda pair: pair[0])
            begun = [changed for _, changed in tried[:_BEAM]]
        return []

    def _candidates(self, so_far: tuple[Changed, ...]) -> Iterator[Changed]:
        used = [changed.way for changed in so_far]
        for way in self.known:
            if way not in used:
                yield Changed(way)
        if so_far:
            return
        for way in self.known:
            count = sum(self.calls.names.get(name, 0) for name in way.calls)
            if 1 < count:
                yield from (Changed(way, only) for only in range(min(count, _MOST_CALLS)))

    def named(self, changed: Changed) -> Cause:
        """Say it with what torch's call has."""
        way, only = changed
        told: dict[str, Any] = {"eps": "another", "name": way.calls[0]}
        told |= {"running": "running statistics", "other": "batch's own"}

        def look(call: Call) -> Any:
            told["name"] = call.name
            place = {"rms_norm": 3, "batch_norm": 7}.get(call.name, 4)
            eps = call.get(place, "eps")
            told["eps"] = f"{eps:g}" if isinstance(eps, float) else "another"
            if call.name == "batch_norm" and not call.get(5, "training"):
                told["running"], told["other"] = "batch's own statistics", "running ones"
            return None

        self.calls.begin(Changed(Way("", way.calls, look, "", ""), only))
        self._forward(self.calls)
        where = "" if only is None else f", at the {_ordinal(only)} of such calls only"
        return Cause(way.cause, way.words.format(**told) + where, way.remedy.format(**told))


def explain_by_calls(
    forward: Callable[[Calls], list[Array]], yours: Sequence[Array], torchs: Sequence[Array]
) -> Cause | None:
    """Explain an output by another way of calling torch's functions, or by up to three.

    Args:
        forward: runs torch's forward pass in float64, each call of a function by ``calls``.
        yours: your output, in float64.
        torchs: torch's.
    """
    tries = _Tries(forward, yours, torchs)
    causes = [tries.named(changed) for changed in tries.found()]
    if not causes:
        return None
    first, *others = causes
    return Cause(
        first.name,
        "; and ".join(cause.message for cause in causes),
        "; ".join(dict.fromkeys(cause.remedy for cause in causes)),
        also=tuple(others),
    )


def _ordinal(n: int) -> str:
    return {0: "first", 1: "second", 2: "third"}.get(n, f"{n + 1}th")
