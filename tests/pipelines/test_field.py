"""Data in the shapes that people have, from raw folder to std tables: the right outcome, or a stop that says why.

The cases are those of a real-data folder; what they are made of in small is tested beside each module of ``raw``.
"""

import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from assets.checks import checked
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.night.night import Night
from pipelines.raw.places import DataError
from pipelines.standardize import standardize
from tests.shop import real_data

pytestmark = pytest.mark.data


def night(tmp_path: Path, case: str, day: str = "2026-03-03", **edits: str) -> tuple[Lake, date, list[str]]:
    """Std tables of a case's night, and what its checks say; ``edits`` replace text of the configuration."""
    shutil.copytree(real_data("field") / case, tmp_path / case, symlinks=True)
    path = tmp_path / case / "config.toml"
    text = path.read_text()
    for old, new in edits.items():
        assert re.search(old, text), old
        text = re.sub(old, new, text)
    path.write_text(text)
    config = load_config(path)
    lake, when = Lake(config.paths.data / "lake"), date.fromisoformat(day)
    problems = []
    for manifest in standardize(config, lake, when):
        if manifest.partition == day:
            found = checked(config, Night.of(config, lake, when), manifest.table)
            problems += [str(r.metadata["problems"].value) for r in found.results if "problems" in r.metadata]
    return lake, when, problems


def counts(lake: Lake, day: date) -> dict[str, int]:
    """Events, items, items with text, events of known items, rejects of all days."""
    events = lake.read_days("std_interactions", lake.days("std_interactions"), ["item_id"])["item_id"]
    items = lake.read("std_items", day)
    known = pc.sum(pc.is_in(events, value_set=items["item_id"].combine_chunks())).as_py()
    return {
        "events": len(events),
        "items": items.num_rows,
        "text": items.num_rows - items["text"].null_count,
        "known": known,
        "rejects": sum(lake.rows("quarantine", d) for d in lake.days("quarantine")),
    }


def good(events: int = 120, rejects: int = 0, text: int = 20) -> dict[str, int]:
    return {"events": events, "items": 20, "text": text, "known": events, "rejects": rejects}


