"""Files that are there whole or not at all: written beside their target, then moved into place."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

Progress = Callable[[int], object]  # told how many bytes have been written since the last call

# Small enough to stay in the processor's cache.
CHUNK = 1 << 19


class CountedFile:
    """A file that tells of its progress, and keeps the error that ended it."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self._file = file
        self._progress = progress
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        for start in range(0, len(view), CHUNK):
            part = view[start : start + CHUNK]
            try:
                self._file.write(part)
            except OSError as error:
                self.error = error
                raise
            if self._progress is not None:
                self._progress(len(part))
        return len(view)

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def replacing(path: Path, progress: Progress | None = None) -> Iterator[CountedFile]:
    """Give a file to write into, which takes the place of ``path`` once all has gone well.

    After an error the old file, if there was one, is as it was. A process that is killed leaves it
    whole too, and beside it a file that ends in ``.tmp``.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full.
    """
    # What is behind a link is replaced, not the link.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Cannot write a file over a folder", str(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no folder to write into", str(path.parent))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            counted = CountedFile(file, progress)
            yield counted
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o777)
        os.replace(beside, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a new name outlast a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
