"""What leaves a site: bounds by hand, noise of the right size, the budget, refusals, and a test of membership."""

import json
import logging
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats

from pipelines.beyond import Privacy
from pipelines.config import ConfigError, load_config
from pipelines.federate import Site, federate
from pipelines.federation.exchange import Exchange
from pipelines.federation.hub import visit
from pipelines.federation.privacy import (
    STEP,
    Entry,
    Ledger,
    bounded,
    bounds,
    deviations,
    epsilon_of,
    most_told,
    multiplier_of,
    normal,
    with_noise,
)
from pipelines.federation.statistics import SCALE, Layout, pooled_of, sums_of
from pipelines.lake.storage import Lake
from tests.lakes import config_of, rows_of
from tests.pipelines.test_federate import FIRST, NAMES, World, likes, of_site, settings

DAYS = [FIRST + timedelta(days=n) for n in range(6)]


# --- mechanism --------------------------------------------------------------------------------------------------------


def test_a_users_strongest_items_count_each_up_to_the_most() -> None:
    rows = sparse.csr_matrix([[9.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.5, 0.0]])
    assert bounded(rows, Privacy(epsilon=1, items=3), 5.0).toarray().tolist() == [[5, 0, 2, 2], [0, 0, 0.5, 0]]
    assert bounded(rows, Privacy(epsilon=1, items=2), 5.0).toarray().tolist() == [[5, 0, 2, 0], [0, 0, 0.5, 0]]


def test_bounds_are_what_the_worst_user_changes() -> None:
    """Of 4 items: 10 pairs; walks are at most the largest weight; weights at most 5 each."""
    privacy = Privacy(epsilon=1, items=4)
    assert bounds(privacy, 5.0) == pytest.approx(1.001 * np.array([10**0.5, 5.0, 5.0 * 4**0.5]))
    layout = Layout(12)
    rng, most = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        user = sparse.csr_matrix((rng.random((1, 12)) < rng.random()) * rng.uniform(0, 20, (1, 12)))
        change = sums_of(bounded(user, privacy, 5.0)).view(np.int64) / np.repeat([1.0, SCALE, SCALE], [78, 78, 12])
        parts = np.split(change, [layout.pairs, 2 * layout.pairs])
        most = np.maximum(most, [np.linalg.norm(p) for p in parts])
    assert (most <= bounds(privacy, 5.0)).all()
    assert (most > 0.9 * bounds(privacy, 5.0)).all(), "and no looser than need be"


def nobody(layout: Layout) -> np.ndarray:
    return np.zeros(layout.length, np.uint64)


def test_noise_is_normal_of_its_size_and_never_the_same() -> None:
    layout, deviation = Layout(120), np.array([30.0, 4.0, 8.0])
    parts = np.split(with_noise(nobody(layout), deviation).view(np.int64), [layout.pairs, 2 * layout.pairs])
    for part, size in zip(parts, deviation * [1, SCALE, SCALE], strict=True):
        assert part.std() == pytest.approx(size, rel=0.2 if len(part) < 1000 else 0.05)
        assert (
            stats.kstest(
                (part + 0.5 * (size < 99) * np.random.default_rng(0).uniform(-1, 1, len(part))) / size, "norm"
            ).pvalue
            > 1e-4
        )
    assert not np.array_equal(with_noise(nobody(layout), deviation), with_noise(nobody(layout), deviation))
    with pytest.raises(ValueError, match="noise does not fit into 64 bits"):
        with_noise(nobody(layout), np.array([1.0, 2.0**20, 1.0]))
    assert Layout.of(layout.length) == layout


