"""What a night has measured, told to trackers that people have: TensorBoard, MLflow, Weights & Biases.

Writes ``tracked``: ``points.json``, all that was told; exists with ``tracking``. Each tracker keeps its own files below
``data/tracking``; a night that is run again replaces what it has told. Belongs here: what is told, how each takes it.
Does not: measuring (the stages), plots of ours (``report``).
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.lake.cards import load_card
from pipelines.lake.folders import scratch, swap_in
from pipelines.lake.storage import Lake, Manifest

log = logging.getLogger(__name__)

PROJECT = "nightloom"
MOST_METRICS = 1000  # of one call to MLflow


@dataclass(frozen=True)
class Point:
    """One number.

    Attributes:
        name: ``group/...``; of what was measured.
        step: place on its curve: a training step, an epoch, a trial, or the number of the night since ``start_date``.
        value: the number.
    """

    name: str
    step: int
    value: float

    @property
    def group(self) -> str:
        """What its steps count."""
        return self.name.partition("/")[0]


def track(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Tell the trackers of the configuration, and publish ``tracked``."""
    points = points_of(config, lake, day)
    for tracker in config.tracking:
        TRACKERS[tracker](config.paths.data / "tracking", day, points)
    content = json.dumps([asdict(p) for p in points], indent=1).encode()
    yield lake.publish_files("tracked", day, {"points.json": content}, config_digest=config.digest("tracking"))
    log.info("tracked %s: %d numbers to %s", day, len(points), ", ".join(config.tracking))


def points_of(config: Config, lake: Lake, day: date) -> list[Point]:
    """All that is told of a night, by name and step."""
    night = (day - config.start_date).days
    found = [*_aligner(lake, day), *_finetuned(lake, day), *_search(lake, day)]
    found += [*_evaluated(lake, day, night), *_experiments(lake, day, night)]
    return sorted(found, key=lambda p: (p.name, p.step))


def _card(lake: Lake, name: str, day: date) -> dict[str, Any]:
    return load_card(lake, name, day) if lake.manifest(f"model_{name}", day) else {}


def _numbers(row: dict[str, Any], without: str) -> dict[str, float]:
    return {k: float(v) for k, v in row.items() if k != without and isinstance(v, int | float)}


def _aligner(lake: Lake, day: date) -> list[Point]:
    card = _card(lake, "aligner", day)
    curve = [(p["step"], n, v) for p in card.get("curve", []) for n, v in _numbers(p, "step").items()]
    found = [Point(f"aligner/{name}", step, value) for step, name, value in curve]
    for pair, numbers in card.get("retrieval", {}).items():
        found += [Point(f"aligner/{pair}/{n}", card["steps"], v) for n, v in _numbers(numbers, "").items()]
    return found


def _finetuned(lake: Lake, day: date) -> list[Point]:
    history = _card(lake, "finetuned", day).get("history", [])
    return [Point(f"finetune/{n}", h["epoch"], v) for h in history for n, v in _numbers(h, "epoch").items()]


def _search(lake: Lake, day: date) -> list[Point]:
    tried = _card(lake, "settings", day).get("tried", {})
    return [Point(f"search/{m}/ndcg", n, t["ndcg"]) for m, trials in tried.items() for n, t in enumerate(trials)]


def _evaluated(lake: Lake, day: date, night: int) -> list[Point]:
    if lake.manifest("eval_offline", day) is None:
        return []
    rows = [r for r in lake.read("eval_offline", day).to_pylist() if r["slice"] == "all"]
    return [Point(f"nights/{r['model']}/{r['metric']}_at_{r['k']}", night, r["value"]) for r in rows]


def _experiments(lake: Lake, day: date, night: int) -> list[Point]:
    if lake.manifest("eval_experiments", day) is None:
        return []
    found = []
    for r in lake.read("eval_experiments", day).to_pylist():
        name = f"experiments/{r['experiment']}/{r['arm']}/{r['metric']}"
        numbers = {n: r[n] for n in ("mean", "effect", "low", "high") if r[n] is not None}
        found += [Point(f"{name}/{n}", night, v) for n, v in numbers.items()]
    return found


# --- trackers -----------------------------------------------------------------------------------------------------


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _tensorboard(folder: Path, day: date, points: Sequence[Point]) -> None:
    """Event files below ``tensorboard/<night>``, which appear whole."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    place = folder / "tensorboard"
    with scratch(place, "night") as staging:
        writer = EventFileWriter(str(staging / day.isoformat()))
        for p in points:
            value = Summary(value=[Summary.Value(tag=p.name, simple_value=p.value)])
            writer.add_event(Event(wall_time=_midnight(day), step=p.step, summary=value))
        writer.close()
        swap_in(staging / day.isoformat(), place / day.isoformat())


def _mlflow(folder: Path, day: date, points: Sequence[Point]) -> None:
    """A run a night in ``mlflow.db``; an earlier run of the same night is deleted."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    known = client.get_experiment_by_name(PROJECT)
    files = (folder / "mlflow").as_uri()
    experiment = known.experiment_id if known else client.create_experiment(PROJECT, artifact_location=files)
    for run in client.search_runs([experiment], f"tags.night = '{day}'"):
        client.delete_run(run.info.run_id)
    at = int(1000 * _midnight(day))
    run = client.create_run(experiment, start_time=at, tags={"night": day.isoformat()}, run_name=f"night {day}")
    metrics = [Metric(p.name, p.value, at, p.step) for p in points]
    for n in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run.info.run_id, metrics[n : n + MOST_METRICS])
    client.set_terminated(run.info.run_id, end_time=at)


def _wandb(folder: Path, day: date, points: Sequence[Point]) -> None:
    """An offline run a night below ``wandb/<night>``; `wandb sync` sends it where there is a network."""
    import wandb

    place = folder / "wandb" / day.isoformat()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    quiet = wandb.Settings(silent=True, console="off")
    run = wandb.init(
        project=PROJECT, id=f"night-{day}", name=f"night {day}", dir=str(place), mode="offline", settings=quiet
    )
    for group in sorted({p.group for p in points}):
        run.define_metric(f"{group}/*", step_metric=f"{group}/step")
    ordered = sorted(points, key=lambda p: (p.group, p.step))
    for (group, step), mine in groupby(ordered, key=lambda p: (p.group, p.step)):
        run.log({f"{group}/step": step} | {p.name: p.value for p in mine})
    run.finish()


TRACKERS: dict[str, Callable[[Path, date, Sequence[Point]], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
