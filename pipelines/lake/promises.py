"""Promises that span tables, each a function that returns what breaks it. Nothing, or remarks only, is a kept promise.

A promise is made with its table, its text and the columns that it looks at; checks of the table derive from the list.
Rules of a single table are in ``schemas``. Nothing here repairs anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import MODALITIES
from pipelines.config import Config
from pipelines.lake.schemas import rows_in
from pipelines.sections import OF_LISTS

if TYPE_CHECKING:
    from scipy import sparse

    from pipelines.night.night import Night


class Remark(str):
    """What a promise has to say that does not stop a night.

    Args:
        text: what was found.
        warns: whether somebody should look at it.
        numbers: name -> what was measured; drawn over nights.
    """

    warns: bool
    numbers: dict[str, float]

    def __new__(cls, text: str, warns: bool = False, numbers: dict[str, float] | None = None) -> "Remark":
        """A text with a level and numbers."""
        made = super().__new__(cls, text)
        made.warns, made.numbers = warns, numbers or {}
        return made


Broken = Callable[[Config, "Night", str, pa.Table], list[str]]
SHOWN = 5  # examples in a message


@dataclass(frozen=True)
class Promise:
    """What must hold between a table and others.

    Attributes:
        name: of the check.
        text: what is promised, in a sentence.
        columns: of the published partition that ``broken`` gets.
        broken: (configuration, night, table, rows) -> what breaks it.
    """

    name: str
    text: str
    columns: tuple[str, ...]
    broken: Broken


PROMISES: dict[str, list[Promise]] = {}  # table -> its promises


def promise(tables: Sequence[str], text: str, columns: Sequence[str]) -> Callable[[Broken], Broken]:
    """Make a function the promise of some tables; its name is that of the check."""

    def made(broken: Broken) -> Broken:
        for table in tables:
            PROMISES.setdefault(table, []).append(Promise(broken.__name__, text, tuple(columns), broken))
        return broken

    return made


@promise(
    ["ingest_files"],
    "Rows in = rows out + superseded + quarantined, file by file.",
    ["source", "kind", "rows_in", "rows_out", "rows_superseded", "rows_quarantined"],
)
def rows_accounted(config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Raw files whose rows in are not out + superseded + quarantined; the last is counted in the quarantine table."""
    rejects = night.lake.read("quarantine", night.day, ["stage", "source", "position"])
    rejects = rejects.filter(pc.greater(rejects["position"], 0))
    counted = rejects.group_by(["stage", "source"]).aggregate([([], "count_all")]).to_pylist()
    rejected = {(r["stage"], r["source"]): r["count_all"] for r in counted}
    out = []
    for f in rows.to_pylist():
        quarantined = rejected.get((f"ingest_{f['kind']}", f["source"]), 0)
        accounted = f["rows_out"] + f["rows_superseded"] + quarantined
        if f["rows_in"] != accounted or f["rows_quarantined"] != quarantined:
            parts = f"out {f['rows_out']} + superseded {f['rows_superseded']} + quarantined {quarantined}"
            out.append(f"{f['source']}: in {f['rows_in']}, {parts}")
    return out