def test_a_number_with_noise_could_come_of_any_sums() -> None:
    """Draws are far finer than the steps that are told, in the far tails too, and steps do not depend on the sums."""
    layout, deviation = Layout(60), np.array([30.0, 40.0, 80.0])
    for sums in (nobody(layout), nobody(layout) + np.uint64(12_345)):
        told = with_noise(sums, deviation).view(np.int64)
        assert (told[layout.pairs :] % STEP == 0).all()
    for z in (-7.0, -3.0, 3.0, 7.0):
        step = STEP / (40 * SCALE)  # in standard deviations
        draws = 2.0**64 * stats.norm.pdf(z) * step
        assert draws > 5, "numbers that are drawn of each step"
    drawn = normal(200_000)
    assert (drawn > 0).mean() == pytest.approx(0.5, abs=0.01)
    assert stats.kstest(drawn, "norm").pvalue > 1e-4


def test_accounting_does_not_touch_how_a_night_logs() -> None:
    """absl, which the accountants import, would write every line a second time."""
    epsilon_of([1.0], 1e-6)
    assert not [h for h in logging.root.handlers if "absl" in type(h).__module__]


def test_the_budget_is_that_of_gaussian_mechanisms_in_a_row() -> None:
    """30 mechanisms are one with 1 / sqrt(30) of the noise; one has delta as in Balle and Wang (1805.06530)."""
    privacy = Privacy(epsilon=4, delta=1e-6, nights=30)
    multiplier = multiplier_of(privacy)
    mu = 30**0.5 / multiplier
    delta = stats.norm.cdf(mu / 2 - 4 / mu) - np.exp(4) * stats.norm.cdf(-mu / 2 - 4 / mu)
    assert delta == pytest.approx(1e-6, rel=1e-3)
    assert epsilon_of([multiplier] * 30, 1e-6) == pytest.approx(4, rel=1e-3)
    assert epsilon_of([multiplier] * 10, 1e-6) < 2.5
    assert epsilon_of([], 1e-6) == 0
    assert deviations(privacy, 1.0, 2.0) == pytest.approx(2 * 3**0.5 * bounds(privacy, 1.0))


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_a_test_of_membership_stays_below_the_bound(epsilon: float) -> None:
    """Whoever knows all users but one, and that one's history, cannot tell well whether it is in the sums."""
    privacy = Privacy(epsilon=epsilon, delta=1e-6, nights=1, items=5)
    rows = bounded(likes(60, 12), privacy, 1.0)
    target = int(np.diff(rows.indptr).argmax())
    without = rows.tolil()
    without[target] = 0
    layout, deviation = Layout(12), deviations(privacy, 1.0, multiplier_of(privacy))
    size = np.repeat(deviation * [1, SCALE, SCALE], [layout.pairs, layout.pairs, layout.n])
    change = (sums_of(rows) - sums_of(without.tocsr())).view(np.int64) / size

    def told(there: bool, noisy: bool) -> float:
        sums = sums_of(rows if there else without.tocsr())
        released = with_noise(sums, deviation) if noisy else sums
        return float((released - sums_of(without.tocsr())).view(np.int64) / size @ change)

    def advantage(noisy: bool) -> float:
        without_it, with_it = (np.sort([told(there, noisy) for _ in range(1500)]) for there in (False, True))
        cuts = np.concatenate([without_it, with_it])
        return float((np.searchsorted(without_it, cuts) - np.searchsorted(with_it, cuts)).max() / 1500)

    assert most_told(epsilon, 1e-6) == pytest.approx(np.tanh(epsilon / 2), abs=1e-5)
    assert advantage(noisy=True) < most_told(epsilon, 1e-6)
    assert advantage(noisy=False) == 1.0, "sums as they are give everybody away"


def test_of_noise_alone_nothing_is_left_and_of_strong_directions_most() -> None:
    layout, every = Layout(60), np.arange(60)
    deviation = np.array([20.0, 1.0, 2.0])
    nothing = pooled_of(with_noise(nobody(layout), deviation), every, deviation.tolist())
    assert np.abs(nothing.liked).max() < 60, "hardly a direction stands above noise"
    groups = np.arange(60) // 20
    crowd = sparse.csr_matrix(np.repeat((groups == np.arange(3)[:, None]).astype(float), 500, 0))
    found = pooled_of(with_noise(sums_of(crowd), deviation), every, deviation.tolist())
    exact = pooled_of(sums_of(crowd), every)
    assert found.liked == pytest.approx(exact.liked, abs=60), "500 where two items are of one group"
    assert np.linalg.eigvalsh(found.liked).min() > -1e-2, "EASE inverts it"
    assert (found.walks >= 0).all()
    assert (found.weight >= 0).all()
    assert pooled_of(sums_of(crowd), every, (0.0, 0.0, 0.0)).liked.tolist() == exact.liked.tolist()


