"""Whether a night's data is what the house usually has: numbers of the day against the range of the last nights.

Writes ``night_health``. A night out of range stops before anything is learned from it; the lists of the last good
night are served again until the data is mended or somebody has looked at it (``nightloom accept``). Belongs here: the
numbers. Does not: their checks (``lake.health``), ranges (``learning.usual``), unreadable rows (``lake.guards``).
"""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import FILES
from pipelines.config import Config
from pipelines.engine.database import database
from pipelines.lake.health import NUMBERS, row_of, waiting
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.usual import distance
from pipelines.night.night import Night
from pipelines.night.rules import available

log = logging.getLogger(__name__)

TOP = 100  # items
BEFORE = 7  # days that the most frequent items of a day are compared with


def monitor(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``night_health`` of the night: each number with its usual range, of the day and of days that wait.

    A day waits whose night was stopped by its numbers and neither mended nor accepted since: what is learned from the
    next day is learned from it too.
    """
    rows = [row for d in [*waiting(lake, day, config), day] for row in _judged(config, lake, day, d)]
    provenance = {"config_digest": config.digest("guards")}
    yield lake.publish("night_health", day, _table(rows), **provenance)
    out = [r["number"] for r in rows if not r["passed"]]
    log.info("night_health %s: %d numbers, out of range: %s", day, len(rows), ", ".join(out) or "none")


def _judged(config: Config, lake: Lake, night: date, day: date) -> list[dict[str, Any]]:
    """Rows of ``night_health`` for a day, as a night knows it."""
    facts = Facts(config, lake, night, day)
    rows = []
    for name, values in sorted((facts.of_events | facts.of_catalogue).items()):
        *history, value = values
        rows.append(row_of(config, day, name, value, history, facts.counted(name)))
    return rows


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    rows = sorted(rows, key=lambda r: (r["day"], r["number"]))
    return pa.Table.from_pylist(rows, schema=TABLES["night_health"].schema({}))


# --- numbers ------------------------------------------------------------------------------------------------------


DAILY = """
    WITH dated AS (SELECT *, CAST(timezone($zone, event_at) AS DATE) AS day FROM events),
    first AS (SELECT user_id, min(day) AS first_day FROM dated GROUP BY user_id),
    recent AS (SELECT * FROM dated JOIN first USING (user_id) WHERE day > $since AND day <= $day),
    users AS (SELECT day, user_id, count(*) AS n, any_value(first_day = day) AS is_new FROM recent GROUP BY ALL),
    by_user AS (SELECT day, count(*) AS users, max(n) AS most, avg(is_new::INT) AS new_users FROM users GROUP BY day),
    items AS (
        SELECT day, item_id, count(*) AS n, any_value(known.item_id IS NULL) AS is_unknown
        FROM recent LEFT JOIN catalogue AS known USING (item_id) GROUP BY ALL
    ),
    by_item AS (
        SELECT day, count(*) AS items_met, max(n) AS most, sum(n) FILTER (is_unknown) AS unknown FROM items GROUP BY day
    ),
    worth AS (SELECT day, value, count(*) AS n FROM recent WHERE value IS NOT NULL GROUP BY ALL),
    by_value AS (SELECT day, max(n) / sum(n) AS top_value FROM worth GROUP BY day),
    ratings AS (SELECT day, value, count(*) AS n FROM recent WHERE event = 'rating' AND value IS NOT NULL GROUP BY ALL),
    by_rating AS (SELECT day, max(n) / sum(n) AS top_rating FROM ratings GROUP BY day),
    by_day AS (
        SELECT day, count(*) AS events, avg((value IS NULL)::INT) AS no_value, max(event_at) AS last
        FROM recent GROUP BY day
    )
    SELECT day, events, users, items_met, events / users AS events_per_user, by_user.most / events AS top_user,
        by_item.most / events AS top_item, new_users, coalesce(unknown, 0) / events AS unknown_items, no_value,
        coalesce(top_value, 0) AS top_value, coalesce(top_rating, 0) AS top_rating,
        date_diff('minute', timezone($zone, last), day + INTERVAL 1 DAY) / 60.0 AS hours_silent
    FROM by_day JOIN by_user USING (day) JOIN by_item USING (day) LEFT JOIN by_value USING (day)
        LEFT JOIN by_rating USING (day) ORDER BY day
"""  # noqa: S608
MIX = """
    WITH dated AS (SELECT timezone($zone, event_at) AS local, event, item_id FROM events),
    recent AS (
        SELECT CAST(local AS DATE) AS day, hour(local)::VARCHAR AS hours, event AS kinds, item_id AS items
        FROM dated WHERE CAST(local AS DATE) > $since AND CAST(local AS DATE) <= $day
    )
"""
SHARES = MIX + "SELECT day, {what} AS what, count(*) AS n FROM recent GROUP BY ALL ORDER BY day, what"  # noqa: S608
TOP_ITEMS = f"""
    {MIX}, counted AS (SELECT day, items, count(*) AS n FROM recent GROUP BY ALL),
    days AS (SELECT DISTINCT day FROM counted),
    before AS (
        SELECT days.day, c.items, sum(c.n) AS n FROM days JOIN counted AS c
            ON c.day < days.day AND c.day >= days.day - $before::INT GROUP BY ALL
    ),
    top_before AS (
        SELECT day, items FROM before QUALIFY row_number() OVER (PARTITION BY day ORDER BY n DESC, items) <= $top
    ),
    top_now AS (
        SELECT day, items FROM counted QUALIFY row_number() OVER (PARTITION BY day ORDER BY n DESC, items) <= $top
    )
    SELECT day, count(*) FILTER (b.items IS NOT NULL AND t.items IS NOT NULL) / count(*) AS same
    FROM top_now AS t FULL JOIN top_before AS b USING (day, items) GROUP BY day ORDER BY day
"""  # noqa: S608, all names are ours


class Facts:
    """Numbers of a day and of the days before it, oldest first, the day's last.

    Args:
        config: guards, time zone.
        lake: where tables are.
        night: as whose night the tables are read.
        day: the day, of the night or before it.
    """

    def __init__(self, config: Config, lake: Lake, night: date, day: date):
        self.config, self.lake, self.day = config, lake, day
        self.night = Night.of(config, lake, night)

    def counted(self, name: str) -> float:
        """What a share is of: the day's users, events or items."""
        if NUMBERS[name].of_catalogue:
            return self.of_catalogue["catalogue"][-1]
        values = self.of_events.get("users" if name == "new_users" else "events", [0.0])
        return min([v for v in values if v] or [1.0])

    @cached_property
    def of_events(self) -> dict[str, list[float]]:
        """Number -> values of the days before that have events, then that of the day."""
        window = {"day": self.day, "since": self._since, "zone": self.config.timezone}
        connection = database()
        connection.register("events", self.night.events())
        connection.register("catalogue", self.night.items().select(["item_id"]))
        daily = connection.sql(DAILY, params=window).to_arrow_table().to_pylist()
        rows = {d: r for r in daily if (d := r.pop("day")) == self.day or d not in self.waiting}
        if not rows:
            return {"events": [0.0], "rejected": self._rejected([self.day])}
        every = [min(rows) + timedelta(days=n) for n in range((self.day - min(rows)).days + 1)]
        every = [d for d in every if d == self.day or d not in self.waiting]  # a shop may be closed on Sundays
        numbers = {"events": [float(rows[d]["events"]) if d in rows else 0.0 for d in every]}
        days = sorted({*rows, self.day})
        numbers["rejected"] = self._rejected(days)
        if self.day not in rows:  # of no events nothing but their number can be said
            return numbers
        names = [n for n in next(iter(rows.values())) if n != "events"]
        numbers |= {n: [float(rows[d][n]) for d in days] for n in names}
        for what in ("hours", "kinds"):
            numbers[what] = _distances(connection.sql(SHARES.format(what=what), params=window).to_arrow_table(), days)
        more = {"before": BEFORE, "top": TOP}
        same = connection.sql(TOP_ITEMS, params=window | more).to_arrow_table().to_pylist()
        of_day = {r["day"]: float(r["same"]) for r in same}
        return numbers | {"same_top_items": [of_day.get(d, 1.0) for d in days[1:]] or [1.0]}

    @cached_property
    def waiting(self) -> list[date]:
        """Days of which nothing is usual."""
        return waiting(self.lake, self.night.day, self.config)

    @property
    def _since(self) -> date:
        return self.day - timedelta(days=self.config.guards.usual_days + 1)

    def _rejected(self, days: list[date]) -> list[float]:
        """Share of the rows of events that are refused, of the days that have rows."""
        found = []
        for d in days:
            if not self.lake.steps("ingest_files", d):
                continue
            rows = self.lake.read("ingest_files", d, ["kind", "rows_in", "rows_quarantined", "rows_lost"])
            rows = rows.filter(pc.equal(rows["kind"], "interactions"))
            read, refused, lost = (pc.sum(rows[c]).as_py() or 0 for c in ("rows_in", "rows_quarantined", "rows_lost"))
            if read + lost or d == self.day:
                found.append((refused + lost) / max(read + lost, 1))
        return found or [0.0]

    @cached_property
    def of_catalogue(self) -> dict[str, list[float]]:
        """Number -> values of the nights before, then that of this night."""
        if self.day != self.night.day:
            return {}
        earlier = [d for d in self.lake.days("std_items", self.day) if self._since < d < self.day]
        earlier = [d for d in earlier if d not in self.waiting]
        told = [self._told(d) for d in earlier]
        items = self.night.items()
        servable = self.night.servable()
        now = {"catalogue": float(servable.sum())} | {
            f"without_{c}": float(np.mean(np.asarray(_missing(items, c)))) if items.num_rows else 0.0
            for c in (n.removeprefix("without_") for n in NUMBERS if n.startswith("without_"))
        }
        if earlier:
            before = Night.of(self.config, self.lake, earlier[-1])
            table = self.lake.read("std_items", earlier[-1])
            last = table["item_id"].filter(pa.array(available(table, before.end)))
            kept = pc.is_in(last, value_set=items["item_id"].combine_chunks().filter(pa.array(servable)))
            now["ids_kept"] = float(np.asarray(kept).mean()) if len(last) else 1.0
        return {n: [t[n] for t in told if n in t] + [v] for n, v in now.items()}

    def _told(self, day: date) -> dict[str, float]:
        """Numbers of the catalogue that an earlier night has said; of a night of an older version its size."""
        if self.lake.manifest("night_health", day) is None:
            return {"catalogue": float(self.lake.rows("std_items", day))}
        rows = self.lake.read("night_health", day).to_pylist()
        return {r["number"]: r["value"] for r in rows if r["day"] == day and NUMBERS[r["number"]].of_catalogue}


def _distances(counts: pa.Table, days: list[date]) -> list[float]:
    """How far the shares of each day are from those of the days before the last together."""
    counts = counts.filter(pc.is_in(counts["day"], value_set=pa.array(days)))
    place = np.searchsorted(np.array(days, "datetime64[D]"), counts["day"].to_numpy().astype("datetime64[D]"))
    values, at = np.unique(counts["what"].to_numpy().astype(str), return_inverse=True)
    table = np.zeros((len(days), len(values)))
    np.add.at(table, (place, at), counts["n"].to_numpy())
    return [float(d) for d in distance(table, table[:-1].sum(0) if len(days) > 1 else table[0])]


def _missing(items: pa.Table, what: str) -> pa.ChunkedArray:
    column = items[{k.name: k.sha_column for k in FILES}.get(what, what)]
    return pc.equal(pc.list_value_length(column), 0) if pa.types.is_list(column.type) else column.is_null()
