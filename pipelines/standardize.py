"""Raw files to the std tables of a night: events by day, versions of items and users, uploads, media, quarantine.

Writes ``std_interactions``, ``std_items``, ``std_user_content``, ``std_users``, ``std_controls``, ``std_media``,
``quarantine``, ``ingest_files``. Belongs here: which days are made again, publishing. Does not: reading files
(``raw.known``), equal events (``raw.days``), versions and uploads (``raw.versions``), media bytes (``raw.media``).
Nothing here looks at a row dated after D.
"""

import json
import logging
from collections.abc import Generator, Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.folders import locked, scratch
from pipelines.lake.storage import Lake, Manifest, rows_of_parts
from pipelines.lake.tables import TABLES
from pipelines.raw.account import Account, events_account, inputs_of, rejects_by_day
from pipelines.raw.days import account_of, groups_of, make_days
from pipelines.raw.judge import stop_where_columns_are_missing
from pipelines.raw.known import Known, Piece, pieces_of
from pipelines.raw.media import MediaFile, MediaIndex
from pipelines.raw.vanished import stop_where_data_is_gone
from pipelines.raw.versions import (
    Found,
    controls_table,
    current,
    items_of_events,
    items_table,
    known_rows,
    references_of,
    uploaded_references,
    uploads,
    uploads_table,
    users_table,
    without_gone,
)
from pipelines.sections import SOURCES

log = logging.getLogger(__name__)

SECTIONS = (*SOURCES, "timezone", "start_date")
OF_DAYS = ("interactions", "timezone", "start_date")  # settings that days of events are made under
OF_EVENTS, OF_OTHERS = "events", "standardize"  # what writes a part of quarantine and ingest_files


