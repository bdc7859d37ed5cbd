"""Answers about nights as tables in a terminal: users, items, nights, what differs between two.

Belongs here: layout, how long a night took by Dagster's records. Does not: what is looked up (``pipelines.ask``).
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipelines import ask
from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.learning.reasons import in_words

WIDE = 140  # characters where no terminal says how wide it is
SIDE = 10  # pixels of a picture; two of them are one character high


def answer(args: argparse.Namespace, config: Config, lake: Lake) -> Any:
    """What a command asks for."""
    if args.command == "compare":
        return ask.compare(lake, ask.latest(lake, args.before), ask.latest(lake, args.after))
    if args.command == "history":
        return [r | {"seconds": s} for r, s in _timed(ask.nights(config, lake), config)]
    day = ask.latest(lake, args.date)
    return ask.explain(lake, args.user, day) if args.command == "explain" else ask.similar_to(lake, args.item, day)


def _timed(nights: list[dict[str, Any]], config: Config) -> Iterable[tuple[dict[str, Any], float | None]]:
    """Nights with the seconds of their latest finished run, None where Dagster has no record."""
    import dagster as dg

    from assets.resources import dagster_home
    from assets.schedules import NIGHTLY

    os.environ["DAGSTER_HOME"] = str(dagster_home(config))
    seconds: dict[str, float] = {}
    with dg.DagsterInstance.get() as instance:
        whole = dg.RunsFilter(job_name=NIGHTLY, statuses=[dg.DagsterRunStatus.SUCCESS])
        for record in instance.get_run_records(filters=whole):
            day = record.dagster_run.tags.get("dagster/partition", "")
            if record.start_time and record.end_time:
                seconds.setdefault(day, record.end_time - record.start_time)
    return [(r, seconds.get(str(r["night"]))) for r in nights]


def tell(args: argparse.Namespace, found: Any, config: Config, lake: Lake) -> None:
    """Print an answer."""
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
    pictures = Pictures(config, lake, found["night"]) if getattr(args, "pictures", False) else None
    for part in TOLD[args.command](found, pictures):
        console.print(part)


class Pictures:
    """Pictures as coloured half blocks."""

    def __init__(self, config: Config, lake: Lake, day: date):
        self.config, self.lake, self.day = config, lake, day

    def of(self, sha256: str | None) -> Text:
        """The picture, or nothing."""
        found = ask.picture_of(self.config, self.lake, self.day, sha256, SIDE) if sha256 else None
        return Text() if found is None else half_blocks(found)


def half_blocks(pixels: np.ndarray) -> Text:
    """Pixels (h, w, 3) as h / 2 lines of w characters: the upper pixel in front, the lower one behind."""
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Text()
        for front, back in zip(upper, lower, strict=True):
            line.append("▀", style=f"rgb({front[0]},{front[1]},{front[2]}) on rgb({back[0]},{back[1]},{back[2]})")
        lines.append(line)
    return Text("\n").join(lines)


def _table(title: str, columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left")
    return table


def _items(title: str, rows: list[dict[str, Any]], told: Sequence[tuple[str, Any]], pictures: Pictures | None) -> Table:
    """A row an item: a picture where they are wanted, place, title, id, categories, and what else is told of it."""
    columns = ["", *([""] if pictures else []), "title", "id", "categories", *(name for name, _ in told)]
    table = _table(title, columns, ("score", "before", "after"))
    for n, r in enumerate(rows, 1):
        shown = [pictures.of(r["picture"])] if pictures else []
        cells = [escape(str(value(r))) for _, value in told]
        table.add_row(
            str(n), *shown, escape(r["title"]), escape(r["item_id"]), escape(", ".join(r["categories"])), *cells
        )
    return table


def _user(found: dict[str, Any], pictures: Pictures | None) -> list[Any]:
    facts = [f"{found['events']:,} events with {found['items']:,} items up to {found['night']}"]
    facts += [f"segment {found['segment']}"] if found["segment"] else []
    facts += [f"served by {found['model']}, arm {found['arm']}"] if found["model"] else []
    parts: list[Any] = [Text(f"{found['user_id']}: " + "; ".join([*facts, *found["attributes"]]))]
    if found["carried_from"]:
        parts.append(Text(f"the list is that of {found['carried_from']}: {found['carried_why']}", "yellow"))
    parts += [Text(f"wishes {w['wish']} of {w['target']} {w['value']}") for w in found["wishes"]]
    did = [("did, UTC", lambda r: f"{r['event']}, {r['at']:%Y-%m-%d %H:%M}")]
    if found["history"]:
        parts.append(_items("history, latest first", found["history"], did, pictures))
    told = [("score", lambda r: f"{r['score']:.3f}"), ("why", lambda r: in_words(r, r["because_of"]))]
    if found["list"]:
        parts.append(_items(f"list of {found['night']}", found["list"], told, pictures))
    else:
        parts.append(Text(f"no list of its own: {found['served_instead']}", "yellow"))
    return parts


def _item(found: dict[str, Any], pictures: Pictures | None) -> list[Any]:
    told = [("score", lambda r: f"{r['score']:.3f}"), ("most alike in", lambda r: r["modality"] or "")]
    head = Text(f"{found['title']} ({found['item_id']}): {', '.join(found['categories']) or 'no categories'}")
    parts: list[Any] = [Group(head, pictures.of(found["picture"])) if pictures else head]
    parts += [_items(f"by {basis}", rows, told, pictures) for basis, rows in found["similar"].items()]
    return (
        parts if found["similar"] else [*parts, Text("nothing is like it: it has no content and no events", "yellow")]
    )


def _nights(found: list[dict[str, Any]], _: Pictures | None) -> list[Any]:
    ndcg = next((k for r in found for k in r if k.startswith("ndcg@")), "ndcg")
    numbers = ("events", "items", "encoded", "seconds", ndcg)
    table = _table("nights", ("night", "lists", *numbers, "decided"), numbers)
    for r in found:
        shown = [f"{r['events']:,}", f"{r['items']:,}", f"{r['encoded']:,}"]
        shown += ["" if r[k] is None else f"{r[k]:.{d}f}" for k, d in (("seconds", 0), (ndcg, 4))]
        table.add_row(str(r["night"]), r["state"], *shown, escape("; ".join(r["decided"])))
    return [table if found else Text("no night was run yet", "yellow")]


def _difference(found: dict[str, Any], _: Pictures | None) -> list[Any]:
    users = found["users"]
    kept = "" if found["share_kept"] is None else f", {found['share_kept']:.1%} of their items stay"
    head = f"{found['before']} to {found['after']}: {found['changed_lists']:,} of {users['both']:,} lists differ{kept}"
    some = f" (of one in {found['one_of']} users)" if found["one_of"] > 1 else ""
    parts: list[Any] = [Text(f"{head}; {users['new']:,} new lists, {users['gone']:,} gone{some}")]
    for what, said in found["why"].items():
        parts.append(Text(f"{what}: " + ("; ".join(said) or "the same")))
    for name in ("gained", "lost"):
        if found[name]:
            told = [("before", lambda r: r["before"]), ("after", lambda r: r["after"])]
            parts.append(_items(f"items that {name} places", found[name], told, None))
    table = _table("lists that changed most", ("user", "share kept"))
    for r in found["most_changed"]:
        table.add_row(escape(r["user_id"]), f"{r['share_kept']:.0%}")
    return [*parts, table] if found["most_changed"] else parts


TOLD: dict[str, Callable[[Any, Pictures | None], list[Any]]] = {
    "explain": _user,
    "similar": _item,
    "history": _nights,
    "compare": _difference,
}
