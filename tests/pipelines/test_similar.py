"""Items like an item: three bases by hand, what may be listed, modalities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from encoders.settings import AlignerSettings
from encoders.space.alignment import card_bytes, train_aligner
from encoders.space.features import Features
from pipelines.fuse import fuse
from pipelines.lake.storage import Lake
from pipelines.sections import Recommend
from pipelines.similar import BASES, similar
from tests.lakes import DAY, at, config_of, event, publish_vectors, rows_of, tiny_lake

TEXT: dict[str, list[float]] = {"ta": [1, 0], "tb": [0.8, 0.6], "tc": [-1, 0], "td": [0.96, -0.28]}
IMAGE: dict[str, list[float]] = {"ib": [0, 1], "ic": [0.28, 0.96], "ia": [1, 0]}
ITEMS: list[dict[str, Any]] = [
    {"item_id": "a", "text": "a", "text_sha256": "ta", "image_sha256s": ["ia"]},
    {"item_id": "b", "text": "b", "text_sha256": "tb", "image_sha256s": ["ib"]},
    {"item_id": "c", "text": "c", "text_sha256": "tc", "image_sha256s": ["ic"]},
    {"item_id": "d", "text": "d", "text_sha256": "td"},
    {"item_id": "gone", "text": "a", "text_sha256": "ta", "status": "removed"},
    {"item_id": "none"},
]
EVENTS = [event(u, i, at(9)) for u, items in (("u", "ac"), ("v", "ac"), ("w", "abd"), ("x", "b")) for i in items]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = tiny_lake(tmp_path, EVENTS, ITEMS)
    publish_vectors(lake, "text", TEXT)
    publish_vectors(lake, "image", IMAGE)
    matrix = np.array([*TEXT.values(), TEXT["ta"], [0, 0]], np.float32)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    image = np.array([IMAGE["ia"], IMAGE["ib"], IMAGE["ic"], [0, 0], [0, 0], [0, 0]], np.float32)
    features = {m: Features(x, np.asarray(x.any(1))) for m, x in (("text", matrix), ("image", image))}
    weights, card = train_aligner(features, [np.array([0, 2])], AlignerSettings(dim=8, steps=2, heads=2, batch_size=4))
    lake.publish_files("model_aligner", DAY, {"aligner.safetensors": weights, "card.json": card_bytes(card)})
    list(fuse(config_of(lake.root), lake, DAY))
    return lake


def made(lake: Lake, k: int = 20, modalities: tuple[str, ...] = ("text", "image")) -> list[dict[str, Any]]:
    recommend = Recommend(similar=k, models=("popularity",), serve="popularity")
    (manifest,) = similar(config_of(lake.root, modalities, recommend=recommend), lake, DAY)
    rows: list[dict[str, Any]] = lake.read("similar_items", DAY).to_pylist()
    assert manifest.rows == len(rows)
    return rows


def listed(rows: list[dict[str, Any]], item: str, basis: str) -> list[str]:
    return [r["similar_item_id"] for r in rows if (r["item_id"], r["basis"]) == (item, basis)]


def test_items_that_the_same_users_like(lake: Lake) -> None:
    """a and c share two users of three and two; a and b one, who likes three items and so counts less."""
    rows = made(lake)
    assert listed(rows, "a", "behaviour") == ["c", "d", "b"], "d has one user, and that one likes a"
    assert listed(rows, "c", "behaviour") == ["a"]
    assert listed(rows, "none", "behaviour") == []
    assert {r["modality"] for r in rows if r["basis"] == "behaviour"} == {None}
    decay = 2 ** (-1.5 / 30)
    a = np.array([1 / 2**0.5, 1 / 2**0.5, 1 / 3**0.5, 0]) * decay
    c = np.array([1 / 2**0.5, 1 / 2**0.5, 0, 0]) * decay
    expected = a @ c / np.linalg.norm(a) / np.linalg.norm(c) * 2 / (2 + 5)
    score = next(r["score"] for r in rows if (r["item_id"], r["basis"], r["rank"]) == ("c", "behaviour", 1))
    assert score == pytest.approx(expected, rel=1e-5)


def test_items_of_like_content(lake: Lake) -> None:
    """Means are taken off within a modality, and cosines averaged over what both items have."""
    rows = made(lake)
    text = np.array([TEXT["ta"], TEXT["tb"], TEXT["tc"], TEXT["td"], TEXT["ta"]], float)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    image = np.array([IMAGE["ia"], IMAGE["ib"], IMAGE["ic"]], float)
    text, image = text - text.mean(0), image - image.mean(0)
    text, image = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, image))
    expected = {"b": (text[0] @ text[1] + image[0] @ image[1]) / 2, "d": text[0] @ text[3]}
    found = {r["similar_item_id"]: r for r in rows if (r["item_id"], r["basis"]) == ("a", "content")}
    assert {i for i, v in expected.items() if v > 0} == found.keys()
    for i, r in found.items():
        assert r["score"] == pytest.approx(expected[i], abs=1e-5)
        assert r["modality"] == "text"
    (row,) = (r for r in rows if (r["item_id"], r["similar_item_id"], r["basis"]) == ("b", "c", "content"))
    assert row["modality"] == "image", "their pictures are alike, their texts are not"
    assert row["score"] == pytest.approx((text[1] @ text[2] + image[1] @ image[2]) / 2, abs=1e-5)
    assert listed(rows, "none", "content") == []
    assert "a" in listed(rows, "gone", "content"), "the page of an item that is gone still has its like"


def test_both_is_nearness_in_the_unified_space(lake: Lake) -> None:
    rows = made(lake)
    table = lake.read("feat_items", DAY, ["item_id", "vector"])
    vectors = np.array(table["vector"].to_pylist())
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    at_of = {i: n for n, i in enumerate(table["item_id"].to_pylist())}
    for item in "abcd":
        cosines = {o: vectors[at_of[item]] @ vectors[at_of[o]] for o in "abcd" if o != item}
        expected = sorted((o for o, c in cosines.items() if c > 0), key=lambda o: -cosines[o])
        assert listed(rows, item, "both") == expected
    assert listed(rows, "none", "both") == []
    assert all(r["modality"] in ("text", "image") for r in rows if r["basis"] == "both")


def test_nobody_is_like_itself_and_what_is_gone_is_not_listed(lake: Lake) -> None:
    rows = made(lake)
    assert not [r for r in rows if r["item_id"] == r["similar_item_id"]]
    assert "gone" not in {r["similar_item_id"] for r in rows}
    assert [(r["item_id"], r["basis"], r["rank"]) for r in rows] == sorted(
        (r["item_id"], r["basis"], r["rank"]) for r in rows
    )
    assert max(r["rank"] for r in made(lake, k=1)) == 1


def test_a_house_without_content_has_behaviour_alone(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, EVENTS, ITEMS)
    rows = made(lake, modalities=())
    assert {r["basis"] for r in rows} == {"behaviour"}
    assert listed(rows, "c", "behaviour") == ["a"]


def test_any_cut_into_blocks_gives_the_same_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(lake)
    monkeypatch.setattr("pipelines.recommenders.ranking.BLOCK_SCORES", 6)
    monkeypatch.setattr("pipelines.recommenders.ranking.MOST_SCORES", 6)
    for cut, row in zip(made(lake), whole, strict=True):
        assert cut == row | {"score": pytest.approx(row["score"], abs=1e-6)}
    assert tuple(sorted(BASES)) == BASES
    assert isinstance(rows_of("similar_items", whole), pa.Table)
