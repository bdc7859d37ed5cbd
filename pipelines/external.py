"""Lists of another team, vendor or model: the newest delivery up to a night, in our columns, unless it is too old.

Writes ``external_lists``. A delivery is all files of one date: that in their names, else when they were written.
Belongs here: which delivery a night uses, reading and ordering its rows. Does not: what the lists are worth
(``recommenders.external``, the hybrid).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config import Config
from pipelines.engine.database import database
from pipelines.lake.deliveries import LATE, MISSING, STALE, USED, said
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.raw.account import Account
from pipelines.raw.places import RawError, RawStore, file_day
from pipelines.recommenders.registry import EXTERNAL
from pipelines.sections import External

log = logging.getLogger(__name__)

COLUMNS = ("user_id", "item_id", "score", "rank")
TYPES = dict(zip(COLUMNS, (pa.string(), pa.string(), pa.float64(), pa.float64()), strict=True))

Refuse = Callable[[str, int, str, str], None]  # source, position, reason, detail

ORDERED = """
    WITH typed AS (
        SELECT source, position, trim(user_id) AS user_id, trim(item_id) AS item_id, score, place_by FROM delivered
    ),
    valid AS (
        SELECT *, CASE
            WHEN coalesce(user_id, '') = '' THEN 'missing_user_id'
            WHEN coalesce(item_id, '') = '' THEN 'missing_item_id'
            WHEN place_by IS NULL OR NOT isfinite(place_by) THEN 'bad_number'
        END AS wrong
        FROM typed
    ),
    judged AS (
        SELECT *, coalesce(wrong, CASE WHEN row_number() OVER same > 1 THEN 'duplicate' END) AS reason FROM valid
        WINDOW same AS (PARTITION BY user_id, item_id, wrong ORDER BY place_by, source, position)
    )
    SELECT *, row_number() OVER (PARTITION BY user_id, reason ORDER BY place_by, item_id)::INT AS place FROM judged
"""
DETAILS = {
    "missing_user_id": "user_id is empty",
    "missing_item_id": "item_id is empty",
    "bad_number": "the number that orders the list is missing, or none",
    "duplicate": "the item is in the user's list already",
}


@dataclass(frozen=True)
class Delivery:
    """What a night uses of somebody's lists.

    Attributes:
        state: ``used``; ``late``, all files are of a later date; ``stale``, too old; ``missing``, there are none.
        delivered: date of the newest files up to the night.
        files: of that date.
    """

    state: str
    delivered: date | None
    files: tuple[str, ...]


def external(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``external_lists`` of the night, and what of them could not be used.

    The manifest's ``spec`` says of each name which delivery it is, and why it is left out.
    """
    store, rows, account = RawStore(*config.raw_place), list[pa.Table](), Account()
    spec, counters = {}, {"in": 0, "quarantined": 0}
    for name, settings in config.recommend.external.items():
        found = delivery_of(store, settings, day, config.timezone)
        spec[name] = {"state": found.state, "delivered": str(found.delivered), "files": len(found.files)}
        if found.state != USED:
            log.warning("external_lists %s: %s", day, said(name, spec[name], settings, day))
            continue
        model = f"{EXTERNAL}{name}"
        refuse = partial(_refuse, account, model)
        delivered = read(store, found, settings, refuse)
        if delivered is not None and found.delivered is not None:
            table = ordered(delivered, model, found.delivered, refuse)
            counters["in"] += delivered.num_rows
            counters["quarantined"] += delivered.num_rows - table.num_rows
            rows.append(table)
    yield lake.publish_step("quarantine", day, "external_lists", account.quarantine())
    schema = TABLES["external_lists"].schema({})
    table = pa.concat_tables([schema.empty_table(), *(t.cast(schema) for t in rows)])
    yield lake.publish(
        "external_lists", day, table, config_digest=config.digest("recommend"), counters=counters, spec=spec
    )


def delivery_of(store: RawStore, settings: External, day: date, timezone: str) -> Delivery:
    """The newest delivery up to the end of a night."""
    dated = [
        (_date_of(store, name, timezone), name) for name in store.below(settings.path) if name.endswith(".parquet")
    ]
    if not dated:
        return Delivery(MISSING, None, ())
    known = [d for d, _ in dated if d <= day]
    if not known:
        return Delivery(LATE, min(d for d, _ in dated), ())
    newest = max(known)
    files = tuple(name for d, name in dated if d == newest)
    return Delivery(USED if (day - newest).days <= settings.max_age_days else STALE, newest, files)


