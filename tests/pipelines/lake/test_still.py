"""Vectors of two nights: which items are the same, what their cosine means for the night."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.checks import checked
from assets.plots import two_nights
from pipelines.lake.schemas import vectors_to_arrow
from pipelines.lake.still import codes_hold_still, pair_of, space_holds_still
from pipelines.lake.storage import Lake
from pipelines.operation import Guards
from tests.lakes import DAY, config_of, night_of, rows_of, tiny_lake

BEFORE = DAY - timedelta(days=1)


def space(
    lake: Lake, day: date, angles: dict[str, float], frame: str = "f", texts: dict[str, str] | None = None
) -> None:
    """Items of a night at angles of a circle."""
    names = sorted(angles)
    vectors = np.array([[np.cos(angles[n]), np.sin(angles[n])] for n in names], np.float32)
    items = [{"item_id": n, "text": n, "text_sha256": (texts or {}).get(n, n)} for n in names]
    lake.publish("std_items", day, rows_of("std_items", items))
    none: dict[str, Any] = {"has_text": True, "has_image": False, "has_audio": False, "has_video": False}
    none |= {f"attention_{m}": 0.0 for m in ("text", "image", "audio", "video")}
    rows = [{"item_id": n, "frame": frame, "aligner_digest": "a", "vector": [0.0, 0.0], **none} for n in names]
    table = rows_of("feat_items", rows)
    at = table.column_names.index("vector")
    lake.publish("feat_items", day, table.set_column(at, "vector", vectors_to_arrow(vectors)))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return tiny_lake(tmp_path, [], [])


def said(lake: Lake, **guards: Any) -> tuple[bool, str, str]:
    """(passed, severity, what the check says)."""
    config = config_of(lake.root, guards=Guards(**guards))
    results = {r.check_name: r for r in checked(config, night_of(lake, guards=Guards(**guards)), "feat_items").results}
    result = results["space_holds_still"]
    texts = [str(v.value) for v in result.metadata.values()]
    return result.passed, result.severity.value, "\n".join(texts)


def test_items_of_the_same_content_are_paired(lake: Lake) -> None:
    space(lake, BEFORE, {"a": 0.0, "b": 1.0, "gone": 2.0, "told": 0.0})
    space(lake, DAY, {"a": 0.5, "b": 1.0, "new": 2.0, "told": 2.0}, texts={"told": "otherwise"})
    pair = pair_of(night_of(lake))
    assert pair is not None
    assert (pair.before, pair.comparable, pair.rows.tolist()) == (BEFORE, True, [0, 1])
    assert pair.cosine == pytest.approx((np.cos(0.5) + 1) / 2)
    assert (two_nights(pair, DAY) or b"")[1:4] != b"PNG", "two points are no plot"


@pytest.mark.parametrize(
    ("turn", "passed", "severity", "text"),
    [
        (0.4, True, "WARN", "mean cosine 0.921 of 120 unchanged items"),
        (0.6, False, "WARN", "expected 0.9 (guards.space_warn)"),
        (1.2, False, "ERROR", "mean cosine 0.362 of 120 unchanged items with 2026-03-09, expected at least 0.5"),
    ],
)
def test_a_space_that_turns_warns_and_stops(lake: Lake, turn: float, passed: bool, severity: str, text: str) -> None:
    angles = {f"i{n:03d}": n / 20 for n in range(120)}
    space(lake, BEFORE, angles)
    space(lake, DAY, {n: a + turn for n, a in angles.items()})
    found = said(lake)
    assert found[:2] == (passed, severity)
    assert text in found[2]
    pair = pair_of(night_of(lake))
    assert (two_nights(pair, DAY) or b"")[1:4] == b"PNG"


def test_thresholds_are_settings(lake: Lake) -> None:
    angles = {f"i{n:03d}": n / 20 for n in range(120)}
    space(lake, BEFORE, angles)
    space(lake, DAY, {n: a + 1.2 for n, a in angles.items()})
    assert said(lake, space_stop=0.3)[:2] == (False, "WARN")
    assert said(lake, space_stop=0.3, space_warn=0.3)[0]


def test_few_items_are_only_told_of(lake: Lake) -> None:
    space(lake, BEFORE, {"a": 0.0})
    space(lake, DAY, {"a": 3.0})
    assert said(lake)[:2] == (True, "WARN")
    assert "of 1 unchanged items" in said(lake)[2]


def test_another_frame_is_said(lake: Lake) -> None:
    space(lake, BEFORE, {"a": 0.0})
    space(lake, DAY, {"a": 0.0}, frame="g")
    passed, severity, text = said(lake)
    assert (passed, severity) == (False, "WARN")
    assert "a new frame, as an encoder or the dimension is another than on 2026-03-09" in text


def test_a_night_of_an_earlier_version_has_no_frame(lake: Lake) -> None:
    space(lake, BEFORE, {"a": 0.0})
    space(lake, DAY, {"a": 0.0})
    (path,) = lake.paths("feat_items", BEFORE)
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["frame"]), path)
    assert pair_of(night_of(lake)) is None


@pytest.mark.parametrize("other", [None, date(2026, 3, 11)])
def test_a_first_night_has_nothing_to_compare(lake: Lake, other: date | None) -> None:
    if other:
        space(lake, other, {"a": 0.0})
    space(lake, DAY, {"a": 0.0})
    assert pair_of(night_of(lake)) is None
    assert said(lake) == (True, dg.AssetCheckSeverity.WARN.value, "")
    assert space_holds_still(config_of(lake.root), night_of(lake), "feat_items", pa.table({})) == []


def coded(lake: Lake, day: date, codes: dict[str, list[int]], frame: str = "f") -> None:
    """Items of a night and their codes."""
    names = sorted(codes)
    items = [{"item_id": n, "text": n, "text_sha256": n} for n in names]
    lake.publish("std_items", day, rows_of("std_items", items))
    rows = [{"item_id": n, "codes": codes[n], "frame": frame} for n in names]
    lake.publish("item_codes", day, rows_of("item_codes", rows))


OWN = {f"i{n:03d}": [n, n, n] for n in range(200)}


@pytest.mark.parametrize(
    ("tonight", "frame", "warns", "text"),
    [
        (OWN, "f", False, "0.00% of 200 items share all codes with another; 100.0% of 200 unchanged items keep"),
        (OWN | {"i000": [1, 1, 1]}, "f", False, "1.00% of 200 items share all codes with another; 99.5% of 200"),
        (OWN | {"i000": [2, 2, 2], "i001": [2, 2, 2]}, "f", True, "1.50% of 200 items share all codes"),
        ({n: [c[0], c[1], 200] if c[0] < 20 else c for n, c in OWN.items()}, "f", True, "90.0% of 200 unchanged items"),
        ({n: [c[0], c[1], 200] if c[0] < 20 else c for n, c in OWN.items()}, "g", False, "0.00% of 200 items share"),
    ],
)
def test_codes_that_collide_or_change_warn(
    lake: Lake, tonight: dict[str, list[int]], frame: str, warns: bool, text: str
) -> None:
    coded(lake, BEFORE, OWN)
    coded(lake, DAY, tonight, frame)
    rows = lake.read("item_codes", DAY, ["codes", "frame"])
    (remark,) = codes_hold_still(config_of(lake.root), night_of(lake), "item_codes", rows)
    assert text in remark
    assert getattr(remark, "warns", None) is warns
    assert codes_hold_still(config_of(lake.root), night_of(lake), "item_codes", rows.slice(0, 0)) == []
