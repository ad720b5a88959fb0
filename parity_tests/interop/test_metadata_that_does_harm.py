"""Metadata of this library's own files, and indices of shards, that say what is not so."""

import json

import numpy as np
import pytest

from jaxopt_port import interop
from jaxopt_port.interop import Checkpoint

# More than any Python's json reads.
DEEP = "[" * 100_000 + "]" * 100_000


def rewritten(path, change):
    """Change what a file of the exchange format says of itself."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    record = json.loads(header["__metadata__"]["jaxopt_port"])
    change(record)
    header["__metadata__"]["jaxopt_port"] = json.dumps(record).replace('"DEEP"', DEEP)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def setting(**values):
    return lambda record: record.update(values)


METADATA = {
    "pairs that are none": (setting(complex128=["params/odd"]), "no pairs of float64"),
    "pairs of nothing": (setting(complex128=["params/none"]), "no pairs of float64"),
    "an array that is missing": (setting(complex128=["params/x"]), "has no 'params/x'"),
    "an integer of 400 digits": (
        lambda r: r["optimizer"]["state"]["$dict"][0][1].update(step=10**400),
        "damaged",
    ),
    "deep nesting": (setting(extra={"deep": "DEEP"}), "nested too deep|not JSON"),
    "another layout": (setting(layout="torcH"), "the layout is 'torcH'"),
    "optimizers that are a list": (setting(optimizers=[1]), "damaged"),
    "averages that are none": (setting(averages=3), "damaged|must be"),
    "extras that are none": (setting(extra=3), "must be a dict"),
}


@pytest.mark.parametrize(("change", "message"), METADATA.values(), ids=METADATA)
def test_metadata_of_a_file(tmp_path, change, message):
    params = {"odd": np.zeros(4), "none": np.zeros(0), "w": np.ones((2, 2))}
    optimizer = {"state": {0: {"step": 1}}, "param_groups": [{"params": [0]}]}
    path = tmp_path / "a.safetensors"
    interop.save(path, Checkpoint(params, optimizer))
    rewritten(path, change)
    with pytest.raises(ValueError, match=message):
        interop.load(path)


def test_a_shard_index_with_another_layout(tmp_path):
    interop.save(tmp_path / "m", Checkpoint({"a": np.ones(2)}), max_shard_size=8)
    index = tmp_path / "m" / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    for change, message in (
        ({"jaxopt_port": 3}, "is no text"),
        ({"jaxopt_port": record["metadata"]["jaxopt_port"].replace('"torch"', '"torcH"')}, "torcH"),
    ):
        index.write_text(json.dumps({**record, "metadata": {**record["metadata"], **change}}))
        with pytest.raises(ValueError, match=message):
            interop.load(tmp_path / "m")


FOREIGN = ("precious.txt", "model-notes.safetensors", "other-00001-of-00001.safetensors")


@pytest.mark.parametrize("name", FOREIGN)
def test_saving_shards_deletes_no_file_of_others(tmp_path, name):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_text("keep")
    index = {"metadata": {}, "weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    interop.save(folder, Checkpoint({"a": np.ones(2)}), max_shard_size=100)
    assert (folder / name).read_text() == "keep"
    interop.save(folder, Checkpoint({"a": np.zeros(2)}), max_shard_size=100)
    shards = [
        each for each in folder.iterdir() if each.name.startswith("model-") and each.name != name
    ]
    assert len(shards) == 1
