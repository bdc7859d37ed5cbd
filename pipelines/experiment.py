"""Arms of experiments compared by what came back of their lists, and what is decided of them.

Writes ``eval_experiments``. Belongs here: outcomes by user, the comparison, the decision. Does not: who is in which arm
(``night.arms``), the statistics (``learning.statistics``), which events count for which list (``feedback``).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE, rows_in
from pipelines.lake.storage import Lake, Manifest, StorageError
from pipelines.lake.tables import TABLES
from pipelines.learning.statistics import adjusted, days_needed, sample_ratio_p, sequential_half
from pipelines.night.arms import Decision, arm_of, decisions_of, is_over, units_of
from pipelines.night.events import end_of_day
from pipelines.night.night import Night
from pipelines.sections import Experiment

log = logging.getLogger(__name__)

MISMATCH = 0.001  # p-value of the shares below which an experiment says nothing
BEFORE_DAYS = 28  # before the start, of which events tell users apart
LEAST_USERS = 30  # of an arm, below which means are not taken to be normal


@dataclass(frozen=True)
class Outcomes:
    """What users did in an experiment so far; a user stands for what falls into an arm as a whole.

    Attributes:
        users: sorted ids of who is in an arm and was served.
        arm: name of each user's arm.
        days: nights whose lists are judged.
        means: column of ``feedback`` -> sum of each user through ``days`` (users,).
        before: events of each user before the start.
        shown: bool (users,), who had an impression on the first day; None where the log has none.
    """

    users: pa.Array
    arm: np.ndarray
    days: int
    means: dict[str, np.ndarray]
    before: np.ndarray
    shown: np.ndarray | None

    def by(self, units: np.ndarray) -> "Outcomes":
        """The same by what users fall into an arm with: means over its users, whoever of them was shown anything.

        The analysis is that of what is randomized (https://doi.org/10.1002/sim.4780110202): users of one segment are
        not independent of each other.

        Args:
            units: name of each user's (users,).
        """
        names, first, unit = np.unique(units.astype(str), return_index=True, return_inverse=True)
        means = {c: _means_of(unit, v) for c, v in self.means.items()}
        shown = None if self.shown is None else np.bincount(unit, self.shown, len(names)) > 0
        before = _means_of(unit, self.before)
        return Outcomes(pa.array(names, pa.string()), self.arm[first], self.days, means, before, shown)


def _means_of(unit: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the values of each unit's users (units,) or (units, days); ``unit`` (users,) is numbered from 0."""
    total = np.zeros((int(unit.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(total, unit, values)
    return (total.T / np.bincount(unit)).T


def experiment(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_experiments`` of the night: every experiment that has begun, those that are over as they ended."""
    earlier = [d for d in lake.days("eval_experiments", day) if d < day]
    ended = decisions_of(lake, earlier[-1]) if earlier else {}
    rows: list[dict[str, Any]] = []
    for name, settings in config.experiments.items():
        if settings.start > day:
            continue
        if is_over(config, name, ended):
            last = lake.read("eval_experiments", earlier[-1])
            rows += last.filter(pc.equal(last["experiment"], name)).to_pylist()
            continue
        found = read_out(name, settings, outcomes(config, lake, day, name), day)
        rows += found
        log.info("experiment %s: %s, %s", name, found[0]["decision"], found[0]["reason"])
    rows.sort(key=lambda r: (r["experiment"], r["metric"], r["arm"]))
    table = pa.Table.from_pylist(rows, schema=TABLES["eval_experiments"].schema({}))
    inputs = {"feedback": lake.require("feedback", day).content_digest}
    yield lake.publish("eval_experiments", day, table, config_digest=config.digest("experiments"), inputs=inputs)


def outcomes(config: Config, lake: Lake, day: date, name: str) -> Outcomes:
    """What users of an experiment did with the lists of all nights since its start whose window is over."""
    e, window = config.experiments[name], timedelta(days=config.feedback.window_days)
    last = day - window
    judged = [d for d in lake.days("feedback", day) if e.start <= d - window]
    served = [d for d in lake.days("recommendations", last) if d >= e.start]
    arms = pa.table({"user_id": pa.array([], pa.string()), "arm": pa.array([], pa.string())})
    if served:
        rows = lake.read("recommendations", served[-1], ["user_id", "arm"]).group_by(["user_id", "arm"]).aggregate([])
        arms = rows.filter(pc.invert(pc.starts_with(rows["user_id"], EVERYONE))).sort_by("user_id")
    labels = [_arm_in(label, name) for label in arms["arm"].to_pylist()]
    kept = np.array([label is not None for label in labels], bool)
    users = arms["user_id"].combine_chunks().filter(pa.array(kept))
    arm = np.array([label for label in labels if label is not None], object)
    columns = ["user_id", "arm", "shown", *dict.fromkeys([e.metric, *e.guardrails])]
    parts = [lake.read("feedback", d, columns) for d in judged]
    rows = pa.concat_tables(parts) if parts else TABLES["feedback"].schema({}).empty_table().select(columns)
    of_users = rows_in(rows["user_id"], users)
    labels_of_rows = rows["arm"].combine_chunks().dictionary_encode()
    distinct = np.array([_arm_in(label, name) for label in labels_of_rows.dictionary.to_pylist()] + [None], object)
    mine = distinct[labels_of_rows.indices.to_numpy()] if len(rows) else np.zeros(0, object)
    counted = (of_users >= 0) & (mine == arm[of_users] if len(arm) else np.zeros(len(mine), bool))
    means = {}
    for column in columns[3:]:
        value = np.nan_to_num(rows[column].cast(pa.float64()).to_numpy())[counted]
        means[column] = np.bincount(of_users[counted], value, len(users)) / max(len(judged), 1)
    first = np.arange(len(rows)) < (parts[0].num_rows if parts else 0)  # before any arm could bring users back
    impressions = (rows["shown"].to_numpy() == "impression") & counted & first
    shown = np.bincount(of_users[impressions], minlength=len(users)) > 0 if impressions.any() else None
    found = Outcomes(users, arm, len(judged), means, _before(config, lake, day, e.start, users), shown)
    if e.unit == "user" or not served:
        return found
    return found.by(np.array(units_of(lake, served[-1], users.to_pylist()), object))


def _arm_in(label: str, name: str) -> str | None:
    """Arm of an experiment in a label of ``recommendations.arm``."""
    for part in label.split(";"):
        experiment_name, _, arm = part.partition("=")
        if arm and experiment_name == name:
            return arm
    return None


def _before(config: Config, lake: Lake, day: date, start: date, users: pa.Array) -> np.ndarray:
    """Number of events of each user in the days before an experiment."""
    events = Night.of(config, lake, day).every_event()
    ends = end_of_day(start, config.timezone)
    moment = [pa.scalar(t, events["event_at"].type) for t in (ends - timedelta(days=BEFORE_DAYS), ends)]
    at = events["event_at"]
    row = rows_in(events["user_id"].filter(pc.and_(pc.greater_equal(at, moment[0]), pc.less(at, moment[1]))), users)
    return np.bincount(row[row >= 0], minlength=len(users)).astype(float)


def read_out(name: str, e: Experiment, found: Outcomes, day: date) -> list[dict[str, Any]]:
    """Rows of ``eval_experiments`` of an experiment that runs: each arm and metric, with the decision in every row."""
    control, *others = e.arms
    ways = [np.ones(len(found.users), bool), *([found.shown] if found.shown is not None else [])]
    counts = [[int(((found.arm == a) & counted).sum()) for a in e.arms] for counted in ways]
    served = [c for c in counts if min(c) > 0]  # an arm that is new or renamed has no lists that are judged yet
    ratio = min((sample_ratio_p(c, list(e.share_of.values())) for c in served), default=1.0)
    rows = []
    for metric in dict.fromkeys([e.metric, *e.guardrails]):
        outcome = found.means[metric]
        cleaned = adjusted(outcome, found.before)
        spread = float(outcome.var()) if len(outcome) else 0.0
        for arm in e.arms:
            mine, base = found.arm == arm, found.arm == control
            row = {"experiment": name, "arm": arm, "metric": metric, "users": int(mine.sum()), "days": found.days}
            row |= {"mean": float(outcome[mine].mean()) if mine.any() else 0.0, "sample_ratio_p": ratio}
            row |= {"variance_removed": 1 - float(cleaned.var()) / spread if spread else 0.0}
            row |= {"effect": None, "relative": None, "low": None, "high": None}
            enough = min(mine.sum(), base.sum()) >= LEAST_USERS and found.days
            if arm != control and enough:
                shared_by = len(others) * (1 if metric == e.metric else len(e.guardrails))
                row |= _effect(cleaned[mine], cleaned[base], float(outcome[base].mean()), e, shared_by)
            rows.append(row)
    decision = decide(e, rows, found.days, ratio, day)
    final = {"decision": decision.decision, "served_arm": decision.arm, "reason": decision.reason}
    return [row | final | {"decided_on": decision.on} for row in rows]


def _effect(one: np.ndarray, base: np.ndarray, usual: float, e: Experiment, shared_by: int) -> dict[str, float | None]:
    """Effect of an arm on a daily mean, and its interval; arms, and guardrails, share the level (Bonferroni)."""
    effect = float(one.mean() - base.mean())
    variance = float(one.var(ddof=1) / len(one) + base.var(ddof=1) / len(base))
    half = sequential_half(variance, e.minimum_effect * abs(usual), e.level / shared_by)
    bounds = {"low": effect - half, "high": effect + half} if np.isfinite(half) else {}
    return {"effect": effect, "relative": effect / usual if usual else None, **bounds}


def decide(e: Experiment, rows: list[dict[str, Any]], days: int, ratio: float, day: date) -> Decision:
    """What becomes of an experiment: ``continue``, or for good ``promote``, ``roll_back``, ``keep`` or ``invalid``.

    Args:
        e: the experiment.
        rows: of ``eval_experiments``, each arm and metric.
        days: nights that are judged.
        ratio: p-value of the shares.
        day: the night.
    """
    control, *others = e.arms
    of = {(r["arm"], r["metric"]): r for r in rows}
    if ratio < MISMATCH:
        counts = ", ".join(f"{a} {of[a, e.metric]['users']}" for a in e.arms)
        return Decision(
            "invalid", control, f"users do not fall into the arms by their shares (p {ratio:.1e}; {counts})", day
        )
    harmed = {
        a: g for a in others for g in e.guardrails if of[a, g]["high"] is not None and of[a, g]["high"] < 0
    }  # fmt: skip
    better = [
        a for a in others if a not in harmed and of[a, e.metric]["low"] is not None and of[a, e.metric]["low"] > 0
    ]
    if better:
        best = max(better, key=lambda a: of[a, e.metric]["effect"])
        return Decision("promote", best, f"{best} is surely better: {_said(of[best, e.metric])}", day)
    worse = [a for a in others if of[a, e.metric]["high"] is not None and of[a, e.metric]["high"] < 0]
    if set(worse) | set(harmed) >= set(others):
        what = [f"{a} surely lowers {harmed[a]}" if a in harmed else f"{a}: {_said(of[a, e.metric])}" for a in others]
        return Decision("roll_back", control, "; ".join(what), day)
    said = "; ".join(f"{a}: {_said(of[a, e.metric])}" for a in others)
    if days >= e.days:
        return Decision("keep", control, f"nothing is sure after {days} days ({said})", day)
    return Decision("continue", control, f"day {days} of {e.days}: {said}", day)


def _said(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{row['metric']}: too few users or days"
    usual = row["effect"] / row["relative"] if row["relative"] else 0.0
    share = [f"{100 * row[c] / usual:+.1f}%" if usual else f"{row[c]:+.3g}" for c in ("effect", "low", "high")]
    return f"{row['metric']} {share[0]} ({share[1]} to {share[2]})"


# --- planning -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """How long an experiment takes.

    Attributes:
        days: until the effect is found with 80%, None where the longest looked at does not suffice.
        users: of each arm, or segments where they are the unit.
        mean: daily mean of the metric.
        nights: of feedback that this is taken from.
    """

    days: int | None
    users: dict[str, float]
    mean: float
    nights: int


def planned(config: Config, lake: Lake, day: date, name: str, most: int = 365) -> Planned:
    """Days that the minimum effect of an experiment needs, by the feedback of the last nights up to ``day``.

    Raises:
        StorageError: the night was not run, or fewer than two nights have feedback.
    """
    e = config.experiments[name]
    lake.require("feedback", day)
    days = [d for d in lake.days("feedback", day) if lake.rows("feedback", d)][-BEFORE_DAYS:]
    if len(days) < 2:
        raise StorageError(f"{len(days)} nights up to {day} have feedback, two are needed; run some nights first")
    served = lake.days("recommendations", day)
    users = pc.unique(lake.read("recommendations", served[-1], ["user_id"])["user_id"])
    users = users.filter(pc.invert(pc.starts_with(users, EVERYONE)))
    outcome = np.zeros((len(users), len(days)))
    for n, d in enumerate(days):
        rows = lake.read("feedback", d, ["user_id", e.metric])
        at, value = rows_in(rows["user_id"], users), np.nan_to_num(rows[e.metric].cast(pa.float64()).to_numpy())
        outcome[:, n] = np.bincount(at[at >= 0], value[at >= 0], len(users))
    units = users.to_pylist()
    if e.unit == "segment":
        names, unit = np.unique(np.array(units_of(lake, served[-1], units), str), return_inverse=True)
        units, outcome = names.tolist(), _means_of(unit, outcome)
    within = float(outcome.var(axis=1, ddof=1).mean())
    between = max(float(outcome.mean(1).var(ddof=1)) - within / len(days), 0.0)
    arms = [arm_of(u, e.salt or name, e.share_of) for u in units]
    number = {a: float(arms.count(a)) for a in e.arms}
    control, *others = e.arms
    smallest = [max(number[control], 1.0), max(min(number[a] for a in others), 1.0)]
    mean = float(outcome.mean())
    needed = days_needed(between, within, smallest, e.minimum_effect * mean, e.level / len(others), 0.8, most)
    return Planned(needed, number, mean, len(days))
