"""`python -m benchmarks.tables [--json] [--rows N] [--only NAME]`: what reading raw files costs.

Standardize against plain DuckDB that reads, types, deduplicates, sorts and writes the same rows to Parquet by day, each
in a process of its own (CPU-seconds of all threads, highest memory); a night in which nothing is new, and one in which
a hundredth is; a catalogue of a million items with all columns.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import apache_beam.runners.portability.fn_api_runner  # noqa: F401, imports are not what is measured
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.figures import Figure, parser, peak_mb, show
from encoders.settings import ModelChoice
from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.operation import Compute
from pipelines.sections import Paths
from pipelines.standardize import standardize

FIRST = date(2026, 3, 1)
FORMATS = ("csv", "json", "parquet")
ENDING = {"csv": "csv", "json": "jsonl", "parquet": "parquet"}


def main() -> None:
    """Print every figure as it comes."""
    command = parser(__doc__)
    command.add_argument("--rows", type=int, default=1_000_000, help="events")
    command.add_argument("--only", default="", help="standardize, nights or catalogue")
    command.add_argument("--work", nargs=3, metavar=("WHAT", "FOLDER", "FORMAT"), help="one measured piece of work")
    args = command.parse_args()
    if args.work:
        what, folder, fmt = args.work
        started = time.process_time()  # imports are not what is measured
        WORK[what](Path(folder), fmt)
        print(json.dumps({"cpu": time.process_time() - started, "peak_mb": peak_mb()}))
        return
    benches = {"standardize": bench_formats, "nights": bench_nights, "catalogue": bench_catalogue}
    for name, bench in benches.items():
        if not args.only or args.only == name:
            with tempfile.TemporaryDirectory() as folder:
                show(bench(Path(folder), args.rows), args.json)


def bench_formats(folder: Path, rows: int) -> Iterator[Figure]:
    """Events of ten days in one file, in each format."""
    for fmt in FORMATS:
        here = folder / fmt
        write_log(here, rows, fmt, days=10, files=1)
        plain, ours = measured("plain", here, fmt), measured("night", here, fmt)
        name = f"standardize {fmt} {rows / 1e6:g}M"
        yield Figure(name, plain["cpu"] / ours["cpu"], "x speed", "plain DuckDB", plain["cpu"] / ours["cpu"], 0.5, "higher")  # fmt: skip # noqa: E501
        yield Figure(f"{name} peak", ours["peak_mb"], "MB", "plain DuckDB", ours["peak_mb"] / plain["peak_mb"], 2048, "lower")  # fmt: skip # noqa: E501


def bench_nights(folder: Path, rows: int) -> Iterator[Figure]:
    """A year of daily files; the night after with nothing new, and with one new file of a hundredth of the rows."""
    write_log(folder, rows, "csv", days=365, files=365)
    first = measured("night", folder, "csv")
    unchanged = measured("night", folder, "csv")
    yield Figure("unchanged night", unchanged["cpu"], "CPU-s", "first night", unchanged["cpu"] / first["cpu"], None, "lower")  # fmt: skip # noqa: E501
    _write(
        events(rows // 100, 1, seed=1, start=FIRST + timedelta(days=364)), folder / "raw/interactions/new.csv", "csv"
    )
    grown = measured("night", folder, "csv")
    yield Figure("night with 1% new rows", grown["cpu"], "CPU-s", "first night", grown["cpu"] / first["cpu"], 0.03, "lower")  # fmt: skip # noqa: E501


def bench_catalogue(folder: Path, rows: int) -> Iterator[Figure]:
    """A catalogue with all columns and no files, against Arrow's own reading of it."""
    items, rng = folder / "raw" / "items", np.random.default_rng(0)
    items.mkdir(parents=True)
    (folder / "raw" / "interactions").mkdir()
    ids, words = np.arange(rows).astype(str), np.array(["red", "wool", "lamp", "oak", "sea", "small", "old", "new"])
    text = [" ".join(words[rng.integers(0, 8, 24)]) for _ in range(1000)]
    table = pa.table(
        {
            "item_id": ids,
            "title": [text[i % 1000][:40] for i in range(rows)],
            "description": [text[(7 * i) % 1000] + f" {i}" for i in range(rows)],
            "categories": np.char.add(np.char.add("a", (np.arange(rows) % 50).astype(str)), "|shop"),
            "tags": np.char.add("t", (np.arange(rows) % 99).astype(str)),
            "domain": ["home"] * rows,
            "price": rng.integers(1, 9999, rows) / 100,
            "created_at": ["2026-02-01T10:00:00Z"] * rows,
            "updated_at": ["2026-02-28T10:00:00Z"] * rows,
        }
    )
    pa.csv.write_csv(table, items / "items.csv", pa.csv.WriteOptions(quoting_style="needed"))
    plain, ours = measured("arrow_items", folder, "csv"), measured("night", folder, "csv")
    name = f"catalogue {rows / 1e6:g}M items"
    yield Figure(name, ours["cpu"], "CPU-s", "plain Arrow", ours["cpu"] / plain["cpu"], 60, "lower")
    yield Figure(
        f"{name} peak", ours["peak_mb"], "MB", "plain Arrow", ours["peak_mb"] / plain["peak_mb"], 2048, "lower"
    )


