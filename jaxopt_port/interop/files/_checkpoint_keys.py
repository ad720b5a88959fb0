"""What is what in a dict that somebody gave to ``torch.save``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...trees import listed
from ._optimizer_dicts import by_indices, is_flattened, is_optimizer
from ._pickled_kinds import Unread

ROLES = ("params", "optimizer", "scheduler", "scaler", "averages")

# The names that are in use, without which several candidates are a matter of doubt.
_USUAL = {
    "params": (
        "model_state_dict", "state_dict", "model", "params", "module", "net", "network", "weights",
        "model_state", "current_model_state",
    ),
    "scheduler": (
        "scheduler_state_dict", "scheduler", "lr_scheduler", "lr_schedulers",
        "lr_scheduler_state_dict", "scheduler_state", "lr_sched", "sched",
    ),
}  # fmt: skip
PARAMS = _USUAL["params"]
_AVERAGES = re.compile(
    r"(^|[_.])(ema|averaged?|averages|swa|polyak|shadow)([_.]|$)|^teacher$", re.IGNORECASE
)
# Of Hugging Face's Trainer, and of Accelerate.
_RANDOM_STATES = ({"python", "numpy", "cpu"}, {"random_state", "numpy_random_seed"})
_STEPS = (
    "global_step", "step", "steps", "iter_num", "iteration", "iterations", "num_updates", "iter",
    "global_iter", "global_steps",
)  # fmt: skip


def is_params(value: Any) -> bool:
    """Whether a value is arrays by name."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray | Unread) for k, v in value.items())
    )


def is_scheduler(value: Any) -> bool:
    """Whether a value is a scheduler's state dict."""
    return (
        isinstance(value, Mapping)
        and ("last_epoch" in value or "_step_count" in value or "_schedulers" in value)
        and not is_optimizer(value)
    )


def is_scaler(value: Any) -> bool:
    """Whether a value is a GradScaler's state dict."""
    return isinstance(value, Mapping) and {"scale", "growth_factor", "backoff_factor"} <= (
        value.keys()
    )


@dataclass
class Contents:
    """What a dict holds, part by part; see `Checkpoint`."""

    params: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)
    schedulers: dict[str, Any] = field(default_factory=dict)
    scaler: Any = None
    averages: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    origin: str | None = None


def contents_of(found: Mapping[Any, Any], keys: Mapping[str, str] | None) -> Contents:
    """Return what is what: what was named, and what is beyond doubt.

    Args:
        found: the dict, with NumPy arrays.
        keys: roles and the keys that have them.

    Raises:
        ValueError: a role or key that there is not, several networks, or nothing that is known.
    """
    alone = None if keys else _alone(found)
    if alone is not None:
        return alone
    rest = {str(key): value for key, value in found.items()}
    made = Contents(origin=_origin(rest))
    _take_named(made, rest, keys or {})
    given = set(keys or {})
    if made.origin == LIGHTNING:
        _take_lightnings(made, rest)
    if "optimizer" not in given:
        held = {k: v for k, v in rest.items() if _are_optimizers(v)}
        _take_several(made.optimizers, "optimizer", held, rest)
    if "scheduler" not in given:
        held = {k: v for k, v in rest.items() if _are_schedulers(k, v)}
        _take_several(made.schedulers, "scheduler", held, rest)
    if "scaler" not in given:
        scalers = [k for k, v in rest.items() if is_scaler(v)]
        if len(scalers) == 1:
            made.scaler = rest.pop(scalers[0])
    networks = {k: v for k, v in rest.items() if is_params(v)}
    if "averages" not in given and (len(networks) > 1 or made.params):
        for key in [k for k in networks if _AVERAGES.search(k)]:
            made.averages[key] = networks.pop(key)
            del rest[key]
    for key in [k for k, v in rest.items() if _AVERAGES.search(k) and _are_networks(v)]:
        made.averages |= rest.pop(key)
    if "params" not in given and not made.params:
        network = _one_network(networks, found)
        if network is not None:
            made.params = dict(rest.pop(network))
    made.optimizers = {name: by_indices(each) for name, each in made.optimizers.items()}
    made.step = next((int(rest[k]) for k in _STEPS if _is_count(rest.get(k))), None)
    made.extra = rest
    if not made.params and any(_is_tensor_of_layer(k, v) for k, v in rest.items()):
        # A state dict with something besides, as _extra_state.
        made.params = {k: rest.pop(k) for k in list(rest) if isinstance(rest[k], np.ndarray)}
    if not (made.params or made.optimizers or made.schedulers or made.scaler or given):
        inner = [v for v in rest.values() if isinstance(v, Mapping)]
        if len(inner) == 1 and _holds_parts(inner[0]):
            return contents_of(inner[0], None)
        raise ValueError(
            "neither parameters nor an optimizer is recognised; if they are there, name them: "
            f'keys={{"params": …, "optimizer": …}} (--key params=… on the command line); '
            f"{contents(found)}"
        )
    return made


