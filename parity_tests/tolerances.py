"""Every tolerance of the engine's and the rules' tests, with its reason."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    bound: float
    unit: str
    reason: str


TOLERANCES = {
    "sgd float32 step": Tolerance(
        0, "bit", "the contract: jp.step follows torch's roundings one by one"
    ),
    "sgd float64": Tolerance(
        1e-15, "relative", "the contract; torch's float64 scalars and ours are the same"
    ),
    "sgd low precision": Tolerance(
        1,
        "unit of the larger of the parameter before and after",
        "torch's vector loop rounds lr to the dtype and its scalar tail does not; where the "
        "parameter crosses zero, that is several units of a small result",
    ),
    "sgd complex": Tolerance(
        4, "ulp", "torch's complex products are vectorised otherwise than XLA's; no fma either way"
    ),
    "finite differences": Tolerance(
        1e-7, "relative", "central differences in float64 with a step of 1e-6"
    ),
    "differentiable": Tolerance(
        1e-6, "relative", "float32 gradients through two steps, summed in another order"
    ),
    "cond apart": Tolerance(
        1,
        "unit of the larger of the parameter before and after",
        "lax.cond parts the update from the parameter: one more rounding",
    ),
    "foreign against injected": Tolerance(
        1, "ulp", "the same float32 numbers in another program, which XLA may contract otherwise"
    ),
    "foreign against bare": Tolerance(
        1e-5,
        "relative to the leaf's largest update",
        "1 - 0.999 of a float32 number is off by 1.3e-5, and Python's is not",
    ),
    "injected float32": Tolerance(
        0, "bit", "numbers exact in float32 lose nothing in optax.inject_hyperparams"
    ),
}


def bound(name: str) -> float:
    return TOLERANCES[name].bound
