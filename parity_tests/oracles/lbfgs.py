"""L-BFGS on both sides, call by call: the objectives, and what each call leaves."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxopt_port.optim._lbfgs import lbfgs, oldest_first
from parity_tests.oracles.optimizer import to_numpy

COUNTS = ("func_evals", "n_iter")
STATIC = ("history_size", "line_search_fn", "maximize")
KNOWN = set(inspect.signature(torch.optim.LBFGS).parameters)


class Problem(NamedTuple):
    """An objective of a dictionary of arrays, for both frameworks."""

    start: Mapping[str, np.ndarray]
    in_torch: Callable[[Any], Any]
    in_jax: Callable[[Any], Any]


def rosenbrock(p: Any) -> Any:
    x, y = p["x"][:-1], p["x"][1:]
    return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum()


def _double_well(p: Any) -> Any:
    return ((p["x"] ** 2 - 1) ** 2).sum()


def _linear(p: Any) -> Any:
    return (p["x"] * 0.25).sum()


_RNG = np.random.default_rng(20240229)
_FACTOR = _RNG.standard_normal((10, 10))
_SLOPE = _RNG.standard_normal(10)


def _quadratic(array: Callable[[np.ndarray, Any], Any]) -> Callable[[Any], Any]:
    def f(p: Any) -> Any:
        x = p["x"]
        residual = array(_FACTOR, x) @ x
        return (residual * residual).sum() / 2 - (array(_SLOPE, x) * x).sum()

    return f


def _as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(array, dtype=like.dtype)


def _as_jax(array: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(array, like.dtype)


def _complex(p: Any) -> Any:
    z, w = p["z"], p["w"]
    return (abs(z * z - (1 + 2j)) ** 2).sum() + (abs(z[0] - w) ** 2).sum() + (w**4).sum()


def _mixed(p: Any) -> Any:
    return ((p["wide"] ** 2 - 2) ** 2).sum() + ((p["narrow"] - 0.5) ** 4).sum()


def _bowl(sqrt: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda p: (-sqrt(1 - p["x"] ** 2) - 0.3 * p["x"]).sum()


def _explosive(exp: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda p: (exp(p["x"] ** 2) + p["x"]).sum()


def _upside_down(problem: Problem) -> Problem:
    return Problem(problem.start, lambda p: -problem.in_torch(p), lambda p: -problem.in_jax(p))


def _at(function: Callable[[Any], Any], *start: float) -> Problem:
    return Problem({"x": np.asarray(start)}, function, function)


PROBLEMS = {
    "rosenbrock": _at(rosenbrock, -1.2, 1.0),
    "rosenbrock, right": _at(rosenbrock, 1.5, -1.0),
    "rosenbrock, far": _at(rosenbrock, -3.0, -4.0),
    "rosenbrock, zero": _at(rosenbrock, 0.0, 0.0),
    "quadratic": Problem(
        {"x": _RNG.standard_normal(10)}, _quadratic(_as_tensor), _quadratic(_as_jax)
    ),
    # Between its minima the curvature is negative: no pair may be remembered.
    "double well": _at(_double_well, 0.1, -0.2, 0.3),
    "linear": _at(_linear, 1.0, 2.0),
    "complex": Problem(
        {"z": np.array([1 - 1j, -0.3 + 0.8j, 0.5j]), "w": np.array([0.4, -0.7])},
        _complex,
        _complex,
    ),
    "mixed": Problem(
        {"wide": np.array([0.3, 2.0]), "narrow": np.array([0.1, -0.7, 2.0], np.float32)},
        _mixed,
        _mixed,
    ),
    # NaN outside of the unit square, value and gradient. (Where the value alone is NaN and the
    # gradient meets the curvature condition, torch's search ends in an IndexError.)
    "bowl": Problem({"x": np.array([0.9, -0.95])}, _bowl(torch.sqrt), _bowl(jnp.sqrt)),
    "explosive": Problem({"x": np.array([1.5, -2.0])}, _explosive(torch.exp), _explosive(jnp.exp)),
}

for _name in ("rosenbrock, zero", "quadratic"):
    PROBLEMS[f"{_name}, upside down"] = _upside_down(PROBLEMS[_name])


class Outcome(NamedTuple):
    """What is left after one call."""

    params: np.ndarray
    func_evals: int
    n_iter: int
    state: dict[str, Any]

    @property
    def counts(self) -> tuple[int, int]:
        return self.func_evals, self.n_iter


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.atleast_1d(a).ravel() for a in arrays])


def _cast(start: Mapping[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    # In the order of jax.tree.leaves, so that flat vectors agree.
    return {name: np.array(start[name], dtype) for name in sorted(start)}


def defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a torch optimizer that is given ``options``, with what a later one has."""
    group = torch.optim.LBFGS([torch.zeros(1)], **_known(options)).param_groups[0]
    own = {name: value for name, value in group.items() if name != "params"}
    return {"maximize": options.get("maximize", False), **own}


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in KNOWN}


