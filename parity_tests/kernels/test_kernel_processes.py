"""Kernels in many threads, many processes, forks, and programs that another process compiled."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxopt_port import kernels
from jaxopt_port.kernels import _cache, _library

pytestmark = pytest.mark.skipif(not kernels.enabled(), reason="no C compiler: plain XLA is used")
ONE_STEP = Path(__file__).with_name("one_step.py")


def started(code, folder, *arguments):
    env = {**os.environ, "JAXOPT_PORT_KERNELS": "on", "JAXOPT_PORT_CACHE": str(folder)}
    return subprocess.Popen(
        [sys.executable, *code, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    out, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    return out, log


def test_many_threads_make_a_kernel_once(fresh, monkeypatch):
    compiled, calls = _library.compiled, []

    def counted(*args):
        calls.append(threading.get_ident())
        return compiled(*args)

    monkeypatch.setattr(_library, "compiled", counted)
    with ThreadPoolExecutor(8) as pool:
        targets = list(pool.map(fresh.target, [401.0] * 8))
    assert len(set(targets)) == 1
    assert len(calls) == 1
    fresh.product(targets[0], 401.0)


def test_many_processes_share_a_folder(tmp_path):
    several = [started([str(ONE_STEP)], tmp_path) for _ in range(3)]
    results = [said(process) for process in several]
    assert {tuple(out.split()[:2]) for out, _ in results} == {tuple(results[0][0].split()[:2])}
    assert results[0][0].startswith("kernel")
    assert {log for _, log in results} == {""}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_makes_its_own_and_waits_for_no_thread_that_it_lacks(fresh, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def held(code):
        begun.set()
        go_on.wait(60)
        return "the parent's"

    monkeypatch.setattr(_library, "_registered", held)
    with _library._process.lock:
        kernel = kernels.prepared(fresh.source(402.0))
    assert begun.wait(60)
    with _library._process.lock:  # as another thread may hold it
        child = os.fork()
        if not child:
            signal.alarm(60)
            _library._registered = lambda code: "the child's"
            os._exit(kernels.prepared(fresh.source(402.0)).target() != "the child's")
    go_on.set()
    assert kernel.target() == "the parent's"
    assert os.waitpid(child, 0)[1] == 0


SERIALIZED = """
import pickle, sys
import jax, jax.numpy as jnp, jaxopt_port as jp
from jax.experimental import serialize_executable
from jaxopt_port import kernels

tx = jp.AdamW(lr=0.01)
params = {"w": jnp.linspace(-1.0, 1.0, 8)}
file, what = sys.argv[1:]
if what == "write":
    step = jax.jit(lambda params, state, grads: jp.step(tx, grads, state, params))
    compiled = step.lower(params, tx.init(params), params).compile()
    pickle.dump(serialize_executable.serialize(compiled), open(file, "wb"))
else:
    found = kernels.register()
    compiled = serialize_executable.deserialize_and_load(*pickle.load(open(file, "rb")))
    assert len(found) == len(kernels.register()) == 1
print(compiled(params, tx.init(params), params)[0]["w"].tobytes().hex())
"""


def test_a_compiled_program_runs_in_a_fresh_process(tmp_path):
    folder, file = tmp_path / "kept", str(tmp_path / "program")
    written, _ = said(started(["-c", SERIALIZED], folder, file, "write"))
    read, _ = said(started(["-c", SERIALIZED], folder, file, "read"))
    assert read == written


def test_what_cannot_be_registered_is_passed_over(fresh):
    target = fresh.target(403.0)
    cut, anothers = ("jaxopt_port_" + digit * 32 for digit in "01")
    with _cache.opened() as kept:
        _cache.write(kept, cut, b"some data")
        _cache.write(kept, anothers, b"no library of this machine")
    os.truncate(fresh.folder / f"{cut}.so", 20)
    assert kernels.register() == [target]
