"""What importers share: finding published files, streaming SQL to Parquet, the configuration beside the data.

Belongs here: nothing of a single data set. Rows go through DuckDB in bounded memory; ``raw`` is written anew.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine.database import database

BATCH = 50_000  # rows of Python that are written at once


class DataSetError(ValueError):
    """The folder is not what the importer reads; the message says what was expected."""


@dataclass(frozen=True)
class Importer:
    """One data set.

    Attributes:
        name: on the command line.
        what: the data set, and where it is published.
        files: what has to be in the folder, for people.
        run: writes the raw folder.
    """

    name: str
    what: str
    files: str
    run: "Callable[[Source, Target], None]"


@dataclass(frozen=True)
class Source:
    """The folder of a published data set."""

    folder: Path

    def find(self, *patterns: str) -> Path | None:
        """The first file, in order of pattern and name, anywhere below the folder; packed ones too."""
        for pattern in patterns:
            found = sorted(p for p in self.folder.rglob(pattern) if p.is_file())
            if found:
                return found[0]
        return None

    def need(self, *patterns: str) -> Path:
        """Like ``find``.

        Raises:
            DataSetError: there is none.
        """
        found = self.find(*patterns)
        if found is None:
            here = (
                ", ".join(sorted(p.name for p in self.folder.iterdir())[:12]) if self.folder.is_dir() else "no folder"
            )
            raise DataSetError(f"no {' or '.join(patterns)} below {self.folder} (it has {here})")
        return found

    def every(self, pattern: str) -> list[Path]:
        """All files of a pattern, in order of name."""
        return sorted(p for p in self.folder.rglob(pattern) if p.is_file())


@dataclass
class Target:
    """The raw folder that is made, and what its configuration has to say."""

    raw: Path
    timezone: str = "UTC"
    lines: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def sql(self, kind: str, query: str, name: str = "data", **files: Path) -> int:
        """Write the rows of a query to ``<kind>/<name>.parquet``; ``$file`` in it stands for a path."""
        path = self._path(kind, name)
        for key, file in files.items():
            query = query.replace(f"${key}", str(file).replace("'", "''"))
        with database(self.timezone) as con:
            target = str(path).replace("'", "''")
            con.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchall()
        return self._count(kind, pq.read_metadata(path).num_rows)

    def write(self, kind: str, rows: Iterable[dict[str, Any]], schema: pa.Schema, name: str = "data") -> int:
        """Write rows to ``<kind>/<name>.parquet``, a batch at a time."""
        total, waiting = 0, list[dict[str, Any]]()
        with pq.ParquetWriter(self._path(kind, name), schema, compression="zstd") as out:
            for row in rows:
                waiting.append(row)
                if len(waiting) == BATCH:
                    out.write_table(pa.Table.from_pylist(waiting, schema=schema))
                    total, waiting = total + len(waiting), []
            out.write_table(pa.Table.from_pylist(waiting, schema=schema))
        return self._count(kind, total + len(waiting))

    def link(self, files: Iterable[tuple[Path, str]]) -> int:
        """Put files below the raw folder under new names: as hard links, copied where the disk is another one."""
        n = 0
        for file, name in files:
            place = self.raw / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copyfile(file, place)
            n += 1
        return n

    def config(self) -> Path:
        """Write ``nightloom.toml`` into the raw folder; the first and the last day are those of the events.

        Raises:
            DataSetError: there is no event.
        """
        first, last = self._days()
        text = [
            f"start_date = {first}",
            f"end_date = {last}",
            f'timezone = "{self.timezone}"',
            "",
            "[paths]",
            'raw = "."',
            f'data = "../{self.raw.name}-data"',
            *self.lines,
        ]
        path = self.raw / "nightloom.toml"
        path.write_text("\n".join(text) + "\n")
        return path

    def _path(self, kind: str, name: str) -> Path:
        folder = self.raw / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.parquet"

    def _count(self, kind: str, n: int) -> int:
        self.rows[kind] = self.rows.get(kind, 0) + n
        return n

    def _days(self) -> tuple[date, date]:
        files = [str(p) for p in sorted((self.raw / "interactions").glob("*.parquet"))]
        query = "SELECT min(event_at)::DATE, max(event_at)::DATE FROM read_parquet(?)"
        with database(self.timezone) as con:
            first, last = con.execute(query, [files]).fetchall()[0]
        if first is None:
            raise DataSetError("no event was found in the data set")
        return first, last
