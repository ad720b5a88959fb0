"""Kernels in this process: made aside, loaded, registered with XLA, waited for."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import threading
import time
from contextlib import suppress

import jax

from . import _cache
from ._compiler import Clock, KernelError, compiled, machine, name_of, text_of
from ._source import Source
from ._switch import NOT_KEPT, PLAIN, fall_back, mode

_log = logging.getLogger("jaxopt_port.kernels")

# Seconds that the programs of a process wait in all, in mode auto, for what is not compiled yet. A
# program stays as it was compiled, for hours maybe; and of many leaves, XLA compiles it sooner by
# more than that.
PATIENCE = 1.0


class _Process:
    """What the kernels of a process share; a fork has one of its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.patience = PATIENCE
        self.ends = False
        self._known: str | None = None
        self._known_lock = threading.Lock()

    def machine(self) -> str:
        with self._known_lock:  # not the other one: this may take as long as a compiler likes
            if self._known is None:
                self._known = machine(self.clock)
            return self._known


_process = _Process()
_made: dict[str, Kernel] = {}
_libraries: dict[str, ctypes.CDLL] = {}


class Kernel:
    """A kernel that is being compiled aside."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._begin()

    def _begin(self) -> None:
        self._process = _process
        self._done = threading.Event()
        self._name: str | None = None
        try:
            threading.Thread(target=self._make, args=(self._done,), daemon=True).start()
        except RuntimeError as error:  # no more threads
            fall_back(PLAIN, _said(error))
            self._done.set()

    def _make(self, done: threading.Event) -> None:
        try:
            self._name = _registered(self._code)
        # Whatever it is: the program has its plain form, and the log the reason.
        except Exception as error:
            if not _process.ends:
                fall_back(PLAIN, _said(error))
        finally:
            done.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is there or given up; return whether it is so."""
        return self._done.wait(seconds)

    def target(self) -> str | None:
        """Return its name among XLA's targets, or None where plain XLA takes its place."""
        if self._process is not _process and not self._done.is_set():
            self._begin()  # a fork has no other threads
        if not self._done.is_set():
            if mode() == "on":
                self.wait()
            else:
                _wait(self)
        return self._name


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, KernelError) else f"{type(error).__name__}: {error}"


def _wait(kernel: Kernel) -> None:
    begun = time.monotonic()
    is_done = kernel.wait(max(0.0, _process.patience))
    _process.patience -= time.monotonic() - begun
    if not is_done:
        _log.info("a kernel is not compiled yet: this program has plain XLA, the next the kernel")


def prepared(source: Source) -> Kernel:
    """Return the kernel of a source, begun aside if it is new."""
    with _process.lock:
        if source.code not in _made:
            _made[source.code] = Kernel(source.code)
        return _made[source.code]


def _registered(code: str) -> str:
    """Find, or compile and keep, a kernel; return its name among XLA's targets."""
    text = text_of(code)
    name = name_of(text, _process.machine())
    try:
        with _cache.opened() as kept:
            data = _cache.read(kept, name)
            if data is None:
                data = compiled(text, name, _process.clock)
                _keep(kept, name, data)
    except _cache.CacheError as error:
        fall_back(NOT_KEPT, str(error))
        data = compiled(text, name, _process.clock)
    _register(name, data)
    return name


def _keep(kept: int, name: str, data: bytes) -> None:
    try:
        _cache.write(kept, name, data)
    except OSError as error:
        fall_back(NOT_KEPT, str(error))


def _register(name: str, data: bytes) -> None:
    with _process.lock:
        if name in _libraries:
            return
        library = _loaded(name, data)
        function = getattr(library, name)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
        _libraries[name] = library


def _loaded(name: str, data: bytes) -> ctypes.CDLL:
    """Load a library from memory that nobody can change: a file that is cut kills who runs it."""
    import fcntl  # Linux alone has kernels

    memory = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(memory, "wb", closefd=False) as file:
        file.write(data)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    # It stays open: by the same number, the loader would take the next one for this one.
    return ctypes.CDLL(f"/proc/self/fd/{memory}")


def register() -> list[str]:
    """Register all kept kernels with XLA, so that programs compiled by another process can run.

    ``jax.experimental.serialize_executable.deserialize_and_load`` finds no kernel by itself: call
    this before. Programs that were traced in this process need nothing.

    Returns:
        The names of the kernels, as XLA has them.

    Raises:
        RuntimeError: the folder of kernels cannot be read, or is not to be believed.

    Example:
        >>> from jaxopt_port import kernels
        >>> all(name.startswith("jaxopt_port_") for name in kernels.register())
        True
    """
    try:
        with _cache.opened() as kept:
            found = {name: _cache.read(kept, name) for name in sorted(_cache.names(kept))}
    except _cache.CacheError as error:
        raise RuntimeError(f"no kernels are kept: {error}") from None
    registered = []
    for name, data in found.items():
        # A home folder may be shared with other machines, and other releases of JAX.
        with suppress(OSError, AttributeError, jax.errors.JaxRuntimeError):
            if data is not None:
                _register(name, data)
                registered.append(name)
    return registered


def _forked() -> None:
    global _process
    _process = _Process()


def _ends() -> None:
    """Leave no compiler behind, and none of its files."""
    _process.ends = True
    _process.clock.stop()
    for kernel in list(_made.values()):
        kernel.wait(1.0)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
atexit.register(_ends)
