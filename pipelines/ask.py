"""Answers about nights that were run: why a list is what it is, what is like an item, how nights went and differ.

Only rows that are asked for are read: tables are sorted by key, so most of a partition is skipped by its statistics.
Belongs here: what is looked up. Does not: how it is printed (``assets.told``), Dagster's own records.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.decode.image import pixels
from encoders.errors import DecodeError
from pipelines.config import Config, digest_of
from pipelines.engine.database import database
from pipelines.lake.cards import load_card
from pipelines.lake.health import good_nights, is_carried
from pipelines.lake.schemas import EVERYONE, rows_in
from pipelines.lake.storage import Lake, StorageError
from pipelines.lake.tables import TABLES
from pipelines.night.events import IMPRESSION
from pipelines.night.rules import remembered
from pipelines.raw.places import RawError, RawStore

HISTORY = 10  # latest items of a user
MOST = 10  # items of each list of gains and losses
MOST_PLACES = 400_000  # of lists of two nights that are compared
Rows = list[dict[str, Any]]


class UnknownError(ValueError):
    """What was asked for is not there; the message says what is near."""


def latest(lake: Lake, day: date | None) -> date:
    """The night that was asked for, else the latest with lists.

    Raises:
        StorageError: there is none.
    """
    days = lake.days("recommendations")
    if not days or day not in (None, *days):
        asked = f"the night of {day}" if day else "any night"
        raise StorageError(f"no lists of {asked} in {lake.root}; run it first: nightloom run --date {day or 'DAY'}")
    return day or days[-1]


def _found(lake: Lake, table: str, days: Sequence[date], where: str, values: Sequence[Any], columns: str = "*") -> Rows:
    """Rows of some partitions for which a condition holds."""
    rows: Rows = _table(lake, table, days, where, values, columns).to_pylist()
    return rows


def _table(
    lake: Lake, table: str, days: Sequence[date], where: str, values: Sequence[Any], columns: str = "*"
) -> pa.Table:
    """The same as a table; only row groups that may have any are read."""
    files = [str(p) for d in days for p in lake.paths(table, d)]
    if not files:
        return TABLES[table].schema({}).empty_table()
    sql = f"SELECT {columns} FROM read_parquet(?) WHERE {where}"  # noqa: S608, conditions are ours, values are bound
    found: pa.Table = database().sql(sql, params=[files, *values]).to_arrow_table()
    return found


def _titles(lake: Lake, day: date, items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Item -> title, categories and pictures, of those that the catalogue has."""
    asked = sorted(set(items))
    columns = "item_id, title, categories, image_sha256s"
    rows = _found(lake, "std_items", [day], "item_id IN (SELECT unnest(?))", [asked], columns) if asked else []
    return {r["item_id"]: r for r in rows}


def _named(known: dict[str, dict[str, Any]], item: str) -> dict[str, Any]:
    about = known.get(item, {})
    pictures = about.get("image_sha256s") or []
    found = {"item_id": item, "title": about.get("title") or item, "categories": about.get("categories") or []}
    return found | {"picture": pictures[0] if pictures else None}


def picture_of(config: Config, lake: Lake, day: date, sha256: str, side: int) -> np.ndarray | None:
    """Pixels (side, side, 3) uint8 of a picture's centre; None where it cannot be read any more."""
    from pipelines.raw.media import read_media  # imports Beam, which answers without pictures need not wait for

    rows = _found(lake, "std_media", [day], "sha256 = ?", [sha256], "uri")
    try:
        return pixels(read_media(RawStore(*config.raw_place), rows[0]["uri"]), side) if rows else None
    except (RawError, DecodeError, OSError):
        return None


# --- a user -------------------------------------------------------------------------------------------------------


