"""Programs for GPUs and TPUs, lowered where there are none, and what of float64 is in them.

A TPU has no float64: XLA rewrites each such number as two float32 there, for most operations, and
refuses a program with one of the others. `jax.export` makes the programs on any machine.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_port as jp
from parity_tests.sharding.layouts import OPTIONS

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

PLATFORMS = ["cuda", "rocm", "tpu"]
# What XLA's errors name: "While rewriting computation to not contain X64 element types, XLA
# encountered an HLO for which this rewriting is not implemented". A call is of the machine's own.
NOT_REWRITTEN = {"bitcast_convert", "sort", "custom_call"}
# Numbers of one group: a vector of betas, each in three parts, is the largest.
SCALARS, GROUPS = 9, 2
WIDE = re.compile(r"tensor<((?:\d+x)*)(f64|i64|ui64)>")
OPERATION = re.compile(r'stablehlo\.(\w+)"?')

PARAMS = {"kernel": jnp.ones((17, 38)), "table": jnp.ones((38, 19))}
LEAVES = {17, 19, 38}
OPTIMIZERS = [
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
]


def loss(params):
    return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))


def gradients(name, params):
    if name == "LBFGS":
        return jax.tree_util.Partial(loss)
    if name == "SparseAdam":
        return {k: (jnp.array([1, 2, 1]), jnp.ones((3, x.shape[1]))) for k, x in params.items()}
    return params


def by_step(name, dtype=jnp.float32):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    tx = getattr(jp, name)(**OPTIONS.get(name, {}))

    def program(params, state, grads):
        return jp.step(tx, grads, state, params)

    return program, (params, tx.init(params), gradients(name, params))


def by_update(name):
    tx = getattr(jp, name.lower())(**OPTIONS.get(name, {}))

    def program(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return program, (PARAMS, tx.init(PARAMS), PARAMS)


def in_scan(make):
    """Three steps, each followed by the scheduler's."""
    tx = jp.SGD([{"params": "kernel"}, {"params": "table"}], 0.1, momentum=0.9)
    scheduler = make()
    state, sched_state = scheduler.init(tx.init(PARAMS))

    def program(params, state, sched_state):
        def one(carry, _):
            params, state, sched_state = carry
            params, state = jp.step(tx, params, state, params)
            watched = isinstance(scheduler, jp.lr_scheduler.ReduceLROnPlateau)
            metrics = [loss(params)] if watched else []
            return (params, *scheduler.step(state, sched_state, *metrics)), None

        return jax.lax.scan(one, (params, state, sched_state), None, length=3)[0]

    return program, (PARAMS, state, sched_state)


lrs = jp.lr_scheduler
SCHEDULERS = {
    "LambdaLR": lambda: lrs.LambdaLR(lambda epoch: 0.95**epoch),
    "MultiplicativeLR": lambda: lrs.MultiplicativeLR(lambda epoch: 0.95),
    "StepLR": lambda: lrs.StepLR(2),
    "MultiStepLR": lambda: lrs.MultiStepLR([1, 2]),
    "ConstantLR": lambda: lrs.ConstantLR(),
    "LinearLR": lambda: lrs.LinearLR(),
    "ExponentialLR": lambda: lrs.ExponentialLR(0.9),
    "PolynomialLR": lambda: lrs.PolynomialLR(5, 2.0),
    "CosineAnnealingLR": lambda: lrs.CosineAnnealingLR(10),
    "CosineAnnealingWarmRestarts": lambda: lrs.CosineAnnealingWarmRestarts(2, 2),
    "CyclicLR": lambda: lrs.CyclicLR(0.1, 0.2),
    "OneCycleLR": lambda: lrs.OneCycleLR(0.1, 10),
    "ReduceLROnPlateau": lambda: lrs.ReduceLROnPlateau(),
    "SWALR": lambda: lrs.SWALR(0.05),
    "SequentialLR": lambda: lrs.SequentialLR(
        [lrs.ConstantLR(), lrs.ExponentialLR(0.9)], milestones=[2]
    ),
    "ChainedScheduler": lambda: lrs.ChainedScheduler([lrs.LinearLR(), lrs.ExponentialLR(0.9)]),
}


def clipped(norm_type):
    def program(grads):
        return jp.clip_grad_norm(jp.clip_grad_value(grads, 0.5), 1.0, norm_type)

    return program, (PARAMS,)


def averaged(multi_avg_fn):
    model = jp.swa_utils.AveragedModel(multi_avg_fn=multi_avg_fn)
    return model.update_parameters, (model.init(PARAMS), PARAMS)