def standardize(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Make every std table of a night; earlier days whose raw events changed or were never made are made too.

    Yields the manifests of days of events with their rejects, the night's last, then that of each other table.

    Raises:
        DataError: a column that the configuration names is in no file, or a new day's file has lost it; raw files
            no longer have what was read of them.
    """
    with locked(config.paths.data / "cache" / "pieces", "raw"):  # one night at a time may forget pieces of raw files
        yield from _tables(config, lake, day)


def _tables(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    pieces = pieces_of([Known(kind, config) for kind in SOURCES], day)
    stop_where_columns_are_missing(config, pieces, day)
    stop_where_data_is_gone(config, lake, pieces, day)
    of_days = {"config_digest": config.digest(*OF_DAYS)}
    of_night, inputs = yield from _events(config, lake, day, pieces["interactions"], of_days)
    provenance = {"config_digest": config.digest(*SECTIONS)}
    account = Account()
    for kind in SOURCES[1:]:
        account.add_whole_files(kind, pieces[kind], day, config.start_date)
    items = current("items", known_rows("items", pieces["items"], day, account), pieces["items"], account)
    if config.items.mode == "snapshot":
        items = without_gone(items, pieces["items"], day)
    if not pieces["items"] and not config.encoders:
        items = items_of_events(lake, day)
    users = current("users", known_rows("users", pieces["users"], day, account), pieces["users"], account)
    wishes = controls_table(known_rows("controls", pieces["controls"], day, account), account)
    uploaded = uploads(known_rows("user_content", pieces["user_content"], day, account), account)
    refs = pa.concat_tables([references_of(items), uploaded_references(uploaded)])
    wanted = list(zip(refs["kind"].to_pylist(), refs["uri"].to_pylist(), strict=True))
    found = MediaIndex(config.paths.data / "cache").look_up(wanted, config.raw_place, config.compute)
    _reject_media(refs, found, account)
    contents = uploads_table(uploaded, found, account)
    for kind in SOURCES[1:]:
        account.name_columns(kind, pieces[kind])
    rejects = {OF_EVENTS: of_night.quarantine(), OF_OTHERS: account.quarantine()}
    ledgers = {OF_EVENTS: of_night.ledger(), OF_OTHERS: account.ledger()}
    made = [
        lake.publish("std_items", day, items_table(items, found), **provenance),
        lake.publish("std_user_content", day, contents, **provenance),
        lake.publish("std_users", day, users_table(users), **provenance),
        lake.publish("std_controls", day, wishes, **provenance),
        lake.publish("std_media", day, _media_table(found.values()), **provenance),
        lake.publish_steps("quarantine", day, rejects, keep=_rejecting(config), **provenance)[OF_OTHERS],
        lake.publish_steps("ingest_files", day, ledgers, keep=(), inputs=inputs, **provenance)[OF_OTHERS],
    ]
    for table, is_on in _of_sections(config).items():
        if not is_on and lake.manifest(table, day):  # the night was run with the section before
            lake.remove(table, day)
    log.info("std %s: %s", day, ", ".join(f"{m.table} {m.rows}" for m in made))
    yield from made


def _of_sections(config: Config) -> dict[str, bool]:
    """Tables and models that later steps read where they are there -> whether the configuration makes them."""
    return {
        "item_labels": bool(config.items.fill),
        "item_graphs": bool(config.graphs),
        "external_lists": bool(config.recommend.external),
        "model_pooled": config.federate is not None,
    }


def _rejecting(config: Config) -> set[str]:
    """Steps after this one that reject content; what others have rejected on an earlier run of the night is gone."""
    found = {f"emb_{m}" for m in config.encoders} | ({"aug_views"} if config.augment.views else set())
    found |= {"item_graphs"} if config.graphs else set()
    return found | ({"external_lists"} if config.recommend.external else set())


# --- events -----------------------------------------------------------------------------------------------------


def _events(
    config: Config, lake: Lake, day: date, pieces: list[Piece], provenance: dict[str, Any]
) -> Generator[Manifest, None, tuple[Account, dict[str, str]]]:
    """Make the days whose events or rejects are new, and the night's; each day with its rejects and its account.

    Returns the account of the night's own day, which is published with that of the other files in one step, and what
    the day was made of.
    """
    start = config.start_date
    for d in lake.days("std_interactions", start - timedelta(days=1)):
        log.info("std_interactions: %s lies before start_date %s now and is removed", d, start)
        lake.remove("std_interactions", d)
    inputs = inputs_of(pieces, start, day)
    ahead = sum(n for p in pieces for d, (n, _) in p.account.days.items() if d > day.isoformat())
    stale = _stale(lake, [start + timedelta(days=n) for n in range((day - start).days + 1)], inputs, provenance)
    if len(stale) > 1:
        log.info("std_interactions: making %d earlier days too (%s to %s)", len(stale) - 1, stale[0], stale[-2])
    rejects = rejects_by_day(pieces, set(stale), start)
    for group in groups_of(stale, pieces, config.interactions.session_minutes):
        with scratch(lake.root, "staging-std_interactions") as staging:
            make_days([group], staging, config.compute)
            accounts, rows = {}, {}
            for d in group.days:
                duplicates, counts = account_of(staging / f"date={d.isoformat()}")
                accounts[d] = events_account(pieces, d, start, rejects.get(d), duplicates, counts)
                rows[d] = rows_of_parts(staging / f"date={d.isoformat()}")
            of_day = {
                d: {
                    **provenance,
                    "inputs": inputs.get(d, {}),
                    "counters": a.lost() | {"night": day.toordinal(), "rows_ahead": ahead},
                }
                for d, a in accounts.items()
            }
            for d in group.days[: -1 if day in group.days else None]:  # events last: after a crash the day is stale
                made_of = {**provenance, "inputs": inputs.get(d, {})}
                for table, data in (("quarantine", accounts[d].quarantine()), ("ingest_files", accounts[d].ledger())):
                    lake.publish_step(table, d, OF_EVENTS, data, keep=set(lake.steps(table, d)), **made_of)
            made = lake.publish_staged("std_interactions", staging, rows, of_day)
        yield from (made[d] for d in group.days)
    return accounts[day], inputs.get(day, {})


def _stale(lake: Lake, days: list[date], inputs: dict[date, dict[str, str]], provenance: dict[str, Any]) -> list[date]:
    """Days that are not made of these inputs under these settings, or not their account, and the last of all."""
    found = []
    for d in days:
        old, account = lake.manifest("std_interactions", d), lake.manifest("ingest_files", d, OF_EVENTS)
        same = all(m is not None and m.inputs == inputs.get(d, {}) for m in (old, account))
        if d == days[-1] or not same or (old and old.config_digest != provenance["config_digest"]):
            found.append(d)
    return found


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