def _date_of(store: RawStore, name: str, timezone: str) -> date:
    """Date in a file's path, else of its last change."""
    if (named := file_day(name)) is not None:
        return named
    changed: datetime = store.fs.modified(f"{store.root}/{name}")
    return (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).astimezone(ZoneInfo(timezone)).date()


def read(store: RawStore, found: Delivery, settings: External, refuse: Refuse) -> pa.Table | None:
    """Rows of a delivery (source, position and ``COLUMNS``), None without any; some files are refused whole."""
    parts = list[pa.Table]()
    for name in found.files:
        try:
            parts.append(_read(store, name, settings))
        except RawError as e:
            refuse(name, 0, e.reason, e.detail)
        except (pa.ArrowException, OSError, KeyError, ValueError) as e:
            refuse(name, 0, "unreadable_parquet", f"{type(e).__name__}: {str(e)[:300]}")
    return pa.concat_tables(parts) if parts else None


def _read(store: RawStore, name: str, settings: External) -> pa.Table:
    """Rows of a file.

    Raises:
        RawError: a column is missing.
    """
    with store.fs.open(f"{store.root}/{name}", "rb") as f:
        file, named = pq.ParquetFile(f), {str(ours): name for ours, name in settings.columns.items()}
        theirs = {c: named.get(c, c) for c in COLUMNS}
        there = [c for c, t in theirs.items() if t in file.schema_arrow.names]
        lacking = [theirs[c] for c in COLUMNS[:2] if c not in there]
        lacking += [] if {"score", "rank"} & {*there} else [f"{theirs['score']} or {theirs['rank']}"]
        if lacking:
            has = ", ".join(file.schema_arrow.names[:12])
            raise RawError("missing_column", f"expected {' and '.join(lacking)}, it has {has}")
        table = file.read(columns=[theirs[c] for c in there])
    columns = {c: _plain(c, table[theirs[c]]) if c in there else pa.nulls(len(table), TYPES[c]) for c in COLUMNS}
    by = columns["rank"] if "rank" in there else pc.negate(columns["score"])
    place = {
        "source": pa.repeat(pa.scalar(name), len(table)),
        "position": pa.array(range(1, len(table) + 1), pa.int64()),
    }
    rows = pa.table(place | {c: columns[c] for c in COLUMNS[:3]} | {"place_by": by})
    rows.validate(full=True)  # what is no UTF-8 would end more than this query
    return rows


def _plain(column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as text, 7.0 as 7; numbers as floats; what is neither is null."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if TYPES[column] == pa.float64():
        if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
            return values.cast(pa.float64())
        return pa.chunked_array([pa.array([_number(text) for text in values.to_pylist()], pa.float64())])
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.is_finite(values), pc.equal(pc.floor(values), values))
        values = pc.if_else(whole, values, None).cast(pa.int64())
    return values.cast(pa.string())


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def ordered(rows: pa.Table, model: str, delivered: date, refuse: Refuse) -> pa.Table:
    """Rows of ``external_lists`` of a delivery; each file by its rank where it has one, else by score.

    Args:
        rows: see ``read``.
        model: name of the recommender.
        delivered: date of the delivery.
        refuse: takes source, position, reason and detail of each other row.
    """
    with database() as connection:
        connection.register("delivered", rows)
        connection.execute(f"CREATE TEMP TABLE judged AS {ORDERED}")
        good = connection.sql(
            "SELECT user_id, place AS rank, item_id, score FROM judged WHERE reason IS NULL ORDER BY user_id, place"
        ).to_arrow_table()
        bad = connection.sql(
            "SELECT source, position, reason FROM judged WHERE reason IS NOT NULL ORDER BY source, position"
        ).to_arrow_table()
        connection.execute("DROP TABLE judged")
    for r in bad.to_pylist():
        refuse(r["source"], r["position"], r["reason"], DETAILS[r["reason"]])
    names = pa.repeat(pa.scalar(model), len(good))
    return good.add_column(0, "model", names).append_column("delivered", pa.repeat(pa.scalar(delivered), len(good)))


def _refuse(account: Account, model: str, source: str, position: int, reason: str, detail: str) -> None:
    """Note a rejected row or file; several names may read the same file."""
    account.reject("external_lists", source, position, reason, f"{model}: {detail}")
