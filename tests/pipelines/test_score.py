"""Lists, ids and what serves: by hand."""

import hashlib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.align import align
from pipelines.fuse import fuse
from pipelines.lake.promises import PROMISES
from pipelines.lake.storage import Lake, StorageError
from pipelines.learning.reasons import Shared, Space
from pipelines.night.arms import Plan
from pipelines.night.dials import Traits
from pipelines.night.exploring import Exploring
from pipelines.night.files import Loaded, save_night, save_plans
from pipelines.night.placing import Places
from pipelines.operation import Compute
from pipelines.raw.places import UnusualError
from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.scored import scored
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.score import (
    ScoreBlock,
    Serving,
    candidates,
    lists_judged,
    recommendation_id,
    score,
    served,
    speakers_of,
    stop_where_lists_are_unusual,
)
from pipelines.sections import Aligner, Dials, Recommend
from pipelines.train import train
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, rows_of, tiny_lake
from tests.toy import Fixed


@pytest.fixture
def night() -> Loaded:
    positives = sparse.csr_matrix(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32))
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    inputs = Inputs(positives, histories=Ragged.of([[], [0], []]), has_signal=np.array([False, True, True]))
    space = Space(vectors, {"text": vectors}, {"text": np.array([1, 0.75, 1], np.float32)})
    liked = np.array([True, False, False])
    none = sparse.csr_matrix((3, 3), dtype=np.float32)
    ids = pa.array(["*", "u", "z"]), pa.array(["a", "b", "c"])
    free = Places(sparse.csr_matrix((3, 0)), np.zeros(0), sparse.csr_matrix((3, 0)))
    categories = pa.array([["sea"], ["sky", "sea"], []], pa.list_(pa.string()))
    return Loaded(inputs, *ids, positives, none, none, categories, {}, np.ones(3, bool), liked, space, free, [], [])


def test_an_id_is_the_same_for_the_same_night_model_user_and_item() -> None:
    expected = "20260310-" + hashlib.sha256(b"2026-03-10|hybrid|u|a").hexdigest()[:20]
    assert recommendation_id(DAY, "hybrid", "u", "a") == expected
    others = {
        recommendation_id(date(2026, 3, 11), "hybrid", "u", "a"),
        recommendation_id(DAY, "ease", "u", "a"),
        recommendation_id(DAY, "hybrid", "v", "a"),
        recommendation_id(DAY, "hybrid", "u", "b"),
    }
    assert len({expected, *others}) == 5


LISTS = (np.array([[2, 1], [1, -1]]), np.array([[0.9, 0.5], [0.25, -np.inf]], np.float32))


def test_lists_become_rows_and_end_where_nothing_is_left(night: Loaded) -> None:
    rows = candidates(night, np.array([0, 1]), "ease", *LISTS).to_pylist()
    assert [(r["model"], r["user_id"], r["rank"], r["item_id"], r["score"]) for r in rows] == [
        ("ease", "*", 1, "c", pytest.approx(0.9)),
        ("ease", "*", 2, "b", 0.5),
        ("ease", "u", 1, "b", 0.25),
    ]


def test_served_rows_have_an_id_and_a_reason(night: Loaded) -> None:
    users = np.array([0, 1])
    rows = candidates(night, users, "ease", *LISTS)
    table = served(night, users, DAY, rows, LISTS[0]).to_pylist()
    assert [r["recommendation_id"] for r in table] == [
        recommendation_id(DAY, "ease", u, i) for u, i in ("*c", "*b", "ub")
    ]
    assert [r["arm"] for r in table] == ["default"] * 3
    assert [(r["reason_code"], r["reason_item_ids"]) for r in table] == [
        ("new", []),
        ("new", []),
        ("similar_to_history", ["a"]),
    ]
    assert [(r["reason_modality"], r["reason_attention"]) for r in table] == [(None, None)] * 2 + [("text", 0.75)]
    assert [r["reason_effect"] for r in table] == [None, None, 1], "all that the only history item says"


