"""Ten nights of a shop whose users react: the better arm wins, a wish is obeyed, a bad day is stopped."""

import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from assets.cli import main
from demo import domains
from demo.__main__ import config_of, first_place, views_by_arm
from demo.crowd import bad_day, hide, react
from demo.shop import HABITS, Size, generate
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.standardize import standardize
from tests.nights import lake_at

pytestmark = pytest.mark.slow

FIRST, NIGHTS = date(2026, 3, 1), 10
LAST = FIRST + timedelta(days=NIGHTS - 1)

CONFIG = """
encoders = {}
start_date = 2026-03-01
[paths]
raw = "raw"
data = "data"
[interactions]
columns = { user_id = "uid", event_at = "ts", value = "amount" }
[items]
columns = { title = "name", description = "about", images = "image", audios = "sound", videos = "clip" }
[recommend]
models = ["popularity", "item_cf", "ease"]
serve = "popularity"
[recommend.dials]
[experiments.lists]
arms = { popular = {}, personal = { serve = "ease" } }
start = 2026-03-02
minimum_effect = 0.5
[experiments.same]
arms = { one = {}, other = {} }
start = 2026-03-02
minimum_effect = 0.5
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose ten nights were run while users reacted; on the sixth night one of them has hidden an item."""
    root = tmp_path_factory.mktemp("played")
    generate(root / "raw", FIRST, Size(items=150, users=160, days=NIGHTS + 1))
    config = root / "nightloom.toml"
    config.write_text(CONFIG)
    for n in range(NIGHTS):
        day = FIRST + timedelta(days=n)
        if n:
            react(root / "raw", lake_at(config), day - timedelta(days=1))
        if n == 5:
            user, item = first_place(lake_at(config), day - timedelta(days=1))
            hide(root / "raw", user, item, day)
            (root / "hidden.txt").write_text(f"{user} {item}")
        assert main(["run", "--config", str(config), "--date", str(day)]) == 0
    return config


def decisions(lake: Lake, experiment: str) -> list[tuple[date, str]]:
    """Night and decision of an experiment, by night."""
    found = []
    for day in lake.days("eval_experiments"):
        rows = [r for r in lake.read("eval_experiments", day).to_pylist() if r["experiment"] == experiment]
        found += [(day, rows[0]["decision"])] if rows else []
    return found


def test_the_better_arm_is_promoted_and_the_curve_goes_up(played: Path) -> None:
    lake = lake_at(played)
    made = decisions(lake, "lists")
    night = next(day for day, decision in made if decision != "continue")
    assert dict(made)[night] == "promote"
    assert {decision for day, decision in made if day >= night} == {"promote"}
    assert night < LAST - timedelta(days=2), "most nights are left to everybody"
    served = lake.read("recommendations", LAST)
    assert set(served["model"].to_pylist()) == {"ease"}
    views = views_by_arm(lake, LAST)
    split = [views[d] for d in sorted(views) if "personal" in views[d]]
    before = np.mean([(v["personal"] + v["popular"]) / 2 for v in split])
    after = [views[d]["all"] for d in sorted(views) if d >= night]
    assert after[0] > before, "all users are served what half of them were before"
    assert np.mean([v["personal"] for v in split]) > 1.2 * np.mean([v["popular"] for v in split])


def test_dials_that_are_not_turned_are_judged_like_the_lists_themselves(played: Path) -> None:
    """No list is another one than without the section; at 0 each dial has the accuracy of eval_users."""
    lake, day = lake_at(played), FIRST + timedelta(days=4)
    rows = [r for r in lake.read("eval_dials", day).to_pylist() if r["metric"] == "ndcg"]
    own = set(lake.read("reco_candidates", day - timedelta(days=1))["user_id"].to_pylist())
    users = [r for r in lake.read("eval_users", day).to_pylist() if r["model"] == "popularity" and r["user_id"] in own]
    assert {r["n_users"] for r in rows} == {len(users)}
    plain = {r["dial"]: r["value"] for r in rows if r["setting"] == 0}
    assert plain == {
        d: pytest.approx(np.mean([r["ndcg"] for r in users])) for d in ("calibration", "exposure", "popularity")
    }
    turned = next(r for r in rows if (r["dial"], r["setting"]) == ("popularity", 1.0))
    assert turned["value"] < plain["popularity"], "the popular items are what is liked"


