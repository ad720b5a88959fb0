"""Every tolerance of the engine's and the rules' tests, with its reason."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    bound: float
    unit: str
    reason: str


TOLERANCES = {
    "a factory of Optax": Tolerance(
        1e-7,
        "of the leaf's largest magnitude",
        "compiled as a whole on one side, operation by operation on the other: 3e-8",
    ),
    "sparse gradients float32": Tolerance(
        2e-7,
        "of the leaf's largest magnitude",
        "rows that occur twice are added up in another order, and torch adds a row to the "
        "parameter with two roundings where its dense step has one: 7.2e-8 after five steps",
    ),
    "sparse gradients float64": Tolerance(
        1e-15, "of the leaf's largest magnitude", "likewise: 9e-17 after five steps"
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
        "unit of the step",
        "lax.cond parts the update from the parameter: one more rounding",
    ),
    "foreign against injected": Tolerance(
        2,
        "ulp",
        "the same float32 numbers in another program: two sums with a product in them, of the "
        "moment and of the decay, which XLA may contract in one and not in the other",
    ),
    "foreign against bare": Tolerance(
        1e-5,
        "relative to the leaf's largest update",
        "1 - 0.999 of a float32 number is off by 1.3e-5, and Python's is not",
    ),
    "injected float32": Tolerance(
        0, "bit", "numbers exact in float32 lose nothing in optax.inject_hyperparams"
    ),
    "clip float32": Tolerance(
        8,
        "ulp",
        "the norm is a sum, which torch's vector loop and XLA add up in another order: measured up "
        "to 4, where the p of the norm is 1/2 or 1",
    ),
    "clip bfloat16": Tolerance(
        1, "ulp", "the same; torch too adds up in float32 and rounds each norm to bfloat16"
    ),
    "averaging": Tolerance(0, "bit", "elementwise, in torch's order of operations"),
    "an average beside the mean": Tolerance(
        1,
        "ulp",
        "four parameters, each a part of the way from the average before it, against their sum by "
        "NumPy, divided once: 0 as measured",
    ),
    "a user's function in a traced schedule": Tolerance(
        1e-15,
        "relative",
        "1 - epoch / 400 in jnp: XLA divides by way of the reciprocal and contracts; the library's "
        "own formulas keep every bit",
    ),
    "elements beyond a unit": Tolerance(
        0.01, "of all elements", "the contract: 99% of a step's parameters within a unit"
    ),
    "two hundred steps": Tolerance(
        2e-6,
        "of the leaf's largest magnitude",
        "measured: at most 1.6e-6, Adadelta's acc_delta, in which four of MKL's roots multiply; "
        "torch has no second implementation on the CPU that differs from the first",
    ),
    "one rounding": Tolerance(
        1.2e-7,
        "of the leaf's largest magnitude",
        "where torch's two implementations happen to agree",
    ),
    "float64 run": Tolerance(
        1e-13, "of the leaf's largest magnitude", "the contract is 1e-12; measured 3e-15"
    ),
    "float64 run, exact": Tolerance(
        1e-15, "of the leaf's largest magnitude", "no root, and torch's float64 scalars are ours"
    ),
    "low precision": Tolerance(
        1, "unit of the step", "the contract: one unit of the dtype per step"
    ),
    "low precision tail": Tolerance(
        2,
        "units of the step",
        "the last n % 32 elements, where torch's kernel rounds products that it fuses elsewhere",
    ),
    "low precision sums": Tolerance(
        2, "units of the step", "a norm that torch rounds the other way scales the whole update"
    ),
    "muon update": Tolerance(1e-2, "of the update's norm", "the contract: five rounds in bfloat16"),
    "muon cosine": Tolerance(0.9999, "at least", "the contract"),
    "sparse adam run": Tolerance(
        8,
        "units of the run",
        "30 steps, each with a root of MKL's; sums of equal rows in any order",
    ),
    "drawn sums": Tolerance(
        1e-5, "of the largest magnitude", "float32 norms in another order, which scale the update"
    ),
    "torch's derivatives": Tolerance(
        1e-9, "relative", "float64; quotients of small differences in three steps"
    ),
    "torch's float32 corrections": Tolerance(
        3e-5, "relative", "with differentiable=True torch's bias corrections are float32 tensors"
    ),
    "a layer in float32": Tolerance(
        1e-5, "relative, or absolute near zero", "float32 sums of a few terms, in another order"
    ),
    "a layer in float64": Tolerance(
        1e-12,
        "relative, or absolute near zero",
        "sums in another order; a wrong gate, head or axis is off by more than 1e-2",
    ),
    "lbfgs float64": Tolerance(
        1e-9,
        "relative to the largest parameter",
        "sums in another order, amplified by the iterations; the cases stop where torch, started "
        "one unit in the last place away, drifts 1e-10 from itself",
    ),
    "lbfgs float32": Tolerance(
        1e-4, "relative to the largest parameter", "the same, up to a drift of torch's of 1e-5"
    ),
    "lbfgs state": Tolerance(1e-9, "relative to the largest entry", "float64, over a few calls"),
    "lbfgs, rate a tensor": Tolerance(
        1e-6, "relative", "torch's line search is in the tensor's float32; here it is a number"
    ),
    "lbfgs mixed": Tolerance(
        1e-6, "relative", "float32 leaves beside a float64 one are rounded alike"
    ),
    "batch statistics": Tolerance(
        1e-5,
        "relative",
        "means and variances of batches, added up in float32 in another order than torch's",
    ),
    "a rate that is a float32 tensor": Tolerance(
        1.2e-7,
        "of the leaf's largest magnitude",
        "torch divides such a rate in float32: a unit of the step; measured 6.2e-8",
    ),
    "a transformer in float32": Tolerance(
        5e-6, "of the largest logit", "six layers of float32 sums in another order; measured 6e-7"
    ),
    "a transformer in float64": Tolerance(
        1e-10, "of the largest logit, or of the loss", "the contract; measured 8e-16 of a logit"
    ),
    "a transformer's training": Tolerance(
        1e-10,
        "of the leaf's largest magnitude",
        "the contract, ten steps in float64; measured 4e-12, where Adam divides small gradients",
    ),
    "a resumed LeNet in float64": Tolerance(
        1e-9,
        "relative norm",
        "the contract of unbroken runs in float64 (jaxopt_port/verify/_bounds.py); measured 7e-17",
    ),
    "a resumed LeNet in float32": Tolerance(
        5e-3,
        "relative norm",
        "two unbroken runs are 1.8e-3 apart, where a tie in a max pooling is broken the other way; "
        "a momentum or a count of epochs that is lost makes 4e-2",
    ),
    "odd gradients, float32": Tolerance(
        1e-6, "relative, or absolute below one", "four steps with MKL's roots, each a unit off"
    ),
    "odd gradients, float64": Tolerance(1e-13, "relative, or absolute below one", "likewise"),
    "odd gradients, Adafactor": Tolerance(
        3e-6, "relative, or absolute below one", "float32 norms in another order, in each step"
    ),
    "odd gradients, Muon": Tolerance(
        1e-2, "relative, or absolute below one", "five rounds of bfloat16 products in each step"
    ),
    "Optax's own in Flax's loops": Tolerance(
        1e-5,
        "relative",
        "its arithmetic in another program, in which XLA may contract other sums",
    ),
    "complex": Tolerance(
        5e-7, "of the largest magnitude", "torch's vectorised complex products round otherwise"
    ),
}

# A step from torch's own state in float32: units of parameters and of state.
_ROOT = "MKL's root is up to a unit off, a relative error of 1.2e-7, which its quotient keeps"
STEP_TOLERANCES = (
    {
        name: (Tolerance(0, "bits", "torch's arithmetic, reproduced"),) * 2
        for name in ("ASGD", "Adamax", "Rprop", "SGD")
    }
    | {
        name: (Tolerance(4, "units", _ROOT), Tolerance(0, "bits", "no root in the state"))
        for name in ("Adagrad", "Adam", "AdamW", "NAdam", "RAdam")
    }
    | {
        "RMSprop": (
            Tolerance(16, "units", "with momentum, the quotient and the buffer may cancel"),
            Tolerance(2, "units", "the momentum buffer holds quotients"),
        ),
        "Adadelta": (
            Tolerance(4, "units", _ROOT),
            Tolerance(8, "units", "acc_delta is the square of a quotient of two roots"),
        ),
        "Adafactor": (
            Tolerance(
                16,
                "units",
                "torch's float32 norms are off by 1e-6; see the float64 reference's test",
            ),
            Tolerance(4, "units", "row_var and col_var are squares of norms"),
        ),
    }
)


def step_bounds(name: str) -> tuple[float, float]:
    of_param, of_state = STEP_TOLERANCES[name]
    return of_param.bound, of_state.bound


def bound(name: str) -> float:
    return TOLERANCES[name].bound


# Twenty steps of an optimizer with a root after a checkpoint, relative to a tensor's largest:
# two units in the last place for each step, since MKL's root is a unit off.
GONE_ON = 20 * 2 * 2.0**-23

# A run that crosses half way, against one that does not, relative to the leaf's largest: at most
# the distance of the two sides' unbroken runs, or this, where that happens to be small.
RESUMED = {
    "Adafactor": 1e-5,  # torch's float32 norms
    "Muon": 1e-2,  # bfloat16 matrix products
}
