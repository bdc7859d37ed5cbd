"""Sites that share sums: masks, sums by hand, nights of sites and hub against the pooled log."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse, stats

from assets.cli import main
from pipelines.beyond import Federate
from pipelines.config import ConfigError
from pipelines.federate import Site, federate, keys_of, on_frame
from pipelines.federation.exchange import Exchange
from pipelines.federation.hub import MissingSitesError, visit
from pipelines.federation.masks import mask, private_key, public_text, stream
from pipelines.federation.statistics import SCALE, Layout, pooled_of, sums_of
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.raw.places import DataError
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.registry import classes
from pipelines.verify import verify
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake

NAMES = ("berlin", "paris", "rome")
FIRST = date(2026, 3, 8)


def settings(root: Path, name: str = "", **more: Any) -> Federate:
    role = {"role": "site", "name": name} if name else {"role": "hub"}
    return Federate.model_validate({"exchange": str(root / "exchange"), "sites": NAMES} | role | more)


# --- masks and sums ---------------------------------------------------------------------------------------------------


def test_masks_cancel_and_a_masked_share_is_uniform(tmp_path: Path) -> None:
    """Sums of numbers near zero: without a mask all high bytes are 0, with it bytes pass a chi-square test."""
    keys = {n: private_key(tmp_path / n / "key") for n in NAMES}
    public = {n: public_text(k) for n, k in keys.items()}
    assert public_text(private_key(tmp_path / "berlin" / "key")) == public["berlin"], "made once"
    assert (tmp_path / "berlin" / "key").stat().st_mode & 0o077 == 0, "nobody else reads it"
    own = {n: np.arange(20_000, dtype=np.uint64) % np.uint64(7 + i) for i, n in enumerate(NAMES)}
    masked = {
        n: own[n] + mask(keys[n], n, {p: public[p] for p in NAMES if p != n}, "2026-03-08", 20_000) for n in NAMES
    }
    total = sum(masked.values(), np.zeros(20_000, np.uint64))
    assert np.array_equal(total, sum(own.values(), np.zeros(20_000, np.uint64)))
    for values in masked.values():
        counts = np.bincount(np.frombuffer(values.tobytes(), np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.chisquare(np.bincount(np.frombuffer(own["paris"].tobytes(), np.uint8), minlength=256)).pvalue < 1e-9
    other = stream(keys["berlin"], public["paris"], "another round", 100)
    assert not np.array_equal(other, stream(keys["berlin"], public["paris"], "a round", 100))
    assert np.array_equal(other, stream(keys["paris"], public["berlin"], "another round", 100))


def test_sums_by_hand() -> None:
    """u likes a (weight 1) and b (3), v likes b (2): in common 1, walks 1 * 3 / (1 + 3) and 9 / 4 + 4 / 2."""
    found = pooled_of(sums_of(sparse.csr_matrix([[1.0, 3.0], [0.0, 2.0]])), np.array([0, 1]))
    assert found.liked.tolist() == [[1, 1], [1, 2]]
    assert found.walks == pytest.approx(np.array([[1 / 4, 3 / 4], [3 / 4, 9 / 4 + 2]]), abs=1e-4)
    assert found.weight.tolist() == [1, 5]
    turned = pooled_of(sums_of(sparse.csr_matrix([[1.0, 3.0], [0.0, 2.0]])), np.array([5, -1]))
    assert (turned.items.tolist(), turned.liked.tolist(), turned.weight.tolist()) == ([5], [[1]], [1])
    swapped = pooled_of(sums_of(sparse.csr_matrix([[1.0, 3.0], [0.0, 2.0]])), np.array([9, 4]))
    assert swapped.items.tolist() == [4, 9], "in the order of the catalogue"
    assert swapped.liked.tolist() == [[2, 1], [1, 1]]
    assert Layout(2).length == 8
    assert SCALE == 2**40


def likes(users: int = 120, items: int = 30, seed: int = 0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix((rng.random((users, items)) < 0.2) * rng.uniform(0.1, 5, (users, items)), dtype=np.float32)


def test_sums_of_sites_are_those_of_their_logs_together() -> None:
    every = likes()
    parts = [sums_of(every[rows]) for rows in (slice(0, 30), slice(30, 77), slice(77, 120))]
    assert np.array_equal(sum(parts[1:], parts[0]), sums_of(every))


@pytest.mark.parametrize(("name", "close"), [("ease", 0.0), ("popularity", 1e-6), ("item_cf", 1e-4)])
def test_recommenders_of_sums_are_those_of_the_log(name: str, close: float) -> None:
    """EASE to the last bit; the others as closely as numbers are rounded."""
    every = likes()
    pooled = pooled_of(sums_of(every), np.arange(30))
    plain, of_sums = (classes()[name]().fit(i) for i in (Inputs(every), Inputs(every, pooled=pooled)))
    users = np.arange(120)
    one, other = plain.score(Inputs(every), users), of_sums.score(Inputs(every), users)
    assert np.allclose(one, other, rtol=close, atol=close)
    assert one.any()


# --- nights -----------------------------------------------------------------------------------------------------------


class World:
    """Three sites and a hub over one exchange; users of a made-up log in turn at each site, or all at one."""

    def __init__(self, root: Path, users: int = 90, items: int = 24, **more: Any):
        self.root, self.more = root, more
        rng = np.random.default_rng(1)
        self.events = [
            event(f"u{u:02d}", f"i{i:02d}", at(1 + int(rng.integers(7)), int(rng.integers(24))))
            for u in range(users)
            for i in np.flatnonzero(rng.random(items) < 0.25)
        ]
        self.items = [{"item_id": f"i{i:02d}"} for i in range(items)]

    def lake(self, name: str, keep: object = None) -> Lake:
        """A lake whose nights know the events of some users."""
        chosen = [e for e in self.events if keep is None or keep(e["user_id"])]  # type: ignore[operator]
        return tiny_lake(self.root / name / "lake", chosen, self.items, day=FIRST)

    def night(self, name: str, lake: Lake, day: date) -> list[dict[str, object]]:
        """Run a site's step on a night, on which nothing has happened; rows of ``fed_stats``."""
        for table in ("std_interactions", "std_items", "std_user_content"):
            if lake.manifest(table, day) is None:
                rows = lake.read(table, FIRST) if table != "std_interactions" else rows_of("std_interactions", [])
                lake.publish(table, day, rows)
        config = config_of(self.root / name, modalities=(), federate=settings(self.root, name, **self.more))
        list(federate(config, lake, day))
        return lake.read("fed_stats", day).to_pylist()

    def hub(self, day: date) -> tuple[str, ...]:
        return tuple(visit(settings(self.root, **self.more), day))


