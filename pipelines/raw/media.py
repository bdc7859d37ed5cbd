"""Media files that rows refer to: found, hashed, fully decoded once, described.

A file is opened again only when its size or time of change differs from the last look, so a night costs what is
new. Belongs here: reference -> sha256 or reject. Does not: whose it is (``standardize``), its vector (``embed``).
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import DecodeError
from encoders.modalities import KINDS
from pipelines.engine import beam as runtime
from pipelines.lake.folders import scratch
from pipelines.lake.storage import write_parquet
from pipelines.operation import Compute
from pipelines.raw.places import RawError, RawPlace, RawStore

log = logging.getLogger(__name__)

VERSION = 3  # raise it when decoding rules change
MAX_FILE_BYTES = 256_000_000
BLOCK = 64  # references of one Beam element


@dataclass(frozen=True)
class MediaFile:
    """What is known of one reference.

    Attributes:
        uri: as the row writes it.
        kind: image, audio or video.
        stamp: size and change time (or etag) of the file when it was read.
        sha256: of its bytes; empty where it could not be read.
        size_bytes: file size.
        facts: JSON of the probe: format, width_px, height_px, sample_rate_hz, channels, duration_s.
        reason: reject code, empty for a usable file.
        detail: why it was rejected.
    """

    uri: str
    kind: str
    stamp: str
    sha256: str
    size_bytes: int
    facts: str
    reason: str
    detail: str


SCHEMA = pa.schema([(n, pa.int64() if n == "size_bytes" else pa.string()) for n in MediaFile.__dataclass_fields__])


class MediaIndex:
    """Facts of every media file seen so far. Only a cache: losing it costs time, never correctness.

    Args:
        cache: folder for the index file.
    """

    def __init__(self, cache: Path):
        self.path = cache / f"media-v{VERSION}.parquet"
        rows = pq.read_table(self.path).to_pylist() if self.path.is_file() else []
        self.known = {(r["kind"], r["uri"]): MediaFile(**r) for r in rows}

    def look_up(
        self, references: Sequence[tuple[str, str]], place: RawPlace, compute: Compute
    ) -> dict[tuple[str, str], MediaFile]:
        """Facts of each (kind, uri); files that are new or changed are read and decoded through Beam."""
        store = RawStore(*place)
        stamps = {ref: stamp_of(store, ref[1]) for ref in sorted(set(references))}
        new = [(k, u, s) for (k, u), s in stamps.items() if (k, u) not in self.known or self.known[(k, u)].stamp != s]
        if new:
            log.info("media: decoding %d new or changed files (%d known)", len(new), len(stamps) - len(new))
            self._probe(new, place, compute)
        return {ref: self.known[ref] for ref in stamps}

    def _probe(self, new: list[tuple[str, str, str]], place: RawPlace, compute: Compute) -> None:
        with scratch(self.path.parent, "media") as staging:
            blocks = [(i, new[i : i + BLOCK], len(new)) for i in range(0, len(new), BLOCK)]

            def build(p: beam.Pipeline) -> None:
                p | beam.Create(blocks, reshuffle=False) | beam.ParDo(ProbeBlock(place, str(staging)))

            runtime.run(build, compute.runner, compute.runner_options, "probe_media")
            for part in sorted(staging.glob("*.parquet")):
                for row in pq.read_table(part).to_pylist():
                    self.known[(row["kind"], row["uri"])] = MediaFile(**row)
            rows = [asdict(self.known[key]) for key in sorted(self.known)]
            write_parquet(pa.Table.from_pylist(rows, schema=SCHEMA), staging / "index")
            (staging / "index").replace(self.path)


class ProbeBlock(beam.DoFn):
    """(first index, references, total) -> path of a Parquet shard with their facts."""

    def __init__(self, place: RawPlace, out: str):
        self.place, self.out = place, out

    def process(self, element: tuple[int, list[tuple[str, str, str]], int]) -> Iterator[str]:
        """Read and decode one block."""
        start, references, total = element
        store = RawStore(*self.place)
        rows = [asdict(probe(store, *reference)) for reference in references]
        path = Path(self.out) / f"{start:09d}.parquet"
        write_parquet(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        beam.metrics.Metrics.counter("media", "probed").inc(len(rows))
        log.info("media: %d of %d files decoded", min(start + len(rows), total), total)
        yield str(path)


def stamp_of(store: RawStore, uri: str) -> str:
    """What changes when a file's content does: size and change time or etag; empty where there is no file."""
    try:
        fs, path = store.locate(uri)
        info = fs.info(path)
    except (RawError, OSError, ValueError):
        return ""
    facts = [info.get(k) for k in ("size", "mtime", "ETag", "etag", "LastModified", "updated")]
    return json.dumps([str(f) for f in facts if f is not None])


def probe(store: RawStore, kind: str, uri: str, stamp: str) -> MediaFile:
    """Read, hash and decode one file; a problem becomes the record's reason, never an exception."""

    def rejected(reason: str, detail: str, sha: str = "", size: int = 0) -> MediaFile:
        return MediaFile(uri, kind, stamp, sha, size, "", reason, detail)

    try:
        data = read_media(store, uri)
    except RawError as e:
        return rejected(e.reason, e.detail)
    sha = hashlib.sha256(data).hexdigest()
    prober = KINDS[kind].probe
    if prober is None:
        raise ValueError(f"'{kind}' has no files to look at")
    try:
        facts = prober(data)
    except DecodeError as e:
        return rejected(e.reason, e.detail, sha, len(data))
    return MediaFile(uri, kind, stamp, sha, len(data), json.dumps(facts, sort_keys=True), "", "")


def read_media(store: RawStore, uri: str) -> bytes:
    """Bytes of a media file.

    Raises:
        RawError: it is missing, too large, unreadable, or outside the allowed places.
    """
    fs, path = store.locate(uri)
    try:
        info = fs.info(path)
        if info.get("type") not in (None, "file") or (
            store.is_local and Path(path).exists() and not Path(path).is_file()
        ):
            raise RawError("not_a_file", f"'{uri[:200]}' is a {info.get('type')}")
        if (info.get("size") or 0) > MAX_FILE_BYTES:
            raise RawError("file_too_large", f"{info['size']} bytes, limit {MAX_FILE_BYTES}")
        data: bytes = fs.cat_file(path)
    except FileNotFoundError as e:
        raise RawError("missing_file", f"no file '{uri[:200]}' below the raw folder") from e
    except (OSError, ValueError) as e:
        raise RawError("unreadable_file", f"{type(e).__name__}: {str(e)[:200]}") from e
    return data
