"""`jp.spelled`: the code that builds an optimizer again."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._untraceable import name_of
from .engine import (
    REST,
    Definition,
    Optimizer,
    arguments_of,
    find_groups_state,
    get_hyperparams,
    is_whole_tree,
)
from .optim import class_of


def spelled(tx: Optimizer, state: Any = None) -> str:
    """Return the code that builds the same optimizer.

    What torch shows of an optimizer with ``print``, as something that can be run.

    Args:
        tx: an optimizer with groups, of this library or of `jp.param_groups`.
        state: its state, for the numbers that it has now; those it was built with by default.

    Returns:
        Python, with its imports; it makes ``tx``. Options that are the defaults are left out.

    Raises:
        TypeError: ``tx`` has no groups.
        ValueError: a selector or a number is a function of the user's, or a group has no
            parameters, which no code selects.

    Example:
        >>> import jaxopt_port as jp
        >>> tx = jp.SGD([{"params": "head", "lr": 0.5}, {"params": jp.REST}], momentum=0.9)
        >>> print(spelled(tx))
        import jaxopt_port as jp
        <BLANKLINE>
        tx = jp.SGD(
            [
                {"params": "head", "lr": 0.5},
                {"params": jp.REST},
            ],
            momentum=0.9,
        )
    """
    if not isinstance(tx, Optimizer):
        around, _, inner = name_of(getattr(tx, "update", None)).partition(".<locals>")
        raise TypeError(
            "spelled takes an optimizer with groups; got "
            + (
                f"what {around} makes: give it the optimizer that {around} was given, and write "
                f"{around}(…) around what it returns"
                if inner
                else type(tx).__name__
            )
        )
    definition = tx.definition
    imports = {"import jaxopt_port as jp"}
    made = class_of(definition.factory)
    call = f"jp.{made.__name__}" if made else "jp.param_groups"
    first = [] if made else [_factory(definition.factory, imports)]
    options = [_options_of(i, definition, state) for i in range(len(definition.members))]
    shared = _shared(definition, options)
    defaults = arguments_of(definition.factory).defaults
    given = {k: v for k, v in shared.items() if not _is_in(k, v, defaults)}
    groups = [_group(definition, i, own, shared, given, imports) for i, own in enumerate(options)]
    lines = list(first)
    if groups != ['{"params": jp.REST}']:
        lines.append("\n".join(["[", *(f"    {group}," for group in groups), "]"]))
    lines += [f"{k}={_value(v)}" for k, v in given.items()]
    if definition.arguments.static and not is_whole_tree(definition.factory):
        lines.append(f"static_args=[{', '.join(map(quoted, sorted(definition.arguments.static)))}]")
    text = f"tx = {call}({', '.join(lines)})"
    if len(text) > 96 or "\n" in text:
        inner = "".join(f"    {line},\n" for line in ",\n".join(lines).split("\n"))
        inner = inner.replace(",,\n", ",\n").replace("[,\n", "[\n")
        text = f"tx = {call}(\n{inner})"
    if definition.layouts:
        imports.add("from jaxopt_port import interop")
        text += "\ntx = interop.in_torch_layout(tx, params, module)  # torch's layout, as it was"
    return "\n".join([*sorted(imports, reverse=True), "", text])


def _factory(factory: Any, imports: set[str]) -> str:
    made = class_of(factory)
    if made is not None:
        return f"jp.{made.__name__}"
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    if not name or "<" in name:
        raise ValueError(f"{factory!r} is a function of the user's without a name to import it by")
    package = module.partition(".")[0]
    if package in ("optax", "jaxopt_port"):
        module = package if package == "optax" else module.rpartition("._")[0] or module
    imports.add(f"import {module}")
    return f"{module}.{name}"


def _options_of(i: int, definition: Definition, state: Any) -> dict[str, Any]:
    member = definition.members[i]
    if member.group.frozen:
        return {}
    options = {**member.numbers, **member.static, **dict(member.group.kept)}
    if state is not None:
        table = find_groups_state(state).table
        members = [member.group for member in definition.members]
        if [(g.rule, g.static) for g in table.groups] != [(g.rule, g.static) for g in members]:
            raise ValueError("the state is another optimizer's than tx: groups or options differ")
        shown = get_hyperparams(state)[i]
        numbers = dict(table.groups[i].numbers).keys() - member.group.scheduled
        options |= {name: shown[name] for name in shown if name in numbers}
        if any(table.rests[leaf] for leaf in table.members(i)):
            raise ValueError(f"{member.group.label} is frozen for now, which no code builds")
    for name, value in options.items():
        if callable(value):
            raise ValueError(f"{name} of {member.group.label} is a function, which has no spelling")
        _value(value, f"{name} of {member.group.label}")
    return options


def _shared(definition: Definition, options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options of all groups but those that say otherwise: those most have."""
    names = definition.arguments.names
    factory = definition.factory
    own = [
        each
        for each, member in zip(options, definition.members, strict=True)
        if not member.group.frozen and member.factory is factory
    ]
    shared = {}
    for name in names:
        values = [each[name] for each in own if name in each]
        if values:
            given = definition.defaults.get(name, values[0])
            shared[name] = given if any(_equal(given, v) for v in values) else values[0]
    return shared


