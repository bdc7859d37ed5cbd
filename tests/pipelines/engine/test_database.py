"""The DuckDB of a process: order, time zones, its scratch folder."""

import subprocess
import sys
from pathlib import Path

from pipelines.engine.database import database

ASKS = """
import os
from pipelines.engine.database import database
folder = database().execute("SELECT current_setting('temp_directory')").fetchone()[0]
print(folder, os.path.isdir(folder))
"""


def test_the_scratch_folder_is_gone_with_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    folder, there = done.stdout.split()
    assert there == "True", "while the process runs"
    assert "nightloom-duckdb-" in folder
    assert not Path(folder).exists()


def test_times_are_read_in_the_zone_that_is_asked_for() -> None:
    query = "SELECT epoch(TIMESTAMPTZ '2026-03-01 00:00:00')"
    utc, paris = (database(zone).execute(query).fetchone() for zone in ("UTC", "Europe/Paris"))
    assert utc is not None
    assert paris is not None
    assert utc[0] - paris[0] == 3600
