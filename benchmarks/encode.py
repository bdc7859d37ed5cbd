"""`python -m benchmarks.encode [--json] [--only text ...]`: the embed step against the bare work, in one process each.

The step is the Dagster asset: Beam, reading, decoding, batching, writing, publishing, checks, on a catalogue of at
least 2,000 items that are all different. The baseline is a plain loop over the same payloads: the same decoder and
preprocessing, then the bare torch forward pass in float32, sorted by length, at the best batch size of a few. Imports,
model load and the one-off measurement of the model are reported apart. CPU-seconds, except where wall time is named.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, cost, cpu_seconds, parser, show
from encoders.device import one_thread, single_threaded

DAY = date(2026, 1, 1)
ITEMS = 2_000
MANY = 20_000
CORES = len(os.sched_getaffinity(0))
BATCHES = {"text": (8, 32), "image": (1, 8), "audio": (1, 8)}
MODELS = {"text": "minilm", "image": "efficientnet-lite0", "audio": "musicnn"}
PARTS = ("text", "image", "audio", "incremental", "memory")


def _texts(n: int) -> list[bytes]:
    """Item texts of real lengths: a title, or a title and a description."""
    rng = np.random.default_rng(0)
    words = np.array(["river", "night", "of", "the", "blue", "story", "a", "love", "and", "machine", "city", "war"])
    sizes = np.where(rng.random(n) < 0.3, rng.integers(3, 12, n), rng.integers(20, 90, n))
    return [f"{i} {' '.join(rng.choice(words, size))}".encode() for i, size in enumerate(sizes)]


def _images(n: int) -> list[bytes]:
    """JPEG photos of 640 x 480 px: coloured noise at several scales, as heavy to decode as a real one."""
    from PIL import Image

    rng, out = np.random.default_rng(0), []
    base = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
    grain = rng.integers(0, 24, (480, 640, 3), dtype=np.uint8)
    for i in range(n):
        pixels = np.roll(np.asarray(base), i * 37, (0, 1)) // 2 + np.roll(grain, i, 0) + np.uint8(i % 50)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        out.append(file.getvalue())
    return out


def _sounds(n: int) -> list[bytes]:
    """Ogg Vorbis clips of half a second to two and a half, 22 kHz: one patch of musicnn each."""
    import soundfile

    rng, out = np.random.default_rng(0), []
    for i in range(n):
        t = np.arange(int(rng.uniform(0.5, 2.5) * 22_050)) / 22_050
        wave = 0.4 * np.sin(2 * np.pi * (200 + i) * t) + 0.1 * rng.standard_normal(len(t))
        file = io.BytesIO()
        soundfile.write(file, wave, 22_050, format="OGG")
        out.append(file.getvalue())
    return out


MAKE: dict[str, Callable[[int], list[bytes]]] = {"text": _texts, "image": _images, "audio": _sounds}


def _shop(folder: Path, modality: str, payloads: Sequence[bytes], day: date = DAY) -> None:
    """A raw folder, a configuration and the std tables of a catalogue with these payloads."""
    from pipelines.config import load_config
    from pipelines.lake.storage import Lake
    from pipelines.standardize import standardize

    raw = folder / "raw"
    for name in ("items", "interactions", "media"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for i, payload in enumerate(payloads):
        row: dict[str, Any] = {"item_id": str(i)}
        if modality == "text":
            row["title"] = payload.decode()
        else:
            name = f"media/{i}.{'jpg' if modality == 'image' else 'ogg'}"
            (raw / name).write_bytes(payload)
            row["images" if modality == "image" else "audios"] = name
        rows.append(json.dumps(row))
    (raw / "items" / f"{day}.jsonl").write_text("\n".join(rows))
    (folder / "nightloom.toml").write_text(
        f'start_date = {DAY}\n[paths]\nraw = "raw"\ndata = "data"\n[compute]\ndevice = "cpu"\n'
        f'[encoders.{modality}]\nmodel = "{MODELS[modality]}"\n'
    )
    config = load_config(folder / "nightloom.toml")
    list(standardize(config, Lake(config.paths.data / "lake"), day))


def _step(folder: Path, modality: str, day: date = DAY) -> Callable[[], Any]:
    """The materialization of the embedding asset through Dagster, ready to run."""
    import dagster as dg

    from assets.definitions import build_defs

    name = f"emb_{modality}"
    definitions = build_defs(folder / "nightloom.toml")
    assets = [a for a in definitions.assets or [] if isinstance(a, dg.AssetsDefinition)]
    step = next(a for a in assets if dg.AssetKey(name) in a.keys)
    resources = dict(definitions.resources or {})

    def run() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
            done = dg.materialize(
                [step], partition_key=day.isoformat(), instance=instance, resources=resources, run_config=quiet
            )
            assert done.success

    return run


def _manifest(folder: Path, modality: str, day: date = DAY) -> Any:
    from pipelines.lake.storage import Lake

    return Lake(folder / "data" / "lake").require(f"emb_{modality}", day)


def _first_step(folder: Path, modality: str) -> None:
    _shop(folder, modality, MAKE[modality](20))
    _step(folder, modality)()


def _warm(folder: Path, modality: str) -> tuple[float, float]:
    """Import and measure everything on a small catalogue; CPU-seconds of imports with load and measurement, of load."""
    small = folder / "small"
    first = cpu_seconds(lambda: _first_step(small, modality))
    from pipelines.config import load_config
    from pipelines.engine import chosen as night

    config = load_config(small / "nightloom.toml")
    choice = config.encoders[modality]
    cache = folder / "data" / "cache" / "encoders"
    cache.mkdir(parents=True)
    for path in (small / "data" / "cache" / "encoders").iterdir():
        (cache / path.name).write_bytes(path.read_bytes())
    chosen = night.choose(modality, choice, config.compute, folder / "data" / "cache", lambda: [])
    night.unload()
    load = cpu_seconds(lambda: night.loaded(modality, choice, chosen.device))
    night.unload()
    return first, load


@single_threaded()
def _bare(modality: str, payloads: Sequence[bytes], fast: Any) -> tuple[float, float, float, float]:
    """CPU-seconds of decoding, of the encoder's own bare forward pass, of the same on all cores, of the float32 loop.

    The third is what the machine takes for its cores sharing memory and clock, whatever feeds them.
    """
    prepared: list[Any] = []
    decode, _ = cost(lambda: prepared.extend(fast.prepare(p) for p in payloads))
    prepared.sort(key=fast.bucket)

    def ours(rows: list[Any]) -> None:
        start = 0
        while start < len(rows):
            bucket = fast.bucket(rows[start])
            stop = start + 1
            while stop < len(rows) and stop - start < fast.rows(bucket) and fast.bucket(rows[stop]) == bucket:
                stop += 1
            fast.encode(rows[start:stop])
            start = stop

    same = cost(lambda: ours(prepared))[0]
    with ThreadPoolExecutor(CORES, initializer=one_thread) as pool:
        together = cost(lambda: list(pool.map(ours, [prepared[i::CORES] for i in range(CORES)])))[0]
    sample = prepared[:: max(1, len(prepared) // 256)]
    plain = PLAIN[modality]()
    best = min(BATCHES[modality], key=lambda b: cost(lambda: plain(sample, b))[0])
    return decode, same, together, cost(lambda: plain(prepared, best))[0]


def _plain_text() -> Callable[[Sequence[Any], int], None]:
    """The model as transformers gives it: sorted texts padded to the longest of the batch, masked mean."""
    import torch
    from transformers import AutoModel

    from encoders.carried.weights import weights_dir

    model: Any = AutoModel.from_pretrained(weights_dir("minilm")).eval()

    def loop(prepared: Sequence[list[int]], batch: int) -> None:
        ordered = sorted(prepared, key=len)
        with torch.inference_mode():
            for start in range(0, len(ordered), batch):
                chunk = ordered[start : start + batch]
                longest = max(map(len, chunk))
                ids = torch.tensor([t + [0] * (longest - len(t)) for t in chunk])
                mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in chunk])
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()

    return loop


def _plain_image() -> Callable[[Sequence[Any], int], None]:
    """The network as published, batch norms as they are."""
    import torch

    from encoders.carried.networks import build_lite0

    net = build_lite0().eval()

    def loop(prepared: Sequence[np.ndarray], batch: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(prepared), batch):
                pixels = torch.from_numpy(np.stack(prepared[start : start + batch])).permute(0, 3, 1, 2)
                net((pixels.float() - 127.0) / 128.0).numpy()

    return loop


def _plain_audio() -> Callable[[Sequence[Any], int], None]:
    """The network as published on the patches of each clip."""
    import torch

    from encoders.carried.checkpoint import read_tensor_bundle
    from encoders.carried.networks import build_musicnn
    from encoders.carried.weights import weights_dir

    folder = weights_dir("musicnn")
    net = build_musicnn(read_tensor_bundle(folder / ".index", folder / ".data-00000-of-00001")).eval()

    def loop(prepared: Sequence[np.ndarray], batch: int) -> None:
        patches = np.concatenate(prepared)
        with torch.inference_mode():
            for start in range(0, len(patches), batch):
                net(torch.from_numpy(patches[start : start + batch]))

    return loop


PLAIN = {"text": _plain_text, "image": _plain_image, "audio": _plain_audio}


def bench_modality(modality: str, folder: Path) -> Iterator[Figure]:
    """CPU and wall time of the whole step, speed of the forward pass, padding."""
    from encoders.base import EncoderSpec
    from pipelines.config import load_config
    from pipelines.engine import chosen as night

    first, load = _warm(folder, modality)
    payloads = MAKE[modality](ITEMS)
    _shop(folder, modality, payloads)
    run = _step(folder, modality)
    cpu, wall = cost(run)
    manifest = _manifest(folder, modality)
    assert manifest.counters["encoded"] == ITEMS, manifest.counters
    config = load_config(folder / "nightloom.toml")
    choice = config.encoders[modality]
    chosen = night.choose(modality, choice, config.compute, folder / "data" / "cache", lambda: [])
    assert isinstance(chosen.spec, EncoderSpec)
    fast = night.loaded(modality, choice, chosen.device)
    decode, same, together, plain = _bare(modality, payloads, fast)
    step = cpu - load
    how = f"{chosen.device.dtype}, batch {chosen.device.batch}"
    loop = f"bare decode + forward ({how})"
    yield Figure(f"{modality}_step_cpu", ITEMS / step, "items/CPU-s", loop, step / (decode + same), 1.15, "lower")
    yield Figure(
        f"{modality}_step_cpu_f32",
        ITEMS / step,
        "items/CPU-s",
        "bare decode + f32 loop",
        step / (decode + plain),
        1.15,
        "lower",
    )
    bound = min(max(decode, same), (decode + same) / CORES)
    yield Figure(
        f"{modality}_step_wall",
        ITEMS / wall,
        "items/s",
        f"bound on {CORES} cores",
        (wall - load) / bound,
        1.25,
        "lower",
    )
    yield Figure(f"{modality}_forward", ITEMS / same, "items/CPU-s", "bare f32 loop", plain / same, 1.8, "higher")
    yield Figure(
        f"{modality}_forward_all_cores",
        ITEMS / together,
        "items/CPU-s",
        f"own forward pass on one of {CORES} cores",
        together / same,
        None,
        "lower",
    )
    yield Figure(f"{modality}_load", load, "CPU-s", "whole step", load / step, None, "lower")
    yield Figure(f"{modality}_import_load_measure", first, "CPU-s", "whole step", first / step, None, "lower")
    if modality == "text":
        c = manifest.counters
        share = c["padding_tokens"] / (c["tokens"] + c["padding_tokens"])
        yield Figure("text_padding", share, "share", "all tokens", share, 0.1, "lower")
        yield Figure(
            "text_wasteful_batches", c["wasteful_batches"], "batches", "none", c["wasteful_batches"], 0, "lower"
        )


def bench_incremental(folder: Path) -> Iterator[Figure]:
    """A night without news and a night with 1% new content, against the night that encodes everything."""
    _warm(folder, "text")
    payloads = _texts(MANY)
    _shop(folder, "text", payloads)
    full, _ = cost(_step(folder, "text"))
    second, third = DAY + timedelta(days=1), DAY + timedelta(days=2)
    _shop(folder, "text", payloads, second)
    idle, _ = cost(_step(folder, "text", second))
    assert _manifest(folder, "text", second).counters["encoded"] == 0
    new = [b"new " + p for p in payloads[: MANY // 100]]
    _shop(folder, "text", new + payloads[len(new) :], third)
    few, _ = cost(_step(folder, "text", third))
    assert _manifest(folder, "text", third).counters["encoded"] == len(new)
    yield Figure("idle_night", idle, "CPU-s", "night that encodes all", idle / full, 0.02, "lower")
    yield Figure("one_percent_new", few, "CPU-s", "night that encodes all", few / full, 0.02, "lower")


def bench_memory(folder: Path) -> Iterator[Figure]:
    """Peak resident memory of the step at 2,000 and 20,000 items, each in a process of its own."""
    peaks = {}
    for n in (ITEMS, MANY):
        code = (
            "from pathlib import Path; from benchmarks import encode as b; from benchmarks.figures import peak_mb\n"
            f"folder = Path({str(folder / str(n))!r}); b._step(folder, 'text')(); print(peak_mb())"
        )
        _shop(folder / str(n), "text", _texts(n))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
        peaks[n] = float(done.stdout.split()[-1])
    yield Figure("peak_memory_20k", peaks[MANY], "MB", "2,000 items", peaks[MANY] / peaks[ITEMS], 1.1, "lower")


def bench(part: str) -> Iterator[Figure]:
    """Figures of one part, in a fresh folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if part == "incremental":
            yield from bench_incremental(folder)
        elif part == "memory":
            yield from bench_memory(folder)
        else:
            yield from bench_modality(part, folder)


def main() -> None:
    """Run the parts and print each figure with its baseline."""
    command = parser(__doc__)
    command.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = command.parse_args()
    for part in args.only:
        show(bench(part), args.json)


if __name__ == "__main__":
    main()