def test_what_the_models_behind_a_list_make_of_a_history(night: Loaded) -> None:
    """Of a hybrid those that weigh more than nothing, and the space; of a model it alone; of nobody's history none."""

    class Speaking(Fixed):
        def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
            return np.full((len(of), len(items)), float(len(self.name)), np.float32)

    scores = np.zeros((3, 3), np.float32)
    models: list[Recommender] = [
        Speaking("a", scores),
        Fixed("mute", scores),
        Speaking("ccc", scores),
        Speaking("bb", scores),
    ]
    hybrid = Hybrid(facts=False).given({m.name: m for m in models})
    hybrid.channels_of = {"warm": np.array([0.5, 2.0, 0.25, -1.0]), "cold": np.ones(4)}
    night = replace(night, models=[*models, hybrid])
    users, lists = np.array([0, 1]), np.array([[2, 1], [1, -1]])
    found = speakers_of(night, users, "hybrid", lists)
    assert found is not None
    assert (found.of.tolist(), found.items.tolist()) == ([0], [1, 2]), "u has had item 0"
    assert [(w, p.tolist()) for w, p in found.parts[:-1]] == [(0.5, [[1, 1]]), (0.25, [[3, 3]])]
    weight, space = found.parts[-1]
    assert weight == 1.0
    assert np.allclose(space, night.space.centred[[0]] @ night.space.centred[[1, 2]].T)
    assert found.feedback.toarray().tolist() == night.inputs.positives[users].toarray().tolist()
    alone = speakers_of(night, users, "bb", lists)
    assert alone is not None
    assert [w for w, _ in alone.parts] == [1.0, 1.0]
    assert speakers_of(night, np.array([0]), "hybrid", lists[:1]) is None
    assert speakers_of(night, users, "hybrid", np.full((2, 2), -1)) is None


