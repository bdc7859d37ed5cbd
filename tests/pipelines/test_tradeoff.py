"""What settings of dials cost and buy: by hand on six items."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.lake.storage import Lake, StorageError
from pipelines.learning.reasons import Space
from pipelines.night.arms import Plan
from pipelines.night.dials import free_settings
from pipelines.night.files import Loaded
from pipelines.night.judgement import Judgement
from pipelines.night.placing import Places
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.scored import popular_where_flat
from pipelines.sections import Dials, Recommend
from pipelines.tradeoff import MOST_USERS, SETTINGS, at_its_prices, settings_judged, some_of, tradeoff
from tests.lakes import DAY, config_of, rows_of
from tests.toy import Fixed

USERS, N = 3, 25
IDS = [f"i{n:02d}" for n in range(N)]


@pytest.fixture
def night() -> Loaded:
    """Everyone is ranked i00, i01, ...; i00 is the one that everyone had liked, and nobody comes to like it again."""
    liked = np.zeros((USERS, N), np.float32)
    liked[:, 0] = 1
    positives, none = sparse.csr_matrix(liked), sparse.csr_matrix((USERS, N), dtype=np.float32)
    inputs = Inputs(positives, histories=Ragged.of([[0]] * USERS), has_signal=np.ones(USERS, bool))
    model = Fixed("popularity", np.tile(np.arange(N, 0, -1), (USERS, 1)))
    free = Places(sparse.csr_matrix((N, 0)), np.zeros(0), sparse.csr_matrix((USERS, 0)))
    categories = pa.array([[]] * N, pa.list_(pa.string()))
    return Loaded(
        inputs=inputs, users=pa.array(["u", "v", "w"]), items=pa.array(IDS), seen=none, hidden=none, moved=none,
        categories=categories, wanted={}, servable=np.ones(N, bool), liked=liked[0] > 0,
        space=Space(np.zeros((N, 0), np.float32), {}, {}), places=free, models=[model],
        plans=[Plan("default", "popularity", 0)] * USERS, exposed=np.zeros(N, np.int64),
    )  # fmt: skip


def judged(relevant: list[list[int]], users: list[str]) -> Judgement:
    """Users who came to like some items."""
    wanted = np.zeros((len(users), N), np.float32)
    for row, items in enumerate(relevant):
        wanted[row, items] = 1
    return Judgement(
        users=pa.array(users), items=pa.array(IDS), relevant=sparse.csr_matrix(wanted), warm=np.ones(len(users), bool),
        met=np.array([3] + [0] * (N - 1)), users_before=3, segment=np.full(len(users), None, object),
    )  # fmt: skip


def test_a_dial_is_judged_at_every_setting_against_nothing_turned(night: Loaded, tmp_path: Path) -> None:
    """u and v came to like i01, at the second place; once popularity counts .1, i00 falls and it stands first."""
    config = config_of(tmp_path, recommend=Recommend(models=("popularity",), serve="popularity", k=10, dials=Dials()))
    rows = settings_judged(night, judged([[1], [1]], ["u", "v"]), config)
    value = {(r["dial"], r["setting"], r["metric"]): r for r in rows}
    assert {d for d, _, _ in value} == {"calibration", "exposure", "popularity"}, "no content, so no diversity"
    assert {s for _, s, _ in value} == set(SETTINGS)
    plain = value["popularity", 0.0, "ndcg"]
    assert (plain["value"], plain["difference"], plain["n_users"]) == (pytest.approx(1 / np.log2(3)), 0, 2)
    turned = value["popularity", 0.1, "ndcg"]
    assert turned["value"] == 1.0
    assert [turned[c] for c in ("difference", "low", "high")] == pytest.approx([1 - 1 / np.log2(3)] * 3)
    assert value["popularity", 1.0, "novelty"]["value"] > value["popularity", 0.0, "novelty"]["value"]
    assert value["exposure", 1.0, "ndcg"]["value"] == plain["value"], "nothing was listed before"
    assert value["popularity", 0.0, "coverage"]["value"] == 10 / N


def test_the_others_stay_as_they_are_set(night: Loaded, tmp_path: Path) -> None:
    recommend = Recommend(models=("popularity",), serve="popularity", k=10, dials=Dials(popularity=0.5))
    rows = settings_judged(night, judged([[1]], ["u"]), config_of(tmp_path, recommend=recommend))
    assert {r["value"] for r in rows if r["dial"] == "exposure" and r["metric"] == "ndcg"} == {1.0}


def test_dials_are_judged_at_the_prices_of_the_nights_floors(night: Loaded, tmp_path: Path) -> None:
    """A price puts i04 first, and novelty's price takes the popular i00 off its place before it, as at night."""
    lake = Lake(tmp_path)
    prices = [
        {"target": "domain:new", "floor": 0.1, "before": 0.0, "share": 0.1, "price": 0.9},
        {"target": "novelty", "floor": 0.5, "before": 0.0, "share": 0.5, "price": 0.4},
    ]
    catalogue = rows_of("std_items", [{"item_id": i, "domain": "new" if i == "i04" else "old"} for i in IDS])
    of_night = SimpleNamespace(day=DAY, items=lambda: catalogue)
    assert at_its_prices(night, lake, of_night) is night, "a night that had none"  # type: ignore[arg-type]
    lake.publish("floor_prices", DAY, rows_of("floor_prices", prices))
    priced = at_its_prices(night, lake, of_night)  # type: ignore[arg-type]
    assert np.flatnonzero(priced.bonus).tolist() == [4]
    assert priced.added == {"popularity": 0.4}
    config = config_of(tmp_path, recommend=Recommend(models=("popularity",), serve="popularity", k=10, dials=Dials()))
    rows = settings_judged(priced, judged([[4]], ["u"]), config)
    assert {r["value"] for r in rows if r["metric"] == "ndcg"} == {1.0}
    rows = settings_judged(priced, judged([[1]], ["u"]), config)
    found = {r["value"] for r in rows if r["metric"] == "ndcg"}
    assert list(found) == [pytest.approx(1 / np.log2(3))], "i00 is behind it"


