"""The DuckDB of this process: one instance, a cursor a user, a stated limit on memory, spilling to disk beyond it.

Belongs here: how the database is set up. Does not: queries (the stage that asks writes its own).
"""

import os
import tempfile
import threading

import duckdb

MEMORY_BYTES = 1 << 30  # of sorts and joins; more goes to a scratch file

_lock = threading.Lock()
_of_process: dict[int, duckdb.DuckDBPyConnection] = {}


def database(timezone: str = "UTC") -> duckdb.DuckDBPyConnection:
    """A cursor of its own on the database of this process; results keep the order of their input.

    Args:
        timezone: IANA zone in which times without a zone are read.
    """
    with _lock:
        found = _of_process.get(os.getpid())
        if found is None:  # connecting costs 40 ms, and a forked child must not share its parent's
            found = duckdb.connect(config={"temp_directory": tempfile.mkdtemp(prefix="nightloom-duckdb-")})
            found.execute(f"SET memory_limit = '{MEMORY_BYTES // (1 << 20)}MiB'").fetchall()
            _of_process[os.getpid()] = found
    cursor = found.cursor()
    cursor.execute(f"SET TimeZone = '{timezone}'").fetchall()
    return cursor
