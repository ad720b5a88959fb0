"""Which cases each suite has."""

from __future__ import annotations

from typing import Any

from ._contender import Case
from ._data import OPTIONS
from ._results import last_level_cache
from ._shapes import elements, shapes_of

TORCH = ("torch for-loop", "torch foreach", "torch fused")
OURS = ("jp.step", "tx.update")
LISTED = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adafactor", "Muon")
SMALL = "300 small leaves"
_MOST_COPIES = 8

# Arrays as large as the parameters that a step must read and write, beside the gradient (read) and
# the parameter (both); Adafactor's are of a lower rank.
_HELD = {"SGD": 1, "RMSprop": 1, "Adagrad": 1, "Muon": 1, "Adafactor": 0, "ASGD": 1}


def bytes_moved(model: str, optimizer: str) -> int:
    """Return the bytes that a step must move at least."""
    return 4 * elements(shapes_of(model, optimizer)) * (3 + 2 * _HELD.get(optimizer, 2))


def _copies(model: str) -> int:
    """How many sets of buffers take turns, so that the caches do not hold the next one."""
    size = 16 * elements(shapes_of(model))
    return min(_MOST_COPIES, max(1, -(-2 * last_level_cache() // size)))


def _step(model: str, optimizer: str, torch: tuple[str, ...], jax: tuple[str, ...]) -> Case:
    settings = {"model": model, "optimizer": optimizer, "copies": _copies(model)}
    return Case("step", f"{optimizer}, {model}", settings, {"torch": torch, "jax": jax})


def step(quick: bool) -> list[Case]:
    """One optimizer step at the shapes of real models, and of grids."""
    all_of = (*OURS, "optax")
    if quick:
        return [
            _step(model, optimizer, TORCH, all_of)
            for model, optimizer in (
                ("LeNet", "SGD"),
                (SMALL, "Adam"),
                ("8 leaves of 1048576", "Adam"),
            )
        ]
    cases = [_step("LeNet", o, (*TORCH, "torch.compile"), all_of) for o in ("SGD", "AdamW")]
    models = ("ResNet-50", "ViT-B/16", "BERT-base")
    cases += [_step(model, "AdamW", TORCH[1:], ("jp.step", "optax")) for model in models]
    others = [o for o in OPTIONS if o not in LISTED]
    # Muon is not for embeddings: an iteration of matrices of 50,257 rows takes minutes on a CPU.
    cases += [_step("GPT-2 small", o, TORCH[1:], all_of) for o in LISTED if o != "Muon"]
    cases += [_step(SMALL, o, TORCH, all_of) for o in LISTED]
    for model in ("GPT-2 small", SMALL):
        cases += [_step(model, o, TORCH[1:2], ("jp.step",)) for o in others]
    for model in ("10", "30", "100", "1000", "3000"):
        cases.append(_step(f"{model} small leaves", "Adam", TORCH[1:], ("jp.step", "optax")))
    for size in (4096, 65536, 1048576, 16777216):
        cases.append(_step(f"8 leaves of {size}", "Adam", TORCH[1:], ("jp.step", "optax")))
    return [*cases, *(_step("Llama-like 1 B", o, TORCH[2:], OURS[:1]) for o in ("SGD", "Adam"))]


LOOPS = ("split and merge", "cached_partial", "nnx.jit", "TrainState")
LOOP_MODELS = ("GPT-2 small", "ResNet-50", "ViT-B/16", "BERT-base")


def loop_name(optimizer: str, model: str, form: str) -> str:
    """Return what a case of `loops` is called."""
    return f"{optimizer}, {model}, {form}"


def loops(quick: bool) -> list[Case]:
    """One optimizer step in the loops that Flax's users write, beside the bare step."""

    def case(model: str, optimizer: str, form: str) -> Case:
        settings = {"model": model, "optimizer": optimizer, "copies": _copies(model)}
        own = [f"{form}, jp", f"{form}, optax"]
        own += ["empty nnx.jit, jp"] if form == "nnx.jit" else []
        contenders = {"torch": TORCH[2:], "jax": ("jp.step", "optax", *own)}
        return Case("loops", loop_name(optimizer, model, form), settings, contenders)

    if quick:
        return [case("8 leaves of 1048576", "AdamW", form) for form in LOOPS]
    pairs = [(m, "AdamW") for m in LOOP_MODELS] + [(LOOP_MODELS[0], "SGD")]
    return [case(model, optimizer, form) for model, optimizer in pairs for form in LOOPS]


def train(quick: bool) -> list[Case]:
    """Whole training steps."""
    torch = ("torch eager",) if quick else ("torch eager", "torch.compile")
    lenet = {
        "torch": torch,
        "jax": ("NNX, jp", "NNX, jp, XLA's convolution", "Linen, jp", "NNX, optax"),
    }
    decoder = {"torch": torch, "jax": ("NNX, jp", "NNX, optax")}
    sizes = (32,) if quick else (1, 32, 256)
    cases = [
        Case("train", f"LeNet, batch {n}", {"network": "LeNet", "batch": n}, lenet) for n in sizes
    ]
    settings = {"network": "decoder", "batch": 8}
    return cases if quick else [*cases, Case("train", "decoder, batch 8", settings, decoder)]


def groups(quick: bool) -> list[Case]:
    """One step of many small leaves in 1 to 1,000 groups."""
    sizes = [(400, 1), (400, 10), (400, 100)] + ([] if quick else [(1000, 1), (1000, 1000)])
    return [
        Case(
            "groups",
            f"{leaves} leaves, {n} groups" if n > 1 else f"{leaves} leaves, 1 group",
            {"leaves": leaves, "groups": n},
            {"jax": ("jp.SGD",) if n > (10 if quick else 100) else ("jp.SGD", "optax")},
        )
        for leaves, n in sizes
    ]


def dispatch(quick: bool) -> list[Case]:
    """Until a step's call returns; the work itself is not waited for."""
    counts = (10, 300) if quick else (10, 100, 300, 1000)
    return [
        Case(
            "dispatch",
            f"Adam, {n} small leaves",
            {"model": f"{n} small leaves", "optimizer": "Adam", "copies": 1},
            {"torch": TORCH[1:], "jax": ("jp.step", "optax", "nothing")},
        )
        for n in counts
    ]


TIMED: dict[str, Any] = {
    "step": step,
    "loops": loops,
    "train": train,
    "groups": groups,
    "dispatch": dispatch,
}
