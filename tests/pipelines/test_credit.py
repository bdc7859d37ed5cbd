"""What recommenders add: the rule by hand, exposure of a few lists, and nights on which one is retired."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.cli import main
from pipelines.config import Config
from pipelines.credit import credit, exposures, gain_of, judged, weight_of
from pipelines.lake.cards import files_of_model, load_card
from pipelines.lake.credits import retired_by
from pipelines.lake.storage import Lake
from pipelines.sections import Recommend, Team
from pipelines.train import of_team
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake


def nights_of(*gains: float | None, error: float = 0.01) -> list[dict[str, Any]]:
    return [gain_of(None if g is None else {"gain": g, "standard_error": error}) for g in gains]


@pytest.mark.parametrize(
    ("rows", "nights", "decision", "low"),
    [
        (nights_of(0.1), 3, "more", 0.1 - 0.0196),
        (nights_of(0.0), 3, "keep", -0.0196),  # one of three nights
        (nights_of(0.0, 0.01, -0.01), 3, "retire", -0.0196),
        (nights_of(0.0, 0.03, -0.02), 3, "keep", 0.01 / 3 - 0.0196),  # the second night surely gained
        (nights_of(0.015, 0.015, 0.015), 3, "retire", 0.015 - 0.0196),  # nights share users and days: no surer together
        (nights_of(0.015, 0.015, 0.03), 3, "more", 0.02 - 0.0196),
        (nights_of(0.1, 0.1, 0.0), 3, "keep", 0.2 / 3 - 0.0196),  # tonight it is not sure
        (nights_of(0.0, None, 0.0), 3, "keep", -0.0196),
        (nights_of(None), 1, "keep", None),
        (nights_of(0.0), 1, "retire", -0.0196),
    ],
)
def test_what_follows_from_the_last_nights(
    rows: list[dict[str, Any]], nights: int, decision: str, low: float | None
) -> None:
    found = judged(rows, Team(nights=nights), gone=False)
    assert found["decision"] == decision
    assert found["mean_low"] == (None if low is None else pytest.approx(low))
    assert judged(rows, Team(nights=nights), gone=True)["decision"] == "retired"


def credited(config: Config, lake: Lake, day: date, gains: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Rows of a night on which nothing has happened and the hybrid has shown these gains."""
    for table in ("std_interactions", "std_items", "std_user_content"):
        lake.publish(table, day, lake.read(table, DAY))
    lake.publish("reco_candidates", day, rows_of("reco_candidates", []))
    shown = {"credit": {m: {"gain": g, "standard_error": 0.01} for m, g in gains.items()}, "weights": {}}
    lake.publish_files("model_hybrid", day, files_of_model({}, {"validation": {"warm": shown}}))
    list(credit(config, lake, day))
    return {r["model"]: r for r in lake.read("eval_credit", day).to_pylist()}


def test_of_two_that_add_nothing_one_is_retired_and_the_other_judged_anew(tmp_path: Path) -> None:
    """Two copies: each adds nothing beside the other, on two nights; on the third, als is gone."""
    lake = tiny_lake(tmp_path, [event("u", "a", at(10))], [{"item_id": "a"}])
    recommend = Recommend(models=("ease", "als", "hybrid"), team=Team(nights=2, act=True))
    found = []
    for n in range(3):
        gains = {"ease": 0.001, "als": -0.001} if n < 2 else {"ease": 0.3}
        found.append(credited(config_of(tmp_path, recommend=recommend), lake, DAY + timedelta(days=n), gains))
    assert [f["als"]["decision"] for f in found] == ["keep", "retire", "retired"]
    assert [f["ease"]["decision"] for f in found] == ["keep", "keep", "more"]
    assert found[1]["ease"]["reason"].endswith("; als goes first")
    assert [f["ease"]["nights"] for f in found] == [1, 2, 1], "nights with als say nothing of the hybrid without it"
    assert retired_by(lake, DAY + timedelta(days=5)) == ["als"]


