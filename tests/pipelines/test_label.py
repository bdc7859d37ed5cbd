"""Labels told from content: by hand, calibrated, never over what is given, and on MovieLens beside its goal."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipelines.label import label, told
from pipelines.learning.labels import _beside, _normalized, learned, weights_of
from pipelines.recommenders.item_graphs import nearest_graph
from pipelines.recommenders.matrices import unit_or_zero
from pipelines.sections import ItemsSource
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, tiny_lake
from tests.shop import real_data


def world(seed: int = 0, items: int = 400, kinds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Content that lies about one of some directions, and labels: the direction, and one that chance gives a third."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(kinds, size=items)
    vectors = unit_or_zero((np.eye(kinds, 16)[kind] + 0.35 * rng.normal(size=(items, 16)) / 4).astype(np.float32))
    return vectors, np.hstack([np.eye(kinds)[kind], (rng.random((items, 1)) < 1 / 3).astype(float)])


def test_labels_that_content_tells_are_found_and_chance_is_told_as_chance() -> None:
    vectors, labels = world()
    known = np.arange(0, 400, 5)
    found = learned(vectors, nearest_graph(vectors, 20), labels, known)
    rest = np.setdiff1d(np.arange(400), known)
    assert ((found.probability[rest, :4] >= 0.5) == (labels[rest, :4] > 0)).mean() > 0.97
    assert found.probability[rest, 4].mean() == pytest.approx(labels[known, 4].mean(), abs=0.06)
    assert found.probability[rest, 4].std() < 0.25, "nothing tells it, so that all have about the same"
    assert 0.2 <= found.threshold <= 0.5


def test_confidence_is_how_often_it_is_right() -> None:
    """Labels that a logistic law of the first coordinate gives; in five bins what is said is what is found."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 8)).astype(np.float32) / 8**0.5
    truth = 1 / (1 + np.exp(-6 * vectors[:, 0]))
    labels = (rng.random(3000) < truth).astype(float)[:, None]
    known = np.arange(0, 3000, 3)
    found = learned(vectors, sparse.csr_matrix((3000, 3000)), labels, known).probability[:, 0]
    rest = np.setdiff1d(np.arange(3000), known)
    for low in np.arange(0, 1, 0.2):
        inside = rest[(found[rest] >= low) & (found[rest] < low + 0.2)]
        assert found[inside].mean() == pytest.approx(labels[inside].mean(), abs=0.06)


def test_what_is_said_of_a_labelled_item_does_not_know_its_label() -> None:
    """Whatever item 0 is labelled with, its neighbours and its content say the same of it."""
    vectors, labels = world()
    near = nearest_graph(vectors, 20)
    known = np.arange(0, 400, 5)
    said = []
    for value in (0.0, 1.0):
        given = labels.copy()
        given[0, 0] = value
        others = np.setdiff1d(known, [0])
        own = np.clip(labels * 0.5, 0, 1)
        said.append(_beside(_normalized(near), own, given, np.append(0, others))[0, 0])
    assert said[0] == said[1]


def test_modalities_weigh_what_they_tell() -> None:
    vectors, labels = world()
    noise = unit_or_zero(np.random.default_rng(2).normal(size=(400, 16)).astype(np.float32))
    known = np.arange(0, 400, 4)
    weights = weights_of([noise, vectors], labels, known)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.9
    assert weights_of([noise, 0 * noise], 0 * labels, known).tolist() == [0.5, 0.5]


def test_given_labels_stay_and_rare_ones_are_not_told() -> None:
    """Items with any label of the kind get none; a label of four items is not told; without content nothing is."""
    vectors, labels = world()
    names = [["a", "b", "c", "d"][n] for n in labels[:, :4].argmax(1)]
    given: list[list[str] | None] = [[n] if i % 2 else None for i, n in enumerate(names)]
    for row in (1, 3, 5, 7):
        given[row] = ["rare"]
    vectors = vectors.copy()
    vectors[0] = 0
    ids = [f"i{n:03d}" for n in range(400)]
    rows = told("tags", ids, given, [vectors]).to_pylist()
    assert {r["item_id"] for r in rows} <= {i for i, g in zip(ids, given, strict=True) if not g} - {"i000"}
    assert {r["label"] for r in rows} == {"a", "b", "c", "d"}
    right = np.mean([names[int(r["item_id"][1:])] == r["label"] for r in rows])
    assert right > 0.95
    assert len({r["item_id"] for r in rows}) > 180
    assert told("tags", ids, [["a"]] * 20 + [None] * 380, [vectors]).num_rows == 0, "too few to learn from"
    assert told("tags", ids, given, []).num_rows == 0


