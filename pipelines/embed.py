"""Content to vectors, each content once: anti-join with what is there, encode the rest in batches through Beam.

Writes ``emb_<modality>``: the vectors that night D needs and no earlier night has. Belongs here: what must be
encoded, blocks, batches of one bucket, progress. Does not: decoding and models (``encoders``).
"""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from encoders.base import DecodeError, Device, Encoder, Modality, cause_of, choose_device, load, model_files
from pipelines import runtime
from pipelines.config import Compute, Config, digest_of
from pipelines.media import read_media
from pipelines.raw import RawError, RawStore
from pipelines.schemas import vectors_to_arrow
from pipelines.storage import Lake, Manifest, code_digest, locked, scratch, write_parquet

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """What a worker needs to encode; travels through Beam.

    Attributes:
        modality: text, image or audio.
        model: built-in name, folder or hub id.
        revision: hub commit.
        device: where it runs.
        raw_root: raw folder of media files.
        allowed_uris: see ``RawStore``.
        out: folder for shards.
        total: payloads of the whole job, for progress.
    """

    modality: Modality
    model: str
    revision: str | None
    device: Device
    raw_root: str
    allowed_uris: tuple[str, ...]
    out: str
    total: int


def encoder_identity(config: Config, modality: Modality) -> tuple[str, int]:
    """Digest and vector length of the configured encoder, remembered so that an idle night loads no model."""
    encoder, device = (
        config.encoders[modality],
        choose_device(config.compute.device, config.compute.precision),
    )
    files = model_files(encoder.model, encoder.revision)
    identity = digest_of([modality, encoder.model, files.revision, files.sha256, device.dtype, code_digest()])
    path = config.paths.data / "cache" / "encoders" / f"{identity}.json"
    if not path.is_file():
        spec = load(modality, encoder.model, device, encoder.revision).spec
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        partial.write_text(json.dumps({"digest": spec.digest(), "dim": spec.dim}))
        partial.replace(path)
    known = json.loads(path.read_text())
    return known["digest"], known["dim"]


def needed(lake: Lake, modality: Modality, day: date) -> pa.Table:
    """Distinct content of a modality that the night refers to: content_sha256, text, uri; in order of sha256."""
    items = lake.read("std_items", day)
    uploads = lake.read("std_user_content", day)
    uploads = uploads.filter(pc.equal(uploads["modality"], modality)).select(["content_sha256", "text", "uri"])
    if modality == "text":
        mine = items.select(["text_sha256", "text"]).filter(pc.is_valid(items["text_sha256"]))
        rows = pa.table(
            {
                "content_sha256": mine["text_sha256"],
                "text": mine["text"],
                "uri": pa.nulls(mine.num_rows, pa.string()),
            }
        )
    else:
        media = lake.read("std_media", day, ["sha256", "uri", "kind"])
        media = media.filter(pc.equal(media["kind"], modality))
        wanted = pc.unique(pc.list_flatten(items[f"{modality}_sha256s"]))
        media = media.filter(pc.is_in(media["sha256"], pa.chunked_array([wanted])))
        rows = pa.table(
            {
                "content_sha256": media["sha256"],
                "text": pa.nulls(media.num_rows, pa.string()),
                "uri": media["uri"],
            }
        )
    both = pa.concat_tables([rows, uploads.cast(rows.schema)])
    return (
        both.group_by("content_sha256")
        .aggregate([("text", "min"), ("uri", "min")])
        .sort_by("content_sha256")
        .rename_columns(rows.column_names)
    )