def explain(lake: Lake, user: str, day: date) -> dict[str, Any]:
    """A user's list of a night with reasons, latest items, wishes, and who the user is.

    Raises:
        UnknownError: neither lists nor events have the user.
    """
    listed = sorted(_found(lake, "recommendations", [day], "user_id = ?", [user]), key=lambda r: r["rank"])
    days, own = lake.days("std_interactions", day), "user_id = ? AND event <> ?"
    did = _table(lake, "std_interactions", days, own, [user, IMPRESSION])
    if not listed and not did.num_rows:
        raise UnknownError(f"no user '{user}' in the lists or events up to {day}{_near(lake, day, user)}")
    asked = _table(lake, "std_controls", [day] if lake.manifest("std_controls", day) else [], "user_id = ?", [user])
    wishes, events = asked.to_pylist(), remembered(did, asked).to_pylist()
    events.sort(key=lambda r: (r["event_at"], r["item_id"]), reverse=True)
    last = {r["item_id"]: r for r in reversed(events)}
    history = sorted(last.values(), key=lambda r: (r["event_at"], r["item_id"]), reverse=True)[:HISTORY]
    reasons = [i for r in listed for i in r["reason_item_ids"] or []]
    known = _titles(lake, day, [*(r["item_id"] for r in (*listed, *history)), *reasons])
    about = _found(lake, "std_users", [day], "user_id = ?", [user]) if lake.manifest("std_users", day) else []
    kept = ("rank", "score", "reason_code", "reason_value", "reason_modality", "propensity", "recommendation_id")
    return {
        "user_id": user,
        "night": day,
        "segment": about[0]["segment"] if about else None,
        "attributes": about[0]["attributes"] if about else [],
        "events": len(events),
        "items": len(last),
        "model": listed[0]["model"] if listed else None,
        "arm": listed[0]["arm"] if listed else None,
        "carried_from": listed[0]["carried_from"] if listed else None,
        "carried_why": listed[0]["carried_why"] if listed else None,
        "wishes": [{k: r[k] for k in ("wish", "target", "value", "created_at")} for r in wishes],
        "history": [_named(known, r["item_id"]) | {"event": r["event"], "at": r["event_at"]} for r in history],
        "list": [
            _named(known, r["item_id"])
            | {k: r[k] for k in kept}
            | {"because_of": [_named(known, i)["title"] for i in r["reason_item_ids"] or []]}
            for r in listed
        ],
        "served_instead": None if listed else f"the list of '{EVERYONE}' or of the segment, as there is none of {user}",
    }


def _near(lake: Lake, day: date, user: str) -> str:
    """Some users with lists whose id has what was asked for."""
    near = _found(lake, "recommendations", [day], "rank = 1 AND user_id ILIKE ? LIMIT 5", [f"%{user}%"], "user_id")
    return "; there are: " + ", ".join(r["user_id"] for r in near) if near else ""


# --- an item ------------------------------------------------------------------------------------------------------


def similar_to(lake: Lake, item: str, day: date) -> dict[str, Any]:
    """What is like an item, by each basis, best first; the item may be named by its id or a part of its title.

    Raises:
        UnknownError: the catalogue has neither, or several titles have it.
    """
    item = _item_named(lake, item, day)
    rows = _found(lake, "similar_items", [day], "item_id = ?", [item])
    known = _titles(lake, day, [item, *(r["similar_item_id"] for r in rows)])
    rows.sort(key=lambda r: (r["basis"], r["rank"]))
    by_basis: dict[str, Rows] = {}
    for r in rows:
        entry = _named(known, r["similar_item_id"]) | {"score": r["score"], "modality": r["modality"]}
        by_basis.setdefault(r["basis"], []).append(entry)
    return _named(known, item) | {"night": day, "similar": by_basis}


def _item_named(lake: Lake, item: str, day: date) -> str:
    if _found(lake, "std_items", [day], "item_id = ?", [item], "item_id"):
        return item
    columns = "item_id, title"
    near = _found(lake, "std_items", [day], "title ILIKE ? ORDER BY title, item_id LIMIT 6", [f"%{item}%"], columns)
    if len(near) == 1:
        return str(near[0]["item_id"])
    shown = ", ".join(f"{r['item_id']} ({r['title']})" for r in near[:5])
    raise UnknownError(f"no item '{item}' in the catalogue of {day}" + (f"; titles with it: {shown}" if near else ""))


# --- nights -------------------------------------------------------------------------------------------------------


