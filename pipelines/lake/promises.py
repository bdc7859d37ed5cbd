"""Promises that span tables, each a function that returns what breaks it. An empty list is a kept promise.

Rules of a single table are in ``schemas``. Nothing here repairs anything.
"""

from collections import Counter
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import Modality
from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake
from pipelines.night.contents import content_of
from pipelines.night.events import end_of_day

SHOWN = 5  # examples in a message


def rows_accounted(config: Config, lake: Lake, day: date) -> list[str]:
    """Raw files whose rows in are not out + superseded + quarantined; the last is counted in the quarantine table."""
    table = lake.read("quarantine", day, ["stage", "source", "position"]).to_pylist()
    rejected = Counter(r["source"] for r in table if r["stage"] == "ingest" and r["position"])
    out = []
    for f in lake.read("ingest_files", day).to_pylist():
        accounted = f["rows_out"] + f["rows_superseded"] + rejected[f["source"]]
        if f["rows_in"] != accounted or f["rows_quarantined"] != rejected[f["source"]]:
            found = f"out {f['rows_out']} + superseded {f['rows_superseded']} + quarantined {rejected[f['source']]}"
            out.append(f"{f['source']}: in {f['rows_in']}, {found}")
    return out


def nothing_after_the_day(config: Config, lake: Lake, day: date) -> list[str]:
    """Events dated after the end of the day."""
    latest = pc.max(lake.read("std_interactions", day, ["event_at"])["event_at"]).as_py()
    end = end_of_day(day, config.timezone)
    return [f"an event at {latest} is not before {end}"] if latest and latest >= end else []


def references_embedded(config: Config, lake: Lake, day: date, modality: Modality) -> list[str]:
    """Content that the night refers to and that has neither a vector nor a reason in the quarantine."""
    needed = {sha for shas in content_of(config, modality, lake.read("std_items", day)) for sha in shas}
    uploads = lake.read("std_user_content", day, ["modality", "content_sha256"])
    if not config.encoders[modality].is_vectors:
        needed |= set(uploads.filter(pc.equal(uploads["modality"], modality))["content_sha256"].to_pylist())
    table = f"emb_{modality}"
    digest = lake.require(table, day).config_digest
    for part in lake.scan(table, lake.days(table, day), ["content_sha256", "encoder_digest"]):
        needed -= set(part.filter(pc.equal(part["encoder_digest"], digest))["content_sha256"].to_pylist())
    if needed:
        rejects = lake.read("quarantine", day, ["stage", "source"])
        failed = set(rejects.filter(pc.equal(rejects["stage"], f"embed_{modality}"))["source"].to_pylist())
        media = lake.read("std_media", day, ["sha256", "uri"])
        needed -= failed | {
            s for s, u in zip(media["sha256"].to_pylist(), media["uri"].to_pylist(), strict=True) if u in failed
        }
    return (
        [f"{len(needed)} contents have no vector and no reason: {', '.join(sorted(needed)[:SHOWN])}"] if needed else []
    )


def lists_keep_their_word(config: Config, lake: Lake, day: date) -> list[str]:
    """Served lists that are short, repeat an item, hold an unknown one, or one that the user has seen."""
    lists = lake.read("recommendations", day, ["user_id", "item_id"])
    catalogue = lake.read("std_items", day, ["item_id"])["item_id"]
    problems = []
    unknown = pc.sum(pc.invert(pc.is_in(lists["item_id"], pc.unique(catalogue)))).as_py() or 0
    if unknown:
        problems.append(f"{unknown} rows recommend items that are not in the catalogue")
    repeated = lists.num_rows - lists.group_by(["user_id", "item_id"]).aggregate([]).num_rows
    if repeated:
        problems.append(f"{repeated} rows repeat an item within a list")
    events = lake.read_days("std_interactions", lake.days("std_interactions", day), ["user_id", "item_id"])
    events = (
        events.filter(pc.is_in(events["item_id"], pc.unique(catalogue))).group_by(["user_id", "item_id"]).aggregate([])
    )
    filtered = config.recommend.filter_seen
    if filtered:
        seen = lists.join(events, ["user_id", "item_id"], join_type="left semi").num_rows
        if seen:
            problems.append(f"{seen} rows recommend what the user has seen")
    return problems + _short_lists(
        lists, events if filtered else events.slice(0, 0), len(catalogue), config.recommend.k
    )


def _short_lists(lists: pa.Table, seen: pa.Table, catalogue: int, k: int) -> list[str]:
    lengths = Counter(lists["user_id"].to_pylist())
    met = Counter(seen["user_id"].to_pylist())
    users = {*met, EVERYONE}
    short = sorted(u for u in users if lengths[u] != min(k, catalogue - met[u]))
    return [f"{len(short)} users have no full list, for example {', '.join(short[:SHOWN])}"] if short else []


def scores_fall(config: Config, lake: Lake, day: date) -> list[str]:
    """Lists whose score rises with the rank."""
    table = lake.read("recommendations", day, ["user_id", "rank", "score"]).sort_by(
        [("user_id", "ascending"), ("rank", "ascending")]
    )
    user, score = table["user_id"].to_numpy(), table["score"].to_numpy()
    rises = int(((user[1:] == user[:-1]) & (np.diff(score) > 0)).sum())
    return [f"{rises} rows score higher than the row above them"] if rises else []