def test_a_proposal_is_acted_on_only_if_the_configuration_says_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    row = {"places": 0.0, "alone": 0.0, "coverage": 0.0, "novelty": 0.0, "nights": 7, "weight": 0.0}
    names = {"als": "retire", "ease": "keep", "graph": "retired", "item_cf": "more"}
    rows = [row | {"model": m, "decision": d} for m, d in names.items()]
    lake.publish("eval_credit", DAY, rows_of("eval_credit", rows))
    for act, without, trusted in ((True, ["als", "graph"], ["item_cf"]), (False, [], [])):
        config = config_of(tmp_path, recommend=Recommend(team=Team(act=act)))
        expected = {"credit": True, "without": without, "trusted": trusted}
        assert of_team(config, lake, DAY + timedelta(days=1)) == expected
        nothing = {"credit": True, "without": [], "trusted": []}
        assert of_team(config, lake, DAY) == nothing, "a night does not know what it will decide"


def test_who_is_retired_is_heard_again_after_four_windows(tmp_path: Path) -> None:
    """Windows of one night: als is retired on the first, gone on the next three, and back after the fifth."""
    lake = tiny_lake(tmp_path, [event("u", "a", at(10))], [{"item_id": "a"}])
    config = config_of(tmp_path, recommend=Recommend(models=("ease", "als", "hybrid"), team=Team(nights=1, act=True)))
    decisions = []
    for n in range(6):
        gains = {"ease": 0.3} | ({"als": 0.0} if n == 0 else {"als": 0.3} if n == 5 else {})
        decisions.append(credited(config, lake, DAY + timedelta(days=n), gains)["als"]["decision"])
    assert decisions == ["retire", "retired", "retired", "retired", "keep", "more"]
    assert retired_by(lake, DAY + timedelta(days=4)) == [], "so that the hybrid of the sixth night hears it"


def test_weights_are_summed_over_signals_of_the_recommender_alone() -> None:
    weights = {"graph.R": 0.1, "graph.RR": 0.2, "graphic": 5.0, "ease": 0.4}
    assert weight_of(weights, "graph") == pytest.approx(0.3)
    assert weight_of(weights, "ease") == 0.4
    assert weight_of(weights, "als") == 0.0


def test_exposure_of_a_few_lists(tmp_path: Path) -> None:
    """The hybrid lists a, b, c and d; ease has a and b of them, popularity b, als none and an item of its own."""
    lake = tiny_lake(tmp_path, [event("u", "e", at(10)), event("v", "a", at(10))], [{"item_id": i} for i in "abcdefgh"])
    lists = {"hybrid": "abcd", "ease": "abe", "popularity": "bf", "als": "g"}
    rows = [
        {"model": m, "user_id": "u", "rank": n, "item_id": i, "score": -float(n)}
        for m, items in lists.items()
        for n, i in enumerate(items, 1)
    ]
    lake.publish("reco_candidates", DAY, rows_of("reco_candidates", rows))
    config = config_of(tmp_path, recommend=Recommend(models=("popularity", "ease", "als", "hybrid"), team=Team()))
    found = {r["model"]: r for r in exposures(config, lake, DAY, "hybrid")}
    assert {m: (r["places"], r["alone"]) for m, r in found.items()} == {
        "ease": (0.5, 0.25), "popularity": (0.25, 0.0), "als": (0.0, 0.0),
    }  # fmt: skip
    assert [found[m]["coverage"] for m in ("ease", "popularity", "als")] == [3 / 8, 2 / 8, 1 / 8]
    assert found["als"]["novelty"] == pytest.approx(2.0), "nobody of two users has met it: 1 in 4"


