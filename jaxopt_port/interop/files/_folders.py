"""Folders of a run: Hugging Face's Trainer, Accelerate, DeepSpeed's universal checkpoints."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoint import StateDict
from ...trees import listed, users_level
from . import _sharded_files
from ._checkpoint import Checkpoint, CheckpointWarning
from ._json_values import json_of, without_unread
from ._optimizer_dicts import by_indices
from ._pickled_kinds import Unread
from ._pt_files import checkpoint_in, needs_code, unwrapped
from ._safetensors_files import read_tensors
from ._torch_archives import read_archive

# In the order in which they are looked for; the adapter of PEFT stands for its network.
_MODELS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "pytorch_model.safetensors", "adapter_model.safetensors",
    "adapter_model.bin", "diffusion_pytorch_model.safetensors",
)  # fmt: skip
_TRAINER = "a folder of Hugging Face's Trainer"
_ACCELERATE = "a folder of Accelerate"
_DEEPSPEED = "a universal checkpoint of DeepSpeed"


def reader_of(folder: Path) -> Callable[[Path, Mapping[str, str] | None], Checkpoint] | None:
    """Return what reads a folder; None where it is none of a run."""
    if (folder / "zero").is_dir():
        return _deepspeed
    names = {each.name for each in folder.iterdir()}
    if names & {"trainer_state.json", "training_args.bin"}:
        return _trainer
    if any(_is_part(name) for name in names) or len(_model_files(names)) > 0:
        return _accelerate
    return None


def without_a_run(folder: Path) -> str:
    """Say that a folder is none of a run, and which of what is in it may be meant."""
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    if "trace.json" in names:
        return (
            f"{folder} is what jaxopt-port record has written of a training in torch, and no run: "
            f"jaxopt-port replay {folder} CASE.py compares yours with it"
        )
    shown = listed(names, 6) or "nothing"
    words = f"{folder} is a folder without {_sharded_files.INDEX}; it has {shown}. "
    if any(any(folder.glob(f"{above}*_optim_states.pt")) for above in ("", "*/")):
        return words + (
            "DeepSpeed has parts of the run in it: put them together by its ds_to_universal.py, "
            "and load that"
        )
    if any(name.startswith("shard-") and name.endswith(".safetensors") for name in names):
        return words + (
            "torch's consolidate_safetensors_files (torch.distributed.checkpoint) puts shards of "
            "several processes together"
        )
    inside = [name for name in _by_number(names) if _may_be_read(folder / name)]
    if inside:
        return words + f"Name the one that is meant, as {folder / inside[-1]}"
    return words + "Name one of its files, or the folder of a sharded model"


def _by_number(names: Iterable[str]) -> list[str]:
    """Return names in the order of the last numbers in them, as checkpoint-500 before -1000."""
    numbers = {name: re.findall(r"\d+", name) for name in names}
    return sorted(numbers, key=lambda name: (int(numbers[name][-1]) if numbers[name] else -1, name))


def _may_be_read(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors")
    known = (path / ".metadata").is_file() or reader_of(path) is not None
    return known or any(map(_may_be_read, (each for each in path.iterdir() if each.is_file())))


def _is_part(name: str) -> bool:
    stem = name.partition(".")[0].rstrip("0123456789").rstrip("_")
    return stem in ("optimizer", "scheduler", "scaler", "random_states") and name.endswith(
        (".pt", ".bin", ".pkl")
    )


def _model_files(names: set[str]) -> list[str]:
    return [name for name in _MODELS if name in names]


def _trainer(folder: Path, keys: Mapping[str, str] | None) -> Checkpoint:
    """``Trainer._save_checkpoint``: model, optimizer.pt, scheduler.pt, trainer_state.json, …."""
    made = replace(_accelerate(folder, keys), origin=_TRAINER)
    later = _by_number(each.name for each in folder.glob("checkpoint-*") if each.is_dir())
    if later and not made.optimizers:
        warnings.warn(
            f"{folder} has a model and no optimizer: the run can go on from {folder / later[-1]}",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    state = folder / "trainer_state.json"
    if state.is_file():
        record = json_of(state)
        made.extra["trainer_state"] = record
        if type(record.get("global_step")) is int:
            made.step = record["global_step"]
    arguments = folder / "training_args.bin"
    if arguments.is_file():
        found = read_archive(arguments)
        settings = found.attributes if isinstance(found, Unread) else {}
        kept, _ = without_unread(dict(settings), "training_args")
        made.extra["training_args"] = kept
        name = settings.get("optim")
        name = "".join(map(str, name.arguments)) if isinstance(name, Unread) else name
        if isinstance(name, str) and name.startswith("adamw_torch"):
            made.optimizer_name = "AdamW"
    return made


def _accelerate(folder: Path, keys: Mapping[str, str] | None) -> Checkpoint:
    """``Accelerator.save_state``: each model, optimizer and scheduler in a file of its own."""
    names = sorted(each.name for each in folder.iterdir() if each.is_file())
    found = _model_files(set(names))
    models = {"model": found[0]} if found else {}
    for name in names:
        stem, _, suffix = name.partition(".")
        if suffix in ("safetensors", "bin") and stem.rpartition("_")[2].isdecimal():
            base = stem.rpartition("_")[0]
            if base in ("model", "pytorch_model"):
                models[f"model_{stem.rpartition('_')[2]}"] = name
    wanted = (keys or {}).get("params")
    if wanted is not None and wanted not in models:
        raise ValueError(f"keys says that params is {wanted!r}; {folder} has {', '.join(models)}")
    if wanted is None and len(models) > 1:
        raise ValueError(
            f"{' and '.join(map(repr, models))} could each be the params; say which: "
            f'keys={{"params": "model"}}'
        )
    chosen = models.get(wanted) if wanted else next(iter(models.values()), None)
    made = Checkpoint({} if chosen is None else _model(folder / chosen), origin=_ACCELERATE)
    for role, target in (("optimizer", made.optimizers), ("scheduler", made.schedulers)):
        files = [name for name in names if name.startswith(role) and _is_part(name)]
        for name in files:
            target[role if len(files) == 1 else name.partition(".")[0]] = _only(folder / name, role)
    for name in names:
        if name.startswith("scaler") and _is_part(name):
            made.scaler = _contents(folder / name, "of a scaler").scaler
        if name.startswith(("rng_state", "random_states")):
            made.extra[name.partition(".")[0]] = _plain(folder / name)
        if name.startswith("custom_checkpoint"):
            made.extra[name.partition(".")[0]] = _plain(folder / name)
    wanted_one = {role: key for role, key in (keys or {}).items() if role != "params"}
    for role, key in wanted_one.items():
        held = getattr(made, f"{role}s", None)
        if not isinstance(held, dict) or key not in held:
            known = ", ".join(held or {}) or f"no {role} to choose from"
            raise ValueError(f"keys says that {role} is {key!r}; {folder} has {known}")
        setattr(made, role, held[key])
    again = replace(made, step=None)
    return unwrapped(again, str(folder))


def _model(path: Path) -> dict[str, Any]:
    if path.name.endswith(".index.json"):
        return _sharded_files.read(path).params
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    return _contents(path, "of a model").params


def _contents(path: Path, what: str) -> Checkpoint:
    found = read_archive(path)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds {type(found).__name__}, nothing {what}")
    return checkpoint_in(dict(found), None, str(path))


def _plain(path: Path) -> Any:
    found = read_archive(path)
    kept, lost = without_unread(found, path.name)
    if lost and not kept:
        raise ValueError(f"{path}: {needs_code([name for _, name in lost])}")
    return kept


def _only(path: Path, role: str) -> Any:
    held = _contents(path, f"of the state of a {role}")
    state = held.optimizer if role == "optimizer" else held.scheduler
    if state is None:
        raise ValueError(f"{path} holds no state of a {role}")
    return state


# ── DeepSpeed ──────────────────────────────────────────────────────────────────────────────────


def _deepspeed(folder: Path, keys: Mapping[str, str] | None) -> Checkpoint:
    """``ds_to_universal``: ``zero/<name>/fp32.pt``, ``exp_avg.pt`` and others for each parameter.

    ``zero/optimizer_state.pt`` has the groups; which parameter is in which is said by
    ``param_slice_mappings`` in the files of the ranks, so one group is needed.
    """
    if keys:
        raise ValueError(f"{folder}: a universal checkpoint says what is what; leave out keys")
    zero = folder / "zero"
    params: dict[str, Any] = {}
    state: dict[str, dict[str, Any]] = {}
    for own in sorted(each for each in zero.iterdir() if each.is_dir()):
        for file in sorted(own.glob("*.pt")):
            value = _tensor_in(file)
            if file.stem == "fp32":
                params[own.name] = value
            else:
                state.setdefault(own.name, {})[file.stem] = value
    if not params:
        raise ValueError(f"{zero} has no parameter: no folder with fp32.pt")
    groups = list(_groups_of(zero, list(params)))
    optimizer: StateDict = by_indices({"state": state, "param_groups": groups})
    made = Checkpoint(params, optimizer if state else None, origin=_DEEPSPEED)
    for file in sorted(folder.glob("mp_rank_*_model_states.pt")):
        found = read_archive(file)
        if isinstance(found, Mapping):
            rest = {k: v for k, v in found.items() if k not in ("module", "optimizer")}
            scheduler = rest.pop("lr_scheduler", None)
            kept, _ = without_unread(rest, file.name)
            made.extra[file.stem] = kept
            if isinstance(scheduler, Mapping):
                made.scheduler = dict(scheduler)
            if type(found.get("global_steps")) is int:
                made.step = found["global_steps"]
        break
    return unwrapped(made, str(folder))


def _tensor_in(file: Path) -> Any:
    found = read_archive(file)
    if isinstance(found, Mapping):
        found = found.get("param")
    if found is None or isinstance(found, Unread | dict | list | str):
        raise ValueError(f"{file} holds no tensor")
    return found


def _groups_of(zero: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    file = zero / "optimizer_state.pt"
    found = read_archive(file) if file.is_file() else {}
    groups = found.get("param_groups") if isinstance(found, Mapping) else None
    if not isinstance(groups, list) or not all(isinstance(g, Mapping) for g in groups):
        raise ValueError(f"{file} has no 'param_groups'")
    listed = [g.get("params") for g in groups]
    if all(isinstance(p, list) and p and all(n in names for n in p) for p in listed):
        yield from (dict(g) for g in groups)
        return
    if len(groups) > 1:
        raise ValueError(
            f"{file} has {len(groups)} groups and does not say whose parameters are in which; load "
            "the run in DeepSpeed, and save optimizer.state_dict()"
        )
    yield {**groups[0], "params": names}
