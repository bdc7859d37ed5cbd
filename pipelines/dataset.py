"""Std and emb tables as arrays: users, items, weighted events, vectors, as one night may see them.

Belongs here: which content a night refers to and which of it has vectors, ids to row numbers, events to weights,
content to item vectors. Does not: raw data, models.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.augment import VERSION as AUGMENT_VERSION
from encoders.base import MODALITIES, Modality, unit_rows
from encoders.fusion import Features
from pipelines.config import Config, Recommend, digest_of
from pipelines.schemas import EVERYONE, vectors_to_numpy
from pipelines.storage import Lake

VALIDATION_SHARE = 0.05
COLUMNS = ["user_id", "item_id", "event", "value", "event_at"]


@dataclass(frozen=True)
class Dataset:
    """Events of known items up to the end of a day, oldest first.

    Attributes:
        users: sorted user ids; users without events are there too.
        items: sorted ids of the catalogue.
        user: row of ``users`` of each event.
        item: row of ``items`` of each event.
        weight: strength of each event; zero or less is no positive feedback.
        age_days: days from each event to the end of the day.
        half_life_days: an event's weight halves in this time.
    """

    users: np.ndarray
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    age_days: np.ndarray
    half_life_days: float

    def positives(self) -> sparse.csr_matrix:
        """Decayed weights (users, items) of positive feedback."""
        decay = np.exp2(-self.age_days / self.half_life_days)
        return self._matrix(np.where(self.weight > 0, self.weight * decay, 0.0))

    def seen(self) -> sparse.csr_matrix:
        """One (users, items) wherever there was any event, negative ones included."""
        seen = self._matrix(np.ones(len(self.user)))
        seen.data[:] = 1
        return seen

    def _matrix(self, values: np.ndarray) -> sparse.csr_matrix:
        shape = (len(self.users), len(self.items))
        m = sparse.csr_matrix((values.astype(np.float32), (self.user, self.item)), shape=shape)
        m.sum_duplicates()
        m.eliminate_zeros()
        return m

    def histories(self) -> list[np.ndarray]:
        """Distinct positive items of each user, by latest event, oldest first."""
        positive = self.weight > 0
        user, item = self.user[positive], self.item[positive]
        order = np.lexsort((np.arange(len(user)), user))
        bounds = np.searchsorted(user[order], np.arange(len(self.users) + 1))
        out = []
        for a, b in zip(bounds[:-1], bounds[1:], strict=True):
            newest_first = item[order[a:b]][::-1]
            _, at = np.unique(newest_first, return_index=True)
            out.append(newest_first[np.sort(at)][::-1])
        return out

    def new_since(self, earlier: "Dataset") -> list[np.ndarray]:
        """Distinct positive items of each user that the same user had not in ``earlier``."""
        return [np.setdiff1d(a, b) for a, b in zip(self.histories(), earlier.histories(), strict=True)]

    def validation_days(self) -> float:
        """Age of the last ``VALIDATION_SHARE`` of the events: whole days, at least one, at most half the time span."""
        if not len(self.age_days):
            return 1.0
        age = np.quantile(self.age_days, VALIDATION_SHARE)
        return float(max(1.0, min(np.ceil(age), np.floor(self.age_days.max() / 2))))

    def before(self, age_days: float) -> "Dataset":
        """The dataset as it was ``age_days`` before its end."""
        old = self.age_days >= age_days
        return replace(
            self,
            user=self.user[old],
            item=self.item[old],
            weight=self.weight[old],
            age_days=self.age_days[old] - age_days,
        )


def end_of_day(day: date, timezone: str) -> datetime:
    """First instant after a local day, UTC."""
    return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone)).astimezone(ZoneInfo("UTC"))


def load_dataset(lake: Lake, day: date, settings: Recommend, timezone: str, everyone: bool = False) -> Dataset:
    """Users, catalogue and events as known at the end of ``day``; ``everyone`` adds the user without history."""
    events = lake.read_days("std_interactions", lake.days("std_interactions", day), COLUMNS)
    items = np.array(lake.read("std_items", day, ["item_id"])["item_id"].to_pylist(), dtype=object)
    uploaders = lake.read("std_user_content", day, ["user_id"])["user_id"].to_pylist()
    users = np.array(
        sorted({*pc.unique(events["user_id"]).to_pylist(), *uploaders, *([EVERYONE] if everyone else [])}),
        dtype=object,
    )
    rows = _number(events, users, items)
    end = end_of_day(day, timezone).timestamp()
    at = rows["event_at"].cast(pa.int64()).to_numpy() / 1e6
    return Dataset(
        users=users,
        items=items,
        user=rows["user"].to_numpy(),
        item=rows["item"].to_numpy(),
        weight=event_weights(rows, settings),
        age_days=(end - at) / 86_400,
        half_life_days=settings.half_life_days,
    )


def _number(events: pa.Table, users: np.ndarray, items: np.ndarray) -> pa.Table:
    """Events of known items with row numbers, in order of time, then key."""
    with duckdb.connect() as con:
        con.execute("SET threads = 1; SET TimeZone = 'UTC'")
        con.register("events", events)
        for name, ids in (("users", users), ("items", items)):
            con.register(name, pa.table({"id": pa.array(ids, pa.string()), "n": np.arange(len(ids), dtype=np.int64)}))
        return con.sql(
            """SELECT users.n AS "user", items.n AS item, event, value, event_at FROM events
               JOIN users ON user_id = users.id JOIN items ON item_id = items.id
               ORDER BY event_at, user_id, item_id, event"""
        ).to_arrow_table()


def event_weights(events: pa.Table, settings: Recommend) -> np.ndarray:
    """Strength of each event; a rating counts in proportion to the scale's top."""
    event = events["event"].to_numpy()
    value = events["value"].to_numpy()
    kinds, at = np.unique(event.astype(str), return_inverse=True)
    weight = np.array([settings.event_weights.get(k, 1.0) for k in kinds])[at] if len(kinds) else np.zeros(0)
    rated = (event == "rating") & ~np.isnan(value.astype(float))
    return np.where(rated, weight * np.nan_to_num(value.astype(float)) / settings.rating_scale, weight)


def item_features(config: Config, lake: Lake, day: date) -> tuple[dict[str, Features], dict[str, str]]:
    """Vectors of the night's catalogue in each configured modality, and the digest of each encoder."""
    columns = ["item_id", "text_sha256", *(f"{m}_sha256s" for m in MODALITIES if m != "text")]
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
    if modality == "text":
        return [[s] if s else [] for s in items["text_sha256"].to_pylist()]
    return items[f"{modality}_sha256s"].to_pylist()


def needed(config: Config, lake: Lake, modality: Modality, day: date) -> pa.Table:
    """Distinct content of a modality that the night refers to: content_sha256, text, uri; in order of sha256."""
    items = lake.read("std_items", day)
    none = pa.nulls(items.num_rows, pa.string())
    if config.encoders[modality].is_vectors:  # they belong to items; nobody can look up an upload
        address = pa.array([item_address(i) for i in items["item_id"].to_pylist()], pa.string())
        return _distinct(pa.table({"content_sha256": address, "text": items["item_id"], "uri": none}))
    if modality == "text":
        rows = pa.table({"content_sha256": items["text_sha256"], "text": items["text"], "uri": none})
        rows = rows.filter(pc.is_valid(rows["content_sha256"]))
    else:
        media = lake.read("std_media", day, ["sha256", "uri", "kind"])
        media = media.filter(pc.equal(media["kind"], modality))
        wanted = pc.unique(pc.list_flatten(items[f"{modality}_sha256s"]))
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
