"""What an optimizer does with one parameter: the base of every optimizer here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._compat import (
    as_laid_out,
    check_whole,
    laid_out_as,
    mixes_elements,
    on_explicit_mesh,
    on_mesh_of,
)
from ..numerics import uncontracted
from ..numerics.torch_ops import acting_alpha, add, addcdiv, quotient, widened

P = ParamSpec("P")

Static: TypeAlias = tuple[tuple[str, Any], ...]
LeafState: TypeAlias = dict[str, Any]
Shared: TypeAlias = dict[str, Any]
Scalars: TypeAlias = dict[str, jax.Array]


class Problem(NamedTuple):
    """A bad argument or parameter: torch's own message, then what would be right."""

    message: str
    remedy: str


class Sum(NamedTuple):
    """A new parameter as ``base + alpha * addend``, rounded once: torch's ``base.add_(addend)``.

    Where ``base`` is the parameter itself, ``alpha * addend`` is the Optax update, exactly; an
    update computed as the difference of two rounded parameters is not.

    Attributes:
        base: what is added to.
        addend: of the same shape.
        alpha: a number, or an array of the shape.
        over: the divisor of ``addend``, for torch's ``base.addcdiv_(addend, over, value=alpha)``.
    """

    base: jax.Array
    addend: jax.Array
    alpha: jax.Array | float = 1.0
    over: jax.Array | None = None


class Rows(NamedTuple):
    """A new parameter of which only some entries are new: ``param[indices] + delta``.

    Attributes:
        indices: one array per indexed axis, sorted and unique; out of bounds for no entry.
        delta: what is added there.
    """

    indices: tuple[jax.Array, ...]
    delta: jax.Array


def _no_state(**_: Any) -> Shared:
    return {}


def step_count(**_: Any) -> Shared:
    """Begin a count of steps, and nothing else: the ``start`` of most rules."""
    return {"step": 0.0}


def _nothing_shared(shared: Shared, **_: Any) -> tuple[Shared, Scalars]:
    return shared, {}


def _holds_all(**_: Any) -> frozenset[str] | None:
    return None


def _never(shape: tuple[int, ...], **_: Any) -> bool:
    return False


def _accepts_all(param: jax.Array) -> Problem | None:
    return None


