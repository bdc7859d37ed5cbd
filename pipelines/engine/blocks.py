"""Blocks of content to shards of vectors, through Beam: the work that ``embed`` and ``augment`` share.

Belongs here: decoding and encoding side by side on all cores, failures of single payloads, progress. Does not: what
has to be encoded, tables (``embed``, ``augment``), which model does it (``chosen``).
"""

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.augment import augmented
from encoders.base import Encoder
from encoders.batching import MAX_PADDING
from encoders.device import Device, one_thread, single_threaded
from encoders.errors import DecodeError, cause_of
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import SAMPLE
from pipelines.engine import beam as runtime
from pipelines.engine.chosen import Chosen, choose, loaded
from pipelines.lake.schemas import vectors_to_arrow
from pipelines.lake.storage import write_parquet
from pipelines.lake.tables import TABLES
from pipelines.operation import Compute
from pipelines.raw.media import read_media
from pipelines.raw.places import RawError, RawPlace, RawStore

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
AHEAD = 16  # payloads a worker thread may prepare before they are encoded
FAILURES = pa.schema([("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


def payload_of(row: dict[str, Any], store: RawStore) -> bytes:
    """Bytes of a content row: its text, or the file that it names.

    Raises:
        RawError: the file cannot be read.
    """
    return row["text"].encode() if row["text"] is not None else read_media(store, row["uri"])


def of_content(
    modality: Modality, choice: ModelChoice, compute: Compute, cache: Path, raw: RawPlace, content: pa.Table
) -> Chosen:
    """The encoder of a night; measured on its content where this machine does not know the model yet."""
    return choose(modality, choice, compute, cache, lambda: _first_payloads(content, RawStore(*raw)))


def _first_payloads(content: pa.Table, store: RawStore) -> list[bytes]:
    """Readable payloads of the first rows; rows are in order of sha256, so the choice is as good as random."""
    found = []
    for row in content.slice(0, 4 * SAMPLE).to_pylist():
        try:
            found.append(payload_of(row, store))
        except RawError:
            continue
        if len(found) == SAMPLE:
            break
    return found


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        done: payloads encoded or rejected.
        total: payloads of the job.
        reused: contents of the night that needed no encoding.
        rate: payloads a second since the start.
        left_s: seconds to go at this rate.
    """

    done: int
    total: int
    reused: int
    rate: float
    left_s: float

    @property
    def share_reused(self) -> float:
        """Share of the night's content that was not encoded again."""
        return self.reused / max(1, self.reused + self.total)


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class View:
    """An augmentation: ops in their order, and the epoch that seeds them."""

    ops: tuple[str, ...]
    epoch: int


@dataclass(frozen=True)
class Job:
    """What a worker needs to encode; travels through Beam.

    Attributes:
        modality: text, image, audio or video.
        choice: the model and its options.
        device: where and how it runs.
        digest: of the encoder.
        raw: where media files are.
        out: folder for shards.
        view: augment each payload first.
    """

    modality: Modality
    choice: ModelChoice
    device: Device
    digest: str
    raw: RawPlace
    out: str
    view: View | None = None


def encode(
    job: Job, todo: pa.Table, compute: Compute, name: str, reused: int = 0, report: Report | None = None
) -> dict[str, int]:
    """Encode content rows (content_sha256, text, uri) into shards of vectors below ``job.out``.

    Returns:
        Counters: encoded, failed; for text also tokens, padding_tokens, wasteful_batches (over a tenth is padding).
    """
    out, blocks = Path(job.out), []
    for start in range(0, todo.num_rows, compute.shard_rows):
        blocks.append((start, str(out / f"content-{start:09d}.parquet")))
        write_parquet(todo.slice(start, compute.shard_rows), Path(blocks[-1][1]))

    def build(p: beam.Pipeline) -> None:
        p | beam.Create(blocks, reshuffle=False) | beam.ParDo(EncodeBlock(job))

    with _watched(out, name, todo.num_rows, reused, report):
        counted = runtime.run(build, compute.runner, compute.runner_options, name)
    return dict.fromkeys(COUNTERS, 0) | counted


COUNTERS = ("encoded", "failed")
TEXT_COUNTERS = ("tokens", "padding_tokens", "wasteful_batches")


def vector_parts(staging: Path) -> Iterator[pa.Table]:
    """Shards of vectors in order of content."""
    for path in sorted(staging.glob("vectors-*.parquet")):
        yield pq.read_table(path)


def failures(staging: Path) -> list[dict[str, str]]:
    """Source, reason and detail of each payload that failed."""
    return [r for p in sorted(staging.glob("failures-*.parquet")) for r in pq.read_table(p).to_pylist()]


def rejects(stage: str, failures: list[dict[str, Any]]) -> pa.Table:
    """Rows of ``quarantine`` for payloads that could not be encoded."""
    rows = [{"stage": stage, "position": 0} | {k: f[k] for k in ("source", "reason", "detail")} for f in failures]
    return pa.Table.from_pylist(rows, schema=TABLES["quarantine"].schema({}))


@contextmanager
def _watched(out: Path, name: str, total: int, reused: int, report: Report | None) -> Iterator[None]:
    """Log and report progress while the workers write theirs next to their shards."""
    stop, started = threading.Event(), time.monotonic()

    def look() -> None:
        done = sum(int(p.read_text() or 0) for p in out.glob("progress-*"))
        rate = done / max(time.monotonic() - started, 1e-9)
        now = Progress(done, total, reused, rate, (total - done) / rate if rate else float("inf"))
        share = f"{now.share_reused:.0%} of the night reused"
        log.info("%s: %d of %d, %.1f/s, %.0f s left, %s", name, done, total, rate, now.left_s, share)
        if report:
            report(now)

    def watch() -> None:
        while not stop.wait(REPORT_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    look()


class EncodeBlock(beam.DoFn):
    """(first index, Parquet shard of content) -> path of a Parquet shard with its vectors, in the block's order."""

    def __init__(self, job: Job):
        self.job = job

    def setup(self) -> None:
        """Load the model unless this process has it."""
        self.encoder = loaded(self.job.modality, self.job.choice, self.job.device)
        self.store = RawStore(*self.job.raw)
        self.progress = Path(self.job.out) / f"progress-{uuid.uuid4().hex}"
        self.done = 0

    def process(self, element: tuple[int, str]) -> Iterator[str]:
        """Encode one block."""
        start, shard = element
        rows = pq.read_table(shard).to_pylist()
        block = _Block(self.encoder, rows, self._payload, self._advance)
        with single_threaded():
            block.run()
        self._advance(len(block.failures))
        yield self._write(start, rows, block)

    def _payload(self, row: dict[str, Any]) -> bytes:
        payload, view = payload_of(row, self.store), self.job.view
        return augmented(self.job.modality, payload, view.ops, row["content_sha256"], view.epoch) if view else payload

    def _advance(self, n: int) -> None:
        self.done += n
        self.progress.write_text(str(self.done))

    def _write(self, start: int, rows: list[dict[str, Any]], block: "_Block") -> str:
        out, good = Path(self.job.out), [i for i in range(len(rows)) if i not in block.failures]
        path = out / f"vectors-{start:09d}.parquet"
        shas = [rows[i]["content_sha256"] for i in good]
        write_parquet(vector_table(shas, self.job.digest, block.vectors[good]), path)
        if block.failures:
            found = [
                {"source": rows[i]["uri"] or rows[i]["content_sha256"], "reason": reason, "detail": detail}
                for i, (reason, detail) in sorted(block.failures.items())
            ]
            write_parquet(pa.Table.from_pylist(found, schema=FAILURES), out / f"failures-{start:09d}.parquet")
        counts = {"encoded": len(good), "failed": len(block.failures)} | block.text_counts
        for name, n in counts.items():
            beam.metrics.Metrics.counter("embed", name).inc(n)
        return str(path)


def vector_table(shas: list[str], digest: str, vectors: np.ndarray) -> pa.Table:
    """Rows of an ``emb_`` table."""
    columns = {
        "content_sha256": pa.array(shas, pa.string()),
        "encoder_digest": pa.array([digest] * len(shas), pa.string()),
    }
    return pa.table(columns | {"vector": vectors_to_arrow(vectors)})


class _Block:
    """One block of payloads, decoded and encoded side by side by as many threads as the process has cores.

    A payload that fails leaves a reason, and its neighbours go on. What is decoded and not yet encoded is bounded.
    """

    def __init__(
        self,
        encoder: Encoder,
        rows: Sequence[dict[str, Any]],
        payload: Callable[[dict[str, Any]], bytes],
        advance: Callable[[int], None],
    ):
        self.encoder, self.source, self.payload, self.advance = encoder, rows, payload, advance
        self.vectors = np.full((len(rows), encoder.spec.dim), np.nan, np.float32)
        self.failures: dict[int, tuple[str, str]] = {}
        self.counts = dict.fromkeys(TEXT_COUNTERS, 0)
        self.buckets: dict[int, list[tuple[int, Any]]] = {}
        self.encoding: deque[tuple[list[tuple[int, Any]], Future[np.ndarray]]] = deque()
        self.workers = len(os.sched_getaffinity(0))

    @property
    def text_counts(self) -> dict[str, int]:
        """Tokens and padding, where payloads have a length."""
        return self.counts if self.counts["tokens"] else {}

    def run(self) -> None:
        """Prepare in order, a bounded number ahead; encode each batch as soon as it is full."""
        with ThreadPoolExecutor(self.workers, initializer=one_thread) as pool:
            ahead: deque[tuple[int, Future[Any]]] = deque()
            for i in range(len(self.source)):
                ahead.append((i, pool.submit(self._prepare, self.source[i])))
                if len(ahead) >= AHEAD * self.workers:
                    self._take(*ahead.popleft(), pool)
            while ahead:
                self._take(*ahead.popleft(), pool)
            for bucket in sorted(self.buckets, key=lambda b: b * len(self.buckets[b]), reverse=True):
                self._submit(bucket, pool)  # the dearest first, so that no thread ends long after the others
            while self.encoding:
                self._finish(*self.encoding.popleft())

    def _prepare(self, row: dict[str, Any]) -> Any:
        try:
            return self.encoder.prepare(self.payload(row))
        except (DecodeError, RawError):
            raise
        except Exception as e:  # whatever a payload makes a processor do, it must not stop its neighbours
            raise DecodeError("prepare_failed", cause_of(e)) from e

    def _take(self, i: int, prepared: "Future[Any]", pool: ThreadPoolExecutor) -> None:
        try:
            value = prepared.result()
        except (DecodeError, RawError) as e:
            self.failures[i] = (e.reason, e.detail)
            return
        bucket = self.encoder.bucket(value)
        waiting = self.buckets.setdefault(bucket, [])
        waiting.append((i, value))
        if len(waiting) >= self.encoder.rows(bucket):
            self._submit(bucket, pool)

    def _submit(self, bucket: int, pool: ThreadPoolExecutor) -> None:
        batch = self.buckets.pop(bucket)
        self._count(bucket, batch)
        if self.encoder.device.name == "cpu":
            self.encoding.append((batch, pool.submit(self.encoder.encode, [p for _, p in batch])))
            while len(self.encoding) > 2 * self.workers:
                self._finish(*self.encoding.popleft())
            return
        done: Future[np.ndarray] = Future()  # one stream of work on an accelerator, while the pool prepares the next
        try:
            done.set_result(self.encoder.encode([p for _, p in batch]))
        except Exception as e:
            done.set_exception(e)
        self._finish(batch, done)

    def _count(self, bucket: int, batch: list[tuple[int, Any]]) -> None:
        if self.encoder.spec.modality != "text" or not bucket:
            return
        tokens, padded = sum(len(p) for _, p in batch), bucket * len(batch)
        self.counts["tokens"] += tokens
        self.counts["padding_tokens"] += padded - tokens
        self.counts["wasteful_batches"] += padded - tokens > MAX_PADDING * padded

    def _finish(self, batch: list[tuple[int, Any]], vectors: "Future[np.ndarray]") -> None:
        """Store a batch; when it failed, each payload alone. A batch in which every payload fails is no bad input."""
        at = [i for i, _ in batch]
        try:
            self.vectors[at] = vectors.result()
        except Exception:
            alone = {i: self._encode_alone(i, p) for i, p in batch}
            if len(batch) > 1 and all(alone.values()):
                raise
            self.failures.update({i: ("encode_failed", why) for i, why in alone.items() if why})
        model = self.encoder.spec.model
        for i in at:
            if i not in self.failures and not np.isfinite(self.vectors[i]).all():
                detail = f"{model} gives NaN or infinity; the content is out of its range"
                self.failures[i] = ("non_finite_vector", detail)
        self.advance(sum(i not in self.failures for i in at))

    def _encode_alone(self, i: int, prepared: Any) -> str:
        try:
            self.vectors[i] = self.encoder.encode([prepared])[0]
        except Exception as e:
            return cause_of(e)
        return ""
