"""torch's bits in plain XLA, whatever the processor, the shape and the kind of program.

``--xla_cpu_max_isa`` makes LLVM write for older processors. Those of AVX and SSE4.2 have no fused
multiply-add, so that nothing can rest on its being made of a product and a sum.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxopt_port.numerics import _contraction, _emitted
from parity_tests.numerics.drawn_steps import drawn, named
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.optimizer import torchs_parameters

ROOT = Path(__file__).parents[2]
STEPS = "parity_tests.numerics.steps_on_processor"
NEEDS = {"SSE4_2": "sse4_2", "AVX": "avx", "AVX2": "fma", "AVX512": "avx512f"}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}
SAMPLE = [("SGD", SGD), ("Adam", {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True})]
WHOLE = [
    *SAMPLE,
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "maximize": True}),
    ("AdamW", {"lr": 0.1}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 2, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("Rprop", {"lr": 0.1}),
]
SHAPES = [(64, 4), (33, 3), (16, 7), (), (0,), (257,), (33, 17), (2, 3, 3, 5)]
LARGE = [(70_001,), (9_001, 8), (301, 300)]
SPLIT = [(16, 8), (64, 6), (32, 14), (8,)]
WHOLE_SHAPES = [
    *SHAPES,
    *((33, n) for n in range(1, 34)),
    *((n,) for n in (1, 2, 3, 5, 7, 8, 15, 31, 511, 512, 513)),
    *((8, 5), (16, 3), (16, 5), (64, 5), (40, 6), (129, 6), (1, 1), (3, 0), (5, 1, 1)),
    *((2, 3, 4), (5, 3, 3), (4, 5, 7), (17, 3, 3), (3, 3, 4, 5), (2, 2, 3, 7), (3, 3, 16, 32)),
    *((40_000, 3), *LARGE),
]
WHOLE_SPLIT = [*SPLIT, (16, 4), (24, 10, 6), (40, 2), (64, 128), (8, 4098), (512, 512)]


def processors():
    flags = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else []
    return [name for name, needed in NEEDS.items() if needed in flags]


def case(optimizer, options, shapes, split, programs, layouts):
    return {
        **{"optimizer": optimizer, "options": options, "shapes": shapes, "split": split},
        **{"programs": programs, "layouts": layouts},
    }


def torchs(case):
    """torch's parameters after the steps, by shape."""
    params, grads = drawn([*case["shapes"], *case["split"]])
    optimizer = getattr(torch.optim, case["optimizer"])
    return torchs_parameters(optimizer, params, {**case["options"], "foreach": False}, grads)


def check(processor, cases, tmp_path):
    environment = os.environ | {
        "JAXOPT_PORT_KERNELS": "off",
        "XLA_FLAGS": f"--xla_cpu_max_isa={processor} --xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-m", STEPS, tmp_path / "out.npz"]
    command.append(json.dumps(cases))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ours = np.load(tmp_path / "out.npz")
    for one in cases:
        expected = torchs(one)
        for kind, shapes in (
            *((kind, one["shapes"]) for kind in one["programs"]),
            *((kind, one["split"]) for kind in one["layouts"]),
        ):
            names = ["x".join(map(str, shape)) or "scalar" for shape in shapes]
            assert_same_bits(
                {name: ours[f"{named(one)}|{kind}|{name}"] for name in names},
                {name: expected[name] for name in names},
                f"{named(one)}, {kind}, on {processor}",
            )


@pytest.mark.usefixtures("correct_root")
@pytest.mark.parametrize("processor", processors())
def test_a_sample_of_programs_has_torchs_bits(processor, tmp_path):
    cases = [
        case(*SAMPLE[0], [*SHAPES, *LARGE], SPLIT, ["eager", "vmap"], ["tensor parallel", "both"]),
        case(*SAMPLE[1], SHAPES, SPLIT, ["scan"], ["fsdp"]),
    ]
    check(processor, cases, tmp_path)


@pytest.mark.usefixtures("correct_root")
@pytest.mark.parametrize("processor", processors())
@pytest.mark.parametrize(("optimizer", "options"), WHOLE, ids=repr)
def test_every_program_has_torchs_bits(optimizer, options, processor, tmp_path):
    layouts = ["fsdp", "tensor parallel", "both", "zero-1"]
    programs = ["eager", "scan", "vmap"]
    check(
        processor,
        [case(optimizer, options, WHOLE_SHAPES, WHOLE_SPLIT, programs, layouts)],
        tmp_path,
    )


@pytest.mark.parametrize("shape", [(33, n) for n in (16, 17, 24, 31, 33, 64)] + [(513,), (70_001,)])
def test_llvm_contracts_where_it_is_left_to_it(shape):
    """The canary: the pattern that it once did not contract, in arrays of 3 to 7 columns."""
    import jax

    from jaxopt_port.numerics import uncontracted

    if not _contraction.holds():
        pytest.skip("this processor has no fused multiply-add: nothing is left to contraction")
    assert shape[-1] >= _emitted.WIDE

    def product(a, x):
        return uncontracted(a * x)

    def contracted(a, y, x):
        return uncontracted(x) + a * y

    drawn = _contraction.drawn(shape)
    made = jax.jit(lambda *case: _contraction.update(contracted, product, *case))(*drawn)
    for ours, expected in zip(made, _contraction.expected(*drawn), strict=True):
        np.testing.assert_array_equal(ours, expected)