def _alone(found: Mapping[Any, Any]) -> Contents | None:
    """Return the contents of a dict that is one part itself."""
    if is_flattened(found) or is_optimizer(found):
        return Contents(optimizers={"optimizer": by_indices(found)})
    if is_params(found):
        return Contents(params=dict(found))
    if is_scaler(found):
        return Contents(scaler=dict(found))
    if any(names <= found.keys() for names in _RANDOM_STATES):
        return Contents(extra={str(key): value for key, value in found.items()})
    if is_scheduler(found) and not any(is_params(v) or is_optimizer(v) for v in found.values()):
        return Contents(schedulers={"scheduler": dict(found)})
    return None


def _is_count(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.shape == () and value.dtype.kind in "iu"
    return type(value) is int


def _is_tensor_of_layer(key: str, value: Any) -> bool:
    return isinstance(value, np.ndarray) and key.rpartition(".")[2] in ("weight", "bias")


def _holds_parts(found: Mapping[Any, Any]) -> bool:
    return any(is_params(v) or is_optimizer(v) for v in found.values())


def _take_named(made: Contents, rest: dict[str, Any], keys: Mapping[str, str]) -> None:
    for role, key in keys.items():
        if role not in ROLES:
            raise ValueError(f"keys names a role {role!r}; the roles are {', '.join(ROLES)}")
        if _place(rest, key) is None:
            raise ValueError(
                f"keys says that {role} is {key!r}; {contents(rest)}; what is within one is "
                "named with a dot: 'state.net', 'optimizers.0'"
            )
    for role, key in keys.items():
        value = _taken(rest, key)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, Mapping):
            what = "a dict of tensors" if role in ("params", "averages") else "a state dict"
            raise ValueError(f"{key!r} is {type(value).__name__}, not {what}")
        if role in ("params", "scaler"):
            setattr(made, role, dict(value))
        elif role == "averages":
            made.averages[key] = dict(value)
        else:
            getattr(made, f"{role}s")[role] = dict(value)


def _place(held: Any, key: str) -> list[Any] | None:
    """Return the keys that lead to a part: one, or several that are joined by dots."""
    if isinstance(held, list | tuple):
        held = {str(i): each for i, each in enumerate(held)}
    if not isinstance(held, Mapping):
        return None
    whole = [own for own in held if str(own) == key]
    if whole:
        return whole
    for own, value in held.items():
        if key.startswith(f"{own}."):
            inner = _place(value, key[len(str(own)) + 1 :])
            if inner is not None:
                return [own, *inner]
    return None


def _taken(rest: dict[str, Any], key: str) -> Any:
    """Take a part out of a dict; what is left of a list is a dict by their numbers."""
    place = _place(rest, key)
    if place is None:
        raise ValueError(f"keys names {key!r} for two roles")
    node: Any = rest
    for own in place[:-1]:
        inner = node[own]
        named = isinstance(inner, list | tuple)
        inner = {str(i): x for i, x in enumerate(inner)} if named else dict(inner)
        node[own], node = inner, inner
    value = node.pop(place[-1])
    if not node and len(place) > 1:
        _taken(rest, ".".join(map(str, place[:-1])))
    return value


LIGHTNING = "a checkpoint of Lightning"


