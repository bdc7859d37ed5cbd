"""Domains of few events: which they are, what a thinned world is, planted weights found in it, a gate that closes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.recommenders.base import Inputs, Pooled, Validation
from pipelines.recommenders.blend import few
from pipelines.recommenders.blend.few import HARM, Few, Group, World, _of_items, groups_of, learned, some_known, thinned
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.pooling import PooledWeights, Pooling, Scale
from pipelines.recommenders.neighbours import Popularity
from pipelines.recommenders.ranking import events_of
from tests.toy import Fixed

Heard = Callable[[np.ndarray], list[np.ndarray]]
ITEMS, USERS = 12, 400


def both(inputs: Inputs) -> list[Group]:
    return groups_of(inputs, inputs)


def shop(events: list[int], items: int = ITEMS, users: int = 2000) -> Inputs:
    """Domains of so many events, of other users for each item in turn."""
    domains = np.repeat(np.arange(len(events)), items)
    column = np.concatenate([d * items + np.arange(n) % items for d, n in enumerate(events)])
    row = np.concatenate([np.arange(n) // items for n in events])
    shape = users, len(domains)
    return Inputs(sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape), domains=domains)


def test_a_domain_has_few_events_where_two_others_have_more_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "FEW_EVENTS", 300)
    # events an item: 25, 50, 2, 1, none, 20; the last has few and nobody who is twice as rich but the first two
    groups = both(shop([300, 600, 24, 12, 0, 240]))
    assert [(g.domains.tolist(), g.events, g.richer.tolist()) for g in groups] == [
        ([4], 0, [0, 1, 2, 3, 5]),
        ([2, 3], 36, [0, 1, 5]),
    ], "by order of magnitude; 240 events of 12 items are 20 an item, and only one domain has 40"
    assert groups[1].items.tolist() == [False] * 24 + [True] * 24 + [False] * 24
    assert both(shop([300, 24])) == [], "one richer domain is not enough"
    assert both(shop([300, 600, 24], items=9)) == [], "domains of nine items show little"
    assert both(Inputs(shop([300, 600, 24]).positives)) == []
    tonight, past = shop([300, 600, 24]), shop([300, 20, 24])
    assert both(tonight)[0].richer.tolist() == [0, 1]
    assert groups_of(tonight, past) == [], "what is thinned has to be rich in the past"
    (group,) = groups_of(shop([300, 600, 36]), tonight)
    assert group.events == 36, "as many as tonight, not as before"


def test_a_thinned_domain_keeps_so_many_events_and_others_all() -> None:
    past = shop([600, 600, 24])
    past = replace(
        past,
        histories=Ragged.of([past.positives[u].indices[::-1] for u in range(2000)]),
        user_vectors=np.ones((2000, 1), np.float32),
        fused=np.full((36, 1), -1, np.float32),
        recent=np.tile(np.arange(3, dtype=np.float32), (36, 1)),
    )
    found = thinned(past, np.array([1]), 1.5, 0)
    assert np.bincount(past.domains, events_of(found)).tolist() == [600, 18, 24]
    assert ((found.positives != 0) > (past.positives != 0)).nnz == 0, "nothing that was not there"
    kept = [past.positives[:, past.domains == d] for d in (0, 2)]
    assert all((a != found.positives[:, past.domains == d]).nnz == 0 for a, d in zip(kept, (0, 2), strict=True))
    for user in range(2000):
        left = set(found.positives[user].indices)
        assert found.histories[user].tolist() == [i for i in past.histories[user].tolist() if i in left]
    lost = np.diff(past.positives.indptr) > np.diff(found.positives.indptr)
    has = np.diff(found.positives.indptr) > 0
    assert found.has_signal.tolist() == has.tolist()
    assert (found.user_vectors[lost & has] == -1).all(), "the mean of what is left"
    assert (found.user_vectors[lost & ~has] == 0).all()
    assert (found.user_vectors[~lost] == 1).all()
    assert found.recent[:12] == pytest.approx(past.recent[:12])
    assert found.recent[12:24] == pytest.approx(past.recent[12:24] * events_of(found)[12:24, None] / 50)
    again, other = (thinned(past, np.array([1]), 1.5, seed).positives for seed in (0, 1))
    assert (again != found.positives).nnz == 0
    assert (other != found.positives).nnz > 0


def test_fewer_events_take_more_worlds() -> None:
    numbers = {
        events: Group(np.zeros(0), events, np.zeros(0), np.zeros(0)).number for events in (0, 50, 300, 500, 5000)
    }
    assert numbers == {0: 16, 50: 16, 300: 16, 500: 8, 5000: 4}


def test_of_very_many_users_some_are_known_in_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    past = shop([600, 600, 24], users=50)
    validation = Validation(0, past, past.positives, None, 10)
    assert some_known(validation) is validation
    monkeypatch.setattr(few, "MOST_USERS", 20)
    found = some_known(validation).past
    known = np.flatnonzero(np.diff(found.positives.indptr))
    assert len(known) == 20
    assert (found.positives[known] != past.positives[known]).nnz == 0, "of these, all"
    assert some_known(validation).relevant is validation.relevant


# --- what is learned in worlds ------------------------------------------------------------------------------------


def planted(
    within: float, likes: np.ndarray | float = 0.0, unit: float = 1.0, offset: float = 0.0
) -> tuple[Group, Validation, Callable[[Inputs, np.ndarray], Heard]]:
    """Domains 0 to 3 are rich, domain 4 is poor and in nobody's list; users choose by the first channel everywhere.

    The hybrid's score is that channel, and ``likes``, times ``unit`` and beside ``offset``, in domains that were not
    thinned; in those that were it is mostly noise, as far as ``within`` is not 1. The second channel is noise.
    """
    rng = np.random.default_rng(0)
    domains = np.repeat(np.arange(5), ITEMS)
    taste, noise = (rng.normal(size=(USERS, 5 * ITEMS)).astype(np.float32) for _ in range(2))
    liked = taste + likes + rng.gumbel(size=taste.shape) > 1.5
    before = liked & (rng.random(liked.shape) < 0.7)
    before[12:, domains == 4] = False
    before[:12, domains == 4] = np.eye(12)
    past = Inputs(sparse.csr_matrix(before.astype(np.float32)), domains=domains)
    later, met = liked & ~before & (domains < 4), before | (domains == 4)
    relevant, seen = (sparse.csr_matrix(x.astype(np.float32)) for x in (later, met))
    validation = Validation(0, past, relevant, seen, 5)
    (group,) = groups_of(past, past)

    def listen(inputs: Inputs, thin: np.ndarray) -> Heard:
        lost = np.isin(domains, domains[events_of(inputs) != events_of(past)])
        assert lost.tolist() == thin.tolist()

        def heard(users: np.ndarray) -> list[np.ndarray]:
            share = np.zeros_like(taste[users]) + (likes if isinstance(likes, float) else likes[users])
            mixed = within * taste[users] + (1 - within) * noise[users]
            return [taste[users], noise[users], share, np.where(thin, mixed, unit * (taste[users] + share) + offset)]

        return heard

    return group, validation, listen


INNER, PLACING = np.array([True, True, False]), np.array([False, False, True])


def test_weights_of_thinned_domains_are_found_and_stand_in_the_hybrids_own_units() -> None:
    found, shown = learned(*planted(within=0.2), INNER, PLACING)
    assert found is not None
    assert shown["domains"] == [4]
    assert shown["events"] == 12
    assert shown["worlds"] == 16
    assert shown["within"] > 10 * shown["error_within"] > 0
    assert shown["ndcg_gain"] > 0
    assert found.channels[0] == pytest.approx(1, abs=0.15), "as taste counts in the hybrid's score of other domains"
    assert abs(found.channels[1]) < 0.1
    assert abs(found.level) < 0.15, "domains are as good"
    assert found.items.tolist() == list(range(48, 60))


def test_weights_are_in_the_units_of_the_hybrids_score() -> None:
    found, _ = learned(*planted(within=0.2, unit=2.0, offset=1.5), INNER, PLACING)
    assert found is not None
    assert found.channels[0] == pytest.approx(2, abs=0.3)
    assert found.level == pytest.approx(1.5, abs=0.4), "what is as good has as high a score"


def test_lists_of_all_are_judged_by_users_who_do_not_care_for_thinned_domains_too() -> None:
    """A level by those who care for thinned domains alone would flood the lists of all others."""
    cares = np.random.default_rng(1).random((USERS, 5)) < 0.3
    likes = np.where(cares, 0, -6).repeat(ITEMS, 1).astype(np.float32)
    group, validation, listen = planted(0.2, likes)
    inputs, thin = next(group.worlds(validation.past))
    world = World.of(inputs, thin, validation, listen, 0, USERS)
    assert world is not None
    later = (np.diff(validation.relevant.indptr) > 0) & (np.diff(inputs.positives.indptr) > 0)
    fond = cares[:, np.unique(inputs.domains[thin])].any(1)
    assert (later & ~fond).sum() > 20
    assert len(world.whole.candidate) == later.sum()


def test_what_does_not_help_within_a_domain_is_left_out() -> None:
    found, shown = learned(*planted(within=1.0, offset=2.0), INNER, PLACING)
    assert found is None
    assert shown["within"] <= shown["error_within"]
    assert shown["ndcg_gain"] > shown["standard_error"], "though thinned domains would have more places"


def test_what_helps_within_but_spoils_lists_of_all_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    likes = np.where(np.random.default_rng(1).random((USERS, 5)) < 0.3, 1, -1).repeat(ITEMS, 1).astype(np.float32)
    group, validation, listen = planted(0.2, likes)
    kept = few._fitted

    def misplaced(*given: object) -> tuple[np.ndarray, np.ndarray]:
        weights, placing = kept(*given)  # type: ignore[arg-type]
        return weights, placing * np.array([1, 1, 1, -5])  # domains that a user does not like come first

    monkeypatch.setattr(few, "_fitted", misplaced)
    found, shown = learned(group, validation, listen, INNER, PLACING)
    assert shown["within"] > shown["error_within"]
    assert shown["ndcg_gain"] < -HARM * shown["standard_error"]
    assert found is None


def test_weights_are_judged_in_worlds_of_other_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    group, validation, listen = planted(within=0.2)
    made, fits, judged = [], [], dict[int, list[int]]()
    kept = World.of

    def noted(*given: object) -> World | None:
        made.append(kept(*given))  # type: ignore[arg-type]
        return made[-1]

    def fitted(worlds: list[World], *_: object) -> tuple[np.ndarray, np.ndarray]:
        fits.append([next(n for n, w in enumerate(made) if w is world) for world in worlds])
        return np.full(3, len(fits)), np.ones(4)

    def gains(world: World, weights: tuple[np.ndarray, np.ndarray], *_: object) -> tuple[float, float]:
        number = next(n for n, w in enumerate(made) if w is world)
        judged[number] = fits[int(weights[0][0]) - 1]
        return float(number), -float(number)

    monkeypatch.setattr(World, "of", noted)
    monkeypatch.setattr(few, "_fitted", fitted)
    monkeypatch.setattr(few, "_gains", gains)
    _, shown = learned(group, validation, listen, INNER, PLACING)
    halves = [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]
    assert judged == {n: halves[1 - side] for side in (0, 1) for n in halves[side]}, "both of a split in one half"
    assert fits[-1] == sorted(halves[0] + halves[1])
    assert (shown["within"], shown["ndcg_gain"]) == (7.5, -7.5)
    assert shown["error_within"] == pytest.approx((255 / 12) ** 0.5 / 4, abs=1e-5)


def test_worlds_split_the_richer_domains_in_two() -> None:
    past = shop([600, 720, 480, 960, 300, 36])
    (group,) = [g for g in groups_of(past, past) if g.domains.tolist() == [5]]
    splits = []
    for number, (inputs, thin) in enumerate(group.worlds(past)):
        domains = np.unique(past.domains[thin])
        events = np.bincount(past.domains, events_of(inputs))
        assert events[domains].tolist() == [36] * len(domains), "three events an item"
        others = np.setdiff1d(np.arange(6), domains)
        assert np.array_equal(events[others], np.bincount(past.domains, events_of(past))[others])
        splits.append(domains.tolist())
        if number % 2:
            assert sorted(splits[-1] + splits[-2]) == [0, 1, 2, 3, 4]
            assert abs(len(splits[-1]) - len(splits[-2])) == 1
    assert len(splits) == 16
    assert len({tuple(s) for s in splits}) > 6, "others each time"


def test_a_world_asks_so_many_users_and_leaves_out_what_they_have() -> None:
    group, validation, listen = planted(within=0.2)
    inputs, thin = next(group.worlds(validation.past))
    world = World.of(inputs, thin, validation, listen, 0, 40)
    assert world is not None
    assert len(world.whole.candidate) == 40
    assert 40 <= len(world.within.candidate) <= 80, "of two domains"
    channels, met = [np.zeros((2, 4), np.float32)] * 2, sparse.csr_matrix([[0, 1, 0, 0], [0, 0, 0, 0]])
    wanted = sparse.csr_matrix([[1, 0, 0, 1], [0, 0, 1, 0]])
    (again,) = _of_items(channels, wanted, None, np.array([0, 1, 3]))
    assert again.candidate[again.weight > 0].tolist() == [0, 1, 2], "where lists repeat what a user has"
    (choices,) = _of_items(channels, wanted, met, np.array([0, 1, 3]))
    assert choices.item.tolist() == [0, 2], "the second user wants nothing of these"
    assert choices.candidate[choices.weight > 0].tolist() == [0, 2]


def test_a_channel_may_place_a_domain() -> None:
    """What says how good a domain is for a user says nothing within it."""
    likes = np.where(np.random.default_rng(1).random((USERS, 5)) < 0.3, 1, -1).repeat(ITEMS, 1).astype(np.float32)
    found, _ = learned(*planted(0.2, likes), INNER, PLACING)
    assert found is not None
    assert found.channels[2] == pytest.approx(1, abs=0.25)
    assert found.channels[0] == pytest.approx(1, abs=0.25)


def test_worlds_in_which_nobody_likes_anything_of_thinned_domains_say_nothing() -> None:
    group, validation, listen = planted(within=0.2)
    strangers = replace(validation.past, positives=sparse.csr_matrix(validation.past.positives.shape, dtype=np.float32))
    found, shown = learned(group, replace(validation, past=strangers), listen, INNER, PLACING)
    assert found is None
    assert shown == {"domains": [4], "events": 12, "worlds": 0}


def test_in_a_thinned_domain_users_like_what_they_have_lost() -> None:
    """Nobody comes to like anything but of domain 0, so that lost events alone can say what users like of others."""
    group, validation, listen = planted(within=0.2)
    elsewhere = validation.relevant.tolil()
    elsewhere[:, ITEMS:] = 0
    found, shown = learned(group, replace(validation, relevant=elsewhere.tocsr()), listen, INNER, PLACING)
    assert shown["within"] > 10 * shown["error_within"]
    assert found is not None


def test_scores_by_hand() -> None:
    one = Few(np.array([2.0, 0.0, -1.0], np.float32), np.array(0.5, np.float32), np.array([1, 3]))
    z = [np.array([[9, 1, 9, 2]], np.float32), np.array([[9, 4, 9, 3]], np.float32)]
    assert one.scores(z).tolist() == [[2 * 1 - 4 + 0.5, 2 * 2 - 3 + 0.5]]


# --- in the hybrid ------------------------------------------------------------------------------------------------


def house() -> tuple[Inputs, Hybrid]:
    """Popularity says most where many have liked; taste says the same everywhere, and more where nobody has.

    Domains 0 to 3 have 30 items that a tenth to a half of the users like, domain 4 has five events in all, of its
    worst items. A third of the users are new.
    """
    rng, users, items = np.random.default_rng(0), 300, 30
    domains = np.repeat(np.arange(5), items)
    quality = np.tile(np.linspace(-1.5, 1.5, items), 5)
    taste = rng.normal(size=(users, 5 * items))
    likes = 1 / (1 + np.exp(2 - taste - quality)) > rng.random((users, 5 * items))
    history = likes & (rng.random(likes.shape) < 0.7) & (np.arange(users) % 3 > 0)[:, None]
    history[:, domains == 4] = False
    history[np.arange(1, 6), 4 * items + np.arange(5)] = True
    wanted = likes & ~history
    past = Inputs(sparse.csr_matrix(history.astype(np.float32)), domains=domains)
    validation = Validation(0, past, sparse.csr_matrix(wanted.astype(np.float32)), past.positives, 10)
    models = {"popularity": Popularity(), "taste": Fixed("taste", taste)}
    for model in models.values():
        model.fit(past)
    return replace(past, validation=validation), Hybrid(facts=False, pool=True).given(models)


def test_the_hybrid_weighs_channels_otherwise_where_few_events_are_known() -> None:
    inputs, hybrid = house()
    hybrid.fit(inputs)
    (one,) = hybrid.few
    (shown,) = hybrid.report["warm"]["few"]
    assert shown["domains"] == [4]
    assert shown["within"] > shown["error_within"]
    assert one.items.tolist() == list(range(120, 150))
    everyone = np.arange(300)
    scores = hybrid.score(inputs, everyone)
    popularity, taste = hybrid.channels(hybrid.evidence_of(inputs, everyone), [0, 1])
    cold = np.diff(inputs.positives.indptr) == 0
    assert cold.sum() == 99
    expected = one.channels[0] * popularity[:, 120:] + one.channels[1] * taste[:, 120:] + one.level
    assert scores[~cold, 120:] == pytest.approx(expected[~cold], abs=1e-4)
    assert one.channels[0] * np.ptp(popularity[1, 120:]) < np.ptp(taste[1, 120:]), "five events are not trusted"
    plain = Hybrid(facts=False, pool=True).given({m.name: m for m in hybrid.models}).restore(hybrid.state(), inputs)
    assert np.array_equal(plain.score(inputs, everyone), scores)
    plain.few = []
    without = plain.score(inputs, everyone)
    assert np.array_equal(without[:, :120], scores[:, :120])
    assert np.array_equal(without[cold], scores[cold]), "users without history have one weight"
    assert hybrid.heard("warm") == {"popularity", "taste"}


def test_where_others_have_a_say_no_world_is_made() -> None:
    """What a vendor or other sites know of a domain cannot be thinned."""
    inputs, hybrid = house()
    assert inputs.validation is not None
    truth = inputs.validation.relevant.toarray() + np.random.default_rng(0).normal(size=(300, 150)) / 9
    vendor = Fixed("vendor", truth)
    vendor.outside = True  # type: ignore[misc]
    heard = Hybrid(facts=False, pool=True).given({m.name: m for m in [*hybrid.models, vendor]}).fit(inputs)
    assert heard.channels_of["warm"][2] > 0
    assert (heard.few, heard.report["warm"]["few"]) == ([], [])
    vendor.scores = np.random.default_rng(1).normal(size=(300, 150)).astype(np.float32)
    unheard = Hybrid(facts=False, pool=True).given({m.name: m for m in [*hybrid.models, vendor]}).fit(inputs)
    assert unheard.channels_of["warm"][2] == 0
    assert len(unheard.few) == 1
    assert unheard.few[0].channels[2] == 0
    nothing = np.zeros((0, 0))
    sums = replace(inputs.validation.past, pooled=Pooled(np.arange(0), nothing, nothing, np.zeros(0)))
    with_sites = replace(inputs, validation=replace(inputs.validation, past=sums))
    taste = {"taste": hybrid.models[1]}
    assert Hybrid(facts=False, pool=True).given(taste).fit(with_sites).few == []


def test_in_a_world_a_thinned_domain_has_no_weights_of_its_own() -> None:
    inputs, hybrid = house()
    hybrid.fit(inputs)
    weights = PooledWeights.even(np.ones(2), 5)
    weights = replace(weights, by_domain=np.ones((5, 2)), level=np.arange(5.0))
    hybrid.pooling = Pooling(weights, Scale((0, 1), (0, 1)), events_of(inputs), inputs.domains)
    left = hybrid.pooling.without(np.array([1, 4])).weights
    assert left.level.tolist() == [0, 0, 2, 3, 0]
    assert left.by_domain[:, 0].tolist() == [1, 0, 1, 1, 0]
    assert weights.level.tolist() == [0, 1, 2, 3, 4], "the hybrid's own stay"
    hybrid.few = []
    thin = inputs.domains == 1
    *_, score = hybrid._listen(inputs, thin)(np.arange(1, 3))
    plain = hybrid.score(inputs, np.arange(1, 3))
    popularity, taste = hybrid.channels(hybrid.evidence_of(inputs, np.arange(1, 3)), [0, 1])
    assert plain[:, thin] - score[:, thin] == pytest.approx((popularity + taste + 1)[:, thin], abs=1e-4)
    assert score[:, ~thin] == pytest.approx(plain[:, ~thin], abs=1e-4)


def test_what_only_domains_of_few_events_look_at_is_heard() -> None:
    inputs, hybrid = house()
    hybrid.fit(inputs)
    hybrid.channels_of["warm"] = np.array([1, 0], np.float32)
    assert hybrid.heard("warm") == {"popularity", "taste"}
    hybrid.few = []
    assert hybrid.heard("warm") == {"popularity"}


def test_nothing_is_thinned_without_pooling_and_nothing_is_left_of_an_earlier_fit() -> None:
    inputs, hybrid = house()
    hybrid.fit(inputs)
    assert hybrid.few
    assert inputs.validation is not None
    nobody = replace(inputs.validation, relevant=sparse.csr_matrix(inputs.positives.shape, dtype=np.float32))
    assert hybrid.fit(replace(inputs, validation=nobody)).few == []
    alone = Hybrid(facts=False).given({m.name: m for m in hybrid.models}).fit(inputs)
    assert alone.few == []
    assert "few" not in alone.report["warm"]
