"""What a step calculates on an NVIDIA GPU: torch's CUDA kernels, operation by operation.

The formulas are what torch's kernels were found to calculate on an H100, in all bits
(`python -m benchmarks accelerator`, whose names of formulas these are). The programs
lowered for CUDA are run on the CPU here: their meaning is tested, not what XLA's compiler for GPUs
makes of them.
"""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export

import jaxopt_port as jp
from benchmarks.accelerator._jax_side import LOW, PLAIN
from benchmarks.accelerator._primitives import PRIMITIVES, inputs
from jaxopt_port.numerics import _cuda
from parity_tests.oracles.cuda_kernels import CudaKernels

# torch's on CUDA, where it is another than on the CPU; the first named is the CPU's.
ON_CUDA = {
    "x.addcmul(y, z, value=v)": "(y·z) rounded, then one",
    "x.addcdiv(y, z, value=v)": "v·(y/z) + x, one rounding",
    "x.div(0.29)": "by the reciprocal",
    "z.sqrt().div(0.29)": "by the reciprocal",
    "bfloat16 x.add(y, alpha=0.1)": "alpha in float32",
}
# Sums, and an instruction of the GPU, which the CPU has not.
LEFT_OUT = {"x.norm()", "z.rsqrt()"}


def for_cuda(function, arrays):
    return export.export(
        jax.jit(function),
        platforms=["cuda"],
        disabled_checks=[export.DisabledSafetyCheck.platform()],
    )(*arrays)


@pytest.mark.parametrize("name", sorted(PRIMITIVES.keys() - LEFT_OUT))
def test_each_kernel_is_the_one_that_torch_has_on_cuda(name):
    of = PRIMITIVES[name]
    given = inputs(of.low)
    expected = of.references[ON_CUDA.get(name, next(iter(of.references)))](*given)
    program = for_cuda((LOW if of.low else PLAIN)[name], given)
    np.testing.assert_array_equal(np.asarray(program.call(*given)), expected)


@pytest.mark.parametrize("name", ["div", "sqrt", "addcdiv", "fma"])
def test_no_rounding_to_float32_is_between_two_conversions(name):
    """XLA drops such a pair, and goes on with more digits than torch has."""
    given = inputs()
    functions = {
        "div": lambda x, y, z: PLAIN["x.div(z)"](x, y, z) + y,
        "sqrt": lambda x, y, z: PLAIN["z.sqrt()"](x, y, z) + y,
        "addcdiv": PLAIN["x.addcdiv(y, z, value=v)"],
        "fma": lambda x, y, z: PLAIN["x.add(y, alpha=0.1)"](x, y, z).astype(jnp.bfloat16),
    }
    text = for_cuda(functions[name], given).mlir_module()
    narrowed = re.findall(r"(%\w+) = stablehlo\.convert .*f64>\) -> tensor<\d+xf32>", text)
    assert narrowed
    for value in narrowed:
        (user,) = re.findall(rf"= stablehlo\.(\w+) {value}\b", text)
        assert user == "bitcast_convert"


# What hands a number on as it is.
MOVED = "reshape|slice|dynamic_slice|broadcast_in_dim|concatenate|transpose|select"


def functions_of(text):
    """Return the lines of each function of a module, by name."""
    made = {}
    for line in text.splitlines():
        if head := re.match(r"\s*func\.func .*?@(\w+)\(", line):
            lines = made.setdefault(head[1], [])
        elif made:
            lines.append(line)
    return made


