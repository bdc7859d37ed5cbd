"""The conditional logit: it finds the weights that made the choices."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend import likelihood
from pipelines.recommenders.blend.likelihood import SMOOTHING, Choices, Weights, combined, fit, fit_sparse, log_ratio
from tests.worlds import ITEMS, USERS, chosen, weights


def test_logarithm_ignores_the_scale_of_a_row() -> None:
    scores = np.array([[0, 1, 3], [0, 10, 30], [0, 0, 0]], np.float32)
    found = log_ratio(scores)
    assert np.allclose(found[0], found[1])
    assert np.ptp(found[2]) == 0


def test_logarithm_is_the_natural_one_of_the_ratio_to_the_mean() -> None:
    scores = np.array([[0.25, 0.5, 0.75, 1, 1.3, 2.2]], np.float32)  # of mean 1
    assert np.allclose(log_ratio(scores), np.log(scores + SMOOTHING), atol=1e-6)
    assert log_ratio(np.array([[0, 0, 8]], np.float32))[0, 2] == pytest.approx(np.log(3 + SMOOTHING))


def test_scores_that_are_not_finite_have_no_log_ratio() -> None:
    for wrong in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="not finite"):
            log_ratio(np.array([[1, wrong, 2]], np.float32))
    assert log_ratio(np.zeros((3, 0), np.float32)).shape == (3, 0)


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


def test_half_of_what_ties_with_an_item_stands_before_it() -> None:
    """Of eleven items all are level: the one that is relevant is at place 1 + 10 / 2, behind the end of a list of 5."""
    wanted = sparse.csr_matrix(np.eye(1, 11, dtype=np.float32))
    level = chosen([np.ones((1, 11), np.float32)], wanted)
    none = np.zeros((11, 0))
    assert level.candidate.shape == (1, 11), "all are drawn"
    found = [level.ndcg(weights(1, value=1), none, k)[0] for k in (5, 10)]
    assert found == [0, pytest.approx(1 / np.log2(7))]