RIGHT: dict[str, dict[str, int]] = {
    "adressa_no_extension": good(rejects=42),
    "column_case_per_file": good(),
    "compressed_csv": good(),
    "dates_yyyymmdd": good(),
    "excel_cp1252": good(),
    "excel_semicolon_bom": good(),
    "first_night_late": good(rejects=50),
    "ga4_bigquery_parquet": good(),
    "header_repeated": good(rejects=5),
    "hf_image_audio_struct": good(),
    "hive_null_partition": good(),
    "hm_fashion": good(140),
    "json_array": good(),
    "microlens": good(),
    "movielens_dat": good(),
    "movielens_latest_csv": good(),
    "parquet_decimal": good(),
    "parquet_pandas_float_ids": good(119, rejects=1),
    "quiet_day": good(40),
    "rating_zero_and_negative": good(),
    "recbole_inter": good(),
    "same_rows_two_files": good(rejects=120),
    "spark_hive_dt": good(),
    "tsv_unpaired_quotes": good(),
    "yelp_json": good(),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_people_have_is_read_as_they_mean_it(tmp_path: Path, case: str) -> None:
    lake, day, problems = night(tmp_path, case)
    assert counts(lake, day) == RIGHT[case]
    assert problems == []


def column(lake: Lake, table: str, day: date, name: str) -> list[Any]:
    return lake.read(table, day, [name])[name].to_pylist()


def test_the_details_of_some_cases(tmp_path: Path) -> None:
    lake, day, _ = night(tmp_path, "movielens_dat")
    items = {r["item_id"]: r for r in lake.read("std_items", day).to_pylist()}
    assert items["0"]["title"] == "Café yonder quartz river 0 (1990)"
    assert items["0"]["categories"] == ["Drama", "Comédie"]
    lake, day, _ = night(tmp_path, "tsv_unpaired_quotes")
    assert '"Heroes at dawn' in column(lake, "std_items", day, "title")
    lake, day, _ = night(tmp_path, "excel_semicolon_bom")
    assert set(column(lake, "std_interactions", day, "value")) == {4.5}
    assert set(column(lake, "std_items", day, "price")) == {1299.9}
    lake, day, _ = night(tmp_path, "parquet_decimal")
    assert "7" in column(lake, "std_items", day, "item_id")
    assert set(column(lake, "std_items", day, "price")) == {12.5}
    lake, day, _ = night(tmp_path, "hf_image_audio_struct")
    for name in ("image_sha256s", "audio_sha256s"):
        assert [len(v) for v in column(lake, "std_items", day, name)] == [1] * 20
    lake, day, _ = night(tmp_path, "hive_null_partition")
    days = lake.days("std_interactions")
    assert (
        sorted(e for d in days for e in column(lake, "std_interactions", d, "event")) == ["book"] * 40 + ["view"] * 80
    )


@pytest.mark.parametrize(
    ("case", "day", "events"), [("dst_berlin", "2026-03-29", 126), ("dst_autumn_naive", "2026-10-25", 44)]
)
def test_hours_that_come_twice_or_never(tmp_path: Path, case: str, day: str, events: int) -> None:
    lake, when, problems = night(tmp_path, case, day)
    assert (counts(lake, when)["events"], problems) == (events, [])


@pytest.mark.parametrize(
    ("case", "edits", "events"),
    [
        ("shopify_orders_fill_down", {r"\[interactions\]": '[interactions]\nfill_down = { event_at = "Name" }'}, 120),
        ("outbrain_offset_ms", {r"time_unit": 'time_origin = "2026-03-01T00:00:00Z"\ntime_unit'}, 120),
        (
            "schema_drift_rename",
            {r"\[interactions\]": '[interactions]\ncolumns = { event_at = ["event_at", "occurred_at"] }'},
            120,
        ),
        ("mapping_typo", {"titel": "name", "abuot": "about"}, 120),
    ],
)
def test_what_the_configuration_can_say_is_enough(
    tmp_path: Path, case: str, edits: dict[str, str], events: int
) -> None:
    if case == "mapping_typo":
        edits = {"titel": "title"} | {"abuot": "about"}
    lake, day, problems = night(tmp_path, case, **edits)
    assert (counts(lake, day)["events"], counts(lake, day)["known"], problems) == (events, events, [])


@pytest.mark.parametrize(
    ("case", "named"),
    [
        ("mapping_typo", ["items.columns.title = 'titel'", "items/i.jsonl has item_id, title, about"]),
        ("schema_drift_rename", ["interactions/2026-03-03.csv", "'event_at'", "occurred_at"]),
        ("retailrocket", ["items/item_properties.csv", "property, value"]),
    ],
)
def test_what_does_not_fit_stops_before_anything_is_published(tmp_path: Path, case: str, named: list[str]) -> None:
    with pytest.raises(DataError) as stop:
        night(tmp_path, case)
    assert all(n in str(stop.value) for n in named), str(stop.value)
    assert not list((tmp_path / case).rglob("part-*.parquet"))


@pytest.mark.parametrize(
    ("case", "named"),
    [
        ("shopify_orders_fill_down", ["orders_export_1.csv", "missing_event_at"]),
        ("outbrain_offset_ms", ["page_views.csv", "bad_timestamp", "1971"]),
        ("ids_int_vs_padded", ["100%", "without leading zeros it would be 0%", "transactions.parquet", "'0108775"]),
        ("mind_tsv", ["100%", "behaviors.tsv"]),
    ],
)
def test_a_night_that_lost_its_data_breaks_a_check(tmp_path: Path, case: str, named: list[str]) -> None:
    *_, problems = night(tmp_path, case)
    assert all(any(n in p for p in problems) for n in named), problems


def test_prices_that_are_none_become_null_with_a_note(tmp_path: Path) -> None:
    lake, day, problems = night(tmp_path, "amazon2023_jsonl")
    assert counts(lake, day) | {"rejects": 0} == good(119)
    assert problems == []
    assert 1299.0 in column(lake, "std_items", day, "price")
    rows = [r for r in lake.read("quarantine", day).to_pylist() if r["stage"] == "ingest_items_fields"]
    assert [(r["source"], r["reason"]) for r in rows] == [("items/meta_All_Things.jsonl", "bad_number")]
    packed, *_ = night(tmp_path, "amazon2023_gz")
    assert counts(packed, day)["events"] == 119
