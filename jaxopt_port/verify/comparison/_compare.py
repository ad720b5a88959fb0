"""`compare`: torch's training beside JAX's."""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from ...interop import LayerDifferenceWarning, ParamMap
from ...interop import param_map as make_map
from ...trees import listed
from ..report import Report
from ._comparison import Checks, paired, run
from ._context import Context
from ._environment import environment, of_precision
from ._evidence import Evidence
from ._findings import checked_causes, findings, parted
from ._free_run import FreeInFloat64
from ._jax_side import JaxSide
from ._names import Names, mapped_as
from ._results import skipped
from ._stages import Stages
from ._ties import mapped
from ._watched import Step

if TYPE_CHECKING:
    from ..recorder import TorchSide

Progress = Callable[[int, int], None]
_FREE_STEPS = (20, 3)  # of small models and of large ones
_LARGE = 10_000_000


def never(done: int, steps: int) -> None:
    """Report no progress."""


def compare(
    torch_side: TorchSide,
    jax_side: JaxSide,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    name: str = "",
    rename: Any = (),
    layouts: Any = None,
    param_map: ParamMap | None = None,
    every: int = 10,
    free_steps: int | None = None,
    steps_per_epoch: int | None = None,
    stop: bool = True,
    accept: Iterable[str] = (),
    progress: Progress | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Report:
    """Train on both sides, and find the first place where they differ by more than rounding.

    torch trains. At some steps your forward pass, loss and gradients are evaluated from torch's
    parameters; at every step your optimizer and torch's are fed with torch's gradients; all that in
    the dtype of the run and in float64. Where the float64 results differ, it is no rounding; how
    far each side is from float64 in the run's dtype says how far rounding lets them be apart.
    Where a check finds a divergence, the run goes back to the last one that found none, and checks
    each step from there.

    Args:
        torch_side: module, optimizer, loss, scheduler, clipping; all are left as they were.
        jax_side: the same in JAX; `nnx_side` and `linen_side` make one of a Flax model.
        batches: of each step: a tuple, list or dict of arrays, NumPy's or torch's, given to both
            sides. Arrays of floating numbers are cast to the dtype of each evaluation. A
            `torch.utils.data.DataLoader` is begun again at its end, where there are more steps.
        steps: how many; all batches by default, which must then have a length.
        name: of the case, for the report.
        rename: how leaves are named here: see `interop.param_map`.
        layouts: likewise, for layouts that are not certain.
        param_map: instead, a map made before.
        every: the first three steps, each ``every``-th and the last are checked in all stages;
            optimizers and learning rates are compared at every step.
        free_steps: how many steps both sides also train on their own in float64; 20 by default, 3
            of a model of more than 10 million parameters, of which no snapshots are kept to go back
            to.
        steps_per_epoch: for the diagnosis of schedules; those of ``scheduler_every`` by default.
        stop: False goes on to the end after a divergence.
        accept: names of causes, of `CAUSES`, that are known and meant: ``["biased-variance"]`` for
            Flax's BatchNorm. The run goes on to its end, and what they explain stands in
            ``report.accepted``. What else is wrong in the same leaf and stage may stay unseen.
        progress: called with the steps done and the number of steps: both are the same in the end,
            when causes are looked for.
        watch: called after each step with a `Step`, which has what both sides hold, for figures of
            your own: other transformations beside yours, norms, a test set.

    Returns:
        The report: ``report.ok``, ``report.first``, ``print(report)``,
        ``report.write("run.html")``.

    Raises:
        ValueError: parameters do not map; outputs of other shapes; a loss that is no scalar; a
            forward pass in torch that is not deterministic; batches that end too early, or are not
            alike.
        TypeError: arguments of another kind.

    Example:
        >>> import numpy as np, optax, torch, jax.numpy as jnp
        >>> from jaxopt_port import verify
        >>> module = torch.nn.Linear(3, 1)
        >>> theirs = verify.TorchSide(
        ...     module=module,
        ...     optimizer=torch.optim.AdamW(module.parameters(), lr=1e-3),
        ...     loss=lambda output, batch: ((output - batch[1]) ** 2).mean(),
        ... )
        >>> mine = verify.JaxSide(
        ...     apply=lambda params, batch: batch[0] @ params["kernel"] + params["bias"],
        ...     params={"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)},
        ...     tx=optax.adamw(1e-3),
        ...     loss=lambda output, batch: ((output - batch[1]) ** 2).mean(),
        ... )
        >>> rng = np.random.default_rng(0)
        >>> batches = [(rng.normal(size=(8, 3)), rng.normal(size=(8, 1))) for _ in range(5)]
        >>> report = verify.compare(theirs, mine, batches)
        >>> report.first.step, report.first.stage, report.first.cause.name
        (0, 'update', 'number')
    """
    from ..recorder import TorchRun, count_of, cycled

    _check(torch_side, jax_side)
    accept = checked_causes(accept)
    if watch is not None and not callable(watch):
        raise TypeError(f"watch must be a function of a Step; got {watch!r}")
    if callable(batches) and not hasattr(batches, "__iter__"):
        raise TypeError("batches is a function; give what it returns: batches()")
    count = count_of(batches, steps, every)
    began = time.perf_counter()
    batches, per_epoch = cycled(batches)
    first, batches = peeked(batches)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make = functools.partial(
            make_map, rename=rename, layouts=layouts, **mapped_as(jax_side, first)
        )  # fmt: skip
        made, ties = (param_map, []) if param_map else mapped(torch_side.module, make)
    layers = [str(w.message) for w in caught if w.category is LayerDifferenceWarning]
    others = (w for w in caught if w.category is not LayerDifferenceWarning)
    notes = [*_of_layers(layers), *(f"{w.category.__name__}: {w.message}" for w in others)]
    names = Names(made, jax_side)
    checks = Checks(every, count)
    reference = TorchRun(torch_side, checks)
    late = sorted(step for step in {*torch_side.changes, *jax_side.changes} if step >= count)
    if late:
        notes.append(f"changes at step {late[0]} and later were not made: {count} steps were taken")
    if reference.hooked:
        if jax_side.clip is not None and not reference.clips:
            raise ValueError(
                f"torch's side has hooks on {', '.join(reference.hooked)} and no clip=, your side "
                "has clip=, so that gradients are no longer comparable before it: let both sides "
                "do in clip= what those hooks do"
            )
        notes.append(
            f"torch's gradients of {', '.join(reference.hooked)} are what hooks make of them, and "
            "are compared so; what your side does in clip= comes after that: let both sides do it "
            "in clip="
        )
    before = reference.snapshot()
    if (torch_side.averaged is None) != (jax_side.averaged is None):
        which = "torch's" if jax_side.averaged is None else "your"
        notes.append(
            f"only {which} side has averages (averaged=), as of an EMA: what is evaluated by them "
            "was not compared"
        )
    every_steps = max(torch_side.scheduler_every, jax_side.scheduler_every)
    epoch = steps_per_epoch or (per_epoch if every_steps == 1 else every_steps)
    large = sum(p.numel() for p in torch_side.module.parameters()) > _LARGE
    free_steps = _FREE_STEPS[large] if free_steps is None else free_steps
    rough = "Muon" in reference.optimizer_name
    alone = free_steps and jax_side.imports and not jax_side.closure and not rough
    free = FreeInFloat64(torch_side) if alone else None
    if large:
        notes.append(
            f"more than {_LARGE // 10**6} million parameters: no snapshots were kept, so that a "
            "divergence before the optimizer may have begun after the check before it; both sides "
            f"were on their own for {free_steps} steps"
        )
    momenta = {
        layer: part.momentum
        for layer, part in torch_side.module.named_modules()
        if isinstance(getattr(part, "momentum", None), float)
    }
    evidence = Evidence(jax_side, names, reference.optimizer_name, epoch, momenta)
    evidence.layers = layers
    context = Context(reference, jax_side, names, evidence)
    context.see_ties(ties)
    context.watch = watch
    stages = Stages(context, free, free_steps, large)
    if free is None:
        why = "with a closure both are on their own: see update"
        halves = "Muon rounds to bfloat16 in float64 too, and what that moves grows" * rough
        context.reasons["trajectory"] = why if jax_side.closure else halves or "not asked for"
    try:
        pairs = paired(batches, jax_side.batches, count)
        done = run(stages, pairs, count, checks, progress or never,
                   stop=stop and not accept, goes_back=not large)  # fmt: skip
    finally:
        reference.restore(before)
    report = finished(context, name or type(torch_side.module).__name__, done, notes, accept)
    report.seconds = time.perf_counter() - began
    return report


def _of_layers(messages: Iterable[str]) -> list[str]:
    """Return notes of layers that differ, those that differ alike in one."""
    alike: dict[str, list[str]] = {}
    for message in messages:
        layer, of, what = message.partition(" (")
        alike.setdefault(of + what, []).append(layer)
    return [
        f"{LayerDifferenceWarning.__name__}: {listed(layers)}{what}"
        for what, layers in alike.items()
    ]


def _of_zero(context: Context) -> list[str]:
    """Say what is not judged of leaves whose gradient is zero but for rounding."""
    if not context.zero:
        return []
    return [
        f"the gradient of {', '.join(sorted(context.zero))} is zero but for rounding (a bias "
        "before a normalisation?): how exact it is was not judged, nor where training leads it"
    ]


def finished(
    context: Context, name: str, done: int, notes: list[str], accept: Collection[str]
) -> Report:
    """Return the report of a run: what no other divergence explains, each with its cause."""
    found, accepted = parted(findings(context), accept)
    skipped(context.results, context.reasons)
    context.curves.loss_yours[:] = map(float, context.curves.loss_yours)
    return Report(
        name=name,
        steps=done,
        first=found[0] if found else None,
        found=found,
        accepted=accepted,
        stages=context.results.stages,
        curves=context.curves,
        dtype=context.dtype,
        optimizer=context.reference.optimizer_name,
        environment=environment(),
        notes=[
            *(f"accepted: {one.why}" for one in accepted),
            *notes,
            *of_precision(),
            *context.notes,
            *_of_zero(context),
        ],
    )


def peeked(batches: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Return the first batch, and all of them."""
    source = iter(batches)
    first = next(source, None)
    if first is None:
        raise ValueError("there are no batches")
    return first, itertools.chain([first], source)


def _check(torch_side: Any, jax_side: Any) -> None:
    from ..recorder import TorchSide, listed

    if not isinstance(torch_side, TorchSide):
        raise TypeError(f"the first argument must be a TorchSide, got {type(torch_side).__name__}")
    if not isinstance(jax_side, JaxSide):
        raise TypeError(f"the second argument must be a JaxSide, got {type(jax_side).__name__}")
    lazy = [n for n, p in torch_side.module.named_parameters() if hasattr(p, "materialize")]
    if lazy:
        raise ValueError(
            f"{', '.join(lazy)} of torch's module have no shape yet: call it once on a batch "
            "before its optimizer is made"
        )
    for optimizer in listed(torch_side.optimizer):
        if isinstance(optimizer, type) or not hasattr(optimizer, "param_groups"):
            name = getattr(optimizer, "__name__", type(optimizer).__name__)
            raise TypeError(
                f"torch's optimizer must be an optimizer of the module's parameters, got {name}; "
                f"make one: optimizer={name}(module.parameters(), …)"
            )
    check_closures(torch_side.closure, jax_side.closure)
    held = [state for one in listed(torch_side.optimizer) for state in one.state.values()]
    if any(float(state.get("step", 1)) > 0 for state in held) and jax_side.state is None:
        raise ValueError(
            "torch's optimizer has taken steps already and yours has not: give the JAX side "
            "`tx` and `state` as interop.optimizer_from_torch returns them"
        )


def check_closures(torchs: bool, yours: bool) -> None:
    """Raise ValueError where only one side's step evaluates the loss itself."""
    if torchs != yours:
        side = "torch's" if torchs else "your"
        raise ValueError(
            f"closure=True on {side} side only: both steps are given gradients, or both evaluate "
            "the loss themselves"
        )
