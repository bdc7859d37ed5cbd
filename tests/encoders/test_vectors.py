"""Files of vectors: layouts that are read, layouts that are refused."""

from pathlib import Path

import numpy as np
import pytest

from encoders.catalogue import check_model, load
from encoders.device import Device
from encoders.errors import DecodeError
from encoders.settings import ModelChoice
from tests.payloads import check_contract


def test_vector_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    matrix = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float16)
    matrix[3], matrix[4, 0] = 0, np.nan
    np.save(tmp_path / "image_feat.npy", matrix)
    encoder = load("image", ModelChoice(str(tmp_path / "image_feat.npy")), Device())
    vectors = check_contract(encoder, [b"2", b"0", b"1"])
    assert np.allclose(vectors[0], matrix[2] / np.linalg.norm(matrix[2].astype(float)), atol=1e-3)
    for item, reason in ((b"9", "no_vector"), (b"3", "zero_vector"), (b"4", "non_finite_vector")):
        with pytest.raises(DecodeError) as e:
            encoder.prepare(item)
        assert e.value.reason == reason
    (tmp_path / "image_feat.ids.txt").write_text("a\nb\nc\nd\ne\n")
    assert load("image", ModelChoice(str(tmp_path / "image_feat.npy")), Device()).prepare(b"c") == 2
    pq.write_table(pa.table({"item_id": ["x", "y"], "v": [[3.0, 4.0], [1.0, 0.0]]}), tmp_path / "v.parquet")
    table = load("text", ModelChoice(str(tmp_path / "v.parquet")), Device())
    assert np.allclose(table.encode([table.prepare(b"x")]), [[0.6, 0.8]])
    pq.write_table(pa.table({"item_id": ["x", "y"], "v": [[3.0], [1.0, 0.0]]}), tmp_path / "ragged.parquet")
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    for name, text in (
        ("ragged.parquet", "differ in length"),
        ("pickle.npy", "without pickles"),
        ("none.npy", "no vector file"),
    ):
        assert text in check_model("image", ModelChoice(str(tmp_path / name)))[0]
