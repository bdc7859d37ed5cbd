"""Days of events from the pieces of all files: sorted, each event once, every row with a fate.

Equal rows (same user, item, event and time) are one event, of the first file by name. Where a time is known to the day
only, equal rows of one file are separate events (two pieces bought), a microsecond apart; in the hour that the clock
shows twice, the second of two equal rows of a file is an hour later. Works on groups of days inside Beam's elements,
in bounded memory. Belongs here: one day's events. Does not: which days (``standardize``), other tables (``versions``).
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from pipelines.engine import beam as runtime
from pipelines.engine.database import database
from pipelines.lake.storage import PARQUET, write_parts
from pipelines.lake.tables import TABLES
from pipelines.operation import Compute
from pipelines.raw.known import Piece

log = logging.getLogger(__name__)

GROUP_ROWS = 1 << 20  # events that one element makes days of, unless a day has more
BATCH_ROWS = 1 << 17
KEY = ("user_id", "item_id", "event", "event_at")
DUPLICATES = pa.schema(
    [("source", pa.string()), ("position", pa.int64()), ("user_id", pa.string()), ("item_id", pa.string())]
)


class Group(NamedTuple):
    """Days that one element makes.

    Attributes:
        days: in order.
        pieces: files of rows that have some of their events.
        inexact: whether times are known to the day or hour only.
        session_minutes: pause after which a session ends, for events that have none; None where none is set.
    """

    days: tuple[date, ...]
    pieces: tuple[str, ...]
    inexact: bool
    session_minutes: int | None


def groups_of(days: list[date], pieces: list[Piece], session_minutes: int | None) -> list[Group]:
    """Days in order, few enough at a time that a group's events fit the memory."""
    rows: Counter[str] = Counter()
    for p in pieces:
        rows.update({d: n for d, (n, _) in p.account.days.items()})
    found: list[list[date]] = []
    filled = 0
    for day in sorted(days):
        n = rows[day.isoformat()]
        if not found or filled + n > GROUP_ROWS:
            found.append([])
            filled = 0
        found[-1].append(day)
        filled += n
    return [_group(g, pieces, session_minutes) for g in found]


def _group(days: list[date], pieces: list[Piece], session_minutes: int | None) -> Group:
    names = {d.isoformat() for d in days}
    mine = [p for p in pieces if names & p.account.days.keys()]
    inexact = any(names & set(p.account.inexact) for p in mine)
    return Group(tuple(days), tuple(str(p.rows) for p in mine), inexact, session_minutes)


def make_days(groups: list[Group], staging: Path, compute: Compute) -> None:
    """Write ``date=D/`` with parts, duplicates and counts for each day of each group, through Beam."""

    def build(p: beam.Pipeline) -> None:
        elements = [(g, str(staging)) for g in groups]
        p | beam.Create(elements, reshuffle=len(groups) > 1) | beam.ParDo(MakeDays())

    runtime.run(build, compute.runner, compute.runner_options, "make_days")


class MakeDays(beam.DoFn):
    """(group, staging folder) -> the group's days; writes each day's folder."""

    def process(self, element: tuple[Group, str]) -> Iterator[str]:
        """Make the days of one group."""
        group, staging = element
        rows = _sorted_events(group)
        waiting = next(rows, None)
        for day in group.days:
            folder = Path(staging) / f"date={day.isoformat()}"
            folder.mkdir()
            maker = _Day(day, rows, waiting)
            write_parts(TABLES["std_interactions"], folder, maker.kept())
            waiting = maker.waiting
            maker.write_account(folder)
            yield day.isoformat()


