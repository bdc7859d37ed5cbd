"""Which column of a file means what, by its name and by what it holds; which files are logs, catalogues, reviews.

Belongs here: guesses with their evidence. Does not: finding files, writing a configuration (``propose``).
"""

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.raw.amounts import decimal_of, numbers
from pipelines.raw.cells import Cells, cast_texts, leaves
from pipelines.raw.event_names import MEANING, SYNONYMS, meaning_of
from pipelines.raw.peek import Peek
from pipelines.raw.shape import path_keys
from pipelines.raw.times import TimeRule, format_of, times

NAMES: dict[str, tuple[str, ...]] = {
    "user_id": (
        "userid", "user", "uid", "userkey", "customerid", "customer", "visitorid", "visitor", "memberid", "reviewerid",
        "clientid", "userpseudoid", "username", "accountid", "profileid", "buyerid", "personid", "listenerid", "email",
        "useridtoken", "kunde", "utilisateur", "usuario", "uuid", "steamid",
    ),
    "item_id": (
        "itemid", "item", "iid", "parentasin", "productid", "product", "articleid", "article", "movieid", "trackid",
        "songid", "bookid", "businessid", "asin", "newsid", "documentid", "videoid", "gameid", "appid", "artistid",
        "hotelid", "sku", "lineitemsku", "variantsku", "isbn", "contentid", "listingid", "recipeid", "artikel",
        "itemsitemid", "itemidtoken", "postid", "podcastid", "showid", "id",
    ),
    "event": ("event", "eventname", "eventtype", "action", "behavior", "behaviour", "behaviortype", "activity", "type"),
    "event_at": (
        "eventat", "eventtime", "eventtimestamp", "timestamp", "ts", "time", "datetime", "occurredat", "createdat",
        "unixreviewtime", "reviewtime", "tdat", "date", "eventdate", "dateadded", "dateupdated", "paidat", "playedat",
        "watchedat", "timestampfloat", "zeit", "day", "dt", "ds",
    ),
    "value": (
        "rating", "stars", "score", "overall", "value", "ratingfloat", "amount", "playtime", "playcount", "quantity",
        "lineitemprice", "price", "activetime", "betrag", "count", "hours", "weight",
    ),
    "session_id": ("sessionid", "session", "orderid", "visitid", "transactionid"),
    "recommendation_id": ("recommendationid",),
    "title": (
        "title", "name", "prodname", "productname", "producttitle", "movietitle", "tracktitle", "trackname", "headline",
        "booktitle", "itemname", "titel", "titletokenseq",
    ),
    "description": (
        "description", "detaildesc", "desc", "about", "abstract", "overview", "plot", "summary", "bodyhtml", "body",
        "synopsis", "beschreibung", "text", "lyrics",
    ),
    "categories": (
        "categories", "genres", "category", "genre", "producttypename", "maincategory", "categorypath", "section",
        "category1", "classtokenseq", "categoriestokenseq", "topic",
    ),
    "tags": ("tags", "keywords", "features", "labels", "tag"),
    "domain": ("domain", "indexname", "department", "shop", "store"),
    "price": ("price", "variantprice", "listprice", "preis", "cost"),
    "created_at": ("createdat", "publishtime", "publishedat", "releasedate", "launched", "published", "addedat"),
    "updated_at": ("updatedat", "modifiedat", "lastmodified"),
    "images": ("images", "image", "imageurl", "imageurls", "cover", "poster", "picture", "photo", "thumbnail", "img"),
    "audios": ("audios", "audio", "preview", "sound", "previewurl", "audiourl"),
    "videos": ("videos", "video", "clip", "trailer", "videourl"),
    "segment": ("segment", "tier", "plan", "group", "cohort"),
    "category": ("category", "categories", "genre"),
    "tag": ("tag", "tags", "keyword"),
    "wish": ("wish", "control", "preference"),
    "text": ("text", "reviewtext", "review", "comment", "body", "content"),
    "image": ("image", "photo", "picture"),
    "audio": ("audio", "sound"),
    "video": ("video", "clip"),
}  # fmt: skip
OF_KIND = {
    "interactions": ("user_id", "item_id", "event", "event_at", "value", "session_id", "recommendation_id"),
    "items": (
        "item_id", "title", "description", "categories", "tags", "domain", "price", "created_at", "updated_at",
        "images", "audios", "videos",
    ),
    "user_content": ("user_id", "item_id", "text", "image", "audio", "video", "created_at"),
    "users": ("user_id", "segment", "created_at", "updated_at"),
    "controls": ("user_id", "item_id", "category", "tag", "wish", "created_at"),
}  # fmt: skip
TIMED = ("user_content", "controls")  # whose time may have any name that a time of events has
CONTENT = ("title", "description", "categories", "tags", "images", "audios", "videos")


