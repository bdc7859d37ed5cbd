"""Where a partition lives and how it becomes visible: all at once or not at all.

A table partition is ``<root>/<table>/date=YYYY-MM-DD/`` with Parquet parts and a ``_SUCCESS`` manifest; a model
partition holds safetensors and a card. Parts are written to a hidden staging folder, fsynced, and swapped in by
one rename. Belongs here: layout, publish, read, manifest. Does not: what the columns mean (``schemas``).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.folders import fsync_tree, locked, scratch, swap_in
from pipelines.lake.schemas import Key, SchemaError, Table
from pipelines.lake.tables import TABLES

if TYPE_CHECKING:
    from pipelines.config import Config

MANIFEST = "_SUCCESS"
ROW_GROUP = 1 << 16
VECTOR_ROW_GROUP = 1 << 13  # rows of vectors are a hundred times as wide
PART_ROWS = 1 << 20
PARQUET = {"compression": "zstd", "write_page_checksum": True, "write_statistics": True}


class StorageError(RuntimeError):
    """A partition is missing or damaged; the message says which, and what to run."""


@dataclass(frozen=True)
class Manifest:
    """What a published partition holds and what it was made from.

    Attributes:
        table: name.
        partition: ISO day.
        rows: rows of all parts.
        files: file name -> sha256.
        content_digest: identity of all files.
        config_digest: the settings it depends on.
        code_digest: the code that made it.
        inputs: name of each input -> its digest.
        counters: facts of the run that made it (encoded, reused, ...).
        step: what wrote it, where several steps of a night write a table each for itself.
        spec: the encoder of a table of vectors, see ``encoders.base.EncoderSpec``.
    """

    table: str
    partition: str
    rows: int
    files: dict[str, str]
    content_digest: str
    config_digest: str = ""
    code_digest: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    step: str = ""


@cache
def code_digest() -> str:
    """16 hex characters of the sources of ``encoders`` and ``pipelines``."""
    root = Path(__file__).resolve().parents[2]
    sha = hashlib.sha256()
    for path in sorted(p for package in ("encoders", "pipelines") for p in (root / package).rglob("*.py")):
        sha.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


class Lake:
    """The tables and models below one local folder.

    Args:
        root: the folder; made when the first partition is published.
    """

    def __init__(self, root: Path):
        self.root = Path(root)

    @classmethod
    def of(cls, config: "Config") -> Self:
        """The lake of a configuration."""
        return cls(config.paths.data / "lake")

    def folder(self, table: str, day: date, step: str = "") -> Path:
        """Folder of a partition, or of what a step wrote of it; published or not."""
        day_folder = self.root / table / f"date={day.isoformat()}"
        return day_folder / f"step={step}" if step else day_folder

    def steps(self, table: str, day: date) -> list[str]:
        """Steps that have written a partition of a table that each writes for itself, in order of name."""
        found = self.folder(table, day).glob(f"step=*/{MANIFEST}")
        return sorted(path.parent.name.removeprefix("step=") for path in found)

    def days(self, table: str, upto: date | None = None) -> list[date]:
        """Published days of a table in order, none after ``upto``."""
        places = [f"date=*/{MANIFEST}", *([f"date=*/step=*/{MANIFEST}"] if _by_step(table) else [])]
        published = {
            path.relative_to(self.root / table).parts[0] for g in places for path in (self.root / table).glob(g)
        }
        matches = (re.fullmatch(r"date=(\d{4}-\d\d-\d\d)", name) for name in published)
        days = {date.fromisoformat(m[1]) for m in matches if m}
        return sorted(d for d in days if upto is None or d <= upto)

    def manifest(self, table: str, day: date, step: str = "") -> Manifest | None:
        """Manifest of a partition, or None where it was never published."""
        try:
            return Manifest(**json.loads((self.folder(table, day, step) / MANIFEST).read_text()))
        except FileNotFoundError:
            return None

    def require(self, table: str, day: date, step: str = "") -> Manifest:
        """Manifest of a partition that must be there.

        Raises:
            StorageError: it is not.
        """
        manifest = self.manifest(table, day, step)
        if manifest is None:
            raise StorageError(
                f"{table} has no partition {day} in {self.root}; materialize it first (nightloom run --date {day})"
            )
        return manifest

    def rows(self, table: str, day: date) -> int:
        """Rows of a published partition, of all steps that have written one."""
        return sum(self.require(table, day, step).rows for step in self.steps(table, day) or [""])

    def paths(self, table: str, day: date) -> list[Path]:
        """Parquet parts of a partition.

        Raises:
            StorageError: the partition is missing.
        """
        found = []
        for step in self.steps(table, day) or [""]:
            folder, files = self.folder(table, day, step), self.require(table, day, step).files
            found += [folder / name for name in sorted(files) if name.endswith(".parquet")]
        return found

    def read(self, table: str, day: date, columns: list[str] | None = None) -> pa.Table:
        """All rows of a partition; page checksums are verified.

        Raises:
            StorageError: the partition is missing or damaged.
        """
        return pa.concat_tables(list(self.scan(table, [day], columns)))

    def scan(self, table: str, days: Iterable[date], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Row groups of several partitions in order of day, step and key; an empty file is one empty table."""
        for day in days:
            for path in self.paths(table, day):
                try:
                    with pq.ParquetFile(path, page_checksum_verification=True) as file:
                        for i in range(file.num_row_groups):
                            yield file.read_row_group(i, columns)
                        if not file.num_row_groups:
                            yield file.read(columns)
                except (pa.ArrowException, OSError) as e:
                    raise StorageError(f"{path} is damaged ({e}); delete the partition and materialize it again") from e

    def read_days(self, table: str, days: Iterable[date], columns: list[str] | None = None) -> pa.Table:
        """All rows of several partitions.

        Raises:
            StorageError: there is none, or one is missing or damaged.
        """
        parts = list(self.scan(table, days, columns))
        if not parts:
            raise StorageError(f"{table} has no partition in the asked range in {self.root}")
        return pa.concat_tables(parts)

    def publish(self, table: str, day: date, data: pa.Table | Iterable[pa.Table], **provenance: Any) -> Manifest:
        """Write a partition and make it visible in one step.

        Args:
            table: name in ``tables.TABLES``.
            day: partition.
            data: rows, or pieces in key order that are written as they come.
            provenance: ``config_digest``, ``inputs``, ``counters``, ``spec`` of the manifest.

        Raises:
            SchemaError: the rows break the table's contract; nothing is published.
        """
        return self.publish_days(table, {day: data}, {day: provenance})[day]

    def publish_days(
        self,
        table: str,
        data: Mapping[date, pa.Table | Iterable[pa.Table]],
        provenance: Mapping[date, Mapping[str, Any]],
    ) -> dict[date, Manifest]:
        """Like ``publish`` for several days; each becomes visible in one step, in order."""
        with scratch(self.root, f"staging-{table}") as staging:
            rows = {}
            for day, part in data.items():
                target = staging / f"date={day.isoformat()}"
                target.mkdir()
                rows[day] = write_parts(TABLES[table], target, part)
            return self.publish_staged(table, staging, rows, provenance)

    def publish_staged(
        self, table: str, staging: Path, rows: Mapping[date, int], provenance: Mapping[date, Mapping[str, Any]]
    ) -> dict[date, Manifest]:
        """Make partitions visible that were written below ``staging`` as ``date=D/``; each in one step.

        Args:
            table: name.
            staging: a scratch folder of the lake.
            rows: of each day.
            provenance: of each day's manifest.
        """
        made = {}
        for day, n in sorted(rows.items()):
            folder = staging / f"date={day.isoformat()}"
            made[day] = _write_manifest(folder, table, day, n, provenance.get(day, {}))
            fsync_tree(folder)
        (self.root / table).mkdir(exist_ok=True)
        with locked(self.root, f"publish-{table}"):
            for day in made:
                name = f"date={day.isoformat()}"
                swap_in(staging / name, self.root / table / name)
        return made

    def publish_step(
        self,
        table: str,
        day: date,
        step: str,
        data: pa.Table | Iterable[pa.Table],
        keep: Collection[str] | None = None,
        **provenance: Any,
    ) -> Manifest:
        """Like ``publish``, for what one step writes of a table that several write; see ``publish_steps``."""
        return self.publish_steps(table, day, {step: data}, keep, **provenance)[step]

    def publish_steps(
        self,
        table: str,
        day: date,
        data: Mapping[str, pa.Table | Iterable[pa.Table]],
        keep: Collection[str] | None = None,
        **provenance: Any,
    ) -> dict[str, Manifest]:
        """Make what some steps write of a table that several write visible at once.

        Args:
            table: name in ``tables.TABLES``.
            day: partition.
            data: step -> its rows.
            keep: steps whose parts stay; all by default. The first step of a night says which there are.
            provenance: of the manifest.

        Raises:
            StorageError: the partition is of a version in which one step wrote for all, and ``keep`` is not given.
        """
        with scratch(self.root, f"staging-{table}") as staging:
            target, day_folder = staging / f"date={day.isoformat()}", self.folder(table, day)
            manifests = {}
            for step, rows in data.items():
                made = target / f"step={step}"
                made.mkdir(parents=True)
                count = write_parts(TABLES[table], made, rows)
                manifests[step] = _write_manifest(made, table, day, count, {**provenance, "step": step})
            with locked(self.root, f"publish-{table}"):
                if (day_folder / MANIFEST).is_file() and keep is None:
                    raise StorageError(f"{table} of {day} is of an earlier version; run the whole night again")
                for other in self.steps(table, day):
                    if other not in data and (keep is None or other in keep):
                        name = f"step={other}"
                        shutil.copytree(day_folder / name, target / name, copy_function=os.link)
                fsync_tree(target)
                day_folder.parent.mkdir(exist_ok=True)
                swap_in(target, day_folder)
        return manifests

    def remove(self, table: str, day: date) -> None:
        """Take a partition away, in one step for those who look."""
        with scratch(self.root, f"removed-{table}") as staging, locked(self.root, f"publish-{table}"):
            self.folder(table, day).rename(staging / "partition")

    def publish_files(self, table: str, day: date, files: Mapping[str, bytes], **provenance: Any) -> Manifest:
        """Publish a model partition made of files by relative name."""
        with scratch(self.root, f"staging-{table}") as staging:
            target = staging / f"date={day.isoformat()}"
            target.mkdir()
            for name, content in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(content)
            return self.publish_staged(table, staging, {day: 0}, {day: provenance})[day]


