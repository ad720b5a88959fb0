"""Parameter groups: torch's ``param_groups``, made of Optax's own parts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeAlias

import jax
import optax

from ._definition import Definition
from ._factory import arguments_of, named
from ._selectors import REST, Selector, is_boolean_tree
from ._table import GroupsState

Groups: TypeAlias = "Selector | Iterable[Mapping[str, Any]]"


def _register(cls: type[Optimizer]) -> None:
    """Let JAX see an optimizer as static: two functions are not all that it is made of."""
    jax.tree_util.register_pytree_node(cls, lambda tx: ((), tx), lambda tx, _: tx)


class Optimizer(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """An optimizer with groups: an Optax transformation that remembers what it was built from.

    Attributes:
        factory: of a subclass, the lower-case spelling.
        definition: the groups and their options.
    """

    factory: ClassVar[Callable[..., optax.GradientTransformation]]
    definition: Definition

    def __init_subclass__(cls) -> None:
        _register(cls)
        if "__new__" in vars(cls):
            cls.__new__ = named(cls.__new__)  # type: ignore[method-assign]

    @classmethod
    def with_options(cls, params: Groups, options: Mapping[str, Any]) -> Self:
        """Return the optimizer of ``factory`` with groups.

        Args:
            params: the groups, as `param_groups` takes them.
            options: those of all groups; what is no argument (as in ``locals()``) is ignored.
        """
        _check_not_injected()
        arguments = arguments_of(cls.factory)
        own = {name: options[name] for name in arguments.names}
        return cls.of(Definition(cls.factory, arguments, own).extended(as_groups(params)))

    # `step` compiles once for equal transformations: an optimizer that is rebuilt in mid-run with
    # other numbers, which stand in the state, runs the same program.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimizer) and self._program == other._program

    def __hash__(self) -> int:
        return hash(self._program)

    @property
    def _program(self) -> tuple[Any, ...]:
        definition = self.definition
        trained = [group for group in definition.groups if not group.frozen]
        if any(group.rule is None or group.scheduled for group in trained):
            return tuple(self)
        return definition.groups, definition.layouts

    @classmethod
    def of(cls, definition: Definition) -> Self:
        """Return the optimizer of a definition."""

        def init(params: Any) -> GroupsState:
            return definition.init(params, definition.table(params))

        tx: Self = tuple.__new__(cls, (init, definition.update))
        tx.definition = definition
        return tx

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.definition,)

    def __repr__(self) -> str:
        groups = "\n".join(member.shown() for member in self.definition.members)
        return f"{self._name} (\n{groups}\n)"

    @property
    def _name(self) -> str:
        if type(self) is not Optimizer:
            return type(self).__name__
        return getattr(self.definition.factory, "__name__", repr(self.definition.factory))


_register(Optimizer)


def _check_not_injected() -> None:
    """Raise TypeError where a factory under ``optax.inject_hyperparams`` is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == optax.inject_hyperparams.__code__.co_filename:
            raise TypeError(
                "a grouped optimizer holds its numbers itself, so changes made through "
                "optax.inject_hyperparams would be lost; inject the lower-case spelling, or use "
                "this one bare, with jp.set_hyperparams"
            )


def as_groups(params: Groups) -> list[Mapping[str, Any]]:
    """Return a list of groups from what torch would take: groups, or parameters alone.

    Raises:
        TypeError: one dict without its list, or a list that mixes groups and selectors.
        ValueError: an empty list.
    """
    if isinstance(params, Mapping) and "params" in params and not is_boolean_tree(params):
        raise TypeError(
            "parameter groups are a list of dicts; got one dict: put it into a list. (Parameters "
            "themselves are given to tx.init(params), not here.)"
        )
    if isinstance(params, Iterator):
        params = list(params)
    if not isinstance(params, list | tuple):
        return [{"params": params}]
    if not params:
        raise ValueError("optimizer got an empty parameter list; leave it out to train all leaves")
    odd = [group for group in params if not isinstance(group, Mapping)]
    if len(odd) == len(params):
        return [{"params": params}]
    if odd:
        raise TypeError(f"each parameter group must be a dict; got {odd[0]!r} among dicts")
    return list(params)


def param_groups(
    factory: Callable[..., optax.GradientTransformation],
    params: Groups = REST,
    *,
    static_args: str | Iterable[str] = (),
    **defaults: Any,
) -> Optimizer:
    """Give any factory torch's parameter groups, with every number settable between steps.

    The counterpart of torch's ``params`` argument. A factory of this library gets one injection for
    all groups that differ in numbers alone; another one gets one ``optax.inject_hyperparams`` per
    group under ``optax.multi_transform``.

    Args:
        factory: ``jp.sgd``, ``optax.adamw``, or a function of the user's that takes numbers and
            returns a transformation. Not one that is injected already.
        params: the groups: dicts with ``"params"`` (a selector), optionally ``"name"`` and
            ``"frozen"``, and options. A selector alone is one group; the default is all leaves.
        static_args: arguments of the factory that it must be given as Python numbers. Those whose
            default is an ``int``, a ``bool``, a ``str`` or None with such a value are known to be.
        **defaults: options for the groups that do not set them.

    Returns:
        A transformation. ``init`` raises for selectors that do not fit the parameters.

    Raises:
        TypeError: an unknown option, or a value that is no number.
        ValueError: a number out of range; messages name the group.

    Example:
        >>> import jax.numpy as jnp, optax, jaxopt_port as jp
        >>> tx = jp.param_groups(optax.adamw, [{"params": "**/bias", "weight_decay": 0.0},
        ...                                    {"params": jp.REST}], learning_rate=3e-4)
        >>> state = tx.init({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
        >>> [group["weight_decay"] for group in jp.get_hyperparams(state)]
        [0.0, 0.0001]
    """
    _check_not_injected()
    signature = inspect.signature(factory)
    if "params" in signature.parameters:
        name = getattr(factory, "__name__", repr(factory))
        raise TypeError(
            f"{name} takes 'params' itself, so it has groups of its own; pass the lower-case "
            f"spelling, {name.lower()}"
        )
    arguments = arguments_of(
        factory, [static_args] if isinstance(static_args, str) else static_args
    )
    arguments.check_names(defaults, "")
    definition = Definition(factory, arguments, {**arguments.defaults(), **defaults})
    return Optimizer.of(definition.extended(as_groups(params)))
