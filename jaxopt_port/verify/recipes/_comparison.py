"""One recipe on both sides, and how far they are apart, stage by stage."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

import jaxopt_port as jp

from ...numerics import relative, relative_norm
from ._bounds import ACCURACY, EXACT, FORWARD, GRADIENT, JUDGES, SCHEDULE, Bound
from ._digits import Digits
from ._loops import Loop, PortLoop, numbers
from ._port_side import Literal, Models, Port, arrays, literal, plain_optax
from ._recipes import Recipe
from ._results import Change, Failure, RecipeResult, Worst
from ._torch_lenet import Net
from ._torch_side import Batch, TorchRun, make_net

_AROUND_CHANGE = 10  # steps before and after it that its account looks at


class Comparison:
    """One recipe, on all sides at once."""

    def __init__(
        self, recipe: Recipe, models: Models, digits: Digits, seed: int, dtype: str, steps: int
    ) -> None:
        self.recipe, self.models, self.digits, self.dtype = recipe, models, digits, dtype
        self.epsilon = float(jax.numpy.finfo(dtype).eps)
        self.judge = JUDGES[dtype]
        self.result = RecipeResult(recipe.name)
        self.gradients: list[float] = []
        self.losses: list[tuple[float, float]] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._start(make_net(seed, dtype), steps)
        self.result.warnings = sorted({str(w.message) for w in caught})

    def _start(self, net: Net, steps: int) -> None:
        recipe, tx, loop = self.recipe, self.recipe.port_start(), self.recipe.loop or Loop()
        self.torch = TorchRun(recipe, net, self.models.like, steps)
        exact = copy.deepcopy(net).double()
        self.torch_exact = TorchRun(recipe, exact, self.models.like_exact, steps)
        params = self.torch.params()
        # These three are given torch's gradients, clipped; the last two go their own way.
        self.isolated = Port(tx, params, PortLoop(loop, steps), clips=False)
        self.literal, self.optax = literal(recipe, params), plain_optax(recipe, params)
        self.free = Port(tx, params, PortLoop(loop, steps))
        with jax.enable_x64(True):
            self.free_exact = Port(tx, self.torch_exact.params(), PortLoop(loop, steps))
        if recipe.loop is not None:  # a scheduler may have set other numbers
            self._follow()

    def _sides(self) -> tuple[TorchRun | Port | Literal, ...]:
        return (
            self.torch,
            self.torch_exact,
            self.isolated,
            self.literal,
            self.optax,
            self.free,
            self.free_exact,
        )

    def run(
        self, data: Iterable[tuple[Any, Any]], steps: int, progress: Callable[[int], None]
    ) -> RecipeResult:
        self.result.steps = steps
        middle = steps // 2 if self.recipe.torch_change is not None else None
        for step, (images, labels) in enumerate(data):
            if step == middle:
                self._change(step)
            if step > 0 and self.recipe.one_step:
                for side in self._sides():
                    side.restart()
            self._step(step, Batch(images, labels))
            progress(step + 1)
        self._finish(steps - 1)
        return self.result

    # ── one step ───────────────────────────────────────────────────────────────────────────────

    def _step(self, step: int, batch: Batch) -> None:
        if self.recipe.loop is not None:
            self._compare_numbers(step)
        weights = self.torch.params()
        output, loss = self.torch.evaluate(batch)
        grads = self.torch.grads()
        data = (jax.numpy.asarray(batch.images, self.dtype), batch.labels)
        cotangent = self.recipe.output_as_cotangent
        ours = self.models.evaluate(weights, *data, cotangent)
        self._compare_evaluation(step, ours, output, grads)

        if self.recipe.loop is not None:
            grads = self.torch.clip()
        self.torch.step(loss)
        self.isolated.step(grads, loss)
        for side in (self.literal, self.optax):
            side.step(grads)
        self._compare_update(step)

        free = self.models.evaluate(self.free.params, *data, cotangent)
        self.free.step(free.grads, float(free.loss))
        if self.recipe.loop is not None:
            self._compare_averages(step)
            self._follow()
        self.losses.append((loss, float(free.loss)))
        self._step_exact(step, Batch(batch.images.astype(np.float64), batch.labels))

    def _step_exact(self, step: int, batch: Batch) -> None:
        """Take a step on both sides in float64, each with gradients of its own."""
        run, cotangent = self.torch_exact, self.recipe.output_as_cotangent
        output, loss = run.evaluate(batch)
        with jax.enable_x64(True):
            ours = self.models.evaluate_exact(self.free_exact.params, *batch, cotangent)
            self.free_exact.step(ours.grads, float(ours.loss))
            self._compare_exact(step, "output", {"": ours.output}, {"": output.numpy()})
            self._compare_exact(step, "gradient of", arrays(ours.grads), arrays(run.grads()))
            run.clip()
            run.step(loss)
            after = arrays(self.free_exact.params)
            self._compare_exact(step, "parameter", after, arrays(run.params()))

    def _compare_evaluation(self, step: int, ours: Any, output: Any, grads: Any) -> None:
        distance = relative(np.asarray(ours.output, np.float64), output.double().numpy())
        self._see(
            self.result.forward, distance / self.epsilon, step, "output", "forward", FORWARD, "ε"
        )
        ours_by_path, worst = arrays(ours.grads), 0.0
        for path, gradient in arrays(grads).items():
            distance = relative(ours_by_path[path], gradient) / self.epsilon
            self.result.gradient.see(distance, step, path)
            worst = max(worst, distance)
        self.gradients.append(worst)

    def _compare_exact(self, step: int, what: str, ours: Any, theirs: Any) -> None:
        for path, value in theirs.items():
            distance = relative(np.asarray(ours[path]), value)
            place = f"{what} {path}".strip()
            self._see(self.result.exact, distance, step, place, "float64", EXACT, "relative")

    def _compare_update(self, step: int) -> None:
        result, judge = self.result, self.judge
        theirs, ours = arrays(self.torch.params()), arrays(self.isolated.params)
        spelled = arrays(self.literal.params)
        for path, param in theirs.items():
            apart = judge.distance(ours[path], param)
            at = result.by_parameter.setdefault(path, {"parameter": 0.0, "momentum_buffer": 0.0})
            at["parameter"] = max(at["parameter"], apart)
            self._see(result.update_param, apart, step, path, "update", judge.update, judge.unit)
            differs = judge.distance(spelled[path], ours[path])
            self._see(
                result.literal_differs, differs, step, path, "literal", judge.literal, judge.unit
            )
        held, buffers = self.isolated.momentum_buffers(), self.torch.momentum_buffers()
        if set(held) != set(buffers):
            odd = min(set(held) ^ set(buffers))
            only = "the port" if odd in held else "torch"
            self._fail("update", step, f"{odd} (momentum_buffer)", f"held by {only} only")
        for path in (path for path in buffers if path in held):
            apart, at = judge.distance(held[path], buffers[path]), result.by_parameter[path]
            at["momentum_buffer"] = max(at["momentum_buffer"], apart)
            place = f"{path} (momentum_buffer)"
            self._see(result.update_buffer, apart, step, place, "update", judge.update, judge.unit)

    def _compare_numbers(self, step: int) -> None:
        """Compare the learning rates and momenta that a step uses, fed and free."""
        theirs = self.torch.loop.numbers()
        for port, place in ((self.isolated, "lr, momentum"), (self.free, "lr, momentum (free)")):
            apart = relative(numbers(port.state), theirs)
            self._see(self.result.schedule, apart, step, place, "schedule", SCHEDULE, "relative")

    def _compare_averages(self, step: int) -> None:
        result, judge = self.result, self.judge
        for path, average in self.torch.averages().items():
            apart = judge.distance(arrays(self.isolated.loop.averages.params)[path], average)
            self._see(result.averaged, apart, step, path, "average", judge.update, judge.unit)

    def _follow(self) -> None:
        options = jp.get_hyperparams(self.isolated.state)
        for spelled in (self.literal, self.optax):
            spelled.follow(options)

    # ── the change in mid-run ──────────────────────────────────────────────────────────────────

    def _momentum_norms(self) -> tuple[float, float]:
        sides = (self.torch, self.isolated)
        theirs, ours = (_norm(side.momentum_buffers().values()) for side in sides)
        return theirs, ours

    def _change(self, step: int) -> None:
        before = self._momentum_norms()
        for run in (self.torch, self.torch_exact):
            run.change()
        for spelled in (self.literal, self.optax):
            spelled.change()
        if self.recipe.port_set is not None:
            for port in (self.isolated, self.free, self.free_exact):
                port.state = self.recipe.port_set(port.state)
        if self.recipe.port_rebuild is not None:
            tx = self.recipe.port_rebuild()
            for port in (self.isolated, self.free):
                port.rebuild(tx)
            with jax.enable_x64(True):
                self.free_exact.rebuild(tx)
        self.result.change = Change(step, before, self._momentum_norms())

    # ── the end ────────────────────────────────────────────────────────────────────────────────

    def _finish(self, last: int) -> None:
        result = self.result
        if self.recipe.loop is not None:
            self._compare_numbers(last + 1)
        theirs = list(arrays(self.torch.params()).values())
        exact = list(arrays(self.torch_exact.params()).values())
        result.optax = relative_norm(list(arrays(self.optax.params).values()), theirs)
        result.drift = relative_norm(list(arrays(self.free.params).values()), theirs)
        result.drift_torch = relative_norm(theirs, exact)

        losses = np.array(self.losses)
        result.loss = (float(losses[-1, 0]), float(losses[-1, 1]))
        apart = float(np.max(np.abs(losses[:, 1] - losses[:, 0])))
        result.loss_difference = apart / float(np.max(np.abs(losses[:, 0])))
        self._account_for_change(losses)
        self._judge_gradients()
        self._judge_accuracy(last)

    def _account_for_change(self, losses: np.ndarray[Any, Any]) -> None:
        change = self.result.change
        if change is None:
            return
        at = change.after_step
        before = losses[max(0, at - _AROUND_CHANGE) : at].mean(axis=0)
        peak = losses[at : at + _AROUND_CHANGE].max(axis=0)
        change.loss_before = (float(before[0]), float(before[1]))
        change.loss_peak = (float(peak[0]), float(peak[1]))

    def _judge_gradients(self) -> None:
        worst, median = self.result.gradient, statistics.median_low(self.gradients)
        self.result.gradient_median = median
        if not median <= GRADIENT.limit:
            message = f"median {median:.3g} ε, bound {GRADIENT.limit:g}"
            self._fail("gradient", worst.step or 0, worst.path or "", message)

    def _judge_accuracy(self, last: int) -> None:
        test = Batch(self.digits.test_images, self.digits.test_labels)
        logits = self.models.apply(self.free.params, jax.numpy.asarray(test.images, self.dtype))
        ours = float((np.asarray(logits).argmax(1) == test.labels).mean())
        theirs = self.torch.accuracy(test)
        self.result.accuracy = (theirs, ours)
        if not abs(theirs - ours) <= ACCURACY.limit:
            self._fail("free run", last, "accuracy", f"{ours:.1%}, torch {theirs:.1%}")

    def _see(
        self, worst: Worst, value: float, step: int, path: str, stage: str, bound: Bound, unit: str
    ) -> None:
        worst.see(value, step, path)
        if not value <= bound.limit:
            self._fail(stage, step, path, f"{value:.3g} {unit}, bound {bound.limit:g}")

    def _fail(self, stage: str, step: int, path: str, message: str) -> None:
        """Note a broken bound, once for each stage: the first is the one to look at."""
        if stage not in [failure.stage for failure in self.result.failures]:
            self.result.failures.append(Failure(self.recipe.name, stage, step, path, message))


def _norm(buffers: Iterable[np.ndarray[Any, Any]]) -> float:
    return float(np.sqrt(sum(float(np.sum(b.astype(np.float64) ** 2)) for b in buffers)))
