"""Pickles read as data: what they hold is built here, and nothing in them is called or imported.

A pickle is a program for a small machine. This one knows its instructions, and of the functions
that a program may name only those in `_pickled_kinds.KINDS`, each of which makes a plain value of
its arguments. Any other is kept as `Unread`, by its name. Keys must be simple, so that time is
bounded by the size of the pickle.
"""

from __future__ import annotations

import enum
import pickletools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ._pickled_kinds import KINDS, ClassName, Deferred, Plain, Unread

_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def read_pickle(
    file: Any,
    persistent: Callable[[Any], Any] | None = None,
    allowed: Mapping[str, Any] | None = None,
) -> Any:
    """Return the next value in a file, unfinished: `_plain_values.finished` makes its arrays.

    Args:
        file: with ``read`` and ``readline``, which give no more than there is, as a memory map.
        persistent: returns what an identifier of the writer's stands for.
        allowed: by name, classes and functions of the user's that may be called.

    Raises:
        ValueError: it is no pickle, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in a name
            return _Machine(persistent, allowed or {}).run(file)
    except ValueError:
        raise
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # Too few on the stack, a memo that was never made, a list that is none.
        raise ValueError(f"its pickle is damaged: {type(error).__name__}: {error}") from error


class _Machine:
    def __init__(self, persistent: Callable[[Any], Any] | None, allowed: Mapping[str, Any]) -> None:
        self._persistent, self._allowed = persistent, allowed
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        arg: Any
        for opcode, arg, _ in pickletools.genops(file):
            name = opcode.name
            if name in _PUSHED:
                self._stack.append(arg)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in ("BINPUT", "PUT", "LONG_BINPUT"):
                self._memo[arg] = self._stack[-1]
            elif name in ("BINGET", "GET", "LONG_BINGET"):
                self._stack.append(self._memo[arg])
            elif name == "STOP":
                return self._stack.pop()
            elif name not in ("PROTO", "FRAME"):
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise ValueError(f"its pickle has the instruction {name}, which has no place")
                step(arg)
        raise ValueError("its pickle has no end")

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _popped(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._popped()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    # ── containers ─────────────────────────────────────────────────────────────────────────────

    def _empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _empty_set(self, _: Any) -> None:
        self._stack.append([])  # no file has a place for a set

    def _list(self, _: Any) -> None:
        self._stack.append(self._popped())

    _frozenset = _list

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._popped()))

    def _dict(self, _: Any) -> None:
        items = self._popped()
        self._stack.append({})
        self._set(items)

    def _tuple1(self, _: Any) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def _tuple2(self, _: Any) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _tuple3(self, _: Any) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._popped())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list | Unread):
            raise ValueError(f"its pickle appends to {type(target).__name__}")
        target.extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        self._set(self._popped())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict | Unread):
            raise ValueError(f"its pickle sets items of {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_as_key(key)] = value

    # ── objects ────────────────────────────────────────────────────────────────────────────────

    def _global(self, arg: str) -> None:
        self._stack.append(self._found(*arg.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._found(module, name))

    def _found(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle names a class by something that is no text")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{module}.{name}"
        return ClassName(full) if full in KINDS else self._allowed.get(full, ClassName(full))

    def _persid(self, arg: Any) -> None:
        self._stack.append(self._identified(arg))

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._identified(self._stack.pop()))

    def _identified(self, key: Any) -> Any:
        if self._persistent is None:
            raise ValueError("its pickle refers to data outside it")
        return self._persistent(key)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._made(function, arguments, {}))

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        options, arguments, cls = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._stack.append(self._made(cls, arguments, options))

    def _inst(self, arg: str) -> None:
        made = self._made(self._found(*arg.split(" ", 1)), tuple(self._popped()), {})
        self._stack.append(made)

    def _obj(self, _: Any) -> None:
        cls, *arguments = self._popped()
        self._stack.append(self._made(cls, tuple(arguments), {}))

    def _made(self, function: Any, arguments: Any, options: Any) -> Any:
        if not isinstance(arguments, tuple) or not isinstance(options, dict):
            raise ValueError("its pickle calls something without a list of arguments")
        if any(function is each for each in self._allowed.values()):
            return _by_the_user(function, arguments, options)
        if not isinstance(function, ClassName):
            return Unread(_name_of(function), arguments)
        kind = None if options else KINDS.get(function.name)
        if kind is not None:
            made = kind(*arguments)
            if made is not NotImplemented:
                return made
        return _enum_value(function.name, arguments) or Unread(function.name, arguments)

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Deferred):
            target.build(state)
        elif isinstance(target, dict | list):
            return  # attributes of an OrderedDict, such as a state dict's _metadata
        elif type(target) in self._allowed.values():
            _set_state(target, state)
        else:
            raise ValueError(f"its pickle sets the state of {type(target).__name__}")


def _by_the_user(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        if isinstance(function, type) and issubclass(function, enum.Enum):
            return function(*arguments)
        if isinstance(function, type):
            return function.__new__(function, *arguments, **options)
        return function(*arguments, **options)
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"{_name_of(function)}: {type(error).__name__}: {error}") from error


def _set_state(target: Any, state: Any) -> None:
    if hasattr(target, "__setstate__"):
        target.__setstate__(state)
        return
    own, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in {**(own or {}), **(slots or {})}.items():
        object.__setattr__(target, name, value)


def _name_of(x: Any) -> str:
    return getattr(x, "__qualname__", type(x).__name__)


def _enum_value(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return an enum's member as its plain value, where the class is loaded and is one.

    What transformers makes of one string (``SchedulerType``, ``OptimizerNames``) is one, loaded or
    not.
    """
    module, _, qualified = name.rpartition(".")
    found = vars(sys.modules[module]).get(qualified) if module in sys.modules else None
    if len(arguments) != 1:
        return None
    (value,) = arguments
    of_transformers = module.startswith("transformers.") and isinstance(value, str)
    if not of_transformers and not (isinstance(found, type) and issubclass(found, enum.Enum)):
        return None
    return Plain(value) if isinstance(value, str | int | float | bool) else None


def _as_key(key: Any) -> Any:
    """Return a dict's key; only such as are hashed at once, an object by its identity."""
    if isinstance(key, Unread):
        return key
    parts = [_plain_key(x) for x in (key if isinstance(key, tuple) else (key,))]
    if len(parts) > 16 or not all(x is None or isinstance(x, str | int | float) for x in parts):
        return f"<{type(key).__name__}>"
    return tuple(parts) if isinstance(key, tuple) else parts[0]


def _plain_key(x: Any) -> Any:
    if isinstance(x, bytes):
        return x.decode("latin1")
    return x.value if isinstance(x, Plain) else x
