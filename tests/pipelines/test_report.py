"""The page of a night: what is on it, worked out by hand on a lake of a few rows, and read back as a browser would."""

from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from pipelines.align import align
from pipelines.config import Config
from pipelines.fuse import fuse
from pipelines.lake.storage import Lake
from pipelines.operation import Report
from pipelines.page import charts, gallery, numbers
from pipelines.raw.places import RawStore
from pipelines.report import report
from pipelines.score import score
from pipelines.sections import Aligner, Recommend
from pipelines.similar import similar
from pipelines.train import train
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, rows_of, tiny_lake
from tests.payloads import picture

BEFORE = DAY - timedelta(days=1)
EVIL = "<script>alert(1)</script> & $x$"


class Page(HTMLParser):
    """Texts, pictures, tags and the elements that are still open."""

    VOID = ("meta", "img", "br", "use", "path", "link", "rect", "line", "circle")

    def __init__(self, text: str):
        super().__init__()
        self.texts: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [v or "" for k, v in attrs if k == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Config, Lake]:
    """A night with lists: u likes a and b, v likes a; c is new and has an evil title; a and b have pictures."""
    events = [event(u, i, at(10)) for u, i in ("ua", "ub", "va")]
    raw = tmp_path / "raw"
    raw.mkdir()
    media = []
    for n, name in enumerate("ab"):
        (raw / f"{name}.png").write_bytes(picture((60, 40), ("red", "blue")[n]))
        media.append({"sha256": f"i{name}", "kind": "image", "format": "png", "uri": f"{name}.png"})
    items = [
        {"item_id": i, "text_sha256": f"t{i}", "text": i, "title": f"Title {i}", "categories": ["sea"]}
        | ({"image_sha256s": [f"i{i}"]} if i in "ab" else {"title": EVIL})
        for i in "abc"
    ]
    lake = tiny_lake(tmp_path / "lake", events, items, media=media)
    publish_vectors(lake, "text", {"ta": [1, 0], "tb": [0.6, 0.8], "tc": [0, 1]})
    publish_vectors(lake, "image", {"ia": [1, 0, 0], "ib": [0, 1, 0]})
    bad = {"stage": "standardize", "source": "events.csv", "reason": "bad_time", "detail": "expected a time, got x"}
    lake.publish_step("quarantine", DAY, "standardize", rows_of("quarantine", [bad | {"position": n} for n in (7, 3)]))
    recommend = Recommend(models=("popularity",), serve="popularity", k=2, new_items=1)
    config = config_of(raw, recommend=recommend, aligner=Aligner(dim=8, heads=2, kind="ridge"))
    for stage in (align, fuse, train, score, similar):
        list(stage(config, lake, DAY))
    return config, lake


def page_of(config: Config, lake: Lake) -> tuple[str, Page]:
    list(report(config, lake, DAY))
    text = (lake.folder("reports", DAY) / "index.html").read_text()
    return text, Page(text)


def test_files_that_nothing_reads_are_named(shop: tuple[Config, Lake]) -> None:
    """Of a folder misspelt, a note, a hidden file and the two pictures."""
    config, lake = shop
    assert "that nothing reads" not in page_of(config, lake)[0]
    raw = Path(config.paths.raw)
    (raw / "interactons").mkdir()
    (raw / "interactons" / "day.csv").write_text("user_id,item_id\n")
    for name in ("notes.txt", ".hidden.csv"):
        (raw / name).write_text("x")
    said = "2 files in the raw folder that nothing reads: interactons/day.csv, notes.txt"
    assert said in page_of(config, lake)[1].texts


class Older:
    """Two nights of a version whose metrics had no intervals."""

    def days(self, table: str, upto: object = None) -> list[date]:
        return [BEFORE, DAY]

    def manifest(self, table: str, day: date) -> str:
        return "there"

    def read(self, table: str, day: date) -> pa.Table:
        row = {"model": "popularity", "metric": "ndcg", "k": 10, "slice": "all", "value": 0.2, "n_users": 9}
        return pa.Table.from_pylist([row])


def test_nights_of_an_earlier_version_have_curves_without_intervals(shop: tuple[Config, Lake]) -> None:
    config, lake = shop[0], cast(Lake, Older())
    head = numbers.headline(config, lake, DAY)
    assert (head.value, head.low, head.before, head.change) == (0.2, None, 0.2, "")
    (curve,) = numbers.accuracy_curves(config, lake, DAY)
    assert (list(curve.values), list(curve.low)) == ([0.2, 0.2], [])
    assert [r["low"] for r in numbers.slices(config, lake, DAY)] == [None]


