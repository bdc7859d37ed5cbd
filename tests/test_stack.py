"""Graph filter, item facts, stacking and the accuracy benchmark: right answers by construction or by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from benchmarks.accuracy import NAMES, Contest, judged, load_split
from benchmarks.cold import figures, held_out
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.blend import likelihood, transfer
from pipelines.recommenders.blend.facts import ItemFacts
from pipelines.recommenders.blend.hybrid import SURE, Hybrid
from pipelines.recommenders.blend.likelihood import SMOOTHING, Choices, Weights, combined, fit, fit_sparse, log_ratio
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.recommenders.content import Content
from pipelines.recommenders.graph import WALKS, GraphFilter, Walker
from pipelines.recommenders.item_graphs import GRAPH_NEIGHBOURS, centred, content_graph, nearest_graph, normalized
from pipelines.recommenders.lightgcn import LightGCN
from pipelines.recommenders.matrices import OnDevice, right_directions
from pipelines.recommenders.ranking import PASS_USERS, blocks_of, is_warm, ndcg_of, weighted_sum
from pipelines.recommenders.registry import classes
from pipelines.search import judges, search_one
from tests.conftest import unit

USERS, ITEMS = 4 * PASS_USERS + 24, 60
HALF = 2e-3  # what three steps in half precision may be off by


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Users of four tastes; content says the taste; one user and one item without any event."""
    rng = np.random.default_rng(0)
    taste = np.arange(ITEMS) % 4
    likes = rng.random((USERS, ITEMS)) < np.where(taste[None] == (np.arange(USERS) % 4)[:, None], 0.2, 0.01)
    likes[5], likes[:, 7] = False, False
    vectors = unit(rng, 4, 24)[taste] + 0.5 * unit(rng, ITEMS, 24)
    content = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Inputs(sparse.csr_matrix(likes.astype(np.float32)), {"image": content})


def dense_walks(inputs: Inputs) -> dict[str, np.ndarray]:
    x = inputs.positives.toarray().astype(np.float64)
    user, item = np.where(x.sum(1) > 0, x.sum(1), 1), np.where(x.sum(0) > 0, x.sum(0), 1)
    r = x / np.sqrt(user)[:, None] / np.sqrt(item)[None]
    c = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS).toarray().astype(np.float64)
    degree = np.where(c.sum(1) > 0, c.sum(1), 1)
    step = {"R": r.T @ r, "C": c / np.sqrt(degree)[:, None] / np.sqrt(degree)[None]}
    found = {"": r}
    for walk in WALKS:
        found[walk] = found[walk[:-1]] @ step[walk[-1]]
    return found


def test_products_on_a_device_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    matrix = sparse.random(50, 30, 0.1, format="csr", rng=rng, dtype=np.float32)
    matrix = (sparse.diags_array((np.arange(50) % 3 > 0).astype(np.float32)) @ matrix).tocsr()  # some rows are empty
    for width in (1, 7, 32):
        dense = rng.normal(size=(30, width)).astype(np.float32)
        assert np.allclose((OnDevice(matrix, "cpu") @ torch.from_numpy(dense)).numpy(), matrix @ dense, atol=1e-6)
    nothing = sparse.csr_matrix((4, 30), dtype=np.float32)
    assert not (OnDevice(nothing, "cpu") @ torch.ones(30, 2)).any()


def test_a_weighted_sum_does_not_mind_the_order_in_memory() -> None:
    rng = np.random.default_rng(0)
    parts = [np.array(rng.normal(size=(6, 9)), np.float32, order=o) for o in "CFFC"]
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    kept = [p.copy() for p in parts]
    expected = sum(w * p for w, p in zip(weights, parts, strict=True))
    assert np.allclose(weighted_sum(iter(parts), weights), expected, atol=1e-5)
    assert all(np.array_equal(p, k) for p, k in zip(parts, kept, strict=True)), "parts stay as they were"


