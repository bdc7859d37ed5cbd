"""Views are made once, and change the aligner alone."""

from datetime import date
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.sections import Augment
from tests.shop import FIRST, parquet_bytes, write_config

pytestmark = pytest.mark.slow


@pytest.fixture
def night(tmp_path: Path, shop_raw: Path, tiny_models: dict[str, Path]) -> tuple[Path, Lake]:
    from pipelines.standardize import standardize

    models = {"text": str(tiny_models["text"]), "image": str(tiny_models["image"]), "audio": "mfcc"}
    path = write_config(tmp_path, models, "[augment]\nviews = 2", raw=shop_raw)
    config = load_config(path)
    lake = Lake(config.paths.data / "lake")
    list(standardize(config, lake, FIRST))
    return path, lake


def test_views_are_made_once_and_change_the_aligner_alone(night: tuple[Path, Lake]) -> None:
    from pipelines.align import align
    from pipelines.augment import augment, examples
    from pipelines.embed import embed

    config, lake, day = load_config(night[0]), night[1], FIRST
    for m in config.encoders:
        list(embed(config, lake, day, m))
    _, first = augment(config, lake, day)
    assert first.counters["encoded"] + first.counters["failed"] == first.counters["needed"] > 0
    before = parquet_bytes(lake.root / "aug_views")
    _, again = augment(config, lake, day)
    assert (again.counters["encoded"], again.counters["copied"]) == (0, first.rows)
    assert parquet_bytes(lake.root / "aug_views") == before
    rows = lake.read("aug_views", day)
    assert set(rows["modality"].to_pylist()) == {"text", "image", "audio"}
    by_view = rows.group_by(["modality", "view"]).aggregate([("content_sha256", "count")])
    assert by_view.num_rows == 6
    (with_views,) = align(config, lake, day)
    plain = config.model_copy(update={"augment": Augment()})
    (without,) = align(plain, lake, day)
    assert without.content_digest != with_views.content_digest
    kinds = {e.modality: e for e in examples(config, lake, day)}
    assert set(kinds) == {"text", "image", "audio"}
    assert all(len(e.after) == 3 for e in kinds.values())


def test_a_night_shows_its_gallery(night: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    from assets.definitions import build_defs

    job = build_defs(night[0]).resolve_job_def("nightly")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(partition_key=date.isoformat(FIRST), instance=instance)
        assert done.success
        made = next(e for e in done.get_asset_materialization_events() if e.asset_key == dg.AssetKey("aug_views"))
        metadata = made.materialization.metadata
        assert "data:image/png;base64," in str(metadata["plot"].value)
        assert "\n  - " in str(metadata["texts_before_and_after"].value)
        seen = instance.fetch_observations(dg.AssetKey("emb_text"), limit=10).records
        assert seen, "progress is observed while the step runs"
        numbers = seen[0].asset_observation.metadata  # type: ignore[union-attr]
        assert {"done", "total", "items_per_second", "seconds_left", "share_reused"} <= set(numbers)
