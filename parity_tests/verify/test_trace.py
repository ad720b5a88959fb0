"""A trace gives back what was recorded, to the last bit, and keeps to its budget."""

import dataclasses
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jaxopt_port import interop
from jaxopt_port.interop._tensors import array_of
from jaxopt_port.interop.mapping._mapping import map_of_tensors
from jaxopt_port.interop.mapping._torch_tensors import tensors_of
from jaxopt_port.verify.recorder import TorchRun, record
from jaxopt_port.verify.recorder._described import layers_described, tensors_described
from jaxopt_port.verify.recorder._plan import bytes_of
from jaxopt_port.verify.trace import Trace, TraceReference
from jaxopt_port.verify.trace._tensors import tensors_of_trace
from parity_tests.oracles.layer_cases import CASES as LAYERS
from parity_tests.verify.recorded_runs import CASES, STEPS, Case, Tied, batches, normed, side, wide


def plain(value):
    """Everything in what a run or a trace returned, as bytes that can be compared."""
    if dataclasses.is_dataclass(value):
        named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return plain({k: v for k, v in named.items() if k != "own_dtype"})
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if not isinstance(v, dict) or v}
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(plain, value)]
    if isinstance(value, torch.Tensor):
        value = array_of(value)
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, np.ascontiguousarray(value).tobytes()
    return repr(value)


def regular(step):
    return step < 3 or step % 10 == 0 or step == STEPS - 1


@pytest.mark.parametrize("store_batches", [True, False], ids=["stored", "hashed"])
@pytest.mark.parametrize("name", CASES)
def test_a_trace_gives_what_the_run_gave(name, store_batches, tmp_path):
    given = batches()
    record(tmp_path / "run.trace", side(CASES[name]), given, store_batches=store_batches)
    live = TorchRun(side(CASES[name]), regular)
    trace = Trace.open(tmp_path / "run.trace")
    replayed = TraceReference(trace)
    for attribute in ("names", "optimizer_name", "dtype"):
        assert getattr(replayed, attribute) == getattr(live, attribute)
    assert trace.steps == STEPS
    assert trace.stores_batches == store_batches
    assert trace.notes == []
    for batch in given:
        expected = plain(live.evaluate(batch))
        assert plain(replayed.evaluate(None if store_batches else batch)) == expected
        assert plain(replayed.update()) == plain(live.update())


def scaled(start, **others):
    return lambda own: {"scaler": torch.amp.GradScaler("cpu", init_scale=start), **others}


def with_two_optimizers(own):
    first, *rest = own.module.parameters()
    return {"optimizer": [torch.optim.SGD([first], 0.1), torch.optim.AdamW(rest)]}


def with_a_hook(own):
    own.optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.zero_grad())
    return {}


def reset(optimizer):
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {}})


