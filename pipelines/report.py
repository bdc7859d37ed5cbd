"""A night as one page to look at: accuracy, decisions, data, groups, exposure, people, items alike.

Writes ``reports``: ``index.html``, which needs no other file and no network. It depends on the tables of the night and
of earlier ones, and on the pictures in the raw folder. Belongs here: what goes where on the page. Does not: the numbers
and pictures themselves (``page``).
"""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.night import Night
from pipelines.operation import Report, Word
from pipelines.page import charts, gallery, numbers
from pipelines.raw.places import RawStore

log = logging.getLogger(__name__)

NAME = "index.html"
WORDS: tuple[Word, ...] = get_args(Word)


def report(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``reports`` of the night."""
    with single_threaded():  # sums of several threads differ from run to run
        page = rendered(values(config, lake, day))
    made = lake.publish_files("reports", day, {NAME: page.encode()}, config_digest=config.digest("report"))
    log.info("report %s: %d KB", day, len(page) // 1024)
    yield made


def rendered(shown: dict[str, Any]) -> str:
    """The page with some values; all text in them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("pipelines.page", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template("index.html.jinja").render(shown)


def values(config: Config, lake: Lake, day: date) -> dict[str, Any]:
    """What the template shows."""
    night, store = Night.of(config, lake, day), RawStore(*config.raw_place)
    tiles = gallery.Tiles(night, store, config.report.pictures)
    counts = numbers.exposure(lake, day, tiles.ids)
    people = gallery.people(night, tiles, config.recommend.serve)
    unseen_count, unseen = gallery.unseen(night, tiles, counts)
    features = gallery.features_of(night)
    across = gallery.across_modalities(night, tiles, features)
    neighbours = gallery.neighbours_of_two_nights(night, tiles, day - timedelta(days=1))
    return {
        "day": day,
        "facts": _facts(night, counts, config.report),
        "words": {w: config.report.word(w) for w in WORDS},
        "catalogue": len(tiles.ids),
        "people": people,
        "unseen_count": unseen_count,
        "unseen": unseen,
        "across": across,
        "neighbours": neighbours,
        "pictures": sum(1 for p in tiles.made.values() if p),
        "skipped": tiles.skipped,
    } | _in_numbers(config, lake, day, night, counts, features)


def _facts(night: Night, counts: np.ndarray, said: Report) -> str:
    users = len(pc.unique(night.events()["user_id"]))
    listed, items = int((counts > 0).sum()), said.word("items")
    known = f"{len(counts):,} {items}, {users:,} {said.word('users')} with events"
    return f"{known}; {listed:,} {items} are in tonight's lists"


def _in_numbers(
    config: Config, lake: Lake, day: date, night: Night, counts: np.ndarray, features: pa.Table | None
) -> dict[str, Any]:
    """Numbers and charts."""
    head, found = numbers.headline(config, lake, day), numbers.recommenders(config, lake, day)
    points, groups = gallery.map_of_items(night, features)
    days, events = numbers.events_by_day(night)
    return {
        "headline": head,
        "curve": charts.by_night("curve", numbers.accuracy_curves(config, lake, day), head.metric),
        "recommenders": found,
        "metrics": [m for m in numbers.SHOWN if any(m in r for r in found)],
        "dials": numbers.dials(lake, day),
        "decisions": numbers.decisions(lake, day),
        "rows_by_kind": numbers.rows_by_kind(lake, day),
        "unknown": numbers.unknown_events(night),
        "events": charts.stacked("events", days, events, "events"),
        "refusals": numbers.refusals(lake, day),
        "unread": numbers.unread_files(config),
        "health": numbers.health(lake, day),
        "slices": charts.bars("slices", numbers.slices(config, lake, day), head.metric),
        "gaps": numbers.gaps(config, lake, day),
        "exposure": charts.exposure("exposure", counts),
        "map": charts.item_map("map", points, groups),
        "cost": numbers.cost(lake, day),
    }
