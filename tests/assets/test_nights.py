"""Whole nights over a real folder: what is promised to users, through the Dagster job and the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.cli import main
from pipelines.config import load_config
from pipelines.lake.storage import Lake, Manifest
from pipelines.recommenders.registry import classes
from tests.nights import lake_at, run_job
from tests.shop import DAYS, FIRST, LAST, REPO, parquet_bytes, real_data, write_config, write_jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shop_raw: Path, tiny_models: dict[str, Path]) -> Path:
    """Configuration of a project whose last three nights were made by `nightloom backfill`. Do not modify it."""
    folder = tmp_path_factory.mktemp("finished")
    models = {"text": str(tiny_models["text"]), "image": str(tiny_models["image"]), "audio": "mfcc"}
    config = write_config(folder, models, raw=shop_raw)
    code = main(["backfill", "--config", str(config), "--from", str(LAST - timedelta(days=2)), "--to", str(LAST)])
    assert code == 0
    return config


def test_backfill_makes_every_table_of_every_day(finished: Path) -> None:
    lake = lake_at(finished)
    three = [LAST - timedelta(days=n) for n in (2, 1, 0)]
    for table in (
        "std_items",
        "emb_text",
        "emb_image",
        "emb_audio",
        "feat_items",
        "feat_users",
        "recommendations",
        "eval_offline",
        "model_hybrid",
    ):
        assert lake.days(table) == three, table
    assert lake.days("std_interactions") == [FIRST + timedelta(days=n) for n in range(DAYS)], "earlier days came along"
    assert lake.require("eval_offline", LAST).rows > 0
    assert lake.require("recommendations", LAST).rows > 0


def test_each_night_has_its_page(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = lake_at(finished)
    assert lake.days("reports") == [LAST - timedelta(days=n) for n in (2, 1, 0)]
    page = lake.folder("reports", LAST) / "index.html"
    text = page.read_text()
    assert f"<h1>Night {LAST}</h1>" in text
    assert len(text) < 3_000_000
    for section in ("accuracy", "data", "groups", "exposure", "people", "items", "tables"):
        assert f'<h2 id="{section}">' in text
    assert text.count("data:image/jpeg") > 10
    assert main(["report", "--config", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert main(["report", "--config", str(finished), "--date", str(FIRST)]) == 1
    assert f"no page of the night of {FIRST}" in capsys.readouterr().err


def test_one_night_materializes_everything_with_metadata_and_checks(shop: Path) -> None:
    result = run_job(shop, LAST)
    assert result.success
    mats = {
        e.asset_key.to_user_string(): e.step_materialization_data.materialization
        for e in result.get_asset_materialization_events()
        if e.asset_key
    }
    assert len(mats) == 39
    for name, m in mats.items():
        assert "path" in m.metadata, name
        if not name.startswith("model_") and name != "reports":
            assert {"dagster/row_count", "sample"} <= set(m.metadata), name
    for name in ("std_interactions", "quarantine", "feat_items", "recommendations", "model_aligner"):
        assert "plot" in mats[name].metadata, name
    materialized = [e.step_materialization_data.materialization for e in result.get_asset_materialization_events()]
    days = {m.partition for m in materialized if m.asset_key == dg.AssetKey("std_interactions")}
    assert days == {str(FIRST + timedelta(days=n)) for n in range(DAYS)}, "earlier days that came along are recorded"
    checks = result.get_asset_check_evaluations()
    assert len(checks) > 40
    assert all(c.passed for c in checks)
    assert {"rows_accounted", "references_embedded", "lists_keep_their_word", "nothing_after_the_day"} <= {
        c.check_name for c in checks
    }


def test_a_broken_promise_blocks_what_comes_after(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.lake.promises import PROMISES

    lost = replace(PROMISES["ingest_files"][0], broken=lambda *night: ["one row is lost"])
    monkeypatch.setitem(PROMISES, "ingest_files", [lost])
    result = run_job(shop, LAST)
    assert not result.success
    assert not result.get_step_success_events() or all(
        e.step_key == "standardize" for e in result.get_step_success_events()
    )
    assert not lake_at(shop).days("emb_text")


def test_rows_in_are_rows_out_and_quarantined(finished: Path, shop_raw: Path) -> None:
    lake = lake_at(finished)
    day = FIRST + timedelta(days=3)  # the generator breaks rows on days 0 and 3
    ledger = {r["source"]: r for r in lake.read("ingest_files", day).to_pylist()}
    name = f"interactions/{day}.csv"
    lines = [line for line in (shop_raw / name).read_text().splitlines()[1:] if line]
    entry = ledger[name]
    assert entry["rows_in"] == len(lines)
    assert entry["rows_out"] + entry["rows_quarantined"] == len(lines)
    rejects = [r for r in lake.read("quarantine", day).to_pylist() if r["source"] == name]
    assert {r["reason"] for r in rejects} == {"duplicate", "bad_timestamp", "missing_user_id", "unbalanced_quote"}
    assert all(r["position"] > 1 and r["detail"] for r in rejects)
    items = ledger["items/catalogue.jsonl"]
    assert items["rows_in"] == items["rows_out"] + items["rows_superseded"] + items["rows_quarantined"]
    media = {(r["source"], r["reason"]) for r in lake.read("quarantine", day).to_pylist() if r["stage"] == "media"}
    assert {("media/torn.jpg", "undecodable_image"), ("media/note.png", "undecodable_image")} <= media
    assert ("items/catalogue.jsonl", "path_escapes_root") in media


def test_second_run_encodes_nothing_and_changes_no_byte(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent, tmp_path / "copy", symlinks=True)
    config = tmp_path / "copy" / finished.name
    before = parquet_bytes(lake_at(config).root)
    assert main(["run", "--config", str(config), "--date", str(LAST)]) == 0
    assert parquet_bytes(lake_at(config).root) == before
    for m in ("text", "image", "audio"):
        counters = lake_at(config).require(f"emb_{m}", LAST).counters
        assert counters["encoded"] == 0
        assert counters["needed"] > 0


def test_blocks_of_any_size_give_the_same_rows(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import fuse, score

    shutil.copytree(finished.parent, tmp_path / "copy", symlinks=True)
    config_file = tmp_path / "copy" / finished.name
    config_file.write_text(config_file.read_text() + "\n[compute]\nshard_rows = 7\n")
    lake, config = lake_at(config_file), load_config(config_file)
    before = {t: lake.read(t, LAST) for t in ("reco_candidates", "recommendations")}
    files = {t: lake.require(t, LAST).files for t in ("feat_items", "feat_users")}
    pieces, publish = [], Lake.publish

    def counted(lake: Lake, table: str, day: date, data: Iterable[pa.Table], **provenance: object) -> Manifest:
        rows = [data] if isinstance(data, pa.Table) else list(data)
        pieces.extend([] if isinstance(data, pa.Table) else [len(rows)])
        return publish(lake, table, day, rows, **provenance)

    monkeypatch.setattr(Lake, "publish", counted)
    list(fuse.fuse(config, lake, LAST))
    list(score.score(config, lake, LAST))
    assert len(pieces) == 4
    assert min(pieces) > 5, "many blocks, many pieces"
    for table, old in files.items():
        assert lake.require(table, LAST).files == old, f"{table}: the same bytes from blocks of seven"
    for table in ("reco_candidates", "recommendations"):  # a matrix product may differ in the last bit by block size
        after = lake.read(table, LAST)
        assert after.num_rows == before[table].num_rows
        assert np.allclose(after["score"], before[table]["score"], atol=1e-5)


def test_a_bad_day_is_stopped_and_the_last_lists_are_served_until_somebody_accepts_it(
    finished: Path, shop_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.lake import health

    monkeypatch.setattr(health, "DAYS_NEEDED", 3)  # the shop is five days old
    shutil.copytree(finished.parent, tmp_path / "copy", symlinks=True)
    shutil.copytree(shop_raw, tmp_path / "raw")
    config, bad = tmp_path / "copy" / finished.name, LAST + timedelta(days=1)
    config.write_text(config.read_text().replace(f'raw = "{shop_raw}"', f'raw = "{tmp_path / "raw"}"'))
    rows = "".join(f"U{n:04d},I0007,purchase,9.99,{bad}T10:{n % 60:02d}:00Z\n" for n in range(120))
    (tmp_path / "raw" / "interactions" / f"{bad}.csv").write_text("uid,item_id,event,amount,ts\n" + rows)
    capsys.readouterr()
    assert main(["run", "--config", str(config), "--date", str(bad)]) == 1
    error, lake = capsys.readouterr().err, lake_at(config)
    first = next(line for line in error.splitlines() if line.startswith("night"))
    assert first.startswith(f"night {bad} failed: check usual_"), error
    assert "check usual_top_item of night_health" in error
    assert f"the lists of {LAST} are served again" in error
    served, before = lake.read("recommendations", bad), lake.read("recommendations", LAST)
    same = [c for c in served.column_names if not c.startswith("carried")]
    assert served.select(same).equals(before.select(same))
    assert set(served["carried_from"].to_pylist()) == {LAST}
    assert all(why.startswith("check usual_") for why in served["carried_why"].to_pylist())
    assert lake.manifest("model_hybrid", bad) is None, "nothing is learned from it"
    assert lake.manifest("emb_text", bad) is None
    assert main(["accept", "--config", str(config), "--date", str(bad)]) == 0
    assert "accepted 2026-03-06: share of the events that are of one item 1" in capsys.readouterr().out
    assert set(lake.read("recommendations", bad)["carried_from"].to_pylist()) == {None}
    assert main(["accept", "--config", str(config), "--date", str(LAST)]) == 1
    assert "nothing to accept" in capsys.readouterr().err


def test_an_experiment_splits_lists_and_is_read_out_the_night_after(
    shop_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = [LAST - timedelta(days=n) for n in (2, 1, 0)]
    extra = 'models = ["popularity", "item_cf"]\nserve = "popularity"\n'
    config = write_config(tmp_path, {}, extra, raw=shop_raw)
    trial = f"""
        [experiments.simple]
        arms = {{ popular = {{}}, similar = {{ serve = "item_cf" }} }}
        metric = "reactions"
        start = {nights[0]}
    """
    config.write_text("encoders = {}\n" + config.read_text() + trial)
    assert main(["backfill", "--config", str(config), "--from", str(nights[0]), "--to", str(LAST)]) == 0
    lake = lake_at(config)
    served = lake.read("recommendations", nights[0]).to_pylist()
    models = {(r["arm"], r["model"]) for r in served if not r["user_id"].startswith("*")}
    assert models == {("simple=popular", "popularity"), ("simple=similar", "item_cf")}
    assert {r["arm"] for r in served if r["user_id"].startswith("*")} == {"default"}
    assert lake.read("eval_experiments", nights[0])["days"].to_pylist() == [0, 0]
    rows = lake.read("eval_experiments", LAST).to_pylist()
    assert [(r["arm"], r["days"], r["decision"]) for r in rows] == [
        ("popular", 2, "continue"),
        ("similar", 2, "continue"),
    ]
    came = pa.concat_tables(lake.read("feedback", d) for d in nights[1:])
    for row in rows:
        users = {
            r["user_id"]
            for r in lake.read("recommendations", nights[1]).to_pylist()
            if r["arm"] == f"simple={row['arm']}"
        }
        mine = [r["reactions"] for r in came.to_pylist() if r["arm"] == f"simple={row['arm']}"]
        assert mine
        assert row["users"] == len(users)
        assert row["mean"] == pytest.approx(sum(mine) / len(users) / 2)
    assert "eval_offpolicy" not in {p.name for p in lake.root.iterdir()}, "what is off does not exist"
    config.write_text(config.read_text() + '[recommend.explore]\nkind = "thompson"\nshare = 0.1\npool = 10\n')
    assert main(["run", "--config", str(config), "--date", str(LAST)]) == 0
    lists = [r for r in lake.read("recommendations", LAST).to_pylist() if not r["user_id"].startswith("*")]
    assert {r["reason_code"] == "explored" for r in lists if r["propensity"] is not None} == {True}
    drawn = [r for r in lists if r["propensity"] is not None]
    assert len(drawn) == 2 * len({r["user_id"] for r in lists}), "two of twenty places"
    assert all(0 < r["propensity"] <= 1 and r["rank"] > 18 for r in drawn)
    assert lake.rows("eval_offpolicy", LAST) == 0, "nothing was drawn for the nights before"
    capsys.readouterr()
    assert main(["power", "--config", str(config), "--date", str(LAST), "--experiment", "simple"]) == 0
    assert "reactions: 0." in capsys.readouterr().out
    assert main(["power", "--config", str(config), "--date", str(LAST), "--experiment", "other"]) == 2
    assert "there are: simple" in capsys.readouterr().err


def test_nights_in_any_order_give_the_same_features(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "nightloom.toml"
    config.write_text(finished.read_text())
    for day in (LAST, LAST - timedelta(days=1)):  # backwards, from nothing
        assert main(["run", "--config", str(config), "--date", str(day)]) == 0
    for table in (
        "std_items",
        "std_interactions",
        "feat_items",
        "feat_users",
        "recommendations",
        "model_aligner",
        "model_hybrid",
    ):
        a, b = (lake_at(c).require(table, LAST - timedelta(days=1)).content_digest for c in (config, finished))
        assert a == b, table


def test_nothing_for_a_day_reads_the_future(finished: Path, shop_raw: Path, tmp_path: Path) -> None:
    shutil.copytree(shop_raw, tmp_path / "raw")
    future = LAST + timedelta(days=1)
    with (tmp_path / "raw" / "interactions" / f"{LAST}.csv").open("a") as f:
        f.write(f"U0001,I0001,purchase,9.99,{future}T00:00:00Z\n")
    (tmp_path / "raw" / "interactions" / f"{future}.csv").write_text(
        f"uid,item_id,event,amount,ts\nU0002,I0003,view,,{future}T10:00:00Z\nbroken\n"
    )
    write_jsonl(
        tmp_path / "raw" / "items" / f"{future}.jsonl",
        [{"item_id": "I0001", "name": "renamed later"}, {"item_id": "I9999", "name": "new"}],
    )
    write_jsonl(
        tmp_path / "raw" / "user_content" / "more.jsonl",
        [{"user_id": "U0001", "text": "later", "created_at": f"{future}T01:00:00Z"}],
    )
    config = tmp_path / "nightloom.toml"
    config.write_text(finished.read_text().replace(f'raw = "{shop_raw}"', 'raw = "raw"'))
    first = LAST - timedelta(days=2)
    assert main(["backfill", "--config", str(config), "--from", str(first), "--to", str(LAST)]) == 0
    mine, theirs = (parquet_bytes(lake_at(c).root) for c in (config, finished))
    assert mine == theirs


def test_one_percent_new_items_encode_one_percent(shop: Path, shop_raw: Path, tmp_path: Path) -> None:
    shutil.copytree(shop_raw, tmp_path / "raw")
    shop.write_text(shop.read_text().replace(str(shop_raw), "raw"))
    rows = [{"item_id": f"B{i:03d}", "name": f"bulk item {i}", "created_at": f"{FIRST}T00:00:00Z"} for i in range(400)]
    write_jsonl(tmp_path / "raw" / "items" / "bulk.jsonl", rows)
    before = LAST - timedelta(days=1)
    assert main(["run", "--config", str(shop), "--date", str(before)]) == 0
    write_jsonl(
        tmp_path / "raw" / "items" / "late.jsonl",
        [{"item_id": f"L{i}", "name": f"late {i}", "created_at": f"{LAST}T01:00:00Z"} for i in range(4)],
    )
    shutil.move(tmp_path / "raw" / "items" / "bulk.jsonl", tmp_path / "raw" / "items" / "renamed.jsonl")
    items = (tmp_path / "raw" / "items" / "catalogue.jsonl").read_text().splitlines()
    old_new = sum(f"{LAST}T" in line for line in items)
    assert main(["run", "--config", str(shop), "--date", str(LAST)]) == 0
    counters = lake_at(shop).require("emb_text", LAST).counters
    uploads = lake_at(shop).read("std_user_content", LAST)
    fresh_uploads = sum(u["modality"] == "text" and u["created_at"].date() == LAST for u in uploads.to_pylist())
    assert 4 <= counters["encoded"] <= 4 + old_new + fresh_uploads
    assert counters["earlier"] > 400


@pytest.mark.parametrize("killed_after", ["std_items", "emb_image", "feat_users"])
def test_kill_and_run_again_gives_the_same_tables(
    finished: Path, shop_raw: Path, tmp_path: Path, killed_after: str
) -> None:
    config = tmp_path / "nightloom.toml"
    config.write_text(finished.read_text())
    command = [
        sys.executable,
        "-m",
        "assets.cli",
        "run",
        "--config",
        str(config),
        "--date",
        str(LAST - timedelta(days=2)),
    ]
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and not lake_at(config).days(killed_after) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in lake_at(config).root.rglob("part-*.parquet"):
        if "/." not in str(path.relative_to(config.parent)):
            pq.ParquetFile(path, page_checksum_verification=True).read()
    assert main(["run", "--config", str(config), "--date", str(LAST - timedelta(days=2))]) == 0
    mine, theirs = (parquet_bytes(lake_at(c).root) for c in (config, finished))
    same_day = {
        k: v
        for k, v in theirs.items()
        if f"date={LAST - timedelta(days=2)}" in k or "std_interactions" in k and k in mine
    }
    assert {k: v for k, v in mine.items() if k in same_day} == same_day
    assert not list(lake_at(config).root.glob(".staging-*"))


def test_late_events_are_added_to_their_day(shop: Path, shop_raw: Path, tmp_path: Path) -> None:
    shutil.copytree(shop_raw, tmp_path / "raw")
    shop.write_text(shop.read_text().replace(str(shop_raw), "raw"))
    early = FIRST + timedelta(days=1)
    assert main(["run", "--config", str(shop), "--date", str(early)]) == 0
    rows = lake_at(shop).require("std_interactions", early).rows
    (tmp_path / "raw" / "interactions" / "late.csv").write_text(
        f"uid,item_id,event,amount,ts\nU0001,I0001,share,,{early}T10:00:00Z\n"
    )
    assert main(["run", "--config", str(shop), "--date", str(early + timedelta(days=1))]) == 0
    assert lake_at(shop).require("std_interactions", early).rows == rows + 1


def test_everyone_is_served(finished: Path) -> None:
    lake = lake_at(finished)
    rows = lake.read("recommendations", LAST).to_pylist()
    users = {r["user_id"] for r in rows}
    assert "*" in users
    newcomers = {u for u in users if u.startswith("N")}
    assert newcomers, "users with uploads and no events"
    assert {r["reason_code"] for r in rows if r["user_id"] in newcomers} == {"similar_to_uploads"}
    seen = {
        r["item_id"] for d in lake.days("std_interactions", LAST) for r in lake.read("std_interactions", d).to_pylist()
    }
    assert any(r["item_id"] not in seen for r in rows), "items without interactions are recommended too"
    assert {"similar_to_history", "popular"} <= {r["reason_code"] for r in rows}


def test_reasons_name_the_modality_that_attention_and_likeness_speak_for(finished: Path) -> None:
    lake = lake_at(finished)
    items = {r["item_id"]: r for r in lake.read("feat_items", LAST).to_pylist()}
    explained = [r for r in lake.read("recommendations", LAST).to_pylist() if r["reason_code"] == "similar_to_history"]
    assert explained
    told_apart = 0
    for row in explained:
        new, old = items[row["item_id"]], items[row["reason_item_ids"][0]]
        both = [m for m in ("text", "image", "audio", "video") if new[f"has_{m}"] and old[f"has_{m}"]]
        if not both:
            assert row["reason_modality"] is None
            continue
        alike = {m: float(np.dot(new[f"vector_{m}"], old[f"vector_{m}"])) for m in both}
        carries = {m: new[f"attention_{m}"] * alike[m] for m in both}
        assert carries[row["reason_modality"]] == pytest.approx(max(carries.values()), abs=1e-6)
        assert row["reason_attention"] == new[f"attention_{row['reason_modality']}"]
        told_apart += max(alike, key=alike.__getitem__) != row["reason_modality"]
    assert told_apart, "attention decides somewhere against likeness alone"


def test_search_by_command_serves_the_nights_after_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.lake.cards import chosen_settings, load_card

    config = tmp_path / "nightloom.toml"
    config.write_text(finished.read_text())
    assert main(["search", "--config", str(config), "--date", str(LAST)]) == 1
    assert "run the night first" in capsys.readouterr().err
    assert main(["run", "--config", str(config), "--date", str(LAST)]) == 0
    assert main(["search", "--config", str(config), "--date", str(LAST)]) == 0
    printed = capsys.readouterr().out
    lake = lake_at(config)
    card = load_card(lake, "settings", LAST)
    assert card["searched_on"] == str(LAST)
    assert set(card["tried"]) == {"user_cf", "item_cf", "ease", "als", "graph", "sequential"}
    for name, trials in card["tried"].items():
        assert len(trials) == 1 + len(classes()[name].grid)
        assert f"* {name}" in printed
    settings = chosen_settings(lake, LAST)
    assert main(["run", "--config", str(config), "--date", str(LAST)]) == 0
    for name, chosen in settings.items():
        assert load_card(lake, name, LAST)["settings"] == chosen


def test_weekly_search_is_a_step_of_the_night(shop: Path) -> None:
    from pipelines.lake.cards import load_card

    shop.write_text(
        shop.read_text().replace("[recommend]", '[recommend]\nsearch_days = 7\nmodels = ["ease", "hybrid"]')
    )
    for day in (LAST - timedelta(days=1), LAST):
        result = run_job(shop, day)
        assert result.success
    lake = lake_at(shop)
    assert load_card(lake, "settings", LAST)["searched_on"] == str(LAST - timedelta(days=1)), "carried on"
    mats = {m.asset_key.to_user_string(): m for m in result.get_asset_materialization_events() if m.asset_key}
    assert {"model_settings", "model_ease", "model_hybrid"} <= set(mats)
    assert "model_graph" not in mats
    assert "plot" in mats["model_settings"].step_materialization_data.materialization.metadata
    models = set(lake.read("reco_candidates", LAST)["model"].to_pylist())
    assert models == {"ease", "hybrid"}


def test_other_engines_read_the_tables(finished: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    lake = lake_at(finished)
    rows = sum(lake.require("feat_items", d).rows for d in lake.days("feat_items"))
    glob = f"{lake.root}/feat_items/*/*.parquet"
    assert len(pd.read_parquet(lake.root / "feat_items")) == rows
    assert pl.read_parquet(glob).height == rows
    with duckdb.connect() as con:
        assert con.execute(f"SELECT count(*), count(DISTINCT date) FROM '{glob}'").fetchall() == [(rows, 3)]
    frame = pd.read_parquet(lake.root / "recommendations")
    assert {"user_id", "rank", "item_id", "score", "model", "reason_code", "date"} <= set(frame.columns)


@pytest.mark.data
def test_real_users_items_and_posters(tmp_path: Path, tiny_models: dict[str, Path], day: Callable[[int], date]) -> None:
    raw = real_data("ml100k_posters")
    config = tmp_path / "nightloom.toml"
    text = (REPO / "examples" / "ml100k_posters.toml").read_text()
    text = text.replace("../data/raw/ml100k_posters", str(raw)).replace("../data/ml100k", "data")
    small = "".join(f'\n[encoders.{m}]\nmodel = "{tiny_models[m]}"' for m in ("text", "image"))
    small += "\n[aligner]\nsteps = 10\ndim = 16\n"
    config.write_text(text.split("[encoders")[0] + small)
    assert main(["backfill", "--config", str(config), "--from", "1998-04-20", "--to", "1998-04-21"]) == 0
    lake = lake_at(config)
    assert sum(lake.require("std_interactions", d).rows for d in lake.days("std_interactions")) == 99_464
    assert lake.require("std_items", date(1998, 4, 21)).rows == 1682
    assert lake.rows("quarantine", date(1998, 4, 21)) == 0
    assert lake.require("recommendations", date(1998, 4, 21)).rows == 20 * 941
    card = json.loads((lake.folder("model_hybrid", date(1998, 4, 21)) / "card.json").read_text())
    found = card["validation"]["warm"]["ndcg"]
    assert found.pop("blend") > max(found.values()), "the blend beats every part on real users"


def test_a_shop_with_interactions_only_runs_all_that_needs_no_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    rows = [f"u{n % 9},i{(n * n) % 13},rating,{1 + n % 5},2026-03-0{1 + n % 3}T{n % 24:02d}:00:00Z" for n in range(200)]
    (tmp_path / "raw" / "log.csv").write_text("user_id,item_id,event,value,event_at\n" + "\n".join(rows) + "\n")
    config = tmp_path / "c.toml"
    config.write_text(
        "start_date = 2026-03-01\nencoders = {}\n[paths]\nraw = 'raw'\ndata = 'data'\n"
        "[interactions]\npath = 'log.csv'\n[recommend]\nk = 3\n"
    )
    assert main(["backfill", "--config", str(config), "--from", "2026-03-02", "--to", "2026-03-03"]) == 0
    lake = lake_at(config)
    served = lake.read("recommendations", date(2026, 3, 3)).to_pylist()
    assert {r["model"] for r in served} == {"hybrid"}
    assert {r["reason_modality"] for r in served} == {None}
    judged = {r["model"] for r in lake.read("eval_offline", date(2026, 3, 3)).to_pylist()}
    assert judged == {
        "popularity", "user_cf", "item_cf", "ease", "als", "graph", "lightgcn", "sequential", "hybrid",
    }  # fmt: skip
    assert not [t for t in ("feat_items", "emb_text", "model_aligner") if lake.days(t)]
    shown = capsys.readouterr().out
    assert "night 2026-03-03" in shown
    assert "events of later days       66 wait for their nights" in shown, "of the night before"
    assert "NDCG@" in shown
