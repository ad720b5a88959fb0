"""Runs of FSDP2 and DDP, in one process and in two, come in and go on as torch goes on."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.interop.distributed_run import BEGUN, MORE, gradient, network
from parity_tests.oracles.tolerances import GONE_ON
from parity_tests.oracles.two_networks import like_of, nested

LIKE = like_of(network())
OPTIMIZERS = ("Adamax", "SGD", "AdamW", "DDP")
WAYS = ("named", "flattened", "full", "full_flattened")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("distributed")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "parity_tests.interop.distributed_run"]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(request.param), str(made)],
            cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(request.param)
    ]  # fmt: skip
    assert [process.wait(300) for process in running] == [0] * request.param
    return made


def test_the_next_steps_are_torchs(folder):
    """Every optimizer and every way of saving, of one launch."""
    for name in OPTIMIZERS:
        want = np.load(folder / f"{name}.npz")
        for way in WAYS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", interop.CheckpointWarning)  # DDP's prefix
                got = gone_on(interop.load(folder / f"{name}.{way}"), name)
            for key, value in got.items():
                there = want[f"module.{key}" if name == "DDP" else key]
                if name == "AdamW":
                    assert np.abs(value - there).max() <= GONE_ON * np.abs(there).max()
                else:
                    assert value.tobytes() == there.tobytes(), (name, way, key)


def gone_on(found, name):
    module = network()
    assert found.step in (None if name in ("SGD", "DDP") else BEGUN, BEGUN)
    mapped = interop.param_map(module, LIKE)
    params = interop.params_from_torch(found.params, LIKE, mapped)
    tx, state = interop.optimizer_from_torch(
        found, params, mapped, module=module, optimizer_name={"DDP": "SGD"}.get(name, name)
    )
    for step in range(BEGUN, BEGUN + MORE):
        grads = {key: x.numpy() for key, x in gradient(step, module).items()}
        params, state = jp.step(tx, nested(mapped.from_torch(grads)), state, params)
    leaves = {path: np.asarray(x) for path, x in jp.engine.leaf_paths(params)}
    return mapped.to_torch(leaves)


def test_a_process_own_part_is_refused_with_the_way_to_the_whole(folder):
    with pytest.raises(ValueError, match=r"DTensor, of which each process.*full_state_dict=True"):
        interop.load(folder / "SGD.of_rank_0")


# ── other writers and planners, in one process ─────────────────────────────────────────────────


def state_of_a_run():
    from torch.distributed.checkpoint.state_dict import get_state_dict

    module = network()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    model, held = get_state_dict(module, optimizer)
    return {"model": model, "optimizer": held}


def written(folder, planner=None, **options):
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = dcp.FileSystemWriter(folder, **options)
        dcp.save(state_of_a_run(), storage_writer=writer, planner=planner)


def unflattened():
    from torch.distributed.checkpoint import DefaultSavePlanner

    return DefaultSavePlanner(flatten_state_dict=False)


READ = {
    "a file for each tensor": lambda folder: written(folder, single_file_per_rank=False),
    "several threads": lambda folder: written(folder, thread_count=2),
    "not flattened": lambda folder: written(folder, unflattened()),
}


@pytest.mark.parametrize("write", READ.values(), ids=READ)
def test_other_writers(write, tmp_path):
    write(tmp_path / "dcp")
    found = interop.load(tmp_path / "dcp")
    assert list(found.params) == list(network().state_dict())
    assert found.step == 1
    assert set(found.optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def turned():
    from torch.distributed.checkpoint._extension import StreamTransformExtension

    class Turned(StreamTransformExtension):
        """What compresses is such an extension, and is no part of torch."""

        from_descriptor = registry_name = None

        def get_descriptor(self):
            return "stream.turned/1"

        def transform_to(self, output):
            return output

        def transform_from(self, data):
            return data

    Turned.__abstractmethods__ = frozenset()
    return Turned()


def as_safetensors(folder):
    from torch.distributed.checkpoint.filesystem import SerializationFormat

    written(folder, serialization_format=SerializationFormat.SAFETENSORS)


REFUSED = {
    "an extension": (
        lambda folder: written(folder, _extensions=[turned()]),
        r"has gone through \['stream.turned/1'\].*without extensions",
    ),
    "safetensors within": (as_safetensors, r"no file of torch\.save; save with FileSystemWriter's"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_undone_is_refused_with_the_reason(write, message, tmp_path):
    write(tmp_path / "dcp")
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path / "dcp")