@pytest.mark.parametrize("kind", [k for k in classes().values() if k.grid and k.name in NAMES])
def test_a_search_judges_every_setting_by_its_own_lists(inputs: Inputs, kind: type[Recommender]) -> None:
    liked = inputs.positives.toarray()
    hidden = (np.random.default_rng(2).random(liked.shape) < 0.3) & (liked > 0)
    past = replace(inputs, positives=sparse.csr_matrix(np.where(hidden, 0, liked)))
    wanted = sparse.csr_matrix(hidden.astype(np.float32))
    validation = Validation(0, past, wanted, past.positives, 10)
    _, tried, _ = search_one(kind, validation)
    users = judges(validation)
    for trial, settings in zip(tried, ({}, *kind.grid), strict=True):
        scores = kind(**settings).fit(past).score(past, users)
        alone = ndcg_of(scores, wanted[users], past.positives[users], 10, "cpu").mean()
        assert trial["ndcg"] == pytest.approx(alone, abs=1e-5), settings


def test_a_graph_filter_fitted_again_walks_the_new_graph(inputs: Inputs) -> None:
    other = replace(inputs, positives=inputs.positives[::-1].tocsr())
    users = np.arange(9)
    model = GraphFilter().fit(inputs)
    model.score(inputs, users)
    assert np.array_equal(model.fit(other).score(other, users), GraphFilter().fit(other).score(other, users))


def test_graph_filter_by_hand(inputs: Inputs) -> None:
    model = GraphFilter(0.3, 0.5).fit(inputs)
    walks, everyone = dense_walks(inputs), np.arange(USERS)
    for walk, found in zip(WALKS, model.evidence(inputs, everyone), strict=True):
        assert np.allclose(found, walks[walk], rtol=HALF, atol=1e-6), walk
    x = inputs.positives.toarray()
    damped = (x / np.sqrt(np.where(x.sum(1) > 0, x.sum(1), 1))[:, None]).sum(0)
    expected = walks["RRR"] + 0.3 * (walks["RRC"] + walks["RCR"]) + 0.09 * walks["RCC"]
    scores = model.score(inputs, everyone)
    assert np.allclose(scores, expected * (1 + damped) ** 0.5, rtol=HALF, atol=1e-6)
    again = GraphFilter(0.3, 0.5).restore(model.state(), inputs)
    some = np.array([3, PASS_USERS + 1, 5])
    assert np.allclose(again.score(inputs, some), scores[some], atol=1e-6), "users do not depend on their block"
    assert not scores[5].any(), "no history, nothing to say"
    assert scores[:, 7].any(), "content carries an item that nobody has met"


@pytest.mark.parametrize(
    ("items", "size"),
    [(100, 9984), (18_357, PASS_USERS), (50_000, PASS_USERS), (1_000_000, 4), (9_000_000, 1), (0, 1_000_000)],
)
def test_blocks_are_whole_passes_until_catalogues_are_too_large(items: int, size: int) -> None:
    users = np.arange(2_000_001)[::2]
    blocks = blocks_of(users, items)
    assert np.array_equal(np.concatenate(blocks), users)
    assert {len(b) for b in blocks[:-1]} <= {size}
    assert len(blocks[-1]) <= size


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_walks_begin_at_any_size(size: float, inputs: Inputs) -> None:
    model, start = GraphFilter().fit(inputs), inputs.positives[:9]
    walker = Walker(model.links, model.graph, "cpu")
    plain, sized = walker.walked(start, WALKS), walker.walked((start * np.float32(size)).tocsr(), WALKS)
    for one, other in zip(plain, sized, strict=True):
        assert one.any()
        assert np.allclose(other / size, one, rtol=HALF, atol=1e-6)