# --- nights -------------------------------------------------------------------------------------------------------

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
models = ["popularity", "hybrid"]
[recommend.team]
nights = 1
act = true
[recommend.external.vendor]
path = "vendor"
[recommend.external.noise]
path = "noise"
"""


def house(root: Path) -> Path:
    """Five days of 60 users who each like two items a day, of 40; the vendor knows one of the next day's of most."""
    rng, first = np.random.default_rng(0), date(2026, 3, 1)
    fame = 0.9 ** np.arange(40) / sum(0.9 ** np.arange(40))
    liked = np.stack([rng.choice(40, 12, replace=False, p=fame) for _ in range(60)])
    (root / "raw" / "log").mkdir(parents=True)
    for n in range(5):
        day, lines = first + timedelta(days=n), ["user_id,item_id,event,event_at"]
        lines += [f"u{u},i{i},view,{day}T0{h}:00:00Z" for u in range(60) for h, i in enumerate(liked[u, 2 * n : 2 * n + 2])]  # noqa: E501 # fmt: skip
        (root / "raw" / "log" / f"{day}.csv").write_text("\n".join(lines) + "\n")
        chance, noise = (np.stack([rng.permutation(40)[:10] for _ in range(60)]) for _ in range(2))
        told = np.where(rng.random((60, 1)) < 0.8, liked[:, 2 * n + 2 : 2 * n + 3], chance[:, :1])
        for name, lists in (("vendor", np.hstack([chance[:, 1:4], told])), ("noise", noise)):
            (root / "raw" / name).mkdir(exist_ok=True)
            ids = {"user_id": [f"u{u}" for u in range(60) for _ in lists[0]], "item_id": [f"i{i}" for i in lists.ravel()]}  # noqa: E501 # fmt: skip
            pq.write_table(pa.table(ids | {"rank": [*range(1, len(lists[0]) + 1)] * 60}), root / "raw" / name / f"{day}.parquet")  # noqa: E501 # fmt: skip
    config = root / "nightloom.toml"
    config.write_text(CONFIG)
    return config


@pytest.mark.slow
def test_a_vendor_that_knows_is_heard_and_noise_is_retired(tmp_path: Path) -> None:
    config, lake = house(tmp_path), Lake(tmp_path / "data" / "lake")
    for n in range(2, 6):
        assert main(["run", "--config", str(config), "--date", f"2026-03-0{n}"]) == 0
    first, third, last = (date(2026, 3, n) for n in (2, 4, 5))
    found = {d: {r["model"]: r for r in lake.read("eval_credit", d).to_pylist()} for d in (first, third, last)}
    assert found[first]["external_vendor"]["gain"] is None, "there were no lists before the last days to judge"
    assert found[third]["external_vendor"]["decision"] == "more"
    assert found[third]["external_vendor"]["weight"] > 0
    assert found[third]["external_noise"]["weight"] == 0
    assert retired_by(lake, date(2026, 3, 3)) == ["external_noise"], "as soon as there is a night to judge it by"
    assert found[last]["external_noise"]["decision"] == "retired"
    card = load_card(lake, "hybrid", last)
    assert "external_noise" in card["settings"]["without"]
    assert "external_vendor" not in card["settings"]["without"]
    assert card["settings"]["trusted"] == [m for m, r in sorted(found[third].items()) if r["decision"] == "more"], (
        "as the night before has proposed"
    )
    assert "external_vendor" in card["settings"]["trusted"]
    assert "external_noise.fusion" not in card["validation"]["warm"]["weights"]
    assert set(lake.read("reco_candidates", last, ["model"])["model"].to_pylist()) == {
        "popularity", "hybrid", "external_vendor", "external_noise",
    }, "who is retired is still listed and judged"  # fmt: skip
    rows = lake.read("eval_offline", last).to_pylist()
    value = {r["model"]: r["value"] for r in rows if (r["metric"], r["k"], r["slice"]) == ("ndcg", 10, "all")}
    assert value["hybrid"] > value["popularity"] + 0.05
    assert value["external_vendor"] > value["external_noise"] + 0.05
    before = lake.require("recommendations", last).content_digest
    assert main(["run", "--config", str(config), "--date", str(last)]) == 0
    assert lake.require("recommendations", last).content_digest == before
