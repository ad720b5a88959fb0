"""What else is found beside the runs of public scripts: read, or refused with the remedy."""

import argparse
import collections
import copy
import dataclasses
import io
import pickle
import tarfile
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxopt_port import interop

NAMES = ("0.weight", "0.bias", "1.weight", "1.bias")


def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    return module, optimizer


MODULE, OPTIMIZER = made()
M, O = MODULE.state_dict(), OPTIMIZER.state_dict()  # noqa: E741  (as short as they are many)
STEP = torch.optim.lr_scheduler.StepLR(OPTIMIZER, 3)
S = STEP.state_dict()


def prefixed(prefix, held=M):
    return {prefix + name: value for name, value in held.items()}


class Settings:
    def __init__(self):
        self.lr = 0.1


@dataclasses.dataclass
class Plan:
    lr: float = 0.1


class Kept(dict):
    pass


def sequential():
    warm = torch.optim.lr_scheduler.LinearLR(OPTIMIZER)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(OPTIMIZER, 5)
    return torch.optim.lr_scheduler.SequentialLR(OPTIMIZER, [warm, rest], [3]).state_dict()


def keyed_by_names():
    names = [name for name, _ in MODULE.named_parameters()]
    state = {name: O["state"][i] for i, name in enumerate(names)}
    return {"state": state, "param_groups": [{**O["param_groups"][0], "params": names}]}


def own_step(**changes):
    state = {i: {**held, **changes} for i, held in O["state"].items()}
    return {**O, "state": state}


# What is given to torch.save, and what is there: optimizers, schedulers, averages, step, and extras
# that it must have.
Holds = collections.namedtuple("Holds", "optimizers schedulers averages step extra", defaults=(
    ("optimizer",), (), (), 1, ()))  # fmt: skip