def _sorted_events(group: Group) -> Iterator[pa.Table]:
    """Events of the group's days in order of day, key, file and position."""
    if not group.pieces:
        return
    first, last = group.days[0], group.days[-1]
    days = ", ".join(f"DATE '{d}'" for d in group.days)
    names = [c.name for c in TABLES["std_interactions"].columns]
    is_pattern = any(c in name for name in group.pieces for c in "*?[")  # DuckDB would take such a name for one
    source = "events" if is_pattern else "read_parquet(?)"
    chosen = f"SELECT {', '.join(names)}, _position, _day, _known FROM {source} WHERE _day BETWEEN DATE '{first}' AND DATE '{last}' AND _day IN ({days})"  # noqa: E501, S608
    if group.inexact:
        order = "ORDER BY _position, value, session_id, recommendation_id"
        numbered = (
            f"SELECT *, row_number() OVER (PARTITION BY source, {', '.join(KEY)} {order}) - 1 AS k FROM ({chosen})"  # noqa: S608
        )
        moved = "CASE _known WHEN 1 THEN event_at + to_microseconds(k) WHEN 2 THEN event_at + to_hours(least(k, 1)) ELSE event_at END"  # noqa: E501
        chosen = f"SELECT * EXCLUDE k REPLACE ({moved} AS event_at) FROM ({numbered})"  # noqa: S608
    if group.session_minutes:
        chosen = _in_sessions(chosen, group.session_minutes)
    query = f"{chosen} ORDER BY _day, {', '.join(KEY)}, source, _position, value"
    with database() as con:
        if is_pattern:
            con.register("events", dataset(list(group.pieces)))
        params = None if is_pattern else [list(group.pieces)]
        reader = con.sql(query, params=params).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _in_sessions(events: str, minutes: int) -> str:
    """Query of the same events, those without a session in one of their user's, named by user and first event.

    All events of the user's day are looked at, and a day begins anew.
    """
    mine = "(PARTITION BY _day, user_id ORDER BY event_at)"
    begins = f"coalesce(event_at - lag(event_at) OVER {mine} > INTERVAL {minutes} MINUTE, true)"
    begun = f"SELECT *, CASE WHEN {begins} THEN event_at END AS begun FROM ({events})"  # noqa: S608
    first = f"strftime(max(begun) OVER {mine} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')"
    named = f"coalesce(session_id, user_id || '@' || {first}) AS session_id"
    return f"SELECT * EXCLUDE begun REPLACE ({named}) FROM ({begun})"  # noqa: S608


class _Day:
    """One day out of sorted events: its rows once, the others as duplicates."""

    def __init__(self, day: date, rows: Iterator[pa.Table], waiting: pa.Table | None):
        self.day, self.rows, self.waiting = day, rows, waiting
        self.last: pa.Table | None = None
        self.duplicates: list[pa.Table] = []
        self.counts: dict[str, list[int]] = {}  # file -> rows in, out

    def kept(self) -> Iterator[pa.Table]:
        """Rows of ``std_interactions``, at least an empty table."""
        schema = TABLES["std_interactions"].schema({})
        yield schema.empty_table()
        while self.waiting is not None:
            mine = pc.equal(self.waiting["_day"], pa.scalar(self.day, pa.date32()))
            n = pc.sum(mine).as_py() or 0
            if n:
                yield self._once(self.waiting.slice(0, n)).select(schema.names).cast(schema)
            if n < self.waiting.num_rows:
                self.waiting = self.waiting.slice(n)
                return
            self.waiting = next(self.rows, None)

    def _once(self, rows: pa.Table) -> pa.Table:
        before = rows.slice(0, 0) if self.last is None else self.last
        both = pa.concat_tables([before, rows])
        same = np.ones(max(0, both.num_rows - 1), bool)
        for name in KEY:
            column = both[name]
            same &= np.asarray(pc.equal(column.slice(1), column.slice(0, both.num_rows - 1)))
        again = same if before.num_rows else np.concatenate([[False], same])
        self.last = rows.slice(rows.num_rows - 1)
        self._count(rows, 0)
        if not again.any():
            self._count(rows, 1)
            return rows
        names = dict(zip(DUPLICATES.names, ("source", "_position", "user_id", "item_id"), strict=True))
        repeated = rows.filter(pa.array(again))
        self.duplicates.append(pa.table({ours: repeated[c] for ours, c in names.items()}).cast(DUPLICATES))
        out = rows.filter(pa.array(~again))
        self._count(out, 1)
        return out

    def _count(self, rows: pa.Table, at: int) -> None:
        for entry in rows["source"].value_counts().to_pylist():
            self.counts.setdefault(entry["values"], [0, 0])[at] += entry["counts"]

    def write_account(self, folder: Path) -> None:
        """What is not in the table, beside it, for ``account_of``."""
        duplicates = pa.concat_tables([DUPLICATES.empty_table(), *self.duplicates])
        pq.write_table(duplicates, folder / ".duplicates.parquet", **PARQUET)
        (folder / ".counts.json").write_text(json.dumps(self.counts))


def account_of(folder: Path) -> tuple[pa.Table, dict[str, list[int]]]:
    """Duplicates of a day that was made (``DUPLICATES``), and for each file its rows in and out; removed from there."""
    duplicates, counts = folder / ".duplicates.parquet", folder / ".counts.json"
    found = pq.read_table(duplicates), json.loads(counts.read_text())
    duplicates.unlink()
    counts.unlink()
    return found