def ease_lists(world: World, name: str, lake: Lake, day: date) -> dict[str, list[float]]:
    """Scores of EASE for every user with history."""
    config = config_of(world.root / name, modalities=())
    data, inputs = load_inputs(Night.of(config, lake, day), "cpu")
    model = classes()["ease"]().fit(inputs)
    users = np.flatnonzero(np.diff(inputs.positives.indptr))
    return {str(data.users[u]): model.score(inputs, np.array([u]))[0].tolist() for u in users}


def of_site(name: str) -> object:
    at_place = NAMES.index(name)
    return lambda user: int(user[1:]) % len(NAMES) == at_place


def test_sites_and_hub_give_what_the_pooled_log_gives(tmp_path: Path) -> None:
    """Night 1 offers items, night 2 leaves shares, night 3 uses the sum; every score is the same to the last bit."""
    world, days = World(tmp_path), [FIRST + timedelta(days=n) for n in range(3)]
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    pooled = ease_lists(world, "all", world.lake("all"), FIRST)
    for day in days[:2]:
        for name, lake in lakes.items():
            assert world.night(name, lake, day) == [] or day != FIRST
        said = world.hub(day)
        assert said[-1] == f"round {day}: opened with 24 items of berlin, paris, rome"
    assert said[0] == f"round {FIRST}: the sum of berlin, paris, rome"
    found: dict[str, list[float]] = {}
    for name, lake in lakes.items():
        rows = world.night(name, lake, days[2])
        assert {(r["site"], r["state"], r["known_until"]) for r in rows if r["used"]} == {
            (n, "summed", days[1]) for n in NAMES
        }
        found |= ease_lists(world, name, lake, days[2])
    assert found.keys() == pooled.keys()
    assert found == pooled
    alone = ease_lists(world, "berlin", lakes["berlin"], days[1])
    assert any(alone[u] != pooled[u] for u in alone), "before, a site has its own users alone"