class Sometimes(torch.nn.Module):
    """A layer, and one that is used in some steps only."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.always(x) + (self.sometimes(x) if x[0, 0] > 0 else 0)


def with_a_layer_now_and_then(own):
    module = Sometimes()
    return {"module": module, "optimizer": torch.optim.Adam(module.parameters())}


# Loops: what of a step there is, is not the same in all of them.
LOOPS = {
    "accumulated": lambda own: {"accumulation_steps": 2},
    "scaled": scaled(2.0**10),
    "scaled, too large at first": scaled(2.0**127, accumulation_steps=2),
    "averaged": lambda own: {"averaged": torch.optim.swa_utils.AveragedModel(own.module)},
    "several optimizers": with_two_optimizers,
    "a closure": lambda own: {"closure": True, "clip": None},
    "a hook that clears gradients": with_a_hook,
    "a new state": lambda own: {"changes": {4: reset}},
    "no group of some": lambda own: {"optimizer": torch.optim.Adam(own.module[0].parameters())},
    "some gradients": with_a_layer_now_and_then,
}


@pytest.mark.parametrize("budget", ["2 GB", 60_000, 25_000])
@pytest.mark.parametrize("name", LOOPS)
def test_what_a_loop_leaves_is_read(name, budget, tmp_path):
    own = side(Case(torch.optim.Adam, clip=0.1))
    record(tmp_path / "t", dataclasses.replace(own, **LOOPS[name](own)), batches(), budget=budget)
    trace = Trace.open(tmp_path / "t")
    assert trace.steps == STEPS
    updates = [bool(trace.update(step).params64) for step in range(trace.steps)]
    words = re.search(r"updates of the first (\d+) of", "\n".join(trace.notes))
    held = STEPS if words is None else int(words[1])
    assert updates == [step < held for step in range(STEPS)]


def test_going_back(tmp_path):
    record(tmp_path / "t", side(CASES["sgd"]), batches())
    reference = TraceReference(Trace.open(tmp_path / "t"))
    reference.evaluate()
    reference.update()
    here = reference.snapshot()
    first = plain(reference.evaluate())
    reference.update()
    assert plain(reference.evaluate()) != first
    reference.restore(here)
    assert plain(reference.evaluate()) == first


def test_recording_leaves_all_as_it_was(tmp_path):
    own = side(CASES["adam clipped"])
    before = plain(
        [own.module.state_dict(), own.optimizer.state_dict(), own.scheduler.state_dict()]
    )
    seen = []
    record(tmp_path / "t", own, batches(), progress=lambda *done: seen.append(done))
    after = plain([own.module.state_dict(), own.optimizer.state_dict(), own.scheduler.state_dict()])
    assert before == after
    assert seen == [(n, STEPS) for n in range(1, STEPS + 1)]


def test_the_files_are_safetensors(tmp_path):
    record(tmp_path / "t", side(CASES["nadam bfloat16"]), batches(), seeds={"data": 3}, name="a")
    held = load_file(tmp_path / "t" / "steps" / "00000000.safetensors")
    trace = Trace.open(tmp_path / "t")
    grads = trace.evaluation(0).grads
    assert held["grad/0.weight"].dtype == torch.bfloat16
    assert plain({f"grad/{n}": g for n, g in grads.items()}) == plain(
        {n: g for n, g in held.items() if n.startswith("grad/")}
    )
    facts = json.loads((tmp_path / "t" / "trace.json").read_text())
    assert (facts["name"], facts["seeds"]["given"], facts["version"]) == ("a", {"data": 3}, 1)
    assert facts["environment"]["torch"] == torch.__version__
    assert trace.momenta == {"1": 0.1}


def test_losses_and_options_that_are_no_numbers(tmp_path):
    own = side(CASES["sgd"])
    own.loss = lambda output, batch: output.sum() * float("inf") * 0
    own.optimizer.param_groups[0]["limit"] = float("inf")
    record(tmp_path / "t", own, batches(2))
    evaluation = Trace.open(tmp_path / "t").evaluation(1)
    assert np.isnan(evaluation.loss)
    assert evaluation.options[0]["limit"] == float("inf")


# ── the map ────────────────────────────────────────────────────────────────────────────────────

MODULES = {name: case.torch for name, case in LAYERS.items()} | {
    "tied": Tied,
    "normed": normed,
    "subclass": lambda: type("Own", (torch.nn.Linear,), {})(3, 3),
    "transformer": lambda: torch.nn.TransformerEncoderLayer(8, 2, 16),
    "own layer": lambda: torch.nn.ParameterDict({"weight": torch.ones(2, 2)}),
}


@pytest.mark.parametrize("name", MODULES)
def test_tensors_are_described_as_those_of_the_module(name):
    module = MODULES[name]()
    facts = json.loads(json.dumps([tensors_described(module), layers_described(module)]))
    assert tensors_of_trace(*facts) == tensors_of(module)


def test_a_map_is_made_without_the_module(tmp_path):
    own = side(Case(torch.optim.SGD, Tied))
    record(tmp_path / "t", own, batches(2))
    square, bias = jnp.zeros((5, 5)), jnp.zeros(5)
    like = {
        "first": {"kernel": square},
        "frozen": {"kernel": square, "bias": bias},
        "scale": bias,
        "last": {"kernel": jnp.zeros((5, 3)), "bias": jnp.zeros(3)},
    }
    made = map_of_tensors(Trace.open(tmp_path / "t").tensors, like)
    assert made == interop.param_map(own.module, like)
    with pytest.raises(ValueError, match="scale"):
        map_of_tensors(
            Trace.open(tmp_path / "t").tensors, {k: v for k, v in like.items() if k != "scale"}
        )


# ── the budget ─────────────────────────────────────────────────────────────────────────────────


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# What is left out at which budget; each row keeps less than the one before.
SPARED = "optimizer state and parameters in the run's own dtype only where checked"
BUDGETS = {
    "all": ("1.2 MB", True, []),
    "thrifty": ("800 kB", True, [SPARED]),
    "checks": ("600kB", True, [SPARED, "forward, loss and gradient at the first and the last"]),
    "updates": (
        200_000,
        True,
        [SPARED, "forward, loss and gradient at step 0", "updates of the f"],
    ),
    "leaves": (
        100_000,
        True,
        [SPARED, "forward", "updates of the first 3 of", "no updates of 0.w"],
    ),
    "hashes": (
        40_000,
        False,
        [SPARED, "forward", "updates of the first 3 of", "no updates of 0.w"],
    ),
    "start": ("40 KB", True, [SPARED, "forward", "no updates"]),
}
WIDE = Case(torch.optim.Adam, wide, clip=0.1)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_trace_keeps_to_its_budget(name, tmp_path):
    budget, store_batches, notes = BUDGETS[name]
    given = batches(20)
    record(tmp_path / "t", side(WIDE), given, budget=budget, store_batches=store_batches)
    trace = Trace.open(tmp_path / "t")
    limit = bytes_of(budget)
    assert size_of(tmp_path / "t") <= limit
    assert len(trace.notes) == len(notes), trace.notes
    assert all(f"the trace has {n}" in found for n, found in zip(notes, trace.notes, strict=True))
    plan, live = trace.facts["budget"], TorchRun(side(WIDE), regular)
    for step, batch in enumerate(given):
        expected, got = live.evaluate(batch), trace.evaluation(step, batch)
        assert (got.loss, plain(got.options)) == (expected.loss, plain(expected.options))
        assert plain(got.batch) == plain(expected.batch)
        if step == 0:
            assert plain(got.checked.params) == plain(expected.checked.params)
        update, after = trace.update(step), live.update()
        kept = [n for n in live.names if step < plan["updates"] and n not in plan["left_out"]]
        assert plain(update.params64) == plain({n: after.params64[n] for n in kept})
        assert got.grads.keys() == (set(live.names) if kept or got.checked else set())
        own = bool(kept) and (got.checked is not None or not plan["thrifty"])
        assert update.own_dtype == (own or not kept)
        if own:
            assert plain(update.params) == plain({n: after.params[n] for n in kept})
        elif kept:
            # Both were fed with the same gradients: near, and not the same.
            near = {n: np.abs(update.params[n] - array_of(after.params[n])).max() for n in kept}
            assert max(near.values()) < 1e-3


@pytest.mark.parametrize("budget", [1_200_000, 400_000, 200_000])
def test_a_budget_that_is_used(budget, tmp_path):
    """Little less is kept than would fit."""
    record(tmp_path / "t", side(WIDE), batches(20), budget=budget)
    assert 0.88 * budget < size_of(tmp_path / "t") <= budget
    assert os.listdir(tmp_path) == ["t"]


def test_an_old_trace_is_replaced_once_the_new_one_is_whole(tmp_path):
    record(tmp_path / "t", side(CASES["sgd"]), batches(3))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        record(tmp_path / "t", side(CASES["sgd"]), batches(4))
    with pytest.raises(ValueError, match="end after 4 of 5 steps"):
        record(tmp_path / "t", side(CASES["sgd"]), batches(4), steps=5, overwrite=True)
    assert Trace.open(tmp_path / "t").steps == 3
    assert os.listdir(tmp_path) == ["t"]
    record(tmp_path / "t", side(CASES["sgd"]), batches(4), overwrite=True)
    assert Trace.open(tmp_path / "t").steps == 4
    assert os.listdir(tmp_path) == ["t"]


def test_a_trace_needs_no_float64_in_jax(tmp_path):
    record(tmp_path / "t", side(CASES["sgd"]), batches(2))
    assert not jax.config.jax_enable_x64
    assert Trace.open(tmp_path / "t").update(0).params64["0.weight"].dtype == np.float64
