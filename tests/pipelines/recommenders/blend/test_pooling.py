"""Weights by events and domain: the likelihood by hand, planted weights found, small domains lean on the others."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs, Validation
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.likelihood import Choices, Weights, fit
from pipelines.recommenders.blend.pooling import (
    GROUPS,
    Known,
    PooledWeights,
    Pooling,
    Scale,
    _Likelihood,
    fit_pooled,
    gated,
)
from tests.toy import Fixed
from tests.worlds import chosen

CHANNELS, NO_PRIOR = 2, np.zeros(40, np.float32)


def world(users: int, true: PooledWeights, domains: np.ndarray, seed: int = 0) -> tuple[Choices, Known]:
    """Users who choose one of all items each, by planted weights."""
    rng, items = np.random.default_rng(seed), len(domains)
    channels = [rng.normal(size=(users, items)).astype(np.float32) for _ in range(CHANNELS)]
    of_items, of_users = (rng.normal(size=n).astype(np.float32) for n in (items, users))
    known = Known(of_items, of_users, domains)
    of_items, of_users, levels = true.of_items(known), true.of_users(known), true.levels(known)
    logit = sum(z * (of_items[:, c] + of_users[:, c, None]) for c, z in enumerate(channels)) + levels
    logit = logit + rng.gumbel(size=(users, items))
    wanted = sparse.csr_matrix((np.ones(users, np.float32), (np.arange(users), logit.argmax(1))), shape=(users, items))
    return chosen(channels, wanted), known


def true_weights(by_domain: list[list[float]], by_item: float = 0.0, by_user: float = 0.0) -> PooledWeights:
    """The first channel's weight grows with events of the item, the second's with those of the user."""
    steps = np.array([by_item, 0.0]), np.array([0.0, by_user])
    return PooledWeights(np.array([1.0, 0.5]), *steps, np.array(by_domain), np.zeros(len(by_domain)), np.zeros(1))


def test_a_weight_is_a_sum_of_what_item_user_and_domain_add() -> None:
    pooled = PooledWeights(
        base=np.array([1.0, 2.0]),
        by_item=np.array([0.5, 0.0]),
        by_user=np.array([0.0, 0.25]),
        by_domain=np.array([[0.0, 0.0], [3.0, -1.0]]),
        level=np.array([0.0, 10.0]),
        known=np.array([100.0]),
    )
    binary = Scale((0.0, np.log(2)), (0.0, np.log(2)))  # 3 events are 2, and 15 are 4
    fitted = Pooling(pooled, binary, np.array([0, 3]), np.array([0, 1]))
    z = [np.array([[1, 1], [1, 2]], np.float32), np.array([[1, 1], [3, 4]], np.float32)]
    found = fitted.combined(z, np.array([0, 15]), np.array([0.1, 0.2], np.float32))
    # item 1 of domain 1: weights 1 + .5 * 2 + 3 = 5 and 2 - 1 = 1; user 1 adds .25 * 4 = 1 to the second
    all_of_item = 10.2 + 100 * 2
    assert found == pytest.approx(
        np.array([[1 + 2 + 0.1, 5 + 1 + all_of_item], [1 + 3 * 3 + 0.1, 2 * 5 + 4 * 2 + all_of_item]])
    )


def test_scale_is_of_logarithms() -> None:
    scale = Scale.of(np.array([0, 0, 3, 3]), np.array([1, 1, 1, 1]))
    assert scale.item == pytest.approx((np.log(4) / 2, np.log(4) / 2))
    known = Known.of(np.array([3, 0]), np.array([1]), np.zeros(2, np.int64), scale)
    assert known.items.tolist() == pytest.approx([1.0, -1.0])
    assert known.users.tolist() == pytest.approx([0.0]), "users who are all alike"


def test_likelihood_by_hand_and_its_derivatives() -> None:
    domains = np.arange(40) % 3
    choices, known = world(30, true_weights([[0.0, 0.0]] * 3), domains)
    start = PooledWeights.even(np.array([0.3, 0.2]), 3)
    flat = np.random.default_rng(1).normal(size=len(start.flat())) * 0.3
    ridge = np.full(len(flat), 2.0)
    likelihood, pooled = _Likelihood(choices, known, NO_PRIOR, start), start.like(flat)
    value, slope, curve = likelihood._at(flat, ridge)

    expected = -((ridge * (flat - start.flat()) ** 2).sum()) / 2
    for user in range(30):  # everybody chose one of all 40 items
        scores = np.zeros(40)
        for row, item in enumerate(choices.candidate[user]):
            w = pooled.base + pooled.by_item * known.items[item] + pooled.by_user * known.users[user]
            z = choices.channels[user, row]
            level = pooled.level[domains[item]] + pooled.known[0] * known.items[item]
            scores[item] = (w + pooled.by_domain[domains[item]]) @ z + level
        expected += scores[choices.item[user]] - np.log(np.exp(scores).sum())
    assert value == pytest.approx(expected, rel=1e-5)

    step = 1e-3
    for at in range(len(flat)):
        moved = np.eye(len(flat))[at] * step
        up, down = (likelihood._at(flat + sign * moved, ridge) for sign in (1, -1))
        assert slope[at] == pytest.approx((up[0] - down[0]) / (2 * step), abs=2e-2)
        assert -curve[at] == pytest.approx((up[1] - down[1]) / (2 * step), abs=2e-2)


def test_without_any_group_weights_are_those_of_the_plain_fit() -> None:
    choices, known = world(500, true_weights([[0.0, 0.0]] * 2), np.arange(40) % 2)
    base = np.array([0.4, 0.4])
    pooled, variances = fit_pooled(choices, known, NO_PRIOR, base, ())
    plain = fit(choices, np.zeros((40, 0), np.float32), Weights(base, np.zeros(0)))
    assert pooled.base == pytest.approx(plain.channels, abs=1e-3)
    assert variances == {}
    assert np.abs(pooled.flat()[CHANNELS:]).max() < 1e-4


def test_planted_weights_are_found() -> None:
    true = true_weights([[0.6, 0.0], [-0.6, 0.0]], by_item=0.5, by_user=-0.4)
    choices, known = world(3000, true, np.arange(40) % 2)
    found, variances = fit_pooled(choices, known, NO_PRIOR, np.array([1.0, 0.5]))
    assert found.by_item == pytest.approx(true.by_item, abs=0.12)
    assert found.by_user == pytest.approx(true.by_user, abs=0.12)
    assert found.by_domain == pytest.approx(true.by_domain, abs=0.15)
    assert set(variances) == set(GROUPS)
    assert variances["by_domain"] > 20 * variances["level"], "levels are all alike"
    assert abs(found.known[0]) < 0.1


def test_a_domain_of_few_choices_keeps_what_the_others_have() -> None:
    """Domains 0 to 3 have weights of their own; domain 4 has hardly any choices, and other weights in truth."""
    true = true_weights([[0.5, 0.0], [-0.5, 0.0], [0.4, 0.0], [-0.4, 0.0], [3.0, 0.0]])
    domains = np.concatenate([np.arange(39) % 4, [4]])
    choices, known = world(2000, true, domains)
    few = np.sort(np.concatenate([np.flatnonzero(choices.item != 39), np.flatnonzero(choices.item == 39)[:1]]))
    found, _ = fit_pooled(choices.of(few), known.of_rows(few), NO_PRIOR, np.array([1.0, 0.5]))
    assert found.by_domain[:4, 0] == pytest.approx(true.by_domain[:4, 0], abs=0.2)
    alone, _ = fit_pooled(
        choices.of(few), known.of_rows(few), NO_PRIOR, np.array([1.0, 0.5]), variances={g: 100.0 for g in GROUPS}
    )
    assert abs(found.by_domain[4, 0]) < abs(alone.by_domain[4, 0]) / 2, "a single choice does not say much"


def test_domains_that_are_alike_share_their_weights() -> None:
    choices, known = world(800, true_weights([[0.0, 0.0]] * 8), np.arange(40) % 8)
    found, variances = fit_pooled(choices, known, NO_PRIOR, np.array([1.0, 0.5]))
    assert np.abs(found.by_domain).max() < 0.08
    assert variances["by_domain"] < 0.01


@pytest.mark.parametrize(
    ("step", "name"), [(dict(by_item=1.5), "items"), (dict(by_user=1.5), "users"), ({}, "domains")]
)
def test_what_helps_is_let_in_and_said(step: dict[str, float], name: str) -> None:
    true = true_weights([[2.0, 0.0], [-2.0, 0.0]] if name == "domains" else [[0.0, 0.0]] * 2, **step)
    choices, known = world(1200, true, np.arange(40) % 2)
    found, shown = gated(choices, known, NO_PRIOR, np.array([1.0, 0.5]), 10)
    assert found is not None
    assert shown[name]["ndcg_gain"] > 4 * shown[name]["standard_error"] > 0
    assert shown[name]["within"] > 4 * shown[name]["error_within"] > 0


def test_what_does_harm_is_left_out() -> None:
    """Half of the users want what the other half does not: weights of either half are wrong for the other."""
    rng, users, items = np.random.default_rng(0), 60, 40
    channels = [rng.normal(size=(users, items)).astype(np.float32) for _ in range(CHANNELS)]
    half = np.isin(np.arange(users), np.random.default_rng(0).permutation(users)[::2])  # as the folds are cut
    favourite = np.where(half, 0, 1)[:, None] == np.arange(items) % 2
    best = np.where(favourite, channels[0], -np.inf).argmax(1)
    wanted = sparse.csr_matrix((np.ones(users, np.float32), (np.arange(users), best)), shape=(users, items))
    known = Known(
        np.where(np.arange(items) % 2, 1, -1).astype(np.float32), np.zeros(users, np.float32), np.arange(items) % 2
    )
    found, shown = gated(chosen(channels, wanted), known, NO_PRIOR, np.array([1.0, 0.0]), 10)
    assert shown["domains"]["ndcg_gain"] < -shown["domains"]["standard_error"]
    assert "level" not in shown["deviations"]
    assert found is None or not found.level.any() or np.abs(found.level).max() < 1e-3


# --- in the hybrid ------------------------------------------------------------------------------------------------


def house() -> tuple[Inputs, Hybrid, dict[str, object]]:
    """Two domains; one recommender is right in one of them, another in the other; a third of the users are new."""
    rng, users, items = np.random.default_rng(0), 240, 40
    domains = np.arange(items) % 2
    history = (rng.random((users, items)) < 0.15) * (np.arange(users) % 3 > 0)[:, None]
    truth, noise = rng.normal(size=(users, items)), rng.normal(size=(users, items))
    wanted = (truth > np.quantile(truth, 0.9)) & ~history.astype(bool)
    models = {name: Fixed(name, np.where(domains == d, truth, noise)) for d, name in enumerate(("first", "second"))}
    past = Inputs(sparse.csr_matrix(history.astype(np.float32)), domains=domains)
    relevant = sparse.csr_matrix(wanted.astype(np.float32))
    now = sparse.csr_matrix((history | wanted).astype(np.float32))
    inputs = replace(past, positives=now, validation=Validation(0, past, relevant, past.positives, 10))
    return inputs, Hybrid(facts=False, pool=True).given(models), dict(models)


def test_the_hybrid_weighs_each_domain_by_its_own() -> None:
    inputs, hybrid, models = house()
    hybrid.fit(inputs)
    assert hybrid.pooling is not None
    by_domain = hybrid.pooling.weights.by_domain
    assert by_domain[0, 0] > by_domain[1, 0] + 0.5
    assert by_domain[1, 1] > by_domain[0, 1] + 0.5
    assert hybrid.pooling.events.tolist() == inputs.positives.getnnz(0).tolist(), "of the night, not of the days before"
    scores = hybrid.score(inputs, np.arange(240))
    plain = Hybrid(facts=False).given(models).fit(inputs)  # type: ignore[arg-type]
    assert hybrid.report["warm"]["pooled"]["domains"]["ndcg_gain"] > 0.05
    cold = np.arange(240) % 3 == 0
    cold &= np.diff(inputs.positives.indptr) == 0
    assert np.array_equal(scores[cold], plain.score(inputs, np.arange(240))[cold]), (
        "users without history have one weight"
    )
    again = Hybrid().given(models).restore(hybrid.state(), inputs)  # type: ignore[arg-type]
    assert np.array_equal(again.score(inputs, np.arange(240)), scores)
    singly = np.concatenate([hybrid.score(inputs, np.array([u])) for u in range(12)])
    assert np.allclose(singly, scores[:12], atol=1e-5)


def test_weights_follow_the_history_of_a_user() -> None:
    inputs, hybrid, _ = house()
    hybrid.fit(inputs)
    assert hybrid.pooling is not None
    weights_by_user = replace(hybrid.pooling.weights, by_user=np.array([5.0, 0.0]))
    hybrid.pooling = replace(hybrid.pooling, weights=weights_by_user)
    evidence = hybrid.evidence_of(inputs, np.array([1, 1]))
    few, many = hybrid.blend(evidence, np.array([1, 12]))
    channel = next(iter(hybrid.channels(evidence, [0])))[0]
    moved = 5 * (np.log1p(12) - np.log1p(1)) / hybrid.pooling.scale.user[1]
    assert many - few == pytest.approx(moved * channel, abs=1e-3)


def test_no_weights_are_left_from_an_earlier_fit() -> None:
    inputs, hybrid, _ = house()
    assert hybrid.fit(inputs).pooling is not None
    assert inputs.validation is not None
    nobody = replace(inputs.validation, relevant=sparse.csr_matrix(inputs.positives.shape, dtype=np.float32))
    assert hybrid.fit(replace(inputs, validation=nobody)).pooling is None
