"""Compiles kernels, keeps them in the user's cache, and registers them with XLA."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from ._source import Source

_log = logging.getLogger("jaxopt_port.kernels")

SWITCH = "JAXOPT_PORT_KERNELS"
FOLDER = "JAXOPT_PORT_CACHE"

# Every rounding is written down in the source: nothing may be contracted or reordered. Traps and
# errno do not matter, and would keep the loops from being vectorised.
_FLAGS = [
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
]
_TIMEOUT = 120  # seconds


@functools.cache
def compiler() -> str | None:
    """Return the C compiler: that of the variable CC, or the first of cc, gcc and clang."""
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [named] if named else ["cc", "gcc", "clang"])), None)


def enabled() -> bool:
    """Whether kernels are used: on a CPU, with a C compiler, unless switched off."""
    return (
        os.environ.get(SWITCH, "on").lower() not in ("off", "0", "false")
        and sys.platform == "linux"
        and jax.default_backend() == "cpu"
        and compiler() is not None
    )


def folder() -> Path:
    """Return where compiled kernels are kept."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jaxopt_port"


@functools.cache
def _machine() -> str:
    """Return what the machine code depends on beside the source."""
    try:
        cpu = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        cpu = platform.processor()
    flags = [line for line in cpu.splitlines() if line.startswith(("model name", "flags", "Feat"))]
    header = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h").read_text()
    return "\n".join([platform.machine(), *flags, str(compiler()), *_FLAGS, header])


@functools.cache
def _handler() -> str:
    return Path(__file__).with_name("_handler.c").read_text()


def target(source: Source) -> str | None:
    """Return the name of a kernel as a target of XLA's custom calls, compiled if need be.

    None where it could not be compiled; the reason is logged once.
    """
    return _registered(source.code)


@functools.cache
def _registered(code: str) -> str | None:
    text = f'#include "xla/ffi/api/c_api.h"\n{code}{_handler()}'
    try:
        digest = hashlib.sha256((text + _machine()).encode()).hexdigest()[:24]
        name = f"jaxopt_port_{digest}"
        library = ctypes.CDLL(str(_compiled(text, name)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        _log.warning("a kernel could not be compiled; plain XLA takes its place: %s", said.strip())
        return None
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library.jaxopt_port_kernel), platform="cpu")
    return name


def _compiled(text: str, name: str) -> Path:
    """Return the compiled library, made beside its place and moved into it."""
    kept = folder()
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        writable = os.access(kept, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        kept = Path(_temporary().name)
    library = kept / f"{name}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=kept) as work:
        source, made = Path(work, "kernel.c"), Path(work, "kernel.so")
        source.write_text(text)
        command = [str(compiler()), *_FLAGS, f"-I{jax.ffi.include_dir()}", str(source)]
        command += ["-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT)
        os.replace(source, kept / f"{name}.c")
        os.replace(made, library)
    return library


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="jaxopt_port_")
