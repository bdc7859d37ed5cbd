"""Who is judged by what."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.evaluate import Judgement, evaluate_model


def test_slices_of_the_evaluation() -> None:
    judgement = Judgement(
        users=np.array(["c", "w"]),
        items=np.array(["new", "old", "x"]),
        relevant=sparse.csr_matrix(np.array([[0, 1, 0], [1, 1, 0]], np.float32)),
        warm=np.array([False, True]),
        met=np.array([0, 3, 0]),
        users_before=1,
    )
    lists = pa.table({"user_id": ["w", "w", "*"], "rank": [1, 2, 1], "item_id": ["new", "x", "old"]})
    rows = evaluate_model("m", lists, judgement, 20)
    value = {(r["metric"], r["slice"]): r["value"] for r in rows if r["k"] == 10}
    assert value["recall", "all"] == pytest.approx((0.5 + 1) / 2)
    assert value["recall", "user_warm"] == 0.5
    assert value["recall", "user_cold"] == 1.0, "an unknown user is judged by the list for everyone"
    assert value["recall", "item_cold"] == 1.0
    assert value["recall", "item_warm"] == 0.5
    assert value["coverage", "all"] == 1.0