@dataclass(frozen=True)
class Rule(Generic[P]):
    """An update rule: what torch does with the tensors of one parameter.

    All functions but `arguments` are pure and are called by the engine, which deals with trees,
    groups and hyperparameters. Options come by keyword: numbers as float64 scalars (a tuple of
    them as a vector), static options as they are. Calculations with numbers alone are float64, as
    Python's are; ``numerics.torch_ops`` rounds them where they meet an array. Complex parameters
    come as real arrays with the real and imaginary part in a new last axis.

    Attributes:
        arguments: a generator function which yields a :class:`Problem` for each bad argument. Its
            signature is the optimizer's, where no factory has that: an argument whose default is a
            float (or a tuple of floats, None for one that may be left out) is a number, settable
            between steps; any other is static.
        init: ``init(param, **options)``: the arrays held for a leaf, by torch's name.
        update: ``update(grad, param, state, **options, **scalars) -> (new_param, state)`` for a
            leaf; ``new_param`` is an array, a :class:`Sum` or :class:`Rows`.
        start: ``start(**options)``: what is held once for all leaves of a group, such as the step
            count: scalars, int32, float32 or bool.
        advance: ``advance(shared, **options) -> (shared, scalars)``: what follows from it once per
            group and step: its next value, and float64 scalars, such as bias corrections, that
            ``update`` is given by name, rounded to the type that the leaf is computed in. They
            replace options of the same name.
        holds: ``holds(**options)``: the names of the state that these options need, or None for
            all of it; its own arguments are those that it goes by. A number that is not known when
            the optimizer is built is NaN.
        gathers: ``gathers(grad, param, state, shared, **options)``: float64 scalars of a leaf.
            ``advance`` is given their sums, by name, over all leaves that take the step, of all
            groups of the rule; nothing where no leaf steps.
        common: names of what is shared that is one for all groups of the rule, a count first: what
            has rested takes them over from where that count is largest.
        own_options: the options that groups may have of their own, where the others are those of
            all groups: the rule works out something for all together, say; None for all.
        zero_rates: whether, where rates are those of all groups, one may have 0 all the same.
        accepts: ``accepts(param)``: the problem with a parameter of this shape and dtype, if any.
        sparse: whether gradients are row-sparse: a ``BCOO`` or a pair ``(indices, values)``; None
            for either.
        begins: what is shared and zero until torch's optimizer makes its state, in the first step;
            None where it does so before. A flag (a bool) is not kept by torch itself.
        elementwise: whether the update is the same in any layout of the parameter.
        oriented: ``oriented(shape, **static)``: whether the step of an array of this shape is
            another one where Flax's layout of a kernel takes the place of torch's.
        title: the optimizer's name, where it is not that of what has the signature.
        implied: what torch's groups say of this optimizer that is no argument of it; ``update``
            takes it too.
        factory: the function whose signature is the optimizer's; ``of_rule`` puts it here.
    """

    arguments: Callable[P, Iterator[Problem]]
    init: Callable[..., LeafState]
    update: Callable[..., tuple[jax.Array | Sum | Rows, LeafState]]
    start: Callable[..., Shared] = _no_state
    advance: Callable[..., tuple[Shared, Scalars]] = _nothing_shared
    holds: Callable[..., frozenset[str] | None] = _holds_all
    accepts: Callable[[jax.Array], Problem | None] = _accepts_all
    gathers: Callable[..., Scalars] | None = None
    common: tuple[str, ...] = ()
    own_options: frozenset[str] | None = None
    zero_rates: bool = False
    sparse: bool | None = False
    begins: str | None = "step"
    elementwise: bool = True
    oriented: Callable[..., bool] = _never
    title: str = ""
    implied: Static = ()
    factory: Callable[..., Any] | None = None

    @property
    def signed(self) -> Callable[..., Any]:
        """What has the optimizer's signature."""
        return self.factory or self.arguments

    @functools.cached_property
    def state_options(self) -> frozenset[str]:
        """The options by which `holds` goes."""
        own = inspect.signature(self.holds).parameters.values()
        return frozenset({p.name for p in own if p.kind is not p.VAR_KEYWORD})

    @property
    def name(self) -> str:
        """The optimizer's name, as messages show it."""
        return self.title or self.signed.__name__


