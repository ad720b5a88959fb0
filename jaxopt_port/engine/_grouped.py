"""The CapWords spelling."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec

import optax

from ._arguments import Arguments
from ._groups import GroupedTransformation, Groups, param_groups
from ._selectors import REST

P = ParamSpec("P")


class Grouped(Generic[P]):
    """A lower-case factory with torch's calling convention: parameter groups first."""

    def __init__(
        self, name: str, factory: Callable[P, optax.GradientTransformationExtraArgs]
    ) -> None:
        signature = inspect.signature(factory)
        functools.update_wrapper(self, factory, updated=())
        self.__name__ = self.__qualname__ = name
        params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=REST)
        self.__signature__ = signature.replace(
            parameters=[params, *signature.parameters.values()],
            return_annotation=GroupedTransformation,
        )
        self.factory = factory
        self._arguments = Arguments(signature)

    def __call__(
        self, params: Groups = REST, /, *args: P.args, **kwargs: P.kwargs
    ) -> GroupedTransformation:
        """Return the optimizer; see the lower-case spelling for its arguments."""
        options: dict[str, Any] = dict(kwargs)
        groups = options.pop("params", params)
        return param_groups(self.factory, groups, **self._arguments.bind(args, options))

    def __repr__(self) -> str:
        return f"<jp.{self.__name__}{self.__signature__}>"
