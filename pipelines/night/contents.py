"""Content that a night refers to, which of it has vectors, and content to item and upload vectors.

Belongs here: content addresses, the anti-join, vectors by item. Does not: events (``events``), encoding
(``engine.blocks``).
"""

import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.augment import VERSION as AUGMENT_VERSION
from encoders.base import unit_rows
from encoders.modalities import KINDS, Modality
from encoders.space.fusion import Features
from pipelines.config import Config, digest_of
from pipelines.lake.schemas import vectors_to_numpy
from pipelines.lake.storage import Lake
from pipelines.night.events import Dataset


def item_features(config: Config, lake: Lake, day: date) -> tuple[dict[str, Features], dict[str, str]]:
    """Vectors of the night's catalogue in each configured modality, and the digest of each encoder."""
    columns = ["item_id", *(k.sha_column for k in KINDS.values())]
    items = lake.read("std_items", day, columns)
    features: dict[str, Features] = {}
    digests: dict[str, str] = {}
    for m in sorted(config.encoders):
        row_of, matrix, digests[m] = content_vectors(lake, m, day)
        known = [[row_of[s] for s in shas if s in row_of] for shas in content_of(config, m, items)]
        mean = np.zeros((len(known), matrix.shape[1]), np.float32)
        for i, rows in enumerate(known):
            if rows:
                mean[i] = matrix[rows].mean(0)
        present = np.array([bool(r) for r in known], bool)
        if present.any():  # a modality that no item has is no part of the space
            shape = lake.require(f"emb_{m}", day).spec.get("sequence")
            features[m] = Features(unit_rows(mean), present, tuple(shape) if shape else None)
    return features, digests


def content_of(config: Config, modality: Modality, items: pa.Table) -> list[list[str]]:
    """Content sha256s of each catalogue item in a modality; precomputed vectors are addressed by item id."""
    if config.encoders[modality].is_vectors:
        return [[item_address(i)] for i in items["item_id"].to_pylist()]
    column = items[KINDS[modality].sha_column].to_pylist()
    return column if KINDS[modality].is_file else [[s] if s else [] for s in column]


def needed(config: Config, lake: Lake, modality: Modality, day: date) -> pa.Table:
    """Distinct content of a modality that the night refers to: content_sha256, text, uri; in order of sha256."""
    items = lake.read("std_items", day)
    none = pa.nulls(items.num_rows, pa.string())
    if config.encoders[modality].is_vectors:  # they belong to items; nobody can look up an upload
        address = pa.array([item_address(i) for i in items["item_id"].to_pylist()], pa.string())
        return _distinct(pa.table({"content_sha256": address, "text": items["item_id"], "uri": none}))
    if not KINDS[modality].is_file:
        rows = pa.table({"content_sha256": items[KINDS[modality].sha_column], "text": items["text"], "uri": none})
        rows = rows.filter(pc.is_valid(rows["content_sha256"]))
    else:
        media = lake.read("std_media", day, ["sha256", "uri", "kind"])
        media = media.filter(pc.equal(media["kind"], modality))
        wanted = pc.unique(pc.list_flatten(items[KINDS[modality].sha_column]))
        media = media.filter(pc.is_in(media["sha256"], pa.chunked_array([wanted])))
        none = pa.nulls(media.num_rows, pa.string())
        rows = pa.table({"content_sha256": media["sha256"], "text": none, "uri": media["uri"]})
    uploads = lake.read("std_user_content", day)
    uploads = uploads.filter(pc.equal(uploads["modality"], modality)).select(["content_sha256", "text", "uri"])
    return _distinct(pa.concat_tables([rows, uploads.cast(rows.schema)]))


def _distinct(rows: pa.Table) -> pa.Table:
    once = rows.group_by("content_sha256").aggregate([("text", "min"), ("uri", "min")])
    return once.sort_by("content_sha256").rename_columns(rows.column_names)


@dataclass(frozen=True)
class Reuse:
    """What an anti-join leaves.

    Attributes:
        todo: content without a vector.
        earlier: contents that have one on an earlier night.
        copied: rows of this night or later ones.
    """

    todo: pa.Table
    earlier: int
    copied: pa.Table


def reuse(lake: Lake, table: str, day: date, digest: str, content: pa.Table, empty: pa.Table) -> Reuse:
    """Split content by where its vectors under a digest are.

    Args:
        lake: where tables are.
        table: a table of vectors; ``content_sha256`` and a digest are its first columns.
        day: the night.
        digest: what made the vectors.
        content: rows with ``content_sha256``.
        empty: no rows of the table, in the types that copied rows get.
    """
    parts, counts = [empty], [0, 0]
    for other in sorted(lake.days(table), key=lambda d: (d >= day, d)):
        for part in lake.scan(table, [other]):
            mine = part.filter(pc.equal(part[empty.column_names[1]], digest))
            mine = mine.filter(pc.is_in(mine["content_sha256"], content["content_sha256"]))
            content = content.filter(pc.invert(pc.is_in(content["content_sha256"], mine["content_sha256"])))
            counts[other >= day] += mine.num_rows
            if other >= day and mine.num_rows:
                parts.append(mine.cast(empty.schema))
    return Reuse(content, counts[0], pa.concat_tables(parts))


def view_digest(config: Config, modality: Modality, encoder_digest: str, view: int) -> str:
    """Identity of a view: encoder, ops and epoch."""
    return digest_of([encoder_digest, config.augment.ops(modality), AUGMENT_VERSION, view])


def item_address(item_id: str) -> str:
    """Content address of an item whose vector is given."""
    return hashlib.sha256(b"item\0" + item_id.encode()).hexdigest()


def content_vectors(lake: Lake, modality: str, day: date) -> tuple[dict[str, int], np.ndarray, str]:
    """All vectors of a modality up to the night under its encoder.

    Returns:
        Row of each content sha256, float32 matrix (n, d_m), encoder digest.
    """
    table = f"emb_{modality}"
    digest = lake.require(table, day).config_digest
    parts = [p.filter(pc.equal(p["encoder_digest"], digest)) for p in lake.scan(table, lake.days(table, day))]
    whole = pa.concat_tables([p for p in parts if p.num_rows] or [lake.read(table, day)])
    return (
        {s: i for i, s in enumerate(whole["content_sha256"].to_pylist())},
        vectors_to_numpy(whole["vector"]),
        digest,
    )


def user_uploads(lake: Lake, day: date, data: Dataset, modalities: list[str]) -> list[list[tuple[str, np.ndarray]]]:
    """(modality, vector) of each user's uploads in these modalities, oldest first, in order of ``data.users``."""
    rows = lake.read("std_user_content", day, ["user_id", "content_sha256", "modality", "created_at"])
    rows = rows.sort_by([("created_at", "ascending"), ("content_sha256", "ascending")])
    vectors = {m: content_vectors(lake, m, day)[:2] for m in modalities} if rows.num_rows else {}
    at = {u: i for i, u in enumerate(data.users)}
    out: list[list[tuple[str, np.ndarray]]] = [[] for _ in data.users]
    for r in rows.to_pylist():
        row_of, matrix = vectors.get(r["modality"], ({}, np.zeros((0, 1))))
        if r["content_sha256"] in row_of:
            out[at[r["user_id"]]].append((r["modality"], matrix[row_of[r["content_sha256"]]]))
    return out
