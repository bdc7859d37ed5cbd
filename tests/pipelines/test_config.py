"""Configuration: every problem at once, before any work."""

from pathlib import Path

import pytest

from pipelines.config import Config, ConfigError, load_config
from pipelines.sections import Recommend
from tests.shop import REPO

MINIMAL = 'start_date = 2026-01-01\n[paths]\nraw = "raw"\ndata = "data"\n'


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'start_date = "soon"\nnonsense = 1\n[paths]\nraw = "raw"\n[recommend]\nk = 0\nkk = 3\n'
        '[encoders.smell]\nmodel = "nose"\n[aligner]\ndim = 30\n'
    )
    with pytest.raises(ConfigError) as e:
        load_config(path)
    text = "\n".join(e.value.problems)
    for part in (
        "start_date",
        "nonsense: unknown key",
        "paths.data: required",
        "recommend.k",
        "recommend.kk: unknown key; known here: ",
        "smell",
        "multiple of heads",
    ):
        assert part in text
    assert "filter_seen" in text  # the known keys of the section that has the typo


def test_floors_are_of_targets_and_no_more_than_all_places() -> None:
    assert Recommend(floors={"domain:books": 0.5, "tag:own": 0.5}).floors["tag:own"] == 0.5
    assert Recommend(floors={"domain:books": 0.9, "novelty": 0.5, "diversity": 0.5}).floors["novelty"] == 0.5
    with pytest.raises(ValueError, match="floors: 'books' is no target; write item:ID, .*; or diversity or novelty"):
        Recommend(floors={"books": 0.1})
    with pytest.raises(ValueError, match="floors add up to 1.1 of all places, which is more than all"):
        Recommend(floors={"domain:books": 0.6, "domain:toys": 0.5})
    with pytest.raises(ValueError, match="less than 1"):
        Recommend(floors={"domain:books": 1.0})


def test_pooled_domains_bring_a_recommender_of_their_own() -> None:
    assert "domains" not in Recommend().models
    assert Recommend(pool_domains=True).models == (*Recommend().models, "domains")
    assert Recommend(pool_domains=True, models=("ease", "hybrid")).models == ("ease", "hybrid", "domains")
    with pytest.raises(ValueError, match="pool_domains is about weights of the hybrid"):
        Recommend(pool_domains=True, models=("ease",), serve="ease")
    with pytest.raises(ValueError, match="models has domains, which comes with pool_domains"):
        Recommend(models=("ease", "domains", "hybrid"))


@pytest.mark.parametrize(("text", "message"), [("start_date = ", "cannot be read as TOML"), (None, "does not exist")])
def test_unreadable_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "c.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_paths_start_at_the_file_and_sections_have_their_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(MINIMAL)
    config = load_config(path)
    assert config.paths.raw == str(tmp_path / "raw")
    assert config.paths.data == tmp_path / "data"
    path.write_text(MINIMAL + "[recommend]\nk = 7\n")
    other = load_config(path)
    assert config.digest("items") == other.digest("items")
    assert config.digest("recommend") != other.digest("recommend")


def test_shipped_configuration_loads() -> None:
    assert isinstance(load_config(REPO / "nightloom.toml"), Config)


def test_of_models_without_the_hybrid_the_first_one_serves() -> None:
    assert Recommend(models=("ease", "popularity")).serve == "ease"
    assert Recommend(models=("ease", "hybrid")).serve == "hybrid"
    assert Recommend(models=("ease", "popularity"), serve="popularity").serve == "popularity"
    with pytest.raises(ValueError, match="serve = 'hybrid' is not in models"):
        Recommend(models=("ease",), serve="hybrid")
