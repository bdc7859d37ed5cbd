"""What may be listed: availability and wishes, by hand."""

import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.lake.storage import Lake
from pipelines.night import rules
from pipelines.night.files import save_night
from pipelines.night.inputs import load_sparse
from pipelines.night.rules import allowed, available, meaningless, ruled, wishes_of
from pipelines.sections import ItemsSource, Rules
from pipelines.standardize import standardize
from tests.lakes import DAY, at, event, night_of, rows_of, tiny_lake
from tests.pipelines.test_standardize import config_at, log, made
from tests.shop import write_jsonl

END = datetime(2026, 3, 11, tzinfo=UTC)  # the lists are for the eleventh


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({}, True),
        ({"available_from": at(11, 23)}, True),
        ({"available_from": at(12, 0)}, False),
        ({"available_to": at(11, 0)}, False),
        ({"available_to": at(11, 1)}, True),
        ({"status": "active"}, True),
        ({"status": "sold out"}, False),
        ({"status": "removed"}, False),
        ({"available_from": at(1), "available_to": at(20), "status": "published"}, True),
    ],
)
def test_an_item_is_available_on_the_next_day(item: dict[str, object], expected: bool) -> None:
    assert available(rows_of("std_items", [{"item_id": "x"} | item]), END).tolist() == [expected]


ITEMS = rows_of(
    "std_items",
    [{"item_id": "a", "categories": ["sea", "art"]}, {"item_id": "b", "categories": ["sea"]}]
    + [{"item_id": "c", "tags": ["new"], "domain": "prints"}],
)


def wish(user: str, value: str, what: str, target: str = "item") -> dict[str, object]:
    return {"user_id": user, "target": target, "value": value, "wish": what, "created_at": at(1)}


def matrices(*wishes: dict[str, object]) -> tuple[list[list[float]], list[list[float]]]:
    hidden, moved = wishes_of(rows_of("std_controls", wishes), ITEMS, pa.array(["u", "v"]))
    return hidden.toarray().tolist(), moved.toarray().tolist()


def test_wishes_for_items_and_categories() -> None:
    nothing = [[0, 0, 0], [0, 0, 0]]
    assert matrices() == (nothing, nothing)
    assert matrices(wish("v", "c", "hide")) == ([[0, 0, 0], [0, 0, 1]], nothing)
    assert matrices(wish("u", "sea", "hide", "category")) == ([[1, 1, 0], [0, 0, 0]], nothing)
    assert matrices(wish("u", "sea", "more", "category"), wish("u", "art", "more", "category"))[1][0] == [2, 1, 0]
    assert matrices(wish("u", "sea", "more", "category"), wish("u", "art", "less", "category"))[1][0] == [1, 1, 0]
    assert matrices(wish("u", "a", "less"), wish("u", "new", "more", "tag"))[1][0] == [-1, 0, 1]
    assert matrices(wish("u", "new", "hide", "tag"))[0][0] == [0, 0, 1]
    assert matrices(wish("u", "sea", "hide", "category"), wish("u", "a", "more")) == (
        [[0, 1, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 0, 0]],
    ), "a wish for the item counts before one for its category"
    assert matrices(wish("nobody", "a", "hide"), wish("u", "gone", "hide"), wish("u", "?", "hide", "category")) == (
        nothing,
        nothing,
    )


def test_scores_after_the_rules() -> None:
    scores = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], np.float32)
    moved = sparse.csr_matrix(np.array([[1, 0, -2], [1, 0, 0]], np.float32))
    out = ruled(scores, np.array([True, False, True]), moved)
    spread = np.sqrt(2 / 3)
    assert np.allclose(out[0, [0, 2]], [1 + spread, 3 - 2 * spread])
    assert np.allclose(out[1, [0, 2]], [5, 5])
    assert np.isinf(out[:, 1]).all()
    assert scores[0].tolist() == [1, 2, 3], "those of other recommenders are read later"
    assert ruled(scores, np.ones(3, bool), sparse.csr_matrix((2, 3), dtype=np.float32)) is scores