@pytest.mark.parametrize("missing", ["go_on", "stop"])
def test_a_site_that_is_missing_is_named_and_left_out_or_stops(tmp_path: Path, missing: str) -> None:
    """Rome offers items and leaves no share; without it sums are those of the log of the other two."""
    world, days = World(tmp_path, missing=missing), [FIRST + timedelta(days=n) for n in range(5)]
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for name, lake in lakes.items():
        world.night(name, lake, days[0])
    world.hub(days[0])
    for name in NAMES[:2]:
        world.night(name, lakes[name], days[1])
    assert world.hub(days[0]) == (f"round {FIRST}: waiting for rome",), "on the same day nobody is late"
    if missing == "stop":
        with pytest.raises(MissingSitesError, match=r"round 2026-03-08: no share of rome; run their nights"):
            world.hub(days[1])
        return
    assert world.hub(days[1])[0].startswith(f"round {FIRST}: goes on without rome")
    late = Site(settings(tmp_path, "rome"), tmp_path / "rome" / "federate")
    late.answer(str(FIRST), days[1], likes(3, 24), [i["item_id"] for i in world.items])
    assert "rome" not in Exchange(str(tmp_path / "exchange")).shares(str(FIRST)), "its share could be unmasked now"
    assert world.hub(days[1])[0] == f"round {FIRST}: goes on without rome, waiting for what berlin, paris masked"
    for name in NAMES[:2]:
        world.night(name, lakes[name], days[2])
    assert world.hub(days[2])[0] == f"round {FIRST}: the sum of berlin, paris, without rome"
    rows = world.night("berlin", lakes["berlin"], days[3])
    assert {(r["site"], r["state"]) for r in rows if r["used"]} == {
        ("berlin", "summed"), ("paris", "summed"), ("rome", "missing"),
    }  # fmt: skip
    two = ease_lists(world, "two", world.lake("two", lambda u: int(u[1:]) % 3 < 2), FIRST)
    found = ease_lists(world, "berlin", lakes["berlin"], days[3])
    assert found == {u: two[u] for u in found}


def test_what_a_hub_sees_of_one_site_is_noise_and_it_never_sums_one(tmp_path: Path) -> None:
    world, days = World(tmp_path), [FIRST + timedelta(days=n) for n in range(3)]
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    assert world.hub(FIRST) == (f"round {FIRST}: nobody offers items, 2 sites are needed",)
    for name, lake in lakes.items():
        world.night(name, lake, days[0])
    world.hub(days[0])
    world.night("paris", lakes["paris"], days[1])
    exchange = Exchange(str(tmp_path / "exchange"))
    share = exchange.share(str(FIRST), "paris")
    assert (share > np.uint64(2**60)).mean() == pytest.approx(15 / 16, abs=0.05), "numbers below 2^40 under a mask"
    assert world.hub(days[1])[0] == f"round {FIRST}: 1 of 3 sites have left a share, 2 are needed"
    world.night("paris", lakes["paris"], days[2])
    assert np.array_equal(exchange.share(str(FIRST), "paris"), share), "a second share would tell what has changed"


def opened(root: Path) -> tuple[World, dict[str, Lake], list[date], Exchange]:
    """A round of three sites that is open, and none has answered."""
    world, days = World(root), [FIRST + timedelta(days=n) for n in range(4)]
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for name, lake in lakes.items():
        world.night(name, lake, days[0])
    world.hub(days[0])
    return world, lakes, days, Exchange(str(root / "exchange"))


@pytest.mark.parametrize("trick", ["alone", "stranger", "all missing"])
def test_a_site_does_not_answer_what_would_show_its_own_numbers(tmp_path: Path, trick: str) -> None:
    """A round of one site; of a site that is none; a round in which all others are said to be missing after sharing."""
    world, lakes, days, exchange = opened(tmp_path)
    of = tmp_path / "exchange" / "rounds" / str(FIRST)
    if trick == "all missing":
        for name, lake in lakes.items():
            world.night(name, lake, days[1])
        exchange.put_missing(str(FIRST), ["paris", "rome"])
        world.night("berlin", lakes["berlin"], days[2])
        assert exchange.fix(str(FIRST), "berlin") is None
        exchange.put_missing(str(FIRST), ["rome"])
        world.night("berlin", lakes["berlin"], days[3])
        assert exchange.fix(str(FIRST), "berlin") is None, "rome has shared, and could be unmasked"
        return
    sites = {"alone": ["berlin"], "stranger": ["berlin", "paris", "oslo"]}[trick]
    (of / "round.json").write_text(json.dumps({"sites": sites, "nonce": "n"}))
    world.night("berlin", lakes["berlin"], days[1])
    assert "berlin" not in exchange.shares(str(FIRST))


