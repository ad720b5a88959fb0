"""Reports made by hand, for the tests of what shows them."""

import functools
import math

import numpy as np

from jaxopt_port.verify.report import (
    STAGES,
    Cause,
    Curves,
    Distance,
    Divergence,
    Element,
    LeafResult,
    Report,
    StageResult,
)

SAME = Distance(1.0, 1.0, 0.1, 6e-8, 1.2e-7, 0, 1.0)
HOSTILE = '</script><script>document.title="broken"</script><img src=x onerror=alert(1)>'


def single(value):
    """Return a float32 as a report shows it."""
    return float(str(np.float32(value)))


def decaying(steps, by=0.98):
    return [2.3 * by**step + 0.1 for step in range(steps)]


def leaf(name, ulps, **changes):
    """Return a leaf with these units in the last place, by step."""
    finite = {step: u for step, u in ulps.items() if math.isfinite(u)}
    worst_step = max(ulps, key=ulps.get)
    largest = ulps[worst_step]
    values = {
        "torch_name": name.replace("/", ".").replace("kernel", "weight"),
        "worst": Distance(
            largest, largest / 2, largest / 9, largest * 6e-8, largest * 1.2e-7,
            len(ulps) - len(finite), 1.0,
        ),
        "worst_step": worst_step,
        "bound": 4.8e-7,
    }  # fmt: skip
    return LeafResult(name, ulps=ulps, **{**values, **changes})


def stages(**compared):
    """Return all stages; those that are not given were skipped."""
    why = "the side has none"
    return {name: compared.get(name) or StageResult(name, skipped=why) for name in STAGES}


def report(name="mlp", first=None, **changes):
    values = {
        "steps": 30,
        "stages": stages(
            loss=StageResult("loss", [leaf("loss", {0: 0.0, 10: 1.0, 20: 0.0})], 3),
            update=StageResult(
                "update",
                [
                    leaf("layers/0/kernel", {step: step % 3 for step in range(30)}),
                    leaf("layers/0/bias", dict.fromkeys(range(30), 0.0)),
                ],
                30,
            ),
        ),
        "curves": Curves(decaying(30), decaying(30), [[1e-3] * 30], [[1e-3] * 30]),
        "dtype": "float32",
        "optimizer": "AdamW",
        "environment": {"jax": "0.10.2", "torch": "2.13.0", "machine": "x86_64, 2 cores"},
        "notes": ["Outputs and gradients were compared at 3 of 30 steps."],
        "seconds": 4.2,
    }
    return Report(name, first=first, **{**values, **changes})


def passed():
    return report()


def differs(steps=120, at=12):
    """Return a run of twelve leaves that differs from one step on, with its cause."""
    rng = np.random.default_rng(0)
    parts = [
        f"encoder/layers/{i}/{part}/{kind}"
        for i in range(3)
        for part in ("attention", "mlp")
        for kind in ("kernel", "bias")
    ]
    wrong = "encoder/layers/1/mlp/kernel"

    def grown(name, step):
        if step < at or not name.endswith("kernel"):
            return float(rng.integers(0, 3))
        near = 3.5 if name == wrong else 2.0
        return float(10 ** (near + 0.02 * (step - at) + rng.uniform(0, 0.4)))

    update = [
        leaf(name, {s: grown(name, s) for s in range(steps)}, ok=not name.endswith("kernel"))
        for name in parts
    ]
    checks = [*range(0, steps, 10)]
    early = {
        stage: StageResult(
            stage, [leaf(n, {s: float(rng.integers(1, 9)) for s in checks}) for n in names],
            len(checks),
        )
        for stage, names in (("forward", ["output"]), ("loss", ["loss"]), ("gradient", parts))
    }  # fmt: skip
    first = Divergence(
        at, "update", wrong, "encoder.layers.1.mlp.weight",
        "4.1e-06 apart at most, 3.2e+03 units in the last place, where rounding explains 4.8e-07",
        Distance(3200.0, 810.0, 97.0, 4.1e-6, 2.2e-5, 0, 0.9999981), 4.8e-7,
        "In float64 the two are 4.1e-06 apart as well.",
        elements=tuple(
            Element((i, 7 * i % 5), single(v), single(v + 4e-6 / (i + 1)))
            for i, v in enumerate(np.linspace(0.031, -0.27, 6))
        ),
        leaves=tuple(n for n in parts if n.endswith("kernel")),
        cause=Cause(
            "eps inside the root",
            "Your Adam adds eps=1e-8 inside the square root; torch adds it after.",
            "Use jp.AdamW(eps=1e-8), or optax.adamw(eps_root=0.0).",
            unexplained=0.002,
        ),
    )  # fmt: skip
    warm = [1e-3 * min(1.0, (step + 1) / 20) for step in range(steps)]
    yours = [v + 0.0008 * max(0, s - at) for s, v in enumerate(decaying(steps))]
    return report(
        "text-classifier",
        first,
        steps=steps,
        stages=stages(update=StageResult("update", update, steps), **early),
        curves=Curves(
            decaying(steps), yours, [warm, [v / 10 for v in warm]], [warm, [v / 10 for v in warm]]
        ),
    )


