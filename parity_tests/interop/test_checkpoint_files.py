"""Checkpoints go through files of each format and back, to the bit."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.interop import Checkpoint
from parity_tests.interop.checkpoint_cases import (
    as_torch_saves,
    awkward,
    every_dtype,
    same,
    trained,
)
from parity_tests.oracles.two_networks import like_of


@pytest.mark.parametrize("first", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("second", ["b.safetensors", "b.pth"])
def test_everything_comes_back(tmp_path, first, second):
    saved = awkward()
    interop.save(tmp_path / first, saved)
    interop.save(tmp_path / second, interop.load(tmp_path / first))
    back = interop.load(tmp_path / second)
    assert same(back, saved)
    assert np.shares_memory(back.params["tied"], back.params["float32.matrix"])
    assert back.nbytes == saved.nbytes


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "LBFGS", "Adafactor", "Rprop"])
def test_a_file_of_torchs_comes_back_to_torch(tmp_path, optimizer):
    parts = trained(optimizer, steps=2)
    torch.save(as_torch_saves(*parts), tmp_path / "run.pt")
    interop.save(tmp_path / "run.safetensors", interop.load(tmp_path / "run.pt"))
    found = interop.load(tmp_path / "run.safetensors")
    assert found.extra["epoch"] == 3
    interop.save(tmp_path / "back.pt", found)

    held = torch.load(tmp_path / "back.pt", weights_only=True)
    others = trained(optimizer, seed=1)
    for name, part in zip(("model", "optimizer", "scheduler"), others, strict=True):
        part.load_state_dict(held[f"{name}_state_dict"])
    assert str(as_torch_saves(*others)) == str(as_torch_saves(*parts))
    torch.save(as_torch_saves(*others), tmp_path / "others.pt")
    assert same(
        interop.load(tmp_path / "others.pt").optimizer, interop.load(tmp_path / "run.pt").optimizer
    )


def module_alone(parts):
    return parts[0].state_dict()


def optimizer_alone(parts):
    return parts[1].state_dict()


def lightning(parts):
    return {
        "state_dict": parts[0].state_dict(),
        "optimizer_states": [parts[1].state_dict()],
        "lr_schedulers": [parts[2].state_dict()],
        "epoch": 3,
    }


def two_networks(parts):
    return {"net_g": parts[0].state_dict(), "net_d": parts[0].state_dict(), "epoch": 3}


def with_averages(parts):
    return {"model": parts[0].state_dict(), "ema": parts[0].state_dict()}


def unusual_names(parts):
    return {"generator": parts[0].state_dict(), "opt": parts[1].state_dict()}


FOUND = {
    # what is saved: the parts that are found (parameters, optimizer, scheduler), and the rest
    module_alone: (4, False, False, []),
    optimizer_alone: (0, True, False, []),
    lightning: (4, True, True, ["epoch"]),
    with_averages: (4, False, False, []),
    unusual_names: (4, True, False, []),
}


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_what_is_what_in_a_file_of_torchs(tmp_path, make):
    count, has_optimizer, has_scheduler, rest = FOUND[make]
    torch.save(make(trained()), tmp_path / "run.pt")
    found = interop.load(tmp_path / "run.pt")
    assert len(found.params) == count
    assert (found.optimizer is not None, found.scheduler is not None) == (
        has_optimizer,
        has_scheduler,
    )
    assert list(found.extra) == rest


def test_a_doubtful_file_is_refused_until_it_is_said(tmp_path):
    torch.save(two_networks(trained()), tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"'net_g' and 'net_d' could each be the params"):
        interop.load(tmp_path / "run.pt")
    found = interop.load(tmp_path / "run.pt", keys={"params": "net_d"})
    assert (len(found.params), list(found.extra)) == (4, ["net_g", "epoch"])


NESTED = {"params": "state.nets.g", "optimizer": "state.optimizers.1"}
WRONG_PLACES = {
    "state.nets.h": "what is within one is named with a dot",
    "state.optimizers.2": "what is within one is named with a dot",
    "state.nets.g": "keys names 'state.nets.g' for two roles",
}


def test_what_is_within_another_part_is_named_with_a_dot(tmp_path):
    held = two_networks(trained())
    optimizers = [torch.optim.Adam([torch.ones(n)]).state_dict() for n in (1, 2)]
    nets = {"g": held["net_g"], "d": held["net_d"]}
    torch.save({"state": {"nets": nets, "optimizers": optimizers}, "step": 3}, tmp_path / "run.pt")
    found = interop.load(tmp_path / "run.pt", keys=NESTED)
    assert list(found.params) == list(held["net_g"])
    assert found.optimizer["param_groups"][0]["params"] == [0]
    assert found.step == 3
    assert list(found.extra["state"]["nets"]) == ["d"]
    assert list(found.extra["state"]["optimizers"]) == ["0"]
    for place, message in WRONG_PLACES.items():
        with pytest.raises(ValueError, match=message):
            interop.load(tmp_path / "run.pt", keys={"params": "state.nets.g", "averages": place})


def test_a_dot_in_a_name_is_no_way_into_another_part(tmp_path):
    held = two_networks(trained())
    torch.save({"g": {"ema": held["net_d"]}, "g.ema": held["net_g"]}, tmp_path / "run.pt")
    found = interop.load(tmp_path / "run.pt", keys={"params": "g.ema"})
    assert list(found.params) == list(held["net_g"])
    assert list(found.extra) == ["g"]


ROLES = {
    "an average": {"ema": {"w": np.zeros(2)}},
    "parameters": {"model": {"w": np.zeros(2)}},
    "a scheduler": {"sched": {"last_epoch": 3}, "epoch": 3},
    "optimizers": {"mine": [{"state": {}, "param_groups": [{"params": [0], "lr": 0.1}]}]},
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("extra", ROLES.values(), ids=ROLES)
def test_what_was_saved_as_extra_is_extra(extra, suffix, tmp_path):
    """Whatever it is like: this library knows what it wrote."""
    params = {"w": np.ones(2)}
    interop.save(tmp_path / f"run{suffix}", Checkpoint(params, extra=extra))
    found = interop.load(tmp_path / f"run{suffix}")
    assert same(found.params, params)
    assert same(found.extra, extra)
    assert [*found.averages, *found.schedulers, *found.optimizers] == []


def test_how_many_models_were_averaged_is_kept(tmp_path):
    module = torch.nn.Linear(2, 1)
    averages = [torch.optim.swa_utils.AveragedModel(module) for _ in range(2)]
    for average in (averages[0], *averages):
        average.update_parameters(module)
    saved = {"model": module.state_dict(), "swa_model": averages[0].state_dict()}
    torch.save(saved, tmp_path / "one.pt")
    torch.save({**saved, "ema_model": averages[1].state_dict()}, tmp_path / "two.pt")
    one, two = (interop.load(tmp_path / name) for name in ("one.pt", "two.pt"))
    assert one.extra == {"n_averaged": 2}
    assert two.extra == {"n_averaged": {"swa_model": 2, "ema_model": 1}}
    assert {tuple(average) for average in two.averages.values()} == {("weight", "bias")}


def test_what_no_file_can_hold_is_named(tmp_path):
    torch.save({"model": module_alone(trained()), "act": torch.nn.ReLU()}, tmp_path / "run.pt")
    with pytest.warns(interop.CheckpointWarning, match="entry/act is ReLU"):
        assert interop.load(tmp_path / "run.pt").extra == {}
    with pytest.raises(TypeError, match="extra/when is set"):
        interop.save(tmp_path / "run.safetensors", Checkpoint({}, extra={"when": {1}}))


def test_an_old_file_of_torchs_is_read(tmp_path):
    old = tmp_path / "run.pth"
    torch.save(module_alone(trained()), old, _use_new_zipfile_serialization=False)
    assert len(interop.load(old).params) == 4


def test_the_exchange_format_is_safetensors(tmp_path):
    params = {
        name: array
        for name, array in every_dtype().items()
        # Its NumPy side has no name for these.
        if array.dtype.name in safetensors_names()
    }
    interop.save(tmp_path / "ours.safetensors", Checkpoint(params))
    theirs = safetensors.numpy.load_file(tmp_path / "ours.safetensors")
    assert same(dict(sorted(theirs.items())), {f"params/{k}": params[k] for k in sorted(params)})
    safetensors.numpy.save_file(params, tmp_path / "theirs.safetensors", {"made": "by hand"})
    found = interop.load(tmp_path / "theirs.safetensors")
    assert same(dict(sorted(found.params.items())), dict(sorted(params.items())))
    assert found.extra == {"safetensors_metadata": {"made": "by hand"}}


def safetensors_names():
    return {np.dtype(kind).name for kind in safetensors.numpy._TYPES.values()}


def test_bfloat16_is_what_torch_means_by_it(tmp_path):
    from safetensors.torch import load_file

    tensor = torch.tensor([1.0, -0.0, float("nan"), 3.140625], dtype=torch.bfloat16)
    torch.save({"w": tensor}, tmp_path / "w.pt")
    interop.save(tmp_path / "w.safetensors", interop.load(tmp_path / "w.pt"))
    found = load_file(tmp_path / "w.safetensors")["params/w"]
    assert torch.equal(found.view(torch.int16), tensor.view(torch.int16))


def test_arrays_may_be_written_to_and_the_file_stays(tmp_path):
    file = tmp_path / "a.safetensors"
    interop.save(file, awkward())
    before = file.read_bytes()
    found = interop.load(file)
    found.params["float32.matrix"][:] = 7
    assert file.read_bytes() == before
    interop.save(file, found)  # over the file that it is mapped from
    assert (interop.load(file).params["tied"] == 7).all()


def test_shards(tmp_path):
    params = every_dtype()
    del params["complex128.matrix"], params["complex128.scalar"], params["complex128.empty"]
    params["tied"] = params["float32.matrix"]
    folder = tmp_path / "model"
    for size in (40, 10**9, 40, 40):
        interop.save(folder, Checkpoint(params, layout="jax"), max_shard_size=size)
        found = interop.load(folder)
        assert same(found.params, params)
        assert found.layout == "jax"
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        files = {*index["weight_map"].values(), "model.safetensors.index.json"}
        assert set(os.listdir(folder)) == files
        sizes = [sum(a.nbytes for a in held(folder, shard)) for shard in files if "-of-" in shard]
        assert max(sizes) <= max(size, params["float64.matrix"].nbytes)
    with pytest.raises(ValueError, match="shards are for parameters alone"):
        interop.save(folder, awkward(), max_shard_size=40)


def held(folder, shard):
    return interop.load(folder / shard).params.values()


def test_shards_of_hugging_faces_kind(tmp_path):
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "model-1.safetensors")
    safetensors.numpy.save_file({"b": np.ones(3)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors"}}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps({"metadata": {}, **index}))
    assert list(interop.load(tmp_path / "x.safetensors.index.json").params) == ["b", "a"]


def test_progress_counts_the_files_bytes(tmp_path):
    for name in ("a.safetensors", "a.pt"):
        counted = []
        interop.save(tmp_path / name, awkward(), progress=counted.append)
        assert sum(counted) == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "LBFGS"])
def test_layouts_there_and_back(tmp_path, optimizer):
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    module, made, scheduler = trained(optimizer, steps=2, **options)
    torch.save(as_torch_saves(module, made, scheduler), tmp_path / "run.pt")
    here = interop.load(tmp_path / "run.pt")
    here = dataclasses.replace(here, optimizer_name=optimizer)
    like = like_of(module)
    mapped = interop.param_map(module, like, layouts={"2.weight": (1, 0)})
    interop.save(tmp_path / "run.safetensors", interop.with_layout(here, "jax", mapped))

    found = interop.load(tmp_path / "run.safetensors")
    assert (found.layout, found.param_map) == ("jax", mapped)
    paths = [path for path, _ in jp.engine.leaf_paths(like)]
    params = jax.tree.unflatten(jax.tree.structure(like), [found.params[p] for p in paths])
    state = jp.load_state_dict(getattr(jp, optimizer)(**options), found.optimizer, params)
    assert jp.get_hyperparams(state)[0]["lr"] == made.param_groups[0]["lr"]

    back = interop.with_layout(found, "torch")
    assert same(back.params, here.params)
    here.optimizer["state"][0].pop("al", None)  # torch's scratch of the last direction
    assert same(back.optimizer, here.optimizer)


def test_a_layout_needs_a_map_and_a_class():
    with pytest.raises(ValueError, match="has no map of its own; pass"):
        interop.with_layout(Checkpoint({}), "jax")
    module, made, _ = trained()
    found = Checkpoint({}, interop._torch_state_dict.in_numpy(made.state_dict()))
    with pytest.raises(ValueError, match="Set optimizer_name"):
        interop.with_layout(found, "jax", interop.param_map(module.state_dict(), like_of(module),
                            layouts={"2.weight": (1, 0)}))  # fmt: skip


def test_files_are_read_without_torch(tmp_path):
    interop.save(tmp_path / "a.safetensors", awkward())
    interop.save(tmp_path / "b.pt", awkward())
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.append(sys.argv[2])\n"
        "from jaxopt_port import interop\n"
        "found = interop.load(sys.argv[1])\n"
        "interop.save(sys.argv[1], found)\n"
        "theirs = sys.argv[1].replace('a.safetensors', 'b.pt')\n"
        "interop.save(sys.argv[1].replace('a.', 'b.'), interop.load(theirs))\n"
        "try: interop.save(theirs, found)\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.safetensors"), os.path.dirname(__file__)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "pip install 'jaxopt-port[torch]'" in run.stdout
    assert same(interop.load(tmp_path / "a.safetensors"), awkward())
    assert same(interop.load(tmp_path / "b.safetensors"), awkward())