def test_a_round_that_is_opened_again_has_other_masks_and_a_share_is_made_once(tmp_path: Path) -> None:
    world, lakes, days, exchange = opened(tmp_path)
    world.night("berlin", lakes["berlin"], days[1])
    first = exchange.share(str(FIRST), "berlin")
    shares = tmp_path / "exchange" / "rounds" / str(FIRST) / "shares"
    (shares / "berlin.json").unlink()  # as a crash between the two leaves it
    world.night("berlin", lakes["berlin"], days[2])
    assert np.array_equal(exchange.share(str(FIRST), "berlin"), first), "the bytes that were made the first time"
    assert exchange.shares(str(FIRST)) == {"berlin": str(days[1])}
    shutil.rmtree(tmp_path / "exchange" / "rounds")
    world.hub(days[0])
    world.night("berlin", lakes["berlin"], days[3])
    other = exchange.share(str(FIRST), "berlin")
    assert (first == other).mean() < 0.01, "the same numbers under another mask"


def test_shares_under_other_keys_are_never_added_up(tmp_path: Path) -> None:
    """Rome loses its folder between its offer and its share, and makes a new key."""
    world, lakes, days, _ = opened(tmp_path)
    world.night("berlin", lakes["berlin"], days[1])
    shutil.rmtree(tmp_path / "rome" / "federate")
    for name in ("rome", "paris"):
        world.night(name, lakes[name], days[1])
    assert "have not masked with the same keys" in world.hub(days[1])[0]
    assert Exchange(str(tmp_path / "exchange")).summed(str(FIRST)) is None


def test_a_night_that_is_run_again_uses_what_it_used_and_old_sums_are_left(tmp_path: Path) -> None:
    world, lakes, days, exchange = opened(tmp_path)
    for name, lake in lakes.items():
        world.night(name, lake, days[1])
    world.hub(days[1])
    assert exchange.summed(str(FIRST)) is not None
    assert not any(r["used"] for r in world.night("berlin", lakes["berlin"], days[1])), "it had none"
    assert any(r["used"] for r in world.night("berlin", lakes["berlin"], days[2]))
    late = days[1] + timedelta(days=8)
    assert not any(r["used"] for r in world.night("berlin", lakes["berlin"], late)), "more than max_age_days"


def test_a_key_that_has_changed_stops_the_night(tmp_path: Path) -> None:
    world, days = World(tmp_path), [FIRST + timedelta(days=n) for n in range(3)]
    lakes = {n: world.lake(n, of_site(n)) for n in NAMES}
    for day in days[:2]:
        for name, lake in lakes.items():
            world.night(name, lake, day)
        world.hub(day)
    Exchange(str(tmp_path / "exchange")).put_key("rome", "00" * 32)
    with pytest.raises(DataError, match="the key of site rome has changed; if they say so, take it out of"):
        world.night("berlin", lakes["berlin"], days[2])


def test_items_meet_by_id_or_by_all_of_their_content() -> None:
    row = {"text_sha256": "t", "image_sha256s": ["b", "a"], "audio_sha256s": []}
    items = rows_of("std_items", [row | {"item_id": "1"}, row | {"item_id": "2", "image_sha256s": ["a", "b"]}, {"item_id": "3"}])  # noqa: E501 # fmt: skip
    assert keys_of(items, "item_id") == ["1", "2", "3"]
    by_content = keys_of(items, "content")
    assert by_content[0] == by_content[1] != by_content[2] == "3"
    other = keys_of(rows_of("std_items", [row | {"item_id": "x", "text_sha256": "other"}]), "content")
    assert other[0] not in by_content
    positives = sparse.csr_matrix([[1.0, 2.0, 4.0]])
    assert on_frame(positives, ["k", "k", "z"], ["a", "k", "z"]).toarray().tolist() == [[0, 1, 4]]


def test_items_beyond_the_most_are_those_that_fewest_sites_have(tmp_path: Path) -> None:
    exchange = Exchange(str(tmp_path / "exchange"))
    for name, keys in zip(NAMES, (["a", "b", "c"], ["b", "c", "d"], ["c"]), strict=True):
        exchange.put_offer(DAY, name, keys)
    said = visit(settings(tmp_path, most_items=3), DAY)
    assert tuple(said) == (
        "round 2026-03-10: opened with 3 items of berlin, paris, rome; 1 items beyond most_items are left out",
    )
    assert exchange.frame(str(DAY)) == ["a", "b", "c"]