# --- nights -----------------------------------------------------------------------------------------------------------


class PrivateWorld(World):
    """Sites with a budget."""

    privacy = Privacy(epsilon=4, nights=2, items=5, least_users=10)

    def night(self, name: str, lake: Lake, day: date) -> list[dict[str, Any]]:
        for table in ("std_interactions", "std_items", "std_user_content"):
            if lake.manifest(table, day) is None:
                rows = lake.read(table, FIRST) if table != "std_interactions" else rows_of("std_interactions", [])
                lake.publish(table, day, rows)
        of = settings(self.root, name, **self.more)
        config = config_of(self.root / name, modalities=(), federate=of, privacy=self.privacy)
        list(federate(config, lake, day))
        return lake.read("privacy_ledger", day).to_pylist()


def test_a_budget_of_two_shares_is_spent_on_two_and_a_third_stays(tmp_path: Path) -> None:
    world = PrivateWorld(tmp_path)
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    told = []
    for day in DAYS[:5]:
        told.append([world.night(name, lake, day) for name, lake in lakes.items()][0])
        world.hub(day)
    assert [[r["decision"] for r in rows] for rows in told] == [
        [], ["shared"], ["shared"] * 2, ["shared"] * 2 + ["refused"], ["shared"] * 2 + ["refused"] * 2,
    ]  # fmt: skip
    first, second = told[2]
    assert second["epsilon"] == pytest.approx(4, rel=1e-3)
    assert first["epsilon"] < 3
    assert first["users"] == 30
    assert (first["known_until"], first["round"]) == (DAYS[1], DAYS[0])
    assert "2 shares have spent the budget: one more would be epsilon 5.03" in told[3][-1]["reason"]
    assert f"the sum of round {DAYS[1]} is used" in told[3][-1]["reason"]
    exchange = Exchange(str(tmp_path / "exchange"))
    assert list(map(str, DAYS[:2])) == [of for of in exchange.rounds() if exchange.shares(of)]
    summed = exchange.summed(str(DAYS[0]))
    assert summed is not None
    single = deviations(world.privacy, 5.0, multiplier_of(world.privacy))
    assert summed.noise == pytest.approx(single * 3**0.5), "of three sites"
    again = world.night("berlin", lakes["berlin"], DAYS[2])
    assert again == told[2], "a night that is run again spends nothing"


def test_a_share_has_noise_and_is_made_once(tmp_path: Path) -> None:
    world = PrivateWorld(tmp_path)
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for day in DAYS[:2]:
        for name, lake in lakes.items():
            world.night(name, lake, day)
        world.hub(day)
    exchange, of = Exchange(str(tmp_path / "exchange")), str(DAYS[0])
    total = exchange.sum(of).view(np.int64)
    single = deviations(world.privacy, 5.0, multiplier_of(world.privacy))
    liked = total[: Layout(24).pairs]
    assert liked.std() > single[0], "far above the 6 of 90 users who like a pair"
    share = exchange.share(of, "berlin")
    site = Site(settings(tmp_path, "berlin"), tmp_path / "berlin" / "federate", world.privacy, 5.0)
    site.answer(of, DAYS[2], likes(30, 24), [i["item_id"] for i in world.items])
    assert np.array_equal(exchange.share(of, "berlin"), share)
    assert len(site.ledger.entries()) == 1


