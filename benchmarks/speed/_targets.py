"""What this library's speed is held to: ratios within one run, and whether they are met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ._data import OPTIONS
from ._results import Results
from ._suites import LOOP_MODELS, LOOPS, SMALL, loop_name


class Found(NamedTuple):
    """A ratio in a file of results, beside its target.

    Attributes:
        what: what is divided by what.
        ratio: the ratio of medians; for an import, seconds.
        bound: what it should not exceed.
        unit: empty for a ratio.
        of_limit: of a step, its time over the time in which the memory's bandwidth lets its bytes
            through; at 1.05 and less nothing that moves them can be quicker.
    """

    what: str
    ratio: float
    bound: float
    unit: str = ""
    of_limit: float | None = None

    @property
    def met(self) -> bool:
        """Whether the target is met, to the two digits that are shown, or cannot be met better."""
        return round(self.ratio, 2) <= self.bound or self.at_limit

    @property
    def at_limit(self) -> bool:
        """Whether the step is as quick as the memory's bandwidth lets it be."""
        return self.of_limit is not None and round(self.of_limit, 2) <= 1.05

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.met:
            return "not met"
        return "met" if round(self.ratio, 2) <= self.bound else "met: the bandwidth's limit"


def _ratio(results: Results, suite: str, case: str, ours: str, theirs: str) -> float | None:
    a, b = results.find(suite, case, ours), results.find(suite, case, theirs)
    return a.median / b.median if a and b else None


def _against_limit(
    results: Results, case: str, suite: str = "step", name: str = "jp.step"
) -> float | None:
    found = results.find(suite, case, name)
    return found.median / found.limit if found and found.limit else None


def _between(results: Results, suite: str, ours: str, many: str, few: str) -> float | None:
    a, b = results.find(suite, many, ours), results.find(suite, few, ours)
    return a.median / b.median if a and b else None


def targets(results: Results) -> list[Found]:
    """Return every target that a file of results has the figures for."""
    found: list[Found] = []

    def add(what: str, ratio: float | None, bound: float, *more: Any, **named: Any) -> None:
        if ratio is not None:
            found.append(Found(what, ratio, bound, *more, **named))

    def add_worst(what: str, pairs: list[tuple[str, float | None]], bound: float) -> None:
        known = [(name, ratio) for name, ratio in pairs if ratio is not None]
        if known:
            name, ratio = max(known, key=lambda pair: pair[1])
            add(what.format(name), ratio, bound)

    on_cpu = results.sides.get("jax", {}).get("platform") == "cpu"
    gpt2 = [f"{name}, GPT-2 small" for name in ("SGD", "Adam", "AdamW")]
    for case in gpt2 if on_cpu else [*gpt2, "Adam, Llama-like 1 B", "SGD, Llama-like 1 B"]:
        limit = _against_limit(results, case)
        fused = _step(results, case, "torch fused")
        add(f"step, {case}: jp.step / torch fused", fused, 1.0, of_limit=limit)
        if on_cpu:
            plain = _step(results, case, "optax")
            add(f"step, {case}: jp.step / optax", plain, 1 / 1.3, of_limit=limit)
        add(f"step, {case}: jp.step / bandwidth limit", limit, 1.3 if on_cpu else 1 / 0.85)
    small = f"Adam, {SMALL}"
    add(
        f"step, {small}: jp.step / torch fused",
        _step(results, small, "torch fused"),
        1 / 1.5 if on_cpu else 1.0,
    )
    for model in ("GPT-2 small", SMALL):
        others = [name for name in OPTIONS if name not in ("SGD", "Adam", "AdamW")]
        pairs = [(o, _step(results, f"{o}, {model}", "torch foreach")) for o in others]
        for_others = "step, {}, the worst of the other optimizers, " + model
        add_worst(for_others + ": jp.step / torch foreach", pairs, 1.0)
    _loops(results, add)
    for batch in (1, 32, 256):
        case = f"LeNet, batch {batch}"
        for form in ("NNX, jp", "NNX, jp, XLA's convolution"):
            add(
                f"train, {case}: {form} / torch eager",
                _ratio(results, "train", case, form, "torch eager"),
                1.0,
            )
    _groups_and_compile(results, add)
    states = [
        (o, _ratio(results, "memory", f"{o}, {m}", "jp.step: state", "torch: state"))
        for o in OPTIONS
        for m in ("ResNet-50", SMALL)
    ]
    add_worst("memory, {}, the worst: bytes of state / torch's", states, 1.0)
    for kind, other in (("elementwise", False), ("other", True)):
        more = [
            (m.case.split(",")[0], m.median / m.limit)
            for m in results.measurements
            if m.contender == "jp.step: more"
            and m.limit
            and (m.case.split(",")[0] in ("Adafactor", "Muon")) == other
        ]
        add_worst(
            f"memory, {{}}, the worst of the {kind} optimizers: donated step's memory beyond its "
            "arguments / arguments",
            more,
            0.1,
        )
    alone = results.find("import", "import", "import jax, optax")
    for what in ("import jaxopt_port", "import jaxopt_port; jaxopt_port.SGD"):
        both = results.find(
            "import", "import", f"import jax, optax, {what.removeprefix('import ')}"
        )
        if both and alone:
            add(f"{what}, after jax and optax", both.median - alone.median, 0.05, "s")
    return found