@pytest.mark.parametrize(("user", "code"), [("*", "popular"), ("*gold", "popular_in_segment"), ("x", "popular")])
def test_who_stands_for_a_segment_gets_what_is_popular_there(night: Loaded, user: str, code: str) -> None:
    night = replace(night, users=pa.array([user, "u", "v"], pa.string()))
    lists = (np.array([[0, 2]]), np.array([[1.0, 0.5]], np.float32))
    table = served(night, np.array([0]), DAY, candidates(night, np.array([0]), "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == [code, "new"], "nobody has had the second"
    assert table["reason_value"].to_pylist() == ["gold" if code == "popular_in_segment" else None, None]


def test_where_nothing_else_speaks_a_wish_is_the_reason(night: Loaded) -> None:
    """x has no history and wants more of sea and of item c; what is moved down, or for a segment, is no wish."""
    moved = sparse.csr_matrix(np.array([[2, 1, 1], [0, 0, 0], [1, 1, 0]], np.float32))
    night = replace(night, users=pa.array(["x", "u", "*gold"]), moved=moved, wanted={"x": {"sea"}})
    lists = (np.array([[0, 1, 2]]), np.array([[3, 2, 1]], np.float32))
    table = served(night, np.array([0]), DAY, candidates(night, np.array([0]), "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == ["wished", "wished", "wished"]
    assert table["reason_value"].to_pylist() == ["sea", "sea", None], "c itself is wanted, it is of no category"
    down = replace(night, moved=-moved)
    table = served(down, np.array([0]), DAY, candidates(down, np.array([0]), "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == ["popular", "new", "new"]
    segment = replace(night, inputs=replace(night.inputs, has_signal=np.zeros(3, bool)))
    table = served(segment, np.array([2]), DAY, candidates(segment, np.array([2]), "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == ["popular_in_segment", "new", "new"]
    row = served(night, np.array([1]), DAY, candidates(night, np.array([1]), "m", *lists), lists[0])
    assert row["reason_code"].to_pylist()[:2] == ["similar_to_history"] * 2, "u's history comes before a wish"


def test_what_is_known_to_be_shared_is_said(night: Loaded) -> None:
    """u likes a, which is like b and, as far as is known, shares a director with it."""
    users, lists = np.array([1]), (np.array([[1, 2]]), np.array([[1.0, 0.5]], np.float32))
    rows = candidates(night, users, "m", *lists)
    known = replace(night, shared=Shared(3, np.array([0 * 3 + 1]), np.array(["directed_by Lee"], object)))
    plain, table = (served(n, users, DAY, rows, lists[0]) for n in (night, known))
    assert plain["reason_code"].to_pylist() == table["reason_code"].to_pylist() == ["similar_to_history", "new"]
    assert plain["reason_value"].to_pylist() == [None, None]
    assert table["reason_value"].to_pylist() == ["directed_by Lee", None]


def test_a_user_with_uploads_alone_is_told_so(night: Loaded) -> None:
    users, lists = np.array([2]), (np.array([[0, 1]]), np.array([[1.0, 0.5]], np.float32))
    table = served(night, users, DAY, candidates(night, users, "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == ["similar_to_uploads"] * 2
    assert table["reason_modality"].to_pylist() == [None, None], "no uploads are known here"
    content = {"text": np.eye(3, dtype=np.float32), "image": np.eye(3, dtype=np.float32)}
    uploads = {"text": np.zeros((3, 3), np.float32), "image": np.zeros((3, 3), np.float32)}
    uploads["text"][2], uploads["image"][2] = [3, 4, 0], [4, 3, 0]
    inputs = replace(night.inputs, content=content, uploads=uploads)
    attention = {"text": np.array([0.25, 0.5, 0], np.float32), "image": np.array([0.75, 0.5, 0], np.float32)}
    night = replace(night, inputs=inputs, space=replace(night.space, attention=attention))
    table = served(night, users, DAY, candidates(night, users, "m", *lists), lists[0])
    assert table["reason_modality"].to_pylist() == ["image", "text"], "cosines .8 to .6, and .6 to .8"
    assert table["reason_attention"].to_pylist() == [0.75, 0.5]
    assert table.schema.field("reason_item_ids").type == pa.list_(pa.string())


def test_the_hybrid_reads_the_signals_of_the_others_once(night: Loaded) -> None:
    asked: list[str] = []

    class Counted(Fixed):
        def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
            asked.append(self.name)
            return super().score(inputs, users)

    class Chances(Counted, Transfer):
        pass

    one, two = Counted("one", [[1, 2, 3]] * 3), Chances("transfer", [[0, 0.5, 0.5]] * 3)
    hybrid = Hybrid(facts=False).given({"one": one, "transfer": two})
    weights = np.array([2.0, 0.0], np.float32)
    hybrid.channels_of = {"warm": weights, "cold": weights}
    hybrid.prior = {s: np.array([0, 0, 1], np.float32) for s in ("warm", "cold")}
    found = {
        name: (scores, chances) for name, scores, chances in scored([one, two, hybrid], night.inputs, np.arange(2))
    }
    assert asked == ["one", "transfer"]
    assert found["one"][1] is None
    assert found["hybrid"][1] is not None
    assert found["hybrid"][1].tolist() == [[0, 0.5, 0.5]] * 2, "new items are ranked by their chances"
    z = (np.array([1, 2, 3]) - 2) / np.sqrt(2 / 3)
    assert found["hybrid"][0][0].tolist() == pytest.approx((2 * z + [0, 0, 1]).tolist())


def test_without_transfer_new_items_are_ranked_by_the_hybrids_own_scores(night: Loaded) -> None:
    one = Fixed("one", [[1, 2, 3]] * 3)
    hybrid = Hybrid(facts=False).given({"one": one})
    hybrid.channels_of = {s: np.ones(1, np.float32) for s in ("warm", "cold")}
    hybrid.prior = {s: np.zeros(3, np.float32) for s in ("warm", "cold")}
    *_, (name, scores, chances) = scored([one, hybrid], night.inputs, np.arange(3))
    assert name == "hybrid"
    assert chances is scores


def listed(night: Loaded, folder: Path, serving: Serving, users: int = 3) -> dict[str, list[tuple[str, str]]]:
    """User and item of each row of each shard that a block of all users makes, by its name."""
    block = ScoreBlock(str(folder), DAY, serving, str(folder), "cpu")
    block.night, block.traits = night, None
    if any(plan.dials.turned for plan in night.plans):
        block.traits = Traits.of(night.inputs, night.categories, night.exposed)
    paths = [Path(p) for p in block.process((0, users, users))]
    tables = {p.stem.split("-")[0]: pq.read_table(p) for p in paths}
    return {n: list(zip(t["user_id"].to_pylist(), t["item_id"].to_pylist(), strict=True)) for n, t in tables.items()}


def with_models(night: Loaded, *models: Recommender, serve: str = "", places: int = 1) -> Loaded:
    """The night with other recommenders, of which one serves everybody."""
    plan = Plan("default", serve or models[-1].name, places)
    return replace(night, models=list(models), plans=[plan] * 3)


def test_a_block_lists_every_recommender_and_serves_one(night: Loaded, tmp_path: Path) -> None:
    """Item a is all that anybody likes, and user u has met it."""
    models = Fixed("one", [[3, 2, 1]] * 3), Fixed("two", [[1, 2, 3]] * 3)
    serving = Serving(("one", "two"), 2, True, 1)
    found = listed(with_models(night, *models), tmp_path, serving)
    two = [("*", "c"), ("*", "b"), ("u", "c"), ("u", "b"), ("z", "c"), ("z", "b")]
    one = [("*", "a"), ("*", "b"), ("u", "b"), ("u", "c"), ("z", "a"), ("z", "b")]
    assert found == {"one": one, "two": two, "served": two}, "only a hybrid keeps places for new items"
    everything = listed(with_models(night, *models, serve="one"), tmp_path, replace(serving, filter_seen=False))
    assert everything["one"][2:4] == [("u", "a"), ("u", "b")]
    assert everything["served"] == everything["one"]


def test_of_whom_nothing_is_known_the_popular_items_are_listed(night: Loaded, tmp_path: Path) -> None:
    """A model that says nothing of * and z; c is liked most, then a."""
    model = Fixed("one", [[0, 0, 0], [1, 2, 3], [0, 0, 0]])
    positives = sparse.csr_matrix(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 5]], np.float32))
    known = replace(with_models(night, model), inputs=replace(night.inputs, positives=positives))
    found = listed(known, tmp_path, Serving(("one",), 2, False, 0))
    assert found["served"] == [("*", "c"), ("*", "a"), ("u", "c"), ("u", "b"), ("z", "c"), ("z", "a")]


def test_rules_for_places_come_after_ranking(night: Loaded, tmp_path: Path) -> None:
    """b and c are of one group, which may have one place; a is pinned to the second place of whoever has not met it."""
    model = Fixed("one", [[1, 3, 2]] * 3)
    members = sparse.csr_matrix(np.array([[0], [1], [1]], np.float32))
    places = Places(members, np.array([1.0]), sparse.csr_matrix((3, 1)))
    ruled_night = replace(with_models(night, model), places=places)
    found = listed(ruled_night, tmp_path, Serving(("one",), 2, True, 0))
    assert found["one"] == [("*", "b"), ("*", "c"), ("u", "b"), ("u", "c"), ("z", "b"), ("z", "c")], (
        "candidates are plain"
    )
    assert found["served"] == [("*", "b"), ("*", "a"), ("u", "b"), ("z", "b"), ("z", "a")], "u has met a"
    fixed = replace(with_models(night, model), places=replace(places, at_most=np.array([np.inf]), pinned={1: 0}))
    found = listed(fixed, tmp_path, Serving(("one",), 2, True, 0))
    assert found["served"] == [("*", "b"), ("*", "a"), ("u", "b"), ("u", "c"), ("z", "b"), ("z", "a")]
    table = pq.read_table(tmp_path / "served-000000000.parquet")
    assert table["reason_code"].to_pylist()[:2] == ["new", "pinned"]
    assert table["score"].to_pylist()[:2] == [3.0, 2.0], "the score of the place"


def test_dials_turn_the_served_lists_of_their_arm_and_no_candidates(night: Loaded, tmp_path: Path) -> None:
    """Item a is all that anybody likes: where popularity counts, it stands last. u is of the arm, z and * are not."""
    model = Fixed("one", [[3, 2.9, 1]] * 3)
    plain, arm = Plan("default", "one", 0), Plan("e=turned", "one", 0, Dials(popularity=0.5))
    ranked = replace(night, models=[model], plans=[plain, arm, plain], seen=night.hidden, exposed=np.zeros(3))
    found = listed(ranked, tmp_path, Serving(("one",), 2, True, 0))
    assert found["one"] == [(u, i) for u in "*uz" for i in "ab"]
    assert found["served"] == [("*", "a"), ("*", "b"), ("u", "b"), ("u", "a"), ("z", "a"), ("z", "b")]
    table = pq.read_table(tmp_path / "served-000000000.parquet")
    assert table["score"].to_pylist()[2:4] == [3.0, pytest.approx(2.9)], "scores of the ranks"
    assert table["arm"].to_pylist()[2:4] == ["e=turned"] * 2


@pytest.mark.parametrize("kind", ["epsilon", "thompson"])
def test_what_is_drawn_keeps_the_rules_and_scores_fall(tmp_path: Path, kind: Any) -> None:
    """Twelve items; each group of four may have two places of five; 11 is new, 0 is pinned to the third place."""
    n, k, users = 12, 5, 60
    rng = np.random.default_rng(0)
    model = Fixed("one", rng.random((users, n)).astype(np.float32))
    members = sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), np.arange(n) // 4)), shape=(n, 3))
    empty = sparse.csr_matrix((users, n), dtype=np.float32)
    places = Places(members, np.full(3, 2.0), sparse.csr_matrix((users, 3)), {2: 0})
    names, items = pa.array([f"u{u:02d}" for u in range(users)]), pa.array([f"i{i:02d}" for i in range(n)])
    inputs = Inputs(empty, histories=Ragged.of([[]] * users), has_signal=np.zeros(users, bool))
    liked, space = np.arange(n) < 11, Space(np.zeros((n, 2), np.float32), {}, {})
    categories = pa.array([[]] * n, pa.list_(pa.string()))
    how = Exploring(kind, 2, 6, np.zeros(n), np.zeros(n), DAY)
    plans = [Plan("default", "one", 0)] * users
    loaded = Loaded(
        inputs,
        names,
        items,
        empty,
        empty,
        empty,
        categories,
        {},
        np.ones(n, bool),
        liked,
        space,
        places,
        [model],
        plans,
        exploring=how,
    )
    found = listed(loaded, tmp_path, Serving(("one",), k, True, 0), users)["served"]
    table = pq.read_table(tmp_path / "served-000000000.parquet").to_pylist()
    assert len(found) == users * k
    for user in names.to_pylist():
        rows = [r for r in table if r["user_id"] == user]
        groups = [int(r["item_id"][1:]) // 4 for r in rows if r["reason_code"] != "pinned"]
        assert max(groups.count(g) for g in range(3)) <= 2
        assert [r["score"] for r in rows] == sorted((r["score"] for r in rows), reverse=True)
        assert len({r["item_id"] for r in rows}) == k
        assert rows[2]["item_id"] == "i00"
        assert all(r["reason_code"] == "explored" for r in rows if r["propensity"] is not None)
        kept_new = [r for r in rows if r["item_id"] == "i11" and r["propensity"] is None]
        assert len(kept_new) <= 1
    assert sum(r["propensity"] is not None for r in table) > users


def test_the_last_places_of_a_hybrid_list_are_for_new_items(night: Loaded, tmp_path: Path) -> None:
    one = Fixed("one", [[3, 2, 1]] * 3)
    hybrid = Hybrid(facts=False).given({"one": one})
    hybrid.channels_of = {s: np.ones(1, np.float32) for s in ("warm", "cold")}
    hybrid.prior = {s: np.zeros(3, np.float32) for s in ("warm", "cold")}
    liked = replace(with_models(night, one, hybrid), liked=np.array([True, True, False]))
    serving = Serving(("one", "hybrid"), 2, False, 1)
    assert listed(liked, tmp_path, serving)["served"] == [(u, i) for u in "*uz" for i in "ac"], "c is new"
    assert listed(liked, tmp_path, serving)["one"] == [(u, i) for u in "*uz" for i in "ab"]
    without = replace(liked, plans=[replace(p, new_items=0) for p in liked.plans])
    found = listed(without, tmp_path, serving)
    assert found["served"] == [(u, i) for u in "*uz" for i in "ab"]
    assert found["hybrid"] == [(u, i) for u in "*uz" for i in "ac"], "an arm changes what is served, not the candidates"


def test_each_user_is_served_by_the_plan_of_the_arm(night: Loaded, tmp_path: Path) -> None:
    models = Fixed("one", [[3, 2, 1]] * 3), Fixed("two", [[1, 2, 3]] * 3)
    plans = [Plan("default", "one", 1), Plan("x=b", "two", 1), Plan("x=a", "one", 1)]
    arms = replace(with_models(night, *models), plans=plans)
    found = listed(arms, tmp_path, Serving(("one", "two"), 2, False, 1))
    assert found["served"] == [("*", "a"), ("*", "b"), ("u", "c"), ("u", "b"), ("z", "a"), ("z", "b")]
    table = pq.read_table(tmp_path / "served-000000000.parquet")
    assert table["arm"].to_pylist() == ["default"] * 2 + ["x=b"] * 2 + ["x=a"] * 2
    assert table["model"].to_pylist() == ["one"] * 2 + ["two"] * 2 + ["one"] * 2


@pytest.fixture
def shop(tmp_path: Path) -> Lake:
    """Features of a night: u likes a and b, v likes a and skips c; c and d are new, and d has no vectors."""
    events = [event(u, i, at(10)) for u, i in ("ua", "ub", "va")] + [event("v", "c", at(10), "skip")]
    items = [{"item_id": i, "text_sha256": f"t{i}", "text": i} for i in "abc"] + [{"item_id": "d"}]
    upload = {"user_id": "w", "content_sha256": "tb", "modality": "text", "text": "b", "created_at": at(10)}
    lake = tiny_lake(tmp_path, events, items, [upload])
    publish_vectors(lake, "text", {"ta": [1, 0], "tb": [0.6, 0.8], "tc": [0, 1]})
    publish_vectors(lake, "image", {})
    config = config_of(tmp_path, aligner=Aligner(dim=8, heads=2, kind="ridge"))
    for stage in (align, fuse):
        list(stage(config, lake, DAY))
    return lake


def test_the_stage_lists_every_recommender_for_every_user(shop: Lake) -> None:
    made = []
    for rows in (2, 2048):
        recommend = Recommend(models=("popularity", "item_cf"), serve="popularity", k=2, event_weights={"skip": -1.0})
        config = config_of(shop.root, recommend=recommend, compute=Compute(shard_rows=rows))
        list(train(config, shop, DAY))
        health, prices, first, second = score(config, shop, DAY)
        assert [m.table for m in (health, prices, first, second)] == [
            "list_health", "floor_prices", "reco_candidates", "recommendations",
        ]  # fmt: skip
        assert prices.rows == 0, "nothing is promised"
        assert first.inputs.keys() == second.inputs.keys() == {"model_popularity", "model_item_cf"}
        made.append([shop.read(t, DAY) for t in ("reco_candidates", "recommendations")])
    assert made[0] == made[1], "however users are cut"
    lists: dict[tuple[str, str], list[str]] = {}
    for r in made[1][0].sort_by([("rank", "ascending")]).to_pylist():
        lists.setdefault((r["model"], r["user_id"]), []).append(r["item_id"])
    assert lists == {
        ("popularity", "*"): ["a", "b"], ("popularity", "u"): ["c", "d"],
        ("popularity", "v"): ["b", "d"], ("popularity", "w"): ["a", "b"],
        ("item_cf", "*"): ["a", "b"], ("item_cf", "u"): ["c", "d"],
        ("item_cf", "v"): ["b", "d"], ("item_cf", "w"): ["a", "b"],
    }  # fmt: skip
    served = {(r["user_id"], r["item_id"]): r for r in made[1][1].to_pylist()}
    assert {r["model"] for r in served.values()} == {"popularity"}
    assert served["v", "b"]["recommendation_id"] == recommendation_id(DAY, "popularity", "v", "b")
    assert {k: r["reason_code"] for k, r in served.items()} == {
        ("*", "a"): "popular", ("*", "b"): "popular", ("u", "c"): served["u", "c"]["reason_code"],
        ("u", "d"): "new", ("v", "b"): served["v", "b"]["reason_code"], ("v", "d"): "new",
        ("w", "a"): "similar_to_uploads", ("w", "b"): "similar_to_uploads",
    }  # fmt: skip
    alike = [r for r in served.values() if r["reason_code"] == "similar_to_history"]
    assert all((r["reason_modality"], r["reason_attention"]) == ("text", 1.0) for r in alike)
    assert all(set(r["reason_item_ids"]) <= set("ab") for r in alike)


def test_lists_that_change_more_than_usual_stop_the_night(tmp_path: Path) -> None:
    """u keeps two of four items; w changed to another recommender, x is new: they say nothing."""
    lake, config, before = Lake(tmp_path), config_of(tmp_path), DAY - timedelta(days=1)

    def rows(lists: dict[str, tuple[str, str]]) -> pa.Table:
        return pa.Table.from_pylist(
            [{"user_id": u, "model": m, "item_id": i} for u, (m, items) in lists.items() for i in items]
        )

    old = rows({"u": ("hybrid", "abcd"), "w": ("ease", "abcd")}).to_pylist()
    place = {"score": 0.0, "arm": "default", "reason_code": "new"}
    old = [r | place | {"rank": n + 1, "recommendation_id": str(n)} for n, r in enumerate(old)]
    lake.publish(
        "recommendations", before, rows_of("recommendations", old), config_digest=config.digest("recommend", "rules")
    )
    path = tmp_path / "served.parquet"
    pq.write_table(rows({"u": ("hybrid", "abyz"), "w": ("hybrid", "wxyz"), "x": ("hybrid", "wxyz")}), path)
    (row,) = lists_judged(config, lake, DAY, [path]).to_pylist()
    assert (row["number"], row["value"], row["passed"], row["history"]) == ("same_lists", 0.5, True, 0)
    stop_where_lists_are_unusual([row])
    for n, value in enumerate((0.99, 0.98)):
        usual = pa.Table.from_pylist([row | {"value": value}], schema=rows_of("list_health", []).schema)
        lake.publish("list_health", before - timedelta(days=n), usual)
    (row,) = lists_judged(config, lake, DAY, [path]).to_pylist()
    assert (row["passed"], row["history"]) == (True, 2), "one user is one chance: .98 - .3 - 1 is below 0"
    with pytest.raises(UnusualError, match="^check usual_same_lists: 2026-03-10: share of a user's list"):
        stop_where_lists_are_unusual([row | {"passed": False}])
    stop_where_lists_are_unusual([row | {"passed": False, "accepted": True}])
    other = config_of(tmp_path, recommend=Recommend(k=5))
    assert not lists_judged(other, lake, DAY, [path]).num_rows, "other settings, other lists"
    assert not lists_judged(config, Lake(tmp_path / "first"), DAY, [path]).num_rows


def test_one_model_is_trained_alone_whatever_became_of_the_others(shop: Lake) -> None:
    """Another catalogue makes the other models stale; popularity needs none of them, the hybrid all."""
    recommend = Recommend(models=("popularity", "item_cf", "hybrid"))
    config = config_of(shop.root, recommend=recommend)
    list(train(config, shop, DAY))
    items = shop.read("std_items", DAY).to_pylist()
    items[0]["title"] = "another"
    shop.publish("std_items", DAY, rows_of("std_items", items))
    assert [m.table for m in train(config, shop, DAY, only={"popularity"})] == ["model_popularity"]
    with pytest.raises(StorageError, match="model_item_cf of 2026-03-10 was fitted on another std_items"):
        list(train(config, shop, DAY, only={"hybrid"}))


def test_what_workers_read_is_what_the_night_has(shop: Lake, tmp_path: Path) -> None:
    night, folder = night_of(shop), tmp_path / "shards"
    assert save_night(night, folder, "cpu") == (4, 4), "users u, v, w and anyone else; four items"
    recommend = Recommend(models=("popularity",), serve="popularity")
    list(train(config_of(shop.root, recommend=recommend), shop, DAY))
    save_plans(config_of(shop.root, recommend=recommend), shop, DAY, folder)
    loaded = Loaded.of(shop, DAY, ("popularity",), folder, "cpu")
    assert (loaded.users.to_pylist(), loaded.items.to_pylist()) == (["*", "u", "v", "w"], ["a", "b", "c", "d"])
    assert loaded.seen.toarray().tolist() == [[0] * 4, [1, 1, 0, 0], [1, 0, 1, 0], [0] * 4]
    assert loaded.liked.tolist() == [True, True, False, False]
    table = shop.read("feat_items", DAY)
    assert loaded.space.aligned["text"][3].tolist() == [0] * 8, "what has no text has no vector"
    assert loaded.space.aligned["text"][:3].tolist() == table["vector_text"].to_pylist()[:3]
    assert loaded.space.attention["text"].tolist() == table["attention_text"].to_pylist()
    assert loaded.space.aligned.keys() == {"text"}
    assert [m.name for m in loaded.models] == ["popularity"]
    assert loaded.plans == [Plan("default", "popularity", 1)] * 4


def test_lists_obey_wishes_and_leave_out_what_is_gone(shop: Lake) -> None:
    """Popularity lists a, b, then c and d. Here u hides c, v wants more of d, w hides a category, b is sold out."""
    items = shop.read("std_items", DAY).to_pylist()
    items[0]["categories"], items[1]["status"] = ["sea"], "sold out"
    shop.publish("std_items", DAY, rows_of("std_items", items))
    wishes = [("u", "item", "c", "hide"), ("v", "item", "d", "more"), ("w", "category", "sea", "hide")]
    rows = [
        {"user_id": u, "target": t, "value": v, "wish": w, "created_at": at(10), "source": "s"} for u, t, v, w in wishes
    ]
    shop.publish("std_controls", DAY, rows_of("std_controls", rows))
    recommend = Recommend(models=("popularity",), serve="popularity", k=2, event_weights={"skip": -1.0})
    config = config_of(shop.root, recommend=recommend)
    for stage in (align, fuse, train, score):
        list(stage(config.model_copy(update={"aligner": Aligner(dim=8, heads=2, kind="ridge")}), shop, DAY))
    lists: dict[str, list[str]] = {}
    for r in shop.read("recommendations", DAY).sort_by([("rank", "ascending")]).to_pylist():
        lists.setdefault(r["user_id"], []).append(r["item_id"])
    assert lists == {"*": ["a", "c"], "u": ["d"], "v": ["d"], "w": ["c", "d"]}
    (promise,) = (p for p in PROMISES["recommendations"] if p.name == "lists_keep_their_word")
    served = shop.read("recommendations", DAY, ["user_id", "item_id"])
    night = night_of(shop, recommend=recommend)
    assert promise.broken(config, night, "recommendations", served) == []
    wrong = pa.table({"user_id": ["u", "w", "*"], "item_id": ["c", "a", "b"]})
    problems = promise.broken(config, night, "recommendations", pa.concat_tables([served, wrong.cast(served.schema)]))
    assert "1 rows recommend items that are not available on the next day" in problems
    assert "2 rows recommend what the user hides" in problems


def test_users_without_a_history_have_the_list_of_their_segment(shop: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """u and v like a, u alone likes b: gold, which v is of, leans away from b. Others of gold have its list."""
    monkeypatch.setattr("pipelines.night.rules.SEGMENT_USERS", 1)
    monkeypatch.setattr("pipelines.night.rules.PRIOR_USERS", 0.1)
    none: list[str] = []
    rows = [{"user_id": u, "segment": "gold", "attributes": none, "source": "s"} for u in ("v", "nobody yet")]
    shop.publish("std_users", DAY, rows_of("std_users", rows))
    recommend = Recommend(models=("popularity",), serve="popularity", k=2, event_weights={"skip": -1.0})
    config = config_of(shop.root, recommend=recommend)
    for stage in (align, fuse, train, score):
        list(stage(config.model_copy(update={"aligner": Aligner(dim=8, heads=2, kind="ridge")}), shop, DAY))
    served = shop.read("recommendations", DAY, ["user_id", "item_id"])
    lists = {u: served.filter(pc.equal(served["user_id"], u))["item_id"].to_pylist() for u in ("*", "*gold")}
    assert lists == {"*": ["a", "b"], "*gold": ["a", "c"]}
    assert set(served["user_id"].to_pylist()) == {"*", "*gold", "u", "v", "w"}
    (promise,) = (p for p in PROMISES["recommendations"] if p.name == "lists_keep_their_word")
    night = night_of(shop, recommend=recommend)
    assert promise.broken(config, night, "recommendations", served) == []
    short = served.filter(pc.not_equal(served["user_id"], "*gold"))
    assert "*gold" in promise.broken(config, night, "recommendations", short)[0]