def test_a_ledger_counts_every_share_and_a_refusal_once_a_night(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "spent.jsonl")
    for label, night, multiplier in (
        ("a", "9", 2.0),
        ("b", "9", None),
        ("b", "9", None),
        ("b", "10", None),
        ("a", "9", 2.0),
    ):
        ledger.write(Entry(label, "2026-03-08", night, 10, multiplier))
    assert [(e.label, e.night) for e in ledger.entries()] == [("a", "9"), ("b", "9"), ("b", "10"), ("a", "9")]
    assert [e.label for e in ledger.shares()] == ["a", "a"]
    assert json.loads(ledger.path.read_text().splitlines()[0])["multiplier"] == 2.0
    with ledger.path.open("a") as f:
        f.write('{"label": "c", "rou')  # a power cut
    assert len(ledger.entries()) == 4


@pytest.mark.parametrize("how", ["gone", "exact"])
def test_a_share_that_is_gone_or_was_exact_never_leaves(tmp_path: Path, how: str) -> None:
    """A second share of a round would be free; one that was made before privacy was set has no noise."""
    world = PrivateWorld(tmp_path)
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for name, lake in lakes.items():
        world.night(name, lake, DAYS[0])
    world.hub(DAYS[0])
    if how == "exact":
        World.night(world, "berlin", lakes["berlin"], DAYS[1])
    else:
        world.night("berlin", lakes["berlin"], DAYS[1])
        for path in (tmp_path / "berlin" / "federate" / "shares").glob("*.npz"):
            path.unlink()
    for path in (tmp_path / "exchange" / "rounds" / str(DAYS[0]) / "shares").iterdir():
        path.unlink()  # the exchange has lost it
    rows = world.night("berlin", lakes["berlin"], DAYS[2])
    said = {"gone": "a share of it was made before, and is gone", "exact": "its share was made without noise"}[how]
    (refused,) = (r for r in rows if r["decision"] == "refused")
    assert refused["reason"] == f"{said}; recommenders are made of the site's own log"
    assert Exchange(str(tmp_path / "exchange")).shares(str(DAYS[0])) == {}
    assert world.night("berlin", lakes["berlin"], DAYS[2]) == rows


def test_a_site_that_is_late_spends_nothing(tmp_path: Path) -> None:
    world = PrivateWorld(tmp_path)
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for name, lake in lakes.items():
        world.night(name, lake, DAYS[0])
    world.hub(DAYS[0])
    Exchange(str(tmp_path / "exchange")).put_missing(str(DAYS[0]), ["rome"])
    assert world.night("rome", lakes["rome"], DAYS[1]) == []


def test_few_users_are_refused_and_told_what_is_used_instead(tmp_path: Path) -> None:
    world = PrivateWorld(tmp_path)
    world.privacy = Privacy(epsilon=4)
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for name, lake in lakes.items():
        world.night(name, lake, DAYS[0])
    world.hub(DAYS[0])
    (row,) = world.night("berlin", lakes["berlin"], DAYS[1])
    assert (row["decision"], row["users"], row["epsilon"], row["multiplier"]) == ("refused", 30, 0.0, None)
    assert row["reason"] == (
        "30 users, of whom sums would be noise; privacy.least_users = 30000; "
        "recommenders are made of the site's own log"
    )
    exchange = Exchange(str(tmp_path / "exchange"))
    assert exchange.shares(str(DAYS[0])) == {}
    assert Ledger(tmp_path / "berlin" / "federate" / "spent.jsonl").shares() == []


def test_exact_sums_have_no_ledger(tmp_path: Path) -> None:
    world = World(tmp_path)
    lake = world.lake("berlin", of_site("berlin"))
    world.night("berlin", lake, DAYS[0])
    assert lake.read("privacy_ledger", DAYS[0]).num_rows == 0
    assert visit(settings(tmp_path), DAYS[0])


def test_privacy_is_of_a_site(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('start_date = 2026-01-01\n[paths]\nraw = "raw"\ndata = "data"\n[privacy]\nepsilon = 4\n')
    with pytest.raises(
        ConfigError, match='privacy is of the sums that leave a site; set .federate. with role = "site"'
    ):
        load_config(path)