@dataclass
class Answers:
    """What the user says instead of a guess; empty for what is to be guessed."""

    paths: dict[str, str] = field(default_factory=dict)  # kind -> path below the raw folder
    columns: dict[str, str] = field(default_factory=dict)  # our column -> theirs, in every kind that has it
    timezone: str = "UTC"
    start_date: date | None = None


@dataclass
class Group:
    """Files of one folder that have the same columns.

    Attributes:
        path: folder, file or glob.
        heads: of some of the files.
        files: how many there are.
    """

    path: str
    heads: list[Peek]
    files: int

    def values(self, column: str) -> list[Any]:
        """What the looked-at rows hold in a column."""
        return [v for h in self.heads for v in h.columns.get(column, []) if v is not None and v != ""]

    @property
    def columns(self) -> list[str]:
        """Columns of the files and of their paths."""
        return list(dict.fromkeys([*(c for h in self.heads for c in h.columns), *path_keys(self.heads[0].source)]))

    @property
    def headless(self) -> bool:
        """Whether the first line looks like data."""
        head = self.heads[0]
        return head.shape.format == "csv" and any(_is_like(name, values) for name, values in head.columns.items())


@dataclass
class Guess:
    """One column of ours: theirs, and why."""

    column: str
    theirs: str
    why: str


def _is_like(name: str, values: list[Any]) -> bool:
    """Whether a name has digits and is written like the values below it: 5 above 17, N0 above N19."""

    def shape(text: str) -> str:
        return re.sub(r"[A-Za-z]+", "a", re.sub(r"\d+", "0", text))

    shapes = [shape(str(v)) for v in values[:50] if v not in (None, "")]
    return "0" in shape(name) and len(shapes) > 1 and shapes.count(shape(name)) * 2 > len(shapes)


def guesses_of(kind: str, group: Group, answers: Answers) -> list[Guess]:
    """Our columns that the files have, with the evidence."""
    if group.headless:
        return _by_values(kind, group, answers)
    found: list[Guess] = []
    taken: set[str] = set()
    for column in OF_KIND[kind]:
        said = answers.columns.get(column)
        if said:
            found.append(Guess(column, said, "as you said"))
            taken.add(said)
            continue
        names = NAMES["event_at"] if kind in TIMED and column == "created_at" else NAMES[column]
        ranked = sorted((names.index(_plain(c)), c) for c in group.columns if _plain(c) in names and c not in taken)
        for _, theirs in ranked:
            why = _fits(column, group, theirs)
            if why:
                found.append(Guess(column, theirs, why))
                taken.add(theirs)
                break
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _fits(column: str, group: Group, theirs: str) -> str:
    """Evidence that a column of the files is one of ours; empty where its values speak against it."""
    values = [t for v in group.values(theirs)[:500] for t in leaves(v)][:500]
    if not values:
        return "" if theirs not in path_keys(group.heads[0].source) else "in the path"
    distinct, example = len(set(values)), shown(values[0])
    if column in ("event_at", "created_at", "updated_at"):
        share = _share_of_times(values)
        return f"{share:.0%} are times, such as {example}" if share > 0.5 else ""
    if column in ("value", "price"):
        cells = pa.array(values, pa.string())
        found, _ = numbers(Cells(cells), decimal_of(cells) == ",")
        share = 1 - found.null_count / len(values)
        return f"{share:.0%} are numbers, such as {example}" if share > 0.5 else ""
    if column == "event":
        named = f"{distinct} names: {shown(', '.join(sorted(set(values))[:5]))}"
        return named if distinct <= 30 or _known_events(values) else ""
    return f"{distinct} different of {len(values)}, such as {example}"


def shown(value: Any) -> str:
    """A value that fits into a comment."""
    return " ".join(str(value).split())[:40]


def _share_of_times(values: list[str]) -> float:
    text = pa.array(values, pa.string())
    formats = format_of(values)
    found, _, _ = times(Cells(text), TimeRule(format=formats[0] if formats else ""))
    return 1 - found.null_count / len(values)


def _by_values(kind: str, group: Group, answers: Answers) -> list[Guess]:
    """Columns by number, where files have no header: times, ratings, ids, texts by what they hold."""
    columns = {str(i): c for i, c in enumerate(group.heads[0].columns, 1)}
    found: list[Guess] = []
    roles = {"event_at": _is_time, "event": _is_event, "value": is_rating} if kind == "interactions" else {}
    for role, test in roles.items():
        for number, c in columns.items():
            values = [str(v) for v in group.values(c)]
            if values and test(values) and number not in {g.theirs for g in found}:
                found.append(Guess(role, number, f"column {number} holds {shown(values[0])}"))
                break
    rest = [n for n, c in columns.items() if n not in {g.theirs for g in found} and _is_id(kind, group.values(c))]
    order = ("user_id", "item_id") if kind == "interactions" else ("item_id", "title", "categories")
    for role, number in zip(order, rest, strict=False):
        values = group.values(columns[number])
        found.append(Guess(role, answers.columns.get(role, number), f"column {number} holds {shown(values[0])}"))
    enough = {"user_id", "item_id", "event_at"} if kind == "interactions" else {"item_id", "title"}
    titles = [str(v) for g in found if g.column == "title" for v in group.values(columns[g.theirs])]
    is_text = kind != "items" or any(" " in t for t in titles)
    return found if enough <= {g.column for g in found} and is_text and kind != "user_content" else []


