"""The encoder is trained when due, and re-embeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.lake.storage import Lake
from tests.shop import FIRST, write_config

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", ["co_consumption", "labels"])
def test_a_night_trains_when_due_and_reembeds(task: str, tmp_path: Path, shop_raw: Path, model: Path) -> None:
    from datetime import timedelta

    from pipelines.embed import embed
    from pipelines.finetune import finetune as train
    from pipelines.standardize import standardize

    extra = (
        f'[finetune]\nenabled = true\ntask = "{task}"\nevery_days = 2\nepochs = 1\nexamples = 32\nmethod = "full"\n'
        "learning_rate = 0.001"
    )
    config = load_config(write_config(tmp_path, {"text": str(model)}, extra, raw=shop_raw))
    lake, days = Lake(config.paths.data / "lake"), [FIRST + timedelta(days=n) for n in range(2, 5)]
    digests = []
    for day in days:
        list(standardize(config, lake, day))
        (manifest,) = train(config, lake, day)
        trained = "encoder/model.safetensors" in manifest.files
        assert (
            trained or day == days[1] or "best_epoch" in (lake.folder("model_finetuned", day) / "card.json").read_text()
        )
        digests.append(list(embed(config, lake, day, "text"))[-1].config_digest)
    assert "encoder/model.safetensors" not in lake.require("model_finetuned", days[1]).files, "not due"
    assert digests[0] == digests[1], "a night between goes on with the last result"
    before = lake.require("model_finetuned", days[0])
    (again,) = train(config, lake, days[0])
    assert again.content_digest == before.content_digest, "the same bytes again"
    plain = config.model_copy(update={"finetune": replace(config.finetune, enabled=False)})
    assert list(embed(plain, lake, days[0], "text"))[-1].config_digest != digests[0] or not before.files.keys() - {
        "card.json"
    }


def test_the_asset_is_there_when_enabled(tmp_path: Path, shop_raw: Path, model: Path) -> None:
    import dagster as dg

    from assets.definitions import build_defs

    extra = "[finetune]\nenabled = true\nepochs = 1\nexamples = 16"
    job = build_defs(write_config(tmp_path, {"text": str(model)}, extra, raw=shop_raw)).resolve_job_def("nightly")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(partition_key=FIRST.isoformat(), instance=instance)
        assert done.success
        events = done.get_asset_materialization_events()
        metadata = next(e for e in events if e.asset_key == dg.AssetKey("model_finetuned")).materialization.metadata
    assert {"card", "plot", "frozen_share", "trained_parameters", "recall_at_20_before"} <= set(metadata)