def test_a_house_calls_its_items_and_users_what_it_likes(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    words = {"items": "tracks", "users": "listeners", "user": "listener"}
    said = config.model_copy(update={"report": config.report.model_copy(update={"words": words})})
    plain, own = (page_of(c, lake)[1].texts for c in (config, said))
    assert "3 items, 2 users with events; 3 items are in tonight's lists" in plain
    assert "3 tracks, 2 listeners with events; 3 tracks are in tonight's lists" in own
    assert sum("tracks" in text for text in own) > sum("tracks" in text for text in plain) + 1


def test_the_page_is_whole_escaped_and_the_same_again(shop: tuple[Config, Lake]) -> None:
    text, page = page_of(*shop)
    assert page.open == [], "every element is closed"
    assert len(page.ids) == len(set(page.ids)), "ids are unique, also those of charts"
    assert "script" not in page.tags
    assert EVIL in page.texts
    assert "http://" not in text.replace("http://www.w3.org", ""), "nothing is fetched"
    assert "https://" not in text
    lake, vectors = shop[1], shop[1].read("emb_text", DAY)
    known = lake.require("emb_text", DAY)
    lake.publish("emb_text", DAY, vectors, config_digest=known.config_digest, spec=known.spec, counters={"copied": 3})
    again, _ = page_of(*shop)
    assert again == text, "also where a night that is run again copies what it has encoded before"


def test_lists_are_shown_as_pictures_with_titles_and_reasons(shop: tuple[Config, Lake]) -> None:
    _, page = page_of(*shop)
    assert {p["alt"] for p in page.pictures} == {"Title a", "Title b"}
    assert all((p["src"] or "").startswith("data:image/jpeg;base64,") for p in page.pictures)
    for said in ("Nothing is judged yet: there are no lists of the night before, or nobody came to like anything new.",
                 "typical: as long a history as half of all", "view, 03-10", "popular", "2 pictures"):  # fmt: skip
        assert any(said in t for t in page.texts), said
    at_line = page.texts.index("bad_time")
    assert page.texts[at_line - 1 : at_line + 2] == ["2", "bad_time", "events.csv line 3: expected a time, got x"]


def test_pictures_have_a_budget_and_broken_ones_are_letters(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    _, page = page_of(config.model_copy(update={"report": Report(pictures=1)}), lake)
    assert len({p["src"] for p in page.pictures}) == 1
    assert any("more are left out, see report.pictures" in t for t in page.texts)
    for name in "ab":
        Path(config.paths.raw, f"{name}.png").write_bytes(b"no picture")
    _, page = page_of(config, lake)
    assert not page.pictures
    assert "TA" in page.texts


def test_the_headline_says_whether_a_change_is_sure() -> None:
    def said(before: float | None) -> str:
        return numbers.Headline("NDCG@20", "ease", 0.3, 0.25, 0.35, before, 9).change

    assert said(0.26) == "It was 0.2600 the night before, in the interval: no change that is sure."
    assert said(0.2) == "It was 0.2000 the night before, below the interval."
    assert said(0.4) == "It was 0.4000 the night before, above the interval."
    assert said(None) == ""


def judged_lake(root: Path) -> Lake:
    """Two nights of ease and popularity; the second has slices and a group that differs."""
    lake = Lake(root)
    for day, value in ((BEFORE, 0.2), (DAY, 0.3)):
        rows = [
            {"model": m, "metric": metric, "k": 20, "slice": part, "value": value + more, "n_users": n}
            | {"low": value - 0.05, "high": value + 0.05}
            for m, more in (("ease", 0.0), ("popularity", 0.1))
            for metric in ("ndcg", "recall")
            for part, n in (("all", 40), ("segment=gold", 9))
        ]
        rows.append({"model": "ease", "metric": "gini", "k": 20, "slice": "all", "value": 0.5, "n_users": 40})
        rows.sort(key=lambda r: (r["model"], r["metric"], r["k"], r["slice"]))
        lake.publish("eval_offline", day, rows_of("eval_offline", rows))
    of = {"model": "ease", "metric": "ndcg", "k": 20, "kind": "segment", "low": -0.3, "high": -0.1, "n_users": 20}
    gaps = [
        of | {"group": g, "value": 0.1, "difference": d, "p": p, "p_holm": p, "widest": 0.2}
        for g, d, p in (("gold", -0.1, 0.2), ("iron", -0.2, 0.01), ("tin", 0.3, 0.04))
    ]
    lake.publish("eval_gaps", DAY, rows_of("eval_gaps", gaps))
    return lake


def test_numbers_are_those_of_the_served_recommender(tmp_path: Path) -> None:
    lake, config = (
        judged_lake(tmp_path),
        config_of(tmp_path, recommend=Recommend(models=("ease", "popularity"), serve="ease")),
    )
    found = numbers.headline(config, lake, DAY)
    assert (found.value, found.low, found.high, found.before, found.users) == (0.3, 0.25, 0.35, 0.2, 40)
    first, second = numbers.accuracy_curves(config, lake, DAY)
    assert (first.name, list(first.days), list(first.values)) == ("ease", [BEFORE, DAY], [0.2, 0.3])
    assert (list(first.low), list(first.high)) == ([pytest.approx(0.15), 0.25], [0.25, 0.35])
    assert (second.name, list(second.low)) == ("popularity", [])
    assert [r["model"] for r in numbers.recommenders(config, lake, DAY)] == ["popularity", "ease"], "the best first"
    assert numbers.recommenders(config, lake, DAY)[1] == {"model": "ease", "ndcg": 0.3, "recall": 0.3, "gini": 0.5}
    assert [(r["name"], r["n"]) for r in numbers.slices(config, lake, DAY)] == [("all", 40), ("segment=gold", 9)]
    assert [r["group"] for r in numbers.gaps(config, lake, DAY)] == ["tin", "iron"], "what is sure, the largest first"
    nothing = Lake(tmp_path / "empty")
    assert numbers.headline(config, nothing, DAY).value is None
    assert numbers.accuracy_curves(config, nothing, DAY) == numbers.slices(config, nothing, DAY) == []


def test_bars_of_few_users_are_grey() -> None:
    rows = [{"name": n, "value": 0.5, "low": None, "high": None, "n": u} for n, u in (("many", 10), ("few", 9))]
    drawn = charts.bars("slices", rows, "NDCG")
    assert drawn is not None
    assert drawn.count(f"fill: {charts.GREY}") == drawn.count(f"fill: {charts.COLOURS[0]}") == 1
    assert "many 0.500, few 0.500" in drawn
    assert charts.bars("slices", [], "NDCG") is charts.by_night("curve", [], "NDCG") is None


def test_names_that_begin_with_an_underscore_have_an_entry() -> None:
    drawn = charts.stacked("events", [DAY], {"_view": [1], "buy": [2]}, "events")
    assert drawn is not None
    assert "_view" in drawn
    assert "buy" in drawn


def test_a_tenth_of_the_catalogue_is_said_with_its_places() -> None:
    drawn = charts.exposure("exposure", np.array([11, 1, 1, 1, 1, 1, 1, 1, 1, 1]))
    assert drawn is not None
    assert "a tenth of the catalogue has 55% of the places" in drawn
    assert charts.exposure("exposure", np.zeros(3)) is None


def test_who_is_shown_is_typical_badly_served_and_new(shop: tuple[Config, Lake]) -> None:
    """Of three whose list had something the middle one; of two whose had nothing the one who liked more; who is new."""
    config, lake = shop
    lists = [
        {"user_id": u, "rank": 1, "model": "popularity", "item_id": "a", "score": 1.0, "arm": "default"}
        | {"recommendation_id": u, "reason_code": "popular"}
        for u in ("d", "e", "f", "g", "h", "u", "v")
    ]
    lake.publish("recommendations", DAY, rows_of("recommendations", lists))
    judged = [("d", 0.2, 1), ("e", 0.5, 1), ("f", 0.9, 1), ("g", 0.0, 2), ("h", 0.0, 5)]
    metrics = dict.fromkeys(("recall", "map", "mrr", "hit_rate", "auc", "serendipity"), 0.0)
    rows: list[dict[str, Any]] = [
        {"model": "popularity", "user_id": u, "k": 10, "relevant": n, "ndcg": v} | metrics for u, v, n in judged
    ]
    lake.publish("eval_users", DAY, rows_of("eval_users", rows))
    night = night_of(lake)
    shown = gallery.people(night, gallery.Tiles(night, RawStore(config.paths.raw), 9), "popularity")
    assert [(p.user_id, p.why) for p in shown] == [
        ("e", "typical: NDCG 0.500, the middle of those whose list had anything"),
        ("h", "badly served: came to like 5 items, none of them in the list"),
        ("d", "new: 0 items liked so far"),
    ]


def test_where_only_the_list_for_anyone_is_there_nobody_is_shown(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    row = {"user_id": "*", "rank": 1, "model": "popularity", "item_id": "a", "score": 1.0, "arm": "default"}
    for rows in ([row | {"recommendation_id": "r", "reason_code": "popular"}], []):
        lake.publish("recommendations", DAY, rows_of("recommendations", rows))
        night = night_of(lake)
        assert gallery.people(night, gallery.Tiles(night, RawStore(config.paths.raw), 9), "popularity") == []
        _, page = page_of(config, lake)
        assert page.open == []


def test_what_was_liked_since_is_marked_where_the_list_had_it(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    before = [{"user_id": "u", "rank": 1, "model": "popularity", "item_id": "b", "score": 1.0, "arm": "default"}]
    before[0] |= {"recommendation_id": "r", "reason_code": "popular"}
    lake.publish("recommendations", BEFORE, rows_of("recommendations", before))
    night = night_of(lake)
    tiles = gallery.Tiles(night, RawStore(config.paths.raw), 9)
    (u,) = (p for p in gallery.people(night, tiles, "popularity") if p.user_id == "u")
    assert [(t.item_id, t.note, t.marked) for t in u.wanted] == [
        ("b", "was in the list", True),
        ("a", "was not in the list", False),
    ]
    assert [t.item_id for t in u.history] == ["a", "b"]
    assert u.facts == "2 events with 2 items, served by popularity, arm default"


def test_a_picture_stands_near_its_own_words(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    night = night_of(lake)
    rows = gallery.across_modalities(
        night, gallery.Tiles(night, RawStore(config.paths.raw), 9), gallery.features_of(night)
    )
    table = {r["item_id"]: r for r in lake.read("feat_items", DAY).to_pylist()}
    for row in rows:
        m = row.item.note.removeprefix("by its ")
        query = np.array(table[row.item.item_id][f"vector_{m}"])
        for name, near in row.beside.items():
            other = name.split(" to ")[1].split(":")[0]
            cosine = {i: float(np.dot(r[f"vector_{other}"], query)) for i, r in table.items() if r[f"has_{other}"]}
            order = sorted(cosine, key=lambda i: (-round(cosine[i], 6), i))
            assert [t.item_id for t in near] == order[: gallery.NEAR]
            if row.item.item_id in order:
                assert f"its own {other} is {order.index(row.item.item_id) + 1} of {len(order)}" in name
    assert {r.item.note for r in rows} == {"by its image", "by its text"}


def test_items_near_on_both_nights_are_marked(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    of = {"basis": "both", "score": 0.5}
    for day, near in ((BEFORE, "cb"), (DAY, "b")):
        rows = [of | {"item_id": "a", "rank": n + 1, "similar_item_id": i} for n, i in enumerate(near)]
        lake.publish("similar_items", day, rows_of("similar_items", rows))
    night = night_of(lake)
    (row,) = gallery.neighbours_of_two_nights(night, gallery.Tiles(night, RawStore(config.paths.raw), 9), BEFORE)
    shown = {name: [(t.item_id, t.marked) for t in tiles] for name, tiles in row.beside.items()}
    assert shown == {"tonight": [("b", True)], str(BEFORE): [("c", False), ("b", True)]}


def test_what_nobody_is_shown_is_counted(shop: tuple[Config, Lake]) -> None:
    config, lake = shop
    night = night_of(lake)
    tiles = gallery.Tiles(night, RawStore(config.paths.raw), 9)
    counts = numbers.exposure(lake, DAY, tiles.ids)
    listed = lake.read("recommendations", DAY)["item_id"].to_pylist()
    assert counts.tolist() == [listed.count(i) for i in "abc"]
    number, some = gallery.unseen(night, tiles, np.array([1, 0, 0]))
    assert (number, [t.item_id for t in some]) == (2, ["b", "c"])
