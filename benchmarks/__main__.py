"""`make bench` or `python -m benchmarks [--json] [--only NAME]`: every figure with its baseline.

CPU-seconds of this process, not wall time, because other work on the machine does not change them much.
"""

import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks import encode
from benchmarks.figures import Figure, cpu_seconds, parser, show
from encoders.settings import ModelChoice
from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.operation import Compute
from pipelines.recommenders.ranking import top_k
from pipelines.sections import EventsSource, Paths

DAY = date(2026, 1, 1)


def _config(folder: Path) -> Config:
    return Config(
        paths=Paths(raw=str(folder / "raw"), data=folder / "data", allowed_uris=()),
        start_date=DAY,
        encoders={"text": ModelChoice(model="minilm"), "image": ModelChoice(model="efficientnet-lite0")},
        interactions=EventsSource(path="interactions"),
        compute=Compute(device="cpu"),
    )


def bench_pipeline(folder: Path) -> list[Figure]:
    """Raw CSV to std_interactions (typed, deduplicated, accounted) against plain Arrow read, sort and write."""
    from pipelines.standardize import standardize

    rows = 200_000
    rng = np.random.default_rng(0)
    seconds = rng.integers(0, 86_400, rows) + 1_767_225_600
    table = pa.table(
        {
            "user_id": pa.array(rng.integers(0, 20_000, rows)).cast(pa.string()),
            "item_id": pa.array(rng.integers(0, 5_000, rows)).cast(pa.string()),
            "event": ["view"] * rows,
            "event_at": pa.array(seconds),
        }
    )
    (folder / "raw" / "interactions").mkdir(parents=True)
    (folder / "raw" / "items").mkdir()
    (folder / "raw" / "items" / "items.csv").write_text("item_id,title\n1,one\n")
    source = folder / "raw" / "interactions" / "log.csv"
    pa.csv.write_csv(table, source, pa.csv.WriteOptions(quoting_style="none"))

    def plain() -> None:
        strings = pa.csv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
        read = pa.csv.read_csv(source, convert_options=strings)
        at = pc.multiply(read["event_at"], 1_000_000).cast(pa.timestamp("us", "UTC"))
        keys = [(c, "ascending") for c in ("user_id", "item_id", "event", "event_at")]
        pq.write_table(read.set_column(3, "event_at", at).sort_by(keys), folder / "plain.parquet", compression="zstd")

    base = cpu_seconds(plain, 3)
    config = _config(folder)
    ours = cpu_seconds(lambda: list(standardize(config, Lake(folder / "data" / "lake"), DAY)))
    again = cpu_seconds(lambda: list(standardize(config, Lake(folder / "data" / "lake"), DAY)))
    return [
        Figure(
            "standardize_rows", rows / ours, "rows/CPU-s", "plain Arrow read, sort, write", base / ours, None, "higher"
        ),
        Figure(
            "standardize_rows_unchanged_file",
            rows / again,
            "rows/CPU-s",
            "plain Arrow read, sort, write",
            base / again,
            None,
            "higher",
        ),
    ]


def bench_top_k(folder: Path) -> list[Figure]:
    """Exact, tie-broken top 20 of 50,000 items for 512 users against a bare matmul and torch.topk."""
    import torch

    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 64)).astype(np.float32) for n in (512, 50_000))

    def bare() -> None:
        torch.topk(torch.from_numpy(users) @ torch.from_numpy(items).T, 20)

    torch.set_num_threads(1)
    base = cpu_seconds(bare, 3)
    ours = cpu_seconds(lambda: top_k(users @ items.T, 20), 3)
    return [Figure("top_k", len(users) / ours, "users/CPU-s", "bare matmul + torch.topk", base / ours, None, "higher")]


BENCHMARKS = {"pipeline": bench_pipeline, "top_k": bench_top_k}


def main() -> None:
    """Run the benchmarks and print each figure with its baseline."""
    command = parser(__doc__)
    command.add_argument("--only", choices=[*sorted(BENCHMARKS), "encode"])
    args = command.parse_args()
    for name, run in BENCHMARKS.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                show(run(Path(folder)), args.json)
    if args.only in (None, "encode"):
        for part in encode.PARTS:
            show(encode.bench(part), args.json)


if __name__ == "__main__":
    main()
