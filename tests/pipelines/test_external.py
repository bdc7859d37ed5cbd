"""Lists of somebody else: which delivery a night uses, what is refused, what they are worth in the hybrid."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from pipelines.config import Config
from pipelines.external import delivery_of, external
from pipelines.lake.deliveries import said
from pipelines.lake.promises import PROMISES, Remark
from pipelines.lake.storage import Lake
from pipelines.night.inputs import places_of
from pipelines.raw.places import RawStore
from pipelines.recommenders.external import External as Recommender
from pipelines.recommenders.external import fusion
from pipelines.recommenders.registry import entry
from pipelines.sections import External, Recommend
from tests.lakes import DAY, at, config_of, event, night_of, rows_of, tiny_lake


def deliver(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def house(root: Path, **external_lists: External) -> tuple[Config, Lake]:
    recommend = Recommend(models=("popularity", "hybrid"), external=external_lists)
    return config_of(root, recommend=recommend), Lake(root / "lake")


def listed(lake: Lake, day: date = DAY) -> list[tuple[Any, ...]]:
    rows = lake.read("external_lists", day).to_pylist()
    return [(r["model"], r["user_id"], r["rank"], r["item_id"], r["score"]) for r in rows]


def test_scores_put_items_in_order_and_bad_rows_are_refused(tmp_path: Path) -> None:
    """Ties go to the lower id; the better of two rows of an item counts; ids of 7 and 7.0 are the same."""
    config, lake = house(tmp_path, vendor=External(path="vendor", columns={"user_id": "uid", "score": "value"}))
    deliver(
        tmp_path / "vendor" / f"{DAY}.parquet",
        uid=["u", "u", "u", "u", "", "v", "u", "v"],
        item_id=[7.0, 3.0, 5.0, 7.0, 1.0, None, 9.0, 2.0],
        value=[0.5, 0.9, 0.9, 0.7, 1.0, 1.0, float("nan"), -3.0],
    )
    (manifest,) = [m for m in external(config, lake, DAY) if m.table == "external_lists"]
    name = "external_vendor"
    assert listed(lake) == [
        (name, "u", 1, "3", 0.9),
        (name, "u", 2, "5", 0.9),
        (name, "u", 3, "7", 0.7),
        (name, "v", 1, "2", -3.0),
    ]
    rejects = lake.read("quarantine", DAY).sort_by("position").to_pylist()
    assert [(r["position"], r["reason"]) for r in rejects] == [
        (1, "duplicate"),
        (5, "missing_user_id"),
        (6, "missing_item_id"),
        (7, "bad_number"),
    ]
    assert manifest.counters == {"in": 8, "quarantined": 4}
    assert broken("delivered_rows_accounted", config, lake) == []
    lake.publish("external_lists", DAY, lake.read("external_lists", DAY).slice(1), counters=manifest.counters)
    assert broken("delivered_rows_accounted", config, lake) == ["in 8, out 3 + quarantined 4"]


def broken(name: str, config: Config, lake: Lake) -> list[str]:
    (promise,) = (p for p in PROMISES["external_lists"] if p.name == name)
    night = night_of(lake)
    rows = lake.read("external_lists", DAY, list(promise.columns) or ["model"])
    return promise.broken(config, night, "external_lists", rows)


def test_ranks_count_before_scores_and_become_places_without_gaps(tmp_path: Path) -> None:
    config, lake = house(tmp_path, team=External(path="t"))
    ids = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"]}
    deliver(tmp_path / "t" / f"{DAY}.parquet", **ids, rank=[10, 0, 4], score=[9.0, 8, 7])
    list(external(config, lake, DAY))
    assert [(r[2], r[3]) for r in listed(lake)] == [(1, "b"), (2, "c"), (3, "a")]


@pytest.mark.parametrize(
    ("dates", "state", "used"),
    [
        ([DAY], "used", DAY),
        ([DAY - timedelta(days=2), DAY - timedelta(days=1)], "used", DAY - timedelta(days=1)),
        ([DAY - timedelta(days=2)], "stale", DAY - timedelta(days=2)),
        ([DAY + timedelta(days=1)], "late", DAY + timedelta(days=1)),
        ([DAY - timedelta(days=1), DAY + timedelta(days=1)], "used", DAY - timedelta(days=1)),
        ([], "missing", None),
    ],
)  # fmt: skip
def test_which_delivery_a_night_uses(tmp_path: Path, dates: list[date], state: str, used: date | None) -> None:
    """Lists of a day may be one day old; those of later days are of another night."""
    config, lake = house(tmp_path, vendor=External(path="vendor"))
    for d in dates:
        deliver(tmp_path / "vendor" / f"date={d}" / "part-0.parquet", user_id=["u"], item_id=[str(d)], rank=[1])
    found = delivery_of(RawStore(str(tmp_path)), config.recommend.external["vendor"], DAY, "UTC")
    assert (found.state, found.delivered) == (state, used)
    list(external(config, lake, DAY))
    assert [r[3] for r in listed(lake)] == ([str(used)] if state == "used" else [])
    (remark,) = broken("lists_are_delivered", config, lake)
    assert isinstance(remark, Remark)
    assert remark.warns == (state != "used")
    expected = {
        "used": "",
        "stale": "the newest lists are of 2026-03-08, more than max_age_days (1) before 2026-03-10",
        "late": "has lists from 2026-03-11 on, none up to 2026-03-10",
        "missing": "has no Parquet file",
    }
    assert expected[state] in remark
    assert remark.numbers == ({"vendor": float((DAY - used).days)} if used else {})
    if state != "used":
        assert said("vendor", {"state": state, "delivered": str(used)}, External(path="vendor"), DAY) == remark


def test_files_without_a_date_are_of_the_day_on_which_they_were_written(tmp_path: Path) -> None:
    import os

    deliver(tmp_path / "v" / "lists.parquet", user_id=["u"], item_id=["i"], rank=[1])
    os.utime(tmp_path / "v" / "lists.parquet", (at(10, 23, 30).timestamp(),) * 2)
    store = RawStore(str(tmp_path))
    assert delivery_of(store, External(path="v"), DAY, "UTC").delivered == DAY
    assert delivery_of(store, External(path="v"), DAY, "Europe/Paris").state == "late", "half past midnight in Paris"


def test_files_of_all_sorts_of_types(tmp_path: Path) -> None:
    """Scores as text beside numbers, a rank in one file alone, ids of 7.5, a column twice, text that is no UTF-8."""
    config, lake = house(tmp_path, one=External(path="v"), two=External(path="v"))
    folder = tmp_path / "v" / f"{DAY}"
    deliver(folder / "a.parquet", user_id=["u", "u", "u"], item_id=["i", "j", "k"], score=["0.5", "much", "0.7"])
    deliver(folder / "b.parquet", user_id=[1.0, 7.5], item_id=["i", "i"], score=[0.5, 0.5])
    deliver(folder / "c.parquet", user_id=["w", "w", "w"], item_id=["i", "i", "j"], rank=[float("nan"), 2.0, 1.0])
    columns = [pa.array(["u"]), pa.array(["u"]), pa.array(["i"])]
    twice = pa.Table.from_arrays(columns, ["user_id", "user_id", "item_id"])
    pq.write_table(twice.append_column("rank", pa.array([1])), folder / "d.parquet")
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"user_id": bad, "item_id": ["i"], "rank": [1]}), folder / "e.parquet")
    list(external(config, lake, DAY))
    mine = [r[1:4] for r in listed(lake) if r[0] == "external_one"]
    assert mine == [("1", 1, "i"), ("u", 1, "k"), ("u", 2, "i"), ("w", 1, "j"), ("w", 2, "i")]
    rejects = lake.read("quarantine", DAY).to_pylist()
    assert len(rejects) == 2 * 5, "of both names"
    reasons = {(r["source"][-9:], r["position"], r["reason"]) for r in rejects}
    assert reasons == {
        ("a.parquet", 2, "bad_number"),
        ("b.parquet", 2, "missing_user_id"),
        ("c.parquet", 1, "bad_number"),
        ("d.parquet", 0, "unreadable_parquet"),
        ("e.parquet", 0, "unreadable_parquet"),
    }
    assert broken("delivered_rows_accounted", config, lake) == []


def test_files_that_cannot_be_read_are_refused_and_the_others_count(tmp_path: Path) -> None:
    config, lake = house(tmp_path, vendor=External(path="v"), other=External(path="o"))
    folder = tmp_path / "v" / f"{DAY}"
    deliver(folder / "a.parquet", user_id=["u"], item_id=["i"], rank=[1])
    deliver(folder / "b.parquet", user_id=["u"], thing=["i"])
    deliver(folder / "c.parquet", user_id=[[1]], item_id=["i"], rank=[1])
    (folder / "d.parquet").write_bytes(b"PAR1 nothing")
    deliver(tmp_path / "o" / f"{DAY}.parquet", user_id=["w"], item_id=["i"], rank=[1])
    list(external(config, lake, DAY))
    assert [r[:2] for r in listed(lake)] == [("external_other", "w"), ("external_vendor", "u")]
    rejects = {r["source"][-9:]: r for r in lake.read("quarantine", DAY).to_pylist()}
    assert [rejects[f"{n}.parquet"]["reason"] for n in "bcd"] == ["missing_column", *["unreadable_parquet"] * 2]
    assert (
        rejects["b.parquet"]["detail"] == "external_vendor: expected item_id and score or rank, it has user_id, thing"
    )
    assert {r["position"] for r in rejects.values()} == {0}


# --- as a recommender -------------------------------------------------------------------------------------------------


def test_places_of_known_users_and_items_as_of_a_night(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(10)), event("v", "b", at(10))], [{"item_id": i} for i in "abc"])
    row = {"model": "external_x", "delivered": DAY}
    lists = [("u", 1, "c"), ("u", 2, "gone"), ("u", 3, "a"), ("nobody", 1, "a")]
    rows = [row | {"user_id": u, "rank": n, "item_id": i} for u, n, i in lists]
    lake.publish("external_lists", DAY, rows_of("external_lists", rows))
    night = night_of(lake)
    found = places_of(night.external_lists(DAY), night.dataset())
    assert found["external_x"].toarray().tolist() == [[3, 0, 1], [0, 0, 0]]
    assert night.external_lists(DAY - timedelta(days=1)).num_rows == 0, "nothing was known a night before"
    lake.publish("external_lists", DAY + timedelta(days=1), rows_of("external_lists", rows))
    assert night.external_lists(DAY + timedelta(days=1)).num_rows == 0, "and a night knows of no later one"


@pytest.mark.slow
def test_fusion_of_lists_agrees_with_ranx() -> None:
    """Two lists of 30 of 80 items for each of 40 users."""
    from ranx import Run, fuse

    rng, shape = np.random.default_rng(0), (40, 80)
    runs, total = [], np.zeros(shape)
    for _ in range(2):
        items = np.stack([rng.permutation(shape[1])[:30] for _ in range(shape[0])])
        user, place = np.repeat(np.arange(shape[0]), 30), np.tile(np.arange(1, 31), shape[0])
        lists = sparse.csr_matrix((place.astype(np.float32), (user, items.ravel())), shape=shape)
        total += fusion(lists).toarray()
        runs.append(Run({f"u{u}": {f"i{i}": 31.0 - n for n, i in enumerate(of, 1)} for u, of in enumerate(items)}))
    theirs = fuse(runs, method="rrf", params={"k": 60}).to_dict()
    for u in range(shape[0]):
        ours = {f"i{i}": total[u, i] for i in np.flatnonzero(total[u])}
        assert ours.keys() == theirs[f"u{u}"].keys()
        assert np.allclose([ours[i] for i in ours], [theirs[f"u{u}"][i] for i in ours], rtol=0, atol=1e-9)


def test_what_is_stored_is_what_was_fitted(tmp_path: Path) -> None:
    from pipelines.recommenders.base import Inputs

    lists = sparse.csr_matrix(np.array([[0, 1, 2], [0, 0, 0]], np.float32))
    inputs = Inputs(sparse.csr_matrix((2, 3), dtype=np.float32), external={"external_a": lists})
    model = entry("external_a").make({}).fit(inputs)
    again = entry("external_a").make({}).restore(model.state(), inputs)
    first, second = (m.evidence(inputs, np.arange(2)) for m in (model, again))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0][0] == pytest.approx([0, 1 / 61, 1 / 62])
    assert first[1][0] == pytest.approx([0, 1, 1 / np.log2(3)])
    assert not Recommender().fit(inputs).score(inputs, np.arange(2)).any(), "of another name"


def test_names_of_external_lists_join_the_models() -> None:
    lists = {"vendor": External(path="v")}
    assert Recommend(models=("popularity", "hybrid"), external=lists).models == (
        "popularity", "hybrid", "external_vendor",
    )  # fmt: skip
    assert Recommend(external=lists).models[-1] == "external_vendor"
    assert Recommend(models=("external_vendor",), external=lists).serve == "external_vendor"
    with pytest.raises(ValueError, match=r"models has external_other, of which there is no \[recommend.external"):
        Recommend(models=("external_other", "hybrid"), external=lists)
    with pytest.raises(ValueError, match="String should match pattern"):
        Recommend(external={"Big Vendor": External(path="v")})