def test_the_latest_wish_counts_and_every_row_has_a_fate(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    rows = [
        ("u", "x", None, "hide", 1), ("u", "x", None, "Reset", 2),
        ("u", "y", None, "less", 1), ("u", "y", None, "hide", 3),
        ("v", None, "sea", "See more", 1), ("v", "x", None, "sing", 1), ("v", None, None, "hide", 1),
        ("v", "z", None, "hide", 11),
        ("w", "x", None, "hide", 1), ("w", None, None, "reset", 2), ("w", "y", None, "hide", 3),
        ("u", "y", None, "undo", 2),
    ]  # fmt: skip
    names = ("user_id", "item_id", "category", "wish")
    wishes = [dict(zip(names, r[:4], strict=True)) | {"created_at": at(int(str(r[4]))).isoformat()} for r in rows]
    wishes.append({"user_id": "v", "tag": "new", "wish": "less", "created_at": at(2).isoformat()})
    write_jsonl(tmp_path / "raw" / "controls" / "w.jsonl", wishes)
    lake = made(config)
    found = lake.read("std_controls", date(2026, 3, 10)).to_pylist()
    assert [(r["user_id"], r["target"], r["value"], r["wish"]) for r in found] == [
        ("u", "item", "y", "hide"),
        ("v", "category", "sea", "more"),
        ("v", "tag", "new", "less"),
        ("w", "everything", "", "reset"),
        ("w", "item", "y", "hide"),
    ], "what w hid before starting over is gone"
    rejects = lake.read("quarantine", date(2026, 3, 10)).to_pylist()
    assert [(r["stage"], r["position"], r["reason"]) for r in rejects] == [
        ("ingest_controls", 6, "unknown_wish"),
        ("ingest_controls", 7, "no_target"),
    ]
    (ledger,) = (r for r in lake.read("ingest_files", date(2026, 3, 10)).to_pylist() if r["kind"] == "controls")
    assert [ledger[f"rows_{f}"] for f in ("in", "out", "superseded", "quarantined")] == [12, 5, 5, 2]


def test_a_reset_forgets_the_history_before_it(tmp_path: Path) -> None:
    events = [event("u", "a", at(1)), event("u", "b", at(5)), event("u", "c", at(5, 13)), event("v", "a", at(1))]
    lake = tiny_lake(tmp_path, events, [{"item_id": i} for i in "abc"])
    reset = {"user_id": "u", "target": "everything", "value": "", "wish": "reset", "created_at": at(5), "source": "s"}
    lake.publish("std_controls", DAY, rows_of("std_controls", [reset]))
    data = night_of(lake).dataset()
    assert data.seen().toarray().tolist() == [[0, 0, 1], [1, 0, 0]]
    lake.publish("std_controls", DAY, rows_of("std_controls", []))
    assert night_of(lake).dataset().seen().toarray().tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        (Rules(), "abc"), (Rules(deny=("item:a",)), "bc"), (Rules(deny=("category:sea", "domain:prints")), ""),
        (Rules(allow=("tag:new", "item:a")), "ac"), (Rules(allow=("category:sea",), deny=("category:art",)), "b"),
        (Rules(allow=("item:none",)), ""),
    ],
)  # fmt: skip
def test_what_a_shop_denies_and_allows(rules: Rules, left: str) -> None:
    assert "".join(np.array(list("abc"))[allowed(ITEMS, rules)]) == left


def test_targets_that_nothing_is_meant_by_are_named() -> None:
    rules = Rules(deny=("item:a", "category:zzz"), allow=("domain:prints",), pinned={1: "nope", 2: "b"})
    assert meaningless(ITEMS, rules) == ["category:zzz", "item:nope"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"deny": ("a",)}, "write item:ID"), ({"allow": ("brand:x",)}, "'brand:x' is no target"),
        ({"at_most": {"category": 0}}, "1 or more"), ({"pinned": {1: "a", 2: "a"}}, "names an item twice"),
    ],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Rules(**settings)