def nights(config: Config, lake: Lake) -> Rows:
    """A row a night with lists: accuracy of what was served before it, events, content encoded, what was decided."""
    k, rows = config.recommend.judged_at, []
    for day in lake.days("recommendations"):
        carried = is_carried(lake, day)
        made = [m for t in config.encoders if (m := lake.manifest(f"emb_{t}", day))]
        rows.append(
            {
                "night": day,
                "state": f"lists of {good_nights(lake, day)[-1]}" if carried else "own lists",
                "events": lake.rows("std_interactions", day) if lake.manifest("std_interactions", day) else 0,
                "items": lake.require("std_items", day).rows if lake.manifest("std_items", day) else 0,
                "encoded": sum(m.counters.get("encoded", 0) for m in made),
                f"ndcg@{k}": judged["value"] if (judged := accuracy(config, lake, day)) else None,
                "decided": _decided(lake, day),
            }
        )
    return rows


def accuracy(config: Config, lake: Lake, day: date) -> dict[str, Any] | None:
    """NDCG of what was served the night before: its row of ``eval_offline``, None where nothing is judged."""
    if lake.manifest("eval_offline", day) is None:
        return None
    where = "model = ? AND metric = 'ndcg' AND k = ? AND slice = 'all'"
    found = _found(lake, "eval_offline", [day], where, [config.recommend.serve, config.recommend.judged_at])
    return found[0] if found else None


def _decided(lake: Lake, day: date) -> list[str]:
    """Decisions of experiments that were made on the night."""
    if lake.manifest("eval_experiments", day) is None:
        return []
    rows = _found(lake, "eval_experiments", [day], "decision <> 'continue' AND decided_on = ?", [day])
    return sorted({f"{r['experiment']}: {r['decision']} {r['served_arm']}" for r in rows})


