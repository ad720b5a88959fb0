"""Mutants of every format: read, or refused with one of three errors, in bounds."""

import collections
import random
import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jaxopt_port import interop
from parity_tests.interop.mutants import mutated
from parity_tests.interop.whole_runs import (
    Run,
    accelerates,
    deepspeeds,
    distributed,
    lightnings,
    rezipped,
    torchvisions,
    trainers,
    trainers_shards,
)

REFUSALS = (ValueError, OSError, ImportError)


def old_torchs(run, folder):
    module, optimizer, scheduler = run.parts()
    held = {"model": module, "optimizer": optimizer, "sched": scheduler}
    torch.save(held, folder / "a", _use_new_zipfile_serialization=False)
    return folder / "a"


def exchanged(run, folder):
    torchvisions(run, folder)
    interop.save(folder / "a.safetensors", interop.load(folder / "model_3.pth"))
    return folder / "a.safetensors"


def exchanged_shards(run, folder):
    found = interop.Checkpoint(interop.load(torchvisions(run, folder)).params)
    interop.save(folder / "shards", found, max_shard_size=40)
    return folder / "shards"


def plain_safetensors(run, folder):
    trainers(run, folder)
    return folder / "model.safetensors"


FORMATS = {
    each.__name__: each
    for each in (
        torchvisions, rezipped, old_torchs, lightnings, plain_safetensors, exchanged,
        exchanged_shards, trainers, trainers_shards, accelerates, distributed, deepspeeds,
    )
}  # fmt: skip
# What the reader itself takes, whatever the file.
OWN = 1 << 20


def mutants_of(name: str, count: int, folder: Path) -> Iterator[Path]:
    """Yield a path, at which stands one mutant after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = FORMATS[name](Run(), folder)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    whole = {file: file.read_bytes() for file in files}
    for seed in range(count):
        rng = random.Random(f"{name} {seed}")
        file = rng.choice(files)
        file.write_bytes(mutated(whole[file], rng))
        yield path
        file.write_bytes(whole[file])


def size_of(path: Path) -> int:
    return sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path]))


def outcome(path: Path) -> str:
    """Load it, within bounds; return what came of it."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interop.load(path)
        made = "read"
    except REFUSALS as error:
        made = next(kind.__name__ for kind in REFUSALS if isinstance(error, kind))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begun < 5
    assert peak < 3 * size_of(path) + OWN
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_mutants(name, tmp_path):
    counted = collections.Counter(map(outcome, mutants_of(name, 12, tmp_path)))
    assert counted["ValueError"] > 0


@pytest.mark.parametrize("name", FORMATS)
def test_five_hundred_mutants(name, tmp_path):
    collections.Counter(map(outcome, mutants_of(name, 500, tmp_path)))


if __name__ == "__main__":  # python -m parity_tests.interop.test_mutants FOLDER: what came of 500
    for each in FORMATS:
        own = Path(sys.argv[1]) / each
        own.mkdir(parents=True)
        found = collections.Counter(map(outcome, mutants_of(each, 500, own)))
        print(each, dict(found), flush=True)