def test_the_same_lists_twice_are_never_decided(played: Path) -> None:
    assert {decision for _, decision in decisions(lake_at(played), "same")} == {"continue"}


def test_a_hidden_item_is_gone_the_next_night(played: Path) -> None:
    user, item = (played.parent / "hidden.txt").read_text().split()
    lake = lake_at(played)
    for n in range(4, NIGHTS):
        rows = lake.read("recommendations", FIRST + timedelta(days=n)).to_pylist()
        listed = item in {r["item_id"] for r in rows if r["user_id"] == user}
        assert listed is (n == 4), f"night {n}"


def test_a_bad_day_is_stopped_and_yesterdays_lists_are_served(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake, day = lake_at(played), LAST + timedelta(days=1)
    react(played.parent / "raw", lake, LAST)
    spoiled = bad_day(played.parent / "raw", day)
    assert main(["run", "--config", str(played), "--date", str(day)]) == 1
    assert f"night {day} failed: check usual_" in capsys.readouterr().err
    assert set(lake.read("recommendations", day)["carried_from"].to_pylist()) == {LAST}
    spoiled.unlink()
    assert main(["run", "--config", str(played), "--date", str(day)]) == 0
    assert set(lake.read("recommendations", day)["carried_from"].to_pylist()) == {None}


def test_the_same_lists_have_the_same_reactions(played: Path, tmp_path: Path) -> None:
    raw = played.parent / "raw"
    name = raw / "interactions" / f"{LAST}-reactions.csv"
    before = name.read_bytes()
    views = react(raw, lake_at(played), LAST - timedelta(days=1))
    assert name.read_bytes() == before
    assert views == before.count(b",view,")
    assert before.count(b",impression,") > views > 0


@pytest.mark.parametrize("kind", sorted(HABITS))
def test_every_kind_of_house_has_a_shop_that_its_configuration_fits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one, standardized with the preset and the columns of the demo's configuration."""
    monkeypatch.chdir(tmp_path)
    config = load_config(config_of(kind))
    assert config.domain == kind
    generate(Path(config.paths.raw), FIRST, Size(items=24, users=12, days=2), habits=HABITS[kind])
    made = {m.table: m for m in standardize(config, Lake.of(config), FIRST)}
    assert made["std_items"].rows >= 24
    events = Lake.of(config).read("std_interactions", FIRST)["event"].to_pylist()
    assert HABITS[kind].event in events
    assert set(events) <= {HABITS[kind].event, HABITS[kind].strong}


@pytest.mark.parametrize(("kind", "recent"), [("news", True), ("ecommerce", False)])
def test_articles_of_a_newsroom_lose_their_readers(kind: str, recent: bool, tmp_path: Path) -> None:
    """Of what is read on the eighth day most is of the last three days, 9 of 60 items; in a shop it is not."""
    generate(tmp_path / "raw", FIRST, Size(items=60, users=100, days=8), habits=HABITS[kind])
    lines = (tmp_path / "raw" / "interactions" / f"{FIRST + timedelta(days=7)}.csv").read_text().splitlines()[1:]
    late = [line.split(",")[1] >= "I0051" for line in lines if line.startswith("U")]
    assert (np.mean(late) > 0.5) == recent


def test_the_second_domain_opens_three_days_before_the_end(tmp_path: Path) -> None:
    domains.prepared(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "raw" / "items" / "catalogue.jsonl").read_text().splitlines()]
    number = Counter(row["domain"] for row in rows)
    assert number[domains.OLD] == pytest.approx(2 * number[domains.NEW], abs=2)
    viewed = Counter[tuple[bool, str]]()
    for path in (tmp_path / "raw" / "interactions").glob("*.csv"):
        head, *lines = path.read_text().splitlines()
        item = head.split(",").index("item_id")
        viewed.update((path.stem >= str(domains.NIGHTS[0]), domains.domain_of(line.split(",")[item])) for line in lines)
    assert viewed[False, domains.NEW] == 0, "nobody could view it before"
    assert viewed[False, domains.OLD] > 1000
    assert viewed[True, domains.NEW] > 100
    pooled, apart = (load_config(tmp_path / house / "nightloom.toml").recommend for house in ("pooled", "apart"))
    assert (pooled.pool_domains, apart.pool_domains) == (True, False)