def _is_id(kind: str, values: list[Any]) -> bool:
    """Whether a column of a log may name users or items: not a running number, not several in a cell."""
    texts = [str(v) for v in values]
    return bool(texts) and (kind == "items" or (len(set(texts)) < len(texts) and not any(" " in t for t in texts)))


def _known_events(values: list[str]) -> list[str]:
    return [v for v in set(values) if meaning_of(v) in SYNONYMS or v.casefold() in MEANING]


def _is_event(values: list[str]) -> bool:
    return 2 * len(_known_events(values)) > len(set(values))


def _is_time(values: list[str]) -> bool:
    return _share_of_times(values[:200]) > 0.95


def is_rating(values: list[str]) -> bool:
    """Whether values are ratings: few different numbers up to 10."""
    numbers = cast_texts(pa.array(values), "DOUBLE")
    if numbers.null_count:
        return False
    return pc.max(numbers).as_py() <= 10 and len(set(values)) <= 21 and pc.min(numbers).as_py() >= -1


def to_fill(group: Group, columns: list[Guess]) -> dict[str, str]:
    """Columns that stand on the first row of an order only, and the column that names the order."""
    found = {}
    for g in columns:
        cells = [v for h in group.heads for v in h.columns.get(g.theirs, [])]
        empty = sum(v in (None, "") for v in cells)
        if cells and 0.2 < empty / len(cells) < 0.95 and g.column in ("event_at", "user_id"):
            for by in group.columns:
                keys = [v for h in group.heads for v in h.columns.get(by, [])]
                if by != g.theirs and len(keys) == len(cells) and _repeats_where_empty(cells, keys):
                    found[g.column] = by
                    break
    return found


def _repeats_where_empty(cells: list[Any], keys: list[Any]) -> bool:
    pairs = [(keys[i], keys[i - 1]) for i in range(1, len(cells)) if cells[i] in (None, "")]
    firsts = [(keys[i], keys[i - 1]) for i in range(1, len(cells)) if cells[i] not in (None, "")]
    repeats = all(a == b and a not in (None, "") for a, b in pairs)
    return repeats and bool(pairs) and any(a != b for a, b in firsts)


def ambiguous(group: Group, guess: Guess) -> tuple[str, ...]:
    """Two formats that a column of times may have."""
    if not guess.column.endswith("_at"):
        return ()
    found = format_of([str(v) for v in group.values(guess.theirs)][:500])
    return found if len(found) > 1 else ()


def has_commas(group: Group, columns: list[Guess]) -> bool:
    """Whether lists are written with commas between, and not with the usual sign."""
    lists = [g.theirs for g in columns if g.column in ("categories", "tags")]
    cells = [v for c in lists for v in group.values(c) if isinstance(v, str)]
    return sum("," in v and "|" not in v and not v.startswith("[") for v in cells) * 3 > len(cells) > 0


def _all_roles(group: Group) -> set[str]:
    plain = {_plain(c) for c in group.columns}
    return {"user_id"} if plain & set(NAMES["user_id"][:12]) else set()


def merit_of(kind: str, group: Group, found: set[str], said: bool) -> float:
    """How much a group of files is like a kind; 0 where it is not."""
    words = set(re.split(r"[^a-z]+", group.path.casefold()))
    if kind == "interactions":
        named = words & {
            "interactions",
            "events",
            "ratings",
            "transactions",
            "orders",
            "clicks",
            "plays",
            "log",
            "inter",
        }
        return (2.0 + bool(named) + 0.1 * len(found)) * ({"user_id", "item_id", "event_at"} <= found or said)
    if kind == "items":
        named = words & {"items", "catalogue", "catalog", "products", "movies", "articles", "news", "item", "meta"}
        content = len(found & set(CONTENT))
        return (
            (content + 0.5 * bool(named))
            * ("item_id" in found and "user_id" not in _all_roles(group))
            * (content > 0 or said)
        )
    if kind == "users":
        people = [str(v) for v in group.values(next(iter(group.columns)))]
        others = {_plain(c) for c in group.columns} & {n for n in NAMES["item_id"] if n != "id"}
        return float("user_id" in found and not others and len(set(people)) == len(people) > 0) or float(said)
    if kind == "controls":
        return float({"user_id", "wish", "created_at"} <= found) or float(said)
    return float({"user_id", "text", "created_at"} <= found and "item_id" in found) or float(said)
