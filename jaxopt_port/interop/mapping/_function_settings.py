"""The settings of torch's activations and pools against those of Flax's functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from ._layer_settings import Doubt
from ._padding import pairs, spread

# What Flax calls torch's activations, and the options that both have: torch's name, Flax's name,
# Flax's default.
_Option = tuple[str, str, Any]
FUNCTIONS: dict[str, tuple[tuple[str, ...], tuple[_Option, ...]]] = {
    "CELU": (("celu",), (("alpha", "alpha", 1.0),)),
    "ELU": (("elu",), (("alpha", "alpha", 1.0),)),
    "GELU": (("gelu",), (("approximate", "approximate", True),)),
    "Hardsigmoid": (("hard_sigmoid",), ()),
    "Hardswish": (("hard_silu", "hard_swish"), ()),
    "Hardtanh": (("hard_tanh",), ()),
    "LeakyReLU": (("leaky_relu",), (("negative_slope", "negative_slope", 0.01),)),
    "ReLU": (("relu",), ()),
    "ReLU6": (("relu6",), ()),
    "SELU": (("selu",), ()),
    "SiLU": (("silu", "swish"), ()),
    "Sigmoid": (("sigmoid",), ()),
    "Softplus": (("softplus",), ()),
    "Tanh": (("tanh",), ()),
}
# What torch's activations let choose, and Flax's do not.
_FIXED = {"Hardtanh": {"min_val": -1.0, "max_val": 1.0}, "Softplus": {"beta": 1.0}}


def same_function(part: Any, torch_name: str) -> bool:
    """Return whether a function of JAX is torch's activation of this name, options aside."""
    return _name_and_options(part)[0] in FUNCTIONS[torch_name][0]


def _name_and_options(part: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(part, functools.partial):
        return getattr(part.func, "__name__", ""), dict(part.keywords)
    return getattr(part, "__name__", ""), {}


def _activation(torch_name: str, torch_layer: Any, part: Any) -> Iterator[str]:
    name, options = _name_and_options(part)
    names, compared = FUNCTIONS[torch_name]
    others = {each for known, _ in FUNCTIONS.values() for each in known} - set(names)
    if name in others:
        yield f"Flax has {name} here; use nnx.{names[0]}"
    if name not in names:
        return  # a layer or function of the user's own
    for option, value in _FIXED.get(torch_name, {}).items():
        given = getattr(torch_layer, option)
        if given != value:
            yield f"{option} is {given:g} in torch, always {value:g} in nnx.{name}: write it out"
    for torchs, flaxs, default in compared:
        want = getattr(torch_layer, torchs)
        want = want == "tanh" if torch_name == "GELU" else want
        if options.get(flaxs, default) != want:
            yield (
                f"{torchs} is {getattr(torch_layer, torchs)!r} in torch and {flaxs} is"
                f" {options.get(flaxs, default)!r} in Flax;"
                f" use functools.partial(nnx.{name}, {flaxs}={want!r})"
            )


def _pool(torch_name: str, torch_layer: Any, part: Any) -> Iterator[str]:
    (name, options), own = _name_and_options(part), torch_name.lower() + "_pool"
    if name not in ("max_pool", "avg_pool") or "window_shape" not in options:
        return
    if name != own:
        yield f"Flax has {name} here; use nnx.{own}"
        return
    n = len(options["window_shape"])
    for torchs, flaxs in (("kernel_size", "window_shape"), ("stride", "strides")):
        want, got = spread(getattr(torch_layer, torchs), n), spread(options.get(flaxs), n)
        if want != got:
            yield f"{torchs} is {want} in torch and {got} in Flax; give {flaxs}={want}"
    want_pad = tuple((p, p) for p in spread(torch_layer.padding, n))
    padding = options.get("padding", "VALID")
    got_pad = ((0, 0),) * n if padding == "VALID" else padding
    if padding == "SAME":
        got_pad = tuple(((k - 1) // 2, k // 2) for k in options["window_shape"])
    got_pad = pairs(got_pad, n)
    strided = any(s != 1 for s in spread(options.get("strides"), n))
    if padding == "SAME" and strided:
        yield Doubt("pads as SAME in Flax: how depends on the input; see that torch pads so")
    elif want_pad != got_pad:
        yield f"padding is {want_pad} in torch and {padding!r} in Flax; give padding={want_pad}"
    unlike = {"ceil_mode": False, "divisor_override": None, "dilation": 1}
    for option, value in unlike.items():
        if getattr(torch_layer, option, value) not in (value, (value,) * n):
            yield f"{option}={getattr(torch_layer, option)} has no counterpart in Flax"
    counted = options.get("count_include_pad", True)
    want_counted = getattr(torch_layer, "count_include_pad", counted)
    if want_counted != counted and any(map(any, want_pad)):
        yield (
            f"count_include_pad is {want_counted} in torch and {counted} in Flax;"
            f" give count_include_pad={want_counted}"
        )


CALLED: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "_MaxPoolNd": functools.partial(_pool, "Max"),
    "_AvgPoolNd": functools.partial(_pool, "Avg"),
    **{name: functools.partial(_activation, name) for name in FUNCTIONS},
}
