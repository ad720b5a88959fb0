"""Folders beside those of runs: read, or refused with what may be meant."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jaxopt_port import interop
from parity_tests.interop.test_neighbours_of_runs import NAMES, M, O
from parity_tests.interop.whole_runs import Run, deepspeeds


def checkpoint(folder, step, model="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(M, folder / model)
    torch.save(O, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')


def an_adapter(folder):
    checkpoint(folder, 7, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def shards_of_safetensors(folder):
    checkpoint(folder, 7)
    (folder / "model.safetensors").unlink()
    parts = {"a": dict(list(M.items())[:2]), "b": dict(list(M.items())[2:])}
    where = {}
    for i, part in enumerate(parts.values()):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file(part, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def two_formats(folder):
    checkpoint(folder, 7)
    torch.save({n: x * 0 for n, x in M.items()}, folder / "pytorch_model.bin")


def of_binaries(folder):
    torch.save(M, folder / "pytorch_model.bin")
    torch.save(O, folder / "optimizer.bin")


def of_a_mixture(folder):
    """Trainer with DeepSpeed's or FSDP's names beside its own."""
    checkpoint(folder, 7)
    (folder / "optimizer.pt").rename(folder / "optimizer.bin")
    (folder / "README.md").write_text("a run")
    (folder / "runs").mkdir()


def adafactors_json(folder):
    checkpoint(folder, 7)
    (folder / "trainer_state.json").write_text('{"global_step": 7, "log_history": [{"loss": NaN}]}')


FOLDERS = {
    each.__name__: each
    for each in (
        an_adapter, shards_of_safetensors, two_formats, of_binaries, of_a_mixture, adafactors_json,
    )
}  # fmt: skip


@pytest.mark.parametrize("write", FOLDERS.values(), ids=FOLDERS)
def test_folders(write, tmp_path):
    write(tmp_path)
    found = interop.load(tmp_path)
    assert sorted(found.params) == sorted(NAMES)
    np.testing.assert_array_equal(found.params["0.bias"], M["0.bias"].numpy())
    assert set(found.optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert found.step == (1 if write is of_binaries else 7)


def test_the_folder_above_names_the_latest_checkpoint(tmp_path):
    for step in (500, 1000):
        checkpoint(tmp_path / f"checkpoint-{step}", step)
    with pytest.raises(FileNotFoundError, match=r"Name the one that is meant, as .*-1000$"):
        interop.load(tmp_path)
    checkpoint(tmp_path, 1000)
    (tmp_path / "optimizer.pt").unlink()
    with pytest.warns(interop.CheckpointWarning, match=r"no optimizer: .* go on from .*-1000$"):
        assert interop.load(tmp_path).optimizer is None


def lightnings_logs(folder):
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": M}, folder / "checkpoints" / "last.ckpt")


def deepspeeds_own(folder):
    (folder / "latest").write_text("global_step5")
    (folder / "global_step5").mkdir()
    torch.save({"module": M}, folder / "global_step5" / "mp_rank_00_model_states.pt")
    torch.save({}, folder / "global_step5" / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")


def one_file(folder):
    torch.save({"model": M}, folder / "ckpt.pt")


def shards_of_processes(folder):
    save_file(M, folder / "shard-00001-model-00001-of-00001.safetensors")


def test_a_universal_checkpoint_takes_no_keys(tmp_path):
    deepspeeds(Run(), tmp_path)
    with pytest.raises(ValueError, match="says what is what; leave out keys"):
        interop.load(tmp_path, keys={"params": "module"})


REFUSED_FOLDERS = {
    "Lightning's logs": (lightnings_logs, r"as .*checkpoints$"),
    "DeepSpeed's own": (deepspeeds_own, "ds_to_universal.py"),
    "one file": (one_file, r"as .*ckpt\.pt$"),
    "shards of processes": (shards_of_processes, "consolidate_safetensors_files"),
    "nothing": (lambda folder: None, "it has nothing"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED_FOLDERS.values(), ids=REFUSED_FOLDERS)
def test_folders_of_no_run_say_what_may_be_meant(write, message, tmp_path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        interop.load(tmp_path)