def test_who_has_no_list_is_not_judged_and_of_many_some_are(night: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = judged([[1], [2], [3], [4]], ["t", "u", "v", "w"])
    assert some_of(everyone, night).users.to_pylist() == ["u", "v", "w"]
    monkeypatch.setattr("pipelines.tradeoff.MOST_USERS", 2)
    some = some_of(everyone, night)
    assert len(some.users) == 2 < MOST_USERS
    assert [IDS[i] for i in some.relevant.indices] == [
        {"u": "i02", "v": "i03", "w": "i04"}[u.as_py()] for u in some.users
    ]


def test_what_is_free_ends_where_ndcg_first_falls() -> None:
    ndcg = {0.0: 0.2, 0.1: 0.2, 0.2: 0.21, 0.3: 0.19, 0.5: 0.3}
    rows = [{"dial": "popularity", "setting": s, "metric": "ndcg", "value": v} for s, v in ndcg.items()]
    rows += [{"dial": "popularity", "setting": s, "metric": "coverage", "value": s} for s in ndcg]
    rows += [{"dial": "exposure", "setting": s, "metric": "ndcg", "value": 1 - s} for s in ndcg]
    assert free_settings(rows) == {"popularity": (0.2, {"coverage": (0.0, 0.2), "ndcg": (0.2, 0.21)})}


def test_a_night_whose_models_were_fitted_on_other_events_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late events remake earlier days; what the models of that night were fitted on is no longer there."""
    lake, before = Lake(tmp_path), DAY - timedelta(days=1)
    lake.publish_files("model_popularity", before, {"card.json": b"{}"})
    lake.publish("reco_candidates", before, rows_of("reco_candidates", []))

    def stale(*_: object) -> None:
        raise StorageError("model_popularity was fitted on another std_interactions")

    monkeypatch.setattr("pipelines.tradeoff.opened", stale)
    config = config_of(tmp_path, recommend=Recommend(models=("popularity",), dials=Dials()))
    (made,) = tradeoff(config, lake, DAY)
    assert (made.table, made.rows) == ("eval_dials", 0)


def test_of_whom_a_recommender_has_nothing_to_say_the_popular_items_are_ranked() -> None:
    inputs = Inputs(sparse.csr_matrix(np.array([[1, 0, 1], [0, 0, 1]], np.float32)))
    scores = np.array([[0.5, 0.2, 0.1], [0, 0, 0]], np.float32)
    assert popular_where_flat(scores, inputs).tolist() == [pytest.approx([0.5, 0.2, 0.1]), [1, 0, 2]]
