"""The stages before the optimizer's step."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...engine import leaf_paths
from ..report import Cause
from ._context import Context, owner_of
from ._distances import ZERO, Values, largest, left_by_rounding, magnitude
from ._jax_run import Evaluated, float64
from ._jax_side import output_of, told_of
from ._meant import HALVES
from ._names import Array, Names, concrete, numpy_of
from ._repeats import not_repeated
from ._results import Place


class BeforeStep:
    """Compares data, forward pass, loss, gradients and running statistics."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._structure: Any = None  # of the output

    def parameters(self, checked: Any) -> None:
        """Compare initial parameters that the user has imported."""
        context, names = self._context, self._context.names
        yours = names.leaves_of(context.side.params)
        yours |= names.state_leaves_of(context.side.model_state)
        torchs = names.by_path(checked.params)
        torchs |= names.state_by_path({**checked.params, **checked.buffers})
        for path, theirs in torchs.items():
            mine = yours[path].astype(theirs.dtype)
            name, diagnosis = (
                owner_of(names, path),
                context.evidence.parameters(yours, torchs, path),
            )
            context.see_equal(Place(0, "parameters", path, name), mine, theirs, diagnosis)

    def dtypes(self, checked: Any) -> None:
        """Take in parameters of few bits on one side alone, which an import of values hides."""
        context, names = self._context, self._context.names
        yours = dict(leaf_paths(context.side.params))
        for path, torchs in names.by_path(checked.params).items():
            kinds = [np.dtype(getattr(x, "dtype", np.float32)).name for x in (yours[path], torchs)]
            if kinds[0] == kinds[1] or not {"bfloat16", "float16"} & {*kinds}:
                continue
            mine, theirs = kinds
            cause = Cause(
                "low-precision", f"your parameters are {mine}, torch's {theirs}",
                "give both the same: param_dtype of Flax's layers, in which parameters are kept "
                "and updated; dtype alone is what is calculated in",
            )  # fmt: skip
            why = "The run was compared in torch's dtype, which yours would not have been in."
            place = Place(0, "parameters", path, names.torch_name(path))
            context.results.add(place, f"your {path} is {mine}, torch's {theirs}", why, cause)

    def data(self, step: int, yours: Any, torchs: Any) -> None:
        """Compare batches, torch's as `JaxSide.batch` makes it.

        Raises:
            ValueError: they have other shapes.
        """
        mine, theirs = jax.tree.leaves(yours), jax.tree.leaves(torchs)
        if len(mine) != len(theirs):
            raise ValueError(
                f"your batch {step} has {len(mine)} arrays, torch's {len(theirs)}; `batch=` makes "
                "this side's of torch's"
            )
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            leaf = f"batch/{i}"
            if a.shape != b.shape:
                raise ValueError(
                    f"{leaf} of step {step} has shape {a.shape} on your side and {b.shape} on "
                    "torch's; both loaders must drop, or keep, the last batch, and `batch=` makes "
                    "this side's layout of torch's"
                )
            own = a.astype(b.dtype)
            diagnosis = self._context.evidence.data(mine, step)
            self._context.see_equal(Place(step, "data", leaf), own, b, diagnosis)

    def check(self, step: int, evaluation: Any, batch: Any) -> Any:
        """Evaluate the JAX side from torch's parameters, and compare; return its gradients.

        Raises:
            ValueError: a loss that is no scalar, or outputs of other shapes.
        """
        context, checked = self._context, evaluation.checked
        names = context.names
        before = {**checked.params, **checked.buffers}
        given = (names.params_tree(before), names.model_state(before))
        own = context.cast(batch)
        if context.explained("forward") and {*names.by_path(evaluation.grads)} == {*names.paths}:
            self._loss(step, evaluation, batch)
            return None
        first = self._structure is None
        if first:
            self._look_at_output(*given, own)
        narrow = context.model.evaluate(*given, own)
        wide = context.in_float64(given, batch, narrow)
        if first:
            self._repeats(step, (*given, own), narrow, wide)
        coarse = context.in_float32(given, batch)
        if first:
            self._see_dtypes(narrow, checked)
        self._forward(evaluation, narrow, wide, coarse, given, batch)
        self._loss(step, evaluation, batch)
        if not context.explained("gradient"):
            self._gradients(step, evaluation, narrow, wide, coarse, given[0])
        self._buffers(step, checked, narrow, wide, before)
        return narrow.grads

    def _repeats(self, step: int, given: Any, narrow: Evaluated, wide: Evaluated) -> None:
        """Look whether your side gives the same twice; torch's does, or it would not be here."""
        context = self._context
        words = not_repeated(context, given, narrow, wide)
        if not words:
            return
        cause = Cause(
            "not-repeatable",
            f"your forward pass is not deterministic: {words}",
            "switch dropout off (model.eval(), deterministic=True, rate 0) or give both sides the "
            "same masks as part of the batch; make no key from the clock, and no NumPy noise",
        )
        place = Place(step, "forward", "output")
        context.results.add(place, words, "torch's side repeats.", cause)

    def _see_dtypes(self, narrow: Evaluated, checked: Any) -> None:
        """Note an output that torch has in fewer bits than you: in float64 it is the same."""
        pairs = zip(concrete(narrow.output), concrete(checked.output), strict=False)
        found = [(a.dtype.name, b.dtype.name) for a, b in pairs]
        for yours, torchs in found:
            if yours.startswith("float") and torchs in HALVES and yours not in HALVES:
                self._context.notes.append(
                    f"torch's output is {torchs}, yours {yours}, as with torch.autocast on one "
                    "side: what is meant was compared, and training differs by that rounding"
                )
                return

    def _look_at_output(self, params: Any, model_state: Any, batch: Any) -> None:
        side = self._context.side
        with float64(self._context.x64), told_of(batch):
            made = functools.partial(output_of, side.apply)
            output, _ = jax.eval_shape(made, params, model_state, batch)
            loss = jax.eval_shape(side.loss, output, batch)
        if getattr(loss, "shape", None) is None:
            raise ValueError(
                f"your loss must return one number, and nothing beside it; it returns "
                f"{jax.tree.map(lambda x: x.shape, loss)!r} (shapes)"
            )
        if loss.shape != ():
            raise ValueError(
                f"your loss is no scalar: it returns an array of shape {loss.shape}; take the "
                "mean, or the sum, as torch's side does"
            )
        if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jax.tree.leaves(output)):
            raise ValueError(
                "your output is complex, and real numbers are compared: return its real and "
                "imaginary parts, and those of torch's (torch.view_as_real) by `forward`"
            )
        self._structure = jax.tree.structure(output)

    def _forward(
        self,
        evaluation: Any,
        narrow: Evaluated,
        wide: Evaluated,
        coarse: Evaluated | None,
        given: tuple[Any, Any],
        batch: Any,
    ) -> None:
        context, step, checked = self._context, evaluation.step, evaluation.checked
        sides = (narrow.output, checked.output, wide.output, checked.output64)
        outputs = [concrete(side) for side in sides]
        yours, torchs = ([x.shape for x in side] for side in outputs[:2])
        if yours != torchs:
            turned = ": transpose yours to torch's axes, N × C × H × W" * (
                list(map(sorted, yours)) == list(map(sorted, torchs))
            )
            raise ValueError(
                f"your output has shape {_words(yours)}, torch's {_words(torchs)}; `forward` says "
                f"what is compared{turned}"
            )
        for i, of_leaf in enumerate(zip(*outputs, strict=True)):
            leaf = "output" if len(outputs[0]) == 1 else f"output/{i}"
            diagnosis = context.evidence.forward(context, evaluation, given, batch, outputs, i)
            rounded = None if coarse is None else coarse.output[i]
            self._see(Place(step, "forward", leaf), Values(*of_leaf), diagnosis, rounded=rounded)

    def _loss(self, step: int, evaluation: Any, batch: Any) -> None:
        """Compare the losses of torch's outputs: the loss functions alone."""
        context, checked = self._context, evaluation.checked
        own = jax.tree.unflatten(self._structure, [_copy(x) for x in checked.output])
        exact = jax.tree.unflatten(self._structure, [_copy(x) for x in checked.output64])
        yours = context.model.loss_of(own, context.cast(batch))
        yours64 = context.exact.loss_of(exact, batch)
        values = Values(
            np.asarray(yours).astype(context.dtype),
            np.asarray(float(evaluation.loss)).astype(context.dtype),
            np.asarray(yours64),
            np.asarray(float(checked.loss64)),
        )
        diagnosis = context.evidence.loss(context, yours64, evaluation, exact, batch)
        # A loss near zero is the difference of terms that are not: of outputs, and as many as make
        # the loss of outputs that say nothing.
        with jax.debug_nans(False), jax.debug_infs(False):  # such as the logarithm of 0
            nothing = context.exact.loss_of(jax.tree.map(np.zeros_like, exact), batch)
        size = magnitude(map(numpy_of, checked.output64)) * abs(nothing)
        made_of = size if np.isfinite(size) else 0.0
        self._see(Place(step, "loss", "loss"), values, diagnosis, made_of=made_of)

    def _gradients(
        self,
        step: int,
        evaluation: Any,
        narrow: Evaluated,
        wide: Evaluated,
        coarse: Evaluated | None,
        params: Any,
    ) -> None:
        context, names = self._context, self._context.names
        yours, yours64 = names.leaves_of(narrow.grads), names.leaves_of(wide.grads)
        rounded = {} if coarse is None else names.leaves_of(coarse.grads)
        torchs = names.by_path(evaluation.grads)
        torchs64 = names.by_path(evaluation.checked.grads64)
        sizes = {path: largest(g) for path, g in torchs64.items()}
        most = max(sizes.values(), default=0.0)
        context.zero = {path for path, size in sizes.items() if 0 < size < ZERO * most}
        for path in [path for path, size in sizes.items() if not size]:
            # Terms that cancel without a rest on torch's side, and but for rounding on yours.
            if np.any(yours[path]) and largest(yours64[path]) < ZERO * most:
                context.zero.add(path)
        context.at_rest = {
            path for path in _without_rate(names, evaluation.options) if not np.any(yours64[path])
        }
        for path, theirs in torchs.items():  # of what is frozen in torch there is none
            if path in context.apart or path in context.at_rest:
                continue
            values = Values(yours[path], theirs, yours64[path], torchs64[path])
            diagnosis = context.evidence.gradient(yours64, torchs64, params, path)
            self._see(
                Place(step, "gradient", path, names.torch_name(path)), values, diagnosis,
                zero=path in context.zero, rounded=rounded.get(path),
            )  # fmt: skip

    def _buffers(
        self,
        step: int,
        checked: Any,
        narrow: Evaluated,
        wide: Evaluated,
        before: Mapping[str, Any],
    ) -> None:
        names = self._context.names
        torchs = names.state_by_path(checked.buffers_after)
        if not torchs:
            return
        torchs64, old = names.state_by_path(checked.buffers_after64), names.state_by_path(before)
        yours = names.state_leaves_of(narrow.model_state)
        yours64 = names.state_leaves_of(wide.model_state)
        for path, theirs in torchs.items():
            name = owner_of(names, path)
            values = Values(yours[path], theirs, yours64[path], torchs64[path])
            diagnosis = self._context.evidence.buffers(path, values, old[path], name)
            self._see(Place(step, "buffers", path, name), values, diagnosis)

    def _see(
        self, place: Place, values: Values, diagnosis: Any, *, rounded: Any = None, **rest: Any
    ) -> None:
        """Let the context see what is evaluated: ``rounded`` is yours in float32, or None."""
        context, extra = self._context, left_by_rounding(rounded, values.yours64)
        context.see(
            place, values, diagnosis, in_float64=context.has_wide, floor=context.floor,
            extra=extra, **rest,
        )  # fmt: skip


def _without_rate(names: Names, groups: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the leaves whose learning rate is 0 in torch, and is not about to rise from it."""
    still = {
        name
        for group in groups
        if not group.get("lr", 1.0) and not group.get("initial_lr", 0.0)
        for name in group["params"]
    }
    for path, entry in zip(names.paths, names.params, strict=True):
        if entry.torch_name in still:
            yield path


def _words(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "none"


def _copy(x: Any) -> Array:
    return np.array(numpy_of(x), order="C")
