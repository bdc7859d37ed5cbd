"""What people look at in the report: users with history and lists as pictures, items alike, what nobody is shown.

Belongs here: who and what is chosen, pictures within a budget, reasons in words. Does not: numbers (``numbers``), how
it is laid out (the template).
"""

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from encoders.decode.image import thumbnail
from encoders.errors import DecodeError
from pipelines.lake.schemas import EVERYONE, rows_in, vectors_to_numpy
from pipelines.lake.storage import Lake
from pipelines.learning.reasons import WORDS as IN_WORDS
from pipelines.learning.reasons import in_words
from pipelines.night.events import end_of_day, event_weights
from pipelines.night.night import Night
from pipelines.raw.media import read_media
from pipelines.raw.places import RawError, RawStore

log = logging.getLogger(__name__)

SIDE = 96  # pixels of a picture
MOST_BYTES = 1_900_000  # of all pictures, so that the page stays below 3 MB
HISTORY, LISTED, WANTED = 8, 10, 6  # items of a user that are shown
UNSEEN, ASKED, NEAR = 12, 3, 5  # items that nobody is shown; items whose neighbours are shown, and how many
OTHERS = 2  # modalities in which neighbours are shown
MOST_POINTS = 700  # of the map
WORDS = IN_WORDS | {"new": "new here", "pinned": "pinned by the shop", "explored": "drawn to learn from"}


@dataclass(frozen=True)
class Tile:
    """An item as it is shown: a picture, or its first letters where it has none.

    Attributes:
        item_id: id.
        title: title, or the id.
        picture: data URI of a JPEG; empty without one.
        kind: first category or domain.
        note: what is said below it.
        marked: whether it stands out.
    """

    item_id: str
    title: str
    picture: str
    kind: str
    note: str = ""
    marked: bool = False

    @property
    def letters(self) -> str:
        """What stands in for a picture."""
        return "".join(word[0] for word in self.title.split()[:2]).upper() or "?"


@dataclass(frozen=True)
class Person:
    """A user with history, tonight's list, and what was liked since the list of the night before.

    Attributes:
        user_id: id.
        why: why this user is shown.
        history: latest items first.
        listed: tonight's list.
        wanted: items that the user came to like today; those that the list of the night before had are marked.
        facts: about the user, in words.
    """

    user_id: str
    why: str
    history: list[Tile]
    listed: list[Tile]
    wanted: list[Tile] = field(default_factory=list)
    facts: str = ""


@dataclass(frozen=True)
class Row:
    """An item, and items beside it under some headings."""

    item: Tile
    beside: dict[str, list[Tile]]


class Tiles:
    """Items of a night as tiles; pictures are made once each, as long as number and bytes last.

    Args:
        night: the night.
        store: where media are.
        most: pictures at most.
    """

    def __init__(self, night: Night, store: RawStore, most: int):
        self.items, self.store, self.left, self.bytes = night.items(), store, most, 0
        self.ids = self.items["item_id"].combine_chunks()
        media = night.media()
        self.uris = dict(zip(media["sha256"].to_pylist(), media["uri"].to_pylist(), strict=True))
        self.made: dict[str, str] = {}
        self.skipped = 0

    def of(self, item_id: str, note: str = "", marked: bool = False) -> Tile:
        """The tile of an item, also of one that has left the catalogue."""
        row = int(rows_in(pa.array([item_id]), self.ids)[0])
        if row < 0:
            return Tile(item_id, item_id, "", "no longer there", note, marked)
        known = self.items.slice(row, 1).to_pylist()[0]
        kind = (known["categories"] or [known["domain"] or ""])[0]
        return Tile(item_id, known["title"] or item_id, self._picture(known["image_sha256s"]), kind, note, marked)

    def _picture(self, shas: Sequence[str]) -> str:
        """Data URI of an item's first picture."""
        if not shas or shas[0] not in self.uris:
            return ""
        if shas[0] not in self.made:
            if not self.left or self.bytes > MOST_BYTES:
                self.skipped += 1
                return ""
            self.made[shas[0]] = self._thumbnail(self.uris[shas[0]])
            self.left, self.bytes = self.left - 1, self.bytes + len(self.made[shas[0]])
        return self.made[shas[0]]

    def _thumbnail(self, uri: str) -> str:
        try:
            small = thumbnail(read_media(self.store, uri), SIDE)
        except (RawError, DecodeError, OSError) as e:
            log.warning("report: no picture of %s: %s", uri, e)
            return ""
        return "data:image/jpeg;base64," + base64.b64encode(small).decode()


