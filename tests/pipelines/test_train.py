"""Nights whose domains share weights: a model of each domain, weights in the hybrid's card, the same lists again."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from assets.cli import main
from pipelines.config import load_config
from pipelines.lake.cards import load_arrays, load_card, load_recommenders
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.recommenders.blend.hybrid import Hybrid

FIRST = date(2026, 3, 1)
CONFIG = """
encoders = {}
start_date = 2026-03-01
[paths]
raw = "raw"
data = "data"
[interactions]
path = "log"
[recommend]
k = 10
models = ["popularity", "item_cf", "hybrid"]
pool_domains = true
[recommend.floors]
"domain:toys" = 0.7
novelty = 0.15
"""


def house(root: Path, domains: tuple[str, ...] = ("books", "toys"), rare: str = "") -> Path:
    """Four days of 80 users who each like two items a day, of 20 books and 20 toys; of a rare domain three users do."""
    rng = np.random.default_rng(0)
    for folder in ("log", "items"):
        (root / "raw" / folder).mkdir(parents=True)
    rows = [f"i{i},{domains[i % len(domains)]}" for i in range(40)]
    (root / "raw" / "items" / "all.csv").write_text("\n".join(["item_id,domain", *rows]) + "\n")
    group = rng.integers(4, size=80)
    liked = [rng.permutation(np.flatnonzero(np.arange(40) // 2 % 4 == g))[:8] for g in group]
    for n in range(4):
        day, lines = FIRST + timedelta(days=n), ["user_id,item_id,event,event_at"]
        pairs = [(u, i, h) for u in range(80) for h, i in enumerate(liked[u][2 * n : 2 * n + 2])]
        pairs = [(u, i, h) for u, i, h in pairs if u < 3 or domains[i % len(domains)] != rare]
        lines += [f"u{u},i{i},view,{day}T0{h}:00:00Z" for u, i, h in pairs]
        (root / "raw" / "log" / f"{day}.csv").write_text("\n".join(lines) + "\n")
    config = root / "nightloom.toml"
    config.write_text(CONFIG)
    return config


def nights(path: Path) -> tuple[Lake, date]:
    for n in range(4):
        assert main(["run", "--config", str(path), "--date", str(FIRST + timedelta(days=n))]) == 0
    return Lake(path.parent / "data" / "lake"), FIRST + timedelta(days=3)


@pytest.mark.slow
def test_domains_share_weights_from_night_to_night(tmp_path: Path) -> None:
    path = house(tmp_path)
    lake, last = nights(path)
    config = load_config(path)
    state, card = load_arrays(lake, "domains", last), load_card(lake, "hybrid", last)
    _, inputs = load_inputs(Night.of(config, lake, last), "cpu")
    assert np.bincount(inputs.domains).tolist() == [20, 20]
    assert np.array_equal(state["of_item"], inputs.domains)
    assert card["settings"] == {"pool": True}
    assert set(card["validation"]["warm"]["pooled"]) == {"levels", "items", "users", "domains", "deviations"}
    assert "domains.item_cf" in card["validation"]["warm"]["weights"]
    lists = lake.read("reco_candidates", last, ["model", "user_id", "rank", "item_id"]).to_pylist()
    assert {r["model"] for r in lists} == {"popularity", "item_cf", "domains", "hybrid"}
    slices = set(lake.read("eval_offline", last, ["slice"])["slice"].to_pylist())
    assert {"domain=books", "domain=toys"} <= slices

    *_, hybrid = load_recommenders(lake, last, config.recommend.models, inputs)
    assert isinstance(hybrid, Hybrid)
    assert (hybrid.pooling is None) == (card["validation"]["warm"]["pooled"]["deviations"] == {})
    promised, novel = lake.read("floor_prices", last).to_pylist()
    assert [(r["target"], r["floor"]) for r in (promised, novel)] == [("domain:toys", 0.7), ("novelty", 0.15)]
    assert novel["share"] > 0.14
    assert promised["before"] < 0.6
    assert 0.69 < promised["share"] < 0.75, "the least that keeps it"
    assert 0 < promised["price"] < 2
    items = lake.read("recommendations", last, ["item_id"])["item_id"].to_pylist()
    assert np.mean([int(i[1:]) % 2 for i in items]) == pytest.approx(promised["share"])
    before = lake.require("recommendations", last).content_digest
    assert main(["run", "--config", str(path), "--date", str(last)]) == 0
    assert lake.require("recommendations", last).content_digest == before


@pytest.mark.slow
def test_a_shop_of_one_domain_is_told_that_there_is_nothing_to_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = house(tmp_path, ("books",))
    assert main(["run", "--config", str(path), "--date", str(FIRST)]) == 0
    said = f"warning: {FIRST}: recommend.pool_domains has nothing to pool; set std_items.domain of two at least"
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_domain_that_has_just_opened_is_weighed_as_others_with_as_few_events(tmp_path: Path) -> None:
    path = house(tmp_path, ("books", "toys", "games", "cards"), rare="cards")
    lake, last = nights(path)
    _, inputs = load_inputs(Night.of(load_config(path), lake, last), "cpu")
    groups = load_card(lake, "hybrid", last)["validation"]["warm"]["few"]
    assert [g["domains"] for g in groups] == [[3]], "the last by feedback"
    assert groups[0]["worlds"] == 16
    assert {"ndcg_gain", "standard_error", "within", "error_within"} <= groups[0].keys()
    *_, hybrid = load_recommenders(lake, last, load_config(path).recommend.models, inputs)
    assert isinstance(hybrid, Hybrid)
    (shown,) = groups
    let_in = shown["within"] > max(0.001, 2 * shown["error_within"])
    let_in &= shown["ndcg_gain"] > -3 * shown["standard_error"]
    assert [f.items.tolist() for f in hybrid.few] == [np.flatnonzero(inputs.domains == 3).tolist()] * let_in
    before = lake.require("recommendations", last).content_digest
    assert main(["run", "--config", str(path), "--date", str(last)]) == 0
    assert lake.require("recommendations", last).content_digest == before