FILES = {
    "Lightning, EMA in a callback": (
        {"state_dict": M, "optimizer_states": [O], "lr_schedulers": [S], "global_step": 5,
         "pytorch-lightning_version": "1.9", "hyper_parameters": {"lr": 0.1},
         "callbacks": {"EMA{'decay': 0.9}": {"ema_state_dict": M, "updates": 3}}},
        Holds(schedulers=("scheduler",), averages=("EMA{'decay': 0.9}.ema_state_dict",), step=5),
    ),
    "Lightning, a scaler of the precision plugin": (
        {"state_dict": M, "optimizer_states": [O], "pytorch-lightning_version": "2.6",
         "MixedPrecision": torch.amp.GradScaler("cpu").state_dict()},
        Holds(),
    ),
    "torchvision, warm-up and cosine": (
        {"model": M, "optimizer": O, "lr_scheduler": sequential(), "epoch": 3,
         "args": argparse.Namespace(lr=0.1, device=torch.device("cuda"), dir=Path("out"))},
        Holds(schedulers=("scheduler",), extra=("args", "epoch")),
    ),
    "detectron2": (
        {"model": M, "optimizer": O, "scheduler": S, "iteration": 999},
        Holds(schedulers=("scheduler",), step=999),
    ),
    "fairseq": (
        {"args": None, "cfg": {"model": {"_name": "t"}}, "model": M, "criterion": None,
         "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 5,
                                "lr_scheduler_state": {"best": None}}],
         "task_state": {}, "extra_state": {"epoch": 1}, "last_optimizer_state": O},
        Holds(extra=("optimizer_history", "cfg")),
    ),
    "YOLOv5: whole models, the average too": (
        {"epoch": 3, "best_fitness": np.array([0.5]), "model": copy.deepcopy(MODULE).half(),
         "ema": copy.deepcopy(MODULE).half(), "updates": 10, "optimizer": O, "git": None},
        Holds(averages=("ema",)),
    ),
    "YOLOv5, stripped": (
        {"epoch": -1, "model": None, "ema": MODULE, "optimizer": None, "updates": None},
        Holds(optimizers=(), step=None),
    ),
    "Composer": (
        {"state": {"model": M, "optimizers": {"Adam": O}, "schedulers": {"StepLR": S},
                   "run_name": "a"}, "rng": [{"numpy": np.random.get_state()}]},
        Holds(schedulers=("scheduler",)),
    ),
    "mmengine: several schedulers": (
        {"meta": {"iter": 10}, "state_dict": M, "message_hub": {}, "optimizer": O,
         "param_schedulers": [S, S]},
        Holds(schedulers=("param_schedulers.0", "param_schedulers.1"), extra=("meta",)),
    ),
    "Ignite": ({"trainer": {"iteration": 6}, "model": M, "optimizer": O}, Holds()),
    "Stable Baselines": ({"policy": M, "policy.optimizer": O}, Holds()),
    "apex": (
        {"model": M, "optimizer": O, "amp": {"loss_scaler0": {"loss_scale": 65536.0}}},
        Holds(extra=("amp",)),
    ),
    "nanoGPT": ({"model": M, "optimizer": O, "iter_num": 7, "config": {"n": 2}}, Holds(step=7)),
    "diffusers' EMA, beside": ({"unet": M, "ema_unet": M, "optimizer": O},
                               Holds(averages=("ema_unet",))),
    "SWA": (
        {"model": M, "optimizer": O,
         "swa_model": torch.optim.swa_utils.AveragedModel(MODULE).state_dict()},
        Holds(averages=("swa_model",), extra=("n_averaged",)),
    ),
    "SWA, alone": (
        torch.optim.swa_utils.AveragedModel(MODULE).state_dict(),
        Holds(optimizers=(), step=None, extra=("n_averaged",)),
    ),
    "dicts of a class": (Kept(model=Kept(M), optimizer=Kept(O)), Holds()),
    "an optimizer keyed by names": ({"model": M, "optimizer": keyed_by_names()}, Holds()),
    "an optimizer of named parameters": (
        {"model": M, "optimizer": torch.optim.Adam(MODULE.named_parameters()).state_dict()},
        Holds(step=None),
    ),
    "a list of one optimizer": ({"model": M, "optimizer": [O]}, Holds()),
    "optimizers by names": (
        {"model": M, "optimizers": {"a": O, "b": O}}, Holds(optimizers=("a", "b")),
    ),
    "a tuple": ((M, O, S), Holds(schedulers=("scheduler",))),
    "a list with a number": ([M, O, 3], Holds(extra=("2",))),
    "a whole module": (MODULE, Holds(optimizers=(), step=None)),
    "within two wrappers": (
        {"model": prefixed("module._orig_mod."), "optimizer": O}, Holds(),
    ),
    "rates that are tensors": (
        {"model": M, "optimizer": {**O, "param_groups": [{**O["param_groups"][0],
                                                          "lr": torch.tensor(0.1)}]}},
        Holds(),
    ),
    "steps of shape (1,)": ({"model": M, "optimizer": own_step(step=torch.ones(1))}, Holds()),
    "steps of Python": ({"model": M, "optimizer": own_step(step=1)}, Holds()),
    "a disabled scaler": ({"model": M, "optimizer": O, "scaler": {}}, Holds(extra=("scaler",))),
    "parts that are None": (
        {"model": M, "optimizer": None, "lr_scheduler": None}, Holds(optimizers=(), step=None),
    ),
    "objects of Python": (
        {"model": M, "optimizer": O, "args": types.SimpleNamespace(a=1), "best": np.float32(0.5)},
        Holds(extra=("args", "best")),
    ),
    "parameters that require gradients": (dict(MODULE.named_parameters()),
                                          Holds(optimizers=(), step=None)),
}  # fmt: skip