def compare(lake: Lake, before: date, after: date) -> dict[str, Any]:
    """Which lists differ between two nights, what gained and lost places, and what else differs.

    Of many users some are compared, as good as drawn, with ``MOST_PLACES`` places; ``one_of`` says one of how many.
    """
    one_of = max(1, lake.require("recommendations", after).rows // MOST_PLACES)
    lists = [_lists(lake, d, one_of) for d in (before, after)]
    users = [pc.unique(t["user_id"]) for t in lists]
    both = users[0].filter(pc.is_in(users[0], value_set=users[1]))
    key = ["user_id", "item_id"]
    kept = lists[1].select(key).join(lists[0].select(key), key, join_type="inner")
    same, length = (_count(t["user_id"], both) for t in (kept, lists[1]))
    share = same / np.maximum(length, 1)
    order = np.lexsort((np.arange(len(both)), share))[:5]
    return {
        "before": before,
        "after": after,
        "one_of": one_of,
        "users": {"both": len(both), "new": len(users[1]) - len(both), "gone": len(users[0]) - len(both)},
        "changed_lists": int((share < 1).sum()),
        "share_kept": float(share.mean()) if len(both) else None,
        "most_changed": [{"user_id": both[int(n)].as_py(), "share_kept": float(share[n])} for n in order],
        "models": [_counted(t, "model") for t in lists],
        **_places(lake, before, after, *lists),
        "why": reasons_of_change(lake, before, after),
    }


def _lists(lake: Lake, day: date, one_of: int) -> pa.Table:
    """user_id, item_id and model of the lists of one of so many users, in order of user and item."""
    files = [str(p) for p in lake.paths("recommendations", day)]
    sql = """
        SELECT user_id, item_id, model FROM read_parquet(?) WHERE hash(user_id) % ? = 0 ORDER BY user_id, item_id
    """
    found: pa.Table = database().sql(sql, params=[files, one_of]).to_arrow_table()
    return found


def _count(users: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """How often each known user is there."""
    rows = rows_in(users, known)
    return np.bincount(rows[rows >= 0], minlength=len(known))


def _counted(lists: pa.Table, column: str) -> dict[str, int]:
    """Users by what their lists have in a column."""
    once = lists.group_by(["user_id", column]).aggregate([])
    return dict(sorted(Counter(once[column].to_pylist()).items()))


def _places(lake: Lake, before: date, after: date, one: pa.Table, other: pa.Table) -> dict[str, Rows]:
    """Items that gained and lost most places."""
    counts = [Counter(t["item_id"].to_pylist()) for t in (one, other)]
    change = {i: counts[1][i] - counts[0][i] for i in counts[0].keys() | counts[1].keys()}
    ordered = sorted(change, key=lambda i: (-change[i], i))
    shown = {
        "gained": [i for i in ordered[:MOST] if change[i] > 0],
        "lost": [i for i in ordered[::-1][:MOST] if change[i] < 0],
    }
    known = _titles(lake, before, shown["lost"]) | _titles(lake, after, [*shown["gained"], *shown["lost"]])
    return {
        name: [_named(known, i) | {"before": counts[0][i], "after": counts[1][i]} for i in items]
        for name, items in shown.items()
    }


def reasons_of_change(lake: Lake, before: date, after: date) -> dict[str, list[str]]:
    """What differs between two nights, in words: data, models, settings, code."""
    return {
        "data": _data_between(lake, before, after),
        "models": _models_between(lake, before, after),
        "settings": _settings_between(lake, before, after),
    }


def _data_between(lake: Lake, before: date, after: date) -> list[str]:
    said = []
    if lake.manifest("std_items", before) and lake.manifest("std_items", after):
        new, gone = (_items_without(lake, *pair) for pair in ((after, before), (before, after)))
        said += [f"{new:,} new items, {gone:,} gone"] if new or gone else []
    days = [d for d in lake.days("std_interactions", max(before, after)) if d > min(before, after)]
    events = sum(lake.rows("std_interactions", d) for d in days)
    said += [f"{events:,} events of {len(days)} day{'s' * (len(days) != 1)} more"] if events else []
    for table, what in (("std_controls", "wishes"), ("std_users", "users/"), ("feedback", "feedback")):
        found = [lake.manifest(table, d) for d in (before, after)]
        if all(found) and len({m.content_digest for m in found if m}) > 1:
            said.append(f"other {what}")
    return said


def _items_without(lake: Lake, day: date, other: date) -> int:
    """How many items of a night another night does not have."""
    if lake.require("std_items", day).content_digest == lake.require("std_items", other).content_digest:
        return 0
    files = [[str(p) for p in lake.paths("std_items", d)] for d in (day, other)]
    sql = "SELECT item_id FROM read_parquet(?) EXCEPT SELECT item_id FROM read_parquet(?)"
    return len(database().sql(sql, params=files))


def _models_between(lake: Lake, before: date, after: date) -> list[str]:
    said, anew = list[str](), list[str]()
    for table in sorted(p.name for p in lake.root.glob("model_*")):
        found = [lake.manifest(table, d) for d in (before, after)]
        if None in found:
            if found[0] != found[1]:
                said.append(f"{table} is {'new' if found[0] is None else 'gone'}")
            continue
        cards = [load_card(lake, table.removeprefix("model_"), d).get("settings") for d in (before, after)]
        if digest_of(cards[0]) != digest_of(cards[1]):
            said.append(f"{table}: settings {cards[0]} became {cards[1]}")
        elif found[0] and found[1] and found[0].content_digest != found[1].content_digest:
            anew.append(table.removeprefix("model_"))
    for table in sorted(p.name for p in lake.root.glob("emb_*")):
        found = [lake.manifest(table, d) for d in (before, after)]
        if found[0] and found[1] and found[0].config_digest != found[1].config_digest:
            said.append(f"{table}: another encoder")
    return said + ([f"trained anew: {', '.join(anew)}"] if anew else [])


def _settings_between(lake: Lake, before: date, after: date) -> list[str]:
    one, other = (lake.require("recommendations", d) for d in (before, after))
    said = ["[recommend] or [rules] differ"] if one.config_digest != other.config_digest else []
    return said + (
        [f"code {one.code_digest} became {other.code_digest}"] if one.code_digest != other.code_digest else []
    )
