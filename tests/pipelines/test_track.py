"""What trackers are told is what was measured, read back by their own readers."""

import json
import subprocess
import sys
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Config, ConfigError, load_config
from pipelines.lake.cards import files_of_model
from pipelines.lake.storage import Lake
from pipelines.track import Point, points_of, track
from pipelines.verify import verify
from tests.lakes import DAY, config_of, rows_of
from tests.shop import REPO

CARD: dict[str, Any] = {
    "curve": [
        {"step": 0, "cross_modal": 2.5, "interaction": 3.0},
        {"step": 20, "cross_modal": 1.25, "interaction": 2.0},
    ],
    "retrieval": {"text_to_image": {"recall_at_10": 0.75, "items": 8, "chance": 0.5}},
    "steps": 21,
}
NIGHT = 9  # DAY is so many days after the first


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Config, Lake]:
    """A night with an aligner, a search, a fine-tuning, accuracy and an experiment."""
    lake = Lake(tmp_path)
    history = {"history": [{"epoch": 0, "validation": 0.5}, {"epoch": 1, "train_loss": 0.25, "validation": 0.625}]}
    tried = {"tried": {"ease": [{"ndcg": 0.125, "l2": 10.0}, {"ndcg": 0.25, "l2": 20.0}]}}
    for name, card in (("aligner", CARD), ("finetuned", history), ("settings", tried)):
        lake.publish_files(f"model_{name}", DAY, files_of_model({"x": np.zeros(1)}, card))
    of = {"model": "ease", "metric": "ndcg", "k": 20, "n_users": 3}
    rows = [of | {"slice": "all", "value": 0.375}, of | {"slice": "user_cold", "value": 0.5}]
    lake.publish("eval_offline", DAY, rows_of("eval_offline", rows))
    arm = {"experiment": "lists", "metric": "clicked", "users": 1, "days": 1, "decision": "continue", "served_arm": "a"}
    arm |= {"reason": "r", "decided_on": DAY, "variance_removed": 0.0, "sample_ratio_p": 1.0}
    arms = [arm | {"arm": "a", "mean": 0.5}, arm | {"arm": "b", "mean": 1.0, "effect": 0.5, "low": 0.25, "high": 0.75}]
    lake.publish("eval_experiments", DAY, rows_of("eval_experiments", arms))
    return config_of(tmp_path, tracking=("tensorboard",)), lake


def expected() -> list[Point]:
    points = [Point(f"aligner/{n}", p["step"], p[n]) for p in CARD["curve"] for n in ("cross_modal", "interaction")]
    points += [
        Point(f"aligner/text_to_image/{n}", 21, v) for n, v in (("recall_at_10", 0.75), ("items", 8), ("chance", 0.5))
    ]
    points += [
        Point("finetune/validation", 0, 0.5),
        Point("finetune/validation", 1, 0.625),
        Point("finetune/train_loss", 1, 0.25),
    ]
    points += [
        Point("search/ease/ndcg", 0, 0.125),
        Point("search/ease/ndcg", 1, 0.25),
        Point("nights/ease/ndcg_at_20", NIGHT, 0.375),
    ]
    name = "experiments/lists"
    points += [Point(f"{name}/a/clicked/mean", NIGHT, 0.5), Point(f"{name}/b/clicked/mean", NIGHT, 1.0)]
    points += [Point(f"{name}/b/clicked/{n}", NIGHT, v) for n, v in (("effect", 0.5), ("low", 0.25), ("high", 0.75))]
    return sorted(points, key=lambda p: (p.name, p.step))


def test_all_that_was_measured_is_told(measured: tuple[Config, Lake]) -> None:
    config, lake = measured
    assert points_of(config, lake, DAY) == expected()
    assert points_of(config, lake, DAY + timedelta(days=1)) == []


def test_event_files_of_tensorboard_hold_the_card(measured: tuple[Config, Lake]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, lake = measured
    for _ in range(2):  # a night that is run again replaces what it has told
        list(track(config, lake, DAY))
    folder = config.paths.data / "tracking" / "tensorboard" / str(DAY)
    assert len(list(folder.iterdir())) == 1
    read = EventAccumulator(str(folder)).Reload()
    found = [Point(tag, e.step, e.value) for tag in read.Tags()["scalars"] for e in read.Scalars(tag)]
    assert sorted(found, key=lambda p: (p.name, p.step)) == expected()
    stored = json.loads((lake.folder("tracked", DAY) / "points.json").read_text())
    assert [Point(**p) for p in stored] == expected()


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_holds_one_run_a_night(measured: tuple[Config, Lake]) -> None:
    from mlflow.tracking import MlflowClient

    config, lake = measured
    for _ in range(2):
        list(track(config.model_copy(update={"tracking": ("mlflow",)}), lake, DAY))
    client = MlflowClient(f"sqlite:///{config.paths.data / 'tracking' / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name("nightloom")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["night"] == str(DAY)
    found = [
        Point(m.key, m.step, m.value)
        for name in run.data.metrics
        for m in client.get_metric_history(run.info.run_id, name)
    ]
    assert sorted(found, key=lambda p: (p.name, p.step)) == expected()


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_holds_an_offline_run_a_night(measured: tuple[Config, Lake]) -> None:
    config, lake = measured
    for _ in range(2):
        list(track(config.model_copy(update={"tracking": ("wandb",)}), lake, DAY))
    (made,) = (config.paths.data / "tracking" / "wandb" / str(DAY)).rglob(f"*night-{DAY}.wandb")
    assert b"aligner/cross_modal" in made.read_bytes()


def test_off_imports_nothing_and_a_tracker_that_is_missing_is_said(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("tensorboard", "mlflow", "wandb")
    code = f"import sys, assets.definitions, pipelines.track; print([m for m in {names!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    shop.write_text('tracking = ["mlflow"]\n' + shop.read_text())
    monkeypatch.setattr("pipelines.verify.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking: 'mlflow' is not installed here; pip install mlflow"):
        verify(load_config(shop))
