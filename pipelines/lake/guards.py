"""Promises that a night's data is what the house usually has: rows read, items known. A night that breaks one stops.

Thresholds are ``[guards]`` of the configuration. Does not belong here: promises between tables that hold whatever the
data (``promises``), columns that files lack (``raw.judge``).
"""

from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.promises import Remark, promise
from pipelines.lake.storage import Lake, Manifest
from pipelines.sections import SOURCES

if TYPE_CHECKING:
    from pipelines.night.night import Night

USUAL_DAYS = 28  # before a day, of which the median is what is usual
COLUMNS_OF = 7  # last nights whose raw files say which columns are usual
EXAMPLES = 3  # reasons in a message
SPELLINGS = {
    "without their .0": lambda ids: pc.replace_substring_regex(ids, r"\.0+$", ""),
    "without leading zeros": lambda ids: pc.utf8_ltrim(ids, "0"),
    "in lower case": pc.utf8_lower,
    "without white space": lambda ids: pc.replace_substring_regex(ids, r"\s", ""),
}


@promise(
    ["ingest_files"],
    "Not more of a usual day's rows are refused than guards.lost_rows allows.",
    ["source", "kind", "rows_in", "rows_quarantined", "rows_lost"],
)
def enough_is_read(config: Config, night: "Night", _: str, rows: pa.Table) -> list[str]:
    """Days made tonight that lost more rows of events than is allowed, and kinds of file that did."""
    problems = _lost_events(config, night)
    for kind in SOURCES[1:]:
        mine = rows.filter(pc.equal(rows["kind"], kind))
        refused, read = (pc.sum(mine[c]).as_py() or 0 for c in ("rows_lost", "rows_in"))
        lost = refused + _rejected(night.lake, night.day, kind).num_rows
        if lost > config.guards.lost_rows * max(1, read + refused):
            problems.append(
                f"{kind}: {lost} of {read + refused} rows are refused ({_why(night.lake, night.day, kind)})"
            )
    return [f"{p}; see table quarantine, or set guards.lost_rows" for p in problems]


@promise(["ingest_files"], "Raw files have the columns that those of the last nights had.", ["kind", "columns"])
def columns_as_before(_config: Config, night: "Night", _: str, rows: pa.Table) -> list[str]:
    """Columns of the night's raw files that no file of the last nights had, and columns that all of them had.

    What is read and is gone stops a night before it begins (``raw.judge``); the others are shown.
    """
    before = [_columns_of(night.lake.read("ingest_files", d, ["kind", "columns"])) for d in _last_nights(night)]
    remarks = []
    for kind, names in _columns_of(rows).items():
        earlier = [found[kind] for found in before if kind in found]
        if not earlier:
            continue
        new, gone = names - set[str]().union(*earlier), earlier[0].intersection(*earlier) - names
        numbers = {f"{kind}_new": float(len(new)), f"{kind}_gone": float(len(gone))}
        told = [f"{what}: {', '.join(sorted(x))}" for what, x in (("new", new), ("gone", gone)) if x]
        text = f"{kind}: columns of raw files that are {'; '.join(told)}" if told else ""
        remarks.append(Remark(text, warns=bool(told), numbers=numbers))
    return list(remarks)


def _last_nights(night: "Night") -> list[date]:
    return [d for d in night.lake.days("ingest_files", night.day) if d < night.day][-COLUMNS_OF:]


def _columns_of(rows: pa.Table) -> dict[str, set[str]]:
    """Kind of raw file -> names of the columns of its files; nothing where a partition of an older version has none."""
    found: dict[str, set[str]] = {}
    for r in rows.to_pylist():
        if r.get("columns"):
            found.setdefault(r["kind"], set()).update(r["columns"])
    return found


def _lost_events(config: Config, night: "Night") -> list[str]:
    problems, lake = [], night.lake
    known = {d: lake.require("std_interactions", d) for d in lake.days("std_interactions", night.day)}
    for d, manifest in known.items():
        lost = manifest.counters.get("rows_lost", 0)
        if not lost or manifest.counters.get("night") != night.day.toordinal():
            continue
        usual = _usual(known, d) or manifest.rows + lost
        if manifest.counters.get("files_refused"):  # nobody knows how much is behind a tear
            lost = max(lost, round(usual - manifest.rows))
        if lost > config.guards.lost_rows * usual:
            why = _why(lake, d, "interactions")
            problems.append(f"{d}: {lost} rows of events are refused, a usual day has {usual:.0f} ({why})")
    return problems


