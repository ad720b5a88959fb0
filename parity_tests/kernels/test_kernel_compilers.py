"""Whatever the C compiler does, a step has its numbers, soon, and the log says why once."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxopt_port import kernels
from jaxopt_port.kernels import _compiler, _library

pytestmark = pytest.mark.skipif(not kernels.enabled(), reason="no C compiler: plain XLA is used")
numbers = itertools.count(301)
GCC = " ".join(_compiler.command() or [])
ONE_STEP = Path(__file__).with_name("one_step.py")


def script(path, text):
    """A compiler that says its version as any other, and then does something else."""
    text = textwrap.dedent(text).format(gcc=GCC)
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {GCC} --version\n{text}')
    path.chmod(0o755)
    return str(path)


BROKEN = {
    "fails, in no known encoding": (r"printf 'd\351sol\351 \033[31m' >&2; exit 3", "ended with 3"),
    "writes nothing": ("exit 0", "kernel.so"),
    "writes nonsense": ("echo nonsense > kernel.so", "python.* ended with 1"),
    "writes a part": ('{gcc} "$@"; truncate -s 9000 kernel.so', "python.* ended"),
    "writes zeros within": (
        '{gcc} "$@"; dd if=/dev/zero of=kernel.so bs=4096 seek=1 count=1 conv=notrunc',
        "python.* ended with signal",
    ),
    "writes another library": (
        "echo 'int other;' | {gcc} -shared -fPIC -xc - -o kernel.so",
        "undefined symbol",
    ),
    "writes what stops": (
        '{gcc} "$@" -Dbody=old_body && : && '
        "echo 'void raise(int); __attribute__((constructor)) void f(void) {{ raise(4); }}' "
        "| {gcc} -shared -fPIC -xc - -o kernel.so",
        "ended with signal 4",
    ),
    "is killed": ("kill -9 $$", "ended with signal 9"),
}


@pytest.mark.parametrize(("text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_compiler_is_reported_once_and_done_without(
    fresh, text, why, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("CC", script(tmp_path / "cc", text))
    assert fresh.target(next(numbers)) is None
    assert fresh.target(next(numbers)) is None
    (record,) = caplog.records
    assert re.search(f"plain XLA takes its place: .*{why}", record.message)
    assert "JAXOPT_PORT_KERNELS=off" in record.message
    assert record.message.isprintable()
    assert list(fresh.folder.iterdir()) == []


WORKS = {
    "options": f"{GCC} -m64",
    "by way of another": f"env A=1 {GCC}",
    "quoted": f"'{GCC}' -O1",
    "asks for what is not exact": f"{GCC} -Ofast -ffast-math -ffp-contract=fast",
}


@pytest.mark.parametrize("cc", WORKS.values(), ids=WORKS)
def test_a_compiler_may_come_with_words(fresh, cc, monkeypatch):
    number = next(numbers)
    monkeypatch.setenv("CC", cc)
    fresh.product(fresh.target(number), number)


def test_a_compiler_may_have_a_space_in_its_path(fresh, monkeypatch, tmp_path):
    number = next(numbers)
    monkeypatch.setenv("CC", script(tmp_path / "my cc", 'exec {gcc} "$@"'))
    fresh.product(fresh.target(number), number)


@pytest.mark.parametrize("cc", ["/nowhere/cc", "'gcc", "no-such-compiler -O2"])
def test_a_compiler_that_is_none_is_reported(fresh, cc, monkeypatch, caplog):
    monkeypatch.setenv("CC", cc)
    assert not kernels.enabled()
    assert not kernels.enabled()
    (record,) = caplog.records
    assert cc in record.message
    assert "JAXOPT_PORT_KERNELS=off" in record.message


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("first", ["--version", "-std=gnu11"])
def test_a_compiler_that_hangs_is_ended_once_with_its_children(
    fresh, first, monkeypatch, tmp_path, caplog
):
    path = tmp_path / "cc"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = {first} ] || exec {GCC} "$@"\n'
        f"sleep 600 & echo $! >> {tmp_path}/children\nwait\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setattr(_compiler, "TIMEOUT", 1.0)
    fresh.restart()
    begun = time.monotonic()
    kernels_of = [kernels.prepared(fresh.source(next(numbers))) for _ in range(3)]
    assert [kernel.target() for kernel in kernels_of] == [None] * 3
    assert fresh.target(next(numbers)) is None
    assert time.monotonic() - begun < 5
    (record,) = caplog.records
    assert "took more than 1 second" in record.message
    children = (tmp_path / "children").read_text().split()
    assert children
    while any(map(is_alive, children)):  # what is killed takes a moment to be gone
        assert time.monotonic() - begun < 10
        time.sleep(0.01)


def test_only_compilers_that_fail_use_up_the_time(monkeypatch, tmp_path):
    monkeypatch.setattr(_compiler, "TIMEOUT", 0.8)
    clock, work = _compiler.Clock(), os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(5):
            clock.run(["sleep", "0.2"], work)
        assert not clock.is_over
        for _ in range(5):
            with pytest.raises(_compiler.KernelError, match=r"with 3|second"):
                clock.run(["sh", "-c", "sleep 0.2; exit 3"], work)
        assert clock.is_over
    finally:
        os.close(work)


def test_in_mode_auto_no_program_waits_long(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "auto")
    monkeypatch.setenv("CC", script(tmp_path / "cc", 'sleep 2; exec {gcc} "$@"'))
    monkeypatch.setattr(_library, "PATIENCE", 0.2)
    fresh.restart()
    begun, factors = time.monotonic(), [next(numbers), next(numbers)]
    assert [fresh.target(n) for n in factors] == [None, None]
    assert time.monotonic() - begun < 1.5
    assert caplog.records == []  # late is no failure
    made = kernels.prepared(fresh.source(factors[0]))
    assert made.wait(60)
    fresh.product(made.target(), factors[0])  # the next program has it


def one_step(size, **env):
    done = subprocess.run(
        [sys.executable, str(ONE_STEP), str(size)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    form, bits, _ = done.stdout.split()
    return form, bits, done.stderr


def test_a_small_model_runs_no_compiler_and_a_process_that_ends_leaves_none(tmp_path):
    calls = tmp_path / "calls"
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\nsleep 600 & echo $$ $! >> {calls}\nwait\n")
    path.chmod(0o755)
    env = {"CC": str(path), "JAXOPT_PORT_CACHE": str(tmp_path / "kept"), "TMPDIR": str(tmp_path)}
    form, bits, log = one_step(8, JAXOPT_PORT_KERNELS="auto", **env)
    assert (form, log) == ("plain", "")
    assert not calls.exists()
    assert one_step(8, JAXOPT_PORT_KERNELS="on", CC="")[:2] == ("kernel", bits)

    assert one_step(1 << 20, JAXOPT_PORT_KERNELS="auto", **env)[::2] == ("plain", "")
    began = calls.read_text().split()
    assert began
    assert not any(map(is_alive, began))
    assert not list(tmp_path.glob("jaxopt_port_*"))  # nor what it was writing


@pytest.mark.parametrize(
    ("given", "mode"), [("", "auto"), ("AUTO", "auto"), ("1", "on"), ("0", "off"), (" off ", "off")]
)
def test_the_switch(given, mode, monkeypatch):
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", given)
    assert kernels.mode() == mode


def test_a_switch_that_is_neither_is_an_error(monkeypatch):
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "maybe")
    with pytest.raises(ValueError, match="must be on, off or auto; got 'maybe'"):
        kernels.enabled()


def test_a_kernel_is_named_by_all_that_it_depends_on(fresh, monkeypatch, tmp_path):
    known = _compiler.machine(_compiler.Clock())
    version = subprocess.run([*_compiler.command(), "--version"], capture_output=True, text=True)
    assert version.stdout.split()[0] in known
    assert " ".join(_compiler.platform.libc_ver()) in known
    other = tmp_path / "cc"
    shutil.copy(script(tmp_path / "first", "exit 1"), other)
    other.write_text(other.read_text().replace("--version &&", "--version && echo 99 &&"))
    monkeypatch.setenv("CC", str(other))
    assert (
        len({_compiler.name_of("text", m) for m in (known, _compiler.machine(_compiler.Clock()))})
        == 2
    )