# --- data -----------------------------------------------------------------------------------------------------------


def write_log(folder: Path, rows: int, fmt: str, days: int, files: int) -> None:
    """Events in one file or one a day, and a catalogue of one item."""
    target = folder / "raw" / "interactions"
    target.mkdir(parents=True)
    (folder / "raw" / "items").mkdir()
    (folder / "raw" / "items" / "items.csv").write_text("item_id,title\ni1,one\n")
    if files == 1:
        _write(events(rows, days), target / f"log.{ENDING[fmt]}", fmt)
        return
    for n in range(files):
        day = FIRST + timedelta(days=n)
        _write(events(rows // files, 1, seed=n, start=day), target / f"{day}.{ENDING[fmt]}", fmt)


def events(rows: int, days: int, seed: int = 0, start: date = FIRST) -> Iterator[pa.Table]:
    """Random events in order of time, a million at a time, a hundredth of them twice."""
    rng = np.random.default_rng(seed)
    begin = np.datetime64(start, "s")
    for at in range(0, rows, 1_000_000):
        n = min(1_000_000, rows - at)
        second = (np.sort(rng.random(n)) * n + at) / rows * 86_400 * days
        when = np.datetime_as_string(begin + second.astype("timedelta64[s]"), unit="s")
        table = pa.table(
            {
                "user_id": pa.array(np.char.add("u", rng.integers(0, 100_000, n).astype(str))),
                "item_id": pa.array(np.char.add("i", rng.integers(0, 50_000, n).astype(str))),
                "event": pa.array(np.array(["view", "click", "cart", "purchase"])[rng.integers(0, 4, n)]),
                "event_at": pa.array(np.char.add(when, "Z")),
                "value": rng.integers(1, 9999, n) / 100,
            }
        )
        again = rng.integers(0, n, n // 100)
        yield table.take(pa.array(np.sort(np.concatenate([np.arange(n - len(again)), again]))))


def _write(tables: Iterator[pa.Table], path: Path, fmt: str) -> None:
    if fmt == "parquet":
        writer = None
        for t in tables:
            writer = writer or pq.ParquetWriter(path, t.schema)
            writer.write_table(t)
        if writer:
            writer.close()
        return
    with path.open("wb") as f:
        for n, t in enumerate(tables):
            if fmt == "csv":
                options = pa.csv.WriteOptions(include_header=n == 0, quoting_style="none")
                pa.csv.write_csv(t, f, options)
            else:
                f.write(b"".join(json.dumps(r).encode() + b"\n" for r in t.to_pylist()))


# --- work in a process of its own -------------------------------------------------------------------------------------


def measured(what: str, folder: Path, fmt: str) -> dict[str, float]:
    """CPU-seconds and highest memory of a piece of work."""
    command = [sys.executable, "-m", "benchmarks.tables", "--work", what, str(folder), fmt]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plain(folder: Path, fmt: str) -> None:
    """The same rows by DuckDB alone: read, typed, each key once, sorted, a Parquet file a day."""
    source = folder / "raw" / "interactions" / f"*.{ENDING[fmt]}"
    names = ("user_id", "item_id", "event", "event_at")
    columns = ", ".join(f"'{n}': 'VARCHAR'" for n in names)
    read = {
        "csv": f"read_csv('{source}', all_varchar=true)",
        "json": f"read_json('{source}', columns={{{columns}, 'value': 'DOUBLE'}}, format='newline_delimited')",
        "parquet": f"read_parquet('{source}')",
    }[fmt]
    query = f"""SELECT user_id, item_id, event, value::DOUBLE AS value, event_at::TIMESTAMPTZ AS event_at,
                (event_at::TIMESTAMPTZ)::DATE AS date FROM {read}
                QUALIFY row_number() OVER (PARTITION BY user_id, item_id, event, event_at ORDER BY value) = 1
                ORDER BY date, user_id, item_id, event, event_at"""  # noqa: S608
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'").fetchall()
        target = folder / "plain"
        con.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, PARTITION_BY date, COMPRESSION zstd)").fetchall()


def _night(folder: Path, fmt: str) -> None:
    config = Config(
        paths=Paths(raw=str(folder / "raw"), data=folder / "data"),
        start_date=FIRST,
        encoders={"text": ModelChoice(model="minilm")},
        compute=Compute(device="cpu"),
    )
    days = len(list((folder / "raw" / "interactions").glob("*"))) or 1
    last = FIRST + timedelta(days=max(days, 10) - 1) if days < 365 else FIRST + timedelta(days=364)
    list(standardize(config, Lake(folder / "data" / "lake"), last))


def _arrow_items(folder: Path, fmt: str) -> None:
    table = pa.csv.read_csv(folder / "raw" / "items" / "items.csv")
    pq.write_table(table.sort_by("item_id"), folder / "plain.parquet", compression="zstd")


WORK = {"plain": _plain, "night": _night, "arrow_items": _arrow_items}

if __name__ == "__main__":
    main()