@promise(["std_interactions"], "No event is dated after the partition's day.", ["event_at"])
def nothing_after_the_day(config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Events dated after the end of the day."""
    latest = pc.max(rows["event_at"]).as_py()
    return [f"an event at {latest} is not before {night.end}"] if latest and latest >= night.end else []


@promise(
    [f"emb_{m}" for m in MODALITIES],
    "Every referenced content has a vector or a reason.",
    ["content_sha256", "encoder_digest"],
)
def references_embedded(config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Content that the night refers to and that has neither a vector nor a reason in the quarantine."""
    modality, uploads = table.removeprefix("emb_"), night.uploads()
    missing = night.contents(modality).flatten()
    if not night.is_vectors(modality):  # nobody can look up an upload in a file of vectors
        own = uploads.filter(pc.equal(uploads["modality"], modality))["content_sha256"]
        missing = pa.concat_arrays([missing, *own.chunks])
    digest, missing = night.lake.require(table, night.day).config_digest, pc.unique(missing)
    for known in (rows, night.earlier_keys(table)):
        keys = known.filter(pc.equal(known["encoder_digest"], digest))["content_sha256"]
        missing = missing.filter(pc.invert(pc.is_in(missing, value_set=keys.combine_chunks())))
    if len(missing):
        rejects, media = night.lake.read("quarantine", night.day, ["stage", "source"]), night.media()
        failed = rejects.filter(pc.equal(rejects["stage"], f"embed_{modality}"))["source"].combine_chunks()
        files = media.filter(pc.is_in(media["uri"], value_set=failed))["sha256"].combine_chunks()
        missing = missing.filter(pc.invert(pc.is_in(missing, value_set=pa.concat_arrays([failed, files]))))
    if not len(missing):
        return []
    return [f"{len(missing)} contents have no vector and no reason: {', '.join(sorted(missing.to_pylist())[:SHOWN])}"]


@promise(
    ["recommendations"],
    "Every user with history has K distinct items: known, available, not hidden, not seen.",
    ["user_id", "item_id"],
)
def lists_keep_their_word(config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Served lists that are short, repeat an item, or hold one that is unknown, not available, hidden or seen."""
    catalogue, problems = night.items()["item_id"].combine_chunks(), []
    servable = catalogue.filter(pa.array(night.servable()))
    gone = (pc.sum(pc.is_in(rows["item_id"], value_set=catalogue.filter(pa.array(~night.servable())))).as_py()) or 0
    if gone:
        problems.append(f"{gone} rows recommend items that are not available on the next day")
    unknown = pc.sum(pc.invert(pc.is_in(rows["item_id"], value_set=catalogue))).as_py() or 0
    if unknown:
        problems.append(f"{unknown} rows recommend items that are not in the catalogue")
    repeated = rows.num_rows - rows.group_by(["user_id", "item_id"]).aggregate([]).num_rows
    if repeated:
        problems.append(f"{repeated} rows repeat an item within a list")
    events = night.events().select(["user_id", "item_id"])
    users = pc.unique(pa.concat_arrays([pc.unique(events["user_id"]), pa.array(night.stand_ins())]))
    listed = pc.unique(pa.chunked_array([*rows["user_id"].chunks, users]))
    hidden = _pairs(night.wishes(listed)[0], listed, catalogue, events.schema)
    seen = events if config.recommend.filter_seen else events.slice(0, 0)
    for pairs, what in ((seen, "has seen"), (hidden, "hides")):
        distinct = pairs.group_by(["user_id", "item_id"]).aggregate([])
        wrong = rows.join(distinct, ["user_id", "item_id"], join_type="left semi")
        if wrong.num_rows:
            problems.append(f"{wrong.num_rows} rows recommend what the user {what}")
    never = pa.concat_tables([seen, hidden])
    never = never.filter(pc.is_in(never["item_id"], value_set=servable)).group_by(["user_id", "item_id"]).aggregate([])
    if config.rules.at_most:  # lists end where nothing is left that the rules allow
        return problems
    less = night.controls().filter(pc.equal(night.controls()["wish"], "less"))["user_id"]
    users = users.filter(pc.invert(pc.is_in(users, value_set=less.combine_chunks())))
    return problems + _short_lists(rows, never, users, len(servable), config.recommend.k)


def _pairs(matrix: "sparse.csr_matrix", users: pa.Array, items: pa.Array, schema: pa.Schema) -> pa.Table:
    """User and item of each nonzero."""
    row, column = matrix.nonzero()
    return pa.table({"user_id": users.take(pa.array(row)), "item_id": items.take(pa.array(column))}, schema=schema)


def _short_lists(lists: pa.Table, seen: pa.Table, users: pa.Array, catalogue: int, k: int) -> list[str]:
    """Users whose list does not have K items, or as many as there are that they have not seen."""
    length, met = (_counts(t["user_id"], users) for t in (lists, seen))
    short = users.filter(pa.array(length != np.minimum(k, catalogue - met))).to_pylist()
    return [f"{len(short)} users have no full list, for example {', '.join(sorted(short)[:SHOWN])}"] if short else []


def _counts(values: pa.ChunkedArray, of: pa.Array) -> np.ndarray:
    """How often each of ``of`` is among the values."""
    at = rows_in(values, of)
    return np.bincount(at[at >= 0], minlength=len(of))


@promise(["recommendations"], "Scores do not rise with the rank.", ["user_id", "rank", "score"])
def scores_fall(config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Lists whose score rises with the rank."""
    rows = rows.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    user, score = rows["user_id"].to_numpy(), rows["score"].to_numpy()
    rises = int(((user[1:] == user[:-1]) & (np.diff(score) > 0)).sum())
    return [f"{rises} rows score higher than the row above them"] if rises else []


SHORT = 0.01  # of all places, by which a share may miss its floor: prices are found on some users


@promise(
    ["floor_prices"],
    "Items have the shares of places, and lists the means, that recommend.floors promises.",
    ["target", "floor", "share"],
)
def floors_are_kept(_config: Config, _night: "Night", _table: str, rows: pa.Table) -> list[str]:
    """Targets that lists could not give their share; numbers are shares."""
    return [
        Remark(
            (
                f"{r['target']} of lists is {r['share']:.3f}, {r['floor']:.3f} is promised"
                if r["target"] in OF_LISTS
                else f"{r['target']} has {r['share']:.1%} of all places, {r['floor']:.1%} are promised"
            )
            if (short := r["share"] < r["floor"] - SHORT)
            else "",
            warns=short,
            numbers={r["target"]: r["share"]},
        )
        for r in rows.to_pylist()
    ]
