"""The hybrid: segments, facts, places for new items."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs, Validation
from pipelines.recommenders.blend.hybrid import SURE, Hybrid
from pipelines.recommenders.blend.likelihood import log_ratio
from pipelines.recommenders.blend.new_items import place_new
from pipelines.recommenders.graph import WALKS, GraphFilter
from pipelines.recommenders.ranking import liked_by, top_k
from pipelines.recommenders.registry import classes
from tests.toy import Fixed
from tests.worlds import ITEMS, USERS


def test_hybrid_finds_the_part_that_is_right_in_each_segment() -> None:
    rng = np.random.default_rng(0)
    users, items = 200, 60
    history = (rng.random((users, items)) < 0.1) * (np.arange(users) < 100)[:, None]  # the second half is cold
    wanted = sparse.csr_matrix((rng.random((users, items)) < 0.08) & ~history.astype(bool), dtype=np.float32)
    truth = 3 * wanted.toarray() + rng.normal(size=(users, items))
    noise = rng.normal(size=(2, users, items))
    right_for_warm = np.where((np.arange(users) < 100)[:, None], truth, noise[0])
    right_for_cold = np.where((np.arange(users) < 100)[:, None], noise[1], truth)
    models = [Fixed("a", right_for_warm), Fixed("b", right_for_cold)]
    past = Inputs(sparse.csr_matrix(history.astype(np.float32)))
    named = {m.name: m for m in models}
    mixed = Hybrid(facts=False).given(named)
    report = mixed.weigh(Validation(0, past, wanted, past.positives, 10))
    assert report["warm"]["weights"]["a"] > 5 * abs(report["warm"]["weights"]["b"])
    assert report["cold"]["weights"]["b"] > 3 * abs(report["cold"]["weights"]["a"])
    assert mixed.channels_of["cold"].all(), "cold users keep what only few of them wake"
    for segment in ("warm", "cold"):
        found = report[segment]["ndcg"]
        assert found["blend"] >= max(found["a"], found["b"]) - 0.02
    everyone = np.arange(users)
    evidence = mixed.evidence_of(past, everyone)
    blended = mixed.blend(evidence, liked_by(past, everyone))
    again = Hybrid().given(named).restore(mixed.state(), past)
    assert np.array_equal(again.blend(evidence, liked_by(past, everyone)), blended)
    assert np.corrcoef(blended[150], right_for_cold[150])[0, 1] > 0.8
    assert np.corrcoef(blended[50], right_for_warm[50])[0, 1] > 0.8


@pytest.mark.parametrize("trending", [True, False])
def test_recent_popularity_takes_part_where_it_surely_helps(trending: bool) -> None:
    """A newsroom: what was read in the last hours is read next, whoever the reader; or it is not."""
    rng = np.random.default_rng(0)
    users, items = 300, 80
    history = sparse.csr_matrix((rng.random((users, items)) < 0.1).astype(np.float32))
    recent = rng.poisson(np.where(np.arange(items) % 8 == 0, 40, 1))
    likely = 0.03 + 0.3 * (recent > 10) if trending else np.full(items, 0.06)
    wanted = sparse.csr_matrix(((rng.random((users, items)) < likely) & (history.toarray() == 0)).astype(np.float32))
    past = Inputs(history, recent=np.stack([recent, 2 * recent, 3 * recent], 1).astype(np.float32))
    model = Fixed("a", rng.random((users, items)).astype(np.float32))
    mixed = Hybrid().given({"a": model})
    facts = mixed.weigh(Validation(1.0, past, wanted, history, 10))["warm"]["facts"]
    assert facts["recent"]["number"] == 3
    used = np.flatnonzero(mixed.covariates_of["warm"])
    assert bool(len(used)) == trending
    if trending:
        assert facts["recent"]["ndcg_gain"] > SURE * facts["recent"]["standard_error"] > 0
        scores = mixed.score(past, np.arange(5))
        assert recent[scores.argmax(1)].min() > 10
        assert mixed.facts is not None
        then = Inputs(history, recent=np.roll(past.recent, 1, 0))  # what tomorrow's night sees
        mixed._take(mixed.facts.transform(then)[:, : len(mixed.covariates_of["warm"])])
        assert np.roll(recent, 1)[mixed.score(then, np.arange(5)).argmax(1)].min() > 10


class Foreign(Fixed):
    """A recommender that somebody else has made."""

    outside = True


def team_of(*foreign: str, credit: bool = False, trusted: tuple[str, ...] = ()) -> tuple[Hybrid, dict[str, Any]]:
    """The hybrid of a recommender of ours with others, and its weights; 200 users like 5 of 60 items each."""
    rng = np.random.default_rng(0)
    users, items = 200, 60
    history = sparse.csr_matrix((rng.random((users, items)) < 0.1).astype(np.float32))
    wanted = sparse.csr_matrix(((rng.random((users, items)) < 0.08) & (history.toarray() == 0)).astype(np.float32))
    ours = wanted.toarray() + rng.normal(size=(users, items))
    scores = {
        "knows": wanted.toarray() + rng.normal(size=(users, items)),
        "copy": ours,
        "hint": 0.12 * wanted.toarray() + rng.normal(size=(users, items)),
        **{f"chance{n}": rng.normal(size=(users, items)) for n in range(5)},
    }
    models = {"ours": Fixed("ours", ours)} | {n: Foreign(n, scores[n]) for n in foreign}
    mixed = Hybrid(facts=False, credit=credit, trusted=trusted).given(models)
    report = mixed.weigh(Validation(0, Inputs(history), wanted, history, 10))
    return mixed, report["warm"]


def test_what_somebody_else_has_made_is_let_in_only_where_it_surely_helps() -> None:
    alone, plain = team_of()
    mixed, report = team_of("chance0", "knows", "copy", *(f"chance{n}" for n in range(1, 5)))
    assert report["weights"]["knows"] > 0.5 * report["weights"]["ours"]
    assert {n for n, w in report["weights"].items() if w} == {"ours", "knows"}
    assert report["ndcg"]["blend"] > plain["ndcg"]["blend"] + 0.05
    for junk in (("copy",), tuple(f"chance{n}" for n in range(5))):
        other, found = team_of(*junk)
        assert found["weights"]["ours"] == plain["weights"]["ours"], "nothing changes at all"
        assert other.channels_of["cold"].tolist() == [*alone.channels_of["cold"], *[0] * len(junk)]
    assert mixed.channels_of["cold"][1] == 0, "where nobody without history could be asked, chance stays out too"


def test_who_is_trusted_is_let_in_whatever_the_last_days_say() -> None:
    _, plain = team_of("hint", "chance1")
    _, trusted = team_of("hint", "chance1", trusted=("hint",))
    assert plain["weights"]["hint"] == 0, "it does not surely help"
    assert trusted["weights"]["hint"] > 0
    assert trusted["weights"]["chance1"] == 0


def test_credit_is_what_the_others_lose_without_a_recommender() -> None:
    """A copy has none, and takes none from what it copies as it is not let in; chance has about none."""
    mixed, report = team_of("knows", "copy", "chance0", credit=True)
    credit = report["credit"]
    assert credit.keys() == {"ours", "knows", "copy", "chance0"}
    assert credit["ours"]["gain"] > 5 * credit["ours"]["standard_error"]
    assert credit["knows"]["gain"] > 5 * credit["knows"]["standard_error"]
    assert credit["copy"]["gain"] == pytest.approx(0, abs=1e-3)
    assert abs(credit["chance0"]["gain"]) < 3 * credit["chance0"]["standard_error"] + 1e-3
    assert "credit" not in team_of("knows")[1]
    left_out = Hybrid(without=("knows",)).given({m.name: m for m in mixed.models})
    assert left_out.channel_names == ["ours", "copy", "chance0"]


class OfDomains(Fixed):
    """A recommender of each domain alone, with two signals."""

    signals = ("share", "item_cf")

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        return [np.zeros_like(self.scores[users]), self.scores[users]]


@pytest.mark.parametrize("helps", [True, False])
def test_what_is_said_over_all_domains_is_let_in_where_it_helps_beside_each_domain_s_own(helps: bool) -> None:
    """With users of another domain exchanged at random it says nothing, and weighs nothing."""
    rng = np.random.default_rng(0)
    history = sparse.csr_matrix((rng.random((200, 60)) < 0.1).astype(np.float32))
    wanted = sparse.csr_matrix(((rng.random((200, 60)) < 0.08) & (history.toarray() == 0)).astype(np.float32))
    own, over, more = (helps_by * wanted.toarray() + rng.normal(size=(200, 60)) for helps_by in (1, helps, 1))
    models = [OfDomains("domains", own), Fixed("item_cf", over), Fixed("content", more)]
    mixed = Hybrid(facts=False).given({m.name: m for m in models})
    weights = mixed.weigh(Validation(0, Inputs(history), wanted, history, 10))["warm"]["weights"]
    assert bool(weights["item_cf"]) == helps
    assert weights["domains.item_cf"] > 0.5
    assert weights["content"] > 0.5, "of this no domain has its own"


def test_a_hybrid_of_nothing_but_what_others_have_made_combines_it() -> None:
    wanted = sparse.csr_matrix(np.eye(5, 8, dtype=np.float32))
    models = {n: Foreign(n, np.ones((5, 8))) for n in "ab"}
    report = Hybrid(facts=False).given(models).weigh(Validation(0, Inputs(wanted), wanted, None, 3))
    assert report["warm"]["weights"] == {"a": 0.5, "b": 0.5}


def test_a_segment_with_few_validation_users_keeps_the_weights_it_starts_from() -> None:
    wanted = sparse.csr_matrix(np.eye(5, 8, dtype=np.float32))
    models = [Fixed("a", np.ones((5, 8))), Fixed("b", np.ones((5, 8)))]
    report = (
        Hybrid(facts=False).given({m.name: m for m in models}).weigh(Validation(0, Inputs(wanted), wanted, None, 3))
    )
    assert report["warm"]["weights"] == report["cold"]["weights"] == {"a": 0.5, "b": 0.5}
    assert "fewer than" in report["warm"]["note"]


def test_new_items_get_the_last_places_and_nothing_forbidden() -> None:
    scores = np.array([[9, 8, 7, 2, 1], [9, 8, 7, 2, 1], [1, 2, 3, 8, 9]], np.float32)
    new = np.array([False, False, False, True, True])
    forbidden = sparse.csr_matrix(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]))
    items, values = place_new(top_k(scores, 3, forbidden), scores, scores, new, 1, forbidden)
    assert items.tolist() == [[0, 1, 3], [0, 1, 4], [4, 3, 2]], "a list that has new items stays as it is"
    assert values.tolist() == [[9, 8, 2], [9, 8, 1], [9, 8, 3]]
    items, values = place_new(
        top_k(scores[:1], 3), scores[:1], scores[:1], np.array([False, False, True, True, True]), 2, None
    )
    assert (items.tolist(), values.tolist()) == ([[0, 2, 3]], [[9, 7, 2]]), "a new item keeps the place that it has"
    chances = np.array([[0, 0, 0, 0.4, 0.6], [0, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5]], np.float32)
    items, values = place_new(top_k(scores, 3), scores, chances, new, 1, None)
    assert items.tolist() == [[0, 1, 4], [0, 1, 3], [4, 3, 2]], "chances rank new items, scores where there are none"
    assert values.tolist() == [[9, 8, 1], [9, 8, 2], [9, 8, 3]], "a list has scores of one kind"
    items, values = place_new(top_k(scores[:1], 3), scores[:1], chances[:1], new, 2, None)
    assert (items.tolist(), values.tolist()) == ([[0, 4, 3]], [[9, 1, 1]]), "by chances, and scores do not rise"
    none = np.zeros(5, bool)
    assert place_new(top_k(scores, 3), scores, scores, none, 1, None)[0].tolist() == [[0, 1, 2], [0, 1, 2], [4, 3, 2]]


def test_a_blend_looks_at_nothing_that_weighs_nothing(inputs: Inputs) -> None:
    models = [noise(), classes()["popularity"]().fit(inputs), GraphFilter().fit(inputs)]
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


def noise() -> Fixed:
    """A recommender that knows nothing."""
    return Fixed("noise", np.random.default_rng(0).normal(size=(USERS, ITEMS)))


@pytest.mark.parametrize("drifts", [True, False])
def test_facts_take_part_only_where_other_users_show_their_worth(inputs: Inputs, drifts: bool) -> None:
    """When taste moves to a quarter of the catalogue that its content shows, facts must carry it, and only then."""
    rng = np.random.default_rng(1)
    liked_now = np.where(np.arange(ITEMS) % 4 == 2, 0.3, 0.01) if drifts else np.full(ITEMS, 0.08)
    wanted = sparse.csr_matrix((rng.random((USERS, ITEMS)) < liked_now[None]).astype(np.float32))
    hybrid = Hybrid().given({"noise": noise()})
    report = hybrid.weigh(Validation(0, inputs, wanted, None, 10))["warm"]
    found = report["facts"]["every"]
    assert (found["ndcg_gain"] > SURE * found["standard_error"]) == drifts
    assert hybrid.prior["warm"].any() == drifts
    if drifts:
        assert report["ndcg"]["blend"] > 2 * report["ndcg"]["noise"]
        assert hybrid.prior["warm"][2::4].mean() > np.delete(hybrid.prior["warm"], np.s_[2::4]).mean() + 1
