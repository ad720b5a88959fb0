"""What lies in the cache is believed only where it is whole, and nobody else's to write."""

import itertools
import os
import subprocess
import sys

import pytest

from jaxopt_port import kernels
from jaxopt_port.kernels import _cache, _compiler

pytestmark = pytest.mark.skipif(not kernels.enabled(), reason="no C compiler: plain XLA is used")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, who can be other users")
NOBODY = 65534
NAME = "jaxopt_port_" + "0" * 32
DATA = bytes(range(256)) * 80
numbers = itertools.count(101)  # a kernel that this process has is not read again


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def in_its_place(make):
    def change(path):
        path.unlink()
        make(path)

    return change


def link_outside(path):
    path.rename(path.parent.parent / "outside")
    path.symlink_to(path.parent.parent / "outside")


DAMAGES = {
    **{f"cut to {n}": lambda path, n=n: os.truncate(path, n) for n in (0, 31, 100, 4096, 12288)},
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros at the end": lambda path: path.write_bytes(DATA[:4096] + bytes(len(DATA) + 32 - 4096)),
    "a bit": flipped,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "a pipe": in_its_place(os.mkfifo),
    "a link": link_outside,
    "others may write": lambda path: path.chmod(0o606),
    "the group may write": lambda path: path.chmod(0o660),
    "too large": lambda path: os.truncate(path, 1 << 33),
}


def check_is_refused(damage):
    with _cache.opened() as kept:
        _cache.write(kept, NAME, DATA)
        assert _cache.names(kept) == [NAME]
        assert _cache.read(kept, NAME) == DATA
        damage(_cache.folder() / f"{NAME}.so")
        assert _cache.read(kept, NAME) is None
        _cache.write(kept, NAME, DATA)
        assert _cache.read(kept, NAME) == DATA


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_broken_is_not_read_and_can_be_replaced(fresh, damage):
    check_is_refused(damage)


@as_root
def test_another_users_file_in_an_own_folder_is_not_read(fresh):
    check_is_refused(lambda path: os.chown(path, NOBODY, NOBODY))


@pytest.mark.parametrize("to", [100, 4096, 12288])
def test_a_cut_kernel_is_made_anew_and_one_in_use_is_not_harmed(fresh, to):
    number = next(numbers)
    name, file = fresh.name(number), fresh.file(number)
    text = _compiler.text_of(fresh.source(number).code)
    with _cache.opened() as kept:
        _cache.write(kept, name, _compiler.compiled(text, name, _compiler.Clock()))
        os.truncate(file, to)
        assert fresh.target(number) == name
        assert _cache.read(kept, name) is not None
    os.truncate(file, to)
    fresh.product(name, number)


def test_where_no_file_can_lie_the_kernel_is_had_all_the_same(fresh, caplog):
    number = next(numbers)
    fresh.file(number).mkdir(parents=True)
    fresh.folder.chmod(0o700)
    fresh.product(fresh.target(number), number)
    assert "kernels are not kept for the next process" in caplog.text


TRAP = """
#include <stdio.h>
__attribute__((constructor)) static void run(void) { fclose(fopen("%s", "w")); }
"""


def own(path, mode):
    path.mkdir(mode=mode)
    path.chmod(mode)
    return path


def anothers(path):
    os.chown(own(path, 0o755), NOBODY, NOBODY)
    return path


def link_to_anothers(path):
    anothers(path.with_name("theirs"))
    path.symlink_to(path.with_name("theirs"))
    return path


