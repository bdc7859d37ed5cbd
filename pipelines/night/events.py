"""Events as users, items and weights, as one night may see them.

Belongs here: ids to row numbers, events to weights, time splits. Does not: content and its vectors (``contents``),
models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.space.ragged import Ragged

VALIDATION_SHARE = 0.05
RECENT_DAYS = (1, 7, 30)  # windows before the end in which positive events of an item are counted
COLUMNS = ["user_id", "item_id", "event", "value", "event_at"]
IMPRESSION = "impression"  # an item was shown; nobody has met or liked it by that


def counts_by_day(events: pa.Table, since: datetime, timezone: str) -> dict[tuple[date, str], int]:
    """Local day and kind -> number of events from a moment on."""
    at = events["event_at"]
    recent = events.filter(pc.greater_equal(at, pa.scalar(since, at.type)))
    local = pc.local_timestamp(recent["event_at"].cast(pa.timestamp("us", timezone))).cast(pa.date32(), safe=False)
    counted = (
        pa.table({"day": local, "event": recent["event"]}).group_by(["day", "event"]).aggregate([([], "count_all")])
    )
    return {(r["day"], r["event"]): r["count_all"] for r in counted.to_pylist()}


@dataclass(frozen=True)
class Feedback:
    """How strong events count as feedback.

    Attributes:
        weights: event name -> strength; negative ones are no positive feedback, unlisted ones count 1.
        rating_scale: highest rating.
        half_life_days: an event's weight halves in this time.
    """

    weights: Mapping[str, float]
    rating_scale: float
    half_life_days: float

    def as_json(self) -> list[Any]:
        """All of it as JSON values."""
        return [dict(self.weights), self.rating_scale, self.half_life_days]


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

    def recent(self) -> np.ndarray:
        """Positive events of each item in each of the last ``RECENT_DAYS`` (items, windows); float32."""
        counts = [
            np.bincount(self.item[(self.weight > 0) & (self.age_days <= days)], minlength=len(self.items))
            for days in RECENT_DAYS
        ]
        return np.stack(counts, 1).astype(np.float32)

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

    def histories(self) -> Ragged:
        """Distinct positive items of each user, by latest event, oldest first."""
        positive = np.flatnonzero(self.weight > 0)
        user, item = self.user[positive], self.item[positive]
        order = np.lexsort((positive, item, user))
        last = np.append(np.diff(user[order]) | np.diff(item[order]), 1)[: len(order)] != 0
        latest = order[last]
        latest = latest[np.lexsort((latest, user[latest]))]
        return Ragged.grouped(user[latest], item[latest], len(self.users))

    def with_users(self, ids: Iterable[str]) -> "Dataset":
        """The same with users who have no events, those that are not there already."""
        users = np.array(sorted({*self.users.tolist(), *ids}), object)
        if len(users) == len(self.users):
            return self
        return replace(self, users=users, user=np.searchsorted(users, self.users)[self.user])

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
        """The dataset as it was ``age_days`` before its end; what happened at that very moment comes after it."""
        old = self.age_days > age_days  # a day begins with its midnight, where events without a clock are
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


def numbered(events: pa.Table, users: np.ndarray, items: np.ndarray, end: datetime, feedback: Feedback) -> Dataset:
    """Events of known users and items as arrays, in order of time, then key.

    Args:
        events: user_id, item_id, event, value, event_at.
        users: sorted ids.
        items: sorted ids of the catalogue.
        end: when the ages of events are counted from.
        feedback: how strong events count.
    """
    rows = _number(events, users, items)
    at = rows["event_at"].cast(pa.int64()).to_numpy() / 1e6
    return Dataset(
        users=users,
        items=items,
        user=rows["user"].to_numpy(),
        item=rows["item"].to_numpy(),
        weight=event_weights(rows["event"], rows["value"], feedback),
        age_days=(end.timestamp() - at) / 86_400,
        half_life_days=feedback.half_life_days,
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


def event_weights(event: pa.ChunkedArray, value: pa.ChunkedArray, feedback: Feedback) -> np.ndarray:
    """Strength of each event; a rating counts in proportion to the scale's top.

    Args:
        event: names.
        value: ratings and other numbers, null where there is none.
        feedback: weight of each name; unlisted ones count 1.
    """
    names = event.to_numpy()
    values = np.asarray(value.to_numpy(), float)
    kinds, at = np.unique(names.astype(str), return_inverse=True)
    weight = np.array([feedback.weights.get(k, 1.0) for k in kinds])[at] if len(kinds) else np.zeros(0)
    rated = (names == "rating") & ~np.isnan(values)
    return np.where(rated, weight * np.nan_to_num(values) / feedback.rating_scale, weight)
