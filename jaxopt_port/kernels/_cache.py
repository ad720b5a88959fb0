"""Where compiled kernels are kept, and what is believed of what lies there.

A kernel is code that this process will run. So the folder must be the user's own (or root's, who
may do all anyway) and nobody else's to write, and so must each file in it; all is done by the
folder's descriptor, so that nothing can be put in its place. A file ends with the digest of the
rest: what was cut, or never reached the disk, is seen and made anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = "JAXOPT_PORT_CACHE"
MOST = 128  # kernels that are kept
_LARGEST = 1 << 24
_DIGEST = hashlib.sha256().digest_size
_OURS = re.compile(r"jaxopt_port_[0-9a-f]{32}\.so")
_UNFINISHED = re.compile(r"jaxopt_port_[0-9a-f]{32}\.so\.[0-9a-f]{16}")
_HOUR = 3600.0


class CacheError(Exception):
    """Why nothing is kept, in words for a log."""


def folder() -> Path:
    """Return where compiled kernels are kept: an absolute path, which need not exist.

    Raises:
        CacheError: no place can be named.
    """
    try:
        if named := os.environ.get(FOLDER):
            return Path(named).expanduser().absolute()
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        # The convention has a relative one ignored.
        base = base if base.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:
        raise CacheError(f"there is no home folder; {FOLDER} names another place") from None
    return base / "jaxopt_port"


def _odd(found: os.stat_result) -> str | None:
    """Return why what lies in a folder, or the folder, is not to be believed."""
    if found.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if found.st_mode & 0o022:
        return "can be written by others"
    return None


@contextmanager
def opened() -> Iterator[int]:
    """Give the descriptor of the folder, made if need be.

    Raises:
        CacheError: it cannot be had, or is not to be believed.
    """
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:
        raise CacheError(str(error)) from None
    try:
        if why := _odd(os.stat(kept)):
            raise CacheError(f"{path} {why}")
        yield kept
    finally:
        os.close(kept)


def names(kept: int) -> list[str]:
    """Return the names of what the folder has."""
    return [n.removesuffix(".so") for n in os.listdir(kept) if _OURS.fullmatch(n)]


def read(kept: int, name: str) -> bytes | None:
    """Return a kernel, or None where there is none that can be believed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        found = os.open(f"{name}.so", flags, dir_fd=kept)
    except OSError:
        return None
    try:
        about = os.stat(found)
        if not stat.S_ISREG(about.st_mode) or _odd(about) or about.st_size > _LARGEST:
            return None
        with open(found, "rb", closefd=False) as file:
            whole = file.read()
        data, digest = whole[:-_DIGEST], whole[-_DIGEST:]
        if hashlib.sha256(data).digest() != digest:
            return None
        with suppress(OSError):  # it may be another's to write
            os.utime(found)
        return data
    finally:
        os.close(found)


def write(kept: int, name: str, data: bytes) -> None:
    """Keep a kernel, whole or not at all; the oldest make room.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = f"{name}.so.{secrets.token_hex(8)}"
    made = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=kept)
    try:
        with open(made, "wb") as file:
            file.write(data + hashlib.sha256(data).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, f"{name}.so", src_dir_fd=kept, dst_dir_fd=kept)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=kept)
        raise
    os.fsync(kept)
    _prune(kept)


def _prune(kept: int) -> None:
    """Remove the oldest kernels beyond the number, and what a process that died has left."""
    ages: dict[str, float] = {}
    for name in os.listdir(kept):
        if _OURS.fullmatch(name) or _UNFINISHED.fullmatch(name):
            with suppress(OSError):  # another process may be pruning
                ages[name] = time.time() - os.lstat(name, dir_fd=kept).st_mtime
    kernels = sorted(filter(_OURS.fullmatch, ages), key=ages.__getitem__)
    dead = [name for name in ages if _UNFINISHED.fullmatch(name) and ages[name] > _HOUR]
    for name in [*kernels[MOST:], *dead]:
        with suppress(OSError):
            os.unlink(name, dir_fd=kept)