def pairs_of_conversions(text):
    """Return the lines that make a float64 of a float32 which nothing but a conversion has made.

    In one function, or on both sides of a call: XLA puts a function in the place of its call.
    """
    functions, narrowed, found, known = functions_of(text), set(), set(), -1
    while len(narrowed) > known:
        known = len(narrowed)
        for name, lines in functions.items():
            for line in lines:
                values = re.findall(r"%\w+(?:#\d+)?", line)
                handed = [i for i, value in enumerate(values) if (name, value) in narrowed]
                if call := re.search(r"(%\w+)(:\d+)? = (?:func\.)?call @(\w+)\(", line):
                    narrowed |= {(call[3], f"%arg{i - 1}") for i in handed}
                    (returned,) = (x for x in functions[call[3]] if x.strip().startswith("return"))
                    for i, value in enumerate(re.findall(r"%\w+(?:#\d+)?", returned)):
                        if (call[3], value) in narrowed:
                            narrowed.add((name, f"{call[1]}#{i}" if call[2] else call[1]))
                elif made := re.match(r"\s*(%\w+) = stablehlo\.(\w+) .*? : (.*)", line):
                    value, operation, kinds = made.groups()
                    if operation == "convert" and re.search(r"f64>\) -> tensor<(\d+x)*f32>", kinds):
                        narrowed.add((name, value))
                    elif any(i > 0 for i in handed):
                        if operation == "convert" and re.search(r"f32>\) -> .*f64>", kinds):
                            found.add((name, line))
                        elif re.fullmatch(MOVED, operation):
                            narrowed.add((name, value))
    return found


OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"lr": 0.01},
    "Adamax": {"lr": 0.1, "weight_decay": 0.1},
    "NAdam": {"weight_decay": 0.1, "momentum_decay": 0.006},
    "RAdam": {"weight_decay": 0.1, "lr": 0.01},
    "RMSprop": {"centered": True, "momentum": 0.5, "weight_decay": 0.1},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1},
    "Adadelta": {"weight_decay": 0.1},
    "ASGD": {"weight_decay": 0.1, "t0": 3},
    "Rprop": {},
}
# torch's default on a GPU, foreach, divides by a list of numbers in Adam's steps.
LISTED = {"Adam", "AdamW"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_torchs_on_cuda(name, dtype):
    rng = np.random.default_rng(3)
    start, *grads = (rng.standard_normal((37, 11)).astype(np.float32) for _ in range(13))
    param = torch.nn.Parameter(torch.from_numpy(start.copy()).to(getattr(torch, dtype)))
    theirs = getattr(torch.optim, name)([param], foreach=False, **OPTIMIZERS[name])
    tx = getattr(jp, name)(**OPTIMIZERS[name])
    params = {"x": jnp.asarray(start, dtype)}
    state = tx.init(params)

    def step(params, state, grads):
        return jp.step(tx, grads, state, params)

    program = for_cuda(step, (params, state, params))
    assert not pairs_of_conversions(program.mlir_module())
    with CudaKernels(listed=name in LISTED):
        for grad in grads:
            param.grad = torch.from_numpy(grad.copy()).to(param.dtype)
            theirs.step()
            params, state = program.call(params, state, {"x": jnp.asarray(grad, dtype)})
    ours = np.asarray(params["x"].astype(jnp.float32))
    np.testing.assert_array_equal(ours, param.detach().float().numpy())


@pytest.fixture
def decided_anew():
    _cuda.has_bits.cache_clear()
    yield
    _cuda.has_bits.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "gpus", "bits"),
    [
        ("auto", ["9.0", "9.0"], True),
        ("auto", ["8.6"], False),
        ("", ["12.0"], False),
        ("auto", ["8.0", "8.9"], False),
        ("auto", [], True),
        ("on", ["8.6"], True),
        ("OFF", ["9.0"], False),
    ],
)
def test_slow_float64_is_not_waited_for(monkeypatch, decided_anew, wanted, gpus, bits):
    monkeypatch.setenv(_cuda.SWITCH, wanted)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu" if gpus else "cpu")
    devices = [SimpleNamespace(compute_capability=gpu) for gpu in gpus]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    text = for_cuda(
        lambda *given: PLAIN["x.addcdiv(y, z, value=v)"](*given), inputs()
    ).mlir_module()
    assert ("xf64>" in text) == bits


def test_a_word_that_is_none_is_refused(monkeypatch, decided_anew):
    monkeypatch.setenv(_cuda.SWITCH, "fast")
    with pytest.raises(ValueError, match="CUDA_BITS must be on, off or auto; got 'fast'"):
        _cuda.has_bits()