def _loops(results: Results, add: Callable[..., None]) -> None:
    for model, optimizer in [(m, "AdamW") for m in LOOP_MODELS] + [(LOOP_MODELS[0], "SGD")]:
        bound = 0.65 if model == LOOP_MODELS[0] else 0.7
        for form in LOOPS:
            case = loop_name(optimizer, model, form)
            times = {
                name: getattr(results.find("loops", case, name), "median", None)
                for name in (f"{form}, jp", f"{form}, optax", "empty nnx.jit, jp", "torch fused")
            }
            ours, optax, empty, fused = times.values()
            if ours is None or fused is None:
                continue
            over = "" if empty is None else ", less an empty nnx.jit,"
            limit = _against_limit(results, case, "loops", f"{form}, jp")
            if limit and empty:
                limit *= (ours - empty) / ours
            what = f"loops, {case}: jp{over} / torch fused"
            add(what, (ours - (empty or 0.0)) / fused, 1.0, of_limit=limit)
            add(f"loops, {case}: jp / with optax", ours / optax if optax else None, bound)


def _step(results: Results, case: str, theirs: str) -> float | None:
    return _ratio(results, "step", case, "jp.step", theirs)


def _groups_and_compile(results: Results, add: Callable[[str, float | None, float], None]) -> None:
    add(
        "groups: 100 groups / 1 group, 400 leaves",
        _between(results, "groups", "jp.SGD", "400 leaves, 100 groups", "400 leaves, 1 group"),
        1.5,
    )
    add(
        "groups: 1,000 groups / 1 group, 1,000 leaves",
        _between(results, "groups", "jp.SGD", "1000 leaves, 1000 groups", "1000 leaves, 1 group"),
        10.0,
    )
    for name in ("jp.adam", "jp.Adam"):
        add(
            f"compile, 1,000 leaves: {name} / optax.adam",
            _ratio(results, "compile", "1000 leaves", name, "optax.adam"),
            1.0,
        )
    for network in ("LeNet", "decoder of 12 layers"):
        case = f"{network}, training step"
        add(
            f"compile, {case}: jp.AdamW / optax.adamw",
            _ratio(results, "compile", case, "jp.AdamW", "optax.adamw"),
            1.0,
        )
    growth = _between(results, "compile", "jp.Adam", "1000 leaves", "300 leaves")
    add(
        "compile: jp.Adam's growth from 300 to 1,000 leaves / the leaves'",
        None if growth is None else growth / (1000 / 300),
        1.1,
    )