def _by_step(table: str) -> bool:
    """Whether several steps of a night write the table, each for itself."""
    return table in TABLES and TABLES[table].by_step


def write_parts(table: Table, folder: Path, data: pa.Table | Iterable[pa.Table]) -> int:
    """Write rows into a folder as they come, a row group at a time; the files do not depend on how they were cut.

    Returns:
        How many they are.
    """
    rows = 0
    with ExitStack() as open_files:
        writer: pq.ParquetWriter | None = None
        for group in _groups(table, [data] if isinstance(data, pa.Table) else data):
            if writer is None or rows % PART_ROWS == 0:
                open_files.close()
                path = folder / f".part-{rows // PART_ROWS:05d}"
                worth_it = [c.name for c in table.columns if c.name not in table.plain]
                writer = open_files.enter_context(
                    pq.ParquetWriter(path, group.schema, use_dictionary=worth_it if table.plain else True, **PARQUET)
                )
            writer.write_table(group, row_group_size=max(1, group.num_rows))
            rows += group.num_rows
    written = sorted(folder.glob(".part-*"))
    for i, path in enumerate(written):
        path.rename(folder / f"part-{i:05d}-of-{len(written):05d}.parquet")
    return rows


def rows_of_parts(folder: Path) -> int:
    """Rows of the Parquet files in a folder."""
    return sum(pq.read_metadata(p).num_rows for p in folder.glob("part-*.parquet"))


