"""Pieces of raw files to the std tables of a night: dedupe, catalogue versions, uploads, media, quarantine.

Writes ``std_interactions``, ``std_items``, ``std_user_content``, ``std_media``, ``quarantine``, ``ingest_files``.
Belongs here: which days are made again, publishing. Does not: reading files (``raw.pieces``), versions of items and
uploads (``raw.versions``), media bytes (``raw.media``). Nothing here looks at a row dated after D.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config import Config, digest_of
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.raw.account import Account
from pipelines.raw.media import MediaFile, MediaIndex
from pipelines.raw.pieces import Piece, for_kind
from pipelines.raw.places import RawStore
from pipelines.raw.versions import (
    Found,
    current_items,
    items_table,
    known_rows,
    references_of,
    uploaded_references,
    uploads,
    uploads_table,
)

log = logging.getLogger(__name__)

SECTIONS = ("interactions", "items", "user_content", "timezone", "start_date")


def standardize(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Make every std table of a night; earlier days whose raw events changed or were never made are made too.

    Yields the manifests of earlier days of ``std_interactions`` that were made, then that of each table of the day.
    """
    store = RawStore(config.paths.raw, config.paths.allowed_uris)
    pieces = {kind: for_kind(kind, config).pieces(store, config) for kind in ("interactions", "items", "user_content")}
    account = Account()
    provenance = {"config_digest": config.digest(*SECTIONS)}
    events = _interactions(config, lake, day, pieces["interactions"], account, provenance)
    yield from (events[d] for d in sorted(events))
    items = current_items(known_rows("items", pieces["items"], day, account), account)
    uploaded = uploads(known_rows("user_content", pieces["user_content"], day, account), account)
    refs = pa.concat_tables([references_of(items), uploaded_references(uploaded)])
    wanted = list(zip(refs["kind"].to_pylist(), refs["uri"].to_pylist(), strict=True))
    index = MediaIndex(config.paths.data / "cache")
    found = index.look_up(wanted, store, config.paths.raw, config.compute)
    _reject_media(refs, found, account)
    contents = uploads_table(uploaded, found, account)
    rejected = account.quarantine()
    made = [
        lake.publish("std_items", day, items_table(items, found), **provenance),
        lake.publish("std_user_content", day, contents, **provenance),
        lake.publish("std_media", day, _media_table(found.values()), **provenance),
        lake.publish_step("quarantine", day, "standardize", rejected, keep=_rejecting(config), **provenance),
        lake.publish("ingest_files", day, account.ledger(), **provenance),
    ]
    log.info("std %s: %s", day, ", ".join(f"{m.table} {m.rows}" for m in made))
    yield from made


def _rejecting(config: Config) -> set[str]:
    """Steps after this one that reject content; what others have rejected on an earlier run of the night is gone."""
    return {f"emb_{m}" for m in config.encoders} | ({"aug_views"} if config.augment.views else set())


# --- interactions -----------------------------------------------------------------------------------------------


def _interactions(
    config: Config, lake: Lake, day: date, pieces: list[Piece], account: Account, provenance: dict[str, Any]
) -> dict[date, Manifest]:
    events = _read_events(pieces, day)
    inputs = _slice_digests(events)
    stale = []
    for n in range((day - config.start_date).days + 1):
        d = config.start_date + timedelta(days=n)
        old = lake.manifest("std_interactions", d)
        same = old is not None and old.inputs == inputs.get(d, {}) and old.config_digest == provenance["config_digest"]
        if d == day or not same:
            stale.append(d)
    if len(stale) > 1:
        log.info("std_interactions: making %d earlier days too (%s to %s)", len(stale) - 1, stale[0], stale[-2])
    tables = {d: _dedupe(events.filter(pc.equal(events["_day"], d))) for d in stale}
    data = {d: kept for d, (kept, _) in tables.items()}
    made = lake.publish_days("std_interactions", data, {d: {**provenance, "inputs": inputs.get(d, {})} for d in stale})
    _account_events(pieces, events, day, tables[day], config.start_date, account)
    return made


