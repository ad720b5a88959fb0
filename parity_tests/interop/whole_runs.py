"""Runs as other libraries write them, of one small torch run; each writer states its source."""

from __future__ import annotations

import argparse
import copy
import enum
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

STEPS = 5


class Phase(enum.Enum):
    """An enum of plain values, as the settings of a run have."""

    WARM = "warm"


class Run:
    """Two layers, Adamax in two groups as Hugging Face divides them, and a scheduler."""

    def __init__(self, steps: int = STEPS, optimizer: str = "Adamax") -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = torch.nn.Sequential(
                torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
            )
        weights = [p for p in self.module.parameters() if p.ndim > 1]
        biases = [p for p in self.module.parameters() if p.ndim == 1]
        groups = [
            {"params": weights, "weight_decay": 0.1},
            {"params": biases, "weight_decay": 0.0, "lr": 0.05},
        ]
        self.optimizer = getattr(torch.optim, optimizer)(groups, lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 4, 0.5)
        self.train(steps)

    def gradient(self, step: int) -> list[np.ndarray]:
        rng = np.random.default_rng(step)
        return [
            rng.normal(size=tuple(p.shape)).astype(np.float32) for p in self.module.parameters()
        ]

    def train(self, steps: int) -> None:
        begun = self.scheduler.last_epoch
        for step in range(begun, begun + steps):
            for p, grad in zip(self.module.parameters(), self.gradient(step), strict=True):
                p.grad = torch.from_numpy(grad)
            self.optimizer.step()
            self.scheduler.step()

    def parts(self) -> tuple[Any, Any, Any]:
        state = self.module.state_dict(), self.optimizer.state_dict(), self.scheduler.state_dict()
        return copy.deepcopy(state)


# A writer writes into a folder and returns what is to be loaded.
Writer = Callable[[Run, Path], Path]


