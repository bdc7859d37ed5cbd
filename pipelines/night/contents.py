"""Content that a night refers to, and content to vectors of items and uploads.

Belongs here: content addresses, what has to be encoded, vectors by item and by upload. Does not: reading tables
(``night``), events (``events``), encoding (``engine.blocks``).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.augment import VERSION as AUGMENT_VERSION
from encoders.base import unit_rows
from encoders.modalities import KINDS, Modality
from encoders.space.features import Features, Uploads
from encoders.space.ragged import Ragged
from pipelines.config import digest_of
from pipelines.lake.schemas import rows_in


def item_address(item_id: str) -> str:
    """Content address of an item whose vector is given."""
    return hashlib.sha256(b"item\0" + item_id.encode()).hexdigest()


def content_of(items: pa.Table, modality: Modality, is_vectors: bool) -> pa.ListArray:
    """Content sha256s of each item in a modality, as lists of strings.

    Args:
        items: rows of ``std_items``.
        modality: text, image, audio or video.
        is_vectors: vectors are given by item, so that items are their own content.
    """
    if is_vectors:
        return _alone(pa.array([item_address(i) for i in items["item_id"].to_pylist()], pa.string()))
    column = items[KINDS[modality].sha_column].combine_chunks()
    return column if KINDS[modality].is_file else _alone(column)


def identity_of(items: pa.Table) -> pa.Array:
    """Id and content of each item, as one text."""
    parts = [items["item_id"].combine_chunks()]
    for kind in KINDS.values():
        column = items[kind.sha_column].combine_chunks()
        parts.append(pc.binary_join(column, "+") if kind.is_file else column)
    return pc.binary_join_element_wise(*(pc.fill_null(p, "") for p in parts), " ")


def _alone(values: pa.Array) -> pa.ListArray:
    """A list of one for each value, an empty one for null."""
    offsets = np.cumsum([0, *np.asarray(pc.is_valid(values)).astype(np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.drop_null())


def needed(items: pa.Table, uploads: pa.Table, media: pa.Table, modality: Modality, is_vectors: bool) -> pa.Table:
    """Distinct content of a modality that a night refers to: content_sha256, text, uri; in order of sha256.

    Args:
        items: rows of ``std_items``.
        uploads: rows of ``std_user_content``.
        media: rows of ``std_media``.
        modality: text, image, audio or video.
        is_vectors: see ``content_of``; nobody can look up an upload in a file of vectors, so uploads do not count.
    """
    if is_vectors:
        address = content_of(items, modality, is_vectors).flatten()
        none = pa.nulls(items.num_rows, pa.string())
        return _distinct(pa.table({"content_sha256": address, "text": items["item_id"], "uri": none}))
    kind = KINDS[modality]
    if kind.is_file:
        referred = pc.unique(pc.list_flatten(items[kind.sha_column]))
        files = media.filter(pc.is_in(media["sha256"], referred))  # of any kind: a clip may be sound and video at once
        none = pa.nulls(files.num_rows, pa.string())
        rows = pa.table({"content_sha256": files["sha256"], "text": none, "uri": files["uri"]})
    else:
        told = items.filter(pc.is_valid(items[kind.sha_column]))
        none = pa.nulls(told.num_rows, pa.string())
        rows = pa.table({"content_sha256": told[kind.sha_column], "text": told["text"], "uri": none})
    own = uploads.filter(pc.equal(uploads["modality"], modality)).select(["content_sha256", "text", "uri"])
    return _distinct(pa.concat_tables([rows, own.cast(rows.schema)]))


def _distinct(rows: pa.Table) -> pa.Table:
    once = rows.group_by("content_sha256").aggregate([("text", "min"), ("uri", "min")])
    return once.sort_by("content_sha256").rename_columns(rows.column_names)


def view_digest(encoder_digest: str, ops: Sequence[str], view: int) -> str:
    """Identity of an augmented view: encoder, ops and epoch."""
    return digest_of([encoder_digest, list(ops), AUGMENT_VERSION, view])


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


def features_of(
    contents: pa.ListArray, keys: pa.Array, matrix: np.ndarray, sequence: tuple[int, int] | None = None
) -> Features:
    """Vectors of items, each in the direction of the mean of those of its contents that have one.

    Args:
        contents: content sha256s of each item.
        keys: content sha256 of each row of ``matrix``.
        matrix: float32 (n, d_m), unit rows.
        sequence: (steps, features) where each row is a flat sequence.
    """
    row = rows_in(contents.flatten(), keys)
    owner = np.repeat(np.arange(len(contents)), np.asarray(pc.list_value_length(contents)))
    owner, row = owner[row >= 0], row[row >= 0]
    count = np.bincount(owner, minlength=len(contents))
    total = np.zeros((len(contents), matrix.shape[1]), np.float32)
    place = Ragged.grouped(owner, row, len(contents)).place
    for n in range(int(count.max(initial=0))):  # the n-th content of every item that has so many
        total[owner[place == n]] += matrix[row[place == n]]
    return Features(unit_rows(total), count > 0, sequence)


def uploads_of(
    uploads: pa.Table, users: np.ndarray, vectors: Mapping[Modality, tuple[pa.Array, np.ndarray]]
) -> Uploads:
    """Pieces of some users that have a vector, oldest first.

    Args:
        uploads: rows of ``std_user_content``, oldest first.
        users: sorted ids; lists are in their order.
        vectors: modality -> content sha256s and their vectors (n, d_m).
    """
    parts = []
    for m, (keys, _) in vectors.items():
        at = np.flatnonzero(np.asarray(pc.equal(uploads["modality"], m)))
        row = rows_in(uploads["content_sha256"].take(at), keys)
        parts.append((at[row >= 0], row[row >= 0], np.full(int((row >= 0).sum()), m)))
    if not parts:
        return Uploads.none(len(users))
    at, row, modality = (np.concatenate([p[i] for p in parts]) for i in range(3))
    owner = np.asarray(pc.index_in(uploads["user_id"], value_set=pa.array(users, pa.string())), np.int64)[at]
    order = np.lexsort((at, owner))
    pieces = Ragged.grouped(owner[order], np.arange(len(order)), len(users))
    return Uploads(pieces, modality[order], row[order], {m: matrix for m, (_, matrix) in vectors.items()})


def labelled(items: pa.Table, told: pa.Table, kind: str) -> pa.ListArray:
    """Labels of a kind of each item: those that are given, else those that are told from its content.

    Args:
        items: rows of ``std_items``.
        told: rows of ``item_labels``.
        kind: categories or tags.
    """
    of: dict[str, list[str]] = {}
    for row in told.filter(pc.equal(told["kind"], kind)).to_pylist():
        of.setdefault(row["item_id"], []).append(row["label"])
    names = zip(items["item_id"].to_pylist(), items[kind].to_pylist(), strict=True)
    return pa.array([given or of.get(item, []) for item, given in names], pa.list_(pa.string()))