def scaled():
    """A step by torch's GradScaler, which is not taken where a gradient is infinite."""
    scaler, tx = jp.GradScaler(), jp.accumulate_grads(jp.AdamW(), 2)

    def program(params, state, scaler_state):
        grads, found_inf = scaler.unscale(params, scaler_state)
        params, state = scaler.step(tx, grads, state, params, found_inf)
        return params, state, scaler.update(scaler_state, found_inf)

    return program, (PARAMS, tx.init(PARAMS), scaler.init())


def sharded(name, kind, over=()):
    """A step on eight devices: each holds a part of the parameters, or of the state alone."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    params = {"kernel": jnp.ones((16, 24)), "bias": jnp.ones(24)}
    spec = {"kernel": P() if over else P("data"), "bias": P()}
    shardings = {k: NamedSharding(mesh, s) for k, s in spec.items()}
    tx = getattr(jp, name)(**OPTIONS.get(name, {}))
    params = jax.device_put(params, shardings)
    of_state = jp.state_shardings(tx, params, over=over)
    state = jax.jit(tx.init, out_shardings=of_state)(params)

    def program(params, state, grads):
        return jp.step(tx, grads, state, params)

    return program, (params, state, params)


PROGRAMS = (
    {f"jp.step, {name}": lambda n=name: by_step(n) for name in OPTIMIZERS}
    | {f"jp.step, {n}, bfloat16": lambda n=n: by_step(n, jnp.bfloat16) for n in ("SGD", "AdamW")}
    | {f"tx.update, {name}": lambda n=name: by_update(n) for name in ("SGD", "AdamW")}
    | {f"in scan, {name}": lambda m=make: in_scan(m) for name, make in SCHEDULERS.items()}
    | {f"clipping, norm {p}": lambda p=p: clipped(p) for p in (2.0, 1.0, float("inf"))}
    | {
        f"averaging, {name}": lambda f=f: averaged(f)
        for name, f in (
            ("SWA", jp.swa_utils.get_swa_multi_avg_fn()),
            ("EMA", jp.swa_utils.get_ema_multi_avg_fn()),
        )
    }
    | {"GradScaler and accumulation": scaled}
    | {
        f"split, {name}, {kind.name}": lambda n=name, k=kind: sharded(n, k)
        for name in ("AdamW", "Adafactor")
        for kind in (AxisType.Auto, AxisType.Explicit)
    }
    | {"split, AdamW, ZeRO-1": lambda: sharded("AdamW", AxisType.Auto, ("data",))}
)


def exported(program, args, platforms):
    return jax.export.export(jax.jit(program), platforms=platforms)(*args)


def operations(text):
    """Yield (operation, its 64-bit operands and results as (shape, type))."""
    for line in text.splitlines():
        if found := OPERATION.search(line):
            types = [(tuple(map(int, re.findall(r"\d+", s))), t) for s, t in WIDE.findall(line)]
            yield found[1], types


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_made_for_gpus_and_tpus(name):
    """One module for three platforms; and for a TPU, scalars alone are float64."""
    program, args = PROGRAMS[name]()
    made = exported(program, args, PLATFORMS)
    assert made.platforms == tuple(PLATFORMS)
    found = list(operations(exported(program, args, ["tpu"]).mlir_module()))
    assert len(found) > 5
    wide = [(operation, types) for operation, types in found if types]
    large = [
        (operation, shape, kind)
        for operation, types in wide
        for shape, kind in types
        if kind == "f64" and (np.prod(shape) > GROUPS * SCALARS or LEAVES & set(shape))
    ]
    assert not large
    assert not NOT_REWRITTEN & {operation for operation, _ in wide}


def test_all_of_torchs_schedulers_are_among_them():
    theirs = {n for n in dir(lrs) if n.endswith(("LR", "Restarts", "Plateau"))}
    assert theirs - {"LRScheduler"} <= {*SCHEDULERS}


def float64_operations(name, leaves):
    params = {f"w{i}": jnp.ones((17, 19)) for i in range(leaves)}
    tx = getattr(jp, name)()

    def program(params, state, grads):
        return jp.step(tx, grads, state, params)

    text = exported(program, (params, tx.init(params), params), ["tpu"]).mlir_module()
    return Counter(operation for operation, types in operations(text) if types)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RAdam"])
def test_float64_is_calculated_once_for_all_leaves(name):
    """What grows with the leaves is comparison and rounding of numbers, not arithmetic."""
    few, many = (float64_operations(name, leaves) for leaves in (1, 5))
    arithmetic = ("add", "multiply", "divide", "power", "sqrt")
    assert {k: few[k] for k in arithmetic} == {k: many[k] for k in arithmetic}
    assert sum(few.values()) < 100
