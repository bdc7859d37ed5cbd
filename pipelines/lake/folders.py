"""Folders that appear whole: scratch space that a crash does not leave behind, and the swap that shows a folder.

Belongs here: locks, scratch folders, sync to disk, atomic exchange. Does not: what the folders hold (``storage``).
"""

import ctypes
import ctypes.util
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _lock_folder(parent: Path) -> Path:
    folder = parent.with_name(f".{parent.name}-locks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(parent: Path, name: str) -> Iterator[None]:
    """Hold a lock on something in ``parent``; a crash releases it. The lock file lies beside ``parent``, not in it."""
    with (_lock_folder(parent) / name).open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder in ``parent`` that is removed at the end, or by the next call after a crash.

    Args:
        parent: made when missing.
        name: says what it is for; the folder is ``.<name>-<random>``.
    """
    parent.mkdir(parents=True, exist_ok=True)
    locks = _lock_folder(parent)
    for stale in parent.glob(f".{name}-*"):
        with (locks / stale.name).open("a") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its owner is alive
                continue
            shutil.rmtree(stale, ignore_errors=True)
            (locks / stale.name).unlink(missing_ok=True)
    folder = parent / f".{name}-{uuid.uuid4().hex}"
    with locked(parent, folder.name):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (locks / folder.name).unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(folder: Path) -> None:
    """Make a folder's files survive a power loss before it is renamed to where readers look."""
    for path in folder.rglob("*"):
        fsync(path)
    fsync(folder)


def swap_in(new: Path, target: Path) -> None:
    """Put ``new`` where ``target`` is. An old target ends up at ``new``, to be removed with the staging folder."""
    try:
        new.rename(target)  # succeeds when target is missing or an empty folder
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(new, target)
    fsync(target.parent)


def _exchange(a: Path, b: Path) -> None:
    """Exchange two folders atomically (renameat2 with RENAME_EXCHANGE); two renames where the system has none."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    if hasattr(libc, "renameat2"):
        at_fdcwd, rename_exchange = -100, 2
        if libc.renameat2(at_fdcwd, os.fsencode(a), at_fdcwd, os.fsencode(b), rename_exchange) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(b))
    aside = a.with_name(a.name + ".old")
    b.rename(aside)
    a.rename(b)
    aside.rename(a)