def test_content_graph_weighs_a_modality_by_what_it_says_of_taste(inputs: Inputs) -> None:
    noise = unit(np.random.default_rng(3), ITEMS, 24).astype(np.float32)
    both = replace(inputs, content=inputs.content | {"audio": noise})
    only = content_graph(inputs)
    assert abs(content_graph(both) - only).sum() < 0.4 * abs(only).sum(), "noise has little weight"
    loops = sparse.csr_matrix(np.eye(ITEMS, dtype=np.float32))
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given = Inputs(inputs.positives, graphs={"image": (graph + loops).tocsr()})
    assert np.allclose(content_graph(given).toarray(), only.toarray(), atol=1e-6), "no item is its own neighbour"


def test_given_graphs_count_like_those_of_vectors(inputs: Inputs) -> None:
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given = Inputs(inputs.positives, graphs={"image": graph})
    users = np.arange(20)
    assert np.allclose(GraphFilter().fit(given).score(given, users), GraphFilter().fit(inputs).score(inputs, users))


def test_facts_are_scaled_repeatable_and_carry_over(inputs: Inputs) -> None:
    facts = ItemFacts()
    found = facts.fit_transform(inputs)
    assert np.isfinite(found).all()
    assert np.array_equal(facts.transform(inputs), found)
    assert len(found) == ITEMS
    assert np.array_equal(ItemFacts().fit_transform(inputs), found)
    later = inputs.positives.copy().tolil()
    later[0, :10] = 1
    moved = facts.transform(Inputs(later.tocsr().astype(np.float32), inputs.content))
    assert moved.shape == found.shape
    per_item = [np.corrcoef(a, b)[0, 1] for a, b in zip(moved, found, strict=True)]
    assert np.median(per_item) > 0.95, "a few more events move the facts little"


def test_leading_directions_are_those_of_the_svd() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(80, 4)) * [9, 6, 4, 2]) @ rng.normal(size=(4, 50)) + 0.01 * rng.normal(size=(80, 50))
    exact = np.linalg.svd(matrix)[2][:4].T
    found = right_directions(sparse.csr_matrix(matrix.astype(np.float32)), 4)
    assert np.allclose(np.abs((exact * found).sum(0)), 1, atol=1e-3)
    assert (found[np.abs(found).argmax(0), np.arange(4)] > 0).all()


def test_logarithm_ignores_the_scale_of_a_row() -> None:
    scores = np.array([[0, 1, 3], [0, 10, 30], [0, 0, 0]], np.float32)
    found = log_ratio(scores)
    assert np.allclose(found[0], found[1])
    assert np.ptp(found[2]) == 0


def test_logarithm_is_the_natural_one_of_the_ratio_to_the_mean() -> None:
    scores = np.array([[0.25, 0.5, 0.75, 1, 1.3, 2.2]], np.float32)  # of mean 1
    assert np.allclose(log_ratio(scores), np.log(scores + SMOOTHING), atol=1e-6)
    assert log_ratio(np.array([[0, 0, 8]], np.float32))[0, 2] == pytest.approx(np.log(3 + SMOOTHING))


def test_negative_similarity_counts_as_none(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    signed = sparse.csr_matrix(rng.normal(size=(ITEMS, ITEMS)).astype(np.float32))
    clipped = signed.maximum(0)
    assert (normalized(signed) != normalized(clipped)).nnz == 0
    model = GraphFilter().fit(Inputs(inputs.positives, graphs={"image": signed}))
    for walk in model.evidence(inputs, np.arange(USERS)):
        assert np.isfinite(walk).all()
        assert (walk >= 0).all()


def test_scores_that_are_not_finite_have_no_log_ratio() -> None:
    for wrong in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="not finite"):
            log_ratio(np.array([[1, wrong, 2]], np.float32))
    assert log_ratio(np.zeros((3, 0), np.float32)).shape == (3, 0)


def chosen(channels: list[np.ndarray], wanted: sparse.csr_matrix, seen: sparse.csr_matrix | None = None) -> Choices:
    c = len(channels)
    return Choices.collect(channels, wanted, seen, np.full(c, 1 / c), np.zeros(wanted.shape[1], np.float32))


