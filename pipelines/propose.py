"""A configuration for a folder that nobody has described: which files are what, which column means what, and why.

Belongs here: finding files, and the commented TOML. Does not: what a column means (``raw.meaning``), reading rows
(``raw.peek``), judging a configuration that is there (``survey``).
"""

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date
from fnmatch import fnmatchcase
from os.path import commonprefix
from pathlib import Path

import pyarrow as pa

from encoders.modalities import FILES
from pipelines.raw.cells import Cells
from pipelines.raw.columns import REQUIRED
from pipelines.raw.known import PICTURES, SOUNDS, copies, media_files
from pipelines.raw.meaning import (
    OF_KIND,
    Answers,
    Group,
    Guess,
    ambiguous,
    guesses_of,
    has_commas,
    is_rating,
    merit_of,
    to_fill,
)
from pipelines.raw.peek import Peek, peek
from pipelines.raw.places import RawPlace, RawStore
from pipelines.raw.sample import spread
from pipelines.raw.shape import path_keys
from pipelines.raw.times import TimeRule, format_of, times

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
FILES_OF_FOLDER = 12
HINTS = {  # in the name of a log without a column of events
    "transaction": "purchase", "order": "purchase", "purchase": "purchase", "play": "play", "listen": "play",
    "click": "click", "rating": "rating", "review": "rating",
}  # fmt: skip
FIRST_YEAR = 1990  # of logs; numbers that give an earlier one count from elsewhere


def propose(raw: str, data: str, answers: Answers) -> str:
    """Text of a configuration for a raw folder, commented with the evidence for each guess.

    Raises:
        ValueError: nothing in the folder looks like a log of events.
    """
    store = RawStore(*RawPlace(raw))
    groups = _groups(store)
    guesses: dict[str, tuple[Group, list[Guess]]] = {}
    for kind in OF_KIND:
        chosen = _choose(kind, groups, answers, guesses)
        if chosen:
            guesses[kind] = chosen
    if "interactions" not in guesses:
        seen = "; ".join(f"{g.path}: {', '.join(g.columns[:8])}" for g in groups[:6]) or "no table at all"
        raise ValueError(
            f"nothing in {raw} looks like a log of who did what ({seen}); "
            "say it with --interactions PATH --user COLUMN --item COLUMN --event-at COLUMN"
        )
    used = {g.path for g, _ in guesses.values()}
    lines = _top(raw, data, guesses, answers)
    for kind, (group, columns) in guesses.items():
        lines += _section(kind, group, columns, store)
    lines += [f"# not read: {g.path} ({', '.join(g.columns[:8])})" for g in groups if g.path not in used]
    return "\n".join(CONTROL.sub(" ", line) for line in lines) + "\n"  # names and cells may hold line ends


# --- files --------------------------------------------------------------------------------------------------------


def _groups(store: RawStore) -> list[Group]:
    """Data files by folder and by columns."""
    every = [n for n in store.below(".") if not any(p.startswith((".", "_")) for p in n.split("/"))]
    media = {*media_files(every), *copies(every)}
    folders: dict[str, list[str]] = {}
    for name in every:
        if name not in media:
            folder = "/".join(p for p in name.split("/")[:-1] if "=" not in p)
            folders.setdefault(folder, []).append(name)
    return [g for folder, names in sorted(folders.items()) for g in _of_folder(store, folder, names)]


def _of_folder(store: RawStore, folder: str, names: list[str]) -> list[Group]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(re.sub(r"\d+", "#", name.rsplit("/", 1)[-1]), []).append(name)
    found: dict[frozenset[str], list[tuple[Peek, list[str]]]] = {}
    for mine in list(stems.values())[:40]:
        heads = [h for n in spread(mine, FILES_OF_FOLDER) for h in [peek(store, n)] if h and h.columns]
        if heads:
            key = frozenset() if _looks_headless(heads[0]) else frozenset(c.casefold() for c in heads[0].columns)
            found.setdefault(key or frozenset([heads[0].source]), []).extend((h, mine) for h in heads)
    groups = []
    for parts in found.values():
        sources = {n for _, mine in parts for n in mine}
        groups.append(Group(_path(folder, sources, names), [h for h, _ in parts], len(sources)))
    return groups


def _path(folder: str, sources: set[str], names: list[str]) -> str:
    """How a source is named: its folder where that holds nothing else, else the file, else the glob that fits best."""
    if folder and len(sources) == len(names):
        return folder
    if len(sources) == 1:
        return next(iter(sources))
    own = [n.rsplit("/", 1)[-1] for n in sorted(sources)]
    start, end = commonprefix(own), commonprefix([n[::-1] for n in own])[::-1]
    start = re.sub(r"\d+$", "", start)  # 2026-03-0* would miss the tenth
    ends = [end[i:] for i in range(len(end)) if end[i] == "."] or [end]
    globs = [f"{glob.escape(a)}*{glob.escape(b)}" for a in (start, "") for b in ("", *ends[::-1])]
    inside = {n: n.rsplit("/", 1)[-1] for n in names}
    fits = {g: {n for n, name in inside.items() if fnmatchcase(name, g)} for g in globs}
    best = min(globs, key=lambda g: (not fits[g] >= sources, len(fits[g] - sources)))
    return f"{folder}/{best}".lstrip("/")


def _looks_headless(head: Peek) -> bool:
    return Group("", [head], 1).headless


# --- columns --------------------------------------------------------------------------------------------------------


