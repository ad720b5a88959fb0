"""The optimizer's step, and what comes after it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...trees import listed
from ._averages import Averages
from ._closures import Disturbed
from ._context import Context
from ._distances import FLOAT64, Judgement, Values, largest, near
from ._free_run import FreeInFloat64, OnTheirOwn
from ._leeway import Leeway
from ._names import Array
from ._optimizer_state import Hyperparameters, classes, comparable, flat, moments
from ._results import as_array
from ._stepper import Stepper
from ._watched import Step, torch_state

# A hyperparameter may be kept in float32.
_FLOAT32 = 1.2e-7
# What a state is apart by that is made of sums in float32.
_ROUNDED = 1e-6
# A schedule in float64 multiplies another way than torch's.
_FLOAT64 = 1e-9


def _of_schedule(step: int) -> float:
    """Return how far a rate may be off: one in float32 multiplies rounded factors, step by step."""
    return _FLOAT32 * (8 + step / 4)


class AfterStep:
    """Feeds both optimizers with torch's gradients, lets both sides run free, and compares.

    The arguments are those of `Stages`, and torch's first evaluation.
    """

    def __init__(
        self,
        context: Context,
        evaluation: Any,
        free_torch: FreeInFloat64 | None,
        free_steps: int,
        large: bool,
    ) -> None:
        self._context = context
        names, side, x64 = context.names, context.side, context.x64
        checked = evaluation.checked
        theirs = names.params_tree(checked.params)
        model_state = side.model_state
        if side.imports:
            model_state = names.model_state({**checked.params, **checked.buffers})
        self._start = names.leaves_of(theirs)
        self._model_state = model_state
        self._fed = Stepper(side, theirs, wide=False, x64=x64, donates=large)
        self._fed_exact = Stepper(side, theirs, wide=True, x64=True, donates=large)
        self._disturbed = Disturbed(context, theirs) if side.closure else None
        start = (theirs if side.imports else side.params, model_state)
        self._own = OnTheirOwn(context, start, free_torch, free_steps, large)
        parts = self._fed, self._fed_exact, self._own, self._disturbed
        self._parts: list[Any] = [part for part in parts if part is not None]
        self._read = Hyperparameters(self._fed.state, names.paths)
        context.evidence.classes = classes(self._fed.state)
        self._base = 0.0  # the largest rate that is known of
        self._leeway = Leeway(self._start)
        self._layouts = dict(getattr(getattr(side.tx, "definition", None), "layouts", ()))
        self._averages = Averages(context)
        self._others: dict[tuple[str, str], tuple[str, Callable[[], None]]] = {}  # than torch's
        grads = names.by_path(evaluation.grads)
        context.history.begin(names.by_path(checked.params), grads)

    def step(
        self,
        step: int,
        evaluation: Any,
        batches: tuple[Any, Any],
        checks: bool,
        own_grads: Any = None,
    ) -> None:
        """Take the step on both sides, and compare.

        Args:
            step: counted from 0.
            evaluation: torch's.
            batches: torch's, as this side is given it, and what this side trains on when it is on
                its own.
            checks: whether everything is compared, or only what differs at first sight.
            own_grads: the JAX side's gradients, where they are known: they are what its optimizer
                is given of leaves that torch has no gradient of.
        """
        names = self._context.names
        groups = {n: i for i, group in enumerate(evaluation.options) for n in group["params"]}
        pairs = zip(names.paths, names.params, strict=True)
        group_of = {p: groups[e.torch_name] for p, e in pairs if e.torch_name in groups}
        given = evaluation.grads if evaluation.fed is None else evaluation.fed
        tree = names.params_tree(given, own_grads, self._context.second)
        held = names.leaves_of(tree)
        grads = {path: held[path] for path in names.by_path(given)}
        update = self._context.reference.update()
        batch, own_batch = batches
        models = self._context.model, self._context.exact
        for fed, model in zip((self._fed, self._fed_exact), models, strict=True):
            step_by = model.closure(self._model_state, batch) if self._disturbed else tree
            fed.step(step_by, float(evaluation.loss), update.stepped)
        if self._disturbed is not None:
            told = float(evaluation.loss)
            self._disturbed.step(step, step_by, told, self._fed_exact, self._start)
        rounded = self._fed_exact.seen.inexact or self._fed_exact.rounded
        self._leeway.rate = _FLOAT32 if rounded else 0.0
        named = self._context.reference.optimizer_name
        self._leeway.rough = {
            path
            for path, group in group_of.items()
            if "Muon" in evaluation.options[group].get("optimizer", named)
        }
        if self._fed_exact.unread:
            self._leeway.rate = _of_schedule(step)
        self._clipping(step, update, grads)
        self._hyperparameters(step, evaluation.options, group_of, checks, update.stepped)
        if self._disturbed is not None and step == 0:
            words = self._read.words(self._fed.updated)
            self._disturbed.see_options(words, evaluation.options, group_of)
        if update.params64:
            self._updated(step, update, grads, evaluation.options, group_of, checks)
            self._averages.see(step, update, self._fed, self._fed_exact)
        else:
            self._tell(every=True)
            self._context.reasons["update"] = "the trace does not hold it"
        self._own.step(step, evaluation, own_batch, update, self._leeway.taken)
        if self._context.watch is not None:
            clipped = names.params_tree(update.clipped) if update.clipped else tree
            self._context.watch(Step(
                step, float(evaluation.loss), tree, clipped, names.by_path(update.params),
                torch_state(names, update.state), names.by_path(update.averages),
                names.leaves_of(self._fed.params), self._fed.updated, *self._own.seen(),
            ))  # fmt: skip

    def _clipping(self, step: int, update: Any, grads: Mapping[str, Array]) -> None:
        context, names = self._context, self._context.names
        if context.side.clip is None or not update.clipped64:
            if update.clipped64:
                context.reasons["clipping"] = "your clipping is part of tx: see update"
            return
        yours, yours64 = (names.leaves_of(s.clipped) for s in (self._fed, self._fed_exact))
        torchs, torchs64 = (names.by_path(x) for x in (update.clipped, update.clipped64))
        for path, theirs in torchs.items():
            values = Values(yours[path], theirs, yours64[path], torchs64[path])
            diagnosis = context.evidence.clipping(yours64, torchs64, grads)
            context.see("clipping", step, path, names.torch_name(path), values, diagnosis)

    def _hyperparameters(
        self,
        step: int,
        groups: list[dict[str, Any]],
        group_of: Mapping[str, int],
        checks: bool,
        stepped: bool,
    ) -> None:
        context = self._context
        theirs = [flat(group) for group in groups]
        ours, exact = (self._read.read(s.updated) for s in (self._fed, self._fed_exact))
        context.evidence.note_hyperparameters(theirs, ours, group_of)
        rates, mine = context.curves.lr_torch, context.curves.lr_yours
        if not rates:
            rates.extend([] for _ in theirs)
            mine.extend([] for _ in theirs if ours)
        for rate, numbers in zip(rates, theirs, strict=True):
            rate.append(numbers.get("lr", float("nan")))
        if not ours:
            context.reasons["hyperparameters"] = "the optimizer's state does not hold them"
            return
        for path, group in group_of.items():
            numbers = ours.get(path, {})
            if len(mine[group]) <= step and "lr" in numbers:
                mine[group].append(numbers["lr"])
            # torch's schedulers say to what a rate may rise that is small at first.
            known = (theirs[group].get(k, 0.0) for k in ("lr", "initial_lr", "max_lr"))
            self._base = max(self._base, *map(abs, known))
            for name in sorted(numbers.keys() & theirs[group].keys()):
                torchs = theirs[group][name]
                # A schedule's number is that of the last step, until the next is taken.
                if stepped and (checks or numbers[name] != torchs):
                    pair = (numbers[name], exact.get(path, {}).get(name, numbers[name]))
                    self._number(step, path, name, pair, torchs)
        context.results.compared("hyperparameters", step)

    def _number(
        self, step: int, path: str, name: str, both: tuple[float, float], theirs: float
    ) -> None:
        """Judge a number as it is and, where float32 was lifted, as it would be in float64."""
        context = self._context
        mine, exact = both
        scale = max(abs(theirs), self._base if name == "lr" else 0.0)
        rounding = _of_schedule(step) if name == "lr" else _FLOAT32
        seen = self._fed_exact.seen
        lifted = bool(seen.narrow or seen.rounded) and not seen.inexact
        of_exact = _FLOAT64 if lifted else rounding
        numbers = [(exact, of_exact), (mine, rounding)]
        if not (seen.halves or self._read.in_halves) and abs(exact - theirs) <= _FLOAT64 * scale:
            numbers = numbers[:1]  # what float32 makes of it is rounding, as much as that may be
        judged = max(
            ((abs(x - theirs), of * scale) for x, of in numbers),
            key=lambda pair: pair[0] / pair[1] if pair[1] else float(pair[0] > 0),
        )
        far, bound = judged
        excess = 0.0 if far == 0 else far / bound if bound else float("inf")
        if excess <= 1 and theirs and name == "lr":
            self._leeway.rate = max(self._leeway.rate, abs(exact - theirs) / abs(theirs))
        why = f"a number kept in float32 would be off by {bound:.1g} at most."
        message = f"{name} is {mine:.9g}, torch's {theirs:.9g}"
        see = functools.partial(
            context.results.see_number,
            step,
            path,
            context.names.torch_name(path),
            as_array(mine),
            as_array(theirs),
            Judgement(excess, bound, why),
            message,
            context.evidence.hyperparameter(name, path, step),
            name,
        )
        if excess <= 1:
            see()
        else:
            self._others.setdefault((path, name), (message, see))

    def _tell(self, every: bool = False) -> None:
        """Tell numbers that are others than torch's, of leaves whose steps are others, too.

        What a state holds need not be in force: a mask or a scale may come after it.
        """
        told = self._context.results.told()
        for (path, name), (_, see) in list(self._others.items()):
            if every or {("update", path), ("state", path)} & told:
                del self._others[path, name]
                see()

    def end(self) -> None:
        """Note the numbers that are others while steps are not."""
        alike: dict[str, list[str]] = {}
        for (path, _), (message, _) in self._others.items():
            alike.setdefault(message, []).append(path)
        self._context.notes.extend(
            f"in the optimizer's state {message} for {listed(paths)}; the steps are torch's all "
            "the same, so that something else (a mask, a scale) has the last word"
            for message, paths in alike.items()
        )

    def _updated(
        self,
        step: int,
        update: Any,
        grads: Mapping[str, Array],
        groups: list[dict[str, Any]],
        group_of: Mapping[str, int],
        checks: bool,
    ) -> None:
        context, names = self._context, self._context.names
        torchs64 = names.by_path(update.params64)
        yours64 = names.leaves_of(self._fed_exact.params)
        clipped = names.by_path(update.clipped64 or update.clipped)
        if update.stepped:
            own = names.by_path(update.grads) or grads
            context.history.add(own, clipped, yours64, torchs64, groups, group_of)
        context.results.compared("update", step)
        self._leeway.take(torchs64)
        far = [
            path
            for path in torchs64
            if not context.explained("update", path)
            and (checks or not near(yours64[path], torchs64[path]))
        ]
        if not (checks or far):
            return
        torchs, yours = names.by_path(update.params), names.leaves_of(self._fed.params)
        for path in far:
            # A trace may have it in float64 only.
            narrow = path in torchs and getattr(update, "own_dtype", True)
            narrow = narrow and path not in self._leeway.rough
            theirs = torchs[path] if narrow else torchs64[path].astype(yours[path].dtype)
            held = Values(yours[path], theirs, yours64[path], torchs64[path])
            diagnosis = context.evidence.update(context.history, path, step, update.stepped)
            name, start = names.torch_name(path), self._start[path]
            reached = self._leeway.reached(path, torchs64[path], largest(start))
            extra = self._leeway.taken.get(path, 0.0) + reached
            if self._disturbed is not None:  # and there are no gradients to tell the algorithm
                if self._disturbed.lost or context.results.found:
                    continue
                narrow, extra = False, self._disturbed.allowed[path]
                diagnosis = context.evidence.another_class(path)
            context.see(
                "update", step, path, name, held, diagnosis,
                start=start, in_own_dtype=narrow, extra=extra,
            )  # fmt: skip
        self._states(step, update)
        self._tell()

    def _states(self, step: int, update: Any) -> None:
        context, names = self._context, self._context.names
        if self._disturbed is not None:
            context.reasons["state"] = "that of a step with a closure is not known: see update"
            return
        optimizer = context.reference.optimizer_name
        ours, exact = (
            moments(fed.updated, names.paths, optimizer, self._layouts)
            for fed in (self._fed, self._fed_exact)
        )
        if not ours:
            context.reasons["state"] = "the optimizer's state has not torch's names"
            return
        torchs, torchs64 = (torch_state(names, s) for s in (update.state, update.state64))
        for path, entry in zip(names.paths, names.params, strict=True):
            if path in self._leeway.rough and path not in self._layouts:
                continue  # its axes may be the other way round, within another transformation
            narrow, theirs = torchs[path], torchs64[path]
            for name, mine64, theirs64 in comparable(exact.get(path, {}), theirs, entry.shape):
                yours = np.asarray(ours[path][name])
                own = name in narrow
                theirs_narrow = narrow[name] if own else theirs64
                kept = (yours.dtype, theirs_narrow.dtype) if own else None
                diagnosis = context.evidence.state(context.history, path, name, kept)
                if own and yours.dtype.itemsize < theirs_narrow.dtype.itemsize:
                    yours = yours.astype(theirs_narrow.dtype)
                values = Values(yours, theirs_narrow.astype(yours.dtype), mine64, theirs64)
                leaf = f"{path} · {name}"
                rounded = self._fed_exact.rounded or path in self._leeway.taken
                context.see(
                    "state", step, leaf, entry.torch_name, values, diagnosis,
                    in_own_dtype=own, start=np.zeros_like(theirs64),
                    extra=self._leeway.reached(leaf, theirs64),
                    floor=_ROUNDED if rounded else FLOAT64,
                )  # fmt: skip

    def snapshot(self) -> Any:
        """Return all that a step changes."""
        parts = [part.snapshot() for part in self._parts]
        return parts, self._leeway.snapshot(), self._averages.before

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        parts, leeway, self._averages.before = snapshot
        self._leeway.restore(leeway)
        for part, held in zip(self._parts, parts, strict=True):
            part.restore(held)
