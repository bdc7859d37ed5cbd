"""What a night's data is judged by, who accepted what, and which lists are served where a night is stopped.

Belongs here: the names of the numbers, their checks, acceptance, serving again. Does not: where the numbers come from
(``pipelines.monitor``), what is usual (``learning.usual``).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import FILES
from pipelines.config import Config
from pipelines.lake.promises import PROMISES, Promise, Remark
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.usual import Range, usual_amount, usual_share
from pipelines.operation import Thresholds

if TYPE_CHECKING:
    from pipelines.night.night import Night

log = logging.getLogger(__name__)

DAYS_NEEDED, NIGHTS_NEEDED = 7, 2  # days with events, and nights, below which nothing is usual
CATALOGUE_FACTOR = 1.4  # a catalogue does not lose a third of its items in a night


@dataclass(frozen=True)
class Number:
    """A number that a night is judged by.

    Attributes:
        text: what it is.
        kind: a count, or a share of 0 to 1.
        slack: of a share, what lies between the usual and what stops a night.
        stops: whether a night out of range stops; else the check warns.
        of_catalogue: whether it is of the catalogue of a night, not of the events of a day.
    """

    text: str
    kind: Literal["amount", "share"]
    slack: float = 0.2
    stops: bool = True
    of_catalogue: bool = False


NUMBERS: dict[str, Number] = {
    "events": Number("events of the day", "amount"),
    "users": Number("users with events", "amount"),
    "items_met": Number("distinct items with events", "amount"),
    "events_per_user": Number("events a user", "amount"),
    "top_user": Number("share of the events that are one user's", "share"),
    "top_item": Number("share of the events that are of one item", "share"),
    "new_users": Number("share of the users who had no events before", "share", 0.3),
    "unknown_items": Number("share of the events whose item is not in the catalogue", "share"),
    "rejected": Number("share of the rows that are refused, duplicates included", "share"),
    "no_value": Number("share of the events without a value", "share"),
    "top_value": Number("share of one value among those that have any", "share", 0.3),
    "top_rating": Number("share of one rating among all", "share", 0.3),
    "kinds": Number("how far the mix of events is from the usual one", "share", 0.3),
    "hours": Number("how far the hours of events are from the usual ones", "share"),
    "hours_silent": Number("hours from the last event to the end of the day", "amount", stops=False),
    "same_top_items": Number("share of the 100 most frequent items that were so in the last days", "share", 0.3),
    "catalogue": Number("items of the catalogue that may be listed", "amount", of_catalogue=True),
    "ids_kept": Number("share of the items that could be listed and still may be", "share", 0.3, of_catalogue=True),
    **{
        f"without_{c}": Number(f"share of the items without {c}", "share", of_catalogue=True)
        for c in ("title", "description", "price", "categories", *(k.name for k in FILES))
    },
    "same_lists": Number("share of a user's list that was in the list of the night before", "share", 0.3),
}  # fmt: skip


def row_of(
    config: Config, day: date, name: str, value: float, history: Sequence[float], counted: float
) -> dict[str, Any]:
    """A row of ``night_health``: a number against those of earlier days.

    Args:
        config: its guards are used.
        day: whose number it is.
        name: one of ``NUMBERS``.
        value: the number.
        history: the same of earlier days.
        counted: what a share is of.
    """
    number, guards = NUMBERS[name], config.guards
    usual = Range(-np.inf, np.inf)
    if len(history) >= (NIGHTS_NEEDED if number.of_catalogue or name == "same_lists" else DAYS_NEEDED):
        if number.kind == "share":
            usual = usual_share(history, number.slack * guards.usual_slack, counted)
        elif name == "catalogue":
            usual = Range(min(history) / CATALOGUE_FACTOR, np.inf)
        else:
            usual = usual_amount(history, guards.usual_factor)
    fixed = guards.numbers.get(name, Thresholds())
    usual = Range(
        usual.low if fixed.stop_below is None else fixed.stop_below,
        usual.high if fixed.stop_above is None else fixed.stop_above,
    )
    row = {
        "day": day,
        "number": name,
        "value": float(value),
        "usual_low": usual.low if np.isfinite(usual.low) else None,
        "usual_high": usual.high if np.isfinite(usual.high) else None,
        "history": len(history),
        "stops": number.stops,
        "passed": usual.has(value),
    }
    return row | {"accepted": is_accepted(accepted(config, day), row)}


def list_health(config: Config, lake: Lake, day: date, overlap: float, users: int) -> dict[str, Any]:
    """The row of ``list_health`` for how much of the lists was in those of the night before."""
    history = []
    for d in lake.days("list_health", day - timedelta(days=1)):
        if d >= day - timedelta(days=config.guards.usual_days):
            history += [r["value"] for r in lake.read("list_health", d).to_pylist() if r["passed"] or r["accepted"]]
    return row_of(config, day, "same_lists", overlap, history, users)


def waiting(lake: Lake, day: date, config: Config) -> list[date]:
    """Earlier days of events whose numbers stopped a night that is neither accepted nor run again."""
    since = day - timedelta(days=config.guards.usual_days)
    found = [
        d  # stopped by something else before its numbers were taken
        for d in lake.days("recommendations", day - timedelta(days=1))
        if d >= since and is_carried(lake, d) and lake.manifest("night_health", d) is None
    ]
    for d in lake.days("night_health", day - timedelta(days=1)):
        if d >= since:
            own = [r for r in lake.read("night_health", d).to_pylist() if r["day"] == d]
            known = accepted(config, d)
            if any(not r["passed"] and r["stops"] and not is_accepted(known, r) for r in own):
                found.append(d)
    return sorted(found)


# --- what somebody has looked at ----------------------------------------------------------------------------------


def _acceptance(config: Config, day: date) -> Path:
    return config.paths.data / "accepted" / f"{day}.json"


def accepted(config: Config, day: date) -> dict[str, float]:
    """Name of each number of a day that somebody has looked at and accepted, and what it was then."""
    path = _acceptance(config, day)
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if isinstance(found, dict) else {}  # names alone, of an earlier version, say nothing of how far


def is_accepted(known: dict[str, float], row: dict[str, Any]) -> bool:
    """Whether a number that is out of range is no further out than the one that somebody has accepted."""
    looked_at = known.get(row["number"])
    if row["passed"] or looked_at is None:
        return False
    too_little = row["usual_low"] is not None and row["value"] < row["usual_low"]
    return bool(row["value"] >= looked_at if too_little else row["value"] <= looked_at)


def accept(config: Config, lake: Lake, day: date) -> list[dict[str, Any]]:
    """Accept every number of a night that is out of range, its own and those of days that wait; these rows."""
    rows = lake.read("night_health", day).to_pylist()
    rows += lake.read("list_health", day).to_pylist() if lake.manifest("list_health", day) else []
    rows = [r for r in rows if not r["passed"] and r["stops"]]
    for d in sorted({r["day"] for r in rows}):
        path, values = _acceptance(config, d), {r["number"]: r["value"] for r in rows if r["day"] == d}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(accepted(config, d) | values, sort_keys=True) + "\n")
    return rows


def serve_again(config: Config, lake: Lake, day: date, why: str) -> Manifest | None:
    """Publish the lists of the last good night for a night that was stopped; None where there are none.

    Lists that an earlier run of the night made stay. What has left the catalogue or is hidden since is left out.

    Args:
        config: rules of the shop.
        lake: where tables are.
        day: the night.
        why: what stopped it.
    """
    own = lake.manifest("recommendations", day)
    good = good_nights(lake, day - timedelta(days=1))
    if not good or (own is not None and not is_carried(lake, day)):
        return None
    rows = _still_allowed(config, lake, day, lake.read("recommendations", good[-1]))
    n = rows.num_rows
    columns = {"carried_from": pa.repeat(pa.scalar(good[-1], pa.date32()), n), "carried_why": pa.repeat(why, n)}
    for name, column in columns.items():
        rows = rows.drop_columns(name) if name in rows.column_names else rows
        rows = rows.append_column(name, column)
    missing = [c for c in TABLES["recommendations"].columns if c.name not in rows.column_names]
    for c in missing:  # of lists that an earlier version made
        rows = rows.append_column(c.name, pa.nulls(n, c.type))
    made_from = {"recommendations": lake.require("recommendations", good[-1]).content_digest}
    log.warning("recommendations %s: the lists of %s are served again: %s", day, good[-1], why)
    return lake.publish("recommendations", day, rows, inputs=made_from, counters={"carried": 1})


def _still_allowed(config: Config, lake: Lake, day: date, rows: pa.Table) -> pa.Table:
    """Rows of lists whose item may be listed as of a night and is not hidden; all where that is unknown."""
    from pipelines.night.night import Night

    if lake.manifest("std_items", day) is None:
        return rows
    night = Night.of(config, lake, day)
    items, users = night.items()["item_id"].combine_chunks(), pc.unique(rows["user_id"])
    rows = rows.filter(pc.is_in(rows["item_id"], value_set=items.filter(pa.array(night.servable()))))
    owner, item = night.wishes(users)[0].nonzero()
    hidden = set(zip(users.take(pa.array(owner)).to_pylist(), items.take(pa.array(item)).to_pylist(), strict=True))
    pairs = zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True)
    return rows.filter(pa.array([p not in hidden for p in pairs], pa.bool_()))


def good_nights(lake: Lake, upto: date) -> list[date]:
    """Nights with lists of their own, none after ``upto``."""
    return [d for d in lake.days("recommendations", upto) if not is_carried(lake, d)]


def is_carried(lake: Lake, day: date) -> bool:
    """Whether the lists of a night are those of an earlier one."""
    return bool(lake.require("recommendations", day).counters.get("carried"))


# --- checks -------------------------------------------------------------------------------------------------------


def _warned(config: Config, row: dict[str, Any]) -> str:
    """Which threshold of ``guards.numbers`` a number is beyond; empty where none."""
    fixed = config.guards.numbers.get(row["number"], Thresholds())
    if fixed.warn_below is not None and row["value"] < fixed.warn_below:
        return f", below guards.numbers.{row['number']}.warn_below ({fixed.warn_below:g})"
    if fixed.warn_above is not None and row["value"] > fixed.warn_above:
        return f", above guards.numbers.{row['number']}.warn_above ({fixed.warn_above:g})"
    return ""


def _in_range(name: str, config: Config, night: "Night", _: str, rows: pa.Table) -> list[str]:
    """What a check says of a number; a night stops where it is out of range and nobody has accepted it."""
    found: list[str] = []
    for r in rows.filter(pc.equal(rows["number"], name)).to_pylist():
        text = said(r)
        numbers = {k: r[k] for k in ("value", "usual_low", "usual_high") if r[k] is not None and r["day"] == night.day}
        if r["passed"] or r["accepted"] or not r["stops"]:
            warned = _warned(config, r)
            text += warned + (", accepted" if r["accepted"] else "")
            found.append(Remark(text, bool(warned) or not r["passed"], numbers))
        else:
            found.append(Remark("", numbers=numbers))
            found.append(f"{text}; mend the data and run the night again, or `nightloom accept --date {r['day']}`")
    return found


def said(row: dict[str, Any]) -> str:
    """A row of ``night_health`` or ``list_health`` in words."""
    ends = [f"{e:,.3g}" if e is not None else "any" for e in (row["usual_low"], row["usual_high"])]
    usual = f"usual {ends[0]} to {ends[1]}" if ends != ["any"] * 2 else "nothing to compare with"
    return f"{row['day']}: {NUMBERS[row['number']].text} {row['value']:,.4g}, {usual} (of {row['history']} before)"


COLUMNS = tuple(c.name for c in TABLES["night_health"].columns)
for _name, _number in NUMBERS.items():
    _promise = Promise(f"usual_{_name}", f"In its usual range: {_number.text}.", COLUMNS, partial(_in_range, _name))
    PROMISES.setdefault("list_health" if _name == "same_lists" else "night_health", []).append(_promise)
