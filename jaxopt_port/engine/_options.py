"""The options of an optimizer: numbers that may change between steps, and static ones."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import known_number, with_narrow_indices
from .._untraceable import why
from ..trees import nearest
from ._rule import Program, Rule

P = ParamSpec("P")
R = TypeVar("R")

Schedule: TypeAlias = Callable[[Any], Any]

_OF_OPTAX = {"learning_rate": "lr", "b1": "betas", "b2": "betas"}

# torch's arguments that choose among its own implementations of one rule.
IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")

# Options of optimizers here and in Optax: where one has no such option, it is a mistake.
_OPTIONS_ELSEWHERE = frozenset({
    "accumulator_dtype", "adjust_lr_fn", "alpha", "always_adapt", "amsgrad", "b1", "b2", "beta",
    "beta1", "beta2", "beta2_cap", "beta2_decay", "beta3", "betas", "betas_1d", "bias_correction",
    "caution", "centered", "clip_exp", "clip_threshold", "clipping_threshold",
    "corrected_weight_decay", "d", "d0", "d_coef", "dampening", "decay", "decay_offset",
    "decay_rate", "decouple", "decoupled", "decoupled_decay", "decoupled_weight_decay",
    "degenerated_to_sgd", "eps", "eps_in_sqrt", "eps_root", "etas", "fixed_decay",
    "grad_averaging", "growth_rate", "history_size", "initial_accumulator_value", "lambd",
    "learning_rate", "line_search_fn", "lr", "lr_1d_factor", "lr_decay", "lr_in_momentum",
    "mars_type", "mask", "max_eval", "max_grad_norm", "max_iter", "max_lr_snapshot", "maximize",
    "min_dim_size_to_factor", "momentum", "momentum_decay", "momentum_dtype", "mu_dtype",
    "nesterov", "no_prox", "ns_coefficients", "ns_steps", "optimize_1d", "rectify",
    "relative_step", "rho", "safeguard_warmup", "scale_parameter", "silent_sgd_phase", "slice_p",
    "step_sizes", "t0", "tolerance_change", "tolerance_grad", "trust_clip", "trust_coeff",
    "unscaled_wd", "use_bias_correction", "warmup_init", "warmup_steps", "wd", "weight_decay",
    "weight_lr_power"
})  # fmt: skip

_LARGEST = float(np.finfo(np.float32).max)
# What stands in a vector of numbers for one that was left out, as None. Neither NaN nor infinite:
# either would be an error under ``jax_debug_nans`` or ``jax_debug_infs``.
NO_NUMBER = -_LARGEST


def _is_elsewhere(name: str) -> bool:
    return bool(difflib.get_close_matches(name, _OPTIONS_ELSEWHERE, n=1, cutoff=0.9))


def reject_unknown(name: str, known: Iterable[str], where: str) -> NoReturn:
    """Raise the error for an option that the optimizer does not have."""
    if name in IMPLEMENTATIONS:
        raise TypeError(
            f"{name!r}{where} chooses among torch's own implementations of the same rule and has "
            "no meaning here; leave it out"
        )
    known, torchs = list(known), _OF_OPTAX.get(name)
    hint = f'; torch calls it "{torchs}"' if torchs in known else nearest(name, known)
    raise TypeError(f"unknown option {name!r}{where}{hint}; the options are {', '.join(known)}")


# What a number may be given as: a number, an array of one, or an Optax schedule of the count.
Number: TypeAlias = "float | jax.Array | np.generic | Schedule"

# What it is when it is concrete.
Concrete: TypeAlias = float | tuple[float | None, ...]


def as_number(name: str, value: Any, where: str, like: Any = None) -> Concrete:
    """Return a concrete number as a Python float (a tuple of numbers as one of floats).

    Arrays of one element will do, torch's too.

    Args:
        name: the argument's name.
        value: what was given for it.
        where: the group, as messages show it.
        like: the default, which says whether the argument is a tuple, how long, and which of its
            numbers may be left out, as None.

    Raises:
        ValueError: an array of more than one element, or a magnitude beyond float32's.
        TypeError: not a number, or not as many of them as there should be.
    """
    given = len(value) if isinstance(value, tuple | list) else None
    expected = len(like) if isinstance(like, tuple | list) else None
    if given != expected:
        wanted = "one number" if expected is None else f"{expected} numbers"
        raise TypeError(f"{name}{where} must be {wanted}; got {value!r}")
    if given is not None:
        pairs = zip(value, like, strict=True)
        parts: list[Any] = [
            None if part is None and default is None else as_number(name, part, where)
            for part, default in pairs
        ]
        return tuple(parts)
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name}{where} is traced, but a grouped optimizer holds its numbers in its state; "
            "give a concrete number and change it by jp.set_hyperparams, or inject the lower-case "
            "spelling"
        )
    if isinstance(value, bool | str) or value is None:
        raise TypeError(f"{name}{where} must be a number or an Optax schedule; got {value!r}")
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        raise ValueError(f"Tensor {name} must be 1-element{where}; got an array of shape {shape}")
    try:
        number = float(value.item() if hasattr(value, "item") else value)
    except OverflowError:
        raise ValueError(
            f"{name}{where} is an integer beyond all floats; numbers beyond {_LARGEST:.2g} overflow"
        ) from None
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}{where} must be a number or an Optax schedule; got {value!r}"
        ) from None
    if math.isfinite(number) and abs(number) > _LARGEST:
        raise ValueError(f"{name}{where} is {number}; numbers beyond {_LARGEST:.2g} overflow")
    return number


def check_alike(options: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a pair of betas of which one is an array, as torch does."""
    betas = options.get("betas")
    pair = betas if isinstance(betas, tuple | list) else ()
    arrays = [hasattr(b, "shape") and not isinstance(b, np.generic) for b in pair]
    if any(arrays) and not all(arrays):
        raise ValueError(f"betas must be either both floats or both Tensors{where}; got {betas!r}")


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

    @functools.cached_property
    def names(self) -> list[str]:
        return [p.name for p in self.signature.parameters.values() if p.kind != p.VAR_KEYWORD]

    @functools.cached_property
    def open_ended(self) -> bool:
        """Whether the factory takes ``**kwargs``."""
        return len(self.names) < len(self.signature.parameters)

    @functools.cached_property
    def defaults(self) -> Mapping[str, Any]:
        parameters = self.signature.parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    @functools.cached_property
    def required(self) -> list[str]:
        """The names of those without a default."""
        parameters = self.signature.parameters.values()
        some = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        return [p.name for p in parameters if p.default is p.empty and p.kind not in some]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Name positional arguments; defaults are left out."""
        self.check_names(kwargs, "")
        options = dict(self.signature.bind_partial(*args, **kwargs).arguments)
        for p in self.signature.parameters.values():
            if p.kind == p.VAR_KEYWORD:
                options.update(options.pop(p.name, {}))
        return options

    def check_names(self, options: Iterable[str], where: str) -> None:
        for name in options:
            if name not in self.names and not self.open_ended:
                reject_unknown(name, self.names, where)

    def are_own(self, options: Iterable[str], where: str, known: Container[str] = ()) -> list[str]:
        """Return those names that are keys of the user's own, as torch's groups may have.

        Args:
            options: the names.
            where: which group.
            known: those of which it is known, though options of other optimizers are called so.

        Raises:
            TypeError: a name that is nearly an option's, or an option of another optimizer.
        """
        if self.open_ended:
            return []
        own = [name for name in options if name not in self.names]
        for name in own:
            near = difflib.get_close_matches(name.lower(), self.names, n=1, cutoff=0.7)
            if (
                (near and not _extends(name, near[0]))
                or name in IMPLEMENTATIONS
                or (name not in known and _is_elsewhere(name))
            ):
                reject_unknown(name, self.names, where)
        return own

    def split(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split options into numbers (and schedules of them), which may change, and static ones."""
        numbers: dict[str, Any] = {}
        static: dict[str, Any] = {}
        for name, value in options.items():
            known = name in self.arities or (self.rule is None and self.is_number(name, value))
            (numbers if known else static)[name] = value
        return numbers, static

    @functools.cached_property
    def arities(self) -> dict[str, int | None]:
        """Of a rule's numbers, by name, how many each is: None for one that is no tuple."""
        found: dict[str, int | None] = {}
        for p in self.signature.parameters.values() if self.rule is not None else ():
            parts = p.default if isinstance(p.default, tuple) else (p.default,)
            floats = [isinstance(part, float) for part in parts if part is not None]
            if floats and all(floats):
                found[p.name] = len(parts) if parts is p.default else None
        return found

    def is_number(self, name: str, value: Any) -> bool:
        """Whether an option is a number (or a schedule of one), which may change between steps."""
        if self.rule is not None:
            return name in self.arities
        parameter = self.signature.parameters.get(name)
        default = None if parameter is None else parameter.default
        if name in self.static:
            return False
        if callable(value):
            own = default is inspect.Parameter.empty or not callable(default)
            return own and _is_schedule(value)
        if isinstance(value, bool | str | tuple | list) or value is None:
            return False
        if isinstance(default, int):  # a size or a count, which Optax's factories compare in Python
            return False
        if isinstance(default, float) and hasattr(value, "shape"):
            return bool(math.prod(value.shape) == 1)
        return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)

    def check_flags(self, static: Mapping[str, Any], where: str) -> None:
        """Raise TypeError for a flag of a rule that is neither True nor False."""
        for name, default in self.defaults.items() if self.rule is not None else ():
            value = static.get(name, default)
            if isinstance(default, bool) and not isinstance(value, bool | np.bool_):
                raise TypeError(f"{name}{where} must be True or False; got {value!r}")