def torch_run(
    problem: Problem, per_call: Sequence[Mapping[str, Any]], dtype: str | None, ulps: int = 0
) -> list[Outcome]:
    """One call for each of ``per_call``, the options of that call."""
    tensors = {k: torch.from_numpy(a) for k, a in _cast(problem.start, dtype).items()}
    for tensor in tensors.values() if ulps else ():
        eps = ulps * torch.finfo(tensor.dtype).eps
        tensor.copy_(torch.where(tensor == 0, eps, tensor * (1 + eps)))
    params = [tensor.requires_grad_() for tensor in tensors.values()]
    optimizer = torch.optim.LBFGS(params, **_known(per_call[0]))
    # To go up is to go down what is upside down; a torch before 2.14 has no word for it.
    ascends = per_call[0].get("maximize", False) and "maximize" not in KNOWN

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -problem.in_torch(tensors) if ascends else problem.in_torch(tensors)
        loss.backward()
        return loss

    outcomes = []
    for options in per_call:
        optimizer.param_groups[0].update(defaults(options))
        optimizer.step(closure)
        state = optimizer.state[params[0]]
        outcomes.append(
            Outcome(
                _flat([to_numpy(p) for p in params]),
                state["func_evals"],
                state["n_iter"],
                {name: _copied(value) for name, value in state.items()},
            )
        )
    return outcomes


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(v) for v in value]
    return to_numpy(value) if isinstance(value, torch.Tensor) else value


@functools.cache
def compiled_call(in_jax: Callable[[Any], Any], **static: Any) -> Any:
    """One call with every number traced: a program for all cases of a problem."""

    @jax.jit
    def call(params: Any, state: Any, numbers: dict[str, Any]) -> Any:
        tx = lbfgs(**numbers, **static)
        value, grads = jax.value_and_grad(in_jax)(params)
        updates, state = tx.update(grads, state, params, value=value, value_fn=in_jax)
        return optax.apply_updates(params, updates), state

    return call


def traced(options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of a call, in one dtype each: torch's default rate is an integer."""
    counts = ("max_iter", "max_eval")
    return {
        k: np.asarray(v) if k in counts or hasattr(v, "dtype") else np.float64(v)
        for k, v in options.items()
        if k not in STATIC
    }


def port_states(
    problem: Problem, per_call: Sequence[Mapping[str, Any]], dtype: str | None
) -> Iterator[tuple[Any, Any]]:
    """Parameters and state after each call."""
    every = [defaults(options) for options in per_call]
    static = {name: every[0].pop(name) for name in STATIC}
    call = compiled_call(problem.in_jax, **static)
    params = {k: jnp.asarray(a) for k, a in _cast(problem.start, dtype).items()}
    state = lbfgs(**static).init(params)
    for options in every:
        params, state = call(params, state, traced(options))
        yield params, state


def port_run(
    problem: Problem, per_call: Sequence[Mapping[str, Any]], dtype: str | None
) -> list[Outcome]:
    return [outcome(params, state) for params, state in port_states(problem, per_call, dtype)]


def outcome(params: Any, state: Any) -> Outcome:
    held = {k: np.asarray(v) for k, v in state._asdict().items()}
    lists = oldest_first(state.history)
    return Outcome(
        _flat([np.asarray(p) for p in jax.tree.leaves(params)]),
        int(state.func_evals),
        int(state.n_iter),
        held | dict(zip(("old_dirs", "old_stps", "ro"), lists, strict=True)),
    )


def distance(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest entry; NaN and inf must stand alike."""
    ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
    finite = np.isfinite(theirs)
    if ours.shape != theirs.shape or not np.array_equal(
        ours[~finite], theirs[~finite], equal_nan=True
    ):
        return np.inf
    scale = np.max(np.abs(theirs[finite]), initial=np.finfo(np.float64).tiny)
    return float(np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0) / scale)


def assert_alike(ours: Sequence[Outcome], theirs: Sequence[Outcome], bound: float) -> None:
    for i, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        assert got.counts == want.counts, f"{COUNTS} after call {i}"
        assert distance(got.params, want.params) <= bound, f"parameters after call {i}"


def drift(problem: Problem, per_call: Sequence[Mapping[str, Any]], dtype: str) -> list[float]:
    """By call, how far torch gets from itself when it starts one ulp away; inf: counts."""
    straight = torch_run(problem, per_call, dtype)
    runs = [torch_run(problem, per_call, dtype, ulps) for ulps in (1, -1)]
    return [
        max(
            distance(run[i].params, want.params) if run[i].counts == want.counts else np.inf
            for run in runs
        )
        for i, want in enumerate(straight)
    ]
