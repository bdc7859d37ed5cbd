"""What lists are worth if all items were shown alike: a made log whose truth is known, and by hand."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.lake.storage import Lake
from pipelines.learning.metrics import hits_of
from pipelines.night.judgement import Judgement, exposure_of
from pipelines.night.measures import by_exposure, measured
from tests.lakes import DAY, rows_of

USERS, ITEMS, K = 2_000, 60, 10


def judged(relevant: np.ndarray, exposure: np.ndarray | None) -> Judgement:
    """Users who came to like what ``relevant`` has ones for."""
    users, items = relevant.shape
    return Judgement(
        users=pa.array([f"u{n:05d}" for n in range(users)]), items=pa.array([f"i{n:03d}" for n in range(items)]),
        relevant=sparse.csr_matrix(relevant.astype(np.float32)), warm=np.ones(users, bool), met=np.zeros(items, int),
        users_before=0, segment=np.full(users, None, object), exposure=exposure,
    )  # fmt: skip


def test_models_rank_as_they_would_if_everything_were_shown_alike() -> None:
    """Tastes are of four kinds; what is shown often is liked often, whoever it is shown to.

    One model lists what is shown most, the other what fits the taste. On a test part in which all items are shown to
    everybody the second is better; judged by what the log has, the first is; by inverse exposure the second again.
    """
    rng = np.random.default_rng(0)
    taste = rng.integers(0, 4, USERS)
    fits = np.arange(ITEMS)[None] % 4 == taste[:, None]
    likes = rng.random((USERS, ITEMS)) < np.where(fits, 0.35, 0.15)
    exposure = np.where(np.arange(ITEMS) < K, 0.9, 0.1)
    logged = likes & (rng.random((USERS, ITEMS)) < exposure)
    popular = np.tile(np.arange(K), (USERS, 1))
    personal = np.stack([np.flatnonzero(row)[-K:] for row in fits])
    found = {}
    for name, lists in (("popular", popular), ("personal", personal)):
        kept = logged.any(1)
        naive = measured(lists[kept], judged(logged[kept], None))["recall"].mean()
        estimate = by_exposure(lists[kept], judged(logged[kept], exposure))["recall_snips"].mean()
        truth = hits_of(lists, sparse.csr_matrix(likes.astype(np.float32))).sum() / likes.sum()
        found[name] = (truth, naive, estimate)
        assert estimate == pytest.approx(truth, rel=0.05), name
    assert found["personal"][0] > 1.5 * found["popular"][0]
    assert found["personal"][1] < found["popular"][1], "what the log has prefers what it shows"
    assert found["personal"][2] > 1.5 * found["popular"][2]


def test_the_estimate_and_its_error_by_hand() -> None:
    """Items are shown with 1/2 and 1/4, so hits weigh 2 and 4. u likes both and has the second at the second place,
    v likes the first and has it at the first."""
    one = np.array([[1, 1, 0], [1, 0, 0]])
    relevant, exposure = np.tile(one, (30, 1)), np.array([0.5, 0.25, 1.0])
    shown = np.tile(np.array([[2, 1], [0, -1]]), (30, 1))
    found = by_exposure(shown, judged(relevant, exposure))
    assert found["recall_snips"].mean() == pytest.approx((4 + 2) / (6 + 2))
    assert found["dcg_snips"].mean() == pytest.approx((4 / np.log2(3) + 2) / 8)
    assert found["recall_snips"][:2].tolist() == pytest.approx([0.75 + (4 - 0.75 * 6) / 4, 0.75 + (2 - 0.75 * 2) / 4])
    assert by_exposure(shown, judged(relevant, None)) == {}
    assert by_exposure(shown[:4], judged(relevant[:4], exposure)) == {}, "six relevant items are too few"


def test_exposure_is_the_share_of_users_who_were_shown_an_item(tmp_path: Path) -> None:
    """u was shown a and b, v a twice; what is only known by a reaction does not count."""
    lake = Lake(tmp_path)
    seen = [("u", "a", "impression"), ("u", "b", "assumed"), ("v", "a", "impression"), ("v", "c", "reaction")]
    rows = [
        {"user_id": u, "item_id": i, "shown": s, "recommendation_id": f"{u}{i}{n}", "night": DAY, "rank": 1}
        | {"clicked": False, "favourite": False, "purchased": False, "disliked": False, "reactions": 0}
        for n, (u, i, s) in enumerate([*seen, seen[2]])
    ]
    lake.publish("feedback", DAY, rows_of("feedback", rows))
    items = pa.array(["a", "b", "c"])
    found = exposure_of(lake, DAY, items)
    assert found is not None
    assert found.tolist() == pytest.approx([(2 + 1) / 3, (1 + 1) / 3, 1 / 3])
    assert exposure_of(lake, DAY - timedelta(days=1), items) is None
    assert exposure_of(lake, DAY + timedelta(days=28), items) is None, "four weeks are long ago"
