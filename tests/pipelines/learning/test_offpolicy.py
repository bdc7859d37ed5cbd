"""Off-policy estimates against the Open Bandit Pipeline, by hand and over many simulated logs."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.learning.offpolicy import TooLittleError, doubly_robust, effective_size, ips, snips


def test_estimates_agree_with_the_open_bandit_pipeline() -> None:
    """Expected values are those of obp 0.4.1 (IPW, SelfNormalizedIPW, DoublyRobust).

    The log is the first 4,000 rows of the sample of the Open Bandit Dataset that it carries (uniformly random, all
    campaigns; https://research.zozo.com/data.html), the other policy and the reward model are drawn once.
    """
    stored = np.load(Path(__file__).parent / "expected" / "offpolicy_obp.npz")
    action, reward, logged = stored["action"].astype(int), stored["reward"].astype(float), stored["propensity"]
    target, model = stored["policy"][action], stored["model"]
    mean = np.full(len(action), float((stored["policy"] * model).sum()))
    assert ips(reward, logged, target).value == pytest.approx(float(stored["ips"]), abs=1e-12)
    assert snips(reward, logged, target).value == pytest.approx(float(stored["snips"]), abs=1e-12)
    found = doubly_robust(reward, logged, target, model[action], mean)
    assert found.value == pytest.approx(float(stored["dr"]), abs=1e-12)
    assert found.places == 4000
    assert found.effective < 4000


def test_estimates_by_hand() -> None:
    """Drawn with .5 and .25; the other way would draw them with 1 and 0."""
    reward, logged, target = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.5, 0.25, 0.5, 0.5]), np.array([1.0, 0, 1, 1])
    assert ips(reward, logged, target, 0).value == 0.5
    assert snips(reward, logged, target, 0).value == pytest.approx(1 / 3)
    expected = np.array([0.5, 0.5, 0.0, 0.0])
    found = doubly_robust(reward, logged, target, expected, np.full(4, 0.25), 0)
    assert found.value == pytest.approx(np.mean([0.25 + 2 * 0.5, 0.25, 0.25, 0.25]))
    assert found.effective == effective_size(np.array([2.0, 0, 2, 2])) == 3.0


def test_a_log_that_says_too_little_is_refused() -> None:
    logged = np.full(1000, 0.01)
    target = np.zeros(1000)
    target[:3] = 1.0
    with pytest.raises(TooLittleError, match="1000 drawn places are worth 3.0 of what would be served; 50 are needed"):
        ips(np.ones(1000), logged, target)
    with pytest.raises(TooLittleError, match="0 drawn places"):
        snips(np.zeros(0), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="above 0"):
        ips(np.ones(2), np.array([0.5, 0.0]), np.ones(2))


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 1,000 simulated logs of 4,000 places of twenty items, 95% intervals cover the true value 930 to 970 times."""
    setting = np.random.default_rng(8)
    worth = setting.beta(2, 8, 20)
    behaviour, target = setting.dirichlet(np.full(20, 4.0)), setting.dirichlet(np.full(20, 2.0))
    truth, guess = float(target @ worth), np.clip(worth + setting.normal(0, 0.1, 20), 0, 1)
    held = np.zeros(3, int)
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        drawn = rng.choice(20, 4000, p=behaviour)
        reward = (rng.random(4000) < worth[drawn]).astype(float)
        logged, other = behaviour[drawn], target[drawn]
        found = (
            ips(reward, logged, other),
            snips(reward, logged, other),
            doubly_robust(reward, logged, other, guess[drawn], np.full(4000, float(target @ guess))),
        )
        held += [e.low <= truth <= e.high for e in found]
    assert ((held >= 930) & (held <= 970)).all(), held