def people(night: Night, tiles: Tiles, serve: str) -> list[Person]:
    """Users who are typical, badly served and new; of a night that has judged nothing, typical and new ones."""
    first = _lists(night.lake, night.day, pc.field("rank") == 1, ["user_id"])
    listed = {u for u in first["user_id"].to_pylist() if not u.startswith(EVERYONE)}
    data = night.dataset()
    number = dict(zip(data.users.tolist(), np.diff(data.positives().indptr).tolist(), strict=True))
    known = sorted((number.get(u, 0), u) for u in listed)
    judged = [r for r in _judged(night, serve) if r["user_id"] in listed]
    hit = sorted((r["ndcg"], r["user_id"]) for r in judged if r["ndcg"] > 0)
    missed = sorted((-r["relevant"], r["user_id"]) for r in judged if r["ndcg"] == 0)
    chosen: dict[str, str] = {}
    if hit:
        value, user = hit[len(hit) // 2]
        chosen[user] = f"typical: NDCG {value:.3f}, the middle of those whose list had anything"
    elif known:
        chosen[known[len(known) // 2][1]] = "typical: as long a history as half of all"
    if missed:
        chosen.setdefault(missed[0][1], f"badly served: came to like {-missed[0][0]} items, none of them in the list")
    for n, user in known:
        if user not in chosen:
            chosen[user] = f"new: {n} item{'s' * (n != 1)} liked so far"
            break
    theirs = pc.field("user_id").isin(pa.array(list(chosen), pa.string()))
    served, before = _lists(night.lake, night.day, theirs), night.day - timedelta(days=1)
    earlier = _lists(night.lake, before, theirs) if night.lake.manifest("recommendations", before) else None
    return [_person(night, tiles, user, why, served, earlier) for user, why in chosen.items()]


def _lists(lake: Lake, day: date, where: pc.Expression, columns: list[str] | None = None) -> pa.Table:
    """Some rows of ``recommendations``; row groups that have none are not read."""
    return pads.dataset([str(p) for p in lake.paths("recommendations", day)]).to_table(columns, filter=where)


def _judged(night: Night, serve: str) -> list[dict[str, Any]]:
    if night.lake.manifest("eval_users", night.day) is None:
        return []
    rows = night.lake.read("eval_users", night.day, ["model", "user_id", "relevant", "ndcg"])
    return rows.filter(pc.equal(rows["model"], serve)).to_pylist()


def _person(night: Night, tiles: Tiles, user: str, why: str, served: pa.Table, earlier: pa.Table | None) -> Person:
    mine = served.filter(pc.equal(served["user_id"], user)).sort_by("rank").slice(0, LISTED).to_pylist()
    events = night.events()
    events = events.filter(pc.equal(events["user_id"], user)).sort_by(
        [("event_at", "descending"), ("item_id", "ascending")]
    )
    latest, zone = {r["item_id"]: r for r in reversed(events.to_pylist())}, ZoneInfo(night.timezone)
    history = sorted(latest.values(), key=lambda r: (-r["event_at"].timestamp(), r["item_id"]))[:HISTORY]
    return Person(
        user_id=user,
        why=why,
        history=[tiles.of(r["item_id"], f"{r['event']}, {r['event_at'].astimezone(zone):%m-%d}") for r in history],
        listed=[tiles.of(r["item_id"], in_words(r, _named(r, tiles), WORDS)) for r in mine],
        wanted=[] if earlier is None else _wanted(night, tiles, events, _of(user, earlier)),
        facts=", ".join(_facts(night, user, events.num_rows, len(latest), mine)),
    )


def _named(row: dict[str, Any], tiles: Tiles) -> list[str]:
    """Title of the first history item that a reason names."""
    return [tiles.of(i).title for i in (row["reason_item_ids"] or [])[:1]]


def _facts(night: Night, user: str, events: int, items: int, listed: list[dict[str, Any]]) -> list[str]:
    facts = [f"{events:,} events with {items:,} items"]
    segments = night.segments()
    segment = segments.filter(pc.equal(segments["user_id"], user))["segment"].to_pylist()
    facts += [f"segment {segment[0]}"] if segment and segment[0] else []
    facts += [f"served by {listed[0]['model']}", f"arm {listed[0]['arm']}"] if listed else []
    return facts


def _of(user: str, lists: pa.Table) -> set[str]:
    """Items of a user's list."""
    return set(lists.filter(pc.equal(lists["user_id"], user))["item_id"].to_pylist())


def _wanted(night: Night, tiles: Tiles, events: pa.Table, had: set[str]) -> list[Tile]:
    """What a user came to like on the day, by all events of the user, with marks where the list before had it."""
    start = end_of_day(night.day - timedelta(days=1), night.timezone)
    late = np.asarray(pc.greater_equal(events["event_at"], pa.scalar(start, events["event_at"].type)))
    earlier = set(events.filter(pa.array(~late))["item_id"].to_pylist())
    now = events.filter(pa.array(late & (event_weights(events["event"], events["value"], night.feedback) > 0)))
    items = [i for i in sorted(set(now["item_id"].to_pylist())) if i not in earlier]
    items.sort(key=lambda i: i not in had)
    return [tiles.of(i, "was in the list" if i in had else "was not in the list", i in had) for i in items[:WANTED]]


def unseen(night: Night, tiles: Tiles, counts: np.ndarray) -> tuple[int, list[Tile]]:
    """How many items that could be listed are in no list, and some of them, alike in distance over the catalogue."""
    rows = np.flatnonzero((counts == 0) & night.servable())
    some = rows[np.linspace(0, len(rows) - 1, min(UNSEEN, len(rows))).astype(int)] if len(rows) else rows
    return len(rows), [tiles.of(i) for i in tiles.ids.take(pa.array(some)).to_pylist()]


def features_of(night: Night) -> pa.Table | None:
    """``feat_items`` of the night; None without content."""
    there = night.modalities and night.lake.manifest("feat_items", night.day)
    return night.lake.read("feat_items", night.day) if there else None


def across_modalities(night: Night, tiles: Tiles, table: pa.Table | None) -> list[Row]:
    """Items, and what in the other modalities stands nearest to their picture, sound or words in the unified space."""
    if table is None:
        return []
    ids = table["item_id"].combine_chunks()
    has = {m: np.asarray(table[f"has_{m}"].to_numpy(), bool) for m in night.modalities}
    vectors = {m: vectors_to_numpy(table[f"vector_{m}"].drop_null()) for m in has if has[m].any()}
    rows = []
    for m in sorted(vectors, key=lambda m: (m == "text", m)):  # what is not words first
        asked = np.flatnonzero(has[m])
        for at in asked[[len(asked) // 2]]:
            query = vectors[m][np.searchsorted(np.flatnonzero(has[m]), at)]
            beside = {}
            for other in [o for o in ("text", "image", "audio", "video") if o != m and o in vectors][:OTHERS]:
                there = np.flatnonzero(has[other])
                cosine = vectors[other] @ query
                order = np.lexsort((there, -cosine))
                name = f"{m} to {other}"
                if has[other][at]:
                    rank = int(np.flatnonzero(there[order] == at)[0]) + 1
                    name += f": its own {other} is {rank} of {len(there):,}"
                beside[name] = [
                    tiles.of(ids[int(there[n])].as_py(), f"cosine {cosine[n]:.2f}", there[n] == at)
                    for n in order[:NEAR]
                ]
            if beside:
                rows.append(Row(tiles.of(ids[int(at)].as_py(), f"by its {m}"), beside))
    return rows


def neighbours_of_two_nights(night: Night, tiles: Tiles, before: date) -> list[Row]:
    """Items most like some items tonight and the night before; those that are in both are marked."""
    tables = [night.lake.manifest("similar_items", d) and _alike(night, d) for d in (night.day, before)]
    if not tables[0]:
        return []
    asked = sorted(tables[0])
    rows = []
    for item in [asked[n] for n in np.linspace(0, len(asked) - 1, min(ASKED, len(asked))).astype(int)]:
        lists = {"tonight": tables[0][item], **({str(before): tables[1].get(item, [])} if tables[1] else {})}
        both = set(lists["tonight"]) & set(lists.get(str(before), []))
        rows.append(
            Row(tiles.of(item), {name: [tiles.of(i, marked=i in both) for i in near] for name, near in lists.items()})
        )
    return rows


def _alike(night: Night, day: date) -> dict[str, list[str]]:
    """Item -> the items most like it by behaviour and content."""
    table = night.lake.read("similar_items", day, ["item_id", "basis", "rank", "similar_item_id"])
    bases = pc.unique(table["basis"]).to_pylist()
    basis = next((b for b in ("both", "content", "behaviour") if b in bases), None)
    near = table.filter(pc.and_(pc.equal(table["basis"], basis), pc.less_equal(table["rank"], NEAR)))
    found: dict[str, list[str]] = {}
    for r in near.sort_by([("item_id", "ascending"), ("rank", "ascending")]).to_pylist():
        found.setdefault(r["item_id"], []).append(r["similar_item_id"])
    return found


def map_of_items(night: Night, table: pa.Table | None) -> tuple[np.ndarray, list[str]]:
    """Items on the two leading axes of the space (n, 2), and their groups; some of many, alike in distance."""
    if table is None:
        return np.zeros((0, 2)), []
    vectors = vectors_to_numpy(table["vector"])
    rows = (
        np.linspace(0, len(vectors) - 1, min(MOST_POINTS, len(vectors))).astype(int)
        if len(vectors)
        else np.zeros(0, int)
    )
    centred = vectors[rows] - vectors[rows].mean(0) if len(rows) else vectors
    if min(centred.shape, default=0) < 2:
        return np.zeros((0, 2)), []
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]  # the same way round every time
    items = night.items().select(["categories", "domain"]).take(pa.array(rows)).to_pylist()
    return centred @ axes.T, [(i["categories"] or [i["domain"] or "none"])[0] for i in items]