def _save(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def tutorial(run: Run, folder: Path) -> Path:
    """pytorch.org, "Saving and loading a general checkpoint"."""
    model, optimizer, scheduler = run.parts()
    return _save(
        {"model_state_dict": model, "optimizer_state_dict": optimizer, "sched": scheduler},
        folder / "run.tar",
    )


def legacy(run: Run, folder: Path) -> Path:
    """``torch.save`` with ``_use_new_zipfile_serialization=False``."""
    model, optimizer, scheduler = run.parts()
    held = {"model": model, "optimizer": optimizer, "lr_scheduler": scheduler}
    return _save(held, folder / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)


def rezipped(run: Run, folder: Path) -> Path:
    """The members of a file of ``torch.save``, packed again by ``zip``, which deflates."""
    first = tutorial(run, folder)
    with (
        zipfile.ZipFile(first) as source,
        zipfile.ZipFile(folder / "model", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return folder / "model"


def torchvisions(run: Run, folder: Path) -> Path:
    """``references/classification/train.py`` of torchvision: its settings, averages and scaler."""
    model, optimizer, scheduler = run.parts()
    average = torch.optim.swa_utils.AveragedModel(run.module).state_dict()
    return _save(
        {
            "model": model, "optimizer": optimizer, "lr_scheduler": scheduler, "epoch": 3,
            "args": argparse.Namespace(lr=0.1, output_dir=Path("out"), phase=Phase.WARM),
            "model_ema": average,
            "scaler": torch.amp.GradScaler("cpu", init_scale=8.0).state_dict(),
        },
        folder / "model_3.pth",
    )  # fmt: skip


def timms(run: Run, folder: Path) -> Path:
    """``timm.utils.CheckpointSaver``."""
    model, optimizer, _ = run.parts()
    return _save(
        {
            "epoch": 3, "arch": "resnet18", "state_dict": model, "optimizer": optimizer,
            "version": 2, "args": argparse.Namespace(opt="adamax"), "state_dict_ema": model,
            "metric": np.float64(71.5),
        },
        folder / "last.pth.tar",
    )  # fmt: skip


def dinos(run: Run, folder: Path) -> Path:
    """``main_dino.py``: rates that are NumPy's, prefixes of DDP, student and teacher."""
    model, optimizer, _ = run.parts()
    for group in optimizer["param_groups"]:
        group["lr"] = np.float64(group["lr"])
    wrapped = {f"module.{name}": value for name, value in model.items()}
    return _save(
        {"student": wrapped, "teacher": model, "optimizer": optimizer, "epoch": 1,
         "rng": np.random.get_state()},
        folder / "checkpoint.pkl",
    )  # fmt: skip


def lightnings(run: Run, folder: Path) -> Path:
    """``lightning.pytorch`` 2.6, ``_CheckpointConnector.dump_checkpoint``."""
    model, optimizer, scheduler = run.parts()
    return _save(
        {
            "epoch": 1, "global_step": STEPS, "pytorch-lightning_version": "2.6.6",
            "state_dict": {f"model.{name}": value for name, value in model.items()},
            "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {},
            "optimizer_states": [optimizer], "lr_schedulers": [scheduler],
        },
        folder / "last.ckpt",
    )  # fmt: skip


def lightnings_averages(run: Run, folder: Path) -> Path:
    """The same with its callback WeightAveraging: the averages stand where parameters stand."""
    path = lightnings(run, folder)
    held = torch.load(path)
    held["current_model_state"] = held["state_dict"]
    held["state_dict"] = {n: torch.zeros_like(x) for n, x in held["state_dict"].items()}
    held["averaging_state"] = {"n_averaged": torch.tensor(3)}
    return _save(held, path)


def compiled(run: Run, folder: Path) -> Path:
    """nanoGPT's ``ckpt.pt``: names of ``torch.compile``, ``iter_num``."""
    model, optimizer, _ = run.parts()
    wrapped = {f"_orig_mod.{name}": value for name, value in model.items()}
    return _save(
        {"model": wrapped, "optimizer": optimizer, "iter_num": STEPS, "model_args": {"n_layer": 2}},
        folder / "ckpt.pt",
    )


def named_by_torch(run: Run, folder: Path) -> Path:
    """``torch.distributed.checkpoint.state_dict.get_state_dict``, and FSDP's full state."""
    model, optimizer, _ = run.parts()
    held = _by_names(run, optimizer)
    return _save({"model": model, "optim": held, "sched": run.parts()[2]}, folder / "full.pt")


def _by_names(run: Run, optimizer: dict[str, Any]) -> dict[str, Any]:
    names = {id(p): name for name, p in run.module.named_parameters()}
    order = [names[id(p)] for group in run.optimizer.param_groups for p in group["params"]]
    groups = [
        {**group, "params": [order[i] for i in group["params"]]}
        for group in optimizer["param_groups"]
    ]
    state = {order[i]: held for i, held in optimizer["state"].items()}
    return {"state": state, "param_groups": groups}


def flattened(run: Run, folder: Path) -> Path:
    """The same with ``StateDictOptions(flatten_optimizer_state_dict=True)``."""
    held = _by_names(run, run.parts()[1])
    flat = {
        f"state.{name}.{key}": value
        for name, state in held["state"].items()
        for key, value in state.items()
    }
    for group in held["param_groups"]:
        for name in group["params"]:
            flat |= {
                f"param_groups.{name}.{key}": value
                for key, value in group.items()
                if key != "params"
            }
    return _save({"model": run.parts()[0], "optim": flat}, folder / "flat.pt")


def trainers(run: Run, folder: Path) -> Path:
    """``transformers`` 5: ``Trainer._save_checkpoint``."""
    model, optimizer, scheduler = run.parts()
    safetensors.torch.save_file(model, folder / "model.safetensors", {"format": "pt"})
    _save(optimizer, folder / "optimizer.pt")
    _save(scheduler, folder / "scheduler.pt")
    _save({"python": (3, (1, 2), None), "numpy": np.random.get_state(),
           "cpu": torch.get_rng_state()}, folder / "rng_state.pth")  # fmt: skip
    _save(torch.amp.GradScaler("cpu").state_dict(), folder / "scaler.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": STEPS, "epoch": 0.5}))
    return folder


def trainers_shards(run: Run, folder: Path) -> Path:
    """The same of an older transformers: ``pytorch_model.bin`` in shards."""
    trainers(run, folder)
    (folder / "model.safetensors").unlink()
    where = {}
    for i, (name, value) in enumerate(run.parts()[0].items()):
        where[name] = f"pytorch_model-{i + 1:05d}-of-00004.bin"
        _save({name: value}, folder / where[name])
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def accelerates(run: Run, folder: Path) -> Path:
    """``accelerate`` 1.15: ``Accelerator.save_state``."""
    model, optimizer, scheduler = run.parts()
    safetensors.torch.save_file(model, folder / "model.safetensors")
    _save(optimizer, folder / "optimizer.bin")
    _save(scheduler, folder / "scheduler.bin")
    with open(folder / "random_states_0.pkl", "wb") as file:
        pickle.dump({"step": 3, "random_state": (3, (1,), None),
                     "numpy_random_seed": np.random.get_state()}, file)  # fmt: skip
    return folder


def distributed(run: Run, folder: Path) -> Path:
    """``torch.distributed.checkpoint.save`` itself, in one process."""
    model, optimizer, scheduler = run.parts()
    named = {"model": model, "optimizer": _by_names(run, optimizer), "sched": scheduler}
    return _distributed(named, folder / "dcp")


def _distributed(held: Any, folder: Path) -> Path:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        dcp.save(held, checkpoint_id=folder)
    return folder


def distributed_by_index(run: Run, folder: Path) -> Path:
    """The same of ``optimizer.state_dict()``, whose integers become texts."""
    model, optimizer, scheduler = run.parts()
    held = {"model": model, "optimizer": optimizer, "sched": scheduler}
    return _distributed(held, folder / "dcp")


def deepspeeds(run: Run, folder: Path) -> Path:
    """``deepspeed.checkpoint.ds_to_universal`` 0.16: a folder for each parameter."""
    model, optimizer, _ = run.parts()
    named = _by_names(run, optimizer)
    for name, value in model.items():
        own = folder / "zero" / name
        own.mkdir(parents=True)
        _save({"param": value, "cat_dim": 0}, own / "fp32.pt")
        for key, held in named["state"][name].items():
            _save({"param": held} if held.ndim else held, own / f"{key}.pt")
    _save({"param_groups": named["param_groups"]}, folder / "zero" / "optimizer_state.pt")
    _save({"module": None, "global_steps": STEPS, "lr_scheduler": run.parts()[2]},
          folder / "mp_rank_00_model_states.pt")  # fmt: skip
    return folder


WRITERS: tuple[Writer, ...] = (
    tutorial, legacy, rezipped, torchvisions, timms, dinos, lightnings, lightnings_averages,
    compiled, named_by_torch, flattened, trainers, trainers_shards, accelerates, distributed,
    distributed_by_index, deepspeeds,
)  # fmt: skip
