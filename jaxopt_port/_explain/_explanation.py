"""`jp.explain`: what an Optax transformation does otherwise than a torch optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optax
from numpy.typing import NDArray

from ..engine import LayoutWarning
from ..trees import listed
from ._runs import UNTRAINED, Leaf, Series, in_jax, in_torch, leaves_of

if TYPE_CHECKING:
    from ..interop import ParamMap
    from ..verify import Cause

# The library's promise in float64 over 200 steps.
_SAME = 1e-12


@dataclass(frozen=True)
class Difference:
    """What is different about one leaf.

    Attributes:
        leaf: its path.
        group: of torch's optimizer; -1 for a leaf that it does not train.
        step: the first at which they differ, from 0.
        distance: after all steps, over the way that torch's parameter has gone.
        cause: what explains it, where that is known.
    """

    leaf: str
    group: int
    step: int
    distance: float
    cause: Cause | None


@dataclass(frozen=True)
class Explanation:
    """The outcome of `explain`.

    Attributes:
        optimizer: torch's class.
        steps: how many were taken.
        differences: of each leaf that differs.
    """

    optimizer: str
    steps: int
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether both do the same."""
        return not self.differences

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What explains the differences, each once."""
        found = [d.cause for d in self.differences if d.cause is not None]
        return tuple({(c.name, c.message): c for c in found}.values())

    def __str__(self) -> str:
        if self.ok:
            return f"the same as torch's {self.optimizer}: {self.steps} steps in float64"
        lines = [f"differs from torch's {self.optimizer}:"]
        for cause in self.causes:
            held = [d for d in self.differences if d.cause and d.cause.message == cause.message]
            lines += [f"- {cause.message}", f"  where: {_where(held)}"]
            lines += [f"  to mend it: {cause.remedy}"] if cause.remedy else []
        unknown = [d for d in self.differences if d.cause is None]
        if unknown:
            lines += ["- a difference that no known cause explains", f"  where: {_where(unknown)}"]
        return "\n".join(lines)


def _where(held: list[Difference]) -> str:
    names = listed([d.leaf for d in held], 6)
    worst = max(d.distance for d in held)
    first = min(d.step for d in held)
    far = f"up to {worst:.2g} of the way gone" if math.isfinite(worst) else "where torch stays"
    return f"{names}; from step {first}, {far}"


def explain(
    optimizer: Any,
    tx: optax.GradientTransformation | Callable[[], optax.GradientTransformation],
    params: Any = None,
    *,
    module: Any = None,
    param_map: ParamMap | None = None,
    steps: int = 12,
    seed: int = 0,
) -> Explanation:
    """Say, before any training, what an Optax transformation does otherwise than torch's optimizer.

    Both are fed with the same random gradients, of many magnitudes, in float64; what differs is
    explained by the ways in which ports are known to differ. The torch optimizer is left as it is;
    its options count, its state does not.

    Args:
        optimizer: a ``torch.optim.Optimizer``.
        tx: an Optax transformation, or a function without arguments that makes it, where that has
            to be in float64; its schedules are followed, torch's schedulers are not.
        params: the JAX parameters, or their shapes, where ``tx`` chooses leaves by their paths.
            None for one small leaf in each of torch's groups, ``"0"``, ``"1"`` and so on. Those
            that torch does not train are given gradients too: leave out what has none here.
        module: with ``params``, the torch module of the optimizer.
        param_map: instead, or with rules of its own: see `interop.param_map`.
        steps: how many.
        seed: of parameters and gradients.

    Returns:
        The explanation: ``print`` it, or look at ``.ok`` and ``.causes``.

    Raises:
        TypeError: ``optimizer`` is none of torch's, or evaluates the loss itself (LBFGS); ``tx``
            is no transformation.
        ValueError: ``tx`` does not fit the parameters; ``params`` without ``module``, or with one
            that the optimizer is not of; no steps.
        ImportError: torch is missing.

    Example:
        >>> import torch, optax
        >>> net = torch.nn.Linear(2, 2)
        >>> adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=0.1)
        >>> print(explain(adam, optax.adamw(1e-3, weight_decay=0.1)))
        differs from torch's Adam:
        - your side applies weight decay to the parameter; torch's Adam to the gradient
          where: 0; from step 0, up to 1.3 of the way gone
          to mend it: chain optax.add_decayed_weights before the optimizer, or use jp.Adam
    """
    from ..interop import import_torch

    torch = import_torch()
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError("LBFGS evaluates the loss itself: compare a run, with verify.compare")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise TypeError(
            "SparseAdam takes sparse gradients, and those that are drawn here are dense"
        )
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 or more")
    if not hasattr(tx, "init") and not callable(tx):
        raise TypeError(
            f"expected an optax.GradientTransformation, or a function that makes one, got "
            f"{type(tx).__name__}"
        )
    leaves = leaves_of(optimizer, params, module, param_map)
    rng = np.random.default_rng(seed)
    start = {path: rng.normal(size=leaf.shape) for path, leaf in leaves.items()}
    # Elements of many magnitudes: eps shows in small ones, clipping in large ones.
    scales = {path: 10.0 ** rng.uniform(-7, 0.5, leaf.shape) for path, leaf in leaves.items()}
    grads = [
        {path: rng.normal(size=x.shape) * scales[path] for path, x in start.items()}
        for _ in range(steps)
    ]
    theirs = in_torch(optimizer, leaves, start, grads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayoutWarning)  # said below, where it is the cause
        mine = in_jax(tx, params, start, grads)
    if any(leaf.entry is not None for leaf in leaves.values()):
        as_here = {path: leaf._replace(entry=None) for path, leaf in leaves.items()}
        other = in_torch(optimizer, as_here, start, grads)
    else:
        other = theirs
    differences = []
    for path, leaf in leaves.items():
        apart = [_apart(a[path], b[path]) for a, b in zip(mine, theirs, strict=True)]
        if any(apart):
            first, far = apart.index(True), _distance(path, start, mine, theirs)
            cause = _of_layout(optimizer, path, leaf, mine, other) or _of_options(
                optimizer, path, leaf.group, first, start, grads, mine, theirs
            )
            differences.append(Difference(path, leaf.group, first, far, cause))
    return Explanation(type(optimizer).__name__, steps, tuple(differences))


def _of_layout(optimizer: Any, path: str, leaf: Leaf, mine: Series, other: Series) -> Cause | None:
    """Return the cause, where torch's optimizer does as your side with the leaf in JAX's layout."""
    from ..verify import Cause

    if any(_apart(a[path], b[path]) for a, b in zip(mine, other, strict=True)):
        return None
    name = type(optimizer).__name__
    return Cause(
        "transposed",
        f"{name} goes by rows and columns; your side has the leaf in JAX's layout "
        f"{leaf.shape}, torch in its own {leaf.entry.torch_shape}",
        "tx = jaxopt_port.interop.in_torch_layout(tx, params, module)",
    )


def _distance(path: str, start: dict[str, Any], mine: Series, theirs: Series) -> float:
    """Return how far both end from each other, of the way that torch has gone."""
    gone = float(np.max(np.abs(theirs[-1][path] - start[path])))
    far = float(np.max(np.abs(mine[-1][path] - theirs[-1][path])))
    return far / gone if gone else math.inf


def _of_options(
    optimizer: Any,
    path: str,
    group: int,
    first: int,
    start: dict[str, Any],
    grads: Series,
    mine: Series,
    theirs: Series,
) -> Cause | None:
    from ..verify.diagnosis import UpdateHistory, explain_update

    chosen = np.linspace(0, start[path].size - 1, min(64, start[path].size)).astype(int)

    def sampled(series: Series) -> NDArray[np.float64]:
        return np.array([np.ravel(x[path])[chosen] for x in series], np.float64)

    def options(g: dict[str, Any]) -> dict[str, Any]:
        return {k: _number(v) for k, v in g.items() if k != "params"}

    norms = [_norms(given, path) for given in grads]
    groups, trained = [options(g) for g in optimizer.param_groups], group != UNTRAINED
    history = UpdateHistory(
        # What torch does not train is of no algorithm, and has the options of no group.
        optimizer=type(optimizer).__name__ if trained else "",
        options=[groups[group] if trained else {}] * len(grads),
        other_options=[own for i, own in enumerate(groups) if i != group],
        grads=sampled(grads),
        start=np.ravel(start[path])[chosen],
        yours=sampled(mine),
        torchs=sampled(theirs),
        first=first,
        clip=norms,
        batch_size=1,
        steps_per_epoch=1,
    )
    return explain_update(history)


def _norms(grads: dict[str, Any], path: str) -> dict[str, float]:
    total = float(np.sqrt(sum(float(np.vdot(g, g)) for g in grads.values())))
    leaf = float(np.linalg.norm(np.ravel(grads[path])))
    return {"factor": 1.0, "limit": math.inf, "total": total, "group": leaf, "leaf": leaf}


def _apart(a: NDArray[Any], b: NDArray[Any]) -> bool:
    scale = float(np.max(np.abs(b), initial=0.0))
    return not float(np.max(np.abs(a - b), initial=0.0)) <= _SAME * scale


def _number(value: Any) -> Any:
    """Return an option as numbers, where torch has it in tensors."""
    if isinstance(value, tuple | list):
        return type(value)(map(_number, value))
    return float(value) if hasattr(value, "numel") and value.numel() == 1 else value
