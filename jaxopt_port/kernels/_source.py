"""Writes C for the update of one leaf, from its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._formats import FORMATS


class UnsupportedError(Exception):
    """The jaxpr is not elementwise, or has an operation whose rounding C does not promise."""


class Source(NamedTuple):
    """The update of one leaf as a loop in C.

    Attributes:
        code: the generated part; the same for leaves of any shape and layout.
        inputs: how many arrays a leaf is read from.
        outputs: how many arrays are written for it.
        numbers: computes the scalars of a group that the loop is given, from the numbers.
    """

    code: str
    inputs: int
    outputs: int
    numbers: Callable[..., list[jax.Array]]


class _Op(NamedTuple):
    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
# What is exact in low precision, and so need not be computed in the type above it.
_EXACT = {"select_n", "copy", "neg", "abs", "max", "min", "is_finite", "convert_element_type"}
_EXACT |= {"eq", "ne", "lt", "le", "gt", "ge", "jaxopt_port_uncontracted"}
# A jaxpr within a jaxpr, by the parameter that holds it.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}


class _Value:
    """A variable of the flattened program."""

    def __init__(self, aval: Any) -> None:
        self.shape: tuple[int, ...] = aval.shape
        self.dtype: np.dtype[Any] = aval.dtype
        self.op: _Op | None = None


def _flattened(jaxpr: Any, inputs: Sequence[Any], ops: list[_Op]) -> list[Any]:
    """Append a jaxpr's operations to ``ops``, calls inlined; return the values of its outputs."""
    from jax.extend.core import Literal

    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
    env |= {var: np.asarray(c) for var, c in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True)}

    def read(atom: Any) -> Any:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return np.asarray(atom.val, aval.dtype)
        return env[atom]

    for eqn in jaxpr.jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name in _CALLS:
            results: list[Any] = _flattened(eqn.params[_CALLS[name]], given, ops)
        else:
            results = [_Value(var.aval) for var in eqn.outvars]
            op = _Op(name, eqn.primitive, dict(eqn.params), tuple(given), tuple(results))
            ops.append(op)
            for value in results:
                value.op = op
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


class _Writer:
    """Writes the loop's body, and finds the scalars that it needs from outside."""

    def __init__(self, dtype: np.dtype[Any], arrays: Sequence[_Value]) -> None:
        self.dtype = dtype
        self.format = FORMATS[dtype.name]
        self.wide = np.dtype(self.format.wide)
        self.lines: list[str] = []
        self.scalars: list[_Value] = []
        self._arrays = arrays
        self._names = {id(value): f"x{i}" for i, value in enumerate(arrays)}

    def name(self, value: Any) -> str:
        """Return a C expression for a value; what it needs is written before."""
        if not isinstance(value, _Value):
            return self._literal(value)
        if id(value) not in self._names:
            self._names[id(value)] = self._scalar(value) if value.shape == () else self._made(value)
        return self._names[id(value)]

    def _literal(self, value: Any) -> str:
        if value.size != 1:
            raise UnsupportedError("an array that is a constant")
        number = value.reshape(()).item()
        if isinstance(number, bool):
            return str(int(number))
        if not np.isfinite(number):
            return "NAN" if np.isnan(number) else ("INFINITY" if number > 0 else "-INFINITY")
        return f"(({self.format.element}){float(number).hex()})"

    def _scalar(self, value: _Value) -> str:
        if value.dtype != bool and not jnp.issubdtype(value.dtype, jnp.floating):
            raise UnsupportedError(f"a scalar of {value.dtype}")
        if self._needs_arrays(value):
            raise UnsupportedError("a scalar that follows from the arrays")
        self.scalars.append(value)
        return f"s{len(self.scalars) - 1}"

    def _needs_arrays(self, value: Any) -> bool:
        if not isinstance(value, _Value):
            return False
        if value.op is None:
            return any(value is x for x in self._arrays)
        return any(map(self._needs_arrays, value.op.inputs))

    def _made(self, value: _Value) -> str:
        op = value.op
        if op is None or len(op.outputs) != 1:
            raise UnsupportedError("an operation with several results")
        if value.dtype not in (self.dtype, self.wide, np.dtype(bool)):
            raise UnsupportedError(f"an array of {value.dtype}")
        if op.name == "broadcast_in_dim":
            (operand,) = op.inputs
            if operand.shape != ():
                raise UnsupportedError("a broadcast of an array")
            return self.name(operand)
        expression = self._expression(op)
        if expression.isidentifier():
            return expression
        name = f"v{len(self.lines)}"
        kind = "int" if value.dtype == bool else "element"
        self.lines.append(f"    const {kind} {name} = {expression};")
        return name

    def _expression(self, op: _Op) -> str:
        if any(x.shape not in ((), op.outputs[0].shape) for x in op.inputs):
            raise UnsupportedError("arrays of several shapes")
        types = {x.dtype for x in (*op.inputs, *op.outputs)}
        if self.wide != self.dtype and self.dtype in types and op.name not in _EXACT:
            raise UnsupportedError(f"{op.name} in {self.dtype}")
        given = [self.name(x) for x in op.inputs]
        if op.name == "select_n" and len(op.inputs) == 3:
            which, no, yes = given
            return f"{which} ? {yes} : {no}"
        if op.name in _INFIX:
            return f"{given[0]} {_INFIX[op.name]} {given[1]}"
        if op.name in ("max", "min"):
            a, b = given
            return f"({a} {'>=' if op.name == 'max' else '<='} {b} || {a} != {a}) ? {a} : {b}"
        boolean = op.outputs[0].dtype == bool
        simple = {
            "neg": "-{0}",
            "sqrt": "SQRT({0})",
            "abs": "FABS({0})",
            "square": "{0} * {0}",
            "is_finite": "FABS({0}) < INFINITY",
            "copy": "{0}",
            # numerics.fma and numerics.uncontracted: here no operation is contracted.
            "jaxopt_port_fma": "FMA({0}, {1}, {2})",
            "jaxopt_port_addcmul": "FMA({0} * {1}, {2}, {3})",
            "jaxopt_port_addcdiv": "{3} + {0} * {1} / {2}",
            "jaxopt_port_quotient": "{0} * {2} / {1}",
            "jaxopt_port_div": "{1} / {0}",
            "jaxopt_port_div_number": "{1} / {0}",
            "jaxopt_port_sqrt": "SQRT({0})",
            "jaxopt_port_rsqrt": "(element)1 / SQRT({0})",
            "jaxopt_port_uncontracted": "{0}",
            "and": "{0} & {1}" if boolean else "",
            "or": "{0} | {1}" if boolean else "",
            "not": "!{0}" if boolean else "",
        }.get(op.name, "")
        if op.name == "convert_element_type" and not boolean:
            narrows = self.wide != self.dtype and op.outputs[0].dtype == self.dtype
            simple = "ROUND({0})" if narrows else "(element){0}"
        if op.name == "integer_pow" and op.params["y"] == 2:
            simple = "{0} * {0}"
        if not simple:
            raise UnsupportedError(op.name)
        return simple.format(*given)


