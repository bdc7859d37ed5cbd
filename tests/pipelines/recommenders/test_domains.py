"""Recommenders of each domain alone: what they hear, what they do not, and what a share is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.likelihood import channel
from pipelines.recommenders.domains import BASES, Domains
from pipelines.recommenders.neighbours import ItemCF

USERS = np.arange(50)


def shops(seed: int = 0) -> Inputs:
    """Items 0, 3, 6, ... are of domain 0, the others of domain 1."""
    rng = np.random.default_rng(seed)
    positives = sparse.csr_matrix((rng.random((50, 30)) < 0.2).astype(np.float32))
    return Inputs(positives, domains=(np.arange(30) % 3 > 0).astype(np.int64))


def signal(model: Domains, inputs: Inputs, name: str) -> np.ndarray:
    return model.evidence(inputs, USERS)[model.signals.index(name)]


def test_a_signal_is_that_of_the_recommender_of_the_domain_alone() -> None:
    inputs = shops()
    model = Domains().fit(inputs)
    for domain in (0, 1):
        items = np.flatnonzero(inputs.domains == domain)
        alone = Inputs(inputs.positives[:, items].tocsr())
        expected = channel(ItemCF().fit(alone).score(alone, USERS), signed=False)
        assert np.allclose(signal(model, inputs, "item_cf")[:, items], expected, atol=1e-6)
    assert len(model.signals) == 1 + sum(len(b.signals) for b in BASES.values()) == 9
    assert model.scaled, "the hybrid takes signals as they are"


def test_what_users_like_elsewhere_changes_their_share_and_nothing_else() -> None:
    inputs = shops()
    elsewhere = np.flatnonzero(inputs.domains == 1)
    mixed = inputs.positives.tolil()
    mixed[:, elsewhere] = shops(1).positives[:, elsewhere]
    other = replace(inputs, positives=mixed.tocsr())
    first = np.flatnonzero(inputs.domains == 0)
    one, two = (Domains().fit(i).evidence(i, USERS) for i in (inputs, other))
    assert not np.allclose(one[0], two[0])
    for name, a, b in zip(Domains.signals[1:], one[1:], two[1:], strict=True):
        assert np.allclose(a[:, first], b[:, first], atol=1e-5), name


def test_of_who_likes_nothing_in_a_domain_nothing_is_stored_and_popularity_is_known() -> None:
    inputs = shops()
    some = inputs.positives.tolil()
    some[np.ix_(np.arange(40), np.flatnonzero(inputs.domains == 0))] = 0  # 40 of 50 users
    few = replace(inputs, positives=some.tocsr())
    model = Domains().fit(few)
    there = int((np.diff(few.positives[:, few.domains == 0].tocsr().indptr) > 0).sum())
    assert 0 < there <= 10
    assert len(model.state()["0.als.users"]) == there + 1
    found = {
        name: values[:, few.domains == 0]
        for name, values in zip(model.signals, model.evidence(few, USERS), strict=True)
    }
    popular = np.asarray(few.positives[:, few.domains == 0].sum(0)).ravel()
    assert (np.argsort(-found["popularity"][0], kind="stable") == np.argsort(-popular, kind="stable")).all()
    for name in ("user_cf", "item_cf", "ease", "als", "graph.RRR"):
        assert np.ptp(found[name][:40], 1).max() < 1e-6, name
        assert np.ptp(found[name][40:], 1).max() > 0.1, name
    again = Domains().restore(model.state(), few)
    for one, other in zip(again.evidence(few, USERS), model.evidence(few, USERS), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(again.evidence(few, USERS[::-1]), model.evidence(few, USERS), strict=True):
        assert np.allclose(one[::-1], other, atol=1e-5)


def test_share_by_hand() -> None:
    history = np.zeros((2, 6), np.float32)
    history[0, [0, 1, 5]] = (0.3, 2.0, 1.0)  # two of three items are of domain 0, whatever their weight
    inputs = Inputs(sparse.csr_matrix(history), domains=np.array([0, 0, 0, 1, 1, 1]))
    model = Domains()
    model.of_item = inputs.domains
    expected = np.log([[2.5 / 4, 1.5 / 4], [0.5, 0.5]])
    assert model._shares(inputs.positives) == pytest.approx(expected)


def test_items_of_two_domains_are_nothing_alike() -> None:
    model = Domains().fit(shops())
    everything = model.likeness(np.arange(30), np.arange(30))
    first = model.of_item == 0
    assert not everything[np.ix_(first, ~first)].any()
    assert everything[np.ix_(~first, ~first)].any()
    some = model.likeness(np.array([4, 0]), np.array([9, 7, 1]))
    assert np.array_equal(some, everything[np.ix_([4, 0], [9, 7, 1])])


def test_without_domains_all_items_are_of_one() -> None:
    inputs = replace(shops(), domains=np.zeros(0, np.int64))
    model = Domains().fit(inputs)
    assert model.number == 1
    assert not signal(model, inputs, "share").any()
    expected = channel(ItemCF().fit(inputs).score(inputs, USERS), signed=False)
    assert np.allclose(signal(model, inputs, "item_cf"), expected, atol=1e-6)


def test_a_domain_without_any_event_says_nothing() -> None:
    inputs = shops()
    empty = inputs.positives.tolil()
    empty[:, np.flatnonzero(inputs.domains == 1)] = 0
    quiet = replace(inputs, positives=empty.tocsr())
    found = Domains().fit(quiet).evidence(quiet, USERS)
    assert all(np.isfinite(values).all() for values in found)
    assert all(np.ptp(values[:, quiet.domains == 1], 1).max() < 1e-6 for values in found)