def not_finite():
    """Return a run whose numbers are NaN or infinite on your side."""
    ulps = {0: 1.0, 1: math.inf, 2: math.nan}
    worst = Distance(math.inf, math.inf, math.nan, math.nan, math.nan, 3, math.nan)
    first = Divergence(
        1, "gradient", "layers/0/kernel", "layers.0.weight", "3 elements are NaN on your side",
        worst, 1e-7, "NaN is no rounding.",
        elements=(
            Element((0, 1), 0.1, math.nan),
            Element((), 0.25, math.inf),
            Element((2,), -math.inf, 1e-300),
        ),
    )  # fmt: skip
    broken = leaf("layers/0/kernel", ulps, worst=worst, worst_step=1, bound=math.nan, ok=False)
    fine = leaf("layers/0/bias", {0: 0.0, 1: 0.0, 2: 2.0})
    return report(
        "overflow",
        first,
        steps=3,
        stages=stages(gradient=StageResult("gradient", [fine, broken], 3)),
        curves=Curves([1.0, 2.0, 3.0], [1.0, math.nan, math.inf], [[0.1] * 3], []),
    )


@functools.cache
def many(leaves=300, steps=1000):
    """Return a run with more leaves and steps than a figure has room for."""
    rng = np.random.default_rng(1)
    table = np.round(10 ** rng.uniform(0, 2, (leaves, steps)))
    results = [
        leaf(f"blocks/{i}/mixer/projection/kernel", dict(enumerate(map(float, row))))
        for i, row in enumerate(table)
    ]
    results[237].ulps[501] = 123456.0
    results[237].worst = Distance(123456.0, 9.0, 3.0, 1e-3, 1e-2, 0, 0.99)
    return report(
        "large",
        steps=steps,
        stages=stages(update=StageResult("update", results, steps)),
        curves=Curves(decaying(steps, 0.995), decaying(steps, 0.995), [[0.1] * steps] * 2, []),
    )


def hostile():
    """Return a run whose every name and message tries to leave its place."""
    first = Divergence(
        0, "update", HOSTILE, HOSTILE, HOSTILE, SAME, 0.0, HOSTILE,
        elements=(Element((0,), 1.0, 2.0),),
        leaves=(HOSTILE, "größe/核/κ"),
        cause=Cause(HOSTILE, HOSTILE, HOSTILE),
    )  # fmt: skip
    results = [
        leaf(HOSTILE, {0: 5.0}, ok=False),
        leaf("größe/核/κ", {0: 0.0}),
        leaf("<b>%{x}</b> $x^2$ &lt;", {0: 1.0}),
    ]
    skipped = StageResult("data", skipped=HOSTILE)
    return report(
        HOSTILE,
        first,
        stages=stages(update=StageResult("update", results, 1), data=skipped),
        environment={HOSTILE: HOSTILE},
        notes=[HOSTILE, "[bold]as it is[/bold]"],
    )


def empty():
    return report("nothing", steps=0, stages={}, curves=Curves(), environment={}, notes=[])


REPORTS = {made.__name__: made for made in (passed, differs, not_finite, many, hostile, empty)}
