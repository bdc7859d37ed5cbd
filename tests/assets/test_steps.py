"""Assets derive from the lists: a recommender is a class and a row, a table is its schema and its stage."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets import steps
from assets.definitions import build_defs
from assets.steps import Step
from pipelines import train
from pipelines.beyond import Federate, Graph, Privacy
from pipelines.config import Config, load_config
from pipelines.lake.models import models
from pipelines.lake.schemas import Column, Table
from pipelines.lake.tables import TABLES
from pipelines.recommenders.registry import RECOMMENDERS, Entry
from pipelines.sections import Arm, Dials, Experiment, Explore, External, Team
from tests import toy
from tests.nights import lake_at, nightly, run_job
from tests.shop import FIRST, write_config


def graph_of(config: Path) -> Any:
    return build_defs(config).resolve_asset_graph()


def keys(config: Path) -> set[str]:
    return {k.to_user_string() for k in graph_of(config).get_all_asset_keys()}


def parents(config: Path, name: str) -> set[str]:
    return {k.to_user_string() for k in graph_of(config).get(dg.AssetKey(name)).parent_keys}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (Column("name", pa.string(), "what is counted"), Column("n", pa.int64(), "how many"))
    table = Table("item_counts", "Counts.", ("name",), columns, stage="toy", group="data", parents=("std_items",))
    monkeypatch.setitem(RECOMMENDERS, "alphabet", Entry("alphabet", "By name.", "tests.toy:Alphabet"))
    monkeypatch.setitem(TABLES, "item_counts", table)
    own = steps.steps
    monkeypatch.setattr(steps, "steps", lambda config: [*own(config), Step("toy", toy.count, ("item_counts",))])


@pytest.mark.slow
@pytest.mark.usefixtures("toys")
def test_a_recommender_and_a_table_are_a_row_each(shop: Path) -> None:
    shop.write_text(
        shop.read_text().replace("k = 20", 'k = 20\nmodels = ["popularity", "alphabet"]\nserve = "alphabet"')
    )
    assert {"model_alphabet", "item_counts"} <= keys(shop)
    assert parents(shop, "item_counts") == {"std_items"}
    assert parents(shop, "reco_candidates") == {"model_popularity", "model_alphabet"}
    assert "alphabet" in RECOMMENDERS
    assert load_config(shop).recommend.serve == "alphabet"
    result = run_job(shop, FIRST)
    assert result.success
    lake = lake_at(shop)
    assert lake.read("item_counts", FIRST)["n"].to_pylist() == [lake.require("std_items", FIRST).rows]
    first = lake.read("std_items", FIRST, ["item_id"])["item_id"][0].as_py()
    assert first in lake.read("recommendations", FIRST)["item_id"].to_pylist()
    checks = {(c.asset_key.to_user_string(), c.check_name) for c in result.get_asset_check_evaluations()}
    assert ("item_counts", "keys_unique") in checks


def test_every_table_and_model_has_a_step_a_group_and_parents(tmp_path: Path) -> None:
    path = write_config(tmp_path, {m: "mfcc" for m in ("audio",)}, "search_days = 7\n[augment]\nviews = 1\n")
    config = load_config(path)
    every = replace_all(config)
    made = [n for s in steps.steps(every) for n in s.makes]
    assert sorted(made) == sorted({**TABLES, **models()})
    assert len(set(made)) == len(made)
    assert all(t.group and t.parents and t.stage for t in TABLES.values())
    assert all(m.group and m.parents and m.stage for m in models().values())


def replace_all(config: Config) -> Config:
    """The configuration with everything on that is off by default, and all modalities."""
    from encoders.modalities import KINDS
    from encoders.settings import ModelChoice

    encoders = {k.name: ModelChoice(k.default_encoder) for k in KINDS.values()}
    trial = Experiment(arms={"a": Arm(), "b": Arm()}, start=config.start_date)
    more = {"explore": Explore(), "dials": Dials(), "team": Team(), "external": {"a": External(path="a")}}
    more |= {"pool_domains": True, "models": (*config.recommend.models, "domains")}
    recommend = config.recommend.model_copy(update=more)
    on = {"finetune": replace(config.finetune, enabled=True), "encoders": encoders, "experiments": {"x": trial}}
    site = Federate(role="site", name="a", sites=("a", "b"), exchange="e")
    on |= {"graphs": {"a": Graph(triples="a")}, "federate": site, "privacy": Privacy(epsilon=1)}
    on |= {"items": config.items.model_copy(update={"fill": ("tags",)})}
    return config.model_copy(update=on | {"recommend": recommend, "tracking": ("tensorboard",)})


def made_alone(config: Path, names: list[str]) -> dg.ExecuteInProcessResult:
    """Some assets of the first night made again through Dagster, as by selecting them in the UI."""
    job = build_defs(config).resolve_job_def("nightly")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            partition_key=str(FIRST),
            instance=instance,
            raise_on_error=False,
            run_config=quiet,
            asset_selection=[dg.AssetKey(n) for n in names],
        )


@pytest.mark.slow
def test_one_model_or_one_table_is_made_again_alone(shop: Path) -> None:
    """Other models keep their files; a stage writes its other tables too, to the same bytes."""
    shop.write_text(shop.read_text().replace("k = 20", 'k = 20\nmodels = ["popularity", "item_cf", "hybrid"]'))
    first = run_job(shop, FIRST)
    assert first.success
    health = [c for c in first.get_asset_check_evaluations() if c.asset_key == dg.AssetKey("night_health")]
    assert {c.partition for c in health} == {str(FIRST)}, "a result a night"
    lake = lake_at(shop)
    events = next(r for r in lake.read("night_health", FIRST).to_pylist() if r["number"] == "events")
    assert {c.check_name: c for c in health}["usual_events"].metadata["value"].value == events["value"]
    tables = ("model_popularity", "model_item_cf", "model_hybrid", "std_items", "std_users")
    before = {t: lake.require(t, FIRST) for t in tables}
    stamps = {t: (lake.folder(t, FIRST) / "_SUCCESS").stat().st_mtime_ns for t in before}
    for name, checks in (("model_item_cf", 0), ("model_hybrid", 0), ("std_items", 1)):
        result = made_alone(shop, [name])
        assert result.success, name
        made = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
        assert made == {name}
        checked = {c.asset_key.to_user_string() for c in result.get_asset_check_evaluations()}
        assert checked == ({name} if checks else set())
    for table, manifest in before.items():
        assert lake.require(table, FIRST).files == manifest.files, table
    again = {t for t in before if (lake.folder(t, FIRST) / "_SUCCESS").stat().st_mtime_ns != stamps[t]}
    assert again == {"model_item_cf", "model_hybrid", "std_items", "std_users"}, "popularity was left alone"


def test_a_step_that_writes_less_than_it_was_asked_for_fails(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = steps.steps

    def lazy(config: Config) -> list[Step]:
        return [replace(s, run=lambda *_: iter(())) if s.name == "standardize" else s for s in own(config)]

    monkeypatch.setattr(steps, "steps", lazy)
    result = made_alone(shop, ["std_items"])
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert failure.step_failure_data.error is not None
    assert "step standardize has not written std_items" in failure.step_failure_data.error.message


def test_lists_of_a_living_shop_have_to_be_fresh_and_a_job_makes_a_step(shop: Path) -> None:
    def fresh() -> set[str]:
        specs = [s for a in build_defs(shop).assets or [] if isinstance(a, dg.AssetsDefinition) for s in a.specs]
        return {s.key.to_user_string() for s in specs if s.freshness_policy}

    assert fresh() == {"recommendations"}
    assert (graph_of(shop).get(dg.AssetKey("model_aligner")).description or "").endswith(
        "Configured: gated, 16 dimensions."
    )
    job = build_defs(shop).resolve_job_def("only_train")
    assert {k.to_user_string() for k in job.asset_layer.selected_asset_keys} >= {"model_ease", "model_hybrid"}
    assert all(k.to_user_string().startswith("model_") for k in job.asset_layer.selected_asset_keys)
    shop.write_text(f"end_date = {FIRST}\n" + shop.read_text())
    assert fresh() == set(), "what is finished does not grow old"


def test_what_depends_on_what_was_made_again_is_made_again_where_that_is_switched_on(shop: Path) -> None:
    """A night is whole; then model_ease alone is made anew: its lists follow, and nothing before it."""
    last = FIRST + timedelta(days=1)
    shop.write_text(f"end_date = {last}\n" + shop.read_text())
    defs = build_defs(shop)
    names = [s.key for a in defs.assets or [] if isinstance(a, dg.AssetsDefinition) for s in a.specs]
    with dg.DagsterInstance.ephemeral() as instance:

        def made(keys: list[dg.AssetKey]) -> None:
            for key in keys:
                for day in (FIRST, last):
                    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=str(day)))

        def asked(cursor: Any) -> tuple[set[str], Any]:
            found = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            every = {k.to_user_string() for k in names if found.get_num_requested(k)}
            return every, found.cursor

        made(names)
        first, cursor = asked(None)
        assert first == set(), "what a night has made is whole"
        made([dg.AssetKey("model_ease")])
        again, _ = asked(cursor)
    assert {"reco_candidates", "recommendations"} & again
    assert not again & {"std_items", "std_interactions", "night_health", "emb_text", "feat_items", "model_ease"}


def test_what_is_off_is_no_parent(shop: Path) -> None:
    assert parents(shop, "emb_text") == {"std_items", "std_user_content", "night_health"}
    assert parents(shop, "emb_image") == {"std_items", "std_media", "night_health"}
    assert parents(shop, "model_aligner") == {"emb_text", "emb_image", "emb_audio", "std_interactions"}
    assert parents(shop, "model_ease") == {"feat_items", "feat_users", "night_health"}, (
        "nothing is learned from a bad day"
    )
    assert parents(shop, "quarantine") == {
        "std_interactions", "std_items", "std_user_content", "std_users", "std_controls", "std_media",
    }  # fmt: skip
    shop.write_text(shop.read_text() + "\n[finetune]\nenabled = true\n[augment]\nviews = 1\n")
    assert parents(shop, "emb_text") == {"std_items", "std_user_content", "model_finetuned", "night_health"}
    assert "aug_views" in parents(shop, "model_aligner")


def test_lists_are_judged_a_day_later(shop: Path) -> None:
    made = [a for a in build_defs(shop).assets or [] if isinstance(a, dg.AssetsDefinition)]
    spec = next(s for a in made for s in a.specs if s.key == dg.AssetKey("eval_offline"))
    mapping = {d.asset_key.to_user_string(): d.partition_mapping for d in spec.deps}
    assert mapping["std_interactions"] is None
    assert (mapping["reco_candidates"].start_offset, mapping["reco_candidates"].end_offset) == (-1, -1)  # type: ignore[union-attr]


def test_device_steps_take_turns(shop: Path) -> None:
    on_device = {s.name for s in steps.steps(load_config(shop)) if s.on_device}
    assert on_device == {"embed_text", "embed_image", "embed_audio", "align", "fuse"}
    pools = {
        a.op.pool
        for a in build_defs(shop).assets or []
        if isinstance(a, dg.AssetsDefinition) and a.op.name in on_device
    }
    assert pools == {"device"}


@pytest.mark.slow
def test_the_retry_of_a_failed_night_runs_only_what_failed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training fails once; a re-execution from failure begins there, as the UI's does."""
    monkeypatch.setenv("NIGHTLOOM_CONFIG", str(shop))
    own, failed = train.train, list[int]()

    def once(*args: Any, **more: Any) -> Iterator[Any]:
        if not failed:
            failed.append(1)
            raise RuntimeError("the power went out")
        yield from own(*args, **more)

    monkeypatch.setattr(train, "train", once)
    job = dg.reconstructable(nightly)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    (shop.parent / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(shop.parent / "dagster")) as instance:
        tags = {"dagster/partition": str(FIRST)}
        first = dg.execute_job(job, instance, run_config=quiet, tags=tags)
        assert not first.success
        places = {t: lake_at(shop).folder(t, FIRST) / "_SUCCESS" for t in ("std_items", "feat_items")}
        made = {t: place.stat().st_mtime_ns for t, place in places.items()}
        how = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        again = dg.execute_job(job, instance, run_config=quiet, tags=tags, reexecution_options=how)
        assert again.success
        steps_run = {e.step_key for e in again.all_events if e.is_step_success}
    assert {"train", "score", "report"} <= steps_run
    assert not {"standardize", "monitor", "align", "fuse", "embed_text"} & steps_run, steps_run
    assert {t: place.stat().st_mtime_ns for t, place in places.items()} == made
