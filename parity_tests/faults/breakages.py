"""Ways to break the package in one fact each: what `make test-quick` must catch, all of it.

``python -m parity_tests.faults`` tries them, each in a copy.
"""

from typing import NamedTuple


class Breakage(NamedTuple):
    """One fact changed.

    Attributes:
        name: what is wrong then.
        areas: the folders of tests that are asked first.
        file: within the package.
        old: what stands there, once.
        new: what stands there instead.
    """

    name: str
    areas: str
    file: str
    old: str
    new: str

    def of(self, text: str) -> str:
        """Return the file's text with the change.

        Raises:
            ValueError: the text has no such place, or several.
        """
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has {text.count(self.old)} places {self.old!r}"
            )
        return text.replace(self.old, self.new)


BREAKAGES = [
    # the arithmetic of optimizers
    Breakage("Adam's eps within the root", "optim", "optim/_adam.py", "denom = add_scalar(div_each(sqrt(exp_avg_sq), bias_correction2_sqrt), eps)", "denom = div_each(sqrt(add_scalar(exp_avg_sq, eps)), bias_correction2_sqrt)"),
    Breakage("Adam's bias correction one step ahead", "optim", "optim/_adam.py", "1 - betas ** step.astype(jnp.float64)", "1 - betas ** (step + 1).astype(jnp.float64)"),
    Breakage("AdamW decays after the step", "optim", "optim/_adam.py", "return Sum(param, exp_avg, -step_size, over=denom), after", "late = common['decay'] if common['decoupled_weight_decay'] else 1\n    return Sum(param, exp_avg, -step_size * late, over=denom), after"),
    Breakage("SGD's first gradient is dampened", "optim", "optim/_momentum.py", "jnp.where(begun, add(mul(held, momentum), grad, alpha=1 - dampening), grad)", "add(mul(held, momentum), grad, alpha=1 - dampening)"),
    Breakage("centered RMSprop subtracts the last step's mean", "optim", "optim/_rmsprop.py", "addcmul(square_avg, grad_avg, grad_avg, value=-1.0)", "addcmul(square_avg, state['grad_avg'], state['grad_avg'], value=-1.0)"),
    Breakage("Lion's betas exchanged", "contrib", "contrib/_lion.py", "ahead, after = lerp(exp_avg, grad, weight1), lerp(exp_avg, grad, weight2)", "ahead, after = lerp(exp_avg, grad, weight2), lerp(exp_avg, grad, weight1)"),
    Breakage("a fused multiply-add rounds twice", "numerics", "numerics/_emitted.py", "hlo.select(inexact, odd, bits)", "bits"),
    Breakage("kernels round a fused multiply-add twice", "kernels", "kernels/_source.py", '"FMA({0}, {1}, {2})"', '"{0} * {1} + {2}"'),
    # groups and their numbers
    Breakage("a group that rests takes steps", "engine", "engine/_update.py", "grad is not None and not rests", "grad is not None"),
    Breakage("what rests decays", "engine", "engine/_update.py", "jnp.full_like(param, -0.0)", "-1e-3 * param"),
    Breakage("a gradient that is None counts as a step", "engine", "engine/_update.py", "table.ticked(stepping)", "table.ticked([True] * len(stepping))"),
    Breakage("a number is set in all groups", "engine", "engine/_hyperparams.py", "own = dict.fromkeys(indices, value)", "own = dict.fromkeys(_indices(state, None), value)"),
    # schedules, clipping, loops
    Breakage("StepLR one step early", "lr_scheduler", "lr_scheduler/_decays.py", "(own.last_epoch % self.step_size != 0)", "((own.last_epoch + 1) % self.step_size != 0)"),
    Breakage("warm restarts one step late", "lr_scheduler", "lr_scheduler/_cosine.py", "over = later >= own.T_i", "over = later > own.T_i"),
    Breakage("clipping without torch's 1e-6", "loops", "clip_grad.py", "reciprocal(add_scalar(total_norm, 1e-6))", "reciprocal(total_norm)"),
    Breakage("a norm of each device's part", "sharding", "clip_grad.py", "        if axes:\n            together", "        if axes and norm_type != 2:\n            together"),
    Breakage("the scale grows one step late", "loops", "amp.py", "tracker + 1 == self.growth_interval", "tracker == self.growth_interval"),
    Breakage("an earlier overflow of the window forgotten", "loops", "accumulation.py", "found = found | (state.found_inf & (state.taken > 0))", "found = found | (state.found_inf & False)"),
    Breakage("the first average is not the model", "loops", "swa_utils/_averaged_model.py", "first = averages.n_averaged == 0", "first = averages.n_averaged < 0"),
    Breakage("Flax's optimizer keeps its first state", "flax", "flax/_nnx.py", "nnx.update(self.opt_state, nnx.state(after))", "nnx.update(self.opt_state, nnx.state(held))"),
    # state dicts and the ways to torch
    Breakage("indices by the tree and not by the groups", "checkpoint", "checkpoint/_state_dict.py", "paths = [path for i in range(len(table.groups)) for path in table.paths_of(i)]", "paths = table.paths"),
    Breakage("a state dict's names are not read", "checkpoint", "checkpoint/_loading.py", 'names = group.get("param_names") or paths\n        by_name', "names = paths\n        by_name"),
    Breakage("kernels go back as they came", "interop", "interop/mapping/_layout.py", "part.transpose(np.argsort(self.axes))", "part.transpose(self.axes)"),
    Breakage("a layer of one's own is taken for the same", "interop", "interop/mapping/_own_layers.py", "_ROUNDING = 1e-5", "_ROUNDING = 1e5"),
    Breakage("a rule is proposed that mends nothing", "interop", "interop/mapping/_suggested_rules.py", "if len(after) >= len(problems):", "if rule[1]:"),
    Breakage("a convolution's kernel is transposed in space", "interop", "interop/mapping/_places.py", "convolution = Layout(axes=(*range(2, n), 1, 0))", "convolution = Layout(axes=(*reversed(range(2, n)), 1, 0))"),
    # the harness
    Breakage("gradients are not compared", "verify", "verify/comparison/_before.py", "        self._gradients(step, evaluation, narrow, wide, coarse, given[0])\n", ""),
    Breakage("averages are not compared", "verify", "verify/comparison/_after.py", "            self._averages.see(step, update, self._fed, self._fed_exact)\n", "            pass\n"),
    Breakage("optimizer states are not compared", "verify", "verify/comparison/_after.py", "        self._states(step, update)\n", ""),
    Breakage("a change in mid-run is not made in float64", "verify", "verify/recorder/_together.py", "    for one in (side.optimizer, optimizer64):\n", "    for one in (side.optimizer,):\n"),
    Breakage("who watches is told nothing", "verify", "verify/comparison/_after.py", "        if self._context.watch is not None:\n", "        if False:\n"),
    Breakage("a divergence exits with 0", "cli", "cli/_cases.py", "    if not report.ok:\n        raise typer.Exit(1)\n", ""),
]  # fmt: skip