def _group(
    definition: Definition,
    i: int,
    own: Mapping[str, Any],
    shared: Mapping[str, Any],
    given: Mapping[str, Any],
    imports: set[str],
) -> str:
    """Return the code of a group.

    Args:
        definition: of the optimizer.
        i: the group's index.
        own: its options.
        shared: options of the optimizer's groups.
        given: those of them that the constructor is given.
        imports: what the code imports; added to.
    """
    member = definition.members[i]
    parts = [f'"params": {_selector(member.selector, member.group.label, imports)}']
    if member.group.name is not None:
        parts.append(f'"name": {_value(member.group.name)}')
    if member.group.frozen:
        return "{" + ", ".join([*parts, '"frozen": True']) + "}"
    if member.factory is not definition.factory:
        parts.append(f'"optimizer": {_factory(member.factory, imports)}')
        theirs = arguments_of(member.factory).defaults
        own = {k: v for k, v in own.items() if k in given or not _is_in(k, v, theirs)}
    else:
        own = {k: v for k, v in own.items() if not _is_in(k, v, shared)}
    parts += [f'"{name}": {_value(value)}' for name, value in own.items()]
    return "{" + ", ".join(parts) + "}"


def _selector(selector: Any, label: str, imports: set[str]) -> str:
    if selector is REST:
        return "jp.REST"
    if isinstance(selector, str):
        return _value(selector)
    if isinstance(selector, re.Pattern):
        imports.add("import re")
        flags = int(selector.flags & ~re.UNICODE)
        return f"re.compile({_value(selector.pattern)}{f', {flags}' if flags else ''})"
    paths = getattr(selector, "paths", None)
    if isinstance(paths, frozenset):
        if not paths:
            raise ValueError(f"{label} has no parameters, and no code selects none")
        return "[" + ", ".join(_path(path, imports) for path in sorted(paths)) + "]"
    if isinstance(selector, list | tuple):
        return "[" + ", ".join(_selector(each, label, imports) for each in selector) + "]"
    raise ValueError(f"the selector of {label} is a function or a tree, which has no spelling")


def _path(path: str, imports: set[str]) -> str:
    if not re.search(r"[*?]", path):
        return _value(path)
    imports.add("import re")
    return f"re.compile({_value('^' + re.escape(path) + '$')})"


def _is_in(name: str, value: Any, options: Mapping[str, Any]) -> bool:
    return name in options and _equal(options[name], value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def quoted(text: str) -> str:
    """Return a string as Python's code has it, on one line."""
    return json.dumps(text, ensure_ascii=False)


def _value(value: Any, what: str = "this") -> str:
    if isinstance(value, str):
        return quoted(value)
    # Of an array, torch's too, or NumPy's own.
    if hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ("," if len(value) == 1 else "") + ")"
    try:
        ast.literal_eval(repr(value))
    except (SyntaxError, ValueError):
        raise ValueError(f"{what} is {value!r}, which has no spelling") from None
    return repr(value)


def spelled_scheduler(scheduler: Any, functions: dict[int, str] | None = None) -> str:
    """Return the expression that makes one of this library's schedulers.

    Args:
        scheduler: it.
        functions: names that others around it have for functions of the user's, by identity.
    """
    defaults = {
        name: p.default for name, p in inspect.signature(type(scheduler)).parameters.items()
    }
    parts = list(_arguments(scheduler, defaults, {} if functions is None else functions))
    return f"jp.lr_scheduler.{type(scheduler).__name__}({', '.join(parts)})"


def _arguments(
    scheduler: Any, defaults: Mapping[str, Any], functions: dict[int, str]
) -> Iterator[str]:
    for field in dataclasses.fields(scheduler):
        value = getattr(scheduler, field.name)
        if field.name == "last_epoch" or _is_in(field.name, value, defaults):
            continue
        if field.name == "schedulers":
            yield "[" + ", ".join(spelled_scheduler(each, functions) for each in value) + "]"
        elif callable(value) or (isinstance(value, tuple) and any(map(callable, value))):
            # The function of the user's script; of several, each by a name of its own.
            taken = sum(name.startswith(field.name) for name in functions.values())
            own = f"{field.name}_{taken + 1}" if taken else field.name
            yield f"{field.name}={functions.setdefault(id(value), own)}"
        else:
            yield f"{field.name}={_value(list(value) if isinstance(value, tuple) else value)}"