def embed(config: Config, lake: Lake, modality: Modality, day: date) -> Manifest:
    """Publish the vectors that night D needs and no earlier night has.

    Vectors found on a later night or in the partition being rebuilt are copied, not computed again. Counters of
    the manifest: ``needed``, ``earlier`` (on an earlier night), ``copied``, ``encoded``, ``failed``.
    """
    table = f"emb_{modality}"
    digest, dim = encoder_identity(config, modality)
    content = needed(lake, modality, day)
    earlier = _known(lake, table, [d for d in lake.days(table) if d < day], digest, dim, content)
    todo = content.filter(pc.invert(pc.is_in(content["content_sha256"], earlier["content_sha256"])))
    copied = _known(lake, table, [d for d in lake.days(table) if d >= day], digest, dim, todo)
    todo = todo.filter(pc.invert(pc.is_in(todo["content_sha256"], copied["content_sha256"])))
    counters = {
        "needed": content.num_rows,
        "earlier": earlier.num_rows,
        "copied": copied.num_rows,
        "encoded": 0,
        "failed": 0,
    }
    parts, failures = [copied], []
    if todo.num_rows:
        with scratch(config.paths.data / "cache", f"embed-{modality}") as staging:
            counters |= _encode(config, modality, todo, digest, staging)
            parts += [pq.read_table(p) for p in sorted(staging.glob("vectors-*.parquet"))]
            failures = [r for p in sorted(staging.glob("failures-*.parquet")) for r in pq.read_table(p).to_pylist()]
    if failures:
        _quarantine(lake, day, f"embed_{modality}", failures)
    manifest = lake.publish(table, day, pa.concat_tables(parts), config_digest=digest, counters=counters)
    log.info("%s %s: %s", table, day, ", ".join(f"{k} {v}" for k, v in counters.items()))
    return manifest


def _known(lake: Lake, table: str, days: list[date], digest: str, dim: int, content: pa.Table) -> pa.Table:
    """Vectors of ``content`` under this digest on some nights, each once."""
    found = [_vectors([], digest, np.zeros((0, dim), np.float32))]
    left = content["content_sha256"]
    for part in lake.scan(table, days):
        mine = part.filter(pc.and_(pc.equal(part["encoder_digest"], digest), pc.is_in(part["content_sha256"], left)))
        if mine.num_rows:
            found.append(mine.cast(found[0].schema))
            left = left.filter(pc.invert(pc.is_in(left, mine["content_sha256"])))
    return pa.concat_tables(found)


def _vectors(shas: list[str], digest: str, vectors: np.ndarray) -> pa.Table:
    columns = {
        "content_sha256": pa.array(shas, pa.string()),
        "encoder_digest": pa.array([digest] * len(shas), pa.string()),
    }
    return pa.table(columns | {"vector": vectors_to_arrow(vectors)})


def _encode(config: Config, modality: Modality, todo: pa.Table, digest: str, staging: Path) -> dict[str, int]:
    compute: Compute = config.compute
    device = choose_device(compute.device, compute.precision, compute.batch_size)
    encoder = config.encoders[modality]
    job = Job(
        modality,
        encoder.model,
        encoder.revision,
        device,
        config.paths.raw,
        config.paths.allowed_uris,
        str(staging),
        todo.num_rows,
    )
    blocks = []
    for start in range(0, todo.num_rows, compute.shard_rows):
        blocks.append((start, str(staging / f"content-{start:09d}.parquet")))
        write_parquet(todo.slice(start, compute.shard_rows), Path(blocks[-1][1]))
    log.info(
        "emb_%s: encoding %d of new content with %s on %s (%s)",
        modality,
        todo.num_rows,
        encoder.model,
        device.name,
        device.dtype,
    )

    def build(p: beam.Pipeline) -> None:
        p | beam.Create(blocks, reshuffle=False) | beam.ParDo(EncodeBlock(job, digest))

    counted = runtime.run(build, compute.runner, compute.runner_options, f"embed_{modality}")
    return {"encoded": counted.get("encoded", 0), "failed": counted.get("failed", 0)}


def _quarantine(lake: Lake, day: date, stage: str, failures: list[dict[str, Any]]) -> None:
    """Put a later stage's rejects into the night's quarantine beside those of standardization."""
    with locked(lake.root, f"quarantine-{day}"):
        old = lake.read("quarantine", day)
        rows = [
            {
                "stage": stage,
                "source": f["source"],
                "position": 0,
                "reason": f["reason"],
                "detail": f["detail"],
            }
            for f in failures
        ]
        kept = old.filter(pc.not_equal(old["stage"], stage))
        manifest = lake.require("quarantine", day)
        lake.publish(
            "quarantine",
            day,
            pa.concat_tables([kept, pa.Table.from_pylist(rows, schema=old.schema)]),
            config_digest=manifest.config_digest,
        )


