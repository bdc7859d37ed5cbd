"""What the report says in numbers: accuracy and its curve, decisions, health of the data, groups, cost.

Each function reads published tables of a night, and those of earlier ones for curves; what is not there is left out.
Belongs here: which numbers, in which order. Does not: how they are drawn (``charts``), pictures (``gallery``).
"""

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.guards import most_frequent
from pipelines.lake.health import said
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake
from pipelines.night.dials import free_settings
from pipelines.night.events import counts_by_day, end_of_day
from pipelines.night.night import Night
from pipelines.page.charts import Curve
from pipelines.raw.known import Known, unread
from pipelines.raw.places import RawStore
from pipelines.sections import SOURCES

NIGHTS = 30  # of curves
SHOWN = (
    "ndcg",
    "recall",
    "hit_rate",
    "auc",
    "coverage",
    "novelty",
    "serendipity",
    "diversity",
    "gini",
    "popularity_lift",
)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Headline:
    """Accuracy of what was served the night before.

    Attributes:
        metric: name with its cutoff.
        value: mean over users, None where nobody could be judged.
        low: lower end of the 95% interval.
        high: upper end.
        before: value of the night before, None without one.
        users: who were judged.
        model: recommender that serves.
    """

    metric: str
    model: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    before: float | None = None
    users: int = 0

    @property
    def change(self) -> str:
        """What has become of it since the night before, in words."""
        if self.value is None or self.before is None or self.low is None or self.high is None:
            return ""
        where = "in" if self.low <= self.before <= self.high else "below" if self.before < self.low else "above"
        sure = ": no change that is sure" if where == "in" else ""
        return f"It was {self.before:.4f} the night before, {where} the interval{sure}."


def headline(config: Config, lake: Lake, day: date) -> Headline:
    """Accuracy of the served recommender."""
    k, model = config.recommend.judged_at, config.recommend.serve
    now, before = (_overall(lake, d, k).get((model, "ndcg")) for d in (day, day - timedelta(days=1)))
    name = f"NDCG@{k}"
    if now is None:
        return Headline(name, model)
    earlier = before["value"] if before else None
    return Headline(name, model, now["value"], now["low"], now["high"], earlier, now["n_users"])


