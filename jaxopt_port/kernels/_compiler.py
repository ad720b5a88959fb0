"""Runs the machine's C compiler, which may hang, lie, or write what cannot be run."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

# Every rounding is written down in the source: nothing may be contracted or reordered, also not
# where CC asks for it. Traps and errno do not matter, and would keep the loops from being
# vectorised.
_FLAGS = [
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared", "-fno-fast-math"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
]
TIMEOUT = 30.0  # seconds that the compilers of a process may take in all and fail

# What a library must stand before it is let into this process: a broken one ends another.
_TRIAL = "import ctypes; lib = ctypes.CDLL('./kernel.so'); lib.{0}; lib.jaxopt_port_trial()"


class KernelError(Exception):
    """Why there is no kernel, in words for a log."""


def command() -> list[str] | None:
    """Return the C compiler with its options: the variable CC, or the first of cc, gcc, clang."""
    return _command(os.environ.get("CC", "").strip(), os.environ.get("PATH"))


@functools.lru_cache
def _command(named: str, path: str | None) -> list[str] | None:
    del path  # what is found depends on it
    choices = [[name] for name in ("cc", "gcc", "clang")]
    if named:
        choices = [[named]]
        with suppress(ValueError):  # an open quotation mark
            choices.append(shlex.split(named))
    for first, *rest in filter(None, choices):
        if found := shutil.which(first):
            return [os.path.abspath(found), *rest]
    return None


class Clock:
    """The time that all compilers of a process share; those that succeed take none of it."""

    def __init__(self) -> None:
        self._left = TIMEOUT
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    def run(self, words: Sequence[str], work: int) -> str:
        """Run a program in a folder, given by its descriptor; return what it printed.

        Raises:
            KernelError: it failed, or the time is over; then it is ended, and all that it began.
        """
        if self.is_over:
            raise KernelError(f"the compiler took more than {TIMEOUT:.0f} seconds before")
        begun = time.monotonic()
        said = os.open("said", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=work)
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=f"/proc/self/fd/{work}",
                # Its own temporary files, too, are where nobody else can reach them.
                env={**os.environ, "TMPDIR": "."},
                start_new_session=True,
            )
            with self._lock:
                self._running.add(process)
            try:
                code = process.wait(max(0.0, self._left))
            except subprocess.TimeoutExpired:
                self._left = 0.0
                raise KernelError(
                    f"{words[0]} was ended, since it took more than {TIMEOUT:.0f} seconds"
                ) from None
            finally:
                with self._lock:
                    self._running.discard(process)
                end(process)
            text = _readable(os.pread(said, 4096, 0))
        finally:
            os.close(said)
        if code:
            self._left -= time.monotonic() - begun
            how = f"with signal {-code}" if code < 0 else f"with {code}"
            raise KernelError(f"{Path(words[0]).name} ended {how}: {text or 'without a word'}")
        return text

    def stop(self) -> None:
        """End what is running: this process is about to."""
        self._left = 0.0
        with self._lock:
            for process in self._running:
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and the group."""
    if process.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _readable(said: bytes) -> str:
    """Return what a compiler printed without what would command a terminal."""
    text = said.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()


@contextmanager
def _workplace() -> Iterator[int]:
    """Make a folder for a compiler; give its descriptor: its name may come to mean another's."""
    with tempfile.TemporaryDirectory(prefix="jaxopt_port_", ignore_cleanup_errors=True) as path:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            found = os.stat(folder)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise KernelError(f"{path} was replaced by another's")
            yield folder
        finally:
            os.close(folder)


def machine(clock: Clock) -> str:
    """Return what machine code depends on beside its source.

    Raises:
        KernelError, OSError: the compiler does not say its version.
    """
    words = command() or []
    with _workplace() as work:
        version = clock.run([*words, "--version"], work)
    try:
        cpu = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        cpu = platform.processor()
    flags = [line for line in cpu.splitlines() if line.startswith(("model name", "flags", "Feat"))]
    header = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h").read_text()
    libc = " ".join(platform.libc_ver())
    return "\n".join([platform.machine(), *flags, *words, version, libc, *_FLAGS, header])


def text_of(code: str) -> str:
    """Return the whole source of a kernel, given its own part."""
    handler = Path(__file__).with_name("_handler.c").read_text()
    return f'#include "xla/ffi/api/c_api.h"\n{code}{handler}'


def name_of(text: str, machine: str) -> str:
    """Return the name of a kernel: it tells the source and the machine apart from all others."""
    return "jaxopt_port_" + hashlib.sha256(f"{text}\0{machine}".encode()).hexdigest()[:32]


def compiled(text: str, name: str, clock: Clock) -> bytes:
    """Return a library that exports ``name``, and has been tried.

    Raises:
        KernelError, OSError: it cannot be made, or does not run.
    """
    python = sys.executable or ""
    if not Path(python).name.startswith(("python", "pypy")):
        raise KernelError(f"no interpreter to try it in: sys.executable is {python!r}")
    with _workplace() as work:
        _write(work, "kernel.c", text.encode())
        words = [*(command() or []), *_FLAGS, f"-I{jax.ffi.include_dir()}", f"-DKERNEL={name}"]
        clock.run([*words, "kernel.c", "-o", "kernel.so", "-lm"], work)
        clock.run([python, "-I", "-S", "-c", _TRIAL.format(name)], work)
        return _read(work, "kernel.so")


def _write(folder: int, name: str, data: bytes) -> None:
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    with open(made, "wb") as file:
        file.write(data)


def _read(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
        return file.read()