def _origin(rest: Mapping[str, Any]) -> str | None:
    if "pytorch-lightning_version" in rest:
        return LIGHTNING
    if {"state_dict", "arch", "version"} <= rest.keys():
        return "a checkpoint of timm"
    return None


def _take_lightnings(made: Contents, rest: dict[str, Any]) -> None:
    """Take what stands elsewhere in a checkpoint of Lightning.

    Its WeightAveraging puts the averages where the parameters are, and the parameters beside them;
    its precision plugin has the scaler; other averages are in the state of a callback.
    """
    if is_params(rest.get("current_model_state")) and is_params(rest.get("state_dict")):
        made.params = dict(rest.pop("current_model_state"))
        made.averages["averaging"] = dict(rest.pop("state_dict"))
    for key in ("MixedPrecision", "MixedPrecisionPlugin", "native_amp_scaling_state"):
        if is_scaler(rest.get(key)):
            made.scaler = rest.pop(key)
    callbacks = rest.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        for key, value in state.items() if isinstance(state, Mapping) else ():
            if is_params(value) and _AVERAGES.search(f"{name}.{key}"):
                made.averages[f"{name}.{key}"] = dict(value)


def _are(looks: Callable[[Any], bool], value: Any) -> bool:
    """Whether a value is one of a kind, or several in a list or a dict."""
    several = value.values() if isinstance(value, Mapping) else value
    are_several = isinstance(value, list | Mapping) and bool(value)
    return looks(value) or (are_several and all(map(looks, several)))


def _are_optimizers(value: Any) -> bool:
    return _are(is_optimizer, value) or is_flattened(value)


def _are_schedulers(key: str, value: Any) -> bool:
    # Schedulers of others may keep anything.
    named = isinstance(value, Mapping) and key in _USUAL["scheduler"]
    return _are(is_scheduler, value) or (named and not _are_optimizers(value))


def _are_networks(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(is_params, value.values()))


def _take_several(
    target: dict[str, Any], role: str, held: Mapping[str, Any], rest: dict[str, Any]
) -> None:
    """Take the optimizers or schedulers of a dict, each under a name of its own."""
    single = is_optimizer if role == "optimizer" else is_scheduler
    found: list[tuple[str, Any]] = []
    for key, value in held.items():
        if isinstance(value, list):
            several = len(value) > 1
            found += [(f"{key}.{i}" if several else key, each) for i, each in enumerate(value)]
        elif single(value) or is_flattened(value) or not all(map(single, value.values())):
            found.append((key, value))
        else:
            found += [(f"{key}.{k}" if k in held else str(k), each) for k, each in value.items()]
        del rest[key]
    for name, value in found:
        own = role if len(found) == 1 else name
        if own in target:
            raise ValueError(f"two {role}s are called {own!r}; rename one in the file")
        target[own] = value


def _one_network(networks: Mapping[str, Any], found: Mapping[Any, Any]) -> str | None:
    candidates = [key for key in networks if key in _USUAL["params"]] or list(networks)
    if len(candidates) > 1 and "student" in candidates:
        candidates = ["student"]
    if len(candidates) > 1:
        names = " and ".join(repr(key) for key in candidates)
        raise ValueError(
            f"{names} could each be the params; say which: "
            f"keys={{'params': {candidates[0]!r}}} (--key params={candidates[0]} on the command "
            f"line); {contents(found)}"
        )
    return candidates[0] if candidates else None


def contents(found: Mapping[Any, Any]) -> str:
    """Say what a dict has: keys and kinds of values."""
    shown = listed([f"{key!r} ({_kind(value)})" for key, value in found.items()], 12)
    return f"it has {shown or 'nothing'}"


def _kind(value: Any) -> str:
    named: tuple[tuple[Callable[[Any], bool], str], ...] = (
        (is_optimizer, "an optimizer's state dict"),
        (is_scheduler, "a scheduler's state dict"),
        (is_scaler, "a GradScaler's state dict"),
    )
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {value.shape}"
    if is_params(value):
        return f"{len(value)} tensors"
    for looks, words in named:
        if looks(value):
            return words
    if isinstance(value, Mapping):
        return "a dict of " + (", ".join(repr(key) for key in list(value)[:4]) or "nothing")
    return type(value).__name__