FAILURES = pa.schema([("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


class EncodeBlock(beam.DoFn):
    """(first index, Parquet shard of content) -> path of a Parquet shard with its vectors, in the block's order.

    The model is loaded once a process and shared. A payload that fails is written to the block's failures and
    its neighbours go on.
    """

    def __init__(self, job: Job, digest: str):
        self.job, self.digest = job, digest
        self.shared = Shared()

    def setup(self) -> None:
        """Load the model unless this process has it."""
        job = self.job
        self.encoder: Encoder = self.shared.acquire(lambda: load(job.modality, job.model, job.device, job.revision))
        self.store = RawStore(job.raw_root, job.allowed_uris)
        self.started = self.reported = time.monotonic()

    def process(self, element: tuple[int, str]) -> Iterator[str]:
        """Encode one block."""
        start, shard = element
        rows = pq.read_table(shard).to_pylist()
        failures: dict[int, tuple[str, str]] = {}
        buckets: dict[int, list[tuple[int, Any]]] = {}
        vectors = np.full((len(rows), self.encoder.spec.dim), np.nan, np.float32)
        for i, row in enumerate(rows):
            try:
                prepared = self._prepare(row)
            except (DecodeError, RawError) as e:
                failures[i] = (e.reason, e.detail)
                continue
            bucket = buckets.setdefault(self.encoder.bucket(prepared), [])
            bucket.append((i, prepared))
            if len(bucket) >= self.job.device.batch_size:
                self._flush(bucket, vectors, failures)
                self._progress(start + i + 1)
        for bucket in buckets.values():
            self._flush(bucket, vectors, failures)
        self._progress(start + len(rows))
        yield self._write(start, rows, vectors, failures)

    def _prepare(self, row: dict[str, Any]) -> Any:
        payload = row["text"].encode() if row["text"] is not None else read_media(self.store, row["uri"])
        try:
            return self.encoder.prepare(payload)
        except DecodeError:
            raise
        except Exception as e:  # whatever a payload makes a processor do, it must not stop its neighbours
            raise DecodeError("prepare_failed", cause_of(e)) from e

    def _flush(self, bucket: list[tuple[int, Any]], vectors: np.ndarray, failures: dict[int, tuple[str, str]]) -> None:
        """Encode a batch; when it fails, each payload alone. A batch in which every payload fails is no bad input."""
        at = [i for i, _ in bucket]
        try:
            vectors[at] = self.encoder.encode([p for _, p in bucket])
        except Exception:
            alone = {i: self._encode_alone(i, p, vectors) for i, p in bucket}
            if len(bucket) > 1 and all(alone.values()):
                raise
            failures.update({i: ("encode_failed", why) for i, why in alone.items() if why})
        for i in at:
            if i not in failures and not np.isfinite(vectors[i]).all():
                failures[i] = (
                    "non_finite_vector",
                    f"{self.job.model} gives NaN or infinity; the content is out of its range",
                )
        bucket.clear()

    def _encode_alone(self, i: int, prepared: Any, vectors: np.ndarray) -> str:
        try:
            vectors[i] = self.encoder.encode([prepared])[0]
        except Exception as e:
            return cause_of(e)
        return ""

    def _progress(self, reached: int) -> None:
        now = time.monotonic()
        if now - self.reported < REPORT_SECONDS and reached < self.job.total:
            return
        self.reported = now
        rate = reached / max(now - self.started, 1e-9)
        left = (self.job.total - reached) / rate
        log.info("emb_%s: %d of %d, %.0f/s, %.0f s left", self.job.modality, reached, self.job.total, rate, left)

    def _write(
        self, start: int, rows: list[dict[str, Any]], vectors: np.ndarray, failures: dict[int, tuple[str, str]]
    ) -> str:
        out, good = Path(self.job.out), [i for i in range(len(rows)) if i not in failures]
        path = out / f"vectors-{start:09d}.parquet"
        write_parquet(_vectors([rows[i]["content_sha256"] for i in good], self.digest, vectors[good]), path)
        if failures:
            found = [
                {"source": rows[i]["uri"] or rows[i]["content_sha256"], "reason": reason, "detail": detail}
                for i, (reason, detail) in sorted(failures.items())
            ]
            write_parquet(pa.Table.from_pylist(found, schema=FAILURES), out / f"failures-{start:09d}.parquet")
        beam.metrics.Metrics.counter("embed", "encoded").inc(len(good))
        beam.metrics.Metrics.counter("embed", "failed").inc(len(failures))
        return str(path)