def test_who_users_are_as_of_the_day(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    path = tmp_path / "raw" / "users" / "u.csv"
    path.parent.mkdir()
    path.write_text(
        "user_id,segment,country,age,updated_at\nu,old,DE,40,2026-03-01\nu,new,FR,,2026-03-09\nu,later,IT,1,2026-03-12\n"
    )
    (row,) = made(config).read("std_users", date(2026, 3, 10)).to_pylist()
    assert (row["segment"], row["attributes"]) == ("new", ["country=FR"])


def test_what_a_whole_catalogue_no_longer_has_is_removed(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    (tmp_path / "raw" / "items" / "a.jsonl").unlink()
    log(tmp_path, "e.csv", "u,x,view,,2026-03-10T02:00:00Z")
    for day, ids in ((9, "xyz"), (10, "xz"), (11, "y")):
        rows = [{"item_id": i, "title": i, "status": "Active"} for i in ids]
        write_jsonl(tmp_path / "raw" / "items" / f"2026-03-{day:02d}.jsonl", rows)

    def statuses(mode: str) -> dict[str, str]:
        chosen = config.model_copy(update={"items": ItemsSource(path="items", mode=mode)})
        lake = Lake(tmp_path / mode)
        list(standardize(chosen, lake, date(2026, 3, 10)))
        table = lake.read("std_items", date(2026, 3, 10))
        return dict(zip(table["item_id"].to_pylist(), table["status"].to_pylist(), strict=True))

    assert statuses("changes") == {"x": "active", "y": "active", "z": "active"}
    assert statuses("snapshot") == {"x": "active", "y": "removed", "z": "active"}


# --- segments ---------------------------------------------------------------------------------------------------

SEGMENTS = pa.table({"user_id": ["a", "b", "c", "cold", "d"], "segment": ["gold", "gold", None, "gold", "tin"]})


def test_segments_with_enough_users_have_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SEGMENT_USERS", 2)
    users = pa.array(["a", "b", "c", "d"])
    assert rules.segment_of(SEGMENTS, users).tolist() == ["gold", "gold", None, "tin"]
    assert rules.segments_with_lists(SEGMENTS, users) == ["*gold"]
    assert rules.segments_with_lists(SEGMENTS, pa.array(["*gold", "a", "b"])) == [], "somebody is called that"
    assert rules.segments_with_lists(SEGMENTS, pa.array(["a", "c"])) == []


def test_a_segment_leans_to_what_its_users_like_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four users with a history all like x, one y, none z; of the two of gold one likes y. The prior is 2 users."""
    monkeypatch.setattr(rules, "PRIOR_USERS", 2.0)
    users = np.array(["*", "*gold", "a", "b", "c", "d"], object)
    likes = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 0], [2, 0, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    moved = rules.leanings_of(SEGMENTS, users, sparse.csr_matrix(likes)).toarray()
    assert moved[1] == pytest.approx([0, np.log((1 + 2 * 0.25) / 4 / 0.25), 0])
    assert not moved[[0, 2, 3, 4, 5]].any()
    monkeypatch.setattr(rules, "MOST_MOVED", 0.1)
    assert rules.leanings_of(SEGMENTS, users, sparse.csr_matrix(likes))[1, 1] == pytest.approx(0.1)


def test_a_segment_for_each_user_takes_no_time() -> None:
    ids = [f"u{n}" for n in range(20_000)]
    segments = pa.table({"user_id": ids, "segment": ids})
    started = time.process_time()
    moved = rules.leanings_of(segments, np.array(["*", *ids], object), sparse.eye(20_001, 3, -1, format="csr"))
    assert moved.nnz == 0
    assert time.process_time() - started < 2, "it took a minute"


def test_what_was_shown_in_vain_is_counted(tmp_path: Path) -> None:
    """u was shown a twice, of which once too long ago, b seven times and c once, which u has met later on."""
    events = [event("u", "a", at(9), "impression"), event("v", "c", at(9))]
    events += [event("u", "b", at(8, hour), "impression") for hour in range(7)]
    events += [event("u", "c", at(9), "impression"), event("u", "c", at(10))]
    old = [event("u", "a", datetime(2026, 2, 20, tzinfo=UTC), "impression")]
    lake = tiny_lake(tmp_path, [*events, *old], [{"item_id": i} for i in "abc"])
    night = night_of(lake)
    assert night.ignored(night.dataset()).toarray().tolist() == [[1, 5, 0], [0, 0, 0]]
    save_night(night_of(lake, modalities=()), tmp_path / "files", "cpu", 0.5)
    moved = load_sparse(tmp_path / "files", "moved").toarray()
    assert moved.tolist() == [[0, 0, 0], [-0.5, -2.5, 0], [0, 0, 0]], "anyone else, u, v"
    save_night(night_of(lake, modalities=()), tmp_path / "off", "cpu")
    assert not load_sparse(tmp_path / "off", "moved").nnz
