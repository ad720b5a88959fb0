"""What an optimizer's arguments are: numbers that may change between steps, and static ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import jax
import numpy as np

from ..rules import Rule
from ._paths import nearest

Schedule: TypeAlias = Callable[[Any], Any]

# torch's arguments that choose among its own implementations of one rule.
_IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")


def reject_unknown(name: str, known: Iterable[str], where: str) -> NoReturn:
    """Raise the error for an option that the optimizer does not have."""
    if name in _IMPLEMENTATIONS:
        raise TypeError(
            f"{name!r}{where} chooses among torch's own implementations of the same rule and has "
            "no meaning here; leave it out"
        )
    known = list(known)
    raise TypeError(
        f"unknown option {name!r}{where}{nearest(name, known)}; the options are {', '.join(known)}"
    )


def as_number(name: str, value: Any, where: str) -> float | tuple[float, ...]:
    """Return a concrete number as a Python float (a tuple of numbers as one of floats).

    Raises:
        ValueError: an array of more than one element.
        TypeError: not a number.
    """
    if isinstance(value, tuple | list):
        return tuple(float(np.float64(as_number(name, v, where))) for v in value)
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name}{where} is traced, but a grouped optimizer holds its numbers in its state; "
            "give a concrete number and change it by jp.set_hyperparams, or inject the lower-case "
            "spelling"
        )
    if isinstance(value, bool | str) or value is None:
        raise TypeError(f"{name}{where} must be a number or an Optax schedule; got {value!r}")
    if np.size(value) != 1:
        raise ValueError(
            f"Tensor {name} must be 1-element{where}; got an array of shape {np.shape(value)}"
        )
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}{where} must be a number or an Optax schedule; got {value!r}"
        ) from None


@dataclass(frozen=True)
class Arguments:
    """The arguments of one optimizer.

    Attributes:
        signature: of the lower-case spelling.
        rule: the rule behind it, or None for a factory of Optax or of the user.
        static: names that are never numbers, by the user's word.
    """

    signature: inspect.Signature
    rule: Rule[Any] | None = None
    static: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.signature.parameters.values() if p.kind != p.VAR_KEYWORD]

    @property
    def open_ended(self) -> bool:
        """Whether the factory takes ``**kwargs``."""
        return any(p.kind == p.VAR_KEYWORD for p in self.signature.parameters.values())

    def defaults(self) -> dict[str, Any]:
        parameters = self.signature.parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Name positional arguments; defaults are left out."""
        self.check_names(kwargs, "")
        bound = self.signature.bind_partial(*args, **kwargs)
        options = dict(bound.arguments)
        for p in self.signature.parameters.values():
            if p.kind == p.VAR_KEYWORD:
                options.update(options.pop(p.name, {}))
        return options

    def check_names(self, options: Iterable[str], where: str) -> None:
        for name in options:
            if name not in self.names and not self.open_ended:
                reject_unknown(name, self.names, where)

    def is_number(self, name: str, value: Any) -> bool:
        """Whether an option is a number (or a schedule of one), which may change between steps."""
        if name in self.static:
            return False
        parameter = self.signature.parameters.get(name)
        default = inspect.Parameter.empty if parameter is None else parameter.default
        if self.rule is not None:
            return _is_float(default)
        if callable(value):
            annotation = "" if parameter is None else str(parameter.annotation)
            return default is inspect.Parameter.empty or "Schedule" in annotation
        if isinstance(value, bool | str | tuple | list) or value is None:
            return False
        if isinstance(default, int):  # a size or a count, which Optax's factories compare in Python
            return False
        return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)

    def problems(self, options: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield what is wrong with a full set of concrete options."""
        if self.rule is not None:
            yield from self.rule.arguments(**options)

    def check_values(self, options: Mapping[str, Any], where: str) -> None:
        """Raise ValueError for the first number out of its range."""
        for message, remedy in self.problems(options):
            raise ValueError(f"{message}{where}; {remedy}.")


def _is_float(default: Any) -> bool:
    if isinstance(default, tuple):
        return bool(default) and all(isinstance(v, float) for v in default)
    return isinstance(default, float)


def first_value(schedule: Schedule) -> Any:
    """Return a schedule's value at count 0, also while something else is being traced."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(schedule(np.int32(0)))