def _read_events(pieces: list[Piece], day: date) -> pa.Table:
    """Events up to ``day`` of all files, with their source; those before the first night too, to be rejected."""
    tables = []
    for piece in pieces:
        rows = pq.read_table(piece.rows, filters=[("_day", "<=", day)])
        tables.append(rows.append_column("source", pa.array([piece.source] * rows.num_rows, pa.string())))
    if not tables:
        columns = [c for c in TABLES["std_interactions"].columns if c.name != "source"]
        empty = pa.schema(
            [
                ("_position", pa.int64()),
                ("_day", pa.date32()),
                *((c.name, c.type) for c in columns),
                ("source", pa.string()),
            ]
        )
        return empty.empty_table()
    return pa.concat_tables(tables)


def _slice_digests(events: pa.Table) -> dict[date, dict[str, str]]:
    """Day -> {file: digest of that file's rows of the day}."""
    with duckdb.connect() as con:
        con.register("events", events)
        rows = con.sql(
            """SELECT _day, source, count(*), sum(hash(_position, user_id, item_id, event, value, event_at, session_id,
               recommendation_id)::HUGEINT)::VARCHAR FROM events GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    out: dict[date, dict[str, str]] = {}
    for day, source, n, total in rows:
        out.setdefault(day, {})[source] = digest_of([n, total])
    return out


def _dedupe(events: pa.Table) -> tuple[pa.Table, pa.Table]:
    """First row of each key in order of file and position, and the rows that repeat one."""
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        con.register("events", events)
        numbered = con.sql(
            """SELECT *, row_number() OVER (
                 PARTITION BY user_id, item_id, event, event_at ORDER BY source, _position) AS n
               FROM events ORDER BY user_id, item_id, event, event_at"""
        ).to_arrow_table()
    first = pc.equal(numbered["n"], 1)
    names = [c.name for c in TABLES["std_interactions"].columns]
    kept = numbered.filter(first).select(names)
    at = kept.schema.get_field_index("event_at")
    kept = kept.set_column(at, "event_at", kept["event_at"].cast(pa.timestamp("us", tz="UTC")))
    return kept, numbered.filter(pc.invert(first)).select(["source", "_position", "user_id", "item_id"])


def _account_events(
    pieces: list[Piece],
    events: pa.Table,
    day: date,
    made: tuple[pa.Table, pa.Table],
    start: date,
    account: Account,
) -> None:
    kept, repeated = made
    for fate in ("in", "out"):
        account.count_each("interactions", kept["source"], fate)
    for r in repeated.to_pylist():
        detail = f"same user_id, item_id, event and event_at as an earlier row ({r['user_id']}, {r['item_id']})"
        account.reject("ingest", r["source"], r["_position"], "duplicate", detail)
        account.count("interactions", r["source"], **{"in": 1, "quarantined": 1})
    if day == start:  # what happened before the first partition is counted there
        for r in events.filter(pc.less(events["_day"], start)).select(["source", "_position", "_day"]).to_pylist():
            account.reject(
                "ingest",
                r["source"],
                r["_position"],
                "before_start_date",
                f"{r['_day']} is before start_date {start}",
            )
            account.count("interactions", r["source"], **{"in": 1, "quarantined": 1})
    for piece in pieces:
        account.add_piece_rejects("interactions", piece, day, cumulative=False)


# --- media --------------------------------------------------------------------------------------------------------


def _reject_media(refs: pa.Table, found: Found, account: Account) -> None:
    """A file that exists and does not decode is reported once, a bad reference where it stands."""
    bad = {(m, uri) for (m, uri), f in found.items() if f.reason}
    rejected = refs.filter(pc.is_in(refs["uri"], value_set=pa.array([uri for _, uri in bad], pa.string())))
    for r in rejected.to_pylist():
        if (r["kind"], r["uri"]) in bad:
            file = found[(r["kind"], r["uri"])]
            source, position = (r["uri"], 0) if file.sha256 else (r["source"], r["position"])
            account.reject("media", source, position, file.reason, file.detail)


def _media_table(files: Iterable[MediaFile]) -> pa.Table:
    out: dict[str, dict[str, Any]] = {}
    for f in sorted(files, key=lambda f: f.uri):
        if not f.reason:
            empty = dict.fromkeys(c.name for c in TABLES["std_media"].columns)
            facts = json.loads(f.facts)
            out.setdefault(
                f.sha256,
                empty | {"sha256": f.sha256, "kind": f.kind, "size_bytes": f.size_bytes, "uri": f.uri} | facts,
            )
    return pa.Table.from_pylist(list(out.values()), schema=TABLES["std_media"].schema({}))
