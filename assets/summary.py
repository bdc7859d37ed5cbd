"""A night in a few lines: rows read and refused, items known, content encoded, accuracy, where the tables are.

Belongs here: what `nightloom run` prints of a night. Does not: what the UI shows (``shown``), running it (``runs``).
"""

from collections import Counter
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ask import accuracy
from pipelines.config import Config
from pipelines.lake.guards import most_frequent
from pipelines.lake.storage import Lake
from pipelines.sections import SOURCES

SHOWN = 5  # reasons


def summary_of(config: Config, day: date) -> str:
    """The published tables of a night, as text of some ten lines."""
    lake = Lake.of(config)
    lines = [f"night {day}"]
    made = _made_on(lake, day)
    if len(made) > 1:
        events = sum(lake.rows("std_interactions", d) for d in made[:-1])
        lines.append(f"  earlier days made too      {len(made) - 1} ({made[0]} to {made[-2]}), {events:,} events")
    ahead = lake.require("std_interactions", day).counters.get("rows_ahead", 0)
    lines += [f"  events of later days       {ahead:,} wait for their nights"] if ahead else []
    lines += _rows(lake, made, day) + _rejects(lake, made) + _unknown(lake, day)
    lines += [line for m in config.encoders for line in _encoded(lake, day, m)]
    lines += _accuracy(config, lake, day) + _decisions(lake, day)
    lines.append(f"  tables                     {lake.root}/<table>/date={day}/")
    if lake.manifest("reports", day):
        lines.append(f"  to look at                 {lake.folder('reports', day)}/index.html")
    return "\n".join(lines)


def _made_on(lake: Lake, day: date) -> list[date]:
    """Days of events that were last made on this night."""
    known = {d: lake.require("std_interactions", d) for d in lake.days("std_interactions", day)}
    return [d for d, m in known.items() if m.counters.get("night") == day.toordinal()]


def _rows(lake: Lake, made: list[date], day: date) -> list[str]:
    """Rows of each kind of raw file: of events those of all days made, of others those known by the night's end."""
    rows = [
        r for d in made for r in lake.read("ingest_files", d).to_pylist() if d == day or r["kind"] == "interactions"
    ]
    lines = []
    for kind in SOURCES:
        mine = [r for r in rows if r["kind"] == kind]
        total: Counter[str] = Counter()
        for r in mine:
            total.update({k: v for k, v in r.items() if k.startswith("rows_")})
        if mine:
            parts = f"{total['rows_in']:,} in, {total['rows_out']:,} out"
            parts += f", {total['rows_superseded']:,} superseded" if total["rows_superseded"] else ""
            parts += f", {total['rows_quarantined']:,} rejected" if total["rows_quarantined"] else ""
            parts += f", {total['rows_lost']:,} in files refused whole" if total["rows_lost"] else ""
            files = len({r["source"] for r in mine})
            lines.append(f"  rows of {kind:18s} {parts} ({files} file{'s' * (files > 1)})")
        elif kind == "interactions":
            lines.append("  rows of interactions       none for this day")
    return lines


def _rejects(lake: Lake, made: list[date]) -> list[str]:
    if not made:
        return []
    most = most_frequent(pa.concat_tables(lake.read("quarantine", d) for d in made), ["stage", "reason"])
    lines = []
    for n, r in most[:SHOWN]:
        where = r["source"] + (f" line {r['position']}" if r["position"] else "")
        lines.append(f"  rejected {n:>8,} {r['reason']:18s} {where}: {r['detail'][:110]}")
    return lines + ([f"  rejected for {len(most) - SHOWN} more reasons, see table quarantine"] if most[SHOWN:] else [])


def _unknown(lake: Lake, day: date) -> list[str]:
    events, items = (lake.read(t, day, ["item_id"])["item_id"] for t in ("std_interactions", "std_items"))
    if not len(events):
        return []
    unknown = len(events) - (pc.sum(pc.is_in(events, value_set=_one(items))).as_py() or 0)
    return [f"  events of unknown items    {unknown:,} of {len(events):,}"]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _encoded(lake: Lake, day: date, modality: str) -> list[str]:
    manifest = lake.manifest(f"emb_{modality}", day)
    if manifest is None:
        return []
    counted = manifest.counters
    reused = counted.get("earlier", 0) + counted.get("copied", 0)
    failed = f", {counted['failed']:,} failed" if counted.get("failed") else ""
    return [f"  {modality:26s} {counted.get('encoded', 0):,} encoded, {reused:,} reused{failed}"]


def _accuracy(config: Config, lake: Lake, day: date) -> list[str]:
    """NDCG of what was served, judged by this day, against that of the night before."""
    now, earlier = (accuracy(config, lake, d) for d in (day, day - timedelta(days=1)))
    if now is None:
        return []
    before = "" if earlier is None else f" (the night before {earlier['value']:.4f})"
    k, value, users = config.recommend.judged_at, now["value"], now["n_users"]
    return [f"  NDCG@{k:<3d} of last night      {value:.4f}{before}, {config.recommend.serve}, {users:,} users"]


def _decisions(lake: Lake, day: date) -> list[str]:
    """What has been decided of each experiment, and why."""
    if lake.manifest("eval_experiments", day) is None:
        return []
    rows = {r["experiment"]: r for r in lake.read("eval_experiments", day).to_pylist()}
    return [f"  {'experiment ' + name:26s} {r['decision']}: {r['reason']}" for name, r in rows.items()]
