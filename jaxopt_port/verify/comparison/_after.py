"""The optimizer's step, and what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._averages import Averages
from ._closures import Disturbed
from ._context import Context
from ._distances import FLOAT64, Values, largest, near
from ._free_run import FreeInFloat64, OnTheirOwn
from ._held import Held
from ._hyperparameters import Numbers, of_schedule
from ._leeway import FLOAT32, Leeway
from ._names import Array, numpy_of
from ._optimizer_state import classes, comparable, moments
from ._results import Place
from ._stepper import Stepper, adds_up
from ._watched import Step, torch_state

# What a state is apart by that is made of sums in float32.
_ROUNDED = 1e-6


class AfterStep(Held):
    """Feeds both optimizers with torch's gradients, lets both sides run free, and compares.

    The arguments are those of `Stages`, and torch's first evaluation.
    """

    held = ("_fed", "_fed_exact", "_own", "_disturbed", "_leeway", "_averages")

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
        theirs = names.params_tree({**checked.params, **checked.buffers})
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
        context.evidence.classes = classes(self._fed.state)
        self._leeway = Leeway(self._start)
        self._numbers = Numbers(context, (self._fed, self._fed_exact), self._leeway)
        self._layouts = dict(getattr(getattr(side.tx, "definition", None), "layouts", ()))
        self._averages = Averages(context)
        self._clips = self._clipped = False
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
        none = self._context.second | self._context.at_rest
        tree = names.params_tree(given, own_grads, none)
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
        self._leeway.rate = FLOAT32 if rounded else 0.0
        named = self._context.reference.optimizer_name
        self._leeway.rough = {
            path
            for path, group in group_of.items()
            if "Muon" in evaluation.options[group].get("optimizer", named)
        }
        if self._fed_exact.unread:
            self._leeway.rate = of_schedule(step)
        clipped = names.by_path(update.clipped)
        self._clips |= bool(clipped)
        self._clipped = self._clipped or any(
            not np.array_equal(clipped[path], grads[path]) for path in clipped.keys() & grads.keys()
        )
        self._clipping(step, update, grads)
        self._numbers.see(step, evaluation.options, group_of, checks, update.stepped)
        if self._disturbed is not None and step == 0:
            words = self._numbers.read.words(self._fed.updated)
            self._disturbed.see_options(words, evaluation.options, group_of)
        if update.params64:
            self._updated(step, update, grads, evaluation.options, group_of, checks)
            self._averages.see(step, update, self._fed, self._fed_exact)
        else:
            self._numbers.tell(every=True)
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
            if path in context.at_rest:
                continue
            values = Values(yours[path], theirs, yours64[path], torchs64[path])
            diagnosis = context.evidence.clipping(yours64, torchs64, grads)
            place = Place(step, "clipping", path, names.torch_name(path))
            context.see(place, values, diagnosis)

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
        broken = names.by_path(
            {n: p for n, p in update.params.items() if np.isnan(numpy_of(p)).any()}
        )
        far = [
            path
            for path in torchs64
            if not context.explained("update", path)
            and (checks or path in broken or not near(yours64[path], torchs64[path]))
        ]
        if not (checks or far):
            return
        torchs, yours = names.by_path(update.params), names.leaves_of(self._fed.params)
        for path in far:
            # A trace may have it in float64 only.
            narrow = path in torchs and update.own_dtype
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
                Place(step, "update", path, name), held, diagnosis,
                start=start, in_own_dtype=narrow, extra=extra,
            )  # fmt: skip
        self._states(step, update)
        self._numbers.tell()

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
            if path in context.at_rest:
                continue
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
                    Place(step, "state", leaf, entry.torch_name), values, diagnosis,
                    in_own_dtype=own, start=np.zeros_like(theirs64),
                    extra=self._leeway.reached(leaf, theirs64),
                    floor=_ROUNDED if rounded else FLOAT64,
                )  # fmt: skip

    def end(self) -> None:
        """Judge what takes the whole run."""
        self._numbers.end()
        if self._clips and not self._clipped:
            self._context.notes.append(
                "torch's clipping left every gradient of this run as it was: how your side clips "
                "was not tested; a lower limit on both sides would"
            )
        batches, own = self._context.reference.accumulation_steps, self._context.side
        hidden = self._clipped and not self._context.results.found
        divides = batches == 1 or own.accumulation_steps != 1
        if hidden and not divides and adds_up(self._fed.state):
            self._context.notes.append(
                f"torch's side takes a step of {batches} batches, each loss divided by {batches}; "
                "jp.accumulate_grads adds up gradients, and your losses are not divided: give your "
                f"side accumulation_steps={batches}, and divide in your loop. A clipping that is "
                "always active hides it"
            )
