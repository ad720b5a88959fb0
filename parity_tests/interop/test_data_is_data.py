"""What a file holds is read without running it, and nothing in it hangs or crashes the reader."""

import argparse
import collections
import datetime
import http
import io
import os
import pathlib
import pickle
import random
import time
import tracemalloc
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch

from jaxopt_port import interop
from parity_tests.interop.checkpoint_cases import Code, same
from parity_tests.interop.whole_runs import (
    Phase,
    Run,
    distributed,
)

Pair = collections.namedtuple("Pair", "a b")

RNG = np.random.RandomState(0)


class Named(dict):
    """As configurations are: yacs, EasyDict, fvcore."""


class Row(list):
    pass


TORCHS = torch.Generator().manual_seed(3)
PLAIN = {
    # what is saved, and what is read
    "a NumPy scalar": (np.float64(0.1), 0.1),
    "one of float32": (np.float32(0.1), float(np.float32(0.1))),
    "an integer of NumPy's": (np.int64(2**62), 2**62),
    "a bool of NumPy's": (np.bool_(True), True),
    "an array": (np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)),
    "one in Fortran's order": (
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6.0).reshape(2, 3),
    ),
    "one of the other byte order": (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
    "an empty array": (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)),
    "texts": (np.array(["a", "bc"]), ["a", "bc"]),
    "a dtype": (np.dtype("f4"), "float32"),
    "torch's dtype": (torch.bfloat16, "torch.bfloat16"),
    "torch's size": (torch.Size((2, 3)), (2, 3)),
    "a device": (torch.device("cpu"), "cpu"),
    "a random state": (RNG, RNG.get_state(legacy=False)),
    "a legacy state": (RNG.get_state(), RNG.get_state()),
    "a generator": (np.random.default_rng(1), np.random.default_rng(1).bit_generator.state),
    "a state of Python's": (random.Random(0).getstate(), random.Random(0).getstate()),
    "a Namespace": (argparse.Namespace(lr=0.1, sub=argparse.Namespace(a=1)),
                    {"lr": 0.1, "sub": {"a": 1}}),
    "a Namespace of nothing": (argparse.Namespace(), {}),
    "a SimpleNamespace": (types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
    "a path": (pathlib.PurePosixPath("a", "b.pt"), "a/b.pt"),
    "an absolute path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "an OrderedDict": (collections.OrderedDict(a=1), {"a": 1}),
    "a defaultdict": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "a Counter": (collections.Counter("aab"), collections.Counter("aab")),
    "a deque": (collections.deque([1, 2], 3), [1, 2]),
    "a set": ({1}, [1]),
    "a frozenset": (frozenset({2}), [2]),
    "a complex number": (1 + 2j, 1 + 2j),
    "bytes": (b"ab", np.frombuffer(b"ab", np.uint8)),
    "an enum": (Phase.WARM, "warm"),
    "an enum of integers": (http.HTTPStatus.OK, 200),
    "a date": (datetime.date(2024, 1, 2), "2024-01-02"),
    "a time": (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
    "a large integer": (10**300, 10**300),
    "nothing": (None, None),
    "a generator of torch's": (TORCHS, (3, None, TORCHS.get_state().numpy())),
    "torch's version": (torch.__version__, str(torch.__version__)),
    "a subclass of dict": (Named(a=1, b=Named(c=[2])), {"a": 1, "b": {"c": [2]}}),
    "a subclass of list": (Row([1, 2]), [1, 2]),
    "keys that are tuples": ({(1, "a"): 2}, {(1, "a"): 2}),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("value", "read"), PLAIN.values(), ids=PLAIN)
def test_plain_data(tmp_path, value, read, protocol):
    held = {"model": {"w": torch.ones(2)}, "what": value}
    torch.save(held, tmp_path / "a", pickle_protocol=protocol)
    assert same(interop.load(tmp_path / "a").extra, {"what": read})


class Settings:
    def __init__(self):
        self.lr = 0.1


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that they will go
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


OBJECTS = {
    "a quantized tensor": (quantized(), r"is quantized .*make it dense"),
    "code": (Code(), r"entry/what is system.*--allow (posix|nt)\.system"),
    "an object": (Settings(), r"entry/what is Settings.*add_safe_globals\(\[Settings\]\)"),
    "a named tuple": (Pair(1, 2), "entry/what is Pair"),
    "a function": (os.path.join, "entry/what is join"),
    "a date of NumPy's": (np.datetime64("2024-01-02"), "entry/what is scalar"),
    "dates of NumPy's": (np.array(["2024-01-02"], "M8[D]"), "entry/what is ndarray"),
    "an empty subclass of dict": (Named(), "entry/what is Named"),
    "a sparse tensor": (
        torch.eye(2).to_sparse(),
        r"is sparse .*make it dense.*dequantize\(\)\)\. $",
    ),
    "an array of objects": (np.array([{}], object), "entry/what is ndarray of objects"),
    "one within": ({"a": [1, Settings()], "b": 2}, "entry/what/a/1 is Settings"),
}


@pytest.mark.parametrize(("value", "message"), OBJECTS.values(), ids=OBJECTS)
def test_what_is_nobodys_state_is_left_out_by_name(tmp_path, monkeypatch, value, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(2)}, "what": value}, "a")
    with pytest.warns(interop.CheckpointWarning, match=message):
        found = interop.load("a")
    assert list(found.params) == ["w"]
    assert not pathlib.Path("ran").exists()


