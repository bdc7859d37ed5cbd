"""The past as of the end of a day: every read of history goes through here, once a process.

A night of day D knows events, catalogue, uploads and vectors up to the end of D and nothing after it, as a
point-in-time join would (https://docs.feast.dev/getting-started/concepts/point-in-time-joins). Belongs here: what is
read, and when it has to be read again. Does not: what becomes of it (``events``, ``contents``, ``inputs``).
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.modalities import KINDS, MODALITIES, Modality
from encoders.settings import ModelChoice
from encoders.space.features import Features, Uploads
from pipelines.config import Config, digest_of
from pipelines.lake.schemas import EVERYONE, rows_in, vectors_to_numpy
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from pipelines.night.contents import Reuse, content_of, features_of, identity_of, labelled, needed, uploads_of
from pipelines.night.events import COLUMNS, IMPRESSION, Dataset, Feedback, end_of_day, numbered
from pipelines.night.rules import (
    IGNORED_DAYS,
    allowed,
    available,
    ignored_of,
    leanings_of,
    remembered,
    segments_with_lists,
    wishes_of,
)
from pipelines.sections import Rules

Read = TypeVar("Read")

_READ: dict[tuple[str, str], tuple[str, Any]] = {}  # (lake, name) -> what it was read from, and what was read
_READING = threading.RLock()
KEPT_BYTES = 4 << 30  # of all that is kept; what a process read longest ago goes first


def forget() -> None:
    """Give back the memory of all that was read in this process."""
    with _READING:
        _READ.clear()


def _drop_oldest() -> None:
    sizes = {key: _bytes_of(answer) for key, (_, answer) in _READ.items()}
    kept = sum(sizes.values())
    for key, size in sizes.items():
        if kept > KEPT_BYTES:
            del _READ[key]
            kept -= size


def _bytes_of(answer: Any) -> int:
    """Memory of the arrays and tables in what was read."""
    if is_dataclass(answer):
        return sum(_bytes_of(getattr(answer, f.name)) for f in fields(answer))
    return int(getattr(answer, "nbytes", 0))


@dataclass(frozen=True)
class Vectors:
    """Vectors of a modality that a night knows, under one encoder.

    Attributes:
        keys: content sha256 of each row.
        matrix: float32 (n, d_m), unit rows.
        digest: of the encoder.
        sequence: (steps, features) where each row is a flat sequence.
    """

    keys: pa.Array
    matrix: np.ndarray
    digest: str
    sequence: tuple[int, int] | None


class Night:
    """What is known at the end of a day.

    Reads are kept for as long as the partitions that they were made of stay what they are, and are shared by all
    nights of the same day in this process; of each kind of read the last one is kept, of all kinds ``KEPT_BYTES``.

    Args:
        lake: where tables are.
        day: the day D.
        timezone: whose midnight ends it.
        feedback: how strong events count.
        encoders: modality -> model, of the modalities that take part.
        rules: of the shop.
    """

    def __init__(
        self,
        lake: Lake,
        day: date,
        timezone: str,
        feedback: Feedback,
        encoders: Mapping[Modality, ModelChoice],
        rules: Rules,
    ):
        self.lake, self.day, self.timezone, self.feedback = lake, day, timezone, feedback
        self.encoders, self.rules = encoders, rules

    @classmethod
    def of(cls, config: Config, lake: Lake, day: date) -> "Night":
        """The night of a configuration."""
        r = config.recommend
        feedback = Feedback(r.event_weights, r.rating_scale, r.half_life_days)
        return cls(lake, day, config.timezone, feedback, config.encoders, config.rules)

    @cached_property
    def end(self) -> datetime:
        """First instant after the day, UTC."""
        return end_of_day(self.day, self.timezone)

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that take part, in order of name."""
        return tuple(sorted(self.encoders))

    def is_vectors(self, modality: Modality) -> bool:
        """Whether the vectors of a modality are given by item."""
        return self.encoders[modality].is_vectors

    def _partitions(self, table: str) -> list[list[str]]:
        """Identity of each partition up to the day: of what it holds, and of the settings or encoder that made it."""
        found = [self.lake.require(table, d) for d in self.lake.days(table, self.day)]
        return [[m.partition, m.content_digest, m.config_digest] for m in found]

    def _once(self, name: str, made_from: Any, read: Callable[[], Read]) -> Read:
        """What ``read`` gives, read again only when ``made_from`` is not what it was."""
        key, state = (str(self.lake.root), name), digest_of([self.day.isoformat(), made_from])
        with _READING:
            known = _READ.get(key)
            if known is None or known[0] != state:
                _READ.pop(key, None)  # before the next is read, so that both are never held
                known = _READ[key] = (state, read())
                _drop_oldest()
            answer: Read = known[1]
            return answer

    def _if_there(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A table of the day that a night may lack: empty where it does."""
        known = self.lake.manifest(table, self.day)
        if known is None:
            empty = TABLES[table].schema({}).empty_table()
            return empty.select(columns) if columns else empty
        return self._once(table, known.content_digest, lambda: self.lake.read(table, self.day, columns))

    # --- tables of the day ----------------------------------------------------------------------------------------

    def items(self) -> pa.Table:
        """``std_items`` of the day: the catalogue in order of item_id.

        Raises:
            StorageError: the partition is missing or damaged.
        """
        made_from = self.lake.require("std_items", self.day).content_digest
        return self._once("std_items", made_from, lambda: self.lake.read("std_items", self.day))

    def uploads(self) -> pa.Table:
        """``std_user_content`` of the day, oldest first."""
        made_from = self.lake.require("std_user_content", self.day).content_digest
        order = [("created_at", "ascending"), ("content_sha256", "ascending")]
        return self._once(
            "std_user_content", made_from, lambda: self.lake.read("std_user_content", self.day).sort_by(order)
        )

    def media(self) -> pa.Table:
        """``std_media`` of the day."""
        made_from = self.lake.require("std_media", self.day).content_digest
        return self._once("std_media", made_from, lambda: self.lake.read("std_media", self.day))

    def controls(self) -> pa.Table:
        """``std_controls`` of the day; empty in a lake of a version without them."""
        return self._if_there("std_controls")

    def servable(self) -> np.ndarray:
        """Bool (items,): which items of the catalogue may be recommended for the next day."""
        return available(self.items(), self.end) & allowed(self.items(), self.rules)

    def segments(self) -> pa.Table:
        """user_id and segment of ``std_users``; empty in a lake of a version without it."""
        return self._if_there("std_users", ["user_id", "segment"])

    def stand_ins(self) -> list[str]:
        """``*`` for whoever has no history, and ``*name`` for those of each segment with enough who have one."""
        return [EVERYONE, *segments_with_lists(self.segments(), pa.array(self.dataset().users, pa.string()))]

    def leanings(self, data: Dataset) -> sparse.csr_matrix:
        """What those who stand for a segment want more or less of, see ``rules.leanings_of``."""
        return leanings_of(self.segments(), data.users, data.positives())

    def wishes(self, users: pa.Array) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """What users hide, and what they want more or less of; see ``rules.wishes_of``."""
        return wishes_of(self.controls(), self.items(), users)

    def ignored(self, data: Dataset) -> sparse.csr_matrix:
        """How often each user was shown an item lately and never met it (users, items), see ``ignored_of``."""
        since = end_of_day(self.day - timedelta(days=IGNORED_DAYS), self.timezone)
        days = [d for d in self.lake.days("std_interactions", self.day) if d > self.day - timedelta(days=IGNORED_DAYS)]
        parts = [
            p.filter(pc.and_(pc.equal(p["event"], IMPRESSION), pc.greater_equal(p["event_at"], since)))
            for p in self.lake.scan("std_interactions", days, ["user_id", "item_id", "event", "event_at"])
        ]
        return ignored_of(remembered(pa.concat_tables(parts), self.controls()), data)

    # --- events ---------------------------------------------------------------------------------------------------

    def events(self) -> pa.Table:
        """All events up to the end of the day: user_id, item_id, event, value, event_at, in order of day and key.

        What was shown alone is no event of a user; ``feedback`` has it. What a user has asked to forget is not there.
        """
        return self._once("remembered", self._events_are_of(), lambda: remembered(self.every_event(), self.controls()))

    def every_event(self) -> pa.Table:
        """The same with what users have asked to forget."""

        def read() -> pa.Table:
            days = self.lake.days("std_interactions", self.day)
            events = self.lake.read_days("std_interactions", days, COLUMNS)
            shown = pc.equal(events["event"], IMPRESSION)
            return events.filter(pc.invert(shown)) if pc.any(shown).as_py() else events

        return self._once("std_interactions", self._partitions("std_interactions"), read)

    def _events_are_of(self) -> list[Any]:
        controls = self.lake.manifest("std_controls", self.day)
        return [*self._partitions("std_interactions"), controls.content_digest if controls else ""]

    def dataset(self, everyone: bool = False) -> Dataset:
        """Events of known items as arrays; users are all who have events or uploads.

        Args:
            everyone: users who stand for those without history are there too, see ``stand_ins``.
        """
        made_from = [*self._events_are_of(), self.feedback.as_json(), self.timezone]
        made_from += [self.lake.require(t, self.day).content_digest for t in ("std_items", "std_user_content")]
        data = self._once("dataset", made_from, self._dataset)
        return data.with_users(self.stand_ins()) if everyone else data

    def _dataset(self) -> Dataset:
        events, items = self.events(), np.array(self.items()["item_id"].to_pylist(), object)
        users = pc.unique(pa.concat_arrays([pc.unique(t["user_id"]) for t in (events, self.uploads())]))
        return numbered(events, np.array(sorted(users.to_pylist()), object), items, self.end, self.feedback)

    def categories(self) -> pa.ListArray:
        """Categories of each item of the catalogue: given, else those that ``item_labels`` tells."""
        items, told = self.items(), self._if_there("item_labels")
        return labelled(items, told, "categories") if len(told) else items["categories"].combine_chunks()

    def external_lists(self, day: date) -> pa.Table:
        """``external_lists`` of a night up to this one; empty where it had none."""
        if day > self.day or self.lake.manifest("external_lists", day) is None:
            return TABLES["external_lists"].schema({}).empty_table()
        return self.lake.read("external_lists", day)

    def item_graphs(self) -> pa.Table:
        """``item_graphs`` of the day; empty where nothing is known of items."""
        return self._if_there("item_graphs")

    # --- content --------------------------------------------------------------------------------------------------

    def contents(self, modality: Modality) -> pa.ListArray:
        """Content sha256s of each catalogue item in a modality; given vectors are addressed by item id."""
        return content_of(self.items(), modality, self.is_vectors(modality))

    def same_items(self, before: date) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the items that have the same id and content on an earlier night, and their rows there."""
        made_from = [self.lake.require("std_items", d).content_digest for d in (before, self.day)]

        def read() -> tuple[np.ndarray, np.ndarray]:
            columns = ["item_id", *(k.sha_column for k in KINDS.values())]
            earlier = identity_of(self.lake.read("std_items", before, columns))
            row = rows_in(identity_of(self.items()), earlier)
            there = np.flatnonzero(row >= 0)
            return there, row[there]

        return self._once("same_items", made_from, read)

    def needed(self, modality: Modality) -> pa.Table:
        """Distinct content of a modality that the night refers to: content_sha256, text, uri; in order of sha256."""
        return needed(self.items(), self.uploads(), self.media(), modality, self.is_vectors(modality))

    def earlier_keys(self, table: str) -> pa.Table:
        """Content sha256 and digest of every vector that an earlier night has made."""
        columns = list(TABLES[table].key)
        days = [d for d in self.lake.days(table, self.day) if d < self.day]
        made_from = [self.lake.require(table, d).content_digest for d in days]
        empty = pa.table({c: pa.array([], pa.string()) for c in columns})

        def read() -> pa.Table:
            return pa.concat_tables([empty, *(p.cast(empty.schema) for p in self.lake.scan(table, days, columns))])

        return self._once(f"{table}.keys", made_from, read)

    def reuse(self, table: str, digest: str, content: pa.Table, empty: pa.Table) -> Reuse:
        """Split content by where its vectors under a digest are.

        Args:
            table: a table of vectors; ``content_sha256`` and a digest are its key.
            digest: what makes the vectors.
            content: rows with ``content_sha256``.
            empty: no rows of the table, in the types that copied rows get.
        """
        known = self.earlier_keys(table)
        known = known.filter(pc.equal(known[1], digest))["content_sha256"].combine_chunks()
        earlier = pc.is_in(content["content_sha256"], value_set=known)
        todo, copied = content.filter(pc.invert(earlier)), [empty]
        for part in self.lake.scan(table, [d for d in self.lake.days(table) if d >= self.day]):
            later = part.filter(pc.equal(part[empty.column_names[1]], digest))
            later = later.filter(pc.is_in(later["content_sha256"], todo["content_sha256"]))
            todo = todo.filter(pc.invert(pc.is_in(todo["content_sha256"], later["content_sha256"])))
            if later.num_rows:
                copied.append(later.cast(empty.schema))
        return Reuse(todo, content.num_rows - todo.num_rows - sum(p.num_rows for p in copied), pa.concat_tables(copied))

    def vectors(self, modality: Modality) -> Vectors:
        """All vectors of a modality up to the day under the day's encoder.

        Raises:
            StorageError: the modality was not embedded.
        """
        table = f"emb_{modality}"
        return self._once(table, self._partitions(table), lambda: self._vectors(table))

    def _vectors(self, table: str) -> Vectors:
        own = self.lake.require(table, self.day)
        parts, none = [], None
        for part in self.lake.scan(table, self.lake.days(table, self.day)):
            current = part.filter(pc.equal(part["encoder_digest"], own.config_digest))
            none = part.slice(0, 0)
            if current.num_rows:
                parts.append(current)
        vectors = pa.concat_tables(parts or [none])
        sequence = own.spec.get("sequence")
        keys, matrix = (
            vectors["content_sha256"].combine_chunks(),
            vectors_to_numpy(vectors["vector"], own.spec.get("dim", 0)),
        )
        return Vectors(keys, matrix, own.config_digest, tuple(sequence) if sequence else None)

    def features(self) -> dict[Modality, Features]:
        """Vectors of the catalogue in each modality; one that no item has is no part of the space."""
        features = {m: self._features(m) for m in self.modalities}
        return {m: f for m, f in features.items() if f.present.any()}

    def _features(self, modality: Modality) -> Features:
        made_from = [self._partitions(f"emb_{modality}"), self.lake.require("std_items", self.day).content_digest]

        def read() -> Features:
            vectors = self.vectors(modality)
            return features_of(self.contents(modality), vectors.keys, vectors.matrix, vectors.sequence)

        return self._once(f"features.{modality}", made_from, read)

    def encoder_digests(self) -> dict[Modality, str]:
        """Digest of the encoder of each modality."""
        return {m: self.lake.require(f"emb_{m}", self.day).config_digest for m in self.modalities}

    def uploaded(self, users: np.ndarray, modalities: tuple[Modality, ...] = MODALITIES) -> Uploads:
        """Uploads of some users that have a vector, oldest first.

        Args:
            users: ids; lists are in their order.
            modalities: of which vectors are wanted; others do not count.
        """
        vectors = {m: self.vectors(m) for m in self.modalities if m in modalities} if len(self.uploads()) else {}
        known = {m: (v.keys, v.matrix) for m, v in vectors.items()}
        return uploads_of(self.uploads(), users, known)
