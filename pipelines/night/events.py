"""Events as users, items and weights, as one night may see them.

Belongs here: ids to row numbers, events to weights, time splits. Does not: content and its vectors (``contents``),
models.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipelines.config import Recommend
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake

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