def _usual(known: dict[date, Manifest], day: date) -> float:
    """Median of the events of the days before one, of those that have any; 0 where there are none."""
    before = [m.rows for d, m in known.items() if day - timedelta(days=USUAL_DAYS) <= d < day and m.rows]
    return median(before) if before else 0.0


def _rejected(lake: Lake, day: date, kind: str) -> pa.Table:
    """Rejected rows of a kind of raw file that are lost by it."""
    from pipelines.raw.account import HARMLESS

    rows = lake.read("quarantine", day)
    mine = pc.and_(pc.equal(rows["stage"], f"ingest_{kind}"), pc.greater(rows["position"], 0))
    return rows.filter(pc.and_(mine, pc.invert(pc.is_in(rows["reason"], value_set=pa.array(HARMLESS)))))


def _why(lake: Lake, day: date, kind: str) -> str:
    """The files and reasons of most rejects, each with an example."""
    rows = lake.read("quarantine", day)
    rows = rows.filter(pc.equal(rows["stage"], f"ingest_{kind}"))
    most = most_frequent(rows, ["source", "reason"])[:EXAMPLES]
    return "; ".join(
        f"{r['source']}: "
        + (f"{n} {r['reason']}, line {r['position']}: " if r["position"] else f"{r['reason']}, ")
        + r["detail"]
        for n, r in most
    )


def most_frequent(rows: pa.Table, keys: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """How many rows of ``quarantine`` each combination of some columns has, and the first of them; most first."""
    rows = rows.append_column("n", pa.array(np.arange(rows.num_rows)))
    found = rows.sort_by([("position", "ascending"), ("n", "ascending")]).group_by(keys, use_threads=False)
    counted = found.aggregate([("n", "count"), ("n", "first")]).sort_by(
        [("n_count", "descending"), ("n_first", "ascending")]
    )
    first = rows.take(counted["n_first"]).to_pylist()
    return list(zip(counted["n_count"].to_pylist(), first, strict=True))


@promise(
    ["std_items"], "Not more of the night's events are of unknown items than guards.unknown_items allows.", ["item_id"]
)
def items_are_known(config: Config, night: "Night", _: str, rows: pa.Table) -> list[str]:
    """Events of the day whose item is not in the catalogue, with the spelling that would make it known."""
    from pipelines.night.events import end_of_day

    days = [d for d in night.lake.days("std_interactions", night.day) if night.lake.rows("std_interactions", d)]
    if not days or not rows.num_rows:
        return []
    start, events = end_of_day(days[-1] - timedelta(days=1), config.timezone), night.events()
    events = events.filter(pc.greater_equal(events["event_at"], pa.scalar(start, events["event_at"].type)))
    if not events.num_rows or _unknown(events["item_id"], rows["item_id"]) <= config.guards.unknown_items:
        return []
    events = night.lake.read("std_interactions", days[-1], ["item_id", "source"])
    share = _unknown(events["item_id"], rows["item_id"])
    others = {how: _unknown(f(events["item_id"]), f(rows["item_id"])) for how, f in SPELLINGS.items()}
    best = min(others, key=lambda how: others[how])
    hint = f"; {best} it would be {others[best]:.0%}" if others[best] < share else ""
    unknown = events.filter(pc.invert(pc.is_in(events["item_id"], value_set=rows["item_id"].combine_chunks())))
    example, catalogue = unknown.slice(0, 1).to_pylist()[0], rows["item_id"][0].as_py()
    return [
        f"{share:.0%} of the {events.num_rows} events of {days[-1]} are of items that the catalogue does not have{hint}"
        f": {example['source']} has item_id '{example['item_id']}', the catalogue for example '{catalogue}'; make the "
        "ids alike, or set guards.unknown_items"
    ]


def _unknown(ids: pa.ChunkedArray, catalogue: pa.ChunkedArray) -> float:
    """Share of ids that are not in the catalogue."""
    return float(1 - np.asarray(pc.is_in(ids, value_set=catalogue.combine_chunks())).mean())