def test_an_exchange_that_cannot_be_opened_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path, federate=settings(tmp_path, "rome", exchange="nowhere://x"))
    with pytest.raises(ConfigError, match="federate.exchange: cannot open nowhere://x: ValueError: Protocol not known"):
        verify(config)


def test_a_site_has_to_be_one_of_the_sites() -> None:
    with pytest.raises(ValueError, match=r"name = 'oslo' is none of sites \(berlin, paris, rome\)"):
        Federate(role="site", name="oslo", exchange="x", sites=NAMES)
    with pytest.raises(ValueError, match="sites names one twice"):
        Federate(role="hub", exchange="x", sites=("a", "a"))


def test_numbers_of_a_table_are_read_back(tmp_path: Path) -> None:
    exchange = Exchange(str(tmp_path / "e"))
    assert exchange.rounds() == []
    assert exchange.key("berlin") is None
    exchange.open_round(DAY, ["b", "a"], ["k"])
    assert (exchange.rounds(), exchange.sites(str(DAY)), exchange.frame(str(DAY))) == ([str(DAY)], ["a", "b"], ["k"])
    assert pa.array(exchange.frame(str(DAY))).type == pa.string()
    with pytest.raises(FileNotFoundError, match="has to be taken away as a whole"):
        exchange.sum(str(DAY))


CONFIG = """
start_date = 2026-03-08
encoders = {{}}
[paths]
raw = "raw"
data = "data"
[interactions]
path = "log"
[recommend]
models = ["ease"]
k = 5
[federate]
{federate}
sites = ["berlin", "paris"]
exchange = "{exchange}"
missing = "stop"
"""


@pytest.mark.slow
def test_nights_and_hub_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists of two sites on the third night are those of a house with all users; then one site stops coming."""
    rng, configs = np.random.default_rng(0), {}
    for name, federate_as in (("berlin", 'role = "site"\nname = "berlin"'), ("paris", 'role = "site"\nname = "paris"'), ("hub", 'role = "hub"')):  # noqa: E501 # fmt: skip
        (tmp_path / name / "raw" / "log").mkdir(parents=True)
        configs[name] = tmp_path / name / "c.toml"
        configs[name].write_text(CONFIG.format(federate=federate_as, exchange="../exchange"))
    (tmp_path / "all" / "raw" / "log").mkdir(parents=True)
    configs["all"] = tmp_path / "all" / "c.toml"
    configs["all"].write_text(CONFIG.split("[federate]")[0].format())
    rows = [
        (u, f"u{u:02d},i{i:02d},view,2026-03-08T{u % 24:02d}:{i:02d}:00Z")
        for u in range(40)
        for i in np.flatnonzero(rng.random(20) < 0.3)
    ]
    for name, mine in (("berlin", 0), ("paris", 1), ("all", None)):
        lines = [line for u, line in rows if mine is None or u % 2 == mine]
        text = "user_id,item_id,event,event_at\n" + "\n".join(lines) + "\n"
        (tmp_path / name / "raw" / "log" / "2026-03-08.csv").write_text(text)
    assert main(["run", "--config", str(configs["all"]), "--date", "2026-03-08"]) == 0
    for day in ("2026-03-08", "2026-03-09"):
        for name in ("berlin", "paris"):
            assert main(["run", "--config", str(configs[name]), "--date", day]) == 0
        assert main(["hub", "--config", str(configs["hub"]), "--date", day]) == 0
    assert "round 2026-03-08: the sum of berlin, paris" in capsys.readouterr().out
    assert main(["hub", "--config", str(configs["berlin"]), "--date", day]) == 2
    assert 'expected [federate] with role = "hub"' in capsys.readouterr().err
    assert main(["run", "--config", str(configs["berlin"]), "--date", "2026-03-10"]) == 0
    lists = {
        name: [
            (r["user_id"], r["rank"], r["item_id"], r["score"])
            for r in Lake(tmp_path / name / "data" / "lake").read("recommendations", date(2026, 3, n)).to_pylist()
            if r["user_id"].startswith("u")
        ]
        for name, n in (("berlin", 10), ("all", 8))
    }
    assert lists["berlin"] == [r for r in lists["all"] if int(r[0][1:]) % 2 == 0]
    assert len(lists["berlin"]) > 90
    assert main(["hub", "--config", str(configs["hub"]), "--date", "2026-03-10"]) == 1
    assert "round 2026-03-09: no share of paris; run their nights" in capsys.readouterr().err
