"""`make bench` or `python -m benchmarks [--json] [--only encode]`: every figure with its baseline.

CPU-seconds of this process, not wall time, because other work on the machine does not change them much.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from encoders.base import choose_device, load
from pipelines.config import Compute, Config, Encoder, Paths, Source
from pipelines.recommenders.base import top_k
from pipelines.storage import Lake

DAY = date(2026, 1, 1)


@dataclass(frozen=True)
class Figure:
    """One measurement: ``ratio`` is value / baseline value, in the same unit."""

    figure: str
    value: float
    unit: str
    baseline: str
    ratio: float
    goal: float | None
    better: str


def cpu_seconds(work: Callable[[], Any], repeat: int = 1) -> float:
    """Least CPU time of some runs."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _config(folder: Path) -> Config:
    return Config(
        paths=Paths(raw=str(folder / "raw"), data=folder / "data", allowed_uris=()),
        start_date=DAY,
        encoders={"text": Encoder(model="minilm"), "image": Encoder(model="efficientnet-lite0")},
        interactions=Source(path="interactions"),  # type: ignore[call-arg]
        compute=Compute(device="cpu"),  # type: ignore[call-arg]
    )


def bench_encode(folder: Path) -> list[Figure]:
    """The embed stage, reading, decoding, writing and Beam included, against the bare decode and forward loop."""
    from PIL import Image

    from pipelines.standardize import standardize

    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(500)]
    (folder / "raw" / "items").mkdir(parents=True)
    (folder / "raw" / "interactions").mkdir()
    lines, texts, images = [], [], []
    for i in range(256):
        texts.append(" ".join(rng.choice(words, rng.integers(5, 60))))
        name = f"{i}.jpg"
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)).resize((640, 480)).save(out, "JPEG")
        images.append(out.getvalue())
        (folder / "raw" / name).write_bytes(images[-1])
        lines.append(json.dumps({"item_id": str(i), "title": texts[-1], "images": name}))
    (folder / "raw" / "items" / "items.jsonl").write_text("\n".join(lines))
    config, lake = _config(folder), Lake(folder / "data" / "lake")
    standardize(config, lake, DAY)
    return [
        _encode_figure(config, lake, "text", [t.encode() for t in texts]),
        _encode_figure(config, lake, "image", images),
    ]


def _encode_figure(config: Config, lake: Lake, modality: Any, payloads: list[bytes]) -> Figure:
    from pipelines.embed import embed

    encoder = load(modality, config.encoders[modality].model, choose_device("cpu"))
    encoder.encode([encoder.prepare(payloads[0])])

    def bare() -> None:
        prepared = sorted((encoder.prepare(p) for p in payloads), key=encoder.bucket)
        start = 0
        while start < len(prepared):
            end = start
            while (
                end < len(prepared)
                and end - start < 32
                and encoder.bucket(prepared[end]) == encoder.bucket(prepared[start])
            ):
                end += 1
            encoder.encode(prepared[start:end])
            start = end

    load_cost = cpu_seconds(lambda: load(modality, config.encoders[modality].model, choose_device("cpu")))
    base = cpu_seconds(bare)
    stage = (
        cpu_seconds(lambda: embed(config, lake, modality, DAY)) - 2 * load_cost
    )  # identity and worker load it once each
    return Figure(
        f"embed_{modality}",
        len(payloads) / stage,
        "items/CPU-s",
        "bare decode and torch loop",
        base / stage,
        0.87,
        "higher",
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
    ours = cpu_seconds(lambda: standardize(config, Lake(folder / "data" / "lake"), DAY))
    again = cpu_seconds(lambda: standardize(config, Lake(folder / "data" / "lake"), DAY))
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


BENCHMARKS = {"encode": bench_encode, "pipeline": bench_pipeline, "top_k": bench_top_k}


def main() -> None:
    """Run the benchmarks and print each figure with its baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--only", choices=sorted(BENCHMARKS))
    args = parser.parse_args()
    for name, run in BENCHMARKS.items():
        if args.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for figure in run(Path(folder)):
                if args.json:
                    print(json.dumps(asdict(figure)), flush=True)
                else:
                    goal = f", goal {figure.goal:g}" if figure.goal is not None else ""
                    numbers = f"{figure.value:12.1f} {figure.unit:12s} {figure.ratio:6.2f}"
                    print(f"{figure.figure:34s} {numbers} x {figure.baseline}{goal}", flush=True)


if __name__ == "__main__":
    main()
