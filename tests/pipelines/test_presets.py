"""Presets of kinds of houses: each is a configuration, a file's own settings are above it."""

from pathlib import Path

import pytest

from pipelines.config import Config, ConfigError, load_config
from pipelines.presets.merge import kinds
from pipelines.sections import Recommend

KINDS = ["ecommerce", "music", "news", "travel", "video"]


def config(root: Path, text: str) -> Config:
    path = root / "c.toml"
    path.write_text(text + "\n[paths]\nraw = 'raw'\ndata = 'data'\n")
    return load_config(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_is_a_configuration_with_reasons(tmp_path: Path, kind: str) -> None:
    assert kinds() == KINDS
    found = config(tmp_path, f"domain = '{kind}'\nstart_date = 2026-03-01\n")
    plain = config(tmp_path, "start_date = 2026-03-01\n")
    assert found.recommend.half_life_days != plain.recommend.half_life_days
    assert (found.interactions.session_minutes or 0) >= 30
    assert plain.interactions.session_minutes is None
    assert found.report.word("items") != "items" == plain.report.word("items")
    text = (Path(__file__).parents[2] / "pipelines" / "presets" / f"{kind}.toml").read_text()
    settings = [line for line in text.splitlines() if "=" in line and not line.startswith(("words", "view", "click"))]
    assert sum("#" in line for line in settings) > len(settings) / 2, "why, beside what"


def test_what_a_file_sets_is_above_its_preset(tmp_path: Path) -> None:
    text = """
    domain = "music"
    start_date = 2026-03-01
    [recommend]
    half_life_days = 7.0
    [recommend.event_weights]
    skip = -9.0
    [experiments.a]
    arms = { one = {}, two = { new_items = 3 } }
    start = 2026-03-05
    [experiments.b]
    arms = { one = {}, two = { serve = "ease" } }
    start = 2026-03-05
    metric = "clicked"
    """
    found = config(tmp_path, text)
    assert found.recommend.half_life_days == 7.0
    assert found.recommend.new_items == 2, "of the preset"
    assert found.recommend.event_weights["skip"] == -9.0
    assert found.recommend.event_weights["favorite"] == 4.0, "the other weights are the preset's"
    assert not found.recommend.filter_seen
    assert [found.experiments[n].metric for n in "ab"] == ["seconds", "clicked"]
    assert Recommend().filter_seen


@pytest.mark.parametrize(
    ("kind", "modalities"),
    [
        ("ecommerce", ["image", "text"]),
        ("music", ["audio", "image", "text"]),
        ("news", ["image", "text"]),
        ("travel", ["image", "text"]),
        ("video", ["image", "text", "video"]),
    ],
)
def test_a_kind_embeds_what_its_items_are_told_apart_by(tmp_path: Path, kind: str, modalities: list[str]) -> None:
    plain = config(tmp_path, "start_date = 2026-03-01\n")
    head = f"domain = '{kind}'\nstart_date = 2026-03-01\n"
    found = config(tmp_path, head)
    assert sorted(found.encoders) == modalities
    assert all(found.encoders[m] == plain.encoders[m] for m in modalities)
    assert list(config(tmp_path, head + "[encoders.audio]\nmodel = 'musicnn'\n").encoders) == ["audio"], "of the file"
    assert not config(tmp_path, head + "encoders = {}\n").encoders


def test_an_unknown_kind_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="domain = 'bank' is no kind of house; known are ecommerce, music, news"):
        config(tmp_path, "domain = 'bank'\nstart_date = 2026-03-01\n")