def _groups(table: Table, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Checked rows of all pieces, cut into row groups; at least one, which may be empty.

    Raises:
        SchemaError: a piece breaks the contract, or does not come after the one before it.
    """
    size = VECTOR_ROW_GROUP if any(c.is_vector for c in table.columns) else ROW_GROUP
    waiting: pa.Table | None = None
    last: Key = ()
    for piece in pieces:
        conformed = table.checked(piece)
        last, broken = table.after(last, conformed)
        if broken:
            raise SchemaError(f"{table.name}: {broken[0]}")
        waiting = pa.concat_tables([waiting, conformed]) if waiting is not None and waiting.num_rows else conformed
        while waiting.num_rows > size:
            yield waiting.slice(0, size).combine_chunks()
            waiting = waiting.slice(size)
    if waiting is None:
        raise SchemaError(f"{table.name}: nothing to publish, not even an empty table")
    yield waiting.combine_chunks()


def write_parquet(data: pa.Table, path: Path) -> None:
    """Write one file the way all our files are written: zstd, statistics, page checksums."""
    pq.write_table(data, path, row_group_size=ROW_GROUP, **PARQUET)


def _write_manifest(folder: Path, table: str, day: date, rows: int, provenance: Mapping[str, Any]) -> Manifest:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as f:
            files[str(path.relative_to(folder))] = hashlib.file_digest(f, "sha256").hexdigest()
    content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    manifest = Manifest(table, day.isoformat(), rows, files, content, code_digest=code_digest(), **provenance)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n")
    return manifest