def test_of_too_many_labels_the_most_frequent_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four kinds of 400 items two may be told: those that most items have."""
    vectors, labels = world()
    names = [["a", "b", "c", "d"][n] for n in labels[:, :4].argmax(1)]
    given: list[list[str] | None] = [[n] if i % 2 else [] for i, n in enumerate(names)]
    counts = {n: sum(g == [n] for g in given) for n in "abcd"}
    monkeypatch.setattr("pipelines.label.MOST_NUMBERS", 2 * 400)
    rows = told("tags", [f"i{n:03d}" for n in range(400)], given, [vectors]).to_pylist()
    assert {r["label"] for r in rows} == set(sorted(counts, key=lambda n: (-counts[n], n))[:2])


def test_the_table_of_a_night(tmp_path: Path) -> None:
    vectors, labels = world(items=120)
    items = [
        {"item_id": f"i{n:03d}", "text_sha256": f"t{n:03d}"}
        | ({"categories": [f"kind {labels[n, :4].argmax()}"]} if n % 2 else {})
        for n in range(120)
    ]
    lake = tiny_lake(tmp_path, [event("u", "i001", at(10))], items)
    publish_vectors(lake, "text", {f"t{n:03d}": v.tolist() for n, v in enumerate(vectors)})
    config = config_of(tmp_path, ("text",), items=ItemsSource(path="items", fill=("categories",)))
    (manifest,) = label(config, lake, DAY)
    rows = lake.read("item_labels", DAY).to_pylist()
    assert rows == sorted(rows, key=lambda r: (r["kind"], r["item_id"], r["label"]))
    assert {r["kind"] for r in rows} == {"categories"}
    assert np.mean([r["label"] == f"kind {labels[int(r['item_id'][1:]), :4].argmax()}" for r in rows]) > 0.95
    categories = night_of(lake, DAY, ("text",)).categories().to_pylist()
    assert categories[1] == items[1]["categories"], "what is given stays"
    assert categories[0] == [r["label"] for r in rows if r["item_id"] == "i000"]
    assert list(label(config, lake, DAY))[0].content_digest == manifest.content_digest
    with pytest.raises(ValueError, match=r"items\.fill tells labels from content"):
        config_of(tmp_path, (), items=ItemsSource(path="items", fill=("tags",)))


@pytest.mark.slow
def test_confidence_in_genres_of_films_is_how_often_it_is_right() -> None:
    """Told from a tenth of MovieLens' films by the words of titles and overviews."""
    lines = [json.loads(x) for x in (real_data("ml100k_posters") / "items.jsonl").read_text().splitlines()]
    genres = sorted({g for r in lines for g in r["genres"]})
    labels = np.array([[g in r["genres"] for g in genres] for r in lines], float)
    vectors = np.zeros((len(lines), 2048), np.float32)
    for n, r in enumerate(lines):
        for word in f"{r['title']} {r.get('overview') or ''}".lower().split():
            vectors[n, sum(ord(c) * 31**i for i, c in enumerate(word)) % 2048] += 1
    vectors = unit_or_zero(np.log1p(vectors) * np.log(len(lines) / (1 + (vectors > 0).sum(0))))
    known = np.sort(np.random.default_rng(0).permutation(len(lines))[: len(lines) // 10])
    rest = np.setdiff1d(np.arange(len(lines)), known)
    found = learned(vectors, nearest_graph(vectors, 40), labels, known)
    right = labels[rest] > 0
    bins = np.minimum((found.probability[rest] * 10).astype(int), 9)
    gaps = [
        (bins == b).mean() * abs(found.probability[rest][bins == b].mean() - right[bins == b].mean())
        for b in range(10) if (bins == b).any()
    ]  # fmt: skip
    assert sum(gaps) <= 0.06, "of words alone; of encoders it is half of that"