def _overall(lake: Lake, day: date, k: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Model and metric -> its row over all users; empty where a night has judged nothing."""
    if lake.manifest("eval_offline", day) is None:
        return {}
    rows = lake.read("eval_offline", day)
    rows = rows.filter(pc.and_(pc.equal(rows["slice"], "all"), pc.equal(rows["k"], k)))
    ends = {"low": None, "high": None}  # tables of earlier versions have none
    return {(r["model"], r["metric"]): ends | r for r in rows.to_pylist()}


def accuracy_curves(config: Config, lake: Lake, day: date) -> list[Curve]:
    """NDCG by night: what serves first, with its interval, then the others by their latest value."""
    k, serve = config.recommend.judged_at, config.recommend.serve
    nights = [(d, _overall(lake, d, k)) for d in lake.days("eval_offline", day)[-NIGHTS:]]
    points: dict[str, list[tuple[date, dict[str, Any]]]] = {}
    for d, rows in nights:
        for (model, metric), row in rows.items():
            if metric == "ndcg":
                points.setdefault(model, []).append((d, row))
    order = sorted(points, key=lambda m: (m != serve, -points[m][-1][1]["value"], m))
    curves = []
    for model in order[:8]:
        days, rows_of = zip(*points[model], strict=True)
        whole = model == serve and all(r["low"] is not None for r in rows_of)
        ends = ([r["low"] for r in rows_of], [r["high"] for r in rows_of]) if whole else ([], [])
        curves.append(Curve(model, days, [r["value"] for r in rows_of], *ends))
    return curves


def recommenders(config: Config, lake: Lake, day: date) -> Rows:
    """A row a recommender with its metrics over all users, the most accurate first."""
    rows = _overall(lake, day, config.recommend.judged_at)
    models = sorted({m for m, _ in rows}, key=lambda m: (-rows[m, "ndcg"]["value"] if (m, "ndcg") in rows else 0, m))
    return [{"model": m} | {s: rows[m, s]["value"] for s in SHOWN if (m, s) in rows} for m in models]


def slices(config: Config, lake: Lake, day: date) -> Rows:
    """NDCG of what serves by group of users and items, as bars."""
    if lake.manifest("eval_offline", day) is None:
        return []
    wanted = (config.recommend.serve, "ndcg", config.recommend.judged_at)
    rows = [r for r in lake.read("eval_offline", day).to_pylist() if (r["model"], r["metric"], r["k"]) == wanted]
    return [
        {"name": r["slice"], "value": r["value"], "low": r.get("low"), "high": r.get("high"), "n": r["n_users"]}
        for r in sorted(rows, key=lambda r: (r["slice"] != "all", r["slice"]))
    ]


def gaps(config: Config, lake: Lake, day: date) -> Rows:
    """Groups of users that surely fare better or worse than all others, the largest difference first."""
    if lake.manifest("eval_gaps", day) is None:
        return []
    rows = [r for r in lake.read("eval_gaps", day).to_pylist() if r["model"] == config.recommend.serve]
    return sorted((r for r in rows if r["p_holm"] < 0.05), key=lambda r: (-abs(r["difference"]), r["kind"], r["group"]))


def decisions(lake: Lake, day: date) -> Rows:
    """A row an arm of each experiment on its metric, with what is decided."""
    if lake.manifest("eval_experiments", day) is None:
        return []
    return lake.read("eval_experiments", day).to_pylist()


def rows_by_kind(lake: Lake, day: date) -> Rows:
    """Row account of the day by kind of raw file."""
    if lake.manifest("ingest_files", day) is None and not lake.steps("ingest_files", day):
        return []
    total: dict[str, Counter[str]] = {}
    for r in lake.read("ingest_files", day).to_pylist():
        counted = {k: v for k, v in r.items() if k.startswith("rows_")} | {"files": 1}
        total.setdefault(r["kind"], Counter()).update(counted)
    return [{"kind": kind} | dict(counts) for kind, counts in sorted(total.items())]


def unread_files(config: Config) -> list[str]:
    """Files below the raw folder that no section of the configuration reads; of a bucket, nothing is listed for it."""
    store = RawStore(*config.raw_place)
    return unread(store, (n for kind in SOURCES for n in Known(kind, config).names())) if store.is_local else []


def refusals(lake: Lake, day: date) -> Rows:
    """Why rows and files were refused: number, reason, and an example of each."""
    table = lake.read("quarantine", day)
    return [r | {"n": n} for n, r in most_frequent(table, ["stage", "reason"])] if table.num_rows else []


def unknown_events(night: Night) -> int:
    """Events of the day whose item the catalogue does not have."""
    events = night.every_event()
    start = pa.scalar(end_of_day(night.day - timedelta(days=1), night.timezone), events["event_at"].type)
    items = events.filter(pc.greater_equal(events["event_at"], start))["item_id"]
    return int((rows_in(items, night.items()["item_id"].combine_chunks()) < 0).sum())


def health(lake: Lake, day: date) -> Rows:
    """Numbers of the night's data and lists against their usual range, in words."""
    rows = []
    for table in ("night_health", "list_health"):
        if lake.manifest(table, day) is not None:
            rows += lake.read(table, day).to_pylist()
    return [{"text": said(r), "state": "good" if r["passed"] else "accepted" if r["accepted"] else "bad"} for r in rows]


def events_by_day(night: Night) -> tuple[list[date], dict[str, list[int]]]:
    """Last days with the number of events of each kind, the most frequent kind first; what was shown alone is none."""
    since = end_of_day(night.day - timedelta(days=NIGHTS), night.timezone)
    counts = counts_by_day(night.every_event(), since, night.timezone)
    shown = sorted({d for d, _ in counts})
    kinds = sorted({k for _, k in counts}, key=lambda k: (-sum(counts.get((d, k), 0) for d in shown), k))
    return shown, {k: [counts.get((d, k), 0) for d in shown] for k in kinds}


def exposure(lake: Lake, day: date, items: pa.Array) -> np.ndarray:
    """In how many of the night's lists each item of the catalogue is (items,)."""
    found = np.zeros(len(items), np.int64)
    for part in lake.scan("recommendations", [day], ["item_id"]):
        row = rows_in(part["item_id"], items)
        found += np.bincount(row[row >= 0], minlength=len(items))
    return found


def cost(lake: Lake, day: date) -> Rows:
    """What each table and model of the night holds: rows, bytes, contents with a new vector and with an earlier one."""
    rows = []
    for folder in sorted(p.name for p in lake.root.iterdir() if not p.name.startswith(".")):
        manifests = [m for s in lake.steps(folder, day) or [""] if (m := lake.manifest(folder, day, s)) is not None]
        if not manifests or folder == "reports":
            continue
        size = sum((lake.folder(folder, day, m.step) / f).stat().st_size for m in manifests for f in m.files)
        number, earlier = sum(m.rows for m in manifests), manifests[0].counters.get("earlier", 0)
        vectors = {"new": number, "reused": earlier} if folder.startswith("emb_") else {"new": None, "reused": None}
        rows.append({"table": folder, "rows": number, "kb": size / 1024} | vectors)
    return rows


def dials(lake: Lake, day: date) -> Rows:
    """Settings of dials that cost no accuracy, in words; nothing without dials."""
    if lake.manifest("eval_dials", day) is None:
        return []
    free = free_settings(lake.read("eval_dials", day).to_pylist())
    return [{"dial": d, "setting": s, "gains": gains} for d, (s, gains) in free.items()]