@pytest.mark.parametrize(("value", "holds"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_files(value, holds, new, tmp_path):
    torch.save(value, tmp_path / "a", _use_new_zipfile_serialization=new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.CheckpointWarning)
        found = interop.load(tmp_path / "a")
    assert tuple(found.params) == NAMES
    got = Holds(*map(tuple, (found.optimizers, found.schedulers, found.averages)), found.step)
    assert got == holds._replace(extra=())
    assert set(holds.extra) <= set(found.extra)
    same = np.float16 if next(iter(found.params.values())).dtype == np.float16 else np.float32
    np.testing.assert_array_equal(found.params["0.bias"], M["0.bias"].numpy().astype(same))


W = torch.arange(24.0).reshape(4, 6)
TENSORS = {
    "bfloat16": torch.ones(2, dtype=torch.bfloat16),
    "float8": torch.ones(2).to(torch.float8_e4m3fn),
    "float8 of scales": torch.ones(2, dtype=torch.float8_e8m0fnu),
    "complex": torch.ones(2, dtype=torch.complex128),
    "unsigned": torch.ones(2, dtype=torch.uint16),
    "bool": torch.ones(2, dtype=torch.bool),
    "nothing": torch.ones(0, 3),
    "a scalar": torch.tensor(3.0),
    "transposed": W.T,
    "with steps": W[:, ::2],
    "a part": W[1:3],
    "expanded": W[:1].expand(4, 6),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "negated": torch._neg_view(torch.ones(2)),
    "a parameter": torch.nn.Parameter(torch.ones(2)),
    "a large storage's end": torch.arange(5000.0)[-3:],
}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_tensors_of_any_kind(new, tmp_path):
    torch.save({**TENSORS, "tied": W}, tmp_path / "a", _use_new_zipfile_serialization=new)
    found = interop.load(tmp_path / "a").params
    for name, tensor in TENSORS.items():
        want = tensor.detach().resolve_conj().resolve_neg()
        assert found[name].shape == tuple(want.shape), name
        assert found[name].dtype.name == str(want.dtype).removeprefix("torch."), name
        wide = want.to(torch.complex128) if want.is_complex() else want.to(torch.float64)
        np.testing.assert_array_equal(found[name].astype(wide.numpy().dtype), wide.numpy())
    assert np.shares_memory(found["tied"], found["transposed"])
    # And on to a file of this library's, and back.
    kept = {n: x for n, x in found.items() if x.dtype != np.complex128}
    interop.save(tmp_path / "b.safetensors", interop.Checkpoint(kept))
    again = interop.load(tmp_path / "b.safetensors").params
    assert {n: x.tobytes() for n, x in again.items()} == {n: x.tobytes() for n, x in kept.items()}


def test_a_file_of_a_gpu_is_read_without_one(tmp_path):
    """The device is a word in the pickle."""

    def of_gpu(data):
        cpu = b"X\x03\x00\x00\x00cpu"  # said once, and remembered
        assert data.count(cpu) == 1
        return data.replace(cpu, b"X\x06\x00\x00\x00cuda:0")

    torch.save(M, tmp_path / "saved")
    with zipfile.ZipFile(tmp_path / "saved") as old, zipfile.ZipFile(tmp_path / "a", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, of_gpu(data) if name.endswith("/data.pkl") else data)
    torch.save(M, tmp_path / "b", _use_new_zipfile_serialization=False)
    (tmp_path / "b").write_bytes(of_gpu((tmp_path / "b").read_bytes()))
    for file in ("a", "b"):
        found = interop.load(tmp_path / file).params
        assert tuple(found) == NAMES
        for name, tensor in M.items():
            np.testing.assert_array_equal(found[name], tensor)


REFUSED_FILES = {
    "a pickled optimizer": ({"model": M, "optimizer": OPTIMIZER}, "save its state_dict"),
    "a pickled scheduler": ({"model": M, "scheduler": STEP}, "save its state_dict"),
    "an optimizer alone, pickled": (OPTIMIZER, "it would run torch.optim.adam.Adam"),
    "an object for parameters": ({"model": Settings()}, "it would run .*Settings"),
    "two networks": ({"netG": M, "netD": M, "optG": O, "optD": O}, "could each be the params"),
    "an encoder and a decoder": ({"net": {"encoder": M, "decoder": M}}, "could each be"),
    "meta": ({"a": torch.ones(2, device="meta"), "b": W}, '"meta" device, which has no values'),
    "half complex": (
        lambda: {"a": W.to(torch.complex32), "b": W}, "complex32, which NumPy has not; cast",
    ),
    "sparse": ({"a": W.to_sparse(), "b": W}, "make it dense"),
    "quantized": (
        lambda: {"a": torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), "b": W}, "make it dense",
    ),
    "numbered tensors": ({0: W, 1: W}, "neither parameters nor an optimizer"),
    "an optimizer of nothing": (
        {"model": M, "optimizer": {"state": {}, "param_groups": []}}, "'param_groups' is empty",
    ),
    "a number": (3, "it holds a value of the type int, not a dict: save a state_dict"),
    "nothing": (None, "it holds None, not a dict"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES)
@pytest.mark.filterwarnings("ignore:ComplexHalf", "ignore:torch.quantize_per_tensor")
def test_refused_files(value, message, tmp_path):
    torch.save(value() if callable(value) else value, tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path / "a")


def test_what_is_left_out_of_a_file_with_a_pickled_optimizer(tmp_path):
    torch.save({"model": M, "optimizer": OPTIMIZER, "plan": Plan()}, tmp_path / "a")
    with pytest.warns(interop.CheckpointWarning, match="entry/optimizer is Adam; .*plan is Plan"):
        found = interop.load(tmp_path / "a", keys={"params": "model"})
    assert tuple(found.params) == NAMES


def test_a_pickle_of_numpys_arrays(tmp_path):
    """detectron2's model zoo."""
    held = {"model": {n: x.numpy() for n, x in M.items()}, "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(held))
    assert tuple(interop.load(tmp_path / "model_final.pkl").params) == NAMES


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_tensors(protocol, tmp_path):
    """``pickle.dump(model.state_dict(), file)``: each storage is a file of its own within it."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": M, "optimizer": O}, protocol))
    found = interop.load(tmp_path / "a.pkl")
    assert (tuple(found.params), list(found.optimizers)) == (NAMES, ["optimizer"])
    for name, tensor in M.items():
        np.testing.assert_array_equal(found.params[name], tensor)
    assert same_arrays(found.optimizer["state"][1]["exp_avg"], O["state"][1]["exp_avg"])


def same_arrays(array, tensor):
    return array.dtype.name == "float32" and array.tobytes() == tensor.numpy().tobytes()


class OfBytes:
    """As a storage says what it is made of; here of another one."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


@pytest.mark.parametrize("depth", [1, 2, 500])
def test_what_is_no_storage_within_a_pickle_is_refused(depth, tmp_path):
    data = b"\x80\x02N."
    for _ in range(depth):
        data = pickle.dumps(OfBytes(data))
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pkl is damaged.*has a storage that is none"):
        interop.load(tmp_path / "a.pkl")


def tar_of(name):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as target:
        target.addfile(tarfile.TarInfo(name))
    return made.getvalue()


FOREIGN = {
    "tar": (tar_of("a.pt"), "it is a tar archive: unpack it first"),
    "torch's first": (tar_of("sys_info"), r"before 0\.1\.10: load it in torch"),
    "xz": (b"\xfd7zXZ\0" + b"0" * 30, "packed by xz: unpack it first"),
    "bzip2": (b"BZh9" + b"0" * 30, "packed by bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"0" * 30, "packed by zstd"),
    "GGUF": (b"GGUF\x03" + b"0" * 30, "as llama.cpp writes"),
    "an array": (b"\x93NUMPY\x01\0" + b"0" * 30, r"for numpy\.load"),
    "nothing": (b"", "it is empty"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "a web page": (b"<!DOCTYPE html><html>", "download the file, not its page"),
    "gzip": (b"\x1f\x8b\x08" + b"0" * 30, "unpack it first"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + b"0" * 40, "as Keras writes"),
    "text": (b"hello", "it does not say what it is"),
}


@pytest.mark.parametrize(("data", "message"), FOREIGN.values(), ids=FOREIGN)
def test_files_of_others(data, message, tmp_path):
    (tmp_path / "model").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path / "model")


def test_other_zip_files(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with pytest.raises(ValueError, match=r"for numpy\.load"):
        interop.load(tmp_path / "a.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "s.pt")
    with pytest.raises(ValueError, match="TorchScript archive; save the module's state_dict"):
        interop.load(tmp_path / "s.pt")


# ── modules ────────────────────────────────────────────────────────────────────────────────────


class Holder(torch.nn.Module):
    """A module with a compiled one within, and an attribute of Lightning's modules."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def optimizers(self):
        raise AssertionError("is called for nobody")


@pytest.mark.parametrize("prefix", ["", "net.", "net._orig_mod.", "module.net._orig_mod."])
def test_a_compiled_network_within_another(prefix, tmp_path):
    holder = Holder(torch.compile(copy.deepcopy(MODULE), backend="eager"))
    layer = lambda *shape: {"kernel": np.zeros(shape), "bias": np.zeros(shape[1])}  # noqa: E731
    like = {"net": {"0": layer(3, 4), "1": layer(4, 2)}}
    mapped = interop.param_map(holder, like)
    torch.save({"model": prefixed(prefix), "optimizer": O}, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.CheckpointWarning)
        found = interop.load(tmp_path / "a")
    params = interop.params_from_torch(found, like, mapped)
    np.testing.assert_array_equal(params["net"]["1"]["kernel"], M["1.weight"].numpy().T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.CheckpointWarning)
        tx, state = interop.optimizer_from_torch(
            found, params, mapped, module=holder, optimizer_name="Adam"
        )
    want = O["state"][2]["exp_avg"].numpy().T
    np.testing.assert_array_equal(state.leaves["exp_avg"]["net"]["1"]["kernel"], want)
    back = interop.optimizer_to_torch(tx, state, params, holder)
    assert back.state_dict()["state"].keys() == O["state"].keys()