class Program(NamedTuple):
    """A rule with all that is static about it.

    Attributes:
        rule: the update rule.
        static: its static arguments.
        holds: the names of the state it needs, or None for all of it.
    """

    rule: Rule[Any]
    static: Static
    holds: frozenset[str] | None

    def init_leaf(self, param: jax.Array, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of one leaf, complex where the leaf is."""
        real = as_real(param) if jnp.iscomplexobj(param) else param
        init = functools.partial(self.rule.init, **numbers, **dict(self.static))
        if self.rule.elementwise and jax.sharding.get_abstract_mesh().manual_axes:
            _check_not_mixed(self.rule, init, real, real)
        held = init(real)
        if self.holds is not None:
            held = {name: held[name] for name in held if name in self.holds}
        return held if real is param else as_complex(held)

    def names(self, numbers: Mapping[str, Any]) -> list[str]:
        """Return what a leaf's state may consist of, whatever the parameters are."""
        leaves = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((), (1, 1))]
        states = [jax.eval_shape(self.init_leaf, leaf, numbers) for leaf in leaves]
        return list(states[0] | states[1])

    def start(self, numbers: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Return what a group's leaves share, in types that survive where x64 is off."""
        narrow, made = {"float64": jnp.float32, "int64": jnp.int32}, {}
        for name, value in self.rule.start(**numbers, **dict(self.static)).items():
            if self.holds is None or name in self.holds:
                x = jnp.asarray(value)
                made[name] = x.astype(narrow.get(x.dtype.name, x.dtype))
        return made

    def kinds(self, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Return the types of what a group's leaves share, given its numbers or their shapes."""
        return {k: x.dtype for k, x in jax.eval_shape(self.start, dict(numbers)).items()}

    def advance(
        self,
        shared: dict[str, jax.Array],
        numbers: Mapping[str, Any],
        sums: Mapping[str, jax.Array],
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        after, scalars = self.rule.advance(shared, **numbers, **sums, **dict(self.static))
        return {k: jnp.asarray(v, shared[k].dtype) for k, v in after.items()}, scalars


@dataclass(frozen=True)
class LeafLayout:
    """How a rule sees a leaf: the leaf is ``flip(array.reshape(view).transpose(axes))``.

    Attributes:
        shape: of the array that the rule sees.
        view: what it is reshaped to.
        axes: how that is transposed.
        flip: the axes of the leaf that run the other way.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    flip: tuple[int, ...] = ()

    def to_rule(self, leaf: jax.Array) -> jax.Array:
        axes = tuple(int(axis) for axis in np.argsort(self.axes))
        return jnp.flip(leaf, self.flip).transpose(axes).reshape(self.shape)

    def from_rule(self, array: jax.Array) -> jax.Array:
        return jnp.flip(array.reshape(self.view).transpose(self.axes), self.flip)


# By path; a leaf that has none is seen as it is.
Layouts: TypeAlias = tuple[tuple[str, LeafLayout], ...]


def as_real(tree: Any) -> Any:
    """View complex arrays as real, as ``torch.view_as_real`` does: parts in a new last axis."""
    return jax.tree.map(lambda x: jnp.stack([x.real, x.imag], -1), tree)


def as_complex(tree: Any) -> Any:
    """Undo `as_real`."""
    return jax.tree.map(lambda x: lax.complex(x[..., 0], x[..., 1]), tree)


def _applied(result: jax.Array | Sum | Rows, param: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the new parameter and the Optax update of a rule's result."""
    if isinstance(result, Sum):
        base, addend, alpha, over = result
        if over is None:
            new, update = add(base, addend, alpha=alpha), None
        else:
            new = addcdiv(base, addend, over, value=alpha)
            update = quotient(addend, over, value=alpha)
        if base is not param:
            return new, new - param
        if update is None:
            update = widened(addend) * acting_alpha(alpha, param.dtype)
        return new, update.astype(param.dtype)
    if isinstance(result, Rows):
        rows = result.delta.astype(param.dtype)
        new, update = (
            x.at[result.indices].add(
                rows, mode="drop", indices_are_sorted=True, unique_indices=True
            )
            for x in (param, jnp.zeros_like(param))
        )
        return new, update
    return result, result - param


def _check_not_mixed(rule: Rule[Any], function: Callable[..., Any], param: Any, *args: Any) -> None:
    """Raise within `jax.shard_map` where elements meet of which each device has only a part."""
    if mixes_elements(function, *args):
        check_whole(param, rule.name, "a parameter")


@functools.lru_cache(maxsize=256)
def leaf_update(program: Program) -> Callable[..., Any]:
    """Return the update of one leaf, ``(grad, param, state, numbers) -> (new, delta, state)``.

    Leaves of one shape share its trace and its lowering, so that both cost little per leaf, and XLA
    reads it once. (XLA inlines it before all else.)
    """
    rule, static = program.rule, {**dict(program.static), **dict(program.rule.implied)}

    def update(
        grad: Any, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        if on_explicit_mesh(param):
            return laid_out(grad, param, state, numbers)
        is_complex = jnp.iscomplexobj(param)
        if is_complex:
            grad, param, state = as_real((grad, param, state))
        # They may be products in the caller's program.
        param = uncontracted(param)
        grad = uncontracted(grad) if isinstance(grad, jax.Array) else grad
        stepped = functools.partial(rule.update, **numbers, **static)
        if rule.elementwise and jax.sharding.get_abstract_mesh().manual_axes:
            _check_not_mixed(rule, stepped, param, grad, param, state)
        result, after = stepped(grad, param, state)
        new, delta = _applied(result, param)
        made: tuple[jax.Array, jax.Array, dict[str, Any]] = (new, delta, after)
        return as_complex(made) if is_complex else made

    def laid_out(
        grad: Any, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        def held(*args: Any) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
            new, delta, after = update(*args)
            return new, delta, {name: after[name] for name in state}

        # What was read or made apart from the mesh is on it from here on.
        state = {name: on_mesh_of(param, array) for name, array in state.items()}
        # Where the state is split further than the parameter, so is the calculation.
        like = next((x for x in state.values() if x.shape == param.shape), param)
        new, delta, after = as_laid_out(held, (like, like, state))(grad, param, state, numbers)
        return laid_out_as(param, new), laid_out_as(param, delta), after

    return jax.jit(update)