def _extends(name: str, option: str) -> bool:
    """Whether a name is an option's with a word more, as ``weight_decay_mult``: no slip of it."""
    return f"_{option}_" in f"_{name}_" and all(name.split("_"))


def named(call: Callable[P, R]) -> Callable[P, R]:
    """Say of an argument that a function does not have what would be right."""
    known = [name for name in inspect.signature(call).parameters if name not in ("cls", "self")]

    @functools.wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                reject_unknown(name, known, "")
        return call(*args, **kwargs)

    return checked


def of_rule(rule: Rule[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a factory of the transformations of a rule, and give the rule its signature."""

    def of_this(factory: Callable[P, R]) -> Callable[P, R]:
        made = named(factory)
        return marked(made, rule=replace(rule, factory=made))

    return of_this


def whole_tree(factory: Callable[P, R]) -> Callable[P, R]:
    """Mark a factory that treats all parameters as one vector, with one set of numbers."""
    return marked(named(factory), whole_tree=True)


def marked(factory: Callable[P, R], **marks: Any) -> Callable[P, R]:
    # functools.wraps copies marks: a wrapper (optax.inject_hyperparams, say) is another factory.
    for name, value in {**marks, "itself": factory}.items():
        setattr(factory, name, value)
    return factory


def _mark(factory: Callable[..., Any], name: str) -> Any:
    return getattr(factory, name, None) if getattr(factory, "itself", None) is factory else None


def rule_of(factory: Callable[..., Any]) -> Rule[Any] | None:
    """Return the rule behind a lower-case factory of this library, or None."""
    rule: Rule[Any] | None = _mark(factory, "rule")
    return rule


def is_whole_tree(factory: Callable[..., Any]) -> bool:
    return bool(_mark(factory, "whole_tree"))


def arguments_of(factory: Callable[..., Any], static: Iterable[str] = ()) -> Arguments:
    """Return the arguments of a factory; ``static`` are the names that the user says are none."""
    rule = rule_of(factory)
    if rule is not None:
        return arguments_of_rule(rule)
    found = Arguments(_plain(inspect.signature(factory)), None, frozenset(static))
    if not is_whole_tree(factory):
        return found
    # One of this library's, whose numbers are those with a number for a default.
    static = [name for name, value in found.defaults.items() if not isinstance(value, float)]
    return replace(found, static=frozenset(static))


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature without its types, some of which (JAX's array) cannot be pickled."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


@functools.lru_cache(maxsize=256)
def arguments_of_rule(rule: Rule[Any]) -> Arguments:
    return Arguments(_plain(inspect.signature(rule.signed)), rule)


def make_program(rule: Rule[Any], numbers: Mapping[str, Any], static: Mapping[str, Any]) -> Program:
    holds = None
    if rule.holds is not Rule.holds:
        # A number that may yet change needs whatever state any value of it would.
        known = {k: known_number(v) for k, v in numbers.items()}
        holds = rule.holds(**known, **static)
    return Program(rule, tuple(sorted(static.items())), holds)


def check_together(groups: Iterable[tuple[Rule[Any], str, Mapping[str, Any]]]) -> None:
    """Raise ValueError where groups of a rule differ in what has to be that of all.

    Args:
        groups: of each its rule, which has `Rule.own_options`, how messages show it, and its
            options; traced ones are not known. A schedule is like none but itself.
    """
    first: dict[tuple[str, str], tuple[str, Any]] = {}
    for rule, label, options in groups:
        own = rule.own_options or frozenset()
        for name in arguments_of_rule(rule).names:
            value = options.get(name, arguments_of_rule(rule).defaults[name])
            traced = any(isinstance(part, jax.Array) for part in jax.tree.leaves(value))
            may_rest = name == "lr" and rule.zero_rates
            if traced or name in own or (may_rest and value == 0):
                continue
            other, known = first.setdefault((rule.name, name), (label, value))
            if value != known:
                also = ", or 0" if may_rest else ""
                raise ValueError(
                    f"{name} ({label}) is {value}, that of {other} {known}: {rule.name} has "
                    f"one for all groups{also}; where it is to change, give all the same schedule, "
                    f"or set it for all at once: jp.set_hyperparams(state, {name}=…)"
                )


def _is_schedule(function: Callable[..., Any]) -> bool:
    """Whether a callable makes a number of a count, as a mask of weight decay, say, does not."""
    if isinstance(function, type):  # a dtype
        return False
    try:
        value = first_value(function)
    except Exception:  # whatever a function raises that does not take a count
        return False
    return value.ndim == 0 and np.issubdtype(value.dtype, np.number)


def first_value(schedule: Schedule) -> Any:
    """Return a schedule's value at count 0, also while something else is being traced."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(value_at(schedule, np.int32(0)))


def value_at(schedule: Schedule, count: Any) -> Any:
    """Return a schedule's value; under x64 it is calculated in float64.

    An int32 count would make float32 of it. An array of one element will do.

    Raises:
        TypeError: a schedule that cannot be traced.
    """
    try:
        value = with_narrow_indices(schedule, jnp.asarray(count, jnp.int64))
    except TypeError as error:
        if not isinstance(count, jax.core.Tracer):
            raise
        raise TypeError(f"the schedule {why(schedule, error)}") from error
    return jnp.reshape(value, ()) if getattr(value, "size", 0) == 1 else value