def weights(channels: int, covariates: int = 0, value: float = 0.0) -> Weights:
    """Weights that are all the same."""
    return Weights(np.full(channels, value), np.full(covariates, value))


@pytest.mark.parametrize("alternatives", [512, 12], ids=["all", "a sample"])
def test_stack_finds_the_weights_that_made_the_choices(alternatives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CANDIDATES", alternatives)
    rng = np.random.default_rng(0)
    users, items = 3000, 40
    channels = [rng.normal(size=(users, items)).astype(np.float32) for _ in range(2)]
    facts = rng.normal(size=(items, 3)).astype(np.float32)
    true, of_facts = np.array([1.0, -0.5]), np.array([0.8, 0.0, -0.4], np.float32)
    seen = sparse.csr_matrix((rng.random((users, items)) < 0.2).astype(np.float32))
    logit = combined(channels, true, facts @ of_facts) + rng.gumbel(size=(users, items))
    logit[seen.toarray() > 0] = -np.inf
    wanted = sparse.csr_matrix((np.ones(users, np.float32), (np.arange(users), logit.argmax(1))), shape=(users, items))
    choices = chosen(channels, wanted, seen)
    assert (choices.candidate.shape[1] < 30) == (alternatives < items)
    w = fit(choices, facts, weights(2, 3))
    wide = 0.08 if alternatives > items else 0.16
    assert np.allclose(w.channels, true, atol=wide), w
    assert np.allclose(w.covariates, of_facts, atol=wide), w


def test_a_sample_of_alternatives_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    channels = [rng.normal(size=(400, 200)).astype(np.float32)]
    wanted = sparse.csr_matrix((np.ones(400, np.float32), (np.arange(400), channels[0].argmax(1))), shape=(400, 200))
    seen = sparse.csr_matrix(((rng.random((400, 200)) < 0.1) & (wanted.toarray() == 0)).astype(np.float32))
    monkeypatch.setattr(likelihood, "CANDIDATES", 50)
    some = chosen(channels, wanted, seen)
    assert 0.95 < some.weight.sum() / (400 * 200 - seen.nnz) < 1.05, "weights add up to the items that are allowed"
    drawn = sparse.csr_matrix(
        (some.weight.ravel(), (np.repeat(np.arange(400), some.candidate.shape[1]), some.candidate.ravel()))
    )
    assert drawn.multiply(seen).nnz == 0
    assert np.allclose(some.ndcg(weights(1, value=1), np.zeros((200, 0)), 10), 1), "each user's best item comes first"
    exact = np.sort(channels[0], 1)[:, ::-1]
    fifth = sparse.csr_matrix((channels[0] == exact[:, 4:5]).astype(np.float32))
    found = chosen(channels, fifth).ndcg(weights(1, value=1), np.zeros((200, 0)), 10)
    assert abs(found.mean() - 1 / np.log2(6)) < 0.02, "ranks are estimated without bias"


def test_blocks_of_choices_join_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    channels = [rng.normal(size=(60, 30)).astype(np.float32) for _ in range(2)]
    wanted = sparse.csr_matrix((rng.random((60, 30)) < 0.1).astype(np.float32))
    seen = sparse.csr_matrix(((rng.random((60, 30)) < 0.3) & (wanted.toarray() == 0)).astype(np.float32))
    parts = [chosen([z[a:b] for z in channels], wanted[a:b], seen[a:b]) for a, b in ((0, 25), (25, 60))]
    whole, joined = chosen(channels, wanted, seen), Choices.joined(parts)
    none = np.zeros((30, 0), np.float32)
    one, other = (fit(c, none, weights(2)).channels for c in (joined, whole))
    assert np.allclose(one, other, atol=1e-6)
    assert np.array_equal(joined.user, whole.user)
    some, ones = np.array([3, 30, 59]), weights(2, value=1)
    assert np.array_equal(joined.of(some).ndcg(ones, none, 5), joined.ndcg(ones, none, 5)[some])


def test_a_channel_without_meaning_gets_no_weight(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    useful = inputs.positives.toarray() * 3 + rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    noise = rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    w = fit(chosen([useful, noise], inputs.positives), np.zeros((ITEMS, 0), np.float32), weights(2)).channels
    assert w[0] > 0.5
    assert abs(w[1]) < 0.1


def _with_new_items(inputs: Inputs, new: np.ndarray) -> Inputs:
    """The same, but nobody has liked ``new`` yet."""
    liked = inputs.positives.toarray()
    liked[:, new] = 0
    return replace(inputs, positives=sparse.csr_matrix(liked))


def test_new_items_go_to_those_who_like_their_like(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taste follows ``item % 4``, which one modality shows; the other groups items by what nobody minds."""
    new = np.union1d(np.arange(3, ITEMS, 5), [7])
    content = inputs.content | {"text": unit(np.random.default_rng(3), 3, 24)[np.arange(ITEMS) % 3].astype(np.float32)}
    past = replace(_with_new_items(inputs, new), content=content)
    users = np.arange(USERS)
    model = Transfer().fit(past)
    scores = model.score(past, users)
    liked = inputs.positives.toarray() > 0
    warm = (past.positives.toarray() > 0).any(1)
    assert not np.delete(scores, new, 1).any(), "liked items are for the other recommenders"
    assert np.allclose(scores.sum(1), warm, atol=1e-5), "chances among new items; without history there are none"
    same = (new % 4)[None] == (users % 4)[:, None]
    assert scores[:, new][same & warm[:, None]].mean() > 3 * scores[:, new][~same & warm[:, None]].mean()
    wanted = sparse.csr_matrix(liked[:, new] & warm[:, None])
    judges = np.flatnonzero(np.diff(wanted.indptr))
    by_content = Content().fit(past).score(past, users)[:, new]
    gained, plain = (ndcg_of(s[judges], wanted[judges], None, 3, "cpu").mean() for s in (scores[:, new], by_content))
    assert gained > 1.1 * plain, (gained, plain)
    assert np.array_equal(Transfer().restore(model.state(), past).score(past, users), scores)
    assert np.array_equal(Transfer().fit(replace(past)).score(past, users), scores), "training repeats itself"
    monkeypatch.setattr(transfer, "REACHED", 0)
    from_users = Transfer().restore(model.state(), past).score(past, users)
    assert np.allclose(from_users, scores, rtol=HALF, atol=1e-5), "walks from users are walks from items"


def test_new_items_by_a_graph_alone_and_where_there_are_none(inputs: Inputs) -> None:
    new = np.union1d(np.arange(3, ITEMS, 5), [7])
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    past = _with_new_items(Inputs(inputs.positives, graphs={"image": graph}), new)
    model, users = Transfer().fit(past), np.arange(USERS)
    scores = model.score(past, users)[:, new]
    same = (new % 4)[None] == (users % 4)[:, None]
    assert scores[same].mean() > 1.5 * scores[~same].mean()
    assert np.array_equal(Transfer().restore(model.state(), past).score(past, users)[:, new], scores)
    everything = replace(inputs, positives=sparse.csr_matrix(np.ones((USERS, ITEMS), np.float32)))
    for nothing_to_do in (everything, Inputs(past.positives)):
        model = Transfer().fit(nothing_to_do)
        assert not Transfer().restore(model.state(), nothing_to_do).score(nothing_to_do, users).any()


def test_content_reads_a_graph_where_there_are_no_vectors(inputs: Inputs) -> None:
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given, users = Inputs(inputs.positives, graphs={"image": graph}), np.arange(20)
    model = Content().fit(given)
    scores = model.score(given, users)
    liked = inputs.positives[users].toarray()
    expected = liked / np.maximum(np.linalg.norm(liked, axis=1, keepdims=True), 1e-12) @ graph.toarray()
    assert np.allclose(scores, expected, atol=1e-6)
    assert np.array_equal(Content().restore(model.state(), given).score(given, users), scores)
    both = Content().fit(replace(inputs, graphs={"image": graph}))
    assert not both.graphs, "vectors say it better"


def _write_split(folder: Path, inputs: Inputs) -> None:
    """One held-out item a user: validation for even users, test for odd ones; items alike in one modality a graph."""
    user, item = inputs.positives.nonzero()
    last = np.append(np.diff(user) > 0, True)
    parts = {"train": ~last, "validation": last & (user % 2 == 0), "test": last & (user % 2 == 1)}
    for name, rows in parts.items():
        pq.write_table(pa.table({"user_id": user[rows], "item_id": item[rows]}), folder / f"{name}.parquet")
    np.save(folder / "image_feat.npy", inputs.content["image"].astype(np.float16)[:-1])
    sparse.save_npz(folder / "text_graph.npz", nearest_graph(inputs.content["image"], 5)[:50, :50])


def test_accuracy_reads_a_split_and_the_hybrid_wins(inputs: Inputs, tmp_path: Path) -> None:
    _write_split(tmp_path, inputs)
    split = load_split(tmp_path)
    train, validation, test = split.inputs.positives, split.wanted["validation"], split.wanted["test"]
    assert train.nnz + validation.nnz + test.nnz == inputs.positives.nnz
    assert train.multiply(test).nnz == 0
    assert split.inputs.content["image"].shape == (ITEMS, 24), "items behind the end of a file have zero rows"
    assert not split.inputs.content["image"][-1].any()
    assert split.inputs.graphs["text"].shape == (ITEMS, ITEMS)
    contest = Contest(split)
    for name in NAMES:
        contest.choose(name)
    contest.stack("hybrid", True)
    rows = {r["model"]: r for r in contest.rows()}
    assert rows["graph"]["test_recall@20"] > 1.2 * rows["popularity"]["test_recall@20"]
    assert rows["hybrid"]["test_ndcg@20"] > 1.2 * rows["popularity"]["test_ndcg@20"]
    assert {w.split(".")[0] for w in rows["hybrid"]["chosen"]["weights"]} == set(NAMES)
    parts, hybrid = ("validation_list_cpu_s", "test_list_cpu_s"), contest.hybrids["hybrid"]
    lists = sum(contest.cost[n][p] for n in NAMES for p in parts)
    everyone = is_warm(split.inputs, split.users("test")).all()
    assert not everyone, "cold users hear all recommenders"
    assert contest.needless() == pytest.approx(lists)
    of, names = hybrid.channels_of, hybrid.channel_names
    of["warm"] = of["cold"] = of["warm"] * [name != "content" for name in names]
    mute = {n for n in NAMES if not of["warm"][[p.split(".")[0] == n for p in names]].any()}
    assert "content" in mute
    scores = sum(contest.cost[n][p.replace("_list", "")] for n in mute for p in parts)
    assert scores > 0
    assert contest.needless() == pytest.approx(lists + scores)


def test_new_items_are_held_out_whole_and_ranked_among_themselves(inputs: Inputs) -> None:
    past, cold = held_out(inputs, 0)
    assert len(cold) == round(0.2 * (ITEMS - 1)), "a fifth of those that anybody liked"
    assert not past.positives[:, cold].nnz
    assert (inputs.positives - past.positives).nnz == inputs.positives[:, cold].nnz
    found = {f.figure: f for f in figures(inputs, 1)}
    assert found["new items transfer ndcg@20"].value > 1.3 * found["new items random ndcg@20"].value
    assert found["new items content recall@20"].ratio == 1


def test_a_user_with_many_items_has_one_vote() -> None:
    rng = np.random.default_rng(0)
    channels = [rng.normal(size=(400, 50)).astype(np.float32) for _ in range(2)]
    first, second = (z.argsort(1)[:, ::-1] for z in channels)
    wanted = np.zeros((400, 50), np.float32)
    wanted[np.arange(300), first[:300, 0]] = 1  # most users follow the first channel, one item each
    np.put_along_axis(wanted[300:], second[300:, :12], 1, 1)  # few follow the second, twelve items each
    w = fit(chosen(channels, sparse.csr_matrix(wanted)), np.zeros((50, 0), np.float32), weights(2)).channels
    assert w[0] > 1.5 * w[1], "3:1 in users, 1:4 in events"


def test_scores_that_are_no_numbers_are_refused() -> None:
    bad = np.ones((3, 4), np.float32)
    bad[1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        chosen([bad], sparse.csr_matrix(np.eye(3, 4)))


def test_metrics_by_hand_train_items_left_out() -> None:
    scores = np.arange(30, 0, -1, dtype=np.float32)[None]
    seen = sparse.csr_matrix(([1.0], ([0], [0])), shape=(1, 30))
    wanted = sparse.csr_matrix(([1.0, 1.0], ([0, 0], [2, 15])), shape=(1, 30))  # ranks 2 and 15
    found = judged(scores, wanted, seen)
    ideal = 1 + 1 / np.log2(3)
    assert found["recall@10"] == [0.5]
    assert found["recall@20"] == [1.0]
    assert np.allclose(found["ndcg@20"], (1 / np.log2(3) + 1 / np.log2(16)) / ideal)


@pytest.mark.parametrize("users", [2000, 12])
def test_channels_that_hardly_add_are_left_out_where_enough_users_say_so(users: int) -> None:
    rng = np.random.default_rng(0)
    truth, noise, other = (rng.normal(size=(users, 40)).astype(np.float32) for _ in range(3))
    twin = truth + np.float32(0.01) * other
    logit = 1.5 * truth + rng.gumbel(size=truth.shape)
    wanted = sparse.csr_matrix((np.ones(users, np.float32), (np.arange(users), logit.argmax(1))), shape=truth.shape)
    choices, facts, start = chosen([truth, noise, twin], wanted), np.zeros((40, 0), np.float32), Weights.even(3, 0)
    whole = fit(choices, facts, start)
    sparse_weights = fit_sparse(choices, facts, start, whole)
    few = sparse_weights.channels
    if users < 100:
        assert few.all(), "few users do not tell what is needed"
        return
    assert few[1] == 0, "noise"
    assert (few[[0, 2]] == 0).sum() == 1, "of twins one is enough"
    assert few.sum() == pytest.approx(1.5, abs=0.15), "it speaks for both"
    assert choices.ndcg(sparse_weights, facts, 10).mean() > choices.ndcg(whole, facts, 10).mean() - 0.005


def test_a_blend_looks_at_nothing_that_weighs_nothing(inputs: Inputs) -> None:
    models = [Noise(), classes()["popularity"]().fit(inputs), GraphFilter().fit(inputs)]
    hybrid = Hybrid(facts=False).given({m.name: m for m in models})
    warm_weights, level = np.zeros(2 + len(WALKS), np.float32), np.zeros(ITEMS, np.float32)
    warm_weights[1], warm_weights[2 + WALKS.index("RRR")] = 0.4, 0.8
    hybrid.channels_of = {"warm": warm_weights, "cold": np.eye(len(warm_weights), dtype=np.float32)[1]}
    hybrid.prior = {"warm": level, "cold": level + np.float32(2)}
    users = np.arange(9)
    evidence = hybrid.evidence_of(inputs, users)
    unused = evidence | {"noise": [np.full((9, ITEMS), np.nan, np.float32)]}
    warm = np.arange(9) % 3 > 0
    found = hybrid.blend(unused, warm)
    popular, walked = log_ratio(evidence["popularity"][0]), log_ratio(evidence["graph"][WALKS.index("RRR")])
    assert np.allclose(found[warm], (0.4 * popular + 0.8 * walked)[warm], atol=1e-5)
    assert np.allclose(found[~warm], popular[~warm] + 2, atol=1e-5)
    assert np.allclose(hybrid.blend(unused, np.ones(9, bool))[warm], found[warm], atol=1e-6)


class Noise(Recommender):
    """A recommender that knows nothing."""

    name, signed = "noise", True

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).normal(size=inputs.positives.shape).astype(np.float32)[users]


@pytest.mark.parametrize("drifts", [True, False])
def test_facts_take_part_only_where_other_users_show_their_worth(inputs: Inputs, drifts: bool) -> None:
    """When taste moves to a quarter of the catalogue that its content shows, facts must carry it, and only then."""
    rng = np.random.default_rng(1)
    liked_now = np.where(np.arange(ITEMS) % 4 == 2, 0.3, 0.01) if drifts else np.full(ITEMS, 0.08)
    wanted = sparse.csr_matrix((rng.random((USERS, ITEMS)) < liked_now[None]).astype(np.float32))
    hybrid = Hybrid().given({"noise": Noise()})
    report = hybrid.weigh(Validation(0, inputs, wanted, None, 10))["warm"]
    assert (report["facts"]["ndcg_gain"] > SURE * report["facts"]["standard_error"]) == drifts
    assert hybrid.prior["warm"].any() == drifts
    if drifts:
        assert report["ndcg"]["blend"] > 2 * report["ndcg"]["noise"]
        assert hybrid.prior["warm"][2::4].mean() > np.delete(hybrid.prior["warm"], np.s_[2::4]).mean() + 1


def test_lightgcn_gradient_is_that_of_the_softmax(inputs: Inputs) -> None:
    """Against automatic differentiation of the loss written out."""
    torch.manual_seed(0)
    liked = (inputs.positives > 0).astype(np.float32).tocsr()
    batch, model = np.array([1, 2, 9, PASS_USERS + 3]), LightGCN(dim=8)
    vectors = torch.randn(USERS + ITEMS, 8, dtype=torch.float64)
    units = torch.nn.functional.normalize(vectors, dim=1).requires_grad_()
    logit = units[batch] @ units[USERS:].T / model.temperature
    goal = torch.from_numpy(liked[batch].toarray())
    length = goal.sum(1)
    weight = length ** (1 - model.activity)
    loss = (logit.logsumexp(1) - (goal * logit).sum(1) / length) * weight / weight.sum()
    loss.sum().backward()
    found = model._slope(units.detach().float(), USERS, liked[batch], batch)
    assert torch.allclose(found.double(), units.grad, atol=1e-5)


def test_lightgcn_learns_taste_and_repeats_itself(inputs: Inputs) -> None:
    model = LightGCN(dim=16).fit(inputs)
    everyone = np.arange(USERS)
    scores = model.score(inputs, everyone)
    same = (np.arange(ITEMS) % 4)[None] == (np.arange(USERS) % 4)[:, None]
    unseen = inputs.positives.toarray() == 0
    unseen[5] = False
    assert scores[same & unseen].mean() > scores[~same & unseen].mean() + 0.2
    theirs = np.arange(USERS) % 4 == 3
    assert scores[theirs, 7].mean() > scores[~theirs, 7].mean() + 0.2, "content carries an item that nobody has met"
    assert np.array_equal(LightGCN(dim=16).fit(inputs).score(inputs, everyone), scores)
    assert np.array_equal(LightGCN().restore(model.state(), inputs).score(inputs, everyone), scores)
    empty = replace(inputs, positives=sparse.csr_matrix((USERS, ITEMS), dtype=np.float32))
    assert np.isfinite(LightGCN(dim=16).fit(empty).score(empty, everyone)).all()
