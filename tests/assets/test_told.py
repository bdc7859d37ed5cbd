"""Answers in a terminal, and as JSON: on nights that were run."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from assets.cli import main
from assets.told import half_blocks
from tests.nights import lake_at, run_job
from tests.shop import LAST


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory, shop_raw: Path) -> Path:
    """A project without encoders whose last two nights were run."""
    folder = tmp_path_factory.mktemp("told")
    config = folder / "nightloom.toml"
    config.write_text(
        f"""encoders = {{}}
start_date = {LAST - timedelta(days=4)}
[paths]
raw = "{shop_raw}"
data = "data"
[interactions]
columns = {{ user_id = "uid", event_at = "ts", value = "amount" }}
[items]
columns = {{ title = "name", description = "about", images = "image", audios = "sound" }}
[recommend]
models = ["popularity", "item_cf"]
serve = "item_cf"
"""
    )
    for day in (LAST - timedelta(days=1), LAST):
        assert run_job(config, day).success
    return config


@pytest.mark.slow
def test_questions_are_answered_in_words_and_as_json(two_nights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = lake_at(two_nights)
    row = next(r for r in lake.read("recommendations", LAST).to_pylist() if not r["user_id"].startswith("*"))
    titles = {r["item_id"]: r["title"] for r in lake.read("std_items", LAST).to_pylist()}

    def said(*words: str) -> str:
        assert main([*words, "--config", str(two_nights)]) == 0
        return capsys.readouterr().out

    told = said("explain", row["user_id"])
    assert f"list of {LAST}" in told
    assert f"served by item_cf, arm {row['arm']}" in told
    found = json.loads(said("explain", row["user_id"], "--json"))
    assert found["list"][0]["title"] == titles[row["item_id"]]
    assert found["night"] == str(LAST)
    item = lake.read("similar_items", LAST).to_pylist()[0]["item_id"]
    assert "by behaviour" in said("similar", item)
    assert json.loads(said("similar", item, "--json"))["item_id"] == item
    history = json.loads(said("history", "--json"))
    assert [r["night"] for r in history] == [str(LAST - timedelta(days=1)), str(LAST)]
    assert history[0]["ndcg@20"] is None
    assert history[1]["ndcg@20"] > 0
    assert history[1]["events"] == lake.rows("std_interactions", LAST)
    assert "own lists" in said("history")
    told = said("compare", str(LAST - timedelta(days=1)), str(LAST))
    assert f"{lake.rows('std_interactions', LAST):,} events of 1 day more" in told
    assert "models: trained anew: item_cf, popularity" in told
    assert main(["explain", "nobody-at-all", "--config", str(two_nights)]) == 1
    assert "no user 'nobody-at-all'" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_are_shown_in_colour(two_nights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [r for r in lake_at(two_nights).read("std_items", LAST).to_pylist() if r["image_sha256s"]]
    assert main(["similar", items[0]["item_id"], "--config", str(two_nights)]) == 0
    plain = capsys.readouterr().out
    assert main(["similar", items[0]["item_id"], "--pictures", "--config", str(two_nights)]) == 0
    shown = capsys.readouterr().out
    assert "▀" not in plain
    assert shown.count("▀▀▀▀▀▀▀▀▀▀") >= 5, "five lines of ten"


def test_two_pixels_are_one_character() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1], pixels[1, 1] = [255, 0, 0], [0, 0, 9]
    text = half_blocks(pixels)
    assert text.plain == "▀▀▀"
    assert "rgb(255,0,0) on rgb(0,0,9)" in {str(s.style) for s in text.spans}
