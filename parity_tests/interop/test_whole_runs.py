"""Runs of every library's making come in whole, and go on as torch would have gone on."""

import warnings

import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.interop.going_on import distance
from parity_tests.interop.whole_runs import (
    STEPS,
    WRITERS,
    Run,
    compiled,
    dinos,
    distributed,
    trainers,
)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_next_steps_are_torchs(write, tmp_path):
    run = Run()
    schedulers = run.scheduler, jp.lr_scheduler.StepLR(4, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.CheckpointWarning)
        found = interop.load(write(run, tmp_path))
        apart = distance(
            found, run.module, run.optimizer, schedulers=schedulers, optimizer_name="Adamax"
        )
    assert found.step == STEPS
    assert apart.bits, apart


@pytest.mark.parametrize("write", [dinos, compiled], ids=lambda write: write.__name__)
def test_a_wrappers_prefix_is_left_out_and_reported(write, tmp_path):
    run = Run()
    with pytest.warns(interop.CheckpointWarning, match="all names begin with '(module|_orig_mod)"):
        found = interop.load(write(run, tmp_path))
    assert list(found.params) == list(run.module.state_dict())


def test_two_processes_pieces_are_put_together(tmp_path):
    """A tensor in pieces of several files, as FSDP's processes write them."""
    run = Run()
    folder = distributed(run, tmp_path)
    whole = interop.load(folder)
    split_first_tensor(folder)
    pieces = interop.load(folder)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(pieces.params[name], value)


def split_first_tensor(folder, second=3):
    """Write the rows of a tensor into two files, as two processes would, the others from there."""
    import io
    import pickle

    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    with open(folder / ".metadata", "rb") as file:
        held = pickle.load(file)
    name = "model.0.weight"
    value = torch.from_numpy(interop.load(folder).params["0.weight"].copy())
    entry = held.state_dict_metadata[name]
    old = next(index for index in held.storage_data if index.fqn == name)
    del held.storage_data[old]
    entry.chunks = []
    for i, part in enumerate((value[:3], value[3:])):
        packed = io.BytesIO()
        torch.save(part.clone(), packed)
        (folder / f"__{i + 1}_0.distcp").write_bytes(packed.getvalue())
        offset = torch.Size((second * i, 0))
        entry.chunks.append(ChunkStorageMetadata(offset, part.shape))
        place = _StorageInfo(f"__{i + 1}_0.distcp", 0, len(packed.getvalue()))
        held.storage_data[MetadataIndex(name, offset)] = place
    with open(folder / ".metadata", "wb") as file:
        pickle.dump(held, file)


def test_pieces_that_overlap_leave_nothing_that_nobody_wrote(tmp_path):
    folder = distributed(Run(), tmp_path)
    split_first_tensor(folder, second=2)
    with pytest.raises(ValueError, match=r"model.0.weight has pieces for \d+ of \d+ elements"):
        interop.load(folder)


def test_an_optimizer_is_not_lost_to_another_of_its_name(tmp_path):
    run = Run()
    first, second = (run.optimizer.state_dict() for _ in range(2))
    held = {"model": run.module.state_dict(), "optimizers": {"a": first, "b": first}, "a": second}
    torch.save(held, tmp_path / "three")
    assert set(interop.load(tmp_path / "three").optimizers) == {"optimizers.a", "b", "a"}


def test_several_optimizers_have_names(tmp_path):
    run = Run()
    state = run.optimizer.state_dict()
    torch.save(
        {"state_dict": run.module.state_dict(), "optimizer_states": [state, state],
         "pytorch-lightning_version": "2.6"},
        tmp_path / "gan.ckpt",
    )  # fmt: skip
    found = interop.load(tmp_path / "gan.ckpt")
    assert list(found.optimizers) == ["optimizer_states.0", "optimizer_states.1"]
    with pytest.raises(ValueError, match=r"there are 2 optimizers: 'optimizer_states.0', "):
        found.optimizer  # noqa: B018
    torch.save({"netG": run.module.state_dict(), "optG": state, "optD": state}, tmp_path / "gan")
    interop.save(tmp_path / "gan.safetensors", interop.load(tmp_path / "gan"))
    found = interop.load(tmp_path / "gan.safetensors")
    assert list(found.optimizers) == ["optG", "optD"]
    only = interop.load(tmp_path / "gan", keys={"optimizer": "optD"})
    assert only.optimizer is not None
    assert list(only.optimizers) == ["optimizer"]


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"])
def test_a_part_alone_is_a_checkpoint(tmp_path, part):
    trainers(Run(), tmp_path)
    found = interop.load(tmp_path / part)
    held = (found.optimizers, found.schedulers, found.scaler, found.extra)
    assert sum(map(bool, held)) == 1


def test_a_header_whose_length_looks_like_another_formats_mark(tmp_path):
    """384 bytes begin with the mark of a pickle, 19280 with that of a zip file."""
    for i, length in enumerate((384, 19280)):
        path = tmp_path / f"model{i}"
        interop.save(tmp_path / "a.safetensors", interop.Checkpoint({"w": np.ones(2)}))
        data = (tmp_path / "a.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + size].rstrip()
        assert len(header) <= 384, len(header)
        path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + data[8 + size :])
        assert list(interop.load(path).params) == ["w"]


LOOSE = {
    "a step that is a tensor": (lambda m: {"model": m, "step": torch.tensor(3)}, 3, []),
    "one dict within": (lambda m: {"state": {"model": m, "iteration": 4}}, 4, ["iteration"]),
    "something beside the tensors": (
        lambda m: {**m, "_extra_state": {"a": 1}},
        None,
        ["_extra_state"],
    ),
}


@pytest.mark.parametrize(("make", "step", "rest"), LOOSE.values(), ids=LOOSE)
def test_what_is_what_in_looser_dicts(tmp_path, make, step, rest):
    module = Run(0).module
    torch.save(make(module.state_dict()), tmp_path / "a")
    found = interop.load(tmp_path / "a")
    assert list(found.params) == list(module.state_dict())
    assert found.step == step
    assert set(rest) <= set(found.extra)