def test_what_the_user_trusts_is_made(tmp_path):
    torch.save({"model": {"w": torch.ones(2)}, "what": Settings()}, tmp_path / "a")
    with torch.serialization.safe_globals([Settings]):
        assert interop.load(tmp_path / "a").extra["what"].lr == 0.1


def test_a_whole_module_that_was_pickled_gives_its_parameters(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    module[0].register_buffer("passing", torch.ones(1), persistent=False)
    torch.save({"model": module, "epoch": 3}, tmp_path / "yolo.pt")
    found = interop.load(tmp_path / "yolo.pt")
    assert sorted(found.params) == sorted(module.state_dict())
    np.testing.assert_array_equal(found.params["0.weight"], module[0].weight.detach())


# ── files that are made to do harm ─────────────────────────────────────────────────────────────


def archive(pickled, storage=b"", **records):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        target.writestr("archive/data.pkl", pickled)
        target.writestr("archive/data/0", storage)
        for name, value in records.items():
            target.writestr(f"archive/{name}", value)
    return made.getvalue()


def shared():
    a = ["x"] * 10
    for _ in range(9):
        a = [a] * 10
    return archive(pickle.dumps({"model": {}, "optimizer": {"state": {0: a}, "param_groups": []}}))


def cyclic():
    a = []
    a.append(a)
    return archive(pickle.dumps({"a": a}))


def deep():
    return archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")


def deep_key():
    """Tuples of tuples of themselves, whose hash would take for ever."""
    return archive(b"\x80\x02})" + b"2\x86" * 64 + b"K\x01s.")


def tensor(size, count=None, stride=1, offset=0, storage=b"\0" * 400):
    def stored():
        pass

    count = len(storage) // 4 if count is None else count
    pickled = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + pickle.dumps(count, 2)[2:-1]
        + b"tQ"
        + pickle.dumps(offset, 2)[2:-1]
        + pickle.dumps(size, 2)[2:-1]
        + b"\x85"
        + pickle.dumps(stride, 2)[2:-1]
        + b"\x85\x89}tRs."
    )
    return archive(pickled, storage)


def bomb():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        with zipfile.ZipFile(io.BytesIO(tensor(1 << 26, 1 << 26, storage=b""))) as source:
            target.writestr("archive/data.pkl", source.read("archive/data.pkl"))
        with target.open("archive/data/0", "w", force_zip64=True) as record:
            for _ in range(256):
                record.write(bytes(1 << 20))
    return made.getvalue()


HARM = {
    "lists that unfold": (shared(), "unfolds to more than"),
    "a list that holds itself": (cyclic(), "holds itself"),
    "deep lists": (deep(), "nested more than"),
    "a key that cannot be hashed in time": (deep_key(), "neither parameters nor"),
    "more elements than the record has": (tensor(120, 120), "has 400 bytes"),
    "a tensor beyond its storage": (tensor(101), "goes beyond its storage"),
    "one that begins beyond it": (tensor(1, offset=100), "goes beyond its storage"),
    "one that is one element many times": (tensor(1 << 40, stride=0), "unfolds to more"),
    "a storage that is missing": (tensor(1).replace(b"data/0", b"data/1"), "is missing"),
    "zeros without end": (bomb(), "un(pack|fold)s? to more than"),
    "a memo far away": (archive(b"\x80\x02}r\xff\xff\xff\xff."), "neither parameters"),
    "a text of four gigabytes": (archive(b"\x80\x02X\xff\xff\xff\x7f"), "damaged"),
    "an integer of a million digits": (archive(b"L" + b"1" * 10**6 + b"L\n."), "damaged"),
    "no data.pkl": (b"PK\x05\x06" + bytes(18), "without one data.pkl"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HARM.values(), ids=HARM)
def test_a_file_made_to_do_harm(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    begun = time.process_time()
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path / "a")
    assert time.process_time() - begun < 5
    tracemalloc.start()  # by itself: it makes the same four times as long
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(data) + (1 << 23)


def test_pickles_of_distributed_checkpoints_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = distributed(Run(), tmp_path)
    (folder / ".metadata").write_bytes(pickle.dumps({"state_dict_metadata": Code()}))
    with pytest.raises(ValueError, match=r"\.metadata has"):
        interop.load(folder)
    assert not (tmp_path / "ran").exists()


def test_pieces_elsewhere_are_refused(tmp_path):
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    folder = distributed(Run(), tmp_path)
    with open(folder / ".metadata", "rb") as file:
        held = pickle.load(file)
    held.storage_data = {
        index: _StorageInfo(f"../{place.relative_path}", place.offset, place.length)
        for index, place in held.storage_data.items()
    }
    (folder / ".metadata").write_bytes(pickle.dumps(held))
    with pytest.raises(ValueError, match="which is no file of the folder"):
        interop.load(folder)