def written(update: Callable[..., Any], arrays: Sequence[Any], numbers: Any) -> Source:
    """Write the loop for a leaf.

    Args:
        update: ``update(arrays, numbers)``, which returns a list of arrays.
        arrays: the shapes and dtypes of the leaf's arrays: all the same, float32, float64 or
            bfloat16, of one dimension or more.
        numbers: a tree of shapes and dtypes of scalars.

    Raises:
        UnsupportedError: the update is not a loop in which C and XLA round alike.
    """
    shape, dtype = arrays[0].shape, np.dtype(arrays[0].dtype)
    if dtype.name not in FORMATS or shape == ():
        raise UnsupportedError(f"arrays of {dtype} and shape {shape}")
    if any((x.shape, x.dtype) != (shape, dtype) for x in arrays):
        raise UnsupportedError("arrays of several shapes or dtypes")
    jaxpr = jax.make_jaxpr(update)(arrays, numbers)
    inputs = [_Value(var.aval) for var in jaxpr.jaxpr.invars]
    ops: list[_Op] = []
    results = _flattened(jaxpr, inputs, ops)
    if any((x.shape, x.dtype) != (shape, dtype) for x in results):
        raise UnsupportedError("results of another shape or dtype")

    writer = _Writer(dtype, inputs[: len(arrays)])
    names = [writer.name(value) for value in results]
    stores = [f"    out[{i}][i] = STORE({name});" for i, name in enumerate(names)]
    code = _code(dtype, len(arrays), len(results), writer.scalars, writer.lines + stores)
    return Source(code, len(arrays), len(results), _numbers(writer.scalars, inputs[len(arrays) :]))


def _numbers(
    scalars: Sequence[_Value], inputs: Sequence[_Value]
) -> Callable[[Any], list[jax.Array]]:
    """Return the function that computes scalars from the tree of numbers."""

    def numbers(tree: Any) -> list[jax.Array]:
        env = {id(v): x for v, x in zip(inputs, jax.tree.leaves(tree), strict=True)}

        def made(value: Any) -> Any:
            if not isinstance(value, _Value):
                return jnp.asarray(value)
            if id(value) not in env:
                op = value.op
                assert op is not None
                results = op.primitive.bind(*map(made, op.inputs), **op.params)
                results = results if op.primitive.multiple_results else [results]
                env.update((id(v), x) for v, x in zip(op.outputs, results, strict=True))
            return env[id(value)]

        return [jnp.asarray(made(value), jnp.float64) for value in scalars]

    return numbers


def _code(
    dtype: np.dtype[Any], inputs: int, outputs: int, scalars: Sequence[_Value], lines: Sequence[str]
) -> str:
    form = FORMATS[dtype.name]
    suffix = form.suffix
    declared = [
        f"  const {'int' if value.dtype == bool else 'element'} s{i} = "
        + (f"s[{i}] != 0;" if value.dtype == bool else f"(element)s[{i}];")
        for i, value in enumerate(scalars)
    ]
    loads = [f"    const element x{i} = LOAD(in[{i}][i]);" for i in range(inputs)]
    return "\n".join(
        [
            "#include <math.h>",
            "#include <stdint.h>",
            f"typedef {form.stored} stored;",
            f"typedef {form.element} element;",
            *form.macros,
            f"#define INPUTS {inputs}",
            f"#define OUTPUTS {outputs}",
            f"#define SCALARS {max(1, len(scalars))}",
            f"#define FMA(x, y, z) __builtin_fma{suffix}(x, y, z)",
            f"#define SQRT(x) __builtin_sqrt{suffix}(x)",
            f"#define FABS(x) __builtin_fabs{suffix}(x)",
            "static void body(const stored** in, stored** out, const double* s, int64_t begin, "
            "int64_t end) {",
            *declared,
            # The arrays of a leaf do not overlap, or are the same.
            "#if defined(__clang__)",
            "#pragma clang loop vectorize(assume_safety)",
            "#else",
            "#pragma GCC ivdep",
            "#endif",
            "  for (int64_t i = begin; i < end; ++i) {",
            *loads,
            *lines,
            "  }",
            "}",
            "",
        ]
    )