def _choose(
    kind: str, groups: list[Group], answers: Answers, before: dict[str, tuple[Group, list[Guess]]]
) -> tuple[Group, list[Guess]] | None:
    """The files that are most like a kind, with their columns."""
    if kind in answers.paths:
        mine = [g for g in groups if g.path == answers.paths[kind] or g.heads[0].source.startswith(answers.paths[kind])]
        if mine:
            mine[0].path = answers.paths[kind]
    else:
        mine = groups
    best: tuple[float, Group, list[Guess]] | None = None
    for group in mine:
        columns = guesses_of(kind, group, answers)
        merit = merit_of(kind, group, {g.column for g in columns}, kind in answers.paths)
        if kind == "items" and "interactions" in before and group is before["interactions"][0]:
            continue
        if merit > 0 and (best is None or merit > best[0]):
            best = merit, group, columns
    return None if best is None else best[1:]


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)


# --- text -------------------------------------------------------------------------------------------------------


def _top(raw: str, data: str, guesses: dict[str, tuple[Group, list[Guess]]], answers: Answers) -> list[str]:
    days = _days(*guesses["interactions"], answers.timezone)
    start = answers.start_date or (min(days) if days else date.today())
    seen = f"events looked at are from {min(days)} to {max(days)}" if days else "no time could be read"
    return [
        "# Written by `nightloom init`: what was guessed, with the evidence. Check it with `nightloom check`.",
        "# Every key is documented in README.md, \"Configuration\".",
        "",
        f"start_date = {start}  # first night; {seen}",
        f'timezone = "{answers.timezone}"  # whose midnight ends a day; zone of times without one',
        "",
        "[paths]",
        f"raw = {_quoted(raw)}",
        f"data = {_quoted(data)}",
        "",
    ]  # fmt: skip


def _days(group: Group, columns: list[Guess], timezone: str) -> list[date]:
    theirs = next((g.theirs for g in columns if g.column == "event_at"), None)
    if theirs is None:
        return []
    number = group.headless and theirs.isdigit()
    name = list(group.heads[0].columns)[int(theirs) - 1] if number else theirs
    keys = [v for h in group.heads for v in [path_keys(h.source).get(name)] if v]
    values = [str(v) for v in group.values(name)] or keys
    formats = format_of(values[:500]) if values else ()
    rule = TimeRule(format=formats[0] if formats else "", timezone=timezone)
    found, _, _ = times(Cells(pa.array(values, pa.string())), rule)
    return sorted(v.date() for v in found.drop_null().to_pylist())


def _section(kind: str, group: Group, columns: list[Guess], store: RawStore) -> list[str]:
    said = "; ".join(dict.fromkeys(s for h in group.heads for s in h.shape.said))
    what = f"{group.files} file(s), {group.heads[0].shape.format}" + (f", {said}" if said else "")
    lines = [f"[{kind}]", f"path = {_quoted(group.path)}  # {what}"]
    if has_commas(group, columns):
        lines.append('list_separator = ","  # of lists in text cells')
    ours = [*columns, *_by_rule(kind, columns, group, store)]
    width = max((len(g.column) for g in ours), default=0)
    lines.append(f"[{kind}.columns]")
    lines += [f"{g.column:{width}s} = {_quoted(g.theirs)}  # {g.why}" for g in ours]
    missing = [c for c in REQUIRED[kind] if c not in {g.column for g in ours}]
    if missing:
        lines.append(f"[{kind}.defaults]")
        event = f'event = "{_default(group, columns)}"  # no column says it'
        lines += [event if c == "event" else f'# {c} = ""' for c in missing]
    fill = to_fill(group, columns) if kind == "interactions" else None
    if fill:
        lines.append(f"[{kind}.fill_down]  # cells are empty where the row above holds the value")
        lines += [f"{c} = {_quoted(by)}" for c, by in fill.items()]
    if kind == "interactions" and (days := _days(group, columns, "UTC")) and max(days).year < FIRST_YEAR:
        lines.insert(2, '# time_origin = "2016-06-14T00:00:00Z"  # times seem to count from elsewhere')
    formats = [f for g in columns for f in [ambiguous(group, g)] if f]
    if formats:
        one, other = formats[0]
        lines.insert(2, f'time_format = "{one}"  # days and months cannot be told apart; or "{other}"')
    return [*lines, ""]


def _default(group: Group, columns: list[Guess]) -> str:
    words = group.path.casefold() + " " + " ".join(h.source.casefold() for h in group.heads[:1])
    for hint, event in HINTS.items():
        if hint in words:
            return event
    values = next(([str(v) for v in group.values(g.theirs)] for g in columns if g.column == "value"), [])
    return "rating" if values and is_rating(values) else "view"


def _by_rule(kind: str, columns: list[Guess], group: Group, store: RawStore) -> Iterable[Guess]:
    """Folders of pictures and sounds that are named by item."""
    if kind != "items" or any(g.column in ("images", "audios") for g in columns):
        return
    theirs = next((g.theirs for g in columns if g.column == "item_id"), None)
    name = list(group.heads[0].columns)[int(theirs) - 1] if theirs and group.headless and theirs.isdigit() else theirs
    ids = {str(v) for v in group.values(name)} if name else set()
    names = media_files(store.below("."))
    for modality in FILES:
        endings = {"image": PICTURES, "audio": SOUNDS}.get(modality.name, ())
        mine = [n for n in names if n.lower().endswith(tuple(endings)) and Path(n).stem in ids]
        if endings and mine:
            folder, ending = Counter((str(Path(n).parent), Path(n).suffix) for n in mine).most_common(1)[0][0]
            yield Guess(modality.raw_column, f"{folder}/{{item_id}}{ending}", f"{len(mine)} files are named by item")
