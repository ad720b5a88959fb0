"""What the diagnoses of a run are given: kept as it runs, looked at when it has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from .. import diagnosis
from ..report import Cause
from ._batches import Batches
from ._history import History
from ._jax_run import Model
from ._jax_side import JaxSide
from ._names import Array, Names, concrete, numpy_of
from ._optimizer_state import fits
from ._other_passes import by_calls_or_factor, can_try, relative, used_by

Diagnosis = Callable[[], Cause | None]


class Evidence:
    """Keeps what the diagnoses of a run may need.

    Args:
        side: the JAX side.
        names: which leaf is which tensor.
        optimizer: torch's class.
        steps_per_epoch: for schedules.
        momenta: of torch's layers with running statistics, by the layer's path there.
    """

    def __init__(
        self,
        side: JaxSide,
        names: Names,
        optimizer: str,
        steps_per_epoch: int,
        momenta: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._side, self._names, self._momenta = side, names, momenta
        self._optimizer, self._per_epoch = optimizer, steps_per_epoch
        self._batches, self._own = Batches(), Batches()
        self._known: list[Any] = []  # causes of updates, as hypotheses
        self._size = 1
        self._theirs: list[list[dict[str, float]]] = []
        self._ours: list[dict[str, dict[str, float]]] = []
        self._group_of: dict[str, int] = {}
        self.classes: dict[str, str] = {}  # of this library, by path
        self.every = 1  # batches of a step
        self.layers: list[str] = []  # how layers differ, as the parameter map has found

    # ── what is noted in each step ─────────────────────────────────────────────────────────────

    def note_batch(self, step: int, batch: Any) -> None:
        """Keep torch's batch of a step, as this side is given it."""
        arrays = jax.tree.leaves(batch)
        self._batches.add(step, arrays)
        if step == 0 and arrays and arrays[0].ndim:
            self._size = int(arrays[0].shape[0])

    def note_hyperparameters(
        self,
        theirs: list[dict[str, float]],
        ours: dict[str, dict[str, float]],
        group_of: Mapping[str, int],
    ) -> None:
        """Keep the numbers of a step: torch's by group, yours by path."""
        self._theirs.append(theirs)
        self._ours.append(ours)
        self._group_of = dict(group_of)

    def group_of(self, path: str) -> int | None:
        """Return torch's group of a leaf."""
        return self._group_of.get(path)

    def truncate(self, steps: int) -> None:
        """Forget what came after a step, which will be run again."""
        del self._theirs[steps:], self._ours[steps:]
        self._batches.truncate(steps)
        self._own.truncate(steps)

    # ── what each stage's diagnosis is given ───────────────────────────────────────────────────

    def parameters(
        self, yours: Mapping[str, Array], torchs: Mapping[str, Array], path: str
    ) -> Diagnosis:
        """Of imported parameters."""
        return lambda: diagnosis.explain_parameters(_wide(yours), _wide(torchs), path)

    def data(self, yours: Sequence[Array], step: int) -> Diagnosis:
        """Of a batch; later ones are known when it is asked."""
        self._own.add(step, yours)
        mine = self._own.kept[step]
        return lambda: diagnosis.explain_data(mine, self._batches.kept, step, self._own.after(step))

    def forward(
        self,
        context: Any,
        evaluation: Any,
        given: tuple[Any, Any],
        batch: Any,
        outputs: Sequence[Sequence[Array]],
        which: int,
    ) -> Diagnosis:
        """Of an output: other ways of torch's calls are tried, then parameters in other layouts."""
        params, model_state = given
        as_written = Model(self._side, wide=True, x64=True)
        yours, wanted = ([np.array(x, np.float64) for x in outputs[i]] for i in (2, 3))

        def evaluate(leaves: Mapping[str, Array]) -> float:
            tree = self._names.tree_of(leaves)
            output = concrete(context.exact.evaluate(tree, model_state, batch).output)
            return max(relative(a, b) for a, b in zip(output, wanted, strict=True))

        def diagnose() -> Cause | None:
            seen = context.exact.seen
            plain = yours[which]
            if seen.halves and not seen.fixed:
                plain = np.array(
                    concrete(as_written.evaluate(params, model_state, batch).output)[which],
                    np.float64,
                )
            if found := diagnosis.explain_output(plain, wanted[which]):
                return found
            same = all(relative(a, b) <= 1e-9 for a, b in zip(yours, wanted, strict=True))
            if same:  # but for what it keeps in fewer bits
                halves = sorted(seen.halves)
                return diagnosis.narrow_forward(halves[0]) if halves else None
            both, given = (yours, wanted), (model_state, batch)
            ways = diagnosis.settings_of(self.layers)
            return (
                by_calls_or_factor(context, evaluation, given, both, which, ways)
                or diagnosis.explain_forward(_wide(self._names.leaves_of(params)), evaluate)
                or diagnosis.of_layers(used_by(evaluation, self.layers), can_try(context))
            )

        return diagnose

    def loss(
        self, context: Any, yours: float, evaluation: Any, output: Any, batch: Any
    ) -> Diagnosis:
        """Of a loss; ``output`` is torch's as a tree of your side's."""
        as_written = Model(self._side, wide=True, x64=True)

        def diagnose() -> Cause | None:
            checked = evaluation.checked
            held = [x for x in map(numpy_of, checked.output64) if x.dtype.kind not in "biu"]
            outputs = [np.array(x, np.float64) for x in held]
            params = _wide(self._names.by_path(checked.params))
            arrays = [numpy_of(x) for x in jax.tree.leaves(batch)]
            gradients = None
            if hasattr(context.reference, "exact"):
                mine = concrete(context.exact.loss_gradients(output, batch))
                theirs = concrete(context.reference.exact.loss_gradients(checked, evaluation.batch))
                gradients = (mine, theirs)
            return diagnosis.explain_loss(
                yours, float(checked.loss64), outputs, arrays, params,
                as_written.loss_of(output, batch), gradients,
            )  # fmt: skip

        return diagnose

    def gradient(
        self, yours: Mapping[str, Array], torchs: Mapping[str, Array], params: Any, path: str
    ) -> Diagnosis:
        """Of a gradient."""

        def diagnose() -> Cause | None:
            values = _wide(self._names.leaves_of(params))
            size = self._size
            return diagnosis.explain_gradient(_wide(yours), _wide(torchs), values, path, size)

        return diagnose

    def clipping(
        self, yours: Mapping[str, Array], torchs: Mapping[str, Array], before: Mapping[str, Array]
    ) -> Diagnosis:
        """Of clipped gradients."""
        return lambda: diagnosis.explain_clipping(
            _wide(yours), _wide(torchs), _wide(before), self._group_of
        )

    def hyperparameter(self, name: str, path: str, step: int) -> Diagnosis:
        """Of a number in a group."""

        def diagnose() -> Cause | None:
            if told := self.another_class(path)():
                return told
            group, now = self._group_of[path], step // self.every
            steps = slice(self.every - 1, None, self.every)
            ours = [held.get(path, {}).get(name, math.nan) for held in self._ours[steps]]
            all_theirs = [[g.get(name, math.nan) for g in groups] for groups in self._theirs[steps]]
            theirs = [numbers[group] for numbers in all_theirs]
            own = self._ours[steps][now].get(path, {})
            groups = enumerate(self._theirs[steps][now])
            alike = [i for i, of_group in groups if i != group and fits(own, of_group)]
            others = [[numbers[i] for numbers in all_theirs] for i in alike]
            return diagnosis.explain_hyperparameter(
                name, ours, theirs, now, self._per_epoch, others
            )

        return diagnose

    def another_class(self, path: str) -> Diagnosis:
        """Of an optimizer whose gradients are not known: its class, where your state shows it."""
        return lambda: diagnosis.of_another_class(self.classes.get(path, ""), self._optimizer)

    def update(self, history: History, path: str, step: int, stepped: bool = True) -> Diagnosis:
        """Of what an optimizer did; it tells of later differences, too."""
        if not stepped:
            return lambda: diagnosis.step_too_early(history.every, step)
        return _OfUpdate(
            lambda: history.of(path, self._optimizer, step, self._size, self._per_epoch),
            history.every,
            self._known,
        )

    def averages(self, values: Any, before: Array | None, params: Array) -> Diagnosis:
        """Of a running average."""
        yours, torchs = np.array(values.yours64), np.array(values.torchs64)
        now = np.array(params, np.float64)
        return lambda: diagnosis.explain_averages(yours, torchs, now, before)

    def state(
        self,
        history: History,
        path: str,
        name: str,
        dtypes: tuple[np.dtype[Any], np.dtype[Any]] | None,
    ) -> Diagnosis:
        """Of what an optimizer holds: by its dtypes, or by what comes of it in the next steps."""

        def diagnose() -> Cause | None:
            if dtypes is not None and dtypes[0].itemsize < dtypes[1].itemsize:
                return diagnosis.explain_state_dtype(name, *map(str, dtypes))
            first = history.first_difference(path)
            return None if first is None else self.update(history, path, first)()

        return diagnose

    def buffers(self, path: str, values: Any, before: Array, torch_name: str) -> Diagnosis:
        """Of a running statistic."""
        yours, torchs = np.array(values.yours64), np.array(values.torchs64)
        old = np.array(before, np.float64)
        momentum = self._momenta.get(torch_name.rpartition(".")[0], 0.1)  # torch's default
        return lambda: diagnosis.explain_buffers(yours, torchs, old, momentum, self._size)


class _OfUpdate:
    """Finds the cause of an update, and those of what differs later though that is allowed for.

    Args:
        history: gives what is known of the leaf.
        every: how many batches make one step.
        known: what was found of other leaves.

    Attributes:
        later: step and cause of each.
    """

    def __init__(
        self, history: Callable[[], diagnosis.UpdateHistory | None], every: int, known: list[Any]
    ) -> None:
        self._history, self._every, self._known = history, every, known
        self.later: list[tuple[int, Cause]] = []

    def __call__(self) -> Cause | None:
        found = self._history()
        if found is None:
            return None
        (first, *later) = diagnosis.explain_updates(found, self._known) or [(found.first, None)]
        every = self._every
        self.later = [(every * (s + 1) - 1, cause) for s, cause in later if cause is not None]
        return first[1]


def _wide(leaves: Mapping[str, Array]) -> dict[str, Array]:
    return {path: np.array(leaf, np.float64) for path, leaf in leaves.items()}
