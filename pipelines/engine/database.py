"""The DuckDB of this process: one instance, a cursor a user, a stated limit on memory, spilling to disk beyond it.

Belongs here: how the database is set up. Does not: queries (the stage that asks writes its own).
"""

import atexit
import os
import shutil
import tempfile
import threading

import duckdb

MEMORY_BYTES = 1 << 30  # of sorts and joins; more goes to a scratch file

_lock = threading.Lock()
_of_process: dict[int, duckdb.DuckDBPyConnection] = {}


def _scratch_of(process: int) -> str:
    """A folder that is gone when the process that made it ends."""
    folder = tempfile.mkdtemp(prefix="nightloom-duckdb-")

    def remove() -> None:
        if os.getpid() == process:  # a forked child has this handler too
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def database(timezone: str = "UTC") -> duckdb.DuckDBPyConnection:
    """A cursor of its own on the database of this process; results keep the order of their input.

    Args:
        timezone: IANA zone in which times without a zone are read.
    """
    with _lock:
        found = _of_process.get(os.getpid())
        if found is None:  # connecting costs 40 ms, and a forked child must not share its parent's
            found = duckdb.connect(config={"temp_directory": _scratch_of(os.getpid())})
            found.execute(f"SET memory_limit = '{MEMORY_BYTES // (1 << 20)}MiB'").fetchall()
            _of_process[os.getpid()] = found
    cursor = found.cursor()
    cursor.execute(f"SET TimeZone = '{timezone}'").fetchall()
    return cursor