FOLDERS = {
    "anyone may write": lambda path: own(path, 0o777),
    "as /tmp": lambda path: own(path, 0o1777),
    "the group may write": lambda path: own(path, 0o770),
    "another's": pytest.param(anothers, marks=as_root),
    "a link to another's": pytest.param(link_to_anothers, marks=as_root),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_no_code_comes_from_a_folder_that_another_may_write(fresh, make, tmp_path, caplog):
    """What is planted there has the right name and the right digest, and says when it runs."""
    number = next(numbers)
    folder, ran = make(fresh.folder), tmp_path / "it ran"
    trap = tmp_path / "trap.so"
    command = [*_compiler.command(), "-shared", "-fPIC", "-xc", "-", "-o", str(trap)]
    subprocess.run(command, input=TRAP % ran, text=True, check=True)
    kept = os.open(folder, os.O_RDONLY)
    _cache.write(kept, fresh.name(number), trap.read_bytes())
    os.close(kept)
    fresh.product(fresh.target(number), number)
    assert not ran.exists()
    (record,) = caplog.records
    assert str(folder) in record.message
    assert "JAXOPT_PORT_KERNELS=off" in record.message
    with pytest.raises(RuntimeError, match=r"belongs to another user|can be written by others"):
        kernels.register()


PLACES = [
    ({"JAXOPT_PORT_CACHE": "kept/here"}, "{cwd}/kept/here"),
    ({"JAXOPT_PORT_CACHE": "~/kept"}, "/home/someone/kept"),
    ({"JAXOPT_PORT_CACHE": "", "XDG_CACHE_HOME": "/var/kept"}, "/var/kept/jaxopt_port"),
    ({"XDG_CACHE_HOME": "~/kept"}, "/home/someone/kept/jaxopt_port"),
    ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/jaxopt_port"),
    ({}, "/home/someone/.cache/jaxopt_port"),
]


@pytest.mark.parametrize(("named", "place"), PLACES)
def test_the_place_is_absolute(named, place, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for variable in ("JAXOPT_PORT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in named.items():
        monkeypatch.setenv(variable, value)
    assert str(_cache.folder()) == place.format(cwd=os.getcwd())


def test_the_oldest_make_room_and_nothing_else_is_removed(fresh, monkeypatch):
    monkeypatch.setattr(_cache, "MOST", 3)
    with _cache.opened() as kept:
        names = [f"jaxopt_port_{i:032x}" for i in range(5)]
        for age, name in enumerate(names[:4]):
            _cache.write(kept, name, DATA)
            os.utime(f"{name}.so", (age, age), dir_fd=kept)
        others = [
            "mine.so",
            "jaxopt_port_mine.so",
            f"{NAME}.so.{'a' * 16}",
            f"{NAME}.so.{'b' * 16}",
        ]
        for name in others:
            (fresh.folder / name).touch()
        os.utime(fresh.folder / others[2], (0, 0))  # what a process has left that died
        assert _cache.read(kept, names[2])  # is used, and so the youngest
        _cache.write(kept, names[4], DATA)
        assert sorted(_cache.names(kept)) == [names[2], names[3], names[4]]
    left = {path.name for path in fresh.folder.iterdir()}
    assert left - {f"{name}.so" for name in names} == {others[0], others[1], others[3]}


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(fresh, monkeypatch):
    done = []

    def noted(name):
        call = getattr(os, name)
        return lambda *args, **named: (done.append(name), call(*args, **named))

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    with _cache.opened() as kept:
        _cache.write(kept, NAME, DATA)
    assert done == ["fsync", "replace", "fsync"]


def test_a_full_disk_leaves_nothing_half_written(fresh, monkeypatch, caplog):
    number = next(numbers)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fresh.product(fresh.target(number), number)
    assert list(fresh.folder.iterdir()) == []
    assert "No space left" in caplog.text


AS_USER = """
import logging, os, tempfile
from pathlib import Path
import pytest, jax, jax.numpy as jnp, jaxopt_port as jp
from jaxopt_port import kernels
from jaxopt_port.kernels import _cache, _library
from parity_tests.kernels.conftest import Fresh

logging.basicConfig(format="%(message)s")
place = tempfile.TemporaryDirectory()
os.chmod(place.name, 0o755)
fresh = Fresh(pytest.MonkeyPatch(), Path(place.name, "kept"))
filled, new = 201.0, 202.0
name = fresh.name(filled)
fresh.product(fresh.target(filled), filled)  # as root, who imports what others may not
os.chown(fresh.folder, 12345, 12345)
os.chown(fresh.file(filled), 12345, 12345)
os.chmod(fresh.folder, 0o555)
os.setgroups([]), os.setresgid(12345, 12345, 0), os.setresuid(12345, 12345, 0)

with _cache.opened() as kept:
    assert _cache.read(kept, name)
    try:
        _cache.write(kept, name, b"")
    except PermissionError:
        print("only to be read")
os.environ.pop("JAXOPT_PORT_CACHE")
os.environ.pop("HOME", None)
os.environ.pop("XDG_CACHE_HOME", None)
_library.compiled = lambda text, name, clock: b""  # the interpreter may be root's alone
fresh.restart()
print(fresh.target(new))
os.setresuid(0, 0, 0)
place.cleanup()
"""


@as_root
def test_other_users():
    """One without a home, and one whose folder can only be read."""
    done = subprocess.run([sys.executable, "-c", AS_USER], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["only to be read", "None"], done.stderr
    log = done.stderr.splitlines()
    assert len(log) == 2
    assert "there is no home folder; JAXOPT_PORT_CACHE names another place" in log[0]
    assert "plain XLA takes its place: OSError" in log[1]
